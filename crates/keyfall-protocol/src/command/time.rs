//! TIME: the server's clock and floors (FORMATS sections 2 and 10).

use crate::command::codec::{Reader, Writer, Written};
use crate::error::DecodeError;
use crate::ids::{Generation, KeyEpoch, KeyId, UnixSeconds};

/// A beacon: what time it is, and below what no key may stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Time {
    pub seconds: UnixSeconds,
    /// How far the server's clock may be off, in milliseconds.
    pub max_error_ms: u32,
    /// May be empty. A floor makes a terminal step or stop sending; it discards nothing.
    pub floors: Vec<Floor>,
}

/// Where a key stands at the least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Floor {
    pub kid: KeyId,
    pub epoch: KeyEpoch,
    pub generation: Generation,
}

/// As many floors as fit in a frame at the largest integers.
pub const FLOORS_MAX: u64 = 66;

impl Time {
    pub(super) fn write(&self, e: &mut Writer<'_>) -> Written {
        e.map(if self.floors.is_empty() { 2 } else { 3 })?;
        e.u8(1)?
            .u32(self.seconds.get())?
            .u8(2)?
            .u32(self.max_error_ms)?;
        if !self.floors.is_empty() {
            e.u8(3)?.array(self.floors.len() as u64)?;
            for floor in &self.floors {
                e.array(3)?.u64(floor.kid.get())?;
                e.u32(floor.epoch.get())?.u32(floor.generation.get())?;
            }
        }
        Ok(())
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut map = r.map("TIME")?;
        map.key(r, 1, "seconds")?;
        let seconds = r.time("seconds")?;
        map.key(r, 2, "max error")?;
        let max_error_ms = r.uint32("max error")?;
        let mut floors = Vec::new();
        if map.key_if(r, 3)? {
            for _ in 0..r.array_between("floors", 1, FLOORS_MAX)? {
                r.array("floor", 3)?;
                floors.push(Floor {
                    kid: r.key_id()?,
                    epoch: r.epoch()?,
                    generation: r.generation()?,
                });
            }
        }
        map.end()?;
        Ok(Self {
            seconds,
            max_error_ms,
            floors,
        })
    }
}
