//! The command line: one subcommand for each noun. The arguments of a noun stand in its own file.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::explain::{self, Code};
use crate::output::{Failure, Output};
use crate::{admin, attack, bench, demo, inspect, media, server, terminal};

/// Keeps a fleet of terminals able to talk in secret, and keeps a lost terminal out.
#[derive(Parser, Debug)]
#[command(
    name = "keyfall",
    version,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Args {
    /// Print one JSON document on stdout, whatever happens.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Server(server::ServerArgs),
    Admin(admin::AdminArgs),
    Demo(demo::DemoArgs),
    #[command(hide = true)]
    DemoNetworks(demo::networks::NetworksArgs),
    #[command(hide = true)]
    DemoRadio(demo::lossy::LossyArgs),
    Terminal(terminal::TerminalArgs),
    Media(media::MediaArgs),
    Inspect(inspect::InspectArgs),
    Attack(attack::AttackArgs),
    Bench(bench::BenchArgs),
    Explain(explain::ExplainArgs),
}

/// The arguments; or help that was printed, or what is wrong with them in one sentence.
pub(crate) fn parse() -> Result<Args, ExitCode> {
    Args::try_parse().map_err(|error| {
        let output = Output::new(std::env::args_os().any(|arg| arg == "--json"));
        let asked = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
        let shown = if asked.contains(&error.kind()) {
            output.text(&error.render().to_string())
        } else {
            Err(Failure::new(Code::BadArguments, sentence_of(&error)))
        };
        output.end(shown)
    })
}

/// The first paragraph of what clap says, on one line.
fn sentence_of(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return format!("a command is missing: {} names them", help_command());
    }
    let rendered = error.render().to_string();
    let paragraph = rendered.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = paragraph
        .trim_start_matches("error: ")
        .split_whitespace()
        .collect();
    format!("{}; {} shows an example", words.join(" "), help_command())
}

/// `keyfall NOUN VERB --help` for the words that were typed.
fn help_command() -> String {
    let words = std::env::args()
        .skip(1)
        .take_while(|word| !word.starts_with('-'));
    let mut command = &<Args as clap::CommandFactory>::command();
    let mut known = vec!["`keyfall".to_owned()];
    for word in words {
        match command.find_subcommand(&word) {
            Some(found) => command = found,
            None => break,
        }
        known.push(word);
    }
    format!("{} --help`", known.join(" "))
}
