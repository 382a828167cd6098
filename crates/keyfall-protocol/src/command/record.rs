//! RECORD: for which addresses a terminal speaks and in which groups, signed by the keys class
//! (REQUIREMENTS; FORMATS section 8.1).
//!
//! A frame like a command's, COSE_Sign1 with external_aad "KF1/rec", whose payload is an array
//! where a command's is a map. One frame serves on the carousel, from the desk and between peers.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::str::FromStr;

use thiserror::Error;

use crate::command::codec::{self, Reader, Writer, Written};
use crate::command::envelope::SignedOctets;
use crate::command::{SigningKey, VerifyingKey};
use crate::error::DecodeError;
use crate::ids::{GroupNumber, KeyName, TerminalNumber, UnixSeconds};
use crate::keys::EspSuite;

/// What the server states of one terminal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProtectionRecord {
    pub terminal: TerminalNumber,
    /// Rises with every change and every new signing.
    pub version: u32,
    pub issued_at: UnixSeconds,
    pub not_after: UnixSeconds,
    /// The terminal's own addresses, rising: up to [`PREFIXES_MAX`]. None: it speaks for nothing any
    /// more.
    pub prefixes: Vec<Prefix>,
    /// Where it is heard, the best first; up to [`ENDPOINTS_MAX`], none twice. May be empty.
    pub endpoints: Vec<SocketAddr>,
    /// Its packet groups, rising by number, up to [`RECORD_GROUPS_MAX`]. May be empty.
    pub groups: Vec<RecordGroup>,
}

/// A packet group as a record names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordGroup {
    pub group: GroupNumber,
    /// Of several common groups the highest protects.
    pub priority: u8,
    /// Octets of the longest inner packet, [`MTU_MIN`] to [`MTU_MAX`]; `None`: as the path has it.
    pub mtu: Option<u16>,
    /// How its packets are protected.
    pub suite: EspSuite,
    /// What is routed into the group, rising: up to [`NETWORKS_MAX`]. Empty: every destination.
    pub networks: Vec<Prefix>,
}

/// Addresses of one family with their first `length` bits alike; the other bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why that is no prefix.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PrefixFault {
    #[error("{0:?} is not a prefix; write ADDRESS/LENGTH, like 10.77.0.0/16 or fd77::/64")]
    NotOne(String),
    #[error("{given} has bits set behind its length; the prefix is {meant}")]
    HostBits { given: String, meant: Prefix },
}

impl Prefix {
    /// `None` where `length` is too long for the family or bits behind it are set.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let prefix = Self::around(address, length)?;
        (prefix.address == address).then_some(prefix)
    }

    /// The prefix of `length` bits that holds `address`; `None` where that is too long.
    #[must_use]
    pub fn around(address: IpAddr, length: u8) -> Option<Self> {
        (length <= bits(address)).then(|| Self {
            address: masked(address, length),
            length,
        })
    }

    /// One address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self {
            address,
            length: bits(address),
        }
    }

    /// Its first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    #[must_use]
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// It is one address.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.length == bits(self.address)
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.length) == self.address
    }

    /// Some address lies in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    pub(crate) fn write(&self, e: &mut Writer<'_>) -> Written {
        e.array(2)?;
        write_address(self.address, e)?;
        e.u8(self.length)?;
        Ok(())
    }

    pub(crate) fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, DecodeError> {
        r.array(what, 2)?;
        let address = read_address(r, what)?;
        u8::try_from(r.uint(what)?)
            .ok()
            .and_then(|length| Self::new(address, length))
            .ok_or(DecodeError::OutOfRange { what })
    }
}

impl FromStr for Prefix {
    type Err = PrefixFault;

    /// "10.77.0.0/16", or an address alone.
    fn from_str(text: &str) -> Result<Self, PrefixFault> {
        let fault = || PrefixFault::NotOne(text.to_owned());
        let Some((address, length)) = text.split_once('/') else {
            return text.parse().map(Self::host).map_err(|_| fault());
        };
        let address: IpAddr = address.parse().map_err(|_| fault())?;
        let digits = !length.is_empty() && length.bytes().all(|digit| digit.is_ascii_digit());
        let length = length.parse().ok().filter(|_| digits).ok_or_else(fault)?;
        let meant = Self::around(address, length).ok_or_else(fault)?;
        if meant.address == address {
            Ok(meant)
        } else {
            let given = text.to_owned();
            Err(PrefixFault::HostBits { given, meant })
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}

impl ProtectionRecord {
    /// `address` is one of the terminal's own.
    #[must_use]
    pub fn speaks_for(&self, address: IpAddr) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(address))
    }

