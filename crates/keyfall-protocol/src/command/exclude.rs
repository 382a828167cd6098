//! EXCLUDE: terminals that nobody listens to any more, and the epochs that shut them out
//! (REQUIREMENTS R-007, W-01; FORMATS sections 2 and 2.3).

use crate::command::codec::{Reader, Writer, Written};
use crate::error::DecodeError;
use crate::ids::{GroupNumber, KeyEpoch, TerminalNumber};

/// Who is cut off, and which groups get a fresh epoch by exact KEYDISTs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exclude {
    /// Rising, 1 to [`EXCLUDED_MAX`].
    pub terminals: Vec<TerminalNumber>,
    /// May be empty: those that were in no group.
    pub groups: Vec<FreshEpoch>,
}

/// A group leaves an epoch behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreshEpoch {
    pub group: GroupNumber,
    pub old: KeyEpoch,
    pub new: KeyEpoch,
}

/// As many terminals as one EXCLUDE may name (FORMATS section 2.3).
pub const EXCLUDED_MAX: usize = 64;
/// As many groups as fit beside them at the largest integers.
pub const FRESH_EPOCHS_MAX: usize = 36;

impl Exclude {
    pub(super) fn write(&self, e: &mut Writer<'_>) -> Written {
        e.map(2)?.u8(1)?.array(self.terminals.len() as u64)?;
        for terminal in &self.terminals {
            e.u32(terminal.get())?;
        }
        e.u8(2)?.array(self.groups.len() as u64)?;
        for fresh in &self.groups {
            // The fourth place is for the heal seed of a later version: wait for the KEYDIST.
            e.array(4)?.u32(fresh.group.get())?.u32(fresh.old.get())?;
            e.u32(fresh.new.get())?.null()?;
        }
        Ok(())
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut map = r.map("EXCLUDE")?;
        map.key(r, 1, "terminals")?;
        let mut terminals: Vec<TerminalNumber> = Vec::new();
        for _ in 0..r.array_between("terminals", 1, EXCLUDED_MAX as u64)? {
            let terminal = r.terminal()?;
            if terminals.last().is_some_and(|&last| terminal <= last) {
                return Err(DecodeError::OutOfRange { what: "terminals" });
            }
            terminals.push(terminal);
        }
        map.key(r, 2, "groups")?;
        let mut groups = Vec::new();
        for _ in 0..r.array_between("groups", 0, FRESH_EPOCHS_MAX as u64)? {
            r.array("fresh epoch", 4)?;
            let fresh = FreshEpoch {
                group: r.group()?,
                old: r.epoch()?,
                new: r.epoch()?,
            };
            r.null("heal generation")?;
            if fresh.new <= fresh.old {
                return Err(DecodeError::OutOfRange { what: "epoch" });
            }
            groups.push(fresh);
        }
        map.end()?;
        Ok(Self { terminals, groups })
    }
}
