//! Standing statements become frames when their turn comes: always the present state, signed by
//! the key of their class, never larger than a frame.

use core::ops::Bound;

use crate::command::{
    Body, Command, FLOORS_MAX, Floor, KeyDist, KeyDistContents, RECIPIENTS_MAX, Renew, RenewEntry,
    SignerClass, SigningKey, Target, Time,
};
use crate::ids::{GroupNumber, KeyEpoch, KeyId, TerminalNumber, UnixSeconds};
use crate::keys::{MasterKey, Secret};
use crate::rng::Random;
use crate::schedule::{Cadence, Schedule};
use crate::server::{Composed, GroupRecord, Item, Output, Server};
use crate::sharing::command_datagram;

impl Server {
    /// Hands out frames as long as the link is free and something is due.
    pub(super) fn turn_carousel(&mut self, rng: &mut dyn Random) {
        while self.may_send() {
            let Ok(item) = self.carousel.next(self.at.now) else {
                return;
            };
            if !item.is_signed_elsewhere() && self.signers_ended() {
                continue;
            }
            match self.frame_of(item, rng) {
                Some(frame) => {
                    self.carousel.sent(item, frame.len(), self.at.now);
                    self.tell_owner(item, &frame);
                    self.outputs.push_back(Output::Transmit { item, frame });
                }
                None if self.waits(item) => {}
                None => self.carousel.retire(|standing| standing == item),
            }
        }
    }

    /// A record also goes to its owner, where that can be reached and perhaps hears no carousel.
    fn tell_owner(&mut self, item: Item, frame: &[u8]) {
        let Item::Record(number) = item else {
            return;
        };
        if let Some(to) = self.peers.reachable(number, self.at.now) {
            let octets = command_datagram(frame);
            self.outputs.push_back(Output::Send { to, octets });
        }
    }

    /// Nobody of a part of a group listens yet: its turn comes again.
    fn waits(&self, item: Item) -> bool {
        matches!(item, Item::Dist(number, shard) if shard < self.shards(number))
    }

    /// Sending needs stored sequence numbers, and after a restore an operator's word.
    pub(super) fn may_send(&self) -> bool {
        self.restored.held.is_none()
            && self.storing.is_none()
            && self.sequence < self.fleet.sequence_reserved
    }

    /// After it nothing that the online keys would have to sign is sent.
    pub(super) fn signers_ended(&self) -> bool {
        self.at.wall > self.signers_expire()
    }

    /// When the first of the online keys ends.
    #[must_use]
    pub fn signers_expire(&self) -> UnixSeconds {
        self.fleet.signers_expire()
    }

    /// Octets of the frame of `item` as it stands; `None` where there is no such item.
    #[must_use]
    pub fn octets_of(&self, item: Item, rng: &mut dyn Random) -> Option<usize> {
        if item.is_signed_elsewhere() {
            return self.signed_elsewhere(item).map(<[u8]>::len);
        }
        if let Item::Record(number) = item {
            return self.protection_record(number).map(|it| it.frame_len());
        }
        let (target, body) = self.statement(item, rng)?;
        Some(self.sign_for(target, body).len())
    }

    /// How many messages a group's KEYDIST takes.
    #[must_use]
    pub fn shards(&self, number: GroupNumber) -> u32 {
        let members = self
            .groups
            .get(&number)
            .map_or(0, |group| group.members.len());
        u32::try_from(members.div_ceil(RECIPIENTS_MAX)).unwrap_or(u32::MAX)
    }

    /// Which of them names `terminal`.
    pub(super) fn shard_of(&self, number: GroupNumber, terminal: TerminalNumber) -> Option<u32> {
        let group = self.groups.get(&number)?;
        let place = group
            .members
            .iter()
            .position(|&member| member == terminal)?;
        u32::try_from(place / RECIPIENTS_MAX).ok()
    }

    pub(super) fn frame_of(&mut self, item: Item, rng: &mut dyn Random) -> Option<Vec<u8>> {
        if item.is_signed_elsewhere() {
            return self.signed_elsewhere(item).map(<[u8]>::to_vec);
        }
        if let Some(composed) = self.frames.get(&item)
            && self.at.wall.since(composed.issued_at) < self.half_life(item)
        {
            return Some(composed.octets.clone());
        }
        if let Item::Record(number) = item {
            let record = self.protection_record(number)?;
            let issued_at = record.issued_at;
            let octets = record.signed_by(&self.fleet.keys).frame().to_vec();
            let composed = Composed {
                octets: octets.clone(),
                issued_at,
            };
            self.frames.insert(item, composed);
            return Some(octets);
        }
        if let Item::Dist(number, _) = item {
            self.find_firsts(number);
        }
        let (target, body) = self.statement(item, rng)?;
        let octets = self.sign_for(target, body);
        self.sequence = self.sequence.plus(1);
        if item == Item::Time {
            let next = self.floors_from + FLOORS_MAX as usize;
            self.floors_from = if next < self.groups.len() { next } else { 0 };
        } else {
            let issued_at = self.at.wall;
            self.frames.insert(
                item,
                Composed {
                    octets: octets.clone(),
                    issued_at,
                },
            );
        }
        Some(octets)
    }

