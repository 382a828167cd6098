//! Packets of stock senders, which know nothing of Keyfall: opened under their own keys, delivered from
//! the addresses that were named for them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyfall_plane::{EspReceiver, PinnedArrival};
use keyfall_protocol::DropReason;
use keyfall_protocol::command::{Prefix, ProtectionRecord};
use keyfall_protocol::keys::PinnedSpi;
use keyfall_protocol::terminal::{Order, Terminal};
use zeroize::Zeroizing;

use crate::packet_path::ahead::{Ahead, LEAST};
use crate::packet_path::counts::Counts;
use crate::packet_path::ingress::why;
use crate::packet_path::inner::Inner;
use crate::packet_path::waiting::Waiting;

/// What the threads that receive are told of a stock sender, once its first mark is durable.
pub(super) struct KnownStock {
    pub(super) spi: PinnedSpi,
    pub(super) receiver: EspReceiver,
    pub(super) mark: u32,
    pub(super) prefixes: Vec<Prefix>,
}

/// The side of the threads that receive.
pub(super) struct StockReceivers {
    /// This terminal's own.
    own_record: Option<Arc<ProtectionRecord>>,
    senders: HashMap<PinnedSpi, Receiving>,
    /// Opened packets above their sender's mark.
    waiting: Waiting<(PinnedSpi, u32)>,
    counts: Arc<Counts>,
}

struct Receiving {
    receiver: EspReceiver,
    ahead: Ahead,
    prefixes: Vec<Prefix>,
}

/// A packet that opened.
pub(super) struct OpenedStock {
    /// To be delivered; otherwise it waits for a mark.
    pub(super) deliver: Option<usize>,
    /// The mark to ask for.
    pub(super) mark: Option<(PinnedSpi, u32)>,
}

impl StockReceivers {
    pub(super) fn new(counts: Arc<Counts>) -> Self {
        Self {
            own_record: None,
            senders: HashMap::new(),
            waiting: Waiting::new(WAITING_MAX, WAIT_LONGEST),
            counts,
        }
    }

    pub(super) fn put(&mut self, known: KnownStock, now: Instant) {
        let highest = known.receiver.highest();
        self.senders.insert(
            known.spi,
            Receiving {
                receiver: known.receiver,
                ahead: Ahead::new(known.mark, highest, 0, now),
                prefixes: known.prefixes,
            },
        );
    }

    pub(super) fn set_own_record(&mut self, record: Option<Arc<ProtectionRecord>>) {
        self.own_record = record;
    }

    pub(super) fn forget(&mut self, spi: PinnedSpi) {
        self.senders.remove(&spi);
        self.try_waiting(None);
    }

    pub(super) fn wipe(&mut self) {
        self.senders.clear();
        self.try_waiting(None);
    }

    /// What has waited for too long goes.
    pub(super) fn expire(&mut self, now: Instant) {
        let counts = &self.counts;
        let gone = &mut |_| counts.add(DropReason::Held, 1);
        self.waiting.expire(now, gone);
    }

    /// Opens a packet into `slot`. It is judged before it is delivered: from the sender's own addresses, to
    /// one of ours or to a group.
    ///
    /// # Errors
    /// Why nothing is delivered.
    pub(super) fn open(
        &mut self,
        packet: &[u8],
        slot: &mut [u8],
        now: Instant,
    ) -> Result<OpenedStock, DropReason> {
        let arrival = PinnedArrival::read(packet).map_err(|_| DropReason::NotEsp)?;
        let sender = self.senders.get_mut(&arrival.spi);
        let sender = sender.ok_or(DropReason::UnknownTag)?;
        let (length, sequence) = match sender.receiver.open_into(packet, slot) {
            Ok(opened) => opened,
            Err(refused) => {
                // A dummy packet says nothing.
                let nothing = OpenedStock {
                    deliver: None,
                    mark: None,
                };
                return why(refused).map_or(Ok(nothing), Err);
            }
        };
        let inner = Inner::read(&slot[..length]).ok_or(DropReason::Malformed)?;
        let own = self
            .own_record
            .as_ref()
            .map_or(&[][..], |own| &own.prefixes);
        let within = |prefixes: &[Prefix], address: IpAddr| {
            prefixes.iter().any(|prefix| prefix.contains(address))
        };
        // SECURITY: it speaks only for the addresses that were named when its key was made.
        if !within(&sender.prefixes, inner.source) {
            return Err(DropReason::NotInRecord);
        }
        if !inner.destination.is_multicast() && !within(own, inner.destination) {
            return Err(DropReason::NotForUs);
        }
        let highest = sender.receiver.highest();
        let mark = sender.ahead.wanted(highest, now);
        let mark = mark.map(|mark| (arrival.spi, mark));
        if sender.ahead.covers(sequence) {
            let deliver = Some(length);
            return Ok(OpenedStock { deliver, mark });
        }
        self.hold(arrival.spi, sequence, slot[..length].to_vec(), now);
        let deliver = None;
        Ok(OpenedStock { deliver, mark })
    }

