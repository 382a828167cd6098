//! Terminals hand on what the server signed (REQUIREMENTS ): a lagging member comes
//! forward, a lost terminal obeys, nobody is believed and nobody is flooded.

use super::fixture::{FOUNDED, Fleet, Stated, generation, terminal_number};
use super::net::{Net, Parcel, address, group_of, master_of, number_of, outer, search_key_of};
use crate::command::{
    Body, ClearList, Command, FRAME_MAX, KeyDist, KeyDistContents, ListedKey, OrderKind, Prefix,
    Renew, SignerClass, Target, VerifyingKey,
};
use crate::ids::{Generation, KeyEpoch};
use crate::schedule::Cadence;
use crate::sharing::message::{DATAGRAM_MAX, Message, marked};
use crate::stats::DropReason;
use crate::terminal::{Cause, EraseCause, Event, Input, PacketFrom, Unheard, Way};

const CE1: &str = "10.1.0.5";
const CE2: &str = "10.2.0.9";

/// So many gateways in group 1 that know each other's records.
fn acquainted(count: u32) -> Net {
    let groups = [group_of(1, 0)];
    let mut net = Net::new(&vec![&groups[..]; count as usize]);
    for n in 1..=count {
        for other in (1..=count).filter(|&other| other != n) {
            let signed = net.signed(other);
            net.learn(n, signed).expect("new");
        }
    }
    net
}

/// A packet of gateway `from` under an older key opened at gateway 1.
fn old_packet(net: &mut Net, from: u32, key: (u32, u32)) {
    let packet = PacketFrom {
        group: number_of(1),
        key: (KeyEpoch::new(key.0), generation(key.1)),
        peer: terminal_number(from),
        source: address(&format!("10.{from}.0.9")),
        destination: address(CE1),
        endpoint: outer(from),
    };
    net.packet_from(1, packet);
    net.carry();
}

fn unheard(net: &mut Net, from: u32) {
    let unheard = Unheard {
        group: number_of(1),
        peer: terminal_number(from),
        endpoint: outer(from),
    };
    net.gate(1).unit.feed(Input::Unheard(unheard));
    net.carry();
}

/// The commands that gateway 1 handed on.
fn handed(net: &Net) -> Vec<Command> {
    let from_one = net.sent.iter().filter(|parcel| parcel.from == outer(1));
    let frames = from_one.filter_map(|parcel| match Message::decode_datagram(&parcel.datagram) {
        Ok(Message::Command { frame }) => {
            let frame = crate::command::Unverified::decode(frame).expect("a frame");
            Some(frame.command().clone())
        }
        Ok(_) | Err(_) => None,
    });
    frames.collect()
}

/// A fresh epoch of group 1 for gateways, in one shard each.
fn shards(net: &mut Net, epoch: u32, to: &[u32]) -> Vec<Vec<u8>> {
    shards_at(net, epoch, to, 2)
}

fn shards_at(net: &mut Net, epoch: u32, to: &[u32], issued: u32) -> Vec<Vec<u8>> {
    let stated = Stated::at(issued, 0);
    let shard = |&number: &u32, fleet: &mut Fleet| {
        let contents = contents_of(epoch);
        let wrap = fleet.wrap_key(number);
        let body = Body::KeyDist(KeyDist::seal(
            &contents,
            std::iter::once(&wrap),
            &mut fleet.rng,
        ));
        let command = fleet.command(Target::Handles, body, stated);
        fleet.record.keys.sign(&command)
    };
    let fleet = &mut net.fleet;
    to.iter().map(|number| shard(number, fleet)).collect()
}

fn contents_of(epoch: u32) -> KeyDistContents {
    KeyDistContents {
        key: master_of(number_of(1), epoch, 0),
        search_key: Some(search_key_of(number_of(1), epoch)),
        activate_at: FOUNDED,
        cadence: Cadence::new(1, 3600),
        lease_end: Some(FOUNDED.plus(72 * 3600)),
    }
}

