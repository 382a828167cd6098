//! `interop/vectors/commands.json`: every command of this release, at ordinary and at the largest
//! numbers, with what is needed to make it again.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use keyfall_protocol::command::{
    Body, Command, FLOORS_MAX, FRAME_MAX, Floor, KeyDist, KeyDistContents, KeySet, Limits,
    ListedKey, RECIPIENTS_MAX, RENEW_ENTRIES_MAX, Renew, RenewEntry, SignerClass, SigningKey,
    Target, Time, Unverified,
};
use keyfall_protocol::ids::{
    Generation, GroupNumber, KeyEpoch, KeyId, SequenceNumber, StreamId, TerminalNumber, UnixSeconds,
};
use keyfall_protocol::keys::MasterKey;
use keyfall_protocol::schedule::{Cadence, FleetSchedule, Schedule};
use serde_json::{Map, Value, json};

use crate::cbor::Item;
use crate::fleet::{
    EPOCH, FOUNDED, P0, at, command, contents, generation, group, key_dist, key_set, obey_key,
    secret, signing_key, terminal, wrap_key,
};
use crate::stream::{Stream, octets32};
use crate::vectors::{check, hex};

/// One message with all that made it.
pub(crate) struct Made {
    pub(crate) name: &'static str,
    pub(crate) signer: &'static str,
    pub(crate) command: Command,
    pub(crate) frame: Vec<u8>,
    /// How many floors, entries, recipients or keys; tells messages of one name apart.
    count: Option<u64>,
    /// KEYDIST: what went in, for how many, and what was drawn.
    pub(crate) distribution: Option<(KeyDistContents, u32, Stream)>,
}

#[test]
fn commands_are_the_published_ones() {
    let messages: Vec<_> = all().iter().map(shown).collect();
    let seeds: Map<_, _> = ["root", "beat key", "keys key", "erase key"]
        .into_iter()
        .map(|name| {
            let key = signing_key(name);
            let value = json!({
                "seed": hex(&octets32(name)),
                "public": hex(key.public().as_bytes()),
                "name": hex(key.public().name().as_bytes()),
            });
            (name.to_owned(), value)
        })
        .collect();
    check(
        "commands.json",
        &json!({
            "about": "docs/PROTOCOL.md, \"Commands\": every message of this release. Octets are \
                      hex text. A 32-octet secret is SHA-256 of its name and four zero octets; \
                      terminal N's wrap key is that of \"wrap key of terminal N\", renewed G \
                      times. `drawn` is what a KEYDIST drew: key-encryption key, then IV.",
            "signers": seeds,
            "messages": messages,
        }),
    );
}

/// Every message in order; each is signed and at most one frame long.
pub(crate) fn all() -> Vec<Made> {
    let issued_at = FOUNDED + 5 * P0 + 7;
    let ordinary = |sequence, target, body| command(sequence, issued_at, 5, target, body);
    let no_cadence = KeyDistContents {
        cadence: None,
        lease_end: None,
        ..contents()
    };
    let mut made = vec![
        signed("TIME", "beat key", ordinary(1, Target::All, time(&[]))),
        signed(
            "TIME with floors",
            "beat key",
            ordinary(
                2,
                Target::All,
                time(&[floor(7, EPOCH, 12), floor(8, EPOCH + 1, 0)]),
            ),
        ),
        signed(
            "RENEW of all wrap keys",
            "beat key",
            ordinary(3, Target::All, renew_fleet()),
        ),
        signed(
            "RENEW of group 7",
            "beat key",
            ordinary(4, Target::Group(group(7)), renew_group()),
        ),
        signed(
            "RENEW without schedule and lease",
            "beat key",
            ordinary(5, Target::Group(group(7)), renew_bare()),
        ),
        distributed("KEYDIST to two", ordinary_dist(6), contents(), 2),
        distributed(
            "KEYDIST to one, without schedule and lease",
            ordinary_dist(7),
            no_cadence,
            1,
        ),
        distributed("KEYDIST to seventeen", ordinary_dist(8), contents(), 17),
        signed(
            "KEYSET with four keys",
            "root",
            command(
                22_774_400_000,
                FOUNDED,
                0,
                Target::All,
                Body::KeySet(key_set()),
            ),
        ),
        signed(
            "KEYSET whose keys speak for some groups",
            "root",
            command(
                22_774_400_001,
                FOUNDED + 1,
                0,
                Target::All,
                Body::KeySet(narrow_key_set()),
            ),
        ),
    ];
    made.extend(largest());
    made
}

