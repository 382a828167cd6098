//! The generations of one key that a terminal holds at a time.
//!
//! The newest is what disk holds. Older ones live in memory only, receive-only, until their grace
//! ends; a newer one may wait for its activation time while the older still sends
//! (INVARIANT 5: receive before send).

use crate::ids::{Generation, KeyEpoch, Tick};
use crate::keys::PreSharedKey;

/// A held generation that is not the newest.
#[derive(Debug)]
struct Slot<R> {
    key: PreSharedKey<R>,
    /// When it is wiped.
    until: Tick,
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
        Self {
            newest,
            older: Vec::new(),
        }
    }

    /// The newest generation held, the one that disk holds.
    #[must_use]
    pub fn newest(&self) -> &PreSharedKey<R> {
        &self.newest
    }

    /// The key of exactly that epoch and generation, where it is held.
    #[must_use]
    pub fn at(&self, epoch: KeyEpoch, generation: Generation) -> Option<&PreSharedKey<R>> {
        self.all()
            .find(|key| key.epoch() == epoch && key.generation() == generation)
    }

    /// Every key held, newest first.
    pub fn all(&self) -> impl Iterator<Item = &PreSharedKey<R>> {
        std::iter::once(&self.newest).chain(self.older.iter().rev().map(|slot| &slot.key))
    }

    /// Installs a key that was renewed, received or derived in scratch; the caller has seen that
    /// it is newer. What was newest is received for as long as `until` says. Call
    /// [`Self::expire`] afterwards: it bounds what is kept.
    pub fn replace(&mut self, next: PreSharedKey<R>, until: Tick) {
        let old = std::mem::replace(&mut self.newest, next);
        self.older.push(Slot { key: old, until });
    }

    /// Holds a key that came after a newer one and is newer than the `sent` one: it is received for
    /// as long as that. False where `sent` is the newest, or gone, or the key is held already.
    pub fn slip_in(&mut self, key: PreSharedKey<R>, sent: (KeyEpoch, Generation)) -> bool {
        let name = |key: &PreSharedKey<R>| (key.epoch(), key.generation());
        let until = |slot: &Slot<R>| (name(&slot.key) == sent).then_some(slot.until);
        let Some(until) = self.older.iter().find_map(until) else {
            return false;
        };
        let place = self.older.partition_point(|it| name(&it.key) < name(&key));
        let next = self.older.get(place).map_or(&self.newest, |it| &it.key);
        let fits = sent < name(&key) && name(&key) < name(next);
        if fits {
            self.older.insert(place, Slot { key, until });
        }
        fits
    }

    /// Steps to `target`. Does nothing where it is not newer (INVARIANT 1).
    pub fn renew_to(&mut self, target: Generation, until: Tick) {
        if target > self.newest.generation() {
            let next = self.newest.duplicate().renew_to(target);
            self.replace(next, until);
        }
    }

    /// Older generations that waited for the newest to become active end at `until` now.
    pub fn retire(&mut self, until: Tick) {
        for slot in &mut self.older {
            slot.until = slot.until.min(until);
        }
    }

    /// Wipes what is past its grace, and of too many those that end first. Of keys
    /// that wait for an activation the oldest stays longest: it is the one that sends. True where
    /// anything went.
    pub fn expire(&mut self, now: Tick) -> bool {
        let before = self.older.len();
        self.older.retain(|slot| slot.until > now);
        while self.older.len() > OLDER_MAX {
            let ends_first = (0..self.older.len())
                .rev()
                .min_by_key(|&place| self.older[place].until);
            if let Some(place) = ends_first {
                self.older.remove(place);
            }
        }
        self.older.len() < before
    }

    /// When [`Self::expire`] has something to do next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Tick> {
        self.older.iter().map(|slot| slot.until).min()
    }
}

/// At most this many older generations are kept, whatever renews how fast.
const OLDER_MAX: usize = 4;
