//! What operators and the schedule order, judged before anything changes.

mod enrolling;
mod erasing;
mod exclusion;
mod groups;
mod legacy;
mod meeting;
mod packets;
mod renewing;
mod signing;

use core::net::SocketAddr;
pub use enrolling::{TOKEN_LIFE, TOKEN_LIFE_MAX, TOKEN_LIFE_MIN, WIPE_ROOTS_MAX};
pub use exclusion::{EXCLUDED_A_DAY, Reach};
use groups::note_change;
pub(super) use groups::search_key;
pub use groups::{ACTIVATION_LEAD, CHANGE_LEAD, GRACE_MIN};
pub use meeting::TokenMisuse;
pub use packets::{AddressWish, PacketWish};
pub use signing::{DraftedKeys, KeySetDraft};

use zeroize::Zeroizing;

use crate::command::{FreshEpoch, OrderKind};
use crate::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, UnixSeconds};
use crate::receipt::Receipt;
use crate::rng::Random;
use crate::schedule::Cadence;
use crate::server::{
    Addresses, AuditEntry, Batch, By, ChangeMode, ChangeReport, GroupPolicy, GroupRecord,
    PacketSettings, Refusal, Server, Stragglers, TerminalRecord,
};
use crate::sharing::SharingSuite;
use crate::sharing::rsa_misty1::RsaPublic;

/// What may be ordered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Enrols a terminal and seals its package.
    AddTerminal {
        name: String,
        sealing: PackageSealing,
        /// Directories that INIT wipes beside the state directory.
        wipe_roots: Vec<String>,
    },
    /// A group with a fresh epoch, distributed to its members. A cadence of 64 generations is the
    /// policy "one generation a call".
    CreateGroup {
        name: String,
        members: Vec<TerminalNumber>,
        cadence: Option<Cadence>,
        /// `Some`: a packet group from the start.
        packets: Option<PacketSettings>,
    },
    /// One renewal, so that the past stays closed, then a KEYDIST to the newcomer.
    AddMember {
        group: GroupNumber,
        terminal: TerminalNumber,
    },
    /// A fresh epoch without it. The group may become empty.
    RemoveMember {
        group: GroupNumber,
        terminal: TerminalNumber,
    },
    /// One generation further, by command.
    RenewGroup { group: GroupNumber },
    /// A fresh epoch for everyone in it.
    RekeyGroup { group: GroupNumber },
    /// Sets what is named of the group's [`GroupPolicy`].
    SetGroup {
        group: GroupNumber,
        change: Option<ChangeMode>,
        stragglers: Option<Stragglers>,
        legacy: Option<bool>,
    },
    /// Sets what is named of the group's [`PacketSettings`]; who becomes a packet group gets its search
    /// key with a fresh epoch.
    SetPackets {
        group: GroupNumber,
        wish: PacketWish,
    },
    /// Sets what is named of the terminal's [`Addresses`].
    SetAddresses {
        terminal: TerminalNumber,
        wish: AddressWish,
    },
    /// Protection records are signed again before they end. No operator gives it.
    SignRecords,
    /// G one further: all wrap keys of the fleet.
    RenewDevices,
    /// One terminal's wrap key one further than the others'.
    RenewDevice { terminal: TerminalNumber },
    /// Shuts 1 to [`EXCLUDED_MAX`](crate::command::EXCLUDED_MAX) terminals out for good.
    Exclude { terminals: Vec<TerminalNumber> },
    /// A command that [`Server::draft_order`] made, signed by the erase class.
    Issue { frame: Vec<u8> },
    /// A terminal's evidence that it obeyed.
    Receipt { receipt: Receipt },
    /// The KEYSET that [`Server::draft_key_set`] made, signed by the root.
    InstallKeys { frame: Vec<u8> },
    /// A restored server may send again: who is excluded and what was lost was looked at.
    Confirm,
    /// A terminal has shown from there that it mixed fresh octets into its wrap key (FORMATS section 8).
    FirstContact {
        terminal: TerminalNumber,
        from: SocketAddr,
    },
    /// Somebody came with a token in another way than it is meant.
    NoteToken {
        terminal: TerminalNumber,
        misuse: TokenMisuse,
    },
    /// The key under which that terminal gets its answers in the suite rsa-misty1; `None`: it gets
    /// none any more.
    SetLegacyKey {
        terminal: TerminalNumber,
        key: Option<RsaPublic>,
    },
    /// A terminal asked in a suite that it is not to speak; `None`: the suite does not say which.
    NoteDowngrade {
        terminal: Option<TerminalNumber>,
        suite: SharingSuite,
    },
    /// By the policy of its group, stragglers are taken out of it: a fresh epoch without them. No
    /// operator gives it.
    LeaveOut {
        group: GroupNumber,
        terminals: Vec<TerminalNumber>,
    },
    /// The end of a change is written down. No operator gives it.
    NoteChange(Box<ChangeReport>),
    /// The schedules say so: every group, and G, to where they should be by now.
    Scheduled,
}

