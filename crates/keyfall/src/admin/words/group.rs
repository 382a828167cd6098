//! Groups in words: who is in them, and how their keys are changed.

use keyfall_api::admin as api;

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
        "{}: group {}, {} members\n{}\nmembers: {}\nstanding distribution: {}\n{}",
        shown.group.name,
        shown.group.number,
        shown.group.members,
        key_table(std::slice::from_ref(&shown.group.key)),
        members.join(", "),
        distribution(&shown.distribution),
        policy(shown.group.policy)
    )
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
