//! Key search under attack (REQUIREMENTS W-06, W-21, W-23; the list). The attacker sees and
//! moves every datagram; what he has beside is said in each test.

use core::net::SocketAddr;

use super::driven::Driven;
use super::fixture::{generation, terminal_number};
use super::net::{Net, Parcel, address, group_of, number_of, outer, prefix, routed, search_key_of};
use crate::ids::KeyEpoch;
use crate::search::message::{Answer, Probe, ProbeHash, Question, SearchMessage};
use crate::stats::DropReason;
use crate::terminal::{Input, PacketFrom, PathCounts, Way, may_deliver};

const CE1: &str = "10.1.0.5";
const CE2: &str = "10.2.0.9";

/// Two members of one group, and a search whose probe and answer were seen and not delivered.
struct Seen {
    net: Net,
    probe: Parcel,
    answer: Parcel,
}

impl Seen {
    fn new() -> Self {
        let groups = [group_of(1, 0)];
        Self::of(Net::new(&[&groups, &groups, &groups]))
    }

    fn of(mut net: Net) -> Self {
        assert_eq!(net.path(1, CE1, CE2), Way::Searching);
        let probe = net.only_probe();
        net.arrive_at(2, &probe);
        let answer = net.collect().pop_front().expect("an answer");
        Self { net, probe, answer }
    }

    /// What gateway 1 makes of a datagram that is said to come from `from`.
    fn tell(&mut self, from: SocketAddr, datagram: Vec<u8>) {
        let to = outer(1);
        let parcel = Parcel { from, to, datagram };
        self.net.arrive_at(1, &parcel);
    }

    /// The genuine answer still ends the search.
    fn ends_well(mut self) {
        assert!(self.net.gate(1).unit.machine.paths().next().is_none());
        assert_eq!(self.net.gate(1).unit.machine.searches().count(), 1);
        let answer = self.answer.clone();
        self.net.arrive_at(1, &answer);
        let way = self.net.path(1, CE1, CE2);
        assert!(matches!(way, Way::Protect { .. }), "{way:?}");
    }
}

impl Net {
    /// Feeds the timers of gateway 1, and takes the probe that leaves.
    fn only_probe(&mut self) -> Parcel {
        self.gate(1).unit.feed(Input::Timeout);
        let mut parcels = self.collect();
        assert_eq!(parcels.len(), 1);
        parcels.pop_front().expect("one")
    }
}

/// The dead silence that strangers hear: nothing to send, nothing to store, nothing learned.
fn is_silent(unit: &mut Driven, before: PathCounts) -> bool {
    let sent = (unit.probes.len(), unit.answers.len(), unit.to_peers.len());
    sent == (0, 0, 0) && unit.asked.is_empty() && unit.machine.path_counts() == before
}

/// W-06: each octet of an answer counts; what is wrong changes nothing and ends no search.
#[test]
fn a_forged_answer_is_not_believed_and_ends_no_search() {
    let mut seen = Seen::new();
    for place in 0..seen.answer.datagram.len() {
        let mut forged = seen.answer.datagram.clone();
        forged[place] ^= 1;
        seen.tell(outer(2), forged);
    }
    // Somebody who does not know the search key, with everything else right.
    let Ok(SearchMessage::Probe(probe)) = SearchMessage::decode(&seen.probe.datagram) else {
        panic!("a probe")
    };
    let record = seen.net.signed(2);
    let question = Question {
        probe: ProbeHash::of(&seen.probe.datagram),
        source: probe.source,
        destination: probe.destination,
    };
    let stranger = search_key_of(number_of(9), 7);
    let forged = Answer::make(
        &stranger,
        &probe,
        &question,
        (terminal_number(2), record.frame()),
        [7; 16],
        (KeyEpoch::new(7), generation(0)),
    );
    let forged = forged.encode();
    seen.tell(outer(2), forged);
    assert!(seen.net.drops(1, DropReason::SearchForged) > 60);
    assert_eq!(seen.net.gate(1).unit.machine.path_counts().peers, 0);
    seen.ends_well();
}

