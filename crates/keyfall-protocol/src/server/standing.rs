//! How long orders stand on the carousel: until no terminal is left that could still obey them.

use crate::command::OrderKind;
use crate::ids::UnixSeconds;
use crate::server::{Exclusion, IssuedOrder, Server, TerminalRecord};

impl Server {
    /// EXCLUDE stands until every terminal that missed it has wiped itself. A KEYSET that names
    /// stolen keys makes the terminals doubt each that such a key signed: all stand again.
    pub(super) fn exclusion_stands(&self, exclusion: &Exclusion) -> bool {
        let key_set = &self.fleet.key_set;
        let from = if key_set.stolen.is_empty() {
            exclusion.at
        } else {
            exclusion.at.max(key_set.issued_at)
        };
        self.at.wall <= self.after_dead_man(from)
    }

    /// The newest DELETE or INIT and the newest LOCK or UNLOCK, as far as they stand.
    pub fn standing_orders<'s>(
        &'s self,
        terminal: &'s TerminalRecord,
    ) -> impl Iterator<Item = &'s IssuedOrder> {
        let newest = [terminal.erasure(), terminal.lock()].into_iter().flatten();
        newest.filter(|order| self.order_stands(terminal, order))
    }

    fn order_stands(&self, terminal: &TerminalRecord, order: &IssuedOrder) -> bool {
        let until = match order.kind {
            // As long as it has a lease; what it is a member of extends it.
            OrderKind::Delete | OrderKind::Init => terminal
                .memberships
                .iter()
                .map(|membership| membership.until)
                .chain([Some(order.at)])
                .try_fold(order.at, |latest, end| end.map(|end| latest.max(end)))
                .map(|end| self.after_dead_man(end)),
            OrderKind::Lock => None,
            OrderKind::Unlock => Some(self.after_dead_man(order.at)),
        };
        self.at.wall <= until.unwrap_or(order.not_after).min(order.not_after)
    }

    /// When a terminal that heard nothing after `t` has wiped itself.
    fn after_dead_man(&self, t: UnixSeconds) -> UnixSeconds {
        let limits = &self.fleet.key_set.limits;
        t.plus(limits.longest_lease).plus(limits.dead_man)
    }
}
