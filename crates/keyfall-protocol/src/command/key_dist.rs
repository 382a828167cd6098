//! KEYDIST: a fresh key for many, wrapped once for each: COSE_Encrypt (tag 96),
//! content A256GCM under a key-encryption key, one A256KW recipient each.

use minicbor::data::Tag;
use zeroize::Zeroizing;

use crate::command::codec::{self, Reader, Writer, Written};
use crate::command::renew::cadence;
use crate::error::DecodeError;
use crate::ids::{GroupNumber, Handle, KeyIdKind, UnixSeconds};
use crate::keys::{KeyEncryptionKey, MasterKey, Sealed, Secret, WRAPPED_LEN, WrapKey};
use crate::rng::{Random, octets};
use crate::schedule::{Cadence, Schedule};

/// Octets of a packet group's search key.
pub const SEARCH_KEY_LEN: usize = 16;
/// What one frame holds; more recipients go as further self-contained messages.
pub const RECIPIENTS_MAX: usize = 17;

/// The distribution as it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyDist {
    content: Sealed,
    recipients: Vec<Recipient>,
}

/// One wrap of the key-encryption key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recipient {
    pub handle: Handle,
    wrapped: [u8; WRAPPED_LEN],
}

/// What a recipient finds inside.
#[derive(Debug)]
pub struct KeyDistContents {
    pub key: MasterKey,
    /// KS of a packet group: drawn with the epoch, the same in all of it, opens no traffic (FORMATS
    /// section 8.1).
    pub search_key: Option<Secret<SEARCH_KEY_LEN>>,
    pub activate_at: UnixSeconds,
    pub cadence: Option<Cadence>,
    pub lease_end: Option<UnixSeconds>,
}

impl KeyDistContents {
    /// The schedule that the contents state.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule {
            generation: self.key.generation(),
            activate_at: self.activate_at,
            cadence: self.cadence,
        }
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        // INVARIANT 10: one allocation, large enough, so that no copy is left in freed memory.
        let mut plain = Zeroizing::new(Vec::with_capacity(PLAIN_MAX));
        codec::encode_into(&mut plain, |e| self.write(e));
        plain
    }

    /// As it stands in a KEYDIST and in a KEY-DIS.
    pub(crate) fn write(&self, e: &mut Writer<'_>) -> Written {
        let optional = [
            self.search_key.is_some(),
            self.cadence.is_some(),
            self.lease_end.is_some(),
        ];
        e.map(5 + optional.map(u64::from).iter().sum::<u64>())?;
        e.u8(1)?.u64(self.key.kid().get())?;
        e.u8(2)?.u32(self.key.epoch().get())?;
        e.u8(3)?.u32(self.key.generation().get())?;
        e.u8(4)?.bytes(self.key.secret().expose())?;
        if let Some(search_key) = &self.search_key {
            e.u8(5)?.bytes(search_key.expose())?;
        }
        e.u8(6)?.u32(self.activate_at.get())?;
        if let Some(cadence) = self.cadence {
            e.u8(7)?
                .array(2)?
                .u8(cadence.step())?
                .u32(cadence.period())?;
        }
        if let Some(lease_end) = self.lease_end {
            e.u8(8)?.u32(lease_end.get())?;
        }
        Ok(())
    }

    fn decode(plain: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(plain);
        let contents = Self::read(&mut r)?;
        r.end()?;
        codec::deterministic(plain, &contents.encode())?;
        Ok(contents)
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut map = r.map("contents")?;
        map.key(r, 1, "key id")?;
        let Some(KeyIdKind::Master(group)) = r.key_id()?.kind() else {
            return Err(DecodeError::OutOfRange { what: "key id" });
        };
        map.key(r, 2, "epoch")?;
        let epoch = r.epoch()?;
        map.key(r, 3, "generation")?;
        let generation = r.generation()?;
        map.key(r, 4, "key")?;
        let key =
            Secret::from_slice(r.bytes("key")?).ok_or(DecodeError::OutOfRange { what: "key" })?;
        let search_key = if map.key_if(r, 5)? {
            let what = "search key";
            let octets = Secret::from_slice(r.bytes(what)?);
            Some(octets.ok_or(DecodeError::OutOfRange { what })?)
        } else {
            None
        };
        map.key(r, 6, "activate-at")?;
        let activate_at = r.time("activate-at")?;
        let cadence = if map.key_if(r, 7)? {
            r.array("schedule", 2)?;
            cadence(Some(r.uint("step")?), Some(r.uint32("period")?))?
        } else {
            None
        };
        let lease_end = if map.key_if(r, 8)? {
            Some(r.time("lease end")?)
        } else {
            None
        };
        map.end()?;
        Ok(Self {
            key: MasterKey::new(group, epoch, generation, key),
            search_key,
            activate_at,
            cadence,
            lease_end,
        })
    }
}

