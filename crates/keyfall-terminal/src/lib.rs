//! stub
pub mod key_store;
