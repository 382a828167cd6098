//! The generations of one key that a terminal holds at a time.
//!
//! The newest is what disk holds. Older ones live in memory only, receive-only, until their grace
//! ends; a newer one may wait for its activation time while the older still sends
//! (INVARIANT 5: receive before send).

use std::time::Duration;

use crate::ids::{Generation, KeyEpoch, Tick};
use crate::keys::PreSharedKey;

/// A held generation that is not the newest.
#[derive(Debug)]
pub struct Slot<R> {
    pub key: PreSharedKey<R>,
    /// When it is wiped.
    pub until: Tick,
}

/// The newest generation of a key and the few before it that late packets still need.
#[derive(Debug)]
pub struct Ring<R> {
    newest: PreSharedKey<R>,
    older: Vec<Slot<R>>,
}

impl<R> Ring<R> {
    #[must_use]
    pub fn new(newest: PreSharedKey<R>) -> Self {
        Self { newest, older: Vec::new() }
    }

    /// The newest generation held, the one that disk holds.
    #[must_use]
    pub fn newest(&self) -> &PreSharedKey<R> {
        &self.newest
    }

    /// The key of exactly `generation`, where it is held.
    #[must_use]
    pub fn at(&self, generation: Generation) -> Option<&PreSharedKey<R>> {
        self.all().find(|key| key.generation() == generation)
    }

    /// Every key held, newest first.
    pub fn all(&self) -> impl Iterator<Item = &PreSharedKey<R>> {
        std::iter::once(&self.newest).chain(self.older.iter().rev().map(|slot| &slot.key))
    }

    /// Steps to `target` and keeps what was newest until `now + grace`. Does nothing where the
    /// target is not newer (INVARIANT 1).
    pub fn renew_to(&mut self, target: Generation, now: Tick, grace: Duration) {
        if target <= self.newest.generation() {
            return;
        }
        let next = self.newest.duplicate().renew_to(target);
        self.replace(next, now, grace);
    }

    /// Installs a key that was received or derived in scratch; the caller has seen that it is
    /// newer. An older epoch's keys stay until their own grace ends.
    pub fn replace(&mut self, next: PreSharedKey<R>, now: Tick, grace: Duration) {
        let old = std::mem::replace(&mut self.newest, next);
        if self.older.len() == OLDER_MAX {
            self.older.remove(0);
        }
        self.older.push(Slot { key: old, until: now.plus(grace) });
    }

    /// Wipes what is past its grace. Returns when to call again.
    pub fn expire(&mut self, now: Tick) -> Option<Tick> {
        self.older.retain(|slot| slot.until > now);
        self.older.iter().map(|slot| slot.until).min()
    }

    /// Keeps only the keys of `epoch`: after an exclusion the old epoch has no grace.
    pub fn drop_other_epochs(&mut self, epoch: KeyEpoch) {
        self.older.retain(|slot| slot.key.epoch() == epoch);
    }
}

/// At most this many older generations are kept, whatever renews how fast.
const OLDER_MAX: usize = 4;
