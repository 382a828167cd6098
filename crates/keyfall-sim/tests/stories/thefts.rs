//! What a thief reads of the past (DESIGN section 11, invariant 7; REQUIREMENTS R-002, T-01, W-05;
//! FORMATS section 3.1), and what a stranger reads at all.

use std::time::Duration;

use keyfall_protocol::DropReason;
use keyfall_protocol::ids::{GroupNumber, Tick};
use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::{Class, Founding};
use keyfall_sim::{Captured, CapturedPacket, Config, LinkQuality, StationId, Thief, World};

use crate::nothing_was_wrong;

/// Seconds: rank-1 period, master period, keep time, grace.
const PERIOD: u64 = 600;
const MASTER: u64 = 400;
const KEEP: u64 = 120;
const GRACE: u64 = 30;
/// A terminal's clock is behind the server's by less than this.
const SLACK: u64 = 2;

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
            founding: Founding {
                fleet_period: PERIOD as u32,
                keep_time: KEEP as u32,
                ..Founding::default()
            },
            ..Config::default()
        };
        let mut world = World::new(7, config);
        let [alice, bob, carol] =
            ["alice", "bob", "carol"].map(|name| world.enrol(name, LinkQuality::PERFECT));
        let crew = world.create_group("crew", &[alice, bob], Cadence::new(1, MASTER as u32));
        world.run_for(Duration::from_secs(12));
        Self {
            world,
            alice,
            bob,
            carol,
            crew,
        }
    }

    /// Alice speaks every five seconds; bob hears all but every seventh, which only the tape has.
    fn talk_for(&mut self, seconds: u64) {
        let mut speaker = self
            .world
            .speaker(self.alice, self.crew, 1)
            .expect("a member");
        for n in 0..seconds / 5 {
            let packet = self.world.speak(&mut speaker, b"speech").expect("she may");
            if n % 7 != 0 {
                self.world.hear(self.bob, &packet).expect("he is current");
            }
            assert!(self.world.hear(self.carol, &packet).is_err());
            self.world.run_for(Duration::from_secs(5));
        }
    }

    fn tapes(&self) -> (Vec<Captured>, Vec<CapturedPacket>) {
        (self.world.frames().to_vec(), self.world.packets().to_vec())
    }

    /// Which distributions on tape the stolen machine itself opens.
    fn machine_opens(&mut self, id: StationId, frames: &[Captured]) -> Vec<usize> {
        let not_addressed = |world: &World| {
            let machine = world.station(id).terminal().expect("it is on");
            machine.drops().of(DropReason::NotAddressed)
        };
        Thief::play_to(frames, |frame| {
            let before = not_addressed(&self.world);
            self.world.feed_frame(id, &frame.octets);
            not_addressed(&self.world) == before
        })
    }
}

fn seconds(span: Duration) -> u64 {
    span.as_secs()
}

/// The end of the generation that a packet is under: when the last packet under it was sent.
fn ended(packets: &[CapturedPacket], packet: &CapturedPacket) -> Tick {
    packets
        .iter()
        .filter(|other| (other.epoch, other.generation) == (packet.epoch, packet.generation))
        .map(|other| other.at)
        .max()
        .unwrap_or(packet.at)
}

/// Invariant 7 and its positive controls, at moments all around the ticks of G and of the group.
#[test]
fn a_terminal_stolen_now_opens_nothing_from_before_the_exposure() {
    let mut fleet = Fleet::new();
    fleet.talk_for(3600);
    for wait in [1, 60, 61, 118, 5, 30, 31, 170, 20, 100, 299, 3] {
        fleet.world.run_for(Duration::from_secs(wait));
        fleet.talk_for(5);
        let now = fleet.world.now();
        let (frames, packets) = fleet.tapes();
        let mut thief = fleet.world.steal(fleet.bob);

        // Without distributions on tape: the present generation and the grace.
        let opened = thief.open(&[], &packets);
        for &place in &opened.packets {
            let age = now.since(ended(&packets, &packets[place]));
            let held = packets[place].generation >= packets[packets.len() - 1].generation;
            assert!(held || seconds(age) <= GRACE + 5 + SLACK, "{age:?}");
        }
        assert!(opened.packets.contains(&(packets.len() - 1)));

        // With them: what the rank-1 keys of that time opened.
        let opened = thief.open(&frames, &packets);
        for &place in &opened.frames {
            let age = now.since(frames[place].at);
            assert!(seconds(age) <= PERIOD + KEEP + SLACK, "{age:?}");
        }
        for &place in &opened.packets {
            let age = now.since(ended(&packets, &packets[place]));
            assert!(
                seconds(age) <= (PERIOD + KEEP).max(GRACE) + SLACK,
                "{age:?}"
            );
        }
        // The positive controls: the newest distribution and every packet of its generation.
        let newest = frames
            .iter()
            .rposition(|frame| frame.item.class() == Class::KeyDist);
        assert!(opened.frames.contains(&newest.expect("there are some")));
        let lost_to_the_thief = packets.len() - opened.packets.len();
        assert!(lost_to_the_thief > packets.len() / 2, "most stays closed");

        // A second opinion: the machine itself opens these distributions and no others.
        let by_machine = fleet.machine_opens(fleet.bob, &frames);
        assert_eq!(by_machine, opened.frames);
    }
    nothing_was_wrong(&fleet.world);
}

