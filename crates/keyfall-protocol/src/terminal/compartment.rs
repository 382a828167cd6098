//! The user compartment: what is worth stealing (FORMATS section 9, "Compartments").
//!
//! A locked terminal does not hold it, and notes what signed commands say of its keys, to carry
//! that out at unlock.

use std::collections::BTreeMap;

use crate::ids::{Generation, GroupNumber, Handle, KeyEpoch, KeyName, Tick, UnixSeconds};
use crate::keys::{Ring, Wrap, WrapKey};
use crate::schedule::Schedule;
use crate::sharing::rsa_misty1::RsaSecret;
use crate::terminal::group::{Announced, Group, Lease};

/// Wrap key and groups: opened by PIN or passphrase where there is one.
#[derive(Debug)]
pub(super) struct User {
    /// At G + offset.
    pub(super) wrap: Ring<Wrap>,
    /// How far this terminal's own wrap key is ahead of the fleet's generation.
    pub(super) offset: u32,
    /// The handles under which distributions may name this terminal: of each wrap key held, and of
    /// the next that orders to this terminal alone may have made.
    handles: Vec<(Generation, Handle)>,
    /// The wrap key before fresh octets of the server were mixed in, until the server has shown that
    /// it knows the mixed one (KR-367); at the same generation.
    before: Option<WrapKey>,
    /// The mixed key was not known to the server: it is asked under the one before.
    asks_under_before: bool,
    /// Nor was the one before: the next sequence is the mixed one's alone, at every offset.
    tried_before: bool,
    pub(super) groups: BTreeMap<GroupNumber, Group>,
    /// For asking in the suite rsa-misty1, where it was given one.
    pub(super) legacy_key: Option<RsaSecret>,
}

/// What a distribution under a given G may be opened with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) generation: Generation,
    pub(super) handle: Handle,
}

impl User {
    pub(super) fn new(wrap: WrapKey, offset: u32, groups: BTreeMap<GroupNumber, Group>) -> Self {
        let mut user = Self {
            wrap: Ring::new(wrap),
            offset,
            handles: Vec::new(),
            before: None,
            asks_under_before: false,
            tried_before: false,
            groups,
            legacy_key: None,
        };
        user.list_handles();
        user
    }

    /// Under which key the server is asked.
    pub(super) fn asking_key(&self) -> &WrapKey {
        let before = self.before.as_ref().filter(|_| self.asks_under_before);
        before.unwrap_or_else(|| self.wrap.newest())
    }

    /// The key before the mixed one; for the store.
    pub(super) fn before(&self) -> Option<&WrapKey> {
        self.before.as_ref()
    }

    pub(super) fn with_before(mut self, before: Option<WrapKey>) -> Self {
        self.before = before;
        self.list_handles();
        self
    }

    /// `mixed`, made of `asked`, takes its place; it stays until the server has shown that it knows
    /// the mixed one.
    pub(super) fn mix(&mut self, asked: &WrapKey, mixed: WrapKey) {
        let generation = self.wrap.newest().generation();
        self.before = Some(asked.duplicate().renew_to(generation));
        (self.asks_under_before, self.tried_before) = (false, false);
        self.wrap = Ring::new(mixed.renew_to(generation));
        self.list_handles();
    }

    /// The server answered under `asked`: it knows that key, and no other is needed. True where that
    /// changed anything.
    pub(super) fn confirm_key(&mut self, asked: &WrapKey) -> bool {
        if self.asks_under_before {
            // It answered under the one before without mixing: that one counts.
            if let Some(before) = self.before.take() {
                self.wrap = Ring::new(before);
            }
            self.asks_under_before = false;
            self.list_handles();
            return true;
        }
        let known = self.before.is_some() && asked.kid() == self.wrap.newest().kid();
        if known {
            self.before = None;
            self.list_handles();
        }
        known
    }

    /// There is a key before the mixed one that was not asked under yet.
    pub(super) fn has_key_before(&self) -> bool {
        self.before.is_some() && !self.asks_under_before && !self.tried_before
    }

    /// The server does not know the mixed key; true where there is one before it to ask under.
    pub(super) fn turn_to_key_before(&mut self) -> bool {
        let turns = self.has_key_before();
        self.asks_under_before |= turns;
        turns
    }

