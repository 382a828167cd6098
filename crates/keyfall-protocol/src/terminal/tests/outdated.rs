//! Key search where one side presents a record of itself that is older than the one the other side
//! holds of it (REQUIREMENTS, W-06, X-06): as after a restart, with newer ones fetched,
//! beside gateways that have not heard theirs.

use std::time::Duration;

use super::fixture::{FOUNDED, generation, terminal_number};
use super::net::{Net, Parcel, address, group_of, number_of, outer, prefix, search_key_of};
use crate::command::{ProtectionRecord, SignedRecord, SignerClass, UnverifiedRecord};
use crate::ids::KeyEpoch;
use crate::search::message::{Answer, Probe, ProbeHash, Question, SearchMessage};
use crate::sharing::message::Message;
use crate::stats::DropReason;
use crate::terminal::{Input, Way};

/// Behind gateway 1, which holds the newer record of gateway 2.
const CE1: &str = "10.1.0.5";
/// Behind gateway 2.
const CE2: &str = "10.2.0.9";

/// Gateways 1 and 2 in two groups, of which the first is the better one; what `change` says of gateway 2
/// only gateway 1 has heard.
fn outdated(change: impl FnOnce(&mut ProtectionRecord)) -> Net {
    let groups = [group_of(1, 9), group_of(2, 0)];
    let mut net = Net::new(&[&groups, &groups]);
    net.restate_to(1, 2, change);
    net
}

/// The version that gateway 2 holds of its own record.
fn own_version(net: &mut Net) -> u32 {
    let own = net.gate(2).unit.machine.own_record();
    own.expect("it has one").record().version
}

/// Gateway 2's record as gateway 1 holds it.
fn held(net: &mut Net) -> ProtectionRecord {
    let held = net.gate(1).unit.machine.record_of(terminal_number(2));
    held.expect("it has one").clone()
}

/// The versions of gateway 2's record that gateway 1 handed on.
fn handed(net: &Net) -> Vec<u32> {
    let from_one = net.sent.iter().filter(|parcel| parcel.from == outer(1));
    let records = from_one.filter_map(|parcel| match Message::decode_datagram(&parcel.datagram) {
        Ok(Message::Command { frame }) => {
            let record = UnverifiedRecord::decode(frame).expect("a record");
            let record = record.record();
            assert_eq!(record.terminal, terminal_number(2));
            assert_eq!(parcel.to, outer(2));
            Some(record.version)
        }
        Ok(_) | Err(_) => None,
    });
    records.collect()
}

fn group_and_peer(way: Way) -> Option<(u32, u32)> {
    match way {
        Way::Protect { group, peer, .. } => Some((group.get(), peer.get())),
        Way::ProtectMulticast { .. } | Way::Searching | Way::Clear | Way::Drop(_) => None,
    }
}

/// A probe of gateway 2 towards CE1, from an address for each nonce, that presents `record`, with a handle made with `key`.
fn probe_of(net: &mut Net, record: &SignedRecord, key: u32, nonce: u8) -> Parcel {
    let ends = (address(&format!("10.2.0.{nonce}")), address(CE1));
    let mut probe = Probe::new([nonce; 16], ends.0, ends.1, record.frame());
    let key = search_key_of(number_of(key), 7);
    assert!(probe.offer(&key, terminal_number(2), (KeyEpoch::new(7), generation(0))));
    let parcel = Parcel {
        from: outer(2),
        to: (ends.1, 4500).into(),
        datagram: probe.encode(),
    };
    net.arrive_at(1, &parcel);
    parcel
}

