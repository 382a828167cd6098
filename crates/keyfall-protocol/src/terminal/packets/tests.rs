use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{
    BLOCK, PacketMark, Packets, REFUSED_MAX, Recorded, SEQUENCE_MAX, SESSIONS_MAX, Standing,
};
use crate::ids::{EspSession, Generation, KeyEpoch, TerminalNumber};

fn session(number: u64) -> EspSession {
    let [_, _, _, octets @ ..] = number.to_be_bytes();
    EspSession::new(octets)
}

fn key(sender: u32) -> (KeyEpoch, Generation, TerminalNumber) {
    let sender = TerminalNumber::new(sender).expect("not 0");
    (KeyEpoch::new(7), Generation::ZERO, sender)
}

fn mark(sender: u32, of: u64, sequence: u32) -> PacketMark {
    let (epoch, generation, sender) = key(sender);
    PacketMark {
        epoch,
        generation,
        sender,
        session: session(of),
        sequence,
    }
}

#[test]
fn sessions_of_one_start_count_up_and_each_start_draws_anew() {
    let mut packets = Packets::default();
    let mut block = packets.open_block(|| session(100));
    let taken: Vec<_> = std::iter::from_fn(|| block.take()).collect();
    assert_eq!(taken, (100..116).map(session).collect::<Vec<_>>());
    assert_eq!((block.left(), block.take()), (0, None));
    let mut next = packets.open_block(|| unreachable!("the start has its sessions"));
    assert_eq!(next.take(), Some(session(116)));
    packets.begun = false;
    // Before, within and just after what is recorded.
    let mut drawn = [85, 100, 131, 84].into_iter().map(session);
    let mut next = packets.open_block(|| drawn.next().expect("84 is free"));
    assert_eq!(next.take(), Some(session(84)));
    assert_eq!(drawn.next(), None);
    let mut next = packets.open_block(|| session(5000));
    assert_eq!(next.take(), Some(session(5000)), "100 is next, and taken");
}

#[test]
fn marks_only_rise_and_a_session_never_heard_begins_at_nothing() {
    let mut packets = Packets::default();
    assert_eq!(packets.standing(key(2), session(1)), Standing::UpTo(0));
    assert!(packets.record(mark(2, 1, 64)).is_some() && packets.record(mark(2, 1, 30)).is_some());
    assert_eq!(packets.standing(key(2), session(1)), Standing::UpTo(64));
    assert_eq!(packets.standing(key(3), session(1)), Standing::UpTo(0));
    packets.forget(|_, generation| generation != Generation::ZERO);
    assert_eq!(packets.standing(key(2), session(1)), Standing::UpTo(0));
    assert!(packets.heard.is_empty());
}

#[test]
fn the_session_idle_longest_is_refused_when_the_65th_comes_and_too_many_end_the_sender() {
    let mut packets = Packets::default();
    let sessions = SESSIONS_MAX as u64;
    for of in 0..sessions {
        assert!(packets.record(mark(2, of, 1)).is_some());
    }
    assert!(packets.record(mark(2, 0, 2)).is_some(), "heard again");
    let recorded = packets.record(mark(2, sessions, 1));
    let displaced = Some(session(1));
    assert_eq!(
        recorded,
        Some(Recorded {
            sequence: 1,
            displaced
        })
    );
    assert_eq!(packets.standing(key(2), session(1)), Standing::Refused);
    assert!(packets.record(mark(2, 1, 9)).is_none());
    assert_eq!(packets.standing(key(2), session(0)), Standing::UpTo(2));
    let all = sessions + REFUSED_MAX as u64;
    for of in sessions + 1..all {
        assert!(packets.record(mark(2, of, 1)).is_some(), "{of}");
    }
    assert_eq!(packets.standing(key(2), session(all)), Standing::Refused);
    assert!(packets.record(mark(2, all, 1)).is_none());
    assert_eq!(
        packets.standing(key(2), session(all - 1)),
        Standing::UpTo(1)
    );
    assert!(packets.record(mark(3, all, 1)).is_some(), "another sender");
}

#[test]
fn a_mark_is_ahead_by_two_seconds_and_at_least_by_64() {
    assert_eq!(PacketMark::ahead(0, 0), 64);
    assert_eq!(PacketMark::ahead(1000, 32), 1064);
    assert_eq!(PacketMark::ahead(1000, 50_000), 101_000);
    assert_eq!(PacketMark::ahead(SEQUENCE_MAX - 3, 50), SEQUENCE_MAX);
    assert_eq!(PacketMark::ahead(5, u32::MAX), SEQUENCE_MAX);
}

proptest! {
    /// However often a terminal starts, with whatever it draws, no session is given twice.
    #[test]
    fn no_session_is_given_twice(
        starts in proptest::collection::vec((0u64..3000, 1usize..4), 1..40),
        wrap in any::<bool>(),
    ) {
        let base = if wrap { (1 << 40) - 1500 } else { 0 };
        let mut packets = Packets::default();
        let mut seen = BTreeSet::new();
        for (mut number, blocks) in starts {
            packets.begun = false;
            for _ in 0..blocks {
                let mut block = packets.open_block(|| {
                    number += 7;
                    session(base).plus(number as u32)
                });
                prop_assert_eq!(block.left(), BLOCK);
                while let Some(session) = block.take() {
                    prop_assert!(seen.insert(session), "{} comes again", session);
                }
            }
        }
    }
}
