//! The story, step by step. Each step does what an operator or a user would do, with this same
//! binary, and brings back its figures; a figure that is not as it must be makes the step fail.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use keyfall_protocol::command::Body;
use keyfall_protocol::enrolment::{EnrolmentCode, SealedPackage};
use serde_json::{Map, Value, json};

use crate::demo::children::wait_for;
use crate::demo::ears::Call;
use crate::demo::speech::Speech;
use crate::demo::stage::{
    GROUP, PACKAGED, PATIENCE, REDERIVE, Stage, contains_any, settle, stretch, tag_generation,
};

/// What a step brings back: its sentence for people, and figures.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) sentence: String,
    pub(super) figures: Map<String, Value>,
    /// What is not as it must be.
    pub(super) wrong: Vec<String>,
}

/// The sequence number with which the second call begins, so that it crosses 1024.
const LATE_SEQUENCE: u16 = 900;
/// How often the device keys renew in the demo, and how long an old one is kept.
const FLEET_PERIOD: &str = "10s";
const KEEP_TIME: &str = "2s";

impl Told {
    pub(super) fn new(sentence: impl Into<String>, figures: Value) -> Self {
        let figures = match figures {
            Value::Object(figures) => figures,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Map::new(),
        };
        Self {
            sentence: sentence.into(),
            figures,
            wrong: Vec::new(),
        }
    }

    /// Notes what is wrong unless `holds`.
    pub(super) fn must(mut self, holds: bool, otherwise: &str) -> Self {
        if !holds {
            self.wrong.push(otherwise.to_owned());
        }
        self
    }
}

impl Stage {
    /// The server begins, three terminals are enrolled with sealed packages and switched on behind
    /// a lossy radio.
    pub(super) fn enrol(&mut self) -> anyhow::Result<Told> {
        let server = self.path("server");
        let carrier = self.air.server.to_string();
        let (desk, wire) = (self.air.desk.to_string(), self.wire.address.to_string());
        self.keyfall.ask(&[
            "server",
            "init",
            &server,
            "--name",
            "demo",
            "--carrier",
            &carrier,
            "--listen",
            &desk,
            "--address",
            &wire,
            // Short, so that a thief's past is short enough to be seen here.
            "--fleet-period",
            FLEET_PERIOD,
            "--keep-time",
            KEEP_TIME,
        ])?;
        self.start("server", &["server", "run", &server])?;
        let admin = |words: &[&str]| {
            let mut all = vec!["admin"];
            all.extend_from_slice(words);
            all.extend_from_slice(&["--dir", &server]);
            self.keyfall.try_ask(&all)
        };
        wait_for("the server answers", PATIENCE, || {
            Ok(admin(&["status"])?.1.then_some(()))
        })?;

        let mut radio = vec!["demo-radio".to_owned(), "--from".to_owned(), carrier];
        for (name, address) in &self.air.terminals {
            radio.extend(["--to".to_owned(), format!("{name}={address}")]);
        }
        let words: Vec<&str> = radio.iter().map(String::as_str).collect();
        self.radio = Some(self.keyfall.start_radio(&words)?);

        let packages = self.dir.to_string_lossy().into_owned();
        let mut add = vec!["admin", "terminal", "add"];
        add.extend(PACKAGED);
        add.extend(["--out", &packages, "--dir", &server]);
        let added = self.keyfall.ask(&add)?;
        let mut package_bytes = 0;
        for terminal in added["terminals"]
            .as_array()
            .context("no terminals in the answer")?
        {
            let name = terminal["name"]
                .as_str()
                .context("a terminal without a name")?;
            let code = terminal["code"]
                .as_str()
                .context("a package without a code")?;
            let package = terminal["package"]
                .as_str()
                .context("a package without a file")?;
            package_bytes = std::fs::metadata(package).context("no package")?.len();
            self.keyfall.ask(&[
                "terminal",
                "enrol",
                &self.path(name),
                package,
                "--code",
                code,
            ])?;
            self.codes.insert(name.to_owned(), code.to_owned());
        }
        for name in PACKAGED {
            self.run_terminal(name)?;
        }
        for name in PACKAGED {
            // Before the first beacon a terminal does not send (docs/PROTOCOL.md, 6).
            self.wait_status(name, "hears the server's time", |status| {
                status["time"].is_u64()
            })?;
        }
        let figures = json!({"terminals": PACKAGED.len(), "package_bytes": package_bytes});
        Ok(Told::new(
            format!(
                "{} terminals, each from a sealed package of {package_bytes} octets",
                PACKAGED.len()
            ),
            figures,
        ))
    }

