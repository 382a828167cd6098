//! What brings server messages to terminals: one file per carrier, both halves.
//!
//! A carrier moves opaque frames and knows nothing of what is in them. It may be public. The two
//! halves are two types: what a terminal holds can only receive.

mod address;
mod multicast;

pub use address::{AddressError, CarrierAddress};
pub use multicast::{CarrierError, MulticastReceiver, MulticastSender, SendError};

/// The longest frame that a carrier moves, in octets: one datagram on every path.
pub const FRAME_MAX: usize = 1200;
