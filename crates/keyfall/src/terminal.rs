//! `keyfall terminal`: enrol, run and look at a terminal.

use std::io::{IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use keyfall_api::control::{Answer, Deleted, Request};
use keyfall_carrier::CarrierAddress;
use keyfall_protocol::enrolment::{EnrolmentCode, PackageError, request_text};
use keyfall_protocol::terminal::{FirstContactError, Terminal};
use keyfall_terminal::key_store::KeyStoreError;
use keyfall_terminal::{Ending, EnrolmentError, RunError, RunOptions, StoredError, hardening};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use self::by_token::TokenArgs;
use self::guarding::{LockArgs, ProtectArgs, UnlockArgs, unlock_failure};
use self::packets::PacketArgs;
use self::passphrase::NewArgs;
use self::shown::{deleted_lines, status_for_people, why_for_people};
use crate::control_client;
use crate::explain::Code;
use crate::output::{Failure, Output};
use crate::server::server_address;

mod by_token;
mod export;
mod guarding;
pub(crate) mod legacy_key;
mod packets;
mod passphrase;
mod ping;
mod shown;

/// Enrol, run, lock and look at a terminal.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall terminal enrol alice alice.package\n  \
                        keyfall terminal run alice\n  keyfall terminal status alice"
)]
pub(crate) struct TerminalArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Enrol(EnrolArgs),
    Run(RunArgs),
    Status(StatusArgs),
    Export(export::ExportArgs),
    Ping(ping::PingArgs),
    Lock(LockArgs),
    Unlock(UnlockArgs),
    Protect(ProtectArgs),
    LegacyKey(legacy_key::LegacyKeyArgs),
    Why(WhyArgs),
}