/// Every number as large as it may be.
pub(crate) fn largest() -> Vec<Made> {
    let in_group = Target::Group(GroupNumber::MAX);
    let keyed = |recipients| {
        let (contents, command) = (largest_contents(), largest_dist());
        let made = distributed(LARGEST_DIST, command, contents, recipients);
        counted(recipients.into(), made)
    };
    let entries = |count: u64| {
        let entries = (0..count).map(|_| largest_entry()).collect();
        let command = largest_command(in_group, Body::Renew(Renew { entries }));
        counted(count, signed(LARGEST_RENEW, "beat key", command))
    };
    let floors = |count: u64| {
        let floors = (0..count).map(|_| largest_floor()).collect();
        let body = Body::Time(Time {
            seconds: at(u32::MAX),
            max_error_ms: u32::MAX,
            floors,
        });
        counted(
            count,
            signed(LARGEST_TIME, "beat key", largest_command(Target::All, body)),
        )
    };
    let key_sets = |keys: usize, groups: usize| {
        let body = Body::KeySet(largest_key_set(keys, groups));
        let made = signed(LARGEST_SET, "root", largest_command(Target::All, body));
        counted((keys + groups) as u64, made)
    };
    vec![
        floors(0),
        floors(1),
        floors(2),
        floors(FLOORS_MAX),
        entries(1),
        entries(2),
        entries(RENEW_ENTRIES_MAX),
        keyed(1),
        keyed(2),
        keyed(3),
        keyed(17),
        key_sets(3, 0),
        key_sets(4, 0),
        key_sets(4, 1),
    ]
}

pub(crate) const LARGEST_TIME: &str = "TIME at the largest numbers";
pub(crate) const LARGEST_RENEW: &str = "RENEW at the largest numbers";
pub(crate) const LARGEST_DIST: &str = "KEYDIST at the largest numbers";
pub(crate) const LARGEST_SET: &str = "KEYSET at the largest numbers";

pub(crate) fn time(floors: &[Floor]) -> Body {
    Body::Time(Time {
        seconds: at(FOUNDED + 5 * P0 + 7),
        max_error_ms: 1000,
        floors: floors.to_vec(),
    })
}

pub(crate) fn floor(number: u32, epoch: u32, reached: u32) -> Floor {
    Floor {
        kid: group(number).master_key_id(),
        epoch: KeyEpoch::new(epoch),
        generation: generation(reached),
    }
}

fn renew_fleet() -> Body {
    Body::Renew(Renew {
        entries: vec![RenewEntry {
            kid: KeyId::ALL_RANK_ONE,
            epoch: KeyEpoch::RANK_ONE,
            schedule: Schedule {
                generation: generation(5),
                activate_at: at(FOUNDED + 5 * P0),
                cadence: Cadence::new(1, P0),
            },
            lease_end: None,
        }],
    })
}

pub(crate) fn renew_group() -> Body {
    Body::Renew(Renew {
        entries: vec![RenewEntry {
            kid: group(7).master_key_id(),
            epoch: KeyEpoch::new(EPOCH),
            schedule: Schedule {
                generation: generation(13),
                activate_at: at(FOUNDED + 5 * P0 + 9),
                cadence: Cadence::new(1, 3600),
            },
            lease_end: Some(at(FOUNDED + 5 * P0 + 7 + 72 * 3600)),
        }],
    })
}

fn renew_bare() -> Body {
    Body::Renew(Renew {
        entries: vec![RenewEntry {
            kid: group(7).master_key_id(),
            epoch: KeyEpoch::new(EPOCH),
            schedule: Schedule {
                generation: generation(14),
                activate_at: at(FOUNDED + 5 * P0 + 60),
                cadence: None,
            },
            lease_end: None,
        }],
    })
}

fn narrow_key_set() -> KeySet {
    let mut key_set = key_set();
    key_set.version += 1;
    key_set.issued_at = at(FOUNDED + 1);
    for key in &mut key_set.keys[..2] {
        key.groups = vec![group(7), group(8)];
    }
    key_set
}

