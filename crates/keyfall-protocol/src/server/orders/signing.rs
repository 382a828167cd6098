//! New online keys: drafted here, signed by the root elsewhere, installed in one step (FORMATS
//! sections 2, 2.1 and 9).

use std::sync::Arc;

use crate::command::{
    Body, ClearList, Command, FreshEpoch, KeySet, Limits, ListedKey, OrderKind, SignerClass,
    SigningKey, Suites, Target, Unverified, VerifyingKey,
};
use crate::ids::{Generation, KeyEpoch, KeyName, TerminalNumber, UnixSeconds};
use crate::keys::Secret;
use crate::rng::Random;
use crate::schedule::FleetSchedule;
use crate::server::founding::ROOT_LIFE;
use crate::server::orders::Prepared;
use crate::server::{
    Batch, By, Change, ChangeCause, Done, GRACE_MIN, JournalEntry, NewKeys, OFFSET_MAX, Refusal,
    Server, TerminalRecord,
};
use crate::sharing::rsa_misty1::RsaSecret;
use crate::sharing::{KemSecret, KemSuite, SharingSuite};

/// What the next KEYSET is to say beside fresh online keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeySetDraft {
    /// Seconds that the online keys live: 1 to 30 days.
    pub life: u32,
    /// Listed keys that are in wrong hands, of any class. They are listed no more, what they did is
    /// undone, and every group gets a fresh epoch.
    pub stolen: Vec<KeyName>,
    /// Listed keys that are listed no more without being stolen: erase keys that were replaced.
    pub dropped: Vec<KeyName>,
    /// Further erase keys.
    pub erase: Vec<VerifyingKey>,
    /// `None`: as they are.
    pub limits: Option<Limits>,
    /// How keys may be asked for from now on; `None`: as the limits say.
    pub suites: Option<Suites>,
    /// To which prefixes packets go unprotected from now on; `None`: as the limits say.
    pub clear: Option<ClearList>,
    /// A fresh key for the suite rsa-misty1, where that is listed: no machine makes one. `None`: the
    /// one that is held stays.
    pub rsa: Option<Arc<RsaSecret>>,
}

impl Default for KeySetDraft {
    /// The monthly one: fresh online keys for 30 days, everything else as it is.
    fn default() -> Self {
        Self {
            life: ONLINE_LIFE_MAX,
            stolen: Vec::new(),
            dropped: Vec::new(),
            erase: Vec::new(),
            limits: None,
            suites: None,
            clear: None,
            rsa: None,
        }
    }
}

/// A KEYSET that waits for the root's signature, with the keys that it lists.
#[derive(Debug)]
pub struct DraftedKeys {
    pub command: Command,
    pub beat: SigningKey,
    pub keys: SigningKey,
    /// What requests are sealed to, where the one that was listed does not stay.
    pub kem: Option<KemSecret>,
    pub kem_pq: Option<KemSecret>,
    /// The one that it lists.
    pub rsa: Option<RsaSecret>,
}

