//! Enrolment: what a terminal gets before operation begins (REQUIREMENTS R-035, FORMATS section 9),
//! always sealed: to a fresh key of the terminal by HPKE (RFC 9180 base mode), or under a code.

use core::net::{Ipv4Addr, Ipv6Addr};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem as _, OpModeR, OpModeS, Serializable};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::command::codec::{self, Reader, Writer, Written};
use crate::command::{KeySet, Unverified, VerifyingKey};
use crate::error::DecodeError;
use crate::ids::{Generation, StreamId, TerminalNumber, UnixSeconds};
use crate::keys::{ObeyKey, Secret, WrapKey};
use crate::rng::{FromRandom, Random, octets};

/// Who a terminal is and whom it obeys: the part of a package that the terminal keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub number: TerminalNumber,
    /// The terminal's name, a word for people.
    pub name: String,
    pub fleet: String,
    pub root: VerifyingKey,
    /// The KEYSET as the root signed it.
    pub key_set_frame: Vec<u8>,
    pub streams: Vec<StreamId>,
    /// Where commands are heard, as carrier addresses.
    pub carriers: Vec<String>,
    /// Where the server answers, as "HOST:PORT", where there is a way back.
    pub servers: Vec<String>,
    /// Seconds that a rank-1 generation is kept after the next one came.
    pub keep_time: u32,
    /// What INIT wipes beside the state directory: absolute paths (REQUIREMENTS ).
    pub wipe_roots: Vec<String>,
}

/// Everything that is put into a terminal at enrolment.
#[derive(Debug)]
pub struct EnrolmentPackage {
    pub identity: Identity,
    pub obey: ObeyKey,
    /// At the G of `issued_at`.
    pub wrap: WrapKey,
    /// The server's time when it made the package: the terminal's first lower bound.
    pub issued_at: UnixSeconds,
    /// Past it an import is refused.
    pub expires: UnixSeconds,
}

/// Why a package does not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PackageError {
    #[error("this is not an enrolment package: {0}")]
    Malformed(DecodeError),
    #[error("the package does not open with this terminal's request key: it was made for another")]
    WrongKey,
    #[error("the package does not open with this code")]
    WrongCode,
    #[error("the package is sealed under a code, which has to be given")]
    CodeNeeded,
    #[error("the package is sealed to a request key, which this directory does not hold")]
    RequestKeyNeeded,
    #[error("the KEYSET in the package is not signed by the root in it")]
    KeySetNotSigned,
    #[error("that is not a request key")]
    NotARequestKey,
}

impl Identity {
    /// The KEYSET, after its signature under the root was checked.
    ///
    /// # Errors
    /// [`PackageError::KeySetNotSigned`].
    pub fn key_set(&self) -> Result<KeySet, PackageError> {
        Unverified::decode(&self.key_set_frame).map_err(PackageError::Malformed)?;
        KeySet::signed_by(&self.root, &self.key_set_frame).ok_or(PackageError::KeySetNotSigned)
    }

    pub(crate) fn write(&self, e: &mut Writer<'_>) -> Written {
        e.array(10)?
            .u32(self.number.get())?
            .str(&self.name)?
            .str(&self.fleet)?;
        e.bytes(self.root.as_bytes())?.bytes(&self.key_set_frame)?;
        e.array(self.streams.len() as u64)?;
        for stream in &self.streams {
            e.bytes(stream.as_bytes())?;
        }
        e.array(self.carriers.len() as u64)?;
        for carrier in &self.carriers {
            e.str(carrier)?;
        }
        e.array(self.servers.len() as u64)?;
        for server in &self.servers {
            e.str(server)?;
        }
        e.u32(self.keep_time)?;
        e.array(self.wipe_roots.len() as u64)?;
        for root in &self.wipe_roots {
            e.str(root)?;
        }
        Ok(())
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.array("identity", 10)?;
        let number = r.terminal()?;
        let name = short_text(r, "terminal name")?;
        let fleet = short_text(r, "fleet name")?;
        let root = VerifyingKey::new(r.octets("root key")?);
        let key_set_frame = r.bytes("KEYSET")?.to_vec();
        let mut streams = Vec::new();
        for _ in 0..r.array_between("streams", 1, 16)? {
            streams.push(StreamId::new(r.octets("stream")?));
        }
        let mut carriers = Vec::new();
        for _ in 0..r.array_between("carriers", 0, 16)? {
            carriers.push(short_text(r, "carrier")?);
        }
        let mut servers = Vec::new();
        for _ in 0..r.array_between("servers", 0, SERVERS_MAX)? {
            let server = short_text(r, "server")?;
            if !is_server_address(&server) {
                return Err(DecodeError::OutOfRange { what: "server" });
            }
            servers.push(server);
        }
        let keep_time = r.uint32("keep time")?;
        let mut wipe_roots = Vec::new();
        for _ in 0..r.array_between("wipe roots", 0, WIPE_ROOTS_MAX)? {
            let root = short_text(r, "wipe root")?;
            if !is_wipe_root(&root) {
                return Err(DecodeError::OutOfRange { what: "wipe root" });
            }
            wipe_roots.push(root);
        }
        Ok(Self {
            number,
            name,
            fleet,
            root,
            key_set_frame,
            streams,
            carriers,
            servers,
            keep_time,
            wipe_roots,
        })
    }
}

