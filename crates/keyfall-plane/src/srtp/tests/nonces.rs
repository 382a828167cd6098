//! The oracle that sees every (key, IV): INVARIANT 3, REQUIREMENTS W-08.

use std::collections::HashSet;

use keyfall_protocol::ids::{SessionId, TerminalNumber};
use keyfall_protocol::keys::{MasterKey, SrtpSuite};
use proptest::prelude::*;

use super::{GCM, SSRC, master_key, rtcp, rtp, stream, stretch};
use crate::srtp::cipher::gcm_iv;
use crate::srtp::kdf::{Derivation, KeyUse};
use crate::{Arrival, NewSession, ProtectRefused, SrtpReceiver, SrtpSender, SrtpStream, Stretch};

/// Recomputes the session key and the IV of a packet from what the wire says, apart from the
/// sender's own bookkeeping, and refuses to see one pair twice.
#[derive(Default)]
struct Oracle {
    seen: HashSet<(Vec<u8>, [u8; 12])>,
}

impl Oracle {
    fn sees_rtp(&mut self, key: &MasterKey, j: u8, packet: &[u8]) {
        let arrival = Arrival::of_srtp(GCM, packet).expect("protected a moment ago");
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        let roc = u64::from(arrival.mki.n()) >> (16 - j);
        let index = roc << 16 | u64::from(sequence);
        self.sees(
            key,
            &arrival,
            (KeyUse::RtpEncryption, KeyUse::RtpSalt),
            index,
        );
    }

    fn sees_rtcp(&mut self, key: &MasterKey, packet: &[u8]) {
        let arrival = Arrival::of_srtcp(GCM, packet).expect("protected a moment ago");
        let word = packet[packet.len() - 18..]
            .first_chunk()
            .expect("the index stands here");
        let index = u64::from(u32::from_be_bytes(*word) & 0x7fff_ffff);
        self.sees(
            key,
            &arrival,
            (KeyUse::RtcpEncryption, KeyUse::RtcpSalt),
            index,
        );
    }

    fn sees(
        &mut self,
        key: &MasterKey,
        arrival: &Arrival,
        (encryption, salting): (KeyUse, KeyUse),
        index: u64,
    ) {
        let SrtpStream {
            suite,
            sender,
            session,
            ssrc,
        } = arrival.stream(GCM);
        let master = key.derive_srtp(suite, sender, session, arrival.mki.n(), ssrc);
        let derivation = Derivation::new(&master);
        let mut session_key = vec![0; 32];
        derivation.derive(encryption, &mut session_key);
        let mut salt = [0; 12];
        derivation.derive(salting, &mut salt);
        let iv = gcm_iv(&salt, ssrc, index);
        assert!(
            self.seen.insert((session_key, iv)),
            "a (key, IV) repeats at index {index}"
        );
    }
}

/// What a local application may do to its sequence numbers, and the group to its key.
#[derive(Clone, Copy, Debug)]
enum Step {
    Next(u8),
    Repeat(u8),
    Skip(u16),
    JumpBack(u16),
    StartOver(u16),
    Report,
    Renew,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u8..40).prop_map(Step::Next),
        3 => (0u8..200).prop_map(Step::Repeat),
        2 => any::<u16>().prop_map(Step::Skip),
        1 => any::<u16>().prop_map(Step::JumpBack),
        1 => (0u16..2000).prop_map(Step::StartOver),
        2 => Just(Step::Report),
        1 => Just(Step::Renew),
    ]
}

/// A sender that is driven as the crate's contract says: a new session whenever one is asked for.
struct Driven {
    sender: SrtpSender,
    receiver: SrtpReceiver,
    session: u64,
    j: u8,
    key: MasterKey,
    oracle: Oracle,
}

impl Driven {
    fn new(j: u8) -> Self {
        let (sender, receiver) = pair(0, j);
        Self {
            sender,
            receiver,
            session: 0,
            j,
            key: master_key(0),
            oracle: Oracle::default(),
        }
    }

    fn next_session(&mut self) {
        self.session += 1;
        (self.sender, self.receiver) = pair(self.session, self.j);
    }

