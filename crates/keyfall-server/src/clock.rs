//! The server's two clocks: monotonic ticks for waiting, wall time for what is said. The monotonic
//! one counts what the machine slept, too: else every sleep would look like a jump of the other.

use std::time::{SystemTime, UNIX_EPOCH};

use keyfall_protocol::ids::{Tick, UnixSeconds};
use keyfall_protocol::server::Moment;
use rustix::time::{ClockId, clock_gettime};

/// Reads both clocks of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            started: since_boot(),
        }
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment {
            now: Tick::from_nanos(since_boot().saturating_sub(self.started)),
            wall: wall(),
        }
    }
}

/// Nanoseconds since the machine was switched on.
fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// The wall time of this machine; before 1970 and after 2106 the nearest second that has a number.
pub(crate) fn wall() -> UnixSeconds {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    UnixSeconds::new(u32::try_from(seconds).unwrap_or(u32::MAX))
}
