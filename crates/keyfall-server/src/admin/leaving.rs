//! Whoever leaves gets no further key: exclusion, removal, and the fresh epochs that shut them out.

use std::collections::BTreeSet;

use keyfall_api::admin as api;
use keyfall_protocol::ids::{KeyEpoch, TerminalNumber};
use keyfall_protocol::server::{By, Class, Done, GroupRecord, Order, Reach, Refusal, Server};

use crate::admin::orders::{OrderError, asked, existing, just_stored, known, unexpected};
use crate::admin::reports::{distribution, named_group, named_member, reach};
use crate::driver::{Handle, View};
use crate::os_random::OsRandom;

/// Shuts terminals out.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn exclude(
    driver: &Handle,
    by: By,
    order: api::Exclude,
) -> Result<api::Excluded, OrderError> {
    let asked = asked("exclude", &order.terminals.join(" "), by);
    let names = order.terminals.clone();
    let prepare = move |machine: &Server| {
        let terminals = numbers(machine, &order.terminals)?;
        Ok(Order::Exclude { terminals })
    };
    let answer = move |view: &View<'_>, done| {
        let Done::Excluded { groups, reach, .. } = done else {
            unexpected()
        };
        let terminals = numbers(view.machine, &names).unwrap_or_default();
        let epoch = |fresh: &keyfall_protocol::command::FreshEpoch| {
            let group = just_stored(view, fresh.group.get());
            fresh_epoch(group, fresh.old, fresh.new, group.members.len())
        };
        let epochs = groups.iter().map(epoch).collect();
        excluded(view, &terminals, epochs, &reach, false)
    };
    Ok(driver.order(asked, prepare, answer).await??)
}

/// Says what [`exclude`] would do now.
///
/// # Errors
/// [`Refusal`].
pub(crate) fn would_exclude(view: &View<'_>, names: &[String]) -> Result<api::Excluded, Refusal> {
    let terminals = numbers(view.machine, names)?;
    let reach = view.machine.reach(&terminals, &mut OsRandom)?;
    let epoch = |group: &GroupRecord| {
        let leave = terminals
            .iter()
            .filter(|number| group.members.contains(number));
        let leave = leave.count();
        let old = group.master.epoch();
        (leave > 0).then(|| {
            let new = KeyEpoch::fresh(Some(old), view.now);
            fresh_epoch(group, old, new, group.members.len() - leave)
        })
    };
    let epochs = view.machine.groups().filter_map(epoch).collect();
    Ok(excluded(view, &terminals, epochs, &reach, true))
}

/// Gives a group a fresh epoch for everyone in it.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn rekey_group(
    driver: &Handle,
    by: By,
    group: String,
) -> Result<api::GroupRekeyed, OrderError> {
    let asked = asked("rekey", &group, by);
    let prepare = move |machine: &Server| {
        let group = existing(machine, &group)?.number;
        Ok(Order::RekeyGroup { group })
    };
    let answer = |view: &View<'_>, done| {
        let Done::Rekeyed { group, epoch, .. } = done else {
            unexpected()
        };
        let group = just_stored(view, group.get());
        api::GroupRekeyed {
            schema: api::SCHEMA,
            dry_run: false,
            epoch: fresh_epoch(
                group,
                epoch_before(group, epoch),
                epoch,
                group.members.len(),
            ),
            reach: distribution_reach(view, group),
        }
    };
    Ok(driver.order(asked, prepare, answer).await??)
}

/// Says what [`rekey_group`] would do now.
///
/// # Errors
/// [`Refusal::NoSuchGroup`].
pub(crate) fn would_rekey_group(view: &View<'_>, name: &str) -> Result<api::GroupRekeyed, Refusal> {
    let group = existing(view.machine, name)?;
    let old = group.master.epoch();
    let new = KeyEpoch::fresh(Some(old), view.now);
    Ok(api::GroupRekeyed {
        schema: api::SCHEMA,
        dry_run: true,
        epoch: fresh_epoch(group, old, new, group.members.len()),
        reach: distribution_reach(view, group),
    })
}

