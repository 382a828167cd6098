//! What a terminal keeps through a power cut: one deterministic CBOR value for each compartment.
//! The driver seals them (FORMATS section 9); nothing here is ever sent.

use std::collections::BTreeMap;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::command::codec::{self, Reader, Writer, Written};
use crate::command::{HaltKind, SignedRecord};
use crate::enrolment::{Identity, PackageError, secret};
use crate::error::DecodeError;
use crate::ids::{GroupNumber, KeyName, SequenceNumber, SessionId, Tick, UnixSeconds};
use crate::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use crate::schedule::{Cadence, Schedule};
use crate::sharing::rsa_misty1::RsaSecret;
use crate::terminal::change::Change;
use crate::terminal::compartment::{Held, Notes, RenewStatement, User};
use crate::terminal::exclusions::Exclusions;
use crate::terminal::group::{Announced, Group, Lease, Mark};
use crate::terminal::locking::Lock;
use crate::terminal::packets::Packets;
use crate::terminal::{Parts, Terminal};
use crate::trusted_time::{PoweredOn, TrustedTime};

/// The two compartments, to be made durable both.
#[derive(Debug)]
pub struct Snapshot {
    /// What the machine opens by itself: number, roots, obey key, marks.
    pub device: Zeroizing<Vec<u8>>,
    /// What PIN or passphrase opens: wrap key, master keys, sessions. `None`: unchanged, since the
    /// terminal is locked.
    pub user: Option<Zeroizing<Vec<u8>>>,
}

/// Why stored state cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SnapshotError {
    #[error("the stored state was written by another version ({0}); this one reads {VERSION}")]
    Version(u64),
    #[error("the stored state is damaged: {0}")]
    Malformed(#[from] DecodeError),
    #[error("the stored state is damaged: {0}")]
    KeySet(#[from] PackageError),
    #[error("the stored state is damaged: its two compartments belong to different terminals")]
    Mixed,
}

impl Terminal {
    /// The terminal that wrote the compartments, switched on at `now`; locked without the second,
    /// and after the server's LOCK also with it.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing is guessed.
    pub fn restore(device: &[u8], user: Option<&[u8]>, now: Tick) -> Result<Self, SnapshotError> {
        let mut terminal = Self::assemble(read_device(device, now)?, None, now);
        if let Some(user) = user
            && terminal.may_unlock()
        {
            terminal.read_user(user)?;
            terminal.carry_out_notes();
        }
        Ok(terminal)
    }

    /// All that has to survive.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            device: self.device_snapshot(),
            user: self.user.as_ref().map(|user| self.user_snapshot(user)),
        }
    }

    fn device_snapshot(&self) -> Zeroizing<Vec<u8>> {
        // INVARIANT 10: large enough from the start, so that no copy is left in freed memory.
        let carried_out = self.carried_out.as_ref().map(|(_, notes)| notes);
        let noted = carried_out.unwrap_or(&self.notes);
        let notes = 16 * self.held.len() + 96 * (noted.renewals.len() + noted.epochs.len());
        let len = IDENTITY_MAX + self.exclusions.octets_max() + notes;
        let mut octets = Zeroizing::new(Vec::with_capacity(len));
        codec::encode_into(&mut octets, |e| {
            let own_record = self.stored_record();
            e.array(11 + u64::from(own_record.is_some()))?;
            e.u64(VERSION)?;
            self.identity.write(e)?;
            let obey = self.obey.as_ref();
            let obey = obey.expect("nothing is stored once everything was erased");
            e.bytes(obey.secret().expose())?;
            e.u32(self.g.get())?;
            let (floor, marks) = self.time.stored();
            e.array(marks.len() as u64 + 1)?.u32(floor.get())?;
            for (name, mark) in marks {
                e.array(2)?.bytes(name.as_bytes())?.u32(mark.get())?;
            }
            e.array(2)?
                .u64(self.powered.charged())?
                .u64(self.key_set_at)?;
            write_lease(e, self.last_lease)?;
            e.array(3)?.u32(self.lock.version)?.bool(self.lock.locked)?;
            write_name(e, self.lock.by)?;
            self.exclusions.write(e)?;
            e.array(self.held.len() as u64)?;
            for (group, epoch) in &self.held {
                e.array(2)?.u32(group.get())?.u32(epoch.get())?;
            }
            // Those that were carried out stay until what they did is durable.
            write_notes(e, noted)?;
            if let Some(record) = own_record {
                e.bytes(record.frame())?;
            }
            Ok(())
        });
        octets
    }

    fn user_snapshot(&self, user: &User) -> Zeroizing<Vec<u8>> {
        // INVARIANT 10, as above.
        let per_group = |group: &Group| {
            let media = 8 * group.sessions.len() + 40 * group.marks.len();
            256 + media + group.packets.octets_max()
        };
        let groups: usize = user.groups.values().map(per_group).sum();
        let legacy = user.legacy_key.as_ref().map(RsaSecret::to_pkcs8);
        let legacy_len = legacy.as_ref().map_or(0, |key| key.len());
        let mut octets = Zeroizing::new(Vec::with_capacity(USER_MAX + groups + legacy_len));
        codec::encode_into(&mut octets, |e| {
            e.array(8 + u64::from(legacy.is_some()))?
                .u64(VERSION)?
                .u32(self.identity.number.get())?;
            let wrap = user.wrap.newest();
            e.bytes(wrap.secret().expose())?;
            e.u32(wrap.generation().get())?.u32(user.offset)?;
            e.array(user.groups.len() as u64)?;
            for (&number, group) in &user.groups {
                write_group(e, number, group)?;
            }
            // The root's schedule from which the offset counts.
            e.u32(self.key_set.fleet_schedule.first.get())?;
            match user.before() {
                Some(before) => e.bytes(before.secret().expose())?,
                None => e.null()?,
            };
            if let Some(legacy) = &legacy {
                e.bytes(legacy)?;
            }
            Ok(())
        });
        octets
    }

    /// Takes the user compartment in.
    pub(super) fn read_user(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        let mut r = Reader::new(snapshot);
        let items = r.array_between("user compartment", 8, 9)?;
        check_version(&mut r)?;
        if r.terminal()? != self.identity.number {
            return Err(SnapshotError::Mixed);
        }
        let wrap = secret(&mut r, "wrap key")?;
        let wrap = WrapKey::new(self.identity.number, r.generation()?, wrap);
        let offset = r.uint32("offset")?;
        let mut groups = BTreeMap::new();
        for _ in 0..r.array_between("groups", 0, GROUPS_MAX)? {
            let (number, group) = read_group(&mut r)?;
            groups.insert(number, group);
        }
        let first = self.key_set.fleet_schedule.first;
        let offset = if first > r.generation()? {
            // The KEYSET with another schedule came while this was closed, or was not stored here.
            wrap.generation().steps_from(first)
        } else {
            offset
        };
        let before = r.nullable("wrap key before", |r| secret(r, "wrap key before"))?;
        let what = "RSA key";
        let legacy_key = match items {
            9 => Some(
                RsaSecret::from_pkcs8(r.bytes(what)?).ok_or(DecodeError::OutOfRange { what })?,
            ),
            _ => None,
        };
        r.end()?;
        let (number, generation) = (self.identity.number, wrap.generation());
        let before = before.map(|octets| WrapKey::new(number, generation, octets));
        let mut user = User::new(wrap, offset, groups).with_before(before);
        user.legacy_key = legacy_key;
        self.user = Some(user);
        Ok(())
    }
}

