//! The list of signing keys: what is in force, and the next one, which the root signs elsewhere.

use serde::{Deserialize, Serialize};

use super::Why;

/// One key of the KEYSET in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Signer {
    /// Sixteen hexadecimal digits.
    pub name: String,
    /// beat, keys, erase, KEM, KEM-PQ or RSA.
    pub class: String,
    pub not_before: u32,
    pub expires: u32,
    /// Whether this server signs with it.
    pub in_use: bool,
}

/// Draws the next online keys. Their private halves stay with the server; the root alone can put
/// them in force.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DraftKeySet {
    /// Names of listed keys that somebody else may hold.
    #[serde(default)]
    pub stolen: Vec<String>,
    /// Seconds that the online keys live; absent: as long as they may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<u32>,
    /// Names of suites of key sharing, in order of preference; absent: as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suites: Option<Vec<String>>,
    /// Bits of the RSA key that is made where the suites name rsa-misty1: 2048, 3072, 4096 or 8192.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rsa_bits: Option<u16>,
    /// "ADDRESS/LENGTH" to which packets go unprotected; absent: as they are; none: everything is
    /// protected or dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear: Option<Vec<String>>,
    #[serde(default)]
    pub why: Why,
}

/// What the root is to sign.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeySetDraft {
    pub schema: u32,
    /// The payload that is signed.
    pub command: String,
    pub version: u32,
    /// Name of the root key.
    pub root: String,
    /// When the new online keys end.
    pub expires: u32,
}

/// Brings the newest draft, signed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallKeySet {
    /// The signed frame.
    pub frame: String,
    #[serde(default)]
    pub why: Why,
}

/// New online keys are in force here, and the KEYSET is being sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeySetInstalled {
    pub schema: u32,
    pub version: u32,
    /// When the online keys end.
    pub expires: u32,
    /// G, which rises far where a key was stolen.
    pub fleet_generation: u32,
    /// Names of stolen keys that it makes known.
    #[serde(default)]
    pub stolen: Vec<String>,
    /// Groups that got a fresh epoch, because a key was stolen.
    pub fresh_epochs: u64,
    /// Octets of the KEYSET.
    pub octets: u64,
    /// Terminals whose DELETE, INIT, LOCK or UNLOCK is signed by too few of the erase keys now
    /// listed: it has to be ordered again.
    #[serde(default)]
    pub order_again: Vec<String>,
    /// What follows from a weak suite in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}
