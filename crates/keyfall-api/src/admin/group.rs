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
