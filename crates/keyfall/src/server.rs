//! `keyfall server`: make and run the one authority over a fleet's keys.

mod restore;
mod sign_keys;

use std::path::{Path, PathBuf};

use clap::builder::RangedI64ValueParser;
use clap::{Args, Subcommand, value_parser};
use keyfall_carrier::CarrierAddress;
use keyfall_protocol::command::{Limits, SIGNERS_MAX, Suites};
use keyfall_protocol::server::Founding;
use keyfall_protocol::sharing::SharingSuite;
use keyfall_server::journal::JournalError;
use keyfall_server::seal::SealKeyError;
use keyfall_server::store::StoreError;
use keyfall_server::{DirectoryError, Founded, InitError, RunError};
use serde::Serialize;

use crate::control_client::interrupted;
use crate::explain::Code;
use crate::output::{Failure, Output, utc};
use crate::terminal::{dir_of_environment, small_runtime};

/// Make and run a server.
#[derive(Args, Debug)]
pub(crate) struct ServerArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Init(InitArgs),
    Run(RunArgs),
    SignKeys(sign_keys::SignKeysArgs),
    Backup(restore::BackupArgs),
    Restore(restore::RestoreArgs),
}

/// Which server is meant.
#[derive(Args, Debug)]
struct Dir {
    /// The server's directory; instead of it: --dir or KEYFALL_DIR.
    #[arg(value_name = "DIR")]
    place: Option<PathBuf>,
    #[arg(
        long = "dir",
        value_name = "DIR",
        conflicts_with = "place",
        hide = true
    )]
    named: Option<PathBuf>,
}

/// Found a fleet in a new directory. Asks nothing.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall server init fleet\n  keyfall server init fleet \
                        --carrier 'udp://239.255.70.77:47700?if=10.0.0.1&ttl=8' --rate 64k\n\n\
                        Spans are seconds, or end in s, m, h or d: 90, 10m, 1h, 30d."
)]
struct InitArgs {
    #[command(flatten)]
    dir: Dir,
    /// The fleet's name, for people.
    #[arg(long, default_value = "fleet", value_parser = fleet_name)]
    name: String,
    /// Where commands are sent; may be given several times. Without it: on this machine only.
    #[arg(long = "carrier", value_name = "ADDRESS", default_value = THIS_MACHINE)]
    carriers: Vec<CarrierAddress>,
    /// Where terminals that can answer are listened to, as in 0.0.0.0:47900 or `[::]:47900`; may be
    /// given several times. Without it: one way only.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<std::net::SocketAddr>,
    /// How terminals reach that, as HOST:PORT; it goes into their packages. Without it: what --listen
    /// says.
    #[arg(long = "address", value_name = "HOST:PORT")]
    addresses: Vec<String>,
    /// How keys may be asked for, in order of preference: of hpke, hpke-pq, psk.
    #[arg(long, value_name = "SUITES", default_value = "hpke,hpke-pq,psk", value_parser = suites)]
    suites: Suites,
    /// Bits per second that the carousel may take of each carrier: 64000, 64k, 1M.
    #[arg(long, value_name = "BPS", default_value = "1M", value_parser = rate)]
    rate: u64,
    /// How often the device keys of the fleet renew by themselves.
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = fleet_period)]
    fleet_period: u32,
    /// After how long a group gets a fresh key, sent to each member, by itself: what was copied
    /// unnoticed reads nothing any more then.
    #[arg(long, value_name = "SPAN|never", default_value = "7d", value_parser = epoch_life)]
    epoch_life: u32,
    /// How long the online keys live: at most 30d.
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = signer_life)]
    signer_life: u32,
    /// How long a terminal keeps an old device key: what a recorded distribution stays open for.
    #[arg(long, value_name = "SPAN", default_value = "2m", value_parser = span)]
    keep_time: u32,
    /// How many erase keys must sign what deletes, initializes, locks or unlocks.
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = signers())]
    erase_quorum: u8,
    /// How many erase keys there are: erase.key, erase-2.key and so on, for different people.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = signers())]
    erase_keys: u8,
    /// The longest time for which a terminal uses a group's key without hearing from the server.
    #[arg(long, value_name = "SPAN", default_value = "72h", value_parser = span)]
    longest_lease: u32,
    /// How long after the end of its lease a terminal that hears nothing wipes itself.
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = span)]
    dead_man: u32,
    /// How long members that heard of an exclusion wait for the new key before they send again
    /// under the old one.
    #[arg(long, value_name = "SPAN", default_value = "10m", value_parser = span)]
    exclude_wait: u32,
    /// After an exclusion send nothing until the new key is there, however long that is.
    #[arg(long, conflicts_with = "exclude_wait")]
    fail_closed: bool,
}

