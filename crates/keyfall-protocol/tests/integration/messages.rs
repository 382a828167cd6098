//! One message of every kind, with all that made it: what `interop/vectors/commands.json` shows and
//! other tests take apart.

use keyfall_protocol::command::{
    Body, ClearList, Command, Exclude, FRAME_MAX, Floor, FreshEpoch, Halt, KeyDist,
    KeyDistContents, KeySet, Limits, ListedKey, Notify, NotifyEntry, OrderContents, OrderKind,
    Renew, RenewEntry, SEARCH_KEY_LEN, SealedOrder, SignerClass, Suites, Target, Time,
    sign_together,
};
use keyfall_protocol::ids::{KeyEpoch, KeyId, SequenceNumber};
use keyfall_protocol::keys::{ObeyKey, Secret};
use keyfall_protocol::schedule::{Cadence, FleetSchedule, Schedule};
use keyfall_protocol::sharing::SharingSuite;

use crate::fleet::{
    EPOCH, FOUNDED, P0, at, command, contents, generation, group, key_set, obey_key, signing_key,
    terminal, wrap_key,
};
use crate::largest::largest;
use crate::stream::{Stream, octets32};

/// One message with all that made it.
pub(crate) struct Made {
    pub(crate) name: &'static str,
    /// In the order in which the frame has their signatures.
    pub(crate) signers: Vec<&'static str>,
    pub(crate) command: Command,
    pub(crate) frame: Vec<u8>,
    /// How many floors, entries, recipients, keys or signatures; tells messages of one name apart.
    pub(crate) count: Option<u64>,
    pub(crate) distribution: Option<Distribution>,
    pub(crate) order: Option<SealedFor>,
}

/// What went into a KEYDIST, for whom, and what was drawn.
pub(crate) struct Distribution {
    pub(crate) contents: KeyDistContents,
    /// Terminal and generation of its wrap key.
    pub(crate) recipients: Vec<(u32, u32)>,
    pub(crate) rng: Stream,
}

/// What went into a DELETE, INIT, LOCK or UNLOCK, for whom, and what was drawn.
pub(crate) struct SealedFor {
    pub(crate) contents: OrderContents,
    pub(crate) obey: ObeyKey,
    pub(crate) rng: Stream,
}

/// Every message in order; each is signed and at most one frame long.
pub(crate) fn all() -> Vec<Made> {
    let mut made = statements();
    made.extend(distributions());
    made.extend(orders());
    made.extend(exclusions());
    made.extend(changes());
    made.extend(key_sets());
    made.extend(largest());
    made
}

/// The message of that name.
pub(crate) fn made_named(name: &str) -> Made {
    let mut all = all().into_iter();
    all.find(|made| made.name == name).unwrap()
}

fn statements() -> Vec<Made> {
    let in_group = Target::Group(group(7));
    let floors = [floor(7, EPOCH, 12), floor(8, EPOCH + 1, 0)];
    let two = Target::Terminal(terminal(2));
    [
        ("TIME", Target::All, time(&[])),
        ("TIME with floors", Target::All, time(&floors)),
        ("RENEW of all wrap keys", Target::All, renew_fleet()),
        ("RENEW of group 7", in_group, renew_group()),
        ("RENEW without schedule and lease", in_group, renew_bare()),
        ("RENEW of one terminal's wrap key", two, renew_own()),
        (
            "RENEW, one generation for each session",
            Target::Group(group(8)),
            renew_per_session(),
        ),
    ]
    .into_iter()
    .zip(1..)
    .map(|((name, target, body), sequence)| {
        signed(name, &["beat key"], ordinary(sequence, target, body))
    })
    .collect()
}

