//! `admin exclude`: a lost terminal is shut out; with the erase key it is told to delete, too.

use std::path::{Path, PathBuf};

use clap::Args;
use keyfall_api::admin as api;
use serde::Serialize;

use crate::admin::client::post;
use crate::admin::confirm::confirm;
use crate::admin::{Why, erase, words};
use crate::output::{Failure, Output};

/// Shut terminals out for good: nobody listens to them, and each of their groups gets a fresh key
/// without them. It needs nobody's obedience.
///
/// It says what it reaches before it asks. With --erase-key the terminals are told to delete their
/// keys, too.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin exclude truck1 --reason stolen --ticket T-7 --dir fleet\n  \
                  keyfall admin exclude truck1 --erase-key /media/usb/erase.key --yes --dir fleet\n  \
                  keyfall admin exclude truck1 truck2 --dry-run --dir fleet"
)]
pub(super) struct ExcludeArgs {
    /// Terminals, by name or number.
    #[arg(required = true, value_name = "TERMINAL")]
    terminals: Vec<String>,
    /// Fresh keys are wrapped for each other member, which is what this version does in any case.
    #[arg(long)]
    exact: bool,
    /// Tell them to delete their keys, too: an erase key; to be given for each that has to sign.
    #[arg(long = "erase-key", value_name = "FILE")]
    erase_keys: Vec<PathBuf>,
    /// Only say what would be sent, and to how many.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Beyond the server's own limit of ten DELETE and INIT an hour, which is no security boundary.
    #[arg(long, requires = "erase_keys")]
    force: bool,
    #[command(flatten)]
    why: Why,
}

/// The exclusion, and the deletions beside it.
#[derive(Serialize)]
pub(super) struct Done {
    #[serde(flatten)]
    pub(super) excluded: api::Excluded,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) deletions: Vec<api::EraseIssued>,
}

pub(super) fn run(dir: &Path, args: ExcludeArgs, output: &Output) -> Result<(), Failure> {
    // What the erase keys are asked for is known before anything is done.
    let keys = erase::read_keys(&args.erase_keys)?;
    let mut order = api::Exclude {
        terminals: args.terminals,
        dry_run: true,
        why: args.why.into(),
    };
    let would: api::Excluded = post(dir, "/v1/exclude", &order)?;
    let mut frames = Vec::new();
    let mut deletions = Vec::new();
    if !keys.is_empty() {
        for terminal in &would.terminals {
            let wanted = api::DraftErase {
                terminal: terminal.number.to_string(),
                kind: api::EraseKind::Delete,
                receipt: true,
            };
            let draft: api::EraseDraft = post(dir, "/v1/erase/draft", &wanted)?;
            erase::within_limit(&draft.limit, would.terminals.len(), args.force)?;
            frames.push(erase::sign(&draft, &keys)?);
            deletions.push(erase::would_issue(&draft, true));
        }
    }
    let would = Done {
        excluded: would,
        deletions,
    };
    if args.dry_run {
        return output.result(&would, words::excluded);
    }
    confirm(&words::excluded(&would), args.yes)?;

    order.dry_run = false;
    let excluded: api::Excluded = post(dir, "/v1/exclude", &order)?;
    let mut done = Done {
        excluded,
        deletions: Vec::new(),
    };
    for frame in frames {
        let issue = api::IssueErase {
            frame,
            force: args.force,
            why: order.why.clone(),
        };
        match post(dir, "/v1/erase/issue", &issue) {
            Ok(issued) => done.deletions.push(issued),
            // The exclusion stands, and that is told first.
            Err(failure) => {
                output.result(&done, words::excluded)?;
                return Err(if output.is_json() {
                    Failure::shown(failure.code())
                } else {
                    failure
                });
            }
        }
    }
    output.result(&done, words::excluded)
}
