//! A theft from beginning to end, with the real machines in virtual time: a group talks, a terminal
//! is stolen with its memory and its disk, the fleet answers or is kept from it, and the thief, who
//! has recorded everything, tries everything (FORMATS section 3.1; REQUIREMENTS F-12, T-01, T-02,
//! W-01, W-03, W-05).

use std::collections::HashSet;
use std::time::Duration;

use keyfall_protocol::command::OrderKind;
use keyfall_protocol::ids::{GroupNumber, Tick};
use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::{Exposure, Founding, Item};

use crate::capture::{Captured, CapturedPacket};
use crate::link::LinkQuality;
use crate::media::Speaker;
use crate::station::StationId;
use crate::thief::{Opened, Thief};
use crate::witness::Violation;
use crate::world::{Config, World};

/// When things happen, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TheftPlan {
    /// Between two generations G, and between two of the group's own key.
    pub period: u32,
    /// That a used-up rank-1 key is kept.
    pub keep_time: u32,
    /// From the beginning to the theft, at least: it falls on [`Self::theft_after`].
    pub before: u32,
    /// From the theft to the order.
    pub reported_after: u32,
    /// From the theft to the end.
    pub after: u32,
    /// Between two packets of speech.
    pub every: u32,
    /// From the last tick of G to the theft. The worst is the end of the keep time, when the
    /// terminal still holds two rank-1 keys.
    pub phase: u32,
}

impl Default for TheftPlan {
    /// FORMATS section 9: everything renews hourly; a day after the theft.
    fn default() -> Self {
        Self {
            period: 3600,
            keep_time: 120,
            before: 7 * 3600,
            reported_after: 2 * 3600,
            after: 24 * 3600,
            every: 30,
            phase: 119,
        }
    }
}

/// What the fleet does about it, and what the thief does about that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Answer {
    /// Nothing is ever renewed, and nothing is done: what the others are compared with.
    NoRenewal,
    /// Keys renew as always.
    RenewOnly,
    /// DELETE, and the terminal hears it before its case is opened.
    DeleteHeard,
    /// DELETE, and the thief jams it.
    DeleteJammed,
    /// EXCLUDE and fresh epochs; no DELETE.
    ExcludeHeard,
    /// The same, and the thief jams it.
    ExcludeJammed,
}

impl Answer {
    pub const ALL: [Self; 6] = [
        Self::NoRenewal,
        Self::RenewOnly,
        Self::DeleteHeard,
        Self::DeleteJammed,
        Self::ExcludeHeard,
        Self::ExcludeJammed,
    ];

    /// The rows of the theft matrix.
    pub const MATRIX: [Self; 5] = [
        Self::RenewOnly,
        Self::DeleteHeard,
        Self::DeleteJammed,
        Self::ExcludeHeard,
        Self::ExcludeJammed,
    ];

    const fn jams(self) -> bool {
        matches!(self, Self::DeleteJammed | Self::ExcludeJammed)
    }

    const fn excludes(self) -> bool {
        matches!(self, Self::ExcludeHeard | Self::ExcludeJammed)
    }

    const fn deletes(self) -> bool {
        matches!(self, Self::DeleteHeard | Self::DeleteJammed)
    }

    /// Whether keys can be taken out of the terminal at the theft: not where it obeys first.
    const fn is_opened_at_once(self) -> bool {
        !matches!(self, Self::DeleteHeard)
    }
}

/// What of one kind the thief opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    pub recorded: usize,
    /// Within what the matrix allows.
    pub allowed: usize,
    /// Beyond it: must be 0.
    pub beyond: usize,
    /// How long before the theft the oldest that opened was recorded, for what was before it.
    pub oldest: Option<Duration>,
}