fn ordinary_dist(sequence: u64) -> impl FnOnce(Body) -> Command {
    move |body| command(sequence, FOUNDED + 5 * P0 + 7, 5, Target::Handles, body)
}

fn largest_dist() -> impl FnOnce(Body) -> Command {
    |body| largest_command(Target::Handles, body)
}

pub(crate) fn largest_command(target: Target, body: Body) -> Command {
    Command {
        stream: StreamId::new([0xff; 4]),
        sequence: SequenceNumber::new(u64::MAX),
        issued_at: at(u32::MAX),
        not_after: at(u32::MAX),
        target,
        body,
        fleet_generation: Generation::MAX,
    }
}

fn largest_schedule() -> Schedule {
    Schedule {
        generation: Generation::MAX,
        activate_at: at(u32::MAX),
        cadence: Cadence::new(64, u32::MAX),
    }
}

fn largest_entry() -> RenewEntry {
    RenewEntry {
        kid: GroupNumber::MAX.master_key_id(),
        epoch: KeyEpoch::new(u32::MAX),
        schedule: largest_schedule(),
        lease_end: Some(at(u32::MAX)),
    }
}

fn largest_floor() -> Floor {
    let RenewEntry {
        kid,
        epoch,
        schedule,
        ..
    } = largest_entry();
    Floor {
        kid,
        epoch,
        generation: schedule.generation,
    }
}

fn largest_contents() -> KeyDistContents {
    let group = GroupNumber::MAX;
    let octets = secret("master key of group 1073741823");
    KeyDistContents {
        key: MasterKey::new(group, KeyEpoch::new(u32::MAX), Generation::MAX, octets),
        activate_at: at(u32::MAX),
        cadence: largest_schedule().cadence,
        lease_end: Some(at(u32::MAX)),
    }
}

fn largest_key_set(keys: usize, groups: usize) -> KeySet {
    let listed = |public, class| ListedKey {
        public,
        class,
        not_before: at(u32::MAX),
        expires: at(u32::MAX),
        groups: (0..groups).map(|_| GroupNumber::MAX).collect(),
    };
    let kem = key_set().keys[3].public;
    let mut all = vec![
        listed(signing_key("beat key").public(), SignerClass::Beat),
        listed(signing_key("keys key").public(), SignerClass::Keys),
        listed(signing_key("erase key").public(), SignerClass::Erase),
        listed(kem, SignerClass::Kem),
    ];
    all.truncate(keys);
    KeySet {
        version: u32::MAX,
        issued_at: at(u32::MAX),
        keys: all,
        fleet_schedule: FleetSchedule {
            first: Generation::MAX,
            from: at(u32::MAX),
            period: u32::MAX,
        },
        stolen: Vec::new(),
        limits: Limits {
            longest_lease: u32::MAX,
            grace: u32::MAX,
            exclude_grace: u32::MAX,
            exclude_wait: Some(u32::MAX),
            dead_man: u32::MAX,
            erase_signatures: 4,
        },
    }
}

fn signed(name: &'static str, signer: &'static str, command: Command) -> Made {
    let frame = signing_key(signer).sign(&command);
    assert!(
        frame.len() <= FRAME_MAX,
        "{name} is {} octets long",
        frame.len()
    );
    Made {
        name,
        signer,
        command,
        frame,
        count: None,
        distribution: None,
    }
}

fn counted(count: u64, made: Made) -> Made {
    Made {
        count: Some(count),
        ..made
    }
}

fn distributed(
    name: &'static str,
    command: impl FnOnce(Body) -> Command,
    contents: KeyDistContents,
    recipients: u32,
) -> Made {
    let mut rng = Stream::new(name);
    // The wrap keys stand at the G that the command names; renewing one 2^31 times takes minutes,
    // so at the largest numbers they stand at 0 and only the sizes are of interest.
    let g = if name == LARGEST_DIST { 0 } else { 5 };
    let command = command(Body::KeyDist(key_dist(&contents, recipients, g, &mut rng)));
    let made = signed(name, "keys key", command);
    Made {
        distribution: Some((contents, recipients, rng)),
        ..made
    }
}

