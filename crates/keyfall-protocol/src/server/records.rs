//! What the server knows of its fleet, and the changes that its store makes durable.

use std::collections::BTreeSet;

use crate::command::{FreshEpoch, KeySet, OrderKind, SEARCH_KEY_LEN, SigningKey, VerifyingKey};
use crate::ids::{
    Generation, GroupNumber, KeyEpoch, SequenceNumber, StreamId, TerminalNumber, UnixSeconds,
};
use crate::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use crate::schedule::Schedule;
use crate::server::{
    Addresses, ChangeBegun, ChangeReport, GroupPolicy, PacketSettings, RecordIssue, Restored,
};
use crate::sharing::KemSecret;
use crate::sharing::rsa_misty1::{RsaPublic, RsaSecret};
use crate::token::TokenRecord;

/// The fleet as a whole.
#[derive(Debug)]
pub struct FleetRecord {
    pub name: String,
    pub stream: StreamId,
    pub root: VerifyingKey,
    /// As the root signed it.
    pub key_set_frame: Vec<u8>,
    pub key_set: KeySet,
    pub beat: SigningKey,
    pub keys: SigningKey,
    /// To which terminals seal their requests, as the KEYSET lists them.
    pub kem: Option<KemSecret>,
    pub kem_pq: Option<KemSecret>,
    /// The same for the suite rsa-misty1, where the KEYSET lists one.
    pub rsa: Option<RsaSecret>,
    pub fleet_generation: Generation,
    /// Every sequence number below this may have been used.
    pub sequence_reserved: SequenceNumber,
    pub carriers: Vec<String>,
    /// Where terminals that can answer reach this server: "HOST:PORT".
    pub servers: Vec<String>,
    /// Socket addresses at which it listens for them.
    pub listen: Vec<String>,
    /// Seconds that terminals keep a rank-1 generation after the next one came.
    pub keep_time: u32,
    /// Seconds after which a group gets a fresh epoch by itself; 0: never.
    pub epoch_life: u32,
    pub bits_per_second: u64,
}

/// One enrolment.
#[derive(Debug)]
pub struct TerminalRecord {
    pub number: TerminalNumber,
    pub name: String,
    pub obey: ObeyKey,
    /// At G and the terminal's own offset, 0 to [`OFFSET_MAX`].
    pub wrap: WrapKey,
    pub added_at: UnixSeconds,
    pub package_expires: UnixSeconds,
    /// What INIT wipes beside the state directory, as the package declared it.
    pub wipe_roots: Vec<String>,
    /// It is enrolled by this token instead of a package, which is good until `package_expires`.
    pub token: Option<TokenRecord>,
    /// Since then its wrap key holds octets that were in no package: the first to ask has it, and no
    /// copy of the package.
    pub mixed_at: Option<UnixSeconds>,
    /// Its key for answers in the suite rsa-misty1, as an operator registered it.
    pub legacy_key: Option<RsaPublic>,
    /// For which addresses it speaks, and where it is heard.
    pub addresses: Addresses,
    /// Its newest protection record; `None`: it never had addresses.
    pub record: Option<RecordIssue>,
    /// From then on it is in no group, for good.
    pub excluded_at: Option<UnixSeconds>,
    /// Every stretch of belonging to a group, in the order in which they began.
    pub memberships: Vec<Membership>,
    /// DELETE, INIT, LOCK and UNLOCK that were given to it, in their order.
    pub orders: Vec<IssuedOrder>,
}

/// One stretch for which a terminal belonged to a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Membership {
    pub group: GroupNumber,
    pub from: UnixSeconds,
    /// When it left, and the group a fresh epoch without it; `None`: it is a member.
    pub until: Option<UnixSeconds>,
}

/// A command of the erase class, as it came back signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IssuedOrder {
    pub kind: OrderKind,
    /// Of LOCK and UNLOCK, else `None`.
    pub version: Option<u32>,
    pub frame: Vec<u8>,
    /// SHA-256 of the frame: its name in a receipt.
    pub hash: [u8; 32],
    /// When the server took it.
    pub at: UnixSeconds,
    pub not_after: UnixSeconds,
    pub receipt_wanted: bool,
    /// When a receipt turned "sent" into "proved".
    pub proved_at: Option<UnixSeconds>,
}

/// One group.
#[derive(Debug)]
pub struct GroupRecord {
    pub number: GroupNumber,
    pub name: String,
    /// May be empty: all left or were excluded.
    pub members: BTreeSet<TerminalNumber>,
    pub master: MasterKey,
    pub schedule: Schedule,
    /// Seconds from a statement to the end of the lease that it gives.
    pub lease: u32,
    pub policy: GroupPolicy,
    /// What makes it a packet group; `None`: it is none.
    pub packets: Option<PacketSettings>,
    /// The search key KS of its present epoch, where that began in a packet group.
    pub search_key: Option<Secret<SEARCH_KEY_LEN>>,
    /// Every statement that was no continuation of the one before, in their order; the first is
    /// that of the group's creation. What the past was, for [`Server::exposure`](super::Server).
    pub statements: Vec<Statement>,
}

