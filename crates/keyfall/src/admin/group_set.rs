//! `admin group set`: how a group's key is changed while the group is at work.

use std::path::Path;

use clap::{ArgGroup, Args, ValueEnum};
use keyfall_api::admin as api;

use crate::admin::client::{post, segment};
use crate::admin::{Why, words};
use crate::output::{Failure, Output};

/// Say how a group's key is changed while the group is at work.
///
/// It counts for members that can answer; who only hears the carousel moves by the clock in any case.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin group set ops --change barrier --stragglers wait --dir fleet\n  \
                  keyfall admin group set ops --change hitless --dry-run --dir fleet",
    group(ArgGroup::new("what").required(true).multiple(true)
        .args(["change", "stragglers", "legacy_sharing"]))
)]
pub(super) struct SetArgs {
    /// The group, by name or number.
    group: String,
    /// hitless: receive with the new key first, send with it later; barrier: all stop, then all
    /// start again under the new key.
    #[arg(long, value_name = "MODE", value_enum)]
    change: Option<Change>,
    /// Members that do not answer in time: follow: the others go on without them; wait: the others
    /// wait, an hour at the most; leave-out: they are taken out of the group.
    #[arg(long, value_name = "POLICY", value_enum)]
    stragglers: Option<Stragglers>,
    /// Whether rsa-misty1, which is weak, may carry this group's key.
    #[arg(long, value_name = "WHETHER", value_enum)]
    legacy_sharing: Option<Switch>,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    why: Why,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Change {
    Hitless,
    Barrier,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Stragglers {
    Follow,
    Wait,
    LeaveOut,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Switch {
    On,
    Off,
}

pub(super) fn run(dir: &Path, args: SetArgs, output: &Output) -> Result<(), Failure> {
    let order = api::SetGroup {
        change: args.change.map(|change| match change {
            Change::Hitless => api::ChangeMode::Hitless,
            Change::Barrier => api::ChangeMode::Barrier,
        }),
        stragglers: args.stragglers.map(|stragglers| match stragglers {
            Stragglers::Follow => api::Stragglers::Follow,
            Stragglers::Wait => api::Stragglers::Wait,
            Stragglers::LeaveOut => api::Stragglers::LeaveOut,
        }),
        legacy_sharing: args.legacy_sharing.map(|switch| switch == Switch::On),
        dry_run: args.dry_run,
        why: args.why.into(),
    };
    let path = format!("/v1/groups/{}/policy", segment(&args.group));
    let set: api::GroupSet = post(dir, &path, &order)?;
    output.result(&set, words::group_set)
}