    #[must_use]
    pub fn group(&self, group: GroupNumber) -> Option<&RecordGroup> {
        let place = self.groups.binary_search_by_key(&group, |it| it.group);
        place.ok().map(|place| &self.groups[place])
    }

    /// The payload of the frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(|e| self.write(e))
    }

    /// Octets of its frame.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        SignedOctets::frame_len(self.encode().len())
    }

    /// Signs it: what this machine signed it need not verify.
    #[must_use]
    pub fn signed_by(self, key: &SigningKey) -> SignedRecord {
        SignedRecord {
            frame: key.sign_octets(EXTERNAL_AAD, &self.encode()),
            signer: key.public().name(),
            record: self,
        }
    }

    fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let record = Self::read(&mut r)?;
        r.end()?;
        codec::deterministic(payload, &record.encode())?;
        Ok(record)
    }

    fn write(&self, e: &mut Writer<'_>) -> Written {
        e.array(FIELDS)?.u32(self.terminal.get())?;
        e.u32(self.version)?.u32(self.issued_at.get())?;
        e.u32(self.not_after.get())?;
        write_prefixes(&self.prefixes, e)?;
        e.array(self.endpoints.len() as u64)?;
        for endpoint in &self.endpoints {
            e.array(2)?;
            write_address(endpoint.ip(), e)?;
            e.u16(endpoint.port())?;
        }
        e.array(self.groups.len() as u64)?;
        for group in &self.groups {
            e.array(5)?.u32(group.group.get())?.u8(group.priority)?;
            match group.mtu {
                Some(mtu) => e.u16(mtu)?,
                None => e.null()?,
            };
            e.u8(group.suite.number())?;
            write_prefixes(&group.networks, e)?;
        }
        Ok(())
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.array("RECORD", FIELDS)?;
        let terminal = r.terminal()?;
        let version = r.uint32("version")?;
        let issued_at = r.time("issued-at")?;
        let not_after = r.time("not-after")?;
        let prefixes = read_prefixes(r, "prefixes", PREFIXES_MAX)?;
        let mut endpoints = Vec::new();
        for _ in 0..r.array_between("endpoints", 0, ENDPOINTS_MAX as u64)? {
            let endpoint = read_endpoint(r)?;
            if endpoints.contains(&endpoint) {
                return Err(DecodeError::OutOfRange { what: "endpoints" });
            }
            endpoints.push(endpoint);
        }
        let mut groups: Vec<RecordGroup> = Vec::new();
        for _ in 0..r.array_between("groups", 0, RECORD_GROUPS_MAX as u64)? {
            let group = RecordGroup::read(r)?;
            if groups.last().is_some_and(|last| group.group <= last.group) {
                return Err(DecodeError::OutOfRange { what: "groups" });
            }
            groups.push(group);
        }
        Ok(Self {
            terminal,
            version,
            issued_at,
            not_after,
            prefixes,
            endpoints,
            groups,
        })
    }
}

impl RecordGroup {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.array("packet group", 5)?;
        let group = r.group()?;
        let priority = u8::try_from(r.uint("priority")?)
            .map_err(|_| DecodeError::OutOfRange { what: "priority" })?;
        let mtu = r.nullable("MTU", |r| {
            u16::try_from(r.uint("MTU")?)
                .ok()
                .filter(|mtu| (MTU_MIN..=MTU_MAX).contains(mtu))
                .ok_or(DecodeError::OutOfRange { what: "MTU" })
        })?;
        let suite = u8::try_from(r.uint("suite")?).ok();
        let suite = suite.and_then(EspSuite::from_number);
        Ok(Self {
            group,
            priority,
            mtu,
            suite: suite.ok_or(DecodeError::OutOfRange { what: "suite" })?,
            networks: read_prefixes(r, "networks", NETWORKS_MAX)?,
        })
    }
}

/// A record that was read but whose signature nobody has checked.
#[derive(Debug)]
pub struct UnverifiedRecord<'b> {
    frame: &'b [u8],
    signed: SignedOctets<'b>,
    record: ProtectionRecord,
}

impl<'b> UnverifiedRecord<'b> {
    /// Reads a frame strictly.
    ///
    /// # Errors
    /// [`DecodeError`] where the octets are not exactly one deterministic signed record.
    pub fn decode(frame: &'b [u8]) -> Result<Self, DecodeError> {
        if frame.len() > RECORD_MAX {
            return Err(DecodeError::TooLong {
                len: frame.len(),
                max: RECORD_MAX,
            });
        }
        let signed = SignedOctets::decode(frame)?;
        let record = ProtectionRecord::decode(signed.claimed())?;
        Ok(Self {
            frame,
            signed,
            record,
        })
    }