impl GroupRecord {
    /// When its present epoch was drawn.
    #[must_use]
    pub fn epoch_drawn_at(&self) -> UnixSeconds {
        let epoch = self.master.epoch();
        let first = self.statements.iter().find(|it| it.epoch == epoch);
        first.map_or(self.schedule.activate_at, |it| it.stated_at)
    }
}

/// A place in the life of a group's key from which it went on by its schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statement {
    /// From when on it holds, where `activate_at` is not later; the ticks by which it is counted
    /// may be earlier.
    pub stated_at: UnixSeconds,
    pub epoch: KeyEpoch,
    pub schedule: Schedule,
}

/// One order to exclude.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exclusion {
    /// From 1, one for each order.
    pub number: u32,
    pub at: UnixSeconds,
    /// Rising.
    pub terminals: Vec<TerminalNumber>,
    pub groups: Vec<FreshEpoch>,
}

/// One step of the server's state, made durable before anything of it is sent.
#[derive(Debug)]
pub enum Change {
    /// Sequence numbers below this may be used from now on.
    Sequence(SequenceNumber),
    /// A new terminal.
    Terminal(TerminalRecord),
    /// A new group; each of its members is one from `statements[0].stated_at` on.
    Group(GroupRecord),
    /// A terminal became a member.
    Member {
        group: GroupNumber,
        terminal: TerminalNumber,
        from: UnixSeconds,
    },
    /// A member is one no more.
    Left {
        group: GroupNumber,
        terminal: TerminalNumber,
        until: UnixSeconds,
    },
    /// A group's key after a renewal or in a fresh epoch.
    Master { key: MasterKey, schedule: Schedule },
    /// The change of a running group's key begins, after what else of it is made.
    Begun(ChangeBegun),
    /// One has ended: what [`Server::change_of`](super::Server) says of it.
    Ended(Box<ChangeReport>),
    /// A group's [`GroupRecord::policy`].
    Policy {
        group: GroupNumber,
        policy: GroupPolicy,
    },
    /// A group's [`GroupRecord::packets`].
    Packets {
        group: GroupNumber,
        packets: Option<PacketSettings>,
    },
    /// A group's [`GroupRecord::search_key`], drawn with its epoch.
    SearchKey {
        group: GroupNumber,
        key: Option<Secret<SEARCH_KEY_LEN>>,
    },
    /// A terminal's [`TerminalRecord::addresses`].
    Addresses {
        terminal: TerminalNumber,
        addresses: Addresses,
    },
    /// Terminals whose protection record is another one from now on, rising.
    Recorded(Vec<(TerminalNumber, RecordIssue)>),
    /// One more of the group's [`GroupRecord::statements`].
    Stated {
        group: GroupNumber,
        statement: Statement,
    },
    /// G, and every wrap key that it moves.
    Fleet {
        generation: Generation,
        wraps: Vec<WrapKey>,
    },
    /// One terminal's wrap key, one further than the others'.
    Wrap(WrapKey),
    /// One terminal's wrap key, with fresh octets in it, at the same generation; its token, where it has
    /// one, is used.
    Mixed { wrap: WrapKey, at: UnixSeconds },
    /// A terminal's [`TerminalRecord::legacy_key`].
    LegacyKey {
        terminal: TerminalNumber,
        key: Option<RsaPublic>,
    },
    /// A token that nobody may use any more.
    TokenVoid(TerminalNumber),
    /// A new exclusion: each of its terminals has that `excluded_at`.
    Excluded(Exclusion),
    /// One more of the terminal's [`TerminalRecord::orders`].
    Ordered {
        terminal: TerminalNumber,
        issued: IssuedOrder,
    },
    /// The order with that hash was obeyed.
    Proved {
        terminal: TerminalNumber,
        hash: [u8; 32],
        at: UnixSeconds,
    },
    /// A new KEYSET and the online keys that it lists.
    Keys(Box<NewKeys>),
    /// The server was restored from a copy, or that was confirmed.
    Restored(Box<Restored>),
}

/// What [`Change::Keys`] brings.
#[derive(Debug)]
pub struct NewKeys {
    /// As the root signed it.
    pub key_set_frame: Vec<u8>,
    pub key_set: KeySet,
    pub beat: SigningKey,
    pub keys: SigningKey,
    /// `None`: as they are.
    pub kem: Option<KemSecret>,
    pub kem_pq: Option<KemSecret>,
    /// `None`: from now on there is none.
    pub rsa: Option<RsaSecret>,
}

/// One transaction: changes with their audit and order-journal entries.
#[derive(Debug)]
pub struct Batch {
    /// In the order in which they have to be made.
    pub changes: Vec<Change>,
    pub audit: Option<AuditEntry>,
    pub journal: Option<JournalEntry>,
}