/// Takes a terminal out of a group.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn remove_member(
    driver: &Handle,
    by: By,
    group: String,
    terminal: String,
) -> Result<api::MemberRemoved, OrderError> {
    let asked = asked("group remove", &group, by);
    let prepare = move |machine: &Server| {
        Ok(Order::RemoveMember {
            group: existing(machine, &group)?.number,
            terminal: known(machine, &terminal)?.number,
        })
    };
    let answer = |view: &View<'_>, done| {
        let Done::Removed {
            group,
            terminal,
            epoch,
            ..
        } = done
        else {
            unexpected()
        };
        let group = just_stored(view, group.get());
        api::MemberRemoved {
            schema: api::SCHEMA,
            dry_run: false,
            terminal: named_member(view, terminal),
            epoch: fresh_epoch(
                group,
                epoch_before(group, epoch),
                epoch,
                group.members.len(),
            ),
            reach: distribution_reach(view, group),
        }
    };
    Ok(driver.order(asked, prepare, answer).await??)
}

/// Says what [`remove_member`] would do now. Its reach is that of the KEYDIST that stands, which
/// the leaver is still in.
///
/// # Errors
/// [`Refusal`].
pub(crate) fn would_remove_member(
    view: &View<'_>,
    group: &str,
    terminal: &str,
) -> Result<api::MemberRemoved, Refusal> {
    let group = existing(view.machine, group)?;
    let terminal = known(view.machine, terminal)?.number;
    if !group.members.contains(&terminal) {
        return Err(Refusal::NotMember(terminal));
    }
    let old = group.master.epoch();
    let new = KeyEpoch::fresh(Some(old), view.now);
    Ok(api::MemberRemoved {
        schema: api::SCHEMA,
        dry_run: true,
        terminal: named_member(view, terminal),
        epoch: fresh_epoch(group, old, new, group.members.len() - 1),
        reach: distribution_reach(view, group),
    })
}

fn excluded(
    view: &View<'_>,
    terminals: &[TerminalNumber],
    groups: Vec<api::FreshEpoch>,
    costs: &Reach,
    dry_run: bool,
) -> api::Excluded {
    let named = terminals.iter().map(|&number| named_member(view, number));
    let reach = reach(
        view,
        costs.frames,
        costs.octets,
        &[Class::Exclude, Class::KeyDist],
    );
    api::Excluded {
        schema: api::SCHEMA,
        dry_run,
        terminals: named.collect(),
        exact: true,
        groups,
        members: costs.members as u64,
        reach: api::Reach {
            link_seconds: costs.link_time.as_secs_f64(),
            ..reach
        },
    }
}

/// Each once, by rising number.
fn numbers(machine: &Server, names: &[String]) -> Result<Vec<TerminalNumber>, Refusal> {
    let numbers: Result<BTreeSet<_>, _> = names
        .iter()
        .map(|name| known(machine, name).map(|terminal| terminal.number))
        .collect();
    Ok(numbers?.into_iter().collect())
}

fn fresh_epoch(
    group: &GroupRecord,
    old: KeyEpoch,
    new: KeyEpoch,
    members: usize,
) -> api::FreshEpoch {
    api::FreshEpoch {
        group: named_group(group),
        old_epoch: old.get(),
        new_epoch: new.get(),
        members: members as u64,
    }
}

/// The epoch that the group left for `new`.
fn epoch_before(group: &GroupRecord, new: KeyEpoch) -> KeyEpoch {
    let epochs = group.statements.iter().rev().map(|stated| stated.epoch);
    epochs.into_iter().find(|&epoch| epoch < new).unwrap_or(new)
}

fn distribution_reach(view: &View<'_>, group: &GroupRecord) -> api::Reach {
    let standing = distribution(view, group);
    reach(
        view,
        standing.messages.into(),
        standing.octets,
        &[Class::KeyDist],
    )
}
