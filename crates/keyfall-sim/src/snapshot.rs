//! What lies on a terminal's disk, read by somebody who has broken the seal.

use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, UnixSeconds};
use keyfall_protocol::keys::{MasterKey, Secret, WrapKey};
use minicbor::Decoder;
use minicbor::decode::Error;
use thiserror::Error;

/// The keys of one snapshot and the time that it knows.
#[derive(Debug)]
pub struct Loot {
    pub number: TerminalNumber,
    pub wrap: WrapKey,
    pub masters: Vec<MasterKey>,
    /// No beacon below this is accepted.
    pub time_mark: UnixSeconds,
}

/// The snapshot has another form than this reader knows: it must follow
/// `keyfall_protocol::terminal`.
#[derive(Debug, Error)]
#[error("the snapshot does not read as version {VERSION}")]
pub struct SnapshotUnreadable;

impl Loot {
    /// Reads the keys out of an opened snapshot.
    ///
    /// # Errors
    /// [`SnapshotUnreadable`].
    pub fn read(snapshot: &[u8]) -> Result<Self, SnapshotUnreadable> {
        read(&mut Decoder::new(snapshot)).map_err(|_| SnapshotUnreadable)
    }

    /// Epoch and generation of the group's key.
    #[must_use]
    pub fn held(&self, group: GroupNumber) -> Option<(KeyEpoch, Generation)> {
        self.masters
            .iter()
            .find(|key| key.group() == group)
            .map(|key| (key.epoch(), key.generation()))
    }
}

fn read(d: &mut Decoder<'_>) -> Result<Loot, Error> {
    d.array()?;
    if d.u64()? != VERSION {
        return Err(Error::message("version"));
    }
    d.array()?;
    let number = TerminalNumber::new(d.u32()?).ok_or_else(|| Error::message("number"))?;
    for _ in 1..IDENTITY_ITEMS {
        d.skip()?;
    }
    d.skip()?; // The obey key only hides; nothing that is recorded opens with it yet.
    let wrap = secret(d)?;
    let wrap = WrapKey::new(number, generation(d)?, wrap);
    let time_mark = UnixSeconds::new(d.u32()?);
    let mut masters = Vec::new();
    for _ in 0..d.array()?.unwrap_or(0) {
        let items = d.array()?.unwrap_or(0);
        let group = GroupNumber::new(d.u32()?).ok_or_else(|| Error::message("group"))?;
        let epoch = KeyEpoch::new(d.u32()?);
        let generation = generation(d)?;
        masters.push(MasterKey::new(group, epoch, generation, secret(d)?));
        for _ in 4..items {
            d.skip()?;
        }
    }
    Ok(Loot {
        number,
        wrap,
        masters,
        time_mark,
    })
}

fn generation(d: &mut Decoder<'_>) -> Result<Generation, Error> {
    Generation::new(d.u32()?).ok_or_else(|| Error::message("generation"))
}

fn secret(d: &mut Decoder<'_>) -> Result<Secret<32>, Error> {
    Secret::from_slice(d.bytes()?).ok_or_else(|| Error::message("key"))
}

const VERSION: u64 = 1;
const IDENTITY_ITEMS: usize = 8;
