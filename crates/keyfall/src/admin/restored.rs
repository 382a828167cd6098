//! `admin confirm`: a restored server begins to send.

use std::path::Path;

use clap::Args;
use keyfall_api::admin as api;

use crate::admin::Why;
use crate::admin::client::{get, post};
use crate::admin::confirm::confirm;
use crate::output::{Failure, Output, utc};

/// Let a restored server send, after a look at who is excluded and what was lost.
///
/// Whoever was excluded or removed after the backup and is not on the list has to be excluded again
/// before: orders are taken meanwhile, and nothing is sent.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin confirm --reason 'list checked' --ticket T-9 --dir fleet"
)]
pub(super) struct ConfirmArgs {
    /// Only show the list.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    why: Why,
}

pub(super) fn run(dir: &Path, args: ConfirmArgs, output: &Output) -> Result<(), Failure> {
    let shown: api::Confirmation = get(dir, "/v1/confirm")?;
    if args.dry_run {
        return output.result(&shown, list);
    }
    confirm(&list(&shown), args.yes)?;
    let order = api::Confirm {
        why: args.why.into(),
    };
    let confirmed: api::Confirmed = post(dir, "/v1/confirm", &order)?;
    output.result(&confirmed, |confirmed| {
        format!(
            "Confirmed: the server sends from now on; terminals excluded: {}.",
            confirmed.excluded
        )
    })
}

fn list(shown: &api::Confirmation) -> String {
    let mut text = format!(
        "Restored at {}; nothing was sent since.\n",
        utc(shown.restored_at)
    );
    if shown.excluded.is_empty() {
        text.push_str("No terminal is excluded.");
    } else {
        text.push_str("Excluded, for good:");
    }
    for line in &shown.excluded {
        let api::Named { number, name } = &line.terminal;
        text.push_str(&format!(
            "\n  {name} ({number}) since {}",
            utc(line.excluded_at)
        ));
    }
    if shown.losses.is_empty() {
        text.push_str("\nNothing was lost.");
    } else {
        text.push_str("\nLost:");
    }
    for loss in &shown.losses {
        text.push_str(&format!("\n  {loss}"));
    }
    text
}