/// Whether a path may be declared for wiping: absolute, no `..`, and not the root of everything.
#[must_use]
pub fn is_wipe_root(path: &str) -> bool {
    let mut parts = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    path.starts_with('/')
        && path.len() <= 200
        && !path.chars().any(char::is_control)
        && parts.clone().all(|part| part != "..")
        && parts.next().is_some()
}

/// Whether a terminal can ask there: HOST:PORT, where HOST is a name (RFC 1123 section 2.1), an IPv4
/// address or an IPv6 address in brackets, neither 0.0.0.0 nor ::, and PORT is 1 to 65535 (KR-388).
#[must_use]
pub fn is_server_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let number = port.bytes().all(|it| it.is_ascii_digit());
    let port = number && port.parse::<u16>().is_ok_and(|port| port != 0);
    let bracketed = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let host = match bracketed {
        Some(host) => {
            let host = host.parse::<Ipv6Addr>().map(|it| it.to_canonical());
            host.is_ok_and(|it| !it.is_unspecified())
        }
        None => match host.parse::<Ipv4Addr>() {
            Ok(host) => !host.is_unspecified(),
            Err(_) => is_host_name(host),
        },
    };
    port && host && text.len() <= 200
}

/// Labels of letters, digits, `-` and `_`; one of digits alone at the end would be read as an address.
fn is_host_name(name: &str) -> bool {
    let labels = name.strip_suffix('.').unwrap_or(name).split('.');
    let sound = |label: &str| {
        let mut octets = label.bytes();
        (1..=63).contains(&label.len())
            && octets.all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = labels.clone().next_back().unwrap_or_default();
    labels.clone().all(sound) && !last.bytes().all(|it| it.is_ascii_digit())
}

fn short_text(r: &mut Reader<'_>, what: &'static str) -> Result<String, DecodeError> {
    let text = r.text(what)?;
    if text.is_empty() || text.len() > 200 || text.chars().any(char::is_control) {
        return Err(DecodeError::OutOfRange { what });
    }
    Ok(text.to_owned())
}

impl EnrolmentPackage {
    /// Seals to a request key that `terminal enrol --request` printed.
    ///
    /// # Errors
    /// [`PackageError::NotARequestKey`].
    pub fn seal_to(
        &self,
        request: &[u8; 32],
        rng: &mut dyn Random,
    ) -> Result<Vec<u8>, PackageError> {
        let public = <Kem as hpke::Kem>::PublicKey::from_bytes(request)
            .map_err(|_| PackageError::NotARequestKey)?;
        let (encapsulated, ciphertext) =
            hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, Kem>(
                &OpModeS::Base,
                &public,
                INFO,
                &self.encode(),
                &[],
                &mut FromRandom(rng),
            )
            .map_err(|_| PackageError::NotARequestKey)?;
        let encapsulated = encapsulated.to_bytes().to_vec();
        Ok(SealedPackage::ToRequest {
            encapsulated,
            ciphertext,
        }
        .encode())
    }

    /// Seals under a code, which must reach the terminal's owner by another way.
    #[must_use]
    pub fn seal_under(&self, code: &EnrolmentCode, rng: &mut dyn Random) -> Vec<u8> {
        let salt: [u8; 16] = octets(rng);
        let iv: [u8; 12] = octets(rng);
        let mut sealed = self.encode();
        let tag = code
            .aead(&salt)
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(iv),
                Aad::from(INFO),
                &mut sealed[..],
            )
            .expect("a package is far below the limit of GCM");
        let ciphertext = [&sealed[..], tag.as_ref()].concat();
        SealedPackage::UnderCode {
            salt,
            iv,
            ciphertext,
        }
        .encode()
    }

    /// The contents, for who asks by a token.
    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut plain = Zeroizing::new(Vec::with_capacity(8192));
        codec::encode_into(&mut plain, |e| {
            e.array(6)?;
            self.identity.write(e)?;
            e.bytes(self.obey.secret().expose())?;
            e.bytes(self.wrap.secret().expose())?
                .u32(self.wrap.generation().get())?;
            e.u32(self.issued_at.get())?.u32(self.expires.get())?;
            Ok(())
        });
        plain
    }

    /// The contents, with a KEYSET that the root in them signed.
    pub(crate) fn decode(plain: &[u8]) -> Result<Self, PackageError> {
        let package = Self::read(plain).map_err(PackageError::Malformed)?;
        package.identity.key_set()?;
        Ok(package)
    }

    fn read(plain: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(plain);
        r.array("package", 6)?;
        let identity = Identity::read(&mut r)?;
        let obey = secret(&mut r, "obey key")?;
        let wrap = secret(&mut r, "wrap key")?;
        let generation: Generation = r.generation()?;
        let package = Self {
            obey: ObeyKey::new(identity.number, obey),
            wrap: WrapKey::new(identity.number, generation, wrap),
            issued_at: r.time("issued-at")?,
            expires: r.time("expires")?,
            identity,
        };
        r.end()?;
        codec::deterministic(plain, &package.encode())?;
        Ok(package)
    }
}

