//! RECORD: judged as a command of the keys class is, by its own version and end (FORMATS sections
//! 2.1 and 8.1).

use super::allowed;
use crate::command::{ProtectionRecord, RECORD_LIFE, SignedRecord, SignerClass, UnverifiedRecord};
use crate::ids::KeyEpoch;
use crate::stats::DropReason;
use crate::terminal::{Event, Terminal};

impl Terminal {
    /// From a carrier or the server.
    pub(super) fn on_record(&mut self, record: UnverifiedRecord<'_>) -> Result<(), DropReason> {
        let record = self.judge_record(record)?;
        self.take_record(record);
        Ok(())
    }

    /// A repeat ends before any cryptography; then who signed, what for and until when; then the
    /// signature (KR-500, KR-502 to KR-506).
    pub(in crate::terminal) fn judge_record(
        &mut self,
        unverified: UnverifiedRecord<'_>,
    ) -> Result<SignedRecord, DropReason> {
        let record = unverified.record();
        let number = record.terminal;
        if self.exclusions.contains(number) && number != self.identity.number {
            return Err(DropReason::ExcludedSender);
        }
        if !self.is_newer_record(record) {
            self.records.heard_again(number);
            return Err(DropReason::NotNewer);
        }
        let signer = self.key_set.key(unverified.signer());
        let signer = signer.ok_or(DropReason::UnknownSigner)?.clone();
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
            allowed(&signer, group.group)?;
        }
        if !self.verifications.take(self.now, 0) {
            return Err(DropReason::VerifyBudget);
        }
        let verified = unverified.verify(&signer.public);
        verified.ok_or(DropReason::BadSignature)
    }

    /// A version below the highest seen is a recording. What a key said that is listed no more loses
    /// to what is said now.
    fn is_newer_record(&self, record: &ProtectionRecord) -> bool {
        let held = if record.terminal == self.identity.number {
            self.own_record.as_ref()
        } else {
            self.records.get(record.terminal)
        };
        held.is_none_or(|held| {
            record.version > held.record().version
                || self.supersedes(held.signer(), record.issued_at)
        })
    }

    pub(in crate::terminal) fn take_record(&mut self, record: SignedRecord) {
        if record.record().terminal == self.identity.number {
            let version = record.record().version;
            self.own_record = Some(record);
            self.dirty = true;
            self.events.push(Event::RecordChanged { version });
        } else {
            self.records.put(record);
        }
    }
}
