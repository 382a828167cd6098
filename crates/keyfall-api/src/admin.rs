//! The admin API: HTTP/JSON on the server's Unix socket `DIR/admin.sock`.
//!
//! Every answer has `schema`; a field is never renamed or given another meaning within one schema.
//! All times are Unix seconds, all keys and frames hexadecimal, all spans seconds.
//!
//! | Method and path | Body | Answer |
//! | --- | --- | --- |
//! | GET `/v1/status` | | [`Status`] |
//! | GET `/v1/terminals`, `/v1/terminals/{name}` | | [`Terminals`], [`TerminalShown`] |
//! | POST `/v1/terminals` | [`AddTerminal`] | [`TerminalAdded`] |
//! | GET `/v1/groups`, `/v1/groups/{name}` | | [`Groups`], [`GroupShown`] |
//! | POST `/v1/groups` | [`CreateGroup`] | [`GroupCreated`] |
//! | POST `/v1/groups/{name}/members` | [`AddMember`] | [`MemberAdded`] |
//! | POST `/v1/groups/{name}/members/remove` | [`RemoveMember`] | [`MemberRemoved`] |
//! | POST `/v1/groups/{name}/policy` | [`SetGroup`] | [`GroupSet`] |
//! | POST `/v1/groups/{name}/packets` | [`SetPackets`] | [`PacketsSet`] |
//! | POST `/v1/groups/{name}/renew` | [`Renew`] | [`GroupRenewed`] |
//! | POST `/v1/groups/{name}/rekey` | [`Renew`] | [`GroupRekeyed`] |
//! | POST `/v1/devices/renew` | [`Renew`] | [`DevicesRenewed`] |
//! | POST `/v1/terminals/{name}/renew` | [`Renew`] | [`DeviceRenewed`] |
//! | POST `/v1/terminals/{name}/legacy-key` | [`SetLegacyKey`] | [`LegacyKeySet`] |
//! | POST `/v1/terminals/{name}/addresses` | [`SetAddresses`] | [`AddressesSet`] |
//! | POST `/v1/exclude` | [`Exclude`] | [`Excluded`] |
//! | POST `/v1/erase/draft`, `/v1/erase/issue` | [`DraftErase`], [`IssueErase`] | [`EraseDraft`], [`EraseIssued`] |
//! | POST `/v1/receipts` | [`TakeReceipt`] | [`ReceiptTaken`] |
//! | GET `/v1/terminals/{name}/exposure?at=SECONDS` | | [`Exposure`] |
//! | POST `/v1/key-set/draft`, `/v1/key-set/install` | [`DraftKeySet`], [`InstallKeySet`] | [`KeySetDraft`], [`KeySetInstalled`] |
//! | GET, POST `/v1/confirm` | [`Confirm`] | [`Confirmation`], [`Confirmed`] |
//! | GET `/v1/keys` | | [`Keys`] |
//! | GET `/v1/audit?last=N`, `/v1/audit/verify` | | [`Audit`], [`AuditVerified`] |
//! | GET `/v1/carousel?loss=0.3` | | [`Carousel`] |
//!
//! `{name}` is a name or a number. Whatever is not done is answered with a [`Problem`].

mod group;
mod key_set;
mod legacy;
mod loss;
mod packets;
mod restored;

use serde::{Deserialize, Serialize};

pub use group::{
    ChangeMode, GroupPolicy, GroupSet, KeyChange, KeyChangeState, Phase, SetGroup, Straggler,
    Stragglers,
};
pub use key_set::{DraftKeySet, InstallKeySet, KeySetDraft, KeySetInstalled, Signer};
pub use legacy::{LegacyKeySet, RsaKey, SetLegacyKey};
pub use loss::{
    DeviceRenewed, DraftErase, EraseDraft, EraseIssued, EraseKind, ErasureState, Exclude, Excluded,
    Exposure, FreshEpoch, GroupRekeyed, HourlyLimit, IssueErase, KeyExposure, MemberRemoved, Reach,
    ReceiptTaken, RemoveMember, TakeReceipt,
};
pub use packets::{
    Addresses, AddressesSet, Packets, PacketsSet, ProtectionRecord, SetAddresses, SetPackets,
};
pub use restored::{Confirm, Confirmation, Confirmed, ExcludedTerminal};

/// The schema of every answer.
pub const SCHEMA: u32 = 1;

/// The name of the socket in a server's directory.
pub const SOCKET: &str = "admin.sock";

