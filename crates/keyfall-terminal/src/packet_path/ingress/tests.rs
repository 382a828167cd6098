//! Several threads that receive, fed at once.

mod feed;

use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex, mpsc as std_mpsc};
use std::thread;

use keyfall_plane::Spi;
use tokio::sync::mpsc::{self, Receiver};

use self::feed::{
    Carries, Sent, all_from, count_of, packet, place, record_of, stock_sender, terminal,
};
use super::*;
use crate::packet_path::head::{self, Load};
use crate::packet_path::inner::Layout;
use crate::packet_path::lanes::every;
use crate::packet_path::post::{self, Post};
use crate::packet_path::receiving::Held;
use crate::packet_path::unknown::WAITING_MAX;

/// What was delivered by all threads; each write takes so long.
#[derive(Clone)]
struct Delivered {
    /// The numbers in the packets, in their order.
    numbers: Arc<Mutex<Vec<u32>>>,
    /// Which locks were held at each write.
    held: Arc<Mutex<Vec<Held>>>,
    receiving: Arc<Receiving>,
    each_takes: Duration,
    fails: Arc<AtomicBool>,
}

impl Inside for Delivered {
    fn write(&self, _: &Counts, octets: &mut [u8]) {
        thread::sleep(self.each_takes);
        assert!(!self.fails.load(Ordering::Relaxed), "a defect");
        let held = self.receiving.held();
        self.held.lock().expect("no thread failed").push(held);
        let (head, packet) = octets.split_first_chunk().expect("a head");
        let payload = &packet[Layout::read(packet).expect("a segment").payload_at..];
        let size = match head::read(head) {
            Load::Segments { size } => size,
            Load::Whole | Load::Unsummed { .. } => payload.len(),
        };
        let numbers = payload.chunks(size).map(|it| it.first_chunk().copied());
        let numbers = numbers.map(|it| u32::from_be_bytes(it.expect("a number")));
        self.all().extend(numbers);
    }

    fn joins(&self) -> bool {
        true
    }
}

impl Delivered {
    fn all(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.numbers.lock().expect("no thread failed")
    }
}

/// Threads that receive, and what the driver has of them.
struct Threads {
    threads: Vec<Ingress<Delivered>>,
    posts: Vec<Post<ToIngress>>,
    inbox: Receiver<Ask>,
    receiving: Arc<Receiving>,
    delivered: Delivered,
}

fn threads(count: usize, each_takes: Duration) -> Threads {
    let receiving = Arc::new(Receiving::new(terminal(1), Arc::default()));
    let delivered = Delivered {
        numbers: Arc::default(),
        held: Arc::default(),
        receiving: Arc::clone(&receiving),
        each_takes,
        fails: Arc::default(),
    };
    let (asks, inbox) = mpsc::channel(1_024);
    let (mut threads, mut posts) = (Vec::new(), Vec::new());
    for lane in every(count) {
        let (post, orders) = post::open().expect("an eventfd");
        let wire = Wire::open((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
        threads.push(Ingress::new(
            lane,
            delivered.clone(),
            Join::new(true, true),
            Arc::new(wire),
            orders,
            asks.clone(),
            Arc::clone(&receiving),
        ));
        posts.push(post);
    }
    receiving.set_own_record(Some(record_of(1)));
    Threads {
        threads,
        posts,
        inbox,
        receiving,
        delivered,
    }
}

/// KR-587: a recording from another port comes to another thread, and so do the packets of a peer that
/// moved. Whichever is first delivers.
#[test]
fn nothing_is_delivered_twice_whichever_threads_it_comes_to() {
    let sent = Sent::new(Carries::Alone, 1, 4_000, 60);
    let Threads {
        threads,
        receiving,
        delivered,
        ..
    } = threads(3, Duration::ZERO);
    sent.begin(&receiving, u32::MAX);
    let start = Barrier::new(3);
    thread::scope(|scope| {
        for (last, mut thread) in (1..).zip(threads) {
            let (sent, start) = (&sent, &start);
            scope.spawn(move || {
                let datagrams: Vec<_> = sent.from(place(last)).collect();
                start.wait();
                for some in datagrams.chunks(7) {
                    thread.on_datagrams(some.iter().copied());
                }
            });
        }
    });
    let mut numbers = delivered.all().clone();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..4_000).collect::<Vec<_>>());
    assert_eq!(count_of(&receiving, DropReason::Replayed), 8_000);
}

