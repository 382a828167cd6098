//! A session that is received: what may be delivered of it, and what the driver has to hear of its sender.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyfall_plane::{ESP_SEQUENCE_MAX, EspArrival, EspReceiver};
use keyfall_protocol::DropReason;
use keyfall_protocol::command::ProtectionRecord;
use keyfall_protocol::ids::{GroupNumber, TerminalNumber};
use keyfall_protocol::terminal::may_deliver;

use crate::packet_path::ahead::Ahead;
use crate::packet_path::flows::Ends;
use crate::packet_path::inner::Inner;
use crate::packet_path::waiting::Waiting;
use crate::packet_path::{Ask, Heard, SessionName};

/// What is received of one sender.
pub(super) struct Session {
    pub(super) group: GroupNumber,
    pub(super) receiver: EspReceiver,
    pub(super) ahead: Ahead,
    pub(super) records: Records,
    /// Opened packets above its mark, by their numbers.
    pub(super) opened: Waiting<u32>,
    /// The addresses of the last packet, which were judged.
    pub(super) last: Option<(Ends, SocketAddr)>,
    /// Those of the last packet that was judged well, in this session or in one before it.
    pub(super) between: Option<Ends>,
    /// Those that were judged well, and the driver was told about.
    pub(super) told: Vec<(Ends, SocketAddr)>,
    /// Since when that is so.
    pub(super) told_since: Instant,
    /// When the driver was told of one that does not fit the records that are known.
    pub(super) doubted: Option<Instant>,
    /// When the driver was told last of what its sender refuses.
    pub(super) refused: Option<Instant>,
    pub(super) heard: Instant,
    pub(super) resting: bool,
    /// The next session was asked for.
    pub(super) next_asked: bool,
    pub(super) packets: u64,
    pub(super) octets: u64,
}

/// Who may speak for which addresses.
#[derive(Clone, Default)]
pub(super) struct Records {
    /// What this terminal's own says.
    pub(super) own: Option<Arc<ProtectionRecord>>,
    /// What its sender's says, where it is known.
    pub(super) theirs: Option<Arc<ProtectionRecord>>,
}

/// Marks and the session that follows are asked for before they are needed: what the driver is owed is told
/// it when no lock is held.
#[inline]
pub(super) fn look_ahead(
    session: &mut Session,
    name: SessionName,
    owed: &mut Vec<Ask>,
    now: Instant,
) {
    let highest = session.receiver.highest();
    if let Some(mark) = session.ahead.wanted(highest, now) {
        owed.push(Ask::Mark { name, mark });
    }
    if highest > ESP_SEQUENCE_MAX / 2 && !session.next_asked {
        session.next_asked = true;
        let rate = session.ahead.rate();
        owed.push(Ask::NextSession { name, rate });
    }
}

impl Session {
    pub(super) fn new(
        group: GroupNumber,
        (receiver, ahead): (EspReceiver, Ahead),
        records: Records,
        opened: Waiting<u32>,
        between: Option<Ends>,
        now: Instant,
    ) -> Self {
        Self {
            group,
            receiver,
            ahead,
            records,
            opened,
            last: None,
            between,
            told: Vec::new(),
            told_since: now,
            doubted: None,
            refused: None,
            heard: now,
            resting: false,
            next_asked: false,
            packets: 0,
            octets: 0,
        }
    }

    pub(super) fn on_second(&mut self, now: Instant) {
        let idle = |since: Instant| now.saturating_duration_since(since);
        if !self.resting && idle(self.heard) > REST_AFTER {
            // An idle peer costs little memory.
            self.receiver.rest();
            self.resting = true;
            (self.last, self.told) = (None, Vec::new());
        }
        if idle(self.told_since) >= TELL_AGAIN {
            // The place of a peer that only sends stays known.
            (self.last, self.told_since) = (None, now);
            self.told.clear();
        }
    }

    /// A record is another one.
    pub(super) fn judge_anew(&mut self) {
        self.last = None;
        self.told.clear();
        self.doubted = None;
    }

