//! Packet groups, addresses, and the records that come of them.

use core::net::SocketAddr;

use super::desk::{
    Desk, add, add_terminal, counting, create_group, exclude, group, remove, terminal,
};
use super::restoring::Copied;
use crate::command::{
    Body, Prefix, ProtectionRecord, RECORD_LIFE, RecordGroup, SignedRecord, UnverifiedRecord,
};
use crate::ids::Tick;
use crate::keys::EspSuite;
use crate::server::{
    AddressWish, Class, Done, Item, JournalEntry, KeySetDraft, Order, PacketSettings, PacketWish,
    Refusal,
};

pub(super) fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

/// Terminal `number` speaks for these.
pub(super) fn speaks(number: u32, prefixes: &[&str]) -> Order {
    Order::SetAddresses {
        terminal: terminal(number),
        wish: AddressWish {
            prefixes: Some(prefixes.iter().map(|text| prefix(text)).collect()),
            endpoints: None,
        },
    }
}

/// The group becomes a packet group with these networks.
pub(super) fn packets(number: u32, networks: &[&str]) -> Order {
    Order::SetPackets {
        group: group(number),
        wish: PacketWish {
            packets: Some(true),
            networks: Some(networks.iter().map(|text| prefix(text)).collect()),
            ..PacketWish::default()
        },
    }
}

fn record(desk: &Desk, number: u32) -> ProtectionRecord {
    let record = desk.server.protection_record(terminal(number));
    record.expect("it has one")
}

fn versions(desk: &Desk) -> Vec<Option<u32>> {
    let issue = |it: &crate::server::TerminalRecord| it.record.map(|issue| issue.version);
    desk.server.terminals().map(issue).collect()
}

/// What the carousel sent of records since the last look, read and verified.
fn sent(desk: &mut Desk) -> Vec<SignedRecord> {
    let keys = desk.server.fleet.keys.public();
    let frames = desk.sent.drain(..);
    let records = frames.filter(|(item, _)| item.class() == Class::Record);
    records
        .map(|(item, frame)| {
            let read = UnverifiedRecord::decode(&frame).expect("a record");
            let read = read.verify(&keys).expect("by the keys class");
            assert_eq!(item, Item::Record(read.record().terminal));
            read
        })
        .collect()
}

/// what is set is in the record, which is told at once and then at its pace.
#[test]
fn a_terminal_with_addresses_has_a_record_of_its_packet_groups() {
    let mut desk = Desk::with_group(3);
    desk.carry_out(create_group("media", &[1])).expect("free");
    desk.carry_out(packets(1, &["10.77.0.0/16"]))
        .expect("known");
    assert_eq!(versions(&desk), [None, None, None], "nobody has addresses");
    desk.carry_out(speaks(1, &["fd77::5/128", "10.77.0.5/32"]))
        .expect("known");
    let first = record(&desk, 1);
    assert_eq!(
        first.prefixes,
        [prefix("10.77.0.5/32"), prefix("fd77::5/128")]
    );
    let of_crew = RecordGroup {
        group: group(1),
        priority: 0,
        mtu: None,
        suite: EspSuite::default(),
        networks: vec![prefix("10.77.0.0/16")],
    };
    assert_eq!(
        first.groups,
        [of_crew],
        "the media group is no packet group"
    );
    assert_eq!(first.not_after, first.issued_at.plus(RECORD_LIFE));
    desk.sent.clear();
    desk.live(9);
    let told = sent(&mut desk);
    assert_eq!(told.len(), 5, "at 0, 1, 2, 4 and 8 s");
    assert!(told.iter().all(|it| *it.record() == first));
    desk.live(600);
    let again = sent(&mut desk).len();
    assert!((1..=3).contains(&again), "{again} at the slowest pace");
    // A setting of the group is another record of everyone in it who has one.
    let wish = PacketWish {
        priority: Some(9),
        mtu: Some(Some(1380)),
        suite: Some(EspSuite::ChaCha20Poly1305),
        ..PacketWish::default()
    };
    let set = Order::SetPackets {
        group: group(1),
        wish,
    };
    desk.carry_out(set).expect("it is a packet group");
    let second = record(&desk, 1);
    assert!(second.version > first.version);
    let of_crew = &second.groups[0];
    assert_eq!((of_crew.priority, of_crew.mtu), (9, Some(1380)));
    assert_eq!(of_crew.suite, EspSuite::ChaCha20Poly1305);
    assert_eq!(second.groups[0].networks, first.groups[0].networks);
    assert_eq!(versions(&desk)[1..], [None, None]);
    // Leaving, and coming back; the past members' records stand.
    desk.carry_out(remove(1, 1)).expect("a member");
    assert_eq!(record(&desk, 1).groups, []);
    desk.carry_out(add(1, 1)).expect("known");
    assert_eq!(record(&desk, 1).groups.len(), 1);
    // Who speaks for nothing any more says so.
    let before = record(&desk, 1).version;
    desk.carry_out(speaks(1, &[])).expect("known");
    let last = record(&desk, 1);
    assert_eq!((last.prefixes, last.groups), (vec![], vec![]));
    assert!(last.version > before);
}

