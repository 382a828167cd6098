//! A restored server is held until an operator has seen who is excluded and what was lost.

use keyfall_api::admin as api;
use keyfall_protocol::calendar::Utc;
use keyfall_protocol::server::{By, Done, Hold, Order, Refusal, Server};

use crate::admin::orders::{OrderError, asked, unexpected};
use crate::admin::reports::named_member;
use crate::driver::{Handle, View};

/// What [`confirm`] would confirm.
///
/// # Errors
/// [`Refusal::NotHeld`].
pub(crate) fn confirmation(view: &View<'_>) -> Result<api::Confirmation, Refusal> {
    let held = held(view).ok_or(Refusal::NotHeld)?;
    let excluded = view.machine.terminals().filter_map(|terminal| {
        terminal.excluded_at.map(|at| api::ExcludedTerminal {
            terminal: named_member(view, terminal.number),
            excluded_at: at.get(),
        })
    });
    Ok(api::Confirmation {
        schema: api::SCHEMA,
        restored_at: held.at.get(),
        excluded: excluded.collect(),
        losses: held.losses.clone(),
    })
}

/// Lets the server send.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn confirm(driver: &Handle, by: By) -> Result<api::Confirmed, OrderError> {
    let prepare = |_: &Server| Ok(Order::Confirm);
    let answer = |_: &View<'_>, done| {
        let Done::Confirmed { excluded } = done else {
            unexpected()
        };
        api::Confirmed {
            schema: api::SCHEMA,
            excluded: excluded as u64,
        }
    };
    let asked = asked("confirm", "server", by);
    Ok(driver.order(asked, prepare, answer).await??)
}

/// Why nothing is sent, where that is why.
pub(super) fn held<'v>(view: &View<'v>) -> Option<&'v Hold> {
    view.machine.restored().held.as_ref()
}

/// In `admin status`.
pub(super) fn warning(view: &View<'_>) -> Option<String> {
    held(view).map(|held| {
        format!(
            "held: restored at {}, sends nothing until `keyfall admin confirm`",
            Utc(held.at)
        )
    })
}