    /// The frame of what others signed, as long as it stands.
    fn signed_elsewhere(&self, item: Item) -> Option<&[u8]> {
        let (number, erases) = match item {
            Item::KeySet => return Some(&self.fleet.key_set_frame),
            Item::Erase(number) => (number, true),
            Item::Lock(number) => (number, false),
            Item::Time
            | Item::Exclude(..)
            | Item::Fleet
            | Item::Device(_)
            | Item::Group(_)
            | Item::Dist(..)
            | Item::Notify(_)
            | Item::Muster(_)
            | Item::Invite(_)
            | Item::Stop(_)
            | Item::Start(_)
            | Item::Record(_) => return None,
        };
        self.standing_orders(self.terminals.get(&number)?)
            .find(|order| order.erases() == erases)
            .map(|order| &*order.frame)
    }

    /// Seconds after which a standing statement is made anew: in time for the lease it gives.
    fn half_life(&self, item: Item) -> u32 {
        let lease = match item {
            Item::Group(number) | Item::Dist(number, _) => {
                self.groups.get(&number).map(|group| self.lease(group))
            }
            Item::Time
            | Item::KeySet
            | Item::Exclude(..)
            | Item::Erase(_)
            | Item::Lock(_)
            | Item::Fleet
            | Item::Device(_)
            | Item::Stop(_)
            | Item::Start(_) => None,
            Item::Notify(_) | Item::Muster(_) | Item::Invite(_) => Some(NOTIFY_LIFE),
            // Another one is made when the next version is stored, and only then.
            Item::Record(_) => return u32::MAX,
        };
        STATEMENT_LIFE.min(lease.unwrap_or(STATEMENT_LIFE)) / 2
    }

    fn statement(&self, item: Item, rng: &mut dyn Random) -> Option<(Target, Body)> {
        match item {
            Item::Time => Some((Target::All, Body::Time(self.time()))),
            Item::KeySet | Item::Erase(_) | Item::Lock(_) | Item::Record(_) => None,
            Item::Exclude(number, part) => {
                let exclusion = self.exclusions.get(&number)?;
                self.exclusion_stands(exclusion)
                    .then(|| (Target::All, Body::Exclude(exclusion.part(part))))
            }
            Item::Device(number) => self.device_renewal(number),
            Item::Fleet => Some((Target::All, Body::Renew(self.fleet_renewal()))),
            Item::Group(number) => {
                let group = self.groups.get(&number)?;
                let entry = RenewEntry {
                    kid: group.master.kid(),
                    epoch: group.master.epoch(),
                    schedule: group.schedule,
                    lease_end: Some(self.at.wall.plus(self.lease(group))),
                };
                Some((
                    Target::Group(number),
                    Body::Renew(Renew {
                        entries: vec![entry],
                    }),
                ))
            }
            Item::Dist(number, shard) => {
                let group = self.groups.get(&number)?;
                let members = self.members_of(group, shard);
                let stated = (&group.master, group.schedule);
                let body = self.distribution(stated, group, members, rng)?;
                Some((Target::Handles, body))
            }
            Item::Notify(_)
            | Item::Muster(_)
            | Item::Invite(_)
            | Item::Stop(_)
            | Item::Start(_) => self.word(item),
        }
    }

    /// One walk over all members for all KEYDISTs of a group: a walk for each would be most of the
    /// work in a large one.
    fn find_firsts(&mut self, number: GroupNumber) {
        if let Some(group) = self.groups.get(&number) {
            let firsts = || group.members.iter().step_by(RECIPIENTS_MAX).copied();
            let found = self.firsts.entry(number);
            found.or_insert_with(|| firsts().collect());
        }
    }

