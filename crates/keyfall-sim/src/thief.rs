//! A thief with terminals, everything that was in their memory and on their disks, and every tape.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use keyfall_plane::{Arrival, SrtpReceiver, Stretch};
use keyfall_protocol::command::{Body, KeyDist, KeyDistContents, SealedOrder, Unverified};
use keyfall_protocol::ids::{Generation, GroupNumber, Handle, KeyEpoch, KeyIdKind, TerminalNumber};
use keyfall_protocol::keys::{MasterKey, ObeyKey, SrtpSuite, WrapKey};

use crate::capture::{Captured, CapturedPacket};
use crate::snapshot::{DiskImage, Loot, SnapshotUnreadable};

/// Every key that the thief has or makes of others.
#[derive(Default)]
pub struct Thief {
    obeys: Vec<ObeyKey>,
    wraps: BTreeMap<TerminalNumber, WrapChain>,
    masters: BTreeMap<(GroupNumber, KeyEpoch), Chain>,
    /// Epochs that signed commands named in clear.
    named: BTreeSet<(GroupNumber, KeyEpoch)>,
}

/// What opened: places in the tapes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Opened {
    /// Distributions.
    pub frames: Vec<usize>,
    pub packets: Vec<usize>,
    /// DELETE, INIT, LOCK and UNLOCK: they name their terminal and hold no key.
    pub orders: Vec<usize>,
}

impl Opened {
    /// Whether no key and no traffic opened.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.frames.is_empty() && self.packets.is_empty()
    }
}

impl Thief {
    /// Reads a disk, as far as it is open to the thief.
    ///
    /// # Errors
    /// [`SnapshotUnreadable`].
    pub fn take_disk(&mut self, image: &DiskImage) -> Result<(), SnapshotUnreadable> {
        let loot = Loot::read(image)?;
        let obey = &loot.obey;
        if !self.obeys.iter().any(|held| held.kid() == obey.kid()) {
            self.obeys.push(obey.duplicate());
        }
        // Every 32 octets are worth a try: the obey key as the wrap key of its terminal.
        let guess = WrapKey::new(loot.number, Generation::ZERO, obey.secret().duplicate());
        self.wraps.entry(loot.number).or_default().guesses = vec![guess];
        if let Some(user) = &loot.user {
            self.take_wraps(std::iter::once(&user.wrap));
            self.take_masters(user.masters.iter());
        }
        Ok(())
    }

