//! A line of the journal as JSON. It has its own types, so that the file's format does not move with
//! the core.

use core::str::FromStr;

use keyfall_protocol::command::{FreshEpoch, OrderKind};
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, SequenceNumber, TerminalNumber};
use keyfall_protocol::keys::EspSuite;
use keyfall_protocol::server::{Addresses, ChangeMode, GroupPolicy, PacketSettings, Stragglers};
use keyfall_protocol::sharing::rsa_misty1::RsaPublic;
use serde::{Deserialize, Serialize};

use crate::journal::Entry;

/// A line without its hash.
#[derive(Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) seq: u64,
    /// Unix seconds.
    pub(super) time: u32,
    #[serde(flatten)]
    pub(super) order: Order,
}

/// An entry: numbers that nobody has judged yet.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Order {
    Enrolment {
        terminal: u32,
        name: String,
    },
    Epoch {
        group: u32,
        epoch: u32,
        name: String,
    },
    Member {
        group: u32,
        terminal: u32,
        epoch: u32,
        generation: u32,
    },
    Removal {
        group: u32,
        terminals: Vec<u32>,
        epoch: u32,
    },
    Renewal {
        group: u32,
        epoch: u32,
        generation: u32,
    },
    Policy {
        group: u32,
        change: String,
        stragglers: String,
        legacy: bool,
    },
    LegacyKey {
        terminal: u32,
        /// SubjectPublicKeyInfo, hexadecimal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    Packets {
        group: u32,
        /// Absent: it is no packet group.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        packets: Option<Packets>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<u32>,
    },
    Addresses {
        terminal: u32,
        /// "ADDRESS/LENGTH".
        prefixes: Vec<String>,
        /// "ADDRESS:PORT".
        endpoints: Vec<String>,
    },
    Sequence {
        through: u64,
    },
    RankOne {
        g: u32,
    },
    Device {
        terminal: u32,
        generation: u32,
        offset: u32,
    },
    Exclusion {
        terminals: Vec<u32>,
        groups: Vec<Fresh>,
    },
    Erase {
        terminal: u32,
        order: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u32>,
    },
    KeySet {
        version: u32,
        g: u32,
        groups: Vec<Fresh>,
        /// Hexadecimal.
        frame: String,
    },
    Restored {
        g: u32,
        keys: Vec<At>,
        incomplete: bool,
    },
}

/// What makes a group a packet group.
#[derive(Serialize, Deserialize)]
pub(super) struct Packets {
    priority: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    suite: u8,
    networks: Vec<String>,
}

/// What a group's key is at: group, epoch, generation.
#[derive(Serialize, Deserialize)]
pub(super) struct At(u32, u32, u32);

/// A group that left an epoch behind: group, old epoch, new epoch.
#[derive(Serialize, Deserialize)]
pub(super) struct Fresh(u32, u32, u32);

/// A number or a word that does not exist.
pub(super) struct OutOfRange;