fn hear(net: &mut Net, number: u32, frame: &[u8]) {
    let now = net.now;
    let unit = &mut net.gate(number).unit;
    unit.now = now;
    unit.hear(frame);
    unit.store_all();
}

/// "B learns a renewal from A": by the server's word, also far beyond what traffic alone closes.
#[test]
fn a_member_that_lags_learns_a_renewal_from_another() {
    let mut net = acquainted(2);
    let renew = net.fleet.renew(7, Stated::at(1, 90));
    hear(&mut net, 1, &renew);
    net.wait_millis(5000);
    old_packet(&mut net, 2, (7, 0));
    assert_eq!(net.generation(2, 1), 90);
    let renewed = Event::Renewed {
        group: number_of(1),
        from: Generation::ZERO,
        to: generation(90),
        cause: Cause::Command,
    };
    assert!(net.events(2).contains(&renewed));
    assert_eq!(handed(&net).len(), 1, "the RENEW and nothing else");
}

/// A packet that fits no key does not say of which group it is: every shared one may be meant.
#[test]
fn who_is_too_far_behind_to_say_where_gets_the_renewals_of_every_shared_group() {
    let groups = [group_of(1, 0), group_of(2, 0)];
    let mut net = Net::new(&[&groups, &groups]);
    let signed = net.signed(2);
    net.learn(1, signed).expect("new");
    let stated = Stated::at(1, 90);
    let entry = super::fixture::renew_entry(number_of(2).master_key_id(), 7, stated);
    let body = Body::Renew(Renew {
        entries: vec![entry],
    });
    let command = net.fleet.command(Target::Group(number_of(2)), body, stated);
    let renew = net.fleet.record.beat.sign(&command);
    hear(&mut net, 1, &renew);
    unheard(&mut net, 2);
    assert_eq!((net.generation(2, 1), net.generation(2, 2)), (0, 90));
}

/// The same in a search: what is too far for it is closed by the signed command.
#[test]
fn a_search_that_shows_a_gap_hands_on_the_renewal() {
    let groups = [group_of(1, 0)];
    for asker in [1, 2] {
        let mut net = Net::new(&[&groups, &groups]);
        let renew = net.fleet.renew(7, Stated::at(1, 200));
        hear(&mut net, 1, &renew);
        let (from, to) = if asker == 1 { (CE1, CE2) } else { (CE2, CE1) };
        assert!(matches!(net.way(asker, from, to), Way::Protect { .. }));
        assert_eq!(net.generation(2, 1), 200, "asker {asker}");
    }
}

/// Shards, too: which of them is whose, only the one who lags knows.
#[test]
fn a_member_at_an_older_epoch_gets_its_shard_from_another() {
    let mut net = acquainted(4);
    for shard in shards(&mut net, 8, &[1, 2, 3, 4]) {
        hear(&mut net, 1, &shard);
        net.wait_millis(1000);
    }
    assert_eq!(net.gate(1).unit.machine.groups()[0].epoch.get(), 8);
    // A burst holds four: the newest, then in turn.
    for _ in 0..2 {
        old_packet(&mut net, 2, (7, 0));
        old_packet(&mut net, 3, (7, 0));
        net.wait_millis(1000);
    }
    for n in [2, 3] {
        let status = net.gate(n).unit.machine.groups();
        assert_eq!(status[0].epoch.get(), 8, "gateway {n}");
    }
    // Who is so far behind that its packets do not open is told as well.
    for _ in 0..2 {
        unheard(&mut net, 4);
        net.wait_millis(1000);
    }
    assert_eq!(net.gate(4).unit.machine.groups()[0].epoch.get(), 8);
}

