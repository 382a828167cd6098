//! `keyfall inspect`: any message, readable; with a terminal's keys, whether it opens.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use keyfall_api::control::{Answer, Inspected, Request};
use keyfall_plane::Arrival;
use keyfall_protocol::command::{Body, Command, HaltKind, KeySet, Target, Unverified};
use keyfall_protocol::enrolment::SealedPackage;
use keyfall_protocol::ids::{KeyId, KeyIdKind, UnixSeconds};
use keyfall_protocol::keys::SrtpSuite;
use keyfall_protocol::receipt::{Receipt, frame_hash};
use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::sharing::{Bundle, Confirmation};
use keyfall_protocol::terminal::Terminal;
use serde::Serialize;

use crate::control_client;
use crate::explain::Code;
use crate::output::{Failure, Output, utc};
use crate::terminal::Found;

/// Show what is in a message: a command, a datagram of key sharing, an enrolment package, a receipt,
/// an SRTP or SRTCP packet.
///
/// The file is raw octets, or hexadecimal: one message, or a capture with one on each line; or the
/// text of a receipt. No key is shown, also not with --dir.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall inspect alice.package\n  \
                        keyfall inspect capture.hex --dir bob")]
pub(crate) struct InspectArgs {
    /// The file; - or nothing: stdin.
    file: Option<PathBuf>,
    /// Say also whether it opens with the keys of the terminal in this directory.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// SRTP suite of media packets, which does not stand in them.
    #[arg(long, default_value = "AEAD_AES_256_GCM")]
    suite: String,
    /// Packets that one session key serves, as given to the sender.
    #[arg(long, value_name = "PACKETS")]
    rederive_after: Option<u32>,
}

#[derive(Serialize, Debug)]
struct Capture {
    /// In the order of the file.
    messages: Vec<Shown>,
}

/// One message as it is shown.
#[derive(Serialize, Debug)]
struct Shown {
    /// The type of a command, as TIME or DELETE, or of a datagram of key sharing; enrolment package, receipt, SRTP, SRTCP; or
    /// unknown.
    kind: String,
    octets: usize,
    /// Name and value, in the order of the message.
    fields: Vec<Field>,
    /// With --dir.
    #[serde(skip_serializing_if = "Option::is_none")]
    terminal: Option<Inspected>,
}

#[derive(Serialize, Debug)]
struct Field {
    name: &'static str,
    value: String,
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
    let messages = split(read(args.file.as_deref())?);
    let alone = messages.len() == 1;
    let mut shown = Capture {
        messages: Vec::with_capacity(messages.len()),
    };
    for message in &messages {
        let mut one = match show(message, suite) {
            Ok(one) => one,
            Err(sentence) if alone => return Err(Failure::new(Code::BadInput, sentence)),
            Err(sentence) => Shown {
                kind: UNKNOWN.to_owned(),
                octets: message.len(),
                fields: vec![Field {
                    name: "why",
                    value: sentence,
                }],
                terminal: None,
            },
        };
        if let Some(keys) = &keys
            && ![PACKAGE, RECEIPT, UNKNOWN, STOP_ACK, START_ACK, BUNDLE].contains(&&*one.kind)
        {
            one.terminal = Some(keys.inspect(message, stretch)?);
        }
        shown.messages.push(one);
    }
    output.versioned(&shown, |shown| {
        shown
            .messages
            .iter()
            .map(for_people)
            .collect::<Vec<_>>()
            .join("\n\n")
    })
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
            let is_whole =
                Unverified::decode(&whole).is_ok() || SealedPackage::decode(&whole).is_ok();
            if lines.len() > 1 && is_whole {
                vec![whole]
            } else {
                lines
            }
        }
    }
}

