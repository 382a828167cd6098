//! Why something was refused: counted here, never answered on the wire.

use std::fmt;

use crate::ids::Tick;

macro_rules! drop_reasons {
    ($($variant:ident, $code:literal, $name:literal, $sentence:literal;)*) => {
        /// Why a frame, a packet or a trial came to nothing. Each has a code that
        /// `keyfall explain` knows.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        pub enum DropReason {
            $(#[doc = $sentence] $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code that `keyfall explain` takes.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The name in counters, logs and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence: what it means and what usually causes it.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

drop_reasons! {
    Malformed, "KF-1001", "malformed",
        "The octets are not one of our commands: noise on the carrier, another program on the same address, or a newer version.";
    UnknownSigner, "KF-1002", "unknown_signer",
        "The command names a signing key that the KEYSET held does not list: another fleet's server, or a key that was replaced.";
    WrongClass, "KF-1003", "wrong_class",
        "The key that signed may not sign this type of command: a stolen or misconfigured signing key.";
    BadSignature, "KF-1004", "bad_signature",
        "The signature does not fit: a forgery, or damage on the way.";
    SignerExpired, "KF-1005", "signer_expired",
        "The signing key was not yet or no longer valid when it signed: the server needs new online keys.";
    PastNotAfter, "KF-1006", "past_not_after",
        "The command is past its own end: a recording was played back, or this terminal's time runs ahead.";
    NotNewer, "KF-1007", "not_newer",
        "The command states nothing newer than what is held: the carousel repeats, as it should.";
    NotAddressed, "KF-1008", "not_addressed",
        "The distribution is for others: none of its handles is this terminal's.";
    AboveBound, "KF-1009", "above_bound",
        "The number is above what its signer may claim by the root's schedule: a stolen signing key.";
    NotHeld, "KF-1010", "not_held",
        "The command is about a group whose key this terminal does not hold: it is not a member, or the key has not arrived yet.";
    NewerEpoch, "KF-1011", "newer_epoch",
        "The group has a newer epoch than the one held: wait for the KEYDIST on the carousel; until then this terminal does not send in that group.";
    TimeBackwards, "KF-1012", "time_backwards",
        "The beacon is older than the time already known: a recording, or carriers with different delay.";
    TimeTooFar, "KF-1013", "time_too_far",
        "The beacon jumps further ahead than the powered-on time allows: a stolen beat key, or a first beacon that was a recording, which the next distribution overcomes.";
    GroupNotAllowed, "KF-1014", "group_not_allowed",
        "The key that signed may not speak for this group.";
    DoesNotOpen, "KF-1015", "does_not_open",
        "The distribution names this terminal's handle but does not open with its key: a chance match of handles, or a faulty server.";
    KeySetNotNewer, "KF-1016", "keyset_not_newer",
        "The KEYSET is the one held already: the carousel repeats, as it should.";
    VerifyBudget, "KF-1017", "verify_budget",
        "More signed frames came than this terminal checks in a second: a flood on the carrier; the carousel repeats what was left out.";
    Locked, "KF-1018", "locked",
        "This terminal is locked: what needs its user's keys waits until it is unlocked; the carousel repeats it.";
    ExcludeBudget, "KF-1019", "exclude_budget",
        "One key of the keys class excluded more terminals in a powered-on day than terminals accept: a stolen key, or an order that needs a signature of the erase class too.";
    TooFewSignatures, "KF-1020", "too_few_signatures",
        "The order needs more signatures of the erase class than it has: this fleet's root asks for several.";
    NotAsked, "KF-1030", "not_asked",
        "An answer came to no request that is open: a repeat, a recording, or a forgery.";
    OtherSuite, "KF-1031", "other_suite",
        "The answer is in another suite than was asked in: somebody on the way wishes for a weaker one, and nothing of it is believed.";
    UnknownTag, "KF-2001", "unknown_tag",
        "The packet's key tag fits no key of this group: another group's traffic, an older epoch, or a sender that is far ahead.";
    TrialBudget, "KF-2002", "trial_budget",
        "Too many packets asked for a trial derivation: a flood of forged generations or sessions; genuine senders get through as the budget refills.";
    AboveCeiling, "KF-2003", "above_ceiling",
        "The packet claims a generation above what the server has announced: forged, or this terminal has missed commands for long; RENEW, TIME or KEYDIST will close the gap.";
    OlderGeneration, "KF-2004", "older_generation",
        "The packet is under a generation whose grace has ended: its sender lags and will catch up, or it is a recording.";
    Authentication, "KF-2005", "authentication",
        "The packet's tag does not verify: forged, damaged, or made with another suite.";
    Replayed, "KF-2006", "replayed",
        "The packet was delivered before: the network doubled it, or somebody plays a recording.";
    BeforeWindow, "KF-2007", "before_window",
        "The packet is older than the replay window reaches.";
    NotMedia, "KF-2008", "not_media",
        "The datagram is not an SRTP or SRTCP packet of ours.";
    OwnPacket, "KF-2009", "own_packet",
        "The packet carries this terminal's own sender number: its own multicast came back.";
    LeaseOver, "KF-2010", "lease_over",
        "The lease of the group's key has ended: a newer RENEW or KEYDIST extends it.";
    Held, "KF-2011", "held_back",
        "The packet waited for its stream's first mark to be stored and the queue was full.";
    NoBeacon, "KF-2012", "no_beacon",
        "No signed TIME was heard since this terminal was switched on: until then it receives and does not send.";
    NotSent, "KF-2013", "not_sent",
        "The operating system did not take the datagram: its buffer is full, or the way there is closed.";
    NotActive, "KF-2014", "not_active",
        "The group's key has come, but it is not stored yet or its time to be sent with has not come: until then this terminal receives and does not send.";
    ExcludedSender, "KF-2015", "excluded_sender",
        "The packet's sender was excluded by the server: lost or stolen, and nobody listens to it any more.";
    Excluded, "KF-2016", "excluded",
        "This terminal was excluded by the server: it neither sends nor receives; if that is an error, its operator enrols it anew.";
    Distrusted, "KF-2017", "distrusted",
        "The group's key was brought by a signing key that was stolen since: this terminal receives with it and does not send until a newer one comes.";
    Stopped, "KF-2018", "stopped",
        "The server has stopped the group while its key changes: packets wait, and go out at START or at the latest when the time of the STOP is over.";
    StopQueue, "KF-2019", "stop_queue",
        "The packet waited for the end of a STOP, and the queue was full or the wait too long: the oldest packets go first.";
    TooManyStockSenders, "KF-2031", "too_many_stock_senders",
        "This terminal has keys for so many stock senders that it makes no further one: they end by themselves at their stated times.";
    RefusedSession, "KF-2030", "refused_session",
        "The packet is of a session that 64 newer ones of the same sender displaced, or of one session too many: how far it was delivered is not known, so nothing of it is.";
    NoRecord, "KF-2101", "no_record",
        "This terminal's own protection record has not come, or its end is past: without one it sends and answers for no address; it comes with the carousel or at the next key request.";
    SourceNotOurs, "KF-2102", "source_not_ours",
        "The packet's source address is none of this terminal's prefixes: a host that is not protected here, or a prefix that its operator has not given.";
    NoCommonGroup, "KF-2103", "no_common_group",
        "The two terminals share no packet group for that destination: put both into one group if they are to talk.";
    NoAnswer, "KF-2104", "no_answer",
        "Nobody on the way to the destination answered the key search: nothing protects it, the way there is closed, or its gateway shares no group; it is asked again after half a minute.";
    SearchBudget, "KF-2105", "search_budget",
        "Too many key searches at once, or too many probes or answers: somebody scans addresses; what is genuine gets through as the budget refills.";
    NoWayThere, "KF-2106", "no_way_there",
        "The destination is one of this terminal's own addresses, or of a kind that nothing is sent to: loopback, link-local, broadcast.";
    NoGroupThere, "KF-2107", "no_group_there",
        "The multicast address is in the networks of none of this terminal's packet groups.";
    SearchForged, "KF-2110", "search_forged",
        "A probe or an answer does not verify under the group's search key: a stranger, a recording, or a member at another epoch.";
    OtherGroup, "KF-2111", "other_group",
        "An answer or a packet came under another group than the rule gives: somebody wishes for a weaker one, or one side missed what the groups are now.";
    NotInRecord, "KF-2112", "not_in_record",
        "A terminal speaks for an address, or in a group, that its protection record does not name.";
    ProbeFromInside, "KF-2113", "probe_from_inside",
        "A probe came from what this terminal protects: only what comes from outside is answered.";
    ProbeForOthers, "KF-2114", "probe_for_others",
        "A probe asks for an address that this terminal does not protect, or was sent to another one.";
    ProbeReplayed, "KF-2115", "probe_replayed",
        "A probe was answered before: the network doubled it, or somebody plays a recording.";
    OlderRecord, "KF-2116", "older_record",
        "A protection record is older than one that is held of that terminal: a recording, or late on its way.";
    UnknownPeer, "KF-2117", "unknown_peer",
        "A packet opened whose sender's protection record is not held, as after a restart: the terminal searches for it.";
    PathExpired, "KF-2118", "path_expired",
        "A path that a search found was idle for too long, is an hour old, or its group or peer changed: it is searched for again when it is needed.";
    SearchQueue, "KF-2130", "search_queue",
        "The packet waited for a key search or for the driver, and the queue was full: a scan of addresses, or a sender that does not wait for an answer.";
    NotEsp, "KF-2131", "not_esp",
        "The datagram is not an ESP packet of ours, and no message of key search.";
    NotForUs, "KF-2132", "not_for_us",
        "A packet opened whose destination is none of this terminal's prefixes: its sender has an older record, or sends where nobody asked it to.";
    TooBig, "KF-2133", "too_big",
        "The packet is too long for the path to its peer and may not be cut: its sender was told how much fits (ICMP), and sends shorter ones.";
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.code())
    }
}

/// How often each [`DropReason`] occurred since the machine was made, and when last.
#[derive(Debug, Clone)]
pub struct DropCounters([(u64, Tick); DropReason::ALL.len()]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([(0, Tick::default()); DropReason::ALL.len()])
    }
}

impl DropCounters {
    /// Counts one.
    pub fn count(&mut self, now: Tick, reason: DropReason) {
        if let Some((count, last)) = self.0.get_mut(reason as usize) {
            *count = count.saturating_add(1);
            *last = now;
        }
    }

    /// How often.
    #[must_use]
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).map_or(0, |&(count, _)| count)
    }

    /// What occurred at least once: the reason, how often, when last.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64, Tick)> + '_ {
        DropReason::ALL
            .iter()
            .zip(&self.0)
            .filter(|(_, (count, _))| *count > 0)
            .map(|(&reason, &(count, last))| (reason, count, last))
    }
}