/// "Partitioned T gets its deletion through peer P."
#[test]
fn an_excluded_terminal_gets_its_deletion_through_a_peer() {
    for by_probe in [false, true] {
        let mut net = acquainted(3);
        let exclude = net.fleet.exclude(&[2], None, Stated::at(1, 0));
        let body = net.fleet.order_body(OrderKind::Delete, 2, 0);
        let target = Target::Terminal(terminal_number(2));
        let delete = net.fleet.command(target, body, Stated::at(1, 0));
        let delete = net.fleet.erase.sign(&delete);
        for frame in [&exclude, &delete] {
            hear(&mut net, 1, frame);
        }
        if by_probe {
            net.gate(2).unit.machine.forget_peers(&[terminal_number(1)]);
            let way = net.way(2, CE2, CE1);
            assert!(!matches!(way, Way::Protect { .. }));
        } else {
            unheard(&mut net, 2);
        }
        let erased = net.gate(2).unit.erased.as_ref().expect("it obeyed");
        assert_eq!(erased.cause, EraseCause::Delete);
        let kinds: Vec<_> = handed(&net).iter().map(|it| it.body.name()).collect();
        assert!(kinds.starts_with(&["EXCLUDE", "DELETE"]), "{kinds:?}");
        assert!(net.gate(3).unit.erased.is_none());
    }
}

/// It obeys signatures and nobody's word: what a peer altered is a bad signature.
#[test]
fn what_a_peer_hands_on_counts_by_its_signature_alone() {
    let mut net = acquainted(2);
    let renew = net.fleet.renew(7, Stated::at(1, 5));
    hear(&mut net, 1, &renew);
    old_packet(&mut net, 2, (7, 0));
    let genuine = net.sent.last().expect("a RENEW").clone();
    let mut fresh = acquainted(2);
    for place in 0..genuine.datagram.len() {
        let mut altered = genuine.clone();
        altered.datagram[place] ^= 1;
        fresh.arrive_at(2, &altered);
        fresh.wait_millis(40);
    }
    assert_eq!(fresh.generation(2, 1), 0);
    fresh.arrive_at(2, &genuine);
    assert_eq!(fresh.generation(2, 1), 5);
}

/// A frame that fills a carrier's datagram goes in two, and comes together.
#[test]
fn a_frame_of_the_longest_kind_is_handed_on_in_parts() {
    let mut net = acquainted(2);
    let key_set = net.fleet.next_key_set(1, |key_set| {
        let keys = key_set.keys.iter_mut();
        for key in keys.filter(|key| key.class == SignerClass::Kem) {
            key.groups = (1..=64).map(|n| number_of(0x1000_0000 + n)).collect();
        }
        let key = key_set.keys[0].clone();
        key_set.keys.extend((1..=5).map(|n| ListedKey {
            public: VerifyingKey::new([n; 32]),
            ..key.clone()
        }));
        let host = |n| Prefix::host([0xfd77, 0, 0, 0, 0, 0, 0, n].into());
        let clear: Vec<_> = (1..=7).map(host).collect();
        key_set.limits.clear = ClearList::new(&clear).expect("seven");
    });
    assert!(
        (FRAME_MAX - 10..=FRAME_MAX).contains(&key_set.len()),
        "{}",
        key_set.len()
    );
    hear(&mut net, 1, &key_set);
    for shard in shards(&mut net, 8, &[1, 2]) {
        hear(&mut net, 1, &shard);
    }
    old_packet(&mut net, 2, (7, 0));
    let clear = net.gate(2).unit.machine.clear_list().count();
    assert_eq!(clear, 7, "it came whole");
    assert!(net.sent.iter().all(|it| it.datagram.len() <= DATAGRAM_MAX));
}