impl Server {
    /// Draws online keys and writes the KEYSET that lists them, for the root to sign; it comes back
    /// in [`Order::InstallKeys`](crate::server::Order::InstallKeys). The keys are held until then;
    /// drafting again forgets them. The driver may store [`Self::drafted`], so that a restart does
    /// not.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed.
    pub fn draft_key_set(
        &mut self,
        wanted: KeySetDraft,
        rng: &mut dyn Random,
    ) -> Result<Command, Refusal> {
        if wanted.life == 0 || wanted.life > ONLINE_LIFE_MAX {
            return Err(Refusal::BadLife(wanted.life));
        }
        let (wall, held) = (self.at.wall, &self.fleet.key_set);
        let gone = wanted.stolen.iter().chain(&wanted.dropped);
        // A theft may be found out when the key is listed no more.
        let mut dropped = wanted.dropped.iter();
        if let Some(&stranger) = dropped.find(|&&name| held.key(name).is_none()) {
            return Err(Refusal::NoSuchKey(stranger));
        }
        let [beat, keys] =
            [0, 1].map(|_| SigningKey::from_seed(Secret::init_with(|into| rng.fill(into))));
        let online = [(&beat, SignerClass::Beat), (&keys, SignerClass::Keys)]
            .map(|(key, class)| listed(key.public(), class, wall, wanted.life));
        // The fresh ones first: the first of a class is the one that signs.
        let mut next: Vec<ListedKey> = online.into();
        let stays = |key: &&ListedKey| {
            key.expires > wall
                && !gone.clone().any(|&name| name == key.public.name())
                && self.can_use(key)
        };
        next.extend(held.keys.iter().filter(stays).cloned());
        for &public in &wanted.erase {
            if !next.iter().any(|key| key.public == public) {
                next.push(listed(public, SignerClass::Erase, wall, ROOT_LIFE));
            }
        }
        let [kem, kem_pq] = [KemSuite::X25519, KemSuite::XWing].map(|suite| {
            let listed = next.iter().any(|key| key.class == suite.class());
            (!listed).then(|| KemSecret::from_seed(suite, Secret::init_with(|into| rng.fill(into))))
        });
        for key in [&kem, &kem_pq].into_iter().flatten() {
            let class = key.public().suite().class();
            next.push(listed(key.public().listing(), class, wall, ROOT_LIFE));
        }
        // What is held stays as it is: a KEYSET is needed every month.
        let mut limits = wanted.limits.unwrap_or(held.limits);
        if wanted.limits.is_some() && limits.grace < GRACE_MIN {
            return Err(Refusal::GraceTooShort(limits.grace));
        }
        limits.suites = wanted.suites.unwrap_or(limits.suites);
        limits.clear = wanted.clear.unwrap_or(limits.clear);
        let rsa = match limits.suites.contains(SharingSuite::RsaMisty1) {
            true => Some(list_rsa(
                &mut next,
                wanted.rsa,
                self.fleet.rsa.as_ref(),
                wall,
            )?),
            false => {
                next.retain(|key| key.class != SignerClass::Rsa);
                None
            }
        };
        let erase = next.iter().filter(|key| key.class == SignerClass::Erase);
        let (erase, needed) = (erase.count(), limits.erase_signatures);
        if erase < usize::from(needed) {
            return Err(Refusal::TooFewEraseKeys {
                listed: erase,
                needed,
            });
        }
        drop_oldest_online(&mut next);
        let stolen = self.stolen_with(&wanted.stolen);
        if next.len() > KEYS_MAX || wanted.stolen.len() > STOLEN_MAX {
            return Err(Refusal::TooManyKeys(KEYS_MAX, STOLEN_MAX));
        }
        let key_set = KeySet {
            version: KeyEpoch::fresh(Some(KeyEpoch::new(held.version)), wall).get(),
            issued_at: wall,
            keys: next,
            fleet_schedule: self.schedule_after(&wanted.stolen),
            stolen,
            limits,
        };
        let command = self.draft(Target::All, Body::KeySet(key_set), wall.plus(ROOT_LIFE))?;
        self.drafted = Some(DraftedKeys {
            command: command.clone(),
            beat,
            keys,
            kem,
            kem_pq,
            rsa,
        });
        Ok(command)
    }

    /// False for a KEM or RSA key that is not held (KR-373): a copy from which the server was restored is older, and
    /// what is sealed to the key would never open.
    fn can_use(&self, key: &ListedKey) -> bool {
        let held = match key.class {
            SignerClass::Kem => &self.fleet.kem,
            SignerClass::KemPq => &self.fleet.kem_pq,
            SignerClass::Beat | SignerClass::Keys | SignerClass::Erase => return true,
            SignerClass::Rsa => {
                let held = self.fleet.rsa.as_ref();
                return held.is_some_and(|held| held.public().listing() == key.public);
            }
        };
        let listing = held.as_ref().map(|held| held.public().listing());
        listing == Some(key.public)
    }

    /// The KEYSET that waits for the root's signature.
    #[must_use]
    pub fn drafted(&self) -> Option<&DraftedKeys> {
        self.drafted.as_ref()
    }

    /// Puts back what [`Self::drafted`] gave before a restart.
    pub fn resume_draft(&mut self, drafted: DraftedKeys) {
        self.drafted = Some(drafted);
    }