/// Why an order is given; goes into the audit log.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Why {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
}

/// Enrols a terminal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddTerminal {
    pub name: String,
    /// The request key to which the package is sealed, as `terminal enrol --request` printed it;
    /// without it the package is sealed under a code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// No package is made: the terminal fetches its contents by a token that is good for so many
    /// seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u32>,
    /// Directories that INIT wipes beside the terminal's own, as absolute paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wipe_roots: Vec<String>,
    #[serde(default)]
    pub why: Why,
}

/// The sealed package of a terminal, or the token that takes its place. Neither is kept as it is shown
/// here: what is lost has to be made anew.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalAdded {
    pub schema: u32,
    pub number: u32,
    pub name: String,
    /// Absent where a token takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// What opens the package; to be carried by another way than it. Absent where a request key
    /// was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// By which the terminal fetches what a package would bring, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Where it does so, as HOST:PORT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Past this the package or token is refused.
    pub expires: u32,
}

/// Without the code, the token and the package.
impl std::fmt::Debug for TerminalAdded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TerminalAdded")
            .field("number", &self.number)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// All terminals, by number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Terminals {
    pub schema: u32,
    pub terminals: Vec<Terminal>,
}

/// One terminal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TerminalShown {
    pub schema: u32,
    pub terminal: Terminal,
    pub groups: Vec<Named>,
    pub keys: Vec<Key>,
}

/// A terminal as the server knows it. One way, the server never learns whether the package arrived.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Terminal {
    pub number: u32,
    pub name: String,
    pub added_at: u32,
    /// When its package or token ends.
    pub package_expires: u32,
    /// It is enrolled by a token, and whether that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenState>,
    /// It was enrolled after the backup that the server was restored from: its keys are lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keys_lost: bool,
    /// From then on it is in no group, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded_at: Option<u32>,
    /// The newest DELETE or INIT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erasure: Option<ErasureState>,
    /// The newest LOCK or UNLOCK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<ErasureState>,
    /// What INIT wipes beside the terminal's own directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wipe_roots: Vec<String>,
    /// The key for its answers in the suite rsa-misty1, where one is registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legacy_key: Option<RsaKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<ProtectionRecord>,
}

/// What became of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// It may be used until it ends.
    Pending,
    /// It was used: the terminal itself has shown that it is there.
    Used,
    /// It ended, or is void, before it was used.
    Ended,
}

/// A number and the name for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Named {
    pub number: u32,
    pub name: String,
}

/// Makes a group with a fresh epoch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateGroup {
    pub name: String,
    /// Names or numbers of terminals.
    pub members: Vec<String>,
    /// How often the key renews by itself; absent: by command and by gap only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<u32>,
    /// Generations for each period.
    #[serde(default = "one")]
    pub step: u8,
    /// Present: a packet group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<Packets>,
    #[serde(default)]
    pub why: Why,
}

const fn one() -> u8 {
    1
}

/// A new group. Its key is stored and is being sent; who heard it is not known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupCreated {
    pub schema: u32,
    /// What terminals call it.
    pub number: u32,
    pub name: String,
    pub epoch: u32,
    pub members: u64,
    pub distribution: Distribution,
    /// What the operator should know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// The standing KEYDIST of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Distribution {
    /// Self-contained messages.
    pub messages: u32,
    /// Of all of them.
    pub octets: u64,
    pub recipients: u64,
}

/// Adds a terminal to a group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddMember {
    /// Name or number.
    pub terminal: String,
    #[serde(default)]
    pub why: Why,
}

/// A new member, which reads from this generation on and nothing from before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberAdded {
    pub schema: u32,
    pub group: Named,
    pub terminal: Named,
    pub generation: u32,
    pub activate_at: u32,
    pub members: u64,
    pub distribution: Distribution,
}

/// All groups, by number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Groups {
    pub schema: u32,
    pub groups: Vec<Group>,
}

/// One group with its members.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupShown {
    pub schema: u32,
    pub group: Group,
    pub members: Vec<Named>,
    pub distribution: Distribution,
    /// The last change of its key with members that can answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<KeyChange>,
}

/// A group as the server knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Group {
    pub number: u32,
    pub name: String,
    pub members: u64,
    pub key: Key,
    #[serde(default)]
    pub policy: GroupPolicy,
    /// Absent: it is no packet group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<Packets>,
}

