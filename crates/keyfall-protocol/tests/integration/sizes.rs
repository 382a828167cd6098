//! How large messages are, measured on real ones at the largest numbers (REQUIREMENTS;
//! FORMATS section 2.5), and the table in `docs/PROTOCOL.md`.

use std::fmt::Write;

use keyfall_protocol::command::{
    EXCLUDED_MAX, FLOORS_MAX, FRAME_MAX, FRESH_EPOCHS_MAX, NOTIFY_ENTRIES_MAX, OrderKind,
    RECIPIENTS_MAX, RENEW_ENTRIES_MAX, SIGNERS_MAX, Target, sign_together,
};

use crate::enrolment;
use crate::fleet::signing_key;
use crate::largest::{
    LARGEST_DELETE, LARGEST_DIST, LARGEST_EXCLUDE, LARGEST_LOCK, LARGEST_NOTIFY, LARGEST_RENEW,
    LARGEST_SET, LARGEST_STOP, LARGEST_TIME, largest, largest_command, largest_exclude,
    largest_order,
};
use crate::messages::made_named;
use crate::vectors::{check_text, from_top};

#[test]
fn messages_stay_within_their_limits_at_the_largest_numbers() {
    let renew = sizes_of(LARGEST_RENEW);
    assert!(renew[0] <= 170, "RENEW: {}", renew[0]);
    let dist = sizes_of(LARGEST_DIST);
    assert!(dist[1] <= 385, "KEYDIST to two: {}", dist[1]);
    assert!(
        dist[2] - dist[1] <= 55,
        "each further recipient: {}",
        dist[2] - dist[1]
    );
    assert!(
        dist[3] <= FRAME_MAX,
        "KEYDIST to {RECIPIENTS_MAX}: {}",
        dist[3]
    );
    // DEVIATION: FORMATS section 2.5 says 400. Five limits (grace and wait after an exclusion, dead
    // man's time, erase signatures, suites) take 26 octets more than it counted.
    let set = sizes_of(LARGEST_SET);
    assert!(set[1] <= 426, "KEYSET with four keys: {}", set[1]);
}

/// FORMATS section 2.5: DELETE 200, each further signature 75.
///
/// DEVIATION: with "the same two headers per signer" that FORMATS section 2 asks for, a signature
/// of a COSE_Sign takes 82 octets: 64, their head of 2, the protected header of 14, a map and an
/// array.
#[test]
fn orders_stay_within_their_limits_at_the_largest_numbers() {
    for kind in OrderKind::ALL {
        let sizes: Vec<_> = (1..=SIGNERS_MAX)
            .map(|m| largest_order(kind.name(), kind, m).frame.len())
            .collect();
        assert!(sizes[0] <= 200, "{}: {}", kind.name(), sizes[0]);
        assert!(sizes[1] - sizes[0] <= 87, "{}: {sizes:?}", kind.name());
        assert_eq!(sizes[2] - sizes[1], 82, "{}: {sizes:?}", kind.name());
        assert!(sizes[3] <= FRAME_MAX);
    }
}

/// FORMATS sections 2 and 2.3: as many terminals and groups as one EXCLUDE may name fit into a
/// frame that one of the erase class signs, too; where three must, seven groups fewer.
#[test]
fn the_largest_exclude_fits_a_frame() {
    let most = |groups, signatures: usize| {
        let command = largest_command(Target::All, largest_exclude(EXCLUDED_MAX, groups));
        let names = [
            "keys key",
            "erase key",
            "second erase key",
            "third erase key",
        ];
        let keys = names.map(signing_key);
        sign_together(&command, &Vec::from_iter(&keys[..signatures])).len()
    };
    assert!(most(FRESH_EPOCHS_MAX, 2) <= FRAME_MAX);
    assert!(most(FRESH_EPOCHS_MAX, SIGNERS_MAX) > FRAME_MAX);
    assert!(most(FRESH_EPOCHS_MAX - 7, SIGNERS_MAX) <= FRAME_MAX);
    assert!(most(0, 1) <= 460, "64 terminals: {}", most(0, 1));
    assert_eq!(most(1, 1) - most(0, 1), 17, "each group");
}

/// What one frame may hold is what fits, no less and no more.
#[test]
fn one_more_entry_floor_or_recipient_would_not_fit() {
    let renew = sizes_of(LARGEST_RENEW);
    assert!(
        renew[2] <= FRAME_MAX && renew[2] + (renew[1] - renew[0]) > FRAME_MAX,
        "{renew:?}"
    );
    let time = sizes_of(LARGEST_TIME);
    assert!(
        time[3] <= FRAME_MAX && time[3] + (time[2] - time[1]) > FRAME_MAX,
        "{time:?}"
    );
    let notify = sizes_of(LARGEST_NOTIFY);
    assert!(
        notify[3] <= FRAME_MAX && notify[3] + (notify[2] - notify[1]) > FRAME_MAX,
        "{notify:?}"
    );
    let dist = sizes_of(LARGEST_DIST);
    assert!(dist[3] + (dist[2] - dist[1]) > FRAME_MAX, "{dist:?}");
}

