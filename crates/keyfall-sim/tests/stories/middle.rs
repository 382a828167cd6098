//! Somebody in the middle, on every path between server and terminals (REQUIREMENTS T-05 to T-09):
//! whatever it does to each k-th datagram, nobody takes another key than the server made, every
//! sequence comes to an end, and once it has gone all is as if it had never been there.

use std::rc::Rc;
use std::time::Duration;

use keyfall_protocol::ids::GroupNumber;
use keyfall_protocol::server::Order;
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::sharing::message::type_of;
use keyfall_protocol::terminal::AskOutcome;
use keyfall_sim::{CapturedDatagram, Direction, Interceptor, Seeded, StationId, World};

use crate::asking::{ALL, NEAR, answering, ends, world_of};
use crate::{all_are_current, nothing_was_wrong};

/// What it does to each k-th datagram.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Attack {
    /// An older datagram of the same path once more, beside it.
    Replay,
    /// It comes three seconds late, after others.
    HoldBack,
    /// What another terminal sent or got comes in its place.
    Swap,
    /// One bit is another.
    Flip,
    /// It goes back to where it came from, too.
    Reflect,
    /// A piece of it is cut off.
    Cut,
}

const ATTACKS: [Attack; 6] = [
    Attack::Replay,
    Attack::HoldBack,
    Attack::Swap,
    Attack::Flip,
    Attack::Reflect,
    Attack::Cut,
];

impl Attack {
    fn on(
        self,
        datagram: &CapturedDatagram,
        before: &[CapturedDatagram],
        rng: &mut Seeded,
    ) -> Vec<(Duration, CapturedDatagram)> {
        let at_once = |datagram: &CapturedDatagram| (Duration::ZERO, datagram.clone());
        let with = |octets: &[u8]| CapturedDatagram {
            octets: Rc::from(octets),
            ..datagram.clone()
        };
        let alike = |other: &&CapturedDatagram| other.direction == datagram.direction;
        let own = |other: &&CapturedDatagram| other.station == datagram.station;
        match self {
            Self::Replay => {
                let past: Vec<&CapturedDatagram> =
                    before.iter().filter(alike).filter(own).collect();
                let older =
                    (!past.is_empty()).then(|| at_once(rng.pick::<&CapturedDatagram>(&past)));
                older.into_iter().chain([at_once(datagram)]).collect()
            }
            Self::HoldBack => vec![(Duration::from_secs(3), datagram.clone())],
            Self::Swap => {
                let foreign = before.iter().filter(alike).filter(|other| !own(other));
                let foreign: Vec<_> = foreign.collect();
                match foreign.is_empty() {
                    true => vec![at_once(datagram)],
                    false => vec![at_once(&with(&rng.pick(&foreign).octets))],
                }
            }
            Self::Flip => {
                let mut octets = datagram.octets.to_vec();
                let bit = rng.below(8 * octets.len() as u64) as usize;
                octets[bit / 8] ^= 1 << (bit % 8);
                vec![at_once(&with(&octets))]
            }
            Self::Reflect => {
                let direction = match datagram.direction {
                    Direction::ToServer => Direction::FromServer,
                    Direction::FromServer => Direction::ToServer,
                };
                let back = CapturedDatagram {
                    direction,
                    ..datagram.clone()
                };
                vec![at_once(datagram), at_once(&back)]
            }
            Self::Cut => {
                let left = rng.below(datagram.octets.len() as u64) as usize;
                vec![at_once(&with(&datagram.octets[..left]))]
            }
        }
    }

    fn interceptor(self, every: u64) -> Interceptor {
        let mut rng = Seeded::new(every);
        let mut seen = 0;
        Box::new(move |datagram, before| {
            seen += 1;
            match seen % every {
                0 => self.on(datagram, before, &mut rng),
                _ => vec![(Duration::ZERO, datagram.clone())],
            }
        })
    }
}

struct Story {
    world: World,
    stations: Vec<StationId>,
    groups: Vec<GroupNumber>,
}

impl Story {
    fn new(suite: SharingSuite) -> Self {
        let mut world = world_of(7, &[suite]);
        let stations = answering(&mut world, 3, NEAR);
        let groups = vec![
            world.create_group("crew", &stations, None),
            world.create_group("two", &stations[..2], None),
        ];
        Self {
            world,
            stations,
            groups,
        }
    }

    fn rekey_and_ask(&mut self) {
        for &group in &self.groups {
            let rekey = Order::RekeyGroup { group };
            self.world.order(rekey).expect("it may be");
        }
        self.stations.iter().for_each(|&id| self.world.ask(id));
    }

    /// It has gone: the next sequence of everybody is as good as any.
    fn ends_well(&mut self, at: &str) {
        self.world.intercept_no_more();
        self.world.run_for(Duration::from_secs(800));
        self.rekey_and_ask();
        let told = |story: &Self, id: StationId| story.world.station(id).told().len();
        let before: Vec<_> = self.stations.iter().map(|&id| told(self, id)).collect();
        self.world.run_for(Duration::from_secs(40));
        for (&id, from) in self.stations.iter().zip(before) {
            let ended = ends(&self.world, id, from);
            let all = ended.iter().all(|it| *it == AskOutcome::Current);
            assert!(all && !ended.is_empty(), "{at}: {ended:?}");
        }
        all_are_current(&self.world);
        assert!(self.world.split_groups().is_empty(), "{at}");
    }
}

#[test]
fn nobody_in_the_middle_brings_another_key_or_an_endless_sequence() {
    for suite in ALL {
        for attack in ATTACKS {
            for every in [1, 2, 3, 5] {
                let at = format!("{suite:?} {attack:?} of every {every}");
                let mut story = Story::new(suite);
                story.world.intercept(attack.interceptor(every));
                for _ in 0..3 {
                    story.rekey_and_ask();
                    story.world.run_for(Duration::from_secs(60));
                }
                // Nobody is in a sequence for ever, though its datagrams are still meddled with.
                story.world.run_for(Duration::from_secs(200));
                for &id in &story.stations {
                    let ended = ends(&story.world, id, 0);
                    assert!(!ended.is_empty(), "{at}");
                }
                nothing_was_wrong(&story.world);
                story.ends_well(&at);
            }
        }
    }
}

/// Each ACK is held back until two sequences later, when the server knows or waits for something else:
/// nobody is locked out, and nothing older is taken for confirmed.
#[test]
fn acks_that_are_held_back_lock_nobody_out() {
    for suite in ALL {
        for seconds in [1, 5, 30, 70, 400] {
            let mut story = Story::new(suite);
            story.world.intercept(Box::new(move |datagram, _| {
                let late = match type_of(&datagram.octets) {
                    Some(ACK) => Duration::from_secs(seconds),
                    _ => Duration::ZERO,
                };
                vec![(late, datagram.clone())]
            }));
            for _ in 0..4 {
                story.rekey_and_ask();
                story.world.run_for(Duration::from_secs(25));
            }
            story.world.run_for(Duration::from_secs(100));
            story.ends_well(&format!("{suite:?}, ACKs {seconds} s late"));
        }
    }
}

const ACK: u8 = 4;
