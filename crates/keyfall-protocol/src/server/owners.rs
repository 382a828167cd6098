//! Records that are others from now on, though they may say the same as before, are told at once: whoever
//! heard the newer one does not go by the older. By the carriers, and to those whom they are about past the
//! carousel, which may be slow or not heard there (PROTOCOL 17.1).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::{TerminalNumber, Tick};
use crate::rng::Random;
use crate::server::{Item, Server};

/// Whose record is to be told to them. At most as many as there are terminals.
#[derive(Debug, Default)]
pub(super) struct Owners {
    untold: BTreeSet<TerminalNumber>,
    /// The records are signed by keys that their owners may not have heard of.
    by_new_keys: bool,
    /// When the next of them are told.
    next: Tick,
}

impl Owners {
    /// What is told next is signed by other keys than before.
    pub(super) fn by_new_keys(&mut self) {
        self.by_new_keys = true;
    }

    /// When somebody is to be told.
    pub(super) fn next_at(&self) -> Option<Tick> {
        (!self.untold.is_empty()).then_some(self.next)
    }
}

impl Server {
    /// Few are announced, many begin a new round.
    pub(super) fn tell_records(&mut self, records: BTreeSet<TerminalNumber>) {
        let now = self.at.now;
        if records.len() <= RECORDS_ANNOUNCED {
            for &number in &records {
                self.carousel.announce(Item::Record(number), now);
            }
        } else {
            let told = |item| matches!(item, Item::Record(number) if records.contains(&number));
            self.carousel.restart(now, told);
        }
        self.owners.untold.extend(records);
    }

    /// Tells some of those who can be reached; all together would be a burst of signatures and datagrams.
    pub(super) fn turn_owners(&mut self, rng: &mut dyn Random) {
        let now = self.at.now;
        if !self.may_send() || self.owners.next_at().is_none_or(|at| at > now) {
            return;
        }
        if self.signers_ended() {
            // New keys make all of them others.
            self.owners.untold.clear();
            return;
        }
        let mut told = 0;
        while told < TOLD_AT_ONCE
            && let Some(number) = self.owners.untold.pop_first()
        {
            if self.peers.reachable(number, now).is_none() {
                continue;
            }
            told += 1;
            if self.owners.by_new_keys {
                self.tell(&[Item::KeySet], &[number], rng);
            }
            self.tell(&[Item::Record(number)], &[number], rng);
        }
        if self.owners.untold.is_empty() {
            self.owners.by_new_keys = false;
        }
        self.owners.next = now.plus(TOLD_EVERY);
    }
}

/// Records that are announced together: each is said five times in eight seconds, and what else is
/// new must not wait for them.
const RECORDS_ANNOUNCED: usize = 64;
/// 1,280 owners a second.
const TOLD_AT_ONCE: usize = 64;
const TOLD_EVERY: Duration = Duration::from_millis(50);
