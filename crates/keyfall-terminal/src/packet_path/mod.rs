//! The packet path: IP packets from a TUN interface to peers as ESP in UDP, and back.
//!
//! | File | What is in it |
//! | --- | --- |
//! | `tun`, `head`, `cut`, `join` | super-packets of the kernel, cut and joined |
//! | `wire` | many datagrams with one call |
//! | `inner`, `checksum` | headers of inner packets |

mod checksum;
mod cut;
mod head;
mod inner;
mod join;
mod tun;
mod wire;

pub use cut::Cut;
pub use inner::Inner;
pub use join::Join;
pub use tun::Tun;
pub use wire::{Arrivals, Batch, Origin, Wire, wait};

#[cfg(test)]
mod tests;
