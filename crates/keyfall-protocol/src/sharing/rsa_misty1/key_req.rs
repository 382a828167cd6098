//! KEY-REQ: who asks, readable by the server alone (REQUIREMENTS R-087).

use zeroize::Zeroizing;

use super::header::{self, Kind};
use super::rsa::{RsaPublic, RsaSecret};
use crate::ids::{KeyName, TerminalNumber, UnixSeconds};

/// ID information (REQUIREMENTS A-28). Who wrote it is open until the ACK: anybody can seal to
/// the server's key (W-14).
///
/// What the terminal holds does not stand in it: an RSA field has room for a few groups only. So a KEY-DIS of
/// this suite brings all groups each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdInformation {
    pub terminal: TerminalNumber,
    /// Fresh for each request. Only the server can read it, and only who read it can answer
    /// ([`open_key_dis`](super::open_key_dis)).
    pub nonce: [u8; 16],
    /// When the terminal asks; 0 where it does not know.
    pub time: UnixSeconds,
}

/// Header ‖ RSA-OAEP(server, ID information). The header's reference is the name of the server's key.
#[must_use]
pub fn seal_key_req(server: &RsaPublic, id: &IdInformation) -> Vec<u8> {
    let mut plain = Zeroizing::new([0; ID_LEN]);
    let (terminal, rest) = plain.split_at_mut(4);
    let (nonce, time) = rest.split_at_mut(16);
    terminal.copy_from_slice(&id.terminal.get().to_be_bytes());
    nonce.copy_from_slice(&id.nonce);
    time.copy_from_slice(&id.time.get().to_be_bytes());
    let field = server.seal(&plain[..]);
    header::join(Kind::KeyReq, *server.name().as_bytes(), &field, &[])
}

/// The name of the key that a KEY-REQ says it is sealed to, for a server that has several. Costs no
/// cryptography. `None` where it is no KEY-REQ.
#[must_use]
pub fn sealed_for(key_req: &[u8]) -> Option<KeyName> {
    let parts = header::split(Kind::KeyReq, key_req)?;
    Some(KeyName::new(parts.reference))
}

/// What is asked, by one private-key operation, which a server grants only to who brings a cookie.
/// `None` whatever is wrong (KR-301).
#[must_use]
pub fn open_key_req(server: &RsaSecret, key_req: &[u8]) -> Option<IdInformation> {
    let parts = header::split(Kind::KeyReq, key_req)?;
    let to_us = parts.reference == *server.public().name().as_bytes();
    if !to_us || !parts.fits(server) || !parts.rest.is_empty() {
        return None;
    }
    let plain = server.open(parts.rsa_field)?;
    let plain: &[u8; ID_LEN] = plain.as_slice().try_into().ok()?;
    let (terminal, rest) = plain.split_first_chunk()?;
    let (nonce, rest) = rest.split_first_chunk()?;
    let (time, _) = rest.split_first_chunk()?;
    Some(IdInformation {
        terminal: TerminalNumber::new(u32::from_be_bytes(*terminal))?,
        nonce: *nonce,
        time: UnixSeconds::new(u32::from_be_bytes(*time)),
    })
}

/// Octets of ID information.
const ID_LEN: usize = 24;
