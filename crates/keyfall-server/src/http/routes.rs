//! Paths and methods (the table is in [`keyfall_api::admin`]).

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::{Method, Uri};
use axum::middleware;
use axum::routing::{get, post};
use axum::{Json, Router};
use keyfall_api::admin as api;
use keyfall_api::admin::ProblemCode;
use keyfall_protocol::ids::UnixSeconds;
use keyfall_protocol::server::By;
use serde::Deserialize;

use crate::admin;
use crate::driver::{Handle, View};
use crate::http::error::Refused;
use crate::http::peer::{self, Operator};
use crate::http::read::{self, Body, Name};
use crate::store::{AuditReader, AuditRow, StoreError, Verdict};

type Answer<T> = Result<Json<T>, Refused>;
type Served = State<Arc<Api>>;

/// What every path may use.
pub(super) struct Api {
    driver: Handle,
    /// The audit log is read beside the driver, so that a long reading stops nothing.
    database: PathBuf,
}

pub(super) fn routes(driver: Handle, database: PathBuf, own_uid: u32) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/terminals", get(terminals).post(add_terminal))
        .route("/v1/terminals/{name}", get(terminal))
        .route("/v1/terminals/{name}/exposure", get(exposure))
        .route("/v1/terminals/{name}/renew", post(renew_device))
        .route("/v1/terminals/{name}/legacy-key", post(set_legacy_key))
        .route("/v1/terminals/{name}/addresses", post(set_addresses))
        .route("/v1/groups", get(groups).post(create_group))
        .route("/v1/groups/{name}", get(group))
        .route("/v1/groups/{name}/members", post(add_member))
        .route("/v1/groups/{name}/members/remove", post(remove_member))
        .route("/v1/groups/{name}/policy", post(set_group))
        .route("/v1/groups/{name}/packets", post(set_packets))
        .route("/v1/groups/{name}/renew", post(renew_group))
        .route("/v1/groups/{name}/rekey", post(rekey_group))
        .route("/v1/devices/renew", post(renew_devices))
        .route("/v1/exclude", post(exclude))
        .route("/v1/erase/draft", post(draft_erase))
        .route("/v1/erase/issue", post(issue_erase))
        .route("/v1/receipts", post(take_receipt))
        .route("/v1/key-set/draft", post(draft_key_set))
        .route("/v1/key-set/install", post(install_key_set))
        .route("/v1/confirm", get(confirmation).post(confirm))
        .route("/v1/keys", get(keys))
        .route("/v1/audit", get(audit))
        .route("/v1/audit/verify", get(audit_verify))
        .route("/v1/carousel", get(carousel))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_path)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(own_uid, peer::admit))
        .with_state(Arc::new(Api { driver, database }))
}

async fn status(State(api): Served) -> Answer<api::Status> {
    report(&api, admin::status).await
}

async fn terminals(State(api): Served) -> Answer<api::Terminals> {
    report(&api, admin::terminals).await
}

async fn terminal(State(api): Served, Name(name): Name) -> Answer<api::TerminalShown> {
    let report = move |view: &View<'_>| admin::terminal(view, &name);
    Ok(Json(api.driver.ask(report).await??))
}

async fn groups(State(api): Served) -> Answer<api::Groups> {
    report(&api, admin::groups).await
}

async fn group(State(api): Served, Name(name): Name) -> Answer<api::GroupShown> {
    let report = move |view: &View<'_>| admin::group(view, &name);
    Ok(Json(api.driver.ask(report).await??))
}

async fn confirmation(State(api): Served) -> Answer<api::Confirmation> {
    Ok(Json(api.driver.ask(admin::confirmation).await??))
}

async fn confirm(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Body(order): Body<api::Confirm>,
) -> Answer<api::Confirmed> {
    let by = by(operator, &order.why)?;
    Ok(Json(admin::confirm(&api.driver, by).await?))
}

async fn keys(State(api): Served) -> Answer<api::Keys> {
    report(&api, admin::keys).await
}

async fn add_terminal(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Body(order): Body<api::AddTerminal>,
) -> Answer<api::TerminalAdded> {
    let by = by(operator, &order.why)?;
    Ok(Json(admin::add_terminal(&api.driver, by, order).await?))
}

async fn create_group(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Body(order): Body<api::CreateGroup>,
) -> Answer<api::GroupCreated> {
    let by = by(operator, &order.why)?;
    Ok(Json(admin::create_group(&api.driver, by, order).await?))
}