/// Orders a renewal.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// Nothing is changed or sent; the answer says what would be.
    #[serde(default)]
    pub dry_run: bool,
    #[serde(default)]
    pub why: Why,
}

/// A group's key is one generation further: stored and being sent. Renewing excludes nobody.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupRenewed {
    pub schema: u32,
    pub dry_run: bool,
    pub group: Named,
    pub epoch: u32,
    pub generation: u32,
    /// Terminals send with it from then on.
    pub activate_at: u32,
    /// Of the RENEW; the same for any number of members.
    pub octets: u64,
    pub members: u64,
}

/// All wrap keys of the fleet are one generation further: stored and being sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DevicesRenewed {
    pub schema: u32,
    pub dry_run: bool,
    /// G.
    pub generation: u32,
    /// Of the RENEW; the same for any number of terminals.
    pub octets: u64,
    pub terminals: u64,
    /// KEYDIST messages that are made anew.
    pub distributions: u64,
}

/// Keys as far as they may be shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Keys {
    pub schema: u32,
    /// G.
    pub fleet_generation: u32,
    pub keys: Vec<Key>,
    /// The keys that sign.
    #[serde(default)]
    pub signers: Vec<Signer>,
    /// What needs an operator, one sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A pre-shared key as far as it may be shown (REQUIREMENTS R-030).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Key {
    /// 4 · number + kind.
    pub id: u64,
    /// 1: with one terminal; 2: of a group.
    pub rank: u8,
    pub kind: KeyKind,
    /// Name of the terminal or group.
    pub of: String,
    pub epoch: u32,
    pub generation: u32,
    /// Of a wrap key that was renewed by itself: its generation is G + offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u32>,
    /// When it renews by itself; absent: by command and by gap only, or never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renews_at: Option<u32>,
    /// When a fresh one takes its place by itself; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh_at: Option<u32>,
    /// When it was to renew by its schedule, where it has not, and that is no matter of moments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overdue_since: Option<u32>,
    /// From each statement of it to the end of the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<u32>,
    /// Eight octets derived one way.
    pub fingerprint: String,
}

/// What a key is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    Obey,
    Wrap,
    Master,
}

/// The last entries of the audit log, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Audit {
    pub schema: u32,
    pub entries: Vec<AuditEntry>,
}

/// Who did what, why, and what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditEntry {
    pub entry: u64,
    pub at: u32,
    pub actor: String,
    pub action: String,
    pub subject: String,
    pub outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
}

/// Whether every audit entry hangs on the one before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditVerified {
    pub schema: u32,
    pub whole: bool,
    /// Entries that were verified.
    pub entries: u64,
    /// The first that does not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_at: Option<u64>,
    /// The last link. Written down elsewhere, it later proves that nothing before it was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// What is repeated, and what that is worth.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Carousel {
    pub schema: u32,
    pub bits_per_second: u64,
    pub classes: Vec<CarouselClass>,
    /// The share of lost frames for which the prediction is made.
    pub loss: f64,
    /// After so many turns a statement is missed with a probability of at most one in a million,
    /// if losses are independent: predicted, not observed.
    pub turns: u32,
    pub carriers: Vec<Carrier>,
}

/// One class of statements.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CarouselClass {
    pub class: String,
    pub items: u64,
    /// Of one turn.
    pub octets: u64,
    /// How long one turn takes.
    pub cycle_seconds: f64,
    /// Frames since the server started.
    pub sent: u64,
    /// The turns of the prediction, in time.
    pub predicted_seconds: f64,
}

/// One way out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Carrier {
    pub address: String,
    /// Frames that the system took.
    pub sent: u64,
    /// Frames that it refused, or that had no open carrier.
    pub failed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sent: Option<u32>,
    /// What is wrong now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// How the server is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    pub schema: u32,
    pub fleet: String,
    pub now: u32,
    pub started_at: u32,
    /// Eight hex digits: the server instance in its commands.
    pub stream: String,
    /// Name of the root key.
    pub root: String,
    /// Version of the KEYSET.
    pub key_set: u32,
    /// When the first online key ends: after it nothing is sent.
    pub signers_expire: u32,
    /// G.
    pub fleet_generation: u32,
    /// When G steps by itself.
    pub fleet_renews_at: u32,
    /// Where the key lies that opens the database: `file`.
    pub seal: String,
    pub journal: Log,
    pub audit: Log,
    pub terminals: u64,
    pub groups: u64,
    pub carriers: Vec<Carrier>,
    /// How terminals ask for keys; `None`: one way only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desk: Option<Desk>,
    /// When it was restored, as long as nobody has confirmed that and it sends nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_since: Option<u32>,
    /// What needs an operator, one sentence each.
    pub warnings: Vec<String>,
}

