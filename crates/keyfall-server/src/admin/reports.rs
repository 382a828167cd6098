//! What operators may see. "Sent" is what was handed to a carrier; who heard it is not known here.

use keyfall_api::admin as api;
use keyfall_protocol::ids::{TerminalNumber, UnixSeconds};
use keyfall_protocol::server::{Class, ClassReport, GroupRecord, Item, Refusal, TerminalRecord};

use crate::admin::erasing::erasure_state;
use crate::admin::group_policy;
use crate::admin::key_set::{legacy_warning, signers, signers_warning};
use crate::admin::keys::{of_group, of_terminal};
use crate::admin::legacy;
use crate::admin::overdue;
use crate::admin::packets;
use crate::admin::restored::{self, held};
use crate::carriers::Carrier;
use crate::driver::View;
use crate::os_random::OsRandom;
use crate::store::Head;

pub(crate) fn terminals(view: &View<'_>) -> api::Terminals {
    api::Terminals {
        schema: api::SCHEMA,
        terminals: view
            .machine
            .terminals()
            .map(|terminal| terminal_row(view, terminal))
            .collect(),
    }
}

/// # Errors
/// [`Refusal::NoSuchTerminal`].
pub(crate) fn terminal(view: &View<'_>, name: &str) -> Result<api::TerminalShown, Refusal> {
    let terminal = view
        .machine
        .terminal_named(name)
        .ok_or_else(|| Refusal::NoSuchTerminal(name.to_owned()))?;
    let groups = view
        .machine
        .groups()
        .filter(|group| group.members.contains(&terminal.number));
    Ok(api::TerminalShown {
        schema: api::SCHEMA,
        terminal: terminal_row(view, terminal),
        groups: groups.map(named_group).collect(),
        keys: if view.machine.is_lost(terminal.number) {
            Vec::new()
        } else {
            of_terminal(view, terminal).into()
        },
    })
}

pub(crate) fn groups(view: &View<'_>) -> api::Groups {
    let rows = view.machine.groups().map(|group| group_row(view, group));
    api::Groups {
        schema: api::SCHEMA,
        groups: rows.collect(),
    }
}

/// # Errors
/// [`Refusal::NoSuchGroup`].
pub(crate) fn group(view: &View<'_>, name: &str) -> Result<api::GroupShown, Refusal> {
    let group = view
        .machine
        .group_named(name)
        .ok_or_else(|| Refusal::NoSuchGroup(name.to_owned()))?;
    let members = group
        .members
        .iter()
        .map(|&member| named_member(view, member));
    Ok(api::GroupShown {
        schema: api::SCHEMA,
        group: group_row(view, group),
        members: members.collect(),
        distribution: distribution(view, group),
        change: view
            .machine
            .change_of(group.number)
            .map(|report| group_policy::key_change(view, &report)),
    })
}

pub(crate) fn keys(view: &View<'_>) -> api::Keys {
    let machine = view.machine;
    let masters = machine.groups().map(|group| of_group(view, group));
    let devices = machine
        .terminals()
        .filter(|terminal| !machine.is_lost(terminal.number))
        .flat_map(|terminal| of_terminal(view, terminal));
    api::Keys {
        schema: api::SCHEMA,
        fleet_generation: machine.fleet().fleet_generation.get(),
        keys: masters.chain(devices).collect(),
        signers: signers(view),
        warnings: signers_warning(view)
            .into_iter()
            .chain(overdue::warning(machine, view.now))
            .collect(),
    }
}

/// `loss`: the share of frames that a terminal misses, from 0 to less than 1.
pub(crate) fn carousel(view: &View<'_>, loss: f64) -> api::Carousel {
    let turns = turns_for(loss);
    let classes = view.machine.carousel();
    api::Carousel {
        schema: api::SCHEMA,
        bits_per_second: view.machine.fleet().bits_per_second,
        classes: classes
            .iter()
            .map(|class| class_row(class, turns))
            .collect(),
        loss,
        turns,
        carriers: view.carriers.iter().map(carrier_row).collect(),
    }
}

