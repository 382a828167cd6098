//! The one derivation of Keyfall.
//!
//! `XL(K, label, ctx, L) = HKDF-Expand-SHA256(K.bytes, det-CBOR ["KF1", label, K.kid, K.epoch,
//! K.gen, ctx, L], L)`: FORMATS section 3, REQUIREMENTS.

use aws_lc_rs::{digest, hkdf};
use minicbor::Encoder;

use crate::ids::{EspSession, Generation, Handle, KeyEpoch, KeyId, SessionId, TerminalNumber};
use crate::keys::{EspSuite, SrtpSuite};

/// What a derived value is for. Two labels never give the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Label {
    /// The next generation of the same key.
    Renew,
    /// Opens a command that is sealed to one terminal (obey key).
    ToTerminal,
    /// The public name of a recipient at one generation.
    Handle,
    /// AES-KW key for the key-encryption key (wrap and cover keys).
    Wrap,
    /// SRTP master key and salt (master key).
    Srtp,
    /// ESP key and salt (master key).
    Esp,
    /// ESP key and salt of a stock sender (master key).
    EspPinned,
    /// What may be shown of a key.
    Fingerprint,
    /// Authenticates the receipt of a deletion (obey key).
    Receipt,
    /// Fresh octets mixed into a wrap key.
    First,
    /// The public name of a terminal that asks for keys (wrap key).
    KeyReqId,
    /// Seals one KEY-REQ (wrap key).
    KeyReq,
    /// Seals one KEY-DIS (wrap key).
    KeyDis,
    /// Authenticates one ACK (wrap key).
    Ack,
    /// Authenticates STOP-ACK and START-ACK of one transaction (wrap key).
    Control,
}

impl Label {
    /// The text in the derivation.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Renew => "renew",
            Self::ToTerminal => "to-terminal",
            Self::Handle => "handle",
            Self::Wrap => "wrap",
            Self::Srtp => "srtp",
            Self::Esp => "esp",
            Self::EspPinned => "esp-pinned",
            Self::Fingerprint => "fingerprint",
            Self::Receipt => "receipt",
            Self::First => "first",
            Self::KeyReqId => "key-req-id",
            Self::KeyReq => "key-req",
            Self::KeyDis => "key-dis",
            Self::Ack => "ack",
            Self::Control => "control",
        }
    }
}

/// The `ctx` of a derivation: what makes it one message's or one stretch of traffic's own.
#[derive(Clone, Copy, Debug)]
pub enum Context {
    /// CBOR null.
    Null,
    /// `[iv]`: one message.
    Iv([u8; 12]),
    /// `[SHA-256]`: one receipt of that command, one ACK of that request and answer.
    Hash([u8; 32]),
    /// `[SHA-256(KEY-REQ), iv]`: one answer to one request.
    Answer { request: [u8; 32], iv: [u8; 12] },
    /// `[transaction]`: one change of a group's key.
    Transaction(u64),
    /// `[suite, sender, session, n, SSRC]`: one stretch of media of one sender.
    Media {
        suite: SrtpSuite,
        sender: TerminalNumber,
        session: SessionId,
        n: u16,
        ssrc: u32,
    },
    /// `[suite, sender, session, 0, 0]`: the packets of one session of one sender.
    Packets {
        suite: EspSuite,
        sender: TerminalNumber,
        session: EspSession,
    },
    /// `[suite, SPI, random]`: the packets of one stock sender.
    Pinned {
        suite: EspSuite,
        spi: u32,
        random: [u8; 16],
    },
}

