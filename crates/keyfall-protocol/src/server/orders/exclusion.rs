//! Exclusion: one order, one batch, from which on nothing new is for those that it names
//! (REQUIREMENTS R-007; FORMATS sections 2.3 and 5.3).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::command::{Body, EXCLUDED_MAX, Exclude, RECIPIENTS_MAX, Target};
use crate::ids::{TerminalNumber, UnixSeconds};
use crate::rng::Random;
use crate::server::orders::Prepared;
use crate::server::{
    Batch, By, Change, ChangeCause, Done, Exclusion, GroupRecord, JournalEntry, Refusal, Server,
};

/// What an exclusion costs: one turn of what it sends anew.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reach {
    /// Groups that get a fresh epoch.
    pub groups: usize,
    /// Terminals that stay in them, each counted once.
    pub members: usize,
    /// EXCLUDE and KEYDIST messages.
    pub frames: u64,
    /// Of these frames.
    pub octets: u64,
    /// That the link takes for them, headers of IP and UDP included.
    pub link_time: Duration,
}

/// An exclusion that may be carried out.
struct Prospect {
    exclusion: Exclusion,
    changes: Vec<Change>,
    reach: Reach,
}

impl Server {
    /// What [`Order::Exclude`](crate::server::Order::Exclude) of these terminals would send.
    ///
    /// # Errors
    /// The [`Refusal`] of that order.
    pub fn reach(
        &self,
        terminals: &[TerminalNumber],
        rng: &mut dyn Random,
    ) -> Result<Reach, Refusal> {
        self.exclusion_of(terminals, rng)
            .map(|prospect| prospect.reach)
    }

    pub(super) fn exclude(
        &self,
        terminals: &[TerminalNumber],
        by: By,
        rng: &mut dyn Random,
    ) -> Prepared {
        let Prospect {
            exclusion,
            changes,
            reach,
        } = self.exclusion_of(terminals, rng)?;
        let names: Vec<&str> = exclusion
            .terminals
            .iter()
            .filter_map(|number| self.terminals.get(number))
            .map(|terminal| terminal.name.as_str())
            .collect();
        let numbers: Vec<String> = exclusion
            .terminals
            .iter()
            .map(ToString::to_string)
            .collect();
        let outcome = format!(
            "exclusion {}: terminals {}; fresh epochs for {} groups",
            exclusion.number,
            numbers.join(" "),
            exclusion.groups.len()
        );
        let audit = self.audit(by, "exclude", &names.join(" "), outcome);
        let journal = JournalEntry::Exclusion {
            terminals: exclusion.terminals.clone(),
            groups: exclusion.groups.clone(),
        };
        let done = Done::Excluded {
            number: exclusion.number,
            groups: exclusion.groups.clone(),
            reach,
        };
        let mut all = vec![Change::Excluded(exclusion)];
        all.extend(changes);
        let batch = Batch {
            changes: all,
            audit: Some(audit),
            journal: Some(journal),
        };
        Ok((batch, done))
    }