pub(crate) fn secret(r: &mut Reader<'_>, what: &'static str) -> Result<Secret<32>, DecodeError> {
    Secret::from_slice(r.bytes(what)?).ok_or(DecodeError::OutOfRange { what })
}

/// A sealed package, read as far as it can be without a key.
#[derive(Debug)]
pub enum SealedPackage {
    /// Sealed to a request key.
    ToRequest {
        encapsulated: Vec<u8>,
        ciphertext: Vec<u8>,
    },
    /// Sealed under a code.
    UnderCode {
        salt: [u8; 16],
        iv: [u8; 12],
        ciphertext: Vec<u8>,
    },
}

impl SealedPackage {
    /// Reads the outer form.
    ///
    /// # Errors
    /// [`PackageError::Malformed`].
    pub fn decode(octets: &[u8]) -> Result<Self, PackageError> {
        Self::read(octets).map_err(PackageError::Malformed)
    }

    fn read(octets: &[u8]) -> Result<Self, DecodeError> {
        if octets.len() > PACKAGE_MAX {
            return Err(DecodeError::TooLong {
                len: octets.len(),
                max: PACKAGE_MAX,
            });
        }
        let mut r = Reader::new(octets);
        let items = r.array_between("package", 4, 5)?;
        if r.text("package")? != MAGIC {
            return Err(DecodeError::Unexpected { what: "package" });
        }
        let package = match (r.uint("form")?, items) {
            (1, 4) => Self::ToRequest {
                encapsulated: r.bytes("encapsulated key")?.to_vec(),
                ciphertext: r.bytes("ciphertext")?.to_vec(),
            },
            (2, 5) => Self::UnderCode {
                salt: r.octets("salt")?,
                iv: r.octets("IV")?,
                ciphertext: r.bytes("ciphertext")?.to_vec(),
            },
            _ => return Err(DecodeError::OutOfRange { what: "form" }),
        };
        r.end()?;
        codec::deterministic(octets, &package.encode())?;
        Ok(package)
    }

    fn encode(&self) -> Vec<u8> {
        codec::encode(|e| {
            match self {
                Self::ToRequest {
                    encapsulated,
                    ciphertext,
                } => {
                    e.array(4)?.str(MAGIC)?.u8(FORM_REQUEST)?;
                    e.bytes(encapsulated)?.bytes(ciphertext)?
                }
                Self::UnderCode {
                    salt,
                    iv,
                    ciphertext,
                } => {
                    e.array(5)?.str(MAGIC)?.u8(FORM_CODE)?;
                    e.bytes(salt)?.bytes(iv)?.bytes(ciphertext)?
                }
            };
            Ok(())
        })
    }

