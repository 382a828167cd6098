//! Which group protects a flow, and how it is found (REQUIREMENTS,
//!

use super::fixture::{Stated, terminal_number};
use super::net::{Net, address, group_of, number_of, outer, prefix, routed};
use crate::command::ClearList;
use crate::ids::Tick;
use crate::stats::DropReason;
use crate::terminal::{Event, Input, Order, Way};

/// The group and the peer of a way.
fn protects(way: Way) -> Option<(u32, u32)> {
    match way {
        Way::Protect { group, peer, .. } => Some((group.get(), peer.get())),
        Way::ProtectMulticast { .. } | Way::Searching | Way::Clear | Way::Drop(_) => None,
    }
}

/// Gateway 1 in groups 1 and 2, gateway 2 in 2 and 3: nothing is configured.
fn two() -> Net {
    Net::new(&[
        &[group_of(1, 0), group_of(2, 0)],
        &[group_of(2, 0), group_of(3, 0)],
    ])
}

/// the first example, over IPv4 and IPv6.
#[test]
fn a_search_finds_the_common_group_and_both_sides_keep_it() {
    let mut net = two();
    for (ce1, ce2) in [("10.1.0.5", "10.2.0.9"), ("fd77:1::5", "fd77:2::9")] {
        net.sent.clear();
        assert_eq!(net.path(1, ce1, ce2), Way::Searching);
        assert_eq!(protects(net.way(1, ce1, ce2)), Some((2, 2)));
        let [probe, answer] = &net.sent[..] else {
            panic!("one probe, one answer: {:?}", net.sent)
        };
        assert_eq!(probe.to.ip(), address(ce2), "towards CE2, not its gateway");
        assert_eq!(answer.to, outer(1));
        let found = Event::PathFound {
            source: address(ce1),
            destination: address(ce2),
        };
        assert!(net.events(1).contains(&found));
        assert_eq!(net.gate(2).unit.machine.paths().count(), 0, "nothing yet");
        // The first packet makes the way back, which needs no search.
        net.packet(2, 1, 2, ce1, ce2);
        let back = net.gate(2).unit.machine.paths().next().expect("entered");
        assert_eq!(
            (back.source, back.destination),
            (address(ce2), address(ce1))
        );
        assert_eq!(protects(net.way(2, ce2, ce1)), Some((2, 1)));
        assert_eq!(net.sent.len(), 2);
        net = two();
    }
}

/// who knows the other by its record sends no message at all.
#[test]
fn a_known_peer_needs_no_search() {
    let mut net = two();
    let mut record = net.gate(2).record.clone();
    record.endpoints = vec![outer(2)];
    let signed = record.signed_by(&net.fleet.record.keys);
    net.learn(1, signed).expect("newer than nothing");
    let way = net.path(1, "10.1.0.5", "10.2.0.9");
    let Way::Protect {
        group,
        peer,
        endpoint,
        until,
    } = way
    else {
        panic!("{way:?}")
    };
    assert_eq!((group.get(), peer.get(), endpoint), (2, 2, outer(2)));
    assert!(until > net.now);
    net.carry();
    assert!(net.sent.is_empty());
}

/// Underlay addresses come from configuration, too, and what was heard is better.
#[test]
fn a_peer_is_sent_to_where_it_was_heard_last() {
    let mut net = two();
    let signed = net.signed(2);
    net.learn(1, signed).expect("newer than nothing");
    let endpoint = |net: &mut Net| match net.path(1, "10.1.0.5", "10.2.0.9") {
        Way::Protect { endpoint, .. } => Some(endpoint),
        Way::ProtectMulticast { .. } | Way::Searching | Way::Clear | Way::Drop(_) => None,
    };
    let peer = terminal_number(2);
    let configured = Some(outer(77));
    let order = Order::PeerAt {
        peer,
        endpoint: configured,
    };
    net.gate(1).unit.feed(Input::Order(order));
    assert_eq!(endpoint(&mut net), configured);
    // It roams: a packet that opened says where it is.
    net.packet(1, 2, 2, "10.2.0.9", "10.1.0.5");
    assert_eq!(endpoint(&mut net), Some(outer(2)));
    assert!(net.events(1).contains(&Event::PeerChanged { peer }));
    // after an hour without a word of it, it is not relied on.
    for _ in 0..60 {
        net.now = net.now.plus(std::time::Duration::from_secs(60));
        let _ = endpoint(&mut net);
    }
    assert_eq!(endpoint(&mut net), configured);
}

