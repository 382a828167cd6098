//! Which way the packets to an address take.

use serde::{Deserialize, Serialize};

/// How packets to an address are protected, as a running terminal has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProtectedWay {
    /// Inner addresses.
    pub source: String,
    pub destination: String,
    /// Number of the terminal that speaks for the destination.
    pub terminal: u32,
    /// Its outer address.
    pub endpoint: String,
    /// The TUN interface.
    pub tun: String,
    pub group: u32,
    pub epoch: u32,
    pub generation: u32,
    /// The suite of ESP.
    pub suite: String,
    /// How the way became known.
    pub found: WayFound,
    /// Microseconds that it took to tell: of the search, where one was needed.
    pub took_us: u64,
    /// Octets of the longest inner packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Octets of the longest datagram to the endpoint that goes in one piece, as far as the system
    /// knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<u32>,
    /// Packets that went this way, sealed, since its flow began; none where there is no such flow among
    /// those that are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
}

/// How a way became known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WayFound {
    /// The other terminal's record and place were known.
    Record,
    /// By a key search that the question began.
    Search,
    /// By a key search before.
    SearchBefore,
}