/// what waits for a session, or for its mark, waits for the first thread; what comes meanwhile does
/// not overtake it, and nothing is lost.
#[test]
fn a_session_begins_and_goes_on_in_its_order() {
    const COUNT: u32 = 3_000;
    let each = [Carries::Alone, Carries::Udp, Carries::Tcp];
    for (round, carries) in (0..).zip(each.into_iter().cycle().take(12)) {
        let sent = Sent::new(carries, round, COUNT, 60);
        let Threads {
            threads,
            posts,
            mut inbox,
            receiving,
            delivered,
        } = threads(2, Duration::ZERO);
        let mut threads = threads.into_iter();
        let (mut first, mut second) = (
            threads.next().expect("the first"),
            threads.next().expect("the second"),
        );
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            // The driver needs a while to store a mark.
            let (sent, posts, is_over) = (&sent, &posts, &is_over);
            scope.spawn(move || {
                while let Some(ask) = inbox.blocking_recv() {
                    let order = if let Ask::Mark { name, mark } = ask {
                        ToIngress::Marked(vec![(name, mark)])
                    } else if let Ask::Session { .. } = ask {
                        ToIngress::Known(vec![sent.known(64)])
                    } else {
                        continue;
                    };
                    thread::sleep(Duration::from_millis(1));
                    posts[0].put(order);
                }
            });
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    first.take_orders();
                    thread::yield_now();
                }
            });
            let datagrams: Vec<_> = sent.from(place(2)).collect();
            for some in datagrams.chunks(10) {
                second.on_datagrams(some.iter().copied());
                thread::sleep(Duration::from_micros(20));
            }
            let late = Instant::now() + Duration::from_secs(10);
            while delivered.all().len() < datagrams.len() && Instant::now() < late {
                thread::sleep(Duration::from_millis(1));
            }
            is_over.store(true, Ordering::Relaxed);
            drop(second);
        });
        assert_eq!(
            *delivered.all(),
            (0..COUNT).collect::<Vec<_>>(),
            "{carries:?}"
        );
        assert_eq!(count_of(&receiving, DropReason::Held), 0);
    }
}

/// KR-588: when an order that takes a session away has been carried out, no thread delivers anything of
/// it, whatever it was about.
#[test]
fn what_was_forgotten_excluded_or_wiped_is_received_by_no_thread() {
    let orders: [fn(SessionName) -> ToIngress; 3] = [
        |name| ToIngress::Forget(vec![name]),
        |name| ToIngress::Exclude(vec![name.spi.sender()]),
        |_| ToIngress::Wipe,
    ];
    for (order, carries) in orders.into_iter().flat_map(|order| {
        let each = [Carries::Alone, Carries::Udp, Carries::Tcp];
        each.map(|carries| (order, carries))
    }) {
        // Batches of 10 ms, one of which is about when the order comes.
        let sent = Sent::new(carries, 1, 400, 60);
        let Threads {
            mut threads,
            posts,
            mut inbox,
            receiving,
            delivered,
        } = threads(5, Duration::from_micros(100));
        sent.begin(&receiving, u32::MAX);
        let mut first = threads.remove(0);
        let at_hand = receiving.find(sent.name).expect("it is known");
        let after = thread::scope(|scope| {
            for (part, mut thread) in threads.into_iter().enumerate() {
                let packets = sent.from(place(2)).skip(part).step_by(4);
                scope.spawn(move || thread.on_datagrams(packets));
            }
            while delivered.all().len() < 10 {
                thread::yield_now();
            }
            posts[0].put(order(sent.name));
            first.take_orders();
            delivered.all().len()
        });
        assert_eq!(delivered.all().len(), after, "one went on");
        assert!(
            at_hand.lock().is_none(),
            "whoever takes it up finds nothing"
        );
        first.on_datagrams(sent.from(place(1)));
        assert_eq!(delivered.all().len(), after);
        // Now it is one that nobody knows.
        let mut asked = std::iter::from_fn(|| inbox.try_recv().ok());
        assert!(asked.any(|ask| matches!(ask, Ask::Session { name, .. } if name == sent.name)));
    }
}

