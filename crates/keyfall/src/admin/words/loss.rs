//! The loss of a terminal in words. "Sent", "probably received" and "proved" are three things
//! (INVARIANT 12).

use keyfall_api::admin as api;

use super::{named, row, table};
use crate::admin::exclude::Done;
use crate::output::utc;

pub(in crate::admin) fn excluded(done: &Done) -> String {
    let api::Excluded {
        dry_run,
        terminals,
        groups,
        members: count,
        reach,
        ..
    } = &done.excluded;
    let names: Vec<_> = terminals.iter().map(named).collect();
    let (are, get) = match (*dry_run, terminals.len()) {
        (true, _) => ("would be", "would get"),
        (false, 1) => ("is", "gets"),
        (false, _) => ("are", "gets"),
    };
    let mut text = format!(
        "{} {are} shut out for good{}",
        names.join(", "),
        if *dry_run {
            "; nothing is ordered: this is what it reaches"
        } else {
            ""
        }
    );
    for fresh in groups {
        text.push_str(&format!("\n  {}", fresh_epoch(fresh, get)));
    }
    if groups.is_empty() {
        text.push_str(
            "\n  no group had it as a member; every terminal is told to drop what it sends",
        );
    }
    text.push_str(&format!(
        "\nExact: fresh keys, wrapped for each other member by itself: {}.\n{}",
        members(*count),
        sent("EXCLUDE and KEYDIST", reach, *dry_run)
    ));
    for deletion in &done.deletions {
        text.push_str(&format!("\n{}", erase_issued(deletion)));
    }
    if !*dry_run {
        let first = terminals
            .first()
            .map_or("T", |terminal| terminal.name.as_str());
        text.push_str("\nNothing of the new epochs opens with what the lost terminal holds.");
        if done.deletions.is_empty() {
            text.push_str(&format!(
                "\nIt still holds its keys: keyfall admin delete-keys {first} --erase-key FILE"
            ));
        }
        text.push_str(&format!(
            "\nWhat it opens of the past: keyfall admin exposure {first}"
        ));
    }
    text
}

pub(in crate::admin) fn group_rekeyed(rekeyed: &api::GroupRekeyed) -> String {
    let (head, get) = order_or_dry_run(rekeyed.dry_run);
    format!(
        "{head}{}\n{}",
        fresh_epoch(&rekeyed.epoch, get),
        sent("KEYDIST", &rekeyed.reach, rekeyed.dry_run)
    )
}

pub(in crate::admin) fn member_removed(removed: &api::MemberRemoved) -> String {
    let (head, get) = order_or_dry_run(removed.dry_run);
    format!(
        "{head}{} leaves {}\n{}\n{}",
        named(&removed.terminal),
        named(&removed.epoch.group),
        fresh_epoch(&removed.epoch, get),
        sent("KEYDIST", &removed.reach, removed.dry_run)
    )
}

fn order_or_dry_run(dry_run: bool) -> (&'static str, &'static str) {
    if dry_run {
        ("Not ordered: this was a dry run\n", "would get")
    } else {
        ("", "gets")
    }
}

pub(in crate::admin) fn erase_issued(issued: &api::EraseIssued) -> String {
    let command = command_name(issued.kind);
    let terminal = named(&issued.terminal);
    let api::Reach {
        octets,
        probably_received_seconds,
        ..
    } = issued.reach;
    if issued.dry_run {
        let does = match issued.kind {
            api::EraseKind::Delete => "every key in it is erased where it is heard",
            api::EraseKind::Init => {
                "every key and all its declared data are erased where it is heard"
            }
            api::EraseKind::Lock => "no PIN opens its keys until it is unlocked",
            api::EraseKind::Unlock => "its PIN opens its keys again",
        };
        return format!("{command} for {terminal}, {octets} octets, would be sent: {does}");
    }
    let proof = match (issued.kind, issued.receipt) {
        (api::EraseKind::Delete, true) => {
            "\nIts receipt turns \"sent\" into \"proved\": keyfall admin receipt FILE"
        }
        (
            api::EraseKind::Delete
            | api::EraseKind::Init
            | api::EraseKind::Lock
            | api::EraseKind::Unlock,
            _,
        ) => "",
    };
    format!(
        "{command} for {terminal}: sent, {octets} octets, and repeated. Probably received in \
         {probably_received_seconds:.0} s if the terminal hears the carrier; nothing is proved.{proof}"
    )
}

