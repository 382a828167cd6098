//! KEY-DIS of the suite rsa-misty1: bare keys, which nobody signed. They count as said by the server's
//! RSA key, which the root lists, within what a key of class keys may say now.

use super::{Authority, allowed, within_bound};
use crate::command::{KeyDistContents, ListedKey, SignerClass};
use crate::ids::UnixSeconds;
use crate::keys::MasterKey;
use crate::stats::DropReason;
use crate::terminal::Terminal;

impl Terminal {
    /// As whom such an answer speaks: the listed RSA key, until the last key of class keys ends. Its own
    /// five years would let one answer take a group generations ahead of everybody (KR-384).
    pub(in crate::terminal) fn authority_of_legacy(&self) -> Result<ListedKey, DropReason> {
        let key_set = &self.key_set;
        let listed = key_set.first_of(SignerClass::Rsa);
        let mut authority = listed.ok_or(DropReason::UnknownSigner)?.clone();
        let keys = key_set.keys.iter();
        let keys = keys.filter(|key| key.class == SignerClass::Keys);
        let last = keys.map(|key| key.expires).max();
        authority.expires = authority
            .expires
            .min(last.ok_or(DropReason::UnknownSigner)?);
        if self.is_past(authority.expires) {
            return Err(DropReason::SignerExpired);
        }
        Ok(authority)
    }

    /// Takes every key that is newer and within bounds. They come without schedule and lease: those of
    /// the newest RENEW hold, which counts as later than this.
    ///
    /// # Errors
    /// [`DropReason`] of the first that was beyond; the others are taken all the same.
    pub(in crate::terminal) fn take_legacy_keys(
        &mut self,
        keys: Vec<MasterKey>,
        listed: &ListedKey,
    ) -> Result<(), DropReason> {
        let authority = Authority {
            signer: listed.clone(),
            name: listed.public.name(),
            co_signed: false,
        };
        // There is none in the message: as long as one may be, and no later dead man's time.
        let stated = self.time().unwrap_or_else(|| self.time.mark());
        let lease = self.lease(Some(stated.plus(self.key_set.limits.longest_lease)), stated);
        let mut taken = Ok(());
        for key in keys {
            let (group, epoch, generation) = (key.group(), key.epoch(), key.generation());
            let contents = KeyDistContents {
                key,
                activate_at: EARLIEST,
                cadence: None,
                lease_end: None,
            };
            let judged = allowed(listed, group).and_then(|()| {
                let fits = within_bound(epoch, generation, listed.expires);
                fits.then_some(()).ok_or(DropReason::AboveBound)
            });
            let result =
                judged.and_then(|()| self.take_key(contents, lease, None, EARLIEST, &authority));
            match result {
                Ok(()) => self.dirty = true,
                Err(DropReason::NotNewer) => {}
                Err(reason) => {
                    self.drops.count(self.now, reason);
                    taken = taken.and(Err(reason));
                }
            }
        }
        taken
    }
}

/// Every statement is later.
const EARLIEST: UnixSeconds = UnixSeconds::new(0);
