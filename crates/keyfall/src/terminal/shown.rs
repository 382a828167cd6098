//! A terminal in words, for people.

use keyfall_api::control::{Deleted, GroupStatus, TerminalStatus, Why, WhyReason};

use super::packets::packets_for_people;
use crate::output::utc;

pub(super) fn status_for_people(status: &TerminalStatus) -> String {
    let running = if status.running {
        "running"
    } else {
        "not running"
    };
    let mut lines = vec![format!(
        "terminal {} ({}) of fleet {}: {running}, {}",
        status.terminal,
        status.name,
        status.fleet,
        state_for_people(status)
    )];
    if let Some(deleted) = &status.deleted {
        lines.extend(deleted_lines(deleted));
        if let Some(failure) = &status.store_failure {
            lines.push(format!("NOT YET ERASED ON THE DISK: {failure}"));
        }
        return lines.join("\n");
    }
    lines.push(format!(
        "root key {}, KEYSET {} until {}",
        status.root,
        status.key_set_version,
        utc(status.key_set_expires)
    ));
    let wrap = status.wrap_fingerprint.as_deref();
    lines.push(format!(
        "rank-1 generation G {}, wrap key {}",
        status.fleet_generation,
        wrap.unwrap_or("closed")
    ));
    lines.push(match status.time {
        Some(time) => format!("time {}, as signed beacons say", utc(time)),
        None if status.running => {
            "no signed beacon heard since the start: receives, does not send yet".to_owned()
        }
        None => "time unknown while it does not run".to_owned(),
    });
    if status.running {
        lines.push(format!(
            "{} frames heard on {}",
            status.frames,
            status.carriers.join(", ")
        ));
    }
    if let Some(asking) = &status.asking {
        let server = status.server.as_deref().unwrap_or("not reached yet");
        lines.push(format!("asks the server ({server}): {asking}"));
    }
    if let Some(key) = &status.legacy_key {
        lines.push(format!("RSA key {key} for the suite rsa-misty1"));
    }
    if let Some(collecting) = &status.collecting {
        lines.push(format!(
            "collects confirmations at {}: {} in {} bundles so far",
            collecting.address, collecting.confirmations, collecting.bundles
        ));
    }
    lines.extend(status.groups.iter().map(group_for_people));
    for relay in &status.relays {
        lines.push(crate::media::relay_for_people(relay));
    }
    if let Some(packets) = &status.packets {
        lines.extend(packets_for_people(packets));
    }
    for sender in &status.stock_senders {
        lines.push(format!(
            "receives a stock sender in group {}: SPI {}, {}, from {}, until {}; its key was printed",
            sender.group,
            sender.spi,
            sender.suite,
            sender.prefixes.join(", "),
            utc(sender.until)
        ));
    }
    if let Some(failure) = &status.store_failure {
        lines.push(format!(
            "NOT STORED: {failure}; until then nothing new is used"
        ));
    }
    if !status.excluded.is_empty() {
        let numbers: Vec<_> = status.excluded.iter().map(u32::to_string).collect();
        lines.push(format!("excluded, not listened to: {}", numbers.join(", ")));
    }
    lines.push(format!(
        "erases itself at {} unless the server extends a lease before",
        utc(status.erases_itself_at)
    ));
    lines.push(status.protection.clone());
    if let (Some(left), Some(limit)) = (status.tries_left, status.try_limit) {
        lines.push(format!(
            "{left} of {limit} tries left, then every key is erased"
        ));
    }
    if status.memory_locked == Some(false) {
        lines.push("The memory of its process may be written to swap.".to_owned());
    }
    lines.join("\n")
}

fn state_for_people(status: &TerminalStatus) -> String {
    match (status.state.as_str(), status.groups.len()) {
        ("ready", 1) => "holds the key of 1 group".to_owned(),
        ("ready", groups) => format!("holds the keys of {groups} groups"),
        ("locked", _) => "locked: `keyfall terminal unlock` opens it while it runs".to_owned(),
        ("locked-by-server", _) => "LOCKED BY THE SERVER: only its UNLOCK ends that".to_owned(),
        ("excluded", _) => "EXCLUDED BY THE SERVER: nobody listens to it any more".to_owned(),
        ("erasing", _) => "EVERY KEY IS BEING ERASED, on the disk not yet".to_owned(),
        ("deleted", _) => "EVERY KEY IS ERASED".to_owned(),
        _ => "holds no group key yet".to_owned(),
    }
}

/// What is left of a terminal, for people.
pub(super) fn deleted_lines(deleted: &Deleted) -> Vec<String> {
    let at = deleted
        .at
        .map_or_else(String::new, |at| format!(", at {}", utc(at)));
    let mut lines = vec![format!("Why: {}{at}.", deleted.cause.sentence())];
    if let Some(receipt) = &deleted.receipt {
        lines.push(format!("Receipt, for `keyfall admin receipt`: {receipt}"));
    }
    let left = deleted.not_removed.iter();
    lines.extend(left.map(|left| format!("Not removed: {left}")));
    lines.push("To use this device again, enrol it anew in another directory.".to_owned());
    lines
}

fn group_for_people(group: &GroupStatus) -> String {
    let sending = match group.sending {
        Some(sending) if sending == group.generation => String::new(),
        Some(sending) => format!(", sends with {sending}"),
        None => ", does not send".to_owned(),
    };
    let state = match group.state.as_str() {
        "waits-for-key" => ", WAITS for its next epoch's key",
        "exposed" => ", EXPOSED: an excluded terminal holds this key",
        "distrusted" => ", WAITS: a stolen signing key brought this key",
        "stopped" => ", STOPPED while its key changes",
        "lease-over" => ", ITS LEASE IS OVER",
        _ => "",
    };
    let stopped = group
        .stopped_until
        .map_or_else(String::new, |t| format!(" until {} at the latest", utc(t)));
    let until = group
        .valid_until
        .map_or_else(String::new, |t| format!(", next at {}", utc(t)));
    let lease = group
        .lease_end
        .map_or_else(String::new, |t| format!(", lease until {}", utc(t)));
    format!(
        "group {}: epoch {} generation {}{sending}{state}{stopped}{until}{lease}, key {}",
        group.group, group.epoch, group.generation, group.fingerprint
    )
}

pub(super) fn why_for_people(why: &Why) -> String {
    if why.reasons.is_empty() {
        return "nothing came to nothing since the start".to_owned();
    }
    let line = |reason: &WhyReason| {
        format!(
            "{}  {:>8} times, last {} s ago  {}: {}",
            reason.code, reason.count, reason.seconds_ago, reason.reason, reason.sentence
        )
    };
    why.reasons.iter().map(line).collect::<Vec<_>>().join("\n")
}
