//! `keyfall bench`: what is promised of Keyfall, measured on this machine with the real machines.

mod charts;
mod crowd;
mod desk;
mod fleet;
mod legacy;
mod network;
mod parts;
mod renewal;
mod report;
mod speech;
mod stop;
mod watch;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::sharing::rsa_misty1::RsaSize;
use legacy::RsaLength;
use report::Report;

use crate::explain::Code;
use crate::output::{Failure, Output};

/// Measure on this machine what is promised.
///
/// Example: keyfall bench sharing --svg sharing.svg
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Subcommand, Debug)]
enum BenchCommand {
    Sharing(SharingArgs),
}

/// Measure key sharing over UDP: the parts of the sequence, how long a group is silent while its
/// key changes, what a server serves, and how a fleet comes back.
///
/// Server and terminals are the real machines, in this one process; no fleet is touched. Silence is
/// told in processor time, which other work on the machine changes little: all machines are on one
/// thread, and none waits. It takes minutes, most of it for RSA keys of 8192 bits. Exit code 1: a
/// limit is missed.
///
/// Example: keyfall bench sharing --svg sharing.svg
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
struct SharingArgs {
    /// Draw the two published figures into this file: the parts of the sequence with the time of
    /// silence, and the time until ACK over the length of RSA keys.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// A few of everything: shows that it works. The figures say little, and no limit is held.
    #[arg(long)]
    quick: bool,
    /// Further RSA lengths for the figure, as `bench/run.sh short-rsa` writes them.
    #[arg(long, value_name = "FILE")]
    short_rsa: Option<PathBuf>,
}

/// How much of everything.
struct Effort {
    /// In the largest group that is measured.
    members: u32,
    groups: &'static [u32],
    /// For each part of the sequence.
    parts: usize,
    /// Groups whose members are simulated.
    simulated: &'static [u32],
    /// With all members.
    rounds: usize,
    /// With all terminals, each time that a server is measured.
    served: usize,
    forged: usize,
    sizes: &'static [(RsaSize, usize)],
    /// By UDP: of `psk`, of the others.
    requests: [usize; 2],
}

pub(crate) fn run(args: &BenchArgs, output: &Output) -> Result<(), Failure> {
    let BenchCommand::Sharing(args) = &args.command;
    let effort = if args.quick { QUICK } else { FULL };
    let failed = |error: anyhow::Error| Failure::new(Code::Unexpected, format!("{error:#}"));
    let short = args.short_rsa.as_deref().map_or(Ok(Vec::new()), short_rsa);
    let short = short.map_err(|error| Failure::new(Code::BadInput, format!("{error:#}")))?;
    let report = measure(&effort, args.quick, short).map_err(failed)?;
    if let Some(file) = &args.svg {
        std::fs::write(file, charts::draw(&report)).map_err(|error| {
            let file = file.display();
            Failure::new(Code::Output, format!("cannot write {file}: {error}"))
        })?;
    }
    output.versioned(&report, Report::for_people)?;
    if report.ok || args.quick {
        Ok(())
    } else {
        Err(Failure::shown(Code::Unexpected))
    }
}

