//! STOP and START (REQUIREMENTS, W-07; FORMATS sections 2.1 and 8).

use std::time::Duration;

use super::time::announce;
use super::{Authority, allowed, within_bound};
use crate::command::{Command, Halt, HaltKind};
use crate::ids::{KeyName, Tick, UnixSeconds};
use crate::sharing::Confirmation;
use crate::stats::DropReason;
use crate::terminal::change::{Change, STOP_MAX, Word};
use crate::terminal::{Cause, Event, Output, ResumeCause, Terminal};

impl Terminal {
    /// What costs no signature (KR-327). The same again passes: its confirmation may have been lost.
    pub(super) fn look_at_halt(
        &self,
        kind: HaltKind,
        halt: &Halt,
        issued_at: UnixSeconds,
    ) -> Result<Word, DropReason> {
        if self.user.is_none() {
            return Err(DropReason::Locked);
        }
        let held = self.group(halt.group).ok_or(DropReason::NotHeld)?;
        let held = held.change.as_ref();
        let supersedes = held.is_some_and(|held| self.supersedes(held.by, issued_at));
        Change::judge(held, kind, halt, supersedes)
    }

    pub(super) fn on_halt(
        &mut self,
        kind: HaltKind,
        halt: &Halt,
        command: &Command,
        authority: &Authority,
    ) -> Result<(), DropReason> {
        let signer = &authority.signer;
        allowed(signer, halt.group)?;
        if !within_bound(halt.epoch, halt.generation, signer.expires) {
            return Err(DropReason::AboveBound);
        }
        match self.look_at_halt(kind, halt, command.issued_at)? {
            Word::New => match kind {
                HaltKind::Stop => self.on_stop(halt, command.issued_at, authority.name)?,
                HaltKind::Start => self.on_start(halt, authority)?,
            },
            Word::Again => {
                let group = self.group_mut(halt.group).ok_or(DropReason::NotHeld)?;
                group.owe_again();
            }
        }
        let held = self.group(halt.group).ok_or(DropReason::NotHeld)?;
        if halt.epoch > held.epoch() {
            self.outputs.push_back(Output::Event(Event::KeyWanted {
                group: halt.group,
                epoch: halt.epoch,
                generation: halt.generation,
            }));
        }
        Ok(())
    }

    fn on_stop(
        &mut self,
        halt: &Halt,
        issued_at: UnixSeconds,
        by: KeyName,
    ) -> Result<(), DropReason> {
        let until = self.stop_ends(halt.deadline, issued_at)?;
        let group = self.group_mut(halt.group).ok_or(DropReason::NotHeld)?;
        group.stop(halt, by, until);
        self.dirty = true;
        // At once: nothing is sent from now on.
        self.outputs.push_back(Output::Event(Event::Stopped {
            group: halt.group,
            deadline: halt.deadline,
        }));
        Ok(())
    }

    fn on_start(&mut self, halt: &Halt, authority: &Authority) -> Result<(), DropReason> {
        let group = self.group_mut(halt.group).ok_or(DropReason::NotHeld)?;
        group.start(halt, authority.name);
        if halt.epoch > group.epoch() {
            announce(&mut group.announced, halt.epoch, authority);
        }
        self.dirty = true;
        Ok(())
    }

    /// When a STOP ends by itself: by trusted time, and no longer after receipt than the server gave
    /// it, and than an hour (KR-322).
    fn stop_ends(&self, deadline: UnixSeconds, issued_at: UnixSeconds) -> Result<Tick, DropReason> {
        let given = deadline.since(issued_at).min(STOP_MAX);
        let left = self.time().map_or(given, |now| deadline.since(now));
        let span = given.min(left);
        if span == 0 {
            return Err(DropReason::PastNotAfter);
        }
        Ok(self.now.plus(Duration::from_secs(u64::from(span))))
    }

    /// Stops whose deadline has passed, and those of before a power cut, once the time is
    /// known.
    pub(in crate::terminal) fn end_stops(&mut self) {
        let (now, time) = (self.now, self.time());
        let Some(user) = self.user.as_mut() else {
            return;
        };
        for (&number, group) in &mut user.groups {
            let Some(change) = group.change.as_ref().filter(|change| change.stopped) else {
                continue;
            };
            let end = match (change.until, time) {
                (Some(until), _) => until,
                (None, Some(time)) => {
                    let left = change.deadline.since(time).min(STOP_MAX);
                    let end = now.plus(Duration::from_secs(u64::from(left)));
                    group.hold_stop_until(end);
                    end
                }
                (None, None) => continue,
            };
            if now >= end {
                group.resume();
                self.dirty = true;
                let cause = ResumeCause::Deadline;
                let event = Event::Resumed {
                    group: number,
                    cause,
                };
                self.outputs.push_back(Output::Event(event));
            }
        }
    }

    /// A KEYSET lists the signer of a STOP no more: it stops nothing (KR-323).
    pub(super) fn end_stops_of_dropped_signers(&mut self) {
        let key_set = &self.key_set;
        let Some(user) = self.user.as_mut() else {
            return;
        };
        for (&number, group) in &mut user.groups {
            let dropped = |change: &Change| change.stopped && key_set.key(change.by).is_none();
            if group.change.as_ref().is_some_and(dropped) {
                group.resume();
                self.dirty = true;
                let cause = ResumeCause::KeySet;
                let event = Event::Resumed {
                    group: number,
                    cause,
                };
                self.outputs.push_back(Output::Event(event));
            }
        }
    }

    /// Every group steps to the key that its change names, also where that key's epoch came later.
    pub(in crate::terminal) fn follow_changes(&mut self) {
        let until = self.grace_end();
        let Some(user) = self.user.as_mut() else {
            return;
        };
        for (&number, group) in &mut user.groups {
            if let Some(to) = group.change_asks_for() {
                let from = group.newest();
                let next = group.ring.newest().duplicate().renew_to(to);
                group.install(next, None, until);
                group.signed = group.signed.max(to);
                self.dirty = true;
                let cause = Cause::Command;
                self.events.push(Event::Renewed {
                    group: number,
                    from,
                    to,
                    cause,
                });
            }
            group.hasten();
        }
    }

    /// STOP-ACK where nothing is sent any more, START-ACK where sending has moved; both only after
    /// what they say is durable.
    pub(in crate::terminal) fn confirm_changes(&mut self) {
        let stored = self.store_done;
        let Some(user) = self.user.as_mut() else {
            return;
        };
        let wrap = user.wrap.newest();
        for (&number, group) in &mut user.groups {
            if group.end_stop_by_start() {
                let cause = ResumeCause::Start;
                let event = Event::Resumed {
                    group: number,
                    cause,
                };
                self.outputs.push_back(Output::Event(event));
            }
            if let Some(change) = group.confirm(stored) {
                let (kind, transaction) = (change.kind, change.transaction);
                let made = Confirmation::make(wrap, kind, number, transaction, change.key);
                self.outputs.push_back(Output::ToServer(made.encode()));
            }
        }
    }
}
