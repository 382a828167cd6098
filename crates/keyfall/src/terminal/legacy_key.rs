//! `keyfall terminal legacy-key`: the RSA key of a terminal that is to speak rsa-misty1.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use keyfall_protocol::sharing::rsa_misty1::RsaSize;
use keyfall_terminal::LegacyKeyError;
use serde::Serialize;

use crate::explain::Code;
use crate::output::{Failure, Output};
use crate::terminal::guarding::unlock_failure;
use crate::terminal::passphrase::present;
use crate::terminal::{Dir, stored_failure};

/// Make the RSA key with which this terminal speaks rsa-misty1, and write its public half to a file.
///
/// The suite is weak: it is for devices and tests that know no other. Stop the terminal first. Where there
/// is a key already, its public half is written again.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall terminal legacy-key alice --out alice.rsa\n  \
                        keyfall terminal legacy-key alice --out alice.rsa --renew --bits 4096"
)]
pub(super) struct LegacyKeyArgs {
    #[command(flatten)]
    dir: Dir,
    /// Where the public key is written, as SubjectPublicKeyInfo in DER: a new file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Bits of the key: 2048, 3072, 4096 or 8192, which takes many seconds.
    #[arg(long, value_name = "BITS", default_value = "3072", value_parser = rsa_size)]
    bits: RsaSize,
    /// Make another key in place of the one that is there.
    #[arg(long)]
    renew: bool,
    /// The PIN or passphrase is in this file, up to the first line's end; - for stdin.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct LegacyKeyDone {
    /// Sixteen hexadecimal digits, as the server shows them.
    key: String,
    bits: usize,
    file: String,
    next: String,
}

pub(super) fn run(args: &LegacyKeyArgs, output: &Output) -> Result<(), Failure> {
    let dir = args.dir.resolve()?;
    if args.out.exists() {
        let file = args.out.display();
        let sentence = format!("{file} is there already: name a new file, or remove that one");
        return Err(Failure::new(Code::BadInput, sentence));
    }
    let stored = keyfall_terminal::stored_status(&dir).map_err(|error| stored_failure(&error))?;
    let passphrase = match stored.try_limit {
        Some(_) => present(args.passphrase_file.as_deref())?,
        None => String::new().into(),
    };
    let key = keyfall_terminal::legacy_key(&dir, &passphrase, args.bits, args.renew)
        .map_err(|error| failure(&error))?;
    write_new(&args.out, key.as_spki())?;
    let file = args.out.display().to_string();
    let done = LegacyKeyDone {
        key: key.name().to_string(),
        bits: key.bits(),
        next: format!("keyfall admin terminal legacy-key {} {file}", stored.name),
        file,
    };
    output.versioned(&done, |done| {
        format!(
            "RSA key {} of {} bits; its public half is in {}\nAt the server: {}",
            done.key, done.bits, done.file, done.next
        )
    })
}

fn write_new(file: &Path, octets: &[u8]) -> Result<(), Failure> {
    let made = OpenOptions::new().write(true).create_new(true).open(file);
    let written = made.and_then(|mut file| file.write_all(octets));
    written.map_err(|error| {
        let sentence = format!("cannot write {}: {error}; run it again", file.display());
        Failure::new(Code::BadInput, sentence)
    })
}

pub(crate) fn rsa_size(text: &str) -> Result<RsaSize, String> {
    let size = text.parse().ok().and_then(RsaSize::of_bits);
    size.ok_or_else(|| "RSA keys are made with 2048, 3072, 4096 or 8192 bits".to_owned())
}

fn failure(error: &LegacyKeyError) -> Failure {
    let code = match error {
        LegacyKeyError::Stored(error) => return stored_failure(error),
        LegacyKeyError::Unlock(error) => return unlock_failure(error),
        LegacyKeyError::LockedByServer => Code::LockedByServer,
        LegacyKeyError::NotMade | LegacyKeyError::Driven(_) => Code::Unexpected,
    };
    Failure::new(code, error.to_string())
}
