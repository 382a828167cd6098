//! `interop/vectors/confirmations.json`: STOP-ACK, START-ACK and BUNDLE, and datagrams near to them
//! that are refused.

use keyfall_protocol::command::HaltKind;
use keyfall_protocol::error::DecodeError;
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, SequenceNumber, TerminalNumber};
use keyfall_protocol::keys::{Secret, WrapKey};
use keyfall_protocol::sharing::{BUNDLE_MAX, Bundle, Confirmation};
use serde_json::{Value, json};

use crate::cbor::Item;
use crate::fleet::{secret, wrap_key};
use crate::malformed;
use crate::messages::halt;
use crate::vectors::{check, hex};

#[test]
fn confirmations_are_the_published_ones() {
    let by_two: Vec<_> = KINDS.into_iter().map(|kind| stated(2, 5, kind)).collect();
    let bundle = Bundle {
        confirmations: vec![by_two[0], stated(1, 5, HaltKind::Stop)],
    };
    let most = Bundle {
        confirmations: vec![largest(); BUNDLE_MAX],
    };
    let shown = [
        shown("STOP-ACK", 2, 5, &by_two[0]),
        shown("START-ACK", 2, 5, &by_two[1]),
        shown("START-ACK at the largest numbers", 0, 0, &largest()),
    ];
    let bundles = [("BUNDLE of two", &bundle), ("the largest BUNDLE", &most)];
    let bundles = bundles.map(|(name, bundle)| {
        let octets = bundle.encode();
        assert_eq!(Bundle::decode(&octets).as_ref(), Ok(bundle));
        let messages = bundle.confirmations.iter().map(|one| hex(&one.message()));
        json!({
            "name": name,
            "messages": messages.collect::<Vec<_>>(),
            "datagram": hex(&octets),
            "size": octets.len(),
        })
    });
    check(
        "confirmations.json",
        &json!({
            "about": "docs/PROTOCOL.md, \"Confirmations\": what members of a group answer to STOP and \
                      START. `wrap_key` at `wrap_generation` made it; the octets of the one at the \
                      largest numbers are those of \"wrap key of terminal 16777215\" at generation \
                      2^31, and exist in vectors only.",
            "confirmations": shown,
            "bundles": bundles,
            "refused": refused(&by_two[0], &bundle),
        }),
    );
}

fn shown(name: &str, number: u32, reached: u32, made: &Confirmation) -> Value {
    let wrap = match number {
        0 => largest_wrap(),
        _ => wrap_key(number, reached),
    };
    assert!(made.check(&wrap));
    let octets = made.encode();
    assert_eq!(Confirmation::decode(&octets).as_ref(), Ok(made));
    let numbers = [
        u64::from(made.group.get()),
        made.transaction.get(),
        u64::from(made.epoch.get()),
        u64::from(made.generation.get()),
    ];
    let type_number = match made.kind {
        HaltKind::Stop => 5,
        HaltKind::Start => 6,
    };
    let signed = [type_number].into_iter().chain(numbers);
    json!({
        "name": name,
        "wrap_kid": wrap.kid().get(),
        "wrap_generation": wrap.generation().get(),
        "wrap_key": hex(&wrap.secret().expose()[..]),
        "type": type_number,
        "id": hex(&made.id),
        "group": made.group.get(),
        "transaction": made.transaction.get(),
        "epoch": made.epoch.get(),
        "generation": made.generation.get(),
        "authenticated": hex(&Item::Array(signed.map(Item::Uint).collect()).encode()),
        "mac": hex(&made.mac),
        "datagram": hex(&octets),
        "size": octets.len(),
    })
}

