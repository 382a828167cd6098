//! The oracle that sees every (key, nonce): INVARIANT 3, REQUIREMENTS W-08.

use std::collections::HashSet;

use keyfall_protocol::ids::{EspSession, TerminalNumber};
use keyfall_protocol::keys::{EspSuite, MasterKey};
use proptest::prelude::*;

use super::{ipv4, master_key, sealed, terminal};
use crate::{ESP_HEAD, EspArrival, EspSender};

/// Recomputes key and nonce of a packet from what the wire says, apart from the sender's own
/// bookkeeping, and refuses to see one pair twice.
#[derive(Default)]
struct Oracle {
    seen: HashSet<([u8; 32], [u8; 12])>,
}

impl Oracle {
    fn sees(&mut self, key: &MasterKey, packet: &[u8]) {
        let arrival = EspArrival::read(packet).expect("sealed a moment ago");
        assert_eq!(arrival.spi.tag(), key.esp_tag());
        let keys = key.derive_esp(EspSuite::default(), arrival.spi.sender(), arrival.session);
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(keys.salt());
        nonce[4..].copy_from_slice(&packet[8..ESP_HEAD]);
        let key = keys.key().try_into().expect("AES-256");
        assert!(self.seen.insert((key, nonce)), "a (key, nonce) repeats");
    }
}

/// A terminal as its driver runs it: a session at random at each start, then counting up, and a
/// fresh one whenever the master key changes.
struct Started {
    number: TerminalNumber,
    session: EspSession,
    sender: EspSender,
}

impl Started {
    fn new(key: &MasterKey, number: TerminalNumber, drawn: u64) -> Self {
        let [_, _, _, session @ ..] = drawn.to_be_bytes();
        let session = EspSession::new(session);
        let sender = EspSender::new(EspSuite::default(), key, number, session);
        Self {
            number,
            session,
            sender,
        }
    }

    fn next_session(&mut self, key: &MasterKey) {
        self.session = self.session.next();
        self.sender = EspSender::new(EspSuite::default(), key, self.number, self.session);
    }
}

/// A generator that repeats itself for a given seed; not for secrets.
fn drawn(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn a_thousand_restarts_and_a_thousand_clones_repeat_no_key_and_nonce() {
    // All of them send the same packets under the same master keys, with sequence numbers from 1.
    let mut oracle = Oracle::default();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..2000 {
        let mut key = master_key(0);
        let mut terminal = Started::new(&key, terminal(42), drawn(&mut state));
        for step in 0..6 {
            if step == 2 {
                terminal.next_session(&key);
            }
            if step == 4 {
                key = key.renew();
                terminal.next_session(&key);
            }
            let packet = sealed(&mut terminal.sender, &ipv4(20));
            oracle.sees(&key, &packet);
        }
    }
    assert_eq!(oracle.seen.len(), 12_000);
}

#[test]
fn two_senders_forced_into_one_session_have_different_keystreams() {
    let key = master_key(0);
    let mut oracle = Oracle::default();
    for number in [41, 42] {
        let mut terminal = Started::new(&key, terminal(number), 5);
        oracle.sees(&key, &sealed(&mut terminal.sender, &ipv4(20)));
    }
}

proptest! {
    #[test]
    fn refused_packets_renewals_and_new_sessions_repeat_no_key_and_nonce(
        steps in proptest::collection::vec(0u8..8, 1..150),
        start in any::<u64>(),
    ) {
        let mut key = master_key(0);
        let mut terminal = Started::new(&key, terminal(7), start);
        let mut oracle = Oracle::default();
        for step in steps {
            match step {
                0 => terminal.next_session(&key),
                1 => {
                    key = key.renew();
                    terminal.next_session(&key);
                }
                2 => {
                    let mut out = [0; 10];
                    prop_assert!(terminal.sender.seal_from(&ipv4(20), &mut out).is_err());
                }
                3 => {
                    let mut out = [0; 100];
                    prop_assert!(terminal.sender.seal_from(&[1; 20], &mut out).is_err());
                }
                _ => oracle.sees(&key, &sealed(&mut terminal.sender, &ipv4(24))),
            }
        }
    }
}