    /// One KEYDIST for Alice and Bob, heard by everybody.
    pub(super) fn distribute(&mut self) -> anyhow::Result<Told> {
        let server = self.path("server");
        let carol_before = self.status("carol")?;
        self.keyfall.ask(&[
            "admin", "group", "create", "call", "--member", "alice", "--member", "bob", "--reason",
            "demo", "--dir", &server,
        ])?;
        let mut prints = Vec::new();
        for name in ["alice", "bob"] {
            let held = self.wait_status(name, "holds the key", |status| {
                status["groups"]
                    .as_array()
                    .is_some_and(|groups| !groups.is_empty())
            })?;
            prints.push(held["groups"][0]["fingerprint"].clone());
        }
        let keydist_bytes = self.newest(|body| matches!(body, Body::KeyDist(_)))?.len();
        let heard = wait_for("Carol hears the KEYDIST", PATIENCE, || {
            let why = self.why("carol", "not_addressed")?;
            Ok((why > 0).then_some(why))
        })?;
        let carol = self.status("carol")?;
        let alike = prints[0] == prints[1];
        let figures = json!({
            "keydist_bytes": keydist_bytes,
            "recipients": 2,
            "fingerprints_equal": alike,
            "carol_heard": heard,
            "carol_keys": carol["groups"].as_array().map_or(0, Vec::len),
        });
        Ok(Told::new(
            format!(
                "one KEYDIST of {keydist_bytes} octets: alice and bob hold the same key ({}); carol \
                 heard it {heard} times and holds none",
                prints[0].as_str().unwrap_or("?")
            ),
            figures,
        )
        .must(alike, "alice and bob hold different keys")
        .must(keydist_bytes <= 365, "the KEYDIST is larger than 365 octets")
        .must(carol["groups"] == carol_before["groups"], "carol's keys changed"))
    }

