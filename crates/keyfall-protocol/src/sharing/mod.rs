//! Key sharing over UDP (FORMATS section 8): its suites and what they are made of.

pub mod misty1;
pub mod rsa_misty1;
