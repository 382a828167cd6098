//! Two ways: dave can answer. He is enrolled over the network, comes back by a request after he
//! missed renewals, and the group changes its key while he speaks, in both modes. The others only
//! hear, as before: same keys, same commands.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::demo::children::wait_for;
use crate::demo::ears::Call;
use crate::demo::speech::Speech;
use crate::demo::stage::{DAVE, PATIENCE, Stage, settle, tag_epoch};
use crate::demo::story::Told;
use crate::demo::wire::{Datagram, listed};

/// How a group changes its key while it is at work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Hitless,
    Barrier,
}

/// What came of a change in mid-call.
struct Course {
    /// How the server says that it went.
    report: Value,
    /// Packets of the call, and of them those that the relay held back.
    sent: u64,
    delayed: u64,
    call: Call,
    samples_differing: usize,
    /// What passed between dave and the server.
    passed: Vec<Datagram>,
    ordered: Instant,
    /// From then to the first packet under the new key, and what stands for that key in a packet.
    switched_after: Duration,
    tag: [u8; 2],
    /// How often the key changed from one packet to the next.
    switches: usize,
}

impl Stage {
    /// Dave joins the fleet over the network: the operator reads a token to him, he asks with it.
    pub(super) fn enrol_dave(&mut self) -> anyhow::Result<Told> {
        let server = self.path("server");
        let add = [
            "admin", "terminal", "add", DAVE, "--token", "--dir", &server,
        ];
        let added = self.keyfall.ask(&add)?;
        let token = added["terminals"][0]["token"]
            .as_str()
            .context("no token in the answer")?;
        let (dave, wire) = (self.path(DAVE), self.wire.address.to_string());
        let enrol = [
            "terminal", "enrol", &dave, "--server", &wire, "--token", token,
        ];
        self.keyfall.ask(&enrol)?;
        let passed = wait_for("dave's last word passes", PATIENCE, || {
            let passed = self.wire.passed();
            let last = |kind| passed.iter().rposition(|datagram| datagram.kind == kind);
            Ok((last("KEY-DIS") < last("ACK")).then_some(passed))
        })?;
        self.run_terminal(DAVE)?;
        self.wait_status(DAVE, "runs", |_| true)?;
        let octets: usize = passed.iter().map(|datagram| datagram.octets).sum();
        Ok(Told::new(
            format!(
                "dave has a way back and needs no package: by a one-time token he fetches his keys in \
                 {} datagrams, {octets} octets{}",
                passed.len(),
                between(&passed),
            ),
            json!({
                "joined_by": "token",
                "sharing_datagrams": passed.len(),
                "sharing_octets": octets,
            }),
        )
        .must(
            !passed.is_empty(),
            "nothing passed between dave and the server",
        ))
    }

    /// Dave's machine is off while the key renews and is replaced. His radio stays dead; he asks.
    pub(super) fn come_back(&mut self) -> anyhow::Result<Told> {
        let server = self.path("server");
        let had = self.status(DAVE)?;
        self.end("dave-receives");
        self.end(DAVE);
        self.radio.as_mut().context("no radio")?.cut(DAVE)?;
        let tail = ["--reason", "demo", "--dir", &server];
        let orders = [
            &["admin", "renew", "--group", "call"][..],
            &["admin", "rekey", "call"],
        ];
        for missed in orders {
            self.keyfall.ask(&[missed, &tail].concat())?;
        }
        let before = self.wire.passed().len();
        let began = Instant::now();
        self.run_terminal(DAVE)?;
        let epoch = |status: &Value| status["groups"][0]["epoch"].as_u64();
        let has = self.wait_status(DAVE, "has the key that he missed", |status| {
            epoch(status) > epoch(&had)
        })?;
        let took = began.elapsed();
        let passed = wait_for("dave confirms", PATIENCE, || {
            Ok(exchange(self.wire.passed().split_off(before)))
        })?;
        // Without it he may not send.
        self.wait_status(DAVE, "knows the time", |status| status["time"].is_u64())?;
        let alice = self.wait_status("alice", "has the fresh key", |status| {
            epoch(status) >= epoch(&has)
        })?;
        let print = |status: &Value| status["groups"][0]["fingerprint"].clone();
        let alike = print(&alice) == print(&has);
        let asked = passed.iter().any(|datagram| datagram.kind == "KEY-REQ");
        let back_by = if asked { "KEY-REQ" } else { "nothing" };
        Ok(Told::new(
            format!(
                "dave's machine is off while the key is renewed once and replaced once; his radio is \
                 dead, so he asks: {} ms after his start he holds the same key as alice ({}){}",
                took.as_millis(),
                print(&has).as_str().unwrap_or("?"),
                between(&passed),
            ),
            json!({
                "back_by": back_by,
                "renewals_missed": orders.len(),
                "milliseconds_to_key": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "fingerprints_equal": alike,
                "key_req_bytes": octets_of("KEY-REQ", &passed),
                "key_dis_bytes": octets_of("KEY-DIS", &passed),
                "ack_bytes": octets_of("ACK", &passed),
            }),
        )
        .must(asked, "dave did not ask")
        .must(alike, "dave holds another key than alice"))
    }

