//! `server backup` and `server restore`.

use std::path::{Path, PathBuf};

use clap::Args;
use keyfall_api::admin::SCHEMA;
use keyfall_protocol::server::By;
use keyfall_server::{BackupError, Restore, RestoreError, RestoredServer};
use serde::Serialize;

use crate::explain::Code;
use crate::output::{Failure, Output, utc};
use crate::server::{Dir, directory_code, store_code};

/// Copy the database of a server, which may run, to one new file, and read it again.
///
/// Keys are in it as in the database: sealed. Keep seal.key apart from it, and keep seal.key;
/// without it a backup opens nothing. The order journal is not in it: it goes on after the backup,
/// and a restore needs it.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall server backup fleet /media/usb/fleet-2026-11-21.backup"
)]
pub(super) struct BackupArgs {
    /// The server's directory.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// A new file.
    file: PathBuf,
}

/// Put a server back from a backup, and bring it up to its order journal.
///
/// DIR holds seal.key, and the order journal or what is left of it. Files that are replaced are kept
/// in DIR/replaced-1 and so on. Numbers go on above all that the journal knows, who was excluded
/// stays so, and groups whose keys were made after the backup get fresh ones. The server then runs
/// and takes orders, and sends nothing until `keyfall admin confirm`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall server restore fleet --from /media/usb/fleet-2026-11-21.backup\n  \
                  keyfall server restore fleet --from fleet.backup --journal /mnt/mirror/journal\n  \
                  keyfall server restore fleet --from fleet.backup --journal-lost"
)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    dir: Dir,
    /// The backup.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The order journal, where it is not the one in DIR.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Go on without the journal, or with what is whole of it: every group gets a fresh key, and who
    /// was excluded after the backup has to be excluded again.
    #[arg(long)]
    journal_lost: bool,
    /// Why, in words for the audit log.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// The ticket that asks for it, for the audit log.
    #[arg(long, value_name = "TEXT")]
    ticket: Option<String>,
}

#[derive(Serialize)]
struct BackupDocument {
    schema: u32,
    ok: bool,
    file: String,
    octets: u64,
    /// The newest moment that it knows of.
    newest: u32,
    journal_entries: u64,
    audit_entries: u64,
    /// What opens it, and is not in it.
    seal_key: String,
}

pub(super) fn backup(args: &BackupArgs, output: &Output) -> Result<(), Failure> {
    let made = keyfall_server::backup(&args.dir, &args.file).map_err(|e| backup_failure(&e))?;
    let document = BackupDocument {
        schema: SCHEMA,
        ok: true,
        file: args.file.display().to_string(),
        octets: made.octets,
        newest: made.newest.get(),
        journal_entries: made.journal_entries,
        audit_entries: made.audit_entries,
        seal_key: args.dir.join("seal.key").display().to_string(),
    };
    output.result(&document, backup_text)
}

fn backup_text(made: &BackupDocument) -> String {
    format!(
        "{}: {} octets, up to {}; every page and every key in it was read again\n\
         Keep {} apart from it: without that file this backup opens nothing, and with it everything \
         that was sealed then.\n\
         The order journal goes on after entry {}: keep a copy of it up to date, for a restore needs \
         its end.\n\
         Remove backups that you do not need any more: who gets one and seal.key opens what was \
         recorded around its time.",
        made.file,
        made.octets,
        utc(made.newest),
        made.seal_key,
        made.journal_entries
    )
}

#[derive(Serialize)]
struct RestoreDocument {
    schema: u32,
    ok: bool,
    dir: String,
    /// The newest moment that the backup knew of.
    backup_newest: u32,
    /// Orders after the backup that were carried out again.
    replayed: u64,
    journal_lost: bool,
    /// A last line of the journal that was cut off and counts for nothing.
    torn_line: Option<u64>,
    excluded_again: Vec<String>,
    removed_again: u64,
    added_again: u64,
    fresh_epochs: u64,
    renewed: u64,
    /// One sentence each.
    losses: Vec<String>,
    /// Where the files are that were replaced.
    replaced: Option<String>,
    next: String,
}