    /// Takes wrap keys.
    pub fn take_wraps<'k>(&mut self, wraps: impl Iterator<Item = &'k WrapKey>) {
        for wrap in wraps {
            if let Some(number) = wrap.kid().kind().and_then(KeyIdKind::terminal) {
                self.wraps.entry(number).or_default().take(wrap);
            }
        }
    }

    /// Takes master keys.
    pub fn take_masters<'k>(&mut self, masters: impl Iterator<Item = &'k MasterKey>) {
        masters.for_each(|key| self.add_master(key.duplicate()));
    }

    /// All that another thief has.
    pub fn join(&mut self, other: &Self) {
        self.obeys
            .extend(other.obeys.iter().map(ObeyKey::duplicate));
        for (&number, chain) in &other.wraps {
            let own = self.wraps.entry(number).or_default();
            own.guesses
                .extend(chain.guesses.iter().map(WrapKey::duplicate));
            if let Some(oldest) = chain.keys.first() {
                own.take(&oldest.0);
            }
        }
        self.take_masters(other.masters.values().map(|chain| &chain.keys[0]));
        self.named.extend(&other.named);
    }

    /// Plays every distribution to the running machine and notes which it opens: a second opinion
    /// on [`Self::take_wraps`]. `plays` says whether a frame came to anything but "not addressed".
    pub fn play_to(frames: &[Captured], mut plays: impl FnMut(&Captured) -> bool) -> Vec<usize> {
        let opened = |(place, frame): (usize, &Captured)| {
            let read = Unverified::decode(&frame.octets).ok()?;
            let distribution = matches!(read.command().body, Body::KeyDist(_));
            (distribution && plays(frame)).then_some(place)
        };
        frames.iter().enumerate().filter_map(opened).collect()
    }

    /// Opens what can be opened: distributions with every wrap key, all that follow from it and all
    /// own offsets; then packets with every master key and all that follow from it. What commands
    /// say in clear of epochs and generations is used.
    pub fn open(&mut self, frames: &[Captured], packets: &[CapturedPacket]) -> Opened {
        let mut opened = Opened::default();
        let mut judged: HashMap<&[u8], Find> = HashMap::new();
        for (place, frame) in frames.iter().enumerate() {
            let find = match judged.get(&*frame.octets) {
                Some(&find) => find,
                None => {
                    let find = self.read(&frame.octets);
                    judged.insert(&frame.octets, find);
                    find
                }
            };
            match find {
                Find::Keys => opened.frames.push(place),
                Find::Order => opened.orders.push(place),
                Find::Nothing => {}
            }
        }
        opened.packets = (0..packets.len())
            .filter(|&place| self.opens(&packets[place]))
            .collect();
        opened
    }

    /// The oldest key of that group and epoch that the thief has.
    #[must_use]
    pub fn oldest(&self, group: GroupNumber, epoch: KeyEpoch) -> Option<Generation> {
        let chain = self.masters.get(&(group, epoch))?;
        Some(chain.keys[0].generation())
    }

    fn read(&mut self, octets: &[u8]) -> Find {
        let Ok(frame) = Unverified::decode(octets) else {
            return Find::Nothing;
        };
        let command = frame.command();
        match &command.body {
            Body::KeyDist(key_dist) => {
                if let Some(contents) = self.open_distribution(key_dist, command.fleet_generation) {
                    self.add_master(contents.key);
                    return Find::Keys;
                }
                if self.opens_somehow(key_dist, command.fleet_generation) {
                    return Find::Keys;
                }
            }
            Body::Order(order) => return self.open_order(order),
            Body::Exclude(exclude) => {
                let fresh = exclude.groups.iter();
                self.named.extend(fresh.map(|it| (it.group, it.new)));
            }
            Body::Renew(renew) => {
                let keys = renew.entries.iter().map(|it| (it.kid.kind(), it.epoch));
                self.named.extend(keys.filter_map(named));
            }
            Body::Time(time) => {
                let keys = time.floors.iter().map(|it| (it.kid.kind(), it.epoch));
                self.named.extend(keys.filter_map(named));
            }
            // The simulator's server sends none of these yet.
            Body::KeySet(_) | Body::Stop(_) | Body::Start(_) | Body::Notify(_) => {}
        }
        Find::Nothing
    }

    fn open_order(&self, order: &SealedOrder) -> Find {
        match self.obeys.iter().any(|obey| order.open(obey).is_some()) {
            true => Find::Order,
            false => Find::Nothing,
        }
    }

    fn open_distribution(&mut self, key_dist: &KeyDist, g: Generation) -> Option<KeyDistContents> {
        for chain in self.wraps.values_mut() {
            for offset in 0..=OFFSETS {
                let generation = g.plus(offset);
                if let Some((wrap, handle)) = chain.at(generation)
                    && key_dist.recipients().iter().any(|it| it.handle == *handle)
                    && let Some(contents) = key_dist.open(wrap)
                {
                    return Some(contents);
                }
            }
        }
        None
    }

    /// The handle is only a label: whether a key opens that is not named.
    fn opens_somehow(&mut self, key_dist: &KeyDist, g: Generation) -> bool {
        let opens = |wrap: &WrapKey| key_dist.open_any(wrap).is_some();
        self.wraps.values_mut().any(|chain| {
            chain.guesses.iter().any(opens)
                || chain.keys.first().is_some_and(|(wrap, _)| opens(wrap))
                || chain.at(g).is_some_and(|(wrap, _)| opens(wrap))
        })
    }

    /// With the key that the packet's tag names, with the one of its generation in every epoch, and
    /// with keys of an older epoch under the name of one that was announced.
    fn opens(&mut self, packet: &CapturedPacket) -> bool {
        let group = packet.group;
        let of_group = (group, KeyEpoch::new(0))..=(group, KeyEpoch::new(u32::MAX));
        let known = self.masters.contains_key(&(group, packet.epoch));
        let mut older = None;
        for (_, chain) in self.masters.range_mut(of_group) {
            let key = chain.at(packet.generation);
            if opens(key, packet) || opens(&chain.keys[0], packet) {
                return true;
            }
            if chain.keys[0].epoch() < packet.epoch {
                older = Some(chain);
            }
        }
        let Some(older) = older.filter(|_| !known && self.named.contains(&(group, packet.epoch)))
        else {
            return false;
        };
        let (first, last) = (&older.keys[0], &older.keys[older.keys.len() - 1]);
        [first, last].into_iter().any(|key| {
            let renamed = |generation| {
                MasterKey::new(group, packet.epoch, generation, key.secret().duplicate())
            };
            let fresh = renamed(Generation::ZERO).renew_to(packet.generation);
            opens(&fresh, packet) || opens(&renamed(packet.generation), packet)
        })
    }

    /// Keeps the oldest of each epoch: the later ones follow.
    fn add_master(&mut self, key: MasterKey) {
        let chain = self.masters.entry((key.group(), key.epoch())).or_default();
        let first = chain.keys.first().map(MasterKey::generation);
        if first.is_none_or(|first| key.generation() < first) {
            chain.keys = vec![key];
        }
    }
}

