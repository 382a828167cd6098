//! What was dropped, and why: counted by the threads, read by the driver.

use std::sync::atomic::{AtomicU64, Ordering};

use keyfall_protocol::DropReason;

/// One count for each reason.
#[derive(Debug)]
pub(super) struct Counts([AtomicU64; DropReason::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Counts {
    pub(super) fn add(&self, reason: DropReason, packets: u64) {
        if let Some(count) = self.0.get(reason as usize) {
            count.fetch_add(packets, Ordering::Relaxed);
        }
    }

    /// Those that occurred.
    pub(super) fn all(&self) -> impl Iterator<Item = (DropReason, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        let all = DropReason::ALL.iter().copied().zip(counts);
        all.filter(|&(_, count)| count > 0)
    }
}
