//! The signing keys: which are in force, when they end, and the next ones, which the root signs
//! elsewhere. The root key never comes to this process.

use keyfall_api::admin as api;
use keyfall_protocol::command::{Body, Command};
use keyfall_protocol::ids::KeyName;
use keyfall_protocol::server::{By, Done, KeySetDraft, Order, Server};

use crate::admin::orders::{OrderError, asked, hex, known, shortened, unexpected, unhex};
use crate::driver::{Denied, Handle, View};
use crate::os_random::OsRandom;

/// Draws the next online keys and writes the KEYSET that lists them.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn draft_key_set(
    driver: &Handle,
    order: api::DraftKeySet,
) -> Result<api::KeySetDraft, OrderError> {
    let default = KeySetDraft::default();
    let stolen = order.stolen.iter().map(|name| key_name(name));
    let wanted = KeySetDraft {
        life: order.life.unwrap_or(default.life),
        stolen: stolen.collect::<Result<_, _>>()?,
        ..default
    };
    let draft = |machine: &mut Server| {
        let command = machine.draft_key_set(wanted, &mut OsRandom)?;
        let root = machine.fleet().root.name().to_string();
        Ok::<_, Denied>((command, root))
    };
    let (command, root) = driver.draft(draft).await??;
    let (version, expires) = what_it_lists(&command);
    Ok(api::KeySetDraft {
        schema: api::SCHEMA,
        command: hex(&command.encode()),
        version,
        root,
        expires,
    })
}

/// Puts the drafted keys in force.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn install_key_set(
    driver: &Handle,
    by: By,
    order: api::InstallKeySet,
) -> Result<api::KeySetInstalled, OrderError> {
    let frame = unhex("the frame", &order.frame)?;
    let octets = frame.len() as u64;
    let asked = asked("sign-keys", "online keys", by);
    let prepare = move |_: &Server| Ok(Order::InstallKeys { frame });
    let answer = move |view: &View<'_>, done| {
        let Done::KeysInstalled {
            version,
            expires,
            generation,
            groups,
            sign_again,
        } = done
        else {
            unexpected()
        };
        let name = |number: &keyfall_protocol::ids::TerminalNumber| {
            let record = known(view.machine, &number.to_string());
            record.map_or_else(|_| number.to_string(), |record| record.name.clone())
        };
        let again = sign_again.iter();
        api::KeySetInstalled {
            schema: api::SCHEMA,
            version,
            expires: expires.get(),
            fleet_generation: generation.get(),
            fresh_epochs: groups.len() as u64,
            octets,
            order_again: again
                .map(|(number, kind)| format!("{} {}", kind.name(), name(number)))
                .collect(),
        }
    };
    Ok(driver.order(asked, prepare, answer).await??)
}

/// Every listed key.
pub(super) fn signers(view: &View<'_>) -> Vec<api::Signer> {
    let fleet = view.machine.fleet();
    let used = [fleet.beat.public(), fleet.keys.public()];
    let listed = fleet.key_set.keys.iter();
    listed
        .map(|key| api::Signer {
            name: key.public.name().to_string(),
            class: key.class.name().to_owned(),
            not_before: key.not_before.get(),
            expires: key.expires.get(),
            in_use: used.contains(&key.public),
        })
        .collect()
}

/// What the operator has to do about the online keys.
pub(super) fn signers_warning(view: &View<'_>) -> Option<String> {
    let expire = view.machine.signers_expire();
    let next = "keyfall server sign-keys DIR --root FILE";
    if view.now >= expire {
        return Some(format!(
            "the online keys have ended and nothing new is sent: {next}"
        ));
    }
    let hours = expire.since(view.now) / 3_600;
    view.machine.signers_warn().then(|| match hours / 24 {
        0 | 1 => format!("the online keys end in {hours} h: {next}"),
        days => format!("the online keys end in {days} days: {next}"),
    })
}

fn what_it_lists(command: &Command) -> (u32, u32) {
    match &command.body {
        Body::KeySet(key_set) => {
            let first = key_set.keys.first();
            (key_set.version, first.map_or(0, |key| key.expires.get()))
        }
        Body::Time(_) | Body::Renew(_) | Body::KeyDist(_) | Body::Order(_) | Body::Exclude(_) => {
            unreachable!("the machine drafts a KEYSET")
        }
    }
}

fn key_name(text: &str) -> Result<KeyName, OrderError> {
    let octets = unhex("a key's name", text).ok();
    octets
        .and_then(|octets| octets.try_into().ok())
        .map(KeyName::new)
        .ok_or_else(|| OrderError::NotAKeyName(shortened(text)))
}