    /// A fresh key while dave speaks, and nobody is silent for a moment.
    pub(super) fn change_hitless(&mut self) -> anyhow::Result<Told> {
        self.start_sender(DAVE)?;
        let course = self.change_in_mid_call(Change::Hitless)?;
        let followed = self.alice_follows(&course, HUM_AFTER_HITLESS)?;
        let lost = course.lost();
        Ok(course.told(
            format!(
                "a fresh key while dave speaks: he fetches it, confirms and sends with it {} ms after \
                 the order; bob, who only hears, got it by radio: {} packets, {lost} lost, {} delayed; \
                 alice, who only hears, too, sends with it {:.1} s after the order, at its own time{}",
                course.switched_after.as_millis(),
                course.call.count(),
                course.delayed,
                followed.as_secs_f64(),
                between(&course.passed),
            ),
            json!({
                "hitless_packets_lost": lost,
                "packets_delayed": course.delayed,
                "milliseconds_to_switch": millis(course.switched_after),
                "milliseconds_to_switch_one_way": millis(followed),
            }),
        )
        .must(course.delayed == 0, "packets were held back"))
    }

    /// Once more, and this time all stop before anyone starts.
    pub(super) fn change_at_a_barrier(&mut self) -> anyhow::Result<Told> {
        let course = self.change_in_mid_call(Change::Barrier)?;
        self.alice_follows(&course, HUM_AFTER_BARRIER)?;
        self.end("dave-sends");
        self.radio.as_mut().context("no radio")?.join(DAVE)?;
        let lost = course.lost();
        let stopped = course.report["halted_microseconds"]
            .as_u64()
            .map(|micros| (micros as f64 / 100.0).round() / 10.0);
        Ok(course
            .told(
                format!(
                    "once more, and nobody may send under the old key while another sends under the new: \
                     STOP, dave confirms, START; silent for {:.1} ms, {} of {} packets waited, {lost} \
                     lost; alice was stopped and started by radio{}",
                    stopped.unwrap_or(0.0),
                    course.delayed,
                    course.call.count(),
                    between(&course.passed),
                ),
                json!({
                    "barrier_packets_lost": lost,
                    "barrier_stop_ms": stopped,
                    "packets_delayed": course.delayed,
                }),
            )
            .must(stopped.is_some(), "nobody stopped"))
    }

    /// Dave speaks until the group's key was changed in the middle of what he says.
    fn change_in_mid_call(&mut self, change: Change) -> anyhow::Result<Course> {
        let server = self.path("server");
        let keyfall = self.keyfall.clone();
        let admin = |words: &[&str]| {
            let tail = ["--reason", "demo", "--dir", &server];
            keyfall.ask(&[&["admin"], words, &tail].concat())
        };
        admin(&["group", "set", "call", "--change", change.name()])?;
        self.hears("bob")?.take();
        self.overheard();
        let (sent, delayed) = self.sent_by_dave()?;
        let before = self.wire.passed().len();
        let mut ordered = None;
        for said in 1..=SAID_AT_MOST {
            let (so_far, _) = self.sent_by_dave()?;
            let first = u16::try_from(so_far % 65_536)?.wrapping_add(1);
            let sender = match change {
                Change::Hitless => self.speak(DAVE, first),
                Change::Barrier => self.speak_briefly(DAVE, first),
            }?;
            if ordered.is_none() {
                wait_for("bob hears dave", PATIENCE, || {
                    Ok((self.hears("bob")?.count() > HEARD_BEFORE).then_some(()))
                })?;
                ordered = Some(Instant::now());
                admin(&["rekey", "call"])?;
            }
            sender.finish()?;
            settle();
            let shown = self
                .keyfall
                .ask(&["admin", "group", "show", "call", "--dir", &server])?;
            let report = shown["change"].clone();
            let tags: Vec<_> = self
                .eavesdropper
                .timed()
                .iter()
                .filter_map(|(at, octets)| Some((*at, tag_epoch(octets)?)))
                .collect();
            let turns: Vec<_> = tags
                .windows(2)
                .filter(|two| two[0].1 != two[1].1)
                .map(|two| two[1])
                .collect();
            let (Some(&(at, tag)), Some(ordered), true) =
                (turns.first(), ordered, report["state"] == "finished")
            else {
                // A machine that is loaded takes longer than the speech.
                continue;
            };
            let call = Call::of(&self.hears("bob")?.take());
            self.overheard();
            let heard = Speech::from_payloads(call.payloads());
            let whole = match change {
                Change::Hitless => &self.speech,
                Change::Barrier => &self.brief,
            };
            let (sent_now, delayed_now) = self.sent_by_dave()?;
            return Ok(Course {
                report,
                sent: sent_now - sent,
                delayed: delayed_now - delayed,
                samples_differing: whole.repeated(said).differing(&heard),
                call,
                passed: self.wire.passed().split_off(before),
                ordered,
                switched_after: at.saturating_duration_since(ordered),
                tag,
                switches: turns.len(),
            });
        }
        bail!("the key did not change while dave spoke")
    }

