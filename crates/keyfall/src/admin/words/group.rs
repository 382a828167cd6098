//! Groups in words: who is in them, and how their keys are changed.

use keyfall_api::admin as api;

use super::packets::settings;
use super::{distribution, key_table, named, renews, row, table};

pub(in crate::admin) fn groups(all: &api::Groups) -> String {
    if all.groups.is_empty() {
        return "no groups yet: keyfall admin group create NAME --member TERMINAL".to_owned();
    }
    let mut rows = vec![row([
        "NUMBER",
        "NAME",
        "MEMBERS",
        "EPOCH",
        "GENERATION",
        "RENEWS",
        "CHANGE",
        "STRAGGLERS",
        "FINGERPRINT",
    ])];
    rows.extend(all.groups.iter().map(|group| {
        vec![
            group.number.to_string(),
            group.name.clone(),
            group.members.to_string(),
            group.key.epoch.to_string(),
            group.key.generation.to_string(),
            renews(&group.key),
            change(group.policy.change).to_owned(),
            stragglers(group.policy.stragglers).to_owned(),
            group.key.fingerprint.clone(),
        ]
    }));
    table(&rows)
}

pub(in crate::admin) fn group(shown: &api::GroupShown) -> String {
    let members: Vec<_> = shown.members.iter().map(named).collect();
    format!(
        "{}: group {}, {} members\n{}\nmembers: {}\nstanding distribution: {}\n{}{}{}",
        shown.group.name,
        shown.group.number,
        shown.group.members,
        key_table(std::slice::from_ref(&shown.group.key)),
        members.join(", "),
        distribution(&shown.distribution),
        policy(shown.group.policy),
        packets(shown.group.packets.as_ref()),
        shown.change.as_ref().map_or_else(String::new, last_change)
    )
}

fn packets(packets: Option<&api::Packets>) -> String {
    packets.map_or_else(String::new, |packets| {
        format!("\npacket group{}", settings(packets))
    })
}

pub(in crate::admin) fn group_set(set: &api::GroupSet) -> String {
    let (before, after) = (set.before, set.after);
    let said = |what: &str, old: &str, new: &str| match (old == new, set.dry_run) {
        (true, _) => format!("\n  {what}: {new}, as it was"),
        (false, true) => format!("\n  {what}: {old} would become {new}"),
        (false, false) => format!("\n  {what}: {new}, was {old}"),
    };
    let warning = set.warning.as_ref();
    format!(
        "{}{}{}{}{}{}",
        named(&set.group),
        if set.dry_run {
            ": nothing is changed"
        } else {
            ": set and stored"
        },
        said("change", change(before.change), change(after.change)),
        said(
            "stragglers",
            stragglers(before.stragglers),
            stragglers(after.stragglers)
        ),
        said(
            "legacy sharing",
            switch(before.legacy_sharing),
            switch(after.legacy_sharing)
        ),
        warning.map_or_else(String::new, |warning| format!("\nwarning: {warning}"))
    )
}

/// "barrier change: 998 of 1,000 stopped, 2 silent: truck7, truck9; stopped 84 ms".
fn last_change(last: &api::KeyChange) -> String {
    let did = match (last.mode, last.state) {
        (api::ChangeMode::Barrier, api::KeyChangeState::Starting) => (last.started, "started"),
        (api::ChangeMode::Barrier, _) => (last.stopped, "stopped"),
        (api::ChangeMode::Hitless, api::KeyChangeState::Distributing) => {
            (last.holding, "hold the key")
        }
        (api::ChangeMode::Hitless, _) => (last.started, "started"),
    };
    let state = match last.state {
        api::KeyChangeState::Distributing
        | api::KeyChangeState::Stopping
        | api::KeyChangeState::Starting => ", at work",
        api::KeyChangeState::Finished => "",
        api::KeyChangeState::Superseded => ", ended by a newer one",
        api::KeyChangeState::Interrupted => ", interrupted by a restart",
    };
    let named = |caught_up: bool, word: &str| {
        let names: Vec<_> = last
            .stragglers
            .iter()
            .filter(|it| it.caught_up == caught_up)
            .map(|it| it.terminal.name.as_str())
            .collect();
        if names.is_empty() {
            String::new()
        } else {
            format!(", {} {word}: {}", names.len(), names.join(", "))
        }
    };
    let halted = last.halted_microseconds.map_or_else(String::new, |micros| {
        format!("; stopped {} ms", micros.div_ceil(1_000))
    });
    format!(
        "\n{} change: {} of {} {}{state}{}{}{}{halted}",
        change(last.mode),
        thousands(did.0),
        thousands(last.reachable),
        did.1,
        named(false, "silent"),
        if last.left_out { " (left out)" } else { "" },
        named(true, "late")
    )
}

/// With a comma before every three digits.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn policy(policy: api::GroupPolicy) -> String {
    format!(
        "changes its key: {}; stragglers: {}; legacy sharing: {}",
        change(policy.change),
        stragglers(policy.stragglers),
        switch(policy.legacy_sharing)
    )
}

const fn change(change: api::ChangeMode) -> &'static str {
    match change {
        api::ChangeMode::Hitless => "hitless",
        api::ChangeMode::Barrier => "barrier",
    }
}

const fn stragglers(stragglers: api::Stragglers) -> &'static str {
    match stragglers {
        api::Stragglers::Follow => "follow",
        api::Stragglers::Wait => "wait",
        api::Stragglers::LeaveOut => "leave-out",
    }
}

const fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_in_one_line() {
        let straggler = |number, name: &str, caught_up| api::Straggler {
            terminal: api::Named {
                number,
                name: name.to_owned(),
            },
            missed: api::Phase::Stopping,
            caught_up,
        };
        let mut last = api::KeyChange {
            mode: api::ChangeMode::Barrier,
            state: api::KeyChangeState::Finished,
            epoch: 7,
            generation: 3,
            begun_at: 1_800_000_000,
            reachable: 1_000,
            holding: 998,
            stopped: 998,
            started: 998,
            stragglers: vec![straggler(7, "truck7", false), straggler(9, "truck9", false)],
            left_out: false,
            halted_microseconds: Some(83_400),
        };
        assert_eq!(
            last_change(&last),
            "\nbarrier change: 998 of 1,000 stopped, 2 silent: truck7, truck9; stopped 84 ms"
        );
        last.mode = api::ChangeMode::Hitless;
        last.state = api::KeyChangeState::Interrupted;
        last.stragglers = vec![straggler(7, "truck7", true)];
        last.halted_microseconds = None;
        assert_eq!(
            last_change(&last),
            "\nhitless change: 998 of 1,000 started, interrupted by a restart, 1 late: truck7"
        );
        assert_eq!(thousands(1_234_567), "1,234,567");
    }
}