fn desk(view: &View<'_>) -> Option<api::Desk> {
    let fleet = view.machine.fleet();
    let counts = view.machine.desk_counts();
    let listen = view.doors.addresses().to_vec();
    let servers = fleet.servers.clone();
    let one_way = listen.is_empty() && servers.is_empty();
    (!one_way).then(|| api::Desk {
        listen,
        servers,
        suites: fleet
            .key_set
            .limits
            .suites
            .iter()
            .map(|suite| suite.name().to_owned())
            .collect(),
        requests: counts.requests,
        cookies: counts.cookies,
        answers: counts.answers,
        acks: counts.acks,
        refused_acks: counts.refused_acks,
        silent: counts.silent,
        downgrades: counts.downgrades,
        overload: counts.overload,
        not_sent: view.doors.not_sent,
    })
}

pub(crate) fn status(view: &View<'_>) -> api::Status {
    let fleet = view.machine.fleet();
    api::Status {
        schema: api::SCHEMA,
        fleet: fleet.name.clone(),
        now: view.now.get(),
        started_at: view.started_at.get(),
        stream: fleet.stream.to_string(),
        root: fleet.root.name().to_string(),
        key_set: fleet.key_set.version,
        signers_expire: view.machine.signers_expire().get(),
        fleet_generation: fleet.fleet_generation.get(),
        fleet_renews_at: fleet.key_set.fleet_schedule.next_change(view.now).get(),
        seal: "file".to_owned(),
        journal: log(view.journalled),
        audit: log(view.audit),
        terminals: view.machine.terminals().count() as u64,
        groups: view.machine.groups().count() as u64,
        carriers: view.carriers.iter().map(carrier_row).collect(),
        desk: desk(view),
        held_since: held(view).map(|held| held.at.get()),
        warnings: warnings(view),
    }
}

/// What of a group's KEYDIST is standing. All its messages but the last are equally long.
pub(super) fn distribution(view: &View<'_>, group: &GroupRecord) -> api::Distribution {
    let messages = view.machine.shards(group.number);
    let octets_of = |shard| {
        let item = Item::Dist(group.number, shard);
        view.machine.octets_of(item, &mut OsRandom).unwrap_or(0) as u64
    };
    let octets = match messages {
        0 => 0,
        1 => octets_of(0),
        _ => octets_of(0) * u64::from(messages - 1) + octets_of(messages - 1),
    };
    api::Distribution {
        messages,
        octets,
        recipients: group.members.len() as u64,
    }
}

pub(super) fn named_group(group: &GroupRecord) -> api::Named {
    api::Named {
        number: group.number.get(),
        name: group.name.clone(),
    }
}

pub(super) fn named_member(view: &View<'_>, number: TerminalNumber) -> api::Named {
    let terminal = view.machine.terminal_named(&number.to_string());
    api::Named {
        number: number.get(),
        name: terminal.map_or_else(String::new, |terminal| terminal.name.clone()),
    }
}

fn terminal_row(view: &View<'_>, terminal: &TerminalRecord) -> api::Terminal {
    api::Terminal {
        number: terminal.number.get(),
        name: terminal.name.clone(),
        added_at: terminal.added_at.get(),
        package_expires: terminal.package_expires.get(),
        token: token_state(view, terminal),
        keys_lost: view.machine.is_lost(terminal.number),
        excluded_at: terminal.excluded_at.map(UnixSeconds::get),
        erasure: terminal.erasure().map(erasure_state),
        lock: terminal.lock().map(erasure_state),
        wipe_roots: terminal.wipe_roots.clone(),
        legacy_key: terminal.legacy_key.as_ref().map(legacy::shown),
        addresses: packets::addresses(terminal),
        record: packets::protection_record(view, terminal),
    }
}

fn token_state(view: &View<'_>, terminal: &TerminalRecord) -> Option<api::TokenState> {
    let token = terminal.token.as_ref()?;
    let ended = token.key.is_none() || view.now > terminal.package_expires;
    Some(match (terminal.mixed_at, ended) {
        (Some(_), _) => api::TokenState::Used,
        (None, true) => api::TokenState::Ended,
        (None, false) => api::TokenState::Pending,
    })
}

fn group_row(view: &View<'_>, group: &GroupRecord) -> api::Group {
    api::Group {
        number: group.number.get(),
        name: group.name.clone(),
        members: group.members.len() as u64,
        key: of_group(view, group),
        policy: group_policy::shown(group.policy),
        packets: group.packets.as_ref().map(packets::shown),
    }
}

