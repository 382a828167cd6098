//! Key sharing over UDP: a terminal asks, a server answers, and both confirm (FORMATS section 8).
//!
//! KEY-REQ → (COOKIE) → KEY-DIS → ACK brings keys; STOP → STOP-ACK → START → START-ACK changes the
//! key of a running group. Every datagram is four zero octets, the marker, and then one message: a
//! deterministic CBOR array that begins with version, suite and type.

mod control;

pub(crate) use control::command_datagram;
pub use control::{BUNDLE_MAX, Bundle, Confirmation};