fn check_version(r: &mut Reader<'_>) -> Result<(), SnapshotError> {
    match r.uint("version")? {
        VERSION => Ok(()),
        version => Err(SnapshotError::Version(version)),
    }
}

fn read_device(snapshot: &[u8], now: Tick) -> Result<Parts, SnapshotError> {
    let mut r = Reader::new(snapshot);
    let items = r.array_between("snapshot", 11, 12)?;
    check_version(&mut r)?;
    let identity = Identity::read(&mut r)?;
    let key_set = identity.key_set()?;
    let obey = ObeyKey::new(identity.number, secret(&mut r, "obey key")?);
    let g = r.generation()?;
    let marks = r.array_between("time marks", 1, MARKS_MAX)?;
    let floor = r.time("time")?;
    let mut held_marks = Vec::new();
    for _ in 1..marks {
        r.array("time mark", 2)?;
        held_marks.push((r.key_name()?, r.time("time mark")?));
    }
    r.array("powered-on time", 2)?;
    let powered = r.uint("powered-on time")?;
    let key_set_at = r.uint("powered-on time")?;
    let last_lease = read_lease(&mut r)?;
    r.array("lock", 3)?;
    let lock = Lock {
        version: r.uint32("lock version")?,
        locked: r.boolean("locked")?,
        by: read_name(&mut r)?,
    };
    let exclusions = Exclusions::read(&mut r)?;
    let mut held = Held::new();
    for _ in 0..r.array_between("groups", 0, GROUPS_MAX)? {
        r.array("group", 2)?;
        held.insert(r.group()?, r.epoch()?);
    }
    let notes = read_notes(&mut r)?;
    let own_record = match items {
        12 => Some(SignedRecord::stored(r.bytes("protection record")?)?),
        _ => None,
    };
    r.end()?;
    Ok(Parts {
        own_record,
        identity,
        key_set,
        key_set_at,
        obey,
        g,
        held,
        notes,
        lock,
        exclusions,
        last_lease,
        time: TrustedTime::new(floor, held_marks),
        powered: PoweredOn::boot(powered, now),
    })
}

