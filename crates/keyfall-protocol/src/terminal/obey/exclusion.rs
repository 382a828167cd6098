//! EXCLUDE in a terminal: it cuts the named ones off at once, and stops sending where a fresh epoch
//! is on its way (FORMATS section 2.3; REQUIREMENTS ).

use super::{Authority, allowed, within_bound};
use crate::command::Exclude;
use crate::ids::{Generation, GroupNumber};
use crate::stats::DropReason;
use crate::terminal::group::{Announced, Group};
use crate::terminal::{Event, Output, Terminal};

impl Terminal {
    pub(super) fn on_exclude(
        &mut self,
        exclude: &Exclude,
        authority: &Authority,
    ) -> Result<(), DropReason> {
        let powered = self.powered.charged();
        let by = authority.name;
        // The fresh epochs are true also where so many may not be cut off at a time.
        let (cut, refused) =
            match self
                .exclusions
                .cut(&exclude.terminals, by, powered, authority.co_signed)
            {
                Ok(cut) => (cut, None),
                Err(reason) => (Vec::new(), Some(reason)),
            };
        let mut changed = !cut.is_empty();
        for fresh in &exclude.groups {
            let expires = authority.signer.expires;
            let outside = allowed(&authority.signer, fresh.group).err().or_else(|| {
                let bounded = within_bound(fresh.new, Generation::ZERO, expires);
                (!bounded).then_some(DropReason::AboveBound)
            });
            if let Some(reason) = outside {
                self.drops.count(self.now, reason);
                continue;
            }
            let announced = Announced {
                epoch: fresh.new,
                by,
                excluded_at: Some(powered),
            };
            changed |= self.leave_epoch(fresh.group, announced);
        }
        if !cut.is_empty() {
            self.forget_peers(&cut);
            // At once: that it is not durable yet loses nothing, since the carousel repeats it.
            let event = Event::Excluded { terminals: cut };
            self.outputs.push_back(Output::Event(event));
        }
        self.dirty |= changed;
        match refused {
            Some(reason) => Err(reason),
            None if changed => Ok(()),
            None => Err(DropReason::NotNewer),
        }
    }

    /// Whether an EXCLUDE would change nothing here.
    pub(super) fn knows_exclusion(&self, exclude: &Exclude) -> bool {
        let cut = |terminal| self.exclusions.contains(terminal);
        let left = |group: &Group, epoch| {
            let announced = group.announced.is_some_and(|it| {
                it.epoch > epoch || (it.epoch == epoch && it.excluded_at.is_some())
            });
            announced || (group.epoch() >= epoch && group.left_nothing())
        };
        let groups = self.user.as_ref().map(|user| &user.groups);
        exclude.terminals.iter().all(|&terminal| cut(terminal))
            && exclude.groups.iter().all(|fresh| {
                let noted = self.notes.epochs.get(&fresh.group);
                match groups {
                    Some(groups) => groups
                        .get(&fresh.group)
                        .is_none_or(|group| left(group, fresh.new)),
                    None => {
                        !self.held.contains_key(&fresh.group)
                            || noted.is_some_and(|it| it.epoch >= fresh.new)
                    }
                }
            })
    }

    /// A group went on to another epoch because somebody was excluded. True where that is new.
    pub(in crate::terminal) fn leave_epoch(
        &mut self,
        number: GroupNumber,
        announced: Announced,
    ) -> bool {
        let until = Group::grace_end(self.now, self.key_set.limits.exclude_grace);
        let Some(user) = self.user.as_mut() else {
            return self.held.contains_key(&number) && self.notes.epoch(number, announced);
        };
        let Some(group) = user.groups.get_mut(&number) else {
            return false;
        };
        if group.epoch() >= announced.epoch {
            // The key was faster than the notice: nothing older is received any more.
            let anything = !group.left_nothing();
            group.cut_off_older(until);
            return anything;
        }
        let before = group.announced;
        group.announced = Some(before.map_or(announced, |held| held.or_newer(announced)));
        group.announced != before
    }
}
