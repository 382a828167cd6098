//! What stations and server say to each other by UDP, and who stands between them.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use keyfall_protocol::ids::{Fingerprint, Generation, KeyEpoch, Tick};
use keyfall_protocol::server;
use keyfall_protocol::sharing::message::Message;
use keyfall_protocol::terminal::{Input, Order};

use crate::station::StationId;
use crate::way::{CapturedDatagram, Direction, Interceptor, Way, WayQuality};
use crate::world::{Happening, World};

impl World {
    /// Gives a station a way to the server, both directions alike or each as it is said; it asks for
    /// its keys soon, and after every power-on.
    pub fn open_way_back(&mut self, id: StationId, quality: impl Into<WayQuality>) {
        let way = Way::new(id, quality.into(), &mut self.rng);
        if let Some(before) = self.stations[id.0].way.replace(way) {
            self.ways.remove(&before.address);
        }
        self.list_way(id);
        self.ask(id);
    }

    /// The NAT in front of a station forgets it: its next datagram comes from another address, and
    /// what is still sent to the old one is lost.
    pub fn rebind(&mut self, id: StationId) {
        let Some(way) = &mut self.stations[id.0].way else {
            return;
        };
        self.ways.remove(&way.address);
        way.rebind(id);
        self.list_way(id);
    }

    /// Plans a rebinding.
    pub fn rebind_at(&mut self, at: Tick, id: StationId) {
        self.clock.plan(at, Happening::Rebinds(id));
    }

    /// Cuts a station's way back, or mends it.
    pub fn cut_way_back(&mut self, id: StationId, cut: bool) {
        if let Some(way) = &mut self.stations[id.0].way {
            way.cut(cut);
        }
    }

    /// Plans that a station's way back is cut, or mended.
    pub fn cut_way_back_at(&mut self, at: Tick, id: StationId, cut: bool) {
        self.clock.plan(at, Happening::WayTurns(id, cut));
    }

    /// A station's driver says that it is time to ask, as it does at power-on.
    pub fn ask(&mut self, id: StationId) {
        if self.stations[id.0].way.is_some() {
            let within = ASK_WITHIN;
            self.feed(id, Input::Order(Order::Ask { within }));
        }
    }

    /// From now on `interceptor` decides what becomes of every datagram.
    pub fn intercept(&mut self, interceptor: Interceptor) {
        self.interceptor = Some(interceptor);
    }

    /// Whoever stood between them has gone.
    pub fn intercept_no_more(&mut self) {
        self.interceptor = None;
    }

    /// Every datagram that was sent so far, as its sender sent it.
    #[must_use]
    pub fn datagrams(&self) -> &[CapturedDatagram] {
        &self.datagrams
    }

    /// How many datagrams were sent by machines.
    #[must_use]
    pub fn datagrams_sent(&self) -> u64 {
        self.datagrams_sent
    }

    /// From now on the witness sees to it that no two keys have one name: nobody holds, of a group's
    /// epoch and generation, another key than the server made. Not for runs with a thief who
    /// can sign.
    pub fn watch_keys(&mut self) {
        self.witness.watch_keys();
        let groups = self.server_disk.load().2;
        for group in &groups {
            self.witness.sees_master(self.clock.now(), &group.master);
        }
    }

    /// Groups whose members, as far as they are on, open and in reach of the server, do not all hold
    /// one key.
    #[must_use]
    pub fn split_groups(&self) -> Vec<String> {
        let mut split = Vec::new();
        for group in self.server.iter().flat_map(server::Server::groups) {
            let mut held: BTreeMap<Option<Holding>, Vec<&str>> = BTreeMap::new();
            for station in &self.stations {
                let reached = station.way.as_ref().is_some_and(|way| !way.is_cut());
                let member = group.members.contains(&station.number);
                let Some(machine) = station.machine.as_ref().filter(|it| !it.is_locked()) else {
                    continue;
                };
                if !reached || !member {
                    continue;
                }
                let groups = machine.groups().into_iter();
                let own = groups
                    .filter(|it| it.group == group.number)
                    .map(|it| (it.epoch, it.generation, it.fingerprint))
                    .next();
                held.entry(own).or_default().push(&station.name);
            }
            if held.len() > 1 {
                split.push(format!("group {}: {held:?}", group.number));
            }
        }
        split
    }

