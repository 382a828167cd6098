//! PINs and passphrases as people give them: from a file, or typed without being shown.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use keyfall_terminal::key_store::{Protection, TRY_LIMIT};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::explain::Code;
use crate::output::Failure;

/// How a passphrase that is to be set comes.
#[derive(Args, Debug)]
pub(super) struct NewArgs {
    /// The PIN or passphrase is in this file, up to the first line's end; - for stdin.
    #[arg(long, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
    /// A file of 16 octets and more that only this machine can give, needed beside the passphrase.
    #[arg(long, value_name = "FILE")]
    pub(super) bound_secret: Option<PathBuf>,
    /// Wrong tries until every key is erased.
    #[arg(long, value_name = "N", default_value_t = TRY_LIMIT)]
    pub(super) tries: u8,
}

impl NewArgs {
    /// Reads the file, or asks twice.
    pub(super) fn passphrase(&self) -> Result<Zeroizing<String>, Failure> {
        match &self.passphrase_file {
            Some(path) => read(path),
            None => ask_twice(),
        }
    }

    pub(super) fn protection(&self) -> Result<Protection, Failure> {
        let passphrase = self.passphrase()?;
        Protection::new(passphrase, self.bound_secret.as_deref(), self.tries)
            .map_err(|error| Failure::new(Code::BadPassphrase, error.to_string()))
    }
}

/// The passphrase that is set: from a file, or asked for.
pub(super) fn present(file: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    match file {
        Some(path) => read(path),
        None => ask("PIN or passphrase: "),
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    // Room for all from the start: a growing buffer would leave copies.
    let mut octets = Zeroizing::new(Vec::with_capacity(READ_MAX));
    let most = READ_MAX as u64;
    let read = if path == Path::new("-") {
        io::stdin().lock().take(most).read_to_end(&mut octets)
    } else {
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut octets))
    };
    let path = path.display();
    read.map_err(|error| Failure::new(Code::BadInput, format!("cannot read {path}: {error}")))?;
    let end = octets.iter().position(|octet| *octet == b'\n');
    let line = &octets[..end.unwrap_or(octets.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    std::str::from_utf8(line)
        .map(|text| text.to_owned().into())
        .map_err(|_| Failure::new(Code::BadPassphrase, format!("{path} is no text in UTF-8")))
}

fn ask_twice() -> Result<Zeroizing<String>, Failure> {
    let passphrase = ask("New PIN or passphrase: ")?;
    if ask("The same again: ")? == passphrase {
        return Ok(passphrase);
    }
    let sentence = "the two are not the same: nothing has changed, try again";
    Err(Failure::new(Code::BadPassphrase, sentence))
}

fn ask(question: &str) -> Result<Zeroizing<String>, Failure> {
    if !io::stdin().is_terminal() {
        let sentence = "a PIN or passphrase is needed: give it with --passphrase-file FILE";
        return Err(Failure::new(Code::TerminalLocked, sentence));
    }
    let mut typed = Zeroizing::new(String::with_capacity(READ_MAX));
    let asked = Unseen::begin().and_then(|_unseen| {
        write!(io::stderr(), "{question}")?;
        io::stderr().flush()?;
        io::stdin().read_line(&mut typed)
    });
    asked.map_err(|error| {
        let sentence = format!("cannot read the passphrase: {error}");
        Failure::new(Code::BadInput, sentence)
    })?;
    let line = typed.trim_end_matches(['\r', '\n']);
    Ok(line.to_owned().into())
}

/// While it lives, what is typed is not shown; only the line's end.
struct Unseen {
    before: Termios,
}

impl Unseen {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO);
        unseen.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Flush, &unseen)?;
        Ok(Self { before })
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), OptionalActions::Now, &self.before) {
            tracing::warn!(%error, "the terminal may not show what is typed: `stty echo` mends it");
        }
    }
}

const READ_MAX: usize = 4096;
