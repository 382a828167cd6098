//! Probe and answer: four zero octets (RFC 3948 section 2.2), then one det-CBOR array that begins
//! with version, 0 and type, as the messages of key sharing do.
//!
//! A handle shows that the asker is a member of a group, to members only, and another one in each
//! probe. An answer is bound to the probe as it was sent, to both records and both nonces.

use core::net::IpAddr;

use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;

use crate::command::codec::{self, Reader, Writer, Written};
use crate::command::{RECORD_GROUPS_MAX, RECORD_MAX, SEARCH_KEY_LEN, read_address, write_address};
use crate::error::DecodeError;
use crate::ids::{Generation, KeyEpoch, TerminalNumber};
use crate::keys::Secret;
use crate::sharing::message::{DATAGRAM_MAX, MARKER, marked, message_in, sha256};

/// 16 random octets: one for each probe, one for each answer.
pub type Nonce = [u8; 16];

/// What names a probe: SHA-256 of its message as it was sent, without the marker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProbeHash([u8; 32]);

/// "Who protects that address?", sent towards it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe<'b> {
    pub nonce: Nonce,
    /// CE1: for whom is asked.
    pub source: IpAddr,
    /// CE2: whom it wants to reach. Of the same family.
    pub destination: IpAddr,
    /// The asker's signed record.
    pub record: &'b [u8],
    /// One for each group that the asker may choose.
    pub handles: Vec<Handle>,
}

/// Shows members of one group that the asker is one, and where it stands: the first 16 octets of
/// `HMAC-SHA-256(KS, det-CBOR ["probe", nonce, CE1, CE2, asker, SHA-256(record), e, g])`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handle {
    mac: [u8; 16],
    pub epoch: KeyEpoch,
    pub generation: Generation,
}

/// "I do, and we use that group", sent back to whoever asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer<'b> {
    /// The probe's.
    pub nonce: Nonce,
    pub answer_nonce: Nonce,
    /// The signed record of the one who answers.
    pub record: &'b [u8],
    pub epoch: KeyEpoch,
    /// At which generation it stands.
    pub generation: Generation,
    /// The first 16 octets of `HMAC-SHA-256(KS, det-CBOR ["answer", SHA-256(probe), answer nonce,
    /// SHA-256(record), e, g, number, CE1, CE2])`, KS of the group that both use. Its number stands
    /// nowhere: the asker finds it by the rule.
    mac: [u8; 16],
}

/// A message of key search, read and not yet believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SearchMessage<'b> {
    Probe(Probe<'b>),
    Answer(Answer<'b>),
}

impl ProbeHash {
    /// Of a probe datagram as it was sent or came.
    #[must_use]
    pub fn of(datagram: &[u8]) -> Self {
        let message = datagram.strip_prefix(&MARKER).unwrap_or(datagram);
        Self(sha256(&[message]))
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl<'b> Probe<'b> {
    /// Who asks for what, without handles yet.
    #[must_use]
    pub fn new(nonce: Nonce, source: IpAddr, destination: IpAddr, record: &'b [u8]) -> Self {
        Self {
            nonce,
            source,
            destination,
            record,
            handles: Vec::new(),
        }
    }

    /// Adds the handle of one group. False where it has no room any more, and the probe is as before.
    pub fn offer(
        &mut self,
        key: &Secret<SEARCH_KEY_LEN>,
        asker: TerminalNumber,
        (epoch, generation): (KeyEpoch, Generation),
    ) -> bool {
        let mut handle = Handle {
            mac: [0; 16],
            epoch,
            generation,
        };
        handle.mac = authenticate(key, &self.text(asker, &handle));
        self.handles.push(handle);
        let fits = self.handles.len() <= RECORD_GROUPS_MAX && self.encode().len() <= DATAGRAM_MAX;
        if !fits {
            self.handles.pop();
        }
        fits
    }

    /// The handle that `asker` made with `key`, where one of the probe's is; in constant time for
    /// each.
    #[must_use]
    pub fn handle_of(
        &self,
        key: &Secret<SEARCH_KEY_LEN>,
        asker: TerminalNumber,
        epoch: KeyEpoch,
    ) -> Option<&Handle> {
        self.handles.iter().find(|handle| {
            handle.epoch == epoch && has_authenticated(key, &self.text(asker, handle), &handle.mac)
        })
    }

    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        marked(&codec::encode(|e| self.write(e)))
    }

    fn text(&self, asker: TerminalNumber, handle: &Handle) -> Vec<u8> {
        codec::encode(|e| {
            e.array(8)?.str("probe")?.bytes(&self.nonce)?;
            write_address(self.source, e)?;
            write_address(self.destination, e)?;
            e.u32(asker.get())?.bytes(&sha256(&[self.record]))?;
            e.u32(handle.epoch.get())?.u32(handle.generation.get())?;
            Ok(())
        })
    }

    fn write(&self, e: &mut Writer<'_>) -> Written {
        begin(e, PROBE_ITEMS, PROBE)?;
        e.bytes(&self.nonce)?;
        write_address(self.source, e)?;
        write_address(self.destination, e)?;
        e.bytes(self.record)?.array(self.handles.len() as u64)?;
        for handle in &self.handles {
            e.array(3)?.bytes(&handle.mac)?;
            e.u32(handle.epoch.get())?.u32(handle.generation.get())?;
        }
        Ok(())
    }

    fn read(r: &mut Reader<'b>) -> Result<Self, DecodeError> {
        let nonce = r.octets("nonce")?;
        let source = read_address(r, "source")?;
        let destination = read_address(r, "destination")?;
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(DecodeError::OutOfRange {
                what: "destination",
            });
        }
        let record = read_record(r)?;
        let mut handles = Vec::new();
        for _ in 0..r.array_between("handles", 1, RECORD_GROUPS_MAX as u64)? {
            r.array("handle", 3)?;
            handles.push(Handle {
                mac: r.octets("handle")?,
                epoch: r.epoch()?,
                generation: r.generation()?,
            });
        }
        Ok(Self {
            nonce,
            source,
            destination,
            record,
            handles,
        })
    }
}

/// What an answer is about, which both sides know beside it.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub probe: ProbeHash,
    pub source: IpAddr,
    pub destination: IpAddr,
}

