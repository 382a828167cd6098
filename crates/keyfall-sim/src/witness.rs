//! Sees every frame, every event and every disk, and notes what must never be (DESIGN section 11,
//! invariants 1, 2 and 4).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use keyfall_protocol::command::{
    Body, Command, FreshEpoch, ProtectionRecord, SignerClass, Unverified, UnverifiedRecord,
};
use keyfall_protocol::ids::{
    Fingerprint, Generation, GroupNumber, KeyEpoch, KeyId, KeyIdKind, SequenceNumber, StreamId,
    TerminalNumber, Tick,
};
use keyfall_protocol::keys::MasterKey;
use keyfall_protocol::server::{Batch, Change};
use keyfall_protocol::terminal::{Event, Terminal};

use crate::disk::ServerDisk;
use crate::station::Station;

/// Something that must never be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub at: Tick,
    /// The rule that was broken.
    pub rule: &'static str,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at.as_nanos() / 1_000_000_000;
        write!(f, "after {seconds} s: {}: {}", self.rule, self.what)
    }
}

/// Remembers what was sent and told.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    pub(crate) violations: Vec<Violation>,
    sequences: HashMap<(StreamId, SequenceNumber), Rc<[u8]>>,
    stated: BTreeMap<KeyId, (KeyEpoch, Generation)>,
    fleet: Option<Generation>,
    /// The highest version of each terminal's record.
    records: BTreeMap<TerminalNumber, u32>,
    /// Every key by its name, where that is watched.
    keys: Option<HashMap<(GroupNumber, KeyEpoch, Generation), Fingerprint>>,
}

impl Witness {
    pub(crate) fn note(&mut self, at: Tick, rule: &'static str, what: String) {
        self.violations.push(Violation { at, rule, what });
    }

    /// A frame goes out while `disk` is what is durable.
    pub(crate) fn sees_frame(&mut self, at: Tick, octets: &Rc<[u8]>, disk: &ServerDisk) {
        if let Ok(read) = UnverifiedRecord::decode(octets) {
            self.sees_record(at, read.record(), disk);
            return;
        }
        let Ok(frame) = Unverified::decode(octets) else {
            self.note(
                at,
                "frames decode",
                format!("{} octets do not", octets.len()),
            );
            return;
        };
        let command = frame.command();
        // What is signed elsewhere is apart from the server's own counting: the first KEYSET was
        // before it began, and the G of the others is that of the day on which they were drafted.
        if command.body.signer_class().is_some_and(is_online) {
            self.sees_sequence(at, command, octets, disk);
            self.sees_fleet(at, command.fleet_generation, disk);
        }
        match &command.body {
            Body::Time(time) => {
                for floor in &time.floors {
                    self.sees_statement(at, floor.kid, floor.epoch, floor.generation, disk);
                }
            }
            Body::Renew(renew) => {
                for entry in &renew.entries {
                    let generation = entry.schedule.generation;
                    self.sees_statement(at, entry.kid, entry.epoch, generation, disk);
                }
            }
            Body::Exclude(exclude) => {
                for fresh in &exclude.groups {
                    self.sees_epoch(at, fresh, disk);
                }
            }
            Body::KeyDist(_)
            | Body::Order(_)
            | Body::KeySet(_)
            | Body::Stop(_)
            | Body::Start(_)
            | Body::Notify(_) => {}
        }
    }

    /// An EXCLUDE is repeated long after the epochs that it announced.
    fn sees_epoch(&mut self, at: Tick, fresh: &FreshEpoch, disk: &ServerDisk) {
        let stored = disk.group(fresh.group).map(|group| group.master.epoch());
        if stored < Some(fresh.new) {
            let what = format!(
                "group {} epoch {} is sent and not stored",
                fresh.group, fresh.new
            );
            self.note(at, "invariant 2", what);
        }
    }

    fn sees_sequence(&mut self, at: Tick, command: &Command, octets: &Rc<[u8]>, disk: &ServerDisk) {
        let name = (command.stream, command.sequence);
        let first = self.sequences.entry(name).or_insert_with(|| octets.clone());
        if first != octets {
            let what = format!("sequence {} names two commands", command.sequence);
            self.note(at, "invariant 1", what);
        }
        if command.sequence >= disk.fleet().sequence_reserved {
            let what = format!("sequence {} is not reserved", command.sequence);
            self.note(at, "invariant 2", what);
        }
    }

