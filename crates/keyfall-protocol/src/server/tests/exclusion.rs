//! Exclusion: nothing that is made later is for those who are shut out (DESIGN section 11,
//! invariant 6; REQUIREMENTS R-007; FORMATS sections 2.3 and 5.3).

use std::collections::BTreeSet;
use std::time::Duration;

use super::desk::{
    Desk, FOUNDED, add, add_terminal, counting, create_group, exclude, group, opens, remove,
    terminal,
};
use crate::command::{Body, Command, EXCLUDED_MAX, Exclude, FRESH_EPOCHS_MAX, FreshEpoch, Target};
use crate::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick, UnixSeconds};
use crate::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use crate::schedule::{Cadence, Schedule};
use crate::server::{
    Addresses, Done, Founding, GroupRecord, Item, KeySetDraft, Moment, Order, Refusal, Statement,
    TerminalRecord,
};

/// Five terminals; groups of 1 2 3, of 2 4, and of 4 5.
fn desk() -> Desk {
    let mut desk = Desk::new();
    for n in 1..=5 {
        desk.carry_out(add_terminal(&format!("t{n}")))
            .expect("free");
    }
    for (name, members) in [
        ("one", &[1, 2, 3][..]),
        ("two", &[2, 4]),
        ("three", &[4, 5]),
    ] {
        desk.carry_out(create_group(name, members)).expect("free");
    }
    desk
}

fn excludes(heard: &[(Item, Command)]) -> Vec<&Exclude> {
    heard
        .iter()
        .filter_map(|(_, command)| match &command.body {
            Body::Exclude(exclude) => Some(exclude),
            Body::Time(_)
            | Body::Renew(_)
            | Body::KeyDist(_)
            | Body::Order(_)
            | Body::KeySet(_)
            | Body::Stop(_)
            | Body::Start(_)
            | Body::Notify(_) => None,
        })
        .collect()
}

#[test]
fn whoever_is_excluded_opens_nothing_that_is_made_later() {
    let mut desk = desk();
    let gone = [desk.wrap(2), desk.wrap(3)];
    let stays = desk.wrap(1);
    let count = |desk: &mut Desk, wrap: &WrapKey| {
        let dists = desk.heard();
        let mut opened = 0;
        for (_, command) in &dists {
            if let Body::KeyDist(dist) = &command.body {
                opened += usize::from(opens(wrap, command, dist));
            }
        }
        opened
    };
    desk.live(31);
    let frames = desk.sent.clone();
    for wrap in &gone {
        desk.sent.clone_from(&frames);
        assert!(count(&mut desk, wrap) > 0, "the control");
    }
    desk.carry_out(exclude(&[3, 2, 3])).expect("they are there");
    // Whatever comes then.
    let orders = [
        Order::RenewGroup { group: group(1) },
        Order::RekeyGroup { group: group(2) },
        Order::RenewDevices,
        Order::RenewDevice {
            terminal: terminal(1),
        },
        add(1, 5),
        remove(1, 5),
        create_group("four", &[1, 4]),
        exclude(&[5]),
    ];
    for order in orders {
        desk.carry_out(order).expect("it may be");
        desk.live(31);
    }
    let wall = desk.at.wall;
    let mut desk = desk.restarted(wall);
    desk.store();
    desk.live(3700);
    let frames = desk.sent.clone();
    for wrap in &gone {
        desk.sent.clone_from(&frames);
        assert_eq!(count(&mut desk, wrap), 0);
    }
    desk.sent = frames;
    assert!(count(&mut desk, &stays) > 10, "the control");
    // And no order makes it otherwise.
    let refused = [
        add(1, 2),
        create_group("five", &[1, 3]),
        Order::RenewDevice {
            terminal: terminal(2),
        },
        exclude(&[1, 2]),
    ];
    for order in refused {
        let outcome = desk.carry_out(order);
        assert!(matches!(outcome, Err(Refusal::Excluded(_))), "{outcome:?}");
    }
    let Ok(Done::Terminal { number, .. }) = desk.carry_out(add_terminal("t6")) else {
        panic!("enrolled");
    };
    assert_eq!(number, terminal(6), "no number comes again");
}