impl From<&Entry> for Order {
    fn from(entry: &Entry) -> Self {
        match entry {
            Entry::Enrolment { terminal, name } => Self::Enrolment {
                terminal: terminal.get(),
                name: name.clone(),
            },
            Entry::Epoch { group, epoch, name } => Self::Epoch {
                group: group.get(),
                epoch: epoch.get(),
                name: name.clone(),
            },
            Entry::Member {
                group,
                terminal,
                epoch,
                generation,
            } => Self::Member {
                group: group.get(),
                terminal: terminal.get(),
                epoch: epoch.get(),
                generation: generation.get(),
            },
            Entry::Removal {
                group,
                terminals,
                epoch,
            } => Self::Removal {
                group: group.get(),
                terminals: numbers(terminals),
                epoch: epoch.get(),
            },
            Entry::Renewal {
                group,
                epoch,
                generation,
            } => Self::Renewal {
                group: group.get(),
                epoch: epoch.get(),
                generation: generation.get(),
            },
            Entry::Policy { group, policy } => Self::Policy {
                group: group.get(),
                change: policy.change.name().to_owned(),
                stragglers: policy.stragglers.name().to_owned(),
                legacy: policy.legacy,
            },
            Entry::LegacyKey { terminal, key } => Self::LegacyKey {
                terminal: terminal.get(),
                key: key.as_ref().map(|key| hex(key.as_spki())),
            },
            Entry::Packets {
                group,
                packets,
                epoch,
            } => Self::Packets {
                group: group.get(),
                packets: packets.as_ref().map(|it| Packets {
                    priority: it.priority,
                    mtu: it.mtu,
                    suite: it.suite.number(),
                    networks: texts(&it.networks),
                }),
                epoch: epoch.map(KeyEpoch::get),
            },
            Entry::Addresses {
                terminal,
                addresses,
            } => Self::Addresses {
                terminal: terminal.get(),
                prefixes: texts(&addresses.prefixes),
                endpoints: texts(&addresses.endpoints),
            },
            Entry::Sequence { through } => Self::Sequence {
                through: through.get(),
            },
            Entry::RankOne { g } => Self::RankOne { g: g.get() },
            Entry::Device {
                terminal,
                generation,
                offset,
            } => Self::Device {
                terminal: terminal.get(),
                generation: generation.get(),
                offset: *offset,
            },
            Entry::Exclusion { terminals, groups } => Self::Exclusion {
                terminals: numbers(terminals),
                groups: groups.iter().map(Fresh::from).collect(),
            },
            Entry::Erase {
                terminal,
                kind,
                version,
            } => Self::Erase {
                terminal: terminal.get(),
                order: kind.name().to_owned(),
                version: *version,
            },
            Entry::KeySet {
                version,
                g,
                groups,
                frame,
            } => Self::KeySet {
                version: *version,
                g: g.get(),
                groups: groups.iter().map(Fresh::from).collect(),
                frame: hex(frame),
            },
            Entry::Restored {
                g,
                keys,
                incomplete,
            } => Self::Restored {
                g: g.get(),
                keys: keys
                    .iter()
                    .map(|(group, epoch, at)| At(group.get(), epoch.get(), at.get()))
                    .collect(),
                incomplete: *incomplete,
            },
        }
    }
}

impl TryFrom<Order> for Entry {
    type Error = OutOfRange;

