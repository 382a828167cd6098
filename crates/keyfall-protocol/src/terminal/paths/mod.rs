//! One table: which group and which peer for a flow from this source to that destination? From records
//! (a known peer: no search), or from key search (FORMATS section 8.1; REQUIREMENTS R-100 to R-109,
//! A-22 to A-26, W-06, W-21).
//!
//! ```text
//! path() ──► clear list ──► multicast ──► found before ──► known peer ──► search ──► PathFound
//!              Clear          group         Protect          Protect      Searching   or PathLost
//! ```

mod answerer;
mod asker;
mod found;
mod peers;
mod rule;
mod view;

use core::net::{IpAddr, SocketAddr};
use std::cmp::Ordering;
use std::time::Duration;

use answerer::Answerer;
use asker::Searches;
use found::{Ends, Found, FoundPath};
use peers::{Learned, Peer, Peers};
pub use rule::may_deliver;
pub use view::{PathCounts, PathView, PeerView};

use crate::command::{
    Prefix, ProtectionRecord, SEARCH_KEY_LEN, SignedRecord, SignerClass, UnverifiedRecord,
};
use crate::ids::{Generation, GroupNumber, KeyEpoch, KeyName, TerminalNumber, Tick, UnixSeconds};
use crate::keys::Secret;
use crate::rng::Random;
use crate::search::message::SearchMessage;
use crate::sharing::Assembly;
use crate::sharing::message::{COMMAND, Message, PART, Part, message_in, type_of};
use crate::stats::DropReason;
use crate::terminal::budget::Budget;
use crate::terminal::group::Group;
use crate::terminal::handing::{Lacks, Shown};
use crate::terminal::{Cause, Event, Output, Source, Terminal};

/// What happens to a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Way {
    /// Protected under that group's key, sent to that peer. Ask again at `until`.
    Protect {
        group: GroupNumber,
        peer: TerminalNumber,
        endpoint: SocketAddr,
        until: Tick,
    },
    /// Protected once for all members.
    ProtectMulticast { group: GroupNumber, until: Tick },
    /// A search is on its way: hold the packets, within bounds, until [`Event::PathFound`] or
    /// [`Event::PathLost`] names the two addresses. Feed [`Input::Timeout`](super::Input::Timeout)
    /// at once: the probe leaves then.
    Searching,
    /// As it is: the root's clear list says so, and nothing else ever does (KR-540).
    Clear,
    /// Nowhere; nothing is counted yet, since this is about a flow and not a packet.
    Drop(DropReason),
}

/// An inner packet that opened: the first of its session, of its two inner addresses, or of a new outer
/// address.
#[derive(Clone, Copy, Debug)]
pub struct PacketFrom {
    pub group: GroupNumber,
    /// The key that opened it.
    pub key: (KeyEpoch, Generation),
    pub peer: TerminalNumber,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The outer address it came from.
    pub endpoint: SocketAddr,
}

/// Everything this terminal knows of ways.
#[derive(Debug)]
pub(super) struct Paths {
    own: Option<SignedRecord>,
    peers: Peers,
    found: Found,
    searches: Searches,
    answerer: Answerer,
    parts: Assembly<SocketAddr>,
    /// Frames that peers hand on and that are looked at: whoever reaches the packet port must not
    /// use up the signatures that are checked of a carrier's frames.
    handed: Budget,
    /// The same of frames that come from where a peer was heard: strangers do not use it up.
    handed_by_peers: Budget,
    /// Searches for who sends under another group than the rule gives, by who it is.
    doubts: Budget,
    /// When expired paths are looked for next.
    sweep: Tick,
}

impl Paths {
    pub(super) fn new(own: Option<SignedRecord>) -> Self {
        Self {
            own,
            peers: Peers::default(),
            found: Found::default(),
            searches: Searches::new(),
            answerer: Answerer::new(),
            parts: Assembly::new(64, 2),
            handed: Budget::new(HANDED_OF_SOURCE, HANDED_A_SECOND),
            handed_by_peers: Budget::new(HANDED_OF_SOURCE, HANDED_A_SECOND),
            doubts: Budget::new(DOUBTS_OF_PEER, DOUBTS_A_SECOND),
            sweep: Tick::default(),
        }
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<Tick> {
        let sweep = (!self.found.is_empty()).then_some(self.sweep);
        [self.searches.due(), sweep].into_iter().flatten().min()
    }

    /// What was found or asked goes with the user compartment; records are no secret and stay.
    pub(super) fn close(&mut self) {
        self.found = Found::default();
        self.searches = Searches::new();
        self.answerer = Answerer::new();
    }
}

impl Terminal {
    /// What happens to packets from `source` to `destination`, as of `now`. Where it answers
    /// [`Way::Searching`], poll and feed as after an input.
    pub fn path(&mut self, now: Tick, source: IpAddr, destination: IpAddr) -> Way {
        self.now = self.now.max(now);
        if self.clear_list().any(|prefix| prefix.contains(destination)) {
            return Way::Clear;
        }
        self.protected_path(source, destination)
            .unwrap_or_else(Way::Drop)
    }