/// FORMATS section 5.3: EXCLUDE first, active at once; section 11: at 0, 1, 2, 4, 8 s, then at its
/// pace.
#[test]
fn an_exclusion_is_told_at_once_and_goes_before_the_keys() {
    let mut desk = desk();
    desk.live(100);
    desk.sent.clear();
    let wall = desk.at.wall;
    let before: Vec<KeyEpoch> = desk.server.groups().map(|it| it.master.epoch()).collect();
    let Ok(Done::Excluded { groups, reach, .. }) = desk.carry_out(exclude(&[2])) else {
        panic!("carried out");
    };
    let started = desk.at.now;
    let (mut heard, mut times) = (Vec::new(), Vec::new());
    for _ in 0..950 {
        desk.live(0);
        desk.at.now = desk.at.now.plus(Duration::from_millis(100));
        let passed = desk.at.now.since(started).as_millis();
        desk.at.wall = wall.plus(u32::try_from(passed / 1000).expect("short"));
        for (item, command) in desk.heard() {
            if item == Item::Exclude(1, 0) {
                times.push((passed - 100) / 1000);
            }
            if matches!(item, Item::Exclude(..) | Item::Dist(..)) {
                heard.push((item, command));
            }
        }
    }
    assert_eq!(heard[0].0, Item::Exclude(1, 0));
    assert_eq!(heard[0].1.target, Target::All);
    let exclude = excludes(&heard)[0].clone();
    assert_eq!(exclude.terminals, [terminal(2)]);
    assert_eq!(exclude.groups, groups);
    let fresh = |place: usize| FreshEpoch {
        group: group(place as u32 + 1),
        old: before[place],
        new: desk.server.groups[&group(place as u32 + 1)].master.epoch(),
    };
    assert_eq!(groups, [fresh(0), fresh(1)], "not the third");
    assert!(groups.iter().all(|it| it.new > it.old));
    assert_eq!((reach.groups, reach.members, reach.frames), (2, 3, 3));
    for group in desk.server.groups().take(2) {
        assert_eq!(group.master.generation(), Generation::ZERO);
        assert!(group.schedule.activate_at <= wall, "no lead");
    }
    assert_eq!(times, [0, 1, 2, 4, 8, 30, 60, 90]);
}

/// The command line's `--dry-run` says what the order then does.
#[test]
fn the_reach_is_what_is_sent() {
    let mut desk = Desk::new();
    let members: Vec<u32> = (1..=60).collect();
    for n in &members {
        desk.carry_out(add_terminal(&format!("t{n}")))
            .expect("free");
    }
    desk.carry_out(create_group("all", &members)).expect("free");
    desk.carry_out(create_group("few", &[3, 7])).expect("free");
    let named = [terminal(3), terminal(9)];
    let reach = desk.server.reach(&named, &mut counting()).expect("known");
    assert_eq!((reach.groups, reach.members), (2, 58));
    desk.live(40);
    desk.sent.clear();
    desk.carry_out(exclude(&[3, 9])).expect("known");
    desk.live(40);
    let ours = |item: &Item| matches!(item, Item::Exclude(..) | Item::Dist(..));
    let frames: BTreeSet<_> = desk.sent.iter().filter(|(item, _)| ours(item)).collect();
    assert_eq!(frames.len() as u64, reach.frames);
    let octets: usize = frames.iter().map(|(_, frame)| frame.len()).sum();
    assert_eq!(octets as u64, reach.octets);
    let bits = (reach.octets + 28 * reach.frames) * 8;
    assert_eq!(reach.link_time.as_millis(), u128::from(bits / 1000));
    let refused = desk.server.reach(&named, &mut counting());
    assert_eq!(refused, Err(Refusal::Excluded(terminal(3))));
}

/// FORMATS sections 2.3 and 2.5: 64 terminals and many groups, at the largest numbers, are several
/// frames, each with all terminals.
#[test]
fn an_exclusion_of_64_in_many_groups_fits_in_frames_at_the_largest_numbers() {
    const GROUPS: u32 = 100;
    let filled = || Secret::init_with(|into| into.fill(7));
    let epoch = KeyEpoch::new(u32::MAX - 9);
    let top = Generation::MAX;
    let number = |n: u32| TerminalNumber::new(TerminalNumber::MAX.get() - n).expect("24 bits");
    let terminals = (0..100).map(|n| TerminalRecord {
        number: number(n),
        name: format!("t{n}"),
        obey: ObeyKey::new(number(n), filled()),
        wrap: WrapKey::new(number(n), top, filled()),
        added_at: FOUNDED,
        package_expires: FOUNDED,
        wipe_roots: Vec::new(),
        token: None,
        mixed_at: None,
        legacy_key: None,
        addresses: Addresses::default(),
        record: None,
        excluded_at: None,
        memberships: Vec::new(),
        orders: Vec::new(),
    });
    let groups = (0..GROUPS).map(|n| {
        let number_of = GroupNumber::new(GroupNumber::MAX.get() - n).expect("30 bits");
        let schedule = Schedule {
            generation: top,
            activate_at: UnixSeconds::new(u32::MAX),
            cadence: Cadence::new(64, u32::MAX),
        };
        GroupRecord {
            number: number_of,
            name: format!("g{n}"),
            members: (0..100).map(number).collect(),
            master: MasterKey::new(number_of, epoch, top, filled()),
            schedule,
            lease: u32::MAX,
            policy: Default::default(),
            packets: None,
            search_key: None,
            statements: vec![Statement {
                stated_at: FOUNDED,
                epoch,
                schedule,
            }],
        }
    });
    let mut desk = Desk::new();
    desk.server.fleet.fleet_generation = top;
    desk.server.ticked = top;
    desk.server.sequence = crate::ids::SequenceNumber::new(u64::MAX - 1_000_000);
    desk.server.fleet.sequence_reserved = desk.server.sequence;
    for terminal in terminals {
        desk.server.list_terminal(terminal);
    }
    for group in groups {
        desk.server.list_group(group);
    }
    let named: Vec<u32> = (0..64).map(|n| number(n).get()).collect();
    let outcome = desk.carry_out(exclude(&named));
    assert!(outcome.is_ok(), "{outcome:?}");
    desk.live(40);
    // No frame is too long, which `heard` checks.
    let heard = desk.heard();
    let mut said = BTreeSet::new();
    for exclude in excludes(&heard) {
        assert_eq!(exclude.terminals.len(), EXCLUDED_MAX);
        assert!(exclude.groups.len() <= FRESH_EPOCHS_MAX);
        said.extend(exclude.groups.iter().map(|fresh| fresh.group));
    }
    assert_eq!(said.len(), GROUPS as usize);
    let parts: BTreeSet<_> = heard
        .iter()
        .filter(|(item, _)| matches!(item, Item::Exclude(..)))
        .map(|(item, _)| *item)
        .collect();
    assert_eq!(parts.len(), (GROUPS as usize).div_ceil(FRESH_EPOCHS_MAX));
}

