//! Orders for the loss of a terminal: exclusion, erasure, lock, fresh epochs, and what a thief has.
//!
//! Three words are kept apart everywhere: *sent* is what was handed to a carrier; *probably received*
//! is what a calculation says; *proved* is what a terminal's own receipt says (INVARIANT 12).

use serde::{Deserialize, Serialize};

use super::{KeyKind, Named, Why};

/// Shuts terminals out: nobody listens to them, and each of their groups gets a fresh epoch that is
/// wrapped for the other members only. One order.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exclude {
    /// Names or numbers.
    pub terminals: Vec<String>,
    /// Nothing is changed or sent; the answer says what would be.
    #[serde(default)]
    pub dry_run: bool,
    #[serde(default)]
    pub why: Why,
}

/// Who is shut out, and of what. Stored and being sent; who heard it is not known.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Excluded {
    pub schema: u32,
    pub dry_run: bool,
    pub terminals: Vec<Named>,
    /// Exact: every other member gets the fresh key wrapped for itself.
    pub exact: bool,
    pub groups: Vec<FreshEpoch>,
    /// Different terminals that get fresh keys.
    pub members: u64,
    /// EXCLUDE and KEYDIST messages.
    pub reach: Reach,
}

/// What goes over the link once, and when it has probably come to everybody.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Reach {
    /// Frames of one turn.
    pub frames: u64,
    pub octets: u64,
    /// At the rate of the carousel.
    pub link_seconds: f64,
    /// Turns of the carousel until a terminal that misses 30 % of the frames, each by itself, has
    /// missed one with a probability of at most one in a million; in time. Predicted, not observed.
    pub probably_received_seconds: f64,
}

/// A group in which everybody but those shut out gets a fresh key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FreshEpoch {
    pub group: Named,
    pub old_epoch: u32,
    pub new_epoch: u32,
    /// Who gets it.
    pub members: u64,
}

/// Gives a group a fresh epoch.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GroupRekeyed {
    pub schema: u32,
    pub dry_run: bool,
    pub epoch: FreshEpoch,
    pub reach: Reach,
}

/// Takes a terminal out of a group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveMember {
    /// Name or number.
    pub terminal: String,
    #[serde(default)]
    pub dry_run: bool,
    #[serde(default)]
    pub why: Why,
}

/// Who left, and the epoch that it does not get.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MemberRemoved {
    pub schema: u32,
    pub dry_run: bool,
    pub terminal: Named,
    pub epoch: FreshEpoch,
    pub reach: Reach,
}

/// One terminal's wrap key is one offset further: stored and being sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceRenewed {
    pub schema: u32,
    pub dry_run: bool,
    pub terminal: Named,
    /// Its wrap key's generation is G + offset.
    pub offset: u32,
    pub generation: u32,
    /// Of the RENEW.
    pub octets: u64,
}

/// What only the erase key may say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EraseKind {
    Delete,
    Init,
    Lock,
    Unlock,
}

/// Asks for a command to be signed with the erase key, which the server does not hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DraftErase {
    /// Name or number.
    pub terminal: String,
    pub kind: EraseKind,
    /// The terminal is to leave a receipt (DELETE).
    #[serde(default)]
    pub receipt: bool,
}

/// An unsigned command; nothing has changed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EraseDraft {
    pub schema: u32,
    pub terminal: Named,
    pub kind: EraseKind,
    /// The payload that is signed.
    pub command: String,
    /// So many erase keys must sign.
    pub signatures: u8,
    /// Names of the erase keys that count.
    pub erase_keys: Vec<String>,
    /// What the command costs the link.
    pub reach: Reach,
    pub limit: HourlyLimit,
}

/// The server's own limit of DELETE and INIT. It guards against a slip of the hand and is no
/// security boundary: who holds the erase key and a carrier needs no server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HourlyLimit {
    pub an_hour: u64,
    /// In the last hour.
    pub issued: u64,
}

/// Hands a signed command to the carousel.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssueErase {
    /// The signed frame.
    pub frame: String,
    /// Beyond the server's own hourly limit.
    #[serde(default)]
    pub force: bool,
    #[serde(default)]
    pub why: Why,
}

/// What is being sent to whom; that it was obeyed is known by a receipt only.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EraseIssued {
    pub schema: u32,
    pub dry_run: bool,
    pub terminal: Named,
    pub kind: EraseKind,
    /// Where the terminal leaves a receipt.
    pub receipt: bool,
    pub reach: Reach,
}

/// Brings a terminal's receipt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeReceipt {
    /// The octets, hexadecimal.
    pub receipt: String,
    #[serde(default)]
    pub why: Why,
}

/// A deletion that is proved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReceiptTaken {
    pub schema: u32,
    pub terminal: Named,
    pub kind: EraseKind,
    pub sent_at: u32,
    pub proved_at: u32,
}

/// One order of the erase class to one terminal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErasureState {
    pub kind: EraseKind,
    pub sent_at: u32,
    /// When a receipt proved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved_at: Option<u32>,
}

/// What a thief can read who took a terminal with all its keys (FORMATS section 3.1).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Exposure {
    pub schema: u32,
    pub terminal: Named,
    /// When it is taken.
    pub at: u32,
    /// Recorded distributions to it open from then on.
    pub distributions_from: u32,
    /// From then on nothing new is for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded_at: Option<u32>,
    /// DELETE or INIT, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<ErasureState>,
    pub keys: Vec<KeyExposure>,
    /// What bounds it, and what to do; a sentence each.
    pub notes: Vec<String>,
}

/// One key in a thief's hands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyExposure {
    /// 4 · number + kind.
    pub id: u64,
    pub kind: KeyKind,
    /// Name of the terminal or group.
    pub of: String,
    /// What it opens of what was recorded or is sent from then on.
    pub from: u32,
    /// The end of that; absent: none, until the terminal is excluded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u32>,
    /// Where an honest device stops by itself. Keys that were extracted know no lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_end: Option<u32>,
    /// What it opens, in words.
    pub what: String,
}