/// A genuine answer to gateway 1's open search, but with `record` in it.
fn answer_with(net: &mut Net, record: &SignedRecord, key: u32) {
    assert_eq!(net.path(1, CE1, CE2), Way::Searching);
    // The next probe of the search.
    net.now = net.now.plus(Duration::from_secs(3));
    let now = net.now;
    net.gate(1).unit.now = now;
    net.gate(1).unit.feed(Input::Timeout);
    let sent = net.collect().pop_front().expect("a probe");
    let Ok(SearchMessage::Probe(probe)) = SearchMessage::decode(&sent.datagram) else {
        panic!("a probe")
    };
    let question = Question {
        probe: ProbeHash::of(&sent.datagram),
        source: probe.source,
        destination: probe.destination,
    };
    let answer = Answer::make(
        &search_key_of(number_of(key), 7),
        &probe,
        &question,
        (terminal_number(2), record.frame()),
        [9; 16],
        (KeyEpoch::new(7), generation(0)),
    );
    let parcel = Parcel {
        from: outer(2),
        to: outer(1),
        datagram: answer.encode(),
    };
    net.arrive_at(1, &parcel);
}

/// A gateway that restarted holds what the server said last, and the others have not heard theirs: it
/// finds them and they find it, by the first probe, and then they hold theirs as well.
#[test]
fn a_search_succeeds_by_the_newer_record_and_its_owner_gets_it() {
    for (asker, from, to) in [(1, CE1, CE2), (2, CE2, CE1)] {
        let mut net = outdated(|_| ());
        let other = 3 - asker;
        assert_eq!(group_and_peer(net.way(asker, from, to)), Some((1, other)));
        assert_eq!(net.sent.len(), 3, "a probe, an answer, a record");
        assert_eq!((own_version(&mut net), handed(&net)), (11, vec![11]));
        net.packet(other, asker, 1, from, to);
        assert_eq!(group_and_peer(net.way(other, to, from)), Some((1, asker)));
        assert_eq!(held(&mut net).version, 11, "nothing older is learned");
        // It is told no more.
        net.wait_millis(4_000_000);
        assert_eq!(group_and_peer(net.way(asker, from, to)), Some((1, other)));
        assert_eq!(handed(&net), [11]);
    }
}

/// KR-577: a prefix that the newer record withdrew; only its owner hears of it.
#[test]
fn an_older_record_gives_no_prefix_back() {
    let withdrawn = |record: &mut ProtectionRecord| record.prefixes = vec![prefix("10.20.0.0/16")];
    let mut net = outdated(withdrawn);
    let older = net.gate(2).unit.machine.own_record().cloned();
    answer_with(&mut net, &older.expect("its own"), 1);
    assert_eq!(net.drops(1, DropReason::NotInRecord), 1);
    assert_eq!(net.path(1, CE1, CE2), Way::Searching);
    assert_eq!(net.gate(1).unit.machine.paths().count(), 0);
    net.carry();
    assert_eq!((own_version(&mut net), handed(&net)), (11, vec![11]));
    // And where it asks.
    let mut net = outdated(withdrawn);
    let way = net.way(2, CE2, CE1);
    assert_eq!(way, Way::Drop(DropReason::SourceNotOurs), "it was told");
    assert_eq!(net.drops(1, DropReason::NotInRecord), 1);
    assert_eq!((own_version(&mut net), handed(&net)), (11, vec![11]));
    assert!(
        net.sent
            .iter()
            .all(|it| it.to != outer(2) || it.from == outer(1))
    );
    assert_eq!(net.gate(1).unit.machine.path_counts().answered, 0);
}