/// To whom a package is sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PackageSealing {
    /// The key that `terminal enrol --request` printed.
    ToRequest([u8; 32]),
    /// A fresh code, shown apart.
    UnderCode,
    /// There is no package: its contents come over the network, to who shows a token that is good for
    /// so many seconds.
    ByToken { life: u32 },
}

/// What came of an order, for the one who gave it.
#[derive(Debug)]
pub enum Done {
    Nothing,
    /// What was due by the schedules, so many ticks of the root's among it.
    Scheduled {
        ticks: u32,
    },
    Terminal {
        number: TerminalNumber,
        /// Empty where a token takes its place.
        package: Vec<u8>,
        sealed: SealedFor,
        expires: UnixSeconds,
    },
    Group {
        number: GroupNumber,
        epoch: KeyEpoch,
    },
    Member {
        group: GroupNumber,
        generation: Generation,
    },
    Removed {
        group: GroupNumber,
        terminal: TerminalNumber,
        epoch: KeyEpoch,
        /// When the fresh epoch becomes active.
        at: UnixSeconds,
    },
    Renewed {
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
        at: UnixSeconds,
    },
    Rekeyed {
        group: GroupNumber,
        epoch: KeyEpoch,
        at: UnixSeconds,
    },
    GroupSet {
        group: GroupNumber,
        before: GroupPolicy,
        after: GroupPolicy,
    },
    PacketsSet {
        group: GroupNumber,
        packets: Option<PacketSettings>,
        /// That began with it, and when it becomes active.
        fresh: Option<(KeyEpoch, UnixSeconds)>,
    },
    AddressesSet {
        terminal: TerminalNumber,
        addresses: Addresses,
    },
    FleetRenewed {
        generation: Generation,
    },
    DeviceRenewed {
        terminal: TerminalNumber,
        offset: u32,
        generation: Generation,
    },
    Excluded {
        /// Of the exclusion.
        number: u32,
        groups: Vec<FreshEpoch>,
        reach: Reach,
    },
    /// Sent from now on; nothing is proved.
    Issued {
        terminal: TerminalNumber,
        kind: OrderKind,
        hash: [u8; 32],
    },
    Proved {
        terminal: TerminalNumber,
        kind: OrderKind,
        at: UnixSeconds,
    },
    KeysInstalled {
        version: u32,
        expires: UnixSeconds,
        generation: Generation,
        /// Where a stolen key was dropped: every group.
        groups: Vec<FreshEpoch>,
        /// Terminals whose standing order too few of the erase keys now listed have signed: draft
        /// it again.
        sign_again: Vec<(TerminalNumber, OrderKind)>,
    },
    /// Sending begins.
    Confirmed {
        /// So many terminals are excluded.
        excluded: usize,
    },
}

/// How a finished package is sealed.
#[derive(Debug)]
pub enum SealedFor {
    Request,
    /// The code that opens it: to be carried by another way than the package.
    Code(Zeroizing<String>),
    /// The token by which the terminal fetches what a package would bring.
    Token(Zeroizing<String>),
}

pub(super) type Prepared = Result<(Batch, Done), Refusal>;

