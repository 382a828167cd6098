//! `keyfall admin`: orders to a running server, and what it knows.

pub(crate) mod client;
mod confirm;
mod erase;
mod exclude;
mod group_set;
mod legacy_key;
mod packages;
mod restored;
mod terminal_set;
mod words;

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use keyfall_api::admin as api;
use serde::Serialize;

use crate::explain::Code;
use crate::output::{Failure, Output};
use crate::server::{no_directory, span};
use crate::terminal::dir_of_environment;
use client::{get, post, segment};

/// Give a running server orders, and see what it knows.
#[derive(Args, Debug)]
pub(crate) struct AdminArgs {
    /// The server's directory; instead of it: KEYFALL_DIR.
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Subcommand, Debug)]
enum Noun {
    Terminal(TerminalArgs),
    Group(GroupArgs),
    Renew(RenewArgs),
    Rekey(RekeyArgs),
    Exclude(exclude::ExcludeArgs),
    DeleteKeys(erase::DeleteArgs),
    Initialize(erase::InitializeArgs),
    Lock(erase::LockArgs),
    Unlock(erase::UnlockArgs),
    Receipt(erase::ReceiptArgs),
    Exposure(ExposureArgs),
    Keys(KeysArgs),
    Audit(AuditArgs),
    Carousel(CarouselArgs),
    Status(StatusArgs),
    Confirm(restored::ConfirmArgs),
}

/// Why an order is given; goes into the audit log.
#[derive(Args, Debug)]
struct Why {
    /// Why, in words for the audit log.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// The ticket that asks for it, for the audit log.
    #[arg(long, value_name = "TEXT")]
    ticket: Option<String>,
}

/// Enrol terminals, give them addresses, and see them.
#[derive(Args, Debug)]
struct TerminalArgs {
    #[command(subcommand)]
    verb: TerminalVerb,
}

#[derive(Subcommand, Debug)]
enum TerminalVerb {
    Add(AddArgs),
    List(ListArgs),
    Show(ShowArgs),
    Set(terminal_set::SetArgs),
    LegacyKey(legacy_key::LegacyKeyArgs),
}

/// Enrol terminals: one sealed package for each, or one token.
///
/// A package is sealed under a code, which is shown once and is to be carried by another way than
/// the file; with --for it is sealed to a key of the terminal, and there is no code. With --token no
/// package is made: the terminal fetches what would be in it, once, from where the server listens.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin terminal add truck1 truck2 --dir fleet\n  \
                  keyfall admin terminal add truck3 --for KF1-… --dir fleet\n  \
                  keyfall admin terminal add truck4 --token --good-for 2h --dir fleet"
)]
struct AddArgs {
    /// Names: letters, digits, dots, hyphens, underscores.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// The key that `keyfall terminal enrol DIR --request` printed.
    #[arg(long = "for", value_name = "KEY")]
    request: Option<String>,
    /// Print a one-time token instead of making a package.
    #[arg(long, conflicts_with_all = ["request", "out"])]
    token: bool,
    /// For how long the token is good: 90s, 10m, 2h, 7d.
    #[arg(long, value_name = "SPAN", default_value = "1d", requires = "token", value_parser = span)]
    good_for: u32,
    /// A directory of the device that `initialize` wipes beside the terminal's own, as an absolute
    /// path; may be given several times.
    #[arg(long = "wipe-root", value_name = "PATH")]
    wipe_roots: Vec<String>,
    /// Where NAME.enrol is written.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    #[command(flatten)]
    why: Why,
}

/// List them all.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall admin terminal list --dir fleet\n  \
                        keyfall admin group list --dir fleet")]
struct ListArgs {}

/// Show one, with its keys' fingerprints.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin terminal show truck1 --dir fleet\n  \
                        keyfall admin group show ops --dir fleet"
)]
struct ShowArgs {
    /// Name or number.
    name: String,
}

/// Make groups, add members, say how keys are changed, see them.
#[derive(Args, Debug)]
struct GroupArgs {
    #[command(subcommand)]
    verb: GroupVerb,
}

#[derive(Subcommand, Debug)]
enum GroupVerb {
    Create(CreateArgs),
    Add(MemberArgs),
    Remove(RemoveArgs),
    Set(group_set::SetArgs),
    List(ListArgs),
    Show(ShowArgs),
}