/// W-06: an answer belongs to one probe.
#[test]
fn a_replayed_answer_answers_nothing() {
    let mut seen = Seen::new();
    let old = seen.answer.datagram.clone();
    seen.tell(outer(2), old.clone());
    assert!(matches!(seen.net.path(1, CE1, CE2), Way::Protect { .. }));
    // The path is lost, and a new search is open: the recording does not end it.
    seen.net.now = seen.net.now.plus(std::time::Duration::from_secs(4000));
    seen.net.carry();
    assert_eq!(seen.net.path(1, CE1, CE2), Way::Searching);
    let _ = seen.net.only_probe();
    for _ in 0..10 {
        seen.tell(outer(2), old.clone());
    }
    assert_eq!(seen.net.drops(1, DropReason::NotAsked), 10);
    assert_eq!(seen.net.path(1, CE1, CE2), Way::Searching);
}

/// The "probe re-routed to an honest gateway of another shared group": gateway 3 shares group 2
/// with the asker and does not protect CE2; it is silent, whatever address the probe comes to.
#[test]
fn a_probe_that_is_re_routed_finds_no_other_gateway() {
    let net = Net::new(&[
        &[group_of(1, 0), group_of(2, 9)],
        &[group_of(1, 0)],
        &[group_of(2, 9)],
    ]);
    let mut seen = Seen::of(net);
    let probe = seen.probe.clone();
    let before = seen.net.gate(3).unit.machine.path_counts();
    for to in [address(CE2), address("10.3.0.1"), outer(3).ip()] {
        let to = SocketAddr::new(to, 4500);
        let rerouted = Parcel {
            to,
            ..probe.clone()
        };
        seen.net.arrive_at(3, &rerouted);
        assert!(is_silent(&mut seen.net.gate(3).unit, before));
    }
    assert_eq!(seen.net.drops(3, DropReason::ProbeForOthers), 3);
    seen.ends_well();
}

/// what is taken out of a probe does not make the answer fall to a group of lower priority.
#[test]
fn a_probe_without_the_best_handle_gets_no_answer_under_a_lesser_group() {
    let groups = [group_of(1, 9), group_of(2, 0)];
    let mut net = Net::new(&[&groups, &groups]);
    assert_eq!(net.path(1, CE1, CE2), Way::Searching);
    let sent = net.only_probe();
    let Ok(SearchMessage::Probe(mut probe)) = SearchMessage::decode(&sent.datagram) else {
        panic!("a probe")
    };
    assert_eq!(probe.handles.len(), 2);
    probe.handles.remove(0);
    let datagram = probe.encode();
    let before = net.gate(2).unit.machine.path_counts();
    net.arrive_at(2, &Parcel { datagram, ..sent });
    assert!(is_silent(&mut net.gate(2).unit, before));
    assert_eq!(net.drops(2, DropReason::SearchForged), 1);
}

/// The attacker is a member of a lesser common group: he cannot make the asker use it.
#[test]
fn an_answer_under_another_group_is_refused() {
    let groups = [group_of(1, 9), group_of(2, 0)];
    let mut seen = Seen::of(Net::new(&[&groups, &groups]));
    let Ok(SearchMessage::Probe(probe)) = SearchMessage::decode(&seen.probe.datagram) else {
        panic!("a probe")
    };
    let record = seen.net.signed(2);
    let question = Question {
        probe: ProbeHash::of(&seen.probe.datagram),
        source: probe.source,
        destination: probe.destination,
    };
    let lesser = search_key_of(number_of(2), 7);
    let answer = Answer::make(
        &lesser,
        &probe,
        &question,
        (terminal_number(2), record.frame()),
        [7; 16],
        (KeyEpoch::new(7), generation(0)),
    );
    let answer = answer.encode();
    seen.tell(outer(2), answer);
    assert_eq!(seen.net.drops(1, DropReason::OtherGroup), 1);
    seen.ends_well();
}

