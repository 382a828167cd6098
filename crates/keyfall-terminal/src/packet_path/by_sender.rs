//! Sessions by who sends in them: what concerns one sender walks through no others, however many peers
//! begin sessions at a time.

use std::collections::HashMap;

use keyfall_protocol::ids::TerminalNumber;

use crate::packet_path::SessionName;

/// The names of all sessions of a table.
#[derive(Default)]
pub(super) struct BySender(HashMap<TerminalNumber, Vec<SessionName>>);

impl BySender {
    /// One that is not there yet.
    pub(super) fn add(&mut self, name: SessionName) {
        self.0.entry(name.spi.sender()).or_default().push(name);
    }

    pub(super) fn remove(&mut self, name: SessionName) {
        let sender = name.spi.sender();
        if let Some(names) = self.0.get_mut(&sender) {
            names.retain(|it| *it != name);
            if names.is_empty() {
                self.0.remove(&sender);
            }
        }
    }

    pub(super) fn of(&self, sender: TerminalNumber) -> impl Iterator<Item = SessionName> {
        self.0.get(&sender).into_iter().flatten().copied()
    }
}
