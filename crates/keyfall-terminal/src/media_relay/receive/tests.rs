//! How marks run ahead of a stream (FORMATS section 7).

#![expect(clippy::unwrap_used, reason = "tests")]

use keyfall_plane::SrtpSender;
use keyfall_protocol::ids::{SessionId, TerminalNumber};
use keyfall_protocol::keys::Secret;

use super::*;

#[test]
fn first_mark_of_a_late_joiner_covers_sixty_four_packets_from_there() {
    let mut call = Call::new();
    call.hears(5_000, 1);
    let mark = call.stream.next_mark();
    assert_eq!((mark.rtp_index, mark.rtcp_index), (5_064, 0));
}

#[test]
fn marks_go_on_by_two_seconds_of_the_present_rate() {
    let mut call = Call::new();
    call.hears(0, 1);
    assert_eq!(call.stream.next_mark().rtp_index, 64);
    call.hears(1, 49);
    // The first second began somewhere: its packets are no rate yet.
    assert_eq!(call.stream.on_second().unwrap().rtp_index, 49 + 64);
    call.hears(50, 50);
    assert_eq!(call.stream.on_second().unwrap().rtp_index, 99 + 100);
    call.hears(100, 1000);
    assert_eq!(call.stream.on_second().unwrap().rtp_index, 1_099 + 2_000);
    assert!(
        call.stream.on_second().is_none(),
        "a silent stream needs no mark"
    );
    call.hears(1_100, 1);
    assert_eq!(call.stream.on_second().unwrap().rtp_index, 1_100 + 64);
}

/// A sudden burst asks for its mark itself, by its own pace, and a jump is no rate without end.
#[test]
fn burst_and_jump_ask_for_marks_in_bounds() {
    let mut call = Call::new();
    call.hears(0, 50);
    call.stream.on_second().unwrap();
    call.hears(50, 500);
    assert_eq!(call.stream.next_mark().rtp_index, 549 + 1_000);
    call.hears(33_000, 1);
    assert_eq!(call.stream.next_mark().rtp_index, 33_000 + 65_536);
}

/// After a restart everything up to the mark is refused, and what follows opens.
#[test]
fn known_mark_refuses_all_before_it() {
    let mut call = Call::new();
    call.hears(0, 10);
    let mark = call.stream.next_mark();
    let again = Stream::new(&[mark], *call.sender.stream(), Stretch::default());
    let mut restarted = Call {
        stream: again,
        ..Call::new()
    };
    for sequence in 10..=mark.rtp_index {
        assert_eq!(
            restarted.hear(sequence as u16),
            Err(Refused::TooOld),
            "{sequence}"
        );
    }
    assert_eq!(
        restarted.hear(mark.rtp_index as u16 + 1),
        Ok(mark.rtp_index + 1)
    );
}

/// A sender and the stream that hears it.
struct Call {
    key: MasterKey,
    sender: SrtpSender,
    stream: Stream,
}

impl Call {
    fn new() -> Self {
        let id = SrtpStream {
            suite: SrtpSuite::default(),
            sender: TerminalNumber::new(2).unwrap(),
            session: SessionId::new([3; 6]),
            ssrc: 4,
        };
        let bytes = Secret::init_with(|octets| octets.fill(5));
        let group = GroupNumber::new(7).unwrap();
        Self {
            key: MasterKey::new(group, KeyEpoch::new(1), Generation::ZERO, bytes),
            sender: SrtpSender::new(id, Stretch::default()),
            stream: Stream::new(&[], id, Stretch::default()),
        }
    }

    /// `count` packets from `first` on open.
    fn hears(&mut self, first: u16, count: u16) {
        for sequence in first..first + count {
            assert_eq!(self.hear(sequence), Ok(u64::from(sequence)));
        }
    }

    fn hear(&mut self, sequence: u16) -> Result<u64, Refused> {
        let [high, low] = sequence.to_be_bytes();
        let mut packet = vec![0x80, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 4, 42];
        self.sender.protect_rtp(&self.key, &mut packet).unwrap();
        self.stream
            .attempt(&self.key, Port::Rtp, &packet, &mut Vec::new())
    }
}