    fn send(&mut self, sequence: u16) {
        let plain = rtp(sequence, b"speech");
        let mut packet = plain.clone();
        match self.sender.protect_rtp(&self.key, &mut packet) {
            Ok(index) => {
                self.oracle.sees_rtp(&self.key, self.j, &packet);
                let mut opened = Vec::new();
                let heard = self.receiver.try_rtp(&self.key, &packet, &mut opened);
                assert_eq!(heard, Ok(index));
                assert_eq!(opened, plain);
            }
            Err(ProtectRefused::Duplicate) => assert_eq!(packet, plain),
            Err(ProtectRefused::NewSession(
                NewSession::SequenceJumped | NewSession::IndexExhausted,
            )) => {
                self.next_session();
                self.send(sequence);
            }
            Err(refused @ (ProtectRefused::Malformed(_) | ProtectRefused::OtherSsrc)) => {
                unreachable!("{refused}")
            }
        }
    }

    fn report(&mut self) {
        let mut packet = rtcp();
        let index = self
            .sender
            .protect_rtcp(&self.key, &mut packet)
            .expect("a good packet");
        self.oracle.sees_rtcp(&self.key, &packet);
        let heard = self.receiver.try_rtcp(&self.key, &packet, &mut Vec::new());
        assert_eq!(heard, Ok(index));
    }
}

fn pair(session: u64, j: u8) -> (SrtpSender, SrtpReceiver) {
    let [_, _, octets @ ..] = session.to_be_bytes();
    let stream = SrtpStream {
        session: SessionId::new(octets),
        ..stream(GCM)
    };
    (
        SrtpSender::new(stream, stretch(j)),
        SrtpReceiver::new(stream, stretch(j)),
    )
}

proptest! {
    #[test]
    fn no_key_and_iv_repeat_whatever_the_application_sends(
        j in 10u8..=16,
        first in any::<u16>(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut driven = Driven::new(j);
        let mut newest = first;
        driven.send(newest);
        for step in steps {
            match step {
                Step::Next(count) => for _ in 0..count {
                    newest = newest.wrapping_add(1);
                    driven.send(newest);
                },
                Step::Repeat(back) => driven.send(newest.wrapping_sub(u16::from(back))),
                Step::Skip(ahead) => {
                    newest = newest.wrapping_add(ahead);
                    driven.send(newest);
                }
                Step::JumpBack(back) => {
                    newest = newest.wrapping_sub(back);
                    driven.send(newest);
                }
                Step::StartOver(from) => {
                    newest = from;
                    driven.send(newest);
                }
                Step::Report => driven.report(),
                Step::Renew => driven.key = driven.key.duplicate().renew(),
            }
        }
    }
}

#[test]
fn two_senders_forced_to_one_ssrc_have_different_keystreams() {
    // REQUIREMENTS W-08; the same holds for two sessions of one sender.
    let key = master_key(0);
    for suite in SrtpSuite::ALL {
        let alice = stream(suite);
        let bob = SrtpStream {
            sender: TerminalNumber::new(43).expect("43 is a terminal number"),
            ..alice
        };
        let alice_again = SrtpStream {
            session: SessionId::new(*b"sessi0"),
            ..alice
        };
        let keystreams: HashSet<_> = [alice, bob, alice_again]
            .into_iter()
            .map(|stream| {
                let mut sender = SrtpSender::new(stream, Stretch::default());
                let mut packet = rtp(1, &[0; 32]);
                sender
                    .protect_rtp(&key, &mut packet)
                    .expect("a good packet");
                packet[12..44].to_vec()
            })
            .collect();
        assert_eq!(keystreams.len(), 3, "{suite:?}");
    }
}

#[test]
fn a_thousand_restarts_of_one_ssrc_repeat_no_key_and_iv() {
    let key = master_key(0);
    let mut oracle = Oracle::default();
    for session in 0..1000 {
        let (mut sender, _) = pair(session, 16);
        for sequence in 0..3 {
            let mut packet = rtp(sequence, b"speech");
            sender
                .protect_rtp(&key, &mut packet)
                .expect("a good packet");
            oracle.sees_rtp(&key, 16, &packet);
            let mut packet = rtcp();
            sender
                .protect_rtcp(&key, &mut packet)
                .expect("a good packet");
            oracle.sees_rtcp(&key, &packet);
        }
    }
    assert_eq!(oracle.seen.len(), 6000);
}

#[test]
fn the_oracle_notices_a_sender_that_was_made_twice() {
    let key = master_key(0);
    let repeated = std::panic::catch_unwind(|| {
        let mut oracle = Oracle::default();
        for _ in 0..2 {
            let (mut sender, _) = pair(0, 16);
            let mut packet = rtp(SSRC as u16, b"speech");
            sender
                .protect_rtp(&key, &mut packet)
                .expect("a good packet");
            oracle.sees_rtp(&key, 16, &packet);
        }
    });
    assert!(repeated.is_err());
}
