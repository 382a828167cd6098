//! Old disks put back, and yesterday's broadcasts to a terminal that was enrolled anew (REQUIREMENTS
//! W-12, W-13, R-068; DESIGN section 11, invariants 3 and 6).

use std::collections::HashSet;
use std::time::Duration;

use keyfall_protocol::command::OrderKind;
use keyfall_protocol::ids::{GroupNumber, Tick};
use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::{Class, Order};
use keyfall_protocol::terminal::{EraseCause, TerminalState};
use keyfall_sim::{Captured, Config, DiskImage, LinkQuality, StationId, World};

use crate::{nothing_was_wrong, quickly_renewed};

struct Fleet {
    world: World,
    alice: StationId,
    bob: StationId,
    crew: GroupNumber,
}

impl Fleet {
    fn new() -> Self {
        let config = Config {
            founding: quickly_renewed(),
            ..Config::default()
        };
        let mut world = World::new(13, config);
        let [alice, bob] = ["alice", "bob"].map(|name| world.enrol(name, LinkQuality::PERFECT));
        let crew = world.create_group("crew", &[alice, bob], Cadence::new(1, 600));
        world.run_for(Duration::from_secs(60));
        Self {
            world,
            alice,
            bob,
            crew,
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.world.run_for(Duration::from_secs(seconds));
    }

    fn copy(&self) -> DiskImage {
        self.world.station(self.bob).synced().clone()
    }

    /// Bob's disk is exchanged for an old copy of it, and he is switched on.
    fn put_back(&mut self, image: &DiskImage) {
        self.world.crash(self.bob);
        self.world.put_disk(self.bob, image.clone());
        self.world.start(self.bob);
    }

    fn sends(&self) -> Option<u32> {
        let machine = self.world.station(self.bob).terminal()?;
        machine
            .send_key(self.crew)
            .map(|key| key.generation().get())
    }

    fn talks(&mut self) {
        let mut speaker = self
            .world
            .speaker(self.bob, self.crew, 3)
            .expect("a member");
        let packet = self.world.speak(&mut speaker, b"speech").expect("he may");
        let heard = self.world.hear(self.alice, &packet);
        assert!(heard.is_ok(), "{heard:?}");
    }
}

/// W-13: yesterday's disk. It sends nothing before it has heard a beacon, and then with the present
/// key alone; the sessions that it used since are not used again.
#[test]
fn yesterdays_disk_is_brought_up_to_date_before_it_sends() {
    let mut fleet = Fleet::new();
    let image = fleet.copy();
    let mut sessions = HashSet::new();
    let mut sees = |fleet: &mut Fleet| {
        let speaker = fleet
            .world
            .speaker(fleet.bob, fleet.crew, 3)
            .expect("a member");
        assert!(sessions.insert(speaker.stream().session), "a session again");
    };
    for _ in 0..20 {
        fleet.wait(60 * 60);
        sees(&mut fleet);
    }
    let group = fleet.crew;
    fleet
        .world
        .order(Order::RenewGroup { group })
        .expect("it may be");
    fleet.wait(60);
    fleet.talks();
    let present = fleet.sends();
    for _ in 0..5 {
        fleet.put_back(&image);
        assert_eq!(fleet.sends(), None, "no beacon yet");
        for _ in 0..900 {
            fleet.world.run_for(Duration::from_millis(100));
            assert!(fleet.sends().is_none() || fleet.sends() == present);
        }
        assert_eq!(fleet.sends(), present);
        fleet.talks();
        sees(&mut fleet);
    }
    nothing_was_wrong(&fleet.world);
}

/// A disk from before the group went on to another epoch: it waits for the new key.
#[test]
fn a_disk_from_before_a_fresh_epoch_waits_for_it() {
    let mut fleet = Fleet::new();
    let image = fleet.copy();
    let group = fleet.crew;
    fleet
        .world
        .order(Order::RekeyGroup { group })
        .expect("it may be");
    fleet.wait(60);
    fleet.world.cut_link(fleet.bob, true);
    fleet.put_back(&image);
    let beacon = newest(&fleet.world, Class::Time);
    fleet.world.feed_frame(fleet.bob, &beacon);
    fleet.wait(1);
    assert_eq!(fleet.sends(), None, "the beacon names a newer epoch");
    fleet.world.cut_link(fleet.bob, false);
    fleet.wait(60);
    fleet.talks();
    nothing_was_wrong(&fleet.world);
}

/// Who keeps a copy of the disk from before DELETE has it deleted again; from before LOCK, locked
/// again; from before an exclusion, excluded again, with nothing of the new epoch.
#[test]
fn what_the_server_ordered_is_ordered_again_to_an_old_disk() {
    let mut fleet = Fleet::new();
    let image = fleet.copy();
    fleet
        .world
        .send_order(fleet.bob, OrderKind::Lock)
        .expect("it is signed");
    fleet.wait(60);
    fleet.put_back(&image);
    fleet.wait(120);
    let machine = fleet.world.station(fleet.bob).terminal().expect("it is on");
    assert_eq!(machine.state(), TerminalState::LockedByServer);

    fleet.world.exclude(&[fleet.bob]).expect("he may be");
    let excluded = fleet.world.frames().len();
    fleet.wait(60);
    fleet.put_back(&image);
    fleet.wait(120);
    let machine = fleet.world.station(fleet.bob).terminal().expect("it is on");
    assert!(machine.is_excluded(fleet.world.station(fleet.bob).number));
    let mut thief = fleet.world.steal(fleet.bob);
    let opened = thief.open(fleet.world.frames(), &[]);
    assert!(opened.frames.iter().all(|&place| place < excluded));

    for _ in 0..2 {
        fleet
            .world
            .send_order(fleet.bob, OrderKind::Delete)
            .expect("it is signed");
        fleet.put_back(&image);
        fleet.wait(120);
        let erasure = fleet.world.station(fleet.bob).erasure().expect("it obeyed");
        assert_eq!(erasure.cause, EraseCause::Delete);
    }
    nothing_was_wrong(&fleet.world);
}

/// R-068, W-12: yesterday's broadcasts, the deletion of the old enrolment among them, to the device
/// that was enrolled anew: nothing changes. The erased one hears nothing any more.
#[test]
fn yesterdays_broadcasts_do_nothing_to_a_terminal_that_was_enrolled_anew() {
    let mut fleet = Fleet::new();
    let group = fleet.crew;
    for _ in 0..4 {
        fleet.wait(900);
        fleet
            .world
            .order(Order::RenewGroup { group })
            .expect("it may be");
    }
    fleet
        .world
        .send_order(fleet.bob, OrderKind::Lock)
        .expect("it is signed");
    fleet
        .world
        .send_order(fleet.bob, OrderKind::Delete)
        .expect("it is signed");
    fleet.wait(120);
    assert!(fleet.world.station(fleet.bob).is_erased());
    let mut yesterday = fleet.world.frames().to_vec();
    let mut seen = HashSet::new();
    yesterday.retain(|frame| seen.insert(frame.octets.clone()));
    play(&mut fleet.world, fleet.bob, &yesterday);
    let stored = fleet.world.station(fleet.bob).synced().is_empty();
    assert!(stored && fleet.world.station(fleet.bob).is_erased());

    let anew = fleet.world.enrol("bob-again", LinkQuality::PERFECT);
    play(&mut fleet.world, anew, &yesterday);
    let terminal = fleet.world.station(anew).number;
    fleet
        .world
        .order(Order::AddMember { group, terminal })
        .expect("it may join");
    fleet.wait(86_400);
    assert_eq!(fleet.world.lag(anew), None);
    let machine = fleet.world.station(anew).terminal().expect("it is on");
    let (before, time) = (machine.groups(), machine.time());
    let stores = fleet.world.station(anew).stores();
    play(&mut fleet.world, anew, &yesterday);
    let machine = fleet.world.station(anew).terminal().expect("it is on");
    assert_eq!((machine.groups(), machine.time()), (before, time));
    assert_eq!(fleet.world.station(anew).stores(), stores);
    assert!(fleet.world.station(anew).erasure().is_none());
    fleet.bob = anew;
    fleet.talks();
    nothing_was_wrong(&fleet.world);
}

fn play(world: &mut World, id: StationId, tape: &[Captured]) {
    let mut tape = tape.to_vec();
    world.rng().shuffle(&mut tape);
    for frame in &tape {
        world.feed_frame(id, &frame.octets);
    }
    assert!(world.now() > Tick::default());
}

fn newest(world: &World, class: Class) -> Vec<u8> {
    let frame = world.frames().iter().rfind(|it| it.item.class() == class);
    frame.expect("there was one").octets.to_vec()
}
