//! What a terminal keeps through a power cut, as one deterministic CBOR value. The driver seals it
//! (FORMATS section 9); nothing here is ever sent.

use std::collections::BTreeMap;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::command::codec::{self, Reader, Writer, Written};
use crate::enrolment::{Identity, PackageError, secret};
use crate::error::DecodeError;
use crate::ids::{GroupNumber, SessionId, TerminalNumber, Tick};
use crate::keys::{MasterKey, ObeyKey, Ring, WrapKey};
use crate::schedule::{Cadence, Schedule};
use crate::terminal::Terminal;
use crate::terminal::group::{Group, Mark};
use crate::trusted_time::TrustedTime;

/// Why stored state cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SnapshotError {
    #[error("the stored state was written by another version ({0}); this one reads {VERSION}")]
    Version(u64),
    #[error("the stored state is damaged: {0}")]
    Malformed(#[from] DecodeError),
    #[error("the stored state is damaged: {0}")]
    KeySet(#[from] PackageError),
}

impl Terminal {
    /// The terminal that wrote `snapshot`, switched on at `now`.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing is guessed.
    pub fn restore(snapshot: &[u8], now: Tick) -> Result<Self, SnapshotError> {
        let mut r = Reader::new(snapshot);
        r.array("snapshot", 7)?;
        let version = r.uint("version")?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let identity = Identity::read(&mut r)?;
        let key_set = identity.key_set()?;
        let obey = ObeyKey::new(identity.number, secret(&mut r, "obey key")?);
        let wrap = secret(&mut r, "wrap key")?;
        let wrap = WrapKey::new(identity.number, r.generation()?, wrap);
        let mark = r.time("time mark")?.max(key_set.issued_at);
        let mut groups = BTreeMap::new();
        for _ in 0..r.array_between("groups", 0, GROUPS_MAX)? {
            let (number, group) = read_group(&mut r)?;
            groups.insert(number, group);
        }
        r.end()?;
        let time = TrustedTime::new(mark);
        Ok(Self::assemble(
            identity,
            key_set,
            obey,
            Ring::new(wrap),
            groups,
            time,
            now,
        ))
    }

    /// All that has to survive.
    pub(super) fn snapshot(&self) -> Zeroizing<Vec<u8>> {
        // INVARIANT 10: large enough from the start, so that no copy is left in freed memory.
        let per_group = |group: &Group| 160 + 8 * group.sessions.len() + 40 * group.marks.len();
        let groups: usize = self.groups.values().map(per_group).sum();
        let mut octets = Zeroizing::new(Vec::with_capacity(IDENTITY_MAX + groups));
        codec::encode_into(&mut octets, |e| {
            e.array(7)?.u64(VERSION)?;
            self.identity.write(e)?;
            e.bytes(self.obey.secret().expose())?;
            let wrap = self.wrap.newest();
            e.bytes(wrap.secret().expose())?
                .u32(wrap.generation().get())?;
            e.u32(self.time.mark().get())?;
            e.array(self.groups.len() as u64)?;
            for (&number, group) in &self.groups {
                write_group(e, number, group)?;
            }
            Ok(())
        });
        octets
    }
}

fn write_group(e: &mut Writer<'_>, number: GroupNumber, group: &Group) -> Written {
    let key = group.ring.newest();
    e.array(13)?
        .u32(number.get())?
        .u32(key.epoch().get())?
        .u32(key.generation().get())?;
    e.bytes(key.secret().expose())?;
    e.u32(group.schedule.generation.get())?
        .u32(group.schedule.activate_at.get())?;
    match group.schedule.cadence {
        Some(cadence) => e.array(2)?.u8(cadence.step())?.u32(cadence.period())?,
        None => e.null()?,
    };
    match group.lease_end {
        Some(end) => e.u32(end.get())?,
        None => e.null()?,
    };
    e.u32(group.issued_at.get())?.u32(group.signed.get())?;
    match group.announced {
        Some(epoch) => e.u32(epoch.get())?,
        None => e.null()?,
    };
    e.array(group.sessions.len() as u64)?;
    for session in &group.sessions {
        e.bytes(session.as_bytes())?;
    }
    e.array(group.marks.len() as u64)?;
    for mark in &group.marks {
        e.array(5)?
            .u32(mark.sender.get())?
            .bytes(mark.session.as_bytes())?;
        e.u32(mark.ssrc)?
            .u64(mark.rtp_index)?
            .u32(mark.rtcp_index)?;
    }
    Ok(())
}

fn read_group(r: &mut Reader<'_>) -> Result<(GroupNumber, Group), DecodeError> {
    r.array("group", 13)?;
    let number =
        GroupNumber::new(r.uint32("group")?).ok_or(DecodeError::OutOfRange { what: "group" })?;
    let epoch = r.epoch()?;
    let generation = r.generation()?;
    let key = MasterKey::new(number, epoch, generation, secret(r, "master key")?);
    let stated = r.generation()?;
    let activate_at = r.time("activate-at")?;
    let cadence = r.nullable("cadence", |r| {
        r.array("cadence", 2)?;
        let step = u8::try_from(r.uint("step")?).unwrap_or(0);
        Cadence::new(step, r.uint32("period")?).ok_or(DecodeError::OutOfRange {
            what: "step and period",
        })
    })?;
    let lease_end = r.nullable("lease end", |r| r.time("lease end"))?;
    let issued_at = r.time("issued-at")?;
    let schedule = Schedule {
        generation: stated,
        activate_at,
        cadence,
    };
    let mut group = Group::new(key, schedule, lease_end, issued_at, None).stored();
    group.signed = r.generation()?;
    group.announced = r.nullable("announced epoch", Reader::epoch)?;
    for _ in 0..r.array_between("sessions", 0, u64::from(u16::MAX))? {
        group.sessions.push(SessionId::new(r.octets("session")?));
    }
    for _ in 0..r.array_between("marks", 0, u64::from(u16::MAX))? {
        r.array("mark", 5)?;
        group.marks.push(Mark {
            sender: TerminalNumber::new(r.uint32("sender")?)
                .ok_or(DecodeError::OutOfRange { what: "sender" })?,
            session: SessionId::new(r.octets("session")?),
            ssrc: r.uint32("SSRC")?,
            rtp_index: r.uint("index")?,
            rtcp_index: r.uint32("index")?,
        });
    }
    Ok((number, group))
}

const VERSION: u64 = 1;
/// The longest identity, with room for the terminal's own keys.
const IDENTITY_MAX: usize = 8192;
const GROUPS_MAX: u64 = 65_536;