    /// Whether the online keys are in the last third of their life: it is time to sign new ones.
    #[must_use]
    pub fn signers_warn(&self) -> bool {
        [SignerClass::Beat, SignerClass::Keys]
            .into_iter()
            .filter_map(|class| self.fleet.key_set.first_of(class))
            .any(|key| {
                let life = key.expires.since(key.not_before);
                self.at.wall >= key.not_before.plus(life / 3 * 2)
            })
    }

    pub(super) fn install_keys(&self, frame: Vec<u8>, by: By, rng: &mut dyn Random) -> Prepared {
        let verified = Unverified::decode(&frame)
            .ok()
            .and_then(|read| read.verify(&self.fleet.root))
            .ok_or(Refusal::NotTheRoot)?;
        let (Some(drafted), Body::KeySet(key_set)) = (&self.drafted, &verified.command().body)
        else {
            return Err(Refusal::NotTheDraft);
        };
        let newer = key_set.version > self.fleet.key_set.version;
        if drafted.command != *verified.command() || !newer {
            return Err(Refusal::NotTheDraft);
        }
        let wall = self.at.wall;
        // A key that was trusted until now.
        let theft = key_set
            .stolen
            .iter()
            .any(|name| !self.fleet.key_set.stolen.contains(name));
        let moved = key_set.fleet_schedule != self.fleet.key_set.fleet_schedule;
        let generation = if moved {
            key_set.fleet_schedule.generation_at(wall)
        } else {
            self.fleet.fleet_generation
        };
        if key_set.keys[0].expires <= wall {
            return Err(Refusal::DraftOutdated);
        }
        let (version, expires) = (key_set.version, key_set.keys[0].expires);
        let mut changes = vec![Change::Keys(Box::new(NewKeys {
            key_set_frame: frame.clone(),
            key_set: key_set.clone(),
            beat: SigningKey::from_seed(drafted.beat.seed().duplicate()),
            keys: SigningKey::from_seed(drafted.keys.seed().duplicate()),
            kem: drafted.kem.as_ref().map(KemSecret::duplicate),
            kem_pq: drafted.kem_pq.as_ref().map(KemSecret::duplicate),
            rsa: drafted.rsa.as_ref().map(RsaSecret::duplicate),
        }))];
        let mut groups = Vec::new();
        if moved {
            changes.push(self.all_at(generation));
        }
        if theft {
            for group in self.groups.values() {
                let (fresh, rekeyed) = self.fresh_epoch(group, wall, rng);
                groups.push(fresh);
                changes.extend(rekeyed);
                let cause = ChangeCause::Theft;
                changes.extend(self.begins_fresh(group, fresh.new, cause, &[]));
            }
        }
        let outcome = install_outcome(key_set, generation, &groups);
        let batch = Batch {
            changes,
            audit: Some(self.audit(by, "sign-keys", "online keys", outcome)),
            journal: Some(JournalEntry::KeySet {
                version,
                generation,
                groups: groups.clone(),
                frame: frame.clone(),
            }),
        };
        let done = Done::KeysInstalled {
            version,
            expires,
            generation,
            groups,
            sign_again: self.signed_in_vain(key_set),
        };
        Ok((batch, done))
    }

    /// Every wrap key at `generation`, without an offset.
    fn all_at(&self, generation: Generation) -> Change {
        let step = |terminal: &TerminalRecord| terminal.wrap.duplicate().renew_to(generation);
        Change::Fleet {
            generation,
            wraps: self.terminals.values().map(step).collect(),
        }
    }

    /// Names that are stolen now, then those that the held KEYSET names: a terminal that missed it
    /// learns of them from the next.
    fn stolen_with(&self, stolen: &[KeyName]) -> Vec<KeyName> {
        let mut names = Vec::new();
        for &name in stolen.iter().chain(&self.fleet.key_set.stolen) {
            if !names.contains(&name) && names.len() < STOLEN_MAX {
                names.push(name);
            }
        }
        names
    }

