//! Handing on: what the server signed goes from one terminal to another that missed it (REQUIREMENTS
//! Nobody needs to be trusted for it: whoever gets a frame obeys its signatures alone.
//!
//! Frames that were verified are kept, few of each kind. A member that is seen behind gets what brings
//! it forward, an excluded terminal what excludes and deletes it, in bursts that are bounded.

use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::command::{Body, Command, Exclude, Renew, Target, Unverified};
use crate::ids::{Generation, GroupNumber, KeyEpoch, KeyIdKind, TerminalNumber, Tick, UnixSeconds};
use crate::sharing::datagrams;
use crate::sharing::message::Message;
use crate::terminal::budget::Budget;
use crate::terminal::{Output, Terminal};

/// A packet that names a member and did not open: nobody listens to that member any more, or it is far
/// behind.
#[derive(Clone, Copy, Debug)]
pub struct Unheard {
    /// One that this terminal holds; the packet does not say which it is of.
    pub group: GroupNumber,
    /// Who it says sent it.
    pub peer: TerminalNumber,
    /// Where it came from.
    pub endpoint: SocketAddr,
}

/// What a member showed of itself by what was authenticated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) peer: TerminalNumber,
    /// The group under which it was authenticated, and the key of it that it stands at.
    pub(super) group: GroupNumber,
    pub(super) key: (KeyEpoch, Generation),
    pub(super) lacks: Lacks,
}

/// What the record that a member presented of itself shows that it has missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Lacks {
    /// A newer record of it is held.
    pub(super) record: bool,
    /// It was signed by another key than signs now: perhaps a KEYSET.
    pub(super) key_set: bool,
}

/// Frames that were verified, and what may still be handed on.
#[derive(Debug)]
pub(super) struct Handing {
    /// The newest RENEW of each group held.
    renewals: BTreeMap<GroupNumber, Kept>,
    /// The newest order of each type to each terminal.
    orders: BTreeMap<(TerminalNumber, u8), Kept>,
    /// The newest last.
    exclusions: VecDeque<(Exclude, Kept)>,
    /// Shards for whomever: which terminal needs which, only that one knows. None twice; the one that
    /// was issued last stands last.
    distributions: VecDeque<Kept>,
    /// With which of them, counted from the newest, the next burst begins.
    turn: usize,
    /// Signatures that are checked of what is of no use here.
    checks: Budget,
    /// By the terminal they go to.
    bursts: Budget,
    /// Of those that go where an unproved packet came from.
    unproved: Rarely,
    /// Of those for a packet that opened, of a sender without a record: it may be a recording.
    unrecorded: Rarely,
}

/// Few bursts in all, and to each terminal ever fewer.
#[derive(Debug)]
struct Rarely {
    bursts: Budget,
    /// When a terminal gets the next, and how often it got one.
    waits: BTreeMap<TerminalNumber, (Tick, u32)>,
}

#[derive(Debug)]
struct Kept {
    issued_at: UnixSeconds,
    not_after: UnixSeconds,
    frame: Vec<u8>,
}

impl Handing {
    pub(super) fn new() -> Self {
        Self {
            renewals: BTreeMap::new(),
            orders: BTreeMap::new(),
            exclusions: VecDeque::new(),
            distributions: VecDeque::new(),
            turn: 0,
            checks: Budget::new(CHECKS_A_SECOND, CHECKS_A_SECOND),
            bursts: Budget::new(1, BURSTS_A_SECOND),
            unproved: Rarely::new(),
            unrecorded: Rarely::new(),
        }
    }

    /// Whether it says something that is not kept yet. A RENEW that is repeated is taken anew once in a
    /// while: it is signed again each time.
    fn wants(&self, command: &Command, octets: &[u8]) -> bool {
        let newer = |kept: Option<&Kept>, by: u32| {
            kept.is_none_or(|kept| command.issued_at > kept.issued_at.plus(by))
        };
        match &command.body {
            Body::Renew(renew) => {
                renewed(renew).any(|group| newer(self.renewals.get(&group), RENEWED_EVERY))
            }
            Body::Order(_) => {
                ordered(command).is_some_and(|terminal| newer(self.orders.get(&terminal), 0))
            }
            Body::Exclude(exclude) => !self.exclusions.iter().any(|(held, _)| held == exclude),
            Body::KeyDist(_) => self.wants_shard(command, octets),
            Body::Time(_) | Body::KeySet(_) | Body::Stop(_) | Body::Start(_) | Body::Notify(_) => {
                false
            }
        }
    }