/// What is in one message; or why it is none of ours.
fn show(message: &[u8], suite: SrtpSuite) -> Result<Shown, String> {
    let not_a_frame = match Unverified::decode(message) {
        Ok(frame) => return Ok(show_frame(&frame, message.len())),
        Err(error) => error,
    };
    if let Ok(package) = SealedPackage::decode(message) {
        return Ok(show_package(&package, message.len()));
    }
    if let Ok(receipt) = Receipt::decode(message) {
        return Ok(show_receipt(&receipt, message.len()));
    }
    if let Ok(one) = Confirmation::decode(message) {
        return Ok(show_confirmation(&one, message.len()));
    }
    if let Ok(bundle) = Bundle::decode(message) {
        return Ok(show_bundle(&bundle, message.len()));
    }
    show_media(message, suite).ok_or_else(|| {
        format!(
            "this is no command ({not_a_frame}), no datagram of key sharing, no enrolment package, no receipt, and no SRTP or \
             SRTCP packet with an MKI in {}",
            suite.name()
        )
    })
}

fn show_frame(frame: &Unverified<'_>, octets: usize) -> Shown {
    let command = frame.command();
    let mut fields = Fields::default();
    for signer in frame.signers() {
        fields.add("signer", signer);
    }
    fields.add("stream", command.stream);
    fields.add("sequence", command.sequence);
    fields.time("issued at", command.issued_at);
    fields.time("not after", command.not_after);
    fields.add("G", command.fleet_generation);
    fields.add(
        "target",
        match command.target {
            Target::All => "all".to_owned(),
            Target::Group(group) => format!("group {group}"),
            Target::Terminal(terminal) => format!("terminal {terminal}"),
            Target::Handles => "whoever holds a handle in it".to_owned(),
        },
    );
    show_body(command, &mut fields);
    if let Body::Order(_) = command.body {
        // What a receipt names it by.
        fields.add("SHA-256", hex(&frame_hash(frame.octets())));
    }
    Shown {
        kind: command.body.name().to_owned(),
        octets,
        fields: fields.0,
        terminal: None,
    }
}

fn show_body(command: &Command, fields: &mut Fields) {
    match &command.body {
        Body::Time(time) => {
            fields.time("time", time.seconds);
            fields.add("error at most", format!("{} ms", time.max_error_ms));
            for floor in &time.floors {
                let key = key_name(floor.kid);
                let value = format!(
                    "{key} at least epoch {} generation {}",
                    floor.epoch, floor.generation
                );
                fields.add("floor", value);
            }
        }
        Body::Renew(renew) => {
            for entry in &renew.entries {
                let lease = entry.lease_end.map_or_else(String::new, |end| {
                    format!(", lease until {}", utc(end.get()))
                });
                let value = format!(
                    "{} epoch {} generation {} from {}{}{lease}",
                    key_name(entry.kid),
                    entry.epoch,
                    entry.schedule.generation,
                    utc(entry.schedule.activate_at.get()),
                    cadence(entry.schedule.cadence)
                );
                fields.add("key", value);
            }
        }
        Body::KeyDist(key_dist) => {
            fields.add("recipients", key_dist.recipients().len());
            for recipient in key_dist.recipients() {
                fields.add("handle", recipient.handle);
            }
        }
        Body::Order(order) => {
            fields.add("handle", order.handle());
            fields.add(
                "sealed",
                "under the obey key of the terminal with that handle",
            );
        }
        Body::Exclude(exclude) => {
            for terminal in &exclude.terminals {
                fields.add("terminal", terminal);
            }
            for fresh in &exclude.groups {
                let value = format!(
                    "{} goes on from epoch {} to {}",
                    fresh.group, fresh.old, fresh.new
                );
                fields.add("group", value);
            }
        }
        Body::KeySet(key_set) => show_key_set(key_set, fields),
        Body::Stop(halt) | Body::Start(halt) => {
            fields.add("group", halt.group);
            fields.add("transaction", halt.transaction);
            fields.add("epoch", halt.epoch);
            fields.add("generation", halt.generation);
            fields.time("deadline", halt.deadline);
        }
        Body::Notify(notify) => {
            fields.add("come within", format!("{} ms", notify.spread_ms));
            for entry in &notify.entries {
                let value = format!(
                    "{} at epoch {} generation {}",
                    entry.group, entry.epoch, entry.generation
                );
                fields.add("group", value);
            }
        }
    }
}

