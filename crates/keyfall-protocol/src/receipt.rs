//! The receipt of a deletion: a terminal's last word, which turns "sent" into "proved"
//! (REQUIREMENTS ).
//!
//! `[terminal, SHA-256(command frame), HMAC-SHA-256 over that hash under
//! XL(obey, "receipt", [hash], 32)]` as det-CBOR. It is made before the keys are destroyed and opens
//! nothing. People carry it as text: `KF1-RECEIPT-` and hexadecimal digits.

use std::fmt;

use aws_lc_rs::{digest, hmac};

use crate::command::codec::{self, Reader};
use crate::error::DecodeError;
use crate::ids::TerminalNumber;
use crate::keys::ObeyKey;

/// Evidence that a terminal obeyed one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    pub terminal: TerminalNumber,
    /// SHA-256 of the frame that was obeyed.
    pub command: [u8; 32],
    mac: [u8; 32],
}

impl Receipt {
    /// What the holder of `obey` says of the command with that hash.
    #[must_use]
    pub fn make(terminal: TerminalNumber, command: [u8; 32], obey: &ObeyKey) -> Self {
        let mut mac = [0; 32];
        mac.copy_from_slice(hmac::sign(&key(command, obey), &command).as_ref());
        Self {
            terminal,
            command,
            mac,
        }
    }

    /// Whether the holder of `obey` made it.
    #[must_use]
    pub fn is_from(&self, obey: &ObeyKey) -> bool {
        self.terminal.obey_key_id() == obey.kid()
            && hmac::verify(&key(self.command, obey), &self.command, &self.mac).is_ok()
    }

    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(|e| {
            e.array(3)?.u32(self.terminal.get())?;
            e.bytes(&self.command)?.bytes(&self.mac)?;
            Ok(())
        })
    }

    /// Reads the octets or the text of a receipt; blanks around the text are allowed.
    ///
    /// # Errors
    /// [`DecodeError`] where it is neither.
    pub fn decode(octets: &[u8]) -> Result<Self, DecodeError> {
        match std::str::from_utf8(octets).ok().map(str::trim) {
            Some(text) if text.starts_with(TEXT_PREFIX) => {
                let digits = &text.as_bytes()[TEXT_PREFIX.len()..];
                Self::read(&from_hex(digits).ok_or(DecodeError::Unexpected { what: "receipt" })?)
            }
            Some(_) | None => Self::read(octets),
        }
    }

    fn read(octets: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(octets);
        r.array("receipt", 3)?;
        let receipt = Self {
            terminal: r.terminal()?,
            command: r.octets("command hash")?,
            mac: r.octets("authentication value")?,
        };
        r.end()?;
        codec::deterministic(octets, &receipt.encode())?;
        Ok(receipt)
    }
}

/// The text that people carry.
impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TEXT_PREFIX)?;
        self.encode()
            .iter()
            .try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// The name of a command in receipts: SHA-256 of its frame.
#[must_use]
pub fn frame_hash(frame: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, frame).as_ref());
    hash
}

fn key(command: [u8; 32], obey: &ObeyKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, obey.receipt_key(command).expose())
}

fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let nibble = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|n| u8::try_from(n).ok())
    };
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|&[high, low]| Some(nibble(high)? << 4 | nibble(low)?))
        .collect()
}

const TEXT_PREFIX: &str = "KF1-RECEIPT-";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Secret;

    fn obey(number: u32, fill: u8) -> ObeyKey {
        let terminal = TerminalNumber::new(number).expect("small");
        ObeyKey::new(terminal, Secret::init_with(|into| into.fill(fill)))
    }

    /// REQUIREMENTS: only the one who held the obey key makes a receipt that counts.
    #[test]
    fn a_receipt_is_from_the_one_terminal_and_about_the_one_command() {
        let terminal = TerminalNumber::new(7).expect("small");
        let receipt = Receipt::make(terminal, frame_hash(b"a frame"), &obey(7, 1));
        assert!(receipt.is_from(&obey(7, 1)));
        assert!(!receipt.is_from(&obey(7, 2)));
        assert!(!receipt.is_from(&obey(8, 1)));
        let mut about_another = receipt;
        about_another.command = frame_hash(b"another frame");
        assert!(!about_another.is_from(&obey(7, 1)));
    }

    #[test]
    fn a_receipt_is_read_as_octets_and_as_text_and_in_no_other_form() {
        let terminal = TerminalNumber::new(7).expect("small");
        let receipt = Receipt::make(terminal, [3; 32], &obey(7, 1));
        assert_eq!(Receipt::decode(&receipt.encode()), Ok(receipt));
        let text = format!(" {receipt}\n");
        assert_eq!(Receipt::decode(text.as_bytes()), Ok(receipt));
        for bad in [
            "",
            "KF1-RECEIPT-",
            "KF1-RECEIPT-0",
            "KF1-RECEIPT-zz",
            "hello",
        ] {
            assert!(Receipt::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