impl KeyDist {
    /// Seals `contents` under a fresh key-encryption key for up to [`RECIPIENTS_MAX`] terminals
    /// one per message, never reused).
    #[must_use]
    pub fn seal<'k>(
        contents: &KeyDistContents,
        recipients: impl Iterator<Item = &'k WrapKey>,
        rng: &mut dyn Random,
    ) -> Self {
        let kek = KeyEncryptionKey::random(rng);
        let content = kek.seal(octets(rng), &enc_structure(), contents.encode());
        let recipients = recipients
            .take(RECIPIENTS_MAX)
            .map(|key| Recipient {
                handle: key.handle(),
                wrapped: kek.wrap_for(key),
            })
            .collect();
        Self {
            content,
            recipients,
        }
    }

    /// The recipients, in the order of the message.
    #[must_use]
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// Opens with the key whose handle stands in it. `None`: not for this key, or the wrap or the
    /// content does not open, which means "search on" (FORMATS section 2.4).
    #[must_use]
    pub fn open(&self, key: &WrapKey) -> Option<KeyDistContents> {
        let handle = key.handle();
        self.recipients
            .iter()
            .filter(|recipient| recipient.handle == handle)
            .find_map(|recipient| KeyEncryptionKey::unwrap_by(key, &recipient.wrapped))
            .and_then(|kek| kek.open(&enc_structure(), &self.content))
            .and_then(|plain| KeyDistContents::decode(&plain).ok())
    }

    /// Tries every wrap with a key whose handle may not stand in it: for `inspect` and tests,
    /// which show that a stranger's key opens none.
    #[must_use]
    pub fn open_any(&self, key: &WrapKey) -> Option<GroupNumber> {
        self.recipients
            .iter()
            .find_map(|recipient| KeyEncryptionKey::unwrap_by(key, &recipient.wrapped))
            .and_then(|kek| kek.open(&enc_structure(), &self.content))
            .and_then(|plain| KeyDistContents::decode(&plain).ok())
            .map(|contents| contents.key.group())
    }

    pub(super) fn write(&self, e: &mut Writer<'_>) -> Written {
        e.tag(Tag::new(96))?.array(4)?.bytes(PROTECTED)?;
        e.map(1)?.u8(5)?.bytes(&self.content.iv)?;
        e.bytes(&self.content.ciphertext)?;
        e.array(self.recipients.len() as u64)?;
        for recipient in &self.recipients {
            e.array(3)?.bytes(&[])?.map(2)?.u8(1)?.i8(ALG_A256KW)?;
            e.u8(4)?
                .bytes(recipient.handle.as_bytes())?
                .bytes(&recipient.wrapped)?;
        }
        Ok(())
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.tag("COSE_Encrypt", 96)?;
        r.array("COSE_Encrypt", 4)?;
        if r.bytes("content header")? != PROTECTED {
            return Err(DecodeError::OutOfRange {
                what: "content header",
            });
        }
        let mut map = r.map("content header")?;
        map.key(r, 5, "IV")?;
        let iv = r.octets("IV")?;
        map.end()?;
        let ciphertext = r.bytes("ciphertext")?.to_vec();
        if ciphertext.len() > PLAIN_MAX + TAG_LEN {
            return Err(DecodeError::OutOfRange { what: "ciphertext" });
        }
        let mut recipients = Vec::new();
        for _ in 0..r.array_between("recipients", 1, RECIPIENTS_MAX as u64)? {
            r.array("recipient", 3)?;
            if !r.bytes("recipient header")?.is_empty() {
                return Err(DecodeError::OutOfRange {
                    what: "recipient header",
                });
            }
            let mut map = r.map("recipient header")?;
            map.key(r, 1, "algorithm")?;
            r.int("algorithm", i64::from(ALG_A256KW))?;
            map.key(r, 4, "handle")?;
            let handle = Handle::new(r.octets("handle")?);
            map.end()?;
            recipients.push(Recipient {
                handle,
                wrapped: r.octets("wrapped key")?,
            });
        }
        Ok(Self {
            content: Sealed { iv, ciphertext },
            recipients,
        })
    }
}

/// Enc_structure (RFC 9052 section 5.3), external_aad empty.
fn enc_structure() -> Vec<u8> {
    codec::encode(|e| {
        e.array(3)?.str("Encrypt")?.bytes(PROTECTED)?.bytes(&[])?;
        Ok(())
    })
}

/// det-CBOR {1: 3}: A256GCM.
const PROTECTED: &[u8] = &[0xa1, 0x01, 0x03];
const ALG_A256KW: i8 = -5;
const TAG_LEN: usize = 16;
/// Contents at the largest integers, with the search key of packet groups.
pub(crate) const PLAIN_MAX: usize = 128;
