//! Confirmations of members that are reached together: one collects them and sends what it has in
//! one BUNDLE (REQUIREMENTS R-079). It checks nothing: only the server can.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keyfall_protocol::sharing::{BUNDLE_MAX, Bundle, Confirmation};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::driver::Waking;
use crate::packet_path;

/// A member's way to the one that collects.
#[derive(Debug)]
pub(crate) struct Through {
    socket: UdpSocket,
    /// What went that way last, and when: the newest are at the end.
    went: VecDeque<(Vec<u8>, Instant)>,
}

impl Through {
    pub(crate) async fn open(collector: SocketAddr) -> io::Result<Self> {
        let own: SocketAddr = match collector {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(own).await?;
        packet_path::mark(&socket);
        socket.connect(collector).await?;
        socket.writable().await?;
        let went = VecDeque::new();
        Ok(Self { socket, went })
    }

    /// Whether it goes this way, as confirmations do and bundles of them: each once. Where the server asks for it again later,
    /// nothing came of it, so the second goes to the server itself.
    pub(crate) fn takes(&mut self, datagram: &[u8], now: Instant) -> bool {
        if confirmations_in(datagram).is_empty() {
            return false;
        }
        if let Some((_, at)) = self.went.iter().find(|(went, _)| went == datagram) {
            return now < *at + ON_ITS_WAY;
        }
        if self.went.len() >= WENT_MAX {
            self.went.pop_front();
        }
        self.went.push_back((datagram.to_vec(), now));
        self.socket.try_send(datagram).is_ok()
    }
}

/// The socket at which confirmations are collected.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

/// Since the start.
#[derive(Debug, Default)]
struct Counts {
    confirmations: AtomicU64,
    bundles: AtomicU64,
}

impl Collector {
    pub(crate) async fn open(
        address: SocketAddr,
        wakings: mpsc::Sender<Waking>,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind(address).await?;
        let address = socket.local_addr()?;
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(collect(socket, wakings, counts.clone()));
        Ok(Self {
            address,
            counts,
            task,
        })
    }

    /// Confirmations that were collected, and the bundles in which they went.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let Counts {
            confirmations,
            bundles,
        } = &*self.counts;
        (
            confirmations.load(Ordering::Relaxed),
            bundles.load(Ordering::Relaxed),
        )
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Until the terminal's loop ends.
async fn collect(socket: UdpSocket, wakings: mpsc::Sender<Waking>, counts: Arc<Counts>) {
    let mut buffer = [0u8; 2048];
    let mut gathered: Vec<Confirmation> = Vec::new();
    let mut due = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(due), if !gathered.is_empty() => {}
            heard = socket.recv_from(&mut buffer) => {
                if let Ok((len, _)) = heard {
                    if gathered.is_empty() {
                        due = Instant::now() + GATHER;
                    }
                    for one in confirmations_in(&buffer[..len]) {
                        if !gathered.contains(&one) {
                            gathered.push(one);
                        }
                    }
                }
            }
        }
        let full = gathered.len() >= BUNDLE_MAX;
        if gathered.is_empty() || !(full || due <= Instant::now()) {
            continue;
        }
        let confirmations: Vec<_> = gathered.drain(..gathered.len().min(BUNDLE_MAX)).collect();
        let taken = confirmations.len() as u64;
        counts.confirmations.fetch_add(taken, Ordering::Relaxed);
        counts.bundles.fetch_add(1, Ordering::Relaxed);
        let bundle = Bundle { confirmations }.encode();
        if wakings.send(Waking::Collected(bundle)).await.is_err() {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// What a member sent, or one that collects for others itself; nothing where it is neither.
fn confirmations_in(datagram: &[u8]) -> Vec<Confirmation> {
    match Confirmation::decode(datagram) {
        Ok(one) => vec![one],
        Err(_) => Bundle::decode(datagram).map_or_else(|_| Vec::new(), |it| it.confirmations),
    }
}

/// For so long a confirmation may be on its way: the same STOP heard twice, by carrier and by
/// datagram, is no second request.
const ON_ITS_WAY: Duration = Duration::from_millis(200);
/// Confirmations that are remembered: two for each group that changes at once.
const WENT_MAX: usize = 256;
/// For so long after the first others are waited for.
const GATHER: Duration = Duration::from_millis(20);
/// Between two bundles: whoever floods the collector has 500 datagrams a second of its link.
const PAUSE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use keyfall_protocol::command::HaltKind;
    use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, SequenceNumber};

    use super::*;

    fn confirmation(from: u8) -> Confirmation {
        Confirmation {
            kind: HaltKind::Stop,
            id: [from; 8],
            group: GroupNumber::new(7).expect("a group"),
            transaction: SequenceNumber::new(5),
            epoch: KeyEpoch::new(1),
            generation: Generation::new(2).expect("a generation"),
            mac: [from; 32],
        }
    }

    /// members that stop at once are few datagrams, and nobody counts twice. What is no
    /// confirmation goes nowhere.
    #[tokio::test]
    async fn twenty_confirmations_go_in_few_bundles() {
        let (wakings, mut inbox) = mpsc::channel(20);
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let collector = Collector::open(any, wakings).await.expect("a free port");
        let mut member = Through::open(collector.address).await.expect("a socket");
        let loopback = "loopback takes it";
        member
            .socket
            .send(b"no confirmation")
            .await
            .expect(loopback);
        for from in 0..20 {
            let datagram = confirmation(from).encode();
            assert!(member.takes(&datagram, Instant::now()));
            if from < 8 {
                member.socket.send(&datagram).await.expect(loopback);
            }
        }
        let mut heard = Vec::new();
        while heard.len() < 20 {
            let Some(Waking::Collected(octets)) = inbox.recv().await else {
                panic!("the collector ended");
            };
            heard.extend(Bundle::decode(&octets).expect("a bundle").confirmations);
        }
        assert_eq!(heard, (0..20).map(confirmation).collect::<Vec<_>>());
        let (confirmations, bundles) = collector.counts();
        assert_eq!(confirmations, 20);
        assert!((2..20).contains(&bundles), "{bundles}");
    }

    /// where nothing came of it, the second goes to the server itself.
    #[tokio::test]
    async fn a_confirmation_goes_through_a_member_once() {
        let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let mut member = Through::open(nobody.local_addr().expect("bound"))
            .await
            .expect("a socket");
        let (one, other) = (confirmation(1).encode(), confirmation(2).encode());
        let now = Instant::now();
        assert!(member.takes(&one, now));
        assert!(member.takes(&one, now), "it is on its way");
        assert!(!member.takes(&one, now + ON_ITS_WAY));
        assert!(member.takes(&other, now + ON_ITS_WAY));
        assert!(
            !member.takes(&one, now + 2 * ON_ITS_WAY),
            "nor does one of another group between them make it new"
        );
        assert!(
            !member.takes(b"a request", now),
            "only confirmations go through a member"
        );
    }

    /// A bundle of another collector is taken apart: trees work.
    #[test]
    fn bundles_are_collected_too() {
        let confirmations: Vec<_> = (0..3).map(confirmation).collect();
        let bundle = Bundle {
            confirmations: confirmations.clone(),
        };
        assert_eq!(confirmations_in(&bundle.encode()), confirmations);
        assert_eq!(confirmations_in(b""), []);
    }
}
