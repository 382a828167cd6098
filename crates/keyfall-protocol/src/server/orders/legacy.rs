//! The RSA keys of terminals that speak the suite rsa-misty1: registered by operators, because nothing
//! that such a terminal sends could vouch for its own key.

use crate::ids::TerminalNumber;
use crate::server::orders::Prepared;
use crate::server::{Batch, By, Change, Done, JournalEntry, Server};
use crate::sharing::rsa_misty1::RsaPublic;

impl Server {
    /// Registers it in place of the one before, or takes that away (KR-381).
    pub(super) fn set_legacy_key(
        &self,
        number: TerminalNumber,
        key: Option<RsaPublic>,
        by: By,
    ) -> Prepared {
        let terminal = self.trusted_terminal(number)?;
        let outcome = key.as_ref().map_or_else(
            || "no RSA key is registered".to_owned(),
            |key| {
                format!(
                    "RSA key {} of {} bits is registered",
                    key.name(),
                    key.bits()
                )
            },
        );
        let batch = Batch {
            audit: Some(self.audit(by, "terminal legacy-key", &terminal.name, outcome)),
            journal: Some(JournalEntry::LegacyKey {
                terminal: number,
                key: key.clone(),
            }),
            changes: vec![Change::LegacyKey {
                terminal: number,
                key,
            }],
        };
        Ok((batch, Done::Nothing))
    }
}
