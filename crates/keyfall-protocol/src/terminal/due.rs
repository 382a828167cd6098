//! When the machine wants to be called next, and why.

use crate::ids::{Tick, UnixSeconds};
use crate::terminal::group::Group;
use crate::terminal::{Output, Terminal};

/// Why the machine wants to be called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeoutReason {
    /// Nothing is due.
    Idle,
    /// An old generation's grace ends: it is wiped.
    GraceEnd,
    /// A key renews by its validity period.
    Renewal,
    /// Sending moves to a generation that is held already.
    Activation,
    /// A request is sent again, or a sequence of key sharing begins.
    Asking,
    /// A STOP ends by itself.
    StopEnd,
    /// A key neither sends nor receives any more.
    LeaseEnd,
    /// A probe is sent (again), or a path expires.
    Search,
    /// The next step of powered-on time is charged.
    Charge,
}

impl Terminal {
    pub(super) fn next_timeout(&self) -> Output {
        if self.obey.is_none() {
            return idle();
        }
        let due = [
            (self.grace_ends(), TimeoutReason::GraceEnd),
            (self.renewal_due(), TimeoutReason::Renewal),
            (self.activation_due(), TimeoutReason::Activation),
            (self.stop_ends_next(), TimeoutReason::StopEnd),
            (self.asking.due(), TimeoutReason::Asking),
            (self.paths.due(), TimeoutReason::Search),
            (self.lease_ends(), TimeoutReason::LeaseEnd),
            (Some(self.powered.next_charge()), TimeoutReason::Charge),
        ];
        due.into_iter()
            .filter_map(|(at, reason)| at.map(|at| (at, reason)))
            .min_by_key(|&(at, _)| at)
            .map_or_else(idle, |(at, reason)| Output::Timeout {
                at: Some(at),
                reason,
            })
    }

    fn grace_ends(&self) -> Option<Tick> {
        let wrap = self.user.as_ref().and_then(|user| user.wrap.next_expiry());
        self.each_group()
            .filter_map(|group| group.ring.next_expiry())
            .chain(wrap)
            .filter(|&at| at < Tick::from_nanos(u64::MAX))
            .min()
    }

    fn renewal_due(&self) -> Option<Tick> {
        let now = self.time()?;
        self.each_group()
            .filter_map(|group| group.schedule.next_change(now))
            .chain(Some(self.key_set.fleet_schedule.next_change(now)))
            .filter_map(|due| self.time.tick_of(due))
            .min()
    }

    fn activation_due(&self) -> Option<Tick> {
        self.each_group()
            .filter_map(|group| group.activation.as_ref())
            .filter(|activation| activation.store.is_some_and(|id| id <= self.store_done))
            .filter_map(|activation| activation.at)
            .min()
    }

    fn stop_ends_next(&self) -> Option<Tick> {
        self.each_group()
            .filter_map(|group| group.change.as_ref())
            .filter(|change| change.stopped)
            .filter_map(|change| change.until)
            .min()
    }

    fn lease_ends(&self) -> Option<Tick> {
        let now = self.time()?;
        let ahead = |end: &UnixSeconds| now <= *end;
        self.each_group()
            .filter_map(|group| group.lease)
            .map(|lease| lease.end)
            .filter(ahead)
            .filter_map(|end| self.time.tick_of(end.plus(1)))
            .min()
    }

    fn each_group(&self) -> impl Iterator<Item = &Group> {
        self.user.iter().flat_map(|user| user.groups.values())
    }
}

fn idle() -> Output {
    Output::Timeout {
        at: None,
        reason: TimeoutReason::Idle,
    }
}
