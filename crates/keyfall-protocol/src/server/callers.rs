//! Who calls: terminals by the name that their wrap key has at the present G.

use std::collections::{BTreeMap, HashMap};

use crate::ids::{Generation, TerminalNumber};
use crate::server::TerminalRecord;

/// By what a caller is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Caller {
    /// By its wrap key.
    Terminal(TerminalNumber),
    /// By the token that it was given, used or not.
    Token(TerminalNumber),
}

impl Caller {
    pub(super) fn terminal(self) -> TerminalNumber {
        match self {
            Self::Terminal(number) | Self::Token(number) => number,
        }
    }
}

/// Key-req-ids of all terminals and tokens. Made when somebody asks, and again when a wrap key has moved.
#[derive(Debug, Default)]
pub(super) struct Callers {
    ids: HashMap<[u8; 8], Caller>,
    /// The G for which they hold; `None`: for none.
    g: Option<Generation>,
}

impl Callers {
    /// The terminal whose wrap key, or token, has that id now. A name and no proof: whoever listens knows it,
    /// and two terminals may have the same by chance, of which one is found.
    pub(super) fn find(
        &mut self,
        id: [u8; 8],
        g: Generation,
        terminals: &BTreeMap<TerminalNumber, TerminalRecord>,
    ) -> Option<Caller> {
        if self.g != Some(g) {
            self.ids = terminals.values().flat_map(ids).collect();
            self.g = Some(g);
        }
        self.ids.get(&id).copied()
    }

    /// One terminal is new, or its wrap key moved by itself from `before`.
    pub(super) fn moved(&mut self, before: Option<[u8; 8]>, terminal: &TerminalRecord) {
        if self.g.is_none() {
            return;
        }
        if let Some(before) = before
            && self.ids.get(&before) == Some(&Caller::Terminal(terminal.number))
        {
            self.ids.remove(&before);
        }
        self.ids.extend(ids(terminal));
    }

    /// Every wrap key has moved.
    pub(super) fn clear(&mut self) {
        self.ids.clear();
        self.g = None;
    }
}

/// All by which it may call.
fn ids(terminal: &TerminalRecord) -> impl Iterator<Item = ([u8; 8], Caller)> + use<> {
    let number = terminal.number;
    let token = terminal.token.as_ref().map(|token| token.id);
    let token = token.map(|id| (id, Caller::Token(number)));
    let wrap = (terminal.wrap.key_req_id(), Caller::Terminal(number));
    token.into_iter().chain([wrap])
}
