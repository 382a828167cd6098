//! The packet plane's keys, sessions and marks (FORMATS sections 3.2 and 7; REQUIREMENTS W-04, W-08,
//! W-09, A-08, A-11, X-04).

use std::collections::BTreeSet;

use super::driven::Driven;
use super::fixture::{Fleet, Stated, generation, group, master, terminal_number};
use super::net::{Net, group_of, master_of, number_of};
use crate::command::Prefix;
use crate::ids::{EspSession, Generation, KeyEpoch, TerminalNumber};
use crate::keys::{EspSuite, MasterKey, PinnedSpi};
use crate::schedule::Cadence;
use crate::stats::DropReason;
use crate::terminal::{
    Cause, Event, Input, NewStockSender, OpenedSession, Order, PacketMark, PacketQuery,
    SessionBlock, Source, StockSender,
};

const LEASE: u32 = 72 * 3600;
const SESSION: EspSession = EspSession::new([1, 2, 3, 4, 5]);

fn query(key: &MasterKey, source: Source) -> PacketQuery {
    PacketQuery {
        tag: key.esp_tag(),
        sender: terminal_number(2),
        session: SESSION,
        source,
    }
}

/// A packet that was sealed under `key`: it opens under that key and no other. What is kept is the
/// mark.
fn hear_from(
    driven: &mut Driven,
    key: &MasterKey,
    source: Source,
) -> Result<OpenedSession<u32>, DropReason> {
    let sealed_under = key.fingerprint();
    let now = driven.now;
    let opens = |key: &MasterKey, mark| (key.fingerprint() == sealed_under).then_some(mark);
    driven
        .machine
        .receive_packet(now, query(key, source), opens)
}

fn hear(driven: &mut Driven, key: &MasterKey) -> Result<OpenedSession<u32>, DropReason> {
    hear_from(driven, key, 1)
}

fn open_sessions(driven: &mut Driven) -> SessionBlock {
    driven.events.clear();
    driven.feed(Input::Order(Order::OpenPacketSessions { group: group() }));
    assert_eq!(
        driven.events,
        [],
        "nothing is granted before it is recorded"
    );
    driven.store_all();
    match &driven.events[..] {
        [Event::PacketSessionsReady { sessions, .. }] => sessions.clone(),
        other => panic!("{other:?}"),
    }
}

fn mark(driven: &mut Driven, session: EspSession, sequence: u32) -> Vec<PacketMark> {
    let mark = PacketMark {
        epoch: KeyEpoch::new(7),
        generation: driven.machine.groups()[0].generation,
        sender: terminal_number(2),
        session,
        sequence,
    };
    driven.events.clear();
    let marks = vec![mark];
    driven.feed(Input::Order(Order::MarkPackets {
        group: group(),
        marks,
    }));
    driven.store_all();
    match &driven.events[..] {
        [Event::PacketMarksStored { marks, .. }] => marks.clone(),
        other => panic!("{other:?}"),
    }
}

/// the first packet of an unknown session opens under a held key.
#[test]
fn the_first_packet_of_a_session_finds_the_held_key() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let opened = hear(&mut bob, &master(7, 0)).expect("held");
    assert_eq!(
        (opened.group, opened.generation),
        (group(), Generation::ZERO)
    );
    assert_eq!(opened.epoch, KeyEpoch::new(7));
    assert_eq!(opened.receiver, 0, "never heard before");
    assert!(opened.trial.is_none());
}

/// W-21, W-23: whoever holds the group's key can name any sender; whether a record puts that one into
/// the group is told.
#[test]
fn a_sender_that_no_record_puts_into_the_group_is_told_apart() {
    let both = [group_of(1, 0), group_of(2, 0)];
    let mut net = Net::new(&[&both, &both[..1]]);
    let recorded = |net: &mut Net, of: u32, sender: u32| {
        let key = master_of(number_of(of), 7, 0);
        let asked = PacketQuery {
            sender: terminal_number(sender),
            ..query(&key, 1)
        };
        let (now, sealed_under) = (net.now, key.fingerprint());
        let machine = &mut net.gate(1).unit.machine;
        let opens = |key: &MasterKey, _| (key.fingerprint() == sealed_under).then_some(());
        let opened = machine.receive_packet(now, asked, opens);
        opened.map(|it| it.is_recorded)
    };
    assert_eq!(recorded(&mut net, 1, 2), Ok(false), "not heard of yet");
    let signed = net.signed(2);
    net.learn(1, signed).expect("new");
    assert_eq!(recorded(&mut net, 1, 2), Ok(true));
    assert_eq!(recorded(&mut net, 2, 2), Ok(false), "in the other group");
    assert_eq!(recorded(&mut net, 1, 3), Ok(false));
}

