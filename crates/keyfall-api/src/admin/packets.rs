//! Packet groups, and the addresses for which terminals speak in them.

use serde::{Deserialize, Serialize};

use crate::admin::{Named, Why};

/// What makes a group a packet group.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packets {
    /// Of several common groups the highest protects.
    #[serde(default)]
    pub priority: u8,
    /// Octets of the longest inner packet; absent: as the path has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// "AES-256-GCM", "AES-128-GCM" or "ChaCha20-Poly1305"; absent: the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// "ADDRESS/LENGTH" of what is routed into it; none: every destination.
    #[serde(default)]
    pub networks: Vec<String>,
}

/// Sets what is named of a packet group; the rest stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPackets {
    /// Whether it is a packet group. Who becomes one gets a fresh key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// 0: as the path has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// In place of those before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    #[serde(default)]
    pub why: Why,
}

/// What a packet group is now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PacketsSet {
    pub schema: u32,
    pub group: Named,
    /// Absent: it is no packet group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<Packets>,
    /// The fresh epoch that it began, and when that is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activate_at: Option<u32>,
}

/// For which addresses a terminal speaks, and where it is heard.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Addresses {
    /// "ADDRESS/LENGTH".
    pub prefixes: Vec<String>,
    /// "ADDRESS:PORT", the best first.
    pub endpoints: Vec<String>,
}

/// Sets what is named of a terminal's addresses; the rest stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetAddresses {
    /// In place of those before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefixes: Option<Vec<String>>,
    /// In place of those before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<String>>,
    #[serde(default)]
    pub why: Why,
}

/// A terminal's addresses as they are now. Its record is stored and is being sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AddressesSet {
    pub schema: u32,
    pub terminal: Named,
    pub addresses: Addresses,
    /// Absent: it never had addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<ProtectionRecord>,
    /// What the operator should know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// The newest protection record of a terminal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProtectionRecord {
    pub version: u32,
    pub issued_at: u32,
    /// Until then it counts; it is signed again long before.
    pub not_after: u32,
    /// Of its frame.
    pub octets: u64,
    /// The packet groups in it.
    pub groups: Vec<Named>,
}