    fn hold(&mut self, spi: PinnedSpi, sequence: u32, packet: Vec<u8>, now: Instant) {
        let counts = &self.counts;
        let gone = &mut |_| counts.add(DropReason::Held, 1);
        self.waiting.push(now, (spi, sequence), packet, gone);
    }

    /// A higher mark is durable: what may be delivered now.
    pub(super) fn marked(&mut self, spi: PinnedSpi, mark: u32) -> Vec<Zeroizing<Vec<u8>>> {
        let Some(sender) = self.senders.get_mut(&spi) else {
            return Vec::new();
        };
        sender.ahead.stored(mark);
        self.try_waiting(Some(spi))
    }

    /// What waited for that sender's mark; packets of a sender that is gone go too.
    fn try_waiting(&mut self, spi: Option<PinnedSpi>) -> Vec<Zeroizing<Vec<u8>>> {
        let senders = &self.senders;
        let mut ready = self.waiting.release(|(of, sequence)| {
            let sender = senders.get(&of);
            sender.is_none_or(|sender| Some(of) == spi && sender.ahead.covers(sequence))
        });
        let all = ready.len();
        ready.retain(|((of, _), _)| senders.contains_key(of));
        let gone = all - ready.len();
        if gone > 0 {
            self.counts.add(DropReason::Held, gone as u64);
        }
        ready.into_iter().map(|(_, packet)| packet).collect()
    }
}

/// The driver's side: which the threads know, and those whose first mark is on its way.
#[derive(Default)]
pub(super) struct StockSenders(HashMap<PinnedSpi, Option<KnownStock>>);

impl StockSenders {
    /// Those that the machine received by now: the first mark of each is asked for.
    pub(super) fn refresh(&mut self, terminal: &Terminal) -> Vec<Order> {
        let mut orders = Vec::new();
        for (group, sender) in terminal.stock_senders() {
            if self.0.contains_key(&sender.spi) {
                continue;
            }
            let receiver = EspReceiver::pinned(&sender.keys, sender.spi, sender.mark);
            let mark = sender.mark.saturating_add(LEAST);
            let known = KnownStock {
                spi: sender.spi,
                receiver,
                mark,
                prefixes: sender.prefixes.clone(),
            };
            self.0.insert(sender.spi, Some(known));
            orders.push(Order::MarkStockSender {
                group,
                spi: sender.spi,
                sequence: mark,
            });
        }
        orders
    }

    /// The first mark is durable: the threads may have it.
    pub(super) fn on_marked(&mut self, spi: PinnedSpi) -> Option<KnownStock> {
        self.0.get_mut(&spi)?.take()
    }

    /// Those whose time is over, or whose group is gone.
    pub(super) fn retain(&mut self, terminal: &Terminal) -> Vec<PinnedSpi> {
        let held: Vec<_> = terminal.stock_senders().map(|(_, it)| it.spi).collect();
        let gone = self.0.extract_if(|spi, _| !held.contains(spi));
        gone.map(|(spi, _)| spi).collect()
    }

    pub(super) fn wipe(&mut self) {
        self.0.clear();
    }
}

