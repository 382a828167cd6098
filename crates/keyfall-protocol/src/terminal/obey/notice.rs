//! NOTIFY: come and fetch what you lack (REQUIREMENTS ). A hint: it changes no key.

use std::time::Duration;

use super::{Authority, allowed};
use crate::command::{Command, Notify, NotifyEntry, Target};
use crate::ids::{KeyName, Tick, UnixSeconds};
use crate::stats::DropReason;
use crate::terminal::{Event, Output, Terminal};

/// The NOTIFY that this terminal followed last; forgotten with a power cut.
#[derive(Clone, Copy, Debug)]
pub(in crate::terminal) struct Notified {
    at: Tick,
    issued_at: UnixSeconds,
    by: KeyName,
}

impl Terminal {
    /// What costs no signature: what is for others, what was followed already, and what comes too
    /// soon after it (KR-328).
    pub(super) fn look_at_notice(
        &self,
        notify: &Notify,
        command: &Command,
    ) -> Result<(), DropReason> {
        if self.user.is_none() {
            return Err(DropReason::Locked);
        }
        match command.target {
            Target::All => {}
            Target::Group(group) if self.holds(group) => {}
            Target::Group(_) => return Err(DropReason::NotHeld),
            Target::Terminal(terminal) if terminal == self.identity.number => {}
            Target::Terminal(_) | Target::Handles => return Err(DropReason::NotAddressed),
        }
        if let Some(last) = self.notified {
            let too_soon = self.now < last.at.plus(NOTICE_PAUSE);
            let known = command.issued_at <= last.issued_at;
            if too_soon || (known && !self.supersedes(last.by, command.issued_at)) {
                return Err(DropReason::NotNewer);
            }
        }
        let lacks = notify.entries.is_empty()
            || notify
                .entries
                .iter()
                .any(|it| self.lacks(it, command.target));
        if lacks || command.fleet_generation > self.g {
            Ok(())
        } else {
            Err(DropReason::NotNewer)
        }
    }

    pub(super) fn on_notice(
        &mut self,
        notify: &Notify,
        command: &Command,
        authority: &Authority,
    ) -> Result<(), DropReason> {
        let lacks = |entry: &NotifyEntry| {
            let spoken_for = allowed(&authority.signer, entry.group).is_ok();
            spoken_for && self.lacks(entry, command.target)
        };
        if !notify.entries.is_empty() && !notify.entries.iter().any(lacks) {
            return Err(DropReason::NotNewer);
        }
        self.notified = Some(Notified {
            at: self.now,
            issued_at: command.issued_at,
            by: authority.name,
        });
        let spread = Duration::from_millis(notify.spread_ms.into()).min(SPREAD_MAX);
        self.outputs
            .push_back(Output::Event(Event::Notified { spread }));
        Ok(())
    }

    /// Whether what is listed is newer than what is held. A group that is not held is another's,
    /// but where the NOTIFY is for this terminal alone.
    fn lacks(&self, entry: &NotifyEntry, target: Target) -> bool {
        let listed = (entry.epoch, entry.generation);
        match self.group(entry.group) {
            Some(group) => listed > (group.epoch(), group.newest()),
            None => target == Target::Terminal(self.identity.number),
        }
    }
}

/// So long a terminal follows no other.
const NOTICE_PAUSE: Duration = Duration::from_secs(10);
/// Over no longer time terminals spread themselves.
const SPREAD_MAX: Duration = Duration::from_secs(3600);
