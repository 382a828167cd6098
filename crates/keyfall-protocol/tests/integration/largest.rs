//! Every message with every number as large as it may be: how large frames get.

use keyfall_protocol::command::{
    Body, ClearList, Command, EXCLUDED_MAX, Exclude, FLOORS_MAX, FRESH_EPOCHS_MAX, Floor,
    FreshEpoch, Halt, KeyDistContents, KeySet, Limits, ListedKey, NOTIFY_ENTRIES_MAX, Notify,
    NotifyEntry, OrderContents, OrderKind, RENEW_ENTRIES_MAX, Renew, RenewEntry, SignerClass,
    Suites, Target, Time,
};
use keyfall_protocol::ids::{
    Generation, GroupNumber, KeyEpoch, SequenceNumber, StreamId, TerminalNumber,
};
use keyfall_protocol::keys::{MasterKey, ObeyKey, Secret};
use keyfall_protocol::schedule::{Cadence, FleetSchedule, Schedule};
use keyfall_protocol::sharing::SharingSuite;

use crate::fleet::{at, key_set, secret, signing_key, terminal};
use crate::messages::{Made, distributed, sealed, signed};

/// Every number as large as it may be.
pub(crate) fn largest() -> Vec<Made> {
    let in_group = Target::Group(GroupNumber::MAX);
    let keyed = |recipients: u32| {
        // Renewing a wrap key 2^31 times takes minutes, so here they stand at 0 and only the sizes
        // are of interest.
        let (contents, command) = (largest_contents(), largest_dist());
        let to: Vec<u32> = (1..=recipients).collect();
        let made = distributed(LARGEST_DIST, command, contents, &to, 0);
        counted(recipients.into(), made)
    };
    let entries = |count: u64| {
        let entries = (0..count).map(|_| largest_entry()).collect();
        let command = largest_command(in_group, Body::Renew(Renew { entries }));
        counted(count, signed(LARGEST_RENEW, &["beat key"], command))
    };
    let floors = |count: u64| {
        let floors = (0..count).map(|_| largest_floor()).collect();
        let body = Body::Time(Time {
            seconds: at(u32::MAX),
            max_error_ms: u32::MAX,
            floors,
        });
        let command = largest_command(Target::All, body);
        counted(count, signed(LARGEST_TIME, &["beat key"], command))
    };
    let key_sets = |keys: usize, groups: usize, stolen: usize| {
        let body = Body::KeySet(largest_key_set(keys, groups, stolen));
        let made = signed(LARGEST_SET, &["root"], largest_command(Target::All, body));
        counted((keys + groups + stolen) as u64, made)
    };
    let excludes = |terminals: usize, groups: usize, signatures: usize| {
        let command = largest_command(Target::All, largest_exclude(terminals, groups));
        let made = signed(LARGEST_EXCLUDE, &SIGNERS[..signatures], command);
        counted((terminals + groups) as u64, made)
    };
    let notices = |count: u64| {
        let command = largest_command(in_group, largest_notify(count));
        counted(count, signed(LARGEST_NOTIFY, &["beat key"], command))
    };
    let stop = largest_command(in_group, Body::Stop(largest_halt()));
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
        largest_order(LARGEST_DELETE, OrderKind::Delete, 1),
        largest_order(LARGEST_DELETE, OrderKind::Delete, 2),
        largest_order(LARGEST_DELETE, OrderKind::Delete, 3),
        largest_order(LARGEST_DELETE, OrderKind::Delete, 4),
        largest_order(LARGEST_LOCK, OrderKind::Lock, 1),
        excludes(1, 0, 1),
        excludes(2, 0, 1),
        excludes(2, 1, 1),
        excludes(EXCLUDED_MAX, FRESH_EPOCHS_MAX, 2),
        excludes(EXCLUDED_MAX, FRESH_EPOCHS_MAX - 7, 4),
        signed(LARGEST_STOP, &["keys key"], stop),
        notices(0),
        notices(1),
        notices(2),
        notices(NOTIFY_ENTRIES_MAX),
        key_sets(3, 0, 0),
        key_sets(4, 0, 0),
        key_sets(4, 1, 0),
        key_sets(4, 0, 1),
        key_sets(4, 0, 2),
    ]
}