pub(in crate::admin) fn receipt_taken(taken: &api::ReceiptTaken) -> String {
    format!(
        "{} for {}: sent {}, proved {}\nThe terminal itself says that it obeyed. What was copied out \
         of it before is not undone by that.",
        command_name(taken.kind),
        named(&taken.terminal),
        utc(taken.sent_at),
        utc(taken.proved_at)
    )
}

/// What the server knows of a terminal. One way, it never learns whether one was enrolled.
pub(super) fn state(terminal: &api::Terminal) -> String {
    let mut states = Vec::new();
    if terminal.keys_lost {
        states.push("unknown: enrolled after the backup, its keys are lost".to_owned());
    }
    if let Some(at) = terminal.excluded_at {
        states.push(format!("excluded since {}", utc(at)));
    }
    match terminal.token {
        Some(api::TokenState::Pending) => states.push("waits for its token to be used".to_owned()),
        Some(api::TokenState::Used) => states.push("enrolled by its token".to_owned()),
        Some(api::TokenState::Ended) => states.push("its token ended unused".to_owned()),
        None => {}
    }
    if let Some(erasure) = &terminal.erasure {
        states.push(order_state(erasure));
    }
    if let Some(lock) = &terminal.lock {
        states.push(order_state(lock));
    }
    if states.is_empty() {
        "added".to_owned()
    } else {
        states.join("; ")
    }
}

fn order_state(order: &api::ErasureState) -> String {
    let what = match order.kind {
        api::EraseKind::Delete => "deletion",
        api::EraseKind::Init => "initialization",
        api::EraseKind::Lock => "lock",
        api::EraseKind::Unlock => "unlock",
    };
    match order.proved_at {
        Some(at) => format!("{what} proved {}", utc(at)),
        None => format!("{what} sent {}", utc(order.sent_at)),
    }
}

pub(in crate::admin) fn exposure(exposure: &api::Exposure) -> String {
    let mut rows = vec![row([
        "KEY",
        "KIND",
        "OF",
        "OPENS FROM",
        "UNTIL",
        "LEASE",
        "WHAT",
    ])];
    rows.extend(exposure.keys.iter().map(|key| {
        let kind = match key.kind {
            api::KeyKind::Obey => "obey",
            api::KeyKind::Wrap => "wrap",
            api::KeyKind::Master => "master",
        };
        vec![
            key.id.to_string(),
            kind.to_owned(),
            key.of.clone(),
            utc(key.from),
            key.until.map_or_else(|| "no end".to_owned(), utc),
            key.lease_end.map_or_else(|| "-".to_owned(), utc),
            key.what.clone(),
        ]
    }));
    let mut text = format!(
        "A thief who took {} at {}, with every recording and every later broadcast, opens:\n{}",
        named(&exposure.terminal),
        utc(exposure.at),
        table(&rows)
    );
    for note in &exposure.notes {
        text.push_str(&format!("\n- {note}"));
    }
    text
}

fn fresh_epoch(fresh: &api::FreshEpoch, get: &str) -> String {
    format!(
        "{} {get} a fresh key: epoch {} after {}, for {}",
        named(&fresh.group),
        fresh.new_epoch,
        fresh.old_epoch,
        members(fresh.members)
    )
}

fn members(count: u64) -> String {
    match count {
        0 => "nobody".to_owned(),
        1 => "1 member".to_owned(),
        many => format!("{many} members"),
    }
}

fn sent(what: &str, reach: &api::Reach, dry_run: bool) -> String {
    let api::Reach {
        frames,
        octets,
        link_seconds,
        probably_received_seconds,
    } = reach;
    let frames = match frames {
        1 => "1 frame".to_owned(),
        n => format!("{n} frames"),
    };
    if dry_run {
        return format!(
            "{what}: {frames}, {octets} octets, {} on the link",
            span(*link_seconds)
        );
    }
    format!(
        "Sent: {what}, {frames}, {octets} octets, {} on the link, and repeated.\n\
         Probably received by everyone who hears the carrier in {probably_received_seconds:.0} s: \
         calculated for 30 % of the frames lost, each by itself. Nobody has confirmed anything.",
        span(*link_seconds)
    )
}

fn span(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0} ms", (seconds * 1_000.0).max(1.0))
    } else {
        format!("{seconds:.1} s")
    }
}

fn command_name(kind: api::EraseKind) -> &'static str {
    match kind {
        api::EraseKind::Delete => "DELETE",
        api::EraseKind::Init => "INIT",
        api::EraseKind::Lock => "LOCK",
        api::EraseKind::Unlock => "UNLOCK",
    }
}
