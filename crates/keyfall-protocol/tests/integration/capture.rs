//! `interop/vectors/capture.json`: what was heard on a carrier in one short run, in the format of
//! `keyfall demo --capture FILE`, and what the terminals say of their keys afterwards.

use keyfall_protocol::command::{
    Body, KeyDist, OrderContents, OrderKind, Renew, RenewEntry, SealedOrder, Target,
};
use keyfall_protocol::enrolment::{EnrolmentCode, SealedPackage};
use keyfall_protocol::ids::{KeyEpoch, KeyId, Tick};
use keyfall_protocol::keys::MasterKey;
use keyfall_protocol::receipt::Receipt;
use keyfall_protocol::schedule::{Cadence, Schedule};
use keyfall_protocol::terminal::{Input, Output, Terminal, TerminalState};
use serde_json::{Value, json};

use crate::fleet::{
    EPOCH, FOUNDED, P0, at, command, contents, generation, group, key_dist, key_set_frame,
    master_key, obey_key, package, secret, signing_key, terminal, wrap_key,
};
use crate::messages::{delete, exclude, floor, time};
use crate::stream::Stream;
use crate::vectors::{check, hex};

const CARRIER: &str = "udp://239.255.70.77:47700?if=127.0.0.1&ttl=1";

#[test]
fn captured_run_is_the_published_one() {
    let frames = frames();
    let fleet = [(1, "alice"), (2, "bob"), (3, "carol")];
    let packages = fleet.map(|(number, name)| (number, name, package_of(number, name)));
    let mut machines = packages.each_ref().map(|(_, _, (package, code))| {
        let sealed = SealedPackage::decode(package).unwrap();
        let opened = sealed.open_under(code).unwrap();
        Terminal::enrol(opened, Tick::from_secs(1)).unwrap()
    });
    let mut receipt = None;
    for (place, frame) in frames.iter().enumerate() {
        if place == LOSS {
            let [alice, bob, carol] = machines.each_ref().map(status_of);
            assert_eq!(alice["groups"][0], bob["groups"][0]);
            assert_eq!(carol["groups"], json!([]));
        }
        for machine in &mut machines {
            // Bob misses the renewal to 13 and all that names it; Carol hears everything.
            let bob = machine.identity().number == terminal(2);
            if !(bob && (3..=5).contains(&place)) {
                let left = hear(machine, frame);
                receipt = receipt.or(left);
            }
        }
    }
    let mut status = machines.each_ref().map(status_of);
    assert_eq!(status[0]["groups"][0]["epoch"], EPOCH + 5 * P0);
    assert_eq!(status[1]["groups"][0]["epoch"], EPOCH);
    let states = status.each_ref().map(|status| status["state"].clone());
    assert_eq!(states, ["ready", "excluded", "deleted"]);
    status[2]["deleted"] = json!({"cause": "delete", "receipt": receipt.unwrap().to_string()});
    let names = fleet.map(|(_, name)| name.to_owned());
    check(
        "capture.json",
        &json!({
            "about": "docs/PROTOCOL.md, \"A captured run\".",
            "root": hex(signing_key("root").public().as_bytes()),
            "packages": packages.each_ref().map(|(_, name, (package, code))| json!({
                "name": name, "package_hex": hex(package), "code": code.shown().as_str(),
            })),
            "frames": frames.iter().map(|frame| hex(frame)).collect::<Vec<_>>(),
            "status": names.into_iter().zip(status).collect::<serde_json::Map<_, _>>(),
        }),
    );
}

/// KEYSET, TIME, KEYDIST at generation 12 under G 5; renewals of the group to 13, of G to 6, the
/// KEYDIST made anew; the group at 16. Then alice's wrap key goes one ahead, bob is excluded, and
/// carol, who was in no group, is told to delete her keys.
fn frames() -> Vec<Vec<u8>> {
    let began = FOUNDED + 5 * P0 + 10;
    let mut rng = Stream::new("capture");
    let mut dist = |reached: u32, g: u32| {
        let mut contents = contents();
        contents.key = master_key(7, reached);
        contents.cadence = None;
        contents.activate_at = at(began);
        Body::KeyDist(key_dist(&contents, 2, g, &mut rng))
    };
    let (first, second) = (dist(12, 5), dist(13, 6));
    let mut fresh = contents();
    let secret = secret("master key of group 7 without bob");
    fresh.key = MasterKey::new(
        group(7),
        KeyEpoch::new(EPOCH + 5 * P0),
        generation(0),
        secret,
    );
    fresh.activate_at = at(began + 90);
    let alice = wrap_key(1, 7);
    let without_bob = Body::KeyDist(KeyDist::seal(&fresh, [&alice].into_iter(), &mut rng));
    let order = OrderContents {
        terminal: terminal(3),
        receipt_wanted: true,
        ..delete(OrderKind::Delete)
    };
    let order = SealedOrder::seal(&order, &obey_key(3), &mut rng);
    let sign = |signer: &str, sequence, seconds, g, target, body| {
        signing_key(signer).sign(&command(sequence, began + seconds, g, target, body))
    };
    let group_7 = Target::Group(group(7));
    vec![
        key_set_frame(),
        sign("beat key", 1, 0, 5, Target::All, beacon(began, 12)),
        sign("keys key", 2, 1, 5, Target::Handles, first),
        sign(
            "beat key",
            3,
            20,
            5,
            group_7,
            renew(group(7).master_key_id(), EPOCH, 13, began + 22),
        ),
        sign(
            "beat key",
            4,
            40,
            6,
            Target::All,
            renew(KeyId::ALL_RANK_ONE, 0, 6, began + 40),
        ),
        sign("keys key", 5, 41, 6, Target::Handles, second),
        sign(
            "beat key",
            6,
            60,
            6,
            group_7,
            renew(group(7).master_key_id(), EPOCH, 16, began + 62),
        ),
        sign("beat key", 7, 70, 6, Target::All, beacon(began + 70, 16)),
        sign(
            "beat key",
            8,
            80,
            6,
            Target::Terminal(terminal(1)),
            renew(terminal(1).wrap_key_id(), 0, 7, began + 80),
        ),
        sign("keys key", 9, 90, 6, Target::All, exclude(&[2], 1)),
        sign("keys key", 10, 91, 6, Target::Handles, without_bob),
        sign("erase key", 11, 100, 6, Target::Handles, Body::Order(order)),
    ]
}