impl Server {
    /// Judges an order and says what it would change.
    pub(super) fn prepare(&self, order: Order, by: By, rng: &mut dyn Random) -> Prepared {
        match order {
            Order::AddTerminal {
                name,
                sealing,
                wipe_roots,
            } => self.add_terminal(&name, &sealing, wipe_roots, by, rng),
            Order::CreateGroup {
                name,
                members,
                cadence,
                packets,
            } => self.create_group(&name, &members, cadence, packets, (by, rng)),
            Order::AddMember { group, terminal } => self.add_member(group, terminal, by),
            Order::RemoveMember { group, terminal } => self.remove_member(group, terminal, by, rng),
            Order::RenewGroup { group } => {
                let record = self.group(group)?;
                let target = self.next_by_order(record);
                self.renew_group(record, target, "renew", by)
            }
            Order::RekeyGroup { group } => self.rekey_group(self.group(group)?, by, rng),
            Order::SetGroup {
                group,
                change,
                stragglers,
                legacy,
            } => {
                let record = self.group(group)?;
                let wanted = record.policy.with(change, stragglers, legacy);
                Ok(self.set_group(record, wanted, by))
            }
            Order::SetPackets { group, wish } => {
                self.set_packets(self.group(group)?, wish, by, rng)
            }
            Order::SetAddresses { terminal, wish } => self.set_addresses(terminal, wish, by),
            Order::SignRecords => Ok(self.sign_records(by)),
            Order::RenewDevices => {
                self.renew_devices(self.fleet.fleet_generation.next(), "renew devices", by)
            }
            Order::RenewDevice { terminal } => self.renew_device(terminal, by),
            Order::Exclude { terminals } => self.exclude(&terminals, by, rng),
            Order::Issue { frame } => self.issue(frame, by),
            Order::Receipt { receipt } => self.prove(receipt, by),
            Order::InstallKeys { frame } => self.install_keys(frame, by, rng),
            Order::Confirm => self.confirm(by),
            Order::FirstContact { terminal, from } => self.first_contact(terminal, from, by),
            Order::NoteToken { terminal, misuse } => self.note_token(terminal, misuse, by),
            Order::SetLegacyKey { terminal, key } => self.set_legacy_key(terminal, key, by),
            Order::NoteDowngrade { terminal, suite } => self.note_downgrade(terminal, suite, by),
            Order::LeaveOut { group, terminals } => self.leave_out(group, &terminals, by, rng),
            Order::NoteChange(report) => Ok((note_change(report), Done::Nothing)),
            Order::Scheduled => self.scheduled(by),
        }
    }

    /// Puts what is due by the schedules before everything else that waits: one batch for all. Looks
    /// at the groups only where one of their schedules has moved.
    pub(super) fn schedule_renewals(&mut self) {
        let wall = self.at.wall;
        if self.storing.is_some() || self.schedule_moves.is_some_and(|at| wall < at) {
            return;
        }
        self.schedule_moves = self.next_move(wall);
        let by = |reason: Option<&str>| By {
            actor: "scheduler".to_owned(),
            reason: reason.map(str::to_owned),
            ticket: None,
        };
        let waits = |server: &Self, wanted: &Order| {
            let mut waiting = server.waiting.iter();
            waiting.any(|(_, order, _)| order == wanted)
        };
        if let Some(group) = self.aged() {
            let now = self.at.now;
            if now >= self.next_aged {
                self.next_aged = now.plus(self.time_to_distribute(group));
                let by = by(Some("the epoch's life ends"));
                let rekey = Order::RekeyGroup { group };
                if !waits(self, &rekey) {
                    self.waiting.push_back((None, rekey, by));
                }
            } else {
                let pause = self.next_aged.since(now).as_secs() + 1;
                let then = wall.plus(u32::try_from(pause).unwrap_or(u32::MAX));
                let moves = self.schedule_moves.map_or(then, |at| at.min(then));
                self.schedule_moves = Some(moves);
            }
        }
        if self.records_age() && !waits(self, &Order::SignRecords) {
            self.waiting.push_back((None, Order::SignRecords, by(None)));
        }
        if self.is_due() && !waits(self, &Order::Scheduled) {
            self.waiting.push_front((None, Order::Scheduled, by(None)));
        }
    }

    fn group(&self, number: GroupNumber) -> Result<&GroupRecord, Refusal> {
        self.groups
            .get(&number)
            .ok_or_else(|| Refusal::NoSuchGroup(number.to_string()))
    }

    pub(super) fn terminal(&self, number: TerminalNumber) -> Result<&TerminalRecord, Refusal> {
        self.terminals
            .get(&number)
            .ok_or_else(|| Refusal::NoSuchTerminal(number.to_string()))
    }

    /// The terminal, where it is not excluded and its keys are not lost.
    fn trusted_terminal(&self, number: TerminalNumber) -> Result<&TerminalRecord, Refusal> {
        if self.is_lost(number) {
            return Err(Refusal::KeysLost(number));
        }
        self.admitted_terminal(number)
    }

    /// The terminal, where it is not excluded.
    fn admitted_terminal(&self, number: TerminalNumber) -> Result<&TerminalRecord, Refusal> {
        let terminal = self.terminal(number)?;
        match terminal.excluded_at {
            None => Ok(terminal),
            Some(_) => Err(Refusal::Excluded(number)),
        }
    }

    pub(super) fn audit(
        &self,
        by: By,
        action: &'static str,
        subject: &str,
        outcome: String,
    ) -> AuditEntry {
        AuditEntry {
            at: self.at.wall,
            actor: by.actor,
            action,
            subject: subject.to_owned(),
            outcome,
            reason: by.reason,
            ticket: by.ticket,
        }
    }
}