/// KR-589: as many packets of one source are tried, to however many threads they come.
#[test]
fn strangers_have_no_more_trials_where_several_threads_receive() {
    let Threads {
        threads, mut inbox, ..
    } = threads(3, Duration::ZERO);
    let forged = (0..250).map(|session| Sent::new(Carries::Alone, session, 1, 60));
    let forged: Vec<_> = forged.collect();
    let start = Barrier::new(3);
    thread::scope(|scope| {
        for (port, mut thread) in (1_000..).zip(threads) {
            let (forged, start) = (&forged, &start);
            scope.spawn(move || {
                start.wait();
                for sent in forged {
                    thread.on_datagrams(sent.from(SocketAddr::new(place(66).ip(), port)));
                }
            });
        }
    });
    let mut tried = HashMap::new();
    while let Ok(Ask::Session { name, .. }) = inbox.try_recv() {
        *tried.entry(name).or_insert(0) += 1;
    }
    assert_eq!(tried.len(), 64);
    assert!(tried.values().all(|&it| it == 1), "each was asked once");
}

/// KR-560: what the driver has no room to hear of uses up no trials, and what anybody can send it leaves half
/// of its inbox.
#[test]
fn a_full_inbox_uses_up_no_trials() {
    let Threads {
        mut threads,
        mut inbox,
        ..
    } = threads(1, Duration::ZERO);
    let thread = &mut threads[0];
    let messages = vec![vec![0; 40]; 2 * inbox.max_capacity()];
    thread.on_datagrams(all_from(place(66), &messages));
    assert_eq!(inbox.len(), inbox.max_capacity() / 2);
    let ended = || Ask::Ended {
        sentence: String::new(),
    };
    while thread.asks.try_send(ended()).is_ok() {}
    let sent = Sent::new(Carries::Alone, 1, 20, 60);
    thread.on_datagrams(sent.from(place(2)));
    while inbox.try_recv().is_ok() {}
    thread.on_datagrams(sent.from(place(2)));
    let asked = inbox.try_recv();
    assert!(matches!(asked, Ok(Ask::Session { name, .. }) if name == sent.name));
}

/// KR-589: what waits for marks is bounded over all sessions, to whichever threads they come.
#[test]
fn opened_packets_of_all_threads_wait_within_one_bound() {
    let sent = [1, 2].map(|session| Sent::new(Carries::Alone, session, 300, 60_000));
    let Threads {
        threads,
        receiving,
        delivered,
        ..
    } = threads(2, Duration::ZERO);
    thread::scope(|scope| {
        for (mut thread, sent) in threads.into_iter().zip(&sent) {
            sent.begin(&receiving, 0);
            scope.spawn(move || thread.on_datagrams(sent.from(place(2))));
        }
    });
    let mut waiting = 0;
    receiving.each(|_, session| waiting += session.opened.len());
    assert!(waiting * 60_000 < WAITING_MAX && waiting > 500);
    assert_eq!(waiting + count_of(&receiving, DropReason::Held), 600);
    assert_eq!(delivered.all().len(), 0);
    receiving.wipe();
    assert_eq!(
        count_of(&receiving, DropReason::Held),
        600,
        "each is counted"
    );
}