/// One run.
#[derive(Debug)]
pub struct TheftRun {
    pub answer: Answer,
    pub recorded_media: Cell,
    pub recorded_distributions: Cell,
    /// From the theft to the order.
    pub media_before_the_order: Cell,
    pub media_after_the_order: Cell,
    /// From the theft to the order.
    pub distributions_before_the_order: Cell,
    pub distributions_after_the_order: Cell,
    /// Media and distributions of a group that the stolen terminal never belonged to.
    pub of_others: Cell,
    /// Seconds since the theft of each packet of the group, and whether the thief read it, with
    /// keys or with the terminal as it was.
    pub traffic: Vec<(i64, bool)>,
    /// What the server says of it at the end, for a theft by the terminal's own clock at the slowest.
    pub exposure: Option<Exposure>,
    /// Octets that the stolen terminal had stored.
    pub stored: usize,
    /// Packets that the other members could not send or hear.
    pub lost: usize,
    pub violations: Vec<Violation>,
}

impl TheftPlan {
    /// max(grace, rank-1 period + keep time) (DESIGN section 11, invariant 7).
    #[must_use]
    pub fn bound(&self) -> Duration {
        let grace = keyfall_protocol::command::Limits::default().grace;
        let exposure = grace.max(self.period + self.keep_time);
        Duration::from_secs(u64::from(exposure))
    }

    /// From the beginning to the theft.
    #[must_use]
    pub fn theft_after(&self) -> Duration {
        let ticks = self.before.div_ceil(self.period);
        Duration::from_secs(u64::from(ticks * self.period + self.phase))
    }

    /// Plays it with `answer`.
    #[must_use]
    pub fn run(&self, seed: u64, answer: Answer) -> TheftRun {
        let mut story = Story::new(self, seed, answer);
        let theft = Tick::default().plus(self.theft_after());
        let order = theft.plus(seconds(self.reported_after));
        story.talk_until(theft);
        story.is_stolen();
        story.talk_until(order);
        story.is_answered();
        story.talk_until(theft.plus(seconds(self.after)));
        story.end(theft, order)
    }
}

/// A world with the people of the story.
struct Story<'p> {
    plan: &'p TheftPlan,
    answer: Answer,
    world: World,
    bob: StationId,
    carol: StationId,
    crew: GroupNumber,
    speakers: Vec<Speaker>,
    thief: Thief,
    /// What the thief played to the terminal itself and it opened: places of packets.
    heard: Vec<usize>,
    stolen: bool,
    stored: usize,
    lost: usize,
    next_word: Tick,
}

impl<'p> Story<'p> {
    /// Bob is with alice and carol in one group; another is theirs alone.
    fn new(plan: &'p TheftPlan, seed: u64, answer: Answer) -> Self {
        let renews = answer != Answer::NoRenewal;
        let config = Config {
            founding: Founding {
                fleet_period: if renews { plan.period } else { u32::MAX },
                keep_time: plan.keep_time,
                ..Founding::default()
            },
            ..Config::default()
        };
        let mut world = World::new(seed, config);
        let [alice, bob, carol] =
            ["alice", "bob", "carol"].map(|name| world.enrol(name, LinkQuality::PERFECT));
        // Not at a tick: whether a group's key steps with G is one of the things to see.
        world.run_for(seconds(plan.period / 3));
        let cadence = Cadence::new(1, plan.period).filter(|_| renews);
        let crew = world.create_group("crew", &[alice, bob, carol], cadence);
        let others = world.create_group("others", &[alice, carol], cadence);
        world.run_for(Duration::from_secs(12));
        let mut speaker = |group, ssrc| {
            let speaker = world.speaker(alice, group, ssrc);
            speaker.expect("she has had the time to get her keys")
        };
        let speakers = vec![speaker(crew, 1), speaker(others, 2)];
        Self {
            plan,
            answer,
            next_word: world.now(),
            world,
            bob,
            carol,
            crew,
            speakers,
            thief: Thief::default(),
            heard: Vec::new(),
            stolen: false,
            stored: 0,
            lost: 0,
        }
    }