fn write_notes(e: &mut Writer<'_>, notes: &Notes) -> Written {
    e.array(3)?;
    match notes.offset {
        Some(offset) => e.u32(offset)?,
        None => e.null()?,
    };
    e.array(notes.epochs.len() as u64)?;
    for (group, announced) in &notes.epochs {
        e.array(2)?.u32(group.get())?;
        write_announced(e, *announced)?;
    }
    e.array(notes.renewals.len() as u64)?;
    for (group, noted) in &notes.renewals {
        e.array(6)?.u32(group.get())?.u32(noted.epoch.get())?;
        write_schedule(e, &noted.schedule)?;
        match noted.lease {
            Some(lease) => write_lease(e, lease)?,
            None => {
                e.null()?;
            }
        }
        e.u32(noted.issued_at.get())?.bytes(noted.by.as_bytes())?;
    }
    Ok(())
}

fn read_notes(r: &mut Reader<'_>) -> Result<Notes, DecodeError> {
    r.array("notes", 3)?;
    let offset = r.nullable("offset", |r| r.uint32("offset"))?;
    let mut notes = Notes {
        offset,
        ..Notes::default()
    };
    for _ in 0..r.array_between("noted epochs", 0, GROUPS_MAX)? {
        r.array("noted epoch", 2)?;
        let group = r.group()?;
        notes.epochs.insert(group, read_announced(r)?);
    }
    for _ in 0..r.array_between("noted renewals", 0, GROUPS_MAX)? {
        r.array("noted renewal", 6)?;
        let group = r.group()?;
        let noted = RenewStatement {
            epoch: r.epoch()?,
            schedule: read_schedule(r)?,
            lease: r.nullable("lease", read_lease)?,
            issued_at: r.time("issued-at")?,
            by: r.key_name()?,
        };
        notes.renewals.insert(group, noted);
    }
    Ok(notes)
}

fn write_group(e: &mut Writer<'_>, number: GroupNumber, group: &Group) -> Written {
    let key = group.ring.newest();
    e.array(16 + u64::from(group.search_key.is_some()))?
        .u32(number.get())?
        .u32(key.epoch().get())?
        .u32(key.generation().get())?;
    e.bytes(key.secret().expose())?;
    write_schedule(e, &group.schedule)?;
    match group.lease {
        Some(lease) => write_lease(e, lease)?,
        None => {
            e.null()?;
        }
    }
    e.u32(group.issued_at.get())?;
    e.bytes(group.stated_by.as_bytes())?
        .bytes(group.brought_by.as_bytes())?
        .bool(group.distrusted)?
        .u32(group.signed.get())?;
    match group.announced {
        Some(announced) => write_announced(e, announced)?,
        None => {
            e.null()?;
        }
    }
    match &group.change {
        Some(change) => write_change(e, change)?,
        None => {
            e.null()?;
        }
    }
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
    group.packets.write(e)?;
    if let Some(search_key) = &group.search_key {
        e.bytes(search_key.expose())?;
    }
    Ok(())
}

fn read_group(r: &mut Reader<'_>) -> Result<(GroupNumber, Group), DecodeError> {
    let items = r.array_between("group", 16, 17)?;
    let number = r.group()?;
    let epoch = r.epoch()?;
    let generation = r.generation()?;
    let key = MasterKey::new(number, epoch, generation, secret(r, "master key")?);
    let schedule = read_schedule(r)?;
    let lease = r.nullable("lease", read_lease)?;
    let issued_at = r.time("issued-at")?;
    let stated_by = r.key_name()?;
    let mut group = Group::new(key, schedule, lease, (issued_at, stated_by), None).stored();
    group.brought_by = r.key_name()?;
    group.distrusted = r.boolean("distrusted")?;
    group.signed = r.generation()?;
    group.announced = r.nullable("announced epoch", read_announced)?;
    group.change = r.nullable("change", read_change)?;
    for _ in 0..r.array_between("sessions", 0, u64::from(u16::MAX))? {
        group.sessions.push(SessionId::new(r.octets("session")?));
    }
    for _ in 0..r.array_between("marks", 0, u64::from(u16::MAX))? {
        r.array("mark", 5)?;
        group.marks.push(Mark {
            sender: r.terminal()?,
            session: SessionId::new(r.octets("session")?),
            ssrc: r.uint32("SSRC")?,
            rtp_index: r.uint("index")?,
            rtcp_index: r.uint32("index")?,
        });
    }
    group.packets = Packets::read(r)?;
    // Older generations are not on disk, so nothing that was sent under them opens any more.
    group
        .packets
        .forget(|of_epoch, of_generation| (of_epoch, of_generation) == (epoch, generation));
    if items == 17 {
        let what = "search key";
        let octets = Secret::from_slice(r.bytes(what)?);
        group.search_key = Some(octets.ok_or(DecodeError::OutOfRange { what })?);
    }
    Ok((number, group))
}

