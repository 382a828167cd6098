//! What lies on a terminal's disk, read by somebody who has broken the seal.

use std::fmt;

use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, UnixSeconds};
use keyfall_protocol::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use keyfall_protocol::terminal::Snapshot;
use minicbor::Decoder;
use minicbor::decode::Error;
use thiserror::Error;

/// A state directory: the two compartments, opened.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct DiskImage {
    /// What the machine opens by itself.
    pub device: Vec<u8>,
    /// What PIN or passphrase opens; empty for somebody who has neither.
    pub user: Vec<u8>,
}

/// The keys of one image and the time that it knows.
#[derive(Debug)]
pub struct Loot {
    pub number: TerminalNumber,
    pub obey: ObeyKey,
    /// G as the terminal knew it.
    pub fleet_generation: Generation,
    /// No beacon below this is accepted.
    pub time_mark: UnixSeconds,
    /// `None` where the user compartment was not there to be read.
    pub user: Option<UserLoot>,
}

/// The keys of the user compartment.
#[derive(Debug)]
pub struct UserLoot {
    pub wrap: WrapKey,
    pub masters: Vec<MasterKey>,
}

/// The snapshot has another form than this reader knows: it must follow
/// `keyfall_protocol::terminal`.
#[derive(Debug, Error)]
#[error("the snapshot does not read as version {VERSION}")]
pub struct SnapshotUnreadable;

impl fmt::Debug for DiskImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (device, user) = (self.device.len(), self.user.len());
        write!(f, "{device} and {user} octets")
    }
}

impl DiskImage {
    /// What stands there after that store: an unchanged compartment stays.
    #[must_use]
    pub fn after(&self, snapshot: &Snapshot) -> Self {
        let user = snapshot.user.as_ref().map(|user| user.to_vec());
        Self {
            device: snapshot.device.to_vec(),
            user: user.unwrap_or_else(|| self.user.clone()),
        }
    }

    /// What somebody without PIN and passphrase reads of it.
    #[must_use]
    pub fn device_only(&self) -> Self {
        Self {
            device: self.device.clone(),
            user: Vec::new(),
        }
    }

    /// Whether nothing was ever written, or everything was erased.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.device.is_empty()
    }
}

impl Loot {
    /// Reads the keys out of an opened image.
    ///
    /// # Errors
    /// [`SnapshotUnreadable`].
    pub fn read(image: &DiskImage) -> Result<Self, SnapshotUnreadable> {
        read(image).map_err(|_| SnapshotUnreadable)
    }

    /// Epoch and generation of the group's key.
    #[must_use]
    pub fn held(&self, group: GroupNumber) -> Option<(KeyEpoch, Generation)> {
        self.masters()
            .find(|key| key.group() == group)
            .map(|key| (key.epoch(), key.generation()))
    }

    /// The newest key of each group.
    pub fn masters(&self) -> impl Iterator<Item = &MasterKey> {
        self.user.iter().flat_map(|user| &user.masters)
    }
}

fn read(image: &DiskImage) -> Result<Loot, Error> {
    let d = &mut Decoder::new(&image.device);
    d.array()?;
    check_version(d)?;
    d.array()?;
    let number = TerminalNumber::new(d.u32()?).ok_or_else(|| Error::message("number"))?;
    for _ in 1..IDENTITY_ITEMS {
        d.skip()?;
    }
    let obey = ObeyKey::new(number, secret(d)?);
    let fleet_generation = generation(d)?;
    let mut time_mark = UnixSeconds::new(0);
    for place in 0..d.array()?.unwrap_or(0) {
        if place > 0 {
            d.array()?;
            d.skip()?; // The key that the mark is of.
        }
        time_mark = time_mark.max(UnixSeconds::new(d.u32()?));
    }
    let user = match image.user.is_empty() {
        true => None,
        false => Some(read_user(&mut Decoder::new(&image.user), number)?),
    };
    Ok(Loot {
        number,
        obey,
        fleet_generation,
        time_mark,
        user,
    })
}

fn read_user(d: &mut Decoder<'_>, number: TerminalNumber) -> Result<UserLoot, Error> {
    d.array()?;
    check_version(d)?;
    if TerminalNumber::new(d.u32()?) != Some(number) {
        return Err(Error::message("number"));
    }
    let wrap = secret(d)?;
    let wrap = WrapKey::new(number, generation(d)?, wrap);
    d.skip()?; // The offset is in the generation.
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
    Ok(UserLoot { wrap, masters })
}

fn check_version(d: &mut Decoder<'_>) -> Result<(), Error> {
    match d.u64()? {
        VERSION => Ok(()),
        _ => Err(Error::message("version")),
    }
}

fn generation(d: &mut Decoder<'_>) -> Result<Generation, Error> {
    Generation::new(d.u32()?).ok_or_else(|| Error::message("generation"))
}

fn secret(d: &mut Decoder<'_>) -> Result<Secret<32>, Error> {
    Secret::from_slice(d.bytes()?).ok_or_else(|| Error::message("key"))
}

const VERSION: u64 = 4;
const IDENTITY_ITEMS: usize = 10;
