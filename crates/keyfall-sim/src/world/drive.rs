//! What a world does for its machines: the daemons' part.

use std::rc::Rc;
use std::time::Duration;

use keyfall_protocol::server::{self, By, Moment};
use keyfall_protocol::terminal::{Event, Input, Output, StoreId};

use crate::capture::Captured;
use crate::snapshot::{DiskImage, Loot};
use crate::station::{StationId, Told};
use crate::world::{Happening, World, holds};

impl World {
    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::ServerWakes => {
                if self.server_wake.is_some_and(|at| at <= self.now()) {
                    self.server_wake = None;
                    self.feed_server(server::Input::Timeout);
                }
            }
            Happening::ServerCommits(boot, id) if boot == self.server_boots => self.commit(id),
            Happening::ServerCommitted(boot, id) if boot == self.server_boots => {
                self.feed_server(server::Input::Stored(id));
            }
            Happening::ServerWorked(boot, worked) if boot == self.server_boots => {
                self.feed_server(server::Input::Worked(worked));
            }
            Happening::ServerCommits(..)
            | Happening::ServerCommitted(..)
            | Happening::ServerWorked(..) => {}
            Happening::ServerStarts => self.start_server(),
            Happening::ServerCrashes => self.crash_server(),
            Happening::OrderComes(id, errand) => {
                let by = By {
                    actor: "uid 0".to_owned(),
                    reason: None,
                    ticket: None,
                };
                match self.carry(errand) {
                    Some(Ok(order)) => {
                        self.feed_server(server::Input::Order { id, order, by });
                    }
                    Some(Err(refusal)) => {
                        self.done.insert(id, Err(refusal));
                    }
                    None => {}
                }
            }
            Happening::StationWakes(id) => {
                if self.stations[id.0].wake.is_some_and(|at| at <= self.now()) {
                    self.stations[id.0].wake = None;
                    self.feed(id, Input::Timeout);
                }
            }
            Happening::StationWrites(id, boot, store, image) => self.write(id, boot, store, image),
            Happening::StationWrote(id, boot, store) => {
                if self.stations[id.0].boots == boot {
                    self.feed(id, Input::Stored(store));
                }
            }
            Happening::StationDestroys(id, boot, erase) => {
                if self.stations[id.0].boots == boot {
                    let disk = &mut self.stations[id.0].disk;
                    (disk.synced, disk.asked) = Default::default();
                    disk.held.clear();
                    disk.destroyed = Some(erase);
                    self.finish_erasure(id);
                }
            }
            Happening::StationErased(id, boot) => {
                if self.stations[id.0].boots == boot {
                    self.stations[id.0].disk.erased = true;
                }
            }
            Happening::StationUnlocks(id, boot) => {
                if self.stations[id.0].boots == boot {
                    self.unlock(id);
                }
            }
            Happening::LinkTurns(id, cut) => self.cut_link(id, cut),
            Happening::StationStarts(id) => self.start(id),
            Happening::StationCrashes(id) => self.crash(id),
            Happening::FrameArrives(id, octets) => self.feed(id, Input::Datagram(&octets)),
            Happening::DatagramArrives(datagram) => self.arrive(&datagram),
            Happening::Rebinds(id) => self.rebind(id),
            Happening::WayTurns(id, cut) => self.cut_way_back(id, cut),
        }
    }

    pub(super) fn moment(&self) -> Moment {
        Moment {
            now: self.now(),
            wall: self.wall(),
        }
    }

    pub(super) fn feed_server(&mut self, input: server::Input) {
        let at = self.moment();
        let Some(server) = &mut self.server else {
            return;
        };
        if let Err(misuse) = server.handle_input(at, &mut self.rng, input) {
            let what = format!("server: {misuse}");
            self.witness.note(at.now, "the drive contract", what);
        }
        self.drain_server();
    }

    pub(super) fn drain_server(&mut self) {
        let now = self.now();
        while let Some(server) = &mut self.server {
            match server.poll_output() {
                server::Output::Store(id) => {
                    let at = self
                        .server_busy_until
                        .max(now)
                        .plus(self.config.server_disk.write);
                    self.server_busy_until = at;
                    self.clock
                        .plan(at, Happening::ServerCommits(self.server_boots, id));
                }
                server::Output::Transmit { item, frame } => {
                    let octets: Rc<[u8]> = Rc::from(frame);
                    self.witness.sees_frame(now, &octets, &self.server_disk);
                    self.broadcast(&octets);
                    if self.config.capture {
                        self.frames.push(Captured {
                            at: now,
                            item,
                            octets,
                        });
                    }
                }
                server::Output::Send { to, octets } => self.send_from_server(to, octets),
                server::Output::Work(job) => {
                    let worked = job.run(&mut self.rng);
                    let longest = u64::try_from(self.config.work.as_nanos()).unwrap_or(u64::MAX);
                    let taken = Duration::from_nanos(self.rng.below(longest));
                    let done = Happening::ServerWorked(self.server_boots, worked);
                    self.clock.plan_after(taken, done);
                }
                server::Output::Done { id, outcome } => {
                    self.done.insert(id, outcome);
                }
                server::Output::Timeout { at } => {
                    let sooner = at.filter(|&at| self.server_wake.is_none_or(|wake| at < wake));
                    if let Some(at) = sooner {
                        self.server_wake = Some(at);
                        self.clock.plan(at, Happening::ServerWakes);
                    }
                    return;
                }
            }
        }
    }

    fn broadcast(&mut self, octets: &Rc<[u8]>) {
        for (place, station) in self.stations.iter_mut().enumerate() {
            let arrivals = station.link.pass();
            if station.machine.is_none() {
                continue;
            }
            for delay in arrivals {
                let arrival = Happening::FrameArrives(StationId(place), octets.clone());
                self.clock.plan_after(delay, arrival);
            }
        }
    }

    fn commit(&mut self, id: server::StoreId) {
        if self.commits_to_fail > 0 {
            self.commits_to_fail -= 1;
            self.feed_server(server::Input::NotStored(id));
            return;
        }
        if let Some(batch) = self.server.as_ref().and_then(|server| server.batch(id)) {
            self.server_disk.commit(batch);
            self.witness.sees_batch(self.clock.now(), batch);
            let committed = Happening::ServerCommitted(self.server_boots, id);
            self.clock
                .plan_after(self.config.server_disk.confirm, committed);
        }
    }

    pub(super) fn drain_station(&mut self, id: StationId) {
        let now = self.now();
        let delay = self.config.station_disk;
        while let Some(machine) = &mut self.stations[id.0].machine {
            let output = machine.poll_output();
            let station = &mut self.stations[id.0];
            match output {
                Output::Store(store, snapshot) => {
                    let at = station.disk.busy_until.max(now).plus(delay.write);
                    let image = station.disk.asked.after(&snapshot);
                    station.disk.busy_until = at;
                    station.disk.stores += 1;
                    station.disk.asked = image.clone();
                    match Loot::read(&station.disk.asked) {
                        Ok(loot) if snapshot.user.is_some() => station.memory.sees(&loot),
                        Ok(_) => {}
                        Err(error) => {
                            let what = format!("{}: {error}", station.name);
                            self.witness.note(now, "snapshots are readable", what);
                        }
                    }
                    let write = Happening::StationWrites(id, station.boots, store, image);
                    self.clock.plan(at, write);
                }
                Output::Erase(erase) => {
                    // The root secrets go at once; whatever is still being written is void.
                    station.forget();
                    station.promised.clear();
                    station.boots += 1;
                    let at = now.plus(delay.write);
                    let destroys = Happening::StationDestroys(id, station.boots, erase);
                    self.clock.plan(at, destroys);
                }
                Output::ToServer(octets) => self.send_to_server(id, octets),
                // Nobody here has a packet port.
                Output::Probe { .. } | Output::Answer { .. } | Output::ToPeer { .. } => {}
                Output::Event(event) => {
                    if let Event::Retired {
                        group,
                        epoch,
                        generation,
                    } = event
                    {
                        station.ear.retire(group, epoch, generation);
                    }
                    if let Event::Locked { .. } = event {
                        station.forget();
                    }
                    if event == Event::UnlockAllowed && !station.has_passphrase {
                        let unlocks = Happening::StationUnlocks(id, station.boots);
                        self.clock.plan(now, unlocks);
                    }
                    self.witness.sees_event(now, station, &event);
                    station.told.push(Told { at: now, event });
                }
                Output::Timeout { at, .. } => {
                    let at = at.map(|at| station.world_time(at));
                    let sooner = at.filter(|&at| station.wake.is_none_or(|wake| at < wake));
                    if let Some(at) = sooner {
                        station.wake = Some(at);
                        self.clock.plan(at, Happening::StationWakes(id));
                    }
                    return;
                }
            }
        }
    }

    fn write(&mut self, id: StationId, boot: u32, store: StoreId, image: DiskImage) {
        let station = &mut self.stations[id.0];
        if station.boots != boot {
            return;
        }
        if let Ok(loot) = Loot::read(&image) {
            station.disk.held = holds(&loot);
        }
        station.disk.synced = image;
        let wrote = Happening::StationWrote(id, boot, store);
        self.clock
            .plan_after(self.config.station_disk.confirm, wrote);
    }

    /// Nothing opens any more; what lies about is removed.
    pub(super) fn finish_erasure(&mut self, id: StationId) {
        let erased = Happening::StationErased(id, self.stations[id.0].boots);
        self.clock
            .plan_after(self.config.station_disk.confirm, erased);
    }
}
