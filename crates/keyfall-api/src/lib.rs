//! The types of the HTTP API and of the terminal's control socket; no logic, no I/O.

pub mod admin;
pub mod control;
pub mod packets;
