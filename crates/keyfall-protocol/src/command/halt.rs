//! STOP and START: a group leaves off sending, and sends again under the key that both name
//! (REQUIREMENTS; FORMATS section 8).

use crate::command::codec::{Reader, Writer, Written};
use crate::error::DecodeError;
use crate::ids::{Generation, GroupNumber, KeyEpoch, SequenceNumber, UnixSeconds};

/// The body of either.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Halt {
    pub group: GroupNumber,
    /// Which change of the group's key; rises for ever, as sequence numbers do.
    pub transaction: SequenceNumber,
    /// What the group sends with after it.
    pub epoch: KeyEpoch,
    pub generation: Generation,
    /// Past it the group sends again by itself.
    pub deadline: UnixSeconds,
}

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HaltKind {
    Stop,
    Start,
}

impl Halt {
    pub(super) fn write(&self, e: &mut Writer<'_>) -> Written {
        e.map(5)?.u8(1)?.u32(self.group.get())?;
        e.u8(2)?.u64(self.transaction.get())?;
        e.u8(3)?.u32(self.epoch.get())?;
        e.u8(4)?.u32(self.generation.get())?;
        e.u8(5)?.u32(self.deadline.get())?;
        Ok(())
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut map = r.map("STOP or START")?;
        map.key(r, 1, "group")?;
        let group = r.group()?;
        map.key(r, 2, "transaction")?;
        let transaction = SequenceNumber::new(r.uint("transaction")?);
        map.key(r, 3, "epoch")?;
        let epoch = r.epoch()?;
        map.key(r, 4, "generation")?;
        let generation = r.generation()?;
        map.key(r, 5, "deadline")?;
        let deadline = r.time("deadline")?;
        map.end()?;
        Ok(Self {
            group,
            transaction,
            epoch,
            generation,
            deadline,
        })
    }
}