/// The attacker is a member of the group and speaks for other addresses.
#[test]
fn a_member_does_not_answer_for_addresses_that_are_not_its_own() {
    let mut seen = Seen::new();
    let Ok(SearchMessage::Probe(probe)) = SearchMessage::decode(&seen.probe.datagram) else {
        panic!("a probe")
    };
    let question = Question {
        probe: ProbeHash::of(&seen.probe.datagram),
        source: probe.source,
        destination: probe.destination,
    };
    let key = search_key_of(number_of(1), 7);
    let own = seen.net.signed(3);
    let answer = |number, record| {
        let number = terminal_number(number);
        let at = (KeyEpoch::new(7), generation(0));
        Answer::make(&key, &probe, &question, (number, record), [7; 16], at).encode()
    };
    let honest_record = answer(3, own.frame());
    // A record that it made itself, and another's record under its own number.
    let mut claimed = seen.net.gate(3).record.clone();
    claimed.version += 1;
    claimed.prefixes.insert(1, prefix("10.2.0.0/16"));
    claimed.prefixes.sort();
    let other_fleet = super::fixture::Fleet::new();
    let forged = claimed.signed_by(&other_fleet.record.beat);
    let forged = answer(3, forged.frame());
    let theirs = seen.net.signed(2);
    let borrowed = answer(3, theirs.frame());
    for datagram in [honest_record, forged, borrowed] {
        seen.tell(outer(3), datagram);
    }
    assert_eq!(seen.net.drops(1, DropReason::NotInRecord), 1);
    assert_eq!(seen.net.drops(1, DropReason::SearchForged), 1);
    let refused = [DropReason::UnknownSigner, DropReason::WrongClass];
    let refused = refused.map(|reason| seen.net.drops(1, reason));
    assert_eq!(refused.iter().sum::<u64>(), 1);
    seen.ends_well();
}

/// Nor ask for them.
#[test]
fn a_member_does_not_ask_for_addresses_that_are_not_its_own() {
    let groups = [group_of(1, 0)];
    let mut net = Net::new(&[&groups, &groups, &groups]);
    let record = net.signed(3);
    let mut probe = Probe::new([3; 16], address(CE1), address(CE2), record.frame());
    let key = search_key_of(number_of(1), 7);
    let at = (KeyEpoch::new(7), generation(0));
    assert!(probe.offer(&key, terminal_number(3), at));
    let parcel = Parcel {
        from: outer(3),
        to: SocketAddr::new(address(CE2), 4500),
        datagram: probe.encode(),
    };
    let before = net.gate(2).unit.machine.path_counts();
    net.arrive_at(2, &parcel);
    assert!(is_silent(&mut net.gate(2).unit, before));
    assert_eq!(net.drops(2, DropReason::NotInRecord), 1);
}

/// Repeated probes are no oracle: a recording gets one answer in all, and none of its copies moves
/// anything; nor does a probe from inside.
#[test]
fn a_probe_is_answered_once() {
    let mut seen = Seen::new();
    let (probe, answer) = (seen.probe.clone(), seen.answer.clone());
    seen.net.arrive_at(1, &answer);
    for n in 0..1000u32 {
        let from = SocketAddr::new([198, 51, 100, (n % 250) as u8].into(), 4500);
        seen.net.arrive_at(
            2,
            &Parcel {
                from,
                ..probe.clone()
            },
        );
        seen.net.wait_millis(20);
    }
    let answers = seen.net.sent.iter().filter(|it| it.from == outer(2));
    assert_eq!(answers.count(), 0, "none beside the first");
    assert_eq!(seen.net.drops(2, DropReason::ProbeReplayed), 1000);
}

