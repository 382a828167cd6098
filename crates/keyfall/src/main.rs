//! `keyfall`: one binary. What it does is in the library crates; here are arguments and words.

#![forbid(unsafe_code)]

mod admin;
mod args;
mod attack;
mod bench;
mod chart;
mod control_client;
mod demo;
mod explain;
mod inspect;
mod media;
mod output;
mod server;
mod terminal;

use std::process::ExitCode;

use crate::args::{Args, Command};
use crate::explain::Code;
use crate::output::{Failure, Output};

/// What is freed is overwritten first: no copy of a key stays in freed memory (INVARIANT 8).
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    let args = match args::parse() {
        Ok(args) => args,
        Err(early) => return early,
    };
    let output = Output::new(args.json);
    start_log(match args.command {
        // A bench runs servers of its own, which have nothing to say.
        Command::Bench(_) => "warn",
        Command::Server(_)
        | Command::Admin(_)
        | Command::Demo(_)
        | Command::DemoNetworks(_)
        | Command::DemoRadio(_)
        | Command::Terminal(_)
        | Command::Media(_)
        | Command::Inspect(_)
        | Command::Attack(_)
        | Command::Explain(_) => "info",
    });
    terminal::harden();
    output.end(run(args, &output))
}

/// One line for each noun; what a noun can do is in the file of its name.
fn run(args: Args, output: &Output) -> Result<(), Failure> {
    match args.command {
        Command::Server(args) => server::run(args, output),
        Command::Admin(args) => admin::run(args, output),
        Command::Demo(args) => demo::run(&args, output),
        Command::DemoNetworks(args) => demo::networks::run(&args)
            .map_err(|fault| Failure::new(Code::Demo, format!("the networks: {fault:#}"))),
        Command::DemoRadio(args) => demo::lossy::run(&args)
            .map_err(|fault| Failure::new(Code::Demo, format!("the lossy relay: {fault:#}"))),
        Command::Terminal(args) => terminal::run(args, output),
        Command::Media(args) => media::run(args, output),
        Command::Inspect(args) => inspect::run(&args, output),
        Command::Attack(args) => attack::run(&args, output),
        Command::Bench(args) => bench::run(&args, output),
        Command::Explain(args) => explain::run(&args, output),
    }
}

/// Logs go to stderr; KEYFALL_LOG says which (docs/LOGGING.md), else `otherwise`.
fn start_log(otherwise: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("KEYFALL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(otherwise));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
