//! stub
pub mod command;
pub mod enrolment;
pub mod error;
pub mod ids;
pub mod keys;
pub mod rng;
pub mod schedule;
mod stats;
pub mod terminal;
mod trusted_time;
pub use stats::{DropCounters, DropReason};
