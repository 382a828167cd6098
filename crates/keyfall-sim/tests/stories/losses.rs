//! Lossy links.

use keyfall_sim::{survive_losses, survive_sharing};

use crate::seeds;

/// REQUIREMENTS T-12, R-004, A-04, W-12; DESIGN section 11, invariants 1 and 2: 30 % loss in
/// bursts, duplication and reordering, orders and power cuts at any time; every terminal is current
/// within 16 carousel cycles after the last order.
#[test]
fn everybody_is_current_within_16_cycles_in_spite_of_30_percent_loss() {
    for seed in seeds(100, 1000) {
        let outcome = survive_losses(seed, 16);
        assert!(
            outcome.is_good(),
            "KEYFALL_SEED={seed}: {:?} {:#?}",
            outcome.lagging,
            outcome.violations
        );
    }
}

/// A run is what its seed says, frame by frame.
#[test]
fn two_runs_with_one_seed_are_equal() {
    let (once, again) = (survive_losses(7, 16), survive_losses(7, 16));
    assert_eq!(once.cycles, again.cycles);
    assert_eq!(once.frames, again.frames);
}

/// REQUIREMENTS: key sharing over ways that lose 30 %, double and reorder, with other
/// addresses and power cuts on both sides; every sequence ends, no two keys have one name, no group is
/// split. `examples/sharing_seeds.rs` runs 10,000.
#[test]
fn key_sharing_ends_well_in_spite_of_30_percent_loss() {
    for seed in seeds(60, 1000) {
        let outcome = survive_sharing(seed);
        assert!(
            outcome.is_good(),
            "KEYFALL_SEED={seed}: {:?} {:?} {:#?}",
            outcome.lagging,
            outcome.split,
            outcome.violations
        );
    }
}

/// A run is what its seed says, datagram by datagram.
#[test]
fn two_runs_of_key_sharing_with_one_seed_are_equal() {
    let (once, again) = (survive_sharing(7), survive_sharing(7));
    assert_eq!(once.settled, again.settled);
    assert_eq!(once.datagrams, again.datagrams);
}