#[test]
fn a_probe_from_inside_is_not_answered() {
    let mut seen = Seen::new();
    let before = seen.net.gate(3).unit.machine.path_counts();
    let unit = &mut seen.net.gate(3).unit;
    unit.feed(Input::Search {
        from: seen.probe.from,
        destination: seen.probe.to.ip(),
        outside: false,
        datagram: &seen.probe.datagram,
    });
    assert!(is_silent(unit, before));
    assert_eq!(seen.net.drops(3, DropReason::ProbeFromInside), 1);
}

/// Silence to strangers: whatever they change in a probe, nothing shows that somebody is there, who, or
/// in which group.
#[test]
fn strangers_hear_nothing() {
    let groups = [group_of(1, 0)];
    let mut net = Net::new(&[&groups, &groups]);
    assert_eq!(net.path(1, CE1, CE2), Way::Searching);
    let probe = net.only_probe();
    let before = net.gate(2).unit.machine.path_counts();
    for place in 0..probe.datagram.len() {
        let mut datagram = probe.datagram.clone();
        datagram[place] ^= 0x10;
        net.arrive_at(
            2,
            &Parcel {
                datagram,
                ..probe.clone()
            },
        );
        assert!(is_silent(&mut net.gate(2).unit, before), "octet {place}");
        // The budget of one source is not what keeps it silent.
        net.now = net.now.plus(std::time::Duration::from_millis(50));
    }
    // A member of another group only, with a record of its own.
    let mut net = Net::new(&[&[group_of(3, 0)], &[group_of(1, 0)]]);
    assert_eq!(net.path(1, CE1, CE2), Way::Searching);
    let probe = net.only_probe();
    net.arrive_at(2, &probe);
    let before = PathCounts::default();
    assert!(is_silent(&mut net.gate(2).unit, before));
}

/// The same searches look different each time: no handle, nonce or authentication value comes twice.
#[test]
fn an_observer_links_no_two_searches_by_their_handles() {
    let mut net = Net::new(&[&[group_of(1, 0), group_of(2, 0)]]);
    let mut handles = std::collections::BTreeSet::new();
    for n in 0..20 {
        let destination = format!("10.2.0.{n}");
        assert_eq!(net.path(1, CE1, &destination), Way::Searching);
        net.wait_millis(200);
    }
    net.wait_millis(8000);
    let mut seen = 0;
    for parcel in &net.sent {
        let Ok(SearchMessage::Probe(probe)) = SearchMessage::decode(&parcel.datagram) else {
            panic!("only probes")
        };
        for handle in &probe.handles {
            seen += 1;
            handles.insert(format!("{handle:?}"));
        }
    }
    assert!(seen > 80);
    assert_eq!(handles.len(), seen);
}

/// Nothing enters a table by what a packet says: the record of its sender decides.
#[test]
fn packets_poison_no_table() {
    let groups = [group_of(1, 0), group_of(2, 0)];
    let mut net = Net::new(&[&groups, &groups[..1], &groups]);
    for n in [2, 3] {
        let signed = net.signed(n);
        net.learn(1, signed).expect("new");
    }
    let packet = |group, peer, source, destination| PacketFrom {
        group: number_of(group),
        key: (KeyEpoch::new(7), generation(0)),
        peer: terminal_number(peer),
        source: address(source),
        destination: address(destination),
        endpoint: outer(66),
    };
    for poison in [
        // An address of another terminal, an unknown sender, a group that is not the sender's.
        packet(1, 3, CE2, CE1),
        packet(1, 9, CE2, CE1),
        packet(2, 2, CE2, CE1),
    ] {
        net.packet_from(1, poison);
    }
    assert_eq!(net.drops(1, DropReason::NotInRecord), 2);
    assert_eq!(net.drops(1, DropReason::UnknownPeer), 1);
    let nowhere = |net: &mut Net| {
        let peers = net.gate(1).unit.machine.peers().map(|peer| peer.endpoint);
        peers.collect::<Vec<_>>()
    };
    assert_eq!(nowhere(&mut net), [None, None]);
    assert_eq!(net.gate(1).unit.machine.paths().count(), 0);
    // One that was asked by nobody makes no path, only an endpoint.
    net.packet_from(1, packet(1, 2, CE2, CE1));
    assert_eq!(nowhere(&mut net), [Some(outer(66)), None]);
    assert_eq!(net.gate(1).unit.machine.paths().count(), 0);
}

