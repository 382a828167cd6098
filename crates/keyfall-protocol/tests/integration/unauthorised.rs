//! Frames that are well formed and that no terminal may obey, because of who signed them: for
//! `interop/vectors/commands.json`, judged by a terminal.

use keyfall_protocol::DropReason;
use keyfall_protocol::command::{Body, Command, OrderKind, SealedOrder, Target, sign_together};
use keyfall_protocol::ids::{Generation, Tick};
use keyfall_protocol::terminal::{Input, Terminal};
use serde_json::{Value, json};

use crate::fleet::{
    FOUNDED, P0, at, command, contents, group, key_dist, key_set, obey_key, package, signing_key,
};
use crate::messages::{delete, exclude, made_named, time};
use crate::stream::Stream;
use crate::vectors::hex;

struct Case {
    name: &'static str,
    /// The KEYSET that the terminal holds.
    key_set: &'static str,
    frame: Vec<u8>,
    reason: DropReason,
}

/// Each of them, and why terminal 2 at G 5 does not obey it.
pub(crate) fn shown() -> Vec<Value> {
    let judged = |case: &Case| {
        let found = reason(case.key_set, &case.frame);
        assert_eq!(found, Some(case.reason), "{}", case.name);
        json!({
            "name": case.name,
            "key_set": case.key_set,
            "frame": hex(&case.frame),
            "reason": case.reason.name(),
        })
    };
    cases().iter().map(judged).collect()
}

/// What is refused above is refused for its signers: the same under the right ones is not.
#[test]
fn the_same_by_the_right_signers_is_obeyed() {
    let one = sign(&["erase key"], order());
    assert_eq!(reason(FOUR, &one), None);
    let two = sign(&["erase key", "second erase key"], order());
    assert_eq!(reason(STRICT, &two), None);
    let excluded = |signers: &[&str]| sign(signers, exclusion());
    assert_eq!(reason(FOUR, &excluded(&["keys key"])), None);
    assert_eq!(reason(FOUR, &excluded(&["keys key", "erase key"])), None);
    let three = ["keys key", "erase key", "second erase key"];
    assert_eq!(reason(STRICT, &excluded(&three)), None);
    assert_eq!(reason(FOUR, &sign(&["beat key"], beacon())), None);
    assert_eq!(reason(FOUR, &sign(&["keys key"], distribution())), None);
}

/// PROTOCOL 6.11: a KEYSET past its end, at any G and for any target, is obeyed once, and no older
/// one.
#[test]
fn a_keyset_is_judged_by_the_root_and_the_version_alone() {
    let mut newer = made_named(STRICT).command;
    newer.not_after = newer.issued_at;
    newer.fleet_generation = Generation::MAX;
    newer.target = Target::Group(group(99));
    assert_eq!(reason(FOUR, &sign(&["root"], newer.clone())), None);
    let held = Some(DropReason::KeySetNotNewer);
    assert_eq!(reason(STRICT, &sign(&["root"], newer)), held);
    assert_eq!(reason(STRICT, &made_named(FOUR).frame), held);
}

