//! The terminal's control socket: `control.sock` in its directory, for its owner only.
//!
//! One JSON document a line, in both directions. A connection takes one [`Request`] after the
//! other and answers each with one [`Answer`]. A relay that a connection started belongs to it:
//! progress comes on it every second, and the relay ends when the connection is closed.

mod packets;
mod ways;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::packets::PacketStatus;
pub use packets::{PacketExport, PacketKeys, StockSenderExport, StockSenderStatus};
pub use ways::{ProtectedWay, WayFound};

/// What a local program may ask of a running terminal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(
    tag = "request",
    rename_all = "kebab-case",
    rename_all_fields = "snake_case",
    deny_unknown_fields
)]
pub enum Request {
    /// Answered by [`Answer::Status`].
    Status {},
    /// Answered by [`Answer::Why`].
    Why {},
    /// Answered by [`Answer::Started`], then [`Answer::Progress`] and [`Answer::Ended`].
    MediaSend(MediaSend),
    /// As [`Request::MediaSend`].
    MediaReceive(MediaReceive),
    /// What stock receivers of the running senders need; answered by [`Answer::Params`].
    MediaParams {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        relay: Option<u32>,
    },
    /// Ends a relay, whoever started it; answered by [`Answer::Stopped`].
    MediaStop { relay: u32 },
    /// Answered by [`Answer::PacketKeys`].
    PacketExport(PacketExport),
    /// The same, once the key is stored.
    StockSenderExport(StockSenderExport),
    /// How packets to a terminal (its number) or an address are protected; answered by
    /// [`Answer::Way`], after a key search where one is needed.
    Way { to: String },
    /// Whether a message (hexadecimal) opens with this terminal's keys; answered by
    /// [`Answer::Inspected`].
    Inspect {
        octets: String,
        /// For SRTP: j of the stretch, 16 without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stretch: Option<u8>,
    },
    /// Closes the user compartment at once; answered by [`Answer::Status`].
    Lock {},
    /// Opens the user compartment; answered by [`Answer::Status`]. A wrong passphrase costs a try.
    Unlock { passphrase: Passphrase },
    /// Sets, changes or removes the passphrase; answered by [`Answer::Status`].
    Protect(Protect),
}

/// A PIN or passphrase on its way to the terminal: overwritten when it is dropped, never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Passphrase(String);

impl Passphrase {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// SECURITY: every caller feeds it to the key store.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase")
    }
}

impl Drop for Passphrase {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What is to open the user compartment from now on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protect {
    /// The one that is set; empty where there is none. A wrong one costs a try.
    pub old: Passphrase,
    /// None: the machine alone opens the compartment from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<NewPassphrase>,
}

/// A passphrase to be set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPassphrase {
    pub passphrase: Passphrase,
    /// Absolute path of a file that is needed beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_secret: Option<String>,
    /// Wrong tries until everything is erased.
    pub tries: u8,
}

/// Plain RTP in, SRTP out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaSend {
    pub group: u32,
    /// Where the local application sends its RTP, as address:port; RTCP on the next port.
    pub rtp: String,
    /// Where SRTP goes, unicast or multicast; SRTCP to the next port.
    pub to: String,
    /// Address of the interface for multicast; by default the carrier's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    #[serde(default = "one")]
    pub ttl: u8,
    /// Name of the SRTP suite; by default AEAD_AES_256_GCM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// Packets that one session key serves: a power of two from 1024 to 65536 (the default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rederive_after: Option<u32>,
    /// For stock receivers: no re-derivation, no MKI.
    #[serde(default)]
    pub stock: bool,
    /// With `stock`: the MKI nevertheless.
    #[serde(default)]
    pub mki: bool,
    /// Begin although the group's key has not come yet.
    #[serde(default)]
    pub wait: bool,
}

/// SRTP in, plain RTP out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaReceive {
    pub group: u32,
    /// The multicast group, or the own address, on which SRTP comes; SRTCP on the next port.
    pub from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Where the local application takes RTP; RTCP on the next port.
    pub rtp: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// As the sender has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rederive_after: Option<u32>,
    #[serde(default)]
    pub wait: bool,
}

const fn one() -> u8 {
    1
}

/// What the terminal answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    Status(Box<TerminalStatus>),
    Why(Why),
    Started(RelayStatus),
    Progress(RelayStatus),
    /// The relay ended; these are its last figures.
    Ended(RelayStatus),
    Params(MediaParams),
    PacketKeys(PacketKeys),
    Way(ProtectedWay),
    Stopped(RelayStatus),
    Inspected(Inspected),
    Error(ControlError),
}

