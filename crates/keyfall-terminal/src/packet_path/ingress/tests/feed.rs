//! What is fed to threads that receive.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use keyfall_plane::{EspReceiver, EspSender, Spi, esp_len};
use keyfall_protocol::command::{ProtectionRecord, RecordGroup};
use keyfall_protocol::ids::{EspSession, Generation, GroupNumber, KeyEpoch, UnixSeconds};
use keyfall_protocol::keys::{EspKeys, EspSuite, MasterKey, PinnedSpi, Secret};

use super::*;
use crate::packet_path::stock::KnownStock;

pub(super) fn terminal(number: u32) -> TerminalNumber {
    TerminalNumber::new(number).expect("not 0")
}

pub(super) fn group() -> GroupNumber {
    GroupNumber::new(1).expect("not 0")
}

/// Terminal n speaks for 10.n.0.0/16.
pub(super) fn record_of(number: u32) -> Arc<ProtectionRecord> {
    Arc::new(ProtectionRecord {
        terminal: terminal(number),
        version: 1,
        issued_at: UnixSeconds::new(0),
        not_after: UnixSeconds::new(u32::MAX),
        prefixes: vec![format!("10.{number}.0.0/16").parse().expect("a prefix")],
        endpoints: Vec::new(),
        groups: vec![RecordGroup {
            group: group(),
            priority: 0,
            mtu: None,
            suite: EspSuite::default(),
            networks: Vec::new(),
        }],
    })
}

/// From terminal 2 to 1, so long.
pub(super) fn packet(carries: Carries, number: u32, len: usize) -> Vec<u8> {
    let protocol = if carries == Carries::Tcp { 6 } else { 17 };
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet.extend([10, 2, 0, 9, 10, 1, 0, 5, 0x10, 0, 0, 53]);
    if carries == Carries::Tcp {
        let payload = u32::try_from(len - 40).expect("a packet");
        packet.extend((number * payload).to_be_bytes());
        packet.extend([0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    } else {
        packet.extend([0; 4]);
    }
    packet.extend(number.to_be_bytes());
    packet.resize(len, 0);
    let layout = Layout::read(&packet).expect("headers");
    layout.write_lengths(&mut packet);
    if carries != Carries::Alone {
        layout.write_checksum(&mut packet);
    }
    packet
}

/// What the packets of a session are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Carries {
    /// UDP without a checksum, which is not joined.
    Alone,
    Udp,
    Tcp,
}

/// A session of terminal 2, with so many packets, which are numbered and so long.
pub(super) struct Sent {
    key: MasterKey,
    pub(super) name: SessionName,
    pub(super) packets: Vec<Vec<u8>>,
}

impl Sent {
    pub(super) fn new(carries: Carries, session: u8, count: u32, len: usize) -> Self {
        let secret = Secret::init_with(|into| into.fill(7));
        let key = MasterKey::new(group(), KeyEpoch::new(7), Generation::ZERO, secret);
        let session = EspSession::new([session; 5]);
        let name = SessionName {
            spi: Spi::new(terminal(2), key.esp_tag()),
            session,
        };
        let mut sender = EspSender::new(EspSuite::default(), &key, terminal(2), session);
        let seal = |number: u32| {
            let mut sealed = vec![0; esp_len(len)];
            let sealed_len = sender.seal_from(&packet(carries, number, len), &mut sealed);
            sealed.truncate(sealed_len.expect("there is room"));
            sealed
        };
        let packets = (0..count).map(seal).collect();
        Self { key, name, packets }
    }

    pub(super) fn known(&self, mark: u32) -> KnownSession {
        let (session, suite) = (self.name.session, EspSuite::default());
        KnownSession {
            name: self.name,
            group: group(),
            receiver: EspReceiver::new(suite, &self.key, terminal(2), session),
            mark,
            rate: 0,
            record: Some(record_of(2)),
        }
    }

    pub(super) fn begin(&self, receiving: &Receiving, mark: u32) {
        let session = receiving.made_of(self.known(mark), Instant::now());
        receiving.begin([(self.name, session.expect("it is new"))]);
    }

    pub(super) fn from(&self, place: SocketAddr) -> impl Iterator<Item = Datagram<'_>> {
        all_from(place, &self.packets)
    }
}

pub(super) fn all_from(
    place: SocketAddr,
    packets: &[Vec<u8>],
) -> impl Iterator<Item = Datagram<'_>> {
    let origin = Origin {
        from: place,
        to: None,
        interface: None,
    };
    packets.iter().map(move |it| (origin, &it[..]))
}

/// A stock sender with the addresses of terminal 2: what the driver tells of it, and so many packets.
pub(super) fn stock_sender(
    count: u32,
    packet: impl Fn(u32) -> Vec<u8>,
) -> (KnownStock, Vec<Vec<u8>>) {
    let octets = [7; 36];
    let keys = EspKeys::from_octets(EspSuite::Aes256Gcm, &octets).expect("36 octets");
    let spi = PinnedSpi::new(0x1001).expect("in bounds");
    let known = KnownStock {
        spi,
        receiver: EspReceiver::pinned(&keys, spi, 0),
        mark: 64,
        prefixes: record_of(2).prefixes.clone(),
    };
    let key = UnboundKey::new(&AES_256_GCM, &octets[..32]).expect("32 octets");
    let key = LessSafeKey::new(key);
    // RFC 4303 and RFC 4106, by hand.
    let seal = |number: u32| {
        let head = [spi.get(), number + 1].map(u32::to_be_bytes).concat();
        let iv = u64::from(number).to_be_bytes();
        let nonce = [&octets[32..], &iv].concat();
        let nonce = Nonce::try_assume_unique_for_key(&nonce).expect("12 octets");
        let mut text = packet(number);
        let padding = (2_u8..6).find(|it| (text.len() + usize::from(*it)).is_multiple_of(4));
        let padding = padding.expect("one of four") - 2;
        text.extend(1..=padding);
        text.extend([padding, 4]);
        key.seal_in_place_append_tag(nonce, Aad::from(&head), &mut text)
            .expect("it is sealed");
        [&head[..], &iv, &text].concat()
    };
    (known, (0..count).map(seal).collect())
}

pub(super) fn place(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 4500).into()
}

pub(super) fn count_of(receiving: &Receiving, reason: DropReason) -> usize {
    let counts = receiving.counts();
    let count = counts.all().find(|&(it, _)| it == reason);
    count.map_or(0, |(_, count)| usize::try_from(count).expect("few"))
}
