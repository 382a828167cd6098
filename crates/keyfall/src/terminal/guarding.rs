//! `keyfall terminal lock`, `unlock` and `protect`: who opens the terminal's keys, and when.

use std::path::{Path, PathBuf};

use clap::Args;
use keyfall_api::control::{Answer, NewPassphrase, Passphrase, Protect, Request, TerminalStatus};
use keyfall_terminal::ProtectError;
use keyfall_terminal::key_store::UnlockError;
use serde::Serialize;

use crate::control_client;
use crate::explain::Code;
use crate::output::{Failure, Output};
use crate::terminal::passphrase::{NewArgs, present};
use crate::terminal::{Dir, Found, store_code, stored_failure};

/// Close the keys of a running terminal until its PIN or passphrase is given.
///
/// Media stops at once; relays stay and go on when the terminal is unlocked. A terminal that does
/// not run is locked in any case, where a passphrase is set.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall terminal lock alice")]
pub(super) struct LockArgs {
    #[command(flatten)]
    dir: Dir,
}

/// Open the keys of a running terminal with its PIN or passphrase.
///
/// Each wrong one costs a try; after the last one every key is erased.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall terminal unlock alice\n  \
                        keyfall terminal unlock alice --passphrase-file /run/credentials/pin")]
pub(super) struct UnlockArgs {
    #[command(flatten)]
    dir: Dir,
    /// The PIN or passphrase is in this file, up to the first line's end; - for stdin.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Set, change or remove the PIN or passphrase that opens the terminal's keys.
///
/// Whoever copies the disk has all the time in the world to guess: take a passphrase of 12
/// characters and more, or give a bound secret beside a PIN.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall terminal protect alice\n  \
                        keyfall terminal protect alice --bound-secret /run/credentials/tpm --tries 5\n  \
                        keyfall terminal protect alice --remove")]
pub(super) struct ProtectArgs {
    #[command(flatten)]
    dir: Dir,
    #[command(flatten)]
    new: NewArgs,
    /// The one that is set now is in this file; asked for without.
    #[arg(long, value_name = "FILE")]
    old_passphrase_file: Option<PathBuf>,
    /// From now on the machine opens everything by itself.
    #[arg(long, conflicts_with_all = ["passphrase_file", "bound_secret", "tries"])]
    remove: bool,
}

pub(super) fn lock(args: &LockArgs, output: &Output) -> Result<(), Failure> {
    let dir = args.dir.resolve()?;
    let status = match Found::in_directory(&dir)? {
        Found::Running => ask(&dir, &Request::Lock {})?,
        Found::Stored(_) => stored_status(&dir)?,
    };
    if status.try_limit.is_none() && status.state != "locked-by-server" {
        let sentence = "there is no PIN or passphrase, so a lock would keep nobody out: set one \
                        with `keyfall terminal protect`";
        return Err(Failure::new(Code::NotProtected, sentence));
    }
    tell(&status, output)
}

pub(super) fn unlock(args: &UnlockArgs, output: &Output) -> Result<(), Failure> {
    let dir = args.dir.resolve()?;
    if let Found::Stored(_) = Found::in_directory(&dir)? {
        let dir = dir.display();
        let sentence = format!(
            "no terminal runs in {dir}: start it with `keyfall terminal run {dir}`, then unlock it"
        );
        return Err(Failure::new(Code::TerminalNotRunning, sentence));
    }
    let status = ask(&dir, &Request::Status {})?;
    let status = match status.state.as_str() {
        // Asks nobody for a passphrase that helps nothing: the terminal says why.
        "locked-by-server" | "erasing" | "deleted" => {
            let passphrase = Passphrase::new("");
            ask(&dir, &Request::Unlock { passphrase })?
        }
        // Also one that the server excluded.
        _ if status.wrap_fingerprint.is_none() => {
            let passphrase = present(args.passphrase_file.as_deref())?;
            let passphrase = Passphrase::new(&passphrase);
            ask(&dir, &Request::Unlock { passphrase })?
        }
        _ => status,
    };
    tell(&status, output)
}

pub(super) fn protect(args: &ProtectArgs, output: &Output) -> Result<(), Failure> {
    let dir = args.dir.resolve()?;
    let running = matches!(Found::in_directory(&dir)?, Found::Running);
    let before = if running {
        ask(&dir, &Request::Status {})?
    } else {
        stored_status(&dir)?
    };
    let old = match before.try_limit {
        Some(_) => present(args.old_passphrase_file.as_deref())?,
        None => String::new().into(),
    };
    if running {
        let new = if args.remove {
            None
        } else {
            let bound_secret = args.new.bound_secret.as_deref().map(absolute).transpose()?;
            Some(NewPassphrase {
                passphrase: Passphrase::new(&args.new.passphrase()?),
                bound_secret,
                tries: args.new.tries,
            })
        };
        let old = Passphrase::new(&old);
        let status = ask(&dir, &Request::Protect(Protect { old, new }))?;
        return tell(&status, output);
    }
    let new = (!args.remove).then(|| args.new.protection()).transpose()?;
    keyfall_terminal::protect(&dir, &old, new.as_ref()).map_err(|error| protect_failure(&error))?;
    tell(&stored_status(&dir)?, output)
}

#[derive(Serialize)]
struct Guarded<'a> {
    state: &'a str,
    running: bool,
    protection: &'a str,
    tries_left: Option<u8>,
    try_limit: Option<u8>,
}

fn tell(status: &TerminalStatus, output: &Output) -> Result<(), Failure> {
    let done = Guarded {
        state: &status.state,
        running: status.running,
        protection: &status.protection,
        tries_left: status.tries_left,
        try_limit: status.try_limit,
    };
    output.versioned(&done, |done| {
        let tries = match (done.tries_left, done.try_limit) {
            (Some(left), Some(limit)) => format!("\n{left} of {limit} tries left."),
            _ => String::new(),
        };
        format!("{}\n{}{tries}", done.state, done.protection)
    })
}

fn ask(dir: &Path, request: &Request) -> Result<TerminalStatus, Failure> {
    let Answer::Status(status) = control_client::ask(dir, request)? else {
        return Err(control_client::unexpected());
    };
    Ok(*status)
}

fn stored_status(dir: &Path) -> Result<TerminalStatus, Failure> {
    keyfall_terminal::stored_status(dir).map_err(|error| stored_failure(&error))
}

/// The running terminal reads it from its own working directory.
fn absolute(path: &Path) -> Result<String, Failure> {
    let bad = |why: &str| {
        let sentence = format!("the bound secret {} cannot be named: {why}", path.display());
        Failure::new(Code::BadPassphrase, sentence)
    };
    let absolute = std::path::absolute(path).map_err(|error| bad(&error.to_string()))?;
    absolute
        .into_os_string()
        .into_string()
        .map_err(|_| bad("its path is no text in UTF-8"))
}

fn protect_failure(error: &ProtectError) -> Failure {
    match error {
        ProtectError::Stored(error) => stored_failure(error),
        ProtectError::Unlock(error) => unlock_failure(error),
        ProtectError::LockedByServer => Failure::new(Code::LockedByServer, error.to_string()),
    }
}

pub(super) fn unlock_failure(error: &UnlockError) -> Failure {
    let code = match error {
        UnlockError::WrongPassphrase { .. } => Code::WrongPassphrase,
        UnlockError::Wiped => Code::Deleted,
        UnlockError::BoundSecret(_) | UnlockError::Memory => Code::TerminalLocked,
        UnlockError::Store(error) => store_code(error),
    };
    Failure::new(code, error.to_string())
}
