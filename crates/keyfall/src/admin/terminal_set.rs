//! `admin terminal set`: for which addresses a terminal speaks, and where it is heard.

use std::path::Path;

use clap::{ArgGroup, Args};
use keyfall_api::admin as api;
use keyfall_protocol::command::Prefix;

use crate::admin::client::{post, segment};
use crate::admin::{Why, words};
use crate::output::{Failure, Output};

/// Say for which addresses a terminal speaks in its packet groups, and where it is heard.
///
/// A host has addresses of its own; a gateway protects the prefixes behind it. What is named takes the
/// place of all that was there before; the rest stays. The terminal and its peers are told at once.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin terminal set truck1 --address 10.77.0.5 --address fd77::5 \
                  --dir fleet\n  \
                  keyfall admin terminal set hub --prefix 192.168.5.0/24 --endpoint 203.0.113.9:4500 \
                  --dir fleet\n  \
                  keyfall admin terminal set truck1 --no-endpoint --dir fleet",
    group(ArgGroup::new("what").required(true).multiple(true)
        .args(["addresses", "prefixes", "no_address", "endpoints", "no_endpoint"]))
)]
pub(super) struct SetArgs {
    /// The terminal, by name or number.
    terminal: String,
    /// An address of the terminal itself; may be given several times.
    #[arg(long = "address", value_name = "ADDRESS", value_parser = address)]
    addresses: Vec<Prefix>,
    /// A network behind it, as ADDRESS/LENGTH; may be given several times.
    #[arg(long = "prefix", value_name = "PREFIX", value_parser = prefix)]
    prefixes: Vec<Prefix>,
    /// It speaks for no address any more.
    #[arg(long, conflicts_with_all = ["addresses", "prefixes"])]
    no_address: bool,
    /// Where packets for it are sent, as ADDRESS:PORT, the best first; may be given several times.
    #[arg(long = "endpoint", value_name = "ENDPOINT")]
    endpoints: Vec<String>,
    /// Nobody knows where it is heard: it is found, or calls first.
    #[arg(long, conflicts_with = "endpoints")]
    no_endpoint: bool,
    #[command(flatten)]
    why: Why,
}

pub(super) fn run(dir: &Path, args: SetArgs, output: &Output) -> Result<(), Failure> {
    let prefixes = args.addresses.iter().chain(&args.prefixes);
    let prefixes: Vec<_> = prefixes.map(Prefix::to_string).collect();
    let named = !prefixes.is_empty() || args.no_address;
    let heard = !args.endpoints.is_empty() || args.no_endpoint;
    let order = api::SetAddresses {
        prefixes: named.then_some(prefixes),
        endpoints: heard.then_some(args.endpoints),
        why: args.why.into(),
    };
    let path = format!("/v1/terminals/{}/addresses", segment(&args.terminal));
    let set: api::AddressesSet = post(dir, &path, &order)?;
    output.result(&set, words::addresses_set)
}

fn prefix(text: &str) -> Result<Prefix, String> {
    text.parse().map_err(|fault| format!("{fault}"))
}

fn address(text: &str) -> Result<Prefix, String> {
    let found = prefix(text)?;
    if found.is_host() {
        Ok(found)
    } else {
        Err(format!("{text} is a network: name it with --prefix"))
    }
}
