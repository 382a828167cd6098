//! The datagrams of key sharing (FORMATS section 8): four zero octets, so that one port serves ESP
//! too (RFC 3948 section 2.2), then one det-CBOR array `[1, suite, type, …]`.
//!
//! Bytes become the closed [`Message`] here; nothing behind sees them.

use std::fmt;

use aws_lc_rs::digest;

use crate::command::codec::{self, Reader, Writer, Written};
use crate::error::DecodeError;
use crate::ids::Generation;
use crate::sharing::{KemSuite, SharingSuite};

/// The longest datagram, marker included, in octets.
pub const DATAGRAM_MAX: usize = 1200;
/// What stands before every message (RFC 3948 section 2.2).
pub const MARKER: [u8; 4] = [0; 4];
/// The longest message in one datagram.
pub const MESSAGE_MAX: usize = DATAGRAM_MAX - MARKER.len();
/// The longest message in several.
pub const WHOLE_MAX: usize = 64 * PART_OCTETS;
/// Octets of a message in one PART.
pub const PART_OCTETS: usize = 1100;

/// What a KEY-REQ is called in all that answers it: the first 8 octets of its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference([u8; 8]);

/// SHA-256 of a KEY-REQ message as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHash([u8; 32]);

/// A KEY-REQ that was hashed so far, so that what goes on from it does not hash it again.
#[derive(Clone)]
pub struct Requested(digest::Context);

/// What shows that a source address receives what is sent to it.
pub type Cookie = [u8; 16];

/// The public name of a wrap key in a KEY-REQ: `XL(wrap, "key-req-id", null, 8)`.
pub type CallerId = [u8; 8];

/// One message of the sequence, read and not yet believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message<'b> {
    KeyReq {
        request: KeyReq<'b>,
        cookie: Option<Cookie>,
    },
    Cookie {
        suite: SharingSuite,
        reference: Reference,
        cookie: Cookie,
        /// A signed command that lets the terminal step to the fleet's G.
        frame: Option<&'b [u8]>,
    },
    KeyDis {
        reference: Reference,
        distribution: KeyDis<'b>,
    },
    Ack {
        suite: SharingSuite,
        reference: Reference,
        status: AckStatus,
        mac: [u8; 32],
    },
    Part(Part<'b>),
    /// Any signed command, for this terminal alone.
    Command {
        frame: &'b [u8],
    },
    /// Asks for one piece of the introduction; as long as a datagram may be.
    Hello {
        piece: u8,
        pad: usize,
    },
    Introduction {
        piece: u8,
        pieces: u8,
        /// SHA-256 of the whole.
        hash: [u8; 32],
        octets: &'b [u8],
    },
}

/// The content of a KEY-REQ, by suite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyReq<'b> {
    Psk(SealedAsk<'b>),
    /// Sealed once more to the server's KEM key: `hpke` or `hpke-pq`.
    Hpke {
        suite: SharingSuite,
        enc: &'b [u8],
        ct: &'b [u8],
    },
    /// As first published.
    RsaMisty1(&'b [u8]),
}

/// The message pair under the device key: what `psk` sends, and what is inside of `hpke`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealedAsk<'b> {
    /// The suite that is spoken outside: inside of `hpke` it is that one, so nothing can be taken
    /// off on the way.
    pub suite: SharingSuite,
    pub id: CallerId,
    /// The G under which the terminal asks.
    pub g: Generation,
    pub iv: [u8; 12],
    pub ct: &'b [u8],
}

/// The content of a KEY-DIS, by suite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyDis<'b> {
    /// COSE_Sign1 over `[iv, ct]`.
    Psk {
        suite: SharingSuite,
        signed: &'b [u8],
    },
    Hpke {
        suite: SharingSuite,
        enc: &'b [u8],
        ct: &'b [u8],
    },
    RsaMisty1(&'b [u8]),
}