    /// A shard that is played again, however often, takes the place of no other; an old one takes that of
    /// no newer one.
    fn wants_shard(&self, command: &Command, octets: &[u8]) -> bool {
        let full = self.distributions.len() >= DISTRIBUTIONS_MAX;
        let oldest = self.distributions.front().filter(|_| full);
        oldest.is_none_or(|oldest| command.issued_at > oldest.issued_at)
            && !self.distributions.iter().any(|it| it.frame == octets)
    }

    /// Keeps a verified frame. `held`: the groups that this terminal may see anybody behind in.
    fn keep(&mut self, command: &Command, octets: &[u8], held: impl Fn(GroupNumber) -> bool) {
        let kept = || Kept {
            issued_at: command.issued_at,
            not_after: command.not_after,
            frame: octets.to_vec(),
        };
        let newer = |before: Option<&Kept>| {
            before.is_none_or(|before| command.issued_at > before.issued_at)
        };
        match &command.body {
            Body::Renew(renew) => {
                for group in renewed(renew).filter(|&group| held(group)) {
                    if newer(self.renewals.get(&group)) {
                        self.renewals.insert(group, kept());
                    }
                }
            }
            Body::Order(_) => {
                let Some(place) = ordered(command).filter(|it| newer(self.orders.get(it))) else {
                    return;
                };
                if self.orders.len() >= ORDERS_MAX && !self.orders.contains_key(&place) {
                    let oldest = self.orders.iter().min_by_key(|(_, it)| it.issued_at);
                    if let Some(oldest) = oldest.map(|(&place, _)| place) {
                        self.orders.remove(&oldest);
                    }
                }
                self.orders.insert(place, kept());
            }
            Body::Exclude(exclude) => {
                self.exclusions.retain(|(held, _)| held != exclude);
                self.exclusions.push_back((exclude.clone(), kept()));
                if self.exclusions.len() > EXCLUSIONS_MAX {
                    self.exclusions.pop_front();
                }
            }
            Body::KeyDist(_) => {
                if !self.wants_shard(command, octets) {
                    return;
                }
                if self.distributions.len() >= DISTRIBUTIONS_MAX {
                    self.distributions.pop_front();
                }
                let held = &mut self.distributions;
                let place = held.partition_point(|it| it.issued_at <= command.issued_at);
                held.insert(place, kept());
            }
            Body::Time(_) | Body::KeySet(_) | Body::Stop(_) | Body::Start(_) | Body::Notify(_) => {}
        }
    }

    /// What an excluded terminal has to hear.
    fn for_excluded(&self, terminal: TerminalNumber) -> Vec<&Kept> {
        let named = |(exclude, _): &&(Exclude, Kept)| exclude.terminals.contains(&terminal);
        let exclusions = self.exclusions.iter().rev().filter(named);
        let orders = self.orders.range((terminal, 0)..=(terminal, u8::MAX));
        exclusions
            .map(|(_, kept)| kept)
            .take(1)
            .chain(orders.map(|(_, kept)| kept))
            .collect()
    }

    /// What a member of the groups needs whose epoch is older, or its generation alone.
    fn for_member(&mut self, groups: &[GroupNumber], epoch_lags: bool) -> Vec<&Kept> {
        let count = self.distributions.len();
        let first = self.turn;
        if epoch_lags {
            self.turn = (first + SHARDS_A_BURST) % count.max(1);
        }
        let shards = (0..count.min(SHARDS_A_BURST))
            .filter_map(|step| self.distributions.get(count - 1 - (first + step) % count));
        let exclusions = self.exclusions.iter().rev().map(|(_, kept)| kept);
        let fresh = exclusions.take(EXCLUSIONS_A_BURST).chain(shards);
        let fresh = fresh.take(if epoch_lags { usize::MAX } else { 0 });
        let mut frames: Vec<&Kept> = fresh.collect();
        for kept in groups.iter().filter_map(|group| self.renewals.get(group)) {
            // One RENEW may name several groups.
            if !frames.iter().any(|it| it.frame == kept.frame) {
                frames.push(kept);
            }
        }
        frames
    }
}