/// a packet under a newer generation makes the older side renew, once it opened.
#[test]
fn a_packet_under_a_newer_generation_renews_the_one_that_lags() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let before = bob.snapshot();
    let opened = hear(&mut bob, &master(7, 14)).expect("within reach of four bits");
    assert_eq!(opened.generation, generation(14));
    assert_eq!(bob.snapshot(), before, "nothing moves before it is told");
    bob.feed(Input::Opened(opened.trial.expect("derived in scratch")));
    bob.store_all();
    assert_eq!((bob.generation(), bob.sending()), (Some(14), Some(14)));
    let renewed = |event: &Event| {
        matches!(
            event,
            Event::Renewed {
                cause: Cause::Gap,
                ..
            }
        )
    };
    assert!(bob.events.iter().any(renewed));
    let again = hear(&mut bob, &master(7, 14)).expect("held now");
    assert!(again.trial.is_none());
}

/// W-04: four bits say no more than 14 ahead and one behind.
#[test]
fn a_tag_of_an_older_generation_or_another_epoch_costs_nothing() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    // 15 ahead modulo 16 is one behind.
    let heard = hear(&mut bob, &master(7, 15));
    assert_eq!(heard.err(), Some(DropReason::OlderGeneration));
    let mut other = 8;
    while master(other, 0).esp_tag() >> 4 == master(7, 0).esp_tag() >> 4 {
        other += 1;
    }
    let heard = hear(&mut bob, &master(other, 0));
    assert_eq!(heard.err(), Some(DropReason::UnknownTag));
    assert_eq!(bob.machine.drops().of(DropReason::TrialBudget), 0);
}

/// Held keys come first: a group that only might hold the key costs nothing where another does.
#[test]
fn every_key_that_the_tag_fits_is_tried_and_held_ones_first() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.hear(&fleet.renew(7, Stated::at(0, 1)));
    bob.store_all();
    let mut tried = Vec::new();
    let asked = PacketQuery {
        tag: master(7, 0).esp_tag(),
        ..query(&master(7, 0), 1)
    };
    let heard = bob
        .machine
        .receive_packet(bob.now, asked, |key: &MasterKey, _| {
            tried.push(key.generation().get());
            None::<()>
        });
    assert_eq!(heard.err(), Some(DropReason::Authentication));
    assert_eq!(
        tried,
        [0],
        "in its grace; 16 would be 15 ahead of the newest"
    );
    let asked = query(&master(7, 1), 1);
    tried.clear();
    let heard = bob
        .machine
        .receive_packet(bob.now, asked, |key: &MasterKey, _| {
            tried.push(key.generation().get());
            None::<()>
        });
    assert_eq!(
        (heard.err(), &tried[..]),
        (Some(DropReason::Authentication), &[1][..])
    );
}

/// W-04: 64 first packets a second of one source under held keys, 4 under others.
#[test]
fn a_flood_of_forged_packets_moves_nothing_and_costs_the_budget() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let before = bob.snapshot();
    let forged = |bob: &mut Driven, of: u32, source| {
        let now = bob.now;
        let nothing = |_: &MasterKey, _| None::<()>;
        let heard = bob
            .machine
            .receive_packet(now, query(&master(7, of), source), nothing);
        u32::from(heard.err() == Some(DropReason::Authentication))
    };
    assert_eq!((0..1000).map(|_| forged(&mut bob, 0, 7)).sum::<u32>(), 64);
    assert_eq!(
        (0..1000)
            .map(|n| forged(&mut bob, 1 + n % 14, 7))
            .sum::<u32>(),
        4
    );
    let of_many = (0..1000).map(|n| forged(&mut bob, 1 + n % 14, 100 + u64::from(n)));
    assert_eq!(of_many.sum::<u32>(), 60);
    assert_eq!(bob.snapshot(), before);
    assert_eq!(bob.asked, [], "nothing to store");
    bob.wait(1);
    assert!(hear(&mut bob, &master(7, 3)).is_ok());
}

/// The ceiling holds for packets as for media.
#[test]
fn a_packet_above_the_ceiling_is_refused_an_insiders_too() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let stated = Stated {
        cadence: Cadence::new(1, 3600),
        ..Stated::at(1, 1)
    };
    bob.hear(&fleet.renew(7, stated));
    assert!(
        hear(&mut bob, &master(7, 9)).is_ok(),
        "eight commands may be missed"
    );
    let heard = hear(&mut bob, &master(7, 10));
    assert_eq!(heard.err(), Some(DropReason::AboveCeiling));
}