/// KR-531: gateways 1 and 2 have a group of their own that is better; gateway 3, in the lesser one alone,
/// sends as gateway 2 what opens under the lesser one.
#[test]
fn a_member_of_a_lesser_group_speaks_for_nobody_in_a_better_one() {
    let better = routed(1, 10, &["10.2.0.0/16", "239.0.0.0/8"]);
    let lesser = routed(2, 0, &["10.0.0.0/8", "239.0.0.0/8"]);
    let both = [better.clone(), lesser.clone()];
    let mut net = Net::new(&[&both, &both, &[lesser]]);
    for n in [2, 3] {
        let signed = net.signed(n);
        net.learn(1, signed).expect("new");
    }
    let own = net.gate(1).record.clone();
    let mut judged = |peer, group, source: &str, destination: &str| {
        let (source, destination) = (address(source), address(destination));
        let theirs = net.gate(peer).record.clone();
        may_deliver(&own, &theirs, number_of(group), source, destination)
    };
    let refused = Err(DropReason::OtherGroup);
    // As 3 sends, it is heard as itself alone.
    assert_eq!(judged(3, 2, "10.3.0.9", CE1), Ok(()));
    assert_eq!(judged(3, 2, "10.3.0.9", "239.0.0.1"), Ok(()));
    for to in [CE1, "239.0.0.1"] {
        assert_eq!(judged(3, 2, CE2, to), Err(DropReason::NotInRecord));
        assert_eq!(judged(2, 2, "239.0.0.1", to), Err(DropReason::NotInRecord));
    }
    assert_eq!(judged(2, 2, CE2, "239.0.0.1"), refused, "as 2, to all");
    assert_eq!(judged(2, 1, CE2, "239.0.0.1"), Ok(()));
    assert_eq!(judged(2, 2, CE2, "10.9.0.1"), Err(DropReason::NotForUs));
    // From 2 to 1 the rule gives 2, and back 1: both may be.
    assert_eq!(judged(2, 2, CE2, CE1), Ok(()));
    assert_eq!(judged(2, 1, CE2, CE1), Ok(()));
    // In the better group both ways: no other is taken, and nothing is learned from it.
    for n in [1, 2] {
        net.restate(n, |record| record.groups[0].networks.clear());
    }
    let signed = net.signed(2);
    net.learn(1, signed).expect("newer");
    let _ = net.events(1);
    net.packet(1, 2, 2, CE2, CE1);
    assert_eq!(net.drops(1, DropReason::OtherGroup), 1);
    assert!(
        net.gate(1)
            .unit
            .machine
            .peers()
            .all(|it| it.endpoint.is_none())
    );
    net.packet(1, 2, 1, CE2, CE1);
    let mut peers = net.gate(1).unit.machine.peers();
    assert!(peers.any(|it| it.endpoint == Some(outer(2))));
}

/// The same by one who floods: a search a second to one peer, eight to all.
#[test]
fn packets_under_another_group_cost_few_searches() {
    let groups = [group_of(1, 10), group_of(2, 0)];
    let mut net = Net::new(&[&groups, &groups]);
    let signed = net.signed(2);
    net.learn(1, signed).expect("new");
    for n in 0..500 {
        net.packet(1, 2, 2, &format!("10.2.7.{}", n % 250), CE1);
    }
    assert_eq!(net.gate(1).unit.machine.searches().count(), 1);
}

