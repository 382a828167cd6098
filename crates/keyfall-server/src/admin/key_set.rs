//! The signing keys: which are in force, when they end, and the next ones, which the root signs
//! elsewhere. The root key never comes to this process.

use std::sync::Arc;

use keyfall_api::admin as api;
use keyfall_protocol::command::{ClearList, Suites};
use keyfall_protocol::ids::KeyName;
use keyfall_protocol::server::{By, KeySetDraft, Order, Refusal, Server};
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::sharing::rsa_misty1::{RsaSecret, RsaSize};

use crate::admin::orders::{OrderError, asked, shortened, unhex};
use crate::admin::packets::prefixes;
use crate::driver::{Handle, View};
use crate::key_drafts::installed;

/// Draws the next online keys and writes the KEYSET that lists them.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn draft_key_set(
    driver: &Handle,
    by: By,
    order: &api::DraftKeySet,
) -> Result<api::KeySetDraft, OrderError> {
    let order = order.clone();
    // An RSA key takes long to make: nobody waits for it but this request.
    let wanted = tokio::task::spawn_blocking(move || wanted(&order)).await;
    let wanted = wanted.map_err(|_| OrderError::Ended)??;
    Ok(driver.draft_keys(wanted, by).await??)
}

/// What the request asks for. Where it names the legacy suite, an RSA key is made.
///
/// # Errors
/// [`OrderError::NotAKeyName`], [`OrderError::NotSuites`], [`OrderError::LegacyNotFirst`],
/// [`OrderError::BadRsaSize`], [`OrderError::NotAPrefix`], [`OrderError::ClearListTooLong`].
pub(crate) fn wanted(order: &api::DraftKeySet) -> Result<KeySetDraft, OrderError> {
    let default = KeySetDraft::default();
    let stolen = order.stolen.iter().map(|name| key_name(name));
    let suites = order.suites.as_deref().map(suites).transpose()?;
    Ok(KeySetDraft {
        life: order.life.unwrap_or(default.life),
        stolen: stolen.collect::<Result<_, _>>()?,
        suites,
        clear: order.clear.as_deref().map(clear_list).transpose()?,
        rsa: rsa_for(suites.as_ref(), order.rsa_bits)?,
        ..default
    })
}

fn clear_list(texts: &[String]) -> Result<ClearList, OrderError> {
    ClearList::new(&prefixes(texts)?).ok_or(OrderError::ClearListTooLong)
}

fn rsa_for(
    suites: Option<&Suites>,
    bits: Option<u16>,
) -> Result<Option<Arc<RsaSecret>>, OrderError> {
    let legacy = suites.is_some_and(|suites| suites.contains(SharingSuite::RsaMisty1));
    if !legacy {
        return bits.map_or(Ok(None), |_| Err(OrderError::BadRsaSize));
    }
    let size = RsaSize::of_bits(bits.unwrap_or(RSA_BITS)).ok_or(OrderError::BadRsaSize)?;
    let key = RsaSecret::generate(size).ok_or(Refusal::NoRsaKey)?;
    Ok(Some(Arc::new(key)))
}

/// What is to be said where the fleet speaks the legacy suite (W-15, W-16).
pub(crate) fn legacy_warning(suites: &Suites) -> Option<String> {
    let legacy = suites.contains(SharingSuite::RsaMisty1);
    legacy.then(|| LEGACY_WARNING.to_owned())
}

/// Puts the drafted keys in force.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn install_key_set(
    driver: &Handle,
    by: By,
    order: &api::InstallKeySet,
) -> Result<api::KeySetInstalled, OrderError> {
    let frame = signed_frame(order)?;
    let octets = frame.len();
    let asked = asked("sign-keys", "online keys", by);
    let prepare = move |_: &Server| Ok(Order::InstallKeys { frame });
    let answer = move |view: &View<'_>, done| installed(view.machine, octets, done);
    Ok(driver.order(asked, prepare, answer).await??)
}

/// The frame that the request brings.
///
/// # Errors
/// [`OrderError::NotHexadecimal`].
pub(crate) fn signed_frame(order: &api::InstallKeySet) -> Result<Vec<u8>, OrderError> {
    unhex("the frame", &order.frame)
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

fn suites(names: &[String]) -> Result<Suites, OrderError> {
    let known = [
        SharingSuite::Hpke,
        SharingSuite::HpkePq,
        SharingSuite::Psk,
        SharingSuite::RsaMisty1,
    ];
    let named = |name: &String| known.into_iter().find(|suite| suite.name() == name);
    let listed: Option<Vec<_>> = names.iter().map(named).collect();
    let suites = listed
        .and_then(|listed| Suites::new(&listed))
        .ok_or_else(|| OrderError::NotSuites(shortened(&names.join(","))))?;
    let place = suites
        .iter()
        .position(|&suite| suite == SharingSuite::RsaMisty1);
    match place {
        None | Some(0) => Ok(suites),
        Some(_) => Err(OrderError::LegacyNotFirst),
    }
}

fn key_name(text: &str) -> Result<KeyName, OrderError> {
    let octets = unhex("a key's name", text).ok();
    octets
        .and_then(|octets| octets.try_into().ok())
        .map(KeyName::new)
        .ok_or_else(|| OrderError::NotAKeyName(shortened(text)))
}

/// Bits of the server's RSA key where nobody says how many.
const RSA_BITS: u16 = 3072;
const LEGACY_WARNING: &str = "terminals with an RSA key ask in rsa-misty1 from now on: whoever comes by \
                              such a key opens every answer that was recorded for it, and the cipher is \
                              weak; it brings only keys of groups with legacy sharing on";
