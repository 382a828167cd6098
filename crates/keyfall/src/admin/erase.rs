//! `admin delete-keys | initialize | lock | unlock | receipt`: what only the erase key may say. It is
//! read and used here, and never comes to the server.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use keyfall_api::admin as api;
use keyfall_protocol::command::{Body, Command, OrderKind, SIGNERS_MAX, SigningKey, sign_together};
use keyfall_protocol::receipt::Receipt;
use keyfall_server::key_file;

use crate::admin::client::post;
use crate::admin::confirm::confirm;
use crate::admin::{Why, words};
use crate::explain::Code;
use crate::output::{Failure, Output};

/// Erase every key in a terminal, wherever it is and locked or not.
///
/// "Sent" is not "obeyed": a receipt proves it where one comes back, and exclusion needs nobody's
/// obedience.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin delete-keys truck1 --erase-key /media/usb/erase.key \
                  --receipt --reason stolen --dir fleet"
)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    order: EraseArgs,
    /// Have the terminal leave a receipt, for `keyfall admin receipt`.
    #[arg(long)]
    receipt: bool,
}

/// Erase every key in a terminal, its directory, and the directories that were declared when it
/// was added.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin initialize truck1 --erase-key /media/usb/erase.key \
                  --reason scrapped --dir fleet"
)]
pub(super) struct InitializeArgs {
    #[command(flatten)]
    order: EraseArgs,
}

/// Close a terminal's keys, so that no PIN opens them until it is unlocked here.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin lock truck1 --erase-key /media/usb/erase.key \
                  --reason missing --dir fleet"
)]
pub(super) struct LockArgs {
    #[command(flatten)]
    order: EraseArgs,
}

/// Let the terminal's PIN open its keys again.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin unlock truck1 --erase-key /media/usb/erase.key \
                  --reason found --dir fleet"
)]
pub(super) struct UnlockArgs {
    #[command(flatten)]
    order: EraseArgs,
}

#[derive(Args, Debug)]
struct EraseArgs {
    /// The terminal, by name or number.
    terminal: String,
    #[command(flatten)]
    keys: EraseKeys,
    /// Only say what would be sent.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Beyond the server's own limit of ten DELETE and INIT an hour, which is no security boundary.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    why: Why,
}

#[derive(Args, Debug)]
struct EraseKeys {
    /// An erase key; to be given for each that has to sign.
    #[arg(long = "erase-key", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Turn "sent" into "proved" by the receipt that a terminal left.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin receipt truck1.receipt --dir fleet\n  \
                  echo KF1-RECEIPT-… | keyfall admin receipt - --dir fleet"
)]
pub(super) struct ReceiptArgs {
    /// Its octets or its text; -: stdin.
    file: PathBuf,
    #[command(flatten)]
    why: Why,
}

pub(super) fn delete(dir: &Path, args: DeleteArgs, output: &Output) -> Result<(), Failure> {
    order(
        dir,
        args.order,
        api::EraseKind::Delete,
        args.receipt,
        output,
    )
}

pub(super) fn initialize(dir: &Path, args: InitializeArgs, output: &Output) -> Result<(), Failure> {
    order(dir, args.order, api::EraseKind::Init, false, output)
}

pub(super) fn lock(dir: &Path, args: LockArgs, output: &Output) -> Result<(), Failure> {
    order(dir, args.order, api::EraseKind::Lock, false, output)
}

pub(super) fn unlock(dir: &Path, args: UnlockArgs, output: &Output) -> Result<(), Failure> {
    order(dir, args.order, api::EraseKind::Unlock, false, output)
}

fn order(
    dir: &Path,
    args: EraseArgs,
    kind: api::EraseKind,
    receipt: bool,
    output: &Output,
) -> Result<(), Failure> {
    let keys = read_keys(&args.keys.files)?;
    let wanted = api::DraftErase {
        terminal: args.terminal,
        kind,
        receipt,
    };
    let draft: api::EraseDraft = post(dir, "/v1/erase/draft", &wanted)?;
    let frame = sign(&draft, &keys)?;
    let would = would_issue(&draft, receipt);
    if args.dry_run {
        return output.result(&would, words::erase_issued);
    }
    if destroys(kind) {
        within_limit(&draft.limit, 1, args.force)?;
        confirm(&words::erase_issued(&would), args.yes)?;
    }
    let issue = api::IssueErase {
        frame,
        force: args.force,
        why: args.why.into(),
    };
    let issued: api::EraseIssued = post(dir, "/v1/erase/issue", &issue)?;
    output.result(&issued, words::erase_issued)
}

/// Reads every erase key that is to sign.
///
/// # Errors
/// [`Code::KeyFile`]; [`Code::BadArguments`] for too many, or one twice.
pub(super) fn read_keys(files: &[PathBuf]) -> Result<Vec<SigningKey>, Failure> {
    if files.len() > SIGNERS_MAX {
        let sentence = format!("at most {SIGNERS_MAX} erase keys sign one order");
        return Err(Failure::new(Code::BadArguments, sentence));
    }
    let mut keys: Vec<SigningKey> = Vec::new();
    for file in files {
        let key =
            key_file::read(file).map_err(|error| Failure::new(Code::KeyFile, error.to_string()))?;
        if keys.iter().any(|other| other.public() == key.public()) {
            let sentence = format!(
                "{} is a key that was given before: give --erase-key a different one each time",
                file.display()
            );
            return Err(Failure::new(Code::BadArguments, sentence));
        }
        keys.push(key);
    }
    Ok(keys)
}

