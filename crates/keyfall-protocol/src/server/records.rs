//! What the server knows of its fleet, and the changes that its store makes durable.

use std::collections::BTreeSet;

use crate::command::{
    Body, Command, KeySet, Limits, ListedKey, SignerClass, SigningKey, Target, VerifyingKey,
};
use crate::ids::{
    Generation, GroupNumber, KeyEpoch, SequenceNumber, StreamId, TerminalNumber, UnixSeconds,
};
use crate::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use crate::rng::{Random, octets};
use crate::schedule::{FleetSchedule, Schedule};

/// The fleet as a whole: written once at `server init`, G and the reservation ever after.
#[derive(Debug)]
pub struct FleetRecord {
    pub name: String,
    pub stream: StreamId,
    pub root: VerifyingKey,
    /// As the root signed it.
    pub key_set_frame: Vec<u8>,
    pub key_set: KeySet,
    pub beat: SigningKey,
    pub keys: SigningKey,
    pub fleet_generation: Generation,
    /// Every sequence number below this may have been used.
    pub sequence_reserved: SequenceNumber,
    pub carriers: Vec<String>,
    /// Seconds that terminals keep a rank-1 generation after the next one came.
    pub keep_time: u32,
    pub bits_per_second: u64,
}

/// One enrolment.
#[derive(Debug)]
pub struct TerminalRecord {
    pub number: TerminalNumber,
    pub name: String,
    pub obey: ObeyKey,
    pub wrap: WrapKey,
    pub added_at: UnixSeconds,
    pub package_expires: UnixSeconds,
}

/// One group.
#[derive(Debug)]
pub struct GroupRecord {
    pub number: GroupNumber,
    pub name: String,
    pub members: BTreeSet<TerminalNumber>,
    pub master: MasterKey,
    pub schedule: Schedule,
    /// Seconds from a statement to the end of the lease that it gives.
    pub lease: u32,
}

impl GroupRecord {
    /// Whether the schedule is past the generation held.
    pub(super) fn is_due(&self, wall: UnixSeconds) -> bool {
        self.schedule.generation_at(wall) > self.master.generation()
    }
}

/// One step of the server's state, made durable before anything of it is sent.
#[derive(Debug)]
pub enum Change {
    /// Sequence numbers below this may be used from now on.
    Sequence(SequenceNumber),
    Terminal(TerminalRecord),
    Group(GroupRecord),
    Member {
        group: GroupNumber,
        terminal: TerminalNumber,
    },
    /// A group's key after a renewal.
    Master {
        key: MasterKey,
        schedule: Schedule,
    },
    /// G, and every wrap key at it.
    Fleet {
        generation: Generation,
        wraps: Vec<WrapKey>,
    },
}

/// One transaction: changes with their audit and order-journal entries.
#[derive(Debug)]
pub struct Batch {
    pub changes: Vec<Change>,
    pub audit: Option<AuditEntry>,
    pub journal: Option<JournalEntry>,
}

/// Who did what and why; the store chains it to the one before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditEntry {
    pub at: UnixSeconds,
    /// "uid 1000", or "scheduler".
    pub actor: String,
    /// The verb, as on the command line.
    pub action: &'static str,
    /// What it was done to.
    pub subject: String,
    /// What came of it.
    pub outcome: String,
    pub reason: Option<String>,
    pub ticket: Option<String>,
}

/// What a restored server must not forget (FORMATS section 12). Holds no secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JournalEntry {
    Enrolment {
        terminal: TerminalNumber,
        name: String,
    },
    Epoch {
        group: GroupNumber,
        epoch: KeyEpoch,
        name: String,
    },
    /// With the renewal that goes before it.
    Member {
        group: GroupNumber,
        terminal: TerminalNumber,
        epoch: KeyEpoch,
        generation: Generation,
    },
    Renewal {
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
    },
    FleetGeneration {
        generation: Generation,
    },
}

/// What `server init` decides.
#[derive(Clone, Debug)]
pub struct Founding {
    pub name: String,
    pub carriers: Vec<String>,
    /// Seconds between two scheduled generations G.
    pub fleet_period: u32,
    /// Seconds that the online keys live.
    pub signer_life: u32,
    pub bits_per_second: u64,
    /// Seconds.
    pub keep_time: u32,
}

impl Default for Founding {
    /// FORMATS section 9: G every hour, online keys 30 days.
    fn default() -> Self {
        Self {
            name: "fleet".to_owned(),
            carriers: Vec::new(),
            fleet_period: 3600,
            signer_life: 30 * 86_400,
            bits_per_second: 1_000_000,
            keep_time: 120,
        }
    }
}

impl FleetRecord {
    /// A new fleet: draws stream and online keys, and lets the root sign the first KEYSET.
    #[must_use]
    pub fn found(
        founding: Founding,
        root: &SigningKey,
        erase: &VerifyingKey,
        wall: UnixSeconds,
        rng: &mut dyn Random,
    ) -> Self {
        let stream = StreamId::new(octets(rng));
        let beat = SigningKey::from_seed(Secret::init_with(|into| rng.fill(into)));
        let keys = SigningKey::from_seed(Secret::init_with(|into| rng.fill(into)));
        let listed = |public, class, life| ListedKey {
            public,
            class,
            not_before: wall,
            expires: wall.plus(life),
            groups: Vec::new(),
        };
        let key_set = KeySet {
            // Versions begin like epochs: at the clock (FORMATS section 12).
            version: KeyEpoch::fresh(None, wall).get(),
            issued_at: wall,
            keys: vec![
                listed(beat.public(), SignerClass::Beat, founding.signer_life),
                listed(keys.public(), SignerClass::Keys, founding.signer_life),
                listed(*erase, SignerClass::Erase, ROOT_LIFE),
            ],
            fleet_schedule: FleetSchedule {
                first: Generation::ZERO,
                from: wall,
                period: founding.fleet_period.max(1),
            },
            stolen: Vec::new(),
            limits: Limits::default(),
        };
        let key_set_frame = root.sign(&Command {
            stream,
            sequence: SequenceNumber::at(wall),
            issued_at: wall,
            not_after: wall.plus(ROOT_LIFE),
            target: Target::All,
            body: Body::KeySet(key_set.clone()),
            fleet_generation: Generation::ZERO,
        });
        Self {
            name: founding.name,
            stream,
            root: root.public(),
            key_set_frame,
            key_set,
            beat,
            keys,
            fleet_generation: Generation::ZERO,
            sequence_reserved: SequenceNumber::at(wall).plus(1),
            carriers: founding.carriers,
            keep_time: founding.keep_time,
            bits_per_second: founding.bits_per_second,
        }
    }

    /// When the first of the online keys ends: after it nothing is sent.
    #[must_use]
    pub fn signers_expire(&self) -> UnixSeconds {
        let end = |class| self.key_set.first_of(class).map(|key| key.expires);
        end(SignerClass::Beat)
            .into_iter()
            .chain(end(SignerClass::Keys))
            .min()
            .unwrap_or(UnixSeconds::new(0))
    }
}

/// Root and erase key live five years.
const ROOT_LIFE: u32 = 5 * 366 * 86_400;
