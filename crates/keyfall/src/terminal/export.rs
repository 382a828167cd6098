//! `keyfall terminal export`: keys of packets for other people's tools.

use std::io::Write;

use clap::{Args, ValueEnum};
use keyfall_api::control::{Answer, PacketExport, PacketKeys, Request, StockSenderExport};
use keyfall_protocol::command::Prefix;

use crate::control_client;
use crate::explain::Code;
use crate::output::{Failure, Output, utc};
use crate::server::span;
use crate::terminal::Dir;

/// Print the key of one session of packets for Linux or Wireshark, or make one for a stock sender.
///
/// Without --for-stock-sender: the session that --session names, or the newest one that this terminal sends in. It
/// ends with its generation.
/// With it: a new key, under which a program that knows nothing of Keyfall sends to this terminal
/// for the time of --for. Whoever has a printed key reads what is sent under it, and no lease,
/// renewal or exclusion changes that.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall terminal export alice --group 7 --session 5f1c09a2b4 \
                        --source 192.0.2.1 --destination 192.0.2.2 --format wireshark\n  \
                        ip $(keyfall terminal export alice --group 7 --for-stock-sender --speaks-for 10.9.0.0/24 \
                        --source 192.0.2.9 --destination 192.0.2.1 --format ip-xfrm)"
)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    dir: Dir,
    /// Group number.
    #[arg(long, value_name = "G")]
    group: u32,
    /// For whom: a command of iproute2, or a line of Wireshark's table esp_sa.
    #[arg(long, value_enum)]
    format: Format,
    /// Outer address from which the packets come.
    #[arg(long, value_name = "ADDRESS")]
    source: String,
    /// Outer address to which they go, of one machine or of a group.
    #[arg(long, value_name = "ADDRESS")]
    destination: String,
    /// UDP port at both ends.
    #[arg(long, value_name = "PORT", default_value_t = 4500)]
    port: u16,
    /// The first five octets of the IV of its packets, in hexadecimal; `keyfall terminal status` shows those that
    /// are heard.
    #[arg(long, value_name = "HEX")]
    session: Option<String>,
    /// Terminal number of the sender; without it this terminal.
    #[arg(long, value_name = "T", requires = "session")]
    sender: Option<u32>,
    /// Generation of the group's key; without it the one that is sent with.
    #[arg(long, value_name = "N", conflicts_with = "for_stock_sender")]
    generation: Option<u32>,
    /// AES-256-GCM, AES-128-GCM or ChaCha20-Poly1305.
    #[arg(long, value_name = "SUITE")]
    suite: Option<String>,
    /// Make a key for a sender that knows nothing of Keyfall; this terminal receives it.
    #[arg(long, conflicts_with = "session")]
    for_stock_sender: bool,
    /// The inner addresses that it may send from, as ADDRESS/LENGTH; may be given several times.
    #[arg(
        long = "speaks-for",
        value_name = "PREFIX",
        required_if_eq("for_stock_sender", "true")
    )]
    speaks_for: Vec<Prefix>,
    /// How long it is received: 7d at most.
    #[arg(long = "for", value_name = "SPAN", default_value = "1d", value_parser = span)]
    lasting: u32,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    IpXfrm,
    Wireshark,
}

pub(super) fn export(args: &ExportArgs, output: &Output) -> Result<(), Failure> {
    let dir = args.dir.resolve()?;
    let request = match args.for_stock_sender {
        false => Request::PacketExport(PacketExport {
            group: args.group,
            session: args.session.clone(),
            sender: args.sender,
            generation: args.generation,
            suite: args.suite.clone(),
            source: args.source.clone(),
            destination: args.destination.clone(),
            port: args.port,
        }),
        true => Request::StockSenderExport(StockSenderExport {
            group: args.group,
            seconds: args.lasting,
            prefixes: args.speaks_for.iter().map(Prefix::to_string).collect(),
            suite: args.suite.clone(),
            source: args.source.clone(),
            destination: args.destination.clone(),
            port: args.port,
        }),
    };
    let Answer::PacketKeys(keys) = control_client::ask(&dir, &request)? else {
        return Err(control_client::unexpected());
    };
    if args.format == Format::Wireshark && keys.wireshark.is_none() {
        let sentence = format!("Wireshark does not decrypt {}: ask for ip-xfrm", keys.suite);
        return Err(Failure::new(Code::BadArguments, sentence));
    }
    if let (Some(until), false) = (keys.until, output.is_json()) {
        // Beside the line, which scripts take from stdout.
        let _told = writeln!(
            std::io::stderr(),
            "SPI {} is received until {}; its key opens and makes packets of that SPI, whatever \
             becomes of group {}",
            keys.spi,
            utc(until),
            keys.group
        )
        .is_ok();
    }
    output.versioned(&keys, |keys: &PacketKeys| match args.format {
        Format::IpXfrm => keys.ip_xfrm.clone(),
        Format::Wireshark => keys.wireshark.clone().unwrap_or_default(),
    })
}
