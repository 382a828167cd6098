//! Why an order is refused: one sentence each, which says what to do next.

use core::net::SocketAddr;

use thiserror::Error;

use crate::command::{
    ENDPOINTS_MAX, EXCLUDED_MAX, MTU_MAX, MTU_MIN, NETWORKS_MAX, OrderKind, PREFIXES_MAX, Prefix,
    RECORD_GROUPS_MAX, RECORD_MAX,
};
use crate::ids::{GroupNumber, KeyName, TerminalNumber, UnixSeconds};

/// Why an order was refused. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    #[error(
        "{0:?} is no name: use 1 to 64 letters, digits, dots, hyphens or underscores, and not digits alone"
    )]
    BadName(String),
    #[error("the name {0} is taken")]
    NameTaken(String),
    #[error("there is no terminal {0}")]
    NoSuchTerminal(String),
    #[error("there is no group {0}")]
    NoSuchGroup(String),
    #[error("a group needs at least one member")]
    NoMembers,
    #[error("terminal {0} is a member already")]
    AlreadyMember(TerminalNumber),
    #[error("terminal {0} is not a member")]
    NotMember(TerminalNumber),
    #[error("every number is used up")]
    NumbersUsedUp,
    #[error(
        "that is not a request key: copy the whole line that `keyfall terminal enrol DIR --request` printed"
    )]
    BadRequestKey,
    #[error(
        "a token is good for {min} to {max} seconds, not {0}",
        min = super::TOKEN_LIFE_MIN,
        max = super::TOKEN_LIFE_MAX
    )]
    BadTokenLife(u32),
    #[error(
        "terminals cannot come with a token: this server listens nowhere for them. Name where with \
         `keyfall server init --listen`, or enrol by package"
    )]
    NotListening,
    #[error(
        "terminals cannot come with a token: the KEYSET lists neither hpke nor hpke-pq with a key of the \
         server. List one with `keyfall server sign-keys --suites`, or enrol by package"
    )]
    NoSuiteForToken,
    #[error(
        "{0:?} is no directory that INIT may wipe: give an absolute path without .., and not / itself"
    )]
    BadWipeRoot(String),
    #[error("a terminal has at most {max} directories to wipe, not {0}", max = super::WIPE_ROOTS_MAX)]
    TooManyWipeRoots(usize),
    #[error("the key was renewed as often as terminals accept until the online keys end")]
    RenewedTooOften,
    #[error(
        "the key of terminal {0} was renewed by itself as often as terminals accept: renew those of the whole \
         fleet instead"
    )]
    DeviceRenewedTooOften(TerminalNumber),
    #[error(
        "terminal {0} is excluded for good: enrol the device anew, which gives it another number"
    )]
    Excluded(TerminalNumber),
    #[error(
        "terminal {0} is unknown: it was enrolled after the backup that this server was restored from, and its keys \
         are lost; enrol the device anew, which gives it another number"
    )]
    KeysLost(TerminalNumber),
    #[error("nothing is held back: the server sends already")]
    NotHeld,
    #[error("name 1 to {EXCLUDED_MAX} terminals in one exclusion, not {0}")]
    ExclusionSize(usize),
    #[error(
        "terminals accept {max} exclusions a day and {0} were ordered: give the rest tomorrow",
        max = super::EXCLUDED_A_DAY
    )]
    ExcludedTooMany(usize),
    #[error("no key of the erase class is listed and valid now: sign a KEYSET that lists one")]
    NoEraseKey,
    #[error("only DELETE leaves a receipt")]
    NoReceipt,
    #[error(
        "that is not a signed DELETE, INIT, LOCK or UNLOCK of this fleet: have it drafted and signed again"
    )]
    NotAnOrder,
    #[error(
        "{0} did not sign as a key of the erase class that is listed and valid now: sign with the key whose public \
         half is in the KEYSET"
    )]
    NotAnEraseKey(KeyName),
    #[error(
        "the order was drafted before the erase key {0} was listed, and terminals would refuse it: give \
         it anew"
    )]
    OlderThanItsKey(KeyName),
    #[error(
        "{signed} of the {needed} erase keys that this fleet asks for have signed: let the others sign, too"
    )]
    TooFewSignatures { signed: usize, needed: u8 },
    #[error("a signature of it is wrong: have it drafted and signed again")]
    BadSignature,
    #[error("the order has expired: have it drafted and signed again")]
    OrderExpired,
    #[error(
        "a newer LOCK or UNLOCK was given to terminal {0}: have this one drafted and signed again"
    )]
    NotNewer(TerminalNumber),
    #[error(
        "the receipt is not from terminal {0}, or was changed on its way: ask for the file again"
    )]
    ForgedReceipt(TerminalNumber),
    #[error("the receipt is about no order that this server gave terminal {0}")]
    ReceiptOfAnother(TerminalNumber),
    #[error("that {kind} is proved already, since {at}", kind = .kind.name())]
    AlreadyProved { kind: OrderKind, at: UnixSeconds },
    #[error("no key {0} is listed: `keyfall admin status` shows the names")]
    NoSuchKey(KeyName),
    #[error("online keys live 1 second to 30 days, not {0} s")]
    BadLife(u32),
    #[error(
        "of {listed} erase keys {needed} must sign: list more of them or ask for fewer signatures"
    )]
    TooFewEraseKeys { listed: usize, needed: u8 },
    #[error(
        "a grace of {0} s is too short: who has not heard that the key changed sends under the old one for up to \
         {lead} s; give at least {min} s",
        lead = super::CHANGE_LEAD,
        min = super::GRACE_MIN
    )]
    GraceTooShort(u32),
    #[error("a KEYSET lists at most {0} keys and names at most {1} stolen ones: leave some out")]
    TooManyKeys(usize, usize),
    #[error(
        "the suite rsa-misty1 needs an RSA key of the server, and there is none: name the suites \
         again with --suites, so that one is made"
    )]
    NoRsaKey,
    #[error("that is not signed by this fleet's root: use its root.key")]
    NotTheRoot,
    #[error("that is not the KEYSET that was drafted last: draft and sign it again")]
    NotTheDraft,
    #[error("the online keys of that KEYSET have ended: draft and sign another one")]
    DraftOutdated,
    #[error(
        "this is no packet group: make it one with --packets, which gives it a fresh key, and name the rest with it"
    )]
    NoPacketGroup,
    #[error("a packet group has at most {NETWORKS_MAX} networks, not {0}: name larger ones")]
    TooManyNetworks(usize),
    #[error(
        "group {group} names no networks, and terminal {terminal} speaks for single addresses: a host protects \
         what goes to networks of its groups and nothing else, so name them first (`keyfall admin group set NAME --network PREFIX`)"
    )]
    NoNetworks {
        group: GroupNumber,
        terminal: TerminalNumber,
    },
    #[error("the MTU of a packet group is {MTU_MIN} to {MTU_MAX}, not {0}")]
    BadMtu(u16),
    #[error(
        "a terminal has at most {PREFIXES_MAX} addresses and prefixes, not {0}: name larger prefixes"
    )]
    TooManyPrefixes(usize),
    #[error("a terminal has at most {ENDPOINTS_MAX} endpoints, not {0}: name the best of them")]
    TooManyEndpoints(usize),
    #[error(
        "nobody can be heard at {0}: name an address of one host and a port, like 203.0.113.9:4500"
    )]
    BadEndpoint(SocketAddr),
    #[error(
        "{} of terminal {} and {} of terminal {} overlap: in one group every address belongs to one terminal",
        held.1,
        held.0,
        wanted.1,
        wanted.0
    )]
    Overlapping {
        held: (TerminalNumber, Prefix),
        wanted: (TerminalNumber, Prefix),
    },
    #[error(
        "terminal {0} would be in more than {RECORD_GROUPS_MAX} packet groups: take it out of one first"
    )]
    TooManyPacketGroups(TerminalNumber),
    #[error(
        "the protection record of terminal {terminal} would have {octets} octets of at most {RECORD_MAX}: \
         name fewer prefixes, endpoints or networks"
    )]
    RecordTooLong {
        terminal: TerminalNumber,
        octets: usize,
    },
    #[error("the store could not be written; nothing was changed")]
    NotStored,
}