    /// Opens with the terminal's request key.
    ///
    /// # Errors
    /// [`PackageError`] where it is another form, another's, or not what it should be.
    pub fn open_with(&self, request: &RequestKey) -> Result<EnrolmentPackage, PackageError> {
        let Self::ToRequest {
            encapsulated,
            ciphertext,
        } = self
        else {
            return Err(PackageError::CodeNeeded);
        };
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated)
            .map_err(|_| PackageError::WrongKey)?;
        let plain = hpke::single_shot_open::<AesGcm256, HkdfSha256, Kem>(
            &OpModeR::Base,
            &request.private(),
            &encapsulated,
            INFO,
            ciphertext,
            &[],
        )
        .map(Zeroizing::new)
        .map_err(|_| PackageError::WrongKey)?;
        EnrolmentPackage::decode(&plain)
    }

    /// Opens with the code.
    ///
    /// # Errors
    /// [`PackageError`] where it is another form, the code is wrong, or the content is not what it
    /// should be.
    pub fn open_under(&self, code: &EnrolmentCode) -> Result<EnrolmentPackage, PackageError> {
        let Self::UnderCode {
            salt,
            iv,
            ciphertext,
        } = self
        else {
            return Err(PackageError::RequestKeyNeeded);
        };
        let mut buffer = Zeroizing::new(ciphertext.clone());
        let plain = code
            .aead(salt)
            .open_in_place(
                Nonce::assume_unique_for_key(*iv),
                Aad::from(INFO),
                &mut buffer,
            )
            .map_err(|_| PackageError::WrongCode)?;
        EnrolmentPackage::decode(plain)
    }
}

/// 80 random bits as sixteen letters and digits, shown apart from the package.
pub struct EnrolmentCode(Zeroizing<String>);

impl EnrolmentCode {
    #[must_use]
    pub fn random(rng: &mut dyn Random) -> Self {
        let mut bits = Zeroizing::new([0u8; 16]);
        rng.fill(&mut bits[..]);
        // Five bits of each octet.
        let text = bits
            .iter()
            .map(|octet| char::from(ALPHABET[usize::from(octet & 31)]));
        Self(Zeroizing::new(text.collect()))
    }

    /// Takes what a person types: case, spaces and hyphens do not matter, nor o for 0, i or l for
    /// 1. `None` where it is not sixteen of the letters.
    #[must_use]
    pub fn parse(typed: &str) -> Option<Self> {
        let mut text = Zeroizing::new(String::with_capacity(16));
        for letter in typed.chars().filter_map(typed_letter) {
            if text.len() == 16 {
                return None;
            }
            text.push(char::from(*ALPHABET.get(usize::from(letter?))?));
        }
        (text.len() == 16).then_some(Self(text))
    }

    /// In groups of four, for the one who carries it.
    #[must_use]
    pub fn shown(&self) -> Zeroizing<String> {
        let (a, b, c, d) = (&self.0[..4], &self.0[4..8], &self.0[8..12], &self.0[12..]);
        Zeroizing::new(format!("{a}-{b}-{c}-{d}"))
    }

    fn aead(&self, salt: &[u8; 16]) -> LessSafeKey {
        let key = Secret::<32>::init_with(|out| {
            let params = Params::new(19_456, 2, 1, Some(32)).expect("fixed parameters");
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(self.0.as_bytes(), salt, out)
                .expect("lengths are fixed");
        });
        LessSafeKey::new(
            UnboundKey::new(&AES_256_GCM, key.expose()).expect("AES-256 takes 32 octets"),
        )
    }
}

impl std::fmt::Debug for EnrolmentCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EnrolmentCode")
    }
}

/// The terminal's fresh X25519 key to which a package is sealed; lives until the package came.
#[derive(Debug)]
pub struct RequestKey(Secret<32>);

impl RequestKey {
    /// Derived from 32 random octets (RFC 9180 DeriveKeyPair).
    #[must_use]
    pub fn from_seed(seed: Secret<32>) -> Self {
        Self(seed)
    }

    /// The seed, for the terminal's own store.
    #[must_use]
    pub fn seed(&self) -> &Secret<32> {
        &self.0
    }