/// Which terminal is meant.
#[derive(Args, Debug)]
pub(crate) struct Dir {
    /// The terminal's directory; instead of it: --dir or KEYFALL_DIR.
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

/// Make a terminal of an enrolment package, or by a one-time token over the network.
///
/// With --request: make the key to which the server seals the package, and print it. With --server and
/// --token: fetch from there what a package would bring. With --pin or
/// --passphrase-file: what is worth stealing opens only by it, and the terminal starts locked.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall terminal enrol alice --request\n  \
                        keyfall terminal enrol alice alice.package\n  \
                        keyfall terminal enrol alice alice.package --code 7Q2M-…\n  \
                        keyfall terminal enrol alice --server keys.example:47900 --token KF1T-…\n  \
                        keyfall terminal enrol alice alice.package --pin --bound-secret /run/credentials/tpm")]
struct EnrolArgs {
    /// The terminal's directory, which is made; instead of it: --dir or KEYFALL_DIR. Then the
    /// package that the server made, - for stdin.
    #[arg(value_name = "DIR] [PACKAGE", num_args = 0..=2)]
    places: Vec<PathBuf>,
    #[arg(long = "dir", value_name = "DIR", hide = true)]
    named: Option<PathBuf>,
    /// Make the request key, or show it again.
    #[arg(long, conflicts_with = "code")]
    request: bool,
    /// The code that was shown when the package was made; asked for where it is needed.
    #[arg(long)]
    code: Option<String>,
    #[command(flatten)]
    by_token: TokenArgs,
    /// Ask for a PIN or passphrase to be set.
    #[arg(long, conflicts_with_all = ["passphrase_file", "request"])]
    pin: bool,
    #[command(flatten)]
    new: NewArgs,
}

/// Run the terminal in front, until Ctrl-C or SIGTERM.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall terminal run alice\n  \
                        keyfall terminal run alice --carrier 'udp://239.255.70.77:47700?if=127.0.0.1'\n  \
                        keyfall terminal run alice --tamper-file /sys/class/gpio/gpio17/value\n  \
                        keyfall terminal run hub --gateway eth1 --outside eth0")]
struct RunArgs {
    #[command(flatten)]
    dir: Dir,
    /// Hear these carriers instead of those in the enrolment package.
    #[arg(long = "carrier", value_name = "ADDRESS", num_args = 1..)]
    carriers: Vec<CarrierAddress>,
    /// The address of the interface by which carriers are heard on this machine.
    #[arg(long = "if", value_name = "ADDRESS")]
    interface: Option<std::net::Ipv4Addr>,
    /// Where the server answers, as HOST:PORT, instead of what the enrolment package says; may be
    /// given several times: they are tried in this order.
    #[arg(long = "server", value_name = "HOST:PORT", value_parser = server_address)]
    servers: Vec<String>,
    /// Radio silence: hear the carriers, ask nobody and confirm nothing, whatever the package says.
    #[arg(long, conflicts_with_all = ["servers", "collect", "confirm_through"])]
    one_way: bool,
    /// Collect here what other members confirm when a group changes its key, and send it to the
    /// server in bundles: for members that share one thin link.
    #[arg(long, value_name = "ADDRESS:PORT")]
    collect: Option<std::net::SocketAddr>,
    /// Hand confirmations to the member that collects there instead of sending each to the server.
    /// What the server asks for again goes to the server itself.
    #[arg(long, value_name = "ADDRESS:PORT")]
    confirm_through: Option<std::net::SocketAddr>,
    /// Erase every key as soon as this file is there and says anything but 0: a file that a tamper
    /// switch makes, or the value of a GPIO line. SIGUSR1 does the same.
    #[arg(long, value_name = "PATH")]
    tamper_file: Option<PathBuf>,
    #[command(flatten)]
    packets: PacketArgs,
}

/// Show keys, generations and relays; never a key itself.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall terminal status alice\n  \
                        keyfall terminal status alice --json")]
struct StatusArgs {
    #[command(flatten)]
    dir: Dir,
}

/// Say why frames and packets came to nothing since the start.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall terminal why alice")]
struct WhyArgs {
    #[command(flatten)]
    dir: Dir,
}

pub(crate) fn run(args: TerminalArgs, output: &Output) -> Result<(), Failure> {
    match args.verb {
        Verb::Enrol(args) => enrol(args, output),
        Verb::Run(args) => run_in_front(args, output),
        Verb::Status(args) => status(&args.dir.resolve()?, output),
        Verb::Export(args) => export::export(&args, output),
        Verb::Ping(args) => ping::ping(&args, output),
        Verb::Lock(args) => guarding::lock(&args, output),
        Verb::Unlock(args) => guarding::unlock(&args, output),
        Verb::Protect(args) => guarding::protect(&args, output),
        Verb::LegacyKey(args) => legacy_key::run(&args, output),
        Verb::Why(args) => why(&args.dir.resolve()?, output),
    }
}

impl Dir {
    /// DIR, --dir, or KEYFALL_DIR.
    pub(crate) fn resolve(&self) -> Result<PathBuf, Failure> {
        let given = self.place.clone().or_else(|| self.named.clone());
        given.or_else(dir_of_environment).ok_or_else(no_directory)
    }
}

/// KEYFALL_DIR, where it says something.
pub(crate) fn dir_of_environment() -> Option<PathBuf> {
    let dir = std::env::var_os("KEYFALL_DIR").filter(|dir| !dir.is_empty());
    dir.map(PathBuf::from)
}

/// Nobody said which terminal is meant.
pub(crate) fn no_directory() -> Failure {
    let sentence = "which terminal is meant? Give its directory, or set KEYFALL_DIR";
    Failure::new(Code::BadArguments, sentence)
}

/// A store that does not open, in the words of this program.
pub(crate) fn stored_failure(error: &StoredError) -> Failure {
    let code = match error {
        StoredError::Store(error) => store_code(error),
        StoredError::Snapshot(_) => Code::StoreDamaged,
    };
    Failure::new(code, error.to_string())
}

pub(crate) fn store_code(error: &KeyStoreError) -> Code {
    match error {
        KeyStoreError::NotEnrolled { .. } => Code::NotEnrolled,
        KeyStoreError::AlreadyExists { .. } => Code::AlreadyEnrolled,
        KeyStoreError::Corrupt { .. } => Code::StoreDamaged,
        KeyStoreError::Deleted { .. } => Code::Deleted,
        KeyStoreError::InUse { .. } => Code::TerminalRuns,
        KeyStoreError::UserLocked { .. } => Code::TerminalLocked,
        KeyStoreError::Io { .. } => Code::BadInput,
    }
}

fn enrol(args: EnrolArgs, output: &Output) -> Result<(), Failure> {
    let mut places = args.places.into_iter();
    let by_token = args.by_token.given();
    if by_token.is_some() && places.len() == 2 {
        let sentence = "a token takes the place of a package: give one of them";
        return Err(Failure::new(Code::BadArguments, sentence));
    }
    let expected = if args.request || by_token.is_some() {
        1
    } else {
        2
    };
    let dir = if places.len() == expected {
        places.next()
    } else {
        args.named.or_else(dir_of_environment)
    };
    let dir = dir.ok_or_else(no_directory)?;
    if args.request {
        return enrol_request(&dir, output);
    }
    let protected = args.pin || args.new.passphrase_file.is_some();
    if !protected && args.new.bound_secret.is_some() {
        let sentence = "a bound secret stands beside a PIN or passphrase: give --pin or \
                        --passphrase-file, too";
        return Err(Failure::new(Code::BadArguments, sentence));
    }
    if let Some((server, token)) = by_token {
        let protection = protected.then(|| args.new.protection()).transpose()?;
        return by_token::enrol(&dir, (&server, &token), protection.as_ref(), output);
    }
    let package_path = places.next().ok_or_else(|| {
        let sentence = "the package is missing: give the file that `keyfall admin terminal add` \
                        made, or --request to make the key that it asks for";
        Failure::new(Code::BadArguments, sentence)
    })?;
    let package = read_package(&package_path)?;
    let mut code = args
        .code
        .map(Zeroizing::new)
        .map(|code| parse_code(&code))
        .transpose()?;
    let protection = protected.then(|| args.new.protection()).transpose()?;
    let enrolled = loop {
        match keyfall_terminal::enrol(&dir, &package, code.as_ref(), protection.as_ref()) {
            Err(EnrolmentError::Package(PackageError::CodeNeeded)) if code.is_none() => {
                code = Some(ask_code()?);
            }
            other => break other.map_err(|error| enrolment_failure(&error))?,
        }
    };
    let next = format!("keyfall terminal run {}", dir.display());
    let done = EnrolDone::of(&enrolled.terminal, next, protected);
    output.versioned(&done, |done| done.text(&dir))
}

#[derive(Serialize)]
struct EnrolDone {
    terminal: u32,
    name: String,
    fleet: String,
    /// The name of the root's key, to compare with what the server shows.
    root: String,
    carriers: Vec<String>,
    next: String,
    /// Whether it starts locked.
    protected: bool,
}

impl EnrolDone {
    fn of(terminal: &Terminal, next: String, protected: bool) -> Self {
        let identity = terminal.identity();
        Self {
            terminal: identity.number.get(),
            name: identity.name.clone(),
            fleet: identity.fleet.clone(),
            root: identity.root.name().to_string(),
            carriers: identity.carriers.clone(),
            next,
            protected,
        }
    }

