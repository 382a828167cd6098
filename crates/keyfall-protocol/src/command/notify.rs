//! NOTIFY: come and fetch (REQUIREMENTS R-070; FORMATS section 8).

use crate::command::codec::{Reader, Writer, Written};
use crate::error::DecodeError;
use crate::ids::{Generation, GroupNumber, KeyEpoch};

/// Whoever lacks something of what is listed fetches it; nothing listed: everybody fetches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notify {
    /// Milliseconds over which those who come spread themselves at random.
    pub spread_ms: u32,
    /// May be empty.
    pub entries: Vec<NotifyEntry>,
}

/// Where a group's key stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotifyEntry {
    pub group: GroupNumber,
    pub epoch: KeyEpoch,
    pub generation: Generation,
}

/// As many entries as fit in a frame at the largest integers.
pub const NOTIFY_ENTRIES_MAX: u64 = 66;

impl Notify {
    pub(super) fn write(&self, e: &mut Writer<'_>) -> Written {
        e.map(2)?.u8(1)?.u32(self.spread_ms)?;
        e.u8(2)?.array(self.entries.len() as u64)?;
        for entry in &self.entries {
            e.array(3)?.u32(entry.group.get())?;
            e.u32(entry.epoch.get())?.u32(entry.generation.get())?;
        }
        Ok(())
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut map = r.map("NOTIFY")?;
        map.key(r, 1, "spread")?;
        let spread_ms = r.uint32("spread")?;
        map.key(r, 2, "entries")?;
        let mut entries = Vec::new();
        for _ in 0..r.array_between("entries", 0, NOTIFY_ENTRIES_MAX)? {
            r.array("entry", 3)?;
            entries.push(NotifyEntry {
                group: r.group()?,
                epoch: r.epoch()?,
                generation: r.generation()?,
            });
        }
        map.end()?;
        Ok(Self { spread_ms, entries })
    }
}