/// Make a group with a fresh key, which is sent to its members.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin group create ops --member truck1 --member truck2 \
                        --dir fleet\n  \
                  keyfall admin group create net --member truck1 --member hub --packets \
                        --network 10.77.0.0/16 --priority 5 --mtu 1380 --dir fleet",
    group(ArgGroup::new("of_packets").multiple(true).requires("packets")
        .args(["priority", "mtu", "suite", "networks"]))
)]
struct CreateArgs {
    name: String,
    /// A member, by name or number; to be given for each.
    #[arg(long = "member", value_name = "TERMINAL", required = true)]
    members: Vec<String>,
    /// How often the key renews by itself: 10m, 1h, 1d; never: by command and by gap only.
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = period)]
    period: Period,
    /// Generations for each period.
    #[arg(long, value_name = "N", default_value_t = 1)]
    step: u8,
    /// It protects IP packets between addresses of its members.
    #[arg(long)]
    packets: bool,
    #[command(flatten)]
    settings: group_set::PacketFlags,
    #[command(flatten)]
    why: Why,
}

/// Add a terminal: the key is renewed first, so that it reads nothing from before.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall admin group add ops truck3 --dir fleet")]
struct MemberArgs {
    /// The group, by name or number.
    group: String,
    /// The terminal, by name or number.
    terminal: String,
    #[command(flatten)]
    why: Why,
}

/// Take terminals out of a group, which gets a fresh key without them. They stay in other groups.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin group remove ops truck3 --reason reassigned --dir fleet"
)]
struct RemoveArgs {
    /// The group, by name or number.
    group: String,
    /// Terminals, by name or number.
    #[arg(required = true, value_name = "TERMINAL")]
    terminals: Vec<String>,
    /// Only say what would be sent, and to how many.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    why: Why,
}

/// Renew keys one generation further. No key is sent, and nobody is excluded by it.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin renew --group ops --reason weekly --dir fleet\n  \
                  keyfall admin renew --device truck1 --dir fleet\n  \
                  keyfall admin renew --all-devices --dry-run --dir fleet",
    group(ArgGroup::new("which").required(true).args(["group", "device", "all_devices"]))
)]
struct RenewArgs {
    /// The master key of this group, by name or number.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// The wrap key of this terminal alone, by name or number, beyond the others'.
    #[arg(long, value_name = "TERMINAL")]
    device: Option<String>,
    /// The wrap keys of all terminals.
    #[arg(long)]
    all_devices: bool,
    /// Only say what would be sent, and to how many.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    why: Why,
}

/// Give a group a fresh key for everyone in it, that shares nothing with the one before.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall admin rekey ops --reason quarterly --dir fleet")]
struct RekeyArgs {
    /// The group, by name or number.
    group: String,
    /// Only say what would be sent, and to how many.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    why: Why,
}

/// Show what a thief who took a terminal can read, key by key, and until when.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin exposure truck1 --dir fleet\n  \
                  keyfall admin exposure truck1 --at '2026-11-21 22:00' --dir fleet"
)]
struct ExposureArgs {
    /// The terminal, by name or number.
    terminal: String,
    /// When it was taken, in UTC: 2026-11-21, 2026-11-21 22:00, or Unix seconds; now without it.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<u32>,
}

/// Show every key: id, rank, epoch, generation, validity, lease, fingerprint; never the key.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall admin keys --dir fleet")]
struct KeysArgs {}

/// Show the audit log, or verify its chain.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  keyfall admin audit --last 5 --dir fleet\n  \
                  keyfall admin audit verify --dir fleet"
)]
struct AuditArgs {
    /// How many of the newest entries.
    #[arg(long, value_name = "N", default_value_t = 20)]
    last: u32,
    #[command(subcommand)]
    verb: Option<AuditVerb>,
}

#[derive(Subcommand, Debug)]
enum AuditVerb {
    /// Check that every entry hangs on the one before.
    #[command(after_help = "Example:\n  keyfall admin audit verify --dir fleet")]
    Verify,
}

/// Show what is repeated, how long a turn takes, and when nearly everybody should have heard it.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall admin carousel --loss 0.3 --dir fleet")]
struct CarouselArgs {
    /// The share of frames that a terminal misses, for the prediction.
    #[arg(long, value_name = "SHARE", default_value_t = 0.3)]
    loss: f64,
}

/// Show how the server is, and what needs an operator.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall admin status --dir fleet")]
struct StatusArgs {}

