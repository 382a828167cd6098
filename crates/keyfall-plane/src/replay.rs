//! One replay window for every plane, after RFC 6479: a ring of bit blocks in which sliding clears
//! whole blocks and shifts nothing.

/// Which of the newest indexes were seen. Check before opening, [`mark`](Self::mark) only after
/// authentication (FORMATS section 7, "Anti-replay").
///
/// `BLOCKS` words of 64 bits; one of them is always the one being filled, so the width is
/// `(BLOCKS - 1) * 64`.
#[derive(Debug)]
pub struct ReplayWindow<const BLOCKS: usize> {
    /// `None` while everything from the floor up to the highest was seen: a stream that comes in
    /// order, or rests, costs no memory.
    blocks: Option<Box<[u64; BLOCKS]>>,
    /// The highest index marked plus one; 0 while there is none.
    next: u64,
    /// The lowest index that can still be accepted, whatever the bits say.
    floor: u64,
}

/// Why an index is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stale {
    /// It was seen.
    Replayed,
    /// It lies before the window or under the initial mark, so it may have been seen.
    TooOld,
}

impl<const BLOCKS: usize> ReplayWindow<BLOCKS> {
    /// How far behind the highest an index may come.
    pub const WIDTH: u64 = (BLOCKS as u64 - 1) * 64;

    #[must_use]
    pub fn new() -> Self {
        Self {
            blocks: None,
            next: 0,
            floor: 0,
        }
    }

    /// A window that refuses everything up to and including `mark`.
    #[must_use]
    pub fn with_mark(mark: u64) -> Self {
        let next = mark.saturating_add(1);
        Self {
            blocks: None,
            next,
            floor: next,
        }
    }

    /// Whether `index` may be accepted. Changes nothing.
    ///
    /// # Errors
    /// [`Stale`] where it was seen or may have been.
    #[inline]
    pub fn check(&self, index: u64) -> Result<(), Stale> {
        if index >= self.next {
            return Ok(());
        }
        if index < self.floor || self.next - index > Self::WIDTH {
            return Err(Stale::TooOld);
        }
        let (block, bit) = Self::place(index);
        match &self.blocks {
            Some(blocks) if blocks[block] & bit == 0 => Ok(()),
            Some(_) | None => Err(Stale::Replayed),
        }
    }

    /// Enters an authenticated `index` for which [`check`](Self::check) was `Ok`.
    #[inline]
    pub fn mark(&mut self, index: u64) {
        if self.blocks.is_none() {
            if index == self.next {
                self.next = index.saturating_add(1);
                return;
            }
            self.begin_blocks();
        }
        let (next, blocks) = (self.next, &mut self.blocks);
        let Some(blocks) = blocks else {
            return;
        };
        if index >= next {
            // The block of the highest so far stays; those after it, up to the new one, begin empty.
            let from = if next == 0 { 0 } else { (next - 1) / 64 + 1 };
            let to = index / 64 + 1;
            for block in from.max(to.saturating_sub(BLOCKS as u64))..to {
                blocks[(block % BLOCKS as u64) as usize] = 0;
            }
            self.next = index.saturating_add(1);
        }
        let (block, bit) = Self::place(index);
        blocks[block] |= bit;
    }

    /// Gives the memory back: what is missing up to the highest index is refused from now on.
    pub fn rest(&mut self) {
        self.floor = self.next;
        self.blocks = None;
    }

    /// The first index that leaves a gap: bits for all that was seen in order before it.
    #[cold]
    fn begin_blocks(&mut self) {
        let mut blocks = Box::new([0; BLOCKS]);
        for index in self.floor.max(self.next.saturating_sub(Self::WIDTH))..self.next {
            let (block, bit) = Self::place(index);
            blocks[block] |= bit;
        }
        self.blocks = Some(blocks);
    }

    /// The highest index marked, or the initial mark.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    #[inline]
    fn place(index: u64) -> (usize, u64) {
        (((index / 64) % BLOCKS as u64) as usize, 1 << (index % 64))
    }
}

impl<const BLOCKS: usize> Default for ReplayWindow<BLOCKS> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{ReplayWindow, Stale};

    #[test]
    fn an_index_is_taken_once() {
        let mut window = ReplayWindow::<3>::new();
        for index in [5, 0, 64, 63, 127, 128, 1] {
            assert_eq!(window.check(index), Ok(()), "{index}");
            window.mark(index);
            assert_eq!(window.check(index), Err(Stale::Replayed), "{index}");
        }
    }

    #[test]
    fn what_lies_before_the_window_is_refused() {
        let mut window = ReplayWindow::<3>::new();
        window.mark(1000);
        assert_eq!(window.check(1000 - 127), Ok(()));
        assert_eq!(window.check(1000 - 128), Err(Stale::TooOld));
    }

    #[test]
    fn everything_up_to_the_stored_mark_is_refused() {
        let mut window = ReplayWindow::<129>::with_mark(500);
        assert_eq!(window.highest(), Some(500));
        assert_eq!(window.check(500), Err(Stale::TooOld));
        assert_eq!(window.check(0), Err(Stale::TooOld));
        window.mark(900);
        assert_eq!(
            window.check(500),
            Err(Stale::TooOld),
            "the mark outlives later packets"
        );
        assert_eq!(window.check(501), Ok(()));
    }

    #[test]
    fn the_last_index_there_is_does_not_overflow() {
        let mut window = ReplayWindow::<3>::with_mark(u64::MAX);
        assert_eq!(window.check(7), Err(Stale::TooOld));
        window.mark(u64::MAX);
        assert_eq!(window.check(u64::MAX - 200), Err(Stale::TooOld));
    }

    #[test]
    fn a_stream_in_order_or_at_rest_costs_no_memory_and_lets_nothing_in_twice() {
        let mut window = ReplayWindow::<3>::with_mark(0);
        (1..1000).for_each(|index| window.mark(index));
        assert!(window.blocks.is_none());
        assert_eq!(window.check(999), Err(Stale::Replayed));
        assert_eq!(window.check(999 - 127), Err(Stale::Replayed));
        assert_eq!(window.check(1), Err(Stale::TooOld));
        window.mark(1001);
        assert_eq!(window.check(999), Err(Stale::Replayed));
        assert_eq!(window.check(1000), Ok(()));
        window.rest();
        assert!(window.blocks.is_none());
        assert_eq!(window.highest(), Some(1001));
        assert_eq!(
            window.check(1000),
            Err(Stale::TooOld),
            "nobody knows any more"
        );
        assert_eq!(window.check(1001), Err(Stale::TooOld));
        assert_eq!(window.check(1002), Ok(()));
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set_of_all_that_was_seen(
            mark in proptest::option::of(0u64..400),
            indexes in proptest::collection::vec(
                prop_oneof![4 => 0u64..600, 1 => 0u64..100_000], 1..400),
        ) {
            let mut window = mark.map_or_else(ReplayWindow::<4>::new, ReplayWindow::with_mark);
            let mut seen = BTreeSet::new();
            for index in indexes {
                let highest = seen.last().copied().max(mark);
                let expected = if mark.is_some_and(|mark| index <= mark)
                    || highest.is_some_and(|high| index + ReplayWindow::<4>::WIDTH <= high)
                {
                    Err(Stale::TooOld)
                } else if seen.contains(&index) {
                    Err(Stale::Replayed)
                } else {
                    Ok(())
                };
                prop_assert_eq!(window.check(index), expected);
                if expected.is_ok() {
                    window.mark(index);
                    seen.insert(index);
                }
                prop_assert_eq!(window.highest(), seen.last().copied().max(mark));
            }
        }
    }
}
