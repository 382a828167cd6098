//! Terminals that are on for minutes, off for weeks, or hear nothing any more (REQUIREMENTS R-053,
//! A-13, W-03, W-10; FORMATS sections 9 and 10).

use std::time::Duration;

use keyfall_protocol::DropReason;
use keyfall_protocol::command::{Body, Command, Limits, SigningKey, Target, Time};
use keyfall_protocol::ids::{GroupNumber, SequenceNumber, UnixSeconds};
use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::{Class, Item, KeySetDraft};
use keyfall_protocol::terminal::EraseCause;
use keyfall_sim::{Config, LinkQuality, StationId, World};

use crate::nothing_was_wrong;

const DAY: u64 = 86_400;

/// everything renews every hour, three pairs of terminals are on for five minutes a day, each
/// at its own time, and their links lose a tenth. Each day both are current before their window
/// ends, and talk in it. Next month's online keys reach them in such a window, too.
#[test]
fn terminals_on_for_five_minutes_a_day_keep_up_with_hourly_renewal() {
    let days = if cfg!(debug_assertions) { 2 } else { 30 };
    let config = Config {
        capture: false,
        ..Config::default()
    };
    let mut world = World::new(53, config);
    let stations: Vec<_> = (0..6)
        .map(|n| world.enrol(&format!("terminal-{n}"), LinkQuality::lossy(100)))
        .collect();
    let hourly = Cadence::new(1, 3600);
    let groups: Vec<_> = stations
        .chunks(2)
        .enumerate()
        .map(|(n, pair)| world.create_group(&format!("pair-{n}"), pair, hourly))
        .collect();
    let all = world.create_group("all", &stations, hourly);
    world.run_for(Duration::from_secs(60));
    stations.iter().for_each(|&id| world.crash(id));
    for day in 1..=days {
        if day == 20 {
            world
                .sign_keys(KeySetDraft::default())
                .expect("the root does");
        }
        for (n, pair) in stations.chunks(2).enumerate() {
            let at = DAY * day + 17_713 * n as u64 + 1931 * day % 7200;
            world.run_until(keyfall_protocol::ids::Tick::from_secs(at));
            pair.iter().for_each(|&id| world.start(id));
            let until = world.now().plus(Duration::from_secs(300));
            let current = (0..60).any(|_| {
                world.run_for(Duration::from_secs(5));
                let ready = |id| world.lag(id).is_none() && sends(&world, id, all);
                pair.iter().all(|&id| ready(id))
            });
            let lag = pair.iter().find_map(|&id| world.lag(id));
            assert!(current && world.now() <= until, "day {day}: {lag:?}");
            for group in [groups[n], all] {
                talks(&mut world, pair[0], pair[1], group);
                talks(&mut world, pair[1], pair[0], group);
            }
            world.run_until(until);
            pair.iter().for_each(|&id| world.crash(id));
        }
    }
    nothing_was_wrong(&world);
}

/// One says a word and the other hears it.
fn talks(world: &mut World, from: StationId, to: StationId, group: GroupNumber) {
    let mut speaker = world.speaker(from, group, 1).expect("it is current");
    let packet = world.speak(&mut speaker, b"speech").expect("it may send");
    let heard = world.hear(to, &packet);
    assert!(heard.is_ok(), "{heard:?}");
}

fn sends(world: &World, id: StationId, group: GroupNumber) -> bool {
    let machine = world.station(id).terminal();
    machine.is_some_and(|machine| machine.send_key(group).is_some())
}

fn two(limits: Limits) -> (World, StationId, StationId, GroupNumber) {
    let config = Config {
        limits,
        ..Config::default()
    };
    let mut world = World::new(54, config);
    let alice = world.enrol("alice", LinkQuality::PERFECT);
    let bob = world.enrol("bob", LinkQuality::PERFECT);
    let crew = world.create_group("crew", &[alice, bob], Cadence::new(1, 3600));
    world.run_for(Duration::from_secs(60));
    talks(&mut world, alice, bob, crew);
    (world, alice, bob, crew)
}

fn newest(world: &World, class: Class) -> Vec<u8> {
    let frame = world.frames().iter().rfind(|it| it.item.class() == class);
    frame.expect("there was one").octets.to_vec()
}

