//! Messages that take more than one datagram: cut into PARTs, and put together within bounds.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::ids::Tick;
use crate::sharing::message::{
    Cookie, MESSAGE_MAX, Message, PART_OCTETS, PARTS_MAX, Part, first_8, marked, sha256,
};

/// The datagrams of a message: one, or as many PARTs as it takes. A cookie goes into each part,
/// since a server keeps no part of who has shown none.
///
/// # Panics
/// Where the message is longer than [`WHOLE_MAX`](crate::sharing::message::WHOLE_MAX).
#[must_use]
pub fn datagrams(message: &[u8], cookie: Option<Cookie>) -> Vec<Vec<u8>> {
    if message.len() <= MESSAGE_MAX {
        return vec![marked(message)];
    }
    let count = message.len().div_ceil(PART_OCTETS);
    let count = u8::try_from(count).unwrap_or(u8::MAX);
    assert!(
        count <= PARTS_MAX,
        "no message takes more than {PARTS_MAX} parts"
    );
    let whole = first_8(&sha256(&[message]));
    (0..count)
        .zip(message.chunks(PART_OCTETS))
        .map(|(index, octets)| {
            let part = Message::Part(Part {
                whole,
                index,
                count,
                cookie,
                octets,
            });
            marked(&part.encode())
        })
        .collect()
}

/// Messages that are being put together (KR-372), by source: few for each, few in all, each for a short
/// time only.
#[derive(Debug)]
pub struct Assembly<S> {
    open: HashMap<(S, [u8; 8]), Whole>,
    wholes_max: usize,
    /// The most parts that one message may have.
    parts_max: u8,
}

#[derive(Debug)]
struct Whole {
    begun: Tick,
    parts: Vec<Option<Vec<u8>>>,
    missing: usize,
}

impl<S: Copy + Eq + Hash> Assembly<S> {
    /// At most `wholes_max` messages at a time, of at most `parts_max` parts.
    #[must_use]
    pub fn new(wholes_max: usize, parts_max: u8) -> Self {
        Self {
            open: HashMap::new(),
            wholes_max,
            parts_max,
        }
    }

    /// The message, where this was its last part. What does not fit its name, comes twice or is too
    /// much is dropped.
    pub fn add(&mut self, source: S, part: &Part<'_>, now: Tick) -> Option<Vec<u8>> {
        if part.count > self.parts_max {
            return None;
        }
        let place = (source, part.whole);
        if !self.open.contains_key(&place) {
            self.make_room(source, now)?;
        }
        let whole = self.open.entry(place).or_insert_with(|| Whole {
            begun: now,
            parts: vec![None; usize::from(part.count)],
            missing: usize::from(part.count),
        });
        let count = whole.parts.len();
        match whole.parts.get_mut(usize::from(part.index)) {
            Some(missing @ None) if count == usize::from(part.count) => {
                *missing = Some(part.octets.to_vec());
                whole.missing -= 1;
            }
            Some(_) | None => return None,
        }
        if whole.missing > 0 {
            return None;
        }
        let whole = self.open.remove(&place)?;
        let message = whole
            .parts
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .concat();
        (first_8(&sha256(&[&message])) == part.whole).then_some(message)
    }

    /// Forgets what has waited too long; `None` where there is no room even so.
    fn make_room(&mut self, source: S, now: Tick) -> Option<()> {
        let of_source = self.open.keys().filter(|(from, _)| *from == source).count();
        if self.open.len() >= self.wholes_max || of_source >= WHOLES_A_SOURCE {
            self.open
                .retain(|_, whole| now.since(whole.begun) < KEPT_FOR);
        }
        let of_source = self.open.keys().filter(|(from, _)| *from == source).count();
        (self.open.len() < self.wholes_max && of_source < WHOLES_A_SOURCE).then_some(())
    }
}

const WHOLES_A_SOURCE: usize = 2;
const KEPT_FOR: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn part_of<'b>(datagram: &'b [u8]) -> Part<'b> {
        match Message::decode_datagram(datagram) {
            Ok(Message::Part(part)) => part,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_long_message_is_put_together_in_any_order_and_with_repeats() {
        let message: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
        let parts = datagrams(&message, Some([7; 16]));
        assert_eq!(parts.len(), 5);
        assert!(parts.iter().all(|part| part.len() <= 1200));
        let mut assembly = Assembly::new(4, 64);
        let mut whole = None;
        for place in [3, 0, 3, 4, 0, 2, 1] {
            let added = assembly.add(1u8, &part_of(&parts[place]), Tick::default());
            assert!(whole.is_none() || added.is_none());
            whole = whole.or(added);
        }
        assert_eq!(whole, Some(message));
        assert!(assembly.open.is_empty());
    }

    /// INVARIANT 9.
    #[test]
    fn strangers_parts_are_bounded_in_number_and_time() {
        let mut assembly = Assembly::new(16, 4);
        for n in 0..1000u32 {
            let message = [&n.to_be_bytes()[..], &[0; 3000]].concat();
            let parts = datagrams(&message, None);
            assembly.add(n, &part_of(&parts[0]), Tick::default());
        }
        assert_eq!(assembly.open.len(), 16);
        let message = vec![1; 3000];
        let parts = datagrams(&message, None);
        let later = Tick::from_secs(5);
        let mut whole = None;
        for part in &parts {
            whole = assembly.add(7, &part_of(part), later);
        }
        assert_eq!(whole, Some(message));
        let too_many = datagrams(&[2; 6000], None);
        assert_eq!(assembly.add(8, &part_of(&too_many[0]), later), None);
        assert!(
            !assembly
                .open
                .contains_key(&(8, part_of(&too_many[0]).whole))
        );
    }

    #[test]
    fn one_source_takes_no_more_than_its_share() {
        let mut assembly = Assembly::new(16, 4);
        let mut open_after = |source: u8, n: u8, second| {
            let parts = datagrams(&[n; 3000], None);
            assembly.add(source, &part_of(&parts[0]), Tick::from_secs(second));
            assembly.open.len()
        };
        let begun = [(1, 1, 0), (1, 2, 1), (1, 3, 1), (2, 1, 1), (1, 4, 5)];
        let open = begun.map(|(source, n, second)| open_after(source, n, second));
        assert_eq!(open, [1, 2, 2, 3, 3], "the oldest has waited for 5 s");
    }

    #[test]
    fn a_forged_part_spoils_one_message_and_nothing_else() {
        let message = vec![3; 3000];
        let parts = datagrams(&message, None);
        let mut forged = part_of(&parts[1]);
        let octets = vec![4; PART_OCTETS];
        forged.octets = &octets;
        let mut assembly = Assembly::new(4, 64);
        let now = Tick::default();
        assert_eq!(assembly.add(1u8, &forged, now), None);
        assert_eq!(assembly.add(1, &part_of(&parts[0]), now), None);
        assert_eq!(
            assembly.add(1, &part_of(&parts[2]), now),
            None,
            "not what was named"
        );
        for part in &parts[..2] {
            assert_eq!(assembly.add(1, &part_of(part), now), None);
        }
        assert_eq!(assembly.add(1, &part_of(&parts[2]), now), Some(message));
    }
}
