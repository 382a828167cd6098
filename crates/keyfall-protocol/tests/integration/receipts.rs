//! `interop/vectors/receipts.json`: what a terminal leaves behind when it obeyed a DELETE.

use keyfall_protocol::DecodeError;
use keyfall_protocol::ids::Tick;
use keyfall_protocol::receipt::{Receipt, frame_hash};
use keyfall_protocol::terminal::{EraseCause, Input, Output, Terminal};
use serde_json::{Value, json};

use crate::cbor::Item;
use crate::fleet::{obey_key, package, terminal};
use crate::messages::{Made, made_named};
use crate::stream::Stream;
use crate::vectors::{check, hex};

#[test]
fn receipts_are_the_published_ones() {
    let made = ["DELETE that wants a receipt", "DELETE that two keys sign"].map(made_named);
    let shown: Vec<_> = made.iter().map(shown).collect();
    let receipt = receipt_of(&made[0].frame);
    let mut other_command = receipt;
    other_command.command = frame_hash(&made[1].frame);
    let mut other_terminal = receipt;
    other_terminal.terminal = terminal(3);
    let other_key = Receipt::make(terminal(2), receipt.command, &obey_key(3));
    let not_from_2 = [
        ("about another command", other_command),
        ("of another terminal", other_terminal),
        ("made with another key", other_key),
    ]
    .map(|(name, forged)| {
        assert!(!forged.is_from(&obey_key(2)), "{name}");
        json!({"name": name, "octets": hex(&forged.encode()), "text": forged.to_string()})
    });
    check(
        "receipts.json",
        &json!({
            "about": "docs/PROTOCOL.md, \"Receipt\": of the frames of commands.json with these \
                      names; and some that read well and prove nothing under the same obey key.",
            "obey_key": hex(&obey_key(2).secret().expose()[..]),
            "receipts": shown,
            "not_from_it": not_from_2,
        }),
    );
}

/// REQUIREMENTS A-19: the terminal leaves it as it goes, where it is wanted and nowhere else.
#[test]
fn a_terminal_leaves_the_published_receipt() {
    let wanted = made_named("DELETE that wants a receipt").frame;
    assert_eq!(erased_by(&wanted), Some(receipt_of(&wanted)));
    assert_eq!(erased_by(&made_named("DELETE").frame), None);
}

fn shown(made: &Made) -> Value {
    let receipt = receipt_of(&made.frame);
    let key = obey_key(2).receipt_key(receipt.command);
    json!({
        "command": made.name,
        "terminal": 2,
        "hash": hex(&receipt.command),
        "key": hex(&key.expose()[..]),
        "octets": hex(&receipt.encode()),
        "text": receipt.to_string(),
    })
}

/// Terminal 2's.
fn receipt_of(frame: &[u8]) -> Receipt {
    Receipt::make(terminal(2), frame_hash(frame), &obey_key(2))
}

fn erased_by(frame: &[u8]) -> Option<Receipt> {
    let mut machine = Terminal::enrol(package(2, "bob", &[]), Tick::from_secs(1)).unwrap();
    let mut rng = Stream::new("machine");
    machine
        .handle_input(Tick::from_secs(2), &mut rng, Input::Datagram(frame))
        .unwrap();
    let Output::Erase(erase) = machine.poll_output() else {
        panic!("not erased")
    };
    assert_eq!((erase.everything, erase.cause), (false, EraseCause::Delete));
    erase.receipt
}

/// Octets and texts that are no receipt; for `malformed.json`.
pub(crate) fn malformed() -> Vec<(&'static str, Vec<u8>, DecodeError)> {
    let receipt = receipt_of(&made_named("DELETE that wants a receipt").frame);
    let octets = receipt.encode();
    let change = |name, change: &dyn Fn(&mut Vec<Item>)| {
        let mut whole = Item::decode(&octets);
        change(whole.items());
        (name, whole.encode())
    };
    let text = receipt.to_string();
    vec![
        ("nothing", Vec::new()),
        ("an octet after the end", [&octets[..], &[0]].concat()),
        ("cut by one octet", octets[..octets.len() - 1].to_vec()),
        change("two parts", &|parts| drop(parts.pop())),
        change("four parts", &|parts| parts.push(Item::Null)),
        change("terminal 0", &|parts| parts[0] = Item::Uint(0)),
        change("terminal of 25 bits", &|parts| {
            parts[0] = Item::Uint(1 << 24)
        }),
        change("long form of the terminal", &|parts| {
            parts[0] = Item::Raw(vec![0x18, 2]);
        }),
        change("hash of 31 octets", &|parts| {
            parts[1] = Item::Bytes(vec![0; 31])
        }),
        change("MAC of 33 octets", &|parts| {
            parts[2] = Item::Bytes(vec![0; 33])
        }),
        ("text without digits", b"KF1-RECEIPT-".to_vec()),
        (
            "text cut by a digit",
            text.as_bytes()[..text.len() - 1].to_vec(),
        ),
        (
            "text with a letter that is no digit",
            text.replace("KF1-RECEIPT-8", "KF1-RECEIPT-g").into_bytes(),
        ),
        (
            "another text",
            text.replace("RECEIPT", "RECIPE").into_bytes(),
        ),
    ]
    .into_iter()
    .map(|(name, octets)| {
        let fault = Receipt::decode(&octets).expect_err(name);
        (name, octets, fault)
    })
    .collect()
}