/// A month off, past every lease: with the time alone it neither sends nor receives; the next
/// statement of the group makes it whole.
#[test]
fn a_terminal_off_past_its_lease_does_nothing_until_a_statement_extends_it() {
    let (mut world, alice, bob, crew) = two(Limits::default());
    world.crash(bob);
    world.crash(alice);
    world.crash_server();
    world.run_for(Duration::from_secs(29 * DAY));
    world.start_server();
    world.start(alice);
    world.run_for(Duration::from_secs(70));
    world.cut_link(bob, true);
    world.start(bob);
    let machine = world.station(bob).terminal().expect("it is on");
    assert!(machine.send_key(crew).is_none(), "no beacon yet");
    let beacon = newest(&world, Class::Time);
    world.feed_frame(bob, &beacon);
    world.run_for(Duration::from_secs(1));
    let mut speaker = world.speaker(alice, crew, 9).expect("a member");
    let packet = world.speak(&mut speaker, b"speech").expect("she may");
    assert_eq!(world.hear(bob, &packet), Err(DropReason::LeaseOver));
    let machine = world.station(bob).terminal().expect("it is on");
    assert_eq!(machine.why_not_sending(crew), DropReason::LeaseOver);

    let renew = world
        .frames()
        .iter()
        .rfind(|frame| frame.item == Item::Group(crew))
        .map(|frame| frame.octets.to_vec())
        .expect("it is on the carousel");
    world.feed_frame(bob, &renew);
    world.run_for(Duration::from_secs(1));
    assert!(world.hear(bob, &packet).is_ok());
    talks(&mut world, bob, alice, crew);
    nothing_was_wrong(&world);
}

/// FORMATS section 9: the fresh epoch that comes when the life of the old one ends reaches terminals
/// that only hear, with no order and no word of theirs.
#[test]
fn terminals_that_only_hear_follow_into_the_next_epoch() {
    let config = Config {
        epoch_life: 6 * 3_600,
        ..Config::default()
    };
    let mut world = World::new(55, config);
    let [alice, bob] = ["alice", "bob"].map(|name| world.enrol(name, LinkQuality::PERFECT));
    let crew = world.create_group("crew", &[alice, bob], Cadence::new(1, 3600));
    let epoch = |world: &World, id| {
        let machine = world.station(id).terminal().expect("it is on");
        machine.send_key(crew).map(|key| key.epoch())
    };
    world.run_for(Duration::from_secs(5 * 3_600));
    let first = epoch(&world, alice);
    assert!(first.is_some());
    world.run_for(Duration::from_secs(2 * 3_600));
    let second = epoch(&world, alice);
    assert!(second > first);
    assert_eq!(epoch(&world, bob), second);
    talks(&mut world, bob, alice, crew);
    nothing_was_wrong(&world);
}

/// W-03: a terminal that is jammed stops at the end of its lease and wipes itself at lease end +
/// dead man's time, counted in powered-on time, and not before. Powered-on time is charged a minute
/// ahead, and each boot costs a minute.
#[test]
fn a_jammed_terminal_wipes_itself_at_lease_end_and_dead_mans_time_and_not_before() {
    let limits = Limits {
        longest_lease: 6 * 3600,
        dead_man: 2 * DAY as u32,
        ..Limits::default()
    };
    let (mut world, _, bob, crew) = two(limits);
    world.run_for(Duration::from_secs(3600));
    world.cut_link(bob, true);
    let machine = world.station(bob).terminal().expect("it is on");
    let lease_end = machine.groups()[0].lease_end.expect("it has a lease");
    let wiped_at = machine.wipes_itself_at();
    assert_eq!(wiped_at, lease_end.plus(limits.dead_man));

    let until =
        |world: &World, at: UnixSeconds| Duration::from_secs(u64::from(at.since(world.wall())));
    // Powered-on time is charged up to a minute ahead.
    world.run_for(until(&world, lease_end) - Duration::from_secs(120));
    assert!(sends(&world, bob, crew));
    world.run_for(Duration::from_secs(125));
    assert!(!sends(&world, bob, crew), "its lease is over");
    world.run_for(until(&world, wiped_at) - Duration::from_secs(120));
    assert!(world.station(bob).erasure().is_none(), "not before");
    world.run_for(Duration::from_secs(125));
    let erasure = world.station(bob).erasure().expect("not later");
    assert_eq!(
        (erasure.cause, erasure.everything),
        (EraseCause::DeadMan, false)
    );
    assert!(world.station(bob).is_erased());
    assert!(
        world
            .steal(bob)
            .open(world.frames(), world.packets())
            .is_nothing()
    );
    nothing_was_wrong(&world);
}

