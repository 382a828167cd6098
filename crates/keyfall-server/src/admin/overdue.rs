//! Keys that their schedule was to renew, and that have not renewed (REQUIREMENTS R-048).

use keyfall_protocol::calendar::Utc;
use keyfall_protocol::ids::UnixSeconds;
use keyfall_protocol::server::{GroupRecord, Server};

/// Since when the group's key is overdue. One without a schedule never is.
pub(super) fn of_group(
    machine: &Server,
    group: &GroupRecord,
    now: UnixSeconds,
) -> Option<UnixSeconds> {
    let due = group.schedule.due_since(group.master.generation(), now);
    due.filter(|&due| is_late(machine, due, now))
}

/// Since when the device keys are overdue, all of them by one schedule.
pub(super) fn of_devices(machine: &Server, now: UnixSeconds) -> Option<UnixSeconds> {
    let due = machine.devices_due_since(now);
    due.filter(|&due| is_late(machine, due, now))
}

/// One sentence for all that is overdue.
pub(super) fn warning(machine: &Server, now: UnixSeconds) -> Option<String> {
    let devices = of_devices(machine, now).map(|since| ("the device keys", since));
    let groups = machine.groups().filter_map(|group| {
        let since = of_group(machine, group, now)?;
        Some((group.name.as_str(), since))
    });
    let overdue: Vec<_> = devices.into_iter().chain(groups).collect();
    if overdue.is_empty() {
        return None;
    }
    let named: Vec<_> = overdue
        .iter()
        .take(NAMED_MAX)
        .map(|(name, since)| format!("{name} since {}", Utc(*since)))
        .collect();
    let more = match overdue.len() - named.len() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    Some(format!(
        "overdue, not renewed as their schedules say: {}{more}: see the server's log",
        named.join(", ")
    ))
}

/// A clock that is not followed renews nothing, and has a warning of its own.
fn is_late(machine: &Server, due: UnixSeconds, now: UnixSeconds) -> bool {
    machine.clock_jumped() == 0 && now.since(due) >= LATE
}

/// Seconds: what is due is renewed within one, and a store that fails is tried again after one.
const LATE: u32 = 60;
/// Keys that one warning names.
const NAMED_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keyfall_protocol::command::SigningKey;
    use keyfall_protocol::ids::{TerminalNumber, Tick, YEAR_2026};
    use keyfall_protocol::keys::Secret;
    use keyfall_protocol::schedule::Cadence;
    use keyfall_protocol::server::{
        By, FleetRecord, Founding, Input, Moment, Order, OrderId, Output, PackageSealing,
    };

    use super::*;
    use crate::OsRandom;

    const HOUR: u32 = 3600;
    const FOUNDED: UnixSeconds = YEAR_2026;

    /// Every order is stored at once.
    fn feed(machine: &mut Server, at: Moment, input: Input) {
        machine
            .handle_input(at, &mut OsRandom, input)
            .expect("as the contract says");
        loop {
            match machine.poll_output() {
                Output::Store(id) => feed(machine, at, Input::Stored(id)),
                Output::Timeout { .. } => return,
                Output::Transmit { .. }
                | Output::Send { .. }
                | Output::Work(_)
                | Output::Done { .. } => {}
            }
        }
    }

    fn moment(seconds: u32) -> Moment {
        Moment {
            now: Tick::default().plus(Duration::from_secs(seconds.into())),
            wall: FOUNDED.plus(seconds),
        }
    }

    /// Two groups of one terminal: "watch" renews each hour, "ops" has no schedule.
    fn machine(fleet_period: u32) -> Server {
        let founding = Founding {
            fleet_period,
            ..Founding::default()
        };
        let [root, erase] = [1, 2]
            .map(|octet| SigningKey::from_seed(Secret::init_with(|octets| octets.fill(octet))));
        let (erase, rng) = (erase.public(), &mut OsRandom);
        let fleet = FleetRecord::found(founding, &root, &erase, FOUNDED, rng);
        let mut machine = Server::new(fleet, Vec::new(), Vec::new(), Vec::new(), moment(0));
        let alice = TerminalNumber::new(1).expect("in range");
        let group = |name: &str, cadence| Order::CreateGroup {
            packets: None,
            name: name.to_owned(),
            members: vec![alice],
            cadence,
        };
        let orders = [
            Order::AddTerminal {
                name: "alice".to_owned(),
                sealing: PackageSealing::ToRequest([9; 32]),
                wipe_roots: Vec::new(),
            },
            group("watch", Cadence::new(1, HOUR)),
            group("ops", None),
        ];
        for (id, order) in (0..).map(OrderId).zip(orders) {
            let by = By {
                actor: "test".to_owned(),
                reason: None,
                ticket: None,
            };
            feed(&mut machine, moment(0), Input::Order { id, order, by });
        }
        assert_eq!(machine.groups().count(), 2);
        machine
    }

    fn warned(machine: &Server, seconds: u32) -> Option<String> {
        warning(machine, FOUNDED.plus(seconds))
    }

    #[test]
    fn a_key_that_its_schedule_did_not_renew_is_overdue_and_one_without_a_schedule_never() {
        let mut machine = machine(30 * 24 * HOUR);
        // Moments are no delay.
        assert_eq!(warned(&machine, HOUR + LATE - 1), None);
        assert_eq!(
            warned(&machine, 3 * HOUR).expect("a warning"),
            "overdue, not renewed as their schedules say: watch since 2026-01-01 01:00:00 UTC: \
             see the server's log"
        );
        let overdue: Vec<_> = machine
            .groups()
            .filter(|group| of_group(&machine, group, FOUNDED.plus(3 * HOUR)).is_some())
            .map(|group| group.name.as_str())
            .collect();
        assert_eq!(overdue, ["watch"]);
        // Once it has renewed there is nothing to say.
        for minute in 1..=180 {
            feed(&mut machine, moment(60 * minute), Input::Timeout);
        }
        assert_eq!(warned(&machine, 3 * HOUR), None);
    }

    #[test]
    fn device_keys_that_the_roots_schedule_did_not_renew_are_overdue() {
        let machine = machine(2 * HOUR);
        assert_eq!(
            warned(&machine, 2 * HOUR + LATE).expect("a warning"),
            "overdue, not renewed as their schedules say: the device keys since 2026-01-01 \
             02:00:00 UTC, watch since 2026-01-01 01:00:00 UTC: see the server's log"
        );
    }
}