fn class_row(report: &ClassReport, turns: u32) -> api::CarouselClass {
    let cycle_seconds = report.cycle.as_secs_f64();
    api::CarouselClass {
        class: report.class.name().to_owned(),
        items: report.items as u64,
        octets: report.octets,
        cycle_seconds,
        sent: report.sent,
        predicted_seconds: cycle_seconds * f64::from(turns),
    }
}

fn carrier_row(carrier: &Carrier) -> api::Carrier {
    api::Carrier {
        address: carrier.address.clone(),
        sent: carrier.sent,
        failed: carrier.failed,
        last_sent: carrier.last_sent.map(|at| at.get()),
        fault: carrier.fault.clone(),
    }
}

fn log(head: Head) -> api::Log {
    api::Log {
        entries: head.entries,
        link: head.link.to_string(),
    }
}

fn warnings(view: &View<'_>) -> Vec<String> {
    let mut warnings: Vec<_> = restored::warning(view).into_iter().collect();
    warnings.extend(signers_warning(view));
    warnings.extend(legacy_warning(&view.machine.fleet().key_set.limits.suites));
    let clear: Vec<_> = view.machine.fleet().key_set.limits.clear.iter().collect();
    if !clear.is_empty() {
        let clear: Vec<_> = clear.iter().map(ToString::to_string).collect();
        warnings.push(format!(
            "packets to {} go unprotected, by the root's word: `keyfall server sign-keys --no-clear` ends it",
            clear.join(" ")
        ));
    }
    let jumped = view.machine.clock_jumped();
    if jumped > 0 {
        warnings.push(format!(
            "this machine's clock jumped {jumped} s ahead and is not followed: set it right, or \
             restart the server if it is right now"
        ));
    }
    warnings.extend(overdue::warning(view.machine, view.now));
    if let Some(refusal) = view.machine.schedule_refused() {
        warnings.push(format!("a scheduled renewal does not happen: {refusal}"));
    }
    if let Some(fault) = view.store_fault {
        warnings.push(format!("the store could not be written: {fault}"));
    }
    let faults = view
        .carriers
        .iter()
        .filter_map(|carrier| carrier.fault.as_ref());
    warnings.extend(faults.map(|fault| format!("a carrier does not send: {fault}")));
    if view.carriers.is_empty() {
        warnings.push("there is no carrier and nothing is sent".to_owned());
    }
    warnings
}

/// What `frames` of that many octets in all cost the link, and when they have probably come to
/// everybody. `classes`: what they are.
pub(super) fn reach(view: &View<'_>, frames: u64, octets: u64, classes: &[Class]) -> api::Reach {
    let bits = 8 * (octets + frames * HEADERS);
    let cycle = view
        .machine
        .carousel()
        .into_iter()
        .filter(|report| classes.contains(&report.class))
        .map(|report| report.cycle.max(report.class.pace()))
        .max()
        .unwrap_or_default();
    // New statements go out at 0, 1, 2, 4 and 8 s, then once in a cycle (FORMATS section 11).
    let later = turns_for(LOSS).saturating_sub(5);
    api::Reach {
        frames,
        octets,
        link_seconds: bits as f64 / view.machine.fleet().bits_per_second.max(1) as f64,
        probably_received_seconds: 8.0 + f64::from(later) * cycle.as_secs_f64(),
    }
}

/// The smallest n for which `loss`^n is at most one in a million (FORMATS section 11).
fn turns_for(loss: f64) -> u32 {
    // 0.01 cubed is a little more than 1e-6 in binary.
    let wanted = 1e-6 * (1.0 + 1e-9);
    let mut missed = loss;
    let mut turns = 1;
    while missed > wanted && turns < TURNS_MAX {
        missed *= loss;
        turns += 1;
    }
    turns
}

/// The share of lost frames for which it is predicted when something has been received.
const LOSS: f64 = 0.3;
/// Octets of the headers of IPv4 and UDP.
const HEADERS: u64 = 28;
/// For a loss so near to 1 that no one would wait for it.
const TURNS_MAX: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// FORMATS section 11: for a miss of 1e-6, at 1 % loss 3 times, 5 % 5, 20 % 9, 30 % 12, 50 % 20.
    #[test]
    fn turns_are_those_of_the_table() {
        let turns = [0.0, 0.01, 0.05, 0.2, 0.3, 0.5].map(turns_for);
        assert_eq!(turns, [1, 3, 5, 9, 12, 20]);
        assert_eq!(turns_for(0.999_999_999), TURNS_MAX);
    }
}
