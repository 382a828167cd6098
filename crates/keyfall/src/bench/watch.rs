//! Two clocks: the wall's, and the processor time of this thread, which other work on the machine
//! changes little.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

pub(super) struct Watch {
    wall: Instant,
    cpu: Duration,
}

/// What passed on both.
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    wall: Duration,
    cpu: Duration,
}

impl Watch {
    pub(super) fn start() -> Self {
        Self {
            cpu: cpu(),
            wall: Instant::now(),
        }
    }

    pub(super) fn read(&self) -> Span {
        Span {
            wall: self.wall.elapsed(),
            cpu: cpu().saturating_sub(self.cpu),
        }
    }
}

impl Span {
    pub(super) fn wall_ms(self) -> f64 {
        self.wall.as_secs_f64() * 1e3
    }

    pub(super) fn cpu(self) -> Duration {
        self.cpu
    }

    pub(super) fn cpu_ms(self) -> f64 {
        self.cpu.as_secs_f64() * 1e3
    }
}

impl AddAssign for Span {
    fn add_assign(&mut self, more: Self) {
        self.wall += more.wall;
        self.cpu += more.cpu;
    }
}

fn cpu() -> Duration {
    let at = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(at.tv_nsec).unwrap_or(0))
}
