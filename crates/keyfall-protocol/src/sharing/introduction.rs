//! What a server says of itself to who asks with a HELLO: root, KEYSET and the public keys that are
//! too long to be listed. Nothing in it is secret, and nothing is believed but what the root signed.

use crate::command::codec::{self, Reader};
use crate::command::{KeySet, VerifyingKey};
use crate::error::DecodeError;

/// The document, which is sent in pieces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Introduction {
    pub root: VerifyingKey,
    /// The KEYSET as the root signed it.
    pub key_set_frame: Vec<u8>,
    /// The public keys of which the KEYSET lists the SHA-256.
    pub long_keys: Vec<Vec<u8>>,
}

impl Introduction {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(|e| {
            e.array(3)?.bytes(self.root.as_bytes())?;
            e.bytes(&self.key_set_frame)?;
            e.array(self.long_keys.len() as u64)?;
            for key in &self.long_keys {
                e.bytes(key)?;
            }
            Ok(())
        })
    }

    /// Reads it strictly.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(octets: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(octets);
        r.array("introduction", 3)?;
        let root = VerifyingKey::new(r.octets("root key")?);
        let key_set_frame = r.bytes("KEYSET")?.to_vec();
        let mut long_keys = Vec::new();
        for _ in 0..r.array_between("public keys", 0, LONG_KEYS_MAX)? {
            long_keys.push(r.bytes("public key")?.to_vec());
        }
        r.end()?;
        let introduction = Self {
            root,
            key_set_frame,
            long_keys,
        };
        codec::deterministic(octets, &introduction.encode())?;
        Ok(introduction)
    }

    /// The KEYSET, where the root of this introduction signed it.
    #[must_use]
    pub fn key_set(&self) -> Option<KeySet> {
        KeySet::signed_by(&self.root, &self.key_set_frame)
    }
}

const LONG_KEYS_MAX: u64 = 4;
