//! What a running terminal tells of the packets that pass through it.

use serde::{Deserialize, Serialize};

/// The packet path of a terminal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PacketStatus {
    /// running; waiting: this terminal's record, or a key of its packet groups, has not come; failed.
    pub state: String,
    /// Why packets do not pass, where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What the system refuses of addresses, routes and rules: at most four sentences; it may refuse
    /// more. It is tried again, at least once a minute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// The TUN interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tun: Option<String>,
    /// Octets of the longest inner packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Where peers are heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listens: Option<String>,
    /// This terminal's own prefixes.
    pub prefixes: Vec<String>,
    /// The busiest flows that go out, at most 256.
    pub flows: Vec<FlowStatus>,
    /// The busiest sessions that come in, at most 256.
    pub sessions: Vec<SessionStatus>,
    /// Peers whose records are held.
    pub peers: usize,
    /// Key searches that are open.
    pub searches: usize,
    /// What the packet path dropped since its start.
    pub drops: Vec<PacketDrop>,
}

/// Packets from one inner address to another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FlowStatus {
    pub source: String,
    pub destination: String,
    /// protected, searching, or the name of the reason why it goes nowhere.
    pub way: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// None: all members at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<u32>,
    /// The peer's outer address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The key that it goes under; none while the group waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Seconds until a path that a key search found expires; none where none was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    pub packets: u64,
    pub octets: u64,
}

/// What one peer sends under one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionStatus {
    pub peer: u32,
    pub group: u32,
    /// Ten hexadecimal digits, as `keyfall terminal export` takes them.
    pub session: String,
    pub epoch: u32,
    pub generation: u32,
    /// The inner addresses of its last packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    pub packets: u64,
    pub octets: u64,
}

/// How often packets were dropped for a reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PacketDrop {
    pub reason: String,
    pub code: String,
    pub count: u64,
}
