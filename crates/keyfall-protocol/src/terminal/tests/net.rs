//! Gateways with records, packet groups and an underlay between them that carries probes, answers and
//! what is handed on; the test may lose and record it.

use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;
use std::time::Duration;

use super::driven::Driven;
use super::fixture::{FOUNDED, Fleet, Stated, generation, terminal_number};
use crate::command::{
    Body, KeyDist, KeyDistContents, Prefix, ProtectionRecord, RecordGroup, SignedRecord, Target,
};
use crate::ids::{GroupNumber, KeyEpoch, Tick};
use crate::keys::{EspSuite, MasterKey, Secret};
use crate::stats::DropReason;
use crate::terminal::{Event, Input, PacketFrom, Terminal, Way};

/// What is on its way between gateways.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Parcel {
    pub(super) from: SocketAddr,
    /// The address it was sent to.
    pub(super) to: SocketAddr,
    pub(super) datagram: Vec<u8>,
}

/// One gateway: number n speaks for 10.n.0.0/16 and fd77:n::/32 and is heard at 192.0.2.n.
pub(super) struct Gate {
    pub(super) unit: Driven,
    pub(super) record: ProtectionRecord,
}

pub(super) struct Net {
    pub(super) fleet: Fleet,
    pub(super) gates: Vec<Gate>,
    pub(super) now: Tick,
    /// Everything that was sent, also what was lost.
    pub(super) sent: Vec<Parcel>,
    /// Whether the next parcel is lost.
    pub(super) loses: Box<dyn FnMut() -> bool>,
}

impl Net {
    /// `members[n - 1]`: the groups of gateway n. Everybody has its own record and its keys at epoch 7,
    /// generation 0; nobody knows another's record.
    pub(super) fn new(members: &[&[RecordGroup]]) -> Self {
        let fleet = Fleet::new();
        let mut net = Self {
            fleet,
            gates: Vec::new(),
            now: Tick::default(),
            sent: Vec::new(),
            loses: Box::new(|| false),
        };
        for (place, groups) in members.iter().enumerate() {
            let number = u32::try_from(place + 1).expect("few");
            let unit = net.enrol(number);
            let record = a_record(number, groups);
            net.gates.push(Gate { unit, record });
            for group in *groups {
                net.give_key(number, group.group, 7, 0);
            }
            let own = net.signed(number);
            net.learn(number, own).expect("its own");
        }
        net
    }

    fn enrol(&self, number: u32) -> Driven {
        let package = self.fleet.package(number);
        let machine = Terminal::enrol(package, self.now).expect("signed KEYSET");
        let mut unit = Driven::new(machine);
        unit.drain();
        unit.store_all();
        unit.reseed(u64::from(number));
        unit.hear(&self.fleet.time(0));
        unit.store_all();
        unit
    }

    /// KEYDIST of a group's key to one gateway, and its search key with it.
    pub(super) fn give_key(&mut self, number: u32, group: GroupNumber, epoch: u32, at: u32) {
        let stated = Stated::at(0, at);
        let contents = KeyDistContents {
            key: master_of(group, epoch, at),
            search_key: Some(search_key_of(group, epoch)),
            activate_at: FOUNDED,
            cadence: None,
            lease_end: Some(FOUNDED.plus(stated.lease)),
        };
        let wrap = self.fleet.wrap_key(number);
        let to = std::iter::once(&wrap);
        let body = Body::KeyDist(KeyDist::seal(&contents, to, &mut self.fleet.rng));
        let command = self.fleet.command(Target::Handles, body, stated);
        let frame = self.fleet.record.keys.sign(&command);
        let unit = &mut self.gate(number).unit;
        assert_eq!(unit.hear(&frame), None);
        unit.store_all();
    }

    pub(super) fn gate(&mut self, number: u32) -> &mut Gate {
        &mut self.gates[number as usize - 1]
    }

    /// A gateway's record as the server signs it now.
    pub(super) fn signed(&self, number: u32) -> SignedRecord {
        let record = self.gates[number as usize - 1].record.clone();
        record.signed_by(&self.fleet.record.keys)
    }

    pub(super) fn learn(&mut self, number: u32, signed: SignedRecord) -> Result<(), DropReason> {
        let unit = &mut self.gate(number).unit;
        let learned = unit.machine.learn_record(signed);
        unit.feed(Input::Timeout);
        unit.store_all();
        learned
    }

    /// The server states something else of a gateway, which hears it itself.
    pub(super) fn restate(&mut self, number: u32, change: impl FnOnce(&mut ProtectionRecord)) {
        self.restate_to(number, number, change);
    }

    /// The same, and nobody but gateway `hearer` hears it.
    pub(super) fn restate_to(
        &mut self,
        hearer: u32,
        number: u32,
        change: impl FnOnce(&mut ProtectionRecord),
    ) {
        let record = &mut self.gate(number).record;
        record.version += 1;
        record.issued_at = record.issued_at.plus(1);
        change(record);
        let stated = self.signed(number);
        self.learn(hearer, stated).expect("newer");
    }

    /// What a gateway does with packets of a flow.
    pub(super) fn path(&mut self, number: u32, source: &str, destination: &str) -> Way {
        let now = self.now;
        let machine = &mut self.gate(number).unit.machine;
        machine.path(now, address(source), address(destination))
    }

    /// The same, once a search has ended.
    pub(super) fn way(&mut self, number: u32, source: &str, destination: &str) -> Way {
        let first = self.path(number, source, destination);
        if first != Way::Searching {
            return first;
        }
        for _ in 0..200 {
            self.wait_millis(100);
            let way = self.path(number, source, destination);
            if way != Way::Searching {
                return way;
            }
        }
        panic!("the search has no end")
    }