pub(super) fn restore(args: RestoreArgs, output: &Output) -> Result<(), Failure> {
    let dir = args.dir.resolve()?;
    let journal_lost = args.journal_lost;
    let order = Restore {
        dir: dir.clone(),
        from: args.from,
        journal: args.journal,
        journal_lost,
        by: By {
            actor: format!("uid {}", rustix::process::getuid().as_raw()),
            reason: args.reason,
            ticket: args.ticket,
        },
    };
    let restored = keyfall_server::restore(order).map_err(|e| restore_failure(&e))?;
    let document = restore_document(&dir, journal_lost, restored);
    output.result(&document, restore_text)
}

fn restore_document(dir: &Path, journal_lost: bool, restored: RestoredServer) -> RestoreDocument {
    let done = restored.caught_up;
    RestoreDocument {
        schema: SCHEMA,
        ok: true,
        dir: dir.display().to_string(),
        backup_newest: restored.copied_at.get(),
        replayed: restored.replayed as u64,
        journal_lost,
        torn_line: restored.torn.map(|torn| torn.number),
        excluded_again: restored.excluded,
        removed_again: done.left as u64,
        added_again: done.joined as u64,
        fresh_epochs: done.fresh as u64,
        renewed: done.renewed as u64,
        losses: done.losses,
        replaced: restored.replaced.map(|path| path.display().to_string()),
        next: format!(
            "keyfall server run {}, then keyfall admin confirm --dir {}",
            dir.display(),
            dir.display()
        ),
    }
}

fn restore_text(restored: &RestoreDocument) -> String {
    let mut text = format!(
        "{} is restored from a backup that ends at {}; {} orders after it were carried out again\n",
        restored.dir,
        utc(restored.backup_newest),
        restored.replayed
    );
    if let Some(line) = restored.torn_line {
        text.push_str(&format!(
            "A crash had cut off line {line} of the order journal: nothing was sent on its word.\n"
        ));
    }
    if !restored.excluded_again.is_empty() {
        let names = restored.excluded_again.join(", ");
        text.push_str(&format!("Excluded again: {names}\n"));
    }
    text.push_str(&format!(
        "Memberships ended again: {}, begun again: {}; groups with a fresh key: {}, renewed: {}\n",
        restored.removed_again, restored.added_again, restored.fresh_epochs, restored.renewed
    ));
    if restored.losses.is_empty() {
        text.push_str("Nothing was lost.\n");
    }
    for loss in &restored.losses {
        text.push_str(&format!("Lost: {loss}\n"));
    }
    if let Some(replaced) = &restored.replaced {
        text.push_str(&format!("The files that were there are in {replaced}\n"));
    }
    text.push_str(&format!(
        "It is held: it takes orders and sends nothing until an operator confirms the exclusion list.\n\
         Next: {}",
        restored.next
    ));
    text
}

fn backup_failure(error: &BackupError) -> Failure {
    let code = match error {
        BackupError::Directory(error) => directory_code(error),
        BackupError::Exists { .. } => Code::BadInput,
        BackupError::Store(error) | BackupError::Unread(error) => store_code(error),
    };
    Failure::new(code, error.to_string())
}

fn restore_failure(error: &RestoreError) -> Failure {
    let code = match error {
        RestoreError::Directory(error) => directory_code(error),
        RestoreError::NoDirectory { .. } => Code::NoServer,
        RestoreError::Runs { .. } => Code::ServerRuns,
        RestoreError::NoBackup { .. } | RestoreError::Backup { .. } => Code::BadBackup,
        RestoreError::NoJournal { .. }
        | RestoreError::BrokenJournal { .. }
        | RestoreError::ForeignJournal { .. }
        | RestoreError::CutJournal { .. } => Code::JournalNeeded,
        RestoreError::ClockBehind { .. } => Code::ServerClock,
        RestoreError::Store(error) => store_code(error),
        RestoreError::Journal(keyfall_server::journal::JournalError::Locked { .. }) => {
            Code::ServerRuns
        }
        RestoreError::Journal(_) | RestoreError::Refused(_) => Code::JournalBroken,
        RestoreError::Io { .. } => Code::ServerFault,
    };
    Failure::new(code, error.to_string())
}
