//! The sending machine was broken into, and a thief signs with its online keys whatever their class
//! may say. The root's next KEYSET makes every terminal whole again, and nobody travels (FORMATS
//! sections 2.1 and 2.2; REQUIREMENTS W-10, W-17, W-18).

use std::time::Duration;

use keyfall_protocol::DropReason;
use keyfall_protocol::command::{
    Body, Command, Exclude, Floor, FreshEpoch, KeyDist, KeyDistContents, OrderContents, OrderKind,
    Renew, RenewEntry, SealedOrder, SigningKey, Target, Time,
};
use keyfall_protocol::ids::{
    Generation, GroupNumber, KeyEpoch, KeyId, SequenceNumber, TerminalNumber, UnixSeconds,
};
use keyfall_protocol::keys::{MasterKey, Secret};
use keyfall_protocol::schedule::{Cadence, Schedule, generation_bound};
use keyfall_protocol::server::{Founding, Item, KeySetDraft};
use keyfall_sim::{Config, LinkQuality, Loot, StationId, World};

use crate::{nothing_was_wrong, quickly_renewed};

struct Fleet {
    world: World,
    stations: Vec<StationId>,
    groups: Vec<GroupNumber>,
}

/// What the thief has, and the last moment for which it counts.
struct Stolen {
    beat: SigningKey,
    keys: SigningKey,
    until: UnixSeconds,
}

impl Fleet {
    /// Each terminal is in two of the groups.
    fn new(size: usize, groups: usize) -> Self {
        let config = Config {
            founding: Founding {
                // A chain as long as a month's costs the debug build minutes.
                signer_life: if cfg!(debug_assertions) { 1 } else { 30 } * 86_400,
                ..quickly_renewed()
            },
            ..Config::default()
        };
        let mut world = World::new(17, config);
        let stations: Vec<_> = (0..size)
            .map(|n| world.enrol(&format!("terminal-{n}"), LinkQuality::PERFECT))
            .collect();
        let groups = (0..groups)
            .map(|n| {
                let member = |&(place, _): &(usize, &StationId)| {
                    place % groups == n || (place + 1) % groups == n
                };
                let members = stations.iter().enumerate().filter(member);
                let members: Vec<_> = members.map(|(_, id)| *id).collect();
                world.create_group(&format!("group-{n}"), &members, Cadence::new(1, 600))
            })
            .collect();
        let mut fleet = Self {
            world,
            stations,
            groups,
        };
        fleet.world.run_for(Duration::from_secs(60));
        fleet.is_whole();
        fleet
    }

    /// Everybody holds what the server holds, may send, and is heard by somebody of the group.
    #[track_caller]
    fn is_whole(&mut self) {
        for &id in &self.stations {
            assert_eq!(self.world.lag(id), None);
            let machine = self.world.station(id).terminal().expect("it is on");
            assert_eq!(machine.excluded().count(), 0, "nobody is cut off");
        }
        for &group in &self.groups {
            let server = self.world.server().expect("it runs");
            let record = server.groups().find(|it| it.number == group);
            let members = record.expect("it was created").members.clone();
            let members: Vec<_> = self
                .stations
                .iter()
                .copied()
                .filter(|&id| members.contains(&self.world.station(id).number))
                .collect();
            for (place, &from) in members.iter().enumerate() {
                let to = members[(place + 1) % members.len()];
                let mut speaker = self.world.speaker(from, group, 5).expect("a member");
                let packet = self.world.speak(&mut speaker, b"speech");
                let packet = packet.unwrap_or_else(|| panic!("{from:?} may not send"));
                let heard = self.world.hear(to, &packet);
                assert!(heard.is_ok(), "{from:?} to {to:?}: {heard:?}");
            }
        }
        nothing_was_wrong(&self.world);
    }

    /// A frame of the thief's on the air: whoever is on and not jammed hears it.
    fn forge(&mut self, frame: &[u8], deaf: &[StationId]) {
        for &id in self.stations.iter().filter(|id| !deaf.contains(id)) {
            self.world.feed_frame(id, frame);
        }
    }