/// XL over raw key bytes; the typed keys are its only callers outside tests.
pub(super) fn expand(
    prk: &[u8; 32],
    label: Label,
    id: (KeyId, KeyEpoch, Generation),
    context: &Context,
    out: &mut [u8],
) {
    let mut info = [0u8; INFO_MAX];
    let used = {
        let mut rest = &mut info[..];
        let before = rest.len();
        encode_info(&mut rest, label, id, context, out.len())
            .expect("INFO_MAX holds the longest label and context");
        before - rest.len()
    };
    let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, prk);
    let info = [&info[..used]];
    prk.expand(&info, OutLen(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("every L of the key schedule is below 255 blocks");
}

fn encode_info(
    into: &mut &mut [u8],
    label: Label,
    (kid, epoch, generation): (KeyId, KeyEpoch, Generation),
    context: &Context,
    len: usize,
) -> Result<(), minicbor::encode::Error<minicbor::encode::write::EndOfSlice>> {
    let mut e = Encoder::new(into);
    e.array(7)?.str("KF1")?.str(label.text())?;
    e.u64(kid.get())?.u32(epoch.get())?.u32(generation.get())?;
    match context {
        Context::Null => e.null()?,
        Context::Iv(iv) => e.array(1)?.bytes(iv)?,
        Context::Hash(hash) => e.array(1)?.bytes(hash)?,
        Context::Answer { request, iv } => e.array(2)?.bytes(request)?.bytes(iv)?,
        Context::Transaction(number) => e.array(1)?.u64(*number)?,
        Context::Media {
            suite,
            sender,
            session,
            n,
            ssrc,
        } => e
            .array(5)?
            .u8(suite.number())?
            .u32(sender.get())?
            .bytes(session.as_bytes())?
            .u16(*n)?
            .u32(*ssrc)?,
        Context::Packets {
            suite,
            sender,
            session,
        } => e
            .array(5)?
            .u8(suite.number())?
            .u32(sender.get())?
            .bytes(session.as_bytes())?
            .u8(0)?
            .u8(0)?,
        Context::Pinned { suite, spi, random } => {
            e.array(3)?.u8(suite.number())?.u32(*spi)?.bytes(random)?
        }
    };
    e.u64(len as u64)?;
    Ok(())
}

/// `HKDF-Expand(HKDF-Extract(salt = key, IKM = first), info of "first", 32)`.
pub(super) fn mix(
    key: &[u8; 32],
    first: &[u8; 32],
    id: (KeyId, KeyEpoch, Generation),
    out: &mut [u8; 32],
) {
    let mut info = [0u8; INFO_MAX];
    let used = {
        let mut rest = &mut info[..];
        let before = rest.len();
        encode_info(&mut rest, Label::First, id, &Context::Null, out.len())
            .expect("INFO_MAX holds the longest label and context");
        before - rest.len()
    };
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, key).extract(first);
    let info = [&info[..used]];
    prk.expand(&info, OutLen(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("32 octets are below 255 blocks");
}

/// The key tag of an MKI without its generation: the first two octets of
/// SHA-256(det-CBOR ["KF1", "tag", kid, epoch]) (FORMATS section 6).
#[must_use]
pub fn key_tag(kid: KeyId, epoch: KeyEpoch) -> [u8; 2] {
    let mut text = [0u8; 32];
    let used = {
        let mut rest = &mut text[..];
        let before = rest.len();
        let mut e = Encoder::new(&mut rest);
        e.array(4)
            .and_then(|e| e.str("KF1"))
            .and_then(|e| e.str("tag"))
            .and_then(|e| e.u64(kid.get()))
            .and_then(|e| e.u32(epoch.get()))
            .expect("32 octets hold the longest tag text");
        before - rest.len()
    };
    let hash = digest::digest(&digest::SHA256, &text[..used]);
    [hash.as_ref()[0], hash.as_ref()[1]]
}

/// The handle of a rank-1 key at its generation.
pub(super) fn handle(prk: &[u8; 32], id: (KeyId, KeyEpoch, Generation)) -> Handle {
    let mut out = [0; 5];
    expand(prk, Label::Handle, id, &Context::Null, &mut out);
    Handle::new(out)
}

struct OutLen(usize);

impl hkdf::KeyType for OutLen {
    fn len(&self) -> usize {
        self.0
    }
}

/// Longest info: 78 octets, label "key-dis" with its context and the largest integers.
const INFO_MAX: usize = 80;

#[cfg(test)]
mod tests;