    fn sees_fleet(&mut self, at: Tick, generation: Generation, disk: &ServerDisk) {
        if self.fleet.is_some_and(|stated| generation < stated) {
            self.note(at, "invariant 1", format!("G goes down to {generation}"));
        }
        if generation > disk.fleet().fleet_generation {
            let what = format!("G {generation} is sent and not stored");
            self.note(at, "invariant 2", what);
        }
        self.fleet = self.fleet.max(Some(generation));
    }

    fn sees_statement(
        &mut self,
        at: Tick,
        kid: KeyId,
        epoch: KeyEpoch,
        generation: Generation,
        disk: &ServerDisk,
    ) {
        let stated = (epoch, generation);
        let held = self.stated.entry(kid).or_insert(stated);
        if stated < *held {
            let what = format!("key {kid} goes down to epoch {epoch} generation {generation}");
            self.note(at, "invariant 1", what);
            return;
        }
        *held = stated;
        let stored = match kid.kind() {
            Some(KeyIdKind::Master(group)) => disk
                .group(group)
                .map(|group| (group.master.epoch(), group.master.generation())),
            Some(KeyIdKind::AllRankOne) => Some((epoch, disk.fleet().fleet_generation)),
            Some(KeyIdKind::Wrap(terminal)) => disk
                .terminal(terminal)
                .map(|terminal| (epoch, terminal.wrap.generation())),
            Some(KeyIdKind::Obey(_) | KeyIdKind::Cover(_)) | None => None,
        };
        if stored.is_none_or(|stored| stored < stated) {
            let what = format!("key {kid} generation {generation} is sent and not stored");
            self.note(at, "invariant 2", what);
        }
    }

    /// A record is sent as it is stored, and the version that is stored never goes down.
    fn sees_record(&mut self, at: Tick, record: &ProtectionRecord, disk: &ServerDisk) {
        let stored = disk.terminal(record.terminal).and_then(|it| it.record);
        let stored = stored.map(|issue| (issue.version, issue.issued_at));
        if stored != Some((record.version, record.issued_at)) {
            let what = format!(
                "version {} of terminal {} is sent, and stored is {stored:?}",
                record.version, record.terminal
            );
            self.note(at, "records are stored before they are sent", what);
        }
        let highest = self.records.entry(record.terminal).or_default();
        if record.version < *highest {
            let what = format!(
                "terminal {} goes from version {highest} to {}",
                record.terminal, record.version
            );
            self.note(at, "versions of records only rise", what);
            return;
        }
        *highest = record.version;
    }

    pub(crate) fn watch_keys(&mut self) {
        self.keys.get_or_insert_default();
    }