/// KR-577: a group that the newer record withdrew: the best one, then every one.
#[test]
fn an_older_record_gives_no_group_back() {
    let of_both = [(1, CE1, CE2), (2, CE2, CE1)];
    for (asker, from, to) in of_both {
        let mut net = outdated(|record| record.groups = vec![group_of(2, 0)]);
        // The first answer came under the better group, or to a probe that it was offered in.
        let found = group_and_peer(net.way(asker, from, to));
        assert_eq!(found, Some((2, 3 - asker)), "asked by {asker}");
        assert_eq!((own_version(&mut net), handed(&net)), (11, vec![11]));
        assert!(
            net.gate(1)
                .unit
                .machine
                .paths()
                .all(|it| it.group == number_of(2))
        );
    }
    for (asker, from, to) in of_both {
        let mut net = outdated(|record| record.groups = Vec::new());
        let way = net.way(asker, from, to);
        assert!(matches!(way, Way::Drop(_)), "{way:?}");
        assert!(net.drops(1, DropReason::NoCommonGroup) > 0);
        assert_eq!((own_version(&mut net), handed(&net)), (11, vec![11]));
        for n in [1, 2] {
            assert_eq!(net.gate(n).unit.machine.paths().count(), 0);
        }
    }
}

/// KR-577: the end of the newer record is the end, also where the older one would count longer.
#[test]
fn an_older_record_counts_no_longer_than_the_newer() {
    for (asker, from, to) in [(1, CE1, CE2), (2, CE2, CE1)] {
        let mut net = outdated(|record| record.not_after = FOUNDED.plus(100));
        let beacon = net.fleet.time(200);
        net.gate(1).unit.hear(&beacon);
        net.gate(1).unit.store_all();
        let way = net.way(asker, from, to);
        assert_eq!(way, Way::Drop(DropReason::NoAnswer));
        assert_eq!(
            net.drops(1, DropReason::PastNotAfter),
            4,
            "asked by {asker}"
        );
        // What has ended is of no use to its owner.
        assert_eq!((own_version(&mut net), handed(&net)), (10, vec![]));
    }
}

/// KR-577: who knows the search key may make the mac of an older record, and not the record.
#[test]
fn an_older_record_that_is_not_genuine_changes_nothing() {
    let mut net = outdated(|_| ());
    let mut forged = held(&mut net);
    forged.version = 9;
    let forged = forged.signed_by(&net.fleet.record.beat);
    answer_with(&mut net, &forged, 1);
    probe_of(&mut net, &forged, 1, 1);
    assert_eq!(net.drops(1, DropReason::WrongClass), 2);
    // One by the right name whose signature is not right, as a member without the online key makes it.
    let genuine = net.gate(2).unit.machine.own_record().cloned();
    let genuine = genuine.expect("its own");
    let mut octets = genuine.frame().to_vec();
    *octets.last_mut().expect("an octet") ^= 1;
    let broken = SignedRecord::stored(&octets).expect("read, not verified");
    answer_with(&mut net, &broken, 1);
    probe_of(&mut net, &broken, 1, 2);
    assert_eq!(net.drops(1, DropReason::BadSignature), 2);
    // The genuine one from a stranger to both groups: the owner is not told in answer to him.
    answer_with(&mut net, &genuine, 9);
    probe_of(&mut net, &genuine, 9, 3);
    assert_eq!(net.drops(1, DropReason::SearchForged), 2);
    let unit = &net.gate(1).unit;
    assert!(unit.answers.is_empty() && unit.to_peers.is_empty());
    let counts = unit.machine.path_counts();
    assert_eq!((counts.found, counts.answered, counts.searches), (0, 0, 1));
    assert_eq!(held(&mut net).version, 11);
}

/// KR-544: one record in a second to one terminal, however often somebody asks in its name.
#[test]
fn a_newer_record_is_handed_on_within_the_limits_of_handing_on() {
    let mut net = outdated(|_| ());
    let older = net.gate(2).unit.machine.own_record().cloned();
    let older = older.expect("its own");
    for nonce in 1..=20 {
        probe_of(&mut net, &older, 1, nonce);
    }
    let sent = net.gate(1).unit.to_peers.len();
    assert_eq!((sent, net.gate(1).unit.answers.len()), (1, 20));
    // Played again they are no question at all.
    net.now = net.now.plus(Duration::from_secs(2));
    for nonce in 1..=20 {
        probe_of(&mut net, &older, 1, nonce);
    }
    assert_eq!(net.gate(1).unit.to_peers.len(), 1);
    assert_eq!(net.drops(1, DropReason::ProbeReplayed), 20);
}