fn measure(effort: &Effort, quick: bool, short_rsa: Vec<RsaLength>) -> anyhow::Result<Report> {
    let (mut parts, mut udp) = (BTreeMap::new(), BTreeMap::new());
    // At three times, far apart: on a shared processor a second says little.
    let mut served = BTreeMap::new();
    let mut serve = || {
        for suite in SUITES {
            let name = suite.name();
            tell(&format!("what a server serves, {name}"));
            let times = served.entry(name).or_default();
            desk::measure(suite, effort.members, effort.served, times)?;
        }
        anyhow::Ok(())
    };
    serve()?;
    for suite in SUITES {
        let name = suite.name();
        tell(&format!("the parts of the sequence, {name}"));
        parts.insert(name, parts::measure(suite, effort.parts)?);
    }
    tell("forged requests");
    let forged = desk::forge(effort.members, effort.forged)?;
    let mut stops = Vec::new();
    for &members in effort.groups {
        tell(&format!("the silence of a group of {members}"));
        stops.push(stop::measure(members, effort.rounds)?);
    }
    serve()?;
    let largest = stops.last().context("a group is measured")?.clone();
    let more = BEYOND.iter().filter(|&&more| more > largest.members);
    stops.extend(more.map(|&more| stop::reckon(&largest, more)));
    let psk = parts.get("psk").context("psk is a suite")?;
    let work = crowd::Work {
        halt: micros_of(psk.stop_ack.max(psk.start_ack)),
        answer: micros_of(psk.ack),
    };
    let mut simulated = Vec::new();
    for &members in effort.simulated {
        tell(&format!("a group of {members}, simulated"));
        simulated.push(crowd::simulate(members, work)?);
    }
    serve()?;
    let desks = served.into_iter();
    let desks = desks.map(|(name, times)| Ok((name, times.medians()?)));
    let desks = desks.collect::<anyhow::Result<_>>()?;
    tell("a call through two changes of its key");
    let hitless = stop::hitless(effort.members)?;
    let mut restart = None;
    for suite in SUITES {
        let name = suite.name();
        tell(&format!("a server's threads and sockets, {name}"));
        let [many, few] = effort.requests;
        let first = suite == SharingSuite::Psk;
        let (terminals, requests) = if first {
            (effort.members, many)
        } else {
            (effort.members.min(100), few)
        };
        let mut running = network::Running::start(suite, terminals)?;
        if first {
            restart = Some(running.restart()?);
        }
        udp.insert(name, running.served(suite, requests)?);
        running.stop()?;
    }
    let mut rsa = Vec::new();
    for &(size, rounds) in effort.sizes {
        tell(&format!("rsa-misty1, {size:?}"));
        rsa.push(legacy::measure(size, rounds)?);
    }
    tell("what other methods send");
    let renewals = renewal::compare(effort.members, GROUPS)?;
    let restart = restart.context("psk is a suite")?;
    Report::of(report::Measured {
        quick,
        parts,
        desks,
        forged,
        stops,
        simulated,
        hitless,
        udp,
        restart,
        rsa,
        short_rsa,
        renewals,
    })
}

fn short_rsa(file: &Path) -> anyhow::Result<Vec<RsaLength>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{} cannot be read", file.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "{} is not what `bench/run.sh short-rsa` writes",
            file.display()
        )
    })
}

/// Whoever sits at a terminal sees that it goes on.
fn tell(step: &str) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        // Where stderr is closed nobody waits.
        let _shown = writeln!(stderr, "bench: {step}").is_ok();
    }
}

fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}

fn micros_of(span: f64) -> Duration {
    Duration::from_secs_f64(span / 1e6)
}

fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

const SUITES: [SharingSuite; 3] = [SharingSuite::Psk, SharingSuite::Hpke, SharingSuite::HpkePq];
/// Groups whose silence is reckoned where they are not measured.
const BEYOND: &[u32] = &[1_000, 10_000, 100_000];
/// Groups whose renewal is compared.
const GROUPS: &[u64] = &[10, 100, 1_000, 10_000, 100_000];
const FULL: Effort = Effort {
    members: 1_000,
    groups: &[1, 10, 100, 1_000],
    simulated: &[1_000, 10_000, 100_000],
    parts: 201,
    rounds: 7,
    served: 3,
    forged: 10_000,
    sizes: &[
        (RsaSize::Bits2048, 51),
        (RsaSize::Bits3072, 31),
        (RsaSize::Bits4096, 21),
        (RsaSize::Bits8192, 7),
    ],
    requests: [20_000, 2_000],
};
const QUICK: Effort = Effort {
    members: 20,
    groups: &[1, 20],
    simulated: &[50],
    parts: 5,
    rounds: 2,
    served: 1,
    forged: 200,
    sizes: &[(RsaSize::Bits2048, 2)],
    requests: [100, 20],
};