/// FORMATS section 2.3: terminals accept 256 a day, so the server orders no more.
#[test]
fn no_more_are_excluded_in_a_day_than_terminals_accept() {
    let mut desk = Desk::new();
    for n in 1..=257 {
        desk.carry_out(add_terminal(&format!("t{n}")))
            .expect("free");
    }
    for block in 0..4 {
        let named: Vec<u32> = (1 + block * 64..65 + block * 64).collect();
        desk.carry_out(exclude(&named)).expect("known");
    }
    let refused = desk.carry_out(exclude(&[257]));
    assert!(
        matches!(refused, Err(Refusal::ExcludedTooMany(257))),
        "{refused:?}"
    );
    desk.at = Moment {
        now: desk.at.now.plus(Duration::from_secs(86_400)),
        wall: desk.at.wall.plus(86_400),
    };
    assert!(desk.carry_out(exclude(&[257])).is_ok());
}

/// It stands until every terminal that missed it has wiped itself, through restarts, and again when
/// a stolen key makes terminals doubt it.
#[test]
fn an_exclusion_stands_until_the_dead_mans_time_has_passed() {
    let founding = Founding {
        bits_per_second: 100_000,
        ..Founding::default()
    };
    let mut desk = Desk::founded(founding);
    for name in ["a", "b"] {
        desk.carry_out(add_terminal(name)).expect("free");
    }
    desk.carry_out(exclude(&[1])).expect("known");
    let limits = desk.server.fleet.key_set.limits;
    let end = desk
        .at
        .wall
        .plus(limits.longest_lease)
        .plus(limits.dead_man);
    let stands = |mut desk: Desk, wall: UnixSeconds| {
        desk.at.now = Tick::default();
        let mut desk = desk.restarted(wall);
        desk.store();
        desk.sent.clear();
        desk.live(31);
        let stood = !excludes(&desk.heard()).is_empty();
        (desk, stood)
    };
    let (mut desk, stood) = stands(desk, UnixSeconds::new(end.get() - 40 * 86_400));
    assert!(stood);
    let frame = desk.key_set(KeySetDraft::default()).expect("free");
    desk.carry_out(Order::InstallKeys { frame })
        .expect("signed");
    let (desk, stood) = stands(desk, UnixSeconds::new(end.get() - 14 * 86_400));
    assert!(stood);
    let (mut desk, stood) = stands(desk, end.plus(1));
    assert!(!stood);
    // All online keys have ended meanwhile; the next KEYSET says that one was stolen.
    let stolen = vec![desk.server.fleet.keys.public().name()];
    let draft = KeySetDraft {
        stolen,
        ..KeySetDraft::default()
    };
    let frame = desk.key_set(draft).expect("listed");
    desk.carry_out(Order::InstallKeys { frame })
        .expect("signed");
    desk.sent.clear();
    desk.live(31);
    let again = desk
        .sent
        .iter()
        .find(|(item, _)| *item == Item::Exclude(1, 0));
    let read = crate::command::Unverified::decode(&again.expect("again").1).expect("ours");
    assert_eq!(read.signer(), desk.server.fleet.keys.public().name());
}

/// Whoever is left can be joined; nothing is distributed to nobody.
#[test]
fn a_group_whose_members_are_all_excluded_stays_and_can_be_joined() {
    let mut desk = desk();
    desk.carry_out(exclude(&[2, 4])).expect("known");
    desk.live(9);
    desk.sent.clear();
    desk.live(61);
    let of_two = |item: &Item| matches!(item, Item::Dist(of, _) if *of == group(2));
    assert!(!desk.sent.iter().any(|(item, _)| of_two(item)));
    let renewed = Item::Group(group(2));
    assert!(desk.sent.iter().any(|(item, _)| *item == renewed));
    desk.carry_out(add(2, 5)).expect("it is there");
    desk.sent.clear();
    desk.live(31);
    assert!(desk.sent.iter().any(|(item, _)| of_two(item)));
}
