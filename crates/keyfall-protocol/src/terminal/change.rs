//! The change of a running group's key, as STOP and START tell of it (REQUIREMENTS,
//!
//!
//! STOP: this terminal steps to the key named, receives with both and sends nothing. START: it
//! sends with the key named, whatever its activation time was; the grace of the older key begins.
//! Without a STOP before it START means the same.

use crate::command::{Halt, HaltKind};
use crate::ids::{Generation, KeyEpoch, KeyName, SequenceNumber, Tick, UnixSeconds};
use crate::stats::DropReason;
use crate::terminal::StoreId;
use crate::terminal::group::{FAR, Group};

/// The newest change of a group's key that was signed.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) transaction: SequenceNumber,
    /// Who signed what was heard last of it.
    pub(super) by: KeyName,
    /// What was heard last of it.
    pub(super) kind: HaltKind,
    /// What the group sends with after it.
    pub(super) key: (KeyEpoch, Generation),
    pub(super) deadline: UnixSeconds,
    /// Nothing is sent: from STOP until START has moved sending, or `until`.
    pub(super) stopped: bool,
    /// When a stop ends by itself; `None` from a power cut until the time is known.
    pub(super) until: Option<Tick>,
    /// A confirmation that was not given yet.
    pub(super) owed: Option<Owed>,
}

/// Given once the change is durable and done.
#[derive(Debug)]
pub(super) struct Owed {
    /// `None`: not asked to be stored yet.
    pub(super) store: Option<StoreId>,
}

/// What a STOP or START is to the change that is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    New,
    /// The same as was obeyed already: only the confirmation is given again.
    Again,
}

impl Change {
    /// Whether a STOP or START says anything beside what is held (KR-321). `supersedes`: whoever
    /// signed the held one is listed no more, so that a lower transaction wins, too.
    pub(super) fn judge(
        held: Option<&Self>,
        kind: HaltKind,
        halt: &Halt,
        supersedes: bool,
    ) -> Result<Word, DropReason> {
        let Some(held) = held else {
            return Ok(Word::New);
        };
        if supersedes || halt.transaction > held.transaction {
            return Ok(Word::New);
        }
        if halt.transaction < held.transaction {
            return Err(DropReason::NotNewer);
        }
        let same_key = held.key == (halt.epoch, halt.generation);
        match (held.kind, kind) {
            (HaltKind::Stop, HaltKind::Start) => Ok(Word::New),
            (HaltKind::Stop, HaltKind::Stop) if same_key && held.stopped => Ok(Word::Again),
            (HaltKind::Start, HaltKind::Start) if same_key => Ok(Word::Again),
            // A STOP after its START, or after its end, stops nothing.
            (HaltKind::Stop | HaltKind::Start, HaltKind::Stop)
            | (HaltKind::Start, HaltKind::Start) => Err(DropReason::NotNewer),
        }
    }
}