fn distributions() -> Vec<Made> {
    let no_cadence = KeyDistContents {
        search_key: None,
        cadence: None,
        lease_end: None,
        ..contents()
    };
    vec![
        distributed("KEYDIST to two", ordinary_dist(16), contents(), &[1, 2], 5),
        distributed(
            "KEYDIST to one, without schedule and lease",
            ordinary_dist(17),
            no_cadence,
            &[1],
            5,
        ),
        distributed(
            "KEYDIST to one whose wrap key is 3 ahead",
            ordinary_dist(18),
            contents(),
            &[2],
            8,
        ),
        distributed(
            "KEYDIST to seventeen",
            ordinary_dist(19),
            contents(),
            &Vec::from_iter(1..=17),
            5,
        ),
        distributed(
            "KEYDIST of a packet group",
            ordinary_dist(20),
            KeyDistContents {
                search_key: Some(search_key()),
                ..contents()
            },
            &[1, 2],
            5,
        ),
    ]
}

fn search_key() -> Secret<SEARCH_KEY_LEN> {
    let octets = octets32("search key of group 7");
    Secret::from_slice(&octets[..SEARCH_KEY_LEN]).unwrap()
}

fn orders() -> Vec<Made> {
    let erase = ["erase key"];
    let both = ["erase key", "second erase key"];
    let lock = |kind, version| OrderContents {
        version: Some(version),
        ..delete(kind)
    };
    let with_receipt = OrderContents {
        receipt_wanted: true,
        ..delete(OrderKind::Delete)
    };
    vec![
        ordered("DELETE", 32, delete(OrderKind::Delete), &erase),
        ordered("DELETE that wants a receipt", 33, with_receipt, &erase),
        ordered("DELETE that two keys sign", 34, with_receipt, &both),
        ordered("INIT", 35, delete(OrderKind::Init), &erase),
        ordered("LOCK", 36, lock(OrderKind::Lock, VERSION), &erase),
        ordered("UNLOCK", 37, lock(OrderKind::Unlock, VERSION + 1), &erase),
    ]
}

/// To terminal 2, without a receipt.
pub(crate) fn delete(kind: OrderKind) -> OrderContents {
    OrderContents {
        terminal: terminal(2),
        kind,
        version: None,
        receipt_wanted: false,
    }
}

fn exclusions() -> Vec<Made> {
    let of = |sequence, excluded: &[u32], groups| {
        ordinary(sequence, Target::All, exclude(excluded, groups))
    };
    vec![
        signed("EXCLUDE", &["keys key"], of(48, &[2, 1000], 2)),
        signed(
            "EXCLUDE of one who was in no group",
            &["keys key"],
            of(49, &[3], 0),
        ),
        signed(
            "EXCLUDE that the erase class signs, too",
            &["keys key", "erase key"],
            of(50, &[2], 1),
        ),
    ]
}

/// Of groups 7 and on.
pub(crate) fn exclude(excluded: &[u32], groups: u32) -> Body {
    let fresh = |number| FreshEpoch {
        group: group(number),
        old: KeyEpoch::new(EPOCH),
        new: KeyEpoch::new(EPOCH + 5 * P0),
    };
    Body::Exclude(Exclude {
        terminals: excluded.iter().map(|&number| terminal(number)).collect(),
        groups: (7..7 + groups).map(fresh).collect(),
    })
}

/// A change of group 7's key, and the calls to come and fetch.
fn changes() -> Vec<Made> {
    let in_group = Target::Group(group(7));
    let keys =
        |name, sequence, body| signed(name, &["keys key"], ordinary(sequence, in_group, body));
    let beat = |name, sequence, target, numbers: &[u32]| {
        let body = notify(numbers);
        signed(name, &["beat key"], ordinary(sequence, target, body))
    };
    let two = Target::Terminal(terminal(2));
    vec![
        keys("STOP", 64, Body::Stop(halt())),
        keys("START", 65, Body::Start(halt())),
        beat("NOTIFY", 66, two, &[]),
        beat("NOTIFY of two groups", 67, Target::All, &[7, 8]),
    ]
}

/// Group 7 goes on with generation 13 within a minute.
pub(crate) fn halt() -> Halt {
    Halt {
        group: group(7),
        transaction: SequenceNumber::new(22_792_407_000),
        epoch: KeyEpoch::new(EPOCH),
        generation: generation(13),
        deadline: at(FOUNDED + 5 * P0 + 67),
    }
}