/// FORMATS 8.1: KS is drawn with the epoch, constant over it, and travels with its key.
#[test]
fn a_packet_group_has_a_search_key_from_its_next_epoch_on() {
    let mut desk = Desk::with_group(2);
    let search_key = |desk: &Desk| {
        let key = desk.server.groups[&group(1)].search_key.as_ref();
        key.map(|key| *key.expose())
    };
    let epoch = |desk: &Desk| desk.server.groups[&group(1)].master.epoch();
    let before = epoch(&desk);
    assert_eq!(search_key(&desk), None);
    let done = desk.carry_out(packets(1, &[])).expect("known");
    let Done::PacketsSet {
        fresh: Some((fresh, _)),
        ..
    } = done
    else {
        panic!("{done:?}");
    };
    assert_eq!((epoch(&desk), before < fresh), (fresh, true));
    let first = search_key(&desk).expect("drawn");
    let in_dist = |desk: &mut Desk| {
        desk.sent.clear();
        desk.live(10);
        let wrap = desk.wrap(1);
        let mut heard = desk.heard().into_iter();
        heard.find_map(|(_, command)| match &command.body {
            Body::KeyDist(dist) => {
                let g = command.fleet_generation;
                let contents = dist.open(&wrap.duplicate().renew_to(g))?;
                Some(contents.search_key.map(|key| *key.expose()))
            }
            Body::Time(_)
            | Body::Renew(_)
            | Body::Order(_)
            | Body::Exclude(_)
            | Body::KeySet(_)
            | Body::Stop(_)
            | Body::Start(_)
            | Body::Notify(_) => None,
        })
    };
    assert_eq!(in_dist(&mut desk), Some(Some(first)));
    // A renewal keeps it, other settings too; a fresh epoch draws another.
    desk.carry_out(Order::RenewGroup { group: group(1) })
        .expect("in time");
    let done = desk.carry_out(packets(1, &["10.0.0.0/8"])).expect("known");
    assert!(matches!(done, Done::PacketsSet { fresh: None, .. }));
    assert_eq!(search_key(&desk), Some(first));
    desk.carry_out(Order::RekeyGroup { group: group(1) })
        .expect("known");
    let second = search_key(&desk).expect("drawn");
    assert_ne!(second, first);
    desk.carry_out(remove(1, 2)).expect("a member");
    assert_ne!(
        search_key(&desk),
        Some(second),
        "who leaves does not know it"
    );
    // No packet group any more: the key goes at once.
    let off = Order::SetPackets {
        group: group(1),
        wish: PacketWish {
            packets: Some(false),
            ..PacketWish::default()
        },
    };
    desk.carry_out(off).expect("known");
    assert_eq!(search_key(&desk), None);
    assert_eq!(in_dist(&mut desk), Some(None));
    // A packet group from the start.
    let mut made = create_group("net", &[1]);
    if let Order::CreateGroup { packets, .. } = &mut made {
        *packets = Some(PacketSettings::default());
    }
    desk.carry_out(made).expect("free");
    assert!(desk.server.groups[&group(2)].search_key.is_some());
}