    /// Alice says a word in each group now and then. Bob hears all but every seventh, which only the
    /// thief's tape has; carol hears all.
    fn talk_until(&mut self, end: Tick) {
        while self.next_word < end {
            self.world.run_until(self.next_word);
            self.next_word = self.next_word.plus(seconds(self.plan.every));
            for place in 0..self.speakers.len() {
                let speaker = &mut self.speakers[place];
                let Some(packet) = self.world.speak(speaker, b"speech") else {
                    self.lost += 1;
                    continue;
                };
                if self.world.hear(self.carol, &packet).is_err() {
                    self.lost += 1;
                }
                let recorded = self.world.packets().len() - 1;
                let listens = self.stolen || !recorded.is_multiple_of(7);
                if listens && self.world.hear(self.bob, &packet).is_ok() && self.stolen {
                    self.heard.push(recorded);
                }
            }
        }
        self.world.run_until(end);
    }

    fn is_stolen(&mut self) {
        self.stolen = true;
        let image = self.world.station(self.bob).synced();
        self.stored = image.device.len() + image.user.len();
        if self.answer.jams() {
            self.world.cut_link(self.bob, true);
        }
        if self.answer.is_opened_at_once() {
            self.take_everything();
        } else {
            self.play_the_tape();
        }
    }

    fn is_answered(&mut self) {
        if self.answer.deletes() {
            self.world
                .send_order(self.bob, OrderKind::Delete)
                .expect("the erase key signs it");
        }
        if self.answer.excludes() {
            self.world.exclude(&[self.bob]).expect("he may be excluded");
        }
        self.world.run_for(Duration::from_secs(1));
        self.take_everything();
    }

    /// Memory and disk as they are now, beside all that was taken before.
    fn take_everything(&mut self) {
        let more = self.world.steal(self.bob);
        self.thief.join(&more);
    }

    /// What can be done with a terminal whose case is closed: it hears what was recorded.
    fn play_the_tape(&mut self) {
        for place in 0..self.world.packets().len() {
            let packet = self.world.packets()[place].clone();
            // As many sources as packets, so that no budget spares the thief the work.
            let heard = self
                .world
                .hear_from(self.bob, packet.group, place as u64, &packet.octets);
            if heard.is_ok() {
                self.heard.push(place);
            }
        }
    }

    fn end(mut self, theft: Tick, order: Tick) -> TheftRun {
        self.take_everything();
        let frames = self.world.frames().to_vec();
        let packets = self.world.packets().to_vec();
        let Opened {
            frames: by_frame,
            packets: by_packet,
            ..
        } = self.thief.open(&frames, &packets);
        let mut run = TheftRun::new(&self);
        self.count_media(&mut run, &packets, &by_packet, (theft, order));
        self.count_distributions(&mut run, &frames, &by_frame, (theft, order));
        let number = self.world.station(self.bob).number;
        let by_its_clock = Tick::default().plus(theft.since(Tick::default().plus(CLOCK_SLACK)));
        let stolen_at = self.world.wall_at(by_its_clock);
        let server = self.world.server();
        run.exposure = server.and_then(|server| server.exposure(number, stolen_at).ok());
        run
    }

    fn count_media(
        &self,
        run: &mut TheftRun,
        packets: &[CapturedPacket],
        opened: &[usize],
        (theft, order): (Tick, Tick),
    ) {
        let mut by_keys = vec![false; packets.len()];
        opened.iter().for_each(|&place| by_keys[place] = true);
        let mut by_terminal = vec![false; packets.len()];
        self.heard
            .iter()
            .for_each(|&place| by_terminal[place] = true);
        let old_epoch = packets.first().map(|packet| packet.epoch);
        for (place, packet) in packets.iter().enumerate() {
            let age = theft.since(packet.at);
            let (cell, allowed) = if packet.group != self.crew {
                (&mut run.of_others, false)
            } else if packet.at < theft {
                (&mut run.recorded_media, self.allows_past(age))
            } else if packet.at < order {
                let allowed = self.answer.is_opened_at_once();
                (&mut run.media_before_the_order, allowed)
            } else {
                let allowed = self.allows_future(Some(packet.epoch) == old_epoch);
                (&mut run.media_after_the_order, allowed)
            };
            cell.count(by_keys[place], allowed, age);
            if packet.group == self.crew {
                let since = packet.at.since(theft).as_secs() as i64 - age.as_secs() as i64;
                run.traffic
                    .push((since, by_keys[place] || by_terminal[place]));
            }
        }
    }

