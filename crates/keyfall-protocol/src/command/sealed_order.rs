//! DELETE, INIT, LOCK, UNLOCK: an order for one terminal's eyes, sealed under its obey key
//! (COSE_Encrypt0, tag 16) and signed by the erase class (FORMATS section 2, REQUIREMENTS R-065 to
//! The obey key only hides; the signature is what is obeyed.

use minicbor::data::Tag;
use zeroize::Zeroizing;

use crate::command::codec::{self, Reader, Writer, Written};
use crate::error::DecodeError;
use crate::ids::{Handle, TerminalNumber};
use crate::keys::{ObeyKey, Sealed};
use crate::rng::{Random, octets};

/// What the terminal is told to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum OrderKind {
    /// Destroy every key.
    Delete,
    /// Destroy every key, the state directory and the declared wipe roots.
    Init,
    /// Close the user compartment and take no PIN until a newer UNLOCK.
    Lock,
    Unlock,
}

impl OrderKind {
    pub const ALL: [Self; 4] = [Self::Delete, Self::Init, Self::Lock, Self::Unlock];

    /// The number on the wire.
    #[must_use]
    pub const fn type_number(self) -> u8 {
        match self {
            Self::Delete => 4,
            Self::Init => 5,
            Self::Lock => 15,
            Self::Unlock => 16,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delete => "DELETE",
            Self::Init => "INIT",
            Self::Lock => "LOCK",
            Self::Unlock => "UNLOCK",
        }
    }

    pub(super) fn from_number(number: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| u64::from(kind.type_number()) == number)
    }

    /// LOCK and UNLOCK follow each other: the newer version counts.
    const fn has_version(self) -> bool {
        match self {
            Self::Lock | Self::Unlock => true,
            Self::Delete | Self::Init => false,
        }
    }
}

/// The order as it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedOrder {
    kind: OrderKind,
    handle: Handle,
    content: Sealed,
}

/// What the terminal finds inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OrderContents {
    pub terminal: TerminalNumber,
    pub kind: OrderKind,
    /// Of LOCK and UNLOCK; `None` for the others, which name one enrolment once and for all.
    pub version: Option<u32>,
    /// A DELETE that is to leave a [`Receipt`](crate::receipt::Receipt).
    pub receipt_wanted: bool,
}

impl OrderContents {
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(codec::encode(|e| {
            let optional = u64::from(self.version.is_some()) + u64::from(self.receipt_wanted);
            e.map(2 + optional)?.u8(1)?.u32(self.terminal.get())?;
            e.u8(2)?.u8(self.kind.type_number())?;
            if let Some(version) = self.version {
                e.u8(3)?.u32(version)?;
            }
            if self.receipt_wanted {
                e.u8(4)?.bool(true)?;
            }
            Ok(())
        }))
    }

    fn decode(plain: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(plain);
        let mut map = r.map("order")?;
        map.key(&mut r, 1, "terminal")?;
        let terminal = r.terminal()?;
        map.key(&mut r, 2, "type")?;
        let kind = OrderKind::from_number(r.uint("type")?)
            .ok_or(DecodeError::OutOfRange { what: "type" })?;
        let version = if map.key_if(&mut r, 3)? {
            Some(r.uint32("version")?)
        } else {
            None
        };
        if version.is_some() != kind.has_version() {
            return Err(DecodeError::Unexpected { what: "version" });
        }
        let receipt_wanted = map.key_if(&mut r, 4)?;
        if receipt_wanted {
            r.yes("receipt wanted")?;
        }
        map.end()?;
        r.end()?;
        let contents = Self {
            terminal,
            kind,
            version,
            receipt_wanted,
        };
        codec::deterministic(plain, &contents.encode())?;
        Ok(contents)
    }
}

impl SealedOrder {
    /// Seals under `XL(obey, "to-terminal", [iv], 32)`, which serves this one message.
    #[must_use]
    pub fn seal(contents: &OrderContents, obey: &ObeyKey, rng: &mut dyn Random) -> Self {
        let handle = obey.handle();
        let iv = octets(rng);
        let aad = enc_structure(&protected(handle));
        Self {
            kind: contents.kind,
            handle,
            content: obey.to_terminal(iv).seal(iv, &aad, contents.encode()),
        }
    }

    #[must_use]
    pub fn kind(&self) -> OrderKind {
        self.kind
    }

    /// The obey handle of the terminal that is meant; it never changes.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// `None` where it is for another terminal, or says something else inside than outside.
    #[must_use]
    pub fn open(&self, obey: &ObeyKey) -> Option<OrderContents> {
        let aad = enc_structure(&protected(self.handle));
        let plain = obey
            .to_terminal(self.content.iv)
            .open(&aad, &self.content)?;
        let contents = OrderContents::decode(&plain).ok()?;
        let fits = contents.kind == self.kind && contents.terminal.obey_key_id() == obey.kid();
        fits.then_some(contents)
    }

    pub(super) fn write(&self, e: &mut Writer<'_>) -> Written {
        e.tag(Tag::new(16))?.array(3)?;
        e.bytes(&protected(self.handle))?;
        e.map(1)?.u8(5)?.bytes(&self.content.iv)?;
        e.bytes(&self.content.ciphertext)?;
        Ok(())
    }

    pub(super) fn read(r: &mut Reader<'_>, kind: OrderKind) -> Result<Self, DecodeError> {
        r.tag("COSE_Encrypt0", 16)?;
        r.array("COSE_Encrypt0", 3)?;
        let handle = read_protected(r.bytes("content header")?)?;
        let mut map = r.map("content header")?;
        map.key(r, 5, "IV")?;
        let iv = r.octets("IV")?;
        map.end()?;
        let ciphertext = r.bytes("ciphertext")?.to_vec();
        if ciphertext.len() > CIPHERTEXT_MAX {
            return Err(DecodeError::OutOfRange { what: "ciphertext" });
        }
        Ok(Self {
            kind,
            handle,
            content: Sealed { iv, ciphertext },
        })
    }
}

/// det-CBOR {1: 3, 4: handle}: A256GCM.
fn protected(handle: Handle) -> Vec<u8> {
    codec::encode(|e| {
        e.map(2)?.u8(1)?.u8(ALG_A256GCM)?;
        e.u8(4)?.bytes(handle.as_bytes())?;
        Ok(())
    })
}

fn read_protected(octets: &[u8]) -> Result<Handle, DecodeError> {
    let mut r = Reader::new(octets);
    let mut map = r.map("content header")?;
    map.key(&mut r, 1, "algorithm")?;
    r.int("algorithm", i64::from(ALG_A256GCM))?;
    map.key(&mut r, 4, "handle")?;
    let handle = Handle::new(r.octets("handle")?);
    map.end()?;
    r.end()?;
    codec::deterministic(octets, &protected(handle))?;
    Ok(handle)
}

/// Enc_structure (RFC 9052 section 5.3), external_aad empty.
fn enc_structure(protected: &[u8]) -> Vec<u8> {
    codec::encode(|e| {
        e.array(3)?.str("Encrypt0")?.bytes(protected)?.bytes(&[])?;
        Ok(())
    })
}

const ALG_A256GCM: u8 = 3;
/// Contents at the largest integers, and the tag.
const CIPHERTEXT_MAX: usize = 64;
