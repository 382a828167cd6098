//! The 16 octets that begin each message of the suite.
//!
//! ```text
//!  0  2  h'4b46' ("KF")
//!  2  1  1, the version
//!  3  1  type: 1 KEY-REQ, 3 KEY-DIS, 4 ACK
//!  4  2  octets of the RSA field
//!  6  2  octets of what follows it
//!  8  8  reference: what the message is to or about
//! ```

use super::rsa::{RsaSecret, first8, sha256};

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    KeyReq = 1,
    KeyDis = 3,
    Ack = 4,
}

/// A header and what stands behind it, lengths checked. No cryptography was done.
pub(super) struct Parts<'a> {
    pub(super) reference: [u8; 8],
    pub(super) rsa_field: &'a [u8],
    pub(super) rest: &'a [u8],
}

/// The whole message.
pub(super) fn join(kind: Kind, reference: [u8; 8], rsa_field: &[u8], rest: &[&[u8]]) -> Vec<u8> {
    let octets = |parts: &[&[u8]]| {
        let sum: usize = parts.iter().map(|part| part.len()).sum();
        let sum = u16::try_from(sum).expect("an RSA field has 1,024 octets, 256 keys have 11,304");
        sum.to_be_bytes()
    };
    let mut message = Vec::new();
    message.extend_from_slice(&MAGIC);
    message.extend_from_slice(&[VERSION, kind as u8]);
    message.extend_from_slice(&octets(&[rsa_field]));
    message.extend_from_slice(&octets(rest));
    message.extend_from_slice(&reference);
    message.extend_from_slice(rsa_field);
    rest.iter().for_each(|part| message.extend_from_slice(part));
    message
}

/// `None` where it is not one whole message of that kind.
pub(super) fn split(kind: Kind, message: &[u8]) -> Option<Parts<'_>> {
    let (header, behind) = message.split_first_chunk::<HEADER_LEN>()?;
    let &[m0, m1, version, of_kind, r0, r1, s0, s1, ref reference @ ..] = header;
    let rsa_len = usize::from(u16::from_be_bytes([r0, r1]));
    let rest_len = usize::from(u16::from_be_bytes([s0, s1]));
    let known = [m0, m1] == MAGIC && version == VERSION && of_kind == kind as u8;
    if !known || behind.len() != rsa_len + rest_len {
        return None;
    }
    let (rsa_field, rest) = behind.split_at(rsa_len);
    Some(Parts {
        reference: *reference,
        rsa_field,
        rest,
    })
}

impl Parts<'_> {
    /// Whether the RSA field may have been sealed to this key: looked at before any private-key work.
    pub(super) fn fits(&self, own: &RsaSecret) -> bool {
        self.rsa_field.len() == own.sealed_len()
    }
}

/// The reference to a message, or to several one after another.
pub(super) fn reference_to(messages: &[&[u8]]) -> [u8; 8] {
    first8(&sha256(messages))
}

pub(super) const HEADER_LEN: usize = 16;
const MAGIC: [u8; 2] = *b"KF";
const VERSION: u8 = 1;
