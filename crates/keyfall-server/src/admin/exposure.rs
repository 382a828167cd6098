//! What a thief has who took a terminal (FORMATS section 3.1), in the operator's terms. The rules are
//! the core's.

use keyfall_api::admin as api;
use keyfall_protocol::ids::UnixSeconds;
use keyfall_protocol::keys::PreSharedKey;
use keyfall_protocol::server::{Deletion, Exposure, GroupExposure, Refusal, TerminalRecord};

use crate::admin::erasing::shown_kind;
use crate::admin::orders::known;
use crate::admin::reports::named_member;
use crate::driver::View;

/// What who took the terminal `name` at `at` can read, and until when.
///
/// # Errors
/// [`Refusal::NoSuchTerminal`]; [`Refusal::KeysLost`].
pub(crate) fn exposure(
    view: &View<'_>,
    name: &str,
    at: Option<UnixSeconds>,
) -> Result<api::Exposure, Refusal> {
    let terminal = known(view.machine, name)?;
    if view.machine.is_lost(terminal.number) {
        return Err(Refusal::KeysLost(terminal.number));
    }
    let at = at.unwrap_or(view.now);
    let found = view.machine.exposure(terminal.number, at)?;
    let excluded = terminal.excluded_at.map(UnixSeconds::get);
    let (obey, wrap) = (&terminal.obey, &terminal.wrap);
    let own = |id: u64, kind, from: UnixSeconds, until, what: &str| api::KeyExposure {
        id,
        kind,
        of: terminal.name.clone(),
        from: from.get(),
        until,
        lease_end: None,
        what: what.to_owned(),
    };
    let mut keys = vec![
        own(
            kid(obey),
            api::KeyKind::Obey,
            terminal.added_at,
            None,
            "orders to this terminal alone; no traffic",
        ),
        own(
            kid(wrap),
            api::KeyKind::Wrap,
            found.distributions_from,
            excluded,
            "keys that are distributed to this terminal",
        ),
    ];
    keys.extend(found.groups.iter().map(|group| of_group(view, group)));
    Ok(api::Exposure {
        schema: api::SCHEMA,
        terminal: named_member(view, terminal.number),
        at: at.get(),
        distributions_from: found.distributions_from.get(),
        excluded_at: excluded,
        deletion: deletion(&found.deletion),
        keys,
        notes: notes(view, &found, terminal),
    })
}

fn of_group(view: &View<'_>, exposed: &GroupExposure) -> api::KeyExposure {
    let group = view.machine.group_named(&exposed.group.to_string());
    let name = group.map_or_else(|| exposed.group.to_string(), |group| group.name.clone());
    api::KeyExposure {
        id: exposed.group.master_key_id().get(),
        kind: api::KeyKind::Master,
        of: name,
        from: exposed.from.get(),
        until: exposed.until.map(UnixSeconds::get),
        lease_end: Some(exposed.lease_end.get()),
        what: match (exposed.distributions_from, exposed.per_session) {
            (None, true) => "media, from the last call on".to_owned(),
            (None, false) | (Some(_), _) => "media, recorded and live".to_owned(),
        },
    }
}

fn deletion(deletion: &Deletion) -> Option<api::ErasureState> {
    match *deletion {
        Deletion::NotOrdered => None,
        Deletion::Sent { kind, at } => Some(api::ErasureState {
            kind: shown_kind(kind),
            sent_at: at.get(),
            proved_at: None,
        }),
        Deletion::Proved {
            kind,
            at,
            proved_at,
        } => Some(api::ErasureState {
            kind: shown_kind(kind),
            sent_at: at.get(),
            proved_at: Some(proved_at.get()),
        }),
    }
}

fn notes(view: &View<'_>, found: &Exposure, terminal: &TerminalRecord) -> Vec<String> {
    let name = &terminal.name;
    let fleet = view.machine.fleet();
    let (grace, period) = (
        fleet.key_set.limits.grace,
        fleet.key_set.fleet_schedule.period,
    );
    let mut notes = vec![format!(
        "recorded traffic opens as far back as the larger of grace ({grace} s) and device key period \
         + keep time ({period} + {} s), to the beginning of the generation that stood then",
        fleet.keep_time
    )];
    notes.push(
        "if it was switched off, locked or out of reach when it was taken, its keys are as old as that: \
         count from then"
            .to_owned(),
    );
    if terminal.legacy_key.is_some() {
        notes.push(
            "beyond all that, every answer in rsa-misty1 that was ever recorded for it opens with its RSA \
             key: groups with legacy sharing on count as open since that key was registered"
                .to_owned(),
        );
    }
    if found.excluded_at.is_some() {
        notes.push("it is excluded: nothing of the new epochs opens".to_owned());
    } else if found.groups.iter().any(|group| group.until.is_none()) {
        notes.push(format!(
            "only exclusion ends it, renewing does not: keyfall admin exclude {name}"
        ));
    }
    notes.push(match found.deletion {
        Deletion::NotOrdered => format!(
            "no deletion was ordered: keyfall admin delete-keys {name} --erase-key FILE"
        ),
        Deletion::Sent { kind, .. } => format!(
            "{} is sent and not proved: count on the thief having the keys",
            kind.name()
        ),
        Deletion::Proved { kind, .. } => format!(
            "{} is proved: whoever holds its obey key says that it was obeyed; what was copied out of it \
             before is not undone by that",
            kind.name()
        ),
    });
    notes.push("leases hold honest devices only: keys that were extracted know none".to_owned());
    notes.push(
        "keys that it printed for stock senders are not known here: `keyfall terminal status` of that \
         terminal lists them, each with its end"
            .to_owned(),
    );
    notes
}

fn kid<R>(key: &PreSharedKey<R>) -> u64 {
    key.kid().get()
}