    /// A call with real speech; renewed by command in the middle, without a gap.
    pub(super) fn call_and_renew(&mut self) -> anyhow::Result<(Told, Told)> {
        let server = self.path("server");
        self.start_receiver("bob")?;
        self.start_sender("alice")?;
        let before = self.generation("bob")?;
        let sender = self.speak("alice", 0)?;
        let tool = sender.name();
        std::thread::sleep(Duration::from_millis(1500));
        self.keyfall.ask(&[
            "admin", "renew", "--group", "call", "--reason", "demo", "--dir", &server,
        ])?;
        sender.finish()?;
        self.wait_status("alice", "sends under the new generation", |status| {
            status["groups"][0]["sending"].as_u64() == Some(before + 1)
        })?;
        settle();
        let call = Call::of(&self.hears("bob")?.take());
        let heard = Speech::from_payloads(call.payloads());
        std::fs::write(self.dir.join("bob-heard.wav"), heard.to_wav())?;
        let differing = self.speech.differing(&heard);
        let sent = self.relay_packets("alice", "send")?;
        let lost = sent.saturating_sub(call.count() as u64);

        let air = self.overheard();
        std::fs::write(
            self.dir.join("air.wav"),
            Speech::from_payloads(air.iter().map(|packet| packet.get(12..).unwrap_or(&[])))
                .to_wav(),
        )?;
        let traces = self.speech.traces();
        let leaked = air
            .iter()
            .filter(|packet| contains_any(packet, &traces))
            .count();
        let plain = self.speech_in_clear(&call);
        let (refused, carol_ok) = self.keyfall.try_ask(&[
            "media",
            "receive",
            "--dir",
            &self.path("carol"),
            "--group",
            GROUP,
            "--from",
            &self.air.media.to_string(),
            "--if",
            "127.0.0.1",
            "--rtp",
            "127.0.0.1:9",
        ])?;
        let generations: Vec<u8> = air
            .iter()
            .filter_map(|packet| tag_generation(packet))
            .collect();
        let switched = generations
            .windows(2)
            .filter(|two| two[0] != two[1])
            .count();
        let renew_bytes = self.newest(|body| matches!(body, Body::Renew(_)))?.len();

        let seconds = self.speech.len() as f64 / 8000.0;
        let called = Told::new(
            format!(
                "{seconds:.1} s of speech by {tool}: {} packets, {lost} lost, {differing} of {} \
                 samples differ at bob; on the air {} packets with {leaked} traces of speech; carol: {}",
                call.count(),
                self.speech.len(),
                air.len(),
                refused["code"].as_str().unwrap_or("not refused"),
            ),
            json!({
                "sent_by": tool,
                "packets": call.count(),
                "packets_lost": lost,
                "audio_samples": heard.len(),
                "audio_samples_differing": differing,
                "eavesdropper_packets": air.len(),
                "eavesdropper_packets_with_speech": leaked,
                "carol_packets_opened": u8::from(carol_ok),
            }),
        )
        .must(differing == 0, "bob did not hear what alice said")
        .must(lost == 0, "packets were lost")
        .must(call.count() > 0 && air.len() >= call.count(), "the eavesdropper heard nothing")
        .must(plain > 0, "the search for speech finds none even in the clear")
        .must(leaked == 0, "speech is on the air in clear")
        .must(!carol_ok, "carol could receive");
        let after = self.generation("bob")?;
        let renewed = Told::new(
            format!(
                "one RENEW of {renew_bytes} octets, whatever the group's size: generation {before} → \
                 {after} in mid-call, {lost} packets lost"
            ),
            json!({
                "renew_bytes": renew_bytes,
                "from": before,
                "to": after,
                "packets_lost": lost,
                "switches_on_air": switched,
            }),
        )
        .must(renew_bytes <= 170, "the RENEW is larger than 170 octets")
        .must(after == before + 1, "bob did not renew")
        .must(switched == 1, "the call did not change its key exactly once");
        Ok((called, renewed))
    }

    /// Bob's radio fails, a renewal passes him by; the first packet of the next call sets him right.
    pub(super) fn miss_and_catch_up(&mut self) -> anyhow::Result<Told> {
        let server = self.path("server");
        let before = self.generation("bob")?;
        self.radio.as_mut().context("no radio")?.cut("bob")?;
        self.keyfall.ask(&[
            "admin", "renew", "--group", "call", "--reason", "demo", "--dir", &server,
        ])?;
        self.wait_status("alice", "sends under the new generation", |status| {
            status["groups"][0]["sending"].as_u64() == Some(before + 1)
        })?;
        let missed = self.generation("bob")?;
        Ok(Told::new(
            format!(
                "bob's radio fails: alice renews to {}, bob stays at {missed}",
                before + 1
            ),
            json!({"alice": before + 1, "bob": missed}),
        )
        .must(missed == before, "bob heard what he should have missed"))
    }

