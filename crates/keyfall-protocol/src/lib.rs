//! The core of Keyfall: keys, their one-way renewal, signed commands, and the two machines that
//! drive them. No clock, file, socket or randomness of its own.
//!
//! # The drive contract
//!
//! [`terminal::Terminal`] and [`server::Server`] are driven alike, by a daemon, by the simulator
//! and by the fuzzer:
//!
//! 1. Feed one thing with `handle_input`: the clock reading, a source of randomness and one
//!    `Input`. It returns an error only where the driver itself is wrong; what came from outside
//!    and is refused is a counted [`DropReason`].
//! 2. Call `poll_output` and act on each `Output` until it says `Timeout`. Only then feed again.
//! 3. `Timeout` says when to feed `Input::Timeout` at the latest. Earlier does no harm, and time
//!    that runs backwards is ignored.
//! 4. `Store` comes before whatever depends on it. Make it durable, then feed `Input::Stored`;
//!    only that lets the machine send under a new key, hand out a session or transmit an order.
//!
//! Time comes as [`ids::Tick`] (monotonic, means nothing outside one process) and
//! [`ids::UnixSeconds`] (wall time: the server's own, and for terminals what signed beacons say).
//! Randomness comes as [`rng::Random`]. A panic is a bug; bytes from the network never cause one.

pub mod calendar;
pub mod command;
pub mod enrolment;
pub mod error;
pub mod ids;
pub mod keys;
pub mod receipt;
pub mod rng;
pub mod schedule;
pub mod search;
pub mod server;
pub mod sharing;
mod stats;
pub mod terminal;
pub mod token;
mod trusted_time;

pub use error::{ApiMisuse, DecodeError};
pub use stats::{DropCounters, DropReason};
