//! The RSA keys of terminals that speak the suite rsa-misty1.

use keyfall_api::admin as api;
use keyfall_protocol::command::Suites;
use keyfall_protocol::server::{By, Order, Server};
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::sharing::rsa_misty1::RsaPublic;

use crate::admin::orders::{OrderError, asked, known, unhex};
use crate::admin::reports::named_member;
use crate::driver::{Handle, View};

/// Registers a terminal's key, or takes it away.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn set_legacy_key(
    driver: &Handle,
    by: By,
    name: String,
    order: &api::SetLegacyKey,
) -> Result<api::LegacyKeySet, OrderError> {
    let read = |text: &String| {
        let spki = unhex("the key", text)?;
        RsaPublic::from_spki(&spki).ok_or(OrderError::NotAnRsaKey)
    };
    let key = order.key.as_ref().map(read).transpose()?;
    let asked = asked("terminal legacy-key", &name, by);
    let (terminal, registered) = (name.clone(), key.clone());
    let prepare = move |machine: &Server| {
        let terminal = known(machine, &terminal)?.number;
        Ok(Order::SetLegacyKey { terminal, key })
    };
    let answer = move |view: &View<'_>, _| {
        let terminal = view.machine.terminal_named(&name);
        let terminal = terminal.expect("it was found before its key was registered");
        let suites = &view.machine.fleet().key_set.limits.suites;
        api::LegacyKeySet {
            schema: api::SCHEMA,
            terminal: named_member(view, terminal.number),
            warning: registered.as_ref().map(|_| warning(suites).to_owned()),
            key: registered.as_ref().map(shown),
        }
    };
    Ok(driver.order(asked, prepare, answer).await??)
}

pub(super) fn shown(key: &RsaPublic) -> api::RsaKey {
    api::RsaKey {
        name: key.name().to_string(),
        bits: u32::try_from(key.bits()).unwrap_or(u32::MAX),
    }
}

fn warning(suites: &Suites) -> &'static str {
    if suites.contains(SharingSuite::RsaMisty1) {
        "whoever comes by this terminal's RSA key opens every answer that was recorded for it; it gets \
         only keys of groups with legacy sharing on"
    } else {
        "the suite rsa-misty1 is off: `keyfall server sign-keys --suites rsa-misty1,…` turns it on"
    }
}