/// priority, then the most specific network, then the lowest number.
#[test]
fn of_several_common_groups_the_rule_takes_one_on_both_sides() {
    let all = |n| group_of(n, 0);
    let cases: [(&[_], u32); 6] = [
        (&[all(1), all(2)], 1),
        (&[all(1), group_of(2, 9)], 2),
        (&[all(1), routed(2, 0, &["10.2.0.0/16"])], 2),
        (
            &[
                routed(1, 0, &["10.2.0.0/24"]),
                routed(2, 0, &["10.2.0.0/16"]),
            ],
            1,
        ),
        // What is routed elsewhere is not taken, whatever its priority.
        (&[routed(1, 200, &["10.9.0.0/16"]), all(2)], 2),
        // Where nothing else fits: the way back of what is routed the other way.
        (
            &[
                routed(1, 0, &["10.1.0.0/16"]),
                routed(2, 0, &["10.9.0.0/16"]),
            ],
            1,
        ),
    ];
    for (groups, expected) in cases {
        let mut net = Net::new(&[groups, groups]);
        let way = net.way(1, "10.1.0.5", "10.2.0.9");
        assert_eq!(protects(way), Some((expected, 2)), "{groups:?}");
        net.packet(2, 1, expected, "10.1.0.5", "10.2.0.9");
        let back = net.way(2, "10.2.0.9", "10.1.0.5");
        assert_eq!(protects(back), Some((expected, 1)), "{groups:?}");
        // The same by records alone.
        let mut known = Net::new(&[groups, groups]);
        let mut record = known.gate(2).record.clone();
        record.endpoints = vec![outer(2)];
        let signed = record.signed_by(&known.fleet.record.keys);
        known.learn(1, signed).expect("new");
        assert_eq!(
            protects(known.path(1, "10.1.0.5", "10.2.0.9")),
            Some((expected, 2))
        );
    }
}

/// What a group is comes from the record that was signed later, on both sides: a terminal that missed a
/// change of priorities still finds.
#[test]
fn records_of_different_age_give_one_group() {
    for older in [1, 2] {
        let groups = [group_of(1, 0), group_of(2, 0)];
        let mut net = Net::new(&[&groups, &groups]);
        net.restate(3 - older, |record| record.groups[1].priority = 5);
        assert_eq!(protects(net.way(1, "10.1.0.5", "10.2.0.9")), Some((2, 2)));
    }
}

/// One of two that know each other's records has missed another priority: its packet comes under the
/// old group, is dropped, and brings both together.
#[test]
fn who_missed_a_change_of_groups_is_found_by_the_packet_it_sends() {
    for missed in [1, 2] {
        let groups = [group_of(1, 0), group_of(2, 0)];
        let mut net = Net::new(&[&groups, &groups]);
        for (n, other) in [(1, 2), (2, 1)] {
            let signed = net.signed(other);
            net.learn(n, signed).expect("new");
        }
        let knows = 3 - missed;
        net.restate(knows, |record| record.groups[1].priority = 5);
        let ends = |n: u32| (format!("10.{n}.0.5"), format!("10.{}.0.5", 3 - n));
        let (source, destination) = ends(missed);
        net.packet(knows, missed, 1, &source, &destination);
        assert_eq!(net.drops(knows, DropReason::OtherGroup), 1);
        net.carry();
        for n in [1, 2] {
            let (source, destination) = ends(n);
            let way = net.way(n, &source, &destination);
            assert_eq!(protects(way), Some((2, 3 - n)), "{missed} missed it");
        }
        net.packet(knows, missed, 2, &source, &destination);
        assert_eq!(net.drops(knows, DropReason::OtherGroup), 1, "no more");
    }
}

/// one gateway in sixteen groups.
#[test]
fn sixteen_groups_at_once_fit_in_one_probe() {
    let every: Vec<_> = (1..=16).map(|n| group_of(n, 0)).collect();
    let mut members = vec![&every[..]];
    let singles: Vec<[_; 1]> = (1..=16).map(|n| [group_of(n, 0)]).collect();
    members.extend(singles.iter().map(|single| &single[..]));
    let mut net = Net::new(&members);
    for n in 1..=16 {
        let destination = format!("10.{}.0.1", n + 1);
        let way = net.way(1, "10.1.0.5", &destination);
        assert_eq!(protects(way), Some((n, n + 1)));
    }
    assert!(net.sent.iter().all(|parcel| parcel.datagram.len() <= 1200));
}