/// Why a request was not carried out; nothing changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ControlError {
    pub refusal: Refusal,
    /// One sentence that says what to do.
    pub sentence: String,
}

/// Kinds of [`ControlError`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Not JSON, no known request, or a field that is not what it must be.
    BadRequest,
    /// The group's key is not held.
    NotAMember,
    /// The system does not give an address or port.
    Address,
    /// No such relay runs.
    NoSuchRelay,
    /// So many relays, connections or streams that no more fit.
    TooMany,
    /// The same is received already.
    Taken,
    /// The user compartment is closed, or does not open without something that is missing.
    Locked,
    /// Only an UNLOCK of the server's ends it.
    LockedByServer,
    /// A try was used up.
    WrongPassphrase,
    /// Too short, too long, or too few tries.
    BadPassphrase,
    /// There is no passphrase, so locking would keep nobody out.
    NotProtected,
    /// The keys were erased.
    Deleted,
    /// Nothing goes there protected.
    NoWay,
}

/// Confirmations that a terminal collects for members that share its link (REQUIREMENTS R-079).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Collecting {
    /// Where members hand them in.
    pub address: String,
    /// Since the start: what was handed in, and the bundles in which it went to the server.
    pub confirmations: u64,
    pub bundles: u64,
}

/// A terminal, as it is shown to people. Keys are shown by their fingerprints alone.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TerminalStatus {
    /// Terminal number.
    pub terminal: u32,
    pub name: String,
    pub fleet: String,
    /// Whether a process runs it; otherwise this was read from its store.
    pub running: bool,
    /// enrolled: no group key yet; ready; locked; locked-by-server; excluded; erasing: the keys are
    /// gone from memory and not from the disk yet; deleted.
    pub state: String,
    /// Name of the root's public key: 16 hexadecimal digits.
    pub root: String,
    /// Version of the KEYSET held, and when its first key ends (Unix seconds).
    pub key_set_version: u32,
    pub key_set_expires: u32,
    /// G, and the wrap key's fingerprint.
    pub fleet_generation: u32,
    /// None while locked.
    pub wrap_fingerprint: Option<String>,
    pub wrap_kid: u64,
    /// None once the keys were erased.
    pub obey_fingerprint: Option<String>,
    pub obey_kid: u64,
    /// Unix seconds as beacons tell; none before the first since the start.
    pub time: Option<u32>,
    /// Powered-on seconds that were charged since enrolment.
    pub powered_on: u64,
    /// When it erases itself if nothing extends a lease before (Unix seconds).
    pub erases_itself_at: u32,
    pub groups: Vec<GroupStatus>,
    /// Groups that send under a key which an excluded terminal holds.
    pub exposed_groups: Vec<u32>,
    /// Terminals that are not listened to any more.
    pub excluded: Vec<u32>,
    pub relays: Vec<RelayStatus>,
    /// Keys that were exported for stock senders and still count.
    #[serde(default)]
    pub stock_senders: Vec<StockSenderStatus>,
    /// Where commands are heard.
    pub carriers: Vec<String>,
    /// The server's address that is spoken to, where there is a way back.
    #[serde(default)]
    pub server: Option<String>,
    /// What the asking side waits for, in which suite it asks, and how its last sequence ended.
    #[serde(default)]
    pub asking: Option<String>,
    /// Name of its RSA key for the suite rsa-misty1, where it has one and is not locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legacy_key: Option<String>,
    /// What this terminal collects of others for the server.
    #[serde(default)]
    pub collecting: Option<Collecting>,
    /// Frames heard since the start.
    pub frames: u64,
    /// None: no packets are to pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<PacketStatus>,
    /// Why the last store commit failed; none while all is durable.
    pub store_failure: Option<String>,
    /// What protects the keys in the directory, said as it is.
    pub protection: String,
    /// Tries that are left before the keys are erased, and how many there are after a right one;
    /// none where the machine opens everything.
    pub tries_left: Option<u8>,
    pub try_limit: Option<u8>,
    /// Whether keys are kept out of swap; none while it does not run.
    pub memory_locked: Option<bool>,
    /// What happened, once the keys were erased.
    pub deleted: Option<Deleted>,
}