    fn protected_path(&mut self, source: IpAddr, destination: IpAddr) -> Result<Way, DropReason> {
        if self.is_locked() {
            return Err(DropReason::Locked);
        }
        if self.is_excluded(self.identity.number) {
            return Err(DropReason::Excluded);
        }
        let now = self.now;
        let own = self.own_record().ok_or(DropReason::NoRecord)?.record();
        if !own.speaks_for(source) {
            return Err(DropReason::SourceNotOurs);
        }
        if destination.is_multicast() {
            let group = rule::choose_multicast(own, destination).ok_or(DropReason::NoGroupThere)?;
            let until = now.plus(ASK_AGAIN);
            return Ok(Way::ProtectMulticast { group, until });
        }
        if own.speaks_for(destination) || !is_routable(destination) {
            return Err(DropReason::NoWayThere);
        }
        let ends = (source, destination);
        if let Some(way) = self.found_path(ends) {
            return Ok(way);
        }
        let own = self.own_record().ok_or(DropReason::NoRecord)?.record();
        let known = self.paths.peers.protecting(own, ends, self.record_time());
        if let Some((number, group)) = known.map(|(peer, group)| (peer.record().terminal, group))
            && let Some(way) = self.way_to(number, group, now.plus(HARD_END))
        {
            return Ok(way);
        }
        self.search_for(ends)
    }

    /// What a search found, while it holds.
    fn found_path(&mut self, ends: Ends) -> Option<Way> {
        let now = self.now;
        let path = *self.paths.found.get(ends, now)?;
        let held = self.group(path.group).map(Group::epoch) == Some(path.epoch);
        let known = self
            .paths
            .peers
            .get(path.peer, self.record_time())
            .is_some();
        let way = (held && known)
            .then(|| self.way_to(path.peer, path.group, path.hard_end()))
            .flatten();
        if way.is_some() {
            self.paths.found.use_at(ends, now);
        } else {
            self.paths.found.remove(ends);
        }
        way
    }

    fn way_to(&mut self, peer: TerminalNumber, group: GroupNumber, end: Tick) -> Option<Way> {
        let now = self.now;
        let endpoint = self.paths.peers.endpoint(peer, now)?;
        self.paths.peers.use_endpoint(peer, now);
        let heard_ends = self.paths.peers.endpoint_ends(peer);
        let until = now.plus(ASK_AGAIN).min(end);
        Some(Way::Protect {
            group,
            peer,
            endpoint,
            until: heard_ends
                .filter(|&ends| ends > now)
                .map_or(until, |ends| until.min(ends)),
        })
    }

    /// What a terminal's record says, where it is known and not past its end: for which addresses that
    /// terminal may send.
    #[must_use]
    pub fn record_of(&self, terminal: TerminalNumber) -> Option<&ProtectionRecord> {
        let peer = self.paths.peers.get(terminal, self.record_time());
        peer.map(Peer::record)
    }

    /// The same as it was signed.
    pub(super) fn frame_of_record(&self, terminal: TerminalNumber) -> Option<&[u8]> {
        let peer = self.paths.peers.get(terminal, self.record_time());
        peer.map(Peer::frame)
    }

    /// This terminal's own record, where it has come.
    #[must_use]
    pub fn own_record(&self) -> Option<&SignedRecord> {
        let time = self.record_time();
        let own = self.paths.own.as_ref()?;
        (time <= own.record().not_after).then_some(own)
    }

    /// Prefixes to which packets go as they are.
    pub fn clear_list(&self) -> impl Iterator<Item = &Prefix> {
        self.key_set.limits.clear.iter()
    }

    /// By which records are judged: what is certain to have passed.
    pub(super) fn record_time(&self) -> UnixSeconds {
        self.not_earlier_than()
    }

    /// The newest own record, whether or not it still counts: older ones are refused for good.
    #[must_use]
    pub fn stored_record(&self) -> Option<&SignedRecord> {
        self.paths.own.as_ref()
    }

    /// Version and signer of the newest record that is held of that terminal.
    pub(super) fn held_record(&self, number: TerminalNumber) -> Option<(u32, KeyName)> {
        if number == self.identity.number {
            let own = self.paths.own.as_ref()?;
            Some((own.record().version, own.signer()))
        } else {
            self.paths.peers.held(number)
        }
    }