    fn text(&self, dir: &Path) -> String {
        let then = if self.protected {
            format!("\nThen: keyfall terminal unlock {}", dir.display())
        } else {
            String::new()
        };
        format!(
            "terminal {} ({}) of fleet {}, root key {}\nNow: {}{then}",
            self.terminal, self.name, self.fleet, self.root, self.next
        )
    }
}

fn enrol_request(dir: &Path, output: &Output) -> Result<(), Failure> {
    let public = keyfall_terminal::request(dir).map_err(|error| enrolment_failure(&error))?;
    let key = request_text(&public);
    let next = format!("keyfall admin terminal add NAME --for {key}");
    output.versioned(
        &RequestDone {
            request_key: key,
            next,
        },
        |done| {
            format!(
                "request key: {}\nAt the server: {}\nThen here: keyfall terminal enrol {} PACKAGE",
                done.request_key,
                done.next,
                dir.display()
            )
        },
    )
}

#[derive(Serialize)]
struct RequestDone {
    request_key: String,
    next: String,
}

fn read_package(path: &Path) -> Result<Vec<u8>, Failure> {
    // One octet more than the longest, so that a longer file is seen and not read whole.
    let mut octets = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(PACKAGE_READ_MAX)
            .read_to_end(&mut octets)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(PACKAGE_READ_MAX).read_to_end(&mut octets))
    };
    read.map(|_| octets).map_err(|error| {
        Failure::new(
            Code::BadInput,
            format!("cannot read {}: {error}", path.display()),
        )
    })
}

fn parse_code(typed: &str) -> Result<EnrolmentCode, Failure> {
    EnrolmentCode::parse(typed.trim()).ok_or_else(|| {
        let sentence = "a code is sixteen letters and digits, as it was shown when the package \
                        was made";
        Failure::new(Code::PackageSealed, sentence)
    })
}