    /// Where a key was stolen, beyond whatever it could claim, and beyond every offset: with another
    /// schedule terminals forget theirs, and no wrap key goes back.
    fn schedule_after(&self, stolen: &[KeyName]) -> FleetSchedule {
        let held = &self.fleet.key_set;
        // The others move no G, so that their five years are not to be run through.
        let moves_g = |key: &&ListedKey| match key.class {
            SignerClass::Beat | SignerClass::Keys => true,
            SignerClass::Erase | SignerClass::Kem | SignerClass::KemPq | SignerClass::Rsa => false,
        };
        let ends = stolen.iter().filter_map(|&name| held.key(name));
        let ends = ends.filter(moves_g);
        let Some(last) = ends.map(|key| key.expires).max() else {
            return held.fleet_schedule;
        };
        let claimed = held.fleet_schedule.bound(last.max(self.signers_expire()));
        let claimed = claimed.max(self.fleet.fleet_generation);
        FleetSchedule {
            first: claimed.plus(CLAIM_SLACK + OFFSET_MAX),
            from: self.at.wall,
            period: held.fleet_schedule.period,
        }
    }

    /// Whose standing order terminals will not obey under `next`.
    fn signed_in_vain(&self, next: &KeySet) -> Vec<(TerminalNumber, OrderKind)> {
        let erase: Vec<_> = next
            .keys
            .iter()
            .filter(|key| key.class == SignerClass::Erase)
            .map(|key| key.public.name())
            .collect();
        let needed = next.limits.erase_signatures;
        self.terminals
            .values()
            .flat_map(|terminal| {
                self.standing_orders(terminal)
                    .map(move |order| (terminal, order))
            })
            .filter(|(_, order)| !Self::is_still_obeyed(order, &erase, needed))
            .map(|(terminal, order)| (terminal.number, order.kind))
            .collect()
    }
}

/// Lists the RSA key that requests are sealed to: the fresh one, or the one that stays.
fn list_rsa(
    keys: &mut Vec<ListedKey>,
    fresh: Option<Arc<RsaSecret>>,
    held: Option<&RsaSecret>,
    wall: UnixSeconds,
) -> Result<RsaSecret, Refusal> {
    if let Some(fresh) = fresh {
        keys.retain(|key| key.class != SignerClass::Rsa);
        let listing = fresh.public().listing();
        keys.push(listed(listing, SignerClass::Rsa, wall, ROOT_LIFE));
        return Ok(fresh.duplicate());
    }
    let stays = keys.iter().any(|key| key.class == SignerClass::Rsa);
    let held = held.filter(|_| stays).map(RsaSecret::duplicate);
    held.ok_or(Refusal::NoRsaKey)
}

fn listed(public: VerifyingKey, class: SignerClass, from: UnixSeconds, life: u32) -> ListedKey {
    ListedKey {
        public,
        class,
        not_before: from,
        expires: from.plus(life),
        groups: Vec::new(),
    }
}

/// Old online keys stay for frames that are still on their way, as far as there is room.
fn drop_oldest_online(keys: &mut Vec<ListedKey>) {
    while keys.len() > KEYS_MAX {
        let online = |key: &ListedKey| matches!(key.class, SignerClass::Beat | SignerClass::Keys);
        let oldest = (ONLINE..keys.len())
            .filter(|&place| online(&keys[place]))
            .min_by_key(|&place| keys[place].expires);
        match oldest {
            Some(place) => drop(keys.remove(place)),
            None => return,
        }
    }
}

fn install_outcome(key_set: &KeySet, generation: Generation, groups: &[FreshEpoch]) -> String {
    let names: Vec<String> = key_set.stolen.iter().map(ToString::to_string).collect();
    let mut outcome = format!("KEYSET {}", key_set.version);
    if !names.is_empty() {
        outcome += &format!(
            ", stolen {}, G {generation}, fresh epochs for {} groups",
            names.join(" "),
            groups.len()
        );
    }
    outcome
}

/// Seconds that a beat or keys key may live: 30 days (FORMATS section 9).
const ONLINE_LIFE_MAX: u32 = 30 * 86_400;
/// The online keys stand first in a KEYSET that is drafted here.
const ONLINE: usize = 2;
/// What a KEYSET holds.
const KEYS_MAX: usize = 12;
const STOLEN_MAX: usize = 8;
/// Beyond what a stolen key could claim.
const CLAIM_SLACK: u32 = 64;