/// The same for one that is switched on for minutes only: cutting its power gains nothing.
#[test]
fn power_cuts_do_not_put_the_dead_mans_time_off() {
    let limits = Limits {
        longest_lease: 3600,
        dead_man: 3600,
        ..Limits::default()
    };
    let (mut world, _, bob, _) = two(limits);
    world.cut_link(bob, true);
    world.crash_server();
    let mut on = Duration::ZERO;
    while world.station(bob).erasure().is_none() {
        world.run_for(Duration::from_secs(50));
        on += Duration::from_secs(50);
        assert!(on <= Duration::from_secs(7200), "{on:?} powered on");
        world.crash(bob);
        world.run_for(Duration::from_secs(1000));
        world.start(bob);
        world.run_for(Duration::from_millis(100));
    }
    nothing_was_wrong(&world);
}

/// Off past lease and dead man's time, and the root has spoken since: it is told so and wipes itself
/// before it does anything else.
#[test]
fn a_terminal_off_past_the_dead_mans_time_wipes_itself_when_the_root_says_how_late_it_is() {
    let (mut world, alice, bob, _) = two(Limits::default());
    world.crash(bob);
    world.crash(alice);
    for _ in 0..2 {
        world.crash_server();
        world.run_for(Duration::from_secs(20 * DAY));
        world.start_server();
        world.run_for(Duration::from_secs(1));
        world
            .sign_keys(KeySetDraft::default())
            .expect("the root does");
    }
    world.run_for(Duration::from_secs(60));
    world.start(bob);
    world.run_for(Duration::from_secs(60));
    let erasure = world.station(bob).erasure().expect("at once");
    assert_eq!(erasure.cause, EraseCause::DeadMan);
    nothing_was_wrong(&world);
}

/// W-10: a thief with the beat key pushes the time as far as it goes. Leases end; nobody is wiped;
/// the next KEYSET, which drops the key, makes everybody whole.
#[test]
fn a_stolen_beat_key_that_pushes_time_wipes_nobody() {
    let limits = Limits {
        longest_lease: 3600,
        dead_man: 3600,
        ..Limits::default()
    };
    let (mut world, alice, bob, crew) = two(limits);
    let fleet = world.server().expect("it runs").fleet();
    let beat = SigningKey::from_seed(fleet.beat.seed().duplicate());
    let last = fleet
        .key_set
        .key(beat.public().name())
        .expect("listed")
        .expires;
    for id in [alice, bob] {
        // Powered on, ten minutes at the most; after a power cut, to the key's own end.
        world.feed_frame(id, &beacon(&world, &beat, UnixSeconds::new(u32::MAX)));
        world.feed_frame(id, &beacon(&world, &beat, last));
        let machine = world.station(id).terminal().expect("it is on");
        assert!(machine.time() <= Some(world.wall()), "powered on: refused");
        world.cut_link(id, true);
        world.crash(id);
        world.start(id);
        world.feed_frame(id, &beacon(&world, &beat, UnixSeconds::new(u32::MAX)));
        world.feed_frame(id, &beacon(&world, &beat, last));
        world.run_for(Duration::from_secs(5));
        let machine = world.station(id).terminal().expect("it is on");
        assert!(machine.time() >= Some(last), "pushed to the key's own end");
        assert!(
            machine.send_key(crew).is_none(),
            "the lease is over by that"
        );
    }
    world.run_for(Duration::from_secs(600));
    for id in [alice, bob] {
        assert!(world.station(id).erasure().is_none(), "nobody is wiped");
        world.cut_link(id, false);
    }
    let stolen = vec![beat.public().name()];
    world
        .sign_keys(KeySetDraft {
            stolen,
            ..KeySetDraft::default()
        })
        .expect("the root does");
    world.run_for(Duration::from_secs(90));
    talks(&mut world, alice, bob, crew);
    talks(&mut world, bob, alice, crew);
    for id in [alice, bob] {
        assert_eq!(world.lag(id), None);
        let machine = world.station(id).terminal().expect("it is on");
        let time = machine.time().expect("beacons are heard");
        assert!(time.since(world.wall()) <= 2 && world.wall().since(time) <= 2);
    }
    nothing_was_wrong(&world);
}

fn beacon(world: &World, beat: &SigningKey, seconds: UnixSeconds) -> Vec<u8> {
    let fleet = world.server().expect("it runs").fleet();
    let expires = fleet
        .key_set
        .key(beat.public().name())
        .expect("listed")
        .expires;
    let issued_at = world.wall().max(seconds).min(expires);
    beat.sign(&Command {
        stream: fleet.stream,
        sequence: SequenceNumber::new(7),
        issued_at,
        not_after: issued_at.plus(3600),
        target: Target::All,
        body: Body::Time(Time {
            seconds,
            max_error_ms: 0,
            floors: Vec::new(),
        }),
        fleet_generation: fleet.fleet_generation,
    })
}
