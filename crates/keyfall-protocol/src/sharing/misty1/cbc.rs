//! Many blocks under one key: cipher block chaining, and how many there may be.

use std::fmt;

use thiserror::Error;

use super::block::ExpandedKey;
use crate::keys::Secret;

/// A MISTY1 key in CBC mode. Wiped on drop.
pub struct Misty1 {
    key: ExpandedKey,
    /// Blocks that it may still work on.
    left: u32,
}

/// Why MISTY1 did nothing. The text is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Misty1Error {
    #[error("{len} octets are not whole blocks of {BLOCK_LEN}")]
    NotWholeBlocks { len: usize },
    /// One more call and the key would have worked on more than [`BLOCKS_MAX`] blocks (W-16).
    #[error("{blocks} blocks are more than the {left} that this key may still work on")]
    KeyUsedUp { blocks: usize, left: u32 },
}

impl Misty1 {
    #[must_use]
    pub fn new(key: &Secret<16>) -> Self {
        Self {
            key: ExpandedKey::new(key),
            left: BLOCKS_MAX,
        }
    }

    /// `C[i] = E(K, P[i] ^ C[i-1])`, `C[-1] = iv`, in place. The caller draws a random IV for each text.
    ///
    /// # Errors
    /// [`Misty1Error`].
    pub fn encrypt(&mut self, iv: [u8; BLOCK_LEN], text: &mut [u8]) -> Result<(), Misty1Error> {
        let mut before = u64::from_be_bytes(iv);
        for block in self.take(text)? {
            before = self.key.encrypt(u64::from_be_bytes(*block) ^ before);
            *block = before.to_be_bytes();
        }
        Ok(())
    }

    /// `P[i] = D(K, C[i]) ^ C[i-1]`, in place.
    ///
    /// # Errors
    /// [`Misty1Error`].
    pub fn decrypt(&mut self, iv: [u8; BLOCK_LEN], text: &mut [u8]) -> Result<(), Misty1Error> {
        let mut before = u64::from_be_bytes(iv);
        for block in self.take(text)? {
            let cipher = u64::from_be_bytes(*block);
            *block = (self.key.decrypt(cipher) ^ before).to_be_bytes();
            before = cipher;
        }
        Ok(())
    }

    /// The text in blocks, counted off from what the key may still do (KR-300).
    fn take<'text>(
        &mut self,
        text: &'text mut [u8],
    ) -> Result<&'text mut [[u8; BLOCK_LEN]], Misty1Error> {
        let len = text.len();
        let (blocks, []) = text.as_chunks_mut() else {
            return Err(Misty1Error::NotWholeBlocks { len });
        };
        let used_up = Misty1Error::KeyUsedUp {
            blocks: blocks.len(),
            left: self.left,
        };
        let wanted = u32::try_from(blocks.len()).map_err(|_| used_up)?;
        self.left = self.left.checked_sub(wanted).ok_or(used_up)?;
        Ok(blocks)
    }
}

impl fmt::Debug for Misty1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MISTY1 key, {} blocks left", self.left)
    }
}

/// Octets of a block.
pub const BLOCK_LEN: usize = 8;

/// Blocks that one key may work on, in both directions together: 8 MiB. Two of as many random blocks
/// are equal with a probability of 2^-25 (REQUIREMENTS W-16).
pub const BLOCKS_MAX: u32 = 1 << 20;
