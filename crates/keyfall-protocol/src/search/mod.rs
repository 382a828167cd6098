//! Key search: which of several groups protects traffic to that address, asked on the way towards
//! it (FORMATS section 8.1; REQUIREMENTS, W-06).

pub mod message;
