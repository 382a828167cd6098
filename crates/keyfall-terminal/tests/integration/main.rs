//! Real terminals on loopback: carriers, key stores, control sockets and media, with a fleet whose
//! keys are in the test's hands.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "any other answer fails the test"
)]

mod control;
mod defence;
mod enrolment;
mod fleet;
mod relay;
mod restart;
mod running;
mod stopping;
