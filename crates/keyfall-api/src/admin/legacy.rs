//! The RSA keys of terminals that speak the suite rsa-misty1.

use serde::{Deserialize, Serialize};

use super::{Named, Why};

/// Registers a terminal's RSA key, in place of the one before.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLegacyKey {
    /// SubjectPublicKeyInfo in DER; absent: the terminal has none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(default)]
    pub why: Why,
}

/// What is registered now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LegacyKeySet {
    pub schema: u32,
    pub terminal: Named,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<RsaKey>,
    /// What is missing until it is used, or what it costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// A public RSA key, by name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RsaKey {
    /// Sixteen hexadecimal digits.
    pub name: String,
    pub bits: u32,
}
