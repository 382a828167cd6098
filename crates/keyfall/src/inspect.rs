//! `keyfall inspect`: any message, readable; with a terminal's keys, whether it opens.

mod capture;
mod diagram;
mod message;
mod search;
mod sequence;
mod sharing;

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use keyfall_api::control::{Answer, Inspected, Request};
use keyfall_protocol::command::{Unverified, UnverifiedRecord};
use keyfall_protocol::enrolment::SealedPackage;
use keyfall_protocol::keys::SrtpSuite;
use keyfall_protocol::sharing::Assembly;
use keyfall_protocol::sharing::message::{Message, type_of};
use keyfall_protocol::terminal::Terminal;
use serde::Serialize;

use self::capture::Datagram;
use self::message::{Field, Packet, Shown, hex, show};
use self::sequence::{Sequence, count};
use crate::control_client;
use crate::explain::Code;
use crate::output::{Failure, Output};
use crate::terminal::Found;

/// Show what is in a message: a command, a datagram of key sharing, an enrolment package, a receipt,
/// an SRTP or SRTCP packet.
///
/// The file is raw octets, or hexadecimal: one message, or one on each line; or the text of a receipt; or a
/// capture of tcpdump, dumpcap or Wireshark (pcap, pcapng), out of which the datagrams of ours are taken.
/// No key is shown, also not with --dir.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall inspect alice.package\n  \
                        keyfall inspect capture.pcapng --dir bob\n  \
                        keyfall inspect capture.pcapng --svg sequence.svg")]
pub(crate) struct InspectArgs {
    /// The file; - or nothing: stdin.
    file: Option<PathBuf>,
    /// Say also whether it opens with the keys of the terminal in this directory.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Draw the commands and datagrams of key sharing in a capture, one after the other, into this SVG file.
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    svg: Option<PathBuf>,
    /// SRTP suite of media packets, which does not stand in them.
    #[arg(long, default_value = "AEAD_AES_256_GCM")]
    suite: String,
    /// Packets that one session key serves, as given to the sender.
    #[arg(long, value_name = "PACKETS")]
    rederive_after: Option<u32>,
}

#[derive(Serialize, Debug)]
struct Listing {
    /// In the order of the file.
    messages: Vec<Shown>,
    /// Of a capture.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<LeftOut>,
}

/// Packets of a capture that are not shown.
#[derive(Serialize, Debug)]
struct LeftOut {
    /// Datagrams that are none of ours.
    of_others: usize,
    not_udp: usize,
    /// The capture holds only their beginning.
    cut: usize,
}

#[derive(Serialize, Debug)]
struct Drawn {
    file: PathBuf,
    messages: usize,
    /// Behind the last one that there is room for.
    not_drawn: usize,
}

pub(crate) fn run(args: &InspectArgs, output: &Output) -> Result<(), Failure> {
    let suite = SrtpSuite::ALL
        .into_iter()
        .find(|s| s.name().eq_ignore_ascii_case(&args.suite));
    let suite = suite.ok_or_else(|| {
        let names: Vec<_> = SrtpSuite::ALL.iter().map(|suite| suite.name()).collect();
        let sentence = format!(
            "{:?} is not an SRTP suite: there are {}",
            args.suite,
            names.join(", ")
        );
        Failure::new(Code::BadArguments, sentence)
    })?;
    let stretch = args.rederive_after.map(stretch_of).transpose()?;
    let keys = args.dir.as_deref().map(Keys::of).transpose()?;
    let file = read(args.file.as_deref())?;
    let same = |svg: &&PathBuf| {
        let file = args.file.as_ref().map(std::fs::canonicalize);
        matches!((file, svg.canonicalize()), (Some(Ok(file)), Ok(svg)) if file == svg)
    };
    if args.svg.as_ref().filter(same).is_some() {
        let sentence = "--svg would write over the capture: name another file";
        return Err(Failure::new(Code::BadArguments, sentence));
    }
    let bad_input = |sentence| Failure::new(Code::BadInput, sentence);
    let mut listing = if capture::is_capture(&file) {
        let capture = capture::read(&file).map_err(bad_input)?;
        if let Some(svg) = &args.svg {
            return draw(&capture.datagrams, svg, output);
        }
        list_capture(&capture, suite).map_err(bad_input)?
    } else if args.svg.is_some() {
        let sentence =
            "--svg draws a capture: give it a file that tcpdump, dumpcap or Wireshark wrote";
        return Err(Failure::new(Code::BadArguments, sentence));
    } else {
        list_messages(file, suite).map_err(bad_input)?
    };
    if let Some(keys) = &keys {
        for shown in &mut listing.messages {
            keys.look_at(shown, stretch)?;
        }
    }
    output.versioned(&listing, for_people)
}