async fn add_member(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Name(name): Name,
    Body(order): Body<api::AddMember>,
) -> Answer<api::MemberAdded> {
    let by = by(operator, &order.why)?;
    Ok(Json(admin::add_member(&api.driver, by, name, order).await?))
}

async fn set_group(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Name(name): Name,
    Body(order): Body<api::SetGroup>,
) -> Answer<api::GroupSet> {
    let by = by(operator, &order.why)?;
    if order.dry_run {
        admin::names_something(&order)?;
        let report = move |view: &View<'_>| admin::would_set_group(view, &name, &order);
        return Ok(Json(api.driver.ask(report).await??));
    }
    Ok(Json(admin::set_group(&api.driver, by, name, order).await?))
}

async fn set_packets(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Name(name): Name,
    Body(order): Body<api::SetPackets>,
) -> Answer<api::PacketsSet> {
    let by = by(operator, &order.why)?;
    let set = admin::set_packets(&api.driver, by, name, order);
    Ok(Json(set.await?))
}

async fn set_addresses(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Name(name): Name,
    Body(order): Body<api::SetAddresses>,
) -> Answer<api::AddressesSet> {
    let by = by(operator, &order.why)?;
    let set = admin::set_addresses(&api.driver, by, name, order);
    Ok(Json(set.await?))
}

async fn renew_group(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Name(name): Name,
    Body(order): Body<api::Renew>,
) -> Answer<api::GroupRenewed> {
    let by = by(operator, &order.why)?;
    if order.dry_run {
        let report = move |view: &View<'_>| admin::would_renew_group(view, &name);
        return Ok(Json(api.driver.ask(report).await??));
    }
    Ok(Json(admin::renew_group(&api.driver, by, name).await?))
}

async fn renew_devices(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Body(order): Body<api::Renew>,
) -> Answer<api::DevicesRenewed> {
    let by = by(operator, &order.why)?;
    if order.dry_run {
        return report(&api, admin::would_renew_devices).await;
    }
    Ok(Json(admin::renew_devices(&api.driver, by).await?))
}

async fn renew_device(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Name(name): Name,
    Body(order): Body<api::Renew>,
) -> Answer<api::DeviceRenewed> {
    let by = by(operator, &order.why)?;
    if order.dry_run {
        let report = move |view: &View<'_>| admin::would_renew_device(view, &name);
        return Ok(Json(api.driver.ask(report).await??));
    }
    Ok(Json(admin::renew_device(&api.driver, by, name).await?))
}

async fn set_legacy_key(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Name(name): Name,
    Body(order): Body<api::SetLegacyKey>,
) -> Answer<api::LegacyKeySet> {
    let by = by(operator, &order.why)?;
    let set = admin::set_legacy_key(&api.driver, by, name, &order);
    Ok(Json(set.await?))
}

async fn rekey_group(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Name(name): Name,
    Body(order): Body<api::Renew>,
) -> Answer<api::GroupRekeyed> {
    let by = by(operator, &order.why)?;
    if order.dry_run {
        let report = move |view: &View<'_>| admin::would_rekey_group(view, &name);
        return Ok(Json(api.driver.ask(report).await??));
    }
    Ok(Json(admin::rekey_group(&api.driver, by, name).await?))
}

async fn remove_member(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Name(name): Name,
    Body(order): Body<api::RemoveMember>,
) -> Answer<api::MemberRemoved> {
    let by = by(operator, &order.why)?;
    if order.dry_run {
        let report =
            move |view: &View<'_>| admin::would_remove_member(view, &name, &order.terminal);
        return Ok(Json(api.driver.ask(report).await??));
    }
    let removed = admin::remove_member(&api.driver, by, name, order.terminal);
    Ok(Json(removed.await?))
}

async fn exclude(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Body(order): Body<api::Exclude>,
) -> Answer<api::Excluded> {
    let by = by(operator, &order.why)?;
    if order.dry_run {
        let report = move |view: &View<'_>| admin::would_exclude(view, &order.terminals);
        return Ok(Json(api.driver.ask(report).await??));
    }
    Ok(Json(admin::exclude(&api.driver, by, order).await?))
}

async fn draft_erase(
    State(api): Served,
    Body(order): Body<api::DraftErase>,
) -> Answer<api::EraseDraft> {
    Ok(Json(admin::draft_erase(&api.driver, order).await?))
}

async fn issue_erase(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Body(order): Body<api::IssueErase>,
) -> Answer<api::EraseIssued> {
    let by = by(operator, &order.why)?;
    Ok(Json(admin::issue_erase(&api.driver, by, order).await?))
}

