//! Simulated disks: what was not synced is lost in a crash.

use std::collections::BTreeMap;
use std::time::Duration;

use keyfall_protocol::command::SigningKey;
use keyfall_protocol::ids::{GroupNumber, TerminalNumber};
use keyfall_protocol::keys::PreSharedKey;
use keyfall_protocol::server::{Batch, Change, FleetRecord, GroupRecord, TerminalRecord};

/// How long a store takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreDelay {
    /// From asking to being durable.
    pub write: Duration,
    /// From being durable to `Stored`.
    pub confirm: Duration,
}

impl Default for StoreDelay {
    fn default() -> Self {
        Self {
            write: Duration::from_millis(5),
            confirm: Duration::from_millis(1),
        }
    }
}

/// The server's database, as far as it was committed.
#[derive(Debug)]
pub struct ServerDisk {
    fleet: FleetRecord,
    terminals: BTreeMap<TerminalNumber, TerminalRecord>,
    groups: BTreeMap<GroupNumber, GroupRecord>,
}

impl ServerDisk {
    /// What `server init` wrote.
    #[must_use]
    pub fn new(fleet: FleetRecord) -> Self {
        Self {
            fleet,
            terminals: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }

    /// Commits a batch: all of it.
    pub fn commit(&mut self, batch: &Batch) {
        for change in &batch.changes {
            self.write(change);
        }
    }

    /// What a server that starts now reads.
    #[must_use]
    pub fn load(&self) -> (FleetRecord, Vec<TerminalRecord>, Vec<GroupRecord>) {
        let terminals = self.terminals.values().map(copy_terminal).collect();
        let groups = self.groups.values().map(copy_group).collect();
        (copy_fleet(&self.fleet), terminals, groups)
    }

    #[must_use]
    pub fn fleet(&self) -> &FleetRecord {
        &self.fleet
    }

    #[must_use]
    pub fn group(&self, number: GroupNumber) -> Option<&GroupRecord> {
        self.groups.get(&number)
    }

    fn write(&mut self, change: &Change) {
        match change {
            Change::Sequence(until) => self.fleet.sequence_reserved = *until,
            Change::Terminal(terminal) => {
                self.terminals
                    .insert(terminal.number, copy_terminal(terminal));
            }
            Change::Group(group) => {
                self.groups.insert(group.number, copy_group(group));
            }
            Change::Member { group, terminal } => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.members.insert(*terminal);
                }
            }
            Change::Master { key, schedule } => {
                if let Some(group) = self.groups.get_mut(&key.group()) {
                    group.master = key.duplicate();
                    group.schedule = *schedule;
                }
            }
            Change::Fleet { generation, wraps } => {
                self.fleet.fleet_generation = *generation;
                for wrap in wraps {
                    let owner = self
                        .terminals
                        .values_mut()
                        .find(|terminal| terminal.number.wrap_key_id() == wrap.kid());
                    if let Some(terminal) = owner {
                        terminal.wrap = wrap.duplicate();
                    }
                }
            }
        }
    }
}

fn copy_fleet(fleet: &FleetRecord) -> FleetRecord {
    FleetRecord {
        name: fleet.name.clone(),
        stream: fleet.stream,
        root: fleet.root,
        key_set_frame: fleet.key_set_frame.clone(),
        key_set: fleet.key_set.clone(),
        beat: SigningKey::from_seed(fleet.beat.seed().duplicate()),
        keys: SigningKey::from_seed(fleet.keys.seed().duplicate()),
        fleet_generation: fleet.fleet_generation,
        sequence_reserved: fleet.sequence_reserved,
        carriers: fleet.carriers.clone(),
        keep_time: fleet.keep_time,
        bits_per_second: fleet.bits_per_second,
    }
}

fn copy_terminal(terminal: &TerminalRecord) -> TerminalRecord {
    TerminalRecord {
        number: terminal.number,
        name: terminal.name.clone(),
        obey: PreSharedKey::duplicate(&terminal.obey),
        wrap: PreSharedKey::duplicate(&terminal.wrap),
        added_at: terminal.added_at,
        package_expires: terminal.package_expires,
    }
}

fn copy_group(group: &GroupRecord) -> GroupRecord {
    GroupRecord {
        number: group.number,
        name: group.name.clone(),
        members: group.members.clone(),
        master: group.master.duplicate(),
        schedule: group.schedule,
        lease: group.lease,
    }
}