fn ask_code() -> Result<EnrolmentCode, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let sentence = "the package is sealed under a code: give it with --code";
        return Err(Failure::new(Code::PackageSealed, sentence));
    }
    let mut typed = Zeroizing::new(String::with_capacity(64));
    let asked = write!(std::io::stderr(), "Code of the package: ")
        .and_then(|()| std::io::stderr().flush())
        .and_then(|()| std::io::BufRead::read_line(&mut stdin.lock(), &mut typed));
    asked
        .map_err(|error| Failure::new(Code::BadInput, format!("cannot read the code: {error}")))?;
    parse_code(&typed)
}

fn enrolment_failure(error: &EnrolmentError) -> Failure {
    let (code, hint) = match error {
        EnrolmentError::Protection(error) => return unlock_failure(error),
        EnrolmentError::Package(package) => match package {
            PackageError::Malformed(_) => (
                Code::BadPackage,
                ": fetch it again, it may not have come over whole",
            ),
            PackageError::WrongKey => (
                Code::PackageSealed,
                ": ask for one made for the key that --request shows",
            ),
            PackageError::WrongCode => (
                Code::PackageSealed,
                ": look at the code again, it came apart from the package",
            ),
            PackageError::CodeNeeded => (Code::PackageSealed, " with --code"),
            PackageError::RequestKeyNeeded => (
                Code::PackageSealed,
                ": enrol in the directory where --request made the key",
            ),
            PackageError::KeySetNotSigned => (Code::BadPackage, ": ask the server for a new one"),
            PackageError::NotARequestKey => (Code::BadPackage, ": copy it again"),
        },
        EnrolmentError::Expired { .. } => (Code::PackageExpired, ""),
        EnrolmentError::Token(_) => (Code::NotAToken, ""),
        EnrolmentError::TakenBack => (Code::TokenRefused, ""),
        EnrolmentError::Server { .. } => (Code::ServerSilent, ""),
        EnrolmentError::FirstContact(error) => match error {
            FirstContactError::NoAnswer => (Code::ServerSilent, ""),
            FirstContactError::OtherRoot | FirstContactError::KeySetNotSigned => {
                (Code::OtherServer, "")
            }
            FirstContactError::NoSuite => (Code::NoTokenSuite, ""),
            FirstContactError::NotKnown => (Code::TokenRefused, ""),
        },
        EnrolmentError::Store(error) => (store_code(error), ""),
        EnrolmentError::RequestKey { .. } | EnrolmentError::Io { .. } => (Code::BadInput, ""),
    };
    Failure::new(code, format!("{error}{hint}"))
}

fn run_in_front(args: RunArgs, output: &Output) -> Result<(), Failure> {
    let dir = args.dir.resolve()?;
    let options = RunOptions {
        carriers: args.carriers,
        interface: args.interface,
        servers: args.servers,
        one_way: args.one_way,
        confirm_through: args.confirm_through,
        collect: args.collect,
        tamper_file: args.tamper_file,
        memory_locked: lock_memory(),
        packets: args.packets.options(),
    };
    let control = keyfall_terminal::socket_path(&dir).display().to_string();
    let runtime = small_runtime()?;
    let mut shown = Ok(());
    let on_ready = |terminal: &Terminal| {
        let ready = Ready {
            terminal: terminal.identity().number.get(),
            control,
        };
        // People read the log; a script waits for this one document.
        if output.is_json() {
            shown = output.versioned(&ready, |_| String::new());
        }
    };
    let outcome = runtime.block_on(async {
        let shutdown = crate::control_client::interrupted()?;
        let tamper = tamper_signal()?;
        Ok(keyfall_terminal::serve(dir, options, on_ready, tamper, shutdown).await)
    });
    match outcome?.map_err(|error| run_failure(&error))? {
        Ending::Stopped => shown,
        Ending::Initialized(deleted) => everything_deleted(&deleted),
    }
}

/// Completes at SIGUSR1: the device was opened.
fn tamper_signal() -> Result<impl Future<Output = ()>, Failure> {
    let mut opened = signal(SignalKind::user_defined1()).map_err(|error| {
        let sentence = format!("cannot listen for signals: {error}");
        Failure::new(Code::Unexpected, sentence)
    })?;
    Ok(async move {
        opened.recv().await;
    })
}

fn lock_memory() -> bool {
    let locked = hardening::lock_memory();
    if let Err(error) = &locked {
        tracing::info!(%error, "the memory of this process may be written to swap");
    }
    locked.is_ok()
}