/// Every published frame reads, verifies, and reads to what was signed.
#[test]
fn frames_read_back_to_what_was_signed() {
    for made in all() {
        let frame = Unverified::decode(&made.frame).unwrap();
        assert_eq!(frame.signer(), signing_key(made.signer).public().name());
        let verified = frame.verify(&signing_key(made.signer).public()).unwrap();
        assert_eq!(*verified.command(), made.command, "{}", made.name);
        let other: SigningKey = signing_key("another key");
        let frame = Unverified::decode(&made.frame).unwrap();
        assert!(frame.verify(&other.public()).is_none(), "{}", made.name);
    }
}

/// REQUIREMENTS: each named one opens alone, a stranger opens nothing.
#[test]
fn distribution_opens_for_the_named_and_for_nobody_else() {
    for made in all() {
        let (Body::KeyDist(key_dist), Some((contents, recipients, _))) =
            (&made.command.body, &made.distribution)
        else {
            continue;
        };
        let g = if made.name == LARGEST_DIST { 0 } else { 5 };
        for number in 1..=*recipients {
            let opened = key_dist.open(&wrap_key(number, g)).unwrap();
            assert_eq!(opened.key.secret(), contents.key.secret());
            assert_eq!(opened.schedule(), contents.schedule());
            assert_eq!(opened.lease_end, contents.lease_end);
        }
        let carol = wrap_key(99, g);
        assert!(key_dist.open(&carol).is_none() && key_dist.open_any(&carol).is_none());
        // The right terminal at another generation has another handle and another key.
        let early = wrap_key(1, g + 1);
        assert!(key_dist.open(&early).is_none() && key_dist.open_any(&early).is_none());
    }
    assert_eq!(RECIPIENTS_MAX, 17);
}

fn shown(made: &Made) -> Value {
    let Item::Tag(18, inside) = Item::decode(&made.frame) else {
        panic!("COSE_Sign1")
    };
    let Item::Array(parts) = *inside else {
        panic!("COSE_Sign1")
    };
    let part = |place: usize| {
        let Item::Bytes(octets) = &parts[place] else {
            panic!("octets")
        };
        octets.clone()
    };
    let (protected, payload) = (part(0), part(2));
    let signed = Item::Array(vec![
        Item::Text("Signature1".to_owned()),
        Item::Bytes(protected.clone()),
        Item::Bytes(b"KF1/cmd".to_vec()),
        Item::Bytes(payload.clone()),
    ]);
    let mut value = json!({
        "name": made.count.map_or_else(|| made.name.to_owned(), |n| format!("{} ({n})", made.name)),
        "signer": made.signer,
        "command": command_shown(&made.command),
        "protected": hex(&protected),
        "payload": hex(&payload),
        "to_be_signed": hex(&signed.encode()),
        "signature": hex(&part(3)),
        "frame": hex(&made.frame),
        "size": made.frame.len(),
    });
    if let Some((contents, recipients, rng)) = &made.distribution {
        value["distribution"] = distribution_shown(made, contents, *recipients, rng);
    }
    value
}

fn command_shown(command: &Command) -> Value {
    let target = match command.target {
        Target::All => json!([0]),
        Target::Group(group) => json!([1, group.get()]),
        Target::Terminal(terminal) => json!([2, terminal.get()]),
        Target::Handles => json!([3]),
    };
    json!({
        "stream": hex(command.stream.as_bytes()),
        "sequence": command.sequence.get(),
        "issued_at": command.issued_at.get(),
        "not_after": command.not_after.get(),
        "type": command.body.type_number(),
        "target": target,
        "body": body_shown(&command.body),
        "g": command.fleet_generation.get(),
    })
}