/// One burst a second to one, sixteen to all; to whom nothing was proved two, and less each time.
#[test]
fn bursts_are_bounded() {
    let mut net = acquainted(2);
    let renew = net.fleet.renew(7, Stated::at(1, 5));
    hear(&mut net, 1, &renew);
    // A link that loses all, so that the peer stays behind.
    net.loses = Box::new(|| true);
    for _ in 0..1000 {
        old_packet(&mut net, 2, (7, 0));
        net.wait_millis(10);
    }
    assert!(net.sent.len() <= 11, "{}", net.sent.len());
    let mut crowd = acquainted(40);
    hear(&mut crowd, 1, &renew);
    for from in 2..=40 {
        old_packet(&mut crowd, from, (7, 0));
    }
    assert_eq!(crowd.sent.len(), 16);
    let mut net = acquainted(2);
    for shard in shards(&mut net, 8, &[1, 2]) {
        hear(&mut net, 1, &shard);
    }
    net.loses = Box::new(|| true);
    let bursts = |net: &mut Net, times: u32| {
        let before = net.sent.len();
        for _ in 0..times {
            unheard(net, 2);
            net.wait_millis(1000);
        }
        net.sent.len() - before
    };
    let first = bursts(&mut net, 1);
    assert!((1..=8).contains(&first), "{first}");
    // At 1, 2, 4 … s: six more in a minute.
    assert!(bursts(&mut net, 60) <= 6 * first);
}

/// KR-544: a terminal that was restarted knows no records. Recordings of all members under a key in its grace
/// had it send sixteen bursts a second to wherever they came from, and nothing was left for a true one.
#[test]
fn recordings_of_who_is_not_known_bring_few_bursts() {
    let groups = [group_of(1, 0)];
    let mut net = Net::new(&[&groups[..]; 40]);
    let renew = net.fleet.renew(7, Stated::at(1, 5));
    hear(&mut net, 1, &renew);
    // Nobody answers the searches for who that is.
    net.loses = Box::new(|| true);
    for from in 2..=40 {
        old_packet(&mut net, from, (7, 0));
    }
    assert_eq!(handed(&net).len(), 2);
    let (known, of_no_group) = (39, 40);
    let signed = net.signed(known);
    net.learn(1, signed).expect("new");
    net.restate_to(1, of_no_group, |record| record.groups.clear());
    for from in [of_no_group, known] {
        old_packet(&mut net, from, (7, 0));
    }
    let handed = handed(&net).len();
    assert_eq!(
        (handed, net.sent.last().map(|it| it.to)),
        (3, Some(outer(known)))
    );
}

/// KR-544: who proves nothing names whom he likes, as often as he likes. A member whose record is not known
/// and that is seen behind by what opened is handed on to all the same.
#[test]
fn strangers_leave_what_a_member_without_a_record_needs() {
    let groups = [group_of(1, 0)];
    let mut net = Net::new(&[&groups[..]; 3]);
    let renew = net.fleet.renew(7, Stated::at(1, 5));
    hear(&mut net, 1, &renew);
    net.loses = Box::new(|| true);
    let (member, other) = (2, 3);
    for _ in 0..1_200 {
        unheard(&mut net, member);
        unheard(&mut net, other);
        net.wait_millis(100);
    }
    let before = handed(&net).len();
    old_packet(&mut net, member, (7, 0));
    let handed = handed(&net).len() - before;
    assert_eq!(
        (handed, net.sent.last().map(|it| it.to)),
        (1, Some(outer(member)))
    );
}

/// A flood at the packet port leaves a carrier's frames their share of the signatures that are checked.
#[test]
fn strangers_at_the_packet_port_do_not_use_up_what_a_carrier_needs() {
    let mut net = acquainted(2);
    let forged = net.fleet.renew(7, Stated::at(1, 5));
    let forged = [&forged[..forged.len() - 1], &[0]].concat();
    let datagram = marked(&Message::Command { frame: &forged }.encode());
    for n in 0..5000u32 {
        let [_, _, a, b] = n.to_be_bytes();
        let parcel = Parcel {
            from: ([198, 18, a, b], 4500).into(),
            to: outer(1),
            datagram: datagram.clone(),
        };
        net.arrive_at(1, &parcel);
    }
    assert_eq!(net.drops(1, DropReason::BadSignature), 200);
    let renew = net.fleet.renew(7, Stated::at(2, 6));
    hear(&mut net, 1, &renew);
    assert_eq!(net.generation(1, 1), 6);
}