    /// An authentic dummy packet that says to the terminal `to` that its sender is there: what the driver
    /// has to hear of it. Where the sender sent much to others it is above the mark, and the next one is
    /// not.
    ///
    /// # Errors
    /// It is for another terminal than this one.
    pub(super) fn on_place(
        &mut self,
        name: SessionName,
        (to, sealed): (TerminalNumber, &[u8]),
        (from, now): (SocketAddr, Instant),
        owed: &mut Vec<Ask>,
    ) -> Result<Option<(Ends, SocketAddr)>, DropReason> {
        self.heard = now;
        look_ahead(self, name, owed, now);
        // SECURITY: who copies it on its way and feeds it to another peer moves nobody (KR-564).
        if self
            .records
            .own
            .as_ref()
            .is_some_and(|own| own.terminal != to)
        {
            return Err(DropReason::NotForUs);
        }
        Ok(self.stands_at(sealed, from))
    }

    /// SECURITY: a dummy packet names no addresses. So it says where its sender is only after packets of
    /// its session, or of one before it, were judged, and between the same addresses, as the records are
    /// now (KR-564).
    fn stands_at(&self, sealed: &[u8], from: SocketAddr) -> Option<(Ends, SocketAddr)> {
        let ends = self.between?;
        let sequence = EspArrival::read(sealed).ok()?.sequence;
        let news = self.ahead.covers(sequence) && !self.told.contains(&(ends, from));
        (news && self.may_speak(ends).is_ok()).then_some((ends, from))
    }

    /// SECURITY: a member speaks only for the addresses that its signed record names, and only in the
    /// group that the rule gives for them.
    fn may_speak(&self, ends: Ends) -> Result<(), DropReason> {
        let Records { own, theirs } = &self.records;
        let own = own.as_ref().ok_or(DropReason::NoRecord)?;
        let theirs = theirs.as_ref().ok_or(DropReason::UnknownPeer)?;
        may_deliver(own, theirs, self.group, ends.0, ends.1)
    }

    pub(super) fn may_doubt(&mut self, now: Instant) -> bool {
        is_due(&mut self.doubted, DOUBTED_FOR, now)
    }

    /// SECURITY: a member that refuses without end takes no more of the driver than others (KR-567).
    pub(super) fn may_refuse(&mut self, now: Instant) -> bool {
        is_due(&mut self.refused, SECOND, now)
    }

    pub(super) fn heard_from(&self, name: SessionName, ends: Ends, from: SocketAddr) -> Ask {
        Ask::Heard(Heard {
            group: self.group,
            key: self.receiver.source(),
            peer: name.spi.sender(),
            ends,
            from,
        })
    }
}

/// Whether an opened packet may be delivered; what the driver has to hear of it.
pub(super) fn judge(
    session: &mut Session,
    from: SocketAddr,
    packet: &[u8],
) -> Result<Option<(Ends, SocketAddr)>, DropReason> {
    let inner = Inner::read(packet).ok_or(DropReason::Malformed)?;
    let ends = (inner.source, inner.destination);
    if session.last == Some((ends, from)) {
        return Ok(None);
    }
    let news = !session.told.contains(&(ends, from));
    if news {
        session.may_speak(ends)?;
    }
    (session.last, session.between) = (Some((ends, from)), Some(ends));
    Ok(news.then_some((ends, from)))
}

/// Whether so much time has gone since it was so last; from now on it counts anew.
fn is_due(last: &mut Option<Instant>, pause: Duration, now: Instant) -> bool {
    let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= pause);
    if is_due {
        *last = Some(now);
    }
    is_due
}

/// A session that is not heard for so long gives its window back.
const REST_AFTER: Duration = Duration::from_secs(30);
/// Between two refusals that the driver hears of.
const SECOND: Duration = Duration::from_secs(1);
/// After it the driver is told again that a packet does not fit the records.
const DOUBTED_FOR: Duration = Duration::from_secs(30);
/// The driver hears again where a peer is that goes on sending: what was heard counts for minutes.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Pairs of addresses of a session that the driver was told about.
pub(super) const TOLD_MAX: usize = 256;
