//! The terminal: driver, sealed key store, media relay, control socket.

pub mod key_store;
