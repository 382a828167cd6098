//! The server's two clocks: monotonic ticks for waiting, wall time for what is said.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use keyfall_protocol::ids::{Tick, UnixSeconds};
use keyfall_protocol::server::Moment;

/// Reads both clocks of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    pub(crate) fn moment(&self) -> Moment {
        let nanos = u64::try_from(self.started.elapsed().as_nanos());
        Moment {
            now: Tick::from_nanos(nanos.unwrap_or(u64::MAX)),
            wall: wall(),
        }
    }
}

/// The wall time of this machine; before 1970 and after 2106 the nearest second that has a number.
pub(crate) fn wall() -> UnixSeconds {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    UnixSeconds::new(u32::try_from(seconds).unwrap_or(u32::MAX))
}
