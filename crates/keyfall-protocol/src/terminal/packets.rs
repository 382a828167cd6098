//! What a group keeps of the packet plane: its own sessions, recorded before they are used, and how
//! far each session of others was delivered (FORMATS section 7, "Anti-replay").

mod stock;
mod stored;

use std::collections::BTreeMap;

pub use stock::{NewStockSender, StockSender};

use crate::ids::{EspSession, Generation, KeyEpoch, TerminalNumber};

/// Sessions that are recorded and were given to nobody: use each for one sender, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionBlock {
    next: EspSession,
    left: u32,
}

impl SessionBlock {
    /// So many from `next` on. They have to be recorded as given, or two starts send in one.
    #[must_use]
    pub const fn recorded(next: EspSession, left: u32) -> Self {
        Self { next, left }
    }

    /// The next session, once.
    pub fn take(&mut self) -> Option<EspSession> {
        self.left = self.left.checked_sub(1)?;
        let session = self.next;
        self.next = session.next();
        Some(session)
    }

    /// How many are left; ask for another block before there are none.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.left
    }
}

/// Nothing of this session up to this sequence number is delivered again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketMark {
    pub epoch: KeyEpoch,
    pub generation: Generation,
    pub sender: TerminalNumber,
    pub session: EspSession,
    pub sequence: u32,
}

impl PacketMark {
    /// What to store where `highest` was delivered and about `a_second` packets come in a second:
    /// ahead by two seconds of them and at least by 64, so that one store a second is enough.
    #[must_use]
    pub const fn ahead(highest: u32, a_second: u32) -> u32 {
        let by = a_second.saturating_mul(2);
        let mark = highest.saturating_add(if by < AHEAD_MIN { AHEAD_MIN } else { by });
        if mark > SEQUENCE_MAX {
            SEQUENCE_MAX
        } else {
            mark
        }
    }
}

/// What is known of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// Nothing of it beyond this number was delivered; 0 where it was never heard.
    UpTo(u32),
    /// It was heard, and how far is not known any more.
    Refused,
}

/// What came of a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Recorded {
    /// Nothing up to it is delivered again: the mark, or one above it that was stored before.
    pub(super) sequence: u32,
    /// The session of the same sender that is refused from now on.
    pub(super) displaced: Option<EspSession>,
}

/// Own sessions and marks of one group.
#[derive(Debug, Default)]
pub(super) struct Packets {
    /// Recorded own sessions, the present stretch last: the first one and how many.
    own: Vec<(EspSession, u32)>,
    /// Whether the last stretch of `own` was begun since the power came.
    begun: bool,
    heard: BTreeMap<HeardKey, Heard>,
    /// Keys that were given to programs that know nothing of Keyfall.
    stock: Vec<StockSender>,
}

type HeardKey = (KeyEpoch, Generation, TerminalNumber);

/// What one sender sent under one generation.
#[derive(Debug, Default)]
struct Heard {
    /// The one heard last at the end.
    sessions: Vec<(EspSession, u32)>,
    /// Displaced by newer ones.
    refused: Vec<EspSession>,
}

impl Packets {
    /// Records the next sessions: those after the ones of this start, at first at random.
    pub(super) fn open_block(&mut self, mut drawn: impl FnMut() -> EspSession) -> SessionBlock {
        if self.begun
            && let Some(&(first, count)) = self.own.last()
        {
            let next = first.plus(count);
            if self.is_free(next) {
                let last = self.own.len() - 1;
                self.own[last].1 += BLOCK;
                return SessionBlock::recorded(next, BLOCK);
            }
        }
        let mut first = drawn();
        while !self.is_free(first) {
            first = drawn();
        }
        if self.own.len() == OWN_MAX {
            // 40 random bits keep a repeat of the oldest away.
            self.own.remove(0);
        }
        self.own.push((first, BLOCK));
        self.begun = true;
        SessionBlock::recorded(first, BLOCK)
    }

    /// Whether none of the sessions of a block from `first` on is recorded.
    fn is_free(&self, first: EspSession) -> bool {
        !self.own.iter().any(|&(held, count)| {
            held.steps_to(first) < u64::from(count) || first.steps_to(held) < u64::from(BLOCK)
        })
    }

    pub(super) fn standing(&self, key: HeardKey, session: EspSession) -> Standing {
        let Some(heard) = self.heard.get(&key) else {
            return if self.heard.len() < HEARD_MAX {
                Standing::UpTo(0)
            } else {
                Standing::Refused
            };
        };
        if let Some(&(_, mark)) = heard.sessions.iter().find(|(held, _)| *held == session) {
            return Standing::UpTo(mark);
        }
        // INVARIANT: what cannot be remembered is not delivered.
        if heard.refused.contains(&session) || heard.refused.len() >= REFUSED_MAX {
            Standing::Refused
        } else {
            Standing::UpTo(0)
        }
    }

    /// Records how far a session was delivered; marks only rise. `None` where the session is
    /// refused.
    pub(super) fn record(&mut self, mark: PacketMark) -> Option<Recorded> {
        let key = (mark.epoch, mark.generation, mark.sender);
        let Standing::UpTo(before) = self.standing(key, mark.session) else {
            return None;
        };
        let mut displaced = None;
        let heard = self.heard.entry(key).or_default();
        let held = heard.sessions.iter().position(|it| it.0 == mark.session);
        if let Some(place) = held {
            heard.sessions.remove(place);
        } else if heard.sessions.len() == SESSIONS_MAX {
            // The session that was idle longest.
            let (idle, _) = heard.sessions.remove(0);
            heard.refused.push(idle);
            displaced = Some(idle);
        }
        let sequence = mark.sequence.max(before);
        heard.sessions.push((mark.session, sequence));
        Some(Recorded {
            sequence,
            displaced,
        })
    }

    /// What was sent under keys that are not held opens no more, so nothing is to be remembered.
    pub(super) fn forget(&mut self, held: impl Fn(KeyEpoch, Generation) -> bool) {
        self.heard
            .retain(|&(epoch, generation, _), _| held(epoch, generation));
    }
}

/// Sessions that are recorded at a time.
const BLOCK: u32 = 16;
/// Stretches of own sessions that are remembered for each group.
const OWN_MAX: usize = 1024;
/// Sessions of one sender under one generation whose marks are remembered.
const SESSIONS_MAX: usize = 64;
/// Displaced sessions that are remembered: then no further session is heard of that sender under
/// that generation.
const REFUSED_MAX: usize = 1024;
/// Senders under one generation that are remembered for each group.
const HEARD_MAX: usize = 65_536;
/// What a mark is stored ahead at least.
const AHEAD_MIN: u32 = 64;
/// The last sequence number of a session (PROTOCOL section 16.2).
const SEQUENCE_MAX: u32 = (1 << 24) - 1;

#[cfg(test)]
mod tests;
