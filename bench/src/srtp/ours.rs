//! Keyfall's sender and receiver, re-derivation included.

use keyfall_plane::{Refused, SrtpReceiver, SrtpSender, SrtpStream, Stretch};
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, SessionId, TerminalNumber};
use keyfall_protocol::keys::{MasterKey, Secret, SrtpSuite};

use super::{MASTER_KEY, SSRC, number, rtp_packet};

pub fn contender(octets: usize) -> impl FnMut(u32) {
    let group = GroupNumber::new(1).expect("1 is a group number");
    let bytes = Secret::from_slice(&MASTER_KEY).expect("32 octets");
    let key = MasterKey::new(group, KeyEpoch::new(1), Generation::ZERO, bytes);
    let stream = SrtpStream {
        suite: SrtpSuite::AeadAes256Gcm,
        sender: TerminalNumber::new(1).expect("1 is a terminal number"),
        session: SessionId::new([1; 6]),
        ssrc: SSRC,
    };
    let mut sender = SrtpSender::new(stream, Stretch::default());
    let mut receiver = SrtpReceiver::new(stream, Stretch::default());
    let mut packet = rtp_packet(octets);
    let mut plain = Vec::with_capacity(2048);
    let mut sequence = 0;
    move |n| {
        for _ in 0..n {
            number(&mut packet, &mut sequence);
            sender
                .protect_rtp(&key, &mut packet)
                .expect("a good packet");
            match receiver.unprotect_rtp(&packet, &mut plain) {
                Err(Refused::KeyUnknown) => receiver.try_rtp(&key, &packet, &mut plain),
                other => other,
            }
            .expect("protected a moment ago");
            std::mem::swap(&mut packet, &mut plain);
        }
    }
}