/// The driver has no time: a thread waits until it takes what it has to hear, and nobody waits for that
/// thread.
#[test]
fn who_waits_for_the_driver_holds_no_lock() {
    let sent = Sent::new(Carries::Alone, 1, 64, 60);
    for what in [
        "a session",
        "a session that begins",
        "a mark",
        "a stock sender",
    ] {
        let Threads {
            mut threads,
            posts,
            mut inbox,
            receiving,
            delivered,
        } = threads(1, Duration::ZERO);
        let mut thread = threads.remove(0);
        let fill = |thread: &Ingress<_>| while thread.asks.try_send(Ask::EchoesDue).is_ok() {};
        let (known, of_stock) = stock_sender(64, |number| packet(Carries::Alone, number, 60));
        if what == "a session that begins" {
            thread.on_datagrams(sent.from(place(2)));
            posts[0].put(ToIngress::Known(vec![sent.known(64)]));
        } else if what == "a mark" {
            sent.begin(&receiving, 0);
            thread.on_datagrams(sent.from(place(2)));
            posts[0].put(ToIngress::Marked(vec![(sent.name, 70)]));
        } else if what == "a session" {
            sent.begin(&receiving, 64);
        }
        fill(&thread);
        thread::scope(|scope| {
            scope.spawn(|| match what {
                "a session" => thread.on_datagrams(sent.from(place(2))),
                "a stock sender" => {
                    thread.receiving.stock().put(known, Instant::now());
                    thread.on_datagrams(all_from(place(2), &of_stock));
                }
                _ => drop(thread.take_orders()),
            });
            let late = Instant::now() + Duration::from_secs(5);
            while delivered.all().len() < 34 && Instant::now() < late {
                thread::yield_now();
            }
            // This takes every lock.
            let (ends, ended) = std_mpsc::channel();
            let receiving = &receiving;
            scope.spawn(move || {
                receiving.wipe();
                ends.send(()).ok();
            });
            let ended = ended.recv_timeout(Duration::from_secs(5));
            inbox.close();
            ended.expect(what);
        });
        assert!(delivered.all().len() >= 34, "{what}");
    }
}