fn body_shown(body: &Body) -> Value {
    match body {
        Body::Time(time) => json!({
            "seconds": time.seconds.get(),
            "max_error_ms": time.max_error_ms,
            "floors": time.floors.iter().map(|floor| json!([
                floor.kid.get(), floor.epoch.get(), floor.generation.get(),
            ])).collect::<Vec<_>>(),
        }),
        Body::Renew(renew) => json!({
            "entries": renew.entries.iter().map(|entry| json!([
                entry.kid.get(),
                entry.epoch.get(),
                entry.schedule.generation.get(),
                entry.schedule.activate_at.get(),
                entry.schedule.cadence.map(Cadence::step),
                entry.schedule.cadence.map(Cadence::period),
                entry.lease_end.map(UnixSeconds::get),
            ])).collect::<Vec<_>>(),
        }),
        Body::KeyDist(key_dist) => json!({
            "handles": key_dist.recipients().iter()
                .map(|recipient| hex(recipient.handle.as_bytes())).collect::<Vec<_>>(),
        }),
        Body::Order(order) => json!({
            "handle": hex(order.handle().as_bytes()),
        }),
        Body::Exclude(exclude) => json!({
            "terminals": exclude.terminals.iter().map(|it| it.get()).collect::<Vec<_>>(),
            "groups": exclude.groups.iter().map(|fresh| json!([
                fresh.group.get(), fresh.old.get(), fresh.new.get(),
            ])).collect::<Vec<_>>(),
        }),
        Body::KeySet(key_set) => json!({
            "version": key_set.version,
            "issued_at": key_set.issued_at.get(),
            "keys": key_set.keys.iter().map(|key| json!({
                "name": hex(key.public.name().as_bytes()),
                "public": hex(key.public.as_bytes()),
                "class": key.class.number(),
                "not_before": key.not_before.get(),
                "expires": key.expires.get(),
                "groups": key.groups.iter().map(|group| group.get()).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "fleet_schedule": [
                key_set.fleet_schedule.first.get(),
                key_set.fleet_schedule.from.get(),
                key_set.fleet_schedule.period,
            ],
            "longest_lease": key_set.limits.longest_lease,
            "grace": key_set.limits.grace,
            "exclude_grace": key_set.limits.exclude_grace,
            "exclude_wait": key_set.limits.exclude_wait,
            "dead_man": key_set.limits.dead_man,
            "erase_signatures": key_set.limits.erase_signatures,
            "stolen": key_set.stolen.iter().map(|name| hex(name.as_bytes())).collect::<Vec<_>>(),
        }),
    }
}

fn distribution_shown(
    made: &Made,
    contents: &KeyDistContents,
    recipients: u32,
    rng: &Stream,
) -> Value {
    let Body::KeyDist(key_dist) = &made.command.body else {
        panic!("a KEYDIST")
    };
    let (kek, iv) = (&rng.drawn[0], &rng.drawn[1]);
    let g = if made.name == LARGEST_DIST {
        0
    } else {
        made.command.fleet_generation.get()
    };
    let enc_structure = [&b"\x83\x67Encrypt\x43\xa1\x01\x03\x40"[..]].concat();
    json!({
        "drawn": [hex(kek), hex(iv)],
        "enc_structure": hex(&enc_structure),
        "plaintext": hex(&plaintext(key_dist, kek, iv, &enc_structure)),
        "contents": {
            "kid": contents.key.kid().get(),
            "epoch": contents.key.epoch().get(),
            "generation": contents.key.generation().get(),
            "key": hex(&contents.key.secret().expose()[..]),
            "activate_at": contents.activate_at.get(),
            "step": contents.cadence.map(Cadence::step),
            "period": contents.cadence.map(Cadence::period),
            "lease_end": contents.lease_end.map(UnixSeconds::get),
        },
        "recipients": (1..=recipients).map(|number| {
            let key = wrap_key(number, g);
            json!({
                "terminal": number,
                "wrap_generation": g,
                "wrap_key": hex(&key.secret().expose()[..]),
                "handle": hex(key.handle().as_bytes()),
            })
        }).collect::<Vec<_>>(),
    })
}

/// Opened with what was drawn, by nothing of ours.
pub(crate) fn plaintext(key_dist: &KeyDist, kek: &[u8], iv: &[u8], aad: &[u8]) -> Vec<u8> {
    let command = command(0, 0, 0, Target::Handles, Body::KeyDist(key_dist.clone()));
    let mut payload = Item::decode(&command.encode());
    let Item::Bytes(mut ciphertext) = payload.at(&[7, 2]).clone() else {
        panic!("ciphertext")
    };
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, kek).unwrap());
    let nonce = Nonce::try_assume_unique_for_key(iv).unwrap();
    key.open_in_place(nonce, Aad::from(aad), &mut ciphertext)
        .unwrap()
        .to_vec()
}

/// The names in the vectors that other files use too.
#[test]
fn secrets_of_the_vectors_come_from_their_names() {
    assert_eq!(
        obey_key(2).secret().expose(),
        &octets32("obey key of terminal 2")
    );
    assert_eq!(terminal(2).obey_key_id().get(), 8);
    assert!(TerminalNumber::new(0).is_none());
}
