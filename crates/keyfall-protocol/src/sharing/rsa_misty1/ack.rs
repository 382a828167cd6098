//! ACK: what became of a KEY-DIS, said by somebody who could read it (REQUIREMENTS R-091).

use std::fmt;

use aws_lc_rs::hmac;

use super::header::{self, Kind};
use super::rsa::{first8, sha256};
use crate::keys::Secret;

/// What both sides know after one KEY-DIS: Km, and the hashes of what was sent and of what was read. Lives
/// in memory until the ACK; never stored (REQUIREMENTS R-037).
pub struct Exchange {
    km: Secret<16>,
    /// SHA-256(KEY-REQ ‖ KEY-DIS).
    messages: [u8; 32],
    /// SHA-256 of the plaintext of the MISTY1 field.
    plaintext: [u8; 32],
}

impl Exchange {
    pub(super) fn new(km: Secret<16>, key_req: &[u8], key_dis: &[u8], plaintext: [u8; 32]) -> Self {
        Self {
            km,
            messages: sha256(&[key_req, key_dis]),
            plaintext,
        }
    }

    /// The HMAC under that status, which a message of type ACK carries without the header.
    #[must_use]
    pub fn mac(&self, status: u8) -> [u8; 32] {
        let mut mac = [0; 32];
        mac.copy_from_slice(hmac::sign(&self.key(), &self.authenticated(status)).as_ref());
        mac
    }

    /// Whether `mac` is that: its maker could read this KEY-DIS (KR-304).
    #[must_use]
    pub fn check_mac(&self, status: u8, mac: &[u8]) -> bool {
        hmac::verify(&self.key(), &self.authenticated(status), mac).is_ok()
    }

    /// Header ‖ status ‖ HMAC. A status means what it means in the ACK of every suite; 0 is "all taken".
    /// The header's reference names both messages.
    #[must_use]
    pub fn make_ack(&self, status: u8) -> Vec<u8> {
        let mac = self.mac(status);
        let rest = [&[status][..], &mac];
        header::join(Kind::Ack, first8(&self.messages), &[], &rest)
    }

    /// The status, where the ACK is about this KEY-DIS and by somebody who could read it; `None` whatever
    /// is wrong (KR-304).
    #[must_use]
    pub fn check_ack(&self, ack: &[u8]) -> Option<u8> {
        let parts = header::split(Kind::Ack, ack)?;
        if !parts.rsa_field.is_empty() || parts.reference != first8(&self.messages) {
            return None;
        }
        let (&status, mac) = parts.rest.split_first()?;
        self.check_mac(status, mac).then_some(status)
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.km.expose())
    }

    fn authenticated(&self, status: u8) -> [u8; 65] {
        let mut text = [0; 65];
        text[..32].copy_from_slice(&self.messages);
        text[32] = status;
        text[33..].copy_from_slice(&self.plaintext);
        text
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exchange")
    }
}

/// Octets of an ACK.
pub const ACK_LEN: usize = header::HEADER_LEN + 1 + 32;