    /// Alice speaks, too, until the air shows that she does so under the new key: from the order on.
    fn alice_follows(&self, course: &Course, ssrc: u32) -> anyhow::Result<Duration> {
        let mut number = 0;
        wait_for("alice speaks under the fresh key", PATIENCE, || {
            self.hum_once("alice", ssrc, number)?;
            number = number.wrapping_add(1);
            let air = self.eavesdropper.timed();
            let hers = air.iter().find(|(_, octets)| {
                let of_her = octets.get(8..12) == Some(&ssrc.to_be_bytes()[..]);
                of_her && tag_epoch(octets) == Some(course.tag)
            });
            Ok(hers.map(|(at, _)| at.saturating_duration_since(course.ordered)))
        })
    }

    /// Packets that dave's relay took, and those of them that it held back.
    fn sent_by_dave(&self) -> anyhow::Result<(u64, u64)> {
        let status = self.status(DAVE)?;
        let relay = crate::demo::stage::relay(&status, "send").context("no relay")?;
        let delayed = relay["delayed"].as_u64().context("no count")?;
        Ok((self.relay_packets(DAVE, "send")?, delayed))
    }
}

impl Change {
    const fn name(self) -> &'static str {
        match self {
            Self::Hitless => "hitless",
            Self::Barrier => "barrier",
        }
    }
}

impl Course {
    fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.call.count() as u64)
    }

    fn told(&self, sentence: String, figures: Value) -> Told {
        let heard_all = self.lost() == 0 && self.samples_differing == 0;
        Told::new(sentence, figures)
            .must(heard_all, "bob did not hear what dave said")
            .must(
                self.switches == 1,
                "the call did not change its key exactly once",
            )
    }
}

/// A line of its own.
fn between(passed: &[Datagram]) -> String {
    format!("\n{:18}on the wire, in octets: {}", "", listed(passed))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What one asks, is answered and confirms, up to the first ACK; without what the server says by
/// itself meanwhile.
fn exchange(passed: Vec<Datagram>) -> Option<Vec<Datagram>> {
    let kinds = [
        "HELLO",
        "INTRODUCTION",
        "KEY-REQ",
        "COOKIE",
        "PART",
        "KEY-DIS",
        "ACK",
    ];
    let mut asked = passed;
    asked.retain(|datagram| kinds.contains(&datagram.kind));
    let end = asked.iter().position(|datagram| datagram.kind == "ACK")?;
    asked.truncate(end + 1);
    Some(asked)
}

/// Of the last one.
fn octets_of(kind: &str, passed: &[Datagram]) -> Option<usize> {
    let of_kind = |datagram: &&Datagram| datagram.kind == kind;
    passed
        .iter()
        .rev()
        .find(of_kind)
        .map(|datagram| datagram.octets)
}

/// How often dave says it, where the machine is loaded.
const SAID_AT_MOST: usize = 4;
/// Streams of alice's.
const HUM_AFTER_HITLESS: u32 = 0x4b46_0003;
const HUM_AFTER_BARRIER: u32 = 0x4b46_0004;
/// Packets of the call before the order.
const HEARD_BEFORE: usize = 50;
