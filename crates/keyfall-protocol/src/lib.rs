//! stub
pub mod ids;
pub mod keys;
pub mod rng;