/// What a frame gave away.
#[derive(Clone, Copy)]
enum Find {
    Nothing,
    Keys,
    Order,
}

/// A master key and what follows from it, as far as it was needed.
#[derive(Default)]
struct Chain {
    keys: Vec<MasterKey>,
}

impl Chain {
    /// The key of that generation; the first where that is newer.
    fn at(&mut self, generation: Generation) -> &MasterKey {
        let steps = generation.steps_from(self.keys[0].generation()) as usize;
        while self.keys.len() <= steps {
            let next = self.keys[self.keys.len() - 1].duplicate().renew();
            self.keys.push(next);
        }
        &self.keys[steps]
    }
}

/// A wrap key and what follows from it, with their handles.
#[derive(Default)]
struct WrapChain {
    keys: Vec<(WrapKey, Handle)>,
    /// Tried as they are.
    guesses: Vec<WrapKey>,
}

impl WrapChain {
    /// Keeps the oldest: the later ones follow.
    fn take(&mut self, wrap: &WrapKey) {
        let first = self.keys.first().map(|(held, _)| held.generation());
        if first.is_none_or(|first| wrap.generation() < first) {
            self.keys = vec![(wrap.duplicate(), wrap.handle())];
        }
    }

    /// The key of that generation; `None` where it is older than all.
    fn at(&mut self, generation: Generation) -> Option<&(WrapKey, Handle)> {
        let first = self.keys.first()?.0.generation();
        if generation < first {
            return None;
        }
        let steps = generation.steps_from(first) as usize;
        while self.keys.len() <= steps {
            let next = self.keys[self.keys.len() - 1].0.duplicate().renew();
            let handle = next.handle();
            self.keys.push((next, handle));
        }
        self.keys.get(steps)
    }
}

fn named((kind, epoch): (Option<KeyIdKind>, KeyEpoch)) -> Option<(GroupNumber, KeyEpoch)> {
    match kind {
        Some(KeyIdKind::Master(group)) => Some((group, epoch)),
        Some(
            KeyIdKind::AllRankOne | KeyIdKind::Obey(_) | KeyIdKind::Wrap(_) | KeyIdKind::Cover(_),
        )
        | None => None,
    }
}

fn opens(key: &MasterKey, packet: &CapturedPacket) -> bool {
    let Ok(arrival) = Arrival::of_srtp(SUITE, &packet.octets) else {
        return false;
    };
    SrtpReceiver::new(arrival.stream(SUITE), Stretch::default())
        .try_rtp(key, &packet.octets, &mut Vec::new())
        .is_ok()
}

const SUITE: SrtpSuite = SrtpSuite::AeadAes256Gcm;
/// A terminal's own wrap key is ahead of the fleet's by at most so much.
const OFFSETS: u32 = 64;