    fn drops(&self, id: StationId, reason: DropReason) -> u64 {
        let machine = self.world.station(id).terminal().expect("it is on");
        machine.drops().of(reason)
    }

    fn thief(&self) -> Stolen {
        let fleet = self.world.server().expect("it runs").fleet();
        Stolen {
            beat: SigningKey::from_seed(fleet.beat.seed().duplicate()),
            keys: SigningKey::from_seed(fleet.keys.seed().duplicate()),
            until: fleet.signers_expire(),
        }
    }

    /// As a command of this fleet's server, issued at the last moment that counts.
    fn command(&self, thief: &Stolen, body: Body, g: Generation) -> Command {
        let fleet = self.world.server().expect("it runs").fleet();
        Command {
            stream: fleet.stream,
            sequence: SequenceNumber::new(u64::MAX >> 1),
            issued_at: thief.until,
            not_after: thief.until.plus(86_400),
            target: Target::All,
            body,
            fleet_generation: g,
        }
    }

    /// The highest G that the thief's signature carries.
    fn g_max(&self, thief: &Stolen) -> Generation {
        let fleet = self.world.server().expect("it runs").fleet();
        fleet.key_set.fleet_schedule.bound(thief.until)
    }

    /// Everything that the beat and the keys class may say, at its bound, and beyond it.
    fn forgeries(&self, thief: &Stolen) -> [Vec<Vec<u8>>; 2] {
        let g = self.g_max(thief);
        let highest = |it: u32| Generation::new(it).expect("within 2^31");
        let epoch_max = KeyEpoch::fresh(None, thief.until);
        let beat = |body, g| thief.beat.sign(&self.command(thief, body, g));
        let keys = |body, g| thief.keys.sign(&self.command(thief, body, g));
        let (mut by_beat, mut by_keys) = (Vec::new(), Vec::new());
        for g in [highest(1 << 31), g] {
            for seconds in [u32::MAX, thief.until.get(), self.world.wall().get() + 599] {
                let floors = self.groups.iter().map(|group| Floor {
                    kid: group.master_key_id(),
                    epoch: epoch_max,
                    generation: highest(1),
                });
                let time = Time {
                    seconds: UnixSeconds::new(seconds),
                    max_error_ms: 0,
                    floors: floors.collect(),
                };
                by_beat.push(beat(Body::Time(time), g));
            }
            for &group in &self.groups {
                let held = self.world.server_disk().group(group);
                let epoch = held.expect("it was created").master.epoch();
                for generation in [highest(1 << 31), generation_bound(epoch, thief.until)] {
                    let renew = renewal(group.master_key_id(), epoch, generation, thief.until);
                    by_beat.push(beat(renew, g));
                }
            }
            for &id in &self.stations {
                let kid = self.world.station(id).number.wrap_key_id();
                let renew = renewal(kid, KeyEpoch::RANK_ONE, g.plus(64), thief.until);
                by_beat.push(beat(renew, g));
            }
            let fresh = self.groups.iter().map(|&group| FreshEpoch {
                group,
                old: KeyEpoch::new(0),
                new: epoch_max,
            });
            let numbers = self
                .stations
                .iter()
                .map(|&id| self.world.station(id).number);
            let exclude = Exclude {
                terminals: numbers.collect(),
                groups: fresh.collect(),
            };
            by_keys.push(keys(Body::Exclude(exclude), g));
        }
        [by_beat, by_keys]
    }

    /// A distribution of the thief's own keys to a terminal whose wrap key he has.
    fn distribution_to(&mut self, thief: &Stolen, insider: StationId) -> Vec<Vec<u8>> {
        let loot = Loot::read(self.world.station(insider).newest_image()).expect("an image");
        let wrap = loot.user.expect("it is open").wrap;
        let g = wrap.generation();
        let seal = |group: &GroupNumber| {
            let epoch = KeyEpoch::fresh(None, thief.until);
            let secret = Secret::from_slice(&[9; 32]).expect("32 octets");
            let contents = KeyDistContents {
                search_key: None,
                key: MasterKey::new(*group, epoch, Generation::ZERO, secret),
                activate_at: self.world.wall(),
                cadence: None,
                lease_end: Some(thief.until.plus(3600)),
            };
            let mut rng = keyfall_sim::Seeded::new(9);
            KeyDist::seal(&contents, std::iter::once(&wrap), &mut rng)
        };
        let sealed: Vec<_> = self.groups.iter().map(seal).collect();
        let sign = |body| {
            thief
                .keys
                .sign(&self.command(thief, Body::KeyDist(body), g))
        };
        sealed.into_iter().map(sign).collect()
    }
}

