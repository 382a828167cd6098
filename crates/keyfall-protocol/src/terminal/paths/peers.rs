//! Who speaks for which address, by signed records, and where each is heard (FORMATS section 8.1).
//!
//! Memory only: the carousel and the peers themselves bring it again.

use core::net::{IpAddr, SocketAddr};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::found::Ends;
use super::rule;
use crate::command::{Prefix, ProtectionRecord, SignedRecord};
use crate::ids::{GroupNumber, KeyName, TerminalNumber, Tick, UnixSeconds};
use crate::stats::DropReason;

/// The records held, and an index of their prefixes.
#[derive(Debug, Default)]
pub(super) struct Peers {
    held: BTreeMap<TerminalNumber, Peer>,
    /// By length, the first address, and who.
    places: BTreeSet<(Reverse<u8>, IpAddr, TerminalNumber)>,
    /// How many prefixes there are of each length.
    lengths: BTreeMap<Reverse<u8>, usize>,
    /// Where they were heard, and who.
    heard_at: BTreeSet<(SocketAddr, TerminalNumber)>,
    /// Where the driver was told that they are, for those with no better word.
    configured: BTreeMap<TerminalNumber, SocketAddr>,
}

/// One terminal as its record tells, and where it was heard.
#[derive(Debug)]
pub(super) struct Peer {
    /// With its frame: who holds an older one of itself gets it.
    signed: SignedRecord,
    /// When its record came last.
    recorded: Tick,
    heard: Option<Heard>,
}

/// Where a packet or an answer of it came from.
#[derive(Clone, Copy, Debug)]
struct Heard {
    endpoint: SocketAddr,
    at: Tick,
    /// When it was last sent to, or heard.
    used: Tick,
}

/// What a record changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Learned {
    /// Nothing but its dates.
    Same,
    /// Ways to that terminal may be others now.
    Changed,
}

impl Peers {
    /// Takes a verified record; of too many the one goes that came longest ago. `superseded`: who signed
    /// the one that is held is listed no more.
    ///
    /// # Errors
    /// [`DropReason::OlderRecord`] where a newer version is held and not superseded.
    pub(super) fn learn(
        &mut self,
        signed: SignedRecord,
        superseded: bool,
        now: Tick,
    ) -> Result<Learned, DropReason> {
        let record = signed.record();
        let number = record.terminal;
        let mut heard = None;
        let mut same = false;
        if let Some(held) = self.held.get(&number) {
            if record.version < held.record().version && !superseded {
                return Err(DropReason::OlderRecord);
            }
            same = says_the_same(held.record(), record);
            heard = held.heard;
            self.unlist(number);
        } else if self.held.len() >= PEERS_MAX {
            let longest_ago = self.held.iter().min_by_key(|(_, peer)| peer.recorded);
            if let Some(&gone) = longest_ago.map(|(number, _)| number) {
                self.forget(gone);
            }
        }
        for prefix in &record.prefixes {
            let length = Reverse(prefix.length());
            if self.places.insert((length, prefix.address(), number)) {
                *self.lengths.entry(length).or_default() += 1;
            }
        }
        let peer = Peer {
            signed,
            recorded: now,
            heard,
        };
        self.held.insert(number, peer);
        Ok(if same {
            Learned::Same
        } else {
            Learned::Changed
        })
    }

    /// Nothing of it is known any more. True where anything was.
    pub(super) fn forget(&mut self, number: TerminalNumber) -> bool {
        self.unlist(number);
        let gone = self.held.remove(&number);
        if let Some(heard) = gone.as_ref().and_then(|peer| peer.heard) {
            self.heard_at.remove(&(heard.endpoint, number));
        }
        gone.is_some()
    }

    pub(super) fn get(&self, number: TerminalNumber, time: UnixSeconds) -> Option<&Peer> {
        self.held.get(&number).filter(|peer| peer.holds(time))
    }

    /// Version and signer of what is held of it.
    pub(super) fn held(&self, number: TerminalNumber) -> Option<(u32, KeyName)> {
        let peer = self.held.get(&number)?;
        Some((peer.record().version, peer.signed.signer()))
    }

    /// What is held of it, whether or not it still counts: older ones are refused for good.
    pub(super) fn newest(&self, number: TerminalNumber) -> Option<&ProtectionRecord> {
        self.held.get(&number).map(Peer::record)
    }

    /// Its record came once more.
    pub(super) fn heard_again(&mut self, number: TerminalNumber, now: Tick) {
        if let Some(peer) = self.held.get_mut(&number) {
            peer.recorded = now;
        }
    }

    /// Whose records one of these keys signed.
    pub(super) fn by(&self, signers: &[KeyName]) -> impl Iterator<Item = TerminalNumber> {
        let signed = move |(_, peer): &(_, &Peer)| signers.contains(&peer.signed.signer());
        self.held.iter().filter(signed).map(|(&number, _)| number)
    }

