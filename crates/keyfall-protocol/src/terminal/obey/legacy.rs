//! KEY-DIS of the suite rsa-misty1: bare keys, which nobody signed. They count as said by the server's
//! RSA key, which the root lists, within what a key of class keys may say now.

use std::time::Duration;

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
    /// the newest RENEW hold, which counts as later than this. Nor do they say when others have them:
    /// a fresh epoch is sent with after the lead of one, or a START (KR-387).
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
            let before = self.group(group).filter(|held| held.epoch() != epoch);
            let waits = before.is_some();
            // What an excluded one or a thief has is not sent with meanwhile.
            let is_known = before.is_some_and(|held| {
                let announced = held.announced;
                held.distrusted || announced.is_some_and(|it| it.excluded_at.is_some())
            });
            let activation = waits.then(|| self.now.plus(Duration::from_secs(LEAD.into())));
            let contents = KeyDistContents {
                key,
                // The legacy message has no place for it: such a terminal finds nobody by itself.
                search_key: None,
                // For who starts again meanwhile.
                activate_at: if waits { stated.plus(LEAD) } else { EARLIEST },
                cadence: None,
                lease_end: None,
            };
            let judged = allowed(listed, group).and_then(|()| {
                let fits = within_bound(epoch, generation, listed.expires);
                fits.then_some(()).ok_or(DropReason::AboveBound)
            });
            let result = judged
                .and_then(|()| self.take_key(contents, lease, activation, EARLIEST, &authority));
            match result {
                Ok(()) => {
                    self.dirty = true;
                    if let Some(group) = self.group_mut(group).filter(|_| is_known) {
                        group.sending = None;
                    }
                }
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
/// Seconds from the answer until a fresh epoch is sent with: as a server gives those who fetch one.
const LEAD: u32 = 8;