    /// Who claims to have signed.
    #[must_use]
    pub fn signer(&self) -> KeyName {
        self.signed.signer()
    }

    /// What it claims. Look, do not apply.
    #[must_use]
    pub fn record(&self) -> &ProtectionRecord {
        &self.record
    }

    /// With [`ProtectionRecord::signed_by`] the only way to a [`SignedRecord`].
    #[must_use]
    pub fn verify(self, key: &VerifyingKey) -> Option<SignedRecord> {
        let signer = self.signed.signer();
        self.signed.verify(EXTERNAL_AAD, key)?;
        Some(SignedRecord {
            frame: self.frame.to_vec(),
            signer,
            record: self.record,
        })
    }
}

/// A record whose signature was checked, and its frame, which convinces others in turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedRecord {
    frame: Vec<u8>,
    signer: KeyName,
    record: ProtectionRecord,
}

impl SignedRecord {
    /// One that was checked before it was stored, where nobody else writes.
    pub(crate) fn stored(frame: &[u8]) -> Result<Self, DecodeError> {
        let read = UnverifiedRecord::decode(frame)?;
        Ok(Self {
            frame: frame.to_vec(),
            signer: read.signer(),
            record: read.record,
        })
    }

    #[must_use]
    pub fn record(&self) -> &ProtectionRecord {
        &self.record
    }

    #[must_use]
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    #[must_use]
    pub fn signer(&self) -> KeyName {
        self.signer
    }
}

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// `address` with zeros behind its first `length` bits.
fn masked(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length));
            Ipv4Addr::from_bits(address.to_bits() & mask.unwrap_or(0)).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length));
            Ipv6Addr::from_bits(address.to_bits() & mask.unwrap_or(0)).into()
        }
    }
}

pub(crate) fn write_address(address: IpAddr, e: &mut Writer<'_>) -> Written {
    match address {
        IpAddr::V4(address) => e.bytes(&address.octets())?,
        IpAddr::V6(address) => e.bytes(&address.octets())?,
    };
    Ok(())
}

pub(crate) fn read_address(r: &mut Reader<'_>, what: &'static str) -> Result<IpAddr, DecodeError> {
    let octets = r.bytes(what)?;
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Ok(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(octets)
        .map(IpAddr::from)
        .map_err(|_| DecodeError::OutOfRange { what })
}

fn read_endpoint(r: &mut Reader<'_>) -> Result<SocketAddr, DecodeError> {
    r.array("endpoint", 2)?;
    let address = read_address(r, "endpoint")?;
    u16::try_from(r.uint("port")?)
        .ok()
        .filter(|&port| port != 0)
        .map(|port| SocketAddr::new(address, port))
        .ok_or(DecodeError::OutOfRange { what: "port" })
}

fn write_prefixes(prefixes: &[Prefix], e: &mut Writer<'_>) -> Written {
    e.array(prefixes.len() as u64)?;
    prefixes.iter().try_for_each(|prefix| prefix.write(e))
}

/// Rising, so that one set of prefixes has one encoding.
fn read_prefixes(
    r: &mut Reader<'_>,
    what: &'static str,
    max: usize,
) -> Result<Vec<Prefix>, DecodeError> {
    let mut prefixes: Vec<Prefix> = Vec::new();
    for _ in 0..r.array_between(what, 0, max as u64)? {
        let prefix = Prefix::read(r, what)?;
        if prefixes.last().is_some_and(|last| prefix <= *last) {
            return Err(DecodeError::OutOfRange { what });
        }
        prefixes.push(prefix);
    }
    Ok(prefixes)
}

/// The longest frame of a record, in octets: it fits in a probe beside the handles.
pub const RECORD_MAX: usize = 700;
/// Seconds that a record counts at the most: without a server nothing stops, and a group's epoch lives
/// as long.
pub const RECORD_LIFE: u32 = 7 * 86_400;
/// Prefixes of one terminal.
pub const PREFIXES_MAX: usize = 8;
/// Endpoints of one terminal.
pub const ENDPOINTS_MAX: usize = 4;
/// Packet groups in one record.
pub const RECORD_GROUPS_MAX: usize = 16;
/// Networks of one packet group.
pub const NETWORKS_MAX: usize = 8;
/// RFC 791: what every host takes.
pub const MTU_MIN: u16 = 576;
pub const MTU_MAX: u16 = 9216;
const FIELDS: u64 = 7;
const EXTERNAL_AAD: &[u8] = b"KF1/rec";

#[cfg(test)]
mod tests;
