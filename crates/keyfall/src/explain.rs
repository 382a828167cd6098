//! `keyfall explain CODE`: every code that this program shows, its cause and what to do, offline.
//!
//! Codes: 1xxx frames and 2xxx packets ([`DropReason`]); 30xx any command, 31xx terminal and
//! media, 32xx server, 33xx orders of operators.

use clap::Args;
use keyfall_protocol::DropReason;
use serde::Serialize;

use crate::output::{Exit, Failure, Output};

/// Explain a code, its cause and what to do; without a code: list all.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall explain KF-1004")]
pub(crate) struct ExplainArgs {
    /// A code as shown by other commands, with or without KF-.
    code: Option<String>,
}

pub(crate) fn run(args: &ExplainArgs, output: &Output) -> Result<(), Failure> {
    let Some(asked) = &args.code else {
        return output.versioned(&List { codes: all() }, |list| {
            let lines: Vec<_> = list
                .codes
                .iter()
                .map(|entry| format!("{}  {}", entry.code, entry.cause))
                .collect();
            lines.join("\n")
        });
    };
    let asked = asked.to_ascii_uppercase();
    let code = if asked.starts_with("KF-") {
        asked
    } else {
        format!("KF-{asked}")
    };
    let entry = all()
        .into_iter()
        .find(|entry| entry.code == code)
        .ok_or_else(|| {
            let sentence =
                format!("{code} is not a code of this version; `keyfall explain` lists all");
            Failure::new(Code::BadArguments, sentence)
        })?;
    output.versioned(&entry, |entry| {
        format!("{}: {}\n{}", entry.code, entry.cause, entry.remedy)
    })
}

#[derive(Serialize)]
struct List {
    codes: Vec<Explanation>,
}

/// One row of the table.
#[derive(Serialize, Debug)]
struct Explanation {
    code: &'static str,
    /// The name of a drop reason in counters and logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
    /// The exit code of a command that failed with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<u8>,
    cause: &'static str,
    remedy: &'static str,
}

fn all() -> Vec<Explanation> {
    let drops = DropReason::ALL.iter().map(|&reason| Explanation {
        code: reason.code(),
        name: Some(reason.name()),
        exit: None,
        cause: reason.sentence(),
        remedy: remedy(reason),
    });
    let failures = Code::ALL.iter().map(|&code| Explanation {
        code: code.text(),
        name: None,
        exit: Some(code.exit() as u8),
        cause: code.cause(),
        remedy: code.remedy(),
    });
    drops.chain(failures).collect()
}

