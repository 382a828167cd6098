//! What people are shown of a terminal: fingerprints, never keys.

use keyfall_api::control::{GroupStatus, StockSenderStatus, TerminalStatus, Why, WhyReason};
use keyfall_protocol::command::Prefix;
use keyfall_protocol::ids::{Fingerprint, Generation, GroupNumber, Tick, UnixSeconds};
use keyfall_protocol::terminal::{GroupState, StockSender, Terminal, TerminalState};

use crate::key_store::Guard;

/// The terminal as it is; what only a running one knows is the caller's to fill in.
pub(crate) fn status(terminal: &Terminal, guard: &Guard) -> TerminalStatus {
    let identity = terminal.identity();
    let key_set = terminal.key_set();
    let expires = key_set.keys.iter().map(|key| key.expires).min();
    let text = |fingerprint: Fingerprint| fingerprint.to_string();
    let groups = terminal.groups();
    let exposed = groups.iter().filter(|it| it.state == GroupState::Exposed);
    let (tries_left, try_limit) = match *guard {
        Guard::Machine => (None, None),
        Guard::Passphrase {
            tries_left,
            try_limit,
            ..
        } => (Some(tries_left), Some(try_limit)),
    };
    TerminalStatus {
        terminal: identity.number.get(),
        name: identity.name.clone(),
        fleet: identity.fleet.clone(),
        running: false,
        state: state_word(terminal.state()).to_owned(),
        root: identity.root.name().to_string(),
        key_set_version: key_set.version,
        key_set_expires: expires.map_or(0, UnixSeconds::get),
        fleet_generation: terminal.fleet_generation().get(),
        wrap_fingerprint: terminal.wrap_key().map(|(_, it)| text(it)),
        wrap_kid: identity.number.wrap_key_id().get(),
        obey_fingerprint: terminal.obey_fingerprint().map(text),
        obey_kid: identity.number.obey_key_id().get(),
        time: terminal.time().map(UnixSeconds::get),
        powered_on: terminal.powered_on(),
        erases_itself_at: terminal.wipes_itself_at().get(),
        exposed_groups: exposed.map(|it| it.group.get()).collect(),
        groups: groups.iter().map(group).collect(),
        excluded: terminal.excluded().map(|it| it.get()).collect(),
        relays: Vec::new(),
        stock_senders: terminal.stock_senders().map(stock_sender).collect(),
        carriers: identity.carriers.clone(),
        server: None,
        asking: None,
        legacy_key: terminal.legacy_key().map(|key| key.name().to_string()),
        collecting: None,
        frames: 0,
        packets: None,
        store_failure: None,
        protection: protection(guard),
        tries_left,
        try_limit,
        memory_locked: None,
        deleted: None,
    }
}

fn stock_sender((group, sender): (GroupNumber, &StockSender)) -> StockSenderStatus {
    StockSenderStatus {
        group: group.get(),
        spi: sender.spi.to_string(),
        suite: sender.keys.suite().name().to_owned(),
        prefixes: sender.prefixes.iter().map(Prefix::to_string).collect(),
        until: sender.until().get(),
    }
}

/// What guards the user compartment, said as it is (FORMATS section 9).
fn protection(guard: &Guard) -> String {
    let Guard::Passphrase {
        pin, bound_secret, ..
    } = guard
    else {
        return MACHINE_OPENS.to_owned();
    };
    let what = if *pin { "A PIN" } else { "A passphrase" };
    match (bound_secret, pin) {
        (Some(path), _) => format!(
            "{what} and the bound secret {} open the keys together: a copied disk opens with \
             neither alone.",
            path.display()
        ),
        (None, false) => "A passphrase opens the keys: a copied disk is as safe as it is hard to \
                          guess."
            .to_owned(),
        (None, true) => NO_PROTECTION.to_owned(),
    }
}

const fn state_word(state: TerminalState) -> &'static str {
    match state {
        TerminalState::Enrolled => "enrolled",
        TerminalState::Ready => "ready",
        TerminalState::Locked => "locked",
        TerminalState::LockedByServer => "locked-by-server",
        TerminalState::Excluded => "excluded",
        TerminalState::Erased => "deleted",
    }
}

const fn group_word(state: GroupState) -> &'static str {
    match state {
        GroupState::Ready => "ready",
        GroupState::WaitsForKey => "waits-for-key",
        GroupState::Exposed => "exposed",
        GroupState::Distrusted => "distrusted",
        GroupState::Stopped => "stopped",
        GroupState::LeaseOver => "lease-over",
    }
}

/// Why frames and packets came to nothing, newest first.
pub(crate) fn why(terminal: &Terminal, now: Tick) -> Why {
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
        state: group_word(status.state).to_owned(),
        valid_until: status.valid_until.map(UnixSeconds::get),
        lease_end: status.lease_end.map(UnixSeconds::get),
        stopped_until: status.stopped_until.map(UnixSeconds::get),
        fingerprint: status.fingerprint.to_string(),
        in_grace: u32::try_from(status.in_grace).unwrap_or(u32::MAX),
    }
}

const MACHINE_OPENS: &str = "There is no PIN or passphrase, so the machine opens everything by \
                             itself: whoever copies this directory can use the keys in it until \
                             their lease ends, and take new ones until this terminal is excluded. \
                             `keyfall terminal protect` sets one.";
const NO_PROTECTION: &str = "A PIN opens the keys: there is no protection against a copied disk, \
                             because a computer tries every PIN. Give it a bound secret, or take a \
                             passphrase of 12 characters and more: `keyfall terminal protect`.";