fn list_messages(file: Vec<u8>, suite: SrtpSuite) -> Result<Listing, String> {
    let messages = split(file);
    let alone = messages.len() == 1;
    let mut parts = Parts::new(PARTLY_MAX, PARTS_MAX);
    let mut listing = Listing {
        messages: Vec::with_capacity(messages.len()),
        left_out: None,
    };
    for message in &messages {
        let one = match show(message, suite) {
            Err(sentence) if alone => return Err(sentence),
            Err(sentence) => Shown::unknown(message.len(), &sentence),
            Ok(mut one) => {
                one.complete(message, &mut parts, None);
                one
            }
        };
        listing.messages.push(one);
    }
    Ok(listing)
}

/// What is none of ours is counted, except where it looks like a datagram of key sharing.
fn list_capture(capture: &capture::Capture, suite: SrtpSuite) -> Result<Listing, String> {
    let mut parts = Parts::new(PARTLY_MAX, PARTS_MAX);
    let mut messages: Vec<Shown> = Vec::new();
    let (mut of_others, mut first) = (0, None);
    for datagram in &capture.datagrams {
        let octets = &datagram.octets;
        let mut one = match show(octets, suite) {
            Ok(one) => one,
            Err(sentence) if type_of(octets).is_some() => Shown::unknown(octets.len(), &sentence),
            Err(_) => {
                of_others += 1;
                continue;
            }
        };
        one.complete(octets, &mut parts, Some(datagram));
        let first = *first.get_or_insert(datagram.at);
        one.packet = Some(Packet {
            number: datagram.packet,
            seconds: datagram.at.as_secs_f64() - first.as_secs_f64(),
            from: datagram.from.to_string(),
            to: datagram.to.to_string(),
        });
        messages.push(one);
    }
    if messages.is_empty() {
        return Err(nothing_of_ours(&capture.datagrams));
    }
    Ok(Listing {
        messages,
        left_out: Some(LeftOut {
            of_others,
            not_udp: capture.others,
            cut: capture.cut,
        }),
    })
}

fn draw(datagrams: &[Datagram], svg: &Path, output: &Output) -> Result<(), Failure> {
    let sequence = Sequence::of(datagrams);
    if sequence.steps.is_empty() {
        return Err(Failure::new(Code::BadInput, nothing_of_ours(datagrams)));
    }
    std::fs::write(svg, diagram::draw(&sequence)).map_err(|error| {
        let sentence = format!("{} cannot be written: {error}", svg.display());
        Failure::new(Code::Output, sentence)
    })?;
    let drawn = Drawn {
        file: svg.to_owned(),
        messages: sequence.steps.len(),
        not_drawn: sequence.not_drawn,
    };
    output.versioned(&drawn, |drawn| {
        let more = match drawn.not_drawn {
            0 => String::new(),
            more => format!("; {more} more have no room, cut the capture with `editcap`"),
        };
        let messages = count(drawn.messages, "message");
        format!("{}: {messages}{more}", drawn.file.display())
    })
}

fn nothing_of_ours(datagrams: &[Datagram]) -> String {
    let all = count(datagrams.len(), "datagram");
    format!("this capture holds {all} of UDP and none of ours: look at its filter and interface")
}

/// Messages in several datagrams, by sender and receiver in a capture.
type Parts = Assembly<Option<(std::net::SocketAddr, std::net::SocketAddr)>>;

impl Shown {
    /// Where it is the last part of a message, that message stands inside.
    fn complete(&mut self, octets: &[u8], parts: &mut Parts, datagram: Option<&Datagram>) {
        let Ok(Message::Part(part)) = Message::decode_datagram(octets) else {
            return;
        };
        let now = datagram.map(Datagram::tick).unwrap_or_default();
        let whole = parts.add(datagram.map(Datagram::ends), &part, now);
        self.inside = whole.map(|whole| Box::new(sharing::show_whole(&whole)));
    }
}

/// Whose keys are tried: those of a stored terminal, or those of a running one, which is asked.
enum Keys {
    Stored(Box<Terminal>),
    Running(PathBuf),
}

impl Keys {
    fn of(dir: &Path) -> Result<Self, Failure> {
        Ok(match Found::in_directory(dir)? {
            Found::Stored(terminal) => Self::Stored(terminal),
            Found::Running => Self::Running(dir.to_owned()),
        })
    }

    /// Says what they open of a message and of what is inside it.
    fn look_at(&self, shown: &mut Shown, stretch: Option<u8>) -> Result<(), Failure> {
        if let Some(octets) = &shown.for_keys {
            shown.terminal = Some(self.inspect(octets, stretch)?);
        }
        shown
            .inside
            .as_mut()
            .map_or(Ok(()), |inside| self.look_at(inside, stretch))
    }