/// Octets of packets of all stock senders that wait for a mark.
const WAITING_MAX: usize = 2 << 20;
const WAIT_LONGEST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use keyfall_plane::{EspReceiver, EspSender, esp_len};
    use keyfall_protocol::ids::{EspSession, Generation, GroupNumber, KeyEpoch, TerminalNumber};
    use keyfall_protocol::keys::{EspKeys, EspSuite, MasterKey, Secret};

    use super::*;

    const SPI: u32 = 0x1001;

    fn keys() -> EspKeys {
        EspKeys::from_octets(EspSuite::Aes256Gcm, &[7; 36]).expect("36 octets")
    }

    #[test]
    fn nothing_of_an_unknown_spi_or_of_a_session_is_opened() {
        let mut receivers = StockReceivers::new(Arc::default());
        let group = GroupNumber::new(1).expect("not 0");
        let secret = Secret::init_with(|into| into.fill(5));
        let key = MasterKey::new(group, KeyEpoch::new(1), Generation::ZERO, secret);
        let number = TerminalNumber::new(2).expect("not 0");
        let mut sender = EspSender::new(EspSuite::default(), &key, number, EspSession::new([1; 5]));
        let inner = [
            0x45, 0, 0, 20, 0, 0, 0, 0, 9, 9, 0, 0, 10, 9, 0, 1, 10, 0, 0, 1,
        ];
        let mut packet = vec![0; esp_len(inner.len())];
        sender.seal_from(&inner, &mut packet).expect("a packet");
        let (mut slot, now) = ([0; 200], Instant::now());
        let opened = receivers.open(&packet, &mut slot, now);
        assert_eq!(opened.err(), Some(DropReason::NotEsp));
        packet[..4].copy_from_slice(&SPI.to_be_bytes());
        let opened = receivers.open(&packet, &mut slot, now);
        assert_eq!(opened.err(), Some(DropReason::UnknownTag));
        let spi = PinnedSpi::new(SPI).expect("in bounds");
        let known = KnownStock {
            spi,
            receiver: EspReceiver::pinned(&keys(), spi, 0),
            mark: 64,
            prefixes: Vec::new(),
        };
        receivers.put(known, now);
        let opened = receivers.open(&packet, &mut slot, now);
        assert_eq!(opened.err(), Some(DropReason::Authentication));
        receivers.forget(spi);
        let opened = receivers.open(&packet, &mut slot, now);
        assert_eq!(opened.err(), Some(DropReason::UnknownTag));
    }

    /// W-21: what waits for marks is bounded in octets, over all stock senders, and in time; what is of a
    /// sender that is gone goes with it.
    #[test]
    fn packets_of_all_stock_senders_wait_within_one_bound() {
        let counts = Arc::new(Counts::default());
        let mut receivers = StockReceivers::new(Arc::clone(&counts));
        let now = Instant::now();
        let spis = [0x1001, 0x1002].map(|spi| PinnedSpi::new(spi).expect("in bounds"));
        for spi in spis {
            let known = KnownStock {
                spi,
                receiver: EspReceiver::pinned(&keys(), spi, 0),
                mark: 64,
                prefixes: Vec::new(),
            };
            receivers.put(known, now);
        }
        let held = || counts.all().map(|(_, count)| count).sum::<u64>();
        for sequence in 65..165 {
            for spi in spis {
                receivers.hold(spi, sequence, vec![7; 60_000], now);
            }
            assert!(receivers.waiting.octets() <= WAITING_MAX);
        }
        let left = 200 - held();
        assert!((1..=34).contains(&left), "{left} wait");
        assert!(receivers.marked(spis[0], 140).is_empty(), "those are gone");
        let ready = receivers.marked(spis[0], 160);
        assert!((1..=17).contains(&ready.len()), "{} are ready", ready.len());
        receivers.forget(spis[0]);
        receivers.expire(now + WAIT_LONGEST * 2);
        assert_eq!(receivers.waiting.octets(), 0);
        let ready = u64::try_from(ready.len()).expect("few");
        assert_eq!(held() + ready, 200, "each is counted");
    }
}
