//! RECORD: judged as a command of the keys class is, by its own version and end (FORMATS sections
//! 2.1 and 8.1). It comes by a carrier, from the server, from a peer that hands it on, or from the one
//! whom it is about, inside of key search.

use super::allowed;
use crate::command::{ProtectionRecord, RECORD_LIFE, SignedRecord, SignerClass, UnverifiedRecord};
use crate::ids::KeyEpoch;
use crate::stats::DropReason;
use crate::terminal::Terminal;

impl Terminal {
    /// A frame of its own: a repeat, and what is about somebody excluded, end before any cryptography
    /// (KR-502, KR-506).
    pub(super) fn on_record(&mut self, unverified: UnverifiedRecord<'_>) -> Result<(), DropReason> {
        let record = unverified.record();
        let number = record.terminal;
        if self.exclusions.contains(number) && number != self.identity.number {
            return Err(DropReason::ExcludedSender);
        }
        if let Some((version, _)) = self.held_record(number)
            && record.version <= version
            && !self.is_superseded(record)
        {
            if record.version < version {
                return Err(DropReason::OlderRecord);
            }
            self.heard_record_again(number);
            return Err(DropReason::NotNewer);
        }
        let record = self.verify_record(unverified)?;
        self.learn_record(record)
    }

    /// Who signed, for which groups and until when; then the signature (KR-500, KR-503 to KR-505).
    pub(in crate::terminal) fn verify_record(
        &mut self,
        unverified: UnverifiedRecord<'_>,
    ) -> Result<SignedRecord, DropReason> {
        let record = unverified.record();
        let signer = self.key_set.key(unverified.signer());
        let signer = signer.ok_or(DropReason::UnknownSigner)?;
        if signer.class != SignerClass::Keys {
            return Err(DropReason::WrongClass);
        }
        let signed_in_time = (signer.not_before..=signer.expires).contains(&record.issued_at);
        if !signed_in_time || self.is_past(signer.expires) {
            return Err(DropReason::SignerExpired);
        }
        if self.not_earlier_than() > record.not_after {
            return Err(DropReason::PastNotAfter);
        }
        let version = KeyEpoch::new(record.version);
        let life = record.not_after.since(record.issued_at);
        if version.birth() > signer.expires || life > RECORD_LIFE {
            return Err(DropReason::AboveBound);
        }
        for group in &record.groups {
            allowed(signer, group.group)?;
        }
        let public = signer.public;
        if !self.verifications.take(self.now, 0) {
            return Err(DropReason::VerifyBudget);
        }
        unverified.verify(&public).ok_or(DropReason::BadSignature)
    }

    /// What a key said that is listed no more loses to what is said now, also by a lower version.
    pub(in crate::terminal) fn is_superseded(&self, by: &ProtectionRecord) -> bool {
        let held = self.held_record(by.terminal);
        held.is_some_and(|(_, signer)| self.supersedes(signer, by.issued_at))
    }
}