/// Run the server in front, until Ctrl-C or SIGTERM.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall server run fleet")]
struct RunArgs {
    #[command(flatten)]
    dir: Dir,
}

pub(crate) fn run(args: ServerArgs, output: &Output) -> Result<(), Failure> {
    match args.verb {
        Verb::Init(args) => init(args, output),
        Verb::Run(args) => run_in_front(&args.dir.resolve()?, output),
        Verb::SignKeys(args) => sign_keys::run(&args, output),
        Verb::Backup(args) => restore::backup(&args, output),
        Verb::Restore(args) => restore::restore(args, output),
    }
}

/// No DIR, no --dir, no KEYFALL_DIR.
pub(crate) fn no_directory() -> Failure {
    let sentence = "which server is meant? Give its directory with --dir, or set KEYFALL_DIR";
    Failure::new(Code::BadArguments, sentence)
}

/// Suites of key sharing, separated by commas, in order of preference. A fleet is founded without
/// the legacy one.
pub(crate) fn suites(text: &str) -> Result<Suites, String> {
    let suites = any_suites(text)?;
    if suites.contains(SharingSuite::RsaMisty1) {
        let sentence =
            "rsa-misty1 is off in a new fleet: `keyfall server sign-keys --suites` turns it on";
        return Err(sentence.to_owned());
    }
    Ok(suites)
}

/// With the legacy one, too.
pub(crate) fn any_suites(text: &str) -> Result<Suites, String> {
    let known = [
        SharingSuite::Hpke,
        SharingSuite::HpkePq,
        SharingSuite::Psk,
        SharingSuite::RsaMisty1,
    ];
    let named = |word: &str| known.into_iter().find(|suite| suite.name() == word.trim());
    let suites: Option<Vec<_>> = text.split(',').map(named).collect();
    suites
        .and_then(|suites| Suites::new(&suites))
        .ok_or_else(|| format!("{text:?} is no list of suites: write some of hpke, hpke-pq, psk"))
}

/// `90`, `90s`, `10m`, `1h`, `30d` as seconds.
pub(crate) fn span(text: &str) -> Result<u32, String> {
    let bad = || format!("{text:?} is no span: write seconds, or as in 90s, 10m, 1h, 30d");
    let (digits, unit) = match text.char_indices().next_back() {
        Some((end, 's')) => (&text[..end], 1),
        Some((end, 'm')) => (&text[..end], 60),
        Some((end, 'h')) => (&text[..end], 3_600),
        Some((end, 'd')) => (&text[..end], 86_400),
        Some(_) | None => (text, 1),
    };
    let number: u32 = digits.parse().map_err(|_| bad())?;
    number
        .checked_mul(unit)
        .filter(|&seconds| seconds > 0)
        .ok_or_else(bad)
}

impl Dir {
    fn resolve(&self) -> Result<PathBuf, Failure> {
        let given = self.place.clone().or_else(|| self.named.clone());
        given.or_else(dir_of_environment).ok_or_else(no_directory)
    }
}

/// The result of `init`.
#[derive(Serialize)]
struct InitDocument {
    schema: u32,
    ok: bool,
    dir: String,
    fleet: String,
    carriers: Vec<String>,
    /// Where terminals ask.
    servers: Vec<String>,
    /// To be moved away from this machine.
    root_key: String,
    erase_key: String,
    /// All of them; so many must sign what deletes.
    erase_keys: Vec<String>,
    erase_quorum: u8,
    /// Guards backups and not the machine.
    seal: &'static str,
    signers_expire: u32,
    next: String,
}

