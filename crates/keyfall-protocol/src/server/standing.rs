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
        newest.filter(|order| self.order_stands(order))
    }

    fn order_stands(&self, order: &IssuedOrder) -> bool {
        let until = match order.kind {
            // One that was switched off counts its own time: it may come on whenever it likes.
            OrderKind::Delete | OrderKind::Init if order.proved_at.is_some() => Some(order.at),
            OrderKind::Delete | OrderKind::Init | OrderKind::Lock => None,
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