pub(crate) fn run(args: AdminArgs, output: &Output) -> Result<(), Failure> {
    let dir = args
        .dir
        .or_else(dir_of_environment)
        .ok_or_else(no_directory)?;
    let dir = dir.as_path();
    match args.noun {
        Noun::Terminal(TerminalArgs { verb }) => match verb {
            TerminalVerb::Add(args) => packages::add(dir, args, output),
            TerminalVerb::List(_) => output.result(
                &get::<api::Terminals>(dir, "/v1/terminals")?,
                words::terminals,
            ),
            TerminalVerb::Set(args) => terminal_set::run(dir, args, output),
            TerminalVerb::LegacyKey(args) => legacy_key::run(dir, args, output),
            TerminalVerb::Show(args) => {
                let path = format!("/v1/terminals/{}", segment(&args.name));
                output.result(&get::<api::TerminalShown>(dir, &path)?, words::terminal)
            }
        },
        Noun::Group(GroupArgs { verb }) => match verb {
            GroupVerb::Create(args) => {
                let order = api::CreateGroup {
                    name: args.name,
                    members: args.members,
                    period: args.period.0,
                    step: args.step,
                    packets: args.packets.then(|| api::Packets {
                        priority: args.settings.priority.unwrap_or(0),
                        mtu: args.settings.mtu.and_then(group_set::Mtu::octets),
                        suite: args.settings.suite.map(group_set::Suite::name),
                        networks: args.settings.networks,
                    }),
                    why: args.why.into(),
                };
                let created: api::GroupCreated = post(dir, "/v1/groups", &order)?;
                output.result(&created, words::group_created)
            }
            GroupVerb::Add(args) => {
                let path = format!("/v1/groups/{}/members", segment(&args.group));
                let order = api::AddMember {
                    terminal: args.terminal,
                    why: args.why.into(),
                };
                let added: api::MemberAdded = post(dir, &path, &order)?;
                output.result(&added, words::member_added)
            }
            GroupVerb::Remove(args) => remove(dir, args, output),
            GroupVerb::Set(args) => group_set::run(dir, args, output),
            GroupVerb::List(_) => {
                output.result(&get::<api::Groups>(dir, "/v1/groups")?, words::groups)
            }
            GroupVerb::Show(args) => {
                let path = format!("/v1/groups/{}", segment(&args.name));
                output.result(&get::<api::GroupShown>(dir, &path)?, words::group)
            }
        },
        Noun::Renew(args) => {
            let order = api::Renew {
                dry_run: args.dry_run,
                why: args.why.into(),
            };
            match (args.group, args.device) {
                (Some(group), _) => {
                    let path = format!("/v1/groups/{}/renew", segment(&group));
                    let renewed: api::GroupRenewed = post(dir, &path, &order)?;
                    output.result(&renewed, words::group_renewed)
                }
                (None, Some(terminal)) => {
                    let path = format!("/v1/terminals/{}/renew", segment(&terminal));
                    let renewed: api::DeviceRenewed = post(dir, &path, &order)?;
                    output.result(&renewed, words::device_renewed)
                }
                (None, None) => {
                    let renewed: api::DevicesRenewed = post(dir, "/v1/devices/renew", &order)?;
                    output.result(&renewed, words::devices_renewed)
                }
            }
        }
        Noun::Rekey(args) => {
            let order = api::Renew {
                dry_run: args.dry_run,
                why: args.why.into(),
            };
            let path = format!("/v1/groups/{}/rekey", segment(&args.group));
            let rekeyed: api::GroupRekeyed = post(dir, &path, &order)?;
            output.result(&rekeyed, words::group_rekeyed)
        }
        Noun::Exclude(args) => exclude::run(dir, args, output),
        Noun::DeleteKeys(args) => erase::delete(dir, args, output),
        Noun::Initialize(args) => erase::initialize(dir, args, output),
        Noun::Lock(args) => erase::lock(dir, args, output),
        Noun::Unlock(args) => erase::unlock(dir, args, output),
        Noun::Receipt(args) => erase::receipt(dir, args, output),
        Noun::Exposure(args) => {
            let at = args.at.map_or_else(String::new, |at| format!("?at={at}"));
            let path = format!("/v1/terminals/{}/exposure{at}", segment(&args.terminal));
            output.result(&get::<api::Exposure>(dir, &path)?, words::exposure)
        }
        Noun::Keys(_) => output.result(&get::<api::Keys>(dir, "/v1/keys")?, words::keys),
        Noun::Audit(args) => match args.verb {
            None => {
                let path = format!("/v1/audit?last={}", args.last);
                output.result(&get::<api::Audit>(dir, &path)?, words::audit)
            }
            Some(AuditVerb::Verify) => {
                let verdict: api::AuditVerified = get(dir, "/v1/audit/verify")?;
                output.result(&verdict, words::audit_verified)?;
                if verdict.whole {
                    Ok(())
                } else {
                    Err(Failure::shown(Code::AuditBroken))
                }
            }
        },
        Noun::Carousel(args) => {
            let path = format!("/v1/carousel?loss={}", args.loss);
            output.result(&get::<api::Carousel>(dir, &path)?, words::carousel)
        }
        Noun::Confirm(args) => restored::run(dir, args, output),
        Noun::Status(_) => output.result(&get::<api::Status>(dir, "/v1/status")?, words::status),
    }
}

