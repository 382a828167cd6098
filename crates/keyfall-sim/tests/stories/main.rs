//! What must hold for a whole fleet, shown with the real machines in virtual time.
//!
//! `KEYFALL_SEEDS` sets how many seeds the random stories take; `KEYFALL_SEED` replays one.

mod asking;
mod calls;
mod crashes;
mod days;
mod exclusions;
mod interrupted;
mod locks;
mod losses;
mod matrix;
mod meetings;
mod middle;
mod model;
mod nonces;
mod packets;
mod records;
mod replays;
mod rollbacks;
mod sessions;
mod sleepers;
mod stolen_keys;
mod thefts;

use keyfall_protocol::server::Founding;
use keyfall_sim::World;

/// Rank-1 keys that renew every ten minutes.
fn quickly_renewed() -> Founding {
    Founding {
        fleet_period: 600,
        ..Founding::default()
    }
}

/// The seeds of a random story: one, so many as asked for, or a number that suits the build.
fn seeds(in_debug: u64, in_release: u64) -> std::ops::Range<u64> {
    let number = |name| {
        let value = std::env::var(name).ok()?;
        Some(
            value
                .parse()
                .unwrap_or_else(|_| panic!("{name} is a number")),
        )
    };
    let usual = if cfg!(debug_assertions) {
        in_debug
    } else {
        in_release
    };
    match number("KEYFALL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("KEYFALL_SEEDS").map_or(usual, |count: u64| count.min(in_release)),
    }
}

/// Nothing has been that must never be.
#[track_caller]
fn nothing_was_wrong(world: &World) {
    let violations: Vec<_> = world.violations().iter().map(ToString::to_string).collect();
    assert!(violations.is_empty(), "{violations:#?}");
}

/// Everybody holds what the server holds.
#[track_caller]
fn all_are_current(world: &World) {
    for id in world.stations() {
        assert_eq!(world.lag(id), None);
    }
    nothing_was_wrong(world);
}