/// Each refusal is one sentence, and nothing changes.
#[test]
fn what_no_record_can_say_is_refused_with_a_sentence() {
    let mut desk = Desk::with_group(3);
    desk.carry_out(packets(1, &[])).expect("known");
    desk.carry_out(speaks(1, &["10.77.1.0/24"])).expect("free");
    let before = desk.state();
    let refused = |desk: &mut Desk, order: Order| {
        let refusal = desk.carry_out(order).expect_err("refused");
        assert_eq!(desk.state(), before);
        refusal.to_string()
    };
    let many: Vec<_> = (0..9).map(|n| format!("10.{n}.0.0/16")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let overlap = "10.77.1.0/24 of terminal 1 and 10.77.1.0/28 of terminal 2 overlap";
    assert!(refused(&mut desk, speaks(2, &["10.77.1.0/28"])).starts_with(overlap));
    assert!(refused(&mut desk, speaks(1, &["10.0.0.0/8", "10.1.0.0/16"])).contains("overlap"));
    assert!(refused(&mut desk, speaks(2, &many)).contains("at most 8"));
    assert!(refused(&mut desk, packets(1, &many)).contains("at most 8 networks, not 9"));
    let endpoints = |wanted: &[&str]| Order::SetAddresses {
        terminal: terminal(2),
        wish: AddressWish {
            prefixes: None,
            endpoints: Some(wanted.iter().map(|it| it.parse().expect("one")).collect()),
        },
    };
    for bad in ["0.0.0.0:4500", "203.0.113.9:0", "[ff02::1]:4500"] {
        let bad: Vec<SocketAddr> = vec![bad.parse().expect("an address")];
        let order = Order::SetAddresses {
            terminal: terminal(2),
            wish: AddressWish {
                prefixes: None,
                endpoints: Some(bad),
            },
        };
        assert!(refused(&mut desk, order).contains("nobody can be heard at"));
    }
    let five = [
        "1.1.1.1:1",
        "1.1.1.1:2",
        "1.1.1.1:3",
        "1.1.1.1:4",
        "1.1.1.1:5",
    ];
    assert!(refused(&mut desk, endpoints(&five)).contains("at most 4 endpoints"));
    let wish = PacketWish {
        mtu: Some(Some(100)),
        ..PacketWish::default()
    };
    let set = |group, wish| Order::SetPackets { group, wish };
    assert!(refused(&mut desk, set(group(1), wish)).contains("576 to 9216"));
    // A terminal that is in no packet group may have the same addresses, and then may not join.
    let mut desk = Desk::with_group(3);
    desk.carry_out(packets(1, &[])).expect("known");
    desk.carry_out(speaks(1, &["10.77.1.0/24"])).expect("free");
    desk.carry_out(speaks(3, &["10.77.1.0/24"])).expect("apart");
    let joins = desk.carry_out(add(1, 3)).expect_err("overlaps");
    assert!(matches!(joins, Refusal::Overlapping { .. }), "{joins}");
    desk.carry_out(create_group("other", &[1, 3]))
        .expect("free");
    let wish = PacketWish {
        priority: Some(1),
        ..PacketWish::default()
    };
    let no_packets = desk.carry_out(set(group(2), wish)).expect_err("none");
    assert_eq!(no_packets, Refusal::NoPacketGroup);
    let overlaps = desk.carry_out(packets(2, &[])).expect_err("overlaps");
    assert!(matches!(overlaps, Refusal::Overlapping { .. }));
}

/// KR-562: a host closes itself to the networks that its record names, and sends to all others as every
/// host does; without networks it was closed only towards members that it had heard of.
#[test]
fn a_host_is_in_no_group_without_networks() {
    let wanted = Refusal::NoNetworks {
        group: group(1),
        terminal: terminal(1),
    };
    let (gateway, host) = (&["10.77.1.0/24"][..], &["10.77.1.7/32"][..]);
    // Whichever comes last: the group, the address, the member, or the end of the networks.
    let mut desk = Desk::with_group(2);
    desk.carry_out(speaks(1, host)).expect("free");
    let refused = desk.carry_out(packets(1, &[])).expect_err("a host");
    assert_eq!(refused, wanted);
    assert!(refused.to_string().contains("name them first"));
    desk.carry_out(speaks(1, gateway)).expect("free");
    desk.carry_out(packets(1, &[])).expect("a gateway");
    let refused = desk.carry_out(speaks(1, &["10.77.2.0/24", "fd77::7/128"]));
    assert_eq!(refused.expect_err("a host"), wanted);
    desk.carry_out(remove(1, 1)).expect("a member");
    desk.carry_out(speaks(1, host)).expect("apart");
    assert_eq!(desk.carry_out(add(1, 1)).expect_err("a host"), wanted);
    desk.carry_out(packets(1, &["10.77.0.0/16"])).expect("set");
    desk.carry_out(add(1, 1)).expect("free");
    let refused = desk.carry_out(packets(1, &[]));
    assert_eq!(refused.expect_err("a host"), wanted);
}

/// The record has to fit a probe.
#[test]
fn a_record_that_would_be_too_long_is_refused() {
    let mut desk = Desk::with_group(2);
    let own: Vec<_> = (0..8).map(|n| format!("fd77:{n}::/64")).collect();
    let own: Vec<_> = own.iter().map(String::as_str).collect();
    desk.carry_out(speaks(1, &own)).expect("free");
    let mut refused = None;
    for number in 1..=16 {
        if number > 1 {
            desk.carry_out(create_group(&format!("g{number}"), &[1]))
                .expect("free");
        }
        if let Err(refusal) = desk.carry_out(packets(number, &own)) {
            refused = Some((number, refusal));
            break;
        }
    }
    let (number, refusal) = refused.expect("not 16 times 8 networks");
    assert!(number > 1, "one group with everything fits");
    let sentence = refusal.to_string();
    assert!(sentence.contains("of at most 700"), "{sentence}");
    let octets = record(&desk, 1).frame_len();
    assert!(octets <= 700, "{octets}");
    // Sixteen groups without networks fit, and not one more.
    let mut desk = Desk::with_group(2);
    desk.carry_out(speaks(1, &["fd77::/64"])).expect("free");
    for number in 1..=17 {
        if number > 1 {
            desk.carry_out(create_group(&format!("g{number}"), &[1]))
                .expect("free");
        }
        let outcome = desk.carry_out(packets(number, &[])).map(drop);
        let expected = (number == 17).then(|| Refusal::TooManyPacketGroups(terminal(1)));
        assert_eq!(outcome.err(), expected, "{number}");
    }
}

/// KR-507: nobody is left without a record, and its version only rises.
#[test]
fn records_are_signed_again_before_they_end_and_by_new_keys_at_once() {
    let mut desk = Desk::with_group(2);
    desk.carry_out(packets(1, &["10.77.0.0/16"]))
        .expect("known");
    desk.carry_out(speaks(1, &["10.77.0.1/32"])).expect("free");
    let first = record(&desk, 1);
    let third = RECORD_LIFE / 3;
    while desk.at.wall < first.issued_at.plus(third + 120) {
        desk.wait(3600);
        desk.store();
    }
    let second = record(&desk, 1);
    assert!(second.version > first.version);
    assert!(second.issued_at >= first.issued_at.plus(third));
    let same = |one: &ProtectionRecord, two: &ProtectionRecord| {
        (&one.prefixes, &one.groups) == (&two.prefixes, &two.groups)
    };
    assert!(same(&first, &second));
    let frame = desk.key_set(KeySetDraft::default()).expect("drafted");
    desk.carry_out(Order::InstallKeys { frame })
        .expect("signed");
    let third = record(&desk, 1);
    assert!(third.version > second.version && same(&second, &third));
    desk.sent.clear();
    desk.live(700);
    assert!(!sent(&mut desk).is_empty(), "under the new key");
    // The same octets after a restart: nothing of it is drawn.
    let wall = desk.at.wall;
    let frame = |desk: &mut Desk| {
        desk.server
            .frame_of(Item::Record(terminal(1)), &mut counting())
    };
    let before = frame(&mut desk);
    let mut desk = desk.restarted(wall);
    desk.store();
    assert_eq!(frame(&mut desk), before);
}

/// nobody is told any more where somebody who is shut out is.
#[test]
fn the_record_of_an_excluded_terminal_is_sent_no_more() {
    let mut desk = Desk::with_group(2);
    desk.carry_out(packets(1, &["10.77.0.0/16"]))
        .expect("known");
    desk.carry_out(speaks(1, &["10.77.0.1/32"])).expect("free");
    desk.carry_out(exclude(&[1])).expect("known");
    assert_eq!(desk.server.protection_record(terminal(1)), None);
    desk.sent.clear();
    desk.live(700);
    assert_eq!(sent(&mut desk).len(), 0);
    // Its addresses are free for the device that takes its place.
    desk.carry_out(speaks(2, &["10.77.0.1/32"])).expect("free");
    let refused = desk.carry_out(speaks(1, &["10.77.0.9/32"]));
    assert!(matches!(refused, Err(Refusal::Excluded(_))));
}

/// A change that moves many records does not push other news aside: they begin a new round.
#[test]
fn many_changed_records_are_told_in_a_round_of_their_own() {
    let mut desk = Desk::with_group(2);
    let members: Vec<_> = (3..=100).collect();
    for number in &members {
        desk.carry_out(add_terminal(&format!("t{number}")))
            .expect("free");
        desk.carry_out(speaks(*number, &[&format!("10.77.0.{number}/32")]))
            .expect("free");
    }
    desk.carry_out(create_group("net", &members)).expect("free");
    desk.live(1200);
    desk.carry_out(packets(2, &["10.77.0.0/16"]))
        .expect("known");
    desk.sent.clear();
    desk.live(60);
    let told = sent(&mut desk);
    let changed = |it: &&SignedRecord| !it.record().groups.is_empty();
    let changed = told.iter().filter(changed).count();
    assert!(changed >= members.len(), "{changed} of {}", told.len());
    assert!(changed < 2 * members.len(), "each about once: {changed}");
}

/// FORMATS section 12: settings come back from the journal, and no version is given twice.
#[test]
fn a_restored_server_knows_the_settings_and_gives_no_version_again() {
    let mut lost = Desk::with_group(3);
    lost.carry_out(packets(1, &["10.76.0.0/16"]))
        .expect("known");
    lost.carry_out(speaks(1, &["10.77.0.1/32"])).expect("free");
    let copied = Copied::of(&lost);
    // Many in one second: versions run ahead of the clock.
    for n in 0..50 {
        lost.carry_out(speaks(1, &[&format!("10.77.1.{n}/32")]))
            .expect("free");
    }
    lost.carry_out(speaks(2, &["10.77.0.2/32"])).expect("free");
    lost.carry_out(packets(1, &["10.77.0.0/16"]))
        .expect("known");
    lost.carry_out(create_group("late", &[1])).expect("free");
    let journalled = lost.journal.iter().map(|(_, entry)| entry);
    let addresses = journalled.filter(|it| matches!(it, JournalEntry::Addresses { .. }));
    assert_eq!(addresses.count(), 52);
    let (desk, _) = copied.restored(&lost, None);
    for number in [1, 2] {
        let (then, now) = (record(&lost, number), record(&desk, number));
        assert!(
            now.version > then.version,
            "{} {}",
            now.version,
            then.version
        );
        assert_eq!((now.prefixes, now.groups), (then.prefixes, then.groups));
    }
    let known = &desk.server.groups[&group(1)];
    assert_eq!(known.packets, lost.server.groups[&group(1)].packets);
    // A group that became one after the copy has a search key again, with a fresh epoch.
    let mut lost = Desk::with_group(2);
    let copied = Copied::of(&lost);
    lost.carry_out(packets(1, &[])).expect("known");
    let (desk, done) = copied.restored(&lost, None);
    assert_eq!(done.fresh, 1);
    let (now, then) = (
        &desk.server.groups[&group(1)],
        &lost.server.groups[&group(1)],
    );
    assert!(now.search_key.is_some() && now.master.epoch() > then.master.epoch());
}

/// A group of ten thousand asks at once when its key is fresh: the keys go first.
#[test]
fn records_of_others_have_a_budget_for_each_second() {
    let mut desk = Desk::new();
    let mut sent = |seconds: u64, times: usize| -> usize {
        let now = Tick::from_secs(seconds);
        let desk = &mut desk.server.desk;
        (0..times).map(|_| desk.may_send_records(48, now)).sum()
    };
    assert_eq!(sent(5, 10), 480);
    assert_eq!(sent(5, 100), 2_000 - 480);
    assert_eq!(sent(5, 1), 0);
    assert_eq!(sent(6, 1), 48);
}

/// FORMATS section 12: what was no packet group any more when the server was lost is none again.
#[test]
fn a_restored_server_forgets_a_search_key_that_was_given_up() {
    let mut lost = Desk::with_group(2);
    lost.carry_out(packets(1, &[])).expect("known");
    let copied = Copied::of(&lost);
    let off = Order::SetPackets {
        group: group(1),
        wish: PacketWish {
            packets: Some(false),
            ..PacketWish::default()
        },
    };
    lost.carry_out(off).expect("known");
    let (desk, _) = copied.restored(&lost, None);
    let now = &desk.server.groups[&group(1)];
    assert!(now.packets.is_none() && now.search_key.is_none());
}