/// Every terminal that left.
#[derive(Serialize)]
struct Removed {
    schema: u32,
    removed: Vec<api::MemberRemoved>,
}

/// One order for each terminal, after a look at whether all of them can leave.
fn remove(dir: &Path, args: RemoveArgs, output: &Output) -> Result<(), Failure> {
    let path = format!("/v1/groups/{}/members/remove", segment(&args.group));
    let mut orders: Vec<_> = args
        .terminals
        .into_iter()
        .map(|terminal| api::RemoveMember {
            terminal,
            dry_run: true,
            why: api::Why::default(),
        })
        .collect();
    let mut removed = Vec::new();
    for order in &orders {
        removed.push(post::<api::MemberRemoved>(dir, &path, order)?);
    }
    if !args.dry_run {
        let why: api::Why = args.why.into();
        removed.clear();
        for order in &mut orders {
            order.dry_run = false;
            order.why = why.clone();
            removed.push(post(dir, &path, order)?);
        }
    }
    let schema = api::SCHEMA;
    output.result(&Removed { schema, removed }, |all| {
        let lines: Vec<_> = all.removed.iter().map(words::member_removed).collect();
        lines.join("\n")
    })
}

impl From<Why> for api::Why {
    fn from(why: Why) -> Self {
        Self {
            reason: why.reason,
            ticket: why.ticket,
        }
    }
}

/// Seconds; `None`: never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Period(Option<u32>);

fn period(text: &str) -> Result<Period, String> {
    if text == "never" {
        return Ok(Period(None));
    }
    span(text).map(|seconds| Period(Some(seconds)))
}

/// Unix seconds of `2026-11-21`, `2026-11-21 22:00`, `2026-11-21T22:00:05Z` or the seconds
/// themselves. Always UTC.
fn moment(text: &str) -> Result<u32, String> {
    let bad = || {
        format!("{text:?} is no time: write it in UTC as in 2026-11-21 22:00, or as Unix seconds")
    };
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let trimmed = text.trim_end_matches("UTC").trim_end_matches(['Z', ' ']);
    let (date, clock) = trimmed.split_once([' ', 'T']).unwrap_or((trimmed, "00:00"));
    let numbers = |text: &str, by: char| -> Option<Vec<u32>> {
        text.split(by).map(|part| part.parse().ok()).collect()
    };
    let date = numbers(date, '-').ok_or_else(bad)?;
    let clock = numbers(clock, ':').ok_or_else(bad)?;
    let ([year, month, day], [hour, minute, rest @ ..]) = (&date[..], &clock[..]) else {
        return Err(bad());
    };
    let second = match rest {
        [] => 0,
        [second] => *second,
        [_, _, ..] => return Err(bad()),
    };
    let good = (1970..2106).contains(year)
        && (1..=12).contains(month)
        && (1..=31).contains(day)
        && *hour < 24
        && *minute < 60
        && second < 60;
    if !good {
        return Err(bad());
    }
    // Days before the month, of years that begin in March.
    let (year, month) = if *month > 2 {
        (*year, *month - 3)
    } else {
        (*year - 1, *month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468).ok_or_else(bad)?;
    Ok(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::utc;

    #[test]
    fn a_time_reads_as_it_is_shown() {
        for seconds in [0, 951_782_399, 951_782_400, 1_767_225_600, 1_795_300_041] {
            assert_eq!(moment(&utc(seconds)), Ok(seconds), "{}", utc(seconds));
            assert_eq!(moment(&seconds.to_string()), Ok(seconds));
        }
        assert_eq!(moment("2026-01-01"), Ok(1_767_225_600));
        assert_eq!(moment("2026-01-01 00:01"), Ok(1_767_225_660));
        assert_eq!(moment("2026-01-01T00:01:02Z"), Ok(1_767_225_662));
        for bad in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-01-01 24:00",
            "2026-01",
            "1-2-3 4:5:6:7",
        ] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
