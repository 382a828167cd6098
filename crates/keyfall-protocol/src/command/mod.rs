//! The one vocabulary of commands (FORMATS section 2): every message from server to terminals.
//!
//! Each states absolute things and is one COSE object of at most [`FRAME_MAX`] octets.

pub(crate) mod codec;
mod envelope;
mod exclude;
mod halt;
mod key_dist;
mod key_set;
mod notify;
mod record;
mod renew;
mod sealed_order;
mod time;

use codec::{Reader, Writer, Written};
pub(crate) use envelope::SignedOctets;
pub use envelope::{
    FRAME_MAX, SIGNERS_MAX, SigningKey, Unverified, Verified, VerifyingKey, sign_together,
};
pub use exclude::{EXCLUDED_MAX, Exclude, FRESH_EPOCHS_MAX, FreshEpoch};
pub use halt::{Halt, HaltKind};
pub(crate) use key_dist::PLAIN_MAX as CONTENTS_MAX;
pub use key_dist::{KeyDist, KeyDistContents, RECIPIENTS_MAX, Recipient, SEARCH_KEY_LEN};
pub use key_set::{CLEAR_MAX, ClearList, KeySet, Limits, ListedKey, SignerClass, Suites};
pub use notify::{NOTIFY_ENTRIES_MAX, Notify, NotifyEntry};
pub use record::{
    ENDPOINTS_MAX, MTU_MAX, MTU_MIN, NETWORKS_MAX, PREFIXES_MAX, Prefix, PrefixFault,
    ProtectionRecord, RECORD_GROUPS_MAX, RECORD_LIFE, RECORD_MAX, RecordGroup, SignedRecord,
    UnverifiedRecord,
};
pub(crate) use record::{read_address, write_address};
pub use renew::{RENEW_ENTRIES_MAX, Renew, RenewEntry};
pub use sealed_order::{OrderContents, OrderKind, SealedOrder};
pub use time::{FLOORS_MAX, Floor, Time};

use crate::error::DecodeError;
use crate::ids::{Generation, GroupNumber, SequenceNumber, StreamId, TerminalNumber, UnixSeconds};

/// What the server states, before it is signed and after it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    pub stream: StreamId,
    /// Names the command in logs and audit; never a reason to refuse it.
    pub sequence: SequenceNumber,
    pub issued_at: UnixSeconds,
    /// Past it the command does nothing (a KEYSET excepted).
    pub not_after: UnixSeconds,
    pub target: Target,
    pub body: Body,
    /// The rank-1 generation G at which the server stands.
    pub fleet_generation: Generation,
}

/// Whom a command concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    All,
    Group(GroupNumber),
    Terminal(TerminalNumber),
    /// Whoever holds a handle in it.
    Handles,
}

/// The statement itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    Time(Time),
    Renew(Renew),
    KeyDist(KeyDist),
    /// DELETE, INIT, LOCK or UNLOCK.
    Order(SealedOrder),
    Exclude(Exclude),
    KeySet(KeySet),
    /// The group leaves off sending.
    Stop(Halt),
    /// The group sends under the key named.
    Start(Halt),
    Notify(Notify),
}

impl Body {
    /// The type number on the wire.
    #[must_use]
    pub fn type_number(&self) -> u8 {
        match self {
            Self::Time(_) => 1,
            Self::Renew(_) => 2,
            Self::KeyDist(_) => 3,
            Self::Order(order) => order.kind().type_number(),
            Self::Exclude(_) => 6,
            Self::KeySet(_) => 8,
            Self::Stop(_) => 10,
            Self::Start(_) => 11,
            Self::Notify(_) => 12,
        }
    }

    /// The name of the type.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Time(_) => "TIME",
            Self::Renew(_) => "RENEW",
            Self::KeyDist(_) => "KEYDIST",
            Self::Order(order) => order.kind().name(),
            Self::Exclude(_) => "EXCLUDE",
            Self::KeySet(_) => "KEYSET",
            Self::Stop(_) => "STOP",
            Self::Start(_) => "START",
            Self::Notify(_) => "NOTIFY",
        }
    }

    /// The class whose keys may sign it; `None`: the root alone (FORMATS section 2.2).
    #[must_use]
    pub const fn signer_class(&self) -> Option<SignerClass> {
        match self {
            Self::Time(_) | Self::Renew(_) | Self::Notify(_) => Some(SignerClass::Beat),
            Self::KeyDist(_) | Self::Exclude(_) | Self::Stop(_) | Self::Start(_) => {
                Some(SignerClass::Keys)
            }
            Self::Order(_) => Some(SignerClass::Erase),
            Self::KeySet(_) => None,
        }
    }
}