pub(crate) const LARGEST_TIME: &str = "TIME at the largest numbers";
pub(crate) const LARGEST_RENEW: &str = "RENEW at the largest numbers";
pub(crate) const LARGEST_DIST: &str = "KEYDIST at the largest numbers";
pub(crate) const LARGEST_DELETE: &str = "DELETE at the largest numbers";
pub(crate) const LARGEST_LOCK: &str = "LOCK at the largest numbers";
pub(crate) const LARGEST_EXCLUDE: &str = "EXCLUDE at the largest numbers";
pub(crate) const LARGEST_STOP: &str = "STOP at the largest numbers";
pub(crate) const LARGEST_NOTIFY: &str = "NOTIFY at the largest numbers";
pub(crate) const LARGEST_SET: &str = "KEYSET at the largest numbers";

/// Of an EXCLUDE: its own class first, then those who sign beside it.
const SIGNERS: [&str; 4] = [
    "keys key",
    "erase key",
    "second erase key",
    "third erase key",
];

/// To the terminal of the highest number.
pub(crate) fn largest_order(name: &'static str, kind: OrderKind, signatures: usize) -> Made {
    let versioned = matches!(kind, OrderKind::Lock | OrderKind::Unlock);
    let contents = OrderContents {
        terminal: TerminalNumber::MAX,
        kind,
        version: versioned.then_some(u32::MAX),
        receipt_wanted: true,
    };
    let obey = ObeyKey::new(TerminalNumber::MAX, secret("obey key of terminal 16777215"));
    let command = |body| largest_command(Target::Terminal(TerminalNumber::MAX), body);
    let signers = [
        "erase key",
        "second erase key",
        "third erase key",
        "fourth erase key",
    ];
    let made = sealed(name, command, contents, obey, &signers[..signatures]);
    counted(signatures as u64, made)
}

pub(crate) fn largest_exclude(terminals: usize, groups: usize) -> Body {
    let first = TerminalNumber::MAX.get() + 1 - u32::try_from(terminals).unwrap();
    let fresh = FreshEpoch {
        group: GroupNumber::MAX,
        old: KeyEpoch::new(u32::MAX - 1),
        new: KeyEpoch::new(u32::MAX),
    };
    Body::Exclude(Exclude {
        terminals: (first..=TerminalNumber::MAX.get()).map(terminal).collect(),
        groups: vec![fresh; groups],
    })
}

fn largest_halt() -> Halt {
    Halt {
        group: GroupNumber::MAX,
        transaction: SequenceNumber::new(u64::MAX),
        epoch: KeyEpoch::new(u32::MAX),
        generation: Generation::MAX,
        deadline: at(u32::MAX),
    }
}

fn largest_notify(count: u64) -> Body {
    let entry = NotifyEntry {
        group: GroupNumber::MAX,
        epoch: KeyEpoch::new(u32::MAX),
        generation: Generation::MAX,
    };
    Body::Notify(Notify {
        spread_ms: u32::MAX,
        entries: (0..count).map(|_| entry).collect(),
    })
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
        search_key: Secret::from_slice(&[8; 16]),
        key: MasterKey::new(group, KeyEpoch::new(u32::MAX), Generation::MAX, octets),
        activate_at: at(u32::MAX),
        cadence: largest_schedule().cadence,
        lease_end: Some(at(u32::MAX)),
    }
}

fn largest_key_set(keys: usize, groups: usize, stolen: usize) -> KeySet {
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
        stolen: vec![signing_key("another key").public().name(); stolen],
        limits: Limits {
            longest_lease: u32::MAX,
            suites: every_suite(),
            clear: ClearList::default(),
            grace: u32::MAX,
            exclude_grace: u32::MAX,
            exclude_wait: Some(u32::MAX),
            dead_man: u32::MAX,
            erase_signatures: 4,
        },
    }
}

fn every_suite() -> Suites {
    use SharingSuite::{Hpke, HpkePq, Psk, RsaMisty1};
    Suites::new(&[HpkePq, Hpke, Psk, RsaMisty1]).unwrap()
}

pub(crate) fn counted(count: u64, made: Made) -> Made {
    Made {
        count: Some(count),
        ..made
    }
}