/// What a terminal says of a KEY-DIS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckStatus {
    /// Everything is taken and durable.
    All,
    /// Something is beyond what its signer may say.
    OutOfBounds,
    NotStored,
    Locked,
}

/// A piece of a message that takes more than one datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part<'b> {
    /// The first 8 octets of SHA-256 of the whole message.
    pub whole: [u8; 8],
    pub index: u8,
    /// 2 to 64.
    pub count: u8,
    pub cookie: Option<Cookie>,
    pub octets: &'b [u8],
}

impl Reference {
    /// From the wire.
    #[must_use]
    pub const fn new(octets: [u8; 8]) -> Self {
        Self(octets)
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({self})")
    }
}

impl RequestHash {
    /// Of a whole KEY-REQ message, without the marker.
    #[must_use]
    pub fn of(request: &[u8]) -> Self {
        Self(sha256(&[request]))
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    #[must_use]
    pub fn reference(&self) -> Reference {
        Reference(first_8(&self.0))
    }
}

impl Requested {
    /// As [`RequestHash::of`].
    #[must_use]
    pub fn new(request: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(request);
        Self(context)
    }

    #[must_use]
    pub fn hash(&self) -> RequestHash {
        RequestHash(finished(self.0.clone()))
    }

    /// `SHA-256(KEY-REQ ‖ KEY-DIS)`.
    pub(super) fn with(&self, answer: &[u8]) -> [u8; 32] {
        let mut context = self.0.clone();
        context.update(answer);
        finished(context)
    }
}

impl fmt::Debug for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Requested")
    }
}

impl AckStatus {
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::All => 0,
            Self::OutOfBounds => 1,
            Self::NotStored => 2,
            Self::Locked => 3,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::All),
            1 => Some(Self::OutOfBounds),
            2 => Some(Self::NotStored),
            3 => Some(Self::Locked),
            _ => None,
        }
    }
}

impl<'b> Message<'b> {
    /// Reads a datagram strictly.
    ///
    /// # Errors
    /// [`DecodeError`] where the octets are not exactly one message of this module.
    pub fn decode_datagram(octets: &'b [u8]) -> Result<Self, DecodeError> {
        Self::decode(message_in(octets)?)
    }

    /// Reads a whole message strictly, one datagram's or one that was put together.
    ///
    /// # Errors
    /// As [`Self::decode_datagram`].
    pub fn decode(octets: &'b [u8]) -> Result<Self, DecodeError> {
        if octets.len() > WHOLE_MAX {
            return Err(DecodeError::TooLong {
                len: octets.len(),
                max: WHOLE_MAX,
            });
        }
        let mut r = Reader::new(octets);
        let message = Self::read(&mut r)?;
        r.end()?;
        codec::deterministic(octets, &message.encode())?;
        Ok(message)
    }