/// Who did what and why; the store chains it to the one before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditEntry {
    pub at: UnixSeconds,
    /// "uid 1000", or "scheduler".
    pub actor: String,
    /// The verb, as on the command line.
    pub action: &'static str,
    /// What it was done to.
    pub subject: String,
    /// What came of it.
    pub outcome: String,
    pub reason: Option<String>,
    pub ticket: Option<String>,
}

/// What a restored server must not forget (FORMATS section 12). Holds no secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JournalEntry {
    Enrolment {
        terminal: TerminalNumber,
        name: String,
    },
    /// A group's fresh epoch, its first one too.
    Epoch {
        group: GroupNumber,
        epoch: KeyEpoch,
        name: String,
    },
    /// With the renewal that goes before it.
    Member {
        group: GroupNumber,
        terminal: TerminalNumber,
        epoch: KeyEpoch,
        generation: Generation,
    },
    /// Members were removed; the group's fresh epoch without them.
    Removal {
        group: GroupNumber,
        terminals: Vec<TerminalNumber>,
        epoch: KeyEpoch,
    },
    Renewal {
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
    },
    /// What an operator set of a group, all of it.
    Policy {
        group: GroupNumber,
        policy: GroupPolicy,
    },
    /// What an operator set of a packet group, all of it; the fresh epoch that came with it, where one
    /// did.
    Packets {
        group: GroupNumber,
        packets: Option<PacketSettings>,
        epoch: Option<KeyEpoch>,
    },
    /// What an operator set of a terminal's addresses, all of it.
    Addresses {
        terminal: TerminalNumber,
        addresses: Addresses,
    },
    /// What an operator registered of a terminal; `None`: took away.
    LegacyKey {
        terminal: TerminalNumber,
        key: Option<RsaPublic>,
    },
    FleetGeneration {
        generation: Generation,
    },
    /// A terminal's wrap key stands at this generation: G and its offset.
    Device {
        terminal: TerminalNumber,
        generation: Generation,
        offset: u32,
    },
    Exclusion {
        terminals: Vec<TerminalNumber>,
        groups: Vec<FreshEpoch>,
    },
    /// DELETE, INIT, LOCK or UNLOCK.
    Order {
        terminal: TerminalNumber,
        kind: OrderKind,
        version: Option<u32>,
    },
    /// A new KEYSET, the G that it leads to, and the fresh epochs that came with it.
    KeySet {
        version: u32,
        generation: Generation,
        groups: Vec<FreshEpoch>,
        /// As the root signed it.
        frame: Vec<u8>,
    },
    /// The server was restored: G, and what each group whose key changed is at.
    Restored {
        generation: Generation,
        keys: Vec<(GroupNumber, KeyEpoch, Generation)>,
        /// The end of the journal was lost.
        incomplete: bool,
    },
}

impl FleetRecord {
    /// When the first of the online keys ends, long ago for one that the KEYSET does not list: after
    /// it only what others signed is sent.
    #[must_use]
    pub fn signers_expire(&self) -> UnixSeconds {
        [&self.beat, &self.keys]
            .map(|key| {
                let listed = self.key_set.listed(&key.public());
                listed.map_or(UnixSeconds::new(0), |listed| listed.expires)
            })
            .into_iter()
            .min()
            .unwrap_or(UnixSeconds::new(0))
    }
}

impl GroupRecord {
    /// Whether the schedule is past the generation held.
    pub(super) fn is_due(&self, wall: UnixSeconds) -> bool {
        self.schedule.generation_at(wall) > self.master.generation()
    }
}

impl IssuedOrder {
    /// Destroys keys, rather than locks or unlocks.
    #[must_use]
    pub fn erases(&self) -> bool {
        match self.kind {
            OrderKind::Delete | OrderKind::Init => true,
            OrderKind::Lock | OrderKind::Unlock => false,
        }
    }
}

impl TerminalRecord {
    /// By a token, which nobody has used yet.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.token.is_some() && self.mixed_at.is_none()
    }

    /// Whether the desk may answer it: not what is excluded, nor what waits for a token that has ended
    /// or is void (KR-377).
    pub(super) fn may_ask(&self, wall: UnixSeconds) -> bool {
        let key = self.token.as_ref().and_then(|token| token.key.as_ref());
        let token_stands = key.is_some() && wall <= self.package_expires;
        self.excluded_at.is_none() && (!self.is_pending() || token_stands)
    }

    /// The newest DELETE or INIT.
    #[must_use]
    pub fn erasure(&self) -> Option<&IssuedOrder> {
        self.orders.iter().rev().find(|order| order.erases())
    }

    /// The newest LOCK or UNLOCK.
    #[must_use]
    pub fn lock(&self) -> Option<&IssuedOrder> {
        self.orders.iter().rev().find(|order| !order.erases())
    }
}

/// A terminal's own offset is at most this (FORMATS section 2.1).
pub const OFFSET_MAX: u32 = 64;
