//! What a terminal's memory holds, asked of the machine itself: which of the keys that it ever
//! stored does it still have?

use std::collections::BTreeSet;

use keyfall_protocol::command::{
    Body, Command, KeyDist, KeyDistContents, SigningKey, Target, Unverified,
};
use keyfall_protocol::ids::{
    Generation, GroupNumber, KeyEpoch, SequenceNumber, StreamId, UnixSeconds,
};
use keyfall_protocol::keys::{MasterKey, Secret, WrapKey};
use keyfall_protocol::terminal::{SealedVerdict, Terminal};

use crate::seeded::Seeded;
use crate::snapshot::Loot;

/// The keys that one terminal stored since it was switched on.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// How its master keys are named in traffic.
    tags: BTreeSet<[u8; 3]>,
    /// The newest last.
    wraps: Vec<WrapKey>,
}

impl Memory {
    /// The machine asked for this to be stored, or was restored from it.
    pub(crate) fn sees(&mut self, loot: &Loot) {
        let Some(user) = &loot.user else { return };
        self.tags.extend(user.masters.iter().map(MasterKey::tag));
        let newest = self.wraps.last().map(WrapKey::generation);
        if newest < Some(user.wrap.generation()) {
            self.wraps.push(user.wrap.duplicate());
            let surplus = self.wraps.len().saturating_sub(WRAPS_MAX);
            self.wraps.drain(..surplus);
        }
    }

    /// Every master key that is there, those in grace too.
    pub(crate) fn masters(&self, machine: &Terminal) -> Vec<MasterKey> {
        let fitting = |tag: &[u8; 3]| machine.keys_that_fit(*tag);
        self.tags.iter().flat_map(fitting).collect()
    }

    /// Every wrap key that is there, used-up ones too.
    pub(crate) fn wraps(&self, machine: &Terminal) -> Vec<WrapKey> {
        let held = self.wraps.iter().filter(|wrap| holds(machine, wrap));
        held.map(WrapKey::duplicate).collect()
    }
}

/// Whether the machine opens a distribution under that very key.
fn holds(machine: &Terminal, wrap: &WrapKey) -> bool {
    let mut rng = Seeded::new(0);
    let contents = KeyDistContents {
        search_key: None,
        key: MasterKey::new(PROBED, KeyEpoch::new(1), Generation::ZERO, zeros()),
        activate_at: UnixSeconds::new(0),
        cadence: None,
        lease_end: None,
    };
    let probe = SigningKey::from_seed(zeros()).sign(&Command {
        stream: StreamId::new([0; 4]),
        sequence: SequenceNumber::new(0),
        issued_at: UnixSeconds::new(0),
        not_after: UnixSeconds::new(0),
        target: Target::Handles,
        body: Body::KeyDist(KeyDist::seal(&contents, std::iter::once(wrap), &mut rng)),
        fleet_generation: wrap.generation(),
    });
    let frame = Unverified::decode(&probe).expect("it was just made");
    matches!(machine.look_at(frame).sealed, SealedVerdict::Opens { .. })
}

fn zeros() -> Secret<32> {
    Secret::init_with(|_| ())
}

const PROBED: GroupNumber = match GroupNumber::new(1) {
    Some(group) => group,
    None => unreachable!(),
};
/// More than any terminal keeps.
const WRAPS_MAX: usize = 64;
