//! How a fleet begins: what `server init` decides and draws.

use crate::command::{
    Body, Command, KeySet, Limits, ListedKey, SignerClass, SigningKey, Target, VerifyingKey,
};
use crate::ids::{Generation, KeyEpoch, SequenceNumber, StreamId, UnixSeconds};
use crate::keys::Secret;
use crate::rng::{Random, octets};
use crate::schedule::FleetSchedule;
use crate::server::FleetRecord;
use crate::sharing::{KemSecret, KemSuite};

/// What `server init` decides.
#[derive(Clone, Debug)]
pub struct Founding {
    pub name: String,
    pub carriers: Vec<String>,
    /// Where terminals that can answer reach the server, as "HOST:PORT"; none: one way only.
    pub servers: Vec<String>,
    /// Socket addresses at which it listens for them.
    pub listen: Vec<String>,
    /// Seconds between two scheduled generations G.
    pub fleet_period: u32,
    /// Seconds that the online keys live.
    pub signer_life: u32,
    pub bits_per_second: u64,
    /// Seconds.
    pub keep_time: u32,
    /// Seconds after which a group gets a fresh epoch by itself; 0: never.
    pub epoch_life: u32,
    pub limits: Limits,
    /// Erase keys beside the first, where more than one is to sign.
    pub further_erase: Vec<VerifyingKey>,
}

impl Default for Founding {
    /// FORMATS section 9: G every hour, a fresh epoch every 7 days, online keys 30 days.
    fn default() -> Self {
        Self {
            name: "fleet".to_owned(),
            carriers: Vec::new(),
            servers: Vec::new(),
            listen: Vec::new(),
            fleet_period: 3600,
            signer_life: 30 * 86_400,
            bits_per_second: 1_000_000,
            keep_time: 120,
            epoch_life: 7 * 86_400,
            limits: Limits::default(),
            further_erase: Vec::new(),
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
        let erase_keys = std::iter::once(erase).chain(&founding.further_erase);
        let erase_keys = erase_keys.map(|public| listed(*public, SignerClass::Erase, ROOT_LIFE));
        let online = [
            listed(beat.public(), SignerClass::Beat, founding.signer_life),
            listed(keys.public(), SignerClass::Keys, founding.signer_life),
        ];
        let [kem, kem_pq] = [KemSuite::X25519, KemSuite::XWing]
            .map(|suite| KemSecret::from_seed(suite, Secret::init_with(|into| rng.fill(into))));
        let kems = [&kem, &kem_pq].map(|key| {
            let class = key.public().suite().class();
            listed(key.public().listing(), class, ROOT_LIFE)
        });
        let key_set = KeySet {
            // Versions begin like epochs: at the clock (FORMATS section 12).
            version: KeyEpoch::fresh(None, wall).get(),
            issued_at: wall,
            keys: online.into_iter().chain(erase_keys).chain(kems).collect(),
            fleet_schedule: FleetSchedule {
                first: Generation::ZERO,
                from: wall,
                period: founding.fleet_period.max(1),
            },
            stolen: Vec::new(),
            limits: founding.limits,
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
            kem: Some(kem),
            kem_pq: Some(kem_pq),
            rsa: None,
            fleet_generation: Generation::ZERO,
            sequence_reserved: SequenceNumber::at(wall).plus(1),
            carriers: founding.carriers,
            servers: founding.servers,
            listen: founding.listen,
            keep_time: founding.keep_time,
            epoch_life: founding.epoch_life,
            bits_per_second: founding.bits_per_second,
        }
    }
}

/// Root and erase key live five years.
pub(super) const ROOT_LIFE: u32 = 5 * 366 * 86_400;
