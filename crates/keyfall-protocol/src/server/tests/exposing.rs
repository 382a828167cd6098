//! What exposure says is what a thief with every recording opens: no less, and hardly more (the
//! issue's theft matrix; FORMATS section 3.1; DESIGN section 11, invariants 6 and 7).

use std::collections::BTreeMap;

use super::desk::{Desk, add, add_terminal, exclude, group, remove, terminal};
use crate::command::{Body, KeyDist, Limits, OrderKind};
use crate::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, UnixSeconds};
use crate::keys::{MasterKey, WrapKey};
use crate::rng::Random;
use crate::schedule::{Cadence, Schedule};
use crate::server::{Deletion, Exposure, Founding, Order};

const STEP: u32 = 10;
const PERIOD: u32 = 600;
const KEEP: u32 = 120;

type Place = (KeyEpoch, Generation);

/// Everything that was said and used, with the keys that a terminal held at each time.
struct Tape {
    desk: Desk,
    /// Distributions: when, under which G, what.
    dists: Vec<(UnixSeconds, Generation, KeyDist)>,
    /// What each group's members send with: the generation that is active.
    media: Vec<(UnixSeconds, GroupNumber, Place)>,
    wraps: Vec<(UnixSeconds, WrapKey)>,
    masters: Vec<(UnixSeconds, MasterKey, Schedule)>,
    victim: u32,
    /// The master keys that the victim's groups had last.
    held: BTreeMap<GroupNumber, Place>,
}

impl Tape {
    /// The fleet's ticks every [`PERIOD`]; groups that renew by that, by twice that, by 400 s, and
    /// never. The victim is in all of them.
    fn new() -> Self {
        Self::with_grace(Limits::default().grace)
    }

    fn with_grace(grace: u32) -> Self {
        let founding = Founding {
            fleet_period: PERIOD,
            keep_time: KEEP,
            bits_per_second: 10_000_000,
            limits: Limits {
                grace,
                ..Limits::default()
            },
            ..Founding::default()
        };
        let mut desk = Desk::founded(founding);
        desk.live(77);
        for n in 1..=4 {
            desk.carry_out(add_terminal(&format!("t{n}")))
                .expect("free");
        }
        for period in [PERIOD, 2 * PERIOD, 400, 0] {
            let order = Order::CreateGroup {
                packets: None,
                name: format!("g{period}"),
                members: [1, 2, 3].map(terminal).into(),
                cadence: Cadence::new(1, period),
            };
            desk.carry_out(order).expect("free");
        }
        Self {
            desk,
            dists: Vec::new(),
            media: Vec::new(),
            wraps: Vec::new(),
            masters: Vec::new(),
            victim: 2,
            held: BTreeMap::new(),
        }
    }

    fn live(&mut self, seconds: u32) {
        for _ in 0..seconds / STEP {
            self.look();
            self.desk.live(STEP);
        }
        self.look();
    }

    fn look(&mut self) {
        let wall = self.desk.at.wall;
        for (_, command) in self.desk.heard() {
            if let Body::KeyDist(dist) = command.body {
                self.dists
                    .push((command.issued_at, command.fleet_generation, dist));
            }
        }
        let wrap = self.desk.wrap(self.victim);
        let newest = self.wraps.last().map(|(_, held)| held.generation());
        if newest != Some(wrap.generation()) {
            self.wraps.push((wall, wrap));
        }
        for it in self.desk.server.groups() {
            let place = (it.master.epoch(), it.master.generation());
            let active = it.schedule.activate_at <= wall;
            let before = self.media.iter().rev().find(|(_, of, _)| *of == it.number);
            let place = match before {
                Some(&(_, _, before)) if !active => before,
                Some(_) | None => place,
            };
            self.media.push((wall, it.number, place));
            if it.members.contains(&terminal(self.victim))
                && self.held.insert(it.number, place) != Some(place)
            {
                self.masters
                    .push((wall, it.master.duplicate(), it.schedule));
            }
        }
    }

