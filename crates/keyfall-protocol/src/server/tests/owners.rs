//! Records that are signed anew are told at once, and to those whom they are about (REQUIREMENTS R-102,
//! R-104; PROTOCOL 17.1).

use core::net::SocketAddr;
use std::time::Duration;

use super::desk::{Desk, FOUNDED, add_terminal, create_group, terminal};
use super::protecting::{packets, speaks};
use super::restoring::Copied;
use crate::command::{Body, RECORD_LIFE, Unverified, UnverifiedRecord};
use crate::server::{Founding, Item, KeySetDraft, Order};
use crate::sharing::message::Message;

fn place(number: u32) -> SocketAddr {
    let port = u16::try_from(number).expect("few");
    SocketAddr::from(([192, 0, 2, 1], port))
}

/// Terminals 1 to `count` in a packet group, with addresses; the first `reachable` of them were heard.
fn fleet(count: u32, reachable: u32, bits_per_second: u64) -> Desk {
    let mut desk = Desk::founded(Founding {
        bits_per_second,
        ..Founding::default()
    });
    for n in 1..=count {
        desk.carry_out(add_terminal(&format!("t{n}")))
            .expect("free");
        desk.carry_out(speaks(n, &[&format!("10.77.{}.{}/32", n / 250, n % 250)]))
            .expect("free");
    }
    let members: Vec<_> = (1..=count).collect();
    desk.carry_out(create_group("crew", &members))
        .expect("free");
    desk.carry_out(packets(1, &["10.77.0.0/16"]))
        .expect("known");
    hear(&mut desk, reachable);
    desk.live(400);
    desk.sent.clear();
    desk.to_peers.clear();
    desk
}

fn hear(desk: &mut Desk, reachable: u32) {
    for n in 1..=reachable {
        let now = desk.at.now;
        desk.server.peers.heard(terminal(n), place(n), now);
    }
}

/// What single terminals were told since the last look: whose record it is, in which version; 0: KEYSET.
fn told(desk: &mut Desk) -> Vec<(u32, u32)> {
    let sent = std::mem::take(&mut desk.to_peers);
    let read = |(to, datagram): (SocketAddr, Vec<u8>)| {
        let Ok(Message::Command { frame }) = Message::decode_datagram(&datagram) else {
            panic!("a COMMAND")
        };
        if let Ok(command) = Unverified::decode(frame) {
            assert!(matches!(command.command().body, Body::KeySet(_)));
            return (to.port().into(), 0);
        }
        let record = UnverifiedRecord::decode(frame).expect("a record");
        let number = record.record().terminal.get();
        assert_eq!(to, place(number), "its own");
        (number, record.record().version)
    };
    sent.into_iter().map(read).collect()
}

fn version(desk: &Desk, number: u32) -> u32 {
    let record = desk.server.protection_record(terminal(number));
    record.expect("it has one").version
}

/// How often the carousel said that terminal's record.
fn announced(desk: &Desk, number: u32) -> usize {
    let said = |item: Item| item == Item::Record(terminal(number));
    desk.sent.iter().filter(|(item, _)| said(*item)).count()
}

fn new_keys(desk: &mut Desk) {
    let frame = desk.key_set(KeySetDraft::default()).expect("drafted");
    desk.carry_out(Order::InstallKeys { frame })
        .expect("signed");
}

/// A gateway that asks gets the newest record of everybody; whoever goes on without asking must not wait
/// for the carousel's turn to have its own.
#[test]
fn what_new_keys_sign_is_told_to_its_owner_at_once_and_announced() {
    let mut desk = fleet(2, 1, 1_000_000);
    let before = version(&desk, 1);
    let frame = desk.key_set(KeySetDraft::default()).expect("drafted");
    desk.give(Order::InstallKeys { frame });
    assert!(desk.to_peers.is_empty(), "not before it is stored");
    desk.store();
    let now = version(&desk, 1);
    assert!(now > before);
    let first = told(&mut desk);
    assert_eq!(first[..2], [(1, 0), (1, now)], "by which key, and what");
    desk.live(9);
    for number in [1, 2] {
        assert_eq!(announced(&desk, number), 5, "at 0, 1, 2, 4 and 8 s");
    }
    // Nothing is known of where the other one is.
    assert!(told(&mut desk).iter().all(|&it| it == (1, now)));
}

/// The same where they age.
#[test]
fn what_is_signed_again_by_its_age_is_told_at_once() {
    let mut desk = fleet(2, 0, 1_000_000);
    let before = version(&desk, 1);
    while desk.at.wall < FOUNDED.plus(RECORD_LIFE / 3 - 10) {
        desk.live(3600.min(FOUNDED.plus(RECORD_LIFE / 3 - 10).since(desk.at.wall)));
    }
    assert_eq!(version(&desk, 1), before);
    hear(&mut desk, 2);
    desk.sent.clear();
    desk.to_peers.clear();
    while version(&desk, 1) == before {
        desk.live(1);
    }
    let versions = [1, 2].map(|number| (number, version(&desk, number)));
    let first = told(&mut desk);
    assert_eq!(first[..2], versions, "without a KEYSET");
    desk.live(9);
    for number in [1, 2] {
        assert!(announced(&desk, number) >= 5);
    }
}

/// The same after a restore, once it sends.
#[test]
fn what_a_restored_server_signs_is_announced() {
    let mut lost = fleet(2, 0, 1_000_000);
    let copied = Copied::of(&lost);
    lost.carry_out(speaks(1, &["10.77.9.1/32"])).expect("free");
    let (mut desk, _) = copied.restored(&lost, None);
    desk.live(60);
    hear(&mut desk, 1);
    assert!(desk.sent.is_empty() && desk.to_peers.is_empty());
    desk.carry_out(Order::Confirm).expect("it is held");
    let now = version(&desk, 1);
    assert!(now > version(&lost, 1));
    assert_eq!(told(&mut desk).first(), Some(&(1, now)));
    desk.live(9);
    for number in [1, 2] {
        assert!(announced(&desk, number) >= 5);
    }
}

/// A fleet is told in a few seconds however slow the carousel is, and neither in one burst nor in its turn.
#[test]
fn many_owners_are_told_past_a_slow_carousel_and_not_all_at_once() {
    let mut desk = fleet(200, 150, 4_000);
    new_keys(&mut desk);
    let records = |told: Vec<(u32, u32)>| told.into_iter().filter(|it| it.1 > 0).count();
    let first = records(told(&mut desk));
    assert!((1..=70).contains(&first), "{first} at once");
    let next = desk.at.now.plus(Duration::from_millis(50));
    assert_eq!(desk.timeout, Some(next));
    desk.live(1);
    let all = first + records(told(&mut desk));
    assert!((150..160).contains(&all), "{all} of 150 in a second");
    assert!(desk.sent.len() < 20, "{}", desk.sent.len());
    // Many are not announced: each has its turn.
    desk.live(9);
    assert!((1..=200).all(|number| announced(&desk, number) < 3));
}