    /// The message without the marker.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(|e| self.write(e))
    }

    /// The name of the type.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::KeyReq { .. } => "KEY-REQ",
            Self::Cookie { .. } => "COOKIE",
            Self::KeyDis { .. } => "KEY-DIS",
            Self::Ack { .. } => "ACK",
            Self::Part(_) => "PART",
            Self::Command { .. } => "COMMAND",
            Self::Hello { .. } => "HELLO",
            Self::Introduction { .. } => "INTRODUCTION",
        }
    }

    fn write(&self, e: &mut Writer<'_>) -> Written {
        match self {
            Self::KeyReq { request, cookie } => {
                request.write(e, cookie.is_some())?;
                if let Some(cookie) = cookie {
                    e.bytes(cookie)?;
                }
            }
            Self::Cookie {
                suite,
                reference,
                cookie,
                frame,
            } => {
                begin(e, 6, suite.number(), COOKIE)?;
                e.bytes(reference.as_bytes())?.bytes(cookie)?;
                optional(e, *frame)?;
            }
            Self::KeyDis {
                reference,
                distribution,
            } => match distribution {
                KeyDis::Psk { suite, signed } => {
                    begin(e, 5, suite.number(), KEY_DIS)?;
                    e.bytes(reference.as_bytes())?.bytes(signed)?;
                }
                KeyDis::Hpke { suite, enc, ct } => {
                    begin(e, 6, suite.number(), KEY_DIS)?;
                    e.bytes(reference.as_bytes())?.bytes(enc)?.bytes(ct)?;
                }
                KeyDis::RsaMisty1(octets) => {
                    begin(e, 5, SharingSuite::RsaMisty1.number(), KEY_DIS)?;
                    e.bytes(reference.as_bytes())?.bytes(octets)?;
                }
            },
            Self::Ack {
                suite,
                reference,
                status,
                mac,
            } => {
                begin(e, 6, suite.number(), ACK)?;
                e.bytes(reference.as_bytes())?;
                e.u8(status.number())?.bytes(mac)?;
            }
            Self::Part(part) => {
                begin(e, 8, NO_SUITE, PART)?;
                e.bytes(&part.whole)?.u8(part.index)?.u8(part.count)?;
                optional(e, part.cookie.as_ref().map(|cookie| &cookie[..]))?;
                e.bytes(part.octets)?;
            }
            Self::Command { frame } => {
                begin(e, 4, NO_SUITE, COMMAND)?;
                e.bytes(frame)?;
            }
            Self::Hello { piece, pad } => {
                begin(e, 5, NO_SUITE, HELLO)?;
                e.u8(*piece)?.bytes(&[0; MESSAGE_MAX][..*pad])?;
            }
            Self::Introduction {
                piece,
                pieces,
                hash,
                octets,
            } => {
                begin(e, 7, NO_SUITE, INTRODUCTION)?;
                e.u8(*piece)?.u8(*pieces)?.bytes(hash)?.bytes(octets)?;
            }
        }
        Ok(())
    }

    fn read(r: &mut Reader<'b>) -> Result<Self, DecodeError> {
        let items = r.array_between("message", 4, 8)?;
        if r.uint("version")? != VERSION {
            return Err(DecodeError::OutOfRange { what: "version" });
        }
        let suite = small(r, "suite")?;
        let kind = small(r, "type")?;
        let suited =
            || SharingSuite::from_number(suite).ok_or(DecodeError::OutOfRange { what: "suite" });
        let unsuited = suite == NO_SUITE;
        match (kind, items) {
            (KEY_REQ, _) => Self::read_request(r, suited()?, items),
            (COOKIE, 6) => Ok(Self::Cookie {
                suite: suited()?,
                reference: read_reference(r)?,
                cookie: r.octets("cookie")?,
                frame: r.nullable("frame", |r| r.bytes("frame"))?,
            }),
            (KEY_DIS, _) => {
                let suite = suited()?;
                let reference = read_reference(r)?;
                let distribution = match (suite, items) {
                    (SharingSuite::RsaMisty1, 5) => KeyDis::RsaMisty1(r.bytes("KEY-DIS")?),
                    (SharingSuite::Psk | SharingSuite::Hpke | SharingSuite::HpkePq, 5) => {
                        KeyDis::Psk {
                            suite,
                            signed: r.bytes("COSE_Sign1")?,
                        }
                    }
                    (SharingSuite::Hpke | SharingSuite::HpkePq, 6) => KeyDis::Hpke {
                        suite,
                        enc: read_encapsulated(r, suite)?,
                        ct: read_ciphertext(r)?,
                    },
                    _ => return Err(DecodeError::OutOfRange { what: "message" }),
                };
                Ok(Self::KeyDis {
                    reference,
                    distribution,
                })
            }
            (ACK, 6) => Ok(Self::Ack {
                suite: suited()?,
                reference: read_reference(r)?,
                status: AckStatus::from_number(small(r, "status")?)
                    .ok_or(DecodeError::OutOfRange { what: "status" })?,
                mac: r.octets("authentication value")?,
            }),
            (PART, 8) if unsuited => Part::read(r).map(Self::Part),
            (COMMAND, 4) if unsuited => Ok(Self::Command {
                frame: r.bytes("frame")?,
            }),
            (HELLO, 5) if unsuited => Ok(Self::Hello {
                piece: small(r, "piece")?,
                pad: r.bytes("padding")?.len(),
            }),
            (INTRODUCTION, 7) if unsuited => {
                let (piece, pieces) = (small(r, "piece")?, small(r, "pieces")?);
                if piece >= pieces {
                    return Err(DecodeError::OutOfRange { what: "piece" });
                }
                Ok(Self::Introduction {
                    piece,
                    pieces,
                    hash: r.octets("hash")?,
                    octets: r.bytes("introduction")?,
                })
            }
            _ => Err(DecodeError::OutOfRange { what: "type" }),
        }
    }

    fn read_request(
        r: &mut Reader<'b>,
        suite: SharingSuite,
        items: u64,
    ) -> Result<Self, DecodeError> {
        let (request, without) = match suite {
            SharingSuite::RsaMisty1 => (KeyReq::RsaMisty1(r.bytes("KEY-REQ")?), 4),
            SharingSuite::Hpke | SharingSuite::HpkePq if items <= 6 => {
                let enc = read_encapsulated(r, suite)?;
                let ct = read_ciphertext(r)?;
                (KeyReq::Hpke { suite, enc, ct }, 5)
            }
            SharingSuite::Psk | SharingSuite::Hpke | SharingSuite::HpkePq => {
                let ask = SealedAsk {
                    suite,
                    id: r.octets("key-req-id")?,
                    g: r.generation()?,
                    iv: r.octets("IV")?,
                    ct: read_ciphertext(r)?,
                };
                (KeyReq::Psk(ask), 7)
            }
        };
        let cookie = match items.checked_sub(without) {
            Some(0) => None,
            Some(1) => Some(r.octets("cookie")?),
            Some(_) | None => return Err(DecodeError::OutOfRange { what: "message" }),
        };
        Ok(Self::KeyReq { request, cookie })
    }
}