fn cases() -> Vec<Case> {
    let case = |name, key_set, signers: &[&str], command, reason| Case {
        name,
        key_set,
        frame: sign(signers, command),
        reason,
    };
    use DropReason::{
        AboveBound, BadSignature, SignerExpired, TooFewSignatures, UnknownSigner, WrongClass,
    };
    let mut too_high = beacon();
    let expires = key_set().keys[0].expires;
    let bound = key_set().fleet_schedule.bound(expires);
    too_high.fleet_generation = bound.next();
    let mut highest = beacon();
    highest.fleet_generation = bound;
    assert_eq!(reason(FOUR, &sign(&["beat key"], highest)), None);
    let mut too_late = beacon();
    too_late.issued_at = expires.plus(1);
    too_late.not_after = expires.plus(2);
    let mut forged = sign(&["erase key", "second erase key"], order());
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let newer = made_named(STRICT).command;
    vec![
        case(
            "DELETE by the keys key",
            FOUR,
            &["keys key"],
            order(),
            WrongClass,
        ),
        case(
            "DELETE by the beat key",
            FOUR,
            &["beat key"],
            order(),
            WrongClass,
        ),
        case(
            "DELETE by the root",
            FOUR,
            &["root"],
            order(),
            UnknownSigner,
        ),
        case(
            "DELETE by the erase key and the keys key",
            FOUR,
            &["erase key", "keys key"],
            order(),
            WrongClass,
        ),
        case(
            "DELETE by one erase key where two must sign",
            STRICT,
            &["erase key"],
            order(),
            TooFewSignatures,
        ),
        case(
            "DELETE by an erase key that is listed and one that is not",
            FOUR,
            &["erase key", "second erase key"],
            order(),
            UnknownSigner,
        ),
        Case {
            name: "DELETE with one good signature and one bad",
            key_set: STRICT,
            frame: forged,
            reason: BadSignature,
        },
        case(
            "EXCLUDE by the erase key alone",
            FOUR,
            &["erase key"],
            exclusion(),
            WrongClass,
        ),
        case(
            "EXCLUDE by the beat key",
            FOUR,
            &["beat key"],
            exclusion(),
            WrongClass,
        ),
        case(
            "EXCLUDE by the keys key and the beat key",
            FOUR,
            &["keys key", "beat key"],
            exclusion(),
            WrongClass,
        ),
        case(
            "EXCLUDE by the keys key and one erase key where two must sign",
            STRICT,
            &["keys key", "erase key"],
            exclusion(),
            WrongClass,
        ),
        case(
            "EXCLUDE by a key that the KEYSET dropped",
            "KEYSET with stolen keys",
            &["keys key"],
            exclusion(),
            UnknownSigner,
        ),
        case(
            "TIME by the keys key",
            FOUR,
            &["keys key"],
            beacon(),
            WrongClass,
        ),
        case(
            "TIME by two keys",
            FOUR,
            &["beat key", "keys key"],
            beacon(),
            WrongClass,
        ),
        case(
            "KEYDIST by the beat key",
            FOUR,
            &["beat key"],
            distribution(),
            WrongClass,
        ),
        case(
            "TIME with G above the bound",
            FOUR,
            &["beat key"],
            too_high,
            AboveBound,
        ),
        case(
            "TIME signed after its key's end",
            FOUR,
            &["beat key"],
            too_late,
            SignerExpired,
        ),
        case(
            "KEYSET by the keys key",
            FOUR,
            &["keys key"],
            newer.clone(),
            UnknownSigner,
        ),
        case(
            "KEYSET by another root",
            FOUR,
            &["another root"],
            newer,
            UnknownSigner,
        ),
    ]
}

const FOUR: &str = "KEYSET with four keys";
const STRICT: &str = "KEYSET that asks for two signatures";

fn sign(signers: &[&str], command: Command) -> Vec<u8> {
    let keys: Vec<_> = signers.iter().map(|name| signing_key(name)).collect();
    sign_together(&command, &keys.iter().collect::<Vec<_>>())
}

fn ordinary(target: Target, body: Body) -> Command {
    command(100, FOUNDED + 6 * P0 + 7, 5, target, body)
}

fn order() -> Command {
    let mut rng = Stream::new("order by anybody");
    let order = SealedOrder::seal(&delete(OrderKind::Delete), &obey_key(2), &mut rng);
    ordinary(Target::Handles, Body::Order(order))
}

fn exclusion() -> Command {
    ordinary(Target::All, exclude(&[1000], 1))
}

fn beacon() -> Command {
    let Body::Time(mut beacon) = time(&[]) else {
        panic!("a TIME")
    };
    beacon.seconds = at(FOUNDED + 6 * P0 + 7);
    ordinary(Target::All, Body::Time(beacon))
}

fn distribution() -> Command {
    let mut rng = Stream::new("KEYDIST by anybody");
    let dist = key_dist(&contents(), 2, 5, &mut rng);
    ordinary(Target::Handles, Body::KeyDist(dist))
}

/// Why terminal 2 with that KEYSET refuses the frame; `None`: it obeys.
fn reason(key_set: &str, frame: &[u8]) -> Option<DropReason> {
    let mut package = package(2, "bob", &[]);
    package.identity.key_set_frame = made_named(key_set).frame;
    assert!(package.wrap.generation() > Generation::ZERO);
    let mut machine = Terminal::enrol(package, Tick::from_secs(1)).unwrap();
    let mut rng = Stream::new("machine");
    let now = Tick::from_secs(2);
    machine
        .handle_input(now, &mut rng, Input::Datagram(frame))
        .unwrap();
    let drops: Vec<_> = machine.drops().iter().collect();
    assert!(drops.len() <= 1);
    drops.first().map(|&(reason, ..)| reason)
}
