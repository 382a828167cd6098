//! KEY-DIS: Km for the one terminal, and under Km the keys of all its groups (REQUIREMENTS ).

use aws_lc_rs::{hkdf, hmac};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use super::ack::Exchange;
use super::header::{self, Kind};
use super::rsa::{RsaPublic, RsaSecret, sha256};
use crate::ids::{Generation, GroupNumber, KeyEpoch};
use crate::keys::{MasterKey, Secret};
use crate::rng::{Random, octets};
use crate::sharing::misty1::{BLOCK_LEN, Misty1};

/// The KEY-REQ that a KEY-DIS answers, as it was sent, and the nonce in it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub key_req: &'a [u8],
    pub nonce: [u8; 16],
}

/// A KEY-DIS, and what the server keeps of it until the ACK.
#[derive(Debug)]
pub struct Sealed {
    pub key_dis: Vec<u8>,
    pub exchange: Exchange,
}

/// What a terminal reads in a KEY-DIS, and what it makes its ACK with.
#[derive(Debug)]
pub struct Opened {
    /// By rising group number.
    pub keys: Vec<MasterKey>,
    pub exchange: Exchange,
}

/// Why no KEY-DIS is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SealError {
    #[error("{got} keys are more than the {KEYS_MAX} of one KEY-DIS")]
    TooManyKeys { got: usize },
    #[error("the keys do not stand by rising group number, each group once")]
    NotRising,
}

/// Makes the KEY-DIS that answers `request` with these keys, which stand by rising group number. One
/// public-key operation, for one key and for [`KEYS_MAX`].
///
/// # Errors
/// [`SealError`].
pub fn seal_key_dis(
    terminal: &RsaPublic,
    request: Request<'_>,
    keys: &[MasterKey],
    rng: &mut dyn Random,
) -> Result<Sealed, SealError> {
    if keys.len() > KEYS_MAX {
        return Err(SealError::TooManyKeys { got: keys.len() });
    }
    if !keys.is_sorted_by(|a, b| a.group() < b.group()) {
        return Err(SealError::NotRising);
    }
    let km = fresh_km(request.key_req, rng);
    let iv = octets::<BLOCK_LEN>(rng);
    let mut text = write(&km, request.nonce, keys);
    let plaintext = sha256(&[&text]);
    Misty1::new(&km)
        .encrypt(iv, &mut text)
        .expect("256 keys fill 1,411 whole blocks");

    let mut field = Zeroizing::new([0; 2 * KM_LEN]);
    field[..KM_LEN].copy_from_slice(km.expose());
    field[KM_LEN..].copy_from_slice(&checksum_of(&km));
    let field = terminal.seal(&field[..]);
    let reference = header::reference_to(&[request.key_req]);
    let key_dis = header::join(Kind::KeyDis, reference, &field, &[&iv, &text]);
    let exchange = Exchange::new(km, request.key_req, &key_dis, plaintext);
    Ok(Sealed { key_dis, exchange })
}

/// Reads a KEY-DIS that answers `request`. `None` whatever is wrong: another's, not to this request, an
/// octet changed, or made by somebody who could not read the request (KR-302, KR-303).
#[must_use]
pub fn open_key_dis(own: &RsaSecret, request: Request<'_>, key_dis: &[u8]) -> Option<Opened> {
    let parts = header::split(Kind::KeyDis, key_dis)?;
    let (iv, sealed) = parts.rest.split_first_chunk::<BLOCK_LEN>()?;
    let count = keys_in(sealed.len())?;
    if parts.reference != header::reference_to(&[request.key_req]) || !parts.fits(own) {
        return None;
    }
    let field = own.open(parts.rsa_field)?;
    let (km, checksum) = field.split_at_checked(KM_LEN)?;
    let km = Secret::from_slice(km)?;
    if !bool::from(checksum_of(&km).ct_eq(checksum)) {
        return None;
    }
    let mut text = Zeroizing::new(sealed.to_vec());
    Misty1::new(&km).decrypt(*iv, &mut text).ok()?;
    Some(Opened {
        keys: read(&km, request.nonce, count, &text)?,
        exchange: Exchange::new(km, request.key_req, key_dis, sha256(&[&text])),
    })
}

/// "A hash value made anew for each KEY-DIS" (REQUIREMENTS R-037):
/// `HKDF-Expand(32 random octets, SHA-256(KEY-REQ), 16)`. KR-305.
fn fresh_km(key_req: &[u8], rng: &mut dyn Random) -> Secret<KM_LEN> {
    let fresh = Secret::<32>::init_with(|into| rng.fill(into));
    Secret::init_with(|into| {
        hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, fresh.expose())
            .expand(&[&sha256(&[key_req])], KmLen)
            .and_then(|okm| okm.fill(into))
            .expect("16 octets are less than 255 blocks");
    })
}

