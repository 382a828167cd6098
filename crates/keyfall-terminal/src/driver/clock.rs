//! The machine's clock.

use std::time::Duration;

use keyfall_protocol::ids::Tick;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// The machine's clock: nanoseconds since the start, those that the device slept too, because
/// leases and beacons go on meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    started: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            started: since_boot(),
        }
    }

    pub(super) fn tick(self) -> Tick {
        Tick::from_nanos(since_boot().saturating_sub(self.started))
    }

    pub(super) fn instant(self, tick: Tick) -> Instant {
        // A far tick must not overflow the clock of the system.
        Instant::now() + tick.since(self.tick()).min(FAR)
    }
}

/// Nanoseconds since the machine was switched on.
fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Timers further ahead are set again when this is over.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
