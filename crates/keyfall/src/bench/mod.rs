//! `keyfall bench`: what is promised of Keyfall, measured on this machine with the real machines.

mod desk;
mod fleet;
mod parts;
mod speech;
mod stop;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use keyfall_protocol::sharing::SharingSuite;

use crate::explain::Code;
use crate::output::{Failure, Output};

/// Measure on this machine what is promised.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Subcommand, Debug)]
enum BenchCommand {
    Sharing(SharingArgs),
}

/// Measure key sharing over UDP: the parts of the sequence, what a server serves, stop times.
///
/// Example: keyfall bench sharing --svg sharing.svg
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
struct SharingArgs {
    /// Draw the two published figures into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// A few of everything: shows that it works, measures little.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(args: &BenchArgs, output: &Output) -> Result<(), Failure> {
    let BenchCommand::Sharing(sharing) = &args.command;
    measure(sharing, output).map_err(|error| Failure::new(Code::Unexpected, format!("{error:#}")))
}

fn measure(args: &SharingArgs, output: &Output) -> anyhow::Result<()> {
    let (n, rounds) = if args.quick { (20, 2) } else { (1000, 21) };
    let mut text = String::new();
    for suite in [SharingSuite::Psk, SharingSuite::Hpke, SharingSuite::HpkePq] {
        text += &format!("{} {:#?}\n", suite.name(), desk::measure(suite, n, rounds)?);
        text += &format!(
            "{} {:#?}\n",
            suite.name(),
            parts::measure(suite, rounds * 10)?
        );
    }
    for members in if args.quick {
        vec![1, 20]
    } else {
        vec![1, 10, 100, 1000]
    } {
        text += &format!("{:#?}\n", stop::measure(members, 5)?);
    }
    text += &format!("{:#?}\n", stop::hitless(n)?);
    text += &format!("{:#?}\n", desk::forge(n, 5000)?);
    output.text(&text).map_err(|_| anyhow::anyhow!("no output"))
}

fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}

fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