    pub(super) fn wait_millis(&mut self, millis: u64) {
        self.now = self.now.plus(Duration::from_millis(millis));
        self.carry();
    }

    /// Time goes on at every gateway, and what they send arrives, until nothing is on its way.
    pub(super) fn carry(&mut self) {
        let now = self.now;
        for gate in &mut self.gates {
            gate.unit.now = now;
            gate.unit.feed(Input::Timeout);
            gate.unit.store_all();
        }
        let mut parcels = self.collect();
        while let Some(parcel) = parcels.pop_front() {
            self.sent.push(parcel.clone());
            if !(self.loses)() {
                self.arrive(&parcel);
            }
            parcels.extend(self.collect());
        }
    }

    /// At the gateway whose outer address it was sent to, or that stands on the way to it.
    pub(super) fn arrive(&mut self, parcel: &Parcel) {
        let to = parcel.to.ip();
        let on_the_way =
            |gate: &Gate| outer(gate.number()).ip() == to || gate.record.speaks_for(to);
        let place = self.gates.iter().position(on_the_way);
        if let Some(place) = place {
            self.arrive_at(u32::try_from(place + 1).expect("few"), parcel);
        }
    }

    pub(super) fn arrive_at(&mut self, number: u32, parcel: &Parcel) {
        let now = self.now;
        let unit = &mut self.gate(number).unit;
        unit.now = now;
        unit.feed(Input::Search {
            from: parcel.from,
            destination: parcel.to.ip(),
            outside: true,
            datagram: &parcel.datagram,
        });
        unit.store_all();
    }

    /// What every gateway has sent since.
    pub(super) fn collect(&mut self) -> VecDeque<Parcel> {
        let mut parcels = VecDeque::new();
        for gate in &mut self.gates {
            let from = outer(gate.number());
            let probes = gate.unit.probes.drain(..);
            let probes = probes.map(|(to, datagram)| (SocketAddr::new(to, 4500), datagram));
            let others = gate
                .unit
                .answers
                .drain(..)
                .chain(gate.unit.to_peers.drain(..));
            let all = probes.chain(others);
            parcels.extend(all.map(|(to, datagram)| Parcel { from, to, datagram }));
        }
        parcels
    }

    /// The first packet of a flow opened at a gateway, under the group's newest key there.
    pub(super) fn packet(&mut self, at: u32, from: u32, group: u32, source: &str, to: &str) {
        let status = self.gate(at).unit.machine.groups();
        let status = status.iter().find(|it| it.group == number_of(group));
        let held = status.expect("a member");
        let packet = PacketFrom {
            group: number_of(group),
            key: (held.epoch, held.generation),
            peer: terminal_number(from),
            source: address(source),
            destination: address(to),
            endpoint: outer(from),
        };
        self.packet_from(at, packet);
    }

    pub(super) fn packet_from(&mut self, at: u32, packet: PacketFrom) {
        let unit = &mut self.gate(at).unit;
        unit.feed(Input::PacketFrom(packet));
    }

    pub(super) fn drops(&mut self, number: u32, reason: DropReason) -> u64 {
        self.gate(number).unit.machine.drops().of(reason)
    }

    /// What a gateway was told since the last time.
    pub(super) fn events(&mut self, number: u32) -> Vec<Event> {
        std::mem::take(&mut self.gate(number).unit.events)
    }

    /// Where a gateway stands in a group.
    pub(super) fn generation(&mut self, number: u32, group: u32) -> u32 {
        let held = self.gate(number).unit.machine.groups();
        let held = held.iter().find(|it| it.group == number_of(group));
        held.expect("a member").generation.get()
    }
}

impl Gate {
    fn number(&self) -> u32 {
        self.record.terminal.get()
    }
}

/// A packet group that takes every destination.
pub(super) fn group_of(number: u32, priority: u8) -> RecordGroup {
    routed(number, priority, &[])
}

/// One with networks.
pub(super) fn routed(number: u32, priority: u8, networks: &[&str]) -> RecordGroup {
    RecordGroup {
        group: number_of(number),
        priority,
        mtu: None,
        suite: EspSuite::default(),
        networks: networks.iter().map(|text| prefix(text)).collect(),
    }
}

pub(super) fn a_record(number: u32, groups: &[RecordGroup]) -> ProtectionRecord {
    let n = u8::try_from(number).expect("small");
    ProtectionRecord {
        terminal: terminal_number(number),
        version: 10,
        issued_at: FOUNDED,
        not_after: FOUNDED.plus(7 * 86_400),
        prefixes: vec![
            prefix(&format!("10.{n}.0.0/16")),
            prefix(&format!("fd77:{n}::/32")),
        ],
        endpoints: Vec::new(),
        groups: groups.to_vec(),
    }
}

pub(super) fn outer(number: u32) -> SocketAddr {
    let n = u8::try_from(number).expect("small");
    SocketAddr::new([192, 0, 2, n].into(), 4500)
}

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(super) fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

pub(super) fn number_of(group: u32) -> GroupNumber {
    GroupNumber::new(group).expect("not 0")
}

pub(super) fn master_of(group: GroupNumber, epoch: u32, at: u32) -> MasterKey {
    let fill = (group.get() * 16 + epoch).to_be_bytes()[3];
    let secret = Secret::init_with(|into| into.fill(fill));
    MasterKey::new(group, KeyEpoch::new(epoch), generation(0), secret).renew_to(generation(at))
}

pub(super) fn search_key_of(group: GroupNumber, epoch: u32) -> Secret<16> {
    let fill = (0x80 ^ (group.get() * 16 + epoch)).to_be_bytes()[3];
    Secret::init_with(|into| into.fill(fill))
}
