//! Who calls: the key-req-ids of the present generation, and the addresses at which terminals were
//! heard last.

use core::net::SocketAddr;
use std::collections::HashMap;

use crate::ids::{Generation, TerminalNumber, Tick};
use crate::server::TerminalRecord;
use crate::sharing::message::CallerId;

/// Key-req-ids of every terminal's wrap key, made when they are first looked for after a change.
#[derive(Debug, Default)]
pub(super) struct Callers {
    ids: HashMap<CallerId, TerminalNumber>,
    /// The G of the ids; `None`: they are to be made.
    made_at: Option<Generation>,
}

impl Callers {
    /// A wrap key changed beside G.
    pub(super) fn forget(&mut self) {
        self.made_at = None;
    }

    /// Who has that id at `g`.
    pub(super) fn find<'t>(
        &mut self,
        id: &CallerId,
        g: Generation,
        terminals: impl Iterator<Item = &'t TerminalRecord>,
    ) -> Option<TerminalNumber> {
        if self.made_at != Some(g) {
            let asks = |it: &&TerminalRecord| it.excluded_at.is_none();
            let named = |it: &TerminalRecord| (it.wrap.key_req_id(), it.number);
            self.ids = terminals.filter(asks).map(named).collect();
            self.made_at = Some(g);
        }
        self.ids.get(id).copied()
    }
}

/// Where terminals were heard last, by messages that were verified. Bounded by the number of
/// terminals; forgotten with a restart.
#[derive(Debug, Default)]
pub(super) struct Peers(HashMap<TerminalNumber, Peer>);

/// One way back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) heard: Tick,
}

impl Peers {
    pub(super) fn heard(&mut self, terminal: TerminalNumber, address: SocketAddr, now: Tick) {
        let heard = now;
        self.0.insert(terminal, Peer { address, heard });
    }

    pub(super) fn of(&self, terminal: TerminalNumber) -> Option<Peer> {
        self.0.get(&terminal).copied()
    }

    pub(super) fn forget(&mut self, terminal: TerminalNumber) {
        self.0.remove(&terminal);
    }
}