    /// The server made what lies in this batch.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "no other change names a group's key"
    )]
    pub(crate) fn sees_batch(&mut self, at: Tick, batch: &Batch) {
        for change in &batch.changes {
            match change {
                Change::Group(group) => self.sees_master(at, &group.master),
                Change::Master { key, .. } => self.sees_master(at, key),
                _ => {}
            }
        }
    }

    pub(crate) fn sees_master(&mut self, at: Tick, key: &MasterKey) {
        let name = (key.group(), key.epoch(), key.generation());
        self.sees_key(at, "the server", name, key.fingerprint());
    }

    /// Of one name there is one key, whoever holds it.
    fn sees_key(
        &mut self,
        at: Tick,
        who: &str,
        name: (GroupNumber, KeyEpoch, Generation),
        key: Fingerprint,
    ) {
        let Some(keys) = &mut self.keys else {
            return;
        };
        let first = *keys.entry(name).or_insert(key);
        if first != key {
            let what = format!("{who} holds another {name:?}: {key} and not {first}");
            self.note(at, "one key a name", what);
        }
    }

    /// A station told something: what it tells of keys is on its disk.
    pub(crate) fn sees_event(&mut self, at: Tick, station: &mut Station, event: &Event) {
        if let (Event::AskEnded { .. }, Some(way)) = (event, &mut station.way) {
            way.asking_since = None;
        }
        if let Event::Retired { group, .. } = event
            && station.way.is_some()
        {
            let machine = station.machine.iter();
            let mut held = machine.flat_map(|machine| machine.groups());
            if !held.any(|it| it.group == *group) {
                // What the server takes away by a KEY-DIS is not lost; it is told so once it is stored.
                station.promised.remove(group);
            }
        }
        let told = match *event {
            Event::KeyReceived {
                group,
                epoch,
                generation,
            }
            | Event::Sending {
                group,
                epoch,
                generation,
            } => (group, Some(epoch), generation),
            Event::Renewed { group, to, .. } => (group, None, to),
            Event::FleetRenewed { .. }
            | Event::OffsetRenewed { .. }
            | Event::Retired { .. }
            | Event::SessionReady { .. }
            | Event::SessionRefused { .. }
            | Event::MarksStored { .. }
            | Event::PacketSessionsReady { .. }
            | Event::PacketSessionsRefused { .. }
            | Event::PacketMarksStored { .. }
            | Event::StockSenderReady { .. }
            | Event::StockSenderRefused { .. }
            | Event::StockMarkStored { .. }
            | Event::StockSenderEnded { .. }
            | Event::TimeHeard { .. }
            | Event::KeySetHeard { .. }
            | Event::Excluded { .. }
            | Event::Readmitted { .. }
            | Event::Locked { .. }
            | Event::Unlocked
            | Event::UnlockAllowed
            | Event::Stopped { .. }
            | Event::Resumed { .. }
            | Event::KeyWanted { .. }
            | Event::RecordChanged { .. }
            | Event::Removed { .. }
            | Event::AskEnded { .. }
            | Event::Notified { .. }
            | Event::PathFound { .. }
            | Event::PathLost { .. }
            | Event::PeerChanged { .. }
            | Event::PathsChanged => return,
        };
        let (group, epoch, generation) = told;
        let durable = station.disk.held.get(&group).copied();
        let epoch = epoch.or_else(|| durable.map(|(epoch, _)| epoch));
        let claim = epoch.map(|epoch| (epoch, generation));
        if durable < claim {
            let what = format!("{} tells of group {group}: {event:?}", station.name);
            self.note(at, "invariant 2", what);
        }
        if let Some(claim) = claim {
            let promised = station.promised.entry(group).or_insert(claim);
            *promised = (*promised).max(claim);
        }
    }

    /// After every input: nothing is sent with that is not on disk, and nothing that was told of
    /// is lost.
    pub(crate) fn sees_station(&mut self, at: Tick, station: &mut Station) {
        let open = |machine: &&Terminal| !machine.is_locked();
        let Some(machine) = station.machine.as_ref().filter(open) else {
            if let Some(way) = &mut station.way {
                way.asking_since = None;
            }
            return;
        };
        let key_set = machine.key_set();
        if key_set.version != station.key_set && !key_set.stolen.is_empty() {
            // What a stolen key said loses to what is said from now on, by any number.
            station.promised.clear();
        }
        station.key_set = key_set.version;
        if let Some(way) = &mut station.way {
            if machine.asks() != "rest" {
                way.asking_since.get_or_insert(at);
            }
            let asking = way.asking_since.map(|since| at.since(since));
            if asking > Some(SEQUENCE_MAX) {
                let what = format!("{} still {}", station.name, machine.asks());
                self.note(at, "a sequence ends", what);
                way.asking_since = None;
            }
        }
        let groups = machine.groups();
        if self.keys.is_some() {
            for it in &groups {
                let name = (it.group, it.epoch, it.generation);
                self.sees_key(at, &station.name, name, it.fingerprint);
            }
        }
        let held: BTreeMap<_, _> = groups
            .into_iter()
            .map(|status| (status.group, (status.epoch, status.generation)))
            .collect();
        for (group, promised) in &station.promised {
            if held.get(group).is_none_or(|held| held < promised) {
                let what = format!("{} lost group {group} {promised:?}", station.name);
                self.note(at, "invariant 1", what);
            }
        }
        for &group in held.keys() {
            let sends = machine
                .send_key(group)
                .map(|key| (key.epoch(), key.generation()));
            let durable = station.disk.held.get(&group).copied();
            if sends > durable {
                let what = format!(
                    "{} sends in group {group} before it is stored",
                    station.name
                );
                self.note(at, "invariant 2", what);
            }
        }
    }
}

/// Up to four answers, for each an introduction and two requests of six tries: 24 s and a quarter more.
const SEQUENCE_MAX: Duration = Duration::from_secs(300);

fn is_online(class: SignerClass) -> bool {
    matches!(class, SignerClass::Beat | SignerClass::Keys)
}