impl Rarely {
    fn new() -> Self {
        Self {
            bursts: Budget::new(RARELY_A_SECOND, RARELY_A_SECOND),
            waits: BTreeMap::new(),
        }
    }

    /// The first burst goes at once, and each further one after twice the time: where it goes is not
    /// proved.
    fn may_go(&mut self, terminal: TerminalNumber, now: Tick) -> bool {
        let (next, count) = self.waits.get(&terminal).copied().unwrap_or_default();
        if now < next || !self.bursts.take(now, 0) {
            return false;
        }
        if self.waits.len() >= WAITS_MAX {
            self.waits.retain(|_, (next, _)| *next > now);
            if self.waits.len() >= WAITS_MAX {
                return false;
            }
        }
        let wait = Duration::from_secs(1 << count.min(WAIT_DOUBLINGS));
        self.waits.insert(terminal, (now.plus(wait), count + 1));
        true
    }
}

impl Terminal {
    /// A verified command: others may have missed it.
    pub(super) fn keep_for_others(&mut self, command: &Command, octets: &[u8]) {
        let user = self.user.as_ref();
        let held = |group| user.is_some_and(|user| user.groups.contains_key(&group));
        self.handing.keep(command, octets, held);
    }

    /// What ended at a look, as a repeat or as what is for others, may still be of use to others: its
    /// signature is checked within a budget of its own.
    pub(super) fn keep_unneeded(&mut self, frame: Unverified<'_>) {
        let command = frame.command();
        let for_present = match &command.body {
            Body::KeyDist(_) => command.fleet_generation == self.g,
            Body::Time(_)
            | Body::Renew(_)
            | Body::Order(_)
            | Body::Exclude(_)
            | Body::KeySet(_)
            | Body::Stop(_)
            | Body::Start(_)
            | Body::Notify(_) => true,
        };
        // Without addresses of its own it meets no peer.
        let meets_peers = self.own_record().is_some();
        let useful = meets_peers && for_present && self.handing.wants(command, frame.octets());
        if !(useful && self.handing.checks.take(self.now, 0)) {
            return;
        }
        let octets = frame.octets();
        if let Ok((verified, _)) = self.authorise(frame) {
            self.keep_for_others(verified.command(), octets);
        }
    }

    /// A member was seen behind, by what was authenticated: it gets what brings it forward.
    pub(super) fn hand_to_member(&mut self, shown: Shown, to: SocketAddr) {
        let Some(group) = self.group(shown.group) else {
            return;
        };
        let lags = shown.key < (group.epoch(), group.newest());
        let epoch_lags = shown.key.0 < group.epoch();
        let source = shown.peer.get().into();
        let lacks = shown.lacks;
        if !(lags || lacks.record || lacks.key_set) || !self.handing.bursts.take(self.now, source) {
            return;
        }
        // The KEYSET first: by it all else is judged.
        if lacks.key_set && !epoch_lags {
            let key_set = in_datagrams(&self.identity.key_set_frame);
            self.hand(key_set, to);
        }
        if lags {
            self.hand_forward(&[shown.group], epoch_lags, to);
        }
        if lacks.record {
            self.hand_record(shown.peer, to);
        }
    }

    /// A packet of a member opened under an older key than is sent with.
    ///
    /// SECURITY: it may be a recording, as long as that key is in its grace: a terminal that was restarted
    /// knows no records yet, and nothing that looks at marks comes before this. Without a record there is
    /// as little for it as for what does not open, and strangers use up nothing of that (KR-544).
    pub(super) fn hand_to_sender(&mut self, shown: Shown, to: SocketAddr) {
        let record = self.record_of(shown.peer);
        let is_recorded = record.is_some_and(|it| it.group(shown.group).is_some());
        if is_recorded || self.handing.unrecorded.may_go(shown.peer, self.now) {
            self.hand_to_member(shown, to);
        }
    }