fn renewal(kid: KeyId, epoch: KeyEpoch, generation: Generation, activate_at: UnixSeconds) -> Body {
    let schedule = Schedule {
        generation,
        activate_at,
        cadence: Cadence::new(64, 600),
    };
    Body::Renew(Renew {
        entries: vec![RenewEntry {
            kid,
            epoch,
            schedule,
            lease_end: Some(UnixSeconds::new(u32::MAX)),
        }],
    })
}

/// W-17: both online keys are stolen. The thief writes the highest numbers everywhere, excludes the
/// fleet, announces epochs that nobody has, pushes time and G, and gives one terminal keys of his
/// own. Some terminals are off, one is locked, one is jammed meanwhile. After `sign-keys --stolen`
/// everyone is whole as soon as it hears, and what the thief signs is refused.
#[test]
fn after_a_theft_of_the_online_keys_the_next_key_set_makes_every_terminal_whole() {
    let mut fleet = Fleet::new(20, 5);
    let [off, late, locked, jammed, insider] = [1, 6, 11, 16, 2].map(|n| fleet.stations[n]);
    fleet.world.set_passphrase(locked);
    fleet.world.lock(locked);
    fleet.world.crash(off);
    fleet.world.crash(late);

    let thief = fleet.thief();
    let mut forgeries = fleet.distribution_to(&thief, insider);
    forgeries.extend(fleet.forgeries(&thief).concat());
    for frame in &forgeries {
        fleet.forge(frame, &[jammed]);
    }
    fleet.world.run_for(Duration::from_secs(5));
    // The attack bites: nobody who heard it may send.
    for &id in &fleet.stations {
        let machine = fleet.world.station(id).terminal();
        let sends = fleet
            .groups
            .iter()
            .any(|&group| machine.is_some_and(|machine| machine.send_key(group).is_some()));
        assert_eq!(sends, id == jammed, "{id:?}");
    }
    assert!(fleet.drops(fleet.stations[0], DropReason::AboveBound) > 0);

    let names = [&thief.beat, &thief.keys].map(|key| key.public().name());
    let stolen = KeySetDraft {
        stolen: names.to_vec(),
        ..KeySetDraft::default()
    };
    fleet.world.sign_keys(stolen).expect("the root does");
    fleet.world.unlock(locked);
    fleet.world.start(off);
    fleet.world.run_for(Duration::from_secs(90));
    fleet.world.start(late);
    fleet.world.run_for(Duration::from_secs(90));
    fleet.is_whole();

    // Once more: all of it is refused.
    let before: Vec<_> = fleet
        .stations
        .iter()
        .map(|&id| fleet.world.station(id).stores())
        .collect();
    for frame in &forgeries {
        fleet.forge(frame, &[]);
    }
    let after: Vec<_> = fleet
        .stations
        .iter()
        .map(|&id| fleet.world.station(id).stores())
        .collect();
    assert_eq!(before, after, "nothing to store");
    assert!(fleet.drops(late, DropReason::UnknownSigner) > 0);
    fleet.is_whole();
    // And it stays so over the next ticks and the next KEYSET.
    fleet.world.run_for(Duration::from_secs(1300));
    fleet.is_whole();
    fleet
        .world
        .sign_keys(KeySetDraft::default())
        .expect("the root does");
    fleet.world.run_for(Duration::from_secs(90));
    fleet.is_whole();
}