    pub(super) fn send_to_server(&mut self, id: StationId, octets: Vec<u8>) {
        if let Some(way) = &self.stations[id.0].way {
            let address = way.address;
            self.send(Direction::ToServer, id, address, octets);
        }
    }

    pub(super) fn send_from_server(&mut self, to: SocketAddr, octets: Vec<u8>) {
        // To an address that no NAT knows any more.
        if let Some(&id) = self.ways.get(&to) {
            self.send(Direction::FromServer, id, to, octets);
        }
    }

    fn send(&mut self, direction: Direction, id: StationId, address: SocketAddr, octets: Vec<u8>) {
        let at = self.now();
        if octets.len() > DATAGRAM_MAX {
            let what = format!("{} octets {direction:?}", octets.len());
            self.witness.note(at, "no datagram over 1,200 octets", what);
        }
        if let Ok(
            Message::Cookie {
                frame: Some(frame), ..
            }
            | Message::Command { frame },
        ) = Message::decode_datagram(&octets)
        {
            self.witness
                .sees_frame(at, &Rc::from(frame), &self.server_disk);
        }
        let datagram = CapturedDatagram {
            at,
            direction,
            station: id,
            address,
            octets: Rc::from(octets),
        };
        self.datagrams_sent += 1;
        let passed = match &mut self.interceptor {
            Some(interceptor) => interceptor(&datagram, &self.datagrams),
            None => vec![(Duration::ZERO, datagram.clone())],
        };
        for (after, datagram) in passed {
            self.pass(after, datagram);
        }
        if self.config.capture {
            self.datagrams.push(datagram);
        }
    }

    /// Puts a datagram on a station's path, whoever made it.
    pub fn inject(&mut self, datagram: CapturedDatagram) {
        self.pass(Duration::ZERO, datagram);
    }

    fn pass(&mut self, after: Duration, datagram: CapturedDatagram) {
        let Some(way) = &mut self.stations[datagram.station.0].way else {
            return;
        };
        let link = match datagram.direction {
            Direction::ToServer => &mut way.up,
            Direction::FromServer => &mut way.down,
        };
        for delay in link.pass() {
            let arrival = Happening::DatagramArrives(datagram.clone());
            self.clock.plan_after(after + delay, arrival);
        }
    }

    pub(super) fn arrive(&mut self, datagram: &CapturedDatagram) {
        match datagram.direction {
            Direction::ToServer => {
                let acks = self.acks_taken();
                self.feed_server(server::Input::Datagram {
                    from: datagram.address,
                    octets: datagram.octets.to_vec(),
                });
                if self.acks_taken() > acks {
                    self.check_confirmations();
                }
            }
            Direction::FromServer => {
                if self.ways.get(&datagram.address) == Some(&datagram.station) {
                    self.feed(datagram.station, Input::FromServer(&datagram.octets));
                }
            }
        }
    }

    fn list_way(&mut self, id: StationId) {
        if let Some(way) = &self.stations[id.0].way {
            self.ways.insert(way.address, id);
        }
    }

    fn acks_taken(&self) -> u64 {
        self.server.as_ref().map_or(0, |it| it.desk_counts().acks)
    }

    /// What the server takes as confirmed lies on a disk.
    fn check_confirmations(&mut self) {
        let Some(server) = &self.server else {
            return;
        };
        for station in &self.stations {
            if station.way.is_none() || station.disk.destroyed.is_some() {
                continue;
            }
            let groups = server.groups();
            for group in groups.filter(|it| it.members.contains(&station.number)) {
                let told = server.confirmed(station.number, group.number);
                let durable = station.disk.held.get(&group.number).copied();
                if told > durable {
                    let (name, number) = (&station.name, group.number);
                    let what = format!("{name} confirmed group {number} {told:?}, not {durable:?}");
                    self.witness.note(self.clock.now(), "invariant 2", what);
                }
            }
        }
    }
}

type Holding = (KeyEpoch, Generation, Fingerprint);

/// Key sharing's limit.
const DATAGRAM_MAX: usize = 1200;
/// As the daemon's: a fleet that is switched on at once does not ask at once.
const ASK_WITHIN: Duration = Duration::from_millis(500);
