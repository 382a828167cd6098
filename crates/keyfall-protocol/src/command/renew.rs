//! RENEW: where keys stand, in clear and signed. The new key is never sent.

use crate::command::codec::{Reader, Writer, Written};
use crate::error::DecodeError;
use crate::ids::{KeyEpoch, KeyId, UnixSeconds};
use crate::schedule::{Cadence, Schedule};

/// Absolute targets, never "one more".
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Renew {
    pub entries: Vec<RenewEntry>,
}

/// Where one key stands; key id 0: all wrap and cover keys, epoch 0, generation = G.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RenewEntry {
    pub kid: KeyId,
    pub epoch: KeyEpoch,
    pub schedule: Schedule,
    pub lease_end: Option<UnixSeconds>,
}

/// As many entries as fit in a frame at the largest integers.
pub const RENEW_ENTRIES_MAX: u64 = 32;

impl Renew {
    pub(super) fn write(&self, e: &mut Writer<'_>) -> Written {
        e.map(1)?.u8(1)?.array(self.entries.len() as u64)?;
        for entry in &self.entries {
            e.array(7)?.u64(entry.kid.get())?.u32(entry.epoch.get())?;
            e.u32(entry.schedule.generation.get())?
                .u32(entry.schedule.activate_at.get())?;
            match entry.schedule.cadence {
                Some(cadence) => e.u8(cadence.step())?.u32(cadence.period())?,
                None => e.null()?.null()?,
            };
            match entry.lease_end {
                Some(end) => e.u32(end.get())?,
                None => e.null()?,
            };
        }
        Ok(())
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut map = r.map("RENEW")?;
        map.key(r, 1, "entries")?;
        let mut entries = Vec::new();
        for _ in 0..r.array_between("entries", 1, RENEW_ENTRIES_MAX)? {
            r.array("entry", 7)?;
            let kid = r.key_id()?;
            let epoch = r.epoch()?;
            let generation = r.generation()?;
            let activate_at = r.time("activate-at")?;
            let step = r.nullable("step", |r| r.uint("step"))?;
            let period = r.nullable("period", |r| r.uint32("period"))?;
            let cadence = cadence(step, period)?;
            let lease_end = r.nullable("lease end", |r| r.time("lease end"))?;
            entries.push(RenewEntry {
                kid,
                epoch,
                schedule: Schedule {
                    generation,
                    activate_at,
                    cadence,
                },
                lease_end,
            });
        }
        map.end()?;
        Ok(Self { entries })
    }
}

/// Step and period come together and within the bound, or not at all.
pub(super) fn cadence(
    step: Option<u64>,
    period: Option<u32>,
) -> Result<Option<Cadence>, DecodeError> {
    match (step, period) {
        (None, None) => Ok(None),
        (Some(step), Some(period)) => u8::try_from(step)
            .ok()
            .and_then(|step| Cadence::new(step, period))
            .map(Some)
            .ok_or(DecodeError::OutOfRange {
                what: "step and period",
            }),
        (Some(_), None) | (None, Some(_)) => Err(DecodeError::Unexpected {
            what: "step and period",
        }),
    }
}
