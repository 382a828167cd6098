//! Keys of the packet plane for other people's tools.

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// The keys of one session of packets, of this terminal or of another sender.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketExport {
    pub group: u32,
    /// Ten hexadecimal digits, as they begin the IV of every packet; by default the newest one that
    /// this terminal sends in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Terminal number; by default this terminal's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<u32>,
    /// By default the one that is sent with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Name of the suite; by default the one that packets pass in, else AES-256-GCM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// Outer addresses, and the UDP port at both.
    pub source: String,
    pub destination: String,
    pub port: u16,
}

/// A key for a sender that knows nothing of Keyfall, which this terminal receives from then on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StockSenderExport {
    pub group: u32,
    /// How long it is received, at most 604,800.
    pub seconds: u32,
    /// The inner addresses that it may send from, as ADDRESS/LENGTH.
    pub prefixes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    pub source: String,
    pub destination: String,
    pub port: u16,
}

/// One SA for other people's tools. SECURITY: the key is in both lines.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketKeys {
    pub group: u32,
    /// 0x and eight hexadecimal digits.
    pub spi: String,
    pub suite: String,
    /// Arguments of `ip`.
    pub ip_xfrm: String,
    /// A line of Wireshark's table `esp_sa`; none where it does not know the suite.
    pub wireshark: Option<String>,
    /// When this terminal receives it no longer (Unix seconds); none for a session, which ends with
    /// its generation.
    pub until: Option<u32>,
}

impl Drop for PacketKeys {
    fn drop(&mut self) {
        self.ip_xfrm.zeroize();
        self.wireshark.zeroize();
    }
}

impl std::fmt::Debug for PacketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PacketKeys(group {}, spi {})", self.group, self.spi)
    }
}

/// A stock sender that this terminal receives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StockSenderStatus {
    pub group: u32,
    /// 0x and eight hexadecimal digits.
    pub spi: String,
    pub suite: String,
    /// The inner addresses that it may send from.
    pub prefixes: Vec<String>,
    /// Unix seconds. Until then whoever has its key reads what it sends, and sends in its name.
    pub until: u32,
}