    /// A record that is held is still said.
    pub(super) fn heard_record_again(&mut self, number: TerminalNumber) {
        self.paths.peers.heard_again(number, self.now);
    }

    /// What stolen keys said of anybody is not believed any more.
    pub(super) fn forget_records_by(&mut self, stolen: &[KeyName]) {
        let forged: Vec<_> = self.paths.peers.by(stolen).collect();
        self.forget_peers(&forged);
        let by_thief = |it: &mut SignedRecord| stolen.contains(&it.signer());
        if self.paths.own.take_if(by_thief).is_some() {
            self.dirty = true;
            self.lose_where(|_| true);
            self.tell(Event::PathsChanged);
        }
    }

    /// KS of a group that is held, where it is a packet group.
    pub(super) fn search_key(&self, group: GroupNumber) -> Option<&Secret<SEARCH_KEY_LEN>> {
        self.group(group)?.search_key.as_ref()
    }

    pub(super) fn configure_peer(&mut self, peer: TerminalNumber, endpoint: Option<SocketAddr>) {
        self.paths.peers.configure(peer, endpoint);
        self.tell(Event::PeerChanged { peer });
    }

    /// A verified record: this terminal's own, or another's.
    pub(super) fn learn_record(&mut self, signed: SignedRecord) -> Result<(), DropReason> {
        let number = signed.record().terminal;
        let superseded = self.is_superseded(signed.record());
        if number == self.identity.number {
            let version = signed.record().version;
            let held = self.paths.own.as_ref().map(SignedRecord::record);
            match held.map(|held| held.version.cmp(&version)) {
                Some(Ordering::Greater) if !superseded => return Err(DropReason::OlderRecord),
                Some(Ordering::Equal) if !superseded => return Err(DropReason::NotNewer),
                Some(_) | None => {}
            }
            let changed = held.is_none_or(|held| !peers::says_the_same(held, signed.record()));
            self.paths.own = Some(signed);
            self.dirty = true;
            self.events.push(Event::RecordChanged { version });
            if changed {
                self.paths.searches.allow_again(|_| true);
                self.lose_where(|_| true);
                self.tell(Event::PathsChanged);
            }
            return Ok(());
        }
        if self.is_excluded(number) {
            return Err(DropReason::ExcludedSender);
        }
        match self.paths.peers.learn(signed, superseded, self.now)? {
            Learned::Same => {}
            Learned::Changed => {
                let record = self.paths.peers.newest(number);
                let now_known = |destination| record.is_some_and(|it| it.speaks_for(destination));
                self.paths.searches.allow_again(now_known);
                self.lose_where(|path| path.peer == number);
                self.tell(Event::PeerChanged { peer: number });
            }
        }
        Ok(())
    }

    /// Nobody listens to these any more.
    pub(super) fn forget_peers(&mut self, peers: &[TerminalNumber]) {
        for &peer in peers {
            if self.paths.peers.forget(peer) {
                self.tell(Event::PeerChanged { peer });
            }
        }
        self.lose_where(|path| peers.contains(&path.peer));
    }

    /// A-26: a first key, a fresh epoch, or none any more: who is a member may have changed.
    pub(super) fn leave_paths_of(&mut self, group: GroupNumber) {
        self.paths.searches.allow_again(|_| true);
        self.lose_where(|path| path.group == group);
    }

    fn lose_where(&mut self, gone: impl Fn(&FoundPath) -> bool) {
        for (source, destination) in self.paths.found.drop_where(gone) {
            self.lose(source, destination, DropReason::PathExpired);
        }
    }