    /// Whom one KEYDIST names.
    fn members_of<'g>(
        &self,
        group: &'g GroupRecord,
        shard: u32,
    ) -> impl Iterator<Item = &'g TerminalNumber> + use<'g> {
        let shard = shard as usize;
        let firsts = self.firsts.get(&group.number);
        let first = firsts.and_then(|firsts| firsts.get(shard));
        let (from, skipped) = match first {
            Some(first) => (Bound::Included(*first), 0),
            None => (Bound::Unbounded, shard * RECIPIENTS_MAX),
        };
        let members = group.members.range((from, Bound::Unbounded));
        members.skip(skipped).take(RECIPIENTS_MAX)
    }

    /// A group's key for some of its members; `None` where there are none, or none who may listen.
    pub(super) fn distribution<'m>(
        &self,
        (key, schedule): (&MasterKey, Schedule),
        group: &GroupRecord,
        members: impl Iterator<Item = &'m TerminalNumber>,
        rng: &mut dyn Random,
    ) -> Option<Body> {
        let contents = KeyDistContents {
            key: key.duplicate(),
            search_key: group.search_key.as_ref().map(Secret::duplicate),
            activate_at: schedule.activate_at,
            cadence: schedule.cadence,
            lease_end: Some(self.at.wall.plus(self.lease(group))),
        };
        let recipients: Vec<_> = members
            .filter_map(|member| self.terminals.get(member))
            // Who has a token asks: by the key behind it nobody listens in (KR-371).
            .filter(|terminal| !terminal.is_pending())
            .map(|terminal| &terminal.wrap)
            .collect();
        if recipients.is_empty() {
            return None;
        }
        let key_dist = KeyDist::seal(&contents, recipients.into_iter(), rng);
        Some(Body::KeyDist(key_dist))
    }

    /// Seconds of the lease that a statement of the group gives.
    pub(super) fn lease(&self, group: &GroupRecord) -> u32 {
        group.lease.min(self.fleet.key_set.limits.longest_lease)
    }

    /// The beacon, with as many floors as fit: a different part of the groups each time.
    fn time(&self) -> Time {
        let first = self.floors_from;
        let fit = FLOORS_MAX as usize;
        let floors = self
            .groups
            .values()
            .skip(first)
            .take(fit)
            // What is not active yet is no floor yet.
            .filter(|group| group.schedule.activate_at <= self.at.wall)
            .map(|group| Floor {
                kid: group.master.kid(),
                epoch: group.master.epoch(),
                generation: group.master.generation(),
            })
            .collect();
        Time {
            seconds: self.at.wall,
            max_error_ms: CLOCK_ERROR_MS,
            floors,
        }
    }

    fn fleet_renewal(&self) -> Renew {
        let schedule = self.fleet.key_set.fleet_schedule;
        Renew {
            entries: vec![RenewEntry {
                kid: KeyId::ALL_RANK_ONE,
                epoch: KeyEpoch::RANK_ONE,
                schedule: Schedule {
                    generation: self.fleet.fleet_generation,
                    activate_at: schedule.last_change(self.at.wall),
                    cadence: Cadence::new(1, schedule.period),
                },
                lease_end: None,
            }],
        }
    }

    /// Where one terminal's wrap key stands beyond G. Nothing to say where it is not beyond, or
    /// nothing is for the terminal any more.
    fn device_renewal(&self, number: TerminalNumber) -> Option<(Target, Body)> {
        let terminal = self.terminals.get(&number)?;
        if self.offset(terminal) == 0 || terminal.excluded_at.is_some() {
            return None;
        }
        let entry = RenewEntry {
            kid: terminal.wrap.kid(),
            epoch: KeyEpoch::RANK_ONE,
            schedule: Schedule {
                generation: terminal.wrap.generation(),
                activate_at: self.at.wall,
                cadence: None,
            },
            lease_end: None,
        };
        let renew = Renew {
            entries: vec![entry],
        };
        Some((Target::Terminal(number), Body::Renew(renew)))
    }

    /// Signed under the next sequence number, which the caller uses up if the frame is sent.
    pub(super) fn sign_for(&self, target: Target, body: Body) -> Vec<u8> {
        let class = body.signer_class();
        let life = self.life(&body);
        let command = Command {
            stream: self.fleet.stream,
            sequence: self.sequence,
            issued_at: self.at.wall,
            not_after: self.at.wall.plus(life),
            target,
            body,
            fleet_generation: self.fleet.fleet_generation,
        };
        self.signer(class).sign(&command)
    }

    /// Seconds that a statement may be played.
    fn life(&self, body: &Body) -> u32 {
        match body {
            Body::Time(_) => TIME_LIFE,
            Body::Notify(_) => NOTIFY_LIFE,
            // They end with their deadline.
            Body::Stop(halt) | Body::Start(halt) => halt.deadline.since(self.at.wall),
            Body::Renew(_)
            | Body::KeyDist(_)
            | Body::Order(_)
            | Body::Exclude(_)
            | Body::KeySet(_) => STATEMENT_LIFE,
        }
    }

    fn signer(&self, class: Option<SignerClass>) -> &SigningKey {
        match class {
            Some(SignerClass::Keys) => &self.fleet.keys,
            Some(
                SignerClass::Beat
                | SignerClass::Erase
                | SignerClass::Kem
                | SignerClass::KemPq
                | SignerClass::Rsa,
            )
            | None => &self.fleet.beat,
        }
    }
}

/// Seconds that a standing statement may be played; made anew at half of it.
const STATEMENT_LIFE: u32 = 86_400;
/// Seconds that a NOTIFY may be played.
const NOTIFY_LIFE: u32 = 60;
/// Seconds that a beacon may be played.
const TIME_LIFE: u32 = 3_600;
/// What the server admits of its own clock.
pub(super) const CLOCK_ERROR_MS: u32 = 1_000;