/// KR-587, KR-588: what waits to be joined is written before anybody else can have the session, and not
/// with the next packet that comes.
#[test]
fn what_is_joined_is_written_before_its_lock_goes() {
    let (of_session, of_stock, of_unknown) = (
        Held {
            session: true,
            ..Held::default()
        },
        Held {
            stock: true,
            ..Held::default()
        },
        Held {
            unknown: true,
            ..Held::default()
        },
    );
    for (carries, len) in [(Carries::Udp, 1_000), (Carries::Tcp, 1_200)] {
        let sent = Sent::new(carries, 1, 100, len);
        type Feed<'a> = &'a dyn Fn(&mut Ingress<Delivered>, &Post<ToIngress>);
        let feed: [(Held, Feed<'_>); 4] = [
            (of_session, &|thread, _| {
                sent.begin(&thread.receiving, u32::MAX);
                thread.on_datagrams(sent.from(place(2)));
            }),
            (of_session, &|thread, post| {
                sent.begin(&thread.receiving, 0);
                thread.on_datagrams(sent.from(place(2)));
                post.put(ToIngress::Marked(vec![(sent.name, u32::MAX)]));
                thread.take_orders();
            }),
            (of_unknown, &|thread, post| {
                thread.on_datagrams(sent.from(place(2)));
                post.put(ToIngress::Known(vec![sent.known(u32::MAX)]));
                thread.take_orders();
            }),
            (of_stock, &|thread, post| {
                let (known, sealed) = stock_sender(100, |number| packet(carries, number, len));
                let spi = known.spi;
                thread.receiving.stock().put(known, Instant::now());
                thread.on_datagrams(all_from(place(2), &sealed));
                assert_eq!(thread.inside.all().len(), 64);
                post.put(ToIngress::StockMarked { spi, mark: 100 });
                thread.take_orders();
            }),
        ];
        for (expected, feed) in feed {
            let Threads {
                mut threads,
                posts,
                delivered,
                inbox: _inbox,
                ..
            } = threads(1, Duration::ZERO);
            feed(&mut threads[0], &posts[0]);
            assert_eq!(*delivered.all(), (0..100).collect::<Vec<_>>());
            let held = delivered.held.lock().expect("no thread failed");
            assert!(held.len() < 6, "they are joined: {}", held.len());
            assert!(held.iter().all(|it| *it == expected), "{held:?}");
        }
    }
}

/// KR-588: where the first thread fails, nobody is excluded any more; until the driver has heard of it the
/// others would go on.
#[test]
fn where_one_thread_fails_none_goes_on_without_orders() {
    let Threads {
        threads,
        posts,
        inbox: _inbox,
        receiving,
        delivered,
    } = threads(3, Duration::ZERO);
    let sent = Sent::new(Carries::Alone, 1, 1, 60);
    sent.begin(&receiving, u32::MAX);
    delivered.fails.store(true, Ordering::Relaxed);
    let to = threads[0].wire.local_address().expect("bound");
    thread::scope(|scope| {
        let run =
            |thread: Ingress<_>| scope.spawn(|| catch_unwind(AssertUnwindSafe(|| thread.run())));
        let running: Vec<_> = threads.into_iter().map(run).collect();
        let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        peer.send_to(&sent.packets[0], to).expect("it goes");
        let late = Instant::now() + Duration::from_secs(5);
        let have_ended = || running.iter().all(|it| it.is_finished());
        while !have_ended() && Instant::now() < late {
            thread::sleep(Duration::from_millis(10));
        }
        let have_ended = have_ended();
        for post in &posts {
            post.put(ToIngress::End);
        }
        assert!(have_ended);
    });
}

/// KR-588: the last packets of each thread lie in clear where they were joined.
#[test]
fn a_wipe_reaches_what_each_thread_has_of_its_own() {
    let Threads {
        mut threads,
        posts,
        inbox: _inbox,
        receiving,
        delivered,
    } = threads(2, Duration::ZERO);
    let sent = Sent::new(Carries::Udp, 1, 6, 1_000);
    sent.begin(&receiving, u32::MAX);
    for (thread, packets) in threads.iter_mut().zip(sent.packets.chunks(3)) {
        thread.on_datagrams(all_from(place(2), packets));
    }
    assert_eq!(delivered.all().len(), 6);
    for order in [ToIngress::AskAgain(terminal(2)), ToIngress::Wipe] {
        let wipes = matches!(order, ToIngress::Wipe);
        posts[0].put(order);
        for thread in &mut threads {
            assert!(thread.take_orders() && thread.heed());
            let is_wiped = thread.join.slot().iter().all(|it| *it == 0);
            assert_eq!(is_wiped, wipes);
        }
    }
    // A further thread that ends first takes nothing from the others.
    sent.begin(&receiving, u32::MAX);
    posts[1].put(ToIngress::End);
    assert!(!threads[1].take_orders());
    assert!(receiving.find(sent.name).is_some());
    posts[0].put(ToIngress::End);
    assert!(!threads[0].take_orders());
    assert!(receiving.find(sent.name).is_none());
}

/// This terminal's own packets come back with multicast, as many as it sends: they wait for nobody.
#[test]
fn what_this_terminal_sent_itself_takes_no_lock() {
    let Threads {
        mut threads,
        inbox: _inbox,
        receiving,
        ..
    } = threads(1, Duration::ZERO);
    let mut sent = Sent::new(Carries::Alone, 1, 3, 60);
    let own = Spi::new(terminal(1), sent.name.spi.tag());
    for packet in &mut sent.packets {
        packet[..4].copy_from_slice(&own.get().to_be_bytes());
    }
    let unknown = receiving.unknown();
    thread::scope(|scope| {
        let fed = scope.spawn(|| threads[0].on_datagrams(sent.from(place(1))));
        let late = Instant::now() + Duration::from_secs(5);
        while !fed.is_finished() && Instant::now() < late {
            thread::yield_now();
        }
        let waits = !fed.is_finished();
        drop(unknown);
        assert!(!waits);
    });
    assert_eq!(count_of(&receiving, DropReason::OwnPacket), 3);
}