/// KR-537: an older record of its own does not give a terminal back what was taken from it.
#[test]
fn a_recorded_protection_record_takes_nothing_back() {
    let mut seen = Seen::new();
    let old = seen.net.signed(2);
    seen.net
        .restate(2, |record| record.prefixes = vec![prefix("10.20.0.0/16")]);
    let newer = seen.net.signed(2);
    seen.net.learn(1, newer).expect("newer");
    assert_eq!(seen.net.learn(1, old), Err(DropReason::OlderRecord));
    // The answer that was made with the old one is judged by the newer, too.
    let answer = seen.answer.datagram.clone();
    seen.tell(outer(2), answer);
    assert_eq!(seen.net.drops(1, DropReason::NotInRecord), 1);
    assert_eq!(seen.net.path(1, CE1, CE2), Way::Searching);
}

/// W-21: a scan of a /16 from behind the gateway: memory is bounded, the wire too, and flows to peers
/// that are known go on.
#[test]
fn a_scan_of_a_16_from_behind_costs_bounded_memory_and_few_probes() {
    let groups = [group_of(1, 0)];
    let mut net = Net::new(&[&groups, &groups]);
    net.restate(2, |record| record.endpoints = vec![outer(2)]);
    let signed = net.signed(2);
    net.learn(1, signed).expect("new");
    let mut dropped = 0;
    for n in 0..=u16::MAX {
        let [a, b] = n.to_be_bytes();
        let source = format!("10.1.{}.5", n % 3);
        let way = net.path(1, &source, &format!("10.99.{a}.{b}"));
        dropped += u32::from(way == Way::Drop(DropReason::SearchBudget));
        if n % 64 == 0 {
            net.wait_millis(60);
            assert!(matches!(net.path(1, CE1, CE2), Way::Protect { .. }));
            let counts = net.gate(1).unit.machine.path_counts();
            assert!(
                counts.searches <= 256 && counts.denied <= 4096,
                "{counts:?}"
            );
            assert_eq!((counts.peers, counts.found), (1, 0));
        }
    }
    assert!(dropped > 60_000);
    // A minute of scanning: 96 searches a second at the most, four probes each.
    assert!(net.sent.len() < 62 * 96 * 4, "{}", net.sent.len());
}

/// W-21: and from outside, by strangers and by a member that asks for everything.
#[test]
fn a_flood_of_probes_costs_bounded_memory() {
    let groups = [group_of(1, 0)];
    let mut net = Net::new(&[&groups, &groups, &groups]);
    let record = net.signed(3);
    let key = search_key_of(number_of(1), 7);
    let at = (KeyEpoch::new(7), generation(0));
    for n in 0..3000u32 {
        let mut nonce = [0; 16];
        nonce[..4].copy_from_slice(&n.to_be_bytes());
        let source = format!("10.3.{}.{}", n / 256, n % 256);
        let mut probe = Probe::new(nonce, address(&source), address(CE2), record.frame());
        assert!(probe.offer(&key, terminal_number(3), at));
        let parcel = Parcel {
            from: SocketAddr::new([198, 18, (n / 250) as u8, (n % 250) as u8].into(), 4500),
            to: SocketAddr::new(address(CE2), 4500),
            datagram: probe.encode(),
        };
        net.arrive_at(2, &parcel);
        if n % 10 == 0 {
            net.wait_millis(10);
        }
    }
    let counts = net.gate(2).unit.machine.path_counts();
    assert!(
        counts.nonces <= 3000 && counts.answered <= 1024,
        "{counts:?}"
    );
    let answers = net.sent.iter().filter(|it| it.from == outer(2)).count();
    assert!(
        answers < 3 * 32 + 64,
        "32 a second to one member: {answers}"
    );
    // Somebody else is answered meanwhile.
    assert!(matches!(net.way(1, CE1, CE2), Way::Protect { .. }));
}