impl Command {
    /// The payload of the envelope.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(|e| self.write(e))
    }

    /// Reads a payload strictly.
    ///
    /// # Errors
    /// [`DecodeError`] where the octets are not exactly one deterministic command.
    pub fn decode(octets: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(octets);
        let command = Self::read(&mut r)?;
        r.end()?;
        codec::deterministic(octets, &command.encode())?;
        Ok(command)
    }

    fn write(&self, e: &mut Writer<'_>) -> Written {
        e.map(8)?.u8(1)?.bytes(self.stream.as_bytes())?;
        e.u8(2)?.u64(self.sequence.get())?;
        e.u8(3)?.u32(self.issued_at.get())?;
        e.u8(4)?.u32(self.not_after.get())?;
        e.u8(5)?.u8(self.body.type_number())?;
        e.u8(6)?;
        match self.target {
            Target::All => e.array(1)?.u8(0)?,
            Target::Group(group) => e.array(2)?.u8(1)?.u32(group.get())?,
            Target::Terminal(terminal) => e.array(2)?.u8(2)?.u32(terminal.get())?,
            Target::Handles => e.array(1)?.u8(3)?,
        };
        e.u8(7)?;
        match &self.body {
            Body::Time(body) => body.write(e)?,
            Body::Renew(body) => body.write(e)?,
            Body::KeyDist(body) => body.write(e)?,
            Body::Order(body) => body.write(e)?,
            Body::Exclude(body) => body.write(e)?,
            Body::KeySet(body) => body.write(e)?,
            Body::Stop(body) | Body::Start(body) => body.write(e)?,
            Body::Notify(body) => body.write(e)?,
        }
        e.u8(8)?.u32(self.fleet_generation.get())?;
        Ok(())
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut map = r.map("command")?;
        map.key(r, 1, "stream")?;
        let stream = StreamId::new(r.octets("stream")?);
        map.key(r, 2, "sequence")?;
        let sequence = SequenceNumber::new(r.uint("sequence")?);
        map.key(r, 3, "issued-at")?;
        let issued_at = r.time("issued-at")?;
        map.key(r, 4, "not-after")?;
        let not_after = r.time("not-after")?;
        map.key(r, 5, "type")?;
        let type_number = r.uint("type")?;
        map.key(r, 6, "target")?;
        let target = Target::read(r)?;
        map.key(r, 7, "body")?;
        let body = match type_number {
            1 => Body::Time(Time::read(r)?),
            2 => Body::Renew(Renew::read(r)?),
            3 => Body::KeyDist(KeyDist::read(r)?),
            6 => Body::Exclude(Exclude::read(r)?),
            8 => Body::KeySet(KeySet::read(r)?),
            10 => Body::Stop(Halt::read(r)?),
            11 => Body::Start(Halt::read(r)?),
            12 => Body::Notify(Notify::read(r)?),
            other => match OrderKind::from_number(other) {
                Some(kind) => Body::Order(SealedOrder::read(r, kind)?),
                None => return Err(DecodeError::UnknownType(other)),
            },
        };
        map.key(r, 8, "G")?;
        let fleet_generation = r.generation()?;
        map.end()?;
        Ok(Self {
            stream,
            sequence,
            issued_at,
            not_after,
            target,
            body,
            fleet_generation,
        })
    }
}

impl Target {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = r.array_between("target", 1, 2)?;
        match (r.uint("target")?, len) {
            (0, 1) => Ok(Self::All),
            (1, 2) => r.group().map(Self::Group),
            (2, 2) => r.terminal().map(Self::Terminal),
            (3, 1) => Ok(Self::Handles),
            _ => Err(DecodeError::OutOfRange { what: "target" }),
        }
    }
}

#[cfg(test)]
mod tests;