fn init(args: InitArgs, output: &Output) -> Result<(), Failure> {
    let dir = args.dir.resolve()?;
    if args.erase_quorum > args.erase_keys {
        let sentence = format!(
            "{} erase keys cannot sign where there are {}: give --erase-keys {} or more",
            args.erase_quorum, args.erase_keys, args.erase_quorum
        );
        return Err(Failure::new(Code::BadArguments, sentence));
    }
    let carriers: Vec<_> = args.carriers.iter().map(ToString::to_string).collect();
    let listen: Vec<_> = args.listen.iter().map(ToString::to_string).collect();
    let servers = if args.addresses.is_empty() {
        listen.clone()
    } else {
        args.addresses
    };
    if servers.len() > SERVERS_MAX || listen.len() > SERVERS_MAX {
        let sentence =
            format!("--listen and --address may be given {SERVERS_MAX} times at the most");
        return Err(Failure::new(Code::BadArguments, sentence));
    }
    let founding = Founding {
        name: args.name.clone(),
        carriers: carriers.clone(),
        fleet_period: args.fleet_period,
        signer_life: args.signer_life,
        bits_per_second: args.rate,
        keep_time: args.keep_time,
        epoch_life: args.epoch_life,
        limits: Limits {
            longest_lease: args.longest_lease,
            dead_man: args.dead_man,
            exclude_wait: (!args.fail_closed).then_some(args.exclude_wait),
            erase_signatures: args.erase_quorum,
            suites: args.suites,
            ..Limits::default()
        },
        servers: servers.clone(),
        listen: listen.clone(),
        ..Founding::default()
    };
    let actor = format!("uid {}", rustix::process::getuid().as_raw());
    let Founded {
        directory,
        signers_expire,
    } = keyfall_server::init_with(&dir, founding, args.erase_keys, actor)
        .map_err(|error| init_failure(&error))?;
    let erase_key = |number| directory.erase_key(number).display().to_string();
    let document = InitDocument {
        schema: keyfall_api::admin::SCHEMA,
        ok: true,
        dir: dir.display().to_string(),
        fleet: args.name,
        carriers,
        servers,
        root_key: directory.root_key().display().to_string(),
        erase_key: erase_key(1),
        erase_keys: (1..=args.erase_keys).map(erase_key).collect(),
        erase_quorum: args.erase_quorum,
        seal: "file",
        signers_expire: signers_expire.get(),
        next: format!("keyfall server run {}", dir.display()),
    };
    output.result(&document, init_text)
}

fn init_text(made: &InitDocument) -> String {
    let only_here = if made.carriers == [THIS_MACHINE] {
        "\nThat carrier stays on this machine; --carrier names another."
    } else {
        ""
    };
    let answers = if made.servers.is_empty() {
        "It answers nobody: --listen opens a way back for terminals that can ask.".to_owned()
    } else {
        format!("Terminals ask it at {}.", made.servers.join(" and "))
    };
    let erase = match made.erase_keys.len() {
        1 => "  erase.key   signs what deletes: move it away from this machine".to_owned(),
        many => format!(
            "  erase.key … erase-{many}.key\n              {} of them together sign what deletes: \
             give them to different people",
            made.erase_quorum
        ),
    };
    format!(
        "{} is founded in {}, readable by you alone:\n  \
         keyfall.db  every key of the fleet, sealed under seal.key\n  \
         seal.key    opens keyfall.db: it guards backups without it, and not this machine\n  \
         journal     the numbers that were used: with it a backup of keyfall.db can be put back\n  \
         root.key    signs the lists of online keys: move it away from this machine\n\
         {erase}\n\
         It sends on {}.{only_here}\n\
         {answers}\n\
         The online keys end at {}; `keyfall server sign-keys` makes the next.\n\
         Next: {}",
        made.fleet,
        made.dir,
        made.carriers.join(" and "),
        utc(made.signers_expire),
        made.next
    )
}

/// What `run --json` prints when orders are taken.
#[derive(Serialize)]
struct RunDocument {
    schema: u32,
    ok: bool,
    admin: String,
}

fn run_in_front(dir: &Path, output: &Output) -> Result<(), Failure> {
    let runtime = small_runtime()?;
    let mut shown = Ok(());
    let ready = || {
        // People read the log; a script waits for this one document.
        if output.is_json() {
            let admin = dir.join(keyfall_api::admin::SOCKET).display().to_string();
            let document = RunDocument {
                schema: keyfall_api::admin::SCHEMA,
                ok: true,
                admin,
            };
            shown = output.result(&document, |_| String::new());
        }
    };
    runtime.block_on(async {
        let end = interrupted()?;
        let ran = keyfall_server::run(dir, ready, end).await;
        ran.map_err(|error| run_failure(&error))
    })?;
    shown
}

fn init_failure(error: &InitError) -> Failure {
    let code = match error {
        InitError::Directory(error) => directory_code(error),
        InitError::Store(error) => store_code(error),
        InitError::KeyFile { .. } => Code::ServerFault,
        InitError::ClockBehind => Code::ServerClock,
    };
    Failure::new(code, error.to_string())
}

fn run_failure(error: &RunError) -> Failure {
    let code = match error {
        RunError::Directory(error) => directory_code(error),
        RunError::Store(error) => store_code(error),
        RunError::ClockBehind { .. } => Code::ServerClock,
        RunError::Socket { .. } => Code::AdminSocket,
        RunError::Listen { .. } => Code::ListenAddress,
        RunError::Thread(_) | RunError::Misuse(_) | RunError::DriverPanicked => Code::ServerFault,
    };
    Failure::new(code, error.to_string())
}

fn directory_code(error: &DirectoryError) -> Code {
    match error {
        DirectoryError::NotEmpty { .. } | DirectoryError::NotADirectory { .. } => {
            Code::ServerExists
        }
        DirectoryError::NoServer { .. } => Code::NoServer,
        DirectoryError::DirectoryTooOpen { .. } | DirectoryError::FileTooOpen { .. } => {
            Code::TooOpen
        }
        DirectoryError::Io { .. } => Code::ServerFault,
    }
}