impl KeyReq<'_> {
    /// The suite that is spoken.
    #[must_use]
    pub const fn suite(&self) -> SharingSuite {
        match self {
            Self::Psk(ask) => ask.suite,
            Self::Hpke { suite, .. } => *suite,
            Self::RsaMisty1(_) => SharingSuite::RsaMisty1,
        }
    }

    fn write(&self, e: &mut Writer<'_>, cookie: bool) -> Written {
        let more = u64::from(cookie);
        match self {
            Self::Psk(ask) => {
                begin(e, 7 + more, ask.suite.number(), KEY_REQ)?;
                e.bytes(&ask.id)?.u32(ask.g.get())?;
                e.bytes(&ask.iv)?.bytes(ask.ct)?;
            }
            Self::Hpke { suite, enc, ct } => {
                begin(e, 5 + more, suite.number(), KEY_REQ)?;
                e.bytes(enc)?.bytes(ct)?;
            }
            Self::RsaMisty1(octets) => {
                begin(e, 4 + more, SharingSuite::RsaMisty1.number(), KEY_REQ)?;
                e.bytes(octets)?;
            }
        }
        Ok(())
    }
}

impl<'b> Part<'b> {
    fn read(r: &mut Reader<'b>) -> Result<Self, DecodeError> {
        let part = Self {
            whole: r.octets("message name")?,
            index: small(r, "part")?,
            count: small(r, "parts")?,
            cookie: r.nullable("cookie", |r| r.octets("cookie"))?,
            octets: r.bytes("part")?,
        };
        let counted = (2..=PARTS_MAX).contains(&part.count) && part.index < part.count;
        // All but the last are full, so that a part's place in the whole is known at once.
        let last = part.index + 1 == part.count;
        let fits = if last {
            (1..=PART_OCTETS).contains(&part.octets.len())
        } else {
            part.octets.len() == PART_OCTETS
        };
        if counted && fits {
            Ok(part)
        } else {
            Err(DecodeError::OutOfRange { what: "part" })
        }
    }
}

