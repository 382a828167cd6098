//! The management server: driver, store, admin operations, HTTP.

pub mod chain;
mod durable;
pub mod journal;
pub mod seal;
