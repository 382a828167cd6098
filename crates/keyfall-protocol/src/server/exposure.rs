//! What a thief reads who takes a terminal at a given time, with every recording and every later
//! broadcast (FORMATS section 3.1, DESIGN section 11).

use crate::command::OrderKind;
use crate::ids::{GroupNumber, TerminalNumber, UnixSeconds};
use crate::schedule::Cadence;
use crate::server::{GroupRecord, Membership, Refusal, Server, Statement, TerminalRecord};

/// What one terminal gives away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exposure {
    pub terminal: TerminalNumber,
    /// When it is taken.
    pub at: UnixSeconds,
    /// Recorded distributions to it open from here on: since the wrap key that it held longest.
    pub distributions_from: UnixSeconds,
    /// From then on nothing is for it any more; `None`: it goes on.
    pub excluded_at: Option<UnixSeconds>,
    pub deletion: Deletion,
    /// One for each stretch for which it belonged to a group, in the order in which they began.
    /// Those of which nothing can be read are left out.
    pub groups: Vec<GroupExposure>,
}

/// What it gives away of one group's traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupExposure {
    pub group: GroupNumber,
    /// Recorded media open from here on.
    pub from: UnixSeconds,
    /// The fresh epoch without it; `None`: it goes on.
    pub until: Option<UnixSeconds>,
    /// Recorded distributions of this group open from here on; `None`: none does.
    pub distributions_from: Option<UnixSeconds>,
    /// Where an honest device stops by itself. Extracted keys know no lease.
    pub lease_end: UnixSeconds,
    /// One generation a call: without a recorded distribution calls before the last one stay shut.
    pub per_session: bool,
}

/// What is known of the order to delete its keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deletion {
    NotOrdered,
    /// Sent, and nobody knows whether it was heard.
    Sent {
        kind: OrderKind,
        at: UnixSeconds,
    },
    /// A receipt shows that it was obeyed.
    Proved {
        kind: OrderKind,
        at: UnixSeconds,
        proved_at: UnixSeconds,
    },
}

impl Server {
    /// What a thief who takes the terminal at `at` reads: keys that it held then, all that can be
    /// derived of them, and all distributions that these open.
    ///
    /// # Errors
    /// [`Refusal::NoSuchTerminal`].
    pub fn exposure(&self, number: TerminalNumber, at: UnixSeconds) -> Result<Exposure, Refusal> {
        let terminal = self.terminal(number)?;
        // What is locked renews no more: its keys stay as old as the lock.
        let lock = terminal
            .lock()
            .filter(|order| order.kind == OrderKind::Lock && order.at < at);
        let stood = lock.map_or(at, |order| order.at);
        let opens_from = self.wrap_held_since(stood).max(terminal.added_at);
        let memberships = || terminal.memberships.iter();
        let groups = memberships()
            .enumerate()
            .filter_map(|(place, membership)| {
                let again = memberships()
                    .skip(place + 1)
                    .find(|next| next.group == membership.group)
                    .map(|next| next.from);
                self.group_exposure(membership, again, opens_from, stood)
            })
            .collect();
        Ok(Exposure {
            terminal: number,
            at,
            distributions_from: opens_from,
            excluded_at: terminal.excluded_at,
            deletion: deletion(terminal),
            groups,
        })
    }

    /// When the oldest wrap key began that a terminal holds at `at`: the present one, and the one
    /// before for the keep time.
    fn wrap_held_since(&self, at: UnixSeconds) -> UnixSeconds {
        let schedule = self.fleet.key_set.fleet_schedule;
        let kept = before(at, self.fleet.keep_time);
        if kept >= schedule.from {
            schedule.last_change(kept)
        } else {
            // Under a schedule of which only the period is still known.
            before(kept, schedule.period)
        }
    }

    /// `again`: when it joined the same group again, with whose key it gave up the old one.
    fn group_exposure(
        &self,
        membership: &Membership,
        again: Option<UnixSeconds>,
        opens_from: UnixSeconds,
        at: UnixSeconds,
    ) -> Option<GroupExposure> {
        let group = self.groups.get(&membership.group)?;
        let heard = |t: UnixSeconds| membership.until.is_none_or(|until| t < until);
        // Distributions to it, made from its joining on.
        let distributions_from = opens_from.max(membership.from);
        let distributions_from = heard(distributions_from).then_some(distributions_from);
        // The generation that it still receives, and the oldest that a distribution carries.
        let graced = before(at, self.fleet.key_set.limits.grace);
        let holds = again.is_none_or(|again| graced <= again);
        let held = holds.then_some(graced.max(membership.from));
        let from = held
            .into_iter()
            .chain(distributions_from)
            .map(|t| began(group, membership, t))
            .min()?
            // It joined with a generation of which nobody had sent anything.
            .max(membership.from);
        let until = membership.until.map(|until| left(group, until));
        until
            .is_none_or(|until| from < until)
            .then(|| GroupExposure {
                group: group.number,
                from,
                until,
                distributions_from,
                lease_end: membership
                    .until
                    .unwrap_or(self.at.wall)
                    .plus(self.lease(group)),
                per_session: group.schedule.cadence.is_some_and(Cadence::per_session),
            })
    }
}

/// When the generation began that a member held at `t`: by the last statement before it left.
fn began(group: &GroupRecord, membership: &Membership, t: UnixSeconds) -> UnixSeconds {
    let known = |statement: &&Statement| {
        membership
            .until
            .is_none_or(|until| statement.stated_at < until)
    };
    let stood =
        |statement: &&Statement| statement.stated_at <= t && statement.schedule.activate_at <= t;
    let statements = || group.statements.iter().filter(known);
    let Some(statement) = statements().rfind(stood).or_else(|| statements().next()) else {
        return t;
    };
    let schedule = statement.schedule;
    let first = schedule.activate_at.max(statement.stated_at);
    let elapsed = t.since(schedule.activate_at);
    schedule.cadence.map_or(first, |cadence| {
        let tick = elapsed - elapsed % cadence.period();
        schedule.activate_at.plus(tick).max(first)
    })
}

/// When the fresh epoch became active that was stated at `until` without the one who left.
fn left(group: &GroupRecord, until: UnixSeconds) -> UnixSeconds {
    let fresh = group.statements.iter().find(|it| it.stated_at >= until);
    fresh.map_or(until, |it| it.schedule.activate_at.max(until))
}

fn deletion(terminal: &TerminalRecord) -> Deletion {
    let proved = terminal
        .orders
        .iter()
        .filter(|order| order.erases())
        .find_map(|order| Some((order, order.proved_at?)));
    match (proved, terminal.erasure()) {
        (Some((order, proved_at)), _) => Deletion::Proved {
            kind: order.kind,
            at: order.at,
            proved_at,
        },
        (None, Some(order)) => Deletion::Sent {
            kind: order.kind,
            at: order.at,
        },
        (None, None) => Deletion::NotOrdered,
    }
}

fn before(t: UnixSeconds, seconds: u32) -> UnixSeconds {
    UnixSeconds::new(t.get().saturating_sub(seconds))
}
