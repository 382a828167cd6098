//! TIME: the clock and the floors (FORMATS section 10).

use std::time::Duration;

use super::{Authority, allowed, within_bound};
use crate::command::{Floor, Time};
use crate::ids::{KeyEpoch, KeyIdKind, Tick, UnixSeconds};
use crate::stats::DropReason;
use crate::terminal::group::Announced;
use crate::terminal::{Cause, Event, Terminal};

impl Terminal {
    pub(super) fn on_time(&mut self, time: &Time, authority: &Authority) -> Result<(), DropReason> {
        let signer = &authority.signer;
        if !(signer.not_before..=signer.expires).contains(&time.seconds) {
            return Err(DropReason::TimeTooFar);
        }
        let first = self.time().is_none();
        // SECURITY: the newest beacon says nothing new of the time. Taken again and again it would
        // hold the clock within its second (W-10).
        if first || time.seconds != self.time.mark() {
            self.time.accept(self.now, time.seconds, authority.name)?;
        }
        // The stored mark follows, so that a power cut does not turn time back by much.
        self.dirty |= self.time.mark().since(self.stored_mark) >= MARK_STEP;
        if first {
            self.hold_what_is_not_active();
            self.events.push(Event::TimeHeard {
                seconds: time.seconds,
            });
        }
        for floor in &time.floors {
            self.on_floor(floor, authority);
        }
        Ok(())
    }

    /// After a power cut the newest key is held, active or not; only the time tells which, or the
    /// server's START.
    pub(in crate::terminal) fn hold_what_is_not_active(&mut self) {
        let waits: Vec<_> = self
            .user
            .iter()
            .flat_map(|user| &user.groups)
            .filter(|(_, group)| group.schedule.generation == group.newest())
            .filter(|(_, group)| !group.newest_is_started())
            .filter_map(|(&number, group)| {
                let at = self.activation(group.schedule.activate_at, group.issued_at)?;
                Some((number, at))
            })
            .collect();
        let Some(user) = self.user.as_mut() else {
            return;
        };
        for (number, at) in waits {
            if let Some(group) = user.groups.get_mut(&number) {
                group.hold_until(at);
            }
        }
    }

    /// A floor makes a terminal step or stop sending; it discards nothing. A locked terminal hears
    /// it again when it is open.
    fn on_floor(&mut self, floor: &Floor, authority: &Authority) {
        let Some(KeyIdKind::Master(number)) = floor.kid.kind() else {
            return;
        };
        let signer = &authority.signer;
        if allowed(signer, number).is_err()
            || !within_bound(floor.epoch, floor.generation, signer.expires)
        {
            self.drops.count(self.now, DropReason::AboveBound);
            return;
        }
        let until = self.grace_end();
        let groups = self.user.as_mut().map(|user| &mut user.groups);
        let Some(group) = groups.and_then(|groups| groups.get_mut(&number)) else {
            return;
        };
        if floor.epoch > group.epoch() {
            self.dirty |= announce(&mut group.announced, floor.epoch, authority);
            return;
        }
        if floor.epoch == group.epoch() && floor.generation > group.signed {
            // The server's word raises the ceiling, also where the terminal is there already.
            group.signed = floor.generation;
            self.dirty = true;
        }
        if floor.epoch == group.epoch() && floor.generation > group.newest() {
            let from = group.newest();
            let next = group.ring.newest().duplicate().renew_to(floor.generation);
            group.install(next, None, until);
            self.dirty = true;
            let (to, cause) = (floor.generation, Cause::Command);
            self.events.push(Event::Renewed {
                group: number,
                from,
                to,
                cause,
            });
        }
    }

    /// When sending moves to a key that is active at `activate_at`: by trusted time, but no longer
    /// after receipt than the server gave it, so that a clock that was made to lag (W-10) cannot
    /// keep this terminal on an old generation. `None`: at once, also without trusted time.
    pub(super) fn activation(
        &self,
        activate_at: UnixSeconds,
        issued_at: UnixSeconds,
    ) -> Option<Tick> {
        let wait = activate_at
            .since(self.time()?)
            .min(activate_at.since(issued_at))
            .min(ACTIVATION_MAX);
        let span = Duration::from_secs(u64::from(wait));
        (wait > 0).then(|| self.now.plus(span))
    }
}

/// Sending in the group stops until the KEYDIST of the newer epoch comes. True where that is new.
pub(super) fn announce(
    announced: &mut Option<Announced>,
    epoch: KeyEpoch,
    authority: &Authority,
) -> bool {
    let newer = Announced {
        epoch,
        by: authority.name,
        excluded_at: None,
    };
    let before = *announced;
    *announced = Some(before.map_or(newer, |held| held.or_newer(newer)));
    *announced != before
}

/// Seconds that the time heard may run ahead of the stored mark.
const MARK_STEP: u32 = 600;
/// Seconds that a key may wait for its activation.
const ACTIVATION_MAX: u32 = 3600;