fn notify(numbers: &[u32]) -> Body {
    let entry = |&number: &u32| NotifyEntry {
        group: group(number),
        epoch: KeyEpoch::new(EPOCH),
        generation: generation(13),
    };
    Body::Notify(Notify {
        spread_ms: 2000,
        entries: numbers.iter().map(entry).collect(),
    })
}

fn key_sets() -> Vec<Made> {
    let by_root = |name, sequence, issued_at, key_set| {
        let body = Body::KeySet(key_set);
        let command = command(sequence, issued_at, 0, Target::All, body);
        signed(name, &["root"], command)
    };
    let first = 22_774_400_000;
    vec![
        by_root("KEYSET with four keys", first, FOUNDED, key_set()),
        by_root(
            "KEYSET whose keys speak for some groups",
            first + 1,
            FOUNDED + 1,
            narrow_key_set(),
        ),
        by_root(
            "KEYSET that asks for two signatures",
            first + 2,
            FOUNDED + 2,
            strict_key_set(),
        ),
        by_root(
            "KEYSET with stolen keys",
            first + 3,
            FOUNDED + 6 * P0,
            key_set_after_theft(),
        ),
    ]
}

fn ordinary(sequence: u64, target: Target, body: Body) -> Command {
    command(sequence, FOUNDED + 5 * P0 + 7, 5, target, body)
}

fn ordinary_dist(sequence: u64) -> impl FnOnce(Body) -> Command {
    move |body| ordinary(sequence, Target::Handles, body)
}

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
    renew(RenewEntry {
        kid: KeyId::ALL_RANK_ONE,
        epoch: KeyEpoch::RANK_ONE,
        schedule: Schedule {
            generation: generation(5),
            activate_at: at(FOUNDED + 5 * P0),
            cadence: Cadence::new(1, P0),
        },
        lease_end: None,
    })
}

fn renew_group() -> Body {
    renew(RenewEntry {
        kid: group(7).master_key_id(),
        epoch: KeyEpoch::new(EPOCH),
        schedule: Schedule {
            generation: generation(13),
            activate_at: at(FOUNDED + 5 * P0 + 9),
            cadence: Cadence::new(1, 3600),
        },
        lease_end: Some(at(FOUNDED + 5 * P0 + 7 + 72 * 3600)),
    })
}

fn renew_bare() -> Body {
    renew(RenewEntry {
        kid: group(7).master_key_id(),
        epoch: KeyEpoch::new(EPOCH),
        schedule: Schedule {
            generation: generation(14),
            activate_at: at(FOUNDED + 5 * P0 + 60),
            cadence: None,
        },
        lease_end: None,
    })
}

/// Terminal 2, three beyond G.
fn renew_own() -> Body {
    renew(RenewEntry {
        kid: terminal(2).wrap_key_id(),
        epoch: KeyEpoch::RANK_ONE,
        schedule: Schedule {
            generation: generation(8),
            activate_at: at(FOUNDED + 5 * P0 + 7),
            cadence: None,
        },
        lease_end: None,
    })
}

fn renew_per_session() -> Body {
    renew(RenewEntry {
        kid: group(8).master_key_id(),
        epoch: KeyEpoch::new(EPOCH + 1),
        schedule: Schedule {
            generation: generation(64),
            activate_at: at(FOUNDED + 5 * P0),
            cadence: Cadence::new(64, 3600),
        },
        lease_end: Some(at(FOUNDED + 5 * P0 + 7 + 72 * 3600)),
    })
}

