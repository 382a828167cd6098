//! A terminal whose disk and clock are in the test's hand.

use core::net::{IpAddr, SocketAddr};

use super::fixture::{Counting, group};
use crate::error::ApiMisuse;
use crate::ids::{Generation, KeyEpoch, Tick};
use crate::stats::DropReason;
use crate::terminal::compartment::{Place, User};
use crate::terminal::{Erase, Event, GroupStatus, Input, Output, Snapshot, StoreId, Terminal};

/// What a disk holds: both compartments.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Disk {
    pub(super) device: Vec<u8>,
    pub(super) user: Vec<u8>,
}

/// A terminal with its disk in the test's hand.
pub(super) struct Driven {
    pub(super) machine: Terminal,
    pub(super) now: Tick,
    rng: Counting,
    /// Asked for and not yet reported as stored.
    pub(super) asked: Vec<(StoreId, Written)>,
    /// What disk holds.
    pub(super) synced: Disk,
    pub(super) events: Vec<Event>,
    pub(super) timeout: Option<Tick>,
    /// Datagrams for the server.
    pub(super) to_server: Vec<Vec<u8>>,
    /// Probes, and towards whom.
    pub(super) probes: Vec<(IpAddr, Vec<u8>)>,
    pub(super) answers: Vec<(SocketAddr, Vec<u8>)>,
    /// What is handed on.
    pub(super) to_peers: Vec<(SocketAddr, Vec<u8>)>,
    /// The terminal's end, where it has come.
    pub(super) erased: Option<Erase>,
}

impl Driven {
    pub(super) fn new(machine: Terminal) -> Self {
        Self {
            machine,
            now: Tick::default(),
            rng: Counting::from(1 << 32),
            asked: Vec::new(),
            synced: Disk::default(),
            events: Vec::new(),
            timeout: None,
            to_server: Vec::new(),
            probes: Vec::new(),
            answers: Vec::new(),
            to_peers: Vec::new(),
            erased: None,
        }
    }

    pub(super) fn feed(&mut self, input: Input<'_>) {
        self.try_feed(input).expect("the test keeps the contract");
    }

    pub(super) fn try_feed(&mut self, input: Input<'_>) -> Result<(), ApiMisuse> {
        let taken = self.machine.handle_input(self.now, &mut self.rng, input);
        self.drain();
        taken
    }

    /// A frame; what it was dropped for, if it was.
    pub(super) fn hear(&mut self, frame: &[u8]) -> Option<DropReason> {
        let before = self.machine.drops.clone();
        self.feed(Input::Datagram(frame));
        DropReason::ALL
            .iter()
            .copied()
            .find(|&reason| self.machine.drops.of(reason) > before.of(reason))
    }

    /// Time goes on by `seconds`.
    pub(super) fn wait(&mut self, seconds: u64) {
        self.now = self.now.plus(std::time::Duration::from_secs(seconds));
        self.feed(Input::Timeout);
    }

    pub(super) fn drain(&mut self) {
        loop {
            match self.machine.poll_output() {
                Output::Store(id, snapshot) => self.asked.push((id, written(&snapshot))),
                Output::Event(event) => self.events.push(event),
                Output::ToServer(datagram) => self.to_server.push(datagram),
                Output::Probe { to, datagram } => self.probes.push((to, datagram)),
                Output::Answer { to, datagram } => self.answers.push((to, datagram)),
                Output::ToPeer { to, datagram } => self.to_peers.push((to, datagram)),
                Output::Erase(erase) => {
                    assert_eq!(self.erased, None, "there is one end");
                    self.erased = Some(erase);
                }
                Output::Timeout { at, .. } => {
                    self.timeout = at;
                    return;
                }
            }
        }
    }

    /// Everything asked for becomes durable.
    pub(super) fn store_all(&mut self) {
        while let Some((id, written)) = self.asked.pop() {
            self.asked.clear();
            self.sync(written);
            self.feed(Input::Stored(id));
        }
    }

    fn sync(&mut self, (device, user): Written) {
        self.synced.device = device;
        if let Some(user) = user {
            self.synced.user = user;
        }
    }

    /// What disk would hold if all of memory that survives were stored now.
    pub(super) fn snapshot(&self) -> Written {
        written(&self.machine.snapshot())
    }

    /// The same terminal after a power cut; its machine opens both compartments.
    pub(super) fn restarted(&self) -> Self {
        self.restored(Some(&self.synced.user))
    }

    /// The same after a power cut, before PIN or passphrase.
    pub(super) fn restarted_locked(&self) -> Self {
        self.restored(None)
    }

    fn restored(&self, user: Option<&[u8]>) -> Self {
        let device = &self.synced.device;
        let machine = Terminal::restore(device, user, Tick::default()).expect("own snapshot");
        let mut driven = Self::new(machine);
        driven.synced = self.synced.clone();
        driven.drain();
        driven
    }

    /// PIN or passphrase opens what disk holds.
    pub(super) fn unlock(&mut self) -> Result<(), ApiMisuse> {
        let user = self.synced.user.clone();
        self.try_feed(Input::Unlock(&user))
    }

    /// Its driver draws other octets than any before.
    pub(super) fn reseed(&mut self, seed: u64) {
        self.rng = Counting::from(seed << 48);
    }

    /// The open user compartment.
    pub(super) fn user(&self) -> &User {
        self.machine.user.as_ref().expect("unlocked")
    }

    /// Under which handles and wrap keys a distribution under `g` would be found.
    pub(super) fn places(&self, g: Generation) -> Vec<Place> {
        self.user().places(g, self.machine.g).collect()
    }

    /// The group as status shows it.
    pub(super) fn status(&self) -> GroupStatus {
        let group = self.machine.groups().into_iter().next();
        group.expect("a member")
    }

    pub(super) fn epoch(&self) -> KeyEpoch {
        self.status().epoch
    }

    /// The newest generation of the group.
    pub(super) fn generation(&self) -> Option<u32> {
        let status = self.machine.groups().into_iter().next()?;
        Some(status.generation.get())
    }

    /// The generation that it sends with.
    pub(super) fn sending(&self) -> Option<u32> {
        self.machine
            .send_key(group())
            .map(|key| key.generation().get())
    }
}

/// A snapshot as octets.
pub(super) type Written = (Vec<u8>, Option<Vec<u8>>);

fn written(snapshot: &Snapshot) -> Written {
    let user = snapshot.user.as_ref().map(|user| user.to_vec());
    (snapshot.device.to_vec(), user)
}