/// Own packets, and those of whom nobody listens to.
#[test]
fn own_packets_and_those_of_the_excluded_are_not_tried() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let tried = |bob: &mut Driven, sender: TerminalNumber| {
        let asked = PacketQuery {
            sender,
            ..query(&master(7, 0), 1)
        };
        let now = bob.now;
        let heard = bob
            .machine
            .receive_packet(now, asked, |_, _| -> Option<()> {
                panic!("nothing is tried")
            });
        heard.err()
    };
    let own = bob.machine.identity().number;
    assert_eq!(tried(&mut bob, own), Some(DropReason::OwnPacket));
    bob.feed(Input::Lock);
    assert_eq!(
        tried(&mut bob, terminal_number(2)),
        Some(DropReason::Locked)
    );
}

/// W-09: blocks of sessions are recorded before any of them is used; a restart draws anew.
#[test]
fn packet_sessions_are_granted_in_blocks_when_they_are_recorded() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    let mut seen = BTreeSet::new();
    let mut last = None;
    for restart in 0..20 {
        for block in 0..3 {
            let mut sessions = open_sessions(&mut alice);
            assert_eq!(sessions.left(), 16);
            while let Some(session) = sessions.take() {
                assert!(seen.insert(session), "{session} comes again");
                if block > 0 {
                    assert_eq!(last, Some(session), "one after the other");
                }
                last = Some(session.next());
            }
        }
        alice = alice.restarted();
        // A clone of an old directory draws from its own machine.
        alice.reseed(restart + 2);
        alice.hear(&fleet.time(0));
        alice.store_all();
    }
    assert_eq!(seen.len(), 20 * 48);
    alice.events.clear();
    let other = crate::ids::GroupNumber::new(4711).expect("not 0");
    alice.feed(Input::Order(Order::OpenPacketSessions { group: other }));
    assert_eq!(
        alice.events,
        [Event::PacketSessionsRefused { group: other }]
    );
}

/// FORMATS section 7: nothing delivered before is delivered again, through any crash.
#[test]
fn a_stored_mark_is_what_a_restarted_receiver_begins_with() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    assert_eq!(mark(&mut bob, SESSION, 64).len(), 1);
    assert_eq!(mark(&mut bob, SESSION, 10)[0].sequence, 64);
    for driven in [&mut bob.restarted(), &mut bob] {
        let opened = hear(driven, &master(7, 0)).expect("held");
        assert_eq!(opened.receiver, 64, "marks only rise");
    }
}

/// The session that follows was heard before the power went: it begins at its mark, not anew.
#[test]
fn the_session_that_follows_begins_at_its_stored_mark() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let next = SESSION.next();
    mark(&mut bob, SESSION, 64);
    mark(&mut bob, next, 70);
    let mut bob = bob.restarted();
    let of = |bob: &Driven, under, session| {
        let sender = terminal_number(2);
        let held = bob.machine.held_session(group(), under, sender, session);
        held.map(|(_, mark)| mark)
    };
    let under = (KeyEpoch::new(7), Generation::ZERO);
    assert_eq!(of(&bob, under, next), Ok(70));
    assert_eq!(of(&bob, under, next.next()), Ok(0));
    let other = (KeyEpoch::new(8), Generation::ZERO);
    assert_eq!(of(&bob, other, next), Err(DropReason::NotHeld));
    for number in 0..64 {
        mark(&mut bob, EspSession::new([9, 9, 9, 9, number]), 64);
    }
    assert_eq!(of(&bob, under, next), Err(DropReason::RefusedSession));
}

/// What is refused is told, so that who receives it stops.
#[test]
fn a_displaced_session_is_told() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    mark(&mut bob, SESSION, 64);
    for number in 0..64 {
        mark(&mut bob, EspSession::new([9, 9, 9, 9, number]), 64);
        let told = match &bob.events[..] {
            [Event::PacketMarksStored { displaced, .. }] => displaced.clone(),
            other => panic!("{other:?}"),
        };
        let sessions: Vec<_> = told.iter().map(|it| it.session).collect();
        assert_eq!(sessions, if number == 63 { vec![SESSION] } else { vec![] });
    }
}

/// The oldest idle session falls into the refused list, which outlives a restart; the next
/// generation begins anew.
#[test]
fn a_displaced_session_is_refused_until_its_generation_is_gone() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    mark(&mut bob, SESSION, 64);
    for number in 0..64 {
        mark(&mut bob, EspSession::new([9, 9, 9, 9, number]), 64);
    }
    assert_eq!(
        mark(&mut bob, SESSION, 65),
        [],
        "nothing is said of it any more"
    );
    let mut bob = bob.restarted();
    let heard = hear(&mut bob, &master(7, 0));
    assert_eq!(heard.err(), Some(DropReason::RefusedSession));
    bob.hear(&fleet.time(0));
    bob.hear(&fleet.renew(7, Stated::at(0, 1)));
    bob.store_all();
    let heard = hear(&mut bob, &master(7, 0));
    assert_eq!(
        heard.err(),
        Some(DropReason::RefusedSession),
        "in its grace"
    );
    assert_eq!(
        hear(&mut bob, &master(7, 1)).map(|it| it.receiver).ok(),
        Some(0)
    );
    bob.wait(31);
    let heard = hear(&mut bob, &master(7, 0));
    assert_eq!(heard.err(), Some(DropReason::OlderGeneration));
}