/// no common group and nobody there at all: the packet is dropped, the reason counted, and
/// not asked again for a while.
#[test]
fn without_a_common_group_or_an_answer_packets_are_dropped() {
    let mut net = Net::new(&[&[group_of(1, 0)], &[group_of(3, 0)]]);
    for destination in ["10.2.0.9", "10.99.0.1"] {
        net.sent.clear();
        let way = net.way(1, "10.1.0.5", destination);
        assert_eq!(way, Way::Drop(DropReason::NoAnswer));
        assert_eq!(net.sent.len(), 4, "four probes");
        let lost = Event::PathLost {
            source: address("10.1.0.5"),
            destination: address(destination),
            reason: DropReason::NoAnswer,
        };
        assert!(net.events(1).contains(&lost));
        for _ in 0..100 {
            let way = net.way(1, "10.1.0.5", destination);
            assert_eq!(way, Way::Drop(DropReason::NoAnswer));
        }
        assert_eq!(net.sent.len(), 4, "nothing more is asked");
        net.wait_millis(31_000);
        assert_eq!(net.path(1, "10.1.0.5", destination), Way::Searching);
        let again = net.way(1, "10.1.0.5", destination);
        assert_eq!(again, Way::Drop(DropReason::NoAnswer));
    }
    assert_eq!(net.drops(1, DropReason::NoAnswer), 4);
    assert!(net.drops(2, DropReason::NoCommonGroup) >= 4);
    // By its record it is known why.
    let signed = net.signed(2);
    net.learn(1, signed).expect("new");
    let way = net.way(1, "10.1.0.5", "10.2.0.9");
    assert_eq!(way, Way::Drop(DropReason::NoCommonGroup));
}

/// KR-555: gateway 3 is in the lesser group alone, gateway 4 in none of gateway 1's; the records of both
/// are the later ones, and name more specific prefixes for the same addresses.
#[test]
fn records_of_a_lesser_group_or_of_strangers_take_no_place() {
    let (better, lesser) = (group_of(1, 10), group_of(2, 0));
    let both = [better, lesser.clone()];
    let mut net = Net::new(&[&both, &both, &[lesser], &[group_of(9, 200)], &both]);
    for n in [2, 3, 4] {
        net.restate(n, |record| {
            record.endpoints = vec![outer(n)];
            if n > 2 {
                record.issued_at = record.issued_at.plus(n);
                record.prefixes = vec![prefix("10.2.0.0/24"), prefix("10.5.0.0/24")];
            }
        });
        let signed = net.signed(n);
        net.learn(1, signed).expect("new");
        let by_records = protects(net.path(1, "10.1.0.5", "10.2.0.9"));
        assert_eq!(by_records, Some((1, 2)), "with the record of {n}");
    }
    // Who is known in the lesser group alone serves where nobody better is known, and no stranger does.
    let way = net.path(1, "10.1.0.5", "10.5.0.9");
    assert_eq!(protects(way), Some((2, 3)));
    net.gate(1).unit.machine.forget_peers(&[terminal_number(3)]);
    for n in [3, 4] {
        net.gate(n).record.prefixes = vec![prefix("10.99.0.0/16")];
    }
    assert_eq!(net.path(1, "10.1.0.5", "10.5.0.9"), Way::Searching);
    assert_eq!(protects(net.way(1, "10.1.0.5", "10.5.0.9")), Some((1, 5)));
}

/// what cannot be sent, and why.
#[test]
fn every_outcome_without_a_search_has_its_reason() {
    let mut net = two();
    let outcomes = [
        ("10.9.0.5", "10.2.0.9", DropReason::SourceNotOurs),
        ("10.1.0.5", "10.1.0.6", DropReason::NoWayThere),
        ("10.1.0.5", "127.0.0.1", DropReason::NoWayThere),
        ("10.1.0.5", "255.255.255.255", DropReason::NoWayThere),
        ("fd77:1::5", "fe80::1", DropReason::NoWayThere),
        ("10.1.0.5", "239.1.2.3", DropReason::NoGroupThere),
    ];
    for (source, destination, reason) in outcomes {
        assert_eq!(net.path(1, source, destination), Way::Drop(reason));
    }
    net.now = Tick::from_secs(8 * 86_400);
    let way = net.path(1, "10.1.0.5", "10.2.0.9");
    assert_eq!(way, Way::Drop(DropReason::NoRecord), "its end is past");
    net.gate(1).unit.feed(Input::Lock);
    let way = net.path(1, "10.1.0.5", "10.2.0.9");
    assert_eq!(way, Way::Drop(DropReason::Locked));
}