fn store_code(error: &StoreError) -> Code {
    match error {
        StoreError::SealKey(SealKeyError::TooOpen { .. }) => Code::TooOpen,
        StoreError::SealKey(
            SealKeyError::AlreadyExists { .. }
            | SealKeyError::Missing { .. }
            | SealKeyError::Damaged { .. },
        )
        | StoreError::Sealed(_) => Code::Sealed,
        StoreError::Journal(JournalError::Locked { .. }) => Code::ServerRuns,
        StoreError::Journal(
            JournalError::AlreadyExists { .. }
            | JournalError::Missing { .. }
            | JournalError::Broken { .. }
            | JournalError::Unknown { .. },
        ) => Code::JournalBroken,
        StoreError::OutOfStep { .. } => Code::OutOfStep,
        StoreError::UnknownSchema { .. } | StoreError::OldSchema { .. } => Code::UnknownSchema,
        StoreError::NotFounded { .. } => Code::NoServer,
        StoreError::Sqlite(_) | StoreError::Damaged { .. } => Code::ServerStore,
        StoreError::SealKey(SealKeyError::Io { .. })
        | StoreError::Journal(JournalError::Io { .. })
        | StoreError::Make { .. } => Code::ServerFault,
    }
}

fn fleet_name(text: &str) -> Result<String, String> {
    let good = (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    good.then(|| text.to_owned())
        .ok_or_else(|| "a fleet's name has 1 to 64 characters".to_owned())
}

fn rate(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((end, 'k')) => (&text[..end], 1_000),
        Some((end, 'M')) => (&text[..end], 1_000_000),
        Some(_) | None => (text, 1),
    };
    let bits = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    bits.filter(|bits| (RATE_MIN..=RATE_MAX).contains(bits))
        .ok_or_else(|| {
            format!(
                "{text:?} is no rate: write bits per second from {RATE_MIN} to 10000M, as in 64k"
            )
        })
}

/// As many as a frame holds signatures.
fn signers() -> RangedI64ValueParser<u8> {
    value_parser!(u8).range(1..=SIGNERS_MAX as i64)
}

fn fleet_period(text: &str) -> Result<u32, String> {
    let seconds = span(text)?;
    let good = seconds <= SIGNER_LIFE_MAX;
    good.then_some(seconds)
        .ok_or_else(|| "the period is at most 30d".to_owned())
}

/// 0: never.
fn epoch_life(text: &str) -> Result<u32, String> {
    if text == "never" {
        return Ok(0);
    }
    let seconds = span(text)?;
    let good = seconds >= EPOCH_LIFE_MIN;
    good.then_some(seconds)
        .ok_or_else(|| "a group's key lives for an hour at least, or for ever: never".to_owned())
}

/// FORMATS section 2: exp <= nbf + 30 d.
fn signer_life(text: &str) -> Result<u32, String> {
    let seconds = span(text)?;
    let good = (3_600..=SIGNER_LIFE_MAX).contains(&seconds);
    good.then_some(seconds)
        .ok_or_else(|| "online keys live from 1h to 30d".to_owned())
}

/// Addresses that a package holds.
const SERVERS_MAX: usize = 8;
/// The carrier of a server that was not told another.
const THIS_MACHINE: &str = "udp://239.255.70.77:47700?if=127.0.0.1&ttl=1";
/// Below it a beacon every ten seconds has no room.
const RATE_MIN: u64 = 300;
const RATE_MAX: u64 = 10_000_000_000;
/// Below it a large group would do nothing but distribute.
const EPOCH_LIFE_MIN: u32 = 3_600;
const SIGNER_LIFE_MAX: u32 = 30 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_rates_read_as_people_write_them() {
        let spans = ["90", "90s", "10m", "1h", "30d"].map(|text| span(text).expect(text));
        assert_eq!(spans, [90, 90, 600, 3_600, 2_592_000]);
        for bad in ["", "h", "0", "1w", "-1m", "49711d", "1.5h", "10 m", "é"] {
            assert!(span(bad).is_err(), "{bad}");
        }
        let rates = ["64000", "64k", "1M"].map(|text| rate(text).expect(text));
        assert_eq!(rates, [64_000, 64_000, 1_000_000]);
        for bad in ["", "k", "10", "20000M", "1G"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        let lives = ["7d", "1h", "never"].map(|text| epoch_life(text).expect(text));
        assert_eq!(lives, [604_800, 3_600, 0]);
        assert!(epoch_life("59m").is_err() && epoch_life("0").is_err());
        assert!(signer_life("31d").is_err() && signer_life("30m").is_err());
    }
}