/// What is left of a terminal whose keys were erased.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Deleted {
    pub cause: DeletionCause,
    /// For `keyfall admin receipt`: shows the server that its order was obeyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// Unix seconds, where beacons had told them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u32>,
    /// What could not be removed and why; no key opens with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_removed: Vec<String>,
}

/// Why the keys were erased.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeletionCause {
    /// The server ordered that the keys be deleted.
    Delete,
    /// The server ordered that everything be deleted.
    Initialize,
    /// Too many wrong passphrases.
    Tries,
    /// The tamper switch, or the signal for it.
    Tamper,
    /// Nothing was heard for the dead-man time.
    DeadMan,
    /// The record of it was lost in a power cut.
    Unknown,
}

impl DeletionCause {
    /// For people, after "the keys were erased:".
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Delete => "the server ordered it",
            Self::Initialize => "the server ordered that everything be deleted",
            Self::Tries => "there were too many wrong passphrases",
            Self::Tamper => "the device was opened",
            Self::DeadMan => "nothing was heard from the server for too long",
            Self::Unknown => "why is not known, the power was cut meanwhile",
        }
    }
}

/// One group's key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupStatus {
    pub group: u32,
    pub kid: u64,
    pub rank: u8,
    pub epoch: u32,
    /// The newest generation held.
    pub generation: u32,
    /// The one that is sent with; none while a newer epoch is awaited, or the group is stopped.
    pub sending: Option<u32>,
    /// ready; waits-for-key; exposed; distrusted; stopped; lease-over.
    pub state: String,
    /// When it renews by itself next (Unix seconds).
    pub valid_until: Option<u32>,
    pub lease_end: Option<u32>,
    /// Where the server stopped the group: when it sends again at the latest.
    pub stopped_until: Option<u32>,
    pub fingerprint: String,
    /// Older generations that are received for the grace time.
    pub in_grace: u32,
}

/// One relay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RelayStatus {
    pub relay: u32,
    /// send or receive.
    pub direction: String,
    pub group: u32,
    /// Where it listens and where it sends.
    pub listens: String,
    pub sends_to: String,
    pub suite: String,
    /// The session of a sender: 12 hexadecimal digits.
    pub session: Option<String>,
    /// The generation of the newest packet.
    pub generation: Option<u32>,
    /// n of the newest packet: how many session keys this stream had before.
    pub stretch: Option<u16>,
    /// RTP and RTCP packets that went through.
    pub packets: u64,
    pub rtcp_packets: u64,
    /// SSRCs seen.
    pub streams: u32,
    /// Packets of a sender that wait for the end of a STOP.
    pub waiting: u32,
    /// Packets that went out late, because they had waited so.
    #[serde(default)]
    pub delayed: u64,
    pub drops: Vec<Drops>,
    /// Whether the first packet that was heard opened.
    pub first_packet_opened: Option<bool>,
}

/// How often something was dropped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Drops {
    pub reason: String,
    /// For `keyfall explain`.
    pub code: String,
    pub count: u64,
}

/// Why frames and packets came to nothing since the start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Why {
    pub reasons: Vec<WhyReason>,
}

/// One reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WhyReason {
    pub reason: String,
    pub code: String,
    pub count: u64,
    /// Seconds since the last one.
    pub seconds_ago: u64,
    pub sentence: String,
}

/// For stock receivers. Holds session keys: for its reader alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MediaParams {
    pub policies: Vec<StreamPolicy>,
}

/// What opens one SSRC. SECURITY: key and salt are secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPolicy {
    pub relay: u32,
    pub group: u32,
    /// Eight hexadecimal digits.
    pub ssrc: String,
    pub suite: String,
    /// Hexadecimal.
    pub key: String,
    pub salt: String,
    /// Hexadecimal; none where the packets carry none.
    pub mki: Option<String>,
    /// The rollover counter of the newest packet.
    pub roc: u32,
    pub epoch: u32,
    pub generation: u32,
    pub stretch: u16,
    /// How many packets may still follow under this key.
    pub packets_left: u64,
    /// When the group's key renews by itself, and this ends (Unix seconds); it also ends with a
    /// renewal by command.
    pub ends_at: Option<u32>,
}

impl std::fmt::Debug for StreamPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StreamPolicy(relay {}, ssrc {})", self.relay, self.ssrc)
    }
}

/// What a message is to this terminal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Inspected {
    /// valid, unknown signer, bad signature; none for what is not signed.
    pub signature: Option<String>,
    /// Whether it opens: none where nothing in it is sealed.
    pub opens: Option<bool>,
    /// In words.
    pub sentence: String,
}