fn show_confirmation(one: &Confirmation, octets: usize) -> Shown {
    let mut fields = Fields::default();
    fields.add("key-req-id", hex(&one.id));
    fields.add("group", one.group);
    fields.add("transaction", one.transaction);
    fields.add("epoch", one.epoch);
    fields.add("generation", one.generation);
    Shown {
        kind: confirmation_name(one.kind).to_owned(),
        octets,
        fields: fields.0,
        terminal: None,
    }
}

fn show_bundle(bundle: &Bundle, octets: usize) -> Shown {
    let mut fields = Fields::default();
    for one in &bundle.confirmations {
        let value = format!(
            "of {}: group {} transaction {} epoch {} generation {}",
            hex(&one.id),
            one.group,
            one.transaction,
            one.epoch,
            one.generation
        );
        fields.add(confirmation_name(one.kind), value);
    }
    Shown {
        kind: BUNDLE.to_owned(),
        octets,
        fields: fields.0,
        terminal: None,
    }
}

const fn confirmation_name(kind: HaltKind) -> &'static str {
    match kind {
        HaltKind::Stop => STOP_ACK,
        HaltKind::Start => START_ACK,
    }
}

fn show_key_set(key_set: &KeySet, fields: &mut Fields) {
    fields.add("version", key_set.version);
    for key in &key_set.keys {
        let groups: Vec<_> = key.groups.iter().map(ToString::to_string).collect();
        let groups = if groups.is_empty() {
            "all".to_owned()
        } else {
            groups.join(" ")
        };
        let value = format!(
            "{} {} from {} until {}, groups {groups}",
            key.public.name(),
            key.class.name(),
            utc(key.not_before.get()),
            utc(key.expires.get())
        );
        fields.add("listed key", value);
    }
    let schedule = key_set.fleet_schedule;
    let value = format!(
        "G {} from {}, next every {} s",
        schedule.first,
        utc(schedule.from.get()),
        schedule.period
    );
    fields.add("fleet schedule", value);
    for name in &key_set.stolen {
        fields.add("stolen key", name);
    }
    let limits = key_set.limits;
    fields.add("longest lease", format!("{} s", limits.longest_lease));
    fields.add("grace", format!("{} s", limits.grace));
    fields.add(
        "grace after an exclusion",
        format!("{} s", limits.exclude_grace),
    );
    let wait = limits.exclude_wait;
    let wait = wait.map_or_else(
        || "until the new epoch is there".to_owned(),
        |s| format!("{s} s"),
    );
    fields.add("no sending after an exclusion", wait);
    fields.add("dead man's time", format!("{} s", limits.dead_man));
    fields.add("erase signatures", limits.erase_signatures);
}

fn show_package(package: &SealedPackage, octets: usize) -> Shown {
    let mut fields = Fields::default();
    let ciphertext = match package {
        SealedPackage::ToRequest {
            encapsulated,
            ciphertext,
        } => {
            fields.add("sealed", "to a request key (HPKE, RFC 9180 base mode)");
            fields.add("encapsulated key", hex(encapsulated));
            ciphertext
        }
        SealedPackage::UnderCode {
            salt, ciphertext, ..
        } => {
            fields.add("sealed", "under a code (Argon2id, AES-256-GCM)");
            fields.add("salt", hex(salt));
            ciphertext
        }
    };
    fields.add("ciphertext", format!("{} octets", ciphertext.len()));
    Shown {
        kind: PACKAGE.to_owned(),
        octets,
        fields: fields.0,
        terminal: None,
    }
}

/// Who made it only the server can tell, which holds the terminal's obey key.
fn show_receipt(receipt: &Receipt, octets: usize) -> Shown {
    let mut fields = Fields::default();
    fields.add("terminal", receipt.terminal);
    fields.add("command", format!("SHA-256 {}", hex(&receipt.command)));
    let genuine = "not seen here: `keyfall admin receipt FILE` asks the server";
    fields.add("genuine", genuine);
    Shown {
        kind: RECEIPT.to_owned(),
        octets,
        fields: fields.0,
        terminal: None,
    }
}

