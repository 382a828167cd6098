//! What a restored server has to know of a journal, gathered while it is read.

use std::collections::{BTreeMap, BTreeSet};

use keyfall_protocol::command::FreshEpoch;
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, SequenceNumber, TerminalNumber};

use crate::journal::Entry;

/// The highest of each number in a journal, which a server goes on above; and who was shut out,
/// whom it never readmits.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Maxima {
    pub terminal: Option<TerminalNumber>,
    /// Epoch and generation; the epoch counts first.
    pub masters: BTreeMap<GroupNumber, (KeyEpoch, Generation)>,
    pub sequence: Option<SequenceNumber>,
    pub g: Option<Generation>,
    /// How far a terminal's wrap key was renewed by itself, beyond G.
    pub offsets: BTreeMap<TerminalNumber, u32>,
    /// Version of the newest KEYSET after the first.
    pub key_set: Option<u32>,
    /// Version of the newest LOCK or UNLOCK.
    pub locks: BTreeMap<TerminalNumber, u32>,
    /// Excluded, for good.
    pub excluded: BTreeSet<TerminalNumber>,
    /// Taken out of a group and not added again since.
    pub removed: BTreeSet<(GroupNumber, TerminalNumber)>,
    /// Told to delete or to initialize.
    pub erased: BTreeSet<TerminalNumber>,
}

impl Maxima {
    pub(super) fn note(&mut self, entry: &Entry) {
        match entry {
            Entry::Enrolment { terminal, .. } => self.terminal = self.terminal.max(Some(*terminal)),
            Entry::Epoch { group, epoch } => self.note_master(*group, *epoch, Generation::ZERO),
            Entry::Member {
                group,
                terminal,
                epoch,
                generation,
            } => {
                self.removed.remove(&(*group, *terminal));
                self.note_master(*group, *epoch, *generation);
            }
            Entry::Removal {
                group,
                terminals,
                epoch,
            } => {
                self.removed
                    .extend(terminals.iter().map(|terminal| (*group, *terminal)));
                self.note_master(*group, *epoch, Generation::ZERO);
            }
            Entry::Renewal {
                group,
                epoch,
                generation,
            } => self.note_master(*group, *epoch, *generation),
            Entry::Sequence { through } => self.sequence = self.sequence.max(Some(*through)),
            Entry::RankOne { g } => self.g = self.g.max(Some(*g)),
            Entry::Device {
                terminal, offset, ..
            } => raise(&mut self.offsets, *terminal, *offset),
            Entry::Exclusion { terminals, groups } => {
                self.excluded.extend(terminals);
                self.note_epochs(groups);
            }
            Entry::Erase {
                terminal, version, ..
            } => match version {
                Some(version) => raise(&mut self.locks, *terminal, *version),
                None => {
                    self.erased.insert(*terminal);
                }
            },
            Entry::KeySet { version, g, groups } => {
                self.key_set = self.key_set.max(Some(*version));
                self.g = self.g.max(Some(*g));
                self.note_epochs(groups);
            }
        }
    }

    fn note_epochs(&mut self, groups: &[FreshEpoch]) {
        for fresh in groups {
            self.note_master(fresh.group, fresh.new, Generation::ZERO);
        }
    }

    fn note_master(&mut self, group: GroupNumber, epoch: KeyEpoch, generation: Generation) {
        let highest = self.masters.entry(group).or_insert((epoch, generation));
        *highest = (epoch, generation).max(*highest);
    }
}

fn raise(highest: &mut BTreeMap<TerminalNumber, u32>, terminal: TerminalNumber, number: u32) {
    let held = highest.entry(terminal).or_insert(number);
    *held = number.max(*held);
}