/// A thief with the keys key and one terminal chooses the keys of its groups; from the next KEYSET
/// on, and before the server's own key has come, nothing is sent with them any more.
#[test]
fn keys_that_a_thief_brought_are_sent_with_no_more() {
    let mut fleet = Fleet::new(4, 2);
    let (insider, group) = (fleet.stations[0], fleet.groups[0]);
    let mut thief = fleet.thief();
    let until = thief.until;
    thief.until = fleet.world.wall();
    for frame in fleet.distribution_to(&thief, insider) {
        fleet.world.feed_frame(insider, &frame);
    }
    fleet.world.run_for(Duration::from_secs(1));
    let sends = |fleet: &Fleet| {
        let machine = fleet.world.station(insider).terminal().expect("it is on");
        let key = machine.send_key(group)?;
        Some(key.secret().expose() == &[9; 32])
    };
    assert_eq!(sends(&fleet), Some(true), "the attack bites");

    fleet.world.cut_link(insider, true);
    thief.until = until;
    let stolen = KeySetDraft {
        stolen: vec![thief.keys.public().name()],
        ..KeySetDraft::default()
    };
    fleet.world.sign_keys(stolen).expect("the root does");
    fleet.world.run_for(Duration::from_secs(20));
    let frames = fleet.world.frames().iter();
    let key_set = frames.rev().find(|frame| frame.item == Item::KeySet);
    let key_set = key_set.expect("it is on the carousel").octets.clone();
    fleet.world.feed_frame(insider, &key_set);
    fleet.world.run_for(Duration::from_secs(1));
    assert_eq!(sends(&fleet), None);
    fleet.world.cut_link(insider, false);
    fleet.world.run_for(Duration::from_secs(60));
    assert_eq!(sends(&fleet), Some(false));
    fleet.is_whole();
}

/// Each key alone, and the true exclusions stand again afterwards: the thief's words are void, the
/// server's are not.
#[test]
fn an_exclusion_of_the_servers_survives_the_theft_of_the_key_that_signed_it() {
    for class in 0..2 {
        let mut fleet = Fleet::new(6, 2);
        let lost = fleet.stations.remove(5);
        let number = fleet.world.station(lost).number;
        fleet.world.exclude(&[lost]).expect("it may be excluded");
        fleet.world.run_for(Duration::from_secs(30));
        let thief = fleet.thief();
        for frame in &fleet.forgeries(&thief)[class] {
            fleet.forge(frame, &[]);
        }
        let name = [&thief.beat, &thief.keys][class].public().name();
        let stolen = KeySetDraft {
            stolen: vec![name],
            ..KeySetDraft::default()
        };
        fleet.world.sign_keys(stolen).expect("the root does");
        fleet.world.run_for(Duration::from_secs(120));
        for &id in &fleet.stations {
            let machine = fleet.world.station(id).terminal().expect("it is on");
            assert!(machine.is_excluded(number), "the true one");
            assert_eq!(machine.excluded().count(), 1, "and no other");
            assert_eq!(fleet.world.lag(id), None);
        }
        nothing_was_wrong(&fleet.world);
    }
}

/// W-18, FORMATS section 2.2: with the beat and keys keys alone no terminal can be made to delete.
#[test]
fn online_keys_delete_nothing() {
    let mut fleet = Fleet::new(2, 1);
    let victim = fleet.stations[0];
    let thief = fleet.thief();
    let loot = Loot::read(fleet.world.station(victim).newest_image()).expect("an image");
    let number: TerminalNumber = loot.number;
    for kind in OrderKind::ALL {
        let lock = matches!(kind, OrderKind::Lock | OrderKind::Unlock);
        let contents = OrderContents {
            terminal: number,
            kind,
            version: lock.then_some(u32::MAX),
            receipt_wanted: false,
        };
        let mut rng = keyfall_sim::Seeded::new(1);
        // Even with the terminal's own obey key.
        let sealed = SealedOrder::seal(&contents, &loot.obey, &mut rng);
        for key in [&thief.beat, &thief.keys] {
            let g = Generation::ZERO;
            let mut command = fleet.command(&thief, Body::Order(sealed.clone()), g);
            command.target = Target::Handles;
            fleet.world.feed_frame(victim, &key.sign(&command));
        }
    }
    assert_eq!(fleet.drops(victim, DropReason::WrongClass), 8);
    fleet.world.run_for(Duration::from_secs(5));
    fleet.is_whole();
}
