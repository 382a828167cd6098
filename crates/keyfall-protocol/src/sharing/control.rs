//! STOP-ACK, START-ACK, and the bundle in which members carry those of others (REQUIREMENTS R-075,
//!
//!
//! `mac = HMAC-SHA-256(XL(wrap, "control", [transaction], 32), det-CBOR [type, group, transaction,
//! epoch, generation])`.

use aws_lc_rs::hmac;

use crate::command::HaltKind;
use crate::command::codec::{self, Reader, Writer, Written};
use crate::error::DecodeError;
use crate::ids::{Generation, GroupNumber, KeyEpoch, SequenceNumber};
use crate::keys::WrapKey;
use crate::sharing::message::{Message, marked, message_in};

/// One terminal's word that it stopped, or that it sends again, under what was named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Confirmation {
    /// Which of the two commands it answers.
    pub kind: HaltKind,
    /// The key-req-id of the wrap key that made it: who says so.
    pub id: [u8; 8],
    pub group: GroupNumber,
    pub transaction: SequenceNumber,
    pub epoch: KeyEpoch,
    pub generation: Generation,
    pub mac: [u8; 32],
}

impl Confirmation {
    /// What the holder of `wrap` says.
    #[must_use]
    pub fn make(
        wrap: &WrapKey,
        kind: HaltKind,
        group: GroupNumber,
        transaction: SequenceNumber,
        (epoch, generation): (KeyEpoch, Generation),
    ) -> Self {
        let mut made = Self {
            kind,
            id: wrap.key_req_id(),
            group,
            transaction,
            epoch,
            generation,
            mac: [0; 32],
        };
        let mac = hmac::sign(&made.key(wrap), &made.authenticated());
        made.mac.copy_from_slice(mac.as_ref());
        made
    }

    /// Whether the holder of `wrap` made it (KR-329); in constant time.
    #[must_use]
    pub fn check(&self, wrap: &WrapKey) -> bool {
        self.id == wrap.key_req_id()
            && hmac::verify(&self.key(wrap), &self.authenticated(), &self.mac).is_ok()
    }

    /// The message, without the marker.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        codec::encode(|e| {
            e.array(9)?.u8(VERSION)?.u8(SUITE_NONE)?;
            e.u64(type_number(self.kind))?.bytes(&self.id)?;
            self.write_statement(e)?;
            e.bytes(&self.mac)?;
            Ok(())
        })
    }

    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        marked(&self.message())
    }

    /// Reads a message strictly.
    ///
    /// # Errors
    /// [`DecodeError`] where the octets are not exactly one STOP-ACK or START-ACK.
    pub fn read_message(octets: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(octets);
        r.array("STOP-ACK or START-ACK", 9)?;
        let kind = match read_head(&mut r)? {
            STOP_ACK => HaltKind::Stop,
            START_ACK => HaltKind::Start,
            other => return Err(DecodeError::UnknownType(other)),
        };
        let read = Self {
            kind,
            id: r.octets("key-req-id")?,
            group: r.group()?,
            transaction: SequenceNumber::new(r.uint("transaction")?),
            epoch: r.epoch()?,
            generation: r.generation()?,
            mac: r.octets("authentication value")?,
        };
        r.end()?;
        codec::deterministic(octets, &read.message())?;
        Ok(read)
    }

    /// Reads a datagram strictly.
    ///
    /// # Errors
    /// [`DecodeError`] where the octets are not the marker and exactly one such message.
    pub fn decode(octets: &[u8]) -> Result<Self, DecodeError> {
        Self::read_message(message_in(octets)?)
    }

    fn key(&self, wrap: &WrapKey) -> hmac::Key {
        let key = wrap.control_key(self.transaction);
        hmac::Key::new(hmac::HMAC_SHA256, key.expose())
    }

    fn authenticated(&self) -> Vec<u8> {
        codec::encode(|e| {
            e.array(5)?.u64(type_number(self.kind))?;
            self.write_statement(e)
        })
    }

    fn write_statement(&self, e: &mut Writer<'_>) -> Written {
        e.u32(self.group.get())?.u64(self.transaction.get())?;
        e.u32(self.epoch.get())?.u32(self.generation.get())?;
        Ok(())
    }
}

/// What one member collected: confirmations that only the server can check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bundle {
    /// 1 to [`BUNDLE_MAX`].
    pub confirmations: Vec<Confirmation>,
}

impl Bundle {
    /// The message, without the marker.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        codec::encode(|e| {
            e.array(4)?.u8(VERSION)?.u8(SUITE_NONE)?;
            e.u64(BUNDLE)?;
            e.array(self.confirmations.len() as u64)?;
            for one in &self.confirmations {
                e.bytes(&one.message())?;
            }
            Ok(())
        })
    }

    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        marked(&self.message())
    }

    /// Reads a message strictly.
    ///
    /// # Errors
    /// [`DecodeError`] where the octets are not exactly one BUNDLE of confirmations.
    pub fn read_message(octets: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(octets);
        r.array("BUNDLE", 4)?;
        match read_head(&mut r)? {
            BUNDLE => {}
            other => return Err(DecodeError::UnknownType(other)),
        }
        let mut confirmations = Vec::new();
        for _ in 0..r.array_between("messages", 1, BUNDLE_MAX as u64)? {
            confirmations.push(Confirmation::read_message(r.bytes("message")?)?);
        }
        r.end()?;
        let read = Self { confirmations };
        codec::deterministic(octets, &read.message())?;
        Ok(read)
    }

    /// Reads a datagram strictly.
    ///
    /// # Errors
    /// [`DecodeError`] where the octets are not the marker and exactly one such message.
    pub fn decode(octets: &[u8]) -> Result<Self, DecodeError> {
        Self::read_message(message_in(octets)?)
    }
}

/// Version and suite, which are fixed here; returns the type.
fn read_head(r: &mut Reader<'_>) -> Result<u64, DecodeError> {
    r.int("version", i64::from(VERSION))?;
    r.int("suite", i64::from(SUITE_NONE))?;
    r.uint("type")
}

/// COMMAND: a signed command to one terminal.
pub(crate) fn command_datagram(frame: &[u8]) -> Vec<u8> {
    marked(&Message::Command { frame }.encode())
}

fn type_number(kind: HaltKind) -> u64 {
    match kind {
        HaltKind::Stop => STOP_ACK,
        HaltKind::Start => START_ACK,
    }
}

/// As many confirmations as fit in a datagram at the largest numbers.
pub const BUNDLE_MAX: usize = 16;

const VERSION: u8 = 1;
/// Nothing in it is sealed.
const SUITE_NONE: u8 = 0;
const STOP_ACK: u64 = 5;
const START_ACK: u64 = 6;
const BUNDLE: u64 = 11;

#[cfg(test)]
mod tests;