/// The frame from which on terminals are lost.
const LOSS: usize = 8;

fn beacon(seconds: u32, reached: u32) -> Body {
    let Body::Time(mut time) = time(&[floor(7, EPOCH, reached)]) else {
        panic!("a TIME");
    };
    time.seconds = at(seconds);
    Body::Time(time)
}

fn renew(kid: KeyId, epoch: u32, reached: u32, activate_at: u32) -> Body {
    let schedule = Schedule {
        generation: generation(reached),
        activate_at: at(activate_at),
        cadence: Cadence::new(1, P0),
    };
    let entry = RenewEntry {
        kid,
        epoch: KeyEpoch::new(epoch),
        schedule,
        lease_end: None,
    };
    Body::Renew(Renew {
        entries: vec![entry],
    })
}

fn package_of(number: u32, name: &str) -> (Vec<u8>, EnrolmentCode) {
    let code = EnrolmentCode::random(&mut Stream::new(&format!("code of terminal {number}")));
    let mut rng = Stream::new(&format!("package of terminal {number}"));
    (
        package(number, name, &[CARRIER]).seal_under(&code, &mut rng),
        code,
    )
}

fn hear(machine: &mut Terminal, frame: &[u8]) -> Option<Receipt> {
    let mut rng = Stream::new("machine");
    let now = Tick::from_secs(2);
    machine
        .handle_input(now, &mut rng, Input::Datagram(frame))
        .unwrap();
    loop {
        match machine.poll_output() {
            Output::Store(id, _) => {
                machine
                    .handle_input(now, &mut rng, Input::Stored(id))
                    .unwrap();
            }
            Output::Event(_) | Output::ToServer(_) => {}
            Output::Probe { .. } | Output::Answer { .. } | Output::ToPeer { .. } => {}
            Output::Erase(erase) => return erase.receipt,
            Output::Timeout { .. } => return None,
        }
    }
}

/// As `keyfall terminal status --json` shows it, as far as a reader needs it.
fn status_of(machine: &Terminal) -> Value {
    let number = machine.identity().number;
    let wrap = machine.wrap_key().map(|(_, wrap)| wrap.to_string());
    let obey = machine.obey_fingerprint().map(|obey| obey.to_string());
    let state = machine.state();
    let state = if state == TerminalState::Erased {
        "deleted"
    } else {
        state.name()
    };
    let groups = machine.groups();
    let groups = groups.iter().map(|status| {
        json!({
            "group": status.group.get(),
            "kid": status.group.master_key_id().get(),
            "rank": 2,
            "epoch": status.epoch.get(),
            "generation": status.generation.get(),
            "fingerprint": status.fingerprint.to_string(),
        })
    });
    json!({
        "terminal": number.get(),
        "name": machine.identity().name,
        "state": state,
        "fleet_generation": machine.fleet_generation().get(),
        "wrap_kid": number.wrap_key_id().get(),
        "wrap_fingerprint": wrap,
        "obey_kid": number.obey_key_id().get(),
        "obey_fingerprint": obey,
        "groups": groups.collect::<Vec<_>>(),
    })
}

/// What the status of the capture says is what the keys of the vectors are.
#[test]
fn fingerprints_of_the_capture_are_those_of_the_named_keys() {
    let frames = frames();
    let (package, code) = package_of(2, "bob");
    let opened = SealedPackage::decode(&package)
        .unwrap()
        .open_under(&code)
        .unwrap();
    let mut machine = Terminal::enrol(opened, Tick::from_secs(1)).unwrap();
    for frame in &frames[..LOSS] {
        assert_eq!(hear(&mut machine, frame), None);
    }
    let obey = obey_key(2).fingerprint();
    assert_eq!(machine.obey_fingerprint(), Some(obey));
    let wrap = wrap_key(2, 6).fingerprint();
    assert_eq!(machine.wrap_key(), Some((generation(6), wrap)));
    assert_eq!(machine.fleet_generation(), generation(6));
    assert_eq!(
        machine.groups()[0].fingerprint,
        master_key(7, 16).fingerprint()
    );
    assert_eq!(machine.identity().number, terminal(2));
}