    /// Who protects that flow, and in which group: of the terminals that speak for the destination and
    /// with which the rule gives a group, the one with the best group; then with the most specific
    /// prefix, the record that was signed later, the lower number.
    ///
    /// SECURITY: by the group first, so that nobody in a lesser one, and no record of strangers, takes
    /// the place of a member of a better one (KR-555).
    pub(super) fn protecting(
        &self,
        own: &ProtectionRecord,
        (source, destination): Ends,
        time: UnixSeconds,
    ) -> Option<(&Peer, GroupNumber)> {
        self.speaking_for(destination, time)
            .filter_map(|(length, peer)| {
                let rank = rule::rank(own, peer.record(), source, destination)?;
                let later = (peer.record().issued_at, Reverse(peer.record().terminal));
                Some(((rank, length, later), peer))
            })
            .max_by_key(|&(place, _)| place)
            .map(|(((.., Reverse(group)), ..), peer)| (peer, group))
    }

    /// Whose records speak for an address, with the length of the prefix that says so.
    pub(super) fn speaking_for(
        &self,
        address: IpAddr,
        time: UnixSeconds,
    ) -> impl Iterator<Item = (u8, &Peer)> {
        let listed = self.lengths.keys().filter_map(move |&length| {
            let first = Prefix::around(address, length.0)?.address();
            let lowest = (length, first, TerminalNumber::new(1)?);
            let highest = (length, first, TerminalNumber::MAX);
            Some(self.places.range(lowest..=highest))
        });
        listed
            .flatten()
            .filter_map(move |&(length, _, number)| Some((length.0, self.get(number, time)?)))
    }

    /// Where to send to that terminal.
    pub(super) fn endpoint(&self, number: TerminalNumber, now: Tick) -> Option<SocketAddr> {
        let peer = self.held.get(&number);
        let heard = peer.and_then(|peer| peer.heard.filter(|heard| heard.counts(now)));
        heard
            .map(|heard| heard.endpoint)
            .or_else(|| self.configured.get(&number).copied())
            .or_else(|| peer.and_then(|peer| peer.record().endpoints.first().copied()))
    }

    /// When the word of [`Self::endpoint`] ends at the latest, where it was heard.
    pub(super) fn endpoint_ends(&self, number: TerminalNumber) -> Option<Tick> {
        let heard = self.held.get(&number)?.heard?;
        Some(heard.at.plus(HARD_LIFE))
    }

    /// Something is about to be sent there.
    pub(super) fn use_endpoint(&mut self, number: TerminalNumber, now: Tick) {
        if let Some(heard) = self.held.get_mut(&number).and_then(|it| it.heard.as_mut())
            && heard.counts(now)
        {
            heard.used = now;
        }
    }

    /// It was heard from there. True where that is another place than before.
    pub(super) fn hear(&mut self, number: TerminalNumber, endpoint: SocketAddr, now: Tick) -> bool {
        let before = self.endpoint(number, now);
        let Some(peer) = self.held.get_mut(&number) else {
            return false;
        };
        let heard = Heard {
            endpoint,
            at: now,
            used: now,
        };
        if let Some(last) = peer.heard.replace(heard) {
            self.heard_at.remove(&(last.endpoint, number));
        }
        self.heard_at.insert((endpoint, number));
        before != Some(endpoint)
    }

    /// Somebody was heard there last, whenever that was.
    pub(super) fn is_heard_at(&self, endpoint: SocketAddr) -> bool {
        let Some(lowest) = TerminalNumber::new(1) else {
            return false;
        };
        let those = (endpoint, lowest)..=(endpoint, TerminalNumber::MAX);
        self.heard_at.range(those).next().is_some()
    }

    /// The driver's configuration says where it is.
    pub(super) fn configure(&mut self, number: TerminalNumber, endpoint: Option<SocketAddr>) {
        match endpoint {
            Some(endpoint) => self.configured.insert(number, endpoint),
            None => self.configured.remove(&number),
        };
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.held.values()
    }

    fn unlist(&mut self, number: TerminalNumber) {
        let Some(peer) = self.held.get(&number) else {
            return;
        };
        for prefix in &peer.record().prefixes {
            let length = Reverse(prefix.length());
            if self.places.remove(&(length, prefix.address(), number))
                && let Some(count) = self.lengths.get_mut(&length)
            {
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&length);
                }
            }
        }
    }
}

impl Peer {
    pub(super) fn record(&self) -> &ProtectionRecord {
        self.signed.record()
    }

    /// As the server signed it.
    pub(super) fn frame(&self) -> &[u8] {
        self.signed.frame()
    }

    fn holds(&self, time: UnixSeconds) -> bool {
        time <= self.record().not_after
    }
}

impl Heard {
    /// idle for 5 min, or 1 h after it was last heard, and it counts no more.
    fn counts(&self, now: Tick) -> bool {
        now < self.at.plus(HARD_LIFE) && now < self.used.plus(IDLE_LIFE)
    }
}

/// Whether two records of one terminal differ in no more than version and dates.
pub(super) fn says_the_same(one: &ProtectionRecord, other: &ProtectionRecord) -> bool {
    (&one.prefixes, &one.endpoints, &one.groups)
        == (&other.prefixes, &other.endpoints, &other.groups)
}

/// Records of others that are held.
const PEERS_MAX: usize = 16_384;
///
pub(super) const IDLE_LIFE: Duration = Duration::from_secs(300);
///
pub(super) const HARD_LIFE: Duration = Duration::from_secs(3600);