    /// The keys that the victim held at `at`, and all that follow: by group, where each epoch
    /// begins to be readable.
    fn stolen(&self, at: UnixSeconds) -> BTreeMap<(GroupNumber, KeyEpoch), Generation> {
        let mut opened: BTreeMap<_, Generation> = BTreeMap::new();
        let mut take = |group, (epoch, generation)| {
            let held = opened.entry((group, epoch)).or_insert(generation);
            *held = generation.min(*held);
        };
        let grace = self.desk.server.fleet.key_set.limits.grace;
        for (place, (from, key, schedule)) in self.masters.iter().enumerate() {
            // Held until the next of its group came, and the grace after it.
            let next = self.masters[place + 1..]
                .iter()
                .find(|(_, next, _)| next.kid() == key.kid());
            let until = next.map_or(at, |(came, ..)| came.plus(grace));
            if *from <= at && at <= until {
                // Where it has left it is told nothing, and goes on by the schedule.
                let graced = UnixSeconds::new(at.get() - grace);
                let generation = schedule.generation_at(graced).max(key.generation());
                take(key.group(), (key.epoch(), generation));
            }
        }
        for (place, (from, wrap)) in self.wraps.iter().enumerate() {
            let next = self.wraps.get(place + 1);
            let until = next.map_or(at, |(came, _)| came.plus(KEEP));
            if *from > at || at > until {
                continue;
            }
            for (_, g, dist) in &self.dists {
                let stepped = wrap.duplicate().renew_to(*g);
                if let Some(contents) = dist.open(&stepped) {
                    let key = contents.key;
                    take(key.group(), (key.epoch(), key.generation()));
                }
            }
        }
        opened
    }

    fn exposure(&self, at: UnixSeconds) -> Exposure {
        let number = terminal(self.victim);
        self.desk.server.exposure(number, at).expect("it is")
    }

    /// Compares for each group the stretches of media that open with those that are named. At most
    /// `slack` samples too many are named.
    fn check(&self, at: UnixSeconds, slack: usize) {
        let opened = self.stolen(at);
        let exposure = self.exposure(at);
        for number in self.desk.server.groups().map(|it| it.number) {
            let named = |t: UnixSeconds| {
                exposure.groups.iter().any(|it| {
                    it.group == number && it.from <= t && it.until.is_none_or(|until| t < until)
                })
            };
            let mut readable = Vec::new();
            for &(t, of, (epoch, generation)) in &self.media {
                let from = opened.get(&(number, epoch));
                if of == number && from.is_some_and(|&from| from <= generation) {
                    readable.push(t);
                    assert!(named(t), "group {number} at {t}, stolen {at}: {exposure:?}");
                }
            }
            let missed = self
                .media
                .iter()
                .filter(|&&(t, of, _)| of == number && named(t) && !readable.contains(&t))
                .count();
            assert!(
                missed <= slack,
                "{missed} too many: group {number} at {at}, {exposure:?}"
            );
        }
    }
}

/// As it runs by the schedules alone: exactly what the thief opens, whenever he comes.
#[test]
fn exposure_is_what_a_thief_opens_while_keys_renew_by_schedule() {
    let mut tape = Tape::new();
    tape.live(4000);
    let now = tape.desk.at.wall.get();
    for before in [0, 10, 50, 130, 300, 590, 610, 730, 1200, 2000, 2400] {
        tape.check(UnixSeconds::new(now - before), 0);
    }
    // FORMATS section 3.1: rank-1 period and keep time, to the tick.
    let exposure = tape.exposure(tape.desk.at.wall);
    let wall = tape.desk.at.wall;
    assert!(wall.since(exposure.distributions_from) <= PERIOD + KEEP);
    assert_eq!(exposure.groups[0].from, exposure.distributions_from);
    assert_eq!(exposure.groups[0].until, None);
}

/// The larger of the two terms counts: here old generations receive for longer than old
/// distributions open.
#[test]
fn a_long_grace_exposes_more_than_the_distributions_do() {
    let mut tape = Tape::with_grace(2 * PERIOD);
    tape.live(4000);
    let now = tape.desk.at.wall;
    for before in [0, 10, 130, 300, 590, 1200] {
        tape.check(UnixSeconds::new(now.get() - before), 1);
    }
    let exposure = tape.exposure(now);
    assert!(exposure.groups[0].from < exposure.distributions_from);
    assert!(now.since(exposure.groups[0].from) >= 2 * PERIOD);
}

