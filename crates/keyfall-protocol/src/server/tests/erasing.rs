//! DELETE, INIT, LOCK, UNLOCK on their way through the server, and receipts (REQUIREMENTS R-065 to
//! W-17).

use super::desk::{Desk, exclude, terminal};
use crate::command::{
    Body, Command, OrderContents, OrderKind, Target, Unverified, VerifyingKey, sign_together,
};
use crate::command::{Limits, SigningKey};
use crate::ids::{StreamId, UnixSeconds};
use crate::keys::Secret;
use crate::receipt::Receipt;
use crate::server::{Deletion, Done, Item, KeySetDraft, Order, Refusal};

fn draft(desk: &mut Desk, number: u32, kind: OrderKind) -> Command {
    desk.server
        .draft_order(terminal(number), kind, false, &mut super::desk::counting())
        .expect("it may be drafted")
}

fn contents(desk: &Desk, number: u32, command: &Command) -> OrderContents {
    let Body::Order(order) = &command.body else {
        panic!("an order");
    };
    let obey = &desk.server.terminals[&terminal(number)].obey;
    order.open(obey).expect("for it")
}

fn issue(desk: &mut Desk, frame: Vec<u8>) -> Result<Done, Refusal> {
    desk.carry_out(Order::Issue { frame })
}

fn other_key(fill: u8) -> SigningKey {
    SigningKey::from_seed(Secret::init_with(|into| into.fill(fill)))
}

#[test]
fn a_draft_is_for_one_terminal_and_has_a_number_of_its_own() {
    let mut desk = Desk::with_group(2);
    let mut numbers = Vec::new();
    for kind in OrderKind::ALL {
        let command = draft(&mut desk, 2, kind);
        let said = contents(&desk, 2, &command);
        assert_eq!((said.terminal, said.kind), (terminal(2), kind));
        assert_eq!(command.target, Target::Handles);
        assert_eq!(command.issued_at, desk.at.wall);
        let expires = desk.server.fleet.key_set.keys[2].expires;
        assert!(command.not_after > desk.at.wall && command.not_after <= expires);
        let Body::Order(order) = &command.body else {
            panic!("an order");
        };
        assert!(
            order
                .open(&desk.server.terminals[&terminal(1)].obey)
                .is_none()
        );
        numbers.push(command.sequence);
    }
    desk.live(61);
    let wall = desk.at.wall;
    let heard = desk.heard();
    numbers.extend(
        heard
            .iter()
            .filter(|(item, _)| *item == Item::Time)
            .map(|(_, it)| it.sequence),
    );
    let mut desk = desk.restarted(wall);
    desk.store();
    numbers.push(draft(&mut desk, 1, OrderKind::Delete).sequence);
    numbers.sort();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    // Not beyond what is reserved on disk (invariant 1).
    desk.server.sequence = desk.server.fleet.sequence_reserved;
    let refused = desk.server.draft_order(
        terminal(1),
        OrderKind::Delete,
        false,
        &mut super::desk::counting(),
    );
    assert_eq!(refused, Err(Refusal::NotStored));
}

#[test]
fn what_is_issued_is_sent_as_it_was_signed_until_it_ends() {
    let mut desk = Desk::with_group(3);
    let frame = desk.signed(3, OrderKind::Init, false);
    let Ok(Done::Issued { kind, hash, .. }) = issue(&mut desk, frame.clone()) else {
        panic!("signed");
    };
    assert_eq!(
        (kind, hash),
        (OrderKind::Init, crate::receipt::frame_hash(&frame))
    );
    let item = Item::Erase(terminal(3));
    let sent = |desk: &mut Desk, seconds| {
        desk.sent.clear();
        desk.live(seconds);
        let frames = desk.sent.iter().filter(|(it, _)| *it == item);
        frames.map(|(_, frame)| frame.clone()).collect::<Vec<_>>()
    };
    assert_eq!(sent(&mut desk, 9), vec![frame.clone(); 5]);
    assert_eq!(sent(&mut desk, 60), vec![frame.clone(); 2]);
    // One that was switched off may come on at any time.
    let end = desk.server.terminals[&terminal(3)].orders[0].not_after;
    let late = desk.at.wall.plus(300 * 86_400);
    let mut desk = desk.restarted(late);
    desk.store();
    assert_eq!(sent(&mut desk, 31), vec![frame; 2]);
    let mut desk = desk.restarted(end.plus(1));
    desk.store();
    assert_eq!(sent(&mut desk, 31), Vec::<Vec<u8>>::new());
}