/// once for all members.
#[test]
fn multicast_goes_to_the_group_that_it_is_routed_into() {
    let groups = [
        group_of(1, 9),
        routed(2, 0, &["239.0.0.0/8", "ff00::/8"]),
        routed(3, 0, &["239.7.0.0/16"]),
    ];
    let mut net = Net::new(&[&groups]);
    for (source, destination, group) in [
        ("10.1.0.5", "239.1.0.1", 2),
        ("10.1.0.5", "239.7.0.1", 3),
        ("fd77:1::5", "ff15::77", 2),
    ] {
        let way = net.path(1, source, destination);
        assert!(
            matches!(way, Way::ProtectMulticast { group: it, .. } if it.get() == group),
            "{way:?}"
        );
    }
}

/// idle for five minutes, an hour old, or another epoch.
#[test]
fn a_found_path_expires() {
    let seconds = std::time::Duration::from_secs;
    let found = |net: &mut Net| net.gate(1).unit.machine.paths().count();
    let mut net = two();
    assert!(protects(net.way(1, "10.1.0.5", "10.2.0.9")).is_some());
    assert_eq!(found(&mut net), 1);
    net.now = net.now.plus(seconds(301));
    net.carry();
    assert_eq!(found(&mut net), 0, "idle");
    assert!(protects(net.way(1, "10.1.0.5", "10.2.0.9")).is_some());
    let begun = net.now;
    while net.now < begun.plus(seconds(3500)) {
        net.now = net.now.plus(seconds(60));
        assert!(protects(net.path(1, "10.1.0.5", "10.2.0.9")).is_some());
    }
    net.now = begun.plus(seconds(3700));
    net.sent.clear();
    assert_eq!(
        net.path(1, "10.1.0.5", "10.2.0.9"),
        Way::Searching,
        "an hour old"
    );
    assert!(protects(net.way(1, "10.1.0.5", "10.2.0.9")).is_some());
    let _ = net.events(1);
    for n in [1, 2] {
        net.give_key(n, number_of(2), 8, 0);
    }
    assert_eq!(found(&mut net), 0, "another epoch");
    let lost = |event: &Event| matches!(event, Event::PathLost { .. });
    assert!(net.events(1).iter().any(lost));
}

/// a gateway that restarted knows nobody: a packet that opens makes it ask who that is, and
/// whoever searches for it finds it. Its own record and its search keys are durable.
#[test]
fn a_gateway_that_restarted_finds_and_is_found_again() {
    let mut net = two();
    assert!(protects(net.way(1, "10.1.0.5", "10.2.0.9")).is_some());
    net.packet(2, 1, 2, "10.1.0.5", "10.2.0.9");
    let mut unit = net.gate(2).unit.restarted();
    unit.now = net.now;
    unit.hear(&net.fleet.time(60));
    net.gate(2).unit = unit;
    assert!(
        net.gate(2)
            .unit
            .machine
            .record_of(terminal_number(1))
            .is_none()
    );
    net.packet(2, 1, 2, "10.1.0.5", "10.2.0.9");
    assert_eq!(net.drops(2, DropReason::UnknownPeer), 1);
    net.carry();
    assert!(
        net.gate(2)
            .unit
            .machine
            .record_of(terminal_number(1))
            .is_some()
    );
    assert_eq!(protects(net.path(2, "10.2.0.9", "10.1.0.5")), Some((2, 1)));
    // The other one restarts and simply searches.
    let unit = net.gate(1).unit.restarted();
    net.gate(1).unit = unit;
    net.gate(1).unit.reseed(99);
    assert_eq!(protects(net.way(1, "10.1.0.5", "10.2.0.9")), Some((2, 2)));
}

/// KR-540: clear text is what the root's list says, before and after anything was heard.
#[test]
fn only_the_clear_list_lets_a_packet_go_as_it_is() {
    let mut net = two();
    let frame = net.fleet.next_key_set(1, |key_set| {
        let listed = [prefix("198.51.100.0/24"), prefix("2001:db8::/32")];
        key_set.limits.clear = ClearList::new(&listed).expect("two");
    });
    assert_eq!(net.path(1, "10.1.0.5", "198.51.100.7"), Way::Searching);
    net.gate(1).unit.hear(&frame);
    for destination in ["198.51.100.7", "198.51.100.255"] {
        assert_eq!(net.path(1, "10.1.0.5", destination), Way::Clear);
    }
    assert_eq!(net.path(1, "fd77:1::5", "2001:db8::1"), Way::Clear);
    assert_eq!(net.path(1, "10.1.0.5", "198.51.101.7"), Way::Searching);
    // Somebody's record does not take it off the list, nor does a lock.
    net.restate(2, |record| {
        record.prefixes = vec![prefix("198.51.100.0/24")]
    });
    let signed = net.signed(2);
    net.learn(1, signed).expect("newer");
    assert_eq!(net.path(1, "10.1.0.5", "198.51.100.7"), Way::Clear);
    net.gate(1).unit.feed(Input::Lock);
    assert_eq!(net.path(1, "10.1.0.5", "198.51.100.7"), Way::Clear);
}

