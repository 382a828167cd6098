//! Who calls: terminals by the name that their wrap key has at the present G.

use std::collections::{BTreeMap, HashMap};

use crate::ids::{Generation, TerminalNumber};
use crate::server::TerminalRecord;

/// Key-req-ids of all terminals. Made when somebody asks, and again when a wrap key has moved.
#[derive(Debug, Default)]
pub(super) struct Callers {
    ids: HashMap<[u8; 8], TerminalNumber>,
    /// The G for which they hold; `None`: for none.
    g: Option<Generation>,
}

impl Callers {
    /// The terminal whose wrap key has that id now. A name and no proof: whoever listens knows it,
    /// and two terminals may have the same by chance, of which one is found.
    pub(super) fn find(
        &mut self,
        id: [u8; 8],
        g: Generation,
        terminals: &BTreeMap<TerminalNumber, TerminalRecord>,
    ) -> Option<TerminalNumber> {
        if self.g != Some(g) {
            self.ids = terminals
                .values()
                .map(|terminal| (terminal.wrap.key_req_id(), terminal.number))
                .collect();
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
            && self.ids.get(&before) == Some(&terminal.number)
        {
            self.ids.remove(&before);
        }
        self.ids.insert(terminal.wrap.key_req_id(), terminal.number);
    }

    /// Every wrap key has moved.
    pub(super) fn clear(&mut self) {
        self.ids.clear();
        self.g = None;
    }
}
