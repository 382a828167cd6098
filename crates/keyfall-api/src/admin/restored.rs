//! A restored server that is held until an operator confirms it.

use serde::{Deserialize, Serialize};

use crate::admin::{Named, Why};

/// What the one who confirms has to look at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Confirmation {
    pub schema: u32,
    /// Nothing was sent since then.
    pub restored_at: u32,
    /// Everybody who is excluded, and nobody else is.
    pub excluded: Vec<ExcludedTerminal>,
    /// What was lost and has to be done again, one sentence each.
    pub losses: Vec<String>,
}

/// A line of the exclusion list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExcludedTerminal {
    #[serde(flatten)]
    pub terminal: Named,
    pub excluded_at: u32,
}

/// Lets a restored server send.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    #[serde(default)]
    pub why: Why,
}

/// Sending has begun.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Confirmed {
    pub schema: u32,
    /// So many terminals are excluded.
    pub excluded: u64,
}