async fn take_receipt(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Body(order): Body<api::TakeReceipt>,
) -> Answer<api::ReceiptTaken> {
    let by = by(operator, &order.why)?;
    Ok(Json(admin::take_receipt(&api.driver, by, order).await?))
}

async fn draft_key_set(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Body(order): Body<api::DraftKeySet>,
) -> Answer<api::KeySetDraft> {
    let by = by(operator, &order.why)?;
    Ok(Json(admin::draft_key_set(&api.driver, by, &order).await?))
}

async fn install_key_set(
    State(api): Served,
    Extension(operator): Extension<Operator>,
    Body(order): Body<api::InstallKeySet>,
) -> Answer<api::KeySetInstalled> {
    let by = by(operator, &order.why)?;
    Ok(Json(admin::install_key_set(&api.driver, by, &order).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExposureQuery {
    /// Unix seconds; absent: now.
    at: Option<u32>,
}

async fn exposure(State(api): Served, Name(name): Name, uri: Uri) -> Answer<api::Exposure> {
    let ExposureQuery { at } = read::query(&uri)?;
    let at = at.map(UnixSeconds::new);
    let report = move |view: &View<'_>| admin::exposure(view, &name, at);
    Ok(Json(api.driver.ask(report).await??))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    #[serde(default = "twenty")]
    last: u32,
}

const fn twenty() -> u32 {
    20
}

async fn audit(State(api): Served, uri: Uri) -> Answer<api::Audit> {
    let AuditQuery { last } = read::query(&uri)?;
    let rows = read_audit(&api, move |reader| reader.last(last.min(AUDIT_MAX))).await?;
    Ok(Json(api::Audit {
        schema: api::SCHEMA,
        entries: rows.into_iter().map(audit_row).collect(),
    }))
}

async fn audit_verify(State(api): Served) -> Answer<api::AuditVerified> {
    let verdict = read_audit(&api, |reader| reader.verify()).await?;
    Ok(Json(match verdict {
        Verdict::Whole { entries, link } => api::AuditVerified {
            schema: api::SCHEMA,
            whole: true,
            entries,
            broken_at: None,
            link: Some(link.to_string()),
        },
        Verdict::Broken { entry } => api::AuditVerified {
            schema: api::SCHEMA,
            whole: false,
            entries: entry - 1,
            broken_at: Some(entry),
            link: None,
        },
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CarouselQuery {
    #[serde(default = "thirty_percent")]
    loss: f64,
}

const fn thirty_percent() -> f64 {
    0.3
}

async fn carousel(State(api): Served, uri: Uri) -> Answer<api::Carousel> {
    let CarouselQuery { loss } = read::query(&uri)?;
    if !(0.0..1.0).contains(&loss) {
        let sentence = "loss is a share from 0 to less than 1, as in loss=0.3";
        return Err(Refused::new(ProblemCode::BadRequest, sentence));
    }
    report(&api, move |view| admin::carousel(view, loss)).await
}

/// The body is read all the same: who is still writing it would not read the answer.
async fn no_such_path(method: Method, uri: Uri, _body: Result<Bytes, BytesRejection>) -> Refused {
    let path: String = uri.path().chars().take(200).collect();
    let sentence = format!("there is no {method} {path} in this version of the admin API");
    Refused::new(ProblemCode::NoSuchPath, sentence)
}

async fn report<T: Send + 'static>(
    api: &Api,
    report: impl FnOnce(&View<'_>) -> T + Send + 'static,
) -> Answer<T> {
    Ok(Json(api.driver.ask(report).await?))
}

async fn read_audit<T: Send + 'static>(
    api: &Api,
    read: impl FnOnce(&AuditReader) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Refused> {
    let database = api.database.clone();
    let reading = move || AuditReader::open(&database).and_then(|reader| read(&reader));
    let read = tokio::task::spawn_blocking(reading).await;
    Ok(read.map_err(|_| Refused::new(ProblemCode::Ending, "the server is ending"))??)
}

fn audit_row(row: AuditRow) -> api::AuditEntry {
    api::AuditEntry {
        entry: row.entry,
        at: row.at,
        actor: row.actor,
        action: row.action,
        subject: row.subject,
        outcome: row.outcome,
        reason: row.reason,
        ticket: row.ticket,
    }
}

fn by(operator: Operator, why: &api::Why) -> Result<By, Refused> {
    Ok(admin::by(operator.actor(), why)?)
}

/// Octets of a request: a group of a million members.
const BODY_MAX: usize = 16 << 20;
const AUDIT_MAX: u32 = 10_000;