    fn exclusion_of(
        &self,
        terminals: &[TerminalNumber],
        rng: &mut dyn Random,
    ) -> Result<Prospect, Refusal> {
        let excluded: BTreeSet<_> = terminals.iter().copied().collect();
        if !(1..=EXCLUDED_MAX).contains(&excluded.len()) {
            return Err(Refusal::ExclusionSize(excluded.len()));
        }
        for &number in &excluded {
            self.admitted_terminal(number)?;
        }
        let wall = self.at.wall;
        let today = self.excluded_since(wall) + excluded.len();
        if today > EXCLUDED_A_DAY {
            return Err(Refusal::ExcludedTooMany(today));
        }
        let mut changes = Vec::new();
        let mut exclusion = Exclusion {
            number: self
                .exclusions
                .keys()
                .next_back()
                .map_or(1, |last| last + 1),
            at: wall,
            terminals: excluded.iter().copied().collect(),
            groups: Vec::new(),
        };
        let mut reach = Reach::default();
        let mut staying = BTreeSet::new();
        for group in self.groups.values() {
            let leave: Vec<_> = excluded.intersection(&group.members).copied().collect();
            if leave.is_empty() {
                continue;
            }
            changes.extend(leave.into_iter().map(|terminal| Change::Left {
                group: group.number,
                terminal,
                until: wall,
            }));
            // No lead: whoever holds the new epoch sends with it (FORMATS section 5.3).
            let at = self.tick_before(group.schedule.cadence, wall);
            let (fresh, rekeyed) = self.fresh_epoch(group, at, rng);
            let stay: Vec<_> = group.members.difference(&excluded).copied().collect();
            let (frames, octets) = self.weigh_distribution(group, &rekeyed[0], &stay, rng);
            reach.frames += frames;
            reach.octets += octets;
            staying.extend(stay);
            exclusion.groups.push(fresh);
            changes.extend(rekeyed);
            let cause = ChangeCause::Exclusion(exclusion.number);
            let gone = &exclusion.terminals;
            changes.extend(self.begins_fresh(group, fresh.new, cause, gone));
        }
        for part in 0..exclusion.parts() {
            let octets = self.sign_for(Target::All, Body::Exclude(exclusion.part(part)));
            reach.frames += 1;
            reach.octets += octets.len() as u64;
        }
        reach.groups = exclusion.groups.len();
        reach.members = staying.len();
        reach.link_time = self.carousel.link_time(reach.frames, reach.octets);
        Ok(Prospect {
            exclusion,
            changes,
            reach,
        })
    }

    /// Frames and octets of the group's KEYDIST to those who stay: one whole message and the last
    /// one are made, the others are as large as the first.
    fn weigh_distribution(
        &self,
        group: &GroupRecord,
        rekeyed: &Change,
        stay: &[TerminalNumber],
        rng: &mut dyn Random,
    ) -> (u64, u64) {
        let Change::Master { key, schedule } = rekeyed else {
            unreachable!("a fresh epoch begins with its key");
        };
        let mut weigh = |members: &[TerminalNumber]| {
            let dist = self.distribution((key, *schedule), group, members.iter(), rng);
            dist.map_or(0, |body| self.sign_for(Target::Handles, body).len() as u64)
        };
        let (whole, rest) = (stay.len() / RECIPIENTS_MAX, stay.len() % RECIPIENTS_MAX);
        let mut octets = 0;
        if whole > 0 {
            octets += whole as u64 * weigh(&stay[..RECIPIENTS_MAX]);
        }
        if rest > 0 {
            octets += weigh(&stay[stay.len() - rest..]);
        }
        (stay.len().div_ceil(RECIPIENTS_MAX) as u64, octets)
    }

    /// How many were excluded in the day before `wall`.
    fn excluded_since(&self, wall: UnixSeconds) -> usize {
        self.exclusions
            .values()
            .filter(|exclusion| wall.since(exclusion.at) < 86_400)
            .map(|exclusion| exclusion.terminals.len())
            .sum()
    }
}

impl Exclusion {
    /// How many EXCLUDE messages it takes.
    #[must_use]
    pub fn parts(&self) -> u32 {
        let parts = self.groups.len().div_ceil(crate::command::FRESH_EPOCHS_MAX);
        u32::try_from(parts.max(1)).unwrap_or(u32::MAX)
    }

    /// One of them: all terminals, and its share of the groups.
    pub(in crate::server) fn part(&self, part: u32) -> Exclude {
        let groups = self
            .groups
            .iter()
            .skip(part as usize * crate::command::FRESH_EPOCHS_MAX)
            .take(crate::command::FRESH_EPOCHS_MAX);
        Exclude {
            terminals: self.terminals.clone(),
            groups: groups.copied().collect(),
        }
    }
}

/// As many exclusions as terminals accept in a day from one key (FORMATS section 2.3).
pub const EXCLUDED_A_DAY: usize = 256;
