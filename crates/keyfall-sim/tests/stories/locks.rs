//! What a locked terminal gives away, and what it obeys (REQUIREMENTS to
//! R-068, T-04, A-18, A-19; FORMATS section 9, "Compartments").

use std::time::Duration;

use keyfall_protocol::DropReason;
use keyfall_protocol::command::OrderKind;
use keyfall_protocol::ids::GroupNumber;
use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::{Done, Order, Refusal};
use keyfall_protocol::terminal::{EraseCause, TerminalState};
use keyfall_sim::{Config, LinkQuality, StationId, Thief, World};

use crate::{all_are_current, nothing_was_wrong, quickly_renewed};

/// Alice and bob talk; bob has a passphrase, carol has none.
struct Fleet {
    world: World,
    alice: StationId,
    bob: StationId,
    carol: StationId,
    crew: GroupNumber,
}

impl Fleet {
    fn new() -> Self {
        let config = Config {
            founding: quickly_renewed(),
            ..Config::default()
        };
        let mut world = World::new(38, config);
        let [alice, bob, carol] =
            ["alice", "bob", "carol"].map(|name| world.enrol(name, LinkQuality::PERFECT));
        let crew = world.create_group("crew", &[alice, bob, carol], Cadence::new(1, 600));
        world.set_passphrase(bob);
        world.run_for(Duration::from_secs(30));
        all_are_current(&world);
        let mut fleet = Self {
            world,
            alice,
            bob,
            carol,
            crew,
        };
        fleet.talk();
        fleet
    }

