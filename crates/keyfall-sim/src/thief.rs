//! A thief with a terminal, everything that was in its memory and on its disk, and every tape.

use std::collections::BTreeSet;

use keyfall_plane::{Arrival, SrtpReceiver, Stretch};
use keyfall_protocol::command::{Body, KeyDist, KeyDistContents, Unverified};
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, Tick};
use keyfall_protocol::keys::{MasterKey, SrtpSuite, WrapKey};
use keyfall_protocol::terminal::{ReceiveKey, Terminal, TrafficQuery};

use crate::capture::{Captured, CapturedPacket};
use crate::snapshot::{Loot, SnapshotUnreadable};

/// Every key that the thief has or made of others.
#[derive(Debug, Default)]
pub struct Thief {
    wraps: Vec<WrapKey>,
    masters: Vec<MasterKey>,
}

/// What opened: places in the tapes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Opened {
    pub frames: Vec<usize>,
    pub packets: Vec<usize>,
}

impl Thief {
    /// Reads an image of a disk.
    ///
    /// # Errors
    /// [`SnapshotUnreadable`].
    pub fn take_disk(&mut self, snapshot: &[u8]) -> Result<(), SnapshotUnreadable> {
        let loot = Loot::read(snapshot)?;
        self.wraps.push(loot.wrap);
        self.masters.extend(loot.masters);
        Ok(())
    }

    /// Takes wrap keys that memory holds beside the newest.
    pub fn take_wraps<'k>(&mut self, wraps: impl Iterator<Item = &'k WrapKey>) {
        self.wraps.extend(wraps.map(WrapKey::duplicate));
    }

    /// Asks the running machine for the key of every packet on tape: all master keys in its
    /// memory that any of them could need, those in grace too.
    pub fn take_memory(&mut self, machine: &mut Terminal, now: Tick, packets: &[CapturedPacket]) {
        let claims: BTreeSet<_> = packets
            .iter()
            .filter_map(|packet| {
                let arrival = Arrival::of_srtp(SUITE, &packet.octets).ok()?;
                Some((packet.group, arrival.mki.tag()))
            })
            .collect();
        for (source, (group, tag)) in claims.into_iter().enumerate() {
            let query = TrafficQuery {
                group,
                tag,
                source: source as u64,
            };
            if let Ok(ReceiveKey::Held(key)) = machine.receive_key(now, query) {
                self.masters.push(key.duplicate());
            }
        }
    }

    /// Plays every distribution to the running machine and notes which it opens: a second opinion
    /// on [`Self::take_wraps`]. `plays` says whether a frame came to anything but "not addressed".
    pub fn play_to(frames: &[Captured], mut plays: impl FnMut(&Captured) -> bool) -> Vec<usize> {
        let opened = |(place, frame): (usize, &Captured)| {
            distribution(frame).and_then(|_| plays(frame).then_some(place))
        };
        frames.iter().enumerate().filter_map(opened).collect()
    }

    /// Opens what can be opened: distributions with every wrap key and all that follow from it,
    /// then packets with every master key and all that follow from it.
    pub fn open(&mut self, frames: &[Captured], packets: &[CapturedPacket]) -> Opened {
        let frames = self.open_frames(frames);
        let open = |packet: &CapturedPacket| self.masters.iter().any(|key| opens(key, packet));
        let packets = packets
            .iter()
            .enumerate()
            .filter_map(|(place, packet)| open(packet).then_some(place))
            .collect();
        Opened { frames, packets }
    }

    fn open_frames(&mut self, frames: &[Captured]) -> Vec<usize> {
        let mut opened = Vec::new();
        for (place, frame) in frames.iter().enumerate() {
            let Some((key_dist, generation)) = distribution(frame) else {
                continue;
            };
            let contents = self
                .wraps
                .iter()
                .find_map(|wrap| open_with(&key_dist, wrap, generation));
            if let Some(contents) = contents {
                opened.push(place);
                self.add_master(contents.key);
            }
        }
        opened
    }

    /// Keeps the oldest of each epoch: the later ones follow.
    fn add_master(&mut self, key: MasterKey) {
        let known = self.masters.iter().any(|held| {
            held.kid() == key.kid()
                && held.epoch() == key.epoch()
                && held.generation() <= key.generation()
        });
        if !known {
            self.masters.push(key);
        }
    }

    /// The oldest key of each group and epoch that the thief has.
    #[must_use]
    pub fn oldest(&self, group: GroupNumber, epoch: KeyEpoch) -> Option<Generation> {
        self.masters
            .iter()
            .filter(|key| key.group() == group && key.epoch() == epoch)
            .map(MasterKey::generation)
            .min()
    }
}

fn distribution(frame: &Captured) -> Option<(KeyDist, Generation)> {
    let frame = Unverified::decode(&frame.octets).ok()?;
    let command = frame.command();
    match &command.body {
        Body::KeyDist(key_dist) => Some((key_dist.clone(), command.fleet_generation)),
        Body::Time(_) | Body::Renew(_) | Body::Order(_) | Body::Exclude(_) | Body::KeySet(_) => {
            None
        }
    }
}

/// With the key itself, with the one of the frame's G, and whether or not the handle fits.
fn open_with(
    key_dist: &KeyDist,
    wrap: &WrapKey,
    generation: Generation,
) -> Option<KeyDistContents> {
    let stepped = wrap.duplicate().renew_to(generation);
    for key in [wrap, &stepped] {
        if let Some(contents) = key_dist.open(key) {
            return Some(contents);
        }
        assert!(
            key_dist.open_any(key).is_none(),
            "a wrap opened under another handle"
        );
    }
    None
}

/// With the key itself, and with the one of the packet's generation.
fn opens(key: &MasterKey, packet: &CapturedPacket) -> bool {
    let Ok(arrival) = Arrival::of_srtp(SUITE, &packet.octets) else {
        return false;
    };
    let stepped = key.duplicate().renew_to(packet.generation);
    [key, &stepped].into_iter().any(|key| {
        SrtpReceiver::new(arrival.stream(SUITE), Stretch::default())
            .try_rtp(key, &packet.octets, &mut Vec::new())
            .is_ok()
    })
}

const SUITE: SrtpSuite = SrtpSuite::AeadAes256Gcm;