    fn inspect(&self, message: &[u8], stretch: Option<u8>) -> Result<Inspected, Failure> {
        let octets = hex(message);
        match self {
            Self::Stored(terminal) => keyfall_terminal::inspect(terminal, &octets, stretch)
                .map_err(|sentence| Failure::new(Code::BadInput, sentence)),
            Self::Running(dir) => {
                let request = Request::Inspect { octets, stretch };
                let Answer::Inspected(inspected) = control_client::ask(dir, &request)? else {
                    return Err(control_client::unexpected());
                };
                Ok(inspected)
            }
        }
    }
}

fn stretch_of(packets: u32) -> Result<u8, Failure> {
    let in_bounds = packets.is_power_of_two() && (1024..=65_536).contains(&packets);
    if in_bounds {
        return Ok(packets.ilog2() as u8);
    }
    let sentence = "--rederive-after is a power of two from 1024 to 65536";
    Err(Failure::new(Code::BadArguments, sentence))
}

fn read(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let mut octets = Vec::new();
    let (name, read) = match file.filter(|file| *file != Path::new("-")) {
        None => (
            "stdin".to_owned(),
            std::io::stdin()
                .lock()
                .take(INPUT_MAX)
                .read_to_end(&mut octets),
        ),
        Some(file) => {
            let read = std::fs::File::open(file)
                .and_then(|file| file.take(INPUT_MAX).read_to_end(&mut octets));
            (file.display().to_string(), read)
        }
    };
    read.map_err(|error| Failure::new(Code::BadInput, format!("cannot read {name}: {error}")))?;
    if octets.is_empty() {
        return Err(Failure::new(Code::BadInput, format!("{name} is empty")));
    }
    if octets.len() as u64 == INPUT_MAX {
        let sentence =
            format!("{name} is longer than the {INPUT_MAX} octets that are read: cut it");
        return Err(Failure::new(Code::BadInput, sentence));
    }
    Ok(octets)
}

/// Raw octets are one message. Hexadecimal is one message where its lines together are one, as of a
/// printed dump; else each line is one.
fn split(octets: Vec<u8>) -> Vec<Vec<u8>> {
    let text = std::str::from_utf8(&octets).ok();
    let lines = text.and_then(|text| {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(from_hex).collect::<Option<Vec<_>>>()
    });
    match lines {
        None => vec![octets],
        Some(lines) => {
            let whole = lines.concat();
            let is_whole = Unverified::decode(&whole).is_ok()
                || UnverifiedRecord::decode(&whole).is_ok()
                || SealedPackage::decode(&whole).is_ok();
            if lines.len() > 1 && is_whole {
                vec![whole]
            } else {
                lines
            }
        }
    }
}

fn for_people(listing: &Listing) -> String {
    let mut blocks: Vec<_> = listing.messages.iter().map(|one| block(one, "")).collect();
    if let Some(left_out) = &listing.left_out {
        let LeftOut {
            of_others,
            not_udp,
            cut,
        } = left_out;
        let mut end = format!(
            "{}; left out: {} of others, {} without a whole datagram of UDP",
            count(listing.messages.len(), "message"),
            count(*of_others, "datagram"),
            count(*not_udp, "packet")
        );
        if *cut > 0 {
            end += &format!(", {cut} of which the capture holds only the beginning");
        }
        blocks.push(end);
    }
    blocks.join("\n\n")
}

fn block(shown: &Shown, indent: &str) -> String {
    let mut lines = vec![format!("{indent}{}, {} octets", shown.kind, shown.octets)];
    let mut line = |name: &str, value: &str| lines.push(format!("{indent}  {name:<16} {value}"));
    if let Some(packet) = &shown.packet {
        let Packet {
            number,
            seconds,
            from,
            to,
        } = packet;
        let value = format!("{number}, {seconds:.6} s, from {from} to {to}");
        line("packet", &value);
    }
    for Field { name, value } in &shown.fields {
        line(name, value);
    }
    if let Some(terminal) = &shown.terminal {
        if let Some(signature) = &terminal.signature {
            line("signature", signature);
        }
        line("this terminal", &terminal.sentence);
    }
    if let Some(inside) = &shown.inside {
        lines.push(block(inside, &format!("{indent}  ")));
    }
    lines.join("\n")
}

/// `None` where the line is not an even number of hexadecimal digits, spaces between them apart.
fn from_hex(line: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = line
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .map(|c| c.to_digit(16).and_then(|value| u8::try_from(value).ok()))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Octets that are read at the most.
const INPUT_MAX: u64 = 64 << 20;
/// Messages of which not all parts are there yet.
const PARTLY_MAX: usize = 1024;
/// Of one message.
const PARTS_MAX: u8 = 64;
