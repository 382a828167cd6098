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

#[cfg(test)]
mod tests {
    use keyfall_plane::Spi;
    use keyfall_protocol::ids::EspSession;

    use super::*;

    /// Sessions come and go for years.
    #[test]
    fn of_a_session_that_has_gone_nothing_is_left() {
        let sender = |number| TerminalNumber::new(number).expect("not 0");
        let name = |number, session| SessionName {
            spi: Spi::new(sender(number), 7),
            session: EspSession::new([session; 5]),
        };
        let mut sessions = BySender::default();
        for name in [name(2, 1), name(2, 2), name(3, 1)] {
            sessions.add(name);
        }
        sessions.remove(name(2, 1));
        assert!(sessions.of(sender(2)).eq([name(2, 2)]));
        sessions.remove(name(2, 2));
        assert!(sessions.of(sender(3)).eq([name(3, 1)]));
        assert_eq!(sessions.0.len(), 1);
    }
}