impl Group {
    /// Whether a STOP keeps this terminal from sending.
    pub(super) fn is_stopped(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.stopped)
    }

    /// While a STOP holds: before it no newer key is sent with, and no older one's grace begins
    /// (KR-320).
    pub(super) fn stop_end(&self) -> Option<Tick> {
        let change = self.change.as_ref()?;
        let holds = change.stopped && change.kind == HaltKind::Stop;
        holds.then(|| change.until.unwrap_or(FAR))
    }

    /// A STOP that holds until `until`.
    pub(super) fn stop(&mut self, halt: &Halt, by: KeyName, until: Tick) {
        let before = self.stop_end();
        self.change = Some(Change {
            transaction: halt.transaction,
            by,
            kind: HaltKind::Stop,
            key: (halt.epoch, halt.generation),
            deadline: halt.deadline,
            stopped: true,
            until: Some(until),
            owed: Some(Owed { store: None }),
        });
        if let Some(activation) = &mut self.activation {
            // What waited for an older stop waits for this one; what waits for longer goes on.
            let own = activation.at.filter(|&at| Some(at) != before);
            activation.at = Some(own.map_or(until, |at| at.max(until)));
        }
    }

    /// A START. Where a STOP holds, nothing is sent until sending has moved.
    pub(super) fn start(&mut self, halt: &Halt, by: KeyName) {
        let held = self.change.take();
        let (stopped, until) = held.map_or((false, None), |it| (it.stopped, it.until));
        self.change = Some(Change {
            transaction: halt.transaction,
            by,
            kind: HaltKind::Start,
            key: (halt.epoch, halt.generation),
            deadline: halt.deadline,
            stopped,
            until,
            owed: Some(Owed { store: None }),
        });
    }

    /// The same STOP or START once more: it was obeyed and is stored already, or is being stored.
    pub(super) fn owe_again(&mut self) {
        if let Some(change) = &mut self.change {
            let durable = StoreId::default();
            change.owed.get_or_insert(Owed {
                store: Some(durable),
            });
        }
    }

    /// The stop is over without START: the newest key is sent with.
    pub(super) fn resume(&mut self) {
        let end = self.stop_end();
        if let Some(activation) = &mut self.activation
            && activation.at == end
        {
            activation.at = None;
        }
        if let Some(change) = &mut self.change {
            change.stopped = false;
            if change.kind == HaltKind::Stop {
                change.owed = None;
            }
        }
    }

    /// After a power cut the time tells how long a STOP holds still.
    pub(super) fn hold_stop_until(&mut self, until: Tick) {
        let before = self.stop_end();
        if let Some(activation) = &mut self.activation
            && before.is_some()
            && activation.at == before
        {
            activation.at = Some(until);
        }
        if let Some(change) = &mut self.change {
            change.until = Some(until);
        }
    }

    /// The generation to step to, while a change is not done: of the epoch that is held.
    pub(super) fn change_asks_for(&self) -> Option<Generation> {
        let change = self.change.as_ref().filter(|it| it.owed.is_some())?;
        let (epoch, generation) = change.key;
        (epoch == self.epoch() && generation > self.newest()).then_some(generation)
    }

    /// START does not wait for any activation time (KR-326): neither of the key that it names, nor of a
    /// newer one where that is held no more.
    pub(super) fn hasten(&mut self) {
        let Some(key) = self.start_in_hand() else {
            return;
        };
        let newest = (self.epoch(), self.newest());
        let held_no_more = newest > key && self.ring.at(key.0, key.1).is_none();
        if let Some(activation) = &mut self.activation
            && (newest == key || held_no_more)
        {
            activation.at = None;
        }
    }

    /// Sending moves to the key that START names, where a newer one waits for its own time. True
    /// where it moved.
    pub(super) fn move_to_started(&mut self, stored: StoreId) -> bool {
        let Some(key) = self.start_in_hand() else {
            return false;
        };
        let newest_is_durable = self
            .activation
            .as_ref()
            .is_none_or(|it| it.store.is_some_and(|store| store <= stored));
        let moves = newest_is_durable && self.ring.at(key.0, key.1).is_some();
        if moves && key < (self.epoch(), self.newest()) {
            self.sending = Some(key);
            return true;
        }
        false
    }

    /// Whether START named the newest key, so that its own time counts no more.
    pub(super) fn newest_is_started(&self) -> bool {
        let newest = (self.epoch(), self.newest());
        let change = self.change.as_ref();
        change.is_some_and(|change| change.kind == HaltKind::Start && change.key >= newest)
    }

    /// The key of a START that sending has not reached.
    fn start_in_hand(&self) -> Option<(KeyEpoch, Generation)> {
        let change = self.change.as_ref()?;
        let waits = change.kind == HaltKind::Start && change.owed.is_some();
        (waits && self.sending < Some(change.key)).then_some(change.key)
    }

    /// The stop ends with START: sending has moved. True where it just did.
    pub(super) fn end_stop_by_start(&mut self) -> bool {
        let sending = self.sending;
        let Some(change) = &mut self.change else {
            return false;
        };
        let ends = change.stopped && change.kind == HaltKind::Start && sending >= Some(change.key);
        change.stopped &= !ends;
        ends
    }

    /// The change whose confirmation may be given now: it is durable, and done (KR-324). Once.
    pub(super) fn confirm(&mut self, stored: StoreId) -> Option<&Change> {
        let (sending, newest) = (self.sending, (self.epoch(), self.newest()));
        let change = self.change.as_mut()?;
        let owed = change.owed.as_ref()?;
        let durable = owed.store.is_some_and(|store| store <= stored);
        let done = match change.kind {
            HaltKind::Stop => change.stopped && newest >= change.key,
            HaltKind::Start => sending >= Some(change.key),
        };
        if !(durable && done) {
            return None;
        }
        change.owed = None;
        Some(change)
    }
}

/// Seconds that a STOP holds at the most.
pub(super) const STOP_MAX: u32 = 3600;
