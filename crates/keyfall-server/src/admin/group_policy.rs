//! What operators set of a group.

use keyfall_api::admin as api;
use keyfall_protocol::server::{
    By, ChangeMode, ChangeReport, ChangeState, Done, GroupPolicy, GroupRecord, Order, Phase,
    Refusal, Server, Stragglers,
};

use crate::admin::orders::{OrderError, asked, existing, just_stored, unexpected};
use crate::admin::reports::{named_group, named_member};
use crate::driver::{Handle, View};

/// Sets what `order` names of the group's policy.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn set_group(
    driver: &Handle,
    by: By,
    name: String,
    order: api::SetGroup,
) -> Result<api::GroupSet, OrderError> {
    names_something(&order)?;
    let asked = asked("group set", &name, by);
    let prepare = move |machine: &Server| {
        Ok(Order::SetGroup {
            group: existing(machine, &name)?.number,
            change: order.change.map(change),
            stragglers: order.stragglers.map(stragglers),
            legacy: order.legacy_sharing,
        })
    };
    let answer = |view: &View<'_>, done| {
        let Done::GroupSet {
            group,
            before,
            after,
        } = done
        else {
            unexpected()
        };
        group_set(just_stored(view, group.get()), before, after, false)
    };
    Ok(driver.order(asked, prepare, answer).await??)
}

/// Says what [`set_group`] would do now.
///
/// # Errors
/// [`Refusal::NoSuchGroup`].
pub(crate) fn would_set_group(
    view: &View<'_>,
    name: &str,
    order: &api::SetGroup,
) -> Result<api::GroupSet, Refusal> {
    let group = existing(view.machine, name)?;
    let after = group.policy.with(
        order.change.map(change),
        order.stragglers.map(stragglers),
        order.legacy_sharing,
    );
    Ok(group_set(group, group.policy, after, true))
}

/// # Errors
/// [`OrderError::NothingToSet`].
pub(crate) fn names_something(order: &api::SetGroup) -> Result<(), OrderError> {
    let nothing =
        order.change.is_none() && order.stragglers.is_none() && order.legacy_sharing.is_none();
    if nothing {
        return Err(OrderError::NothingToSet);
    }
    Ok(())
}

pub(super) fn shown(policy: GroupPolicy) -> api::GroupPolicy {
    api::GroupPolicy {
        change: match policy.change {
            ChangeMode::Hitless => api::ChangeMode::Hitless,
            ChangeMode::Barrier => api::ChangeMode::Barrier,
        },
        stragglers: match policy.stragglers {
            Stragglers::Follow => api::Stragglers::Follow,
            Stragglers::Wait => api::Stragglers::Wait,
            Stragglers::LeaveOut => api::Stragglers::LeaveOut,
        },
        legacy_sharing: policy.legacy,
    }
}

/// How the last change of the group's key went.
pub(super) fn key_change(view: &View<'_>, report: &ChangeReport) -> api::KeyChange {
    let halted = report.halted_for();
    let straggler = |it: &keyfall_protocol::server::Straggler| api::Straggler {
        terminal: named_member(view, it.terminal),
        missed: match it.missed {
            Phase::Distributing => api::Phase::Distributing,
            Phase::Stopping => api::Phase::Stopping,
            Phase::Starting => api::Phase::Starting,
        },
        caught_up: it.caught_up,
    };
    api::KeyChange {
        mode: match report.mode {
            ChangeMode::Hitless => api::ChangeMode::Hitless,
            ChangeMode::Barrier => api::ChangeMode::Barrier,
        },
        state: match report.state {
            ChangeState::At(Phase::Distributing) => api::KeyChangeState::Distributing,
            ChangeState::At(Phase::Stopping) => api::KeyChangeState::Stopping,
            ChangeState::At(Phase::Starting) => api::KeyChangeState::Starting,
            ChangeState::Finished => api::KeyChangeState::Finished,
            ChangeState::Superseded => api::KeyChangeState::Superseded,
            ChangeState::Interrupted => api::KeyChangeState::Interrupted,
        },
        epoch: report.epoch.get(),
        generation: report.generation.get(),
        begun_at: report.begun_at.get(),
        reachable: report.reachable as u64,
        holding: report.holding as u64,
        stopped: report.stopped as u64,
        started: report.started as u64,
        stragglers: report.stragglers.iter().map(straggler).collect(),
        left_out: report.left_out,
        halted_microseconds: halted.map(|span| u64::try_from(span.as_micros()).unwrap_or(u64::MAX)),
    }
}

fn group_set(
    group: &GroupRecord,
    before: GroupPolicy,
    after: GroupPolicy,
    dry_run: bool,
) -> api::GroupSet {
    let allowed = after.legacy && !before.legacy;
    api::GroupSet {
        schema: api::SCHEMA,
        dry_run,
        group: named_group(group),
        before: shown(before),
        after: shown(after),
        warning: allowed.then(|| LEGACY_WARNING.to_owned()),
    }
}

const fn change(wanted: api::ChangeMode) -> ChangeMode {
    match wanted {
        api::ChangeMode::Hitless => ChangeMode::Hitless,
        api::ChangeMode::Barrier => ChangeMode::Barrier,
    }
}

const fn stragglers(wanted: api::Stragglers) -> Stragglers {
    match wanted {
        api::Stragglers::Follow => Stragglers::Follow,
        api::Stragglers::Wait => Stragglers::Wait,
        api::Stragglers::LeaveOut => Stragglers::LeaveOut,
    }
}

/// W-16.
const LEGACY_WARNING: &str = "MISTY1 has a theoretical break and a block of 64 bits, and the suite \
                              rsa-misty1 has neither forward secrecy nor signatures: allow it only \
                              where a device knows no other";