    fn try_from(order: Order) -> Result<Self, OutOfRange> {
        Ok(match order {
            Order::Enrolment { terminal, name } => Self::Enrolment {
                terminal: number(terminal)?,
                name,
            },
            Order::Epoch {
                group: of,
                epoch,
                name,
            } => Self::Epoch {
                group: group(of)?,
                epoch: KeyEpoch::new(epoch),
                name,
            },
            Order::Member {
                group: of,
                terminal,
                epoch,
                generation: at,
            } => Self::Member {
                group: group(of)?,
                terminal: number(terminal)?,
                epoch: KeyEpoch::new(epoch),
                generation: generation(at)?,
            },
            Order::Removal {
                group: of,
                terminals,
                epoch,
            } => Self::Removal {
                group: group(of)?,
                terminals: terminals
                    .into_iter()
                    .map(number)
                    .collect::<Result<_, _>>()?,
                epoch: KeyEpoch::new(epoch),
            },
            Order::Renewal {
                group: of,
                epoch,
                generation: at,
            } => Self::Renewal {
                group: group(of)?,
                epoch: KeyEpoch::new(epoch),
                generation: generation(at)?,
            },
            Order::Policy {
                group: of,
                change,
                stragglers,
                legacy,
            } => Self::Policy {
                group: group(of)?,
                policy: GroupPolicy {
                    change: ChangeMode::named(&change).ok_or(OutOfRange)?,
                    stragglers: Stragglers::named(&stragglers).ok_or(OutOfRange)?,
                    legacy,
                },
            },
            Order::LegacyKey { terminal, key } => Self::LegacyKey {
                terminal: number(terminal)?,
                key: key.as_deref().map(rsa_key).transpose()?,
            },
            Order::Packets {
                group: of,
                packets,
                epoch,
            } => Self::Packets {
                group: group(of)?,
                packets: packets
                    .map(|it| {
                        Ok(PacketSettings {
                            priority: it.priority,
                            mtu: it.mtu,
                            suite: EspSuite::from_number(it.suite).ok_or(OutOfRange)?,
                            networks: read(&it.networks)?,
                        })
                    })
                    .transpose()?,
                epoch: epoch.map(KeyEpoch::new),
            },
            Order::Addresses {
                terminal,
                prefixes,
                endpoints,
            } => Self::Addresses {
                terminal: number(terminal)?,
                addresses: Addresses {
                    prefixes: read(&prefixes)?,
                    endpoints: read(&endpoints)?,
                },
            },
            Order::Sequence { through } => Self::Sequence {
                through: SequenceNumber::new(through),
            },
            Order::RankOne { g } => Self::RankOne { g: generation(g)? },
            Order::Device {
                terminal,
                generation: at,
                offset,
            } => Self::Device {
                terminal: number(terminal)?,
                generation: generation(at)?,
                offset,
            },
            Order::Exclusion { terminals, groups } => Self::Exclusion {
                terminals: terminals
                    .into_iter()
                    .map(number)
                    .collect::<Result<_, _>>()?,
                groups: epochs(groups)?,
            },
            Order::Erase {
                terminal,
                order,
                version,
            } => Self::Erase {
                terminal: number(terminal)?,
                kind: OrderKind::ALL
                    .into_iter()
                    .find(|kind| kind.name() == order)
                    .ok_or(OutOfRange)?,
                version,
            },
            Order::KeySet {
                version,
                g,
                groups,
                frame,
            } => Self::KeySet {
                version,
                g: generation(g)?,
                groups: epochs(groups)?,
                frame: octets(&frame)?,
            },
            Order::Restored {
                g,
                keys,
                incomplete,
            } => Self::Restored {
                g: generation(g)?,
                keys: keys
                    .into_iter()
                    .map(|At(of, epoch, at)| {
                        Ok((group(of)?, KeyEpoch::new(epoch), generation(at)?))
                    })
                    .collect::<Result<_, _>>()?,
                incomplete,
            },
        })
    }
}

impl From<&FreshEpoch> for Fresh {
    fn from(fresh: &FreshEpoch) -> Self {
        Self(fresh.group.get(), fresh.old.get(), fresh.new.get())
    }
}

fn epochs(groups: Vec<Fresh>) -> Result<Vec<FreshEpoch>, OutOfRange> {
    let fresh = |Fresh(of, old, new)| {
        Ok(FreshEpoch {
            group: group(of)?,
            old: KeyEpoch::new(old),
            new: KeyEpoch::new(new),
        })
    };
    groups.into_iter().map(fresh).collect()
}

fn numbers(terminals: &[TerminalNumber]) -> Vec<u32> {
    terminals.iter().map(|terminal| terminal.get()).collect()
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn read<T: FromStr>(texts: &[String]) -> Result<Vec<T>, OutOfRange> {
    let read = |text: &String| text.parse().map_err(|_| OutOfRange);
    texts.iter().map(read).collect()
}

fn number(terminal: u32) -> Result<TerminalNumber, OutOfRange> {
    TerminalNumber::new(terminal).ok_or(OutOfRange)
}

fn group(number: u32) -> Result<GroupNumber, OutOfRange> {
    GroupNumber::new(number).ok_or(OutOfRange)
}

fn octets(text: &str) -> Result<Vec<u8>, OutOfRange> {
    let octet = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).map_err(|_| OutOfRange)?;
        u8::from_str_radix(pair, 16).map_err(|_| OutOfRange)
    };
    text.as_bytes().chunks(2).map(octet).collect()
}

fn rsa_key(text: &str) -> Result<RsaPublic, OutOfRange> {
    RsaPublic::from_spki(&octets(text)?).ok_or(OutOfRange)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn generation(number: u32) -> Result<Generation, OutOfRange> {
    Generation::new(number).ok_or(OutOfRange)
}
