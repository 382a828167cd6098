//! What a relay counts.

use std::collections::BTreeMap;

use keyfall_api::control::Drops;
use keyfall_protocol::DropReason;

/// The figures of one relay.
#[derive(Default, Debug)]
pub(super) struct Counts {
    pub(super) packets: u64,
    pub(super) rtcp_packets: u64,
    /// Taken out of the queue of a STOP.
    pub(super) delayed: u64,
    drops: BTreeMap<DropReason, u64>,
}

impl Counts {
    pub(super) fn drop(&mut self, reason: DropReason) {
        *self.drops.entry(reason).or_default() += 1;
    }

    /// The same for each of several.
    pub(super) fn drop_many(&mut self, reason: DropReason, count: u64) {
        if count > 0 {
            *self.drops.entry(reason).or_default() += count;
        }
    }

    pub(super) fn drops(&self) -> Vec<Drops> {
        let shown = |(reason, &count): (&DropReason, &u64)| Drops {
            reason: reason.name().to_owned(),
            code: reason.code().to_owned(),
            count,
        };
        self.drops.iter().map(shown).collect()
    }
}
