//! The terminal's control socket: `control.sock` in its directory, for its owner only.
//!
//! One JSON document a line, in both directions. A connection takes one [`Request`] after the
//! other and answers each with one [`Answer`]. A relay that a connection started belongs to it:
//! progress comes on it every second, and the relay ends when the connection is closed.

use serde::{Deserialize, Serialize};

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
    /// Whether a message (hexadecimal) opens with this terminal's keys; answered by
    /// [`Answer::Inspected`].
    Inspect {
        octets: String,
        /// For SRTP: j of the stretch, 16 without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stretch: Option<u8>,
    },
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
    /// enrolled: no group key yet; ready.
    pub state: String,
    /// Name of the root's public key: 16 hexadecimal digits.
    pub root: String,
    /// Version of the KEYSET held, and when its first key ends (Unix seconds).
    pub key_set_version: u32,
    pub key_set_expires: u32,
    /// G, and the wrap key's fingerprint.
    pub fleet_generation: u32,
    pub wrap_fingerprint: String,
    pub wrap_kid: u64,
    pub obey_fingerprint: String,
    pub obey_kid: u64,
    /// Unix seconds as beacons tell; none before the first since the start.
    pub time: Option<u32>,
    pub groups: Vec<GroupStatus>,
    pub relays: Vec<RelayStatus>,
    /// Where commands are heard.
    pub carriers: Vec<String>,
    /// Frames heard since the start.
    pub frames: u64,
    /// Why the last store commit failed; none while all is durable.
    pub store_failure: Option<String>,
    /// What protects the keys in the directory, said as it is.
    pub protection: String,
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
    /// The one that is sent with; none while a newer epoch is awaited.
    pub sending: Option<u32>,
    /// When it renews by itself next (Unix seconds).
    pub valid_until: Option<u32>,
    pub lease_end: Option<u32>,
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