/// The desk at which terminals ask, and what came to it since the start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Desk {
    /// Where it listens.
    pub listen: Vec<String>,
    /// What packages say of it.
    pub servers: Vec<String>,
    /// In order of preference.
    pub suites: Vec<String>,
    pub requests: u64,
    pub cookies: u64,
    pub answers: u64,
    pub acks: u64,
    /// ACKs that say that something was refused.
    pub refused_acks: u64,
    /// What did not verify: answered by silence.
    pub silent: u64,
    /// Requests in a suite that the root does not list.
    pub downgrades: u64,
    /// Requests that found every table full.
    pub overload: u64,
    /// Datagrams that the system did not take.
    pub not_sent: u64,
}

/// A chained log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Log {
    pub entries: u64,
    pub link: String,
}

/// Why something was not done. Nothing has changed then.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    pub schema: u32,
    pub code: ProblemCode,
    /// What is wrong and what to do.
    pub sentence: String,
}

/// What `keyfall explain` knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ProblemCode {
    /// The request is no JSON, or not what the path takes.
    #[serde(rename = "KF-3301")]
    BadRequest,
    /// There is no such path or method.
    #[serde(rename = "KF-3302")]
    NoSuchPath,
    /// Another user than the server's own, and not root.
    #[serde(rename = "KF-3303")]
    NotYou,
    #[serde(rename = "KF-3304")]
    BadName,
    #[serde(rename = "KF-3305")]
    NameTaken,
    #[serde(rename = "KF-3306")]
    NoSuchTerminal,
    #[serde(rename = "KF-3307")]
    NoSuchGroup,
    #[serde(rename = "KF-3308")]
    NoMembers,
    #[serde(rename = "KF-3309")]
    AlreadyMember,
    #[serde(rename = "KF-3310")]
    NumbersUsedUp,
    #[serde(rename = "KF-3311")]
    BadRequestKey,
    #[serde(rename = "KF-3312")]
    BadPeriod,
    #[serde(rename = "KF-3313")]
    RenewedTooOften,
    #[serde(rename = "KF-3314")]
    NotStored,
    /// The database does not read.
    #[serde(rename = "KF-3315")]
    StoreFault,
    /// The server is ending.
    #[serde(rename = "KF-3316")]
    Ending,
    #[serde(rename = "KF-3317")]
    NotMember,
    #[serde(rename = "KF-3318")]
    BadWipeRoot,
    /// The terminal is excluded, for good.
    #[serde(rename = "KF-3319")]
    Excluded,
    /// As many as terminals accept, in one order or in a day.
    #[serde(rename = "KF-3320")]
    ExcludedTooMany,
    /// Not one key, not a listed one, or not enough of them.
    #[serde(rename = "KF-3321")]
    EraseSignatures,
    /// What came back is not what was drafted, or its time is over.
    #[serde(rename = "KF-3322")]
    NotTheDraft,
    /// Not from that terminal, or about no order of ours.
    #[serde(rename = "KF-3323")]
    BadReceipt,
    #[serde(rename = "KF-3324")]
    AlreadyProved,
    #[serde(rename = "KF-3325")]
    NoSuchKey,
    /// Life, number of keys or of signatures of a KEYSET.
    #[serde(rename = "KF-3326")]
    BadKeySet,
    #[serde(rename = "KF-3327")]
    NotTheRoot,
    /// The server's own limit, which is no security boundary.
    #[serde(rename = "KF-3328")]
    HourlyLimit,
    /// Enrolled after the backup that the server was restored from.
    #[serde(rename = "KF-3329")]
    KeysLost,
    /// There is nothing to confirm.
    #[serde(rename = "KF-3330")]
    NotHeld,
    #[serde(rename = "KF-3331")]
    BadTokenLife,
    /// Terminals cannot come with a token.
    #[serde(rename = "KF-3332")]
    NoTokens,
    /// No prefix, endpoint or MTU, too many of them, or a group that is no packet group.
    #[serde(rename = "KF-3333")]
    BadAddresses,
    /// Two terminals of one packet group would speak for one address.
    #[serde(rename = "KF-3334")]
    Overlapping,
}
