//! Which key opens a packet of an unknown session (FORMATS sections 3.2 and 7; REQUIREMENTS A-11,
//! W-04).

use crate::ids::{EspSession, Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick};
use crate::keys::{MasterKey, esp_tag_hash};
use crate::stats::DropReason;
use crate::terminal::budget::Source;
use crate::terminal::group::Group;
use crate::terminal::packets::Standing;
use crate::terminal::{Terminal, Trial};

/// What a packet of an unknown session says about itself.
#[derive(Clone, Copy, Debug)]
pub struct PacketQuery {
    /// The seven low bits of the SPI.
    pub tag: u8,
    /// Who it says sent it.
    pub sender: TerminalNumber,
    pub session: EspSession,
    pub source: Source,
}

/// A session whose first packet opened.
#[derive(Debug)]
pub struct OpenedSession<R> {
    pub group: GroupNumber,
    pub epoch: KeyEpoch,
    pub generation: Generation,
    /// Whether a signed record puts the sender into the group. Who holds the group's key can name any
    /// sender and session: nothing is to be kept of one that is in no record, but
    /// [`Input::PacketFrom`](crate::terminal::Input::PacketFrom) finds out who it is.
    pub is_recorded: bool,
    /// What the trial made of the key: the receiver, as a rule.
    pub receiver: R,
    /// The key is of a newer generation, derived in scratch: feed
    /// [`Input::Opened`](crate::terminal::Input::Opened) before anything is delivered.
    pub trial: Option<Trial>,
}

impl Terminal {
    /// Finds the group and the key of a packet of a session that the path does not know yet. `opens`
    /// gets a master key whose tag is the packet's and the stored mark of the session under it, and
    /// says whether the packet opened under it, with what it wants to keep. Held keys come first.
    /// Each trial costs one token of the budget, and one of a generation not held a derivation in
    /// scratch; if it opened nothing, nothing has happened.
    ///
    /// # Errors
    /// The reason why no key opened it; it is counted already.
    pub fn receive_packet<R>(
        &mut self,
        now: Tick,
        query: PacketQuery,
        mut opens: impl FnMut(&MasterKey, u32) -> Option<R>,
    ) -> Result<OpenedSession<R>, DropReason> {
        self.now = self.now.max(now);
        self.try_packet(query, &mut opens)
            .inspect_err(|&reason| self.drops.count(self.now, reason))
    }

    /// A key that is held, with the stored mark of a session under it: for the session that follows one
    /// which is received under that key.
    ///
    /// # Errors
    /// [`DropReason::NotHeld`], or [`DropReason::RefusedSession`].
    pub fn held_session(
        &self,
        group: GroupNumber,
        (epoch, generation): (KeyEpoch, Generation),
        sender: TerminalNumber,
        session: EspSession,
    ) -> Result<(&MasterKey, u32), DropReason> {
        let group = self.group(group).ok_or(DropReason::NotHeld)?;
        let key = group.ring.at(epoch, generation);
        let key = key.ok_or(DropReason::NotHeld)?;
        match group.packets.standing((epoch, generation, sender), session) {
            Standing::UpTo(mark) => Ok((key, mark)),
            Standing::Refused => Err(DropReason::RefusedSession),
        }
    }

    /// The group's key at a generation that is held, or the one that is sent with: for those who are to
    /// read or send packets without being a terminal.
    #[must_use]
    pub fn packet_key(
        &self,
        group: GroupNumber,
        generation: Option<Generation>,
    ) -> Option<&MasterKey> {
        match generation {
            None => self.send_key(group),
            Some(generation) => {
                let mut held = self.group(group)?.ring.all();
                held.find(|key| key.generation() == generation)
            }
        }
    }