/// LOCK and UNLOCK: the newer one stands; a LOCK for as long as it is the newer one.
#[test]
fn locks_follow_each_other_by_their_versions() {
    let mut desk = Desk::with_group(2);
    let first = desk.signed(1, OrderKind::Lock, false);
    let second = desk.signed(1, OrderKind::Unlock, false);
    issue(&mut desk, first.clone()).expect("signed");
    // Drafted in the same second, before the first was known.
    let refused = issue(&mut desk, second);
    assert!(matches!(refused, Err(Refusal::NotNewer(_))), "{refused:?}");
    let refused = issue(&mut desk, first);
    assert!(matches!(refused, Err(Refusal::NotNewer(_))), "{refused:?}");
    let version = |desk: &Desk| {
        let lock = desk.server.terminals[&terminal(1)].lock();
        lock.map(|it| (it.kind, it.version.expect("it has one")))
    };
    let locked = version(&desk).expect("issued");
    assert_eq!(locked.0, OrderKind::Lock);
    let wall = desk.at.wall.plus(365 * 86_400);
    let mut desk = desk.restarted(wall);
    desk.store();
    let standing = |desk: &Desk| {
        let record = &desk.server.terminals[&terminal(1)];
        let orders = desk.server.standing_orders(record);
        orders.map(|order| order.kind).collect::<Vec<_>>()
    };
    assert_eq!(standing(&desk), [OrderKind::Lock]);
    let unlock = desk.signed(1, OrderKind::Unlock, false);
    issue(&mut desk, unlock.clone()).expect("newer");
    assert_eq!(standing(&desk), [OrderKind::Unlock]);
    assert!(version(&desk).expect("issued").1 > locked.1);
    desk.sent.clear();
    desk.live(1);
    let sent = desk
        .sent
        .iter()
        .find(|(item, _)| *item == Item::Lock(terminal(1)));
    assert_eq!(sent.expect("announced").1, unlock);
    // Faster than the clock, and with a clock that was set back: still newer.
    let mut desk = desk.restarted(UnixSeconds::new(wall.get() - 86_400));
    desk.store();
    for kind in [OrderKind::Lock, OrderKind::Unlock] {
        let frame = desk.signed(1, kind, false);
        issue(&mut desk, frame).expect("newer");
    }
    let wall = wall.plus(40 * 86_400);
    let desk = desk.restarted(wall);
    assert_eq!(standing(&desk), [], "an UNLOCK need not be said for ever");
}

/// A deletion and a lock stand side by side, for excluded terminals, too.
#[test]
fn an_excluded_terminal_can_still_be_told() {
    let mut desk = Desk::with_group(2);
    desk.carry_out(exclude(&[1])).expect("known");
    for kind in [OrderKind::Lock, OrderKind::Delete, OrderKind::Init] {
        let frame = desk.signed(1, kind, false);
        issue(&mut desk, frame).expect("signed");
    }
    let record = &desk.server.terminals[&terminal(1)];
    let standing: Vec<_> = desk
        .server
        .standing_orders(record)
        .map(|it| it.kind)
        .collect();
    assert_eq!(standing, [OrderKind::Init, OrderKind::Lock]);
}

/// R-068, W-17: what terminals would not obey is not sent.
#[test]
fn what_the_erase_class_did_not_sign_is_not_sent() {
    let mut desk = Desk::with_group(2);
    let good = draft(&mut desk, 1, OrderKind::Delete);
    let before = desk.state();
    let expect = |desk: &mut Desk, frame: Vec<u8>, matching: fn(&Refusal) -> bool| {
        let outcome = issue(desk, frame);
        assert!(matches!(&outcome, Err(it) if matching(it)), "{outcome:?}");
        assert_eq!(desk.state(), before);
    };
    let unlisted: fn(&Refusal) -> bool = |it| matches!(it, Refusal::NotAnEraseKey(_));
    let beat = desk.server.fleet.beat.sign(&good);
    expect(&mut desk, beat, unlisted);
    let keys = desk.server.fleet.keys.sign(&good);
    expect(&mut desk, keys, unlisted);
    let root = desk.root.sign(&good);
    expect(&mut desk, root, unlisted);
    let helped = sign_together(&good, &[&desk.erase, &desk.server.fleet.keys]);
    expect(&mut desk, helped, unlisted);
    let no_order: fn(&Refusal) -> bool = |it| *it == Refusal::NotAnOrder;
    let key_set = desk.server.fleet.key_set_frame.clone();
    expect(&mut desk, key_set, no_order);
    expect(&mut desk, b"nonsense".to_vec(), no_order);
    let signed = |desk: &Desk, change: fn(&mut Command)| {
        let mut command = good.clone();
        change(&mut command);
        desk.erase.sign(&command)
    };
    let elsewhere = signed(&desk, |it| it.stream = StreamId::new([9; 4]));
    expect(&mut desk, elsewhere, no_order);
    let to_all = signed(&desk, |it| it.target = Target::All);
    expect(&mut desk, to_all, no_order);
    let past = signed(&desk, |it| {
        it.not_after = UnixSeconds::new(it.issued_at.get() - 1)
    });
    expect(&mut desk, past, |it| *it == Refusal::OrderExpired);
    let mut broken = desk.erase.sign(&good);
    *broken.last_mut().expect("long") ^= 1;
    expect(&mut desk, broken, |it| *it == Refusal::BadSignature);
    // Sealed for a terminal of another fleet.
    let obey = crate::keys::ObeyKey::new(terminal(1), Secret::init_with(|into| into.fill(3)));
    let sealed = crate::command::SealedOrder::seal(
        &contents(&desk, 1, &good),
        &obey,
        &mut super::desk::counting(),
    );
    let mut command = good.clone();
    command.body = Body::Order(sealed);
    let foreign = desk.erase.sign(&command);
    expect(&mut desk, foreign, no_order);
    let fine = desk.erase.sign(&good);
    assert!(issue(&mut desk, fine).is_ok(), "the control");
}