impl<'b> Answer<'b> {
    /// Answers under `key`, the search key of the group that both use, at `(epoch, generation)`.
    #[must_use]
    pub fn make(
        key: &Secret<SEARCH_KEY_LEN>,
        probe: &Probe<'_>,
        question: &Question,
        (number, record): (TerminalNumber, &'b [u8]),
        answer_nonce: Nonce,
        (epoch, generation): (KeyEpoch, Generation),
    ) -> Self {
        let mut made = Self {
            nonce: probe.nonce,
            answer_nonce,
            record,
            epoch,
            generation,
            mac: [0; 16],
        };
        made.mac = authenticate(key, &made.text(question, number));
        made
    }

    /// Whether `number` made it with `key` for that question; in constant time.
    #[must_use]
    pub fn check(
        &self,
        key: &Secret<SEARCH_KEY_LEN>,
        question: &Question,
        number: TerminalNumber,
    ) -> bool {
        has_authenticated(key, &self.text(question, number), &self.mac)
    }

    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        marked(&codec::encode(|e| self.write(e)))
    }

    fn text(&self, question: &Question, number: TerminalNumber) -> Vec<u8> {
        codec::encode(|e| {
            e.array(9)?
                .str("answer")?
                .bytes(question.probe.as_bytes())?;
            e.bytes(&self.answer_nonce)?;
            e.bytes(&sha256(&[self.record]))?;
            e.u32(self.epoch.get())?.u32(self.generation.get())?;
            e.u32(number.get())?;
            write_address(question.source, e)?;
            write_address(question.destination, e)
        })
    }

    fn write(&self, e: &mut Writer<'_>) -> Written {
        begin(e, ANSWER_ITEMS, ANSWER)?;
        e.bytes(&self.nonce)?.bytes(&self.answer_nonce)?;
        e.bytes(self.record)?;
        e.u32(self.epoch.get())?.u32(self.generation.get())?;
        e.bytes(&self.mac)?;
        Ok(())
    }

    fn read(r: &mut Reader<'b>) -> Result<Self, DecodeError> {
        Ok(Self {
            nonce: r.octets("nonce")?,
            answer_nonce: r.octets("nonce")?,
            record: read_record(r)?,
            epoch: r.epoch()?,
            generation: r.generation()?,
            mac: r.octets("authentication value")?,
        })
    }
}

impl<'b> SearchMessage<'b> {
    /// Reads a datagram strictly.
    ///
    /// # Errors
    /// [`DecodeError`] where the octets are not exactly the marker and one message of this module.
    pub fn decode(datagram: &'b [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(message_in(datagram)?);
        let items = r.array_between("message", PROBE_ITEMS, ANSWER_ITEMS)?;
        if r.uint("version")? != VERSION {
            return Err(DecodeError::OutOfRange { what: "version" });
        }
        if r.uint("suite")? != NO_SUITE {
            return Err(DecodeError::OutOfRange { what: "suite" });
        }
        let message = match (r.uint("type")?, items) {
            (PROBE, PROBE_ITEMS) => Self::Probe(Probe::read(&mut r)?),
            (ANSWER, ANSWER_ITEMS) => Self::Answer(Answer::read(&mut r)?),
            _ => return Err(DecodeError::OutOfRange { what: "type" }),
        };
        r.end()?;
        codec::deterministic(datagram, &message.encode())?;
        Ok(message)
    }

    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Probe(probe) => probe.encode(),
            Self::Answer(answer) => answer.encode(),
        }
    }

    /// The name of the type.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Probe(_) => "PROBE",
            Self::Answer(_) => "ANSWER",
        }
    }
}

/// The first 16 octets of `HMAC-SHA-256(KS, text)`.
fn authenticate(key: &Secret<SEARCH_KEY_LEN>, text: &[u8]) -> [u8; 16] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let mac = hmac::sign(&key, text);
    let mut first = [0; 16];
    first.copy_from_slice(&mac.as_ref()[..16]);
    first
}

/// Whether `mac` is [`authenticate`] of `text`; in constant time.
fn has_authenticated(key: &Secret<SEARCH_KEY_LEN>, text: &[u8], mac: &[u8; 16]) -> bool {
    authenticate(key, text)[..].ct_eq(&mac[..]).into()
}

fn begin(e: &mut Writer<'_>, items: u64, kind: u64) -> Written {
    e.array(items)?.u64(VERSION)?.u64(NO_SUITE)?.u64(kind)?;
    Ok(())
}

fn read_record<'b>(r: &mut Reader<'b>) -> Result<&'b [u8], DecodeError> {
    let record = r.bytes("record")?;
    if record.len() > RECORD_MAX {
        return Err(DecodeError::OutOfRange { what: "record" });
    }
    Ok(record)
}

const VERSION: u64 = 1;
/// Nothing in it is sealed.
const NO_SUITE: u64 = 0;
const PROBE: u64 = 12;
const PROBE_ITEMS: u64 = 8;
const ANSWER: u64 = 13;
const ANSWER_ITEMS: u64 = 9;
