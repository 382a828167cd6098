//! The suite `rsa-misty1`: key request, key distribution and acknowledgement in the layout in which they
//! were first published (REQUIREMENTS R-087 to R-091, A-27, A-28; FORMATS section 8).
//!
//! ```text
//! KEY-REQ = header ‖ RSA-OAEP(server, terminal 4 ‖ nonce 16 ‖ time 4)
//! KEY-DIS = header ‖ RSA-OAEP(terminal, Km 16 ‖ SHA-256(Km)[..16]) ‖ IV 8
//!           ‖ MISTY1-CBC(Km, count 2 ‖ count × (group 4, epoch 4, generation 4, Ks 32) ‖ checksum 16 ‖ zeros)
//! ACK     = header ‖ status 1 ‖ HMAC-SHA-256(Km, SHA-256(KEY-REQ ‖ KEY-DIS) ‖ status ‖ SHA-256(plaintext))
//! checksum = HMAC-SHA-256(Km, nonce ‖ count ‖ count × (..))[..16]
//! ```
//!
//! Octets are in docs/PROTOCOL.md, "Legacy suite rsa-misty1". It is for showing and measuring what was
//! published: off by default, and refused for new groups. It has no forward secrecy (W-15): who comes by
//! a terminal's RSA key opens every KEY-DIS that was recorded. MISTY1 has its own faults (W-16). Whoever
//! has the server's public key makes it work: a driver lets nobody do so without a cookie (W-14).
//!
//! Whatever is wrong with a message, the answer is the same `None` (W-14, W-15). All functions are plain,
//! take what they need as arguments and may run on any thread: each makes one public-key operation
//! at the most, however many keys there are (R-094).

mod ack;
mod header;
mod key_dis;
mod key_req;
mod rsa;

pub use ack::{ACK_LEN, Exchange};
pub use key_dis::{KEYS_MAX, Opened, Request, SealError, Sealed, open_key_dis, seal_key_dis};
pub use key_req::{IdInformation, open_key_req, seal_key_req, sealed_for};
pub use rsa::{RsaPublic, RsaSecret, RsaSize};

#[cfg(test)]
mod tests;
