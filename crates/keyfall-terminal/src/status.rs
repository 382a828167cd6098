//! What people are shown of a terminal: fingerprints, never keys.

use keyfall_api::control::{GroupStatus, TerminalStatus, Why, WhyReason};
use keyfall_protocol::ids::{Generation, Tick, UnixSeconds};
use keyfall_protocol::terminal::Terminal;

/// The terminal as it is; relays, carriers and whether it runs are the caller's to fill in.
#[must_use]
pub fn status(terminal: &Terminal) -> TerminalStatus {
    let identity = terminal.identity();
    let key_set = terminal.key_set();
    let (fleet_generation, wrap_fingerprint) = terminal.fleet_generation();
    let expires = key_set.keys.iter().map(|key| key.expires).min();
    TerminalStatus {
        terminal: identity.number.get(),
        name: identity.name.clone(),
        fleet: identity.fleet.clone(),
        running: false,
        state: terminal.state_name().to_owned(),
        root: identity.root.name().to_string(),
        key_set_version: key_set.version,
        key_set_expires: expires.map_or(0, UnixSeconds::get),
        fleet_generation: fleet_generation.get(),
        wrap_fingerprint: wrap_fingerprint.to_string(),
        wrap_kid: identity.number.wrap_key_id().get(),
        obey_fingerprint: terminal.obey_fingerprint().to_string(),
        obey_kid: identity.number.obey_key_id().get(),
        time: terminal.time().map(UnixSeconds::get),
        groups: terminal.groups().iter().map(group).collect(),
        relays: Vec::new(),
        carriers: identity.carriers.clone(),
        frames: 0,
        store_failure: None,
        protection: PROTECTION.to_owned(),
    }
}

/// Why frames and packets came to nothing, newest first.
#[must_use]
pub fn why(terminal: &Terminal, now: Tick) -> Why {
    let mut drops: Vec<_> = terminal.drops().iter().collect();
    drops.sort_by_key(|&(_, _, last)| std::cmp::Reverse(last));
    let reason = |(reason, count, last): (keyfall_protocol::DropReason, u64, Tick)| WhyReason {
        reason: reason.name().to_owned(),
        code: reason.code().to_owned(),
        count,
        seconds_ago: now.since(last).as_secs(),
        sentence: reason.sentence().to_owned(),
    };
    Why {
        reasons: drops.into_iter().map(reason).collect(),
    }
}

fn group(status: &keyfall_protocol::terminal::GroupStatus) -> GroupStatus {
    GroupStatus {
        group: status.group.get(),
        kid: status.group.master_key_id().get(),
        rank: 2,
        epoch: status.epoch.get(),
        generation: status.generation.get(),
        sending: status.sending.map(Generation::get),
        valid_until: status.valid_until.map(UnixSeconds::get),
        lease_end: status.lease_end.map(UnixSeconds::get),
        fingerprint: status.fingerprint.to_string(),
        in_grace: u32::try_from(status.in_grace).unwrap_or(u32::MAX),
    }
}

/// Both compartments are opened by the machine (FORMATS section 9).
const PROTECTION: &str = "There is no PIN or passphrase yet, so the machine opens everything by \
                          itself: whoever copies this directory can use the keys in it until \
                          their lease ends, and take new ones until this terminal is excluded.";