    /// A sequence found neither key known. What the server lacked when the mixed one was asked under
    /// may have come meanwhile, and an order to this terminal alone may have been missed: the next
    /// sequence asks under the mixed one at every offset, the one after it under both again.
    pub(super) fn turn_to_mixed_key(&mut self) {
        self.tried_before = std::mem::take(&mut self.asks_under_before);
    }

    /// Steps every wrap key to `target`.
    pub(super) fn renew_to(&mut self, target: Generation, until: Tick) {
        self.wrap.renew_to(target, until);
        self.before = self.before.take().map(|before| before.renew_to(target));
        self.list_handles();
    }

    /// The held key that a distribution names.
    pub(super) fn key_of(&self, place: Place) -> Option<&WrapKey> {
        let mut held = self.wrap.all().chain(&self.before);
        held.find(|key| key.generation() == place.generation && key.handle() == place.handle)
    }

    /// After every change of the wrap keys held.
    pub(super) fn list_handles(&mut self) {
        let held = self.wrap.all().chain(&self.before);
        let held = held.map(|key| (key.generation(), key.handle()));
        self.handles = held.collect();
        let mut ahead = self.wrap.newest().duplicate();
        for _ in 0..OFFSETS_AHEAD {
            ahead = ahead.renew();
            self.handles.push((ahead.generation(), ahead.handle()));
        }
    }

    /// The handles to look for in a distribution under `g`, while the fleet stands at `held`. Only
    /// what is sent now may tell of an offset that was missed.
    pub(super) fn places(
        &self,
        g: Generation,
        held: Generation,
    ) -> impl Iterator<Item = Place> + '_ {
        let first = g.plus(self.offset);
        let last = if g == held {
            first.plus(OFFSETS_AHEAD)
        } else {
            first
        };
        let fits = move |generation: Generation| generation >= first && generation <= last;
        let fitting = self.handles.iter().filter(move |(it, _)| fits(*it));
        fitting.map(|&(generation, handle)| Place { generation, handle })
    }
}

/// What was heard while locked: absolute statements, the newest for each object.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    /// Of groups that are held: by group, the newest statement about its key.
    pub(super) renewals: BTreeMap<GroupNumber, RenewStatement>,
    /// Epochs that groups have gone on to.
    pub(super) epochs: BTreeMap<GroupNumber, Announced>,
    /// The own offset, as it was ordered.
    pub(super) offset: Option<u32>,
}

/// A statement about a group's key, when it was heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RenewStatement {
    pub(super) epoch: KeyEpoch,
    pub(super) schedule: Schedule,
    /// What was left of it then: a note takes no powered-on time back.
    pub(super) lease: Option<Lease>,
    pub(super) issued_at: UnixSeconds,
    pub(super) by: KeyName,
}

impl Notes {
    /// Keeps the newer of two statements about one group; true where it is this one. `supersedes`:
    /// whether it wins whatever its number is over one of that signer.
    pub(super) fn renewal(
        &mut self,
        group: GroupNumber,
        noted: RenewStatement,
        supersedes: impl Fn(KeyName) -> bool,
    ) -> bool {
        let number = |it: &RenewStatement| (it.issued_at, it.schedule.generation);
        let held = self.renewals.get(&group);
        let newer = held.is_none_or(|held| supersedes(held.by) || number(&noted) > number(held));
        if newer {
            self.renewals.insert(group, noted);
        }
        newer
    }

    /// Keeps the newer of two epochs of one group; true where it is this one.
    pub(super) fn epoch(&mut self, group: GroupNumber, announced: Announced) -> bool {
        let held = self.epochs.get(&group).copied();
        let newer = held.map_or(announced, |held| held.or_newer(announced));
        self.epochs.insert(group, newer);
        held != Some(newer)
    }

    /// What stolen keys said is void.
    pub(super) fn void(&mut self, stolen: &[KeyName]) {
        self.renewals.retain(|_, noted| !stolen.contains(&noted.by));
        self.epochs.retain(|_, noted| !stolen.contains(&noted.by));
    }
}

/// The groups held and their epochs, for a terminal that is locked: their numbers stand on the wire
/// anyway.
pub(super) type Held = BTreeMap<GroupNumber, KeyEpoch>;

/// Handles of so many further generations are looked for.
const OFFSETS_AHEAD: u32 = 8;
/// How far a terminal's own wrap key may be ahead of the fleet's, until a KEYSET with a new schedule
/// overtakes it.
pub(super) const OFFSET_MAX: u32 = 64;
