//! Protection records as a terminal holds them: who speaks for which addresses, in which groups
//! (FORMATS section 8.1; REQUIREMENTS ).

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{SEARCH_KEY_LEN, SignedRecord};
use crate::ids::{GroupNumber, KeyEpoch, KeyName, TerminalNumber};
use crate::keys::Secret;
use crate::terminal::Terminal;

/// Those of others: in memory only, bounded, and of each terminal the newest.
#[derive(Debug, Default)]
pub(super) struct Records {
    held: BTreeMap<TerminalNumber, Held>,
    /// Who was unheard for longest stands first.
    by_turn: BTreeSet<(u64, TerminalNumber)>,
    turn: u64,
}

#[derive(Debug)]
struct Held {
    record: SignedRecord,
    heard: u64,
}

impl Records {
    pub(super) fn get(&self, terminal: TerminalNumber) -> Option<&SignedRecord> {
        self.held.get(&terminal).map(|held| &held.record)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &SignedRecord> {
        self.held.values().map(|held| &held.record)
    }

    /// In place of an older one of that terminal, or of the terminal that was unheard for longest.
    pub(super) fn put(&mut self, record: SignedRecord) {
        let terminal = record.record().terminal;
        let heard = self.next_turn();
        if let Some(before) = self.held.insert(terminal, Held { record, heard }) {
            self.by_turn.remove(&(before.heard, terminal));
        }
        self.by_turn.insert((heard, terminal));
        while self.held.len() > RECORDS_MAX
            && let Some((_, oldest)) = self.by_turn.pop_first()
        {
            self.held.remove(&oldest);
        }
    }

    /// It is still said.
    pub(super) fn heard_again(&mut self, terminal: TerminalNumber) {
        let turn = self.next_turn();
        if let Some(held) = self.held.get_mut(&terminal) {
            self.by_turn.remove(&(held.heard, terminal));
            held.heard = turn;
            self.by_turn.insert((turn, terminal));
        }
    }

    pub(super) fn forget(&mut self, terminals: &[TerminalNumber]) {
        for terminal in terminals {
            if let Some(held) = self.held.remove(terminal) {
                self.by_turn.remove(&(held.heard, *terminal));
            }
        }
    }

    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }
}

impl Terminal {
    /// What the server says of this terminal's own addresses and packet groups; `None`: nothing, or
    /// nothing that still counts.
    #[must_use]
    pub fn own_record(&self) -> Option<&SignedRecord> {
        let own = self.own_record.as_ref();
        own.filter(|record| self.record_counts(record))
    }

    /// The newest record of a terminal, this one or another, that still counts.
    #[must_use]
    pub fn record_of(&self, terminal: TerminalNumber) -> Option<&SignedRecord> {
        if terminal == self.identity.number {
            return self.own_record();
        }
        let record = self.records.get(terminal);
        record.filter(|record| self.record_counts(record))
    }

    /// Every record of others that still counts, by number.
    pub fn records(&self) -> impl Iterator<Item = &SignedRecord> {
        self.records.iter().filter(|it| self.record_counts(it))
    }

    /// The search key of a packet group, and the epoch that it came with. `None` while locked, too.
    #[must_use]
    pub fn search_key(&self, group: GroupNumber) -> Option<(KeyEpoch, &Secret<SEARCH_KEY_LEN>)> {
        let group = self.group(group)?;
        Some((group.epoch(), group.search_key.as_ref()?))
    }

    /// Its time is not over, by what this terminal knows of the time.
    fn record_counts(&self, record: &SignedRecord) -> bool {
        self.not_earlier_than() <= record.record().not_after
    }

    /// What stolen keys said of anybody is not believed any more.
    pub(super) fn forget_records_by(&mut self, stolen: &[KeyName]) {
        let by_thief = |record: &SignedRecord| stolen.contains(&record.signer());
        let forged = self.records.iter().filter(|it| by_thief(it));
        let forged: Vec<_> = forged.map(|it| it.record().terminal).collect();
        self.records.forget(&forged);
        if self.own_record.take_if(|it| by_thief(it)).is_some() {
            self.dirty = true;
        }
    }
}

/// Records of others that one terminal holds.
pub(super) const RECORDS_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{ProtectionRecord, SigningKey};
    use crate::ids::UnixSeconds;

    /// The bound holds, and whoever is heard stays.
    #[test]
    fn the_longest_unheard_record_goes_first() {
        let key = SigningKey::from_seed(Secret::init_with(|into| into.fill(7)));
        let number = |n| TerminalNumber::new(n).expect("not 0");
        let record = |n| {
            let record = ProtectionRecord {
                terminal: number(n),
                version: 1,
                issued_at: UnixSeconds::new(1),
                not_after: UnixSeconds::new(2),
                prefixes: Vec::new(),
                endpoints: Vec::new(),
                groups: Vec::new(),
            };
            record.signed_by(&key)
        };
        let mut records = Records::default();
        let max = u32::try_from(RECORDS_MAX).expect("fits");
        (1..=max).for_each(|n| records.put(record(n)));
        records.heard_again(number(1));
        records.put(record(max + 1));
        records.put(record(max + 2));
        let held = [1, 2, 3, 4, max + 2].map(|n| records.get(number(n)).is_some());
        assert_eq!(held, [true, false, false, true, true]);
        assert_eq!(records.held.len(), RECORDS_MAX);
        assert_eq!(records.by_turn.len(), RECORDS_MAX);
        records.forget(&[number(1), number(2)]);
        assert_eq!(records.by_turn.len(), RECORDS_MAX - 1);
    }
}