    fn lose(&mut self, source: IpAddr, destination: IpAddr, reason: DropReason) {
        self.tell(Event::PathLost {
            source,
            destination,
            reason,
        });
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// A datagram of the packet port that begins with the non-ESP marker: key search, or what a peer
    /// hands on.
    pub(super) fn on_search(
        &mut self,
        arrival: &Arrival<'_>,
        rng: &mut dyn Random,
    ) -> Result<(), DropReason> {
        match type_of(arrival.datagram) {
            Some(PART | COMMAND) => self.on_handed(arrival),
            Some(_) | None => {
                let message = SearchMessage::decode(arrival.datagram);
                match message.map_err(|_| DropReason::Malformed)? {
                    SearchMessage::Probe(probe) => self.on_probe(&probe, arrival, rng),
                    SearchMessage::Answer(answer) => self.on_search_answer(&answer, arrival),
                }
            }
        }
    }

    /// A signed command that a peer hands on: only its signature counts.
    fn on_handed(&mut self, arrival: &Arrival<'_>) -> Result<(), DropReason> {
        let budget = if self.paths.peers.is_heard_at(arrival.from) {
            &mut self.paths.handed_by_peers
        } else {
            &mut self.paths.handed
        };
        if !budget.take(self.now, arrival.source()) {
            return Err(DropReason::VerifyBudget);
        }
        let octets = message_in(arrival.datagram).map_err(|_| DropReason::Malformed)?;
        match Message::decode(octets).map_err(|_| DropReason::Malformed)? {
            Message::Command { frame } => self.on_frame(frame),
            Message::Part(part) => self.on_handed_part(arrival.from, &part),
            Message::KeyReq { .. }
            | Message::Cookie { .. }
            | Message::KeyDis { .. }
            | Message::Ack { .. }
            | Message::Hello { .. }
            | Message::Introduction { .. } => Err(DropReason::NotAddressed),
        }
    }

    fn on_handed_part(&mut self, from: SocketAddr, part: &Part<'_>) -> Result<(), DropReason> {
        let Some(whole) = self.paths.parts.add(from, part, self.now) else {
            return Ok(());
        };
        match Message::decode(&whole) {
            Ok(Message::Command { frame }) => self.on_frame(frame),
            Ok(_) | Err(_) => Err(DropReason::Malformed),
        }
    }

    /// A member's packet opened. Its peer is heard there from now on, and a search that was answered
    /// is complete: the way back needs none.
    pub(super) fn on_packet_from(&mut self, packet: &PacketFrom) -> Result<(), DropReason> {
        self.may_receive(packet.group, packet.peer)?;
        let (number, now) = (packet.peer, self.now);
        if let Some(group) = self.group(packet.group)
            && group.sending > Some(packet.key)
        {
            let shown = Shown {
                peer: number,
                group: packet.group,
                key: packet.key,
                lacks: Lacks::default(),
            };
            self.hand_to_sender(shown, packet.endpoint);
        }
        let back = (packet.destination, packet.source);
        let Some(peer) = self.paths.peers.get(number, self.record_time()) else {
            // A gateway that restarted: it asks who that is.
            let ours = self.own_record().map(SignedRecord::record);
            if ours.is_some_and(|own| own.speaks_for(packet.destination)) {
                self.search_for(back).map(|_| ())?;
            }
            return Err(DropReason::UnknownPeer);
        };
        let own = self.own_record().ok_or(DropReason::NoRecord)?.record();
        let (source, destination) = (packet.source, packet.destination);
        match may_deliver(own, peer.record(), packet.group, source, destination) {
            // One of the two may have missed what a group is now: a search brings each the other's record.
            Err(DropReason::OtherGroup) if !destination.is_multicast() => {
                if self.paths.doubts.take(now, number.get().into()) {
                    self.search_for(back).map(|_| ())?;
                }
                return Err(DropReason::OtherGroup);
            }
            judged => judged?,
        }
        if self.paths.peers.hear(number, packet.endpoint, now) {
            self.tell(Event::PeerChanged { peer: number });
        }
        self.paths.found.use_at(back, now);
        self.complete_answered(packet);
        Ok(())
    }

    fn enter_path(&mut self, ends: Ends, group: GroupNumber, peer: TerminalNumber) {
        let Some(epoch) = self.group(group).map(Group::epoch) else {
            return;
        };
        let path = FoundPath {
            group,
            peer,
            epoch,
            since: self.now,
            used: self.now,
        };
        if self.paths.found.is_empty() {
            self.paths.sweep = self.now.plus(SWEEP_EVERY);
        }
        if let Some((source, destination)) = self.paths.found.enter(ends, path) {
            self.lose(source, destination, DropReason::PathExpired);
        }
        let (source, destination) = ends;
        self.tell(Event::PathFound {
            source,
            destination,
        });
    }

    /// Timers: probes that leave, searches that end, paths that expire.
    pub(super) fn turn_paths(&mut self, rng: &mut dyn Random) {
        if self.user.is_none() {
            return;
        }
        self.turn_searches(rng);
        if self.paths.sweep <= self.now && !self.paths.found.is_empty() {
            let now = self.now;
            self.paths.sweep = now.plus(SWEEP_EVERY);
            self.lose_where(|path| path.ends() <= now);
        }
    }

    /// X-04: a member that was authenticated by the search key stands at a newer generation of the held
    /// epoch; this side steps to it, as far as the ceiling allows.
    fn step_by_search(&mut self, number: GroupNumber, to: Generation) -> Result<(), DropReason> {
        let (time, until) = (self.time(), self.grace_end());
        let Some(group) = self.group_mut(number) else {
            return Err(DropReason::NotHeld);
        };
        let from = group.newest();
        if to <= from {
            return Ok(());
        }
        if to > group.ceiling(time) {
            return Err(DropReason::AboveCeiling);
        }
        let next = group.ring.newest().duplicate().renew_to(to);
        group.install(next, None, until);
        self.dirty = true;
        self.events.push(Event::Renewed {
            group: number,
            from,
            to,
            cause: Cause::Gap,
        });
        Ok(())
    }

    /// What a record in a probe or an answer claims, as far as it may be looked at: another's, of
    /// nobody who was excluded, and not past its end.
    fn look_at_record(&self, record: &ProtectionRecord) -> Result<(), DropReason> {
        if record.terminal == self.identity.number {
            return Err(DropReason::OwnPacket);
        }
        if self.is_excluded(record.terminal) {
            return Err(DropReason::ExcludedSender);
        }
        self.still_counts(record)
    }

    /// The group that the rule gives for packets between those two ends, with who speaks for one of
    /// them by that record of it.
    ///
    /// SECURITY: the order is the point. Nothing is chosen by what an ended record says, or for an
    /// address that it does not hold, and no key is looked at for who may not be heard.
    fn group_with(
        &self,
        theirs: &ProtectionRecord,
        address: IpAddr,
        (source, destination): Ends,
    ) -> Result<GroupNumber, DropReason> {
        self.still_counts(theirs)?;
        if !theirs.speaks_for(address) {
            return Err(DropReason::NotInRecord);
        }
        let own = self.own_record().ok_or(DropReason::NoRecord)?.record();
        let group = rule::choose(own, theirs, source, destination);
        let group = group.ok_or(DropReason::NoCommonGroup)?;
        self.may_receive(group, theirs.terminal)?;
        Ok(group)
    }

    fn still_counts(&self, record: &ProtectionRecord) -> Result<(), DropReason> {
        let counts = self.record_time() <= record.not_after;
        counts.then_some(()).ok_or(DropReason::PastNotAfter)
    }

    /// What is held of that terminal, where it is newer than what that presents of itself: it is
    /// judged by this one then.
    ///
    /// SECURITY: so what a newer record took away counts for nothing, whatever was signed before
    /// (KR-577).
    fn newer_than(&self, presented: &ProtectionRecord) -> Option<&ProtectionRecord> {
        let held = self.paths.peers.newest(presented.terminal)?;
        (held.version > presented.version && !self.is_superseded(presented)).then_some(held)
    }

    /// What a terminal lacks that presents this record of itself.
    fn lacking(&self, presented: &UnverifiedRecord<'_>) -> Lacks {
        let signs_now = self.key_set.first_of(SignerClass::Keys);
        Lacks {
            record: self.newer_than(presented.record()).is_some(),
            key_set: signs_now.is_some_and(|key| key.public.name() != presented.signer()),
        }
    }

    /// Verifies what a terminal presents of itself; of what is `outdated` nothing is learned.
    fn take_record(
        &mut self,
        record: UnverifiedRecord<'_>,
        outdated: bool,
    ) -> Result<(), DropReason> {
        let signed = self.verify_record(record)?;
        if outdated {
            return Ok(());
        }
        self.learn_record(signed)
    }
}

/// A datagram as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub(super) from: SocketAddr,
    /// The address it was sent to.
    pub(super) destination: IpAddr,
    /// It came from outside of what this terminal protects.
    pub(super) outside: bool,
    pub(super) datagram: &'a [u8],
}

impl Arrival<'_> {
    fn source(&self) -> Source {
        match self.from.ip() {
            IpAddr::V4(address) => Source::from(address.to_bits()),
            // One subscriber has a /64.
            IpAddr::V6(address) => (address.to_bits() >> 64) as Source,
        }
    }
}

/// Whether somebody may be searched for there.
fn is_routable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_broadcast())
        }
        IpAddr::V6(address) => {
            let of_link = address.segments()[0] & 0xffc0 == 0xfe80;
            !(address.is_unspecified() || address.is_loopback() || of_link)
        }
    }
}

/// How long a way may be relied on without asking again.
const ASK_AGAIN: Duration = Duration::from_secs(60);
const HARD_END: Duration = peers::HARD_LIFE;
const HANDED_OF_SOURCE: u32 = 32;
const HANDED_A_SECOND: u32 = 200;
const DOUBTS_OF_PEER: u32 = 1;
const DOUBTS_A_SECOND: u32 = 8;
const SWEEP_EVERY: Duration = Duration::from_secs(30);