#[test]
fn table_of_sizes_is_the_measured_one() {
    let path = "docs/PROTOCOL.md";
    let text = std::fs::read_to_string(from_top(path)).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let with_table = format!("{before}{BEGIN}\n{}{END}{after}", table());
    check_text(path, &with_table);
}

fn table() -> String {
    let (time, renew) = (sizes_of(LARGEST_TIME), sizes_of(LARGEST_RENEW));
    let (dist, set) = (sizes_of(LARGEST_DIST), sizes_of(LARGEST_SET));
    let (delete, lock) = (sizes_of(LARGEST_DELETE), sizes_of(LARGEST_LOCK));
    let (exclude, notify) = (sizes_of(LARGEST_EXCLUDE), sizes_of(LARGEST_NOTIFY));
    let ordinary = |name: &str| Some(made_named(name).frame.len());
    let mut rows = vec![
        ("TIME", ordinary("TIME"), time[0]),
        ("TIME with one floor", None, time[1]),
        ("each further floor", None, time[2] - time[1]),
        (
            "RENEW of one key, for any number of terminals",
            ordinary("RENEW of group 7"),
            renew[0],
        ),
        ("each further key in a RENEW", None, renew[1] - renew[0]),
        ("KEYDIST to one", None, dist[0]),
        ("KEYDIST to two", ordinary("KEYDIST to two"), dist[1]),
        ("each further recipient", None, dist[2] - dist[1]),
        (
            "KEYDIST to seventeen",
            ordinary("KEYDIST to seventeen"),
            dist[3],
        ),
        (
            "DELETE, INIT",
            ordinary("DELETE that wants a receipt"),
            delete[0],
        ),
        ("LOCK, UNLOCK", ordinary("LOCK"), lock[0]),
        (
            "the second signature of a frame",
            None,
            delete[1] - delete[0],
        ),
        ("each further signature", None, delete[2] - delete[1]),
        (
            "EXCLUDE of one, in no group",
            ordinary("EXCLUDE of one who was in no group"),
            exclude[0],
        ),
        ("each further terminal", None, exclude[1] - exclude[0]),
        ("each group", None, exclude[2] - exclude[1]),
        ("EXCLUDE of 64, 36 groups, two signatures", None, exclude[3]),
        (
            "EXCLUDE of 64, 29 groups, four signatures",
            None,
            exclude[4],
        ),
        ("STOP, START", ordinary("STOP"), sizes_of(LARGEST_STOP)[0]),
        ("NOTIFY of nothing", ordinary("NOTIFY"), notify[0]),
        (
            "each further group in a NOTIFY",
            None,
            notify[2] - notify[1],
        ),
        ("KEYSET with three keys", None, set[0]),
        (
            "KEYSET with four keys",
            ordinary("KEYSET with four keys"),
            set[1],
        ),
        (
            "each group that a listed key is limited to",
            None,
            (set[2] - set[1]).div_ceil(4),
        ),
        ("one stolen key", None, set[3] - set[1]),
        ("each further stolen key", None, set[4] - set[3]),
    ];
    let (to_request, under_code) = enrolment::package_sizes();
    rows.push((
        "enrolment package to a request key, names of 5 and 11 letters, one carrier",
        Some(to_request),
        0,
    ));
    rows.push(("the same under a code", Some(under_code), 0));
    let mut table = String::from(
        "| Message | Octets as in the vectors | Octets at the largest numbers |\n|---|---|---|\n",
    );
    for (name, ordinary, largest) in rows {
        let ordinary = ordinary.map_or(String::new(), |octets| octets.to_string());
        let largest = if largest == 0 {
            String::new()
        } else {
            largest.to_string()
        };
        writeln!(table, "| {name} | {ordinary} | {largest} |").unwrap();
    }
    writeln!(
        table,
        "\nA frame of {FRAME_MAX} octets holds at most {FLOORS_MAX} floors, {RENEW_ENTRIES_MAX} keys \
         of a RENEW, {RECIPIENTS_MAX} recipients, {NOTIFY_ENTRIES_MAX} groups of a NOTIFY, or \
         {EXCLUDED_MAX} terminals with {FRESH_EPOCHS_MAX} groups and two signatures at the largest numbers, and a decoder refuses \
         more."
    )
    .unwrap();
    table
}

/// The sizes of the messages of that name, in their order.
fn sizes_of(name: &str) -> Vec<usize> {
    largest()
        .iter()
        .filter(|made| made.name == name)
        .map(|made| made.frame.len())
        .collect()
}

const BEGIN: &str = "<!-- sizes: written by the test table_of_sizes_is_the_measured_one -->";
const END: &str = "<!-- end of sizes -->";
