//! How a group's key is changed while the group is at work.

use serde::{Deserialize, Serialize};

use crate::admin::{Named, Why};

/// What an operator set of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GroupPolicy {
    pub change: ChangeMode,
    pub stragglers: Stragglers,
    /// Whether the suite rsa-misty1 may carry the group's key.
    pub legacy_sharing: bool,
}

/// How members who can answer move to a new key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeMode {
    /// They receive with the new key first and send with it later.
    #[default]
    Hitless,
    /// All stop, and all start again under the new key.
    Barrier,
}

/// What becomes of members that do not answer in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stragglers {
    /// The others go on; who is late follows.
    #[default]
    Follow,
    /// The others wait for them, an hour at the most.
    Wait,
    /// They are taken out of the group.
    LeaveOut,
}

/// Sets what is named of a group's policy.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetGroup {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stragglers: Option<Stragglers>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legacy_sharing: Option<bool>,
    /// Nothing is changed; the answer says what would be.
    #[serde(default)]
    pub dry_run: bool,
    #[serde(default)]
    pub why: Why,
}

/// A group's policy before and after the order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupSet {
    pub schema: u32,
    pub dry_run: bool,
    pub group: Named,
    pub before: GroupPolicy,
    pub after: GroupPolicy,
    /// What the operator should know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// How the change of a group's key went, or goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyChange {
    pub mode: ChangeMode,
    pub state: KeyChangeState,
    /// What the group sends with after it.
    pub epoch: u32,
    pub generation: u32,
    pub begun_at: u32,
    /// Members that could be reached.
    pub reachable: u64,
    /// Of them: hold the key, as far as they said so.
    pub holding: u64,
    /// Have confirmed that they stopped.
    pub stopped: u64,
    /// Have confirmed that they send under the new key.
    pub started: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stragglers: Vec<Straggler>,
    /// Those of them that never confirmed are taken out of the group.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_out: bool,
    /// From the first STOP to the last START-ACK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted_microseconds: Option<u64>,
}

/// Where a change is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyChangeState {
    Distributing,
    Stopping,
    Starting,
    Finished,
    /// A newer change came in between.
    Superseded,
    /// The server ended in the middle.
    Interrupted,
}

/// What members are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Distributing,
    Stopping,
    Starting,
}

/// A member that did not do in time what it was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Straggler {
    #[serde(flatten)]
    pub terminal: Named,
    /// The first that it missed.
    pub missed: Phase,
    /// It sends under the new key all the same.
    pub caught_up: bool,
}
