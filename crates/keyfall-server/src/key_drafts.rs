//! The KEYSET that waits for the root's signature: drawn by the machine, kept in the store, so that a
//! root that is far away may take its time. Both a running server and a stopped one come here.

use keyfall_api::admin as api;
use keyfall_protocol::command::{Body, Command};
use keyfall_protocol::ids::UnixSeconds;
use keyfall_protocol::server::{AuditEntry, By, Done, KeySetDraft, Refusal, Server};

use crate::admin::legacy_warning;
use crate::driver::Denied;
use crate::os_random::OsRandom;
use crate::store::Store;

/// Draws the next online keys and makes them durable before anybody hears of them.
pub(crate) fn draw_and_keep(
    machine: &mut Server,
    store: &mut Store,
    wanted: KeySetDraft,
    by: By,
    at: UnixSeconds,
) -> Result<api::KeySetDraft, Denied> {
    let stolen = wanted.stolen.len();
    let drafted = machine.draft_key_set(wanted, &mut OsRandom);
    let noted = |outcome| AuditEntry {
        at,
        actor: by.actor,
        action: "sign-keys",
        subject: "online keys".to_owned(),
        outcome,
        reason: by.reason,
        ticket: by.ticket,
    };
    let command = match drafted {
        Ok(command) => command,
        Err(refusal) => {
            if let Err(error) = store.note(&noted(format!("refused: {refusal}"))) {
                tracing::error!(%error, "a refusal could not be audited");
            }
            return Err(refusal.into());
        }
    };
    let (version, expires) = what_it_lists(&command);
    let noted = noted(match stolen {
        0 => format!("KEYSET {version} drafted"),
        some => format!("KEYSET {version} drafted, {some} stolen"),
    });
    let drafted = machine.drafted().ok_or(Refusal::NotStored)?;
    if let Err(error) = store.keep_draft(drafted, &noted, &mut OsRandom) {
        tracing::error!(%error, "the store could not be written");
        return Err(Refusal::NotStored.into());
    }
    Ok(api::KeySetDraft {
        schema: api::SCHEMA,
        command: command
            .encode()
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect(),
        version,
        root: machine.fleet().root.name().to_string(),
        expires: expires.get(),
    })
}

/// What is told of drafted keys that were put in force by a frame of so many octets.
///
/// # Panics
/// Where `done` is of another order.
pub(crate) fn installed(machine: &Server, octets: usize, done: Done) -> api::KeySetInstalled {
    let Done::KeysInstalled {
        version,
        expires,
        generation,
        groups,
        sign_again,
    } = done
    else {
        unreachable!("the machine answers an order with what that order does")
    };
    let order_again = sign_again.iter().map(|(number, kind)| {
        let terminal = machine.terminal_named(&number.to_string());
        let name = terminal.map_or_else(|| number.to_string(), |record| record.name.clone());
        format!("{} {name}", kind.name())
    });
    api::KeySetInstalled {
        schema: api::SCHEMA,
        version,
        expires: expires.get(),
        fleet_generation: generation.get(),
        stolen: machine
            .fleet()
            .key_set
            .stolen
            .iter()
            .map(ToString::to_string)
            .collect(),
        fresh_epochs: groups.len() as u64,
        octets: octets as u64,
        order_again: order_again.collect(),
        warning: legacy_warning(&machine.fleet().key_set.limits.suites),
    }
}

fn what_it_lists(command: &Command) -> (u32, UnixSeconds) {
    match &command.body {
        Body::KeySet(key_set) => {
            let first = key_set.keys.first();
            let expires = first.map_or(key_set.issued_at, |key| key.expires);
            (key_set.version, expires)
        }
        Body::Time(_)
        | Body::Renew(_)
        | Body::KeyDist(_)
        | Body::Order(_)
        | Body::Exclude(_)
        | Body::Stop(_)
        | Body::Start(_)
        | Body::Notify(_) => {
            unreachable!("the machine drafts a KEYSET")
        }
    }
}