fn wanted(seconds: u32) -> Order {
    Order::AddStockSender(NewStockSender {
        group: group(),
        suite: EspSuite::default(),
        seconds,
        prefixes: vec![Prefix::host([10, 9, 9, 9].into())],
    })
}

fn add_stock_sender(driven: &mut Driven, seconds: u32) -> PinnedSpi {
    driven.events.clear();
    driven.feed(Input::Order(wanted(seconds)));
    assert_eq!(driven.events, [], "nothing is told before it is stored");
    driven.store_all();
    match driven.events[..] {
        [Event::StockSenderReady { spi, .. }] => spi,
        ref other => panic!("{other:?}"),
    }
}

fn stock(driven: &Driven, spi: PinnedSpi) -> Option<(String, u32)> {
    let of = |(_, sender): (_, &StockSender)| {
        let shown = format!("{:?} {:?}", sender.keys.key_and_salt(), sender.prefixes);
        (sender.spi == spi).then_some((shown, sender.mark))
    };
    driven.machine.stock_senders().find_map(of)
}

/// FORMATS section 7, "Pinned": stored until the stated end, through renewals and restarts, with its
/// mark.
#[test]
fn a_stock_senders_key_lives_until_its_stated_end_and_no_longer() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let spi = add_stock_sender(&mut bob, 600);
    let other = add_stock_sender(&mut bob, 86_400);
    let (keys, mark) = stock(&bob, spi).expect("stored");
    assert_eq!(mark, 0);
    assert_ne!(stock(&bob, other).expect("stored").0, keys);
    bob.feed(Input::Order(Order::MarkStockSender {
        group: group(),
        spi,
        sequence: 70,
    }));
    bob.hear(&fleet.renew(7, Stated::at(0, 1)));
    bob.store_all();
    let mut bob = bob.restarted();
    bob.hear(&fleet.time(0));
    assert_eq!(stock(&bob, spi), Some((keys, 70)));
    bob.feed(Input::Lock);
    assert_eq!(stock(&bob, spi), None, "of the user's keys");
    bob.unlock().expect("what disk holds");
    bob.wait(601);
    bob.store_all();
    assert_eq!(stock(&bob, spi), None);
    let ended = Event::StockSenderEnded {
        group: group(),
        spi,
    };
    assert!(bob.events.contains(&ended));
    assert!(stock(&bob.restarted(), other).is_some());
    assert_eq!(stock(&bob.restarted(), spi), None);
}

/// A stock sender is heard as long as the group is: not beyond its lease.
#[test]
fn a_stock_sender_is_not_received_beyond_the_groups_lease() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let spi = add_stock_sender(&mut bob, u32::MAX);
    assert!(stock(&bob, spi).is_some());
    bob.wait(u64::from(LEASE) + 61);
    bob.store_all();
    let own = bob.machine.identity().number;
    assert_eq!(
        bob.machine.may_receive(group(), own),
        Err(DropReason::LeaseOver)
    );
    assert_eq!(stock(&bob, spi), None);
    assert_eq!(stock(&bob.restarted(), spi), None);
}

/// A week at the most, and only where the group's key is sent with.
#[test]
fn a_stock_senders_key_is_made_of_a_key_that_is_sent_with_and_for_a_week_at_most() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    add_stock_sender(&mut bob, u32::MAX);
    let now = bob.machine.time().expect("heard");
    let (_, sender) = bob.machine.stock_senders().next().expect("one");
    assert_eq!(sender.until().since(now), 7 * 86_400);
    for _ in 1..64 {
        add_stock_sender(&mut bob, 60);
    }
    let mut silent = bob.restarted();
    let reasons = [DropReason::TooManyStockSenders, DropReason::NoBeacon];
    for (driven, reason) in [&mut bob, &mut silent].into_iter().zip(reasons) {
        driven.events.clear();
        driven.feed(Input::Order(wanted(60)));
        driven.store_all();
        let refused = Event::StockSenderRefused {
            group: group(),
            reason,
        };
        assert!(driven.events.contains(&refused), "{:?}", driven.events);
    }
}