/// KR-505: what a key said that is listed no more is not newer than what is said now.
#[test]
fn a_record_by_a_key_of_before_is_not_the_newer_one() {
    let mut net = outdated(|record| record.version = 90);
    net.fleet.replace_key(SignerClass::Keys, 20);
    let key_set = net.fleet.next_key_set(20, |_| ());
    for n in [1, 2] {
        net.gate(n).unit.hear(&key_set);
        net.gate(n).unit.store_all();
    }
    net.restate(2, |record| {
        record.version = 12;
        record.issued_at = FOUNDED.plus(30);
    });
    net.restate(1, |record| record.issued_at = FOUNDED.plus(30));
    assert_eq!(group_and_peer(net.way(1, CE1, CE2)), Some((1, 2)));
    assert_eq!(held(&mut net).version, 12);
    assert!(handed(&net).is_empty());
}

/// KEYSETs like that of the fleet, of which gateway 1 alone heard the newest: fresh keys sign, and those of
/// before are listed still, or stolen. Its own record and gateway 2's, as it holds them, are by the fresh.
fn missed_key_set(stolen: bool) -> Net {
    let mut net = outdated(|_| ());
    let listed = net
        .fleet
        .record
        .key_set
        .first_of(SignerClass::Keys)
        .cloned();
    let before = listed.expect("one of each class");
    net.fleet.replace_key(SignerClass::Keys, 20);
    let key_set = net.fleet.next_key_set(20, |key_set| {
        if stolen {
            key_set.stolen = vec![before.public.name()];
        } else {
            key_set.keys.push(before);
        }
    });
    net.gate(1).unit.hear(&key_set);
    net.gate(1).unit.store_all();
    for n in [1, 2] {
        net.restate_to(1, n, |record| record.issued_at = FOUNDED.plus(30));
    }
    net
}

fn key_set_version(net: &mut Net, number: u32) -> u32 {
    net.gate(number).unit.machine.key_set.version
}

/// KR-577: who missed the KEYSET as well gets both, whichever of the two asks, and also where what it
/// presents is by a key that was stolen.
#[test]
fn who_missed_a_key_set_is_found_and_gets_it() {
    for stolen in [false, true] {
        for (asker, from, to) in [(1, CE1, CE2), (2, CE2, CE1)] {
            let mut net = missed_key_set(stolen);
            let newest = key_set_version(&mut net, 1);
            assert!(key_set_version(&mut net, 2) < newest);
            let found = group_and_peer(net.way(asker, from, to));
            assert_eq!(found, Some((1, 3 - asker)), "{asker}, stolen: {stolen}");
            assert_eq!(key_set_version(&mut net, 2), newest);
            assert_eq!((own_version(&mut net), held(&mut net).version), (12, 12));
        }
    }
}

/// KR-577: a member alone brings that about, and no more than a burst and a search in a second.
#[test]
fn what_an_unlisted_key_signed_is_believed_by_nobody_and_costs_little() {
    let mut net = missed_key_set(true);
    let own = net.gate(2).unit.machine.own_record().cloned();
    let own = own.expect("its own");
    probe_of(&mut net, &own, 9, 100);
    let unit = &net.gate(1).unit;
    assert!(unit.to_peers.is_empty() && unit.machine.searches().next().is_none());
    for nonce in 1..=20 {
        probe_of(&mut net, &own, 1, nonce);
    }
    assert_eq!(net.drops(1, DropReason::UnknownSigner), 20);
    let unit = &net.gate(1).unit;
    assert_eq!(
        (unit.to_peers.len(), unit.answers.len()),
        (2, 0),
        "KEYSET and record"
    );
    assert_eq!(unit.machine.searches().count(), 1);
    assert_eq!(unit.machine.paths().count(), 0);
}