    fn try_packet<R>(
        &mut self,
        query: PacketQuery,
        opens: &mut dyn FnMut(&MasterKey, u32) -> Option<R>,
    ) -> Result<OpenedSession<R>, DropReason> {
        if query.sender == self.identity.number {
            return Err(DropReason::OwnPacket);
        }
        let mut why = self.why_no_candidate();
        let candidates = self.packet_candidates(query, &mut why);
        for Candidate {
            group: number,
            epoch,
            generation,
            held,
        } in candidates
        {
            let budget = if held {
                &mut self.held_trials
            } else {
                &mut self.unheld_trials
            };
            if !budget.take(self.now, query.source) {
                return Err(DropReason::TrialBudget);
            }
            let Some(group) = self.group(number) else {
                continue;
            };
            let key = (epoch, generation, query.sender);
            let Standing::UpTo(mark) = group.packets.standing(key, query.session) else {
                why = DropReason::RefusedSession;
                continue;
            };
            let record = self.record_of(query.sender);
            let is_recorded = record.is_some_and(|it| it.group(number).is_some());
            let opened = |receiver, trial| OpenedSession {
                group: number,
                epoch,
                generation,
                is_recorded,
                receiver,
                trial,
            };
            match group.ring.at(epoch, generation) {
                Some(key) => {
                    if let Some(receiver) = opens(key, mark) {
                        return Ok(opened(receiver, None));
                    }
                }
                None => {
                    let key = group.ring.newest().duplicate().renew_to(generation);
                    if let Some(receiver) = opens(&key, mark) {
                        return Ok(opened(receiver, Some(Trial::of(key))));
                    }
                }
            }
            why = DropReason::Authentication;
        }
        Err(why)
    }

    fn why_no_candidate(&self) -> DropReason {
        if self.is_locked() {
            DropReason::Locked
        } else {
            DropReason::UnknownTag
        }
    }

    /// Every key of every group that the tag fits: held ones, newest first in each group, then one
    /// of a newer generation for each group. `why` is what the last group that fits none says.
    fn packet_candidates(&self, query: PacketQuery, why: &mut DropReason) -> Vec<Candidate> {
        let time = self.time();
        let (mut held, mut unheld) = (Vec::new(), Vec::new());
        let groups = self.user.iter().flat_map(|user| &user.groups);
        for (&number, group) in groups {
            if let Err(reason) = self.may_receive(number, query.sender) {
                *why = reason;
                continue;
            }
            let fitting = group.ring.all().filter(|key| key.esp_tag() == query.tag);
            held.extend(fitting.map(|key| Candidate {
                group: number,
                epoch: key.epoch(),
                generation: key.generation(),
                held: true,
            }));
            match newer(group, query.tag) {
                Ok(generation) if generation > group.ceiling(time) => {
                    *why = DropReason::AboveCeiling;
                }
                Ok(generation) => unheld.push(Candidate {
                    group: number,
                    epoch: group.epoch(),
                    generation,
                    held: false,
                }),
                Err(DropReason::UnknownTag) => {}
                Err(reason) => *why = reason,
            }
        }
        held.append(&mut unheld);
        held
    }
}

/// The newer generation of the held epoch that a tag stands for: at most 14 ahead, since the tag
/// counts modulo 16 and one may lag behind (FORMATS section 3.2).
fn newer(group: &Group, tag: u8) -> Result<Generation, DropReason> {
    let newest = group.ring.newest();
    if esp_tag_hash(newest.kid(), newest.epoch()) != tag >> 4 {
        return Err(DropReason::UnknownTag);
    }
    match (tag & 0x0f).wrapping_sub(newest.generation().low4()) & 0x0f {
        // The newest is held, and was among those.
        0 => Err(DropReason::UnknownTag),
        ahead if u32::from(ahead) <= AHEAD_MAX => Ok(newest.generation().plus(u32::from(ahead))),
        _ => Err(DropReason::OlderGeneration),
    }
}

struct Candidate {
    group: GroupNumber,
    epoch: KeyEpoch,
    generation: Generation,
    held: bool,
}

/// A gap that one packet may close.
const AHEAD_MAX: u32 = 14;