    /// The second call: gap sync by its first packet, a re-derivation and a late joiner in the
    /// middle.
    pub(super) fn second_call(&mut self) -> anyhow::Result<(Told, Told, Told)> {
        let server = self.path("server");
        let before = self.generation("bob")?;
        self.restart_sender()?;
        let sender = self.speak("alice", LATE_SEQUENCE)?;
        wait_for("bob hears the call", PATIENCE, || {
            Ok((self.hears("bob")?.count() > 0).then_some(()))
        })?;
        let caught = self.wait_status("bob", "follows", |status| {
            status["groups"][0]["generation"].as_u64() > Some(before)
        })?;
        let caught_up_to = caught["groups"][0]["generation"].as_u64().unwrap_or(0);

        self.radio.as_mut().context("no radio")?.join("bob")?;

        // Dave joins while they talk: one renewal closes the past, one KEYDIST names him.
        let began = Instant::now();
        self.keyfall.ask(&[
            "admin", "group", "add", "call", "dave", "--reason", "demo", "--dir", &server,
        ])?;
        self.wait_status("dave", "holds the key", |status| {
            status["groups"]
                .as_array()
                .is_some_and(|groups| !groups.is_empty())
        })?;
        let keyed = began.elapsed();
        // What was sent before the renewal stays closed to him.
        self.wait_status("alice", "sends what dave may hear", |status| {
            status["groups"][0]["sending"].as_u64() == Some(caught_up_to + 1)
        })?;
        self.start_receiver("dave")?;
        wait_for("dave hears the call", PATIENCE, || {
            Ok((self.hears("dave")?.count() > 0).then_some(()))
        })?;
        sender.finish()?;
        settle();

        let bob = Call::of(&self.hears("bob")?.take());
        let bob_heard = Speech::from_payloads(bob.payloads());
        let differing = self.speech.differing(&bob_heard);
        let sent = self.relay_packets("alice", "send")?;
        let lost = sent.saturating_sub(bob.count() as u64);
        let gap_first = bob.first() == Some(LATE_SEQUENCE);
        let caught = Told::new(
            format!(
                "bob follows from the traffic: generation {before} → {caught_up_to} by its first \
                 packet; {lost} packets lost, {differing} samples differ"
            ),
            json!({
                "from": before,
                "to": caught_up_to,
                "packets_lost": lost,
                "audio_samples_differing": differing,
                "first_packet_decrypted": gap_first,
            }),
        )
        .must(caught_up_to == before + 1, "bob did not catch up")
        .must(gap_first, "bob's first packet was not delivered")
        .must(lost == 0 && differing == 0, "bob lost speech");

        let air = self.overheard();
        let stretches: Vec<u16> = air.iter().filter_map(|packet| stretch(packet)).collect();
        let rederived = stretches.windows(2).filter(|two| two[0] != two[1]).count();
        let rederive = Told::new(
            format!(
                "a fresh session key after every {REDERIVE} packets: n {} → {} in mid-call, {lost} \
                 packets lost",
                stretches.first().unwrap_or(&0),
                stretches.last().unwrap_or(&0),
            ),
            json!({"rederivations": rederived, "packets_lost": lost}),
        )
        .must(rederived == 1, "the call did not cross a re-derivation");

        let dave = Call::of(&self.hears("dave")?.take());
        let dave_heard = Speech::from_payloads(dave.payloads());
        std::fs::write(self.dir.join("dave-heard.wav"), dave_heard.to_wav())?;
        let tail = self.speech.tail_heard(&dave_heard);
        let first = self.first_packet_opened("dave")?;
        let joined = Told::new(
            format!(
                "dave joins in mid-call: keyed in {} ms, his first packet decrypts, he hears the last \
                 {:.1} s sample for sample",
                keyed.as_millis(),
                tail as f64 / 8000.0,
            ),
            json!({
                "first_packet_decrypted": first,
                "milliseconds_to_key": u64::try_from(keyed.as_millis()).unwrap_or(u64::MAX),
                "audio_samples": tail,
                "packets_missing_after_the_first": dave.lost_between(),
            }),
        )
        .must(first, "dave's first packet did not open")
        .must(tail > 0, "what dave heard is not the end of what was said")
        .must(dave.lost_between() == 0, "dave lost packets after his first");
        Ok((caught, rederive, joined))
    }

    /// All frames, packages with codes, and what the terminals say of themselves: for other
    /// people's programs (interop/python).
    pub(super) fn capture(&self) -> anyhow::Result<Value> {
        let hex = |octets: &[u8]| {
            octets
                .iter()
                .map(|o| format!("{o:02x}"))
                .collect::<String>()
        };
        let frames: Vec<String> = self.frames.all().iter().map(|frame| hex(frame)).collect();
        let mut packages = Vec::new();
        let mut status = Map::new();
        let mut root = Value::Null;
        for name in PACKAGED {
            let package = std::fs::read(self.dir.join(format!("{name}.enrol")))?;
            let code = self.codes.get(name);
            let opened = code
                .and_then(|code| EnrolmentCode::parse(code))
                .context("no code")
                .and_then(|code| Ok(SealedPackage::decode(&package)?.open_under(&code)?))?;
            root = json!(hex(opened.identity.root.as_bytes()));
            packages.push(json!({"name": name, "package_hex": hex(&package), "code": code}));
            status.insert(name.to_owned(), self.status(name)?);
        }
        Ok(json!({"root": root, "packages": packages, "frames": frames, "status": status}))
    }
}