/// A message as a datagram.
#[must_use]
pub fn marked(message: &[u8]) -> Vec<u8> {
    [&MARKER[..], message].concat()
}

/// The message of a datagram.
///
/// # Errors
/// [`DecodeError`] where it is too long for one, or the marker is not there.
pub fn message_in(datagram: &[u8]) -> Result<&[u8], DecodeError> {
    if datagram.len() > DATAGRAM_MAX {
        return Err(DecodeError::TooLong {
            len: datagram.len(),
            max: DATAGRAM_MAX,
        });
    }
    datagram
        .strip_prefix(&MARKER)
        .ok_or(DecodeError::Unexpected { what: "marker" })
}

/// The type number of a datagram, looked at before anything else is; `None` where it is none.
#[must_use]
pub fn type_of(datagram: &[u8]) -> Option<u8> {
    // Array head, version, suite and type are one octet each.
    match datagram.strip_prefix(&MARKER)? {
        [head, 1, _, kind, ..] if (0x84..=0x89).contains(head) && *kind < 24 => Some(*kind),
        _ => None,
    }
}

/// A HELLO as long as a datagram may be, so that no answer is longer.
#[must_use]
pub fn hello(piece: u8) -> Vec<u8> {
    let message = |pad| marked(&Message::Hello { piece, pad }.encode());
    let pad = MESSAGE_MAX - 16;
    let missing = DATAGRAM_MAX - message(pad).len();
    message(pad + missing)
}

pub(crate) fn sha256(pieces: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for piece in pieces {
        context.update(piece);
    }
    finished(context)
}

fn finished(context: digest::Context) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

pub(super) fn first_8(hash: &[u8; 32]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    first
}

fn begin(e: &mut Writer<'_>, items: u64, suite: u8, kind: u8) -> Written {
    e.array(items)?.u64(VERSION)?.u8(suite)?.u8(kind)?;
    Ok(())
}

fn optional(e: &mut Writer<'_>, octets: Option<&[u8]>) -> Written {
    match octets {
        Some(octets) => e.bytes(octets)?,
        None => e.null()?,
    };
    Ok(())
}

fn read_reference(r: &mut Reader<'_>) -> Result<Reference, DecodeError> {
    r.octets("reference").map(Reference)
}

fn read_encapsulated<'b>(r: &mut Reader<'b>, suite: SharingSuite) -> Result<&'b [u8], DecodeError> {
    let len = KemSuite::of(suite).map(KemSuite::encapsulated_len);
    let what = "encapsulated key";
    let enc = r.bytes(what)?;
    (len == Some(enc.len()))
        .then_some(enc)
        .ok_or(DecodeError::OutOfRange { what })
}

/// With its tag.
fn read_ciphertext<'b>(r: &mut Reader<'b>) -> Result<&'b [u8], DecodeError> {
    let what = "ciphertext";
    let ct = r.bytes(what)?;
    (ct.len() >= TAG_LEN)
        .then_some(ct)
        .ok_or(DecodeError::OutOfRange { what })
}

fn small(r: &mut Reader<'_>, what: &'static str) -> Result<u8, DecodeError> {
    u8::try_from(r.uint(what)?).map_err(|_| DecodeError::OutOfRange { what })
}

/// The version of the sequence.
const VERSION: u64 = 1;
const NO_SUITE: u8 = 0;
/// Of AES-256-GCM.
pub(super) const TAG_LEN: usize = 16;
pub(super) const PARTS_MAX: u8 = 64;

const KEY_REQ: u8 = 1;
const COOKIE: u8 = 2;
const KEY_DIS: u8 = 3;
const ACK: u8 = 4;
pub(crate) const PART: u8 = 7;
pub(crate) const COMMAND: u8 = 8;
const HELLO: u8 = 9;
const INTRODUCTION: u8 = 10;