/// W-17: two of three people.
#[test]
fn as_many_must_sign_as_the_limits_say() {
    let mut desk = Desk::with_group(2);
    let second = other_key(5);
    let limits = Limits {
        erase_signatures: 2,
        ..Limits::default()
    };
    let wanted = |erase: Vec<VerifyingKey>| KeySetDraft {
        erase,
        limits: Some(limits),
        ..KeySetDraft::default()
    };
    let frame = desk.signed(1, OrderKind::Delete, false);
    issue(&mut desk, frame).expect("one is enough today");
    let refused = desk.key_set(wanted(Vec::new()));
    assert!(
        matches!(refused, Err(Refusal::TooFewEraseKeys { .. })),
        "{refused:?}"
    );
    desk.live(100);
    let frame = desk.key_set(wanted(vec![second.public()])).expect("two");
    let Ok(Done::KeysInstalled { sign_again, .. }) = desk.carry_out(Order::InstallKeys { frame })
    else {
        panic!("signed");
    };
    assert_eq!(sign_again, [(terminal(1), OrderKind::Delete)]);
    let command = draft(&mut desk, 1, OrderKind::Delete);
    let ends = desk.server.fleet.key_set.key(desk.erase.public().name());
    let first = ends.expect("listed").expires;
    assert_eq!(command.not_after, first, "whoever of them signs");
    let alone = desk.erase.sign(&command);
    let refused = issue(&mut desk, alone);
    let too_few = Refusal::TooFewSignatures {
        signed: 1,
        needed: 2,
    };
    assert!(matches!(&refused, Err(it) if *it == too_few), "{refused:?}");
    let both = sign_together(&command, &[&desk.erase, &second]);
    assert!(Unverified::decode(&both).expect("ours").signers().count() == 2);
    assert!(issue(&mut desk, both).is_ok());
}

/// invariant 12: "sent" becomes "proved" by the terminal's own word alone.
#[test]
fn a_receipt_of_that_terminal_for_that_order_proves_it() {
    let mut desk = Desk::with_group(3);
    let deletion = |desk: &Desk, number| {
        let at = desk.at.wall;
        desk.server
            .exposure(terminal(number), at)
            .expect("it is")
            .deletion
    };
    assert_eq!(deletion(&desk, 1), Deletion::NotOrdered);
    let first = desk.signed(1, OrderKind::Delete, true);
    issue(&mut desk, first.clone()).expect("signed");
    let to_other = desk.signed(2, OrderKind::Delete, true);
    issue(&mut desk, to_other.clone()).expect("signed");
    desk.live(10);
    assert!(matches!(deletion(&desk, 1), Deletion::Sent { .. }));
    let before = desk.state();
    let good = desk.receipt(1, &first);
    let forged = {
        let obey = &desk.server.terminals[&terminal(2)].obey;
        Receipt::make(terminal(1), good.command, obey)
    };
    let mut unknown = good;
    unknown.terminal = terminal(3);
    let of_another = desk.receipt(1, &to_other);
    for (receipt, expected) in [
        (forged, Refusal::ForgedReceipt(terminal(1))),
        (unknown, Refusal::ForgedReceipt(terminal(3))),
        (of_another, Refusal::ReceiptOfAnother(terminal(1))),
    ] {
        let outcome = desk.carry_out(Order::Receipt { receipt });
        assert!(
            matches!(&outcome, Err(it) if *it == expected),
            "{outcome:?}"
        );
        assert_eq!(desk.state(), before);
    }
    // Ordered again meanwhile: the one that was obeyed counts.
    let again = desk.signed(1, OrderKind::Init, false);
    issue(&mut desk, again).expect("signed");
    let done = desk.carry_out(Order::Receipt { receipt: good });
    assert!(
        matches!(
            done,
            Ok(Done::Proved {
                kind: OrderKind::Delete,
                ..
            })
        ),
        "{done:?}"
    );
    let wall = desk.at.wall;
    let Deletion::Proved {
        kind, proved_at, ..
    } = deletion(&desk, 1)
    else {
        panic!("proved");
    };
    assert_eq!((kind, proved_at), (OrderKind::Delete, wall));
    assert!(matches!(deletion(&desk, 2), Deletion::Sent { .. }));
    let twice = desk.carry_out(Order::Receipt { receipt: good });
    assert!(
        matches!(twice, Err(Refusal::AlreadyProved { .. })),
        "{twice:?}"
    );
}

#[test]
fn only_a_deletion_leaves_a_receipt() {
    let mut desk = Desk::with_group(2);
    for kind in [OrderKind::Init, OrderKind::Lock, OrderKind::Unlock] {
        let refused =
            desk.server
                .draft_order(terminal(1), kind, true, &mut super::desk::counting());
        assert_eq!(refused, Err(Refusal::NoReceipt));
    }
}