/// How the library is told the length of an output.
struct KmLen;

impl hkdf::KeyType for KmLen {
    fn len(&self) -> usize {
        KM_LEN
    }
}

/// The checksum of the RSA field: the beginning of SHA-256(Km).
fn checksum_of(km: &Secret<KM_LEN>) -> [u8; CHECKSUM_LEN] {
    let mut checksum = [0; CHECKSUM_LEN];
    checksum.copy_from_slice(&sha256(&[km.expose()])[..CHECKSUM_LEN]);
    checksum
}

/// The checksum of the MISTY1 field: the beginning of HMAC-SHA-256(Km, nonce ‖ content).
///
/// DEVIATION: as published, a checksum covers what stands before it and no more. Then a KEY-DIS could be
/// made by anybody who has the terminal's public key, and an old one be given a new header. With the
/// nonce under it, only who opened this KEY-REQ can answer it. The layout stays.
fn checksum(km: &Secret<KM_LEN>, nonce: [u8; 16], content: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, km.expose()));
    context.update(&nonce);
    context.update(content);
    let mut checksum = [0; CHECKSUM_LEN];
    checksum.copy_from_slice(&context.sign().as_ref()[..CHECKSUM_LEN]);
    checksum
}

/// The plaintext of the MISTY1 field. Room is made at once, so that no smaller copy stays behind.
fn write(km: &Secret<KM_LEN>, nonce: [u8; 16], keys: &[MasterKey]) -> Zeroizing<Vec<u8>> {
    let len = text_len(keys.len());
    let mut text = Zeroizing::new(Vec::with_capacity(len));
    let count = u16::try_from(keys.len()).expect("the caller counted at most 256");
    text.extend_from_slice(&count.to_be_bytes());
    for key in keys {
        text.extend_from_slice(&key.group().get().to_be_bytes());
        text.extend_from_slice(&key.epoch().get().to_be_bytes());
        text.extend_from_slice(&key.generation().get().to_be_bytes());
        text.extend_from_slice(key.secret().expose());
    }
    let checksum = checksum(km, nonce, &text);
    text.extend_from_slice(&checksum);
    text.resize(len, 0);
    text
}

/// SECURITY: the checksum is looked at before anything else in the text; `count` comes from its length.
fn read(km: &Secret<KM_LEN>, nonce: [u8; 16], count: usize, text: &[u8]) -> Option<Vec<MasterKey>> {
    let (content, rest) = text.split_at_checked(COUNT_LEN + count * ENTRY_LEN)?;
    let (found, padding) = rest.split_at_checked(CHECKSUM_LEN)?;
    if !bool::from(checksum(km, nonce, content).ct_eq(found)) {
        return None;
    }
    let (said, entries) = content.split_first_chunk()?;
    let keys: Vec<_> = entries
        .as_chunks::<ENTRY_LEN>()
        .0
        .iter()
        .map(entry)
        .collect::<Option<_>>()?;
    let sound = usize::from(u16::from_be_bytes(*said)) == count
        && padding.iter().all(|&octet| octet == 0)
        && keys.is_sorted_by(|a, b| a.group() < b.group());
    sound.then_some(keys)
}

/// `None` for a group or generation that there cannot be.
fn entry(octets: &[u8; ENTRY_LEN]) -> Option<MasterKey> {
    let (group, rest) = octets.split_first_chunk()?;
    let (epoch, rest) = rest.split_first_chunk()?;
    let (generation, secret) = rest.split_first_chunk()?;
    Some(MasterKey::new(
        GroupNumber::new(u32::from_be_bytes(*group))?,
        KeyEpoch::new(u32::from_be_bytes(*epoch)),
        Generation::new(u32::from_be_bytes(*generation))?,
        Secret::from_slice(secret)?,
    ))
}

/// Octets of the MISTY1 field with that many keys, padded to whole blocks.
const fn text_len(keys: usize) -> usize {
    (COUNT_LEN + keys * ENTRY_LEN + CHECKSUM_LEN).next_multiple_of(BLOCK_LEN)
}

/// How many keys a MISTY1 field of that length has: padding is shorter than an entry.
fn keys_in(len: usize) -> Option<usize> {
    let keys = len.checked_sub(COUNT_LEN + CHECKSUM_LEN)? / ENTRY_LEN;
    (keys <= KEYS_MAX && text_len(keys) == len).then_some(keys)
}

/// Keys in one KEY-DIS: as many as a terminal has groups, at the most.
pub const KEYS_MAX: usize = 256;

const KM_LEN: usize = 16;
const CHECKSUM_LEN: usize = 16;
const COUNT_LEN: usize = 2;
/// Group, epoch and generation of four octets each, and the key.
const ENTRY_LEN: usize = 44;