/// With joins, leaves, commands and exclusion at any time.
#[test]
fn exposure_is_what_a_thief_opens_whatever_was_ordered() {
    for seed in 0..6 {
        let mut tape = Tape::new();
        let mut rng = super::desk::counting();
        let mut octets = vec![0; 64 * (seed + 1)];
        rng.fill(&mut octets);
        let mut draws = octets.into_iter().skip(64 * seed);
        let mut draw = |below: u32| u32::from(draws.next().expect("enough")) % below;
        let mut times = Vec::new();
        for _ in 0..10 {
            tape.live(100 + 10 * draw(80));
            times.push(tape.desk.at.wall);
            let of = 1 + draw(4);
            let order = match draw(6) {
                0 => Order::RekeyGroup { group: group(of) },
                1 => Order::RenewGroup { group: group(of) },
                2 => add(of, 4),
                3 => remove(of, 3),
                4 => remove(of, 2),
                _ => add(of, 2),
            };
            // What does not fit is refused. Not in the second of a sample.
            tape.desk.live(1);
            drop(tape.desk.carry_out(order));
            tape.live(STEP);
        }
        tape.desk.live(1);
        tape.desk.carry_out(exclude(&[2])).expect("known");
        tape.live(1500);
        times.push(tape.desk.at.wall);
        // What a command moved away from the ticks of G may have gone into a distribution between
        // the two, and may not: one generation more.
        let slack = 2 * PERIOD / STEP;
        for at in times {
            tape.check(at, slack as usize);
        }
    }
}

/// The rows of the matrix, in its words.
#[test]
fn exposure_ends_with_the_exclusion_and_with_no_renewal() {
    let mut desk = Desk::with_group(3);
    desk.carry_out(add(1, 3)).expect("free");
    desk.live(100);
    let taken = desk.at.wall;
    let until = |desk: &Desk| {
        let exposure = desk.server.exposure(terminal(1), taken).expect("it is");
        exposure.groups[0].until
    };
    for order in [
        Order::RenewGroup { group: group(1) },
        Order::RenewDevices,
        Order::RekeyGroup { group: group(1) },
        exclude(&[3]),
    ] {
        desk.carry_out(order).expect("known");
        desk.live(10);
        assert_eq!(until(&desk), None, "it is in it still");
    }
    let frame = desk.signed(1, OrderKind::Delete, false);
    desk.carry_out(Order::Issue { frame }).expect("signed");
    assert_eq!(until(&desk), None, "sent is not proved");
    let ordered = desk.at.wall;
    desk.live(100);
    desk.carry_out(exclude(&[1])).expect("known");
    let excluded = desk.at.wall;
    let exposure = desk.server.exposure(terminal(1), taken).expect("it is");
    assert_eq!(exposure.excluded_at, Some(excluded));
    assert_eq!(exposure.groups[0].until, Some(excluded));
    let kind = OrderKind::Delete;
    assert_eq!(exposure.deletion, Deletion::Sent { kind, at: ordered });
    let lease = desk.server.fleet.key_set.limits.longest_lease;
    assert_eq!(exposure.groups[0].lease_end, excluded.plus(lease));
    let stranger = TerminalNumber::new(99).expect("small");
    assert!(desk.server.exposure(stranger, taken).is_err());
}

/// the policy "one generation a call" is said of the group.
#[test]
fn a_group_that_renews_by_the_call_is_named_so() {
    let mut desk = Desk::with_group(2);
    let order = Order::CreateGroup {
        packets: None,
        name: "calls".to_owned(),
        members: vec![terminal(1), terminal(2)],
        cadence: Cadence::new(64, 3600),
    };
    desk.carry_out(order).expect("free");
    let exposure = desk.server.exposure(terminal(1), desk.at.wall);
    let groups = exposure.expect("it is").groups;
    let named: Vec<_> = groups.iter().map(|it| it.per_session).collect();
    assert_eq!(named, [false, true]);
    desk.live(7300);
    let calls = desk.server.group_named("calls").expect("it is");
    assert_eq!(calls.master.generation().get(), 128);
}
