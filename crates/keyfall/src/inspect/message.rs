//! One message as it is shown: its name and its fields, none of them a key.

use keyfall_api::control::Inspected;
use keyfall_plane::Arrival;
use keyfall_protocol::command::{Body, Command, KeySet, Target, Unverified, UnverifiedRecord};
use keyfall_protocol::enrolment::SealedPackage;
use keyfall_protocol::ids::{KeyId, KeyIdKind, UnixSeconds};
use keyfall_protocol::keys::SrtpSuite;
use keyfall_protocol::receipt::{Receipt, frame_hash};
use keyfall_protocol::schedule::Cadence;
use serde::Serialize;

use super::sharing;
use crate::output::utc;

/// One message as it is shown.
#[derive(Serialize, Debug)]
pub(super) struct Shown {
    /// The type of a command, as TIME or DELETE, or of a datagram of key sharing; enrolment package, receipt, SRTP, SRTCP; or
    /// unknown.
    pub(super) kind: String,
    pub(super) octets: usize,
    /// Out of a capture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) packet: Option<Packet>,
    /// Name and value, in the order of the message.
    pub(super) fields: Vec<Field>,
    /// The message that it carries, or that is whole with this part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) inside: Option<Box<Self>>,
    /// With --dir.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) terminal: Option<Inspected>,
    /// What a terminal's keys may say more of.
    #[serde(skip)]
    pub(super) for_keys: Option<Vec<u8>>,
}

/// Where in a capture it stands.
#[derive(Serialize, Debug)]
pub(super) struct Packet {
    pub(super) number: usize,
    /// Since the first packet of ours.
    pub(super) seconds: f64,
    pub(super) from: String,
    pub(super) to: String,
}

#[derive(Serialize, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) value: String,
}

impl Shown {
    pub(super) fn new(kind: &str, octets: usize, fields: Fields) -> Self {
        Self {
            kind: kind.to_owned(),
            octets,
            packet: None,
            fields: fields.0,
            inside: None,
            terminal: None,
            for_keys: None,
        }
    }

    pub(super) fn unknown(octets: usize, why: &str) -> Self {
        let mut fields = Fields::default();
        fields.add("why", why);
        Self::new("unknown", octets, fields)
    }
}

/// What is in one message; or why it is none of ours.
pub(super) fn show(message: &[u8], suite: SrtpSuite) -> Result<Shown, String> {
    let not_a_frame = match Unverified::decode(message) {
        Ok(frame) => return Ok(show_frame(&frame)),
        Err(error) => error,
    };
    if let Ok(record) = UnverifiedRecord::decode(message) {
        return Ok(show_record(&record, message.len()));
    }
    if let Ok(package) = SealedPackage::decode(message) {
        return Ok(show_package(&package, message.len()));
    }
    if let Ok(receipt) = Receipt::decode(message) {
        return Ok(show_receipt(&receipt, message.len()));
    }
    let no_sharing = match sharing::show_datagram(message) {
        Ok(shown) => return Ok(shown),
        Err(error) => error,
    };
    show_media(message, suite).ok_or_else(|| {
        format!(
            "this is no command ({not_a_frame}), no datagram of key sharing ({no_sharing}), no enrolment package, no receipt, \
             and no SRTP or SRTCP packet with an MKI in {}",
            suite.name()
        )
    })
}

pub(super) fn show_frame(frame: &Unverified<'_>) -> Shown {
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
    let octets = frame.octets();
    Shown {
        for_keys: Some(octets.to_vec()),
        ..Shown::new(command.body.name(), octets.len(), fields)
    }
}

/// Nobody's secret: the same for everyone who hears it.
pub(super) fn show_record(read: &UnverifiedRecord<'_>, octets: usize) -> Shown {
    let record = read.record();
    let mut fields = Fields::default();
    fields.add("signer", read.signer());
    fields.add("terminal", record.terminal);
    fields.add("version", record.version);
    fields.time("issued at", record.issued_at);
    fields.time("not after", record.not_after);
    for prefix in &record.prefixes {
        fields.add("speaks for", prefix);
    }
    for endpoint in &record.endpoints {
        fields.add("heard at", endpoint);
    }
    for group in &record.groups {
        let networks: Vec<_> = group.networks.iter().map(ToString::to_string).collect();
        let networks = if networks.is_empty() {
            "every network".to_owned()
        } else {
            networks.join(" ")
        };
        let mtu = group
            .mtu
            .map_or_else(String::new, |mtu| format!(", MTU {mtu}"));
        let value = format!(
            "{} with priority {}{mtu}, {}, {networks}",
            group.group,
            group.priority,
            group.suite.name()
        );
        fields.add("packet group", value);
    }
    Shown::new("RECORD", octets, fields)
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
    for prefix in limits.clear.iter() {
        fields.add("unprotected", prefix);
    }
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
    Shown::new("enrolment package", octets, fields)
}

/// Who made it only the server can tell, which holds the terminal's obey key.
fn show_receipt(receipt: &Receipt, octets: usize) -> Shown {
    let mut fields = Fields::default();
    fields.add("terminal", receipt.terminal);
    fields.add("command", format!("SHA-256 {}", hex(&receipt.command)));
    let genuine = "not seen here: `keyfall admin receipt FILE` asks the server";
    fields.add("genuine", genuine);
    Shown::new("receipt", octets, fields)
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
        for_keys: Some(message.to_vec()),
        ..Shown::new(kind, message.len(), fields)
    })
}

#[derive(Default)]
pub(super) struct Fields(Vec<Field>);

impl Fields {
    pub(super) fn add(&mut self, name: &'static str, value: impl ToString) {
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

pub(super) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