    /// A packet came that did not open. What it says of its sender proves nothing: there is little for
    /// it, and less each time.
    pub(super) fn on_unheard(&mut self, unheard: &Unheard) {
        let (peer, to) = (unheard.peer, unheard.endpoint);
        if self.is_excluded(peer) {
            self.hand_to_excluded(peer, to);
        } else if peer != self.identity.number
            && self.holds(unheard.group)
            && self.handing.unproved.may_go(peer, self.now)
        {
            // Its tag fits nothing: it may lag in any group that both are in.
            let record = self.record_of(peer);
            let theirs = record.into_iter().flat_map(|record| record.groups.iter());
            let others = theirs
                .map(|group| group.group)
                .filter(|&it| it != unheard.group);
            let shared = others.filter(|&group| self.holds(group));
            let groups: Vec<_> = std::iter::once(unheard.group)
                .chain(shared)
                .take(GROUPS_A_BURST)
                .collect();
            self.hand_forward(&groups, true, to);
        }
    }

    /// The EXCLUDE that names it, and the orders for it, to where it says that it is.
    pub(super) fn hand_to_excluded(&mut self, peer: TerminalNumber, to: SocketAddr) {
        if !self.handing.unproved.may_go(peer, self.now) {
            return;
        }
        let after = self.record_time();
        let frames = self.handing.for_excluded(peer);
        let frames = frames.into_iter().filter(|kept| kept.not_after >= after);
        let sent: Vec<_> = frames.flat_map(|kept| in_datagrams(&kept.frame)).collect();
        self.hand(sent, to);
    }

    /// Its own newest record, to its owner.
    fn hand_record(&mut self, owner: TerminalNumber, to: SocketAddr) {
        let record = self.frame_of_record(owner);
        let sent = record.map(in_datagrams).unwrap_or_default();
        self.hand(sent, to);
    }

    fn hand_forward(&mut self, groups: &[GroupNumber], epoch_lags: bool, to: SocketAddr) {
        let after = self.record_time();
        let key_set = epoch_lags.then(|| in_datagrams(&self.identity.key_set_frame));
        let frames = self.handing.for_member(groups, epoch_lags);
        let frames = frames.into_iter().filter(|kept| kept.not_after >= after);
        let sent = frames.flat_map(|kept| in_datagrams(&kept.frame));
        let sent: Vec<_> = key_set.into_iter().flatten().chain(sent).collect();
        self.hand(sent, to);
    }

    fn hand(&mut self, datagrams: Vec<Vec<u8>>, to: SocketAddr) {
        let outputs = datagrams
            .into_iter()
            .map(|datagram| Output::ToPeer { to, datagram });
        self.outputs.extend(outputs);
    }
}

/// A frame that fills a datagram takes two with its head.
fn in_datagrams(frame: &[u8]) -> Vec<Vec<u8>> {
    datagrams(&Message::Command { frame }.encode(), None)
}

/// The groups whose keys a RENEW names.
fn renewed(renew: &Renew) -> impl Iterator<Item = GroupNumber> + '_ {
    let kinds = renew.entries.iter().filter_map(|entry| entry.kid.kind());
    kinds.filter_map(KeyIdKind::group)
}

/// Whom an order is for, and its type.
fn ordered(command: &Command) -> Option<(TerminalNumber, u8)> {
    match command.target {
        Target::Terminal(terminal) => Some((terminal, command.body.type_number())),
        Target::All | Target::Group(_) | Target::Handles => None,
    }
}

/// Seconds between two RENEWs of one group that are kept.
const RENEWED_EVERY: u32 = 60;
const ORDERS_MAX: usize = 256;
const EXCLUSIONS_MAX: usize = 64;
const DISTRIBUTIONS_MAX: usize = 128;
const CHECKS_A_SECOND: u32 = 4;
/// To all together; to one there is one a second.
const BURSTS_A_SECOND: u32 = 16;
/// Where nothing is proved, or little.
const RARELY_A_SECOND: u32 = 2;
const EXCLUSIONS_A_BURST: usize = 2;
const SHARDS_A_BURST: usize = 4;
/// RENEWs in a burst.
const GROUPS_A_BURST: usize = 4;
/// Up to 64 s between two bursts.
const WAIT_DOUBLINGS: u32 = 6;
const WAITS_MAX: usize = 1024;
