//! `admin terminal legacy-key`: the RSA key under which a terminal is answered in rsa-misty1.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use keyfall_api::admin as api;

use crate::admin::Why;
use crate::admin::client::{post, segment};
use crate::explain::Code;
use crate::output::{Failure, Output};

/// Register the RSA key of a terminal that is to speak rsa-misty1, in place of the one before.
///
/// The suite is weak and off: see `keyfall server sign-keys --suites` and `keyfall admin group set
/// --legacy-sharing`, too.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin terminal legacy-key truck1 truck1.rsa --dir fleet\n  \
                  keyfall admin terminal legacy-key truck1 --remove --dir fleet",
    group(ArgGroup::new("what").required(true).args(["file", "remove"]))
)]
pub(super) struct LegacyKeyArgs {
    /// The terminal, by name or number.
    terminal: String,
    /// The file that `keyfall terminal legacy-key` wrote: bring it by a way that nobody can change it on.
    file: Option<PathBuf>,
    /// From now on it is not answered in rsa-misty1.
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    why: Why,
}

pub(super) fn run(dir: &Path, args: LegacyKeyArgs, output: &Output) -> Result<(), Failure> {
    let key = args.file.as_deref().map(read).transpose()?;
    let order = api::SetLegacyKey {
        key,
        why: args.why.into(),
    };
    let path = format!("/v1/terminals/{}/legacy-key", segment(&args.terminal));
    let set: api::LegacyKeySet = post(dir, &path, &order)?;
    output.result(&set, words)
}

fn words(set: &api::LegacyKeySet) -> String {
    let terminal = &set.terminal.name;
    let warning = set.warning.as_ref();
    let warning = warning.map_or_else(String::new, |warning| format!("\nNote: {warning}."));
    match &set.key {
        Some(key) => format!(
            "{terminal}: RSA key {} of {} bits is registered; compare its name with what the terminal \
             shows{warning}",
            key.name, key.bits
        ),
        None => format!("{terminal}: no RSA key is registered"),
    }
}

/// As hexadecimal; the server judges it.
fn read(file: &Path) -> Result<String, Failure> {
    let mut octets = Vec::new();
    File::open(file)
        .and_then(|file| file.take(READ_MAX).read_to_end(&mut octets))
        .map_err(|error| {
            let sentence = format!("cannot read {}: {error}", file.display());
            Failure::new(Code::BadInput, sentence)
        })?;
    Ok(octets.iter().map(|octet| format!("{octet:02x}")).collect())
}

/// A public key of 8192 bits has about 1,100 octets.
const READ_MAX: u64 = 4096;
