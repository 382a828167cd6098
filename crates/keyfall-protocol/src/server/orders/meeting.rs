//! What terminals that ask bring about: the first contact, and what is noted of them.

use core::net::SocketAddr;

use crate::ids::TerminalNumber;
use crate::server::orders::Prepared;
use crate::server::{Batch, By, Change, Done, Order, Refusal, Server};
use crate::sharing::SharingSuite;

/// How a token was misused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenMisuse {
    /// It was used before, or has ended.
    Dead { from: SocketAddr },
    /// Two came with it; the first was answered, and has not confirmed.
    Shared { first: SocketAddr, then: SocketAddr },
    /// In suite psk, in which nobody is answered by a token.
    Downgrade { from: SocketAddr },
}

impl Order {
    /// Who is met.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "one order is about a meeting"
    )]
    pub(in crate::server) fn met(&self) -> Option<TerminalNumber> {
        match self {
            Self::FirstContact { terminal, .. } => Some(*terminal),
            _ => None,
        }
    }
}

impl Server {
    /// From now on its wrap key is the mixed one, which no copy of its package opens (KR-371).
    pub(super) fn first_contact(
        &self,
        number: TerminalNumber,
        from: SocketAddr,
        by: By,
    ) -> Prepared {
        let terminal = self.admitted_terminal(number)?;
        let mixed = self.desk.mixed.get(&number);
        let mixed = mixed.ok_or_else(|| Refusal::NoSuchTerminal(number.to_string()))?;
        let wrap = mixed.duplicate().renew_to(terminal.wrap.generation());
        let at = self.at.wall;
        let outcome = match terminal.token {
            None => format!("the terminal itself has shown that it is there, from {from}"),
            Some(_) => format!("by its token, which is used now, from {from}"),
        };
        let batch = Batch {
            changes: vec![Change::Mixed { wrap, at }],
            audit: Some(self.audit(by, "terminal enrolled", &terminal.name, outcome)),
            journal: None,
        };
        Ok((batch, Done::Nothing))
    }

    /// Told once for each terminal, kind and run of the server (KR-378).
    pub(super) fn note_token(
        &self,
        number: TerminalNumber,
        misuse: TokenMisuse,
        by: By,
    ) -> Prepared {
        let terminal = self.terminal(number)?;
        let outcome = match misuse {
            TokenMisuse::Dead { from } => {
                let why = match (terminal.excluded_at, terminal.mixed_at) {
                    (Some(_), _) => "the terminal is excluded",
                    (None, Some(_)) => "it was used before",
                    (None, None) => "it has ended",
                };
                format!("refused from {from}: {why}")
            }
            TokenMisuse::Shared { first, then } => {
                format!("{then} came with it after {first}")
            }
            TokenMisuse::Downgrade { from } => {
                format!("refused from {from}: suite psk, in which no token counts")
            }
        };
        let batch = Batch {
            changes: Vec::new(),
            audit: Some(self.audit(by, "token", &terminal.name, outcome)),
            journal: None,
        };
        Ok((batch, Done::Nothing))
    }

    /// Somebody who holds the terminal's key wished for another suite than the root lists (KR-368);
    /// or somebody for the legacy suite, where the root would have another one (KR-380).
    pub(super) fn note_downgrade(
        &self,
        number: Option<TerminalNumber>,
        suite: SharingSuite,
        by: By,
    ) -> Prepared {
        let suite = suite.name();
        let (subject, outcome) = match number {
            Some(number) => (
                self.terminal(number)?.name.as_str(),
                format!("refused: suite {suite} is not listed in the KEYSET"),
            ),
            None => (
                "somebody",
                format!("refused: the KEYSET does not begin with suite {suite}"),
            ),
        };
        let batch = Batch {
            changes: Vec::new(),
            audit: Some(self.audit(by, "key request", subject, outcome)),
            journal: None,
        };
        Ok((batch, Done::Nothing))
    }
}