/// The stolen machine opens no packet of an ended generation that it never heard, with keys or
/// with what it had derived from them.
#[test]
fn a_stolen_machine_plays_no_tape_of_ended_generations() {
    let mut fleet = Fleet::new();
    fleet.talk_for(2400);
    fleet.world.run_for(Duration::from_secs(GRACE + 1));
    let (_, packets) = fleet.tapes();
    let newest = packets.last().expect("she spoke").generation;
    let mut unheard = 0;
    for packet in packets.iter().filter(|packet| packet.generation < newest) {
        match fleet.world.hear(fleet.bob, packet) {
            Ok(_) => panic!("generation {} opened", packet.generation),
            Err(DropReason::OlderGeneration) => unheard += 1,
            Err(reason) => assert!(
                matches!(reason, DropReason::Replayed | DropReason::TrialBudget),
                "{reason}"
            ),
        }
    }
    assert!(unheard > 20, "{unheard}");
}

/// W-01, said in FORMATS and shown: a chain heals nothing. Who has an early state has all that
/// follows, and so the tests above are not vacuous.
#[test]
fn an_early_state_opens_everything_that_follows() {
    let mut fleet = Fleet::new();
    let enrolled = fleet.world.station(fleet.bob).synced().clone();
    fleet.talk_for(1800);
    let (frames, packets) = fleet.tapes();
    let mut thief = Thief::default();
    thief.take_disk(&enrolled).expect("a snapshot");
    let opened = thief.open(&frames, &packets);
    assert_eq!(opened.packets.len(), packets.len());
    let distributions = frames
        .iter()
        .filter(|frame| frame.item.class() == Class::KeyDist);
    assert_eq!(opened.frames.len(), distributions.count());
}

/// carol hears everything, with everything she ever had, and opens nothing; what is
/// for others leaves her state as it was.
#[test]
fn a_stranger_hears_everything_and_opens_nothing() {
    let mut fleet = Fleet::new();
    let enrolled = fleet.world.station(fleet.carol).synced().clone();
    fleet.talk_for(1800);
    let (frames, packets) = fleet.tapes();
    let mut thief = fleet.world.steal(fleet.carol);
    thief.take_disk(&enrolled).expect("a snapshot");
    let opened = thief.open(&frames, &packets);
    assert_eq!((opened.frames.len(), opened.packets.len()), (0, 0));

    let stores = fleet.world.station(fleet.carol).stores();
    let snapshot = fleet.world.station(fleet.carol).newest_image().clone();
    let told = fleet.world.station(fleet.carol).told().len();
    let mut played = 0;
    for frame in frames
        .iter()
        .filter(|frame| frame.item.class() == Class::KeyDist)
    {
        fleet.world.feed_frame(fleet.carol, &frame.octets);
        played += 1;
    }
    let carol = fleet.world.station(fleet.carol);
    assert!(played > 50, "{played}");
    assert_eq!(carol.stores(), stores);
    assert_eq!(*carol.newest_image(), snapshot);
    assert_eq!(carol.told().len(), told);
    let machine = carol.terminal().expect("it is on");
    assert!(machine.groups().is_empty());
    assert!(machine.drops().of(DropReason::NotAddressed) >= 2 * played);
    nothing_was_wrong(&fleet.world);
}

/// What cannot be helped, said and shown: who is off cannot wipe, so a terminal that is stolen while
/// it is off is one stolen at the moment when it was last on. With a passphrase its disk opens
/// nothing.
#[test]
fn a_terminal_stolen_while_it_is_off_is_one_stolen_when_it_was_last_on() {
    let mut fleet = Fleet::new();
    fleet.talk_for(3600);
    let off = fleet.world.now();
    let image = fleet.world.station(fleet.bob).synced().clone();
    fleet.world.cut_link(fleet.bob, true);
    fleet.talk_for(2400);
    let (frames, packets) = fleet.tapes();

    let mut thief = Thief::default();
    thief.take_disk(&image).expect("an image");
    let opened = thief.open(&frames, &packets);
    let bound = Duration::from_secs((PERIOD + KEEP).max(GRACE) + SLACK);
    for &place in &opened.packets {
        assert!(off.since(ended(&packets, &packets[place])) <= bound);
    }
    let since = |place: &&usize| packets[**place].at >= off;
    assert_eq!(opened.packets.iter().filter(since).count(), 2400 / 5);

    let mut thief = Thief::default();
    thief.take_disk(&image.device_only()).expect("an image");
    assert!(thief.open(&frames, &packets).is_nothing());
}