/// Its transaction outlives a power cut, so that no recorded STOP stops twice (KR-325); a STOP holds
/// on until its deadline.
fn write_change(e: &mut Writer<'_>, change: &Change) -> Written {
    let (epoch, generation) = change.key;
    e.array(7)?.u64(change.transaction.get())?;
    e.bytes(change.by.as_bytes())?
        .bool(change.kind == HaltKind::Stop)?;
    e.u32(epoch.get())?.u32(generation.get())?;
    e.u32(change.deadline.get())?.bool(change.stopped)?;
    Ok(())
}

fn read_change(r: &mut Reader<'_>) -> Result<Change, DecodeError> {
    r.array("change", 7)?;
    Ok(Change {
        transaction: SequenceNumber::new(r.uint("transaction")?),
        by: r.key_name()?,
        kind: match r.boolean("STOP")? {
            true => HaltKind::Stop,
            false => HaltKind::Start,
        },
        key: (r.epoch()?, r.generation()?),
        deadline: r.time("deadline")?,
        stopped: r.boolean("stopped")?,
        until: None,
        owed: None,
    })
}

fn write_schedule(e: &mut Writer<'_>, schedule: &Schedule) -> Written {
    e.array(3)?
        .u32(schedule.generation.get())?
        .u32(schedule.activate_at.get())?;
    match schedule.cadence {
        Some(cadence) => e.array(2)?.u8(cadence.step())?.u32(cadence.period())?,
        None => e.null()?,
    };
    Ok(())
}

fn read_schedule(r: &mut Reader<'_>) -> Result<Schedule, DecodeError> {
    r.array("schedule", 3)?;
    Ok(Schedule {
        generation: r.generation()?,
        activate_at: r.time("activate-at")?,
        cadence: r.nullable("cadence", |r| {
            r.array("cadence", 2)?;
            let step = u8::try_from(r.uint("step")?).unwrap_or(0);
            Cadence::new(step, r.uint32("period")?).ok_or(DecodeError::OutOfRange {
                what: "step and period",
            })
        })?,
    })
}

fn write_lease(e: &mut Writer<'_>, lease: Lease) -> Written {
    e.array(2)?.u32(lease.end.get())?.u64(lease.powered_end)?;
    Ok(())
}

fn read_lease(r: &mut Reader<'_>) -> Result<Lease, DecodeError> {
    r.array("lease", 2)?;
    Ok(Lease {
        end: UnixSeconds::new(r.uint32("lease end")?),
        powered_end: r.uint("lease end")?,
    })
}

fn write_announced(e: &mut Writer<'_>, announced: Announced) -> Written {
    e.array(3)?.u32(announced.epoch.get())?;
    e.bytes(announced.by.as_bytes())?;
    match announced.excluded_at {
        Some(at) => e.u64(at)?,
        None => e.null()?,
    };
    Ok(())
}

fn read_announced(r: &mut Reader<'_>) -> Result<Announced, DecodeError> {
    r.array("announced epoch", 3)?;
    Ok(Announced {
        epoch: r.epoch()?,
        by: r.key_name()?,
        excluded_at: r.nullable("powered-on time", |r| r.uint("powered-on time"))?,
    })
}

fn write_name(e: &mut Writer<'_>, name: Option<KeyName>) -> Written {
    match name {
        Some(name) => e.bytes(name.as_bytes())?,
        None => e.null()?,
    };
    Ok(())
}

fn read_name(r: &mut Reader<'_>) -> Result<Option<KeyName>, DecodeError> {
    r.nullable("key name", Reader::key_name)
}

const VERSION: u64 = 4;
/// The longest identity, with room for what the device compartment holds beside it.
const IDENTITY_MAX: usize = 8192;
/// The terminal's own keys and numbers.
const USER_MAX: usize = 256;
const GROUPS_MAX: u64 = 65_536;
const MARKS_MAX: u64 = 32;