    /// What `terminal add --for` takes.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        let (_, public) = Kem::derive_keypair(self.0.expose());
        let mut octets = [0; 32];
        octets.copy_from_slice(&public.to_bytes());
        octets
    }

    fn private(&self) -> <Kem as hpke::Kem>::PrivateKey {
        Kem::derive_keypair(self.0.expose()).0
    }
}

/// A request key as text, for `terminal add --for`: "KF1-", then 56 letters of the code alphabet that
/// hold the 32 octets and the first 3 of their SHA-256, so that a slip of the hand is noticed.
#[must_use]
pub fn request_text(public: &[u8; 32]) -> String {
    let mut octets = [0; CHECKED_OCTETS];
    octets[..32].copy_from_slice(public);
    octets[32..].copy_from_slice(&check(public));
    let mut text = String::with_capacity(64);
    write_checked(&mut text, REQUEST_PREFIX, &octets);
    text
}

/// Takes what [`request_text`] gave, or a person copied: case, spaces and hyphens do not matter,
/// nor o for 0, i or l for 1.
///
/// # Errors
/// [`PackageError::NotARequestKey`].
pub fn parse_request(typed: &str) -> Result<[u8; 32], PackageError> {
    let octets = read_checked(typed, REQUEST_PREFIX).ok_or(PackageError::NotARequestKey)?;
    let mut public = [0; 32];
    public.copy_from_slice(&octets[..]);
    Ok(public)
}

/// 32 octets and their check, as letters behind a prefix.
pub(crate) fn write_checked(text: &mut String, prefix: &str, octets: &[u8; CHECKED_OCTETS]) {
    text.push_str(prefix);
    let (mut bits, mut held) = (0u32, 0);
    for &octet in octets {
        bits = bits << 8 | u32::from(octet);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(ALPHABET[(bits >> held & 31) as usize]));
        }
    }
}

/// The 32 octets of what [`write_checked`] gave with that prefix; `None` where a letter is wrong.
pub(crate) fn read_checked(typed: &str, prefix: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut octets = Zeroizing::new([0; CHECKED_OCTETS]);
    let (mut bits, mut held, mut filled) = (0u32, 0, 0);
    // The letters of a prefix are of the alphabet themselves.
    let mut letters = typed.chars().filter_map(typed_letter);
    for expected in prefix.chars().filter_map(typed_letter) {
        (letters.next() == Some(expected)).then_some(())?;
    }
    for letter in letters {
        bits = bits << 5 | u32::from(letter?);
        held += 5;
        if held >= 8 {
            held -= 8;
            *octets.get_mut(filled)? = (bits >> held) as u8;
            filled += 1;
        }
    }
    let mut content = Zeroizing::new([0; 32]);
    content.copy_from_slice(&octets[..32]);
    let whole = filled == CHECKED_OCTETS && held == 0 && octets[32..] == check(&content);
    whole.then_some(content)
}

/// The first octets of SHA-256: a slip of the hand is noticed.
pub(crate) fn check(content: &[u8; 32]) -> [u8; 3] {
    let hash = digest::digest(&digest::SHA256, content);
    let [a, b, c] = *hash
        .as_ref()
        .first_chunk()
        .expect("SHA-256 gives 32 octets");
    [a, b, c]
}

/// The value of a typed letter: `None` for what separates, `Some(None)` for what is no letter.
fn typed_letter(c: char) -> Option<Option<u8>> {
    let c = match c.to_ascii_uppercase() {
        ' ' | '-' => return None,
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let place = ALPHABET.iter().position(|&letter| char::from(letter) == c);
    Some(place.and_then(|place| u8::try_from(place).ok()))
}

type Kem = X25519HkdfSha256;

const INFO: &[u8] = b"KF1/enrol";
const MAGIC: &str = "KF1/enrol";
const FORM_REQUEST: u8 = 1;
const FORM_CODE: u8 = 2;
const PACKAGE_MAX: usize = 16 * 1024;
const WIPE_ROOTS_MAX: u64 = 8;
const SERVERS_MAX: u64 = 8;
const REQUEST_PREFIX: &str = "KF1-";
/// 32 octets and their check.
pub(crate) const CHECKED_OCTETS: usize = 35;
/// Without letters that are taken for digits (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