/// The most specific prefix speaks; of two the later record.
#[test]
fn the_most_specific_and_then_the_newest_record_speaks() {
    let groups = [group_of(1, 0)];
    let mut net = Net::new(&[&groups, &groups, &groups]);
    for n in [2, 3] {
        net.restate(n, |record| record.endpoints = vec![outer(n)]);
        let signed = net.signed(n);
        net.learn(1, signed).expect("new");
    }
    let peer = |net: &mut Net, to| protects(net.path(1, "10.1.0.5", to)).map(|(_, peer)| peer);
    assert_eq!(peer(&mut net, "10.2.9.9"), Some(2));
    net.restate(3, |record| {
        record.prefixes = vec![prefix("10.2.9.0/24"), prefix("10.3.0.0/16")];
    });
    let signed = net.signed(3);
    net.learn(1, signed).expect("newer");
    assert_eq!(peer(&mut net, "10.2.9.9"), Some(3));
    assert_eq!(peer(&mut net, "10.2.8.9"), Some(2));
    // The subnet moves back: gateway 2's record is the later one.
    net.restate(2, |record| {
        record.prefixes = vec![prefix("10.2.9.0/24")];
        record.issued_at = record.issued_at.plus(9);
    });
    let signed = net.signed(2);
    net.learn(1, signed).expect("newer");
    assert_eq!(peer(&mut net, "10.2.9.9"), Some(2));
}

/// nobody sends to, answers or believes an excluded terminal.
#[test]
fn an_excluded_peer_is_forgotten_at_once() {
    let mut net = two();
    assert!(protects(net.way(1, "10.1.0.5", "10.2.0.9")).is_some());
    let stated = Stated::at(1, 0);
    let exclude = net.fleet.exclude(&[2], None, stated);
    net.gate(1).unit.hear(&exclude);
    net.gate(1).unit.store_all();
    assert!(
        net.gate(1)
            .unit
            .machine
            .record_of(terminal_number(2))
            .is_none()
    );
    assert_eq!(
        net.way(1, "10.1.0.5", "10.2.0.9"),
        Way::Drop(DropReason::NoAnswer)
    );
    assert!(net.drops(1, DropReason::ExcludedSender) >= 1, "its answers");
    let signed = net.signed(2);
    assert_eq!(net.learn(1, signed), Err(DropReason::ExcludedSender));
}

/// both end at the newer generation, whichever side lags.
#[test]
fn a_generation_gap_that_a_search_shows_is_closed() {
    for (one, two) in [(0, 3), (3, 0)] {
        let groups = [group_of(1, 0)];
        let mut net = Net::new(&[&groups, &groups]);
        for (n, generation) in [(1, one), (2, two)] {
            if generation > 0 {
                net.give_key(n, number_of(1), 7, generation);
            }
        }
        assert!(protects(net.way(1, "10.1.0.5", "10.2.0.9")).is_some());
        assert_eq!((net.generation(1, 1), net.generation(2, 1)), (3, 3));
    }
}

/// and no further than the ceiling; the path is found all the same.
#[test]
fn a_gap_above_the_ceiling_moves_nobody() {
    let groups = [group_of(1, 0)];
    let mut net = Net::new(&[&groups, &groups]);
    // Terminal 1 was told of generation 100; the other has heard of 0.
    net.give_key(1, number_of(1), 7, 100);
    assert!(protects(net.way(1, "10.1.0.5", "10.2.0.9")).is_some());
    assert_eq!((net.generation(1, 1), net.generation(2, 1)), (100, 0));
    assert_eq!(net.drops(2, DropReason::AboveCeiling), 1);
}

/// FORMATS 8.1: the fleet's root lists who may sign records.
#[test]
fn a_record_that_no_keys_key_signed_is_not_believed() {
    let mut net = two();
    // Gateway 2 presents a record that the beat key signed.
    let mut record = net.gate(2).record.clone();
    record.version += 1;
    let forged = record.signed_by(&net.fleet.record.beat);
    net.learn(2, forged).expect("the test forces it in");
    let way = net.way(1, "10.1.0.5", "10.2.0.9");
    assert_eq!(way, Way::Drop(DropReason::NoAnswer));
    assert!(net.drops(1, DropReason::WrongClass) >= 1);
    assert!(
        net.gate(1)
            .unit
            .machine
            .record_of(terminal_number(2))
            .is_none()
    );
}