    fn talk(&mut self) {
        let mut speaker = self
            .world
            .speaker(self.alice, self.crew, 1)
            .expect("a member");
        for _ in 0..5 {
            self.world.speak(&mut speaker, b"speech").expect("she may");
            self.world.run_for(Duration::from_secs(2));
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.world.run_for(Duration::from_secs(seconds));
    }

    fn state(&self, id: StationId) -> TerminalState {
        let machine = self.world.station(id).terminal().expect("it is on");
        machine.state()
    }
}

/// The disk of a locked terminal, with every recording, opens nothing; the same disk with the
/// passphrase does, so the test would see it.
#[test]
fn the_copied_disk_of_a_locked_terminal_opens_no_standing_distribution() {
    let mut fleet = Fleet::new();
    fleet.world.lock(fleet.bob);
    assert_eq!(fleet.state(fleet.bob), TerminalState::Locked);
    fleet.talk();
    let image = fleet.world.station(fleet.bob).synced().clone();
    // Taken while it is on, and after a reboot.
    let mut thief = fleet.world.steal(fleet.bob);
    fleet.world.crash(fleet.bob);
    fleet.world.start(fleet.bob);
    assert_eq!(fleet.state(fleet.bob), TerminalState::Locked);
    thief.join(&fleet.world.steal(fleet.bob));
    fleet.wait(700);
    fleet.talk();
    thief.join(&fleet.world.steal(fleet.bob));
    let (frames, packets) = (fleet.world.frames(), fleet.world.packets());
    assert!(thief.open(frames, packets).is_nothing());

    let mut owner = Thief::default();
    owner.take_disk(&image).expect("an image");
    let opened = owner.open(frames, packets);
    assert!(!opened.frames.is_empty() && !opened.packets.is_empty());
    nothing_was_wrong(&fleet.world);
}

/// Stolen, locked and rebooted it still obeys DELETE, and leaves a receipt that proves it.
#[test]
fn a_locked_stolen_rebooted_terminal_obeys_delete_and_proves_it() {
    let mut fleet = Fleet::new();
    fleet.world.lock(fleet.bob);
    fleet.wait(20);
    fleet.world.crash(fleet.bob);
    let done = fleet.world.send_order(fleet.bob, OrderKind::Delete);
    assert!(matches!(done, Ok(Done::Issued { .. })), "{done:?}");
    fleet.wait(3600);
    fleet.world.start(fleet.bob);
    fleet.wait(120);
    assert!(fleet.world.station(fleet.bob).is_erased());
    let erasure = fleet.world.station(fleet.bob).erasure().expect("it obeyed");
    assert_eq!(
        (erasure.cause, erasure.everything),
        (EraseCause::Delete, false)
    );
    assert!(fleet.world.station(fleet.bob).synced().is_empty());
    let receipt = fleet.world.receipt(fleet.bob).expect("it was wanted");
    let proved = fleet.world.order(Order::Receipt { receipt });
    assert!(matches!(proved, Ok(Done::Proved { .. })), "{proved:?}");
    let again = fleet.world.order(Order::Receipt { receipt });
    assert!(
        matches!(again, Err(Refusal::AlreadyProved { .. })),
        "{again:?}"
    );
    // Nobody else was touched.
    for id in [fleet.alice, fleet.carol] {
        assert_eq!(fleet.world.lag(id), None);
        assert!(fleet.world.station(id).erasure().is_none());
    }
    let mut thief = fleet.world.steal(fleet.bob);
    let opened = thief.open(fleet.world.frames(), fleet.world.packets());
    assert!(opened.is_nothing() && opened.orders.is_empty());
    nothing_was_wrong(&fleet.world);
}

/// INIT takes everything, from the terminal that it names and from no other.
#[test]
fn initialize_takes_everything_from_one_terminal() {
    let mut fleet = Fleet::new();
    fleet
        .world
        .send_order(fleet.carol, OrderKind::Init)
        .expect("it is signed");
    fleet.wait(30);
    let erasure = fleet
        .world
        .station(fleet.carol)
        .erasure()
        .expect("it obeyed");
    assert_eq!(
        (erasure.cause, erasure.everything),
        (EraseCause::Init, true)
    );
    for id in [fleet.alice, fleet.bob] {
        assert!(fleet.world.station(id).erasure().is_none());
        assert_eq!(fleet.world.lag(id), None);
    }
    nothing_was_wrong(&fleet.world);
}

/// LOCK closes the user compartment, also of a terminal that the machine opens by itself, through
/// power cuts, until a newer UNLOCK; what happened meanwhile is made up.
#[test]
fn a_lock_holds_through_power_cuts_until_it_is_taken_back() {
    let mut fleet = Fleet::new();
    for id in [fleet.bob, fleet.carol] {
        fleet
            .world
            .send_order(id, OrderKind::Lock)
            .expect("it is signed");
    }
    fleet.wait(20);
    for _ in 0..3 {
        for id in [fleet.bob, fleet.carol] {
            assert_eq!(fleet.state(id), TerminalState::LockedByServer);
            fleet.world.unlock(id);
            assert_eq!(
                fleet.state(id),
                TerminalState::LockedByServer,
                "no passphrase helps"
            );
            fleet.world.crash(id);
            fleet.world.start(id);
        }
        fleet.wait(5);
    }
    // Meanwhile: renewals, an exclusion, a fresh epoch.
    let group = fleet.crew;
    fleet
        .world
        .order(Order::RenewGroup { group })
        .expect("it may be");
    fleet.world.exclude(&[fleet.alice]).expect("she may be");
    fleet.wait(1300);
    for id in [fleet.bob, fleet.carol] {
        fleet
            .world
            .send_order(id, OrderKind::Unlock)
            .expect("it is signed");
    }
    fleet.wait(20);
    assert_eq!(
        fleet.state(fleet.carol),
        TerminalState::Ready,
        "by the machine"
    );
    assert_eq!(fleet.state(fleet.bob), TerminalState::Locked, "by its user");
    fleet.world.unlock(fleet.bob);
    fleet.wait(60);
    for id in [fleet.bob, fleet.carol] {
        assert_eq!(fleet.world.lag(id), None);
        let machine = fleet.world.station(id).terminal().expect("it is on");
        assert!(machine.send_key(group).is_some());
        let alice = fleet.world.station(fleet.alice).number;
        assert!(machine.is_excluded(alice), "heard while it was locked");
    }
    nothing_was_wrong(&fleet.world);
}

/// The user's own lock: nothing is heard or said, and after it everything is as if it had not been.
#[test]
fn what_happens_behind_a_users_lock_is_made_up() {
    let mut fleet = Fleet::new();
    let mut speaker = fleet
        .world
        .speaker(fleet.alice, fleet.crew, 2)
        .expect("a member");
    fleet.world.lock(fleet.bob);
    let packet = fleet.world.speak(&mut speaker, b"speech").expect("she may");
    assert_eq!(
        fleet.world.hear(fleet.bob, &packet),
        Err(DropReason::Locked)
    );
    let group = fleet.crew;
    for _ in 0..5 {
        fleet
            .world
            .order(Order::RenewGroup { group })
            .expect("it may be");
        fleet.wait(400);
    }
    // No frame but those heard behind the lock.
    fleet.world.cut_link(fleet.bob, true);
    fleet.world.unlock(fleet.bob);
    fleet.wait(1);
    assert_eq!(fleet.world.lag(fleet.bob), None, "by its notes alone");
    let packet = fleet.world.speak(&mut speaker, b"speech").expect("she may");
    assert!(fleet.world.hear(fleet.bob, &packet).is_ok());
    nothing_was_wrong(&fleet.world);
}

/// the case is opened, locked or not: everything is gone before anybody reads it.
#[test]
fn a_tampered_terminal_is_empty() {
    let mut fleet = Fleet::new();
    fleet.world.lock(fleet.bob);
    for id in [fleet.bob, fleet.carol] {
        fleet.world.tamper(id);
        fleet.wait(1);
        let cause = fleet.world.station(id).erasure().map(|it| it.cause);
        assert_eq!(cause, Some(EraseCause::Tamper));
        let mut thief = fleet.world.steal(id);
        let opened = thief.open(fleet.world.frames(), fleet.world.packets());
        assert!(opened.is_nothing());
    }
    nothing_was_wrong(&fleet.world);
}
