//! Whom this terminal listens to no more (FORMATS section 2.3; REQUIREMENTS R-007).

use std::collections::BTreeMap;

use crate::command::codec::{Reader, Writer, Written};
use crate::error::DecodeError;
use crate::ids::{KeyName, TerminalNumber};
use crate::stats::DropReason;

/// The terminals that were cut off, with the key that said so: a KEYSET that names it stolen voids
/// them.
#[derive(Debug, Default)]
pub(super) struct Exclusions(BTreeMap<TerminalNumber, Excluded>);

#[derive(Clone, Copy, Debug)]
struct Excluded {
    by: KeyName,
    /// Powered-on seconds when it was heard.
    at: u64,
}

impl Exclusions {
    pub(super) fn contains(&self, terminal: TerminalNumber) -> bool {
        self.0.contains_key(&terminal)
    }

    /// Everyone cut off, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = TerminalNumber> + '_ {
        self.0.keys().copied()
    }

    /// Cuts off; returns those that were not before. `co_signed`: the erase class signed, too, and
    /// no daily bound holds.
    ///
    /// # Errors
    /// [`DropReason::ExcludeBudget`], and nothing has changed.
    pub(super) fn cut(
        &mut self,
        terminals: &[TerminalNumber],
        by: KeyName,
        powered: u64,
        co_signed: bool,
    ) -> Result<Vec<TerminalNumber>, DropReason> {
        let fresh: Vec<_> = terminals
            .iter()
            .copied()
            .filter(|terminal| !self.contains(*terminal))
            .collect();
        let today = |held: &&Excluded| held.by == by && held.at.saturating_add(DAY) > powered;
        let used = self.0.values().filter(today).count();
        let too_many = !co_signed && used + fresh.len() > A_DAY_MAX;
        if !fresh.is_empty() && (too_many || self.0.len() + fresh.len() > EXCLUDED_MAX) {
            return Err(DropReason::ExcludeBudget);
        }
        let excluded = Excluded { by, at: powered };
        self.0
            .extend(fresh.iter().map(|&terminal| (terminal, excluded)));
        Ok(fresh)
    }

    /// Takes back what stolen keys said; returns whom.
    pub(super) fn void(&mut self, stolen: &[KeyName]) -> Vec<TerminalNumber> {
        let void = |(_, excluded): &(&TerminalNumber, &Excluded)| stolen.contains(&excluded.by);
        let back: Vec<_> = self.0.iter().filter(void).map(|(&it, _)| it).collect();
        for terminal in &back {
            self.0.remove(terminal);
        }
        back
    }

    pub(super) fn write(&self, e: &mut Writer<'_>) -> Written {
        e.array(self.0.len() as u64)?;
        for (terminal, excluded) in &self.0 {
            e.array(3)?.u32(terminal.get())?;
            e.bytes(excluded.by.as_bytes())?.u64(excluded.at)?;
        }
        Ok(())
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut held = BTreeMap::new();
        for _ in 0..r.array_between("exclusions", 0, EXCLUDED_MAX as u64)? {
            r.array("exclusion", 3)?;
            let terminal = r.terminal()?;
            let by = r.key_name()?;
            let at = r.uint("powered-on time")?;
            held.insert(terminal, Excluded { by, at });
        }
        Ok(Self(held))
    }

    /// Octets of [`Self::write`] at the most.
    pub(super) fn octets_max(&self) -> usize {
        9 + 24 * self.0.len()
    }
}

/// Terminals that one key of the keys class may cut off in a powered-on day.
const A_DAY_MAX: usize = 256;
/// Powered-on seconds of a day.
const DAY: u64 = 86_400;
/// Exclusions that are remembered in all.
const EXCLUDED_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn terminals(range: std::ops::Range<u32>) -> Vec<TerminalNumber> {
        range
            .map(|n| TerminalNumber::new(n).expect("small"))
            .collect()
    }

    /// FORMATS section 2.3: 256 in a powered-on day from one key, more with the erase class.
    #[test]
    fn one_key_cuts_off_no_more_than_256_in_a_powered_on_day() {
        let (thief, server) = (KeyName::new([1; 8]), KeyName::new([2; 8]));
        let mut held = Exclusions::default();
        for block in 0..4 {
            let names = terminals(1 + 64 * block..65 + 64 * block);
            assert_eq!(
                held.cut(&names, thief, 1000, false).map(|f| f.len()),
                Ok(64)
            );
        }
        let more = terminals(1000..1001);
        let refused = Err(DropReason::ExcludeBudget);
        assert_eq!(held.cut(&more, thief, 1000, false), refused);
        // Repeats cost nothing, and the others go on.
        assert_eq!(held.cut(&terminals(1..65), thief, 1000, false), Ok(vec![]));
        assert_eq!(held.cut(&more, server, 1000, false), Ok(more.clone()));
        let late = terminals(2000..2001);
        assert_eq!(held.cut(&late, thief, 1000, true), Ok(late.clone()));
        assert_eq!(
            held.cut(&terminals(3000..3001), thief, 87_401, false)
                .map(|f| f.len()),
            Ok(1)
        );
    }
}