/// RTP and RTCP on one port are told apart as in RFC 5761 section 4.
fn show_media(message: &[u8], suite: SrtpSuite) -> Option<Shown> {
    let is_rtcp = matches!(message.get(1), Some(192..=223));
    let (kind, arrival) = if is_rtcp {
        ("SRTCP", Arrival::of_srtcp(suite, message))
    } else {
        ("SRTP", Arrival::of_srtp(suite, message))
    };
    let arrival = arrival.ok()?;
    let mut fields = Fields::default();
    if let [_, second, high, low, rest @ ..] = message {
        if is_rtcp {
            fields.add("packet type", second);
        } else {
            fields.add("payload type", second & 0x7f);
            fields.add("sequence number", u16::from_be_bytes([*high, *low]));
            if let Some(time) = rest.first_chunk() {
                fields.add("timestamp", u32::from_be_bytes(*time));
            }
        }
    }
    fields.add("SSRC", format!("{:08x}", arrival.ssrc));
    fields.add(
        "suite",
        format!(
            "{} (as asked, it does not stand in the packet)",
            suite.name()
        ),
    );
    let [a, b, low8] = arrival.mki.tag();
    fields.add("key tag", format!("{a:02x}{b:02x}"));
    fields.add("generation", format!("{low8} modulo 256"));
    fields.add("sender", arrival.mki.sender());
    fields.add("session", arrival.mki.session());
    fields.add("n", arrival.mki.n());
    Some(Shown {
        kind: kind.to_owned(),
        octets: message.len(),
        fields: fields.0,
        terminal: None,
    })
}

fn for_people(shown: &Shown) -> String {
    let mut lines = vec![format!("{}, {} octets", shown.kind, shown.octets)];
    let field = |field: &Field| format!("  {:<16} {}", field.name, field.value);
    lines.extend(shown.fields.iter().map(field));
    if let Some(terminal) = &shown.terminal {
        if let Some(signature) = &terminal.signature {
            lines.push(format!("  {:<16} {signature}", "signature"));
        }
        lines.push(format!("  {:<16} {}", "this terminal", terminal.sentence));
    }
    lines.join("\n")
}

#[derive(Default)]
struct Fields(Vec<Field>);

impl Fields {
    fn add(&mut self, name: &'static str, value: impl ToString) {
        self.0.push(Field {
            name,
            value: value.to_string(),
        });
    }

    fn time(&mut self, name: &'static str, at: UnixSeconds) {
        self.add(name, format!("{at} ({})", utc(at.get())));
    }
}

fn key_name(kid: KeyId) -> String {
    match kid.kind() {
        Some(KeyIdKind::AllRankOne) => "all wrap and cover keys".to_owned(),
        Some(KeyIdKind::Obey(terminal)) => format!("obey key of terminal {terminal}"),
        Some(KeyIdKind::Wrap(terminal)) => format!("wrap key of terminal {terminal}"),
        Some(KeyIdKind::Cover(number)) => format!("cover key {number}"),
        Some(KeyIdKind::Master(group)) => format!("master key of group {group}"),
        None => format!("key {kid}"),
    }
}

fn cadence(cadence: Option<Cadence>) -> String {
    cadence.map_or_else(String::new, |cadence| {
        format!(", then {} every {} s", cadence.step(), cadence.period())
    })
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
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

/// Kinds that a terminal's keys say nothing about.
const PACKAGE: &str = "enrolment package";
const STOP_ACK: &str = "STOP-ACK";
const START_ACK: &str = "START-ACK";
const BUNDLE: &str = "BUNDLE";
const RECEIPT: &str = "receipt";
const UNKNOWN: &str = "unknown";
/// Octets that are read at the most.
const INPUT_MAX: u64 = 64 << 20;
