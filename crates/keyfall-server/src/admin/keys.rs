//! Keys as far as they may be shown: never the key, always its fingerprint.

use keyfall_api::admin::{Key, KeyKind};
use keyfall_protocol::ids::UnixSeconds;
use keyfall_protocol::keys::PreSharedKey;
use keyfall_protocol::server::{GroupRecord, TerminalRecord};

use crate::admin::overdue;
use crate::driver::View;

/// A terminal's two keys.
pub(super) fn of_terminal(view: &View<'_>, terminal: &TerminalRecord) -> [Key; 2] {
    let schedule = view.machine.fleet().key_set.fleet_schedule;
    let offset = terminal
        .wrap
        .generation()
        .steps_from(view.machine.fleet().fleet_generation);
    let wrap = Key {
        offset: (offset > 0).then_some(offset),
        renews_at: Some(schedule.next_change(view.now).get()),
        overdue_since: overdue::of_devices(view.machine, view.now).map(UnixSeconds::get),
        ..shown(&terminal.wrap, KeyKind::Wrap, &terminal.name)
    };
    [shown(&terminal.obey, KeyKind::Obey, &terminal.name), wrap]
}

/// A group's master key.
pub(super) fn of_group(view: &View<'_>, group: &GroupRecord) -> Key {
    Key {
        renews_at: group.schedule.next_change(view.now).map(UnixSeconds::get),
        overdue_since: overdue::of_group(view.machine, group, view.now).map(UnixSeconds::get),
        fresh_at: view.machine.epoch_ends_at(group).map(UnixSeconds::get),
        lease: Some(group.lease),
        ..shown(&group.master, KeyKind::Master, &group.name)
    }
}

fn shown<R>(key: &PreSharedKey<R>, kind: KeyKind, of: &str) -> Key {
    Key {
        id: key.kid().get(),
        rank: match kind {
            KeyKind::Obey | KeyKind::Wrap => 1,
            KeyKind::Master => 2,
        },
        kind,
        of: of.to_owned(),
        epoch: key.epoch().get(),
        generation: key.generation().get(),
        offset: None,
        renews_at: None,
        fresh_at: None,
        overdue_since: None,
        lease: None,
        fingerprint: key.fingerprint().to_string(),
    }
}