/// Signs a draft, after a look at what it says and at who has to sign.
///
/// # Errors
/// [`Code::EraseSignatures`] for too few keys, or one that is not listed.
pub(super) fn sign(draft: &api::EraseDraft, keys: &[SigningKey]) -> Result<String, Failure> {
    if keys.len() < usize::from(draft.signatures) {
        let sentence = format!(
            "{} of this fleet's erase keys must sign and {} did: give --erase-key {} times, with \
             different files",
            draft.signatures,
            keys.len(),
            draft.signatures
        );
        return Err(Failure::new(Code::EraseSignatures, sentence));
    }
    for key in keys {
        let name = key.public().name().to_string();
        if !draft.erase_keys.contains(&name) {
            let sentence = format!(
                "the key {name} is not an erase key of this fleet, whose are {}: take the erase.key \
                 that `keyfall server init` wrote for this fleet",
                draft.erase_keys.join(", ")
            );
            return Err(Failure::new(Code::EraseSignatures, sentence));
        }
    }
    let command = drafted(draft).ok_or_else(|| {
        let sentence = "the server drafted something else than was asked for; nothing was signed";
        Failure::new(Code::AdminSocket, sentence)
    })?;
    let frame = sign_together(&command, &keys.iter().collect::<Vec<_>>());
    Ok(hex(&frame))
}

/// Whether the server would take so many deletions now. It judges by itself, too; here nothing has
/// happened yet.
///
/// # Errors
/// [`Code::HourlyLimit`].
pub(super) fn within_limit(
    limit: &api::HourlyLimit,
    deletions: usize,
    force: bool,
) -> Result<(), Failure> {
    if force || limit.issued + deletions as u64 <= limit.an_hour {
        return Ok(());
    }
    let sentence = format!(
        "{} DELETE and INIT were issued in the last hour, and {deletions} more would pass {}, the \
         server's own limit, which is no security boundary: look again at what is being deleted, then \
         give --force or wait",
        limit.issued, limit.an_hour
    );
    Err(Failure::new(Code::HourlyLimit, sentence))
}

/// What [`sign`]ing and issuing the draft would do.
pub(super) fn would_issue(draft: &api::EraseDraft, receipt: bool) -> api::EraseIssued {
    api::EraseIssued {
        schema: api::SCHEMA,
        dry_run: true,
        terminal: draft.terminal.clone(),
        kind: draft.kind,
        receipt,
        reach: draft.reach,
    }
}

/// The command, where it is of the kind that was asked for. For whom it is, only the terminal's own
/// key can tell.
fn drafted(draft: &api::EraseDraft) -> Option<Command> {
    let kind = match draft.kind {
        api::EraseKind::Delete => OrderKind::Delete,
        api::EraseKind::Init => OrderKind::Init,
        api::EraseKind::Lock => OrderKind::Lock,
        api::EraseKind::Unlock => OrderKind::Unlock,
    };
    let command = Command::decode(&unhex(&draft.command)?).ok()?;
    let asked = match &command.body {
        Body::Order(order) => order.kind() == kind,
        Body::Time(_)
        | Body::Renew(_)
        | Body::KeyDist(_)
        | Body::Exclude(_)
        | Body::KeySet(_)
        | Body::Stop(_)
        | Body::Start(_)
        | Body::Notify(_) => false,
    };
    asked.then_some(command)
}

pub(super) fn receipt(dir: &Path, args: ReceiptArgs, output: &Output) -> Result<(), Failure> {
    let octets = read_file(&args.file).map_err(|error| {
        let sentence = format!("cannot read {}: {error}", args.file.display());
        Failure::new(Code::BadInput, sentence)
    })?;
    let receipt = Receipt::decode(&octets).map_err(|_| {
        let sentence = format!(
            "{} holds no receipt: give the file that the terminal left, or its text that begins \
             with KF1-RECEIPT-",
            args.file.display()
        );
        Failure::new(Code::BadReceipt, sentence)
    })?;
    let order = api::TakeReceipt {
        receipt: hex(&receipt.encode()),
        why: args.why.into(),
    };
    let taken: api::ReceiptTaken = post(dir, "/v1/receipts", &order)?;
    output.result(&taken, words::receipt_taken)
}

/// At most as much as a receipt can have, and a little more.
fn read_file(file: &Path) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    if file == Path::new("-") {
        io::stdin().lock().take(READ_MAX).read_to_end(&mut octets)?;
    } else {
        fs::File::open(file)?
            .take(READ_MAX)
            .read_to_end(&mut octets)?;
    }
    Ok(octets)
}

const fn destroys(kind: api::EraseKind) -> bool {
    match kind {
        api::EraseKind::Delete | api::EraseKind::Init => true,
        api::EraseKind::Lock | api::EraseKind::Unlock => false,
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let octet = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    };
    text.as_bytes().chunks(2).map(octet).collect()
}

const READ_MAX: u64 = 4_096;