macro_rules! codes {
    ($($variant:ident, $text:literal, $exit:ident, $cause:literal, $remedy:literal;)*) => {
        /// Why a command fails. Each belongs to one exit code.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Code {
            $(#[doc = $cause] $variant,)*
        }

        impl Code {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As it is shown: KF-nnnn.
            pub(crate) const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            pub(crate) const fn exit(self) -> Exit {
                match self { $(Self::$variant => Exit::$exit,)* }
            }

            const fn cause(self) -> &'static str {
                match self { $(Self::$variant => $cause,)* }
            }

            const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

codes! {
    BadArguments, "KF-3001", Usage,
        "The arguments are not what the command takes.",
        "Look at the example in the command's --help.";
    Output, "KF-3002", Failed,
        "The result could not be written.",
        "Look at where stdout goes: a full disk or a closed file.";
    BadInput, "KF-3003", Failed,
        "A file could not be read, or its contents are not what they should be.",
        "Check the path, and that the file came over whole.";
    Unexpected, "KF-3004", Failed,
        "The operating system refused something that always works, or this program has a fault.",
        "Read the sentence; if it does not help, report it with the lines on stderr.";
    Demo, "KF-3005", Failed,
        "A step of the demo did not go as it must.",
        "Run `keyfall demo --keep DIR` and look at DIR/logs; the demo needs multicast on the loopback interface and UDP ports on 127.0.0.1.";
    NotConfirmed, "KF-3006", Usage,
        "The command asks before it acts, and nobody could answer or the answer was no.",
        "Look at what --dry-run shows, then give --yes.";
    KeyFile, "KF-3007", Failed,
        "A file of a root or erase key could not be read, or holds no such key.",
        "Take the file that `keyfall server init` wrote; one that you encrypted must be decrypted first, as by `openssl pkey -in FILE`.";
    NotEnrolled, "KF-3101", Failed,
        "The directory holds no terminal.",
        "Enrol it with `keyfall terminal enrol DIR PACKAGE`, or give the directory where it is.";
    AlreadyEnrolled, "KF-3102", Refused,
        "The directory holds a terminal already; a package is never imported over one.",
        "Enrol into another directory.";
    BadPackage, "KF-3103", Failed,
        "The file is not an enrolment package, it is damaged, or its KEYSET is not signed by its root.",
        "Fetch it again; if that does not help, have a new one made with `keyfall admin terminal add`.";
    PackageSealed, "KF-3104", Locked,
        "The package does not open: the code is missing or wrong, or it was sealed to another terminal's request key.",
        "Look at the code, which is shown apart from the package; or have a package made for the key that `keyfall terminal enrol DIR --request` shows.";
    PackageExpired, "KF-3105", Refused,
        "The package is older than it may be, seven days by default.",
        "Have a new one made with `keyfall admin terminal add`; check this machine's clock if the package is new.";
    TerminalRuns, "KF-3106", Locked,
        "A process has the terminal's keys open, and only one may.",
        "End that process first, or ask it: status, why and media go by its control socket.";
    TerminalNotRunning, "KF-3107", Unreachable,
        "No process runs the terminal, and what was asked is known to a running one only.",
        "Start it with `keyfall terminal run DIR`.";
    CarrierUnusable, "KF-3108", Unreachable,
        "A carrier cannot be heard: its address is wrong, or its interface is not on this machine.",
        "Name the interface with --if, or the carrier with --carrier; `ip address` shows the interfaces.";
    StoreDamaged, "KF-3109", Failed,
        "The key store does not open; its keys are lost.",
        "Enrol the terminal anew in another directory; its old number stays in its groups.";
    NotAMember, "KF-3110", Refused,
        "The terminal holds no key of that group.",
        "Have it added with `keyfall admin group add`, or wait for the KEYDIST; --wait begins at once and waits for it.";
    MediaAddress, "KF-3111", Unreachable,
        "The system does not give the address or port for media: another program has it, or the interface is missing.",
        "Choose another port, or an interface that `ip address` shows.";
    NoSuchRelay, "KF-3112", Failed,
        "No such relay runs, or nothing is sent yet.",
        "`keyfall terminal status DIR` lists the relays.";
    TooMany, "KF-3113", Refused,
        "As many relays or connections are open as a terminal takes.",
        "End some: `keyfall media stop`.";
    Taken, "KF-3114", Refused,
        "Another relay receives the same already, and every packet is delivered once only.",
        "End the other one first.";
    ControlSocket, "KF-3115", Unreachable,
        "The terminal's control socket cannot be opened or reached, or the connection broke.",
        "Look at the terminal's log; the path of a socket has at most 107 octets, and its directory belongs to one user.";
    TerminalLocked, "KF-3116", Locked,
        "The terminal is locked: what its PIN or passphrase opens is closed, or the bound secret beside it is missing.",
        "Unlock it with `keyfall terminal unlock DIR`; the sentence says what is missing.";
    LockedByServer, "KF-3117", Locked,
        "The server locked the terminal, and no passphrase ends that.",
        "Ask the operator for `keyfall admin unlock`.";
    WrongPassphrase, "KF-3118", Locked,
        "The PIN or passphrase is not the one that was set, or the bound secret is another; it cost a try.",
        "Try again with care: after the last try every key is erased.";
    BadPassphrase, "KF-3119", Usage,
        "The new passphrase, its bound secret or the number of tries cannot be used.",
        "A passphrase has 4 to 1024 octets, a bound secret 16 to 4096; 3 to 100 tries can be allowed.";
    NotProtected, "KF-3120", Refused,
        "The terminal has no PIN or passphrase, so a lock would keep nobody out.",
        "Set one with `keyfall terminal protect DIR`.";
    Deleted, "KF-3121", Failed,
        "The keys of the terminal were erased: by an order, the tamper input, too many wrong passphrases, or because nothing was heard for too long.",
        "Nothing brings them back: enrol the terminal anew in another directory.";
    NotAToken, "KF-3122", Usage,
        "That is not a token: a letter is wrong or missing.",
        "Copy the whole line that `keyfall admin terminal add NAME --token` printed.";
    TokenRefused, "KF-3123", Refused,
        "The server does not take the token: it was used, has ended, or its terminal was excluded; or the server had the terminal's keys deleted at once.",
        "Ask for a new one, made with `keyfall admin terminal add NAME --token`; `keyfall admin audit` at the server says who came with it.";
    OtherServer, "KF-3124", Refused,
        "Who answers there is not of the fleet that the token is of, or shows keys that its root did not sign.",
        "Look at the address; if it is right, somebody stands between you and the server.";
    ServerSilent, "KF-3125", Unreachable,
        "Nobody answers there.",
        "Look at the address, at the way to it (UDP), and whether the server runs and was founded with --listen.";
    NoTokenSuite, "KF-3126", Refused,
        "The fleet's root allows no suite in which a token counts: hpke or hpke-pq.",
        "Enrol by a package, or have a suite listed with `keyfall server sign-keys --suites`.";
    NoWay, "KF-3127", Failed,
        "No packet of this terminal goes to that address protected.",
        "Read the sentence; `keyfall terminal status` shows whether packets pass, `keyfall explain` has the reason's code.";
    NoEcho, "KF-3128", Failed,
        "Nobody answered the echo requests, or they did not go through the tunnel.",
        "Look whether the host is up and answers pings; `keyfall terminal status` on both sides shows what was dropped.";
    NoEchoSocket, "KF-3129", Failed,
        "The operating system gives this user no socket for echo requests.",
        "Run it as root, or allow it with `sysctl net.ipv4.ping_group_range='0 2147483647'`.";
    NoServer, "KF-3201", Failed,
        "The directory holds no server.",
        "Make one with `keyfall server init DIR`, or give the directory where it is.";
    ServerExists, "KF-3202", Refused,
        "The directory holds something already; a server is never made over anything.",
        "Name a directory that is new or empty.";
    ServerRuns, "KF-3203", Locked,
        "A server runs in the directory, and only one may.",
        "End that process first, or order it: `keyfall admin` goes by its socket.";
    ServerNotRunning, "KF-3204", Unreachable,
        "No server runs in the directory, and orders are taken by a running one only.",
        "Start it with `keyfall server run DIR`.";
    TooOpen, "KF-3205", Refused,
        "Others than the server's user may look into its directory or read a file of keys.",
        "Close it with the chmod that the sentence names; who looked in meanwhile may have the keys.";
    Sealed, "KF-3206", Locked,
        "The database does not open: its seal key is missing, damaged, or of another server.",
        "Put back the seal.key that belongs to this keyfall.db.";
    ServerStore, "KF-3207", Failed,
        "The server's database does not read, or holds what no server wrote.",
        "Look at the disk; then put back a copy of keyfall.db with the journal of today.";
    OutOfStep, "KF-3208", Refused,
        "Database and order journal end at different places: one of them was put back from a copy.",
        "Put back the other one of the same time; a server never uses a number twice.";
    JournalBroken, "KF-3209", Failed,
        "The order journal is missing, or a line of it was changed or removed.",
        "Put it back from where a copy is kept.";
    UnknownSchema, "KF-3210", Refused,
        "The database was written by another version, newer or from before the first release, or is not a server's.",
        "Run the version that wrote it, or a newer one; one from before the first release is founded anew.";
    ServerClock, "KF-3211", Failed,
        "The clock of this machine stands before a time that this server has signed already.",
        "Set the clock, and see that it is kept; nothing was changed.";
    AdminSocket, "KF-3212", Unreachable,
        "The server's admin socket cannot be opened or reached, or the connection broke.",
        "Look at the server's log; the path of a socket has at most 107 octets.";
    ServerFault, "KF-3213", Failed,
        "The operating system refused the server something, or this program has a fault.",
        "Read the sentence and the server's log; a full disk is the usual cause.";
    AuditBroken, "KF-3214", Failed,
        "An entry of the audit log was changed, or entries were removed.",
        "Keep the database as it is, compare it with a copy, and find out who could write to it.";
    PackageNotWritten, "KF-3215", Failed,
        "An enrolment package could not be written where it should be.",
        "Name another directory with --out, or move away the file of that name.";
    BadDraft, "KF-3216", Failed,
        "The file holds no KEYSET to sign, or none that is signed.",
        "Make it with `keyfall server sign-keys DIR --draft FILE`, sign it with --sign FILE --root FILE, bring it back with --install FILE.";
    BadBackup, "KF-3217", Failed,
        "The file is no whole backup of a server.",
        "Take another one; `keyfall server backup DIR FILE` makes them and reads them again.";
    JournalNeeded, "KF-3218", Refused,
        "Without the whole order journal a restored server would use numbers twice and readmit who was excluded.",
        "Give the journal's place with --journal FILE; if there is none any more, --journal-lost gives every group a fresh key, and you exclude again.";
    ListenAddress, "KF-3219", Unreachable,
        "The server cannot listen at the address at which terminals are to ask it.",
        "See which program has the port (`ss -ulpn`), or whether the address is this machine's; --listen of `keyfall server init` names it.";
    BadOrder, "KF-3301", Usage,
        "The server does not read the request.",
        "Look at the sentence; programs of one version understand each other.";
    NoSuchPath, "KF-3302", Failed,
        "The server does not have what was asked for in its admin API.",
        "Run programs of one version.";
    NotYou, "KF-3303", Refused,
        "Only root and the user that runs the server may order.",
        "Become one of them.";
    BadName, "KF-3304", Usage,
        "A name has other characters than names may have.",
        "Use 1 to 64 letters, digits, dots, hyphens or underscores, and not digits alone.";
    NameTaken, "KF-3305", Refused,
        "A terminal or group of that name is there already.",
        "Choose another name; `keyfall admin terminal list` and `group list` show them.";
    NoSuchTerminal, "KF-3306", Failed,
        "There is no terminal of that name or number.",
        "`keyfall admin terminal list` shows them.";
    NoSuchGroup, "KF-3307", Failed,
        "There is no group of that name or number.",
        "`keyfall admin group list` shows them.";
    NoMembers, "KF-3308", Usage,
        "A group was to be made without a member.",
        "Name at least one with --member.";
    AlreadyMember, "KF-3309", Refused,
        "The terminal is a member of that group already.",
        "Nothing: it gets the group's keys.";
    NumbersUsedUp, "KF-3310", Refused,
        "Numbers are never given twice, and all are used up.",
        "Found another fleet.";
    BadRequestKey, "KF-3311", Usage,
        "What was given with --for is not a request key.",
        "Copy the whole line that `keyfall terminal enrol DIR --request` printed.";
    BadPeriod, "KF-3312", Usage,
        "Terminals refuse keys that renew so often.",
        "At most 64 generations at a time, and 64 in ten minutes.";
    RenewedTooOften, "KF-3313", Refused,
        "The key was renewed as often as terminals accept until the online keys end.",
        "Give it a slower schedule: 64 generations for each ten minutes that the online keys live are the bound.";
    NotStored, "KF-3314", Failed,
        "The order could not be stored, so it has not happened and nothing was sent.",
        "Look at the server's log: the disk is full or broken. Then give the order again.";
    StoreFault, "KF-3315", Failed,
        "The running server could not read its database.",
        "Look at the server's log and at the disk.";
    Ending, "KF-3316", Unreachable,
        "The server is ending.",
        "Give the order again when it runs.";
    NotMember, "KF-3317", Refused,
        "The terminal is not a member of that group.",
        "Nothing: it gets none of its keys. `keyfall admin group show` names the members.";
    BadWipeRoot, "KF-3318", Usage,
        "A directory that INIT is to wipe is no absolute path of a place that may be wiped, or there are too many.",
        "Give absolute paths without .., and never / itself.";
    Excluded, "KF-3319", Refused,
        "The terminal is excluded, which is for good.",
        "Enrol the device anew: it gets another number.";
    ExcludedTooMany, "KF-3320", Refused,
        "More terminals than one exclusion names, or than terminals accept in a day.",
        "Exclude those that matter most first, and the rest tomorrow.";
    EraseSignatures, "KF-3321", Refused,
        "The order is not signed by as many erase keys of this fleet as it asks for.",
        "Give --erase-key once for each key; `keyfall admin keys` names those that are listed.";
    NotTheDraft, "KF-3322", Refused,
        "What came back signed is not what this server drafted last, or its time is over.",
        "Draft it and sign it again.";
    BadReceipt, "KF-3323", Failed,
        "The receipt does not read, is not from that terminal, or is about no order of this server.",
        "Ask for the terminal's file, or its text that begins with KF1-RECEIPT-, again and whole.";
    AlreadyProved, "KF-3324", Refused,
        "A receipt has proved that order before.",
        "Nothing: `keyfall admin terminal show` says since when.";
    NoSuchKey, "KF-3325", Failed,
        "No key of that name is listed.",
        "`keyfall admin keys` shows the names of all signing keys.";
    BadKeySet, "KF-3326", Usage,
        "A KEYSET cannot say that: how long online keys live, how many keys it lists, or how many of them must sign.",
        "Look at the sentence; online keys live 30 days at most.";
    NotTheRoot, "KF-3327", Refused,
        "The KEYSET is not signed by the root of this fleet.",
        "Sign it with the root.key that `keyfall server init` wrote for this fleet.";
    HourlyLimit, "KF-3328", Refused,
        "More DELETE and INIT within an hour than this server issues unasked. The limit is the server's own and no security boundary.",
        "Look again at what is being deleted; then give --force, or wait.";
    KeysLost, "KF-3329", Refused,
        "The terminal was enrolled after the backup that this server was restored from, so nobody has its keys any more.",
        "Enrol the device anew, which gives it another number; this one can only be excluded.";
    NotHeld, "KF-3330", Refused,
        "There is nothing to confirm: the server sends already.",
        "Nothing; `keyfall admin status` says whether a restored server is held.";
    BadTokenLife, "KF-3331", Usage,
        "A token is good for at least a minute and at most thirty days.",
        "Say how long with --good-for, as in 2h or 7d.";
    NoTokens, "KF-3332", Refused,
        "Terminals cannot come with a token: the server listens nowhere for them, or the KEYSET lists no suite in which a token counts.",
        "Found the server with --listen; list hpke or hpke-pq with `keyfall server sign-keys --suites`; or enrol by package.";
    BadAddresses, "KF-3333", Usage,
        "A prefix, an endpoint or a setting of a packet group is not one, is too much for a protection record, or the group is no packet group.",
        "The sentence says which; `keyfall admin group set GROUP --packets` makes a packet group, `keyfall admin terminal set` names addresses.";
    Overlapping, "KF-3334", Refused,
        "Two terminals of one packet group would speak for the same address, and nobody could tell whose packets are whose.",
        "Give one of them other addresses with `keyfall admin terminal set`, take it out of the group, or exclude the device that it replaces.";
}

/// What to do about a drop reason.
const fn remedy(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Malformed => {
            "Look at what else sends to the carrier's address; `keyfall inspect` reads a captured frame."
        }
        DropReason::UnknownSigner => {
            "Check that the terminal hears its own fleet; after the server's keys were renewed it needs the new KEYSET."
        }
        DropReason::WrongClass | DropReason::AboveBound | DropReason::GroupNotAllowed => {
            "Suspect a stolen signing key: compare the server's audit log; `keyfall server sign-keys DIR --root FILE --stolen NAME` undoes what it did."
        }
        DropReason::BadSignature => {
            "A few are noise; many are an attack on the carrier, which changes nothing but costs air time."
        }
        DropReason::SignerExpired => {
            "Set the server's clock right if it is wrong; else its online keys have ended: `keyfall server sign-keys DIR --root FILE` makes the next, and terminals take them from the KEYSET that they hear."
        }
        DropReason::PastNotAfter | DropReason::TimeBackwards => {
            "Nothing, if a recording is played; else check the server's clock."
        }
        DropReason::TimeTooFar => {
            "Check the server's clock; if the first beacon was a recording, the next KEYDIST or a restart of the terminal sets the time right."
        }
        DropReason::NotNewer
        | DropReason::KeySetNotNewer
        | DropReason::NotAddressed
        | DropReason::OwnPacket => "Nothing: this is how it should be.",
        DropReason::NotHeld => {
            "Have the terminal added with `keyfall admin group add`, or wait for the KEYDIST."
        }
        DropReason::NewerEpoch => {
            "Wait for the KEYDIST; if it does not come, check with the server that the terminal is still a member."
        }
        DropReason::DoesNotOpen => {
            "If it goes on for more than one carousel cycle, compare the wrap key's fingerprint with the server's."
        }
        DropReason::UnknownTag => {
            "Compare epoch and generation of sender and receiver with `keyfall terminal status`."
        }
        DropReason::VerifyBudget => {
            "Look for the source of the flood; the carousel repeats everything."
        }
        DropReason::TrialBudget => "Look for the source of the flood; nothing is lost for good.",
        DropReason::AboveCeiling => {
            "Check that this terminal hears the carrier: RENEW and TIME raise the ceiling."
        }
        DropReason::OlderGeneration => "Check that the sender hears the carrier.",
        DropReason::Authentication => {
            "Compare --suite and --rederive-after of both sides; else it is damage or a forgery."
        }
        DropReason::Replayed | DropReason::BeforeWindow => {
            "Nothing, if the network doubles or delays packets; after a restart up to two seconds are refused."
        }
        DropReason::TooManyStockSenders => {
            "Wait until some end: `keyfall terminal status` says when; ask for shorter times."
        }
        DropReason::RefusedSession => {
            "Nothing, if that sender restarts often: its next generation begins anew; else suspect a member that forges its packets."
        }
        DropReason::NotMedia => {
            "Look at what else sends to the address; stock SRTP without an MKI is not for this relay."
        }
        DropReason::LeaseOver => "Check that the terminal hears the carrier: RENEW extends leases.",
        DropReason::Held => "Look at the disk: a store commit takes longer than the queue lasts.",
        DropReason::NoBeacon => {
            "Wait for the next TIME; if none comes, check that the terminal hears the carrier."
        }
        DropReason::NotActive => {
            "Nothing: it is a moment, or the activation time that RENEW or KEYDIST names."
        }
        DropReason::NotSent => "Look at the interface and its load.",
        DropReason::Locked => {
            "Unlock it with `keyfall terminal unlock`; what the carousel repeats is heard then."
        }
        DropReason::ExcludeBudget => {
            "If the order was yours, give it again with the erase key; else suspect a stolen signing key."
        }
        DropReason::TooFewSignatures => {
            "Give the order with as many --erase-key files as the fleet asks for."
        }
        DropReason::ExcludedSender => {
            "Nothing, if that terminal is lost; else enrol it anew: its number does not come back."
        }
        DropReason::Excluded => {
            "If it was found again, have it enrolled anew in another directory."
        }
        DropReason::Stopped => {
            "Nothing, while it lasts seconds: `keyfall terminal status` says until when."
        }
        DropReason::StopQueue => {
            "Change the key of this group without a stop: `keyfall admin group set` with --change hitless."
        }
        DropReason::NoRecord => {
            "Give the terminal its addresses with `keyfall admin terminal set`, and see with `keyfall terminal status` that it hears the carrier or reaches its server."
        }
        DropReason::SourceNotOurs | DropReason::NotInRecord => {
            "Compare the address with the prefixes that the server gave the terminal."
        }
        DropReason::NoCommonGroup => {
            "Put both terminals into one packet group with `keyfall admin group add`."
        }
        DropReason::NoAnswer => {
            "Look whether a gateway protects the destination, whether the packet port is open on the way to it, and whether both hold the same epoch."
        }
        DropReason::SearchBudget => {
            "Look which host behind this terminal scans; what is genuine gets through."
        }
        DropReason::NoWayThere => "Route such addresses by another interface.",
        DropReason::NoGroupThere => {
            "Give a packet group that multicast prefix as one of its networks."
        }
        DropReason::SearchForged | DropReason::OtherGroup | DropReason::ProbeReplayed => {
            "A few come with a change of epoch or of groups; many are an attack, which learns and changes nothing."
        }
        DropReason::ProbeFromInside | DropReason::ProbeForOthers => {
            "Nothing: such probes are not answered."
        }
        DropReason::OlderRecord => {
            "Nothing, if a recording is played; else see that the other terminal hears the carrier."
        }
        DropReason::UnknownPeer => {
            "Nothing, for a moment after a restart; else see that this terminal hears the carrier or that its search finds the other."
        }
        DropReason::SearchQueue => {
            "Look which host sends so much before its first answer; what is sent again gets through."
        }
        DropReason::NotEsp => "Look at what else sends to the packet port.",
        DropReason::NotForUs => {
            "Compare the address with the prefixes that the server gave this terminal; the sender hears of a change by the carrier."
        }
        DropReason::TooBig => {
            "Nothing: a program or system that heeds the answer sends shorter packets at once; if it goes on, see that it lets ICMP in."
        }
        DropReason::PathExpired => "Nothing: the next packet begins a search.",
        DropReason::NotAsked => {
            "Nothing, if the network doubles or delays packets; many are an attack on the way to the server, which changes nothing."
        }
        DropReason::OtherSuite => {
            "Look at who is on the way to the server; the suites that count are those of the KEYSET."
        }
        DropReason::Distrusted => {
            "Wait for the KEYDIST of the group's next epoch; the server makes one after a theft."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_once() {
        let all = all();
        for (place, entry) in all.iter().enumerate() {
            assert!(
                entry.code.len() == 7 && entry.code.starts_with("KF-"),
                "{}",
                entry.code
            );
            assert!(
                entry.cause.len() > 20 && entry.remedy.len() > 10,
                "{}",
                entry.code
            );
            assert!(
                all[..place].iter().all(|other| other.code != entry.code),
                "{}",
                entry.code
            );
        }
    }
}