/// Each with its name of "What a decoder refuses".
fn refused(one: &Confirmation, bundle: &Bundle) -> Vec<Value> {
    let change = |name: &'static str, message: &[u8], change: &dyn Fn(&mut Item)| {
        let mut whole = Item::decode(message);
        change(&mut whole);
        (name, [&[0; 4][..], &whole.encode()].concat())
    };
    let single = |name, change_it: &dyn Fn(&mut Item)| change(name, &one.message(), change_it);
    let many = |name, change_it: &dyn Fn(&mut Item)| change(name, &bundle.message(), change_it);
    let octets = |len: usize| Item::Bytes(vec![0; len]);
    let uint = Item::Uint;
    let datagram = one.encode();
    let singles = [
        ("nothing", Vec::new()),
        ("the marker alone", vec![0; 4]),
        ("without the marker", one.message()),
        (
            "a marker of three octets",
            [&[0; 3][..], &one.message()].concat(),
        ),
        ("an octet after the end", [&datagram[..], &[0]].concat()),
        (
            "longer than a datagram",
            [&datagram[..], &[0; 1200]].concat(),
        ),
        single("version 2", &|it| *it.at(&[0]) = uint(2)),
        single("under the suite psk", &|it| *it.at(&[1]) = uint(1)),
        single("type 4", &|it| *it.at(&[2]) = uint(4)),
        single("id of 7 octets", &|it| *it.at(&[3]) = octets(7)),
        single("group 0", &|it| *it.at(&[4]) = uint(0)),
        single("transaction as text", &|it| {
            *it.at(&[5]) = Item::Text("5".to_owned());
        }),
        single("epoch of 33 bits", &|it| *it.at(&[6]) = uint(1 << 32)),
        single("generation above 2^31", &|it| {
            *it.at(&[7]) = uint((1 << 31) + 1);
        }),
        single("authentication value of 16 octets", &|it| {
            *it.at(&[8]) = octets(16);
        }),
        single("one item too many", &|it| it.items().push(Item::Null)),
        single("long form of a number", &|it| {
            *it.at(&[2]) = Item::Raw(vec![0x18, 5]);
        }),
    ];
    let bundles = [
        many("BUNDLE of nothing", &|it| it.at(&[3]).items().clear()),
        many("BUNDLE of seventeen", &|it| {
            let first = it.at(&[3, 0]).clone();
            *it.at(&[3]).items() = vec![first; 17];
        }),
        many("BUNDLE that holds a datagram", &|it| {
            *it.at(&[3, 0]) = Item::Bytes(one.encode());
        }),
        many("BUNDLE in a BUNDLE", &|it| {
            *it.at(&[3, 0]) = Item::Bytes(bundle.message());
        }),
        many("BUNDLE of another type", &|it| *it.at(&[2]) = uint(12)),
    ];
    let single = |octets: &[u8]| Confirmation::decode(octets).err();
    let bundle = |octets: &[u8]| Bundle::decode(octets).err();
    let mut shown = judged("confirmation", &singles, &single);
    shown.extend(judged("bundle", &bundles, &bundle));
    shown
}

fn judged(
    kind: &str,
    refused: &[(&str, Vec<u8>)],
    fault: &dyn Fn(&[u8]) -> Option<DecodeError>,
) -> Vec<Value> {
    let shown = |(name, octets): &(&str, Vec<u8>)| {
        let fault = fault(octets).unwrap_or_else(|| panic!("{name} was taken"));
        malformed::shown(kind, name, octets, fault)
    };
    refused.iter().map(shown).collect()
}

fn stated(number: u32, reached: u32, kind: HaltKind) -> Confirmation {
    let halt = halt();
    let key = (halt.epoch, halt.generation);
    Confirmation::make(
        &wrap_key(number, reached),
        kind,
        halt.group,
        halt.transaction,
        key,
    )
}

fn largest() -> Confirmation {
    Confirmation::make(
        &largest_wrap(),
        HaltKind::Start,
        GroupNumber::MAX,
        SequenceNumber::new(u64::MAX),
        (KeyEpoch::new(u32::MAX), Generation::MAX),
    )
}

fn largest_wrap() -> WrapKey {
    let octets: Secret<32> = secret("wrap key of terminal 16777215");
    WrapKey::new(TerminalNumber::MAX, Generation::MAX, octets)
}

const KINDS: [HaltKind; 2] = [HaltKind::Stop, HaltKind::Start];
