//! DELETE, INIT, LOCK and UNLOCK: drafted here, signed where the erase key is, issued here, and
//! proved by a receipt. The erase key never comes to this process.

use keyfall_api::admin as api;
use keyfall_protocol::command::{
    Body, OrderKind, SIGNERS_MAX, SignerClass, SigningKey, Unverified, sign_together,
};
use keyfall_protocol::ids::UnixSeconds;
use keyfall_protocol::keys::Secret;
use keyfall_protocol::receipt::Receipt;
use keyfall_protocol::rng::Random as _;
use keyfall_protocol::server::{By, Class, Done, IssuedOrder, Order, Server};

use crate::admin::orders::{OrderError, asked, hex, known, unexpected, unhex};
use crate::admin::reports::{named_member, reach};
use crate::driver::{Denied, Handle, View};
use crate::os_random::OsRandom;

/// Writes the command that the erase keys are to sign.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn draft_erase(
    driver: &Handle,
    order: api::DraftErase,
) -> Result<api::EraseDraft, OrderError> {
    let kind = kind_of(order.kind);
    let wanted = order.terminal.clone();
    let draft = move |machine: &mut Server| {
        let terminal = known(machine, &wanted)?.number;
        let command = machine.draft_order(terminal, kind, order.receipt, &mut OsRandom)?;
        Ok::<_, Denied>((terminal, command))
    };
    let (terminal, command) = driver.draft(draft).await??;
    let report = move |view: &View<'_>| {
        let fleet = view.machine.fleet();
        let listed = fleet.key_set.keys.iter();
        let erase_keys = listed.filter(|key| key.class == SignerClass::Erase);
        let signatures = fleet.key_set.limits.erase_signatures;
        // As long as it will be: every signature has the same length.
        let strangers: Vec<_> = (0..usize::from(signatures).clamp(1, SIGNERS_MAX))
            .map(|_| SigningKey::from_seed(Secret::init_with(|seed| OsRandom.fill(seed))))
            .collect();
        let octets = sign_together(&command, &strangers.iter().collect::<Vec<_>>()).len();
        api::EraseDraft {
            schema: api::SCHEMA,
            terminal: named_member(view, terminal),
            kind: order.kind,
            command: hex(&command.encode()),
            signatures,
            erase_keys: erase_keys
                .map(|key| key.public.name().to_string())
                .collect(),
            reach: reach(view, 1, octets as u64, &[Class::Erase]),
            limit: api::HourlyLimit {
                an_hour: HOURLY_LIMIT,
                issued: erased_last_hour(view.machine, view.now),
            },
        }
    };
    Ok(driver.ask(report).await?)
}

/// Hands a signed command to the carousel.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn issue_erase(
    driver: &Handle,
    by: By,
    order: api::IssueErase,
) -> Result<api::EraseIssued, OrderError> {
    let frame = unhex("the frame", &order.frame)?;
    let octets = frame.len() as u64;
    let claimed = claimed_kind(&frame);
    let asked = asked(claimed.map_or("issue", verb), "a signed order", by);
    let prepare = move |machine: &Server| {
        let erases = claimed.is_none_or(|kind| matches!(kind, OrderKind::Delete | OrderKind::Init));
        // The machine says when it last looked at its clock; no limit is that exact.
        let issued = erased_last_hour(machine, crate::clock::wall());
        if erases && !order.force && issued >= HOURLY_LIMIT {
            return Err(Denied::HourlyLimit {
                an_hour: HOURLY_LIMIT,
            });
        }
        Ok(Order::Issue { frame })
    };
    let answer = move |view: &View<'_>, done| {
        let Done::Issued {
            terminal,
            kind,
            hash,
        } = done
        else {
            unexpected()
        };
        let record = known(view.machine, &terminal.to_string());
        let orders = record.map_or(&[][..], |record| &record.orders);
        let issued = orders.iter().find(|order| order.hash == hash);
        api::EraseIssued {
            schema: api::SCHEMA,
            dry_run: false,
            terminal: named_member(view, terminal),
            kind: shown_kind(kind),
            receipt: issued.is_some_and(|order| order.receipt_wanted),
            reach: reach(view, 1, octets, &[Class::Erase]),
        }
    };
    Ok(driver.order(asked, prepare, answer).await??)
}

/// Takes a terminal's word that it obeyed.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn take_receipt(
    driver: &Handle,
    by: By,
    order: api::TakeReceipt,
) -> Result<api::ReceiptTaken, OrderError> {
    let octets = unhex("the receipt", &order.receipt)?;
    let receipt = Receipt::decode(&octets).map_err(|_| OrderError::NotAReceipt)?;
    let asked = asked("receipt", &receipt.terminal.to_string(), by);
    let command = receipt.command;
    let prepare = move |_: &Server| Ok(Order::Receipt { receipt });
    let answer = move |view: &View<'_>, done| {
        let Done::Proved { terminal, kind, at } = done else {
            unexpected()
        };
        let record = known(view.machine, &terminal.to_string());
        let orders = record.map_or(&[][..], |record| &record.orders);
        let proved = orders.iter().find(|order| order.hash == command);
        api::ReceiptTaken {
            schema: api::SCHEMA,
            terminal: named_member(view, terminal),
            kind: shown_kind(kind),
            sent_at: proved.map_or(at, |order| order.at).get(),
            proved_at: at.get(),
        }
    };
    Ok(driver.order(asked, prepare, answer).await??)
}

/// What is known of an order.
pub(super) fn erasure_state(order: &IssuedOrder) -> api::ErasureState {
    api::ErasureState {
        kind: shown_kind(order.kind),
        sent_at: order.at.get(),
        proved_at: order.proved_at.map(UnixSeconds::get),
    }
}

pub(super) fn shown_kind(kind: OrderKind) -> api::EraseKind {
    match kind {
        OrderKind::Delete => api::EraseKind::Delete,
        OrderKind::Init => api::EraseKind::Init,
        OrderKind::Lock => api::EraseKind::Lock,
        OrderKind::Unlock => api::EraseKind::Unlock,
    }
}

fn kind_of(kind: api::EraseKind) -> OrderKind {
    match kind {
        api::EraseKind::Delete => OrderKind::Delete,
        api::EraseKind::Init => OrderKind::Init,
        api::EraseKind::Lock => OrderKind::Lock,
        api::EraseKind::Unlock => OrderKind::Unlock,
    }
}

/// The verb of the command line.
fn verb(kind: OrderKind) -> &'static str {
    match kind {
        OrderKind::Delete => "delete-keys",
        OrderKind::Init => "initialize",
        OrderKind::Lock => "lock",
        OrderKind::Unlock => "unlock",
    }
}

/// What the frame says it is; the machine judges it.
fn claimed_kind(frame: &[u8]) -> Option<OrderKind> {
    match &Unverified::decode(frame).ok()?.command().body {
        Body::Order(order) => Some(order.kind()),
        Body::Time(_)
        | Body::Renew(_)
        | Body::KeyDist(_)
        | Body::Exclude(_)
        | Body::KeySet(_)
        | Body::Stop(_)
        | Body::Start(_)
        | Body::Notify(_) => None,
    }
}

fn erased_last_hour(machine: &Server, now: UnixSeconds) -> u64 {
    machine
        .terminals()
        .flat_map(|terminal| &terminal.orders)
        .filter(|order| order.erases() && now.since(order.at) < 3_600)
        .count() as u64
}

/// DELETE and INIT that this server issues in an hour unless it is told again (REQUIREMENTS W-18).
const HOURLY_LIMIT: u64 = 10;
