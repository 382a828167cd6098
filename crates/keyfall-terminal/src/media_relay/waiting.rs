//! Packets that wait for the end of a STOP (REQUIREMENTS R-080, KR-330): bounded in number, octets and time,
//! the oldest go first.

use std::collections::VecDeque;
use std::time::Duration;

use keyfall_protocol::ids::Tick;

use crate::media_relay::Port;

/// Plain packets of one sending relay, in the order in which they came.
#[derive(Default)]
pub(super) struct Waiting {
    packets: VecDeque<(Port, Vec<u8>, Tick)>,
    octets: usize,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Takes the newest; returns how many of the oldest it drove out.
    pub(super) fn push(&mut self, now: Tick, port: Port, packet: &[u8]) -> u64 {
        self.octets += packet.len();
        self.packets.push_back((port, packet.to_vec(), now));
        self.drop_while(|waiting, came| {
            let too_many = waiting.packets.len() > PACKETS_MAX || waiting.octets > OCTETS_MAX;
            too_many || now.since(came) > AGE_MAX
        })
    }

    /// Puts back what came before all that waits.
    pub(super) fn push_first(&mut self, now: Tick, port: Port, packet: Vec<u8>) {
        self.octets += packet.len();
        self.packets.push_front((port, packet, now));
    }

    /// Drops what waited for too long; returns how many.
    pub(super) fn expire(&mut self, now: Tick) -> u64 {
        self.drop_while(|_, came| now.since(came) > AGE_MAX)
    }

    /// The oldest.
    pub(super) fn pop(&mut self) -> Option<(Port, Vec<u8>)> {
        let (port, packet, _) = self.packets.pop_front()?;
        self.octets -= packet.len();
        Some((port, packet))
    }

    fn drop_while(&mut self, goes: impl Fn(&Self, Tick) -> bool) -> u64 {
        let mut dropped = 0;
        while let Some(&(_, _, came)) = self.packets.front()
            && goes(self, came)
        {
            self.pop();
            dropped += 1;
        }
        dropped
    }
}

/// Ten seconds of speech.
const PACKETS_MAX: usize = 512;
const OCTETS_MAX: usize = 1 << 20;
/// So long a connection lives through a stop.
const AGE_MAX: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick::from_secs(100);

    fn numbers(waiting: &mut Waiting) -> Vec<u8> {
        std::iter::from_fn(|| waiting.pop())
            .map(|(_, packet)| packet[0])
            .collect()
    }

    #[test]
    fn packets_come_out_in_the_order_in_which_they_came() {
        let mut waiting = Waiting::default();
        for number in 1..=3 {
            assert_eq!(waiting.push(NOW, Port::Rtp, &[number]), 0);
        }
        waiting.push_first(NOW, Port::Rtcp, vec![0]);
        assert_eq!(waiting.len(), 4);
        assert_eq!(numbers(&mut waiting), [0, 1, 2, 3]);
        assert!(waiting.is_empty() && waiting.octets == 0);
    }

    #[test]
    fn of_too_many_packets_the_oldest_goes() {
        let mut waiting = Waiting::default();
        for number in 0..PACKETS_MAX + 3 {
            let dropped = waiting.push(NOW, Port::Rtp, &number.to_be_bytes()[7..]);
            assert_eq!(dropped, u64::from(number >= PACKETS_MAX));
        }
        assert_eq!(waiting.len(), PACKETS_MAX);
        assert_eq!(numbers(&mut waiting)[0], 3);
    }

    #[test]
    fn of_too_many_octets_the_oldest_go() {
        let mut waiting = Waiting::default();
        let large = |number: u8| vec![number; 60_000];
        let fit = u8::try_from(OCTETS_MAX / 60_000).expect("a few");
        for number in 0..fit {
            assert_eq!(waiting.push(NOW, Port::Rtp, &large(number)), 0);
        }
        assert_eq!(waiting.push(NOW, Port::Rtp, &large(fit)), 1);
        assert!(waiting.octets <= OCTETS_MAX);
        assert_eq!(numbers(&mut waiting)[0], 1);
        assert_eq!(waiting.octets, 0);
    }

    #[test]
    fn what_waited_for_too_long_goes() {
        let mut waiting = Waiting::default();
        waiting.push(NOW, Port::Rtp, &[1]);
        let later = NOW.plus(Duration::from_secs(1));
        waiting.push(later, Port::Rtp, &[2]);
        assert_eq!(waiting.expire(NOW.plus(AGE_MAX)), 0);
        let ends = NOW.plus(AGE_MAX + Duration::from_millis(1));
        assert_eq!(waiting.expire(ends), 1);
        let ends = later.plus(AGE_MAX + Duration::from_millis(1));
        assert_eq!(waiting.push(ends, Port::Rtp, &[3]), 1);
        assert_eq!(numbers(&mut waiting), [3]);
    }
}
