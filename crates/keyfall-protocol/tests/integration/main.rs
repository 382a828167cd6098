//! The protocol seen from outside: published vectors, sizes, strictness, and the same octets read
//! by another COSE library. `KEYFALL_WRITE_VECTORS=1` writes the files in `interop/vectors` and the
//! table of sizes in `docs/PROTOCOL.md` anew.

#![expect(clippy::unwrap_used, reason = "tests")]

mod answers;
mod capture;
mod cbor;
mod commands;
mod confirmations;
mod cose;
mod enrolment;
mod esp;
mod exchanges;
mod fleet;
mod hpke;
mod impostors;
mod largest;
mod legacy;
mod malformed;
mod messages;
mod misty1;
mod newcomers;
mod receipts;
mod records;
mod refused_orders;
mod rsa_misty1;
mod sealed_contents;
mod search;
mod sharing;
mod sizes;
mod srtp;
mod strangers;
mod stream;
mod tokens;
mod unauthorised;
mod vectors;