fn renew(entry: RenewEntry) -> Body {
    Body::Renew(Renew {
        entries: vec![entry],
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

/// Two erase keys of which both must sign; waits without end for a new epoch.
fn strict_key_set() -> KeySet {
    let mut key_set = key_set();
    key_set.version += 2;
    key_set.issued_at = at(FOUNDED + 2);
    let erase = &key_set.keys[2];
    key_set.keys[3] = ListedKey {
        public: signing_key("second erase key").public(),
        ..erase.clone()
    };
    key_set.limits = Limits {
        longest_lease: 4 * 3600,
        suites: Suites::new(&[SharingSuite::HpkePq]).unwrap(),
        clear: ClearList::default(),
        grace: 60,
        exclude_grace: 10,
        exclude_wait: None,
        dead_man: 7 * 86_400,
        erase_signatures: 2,
    };
    key_set
}

/// Beat and keys key were stolen: fresh ones, and G goes beyond all that they could claim.
fn key_set_after_theft() -> KeySet {
    let issued_at = FOUNDED + 6 * P0;
    let fresh = |name, class| ListedKey {
        public: signing_key(name).public(),
        class,
        not_before: at(issued_at),
        expires: at(issued_at + 30 * 86_400),
        groups: Vec::new(),
    };
    let mut key_set = key_set();
    let stolen: Vec<_> = key_set.keys.drain(..2).collect();
    let online = [
        fresh("second beat key", SignerClass::Beat),
        fresh("second keys key", SignerClass::Keys),
    ];
    key_set.keys.splice(..0, online);
    KeySet {
        version: issued_at - 1_767_225_600,
        issued_at: at(issued_at),
        fleet_schedule: FleetSchedule {
            first: generation(30 * 24 + 64 + 128),
            from: at(issued_at),
            period: P0,
        },
        stolen: stolen.iter().map(|key| key.public.name()).collect(),
        limits: Limits {
            suites: Suites::PSK_ALONE,
            ..key_set.limits
        },
        ..key_set
    }
}

pub(crate) fn signed(name: &'static str, signers: &[&'static str], command: Command) -> Made {
    let mut signers = signers.to_vec();
    signers.sort_by_key(|name| signing_key(name).public().name());
    let keys: Vec<_> = signers.iter().map(|name| signing_key(name)).collect();
    let frame = sign_together(&command, &keys.iter().collect::<Vec<_>>());
    assert!(
        frame.len() <= FRAME_MAX,
        "{name} is {} octets long",
        frame.len()
    );
    Made {
        name,
        signers,
        command,
        frame,
        count: None,
        distribution: None,
        order: None,
    }
}

/// To these terminals, whose wrap keys stand at `reached`.
pub(crate) fn distributed(
    name: &'static str,
    command: impl FnOnce(Body) -> Command,
    contents: KeyDistContents,
    recipients: &[u32],
    reached: u32,
) -> Made {
    let mut rng = Stream::new(name);
    let keys: Vec<_> = recipients
        .iter()
        .map(|&number| wrap_key(number, reached))
        .collect();
    let body = Body::KeyDist(KeyDist::seal(&contents, keys.iter(), &mut rng));
    Made {
        distribution: Some(Distribution {
            contents,
            recipients: recipients.iter().map(|&it| (it, reached)).collect(),
            rng,
        }),
        ..signed(name, &["keys key"], command(body))
    }
}

fn ordered(
    name: &'static str,
    sequence: u64,
    contents: OrderContents,
    signers: &[&'static str],
) -> Made {
    let obey = obey_key(contents.terminal.get());
    let make = |body| ordinary(sequence, Target::Handles, body);
    sealed(name, make, contents, obey, signers)
}

/// A DELETE, INIT, LOCK or UNLOCK under that obey key.
pub(crate) fn sealed(
    name: &'static str,
    command: impl FnOnce(Body) -> Command,
    contents: OrderContents,
    obey: ObeyKey,
    signers: &[&'static str],
) -> Made {
    let mut rng = Stream::new(name);
    let body = Body::Order(SealedOrder::seal(&contents, &obey, &mut rng));
    Made {
        order: Some(SealedFor {
            contents,
            obey,
            rng,
        }),
        ..signed(name, signers, command(body))
    }
}

/// Version of the LOCK: the second of its order since 2026.
const VERSION: u32 = EPOCH + 5 * P0 + 7;
