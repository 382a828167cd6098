//! The binary as people and scripts meet it: what it prints, what it leaves, how it exits.

#![expect(clippy::unwrap_used, reason = "tests")]

mod bench;
/// The fleet of the terminal's own tests: the server's keys in the test's hands.
#[path = "../../../keyfall-terminal/tests/integration/fleet.rs"]
mod fleet;

mod captured;
mod exporting;
mod guarding;
mod inspect;
mod killed;
mod legacy;
mod loss;
mod ran;
mod restore;
mod server;
mod sign_keys;
mod terminal;
mod tokens;