/// The same from addresses that the attacker makes up; and a peer that was heard has its own share.
#[test]
fn strangers_do_not_use_up_what_a_peer_needs() {
    let mut net = acquainted(2);
    net.packet(2, 1, 1, CE1, CE2);
    let forged = net.fleet.renew(7, Stated::at(1, 5));
    let forged = [&forged[..forged.len() - 1], &[0]].concat();
    let datagram = marked(&Message::Command { frame: &forged }.encode());
    for n in 0..400u16 {
        let [a, b] = n.to_be_bytes();
        let parcel = Parcel {
            from: ([198, 18, a, b], 4500).into(),
            to: outer(2),
            datagram: datagram.clone(),
        };
        net.arrive_at(2, &parcel);
    }
    let renew = net.fleet.renew(7, Stated::at(2, 6));
    let parcel = |from| Parcel {
        from,
        to: outer(2),
        datagram: marked(&Message::Command { frame: &renew }.encode()),
    };
    net.arrive_at(2, &parcel(outer(77)));
    assert_eq!(net.generation(2, 1), 0, "nothing is left for strangers");
    net.arrive_at(2, &parcel(outer(1)));
    assert_eq!(net.generation(2, 1), 6);
}

/// Shards that are played again take no place, and old ones not that of newer ones: whoever lags gets
/// its own all the same.
#[test]
fn recordings_push_out_no_shard() {
    let mut net = acquainted(2);
    let old = shards(&mut net, 7, &[9; 200]);
    let [needed, own] = &shards_at(&mut net, 8, &[2, 1], 20)[..] else {
        panic!("two")
    };
    for frame in [needed, own] {
        hear(&mut net, 1, frame);
    }
    for _ in 0..300 {
        hear(&mut net, 1, own);
        net.wait_millis(250);
    }
    for frame in &old {
        hear(&mut net, 1, frame);
        net.wait_millis(250);
    }
    assert_eq!(net.gate(1).unit.machine.groups()[0].epoch.get(), 8);
    old_packet(&mut net, 2, (7, 0));
    assert_eq!(net.gate(2).unit.machine.groups()[0].epoch.get(), 8);
}

/// Nothing is handed to who is not behind, and nothing of what is past its end.
#[test]
fn nobody_gets_what_it_does_not_need() {
    let mut net = acquainted(2);
    let renew = net.fleet.renew(7, Stated::at(1, 5));
    for n in [1, 2] {
        hear(&mut net, n, &renew);
    }
    old_packet(&mut net, 2, (7, 5));
    assert!(net.sent.is_empty());
    let mut net = acquainted(2);
    hear(&mut net, 1, &renew);
    net.now = crate::ids::Tick::from_secs(41 * 86_400);
    for n in [1, 2] {
        let time = net.fleet.time(41 * 86_400);
        hear(&mut net, n, &time);
    }
    old_packet(&mut net, 2, (7, 0));
    assert!(handed(&net).is_empty());
}

/// A terminal that meets no peer keeps nothing and checks nothing for others.
#[test]
fn who_has_no_address_checks_nothing_for_others() {
    let mut fleet = Fleet::new();
    let mut unit = fleet.member();
    let body = fleet.order_body(OrderKind::Delete, 2, 0);
    let target = Target::Terminal(terminal_number(2));
    let command = fleet.command(target, body, Stated::at(1, 0));
    unit.hear(&fleet.erase.sign(&command));
    unit.hear(&fleet.exclude(&[2], None, Stated::at(1, 0)));
    let unheard = Unheard {
        group: number_of(1),
        peer: terminal_number(2),
        endpoint: outer(2),
    };
    unit.feed(Input::Unheard(unheard));
    assert_eq!(unit.to_peers.len(), 1, "the EXCLUDE that it obeyed itself");
}