/// The end of a terminal that obeyed INIT. What is left, if anything, is for people to remove.
fn everything_deleted(deleted: &Deleted) -> Result<(), Failure> {
    for line in deleted_lines(deleted) {
        eprintln!("{line}");
    }
    if deleted.not_removed.is_empty() {
        return Ok(());
    }
    let sentence = "every key is erased, but not everything could be removed: see above";
    Err(Failure::new(Code::Unexpected, sentence))
}

#[derive(Serialize)]
struct Ready {
    terminal: u32,
    control: String,
}

/// One thread, as little memory as it takes.
pub(crate) fn small_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                Code::Unexpected,
                format!("cannot start the event loop: {error}"),
            )
        })
}

fn run_failure(error: &RunError) -> Failure {
    match error {
        RunError::Stored(error) => stored_failure(error),
        RunError::PackageCarrier { .. }
        | RunError::Interface(..)
        | RunError::NoCarrier
        | RunError::Carrier(_) => Failure::new(Code::CarrierUnusable, error.to_string()),
        RunError::Collect { .. } | RunError::Through { .. } => {
            Failure::new(Code::BadInput, error.to_string())
        }
        RunError::Control { .. } => Failure::new(Code::ControlSocket, error.to_string()),
        RunError::Thread(_) | RunError::LastSnapshot(_) | RunError::Driven(_) => {
            Failure::new(Code::Unexpected, error.to_string())
        }
    }
}

fn status(dir: &Path, output: &Output) -> Result<(), Failure> {
    let status = match find(dir) {
        Ok(Found::Stored(_)) => {
            keyfall_terminal::stored_status(dir).map_err(|error| stored_failure(&error))?
        }
        Ok(Found::Running) => {
            let Answer::Status(status) = control_client::ask(dir, &Request::Status {})? else {
                return Err(control_client::unexpected());
            };
            *status
        }
        Err(StoredError::Store(KeyStoreError::Deleted { deleted, .. })) => {
            let left = Left {
                state: "deleted",
                running: false,
                deleted: *deleted,
            };
            return output.versioned(&left, |left| {
                let mut lines = vec!["every key of this terminal was erased".to_owned()];
                lines.extend(deleted_lines(&left.deleted));
                lines.join("\n")
            });
        }
        Err(error) => return Err(stored_failure(&error)),
    };
    output.versioned(&status, status_for_people)
}

/// All that can be said of a terminal whose keys were erased.
#[derive(Serialize)]
struct Left {
    state: &'static str,
    running: bool,
    deleted: Deleted,
}

/// What a terminal's directory holds.
pub(crate) enum Found {
    /// Nobody runs it: this is what is stored.
    Stored(Box<Terminal>),
    /// A process runs it, and answers on its control socket.
    Running,
}

impl Found {
    pub(crate) fn in_directory(dir: &Path) -> Result<Self, Failure> {
        find(dir).map_err(|error| stored_failure(&error))
    }
}

fn find(dir: &Path) -> Result<Found, StoredError> {
    let end = Instant::now() + LOCKED_MAX;
    loop {
        match keyfall_terminal::restore(dir) {
            Ok(terminal) => return Ok(Found::Stored(Box::new(terminal))),
            // Held by one that runs, or for a moment by one that starts or only looks.
            Err(StoredError::Store(KeyStoreError::InUse { .. })) if Instant::now() < end => {
                if UnixStream::connect(keyfall_terminal::socket_path(dir)).is_ok() {
                    return Ok(Found::Running);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error),
        }
    }
}

fn why(dir: &Path, output: &Output) -> Result<(), Failure> {
    let Answer::Why(why) = control_client::ask(dir, &Request::Why {})? else {
        return Err(control_client::unexpected());
    };
    output.versioned(&why, why_for_people)
}

/// For every command, before any key is read: codes, packages and keys pass through many of them.
pub(crate) fn harden() {
    if let Err(error) = hardening::keep_memory_private() {
        tracing::warn!(%error, "the memory of this process could not be closed to others");
    }
}

/// A package is at most 16 KiB; what is longer is none.
const PACKAGE_READ_MAX: u64 = 16 * 1024 + 1;
/// A store that nobody answers for is locked for a moment only.
const LOCKED_MAX: Duration = Duration::from_secs(2);
