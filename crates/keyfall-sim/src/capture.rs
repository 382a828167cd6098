//! What an eavesdropper has on tape.

use std::rc::Rc;

use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick};
use keyfall_protocol::server::Item;

/// A frame that the server sent on the carrier.
#[derive(Clone, Debug)]
pub struct Captured {
    pub at: Tick,
    /// What it was, for tests; the wire does not say so.
    pub item: Item,
    pub octets: Rc<[u8]>,
}

/// An SRTP packet that a terminal sent.
#[derive(Clone, Debug)]
pub struct CapturedPacket {
    pub at: Tick,
    pub sender: TerminalNumber,
    /// The key that it is under, for tests; the wire says three octets of it.
    pub group: GroupNumber,
    pub epoch: KeyEpoch,
    pub generation: Generation,
    pub octets: Rc<[u8]>,
}