    /// Each once, at the time when it was first sent.
    fn count_distributions(
        &self,
        run: &mut TheftRun,
        frames: &[Captured],
        opened: &[usize],
        (theft, order): (Tick, Tick),
    ) {
        let mut seen: HashSet<&[u8]> = HashSet::new();
        for (place, frame) in frames.iter().enumerate() {
            let Item::Dist(group, _) = frame.item else {
                continue;
            };
            if !seen.insert(&frame.octets) {
                continue;
            }
            let age = theft.since(frame.at);
            let (cell, allowed) = if group != self.crew {
                (&mut run.of_others, false)
            } else if frame.at < theft {
                (&mut run.recorded_distributions, self.allows_past(age))
            } else if frame.at < order {
                let allowed = self.answer.is_opened_at_once();
                (&mut run.distributions_before_the_order, allowed)
            } else {
                let allowed = self.allows_future(false);
                (&mut run.distributions_after_the_order, allowed)
            };
            cell.count(opened.binary_search(&place).is_ok(), allowed, age);
        }
    }

    fn allows_past(&self, age: Duration) -> bool {
        match self.answer {
            Answer::NoRenewal => true,
            Answer::DeleteHeard => false,
            Answer::RenewOnly
            | Answer::DeleteJammed
            | Answer::ExcludeHeard
            | Answer::ExcludeJammed => age <= self.plan.bound() + CLOCK_SLACK,
        }
    }

    fn allows_future(&self, of_the_old_epoch: bool) -> bool {
        match self.answer {
            Answer::NoRenewal | Answer::RenewOnly | Answer::DeleteJammed => true,
            Answer::DeleteHeard => false,
            Answer::ExcludeHeard | Answer::ExcludeJammed => of_the_old_epoch,
        }
    }
}

impl TheftRun {
    fn new(story: &Story<'_>) -> Self {
        Self {
            answer: story.answer,
            recorded_media: Cell::default(),
            recorded_distributions: Cell::default(),
            media_before_the_order: Cell::default(),
            media_after_the_order: Cell::default(),
            distributions_before_the_order: Cell::default(),
            distributions_after_the_order: Cell::default(),
            of_others: Cell::default(),
            traffic: Vec::new(),
            exposure: None,
            stored: story.stored,
            lost: story.lost,
            violations: story.world.violations().to_vec(),
        }
    }

    /// Everything that the thief's keys opened beyond what the matrix allows: must be 0.
    #[must_use]
    pub fn opened_beyond(&self) -> usize {
        self.cells().map(|cell| cell.beyond).sum()
    }

    /// Everything that they opened within it.
    #[must_use]
    pub fn opened_allowed(&self) -> usize {
        self.cells().map(|cell| cell.allowed).sum()
    }

    fn cells(&self) -> impl Iterator<Item = &Cell> {
        [
            &self.recorded_media,
            &self.recorded_distributions,
            &self.media_before_the_order,
            &self.media_after_the_order,
            &self.distributions_before_the_order,
            &self.distributions_after_the_order,
            &self.of_others,
        ]
        .into_iter()
    }
}

impl Cell {
    /// One more that was recorded so long before the theft.
    fn count(&mut self, opened: bool, allowed: bool, age: Duration) {
        self.recorded += 1;
        if !opened {
            return;
        }
        self.oldest = self.oldest.max(Some(age));
        if allowed {
            self.allowed += 1;
        } else {
            self.beyond += 1;
        }
    }

    /// All that opened.
    #[must_use]
    pub fn opened(&self) -> usize {
        self.allowed + self.beyond
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}

/// A terminal's clock is behind the server's by less than this, so it keeps a key as much longer.
pub const CLOCK_SLACK: Duration = Duration::from_secs(2);
