//! What runs while the story is told: the server, the terminals, their relays, those who listen; and
//! what the steps do with them.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use keyfall_carrier::CarrierAddress;
use keyfall_protocol::command::{Body, Unverified};
use serde_json::Value;

use crate::demo::children::{Keyfall, Radio, Running, go_on};
use crate::demo::ears::{Call, Heard};
use crate::demo::speech::{Sender, Speech};
use crate::demo::wire::Wire;

/// Everything that runs while the story is told.
pub(super) struct Stage {
    pub(super) keyfall: Keyfall,
    pub(super) dir: PathBuf,
    pub(super) speech: Speech,
    /// Its first seconds.
    pub(super) brief: Speech,
    pub(super) air: Air,
    /// The way to the server, for who has one.
    pub(super) wire: Wire,
    /// Frames as the server sent them.
    pub(super) frames: Heard,
    pub(super) radio: Option<Radio>,
    /// Terminals and their relays by name; the server, too.
    pub(super) running: BTreeMap<String, Running>,
    /// Codes of enrolment packages.
    pub(super) codes: BTreeMap<String, String>,
    /// What the applications of those who listen hear, and where.
    ears: BTreeMap<&'static str, (Heard, SocketAddr)>,
    /// Where the relays of those who speak take it.
    takes: BTreeMap<&'static str, SocketAddr>,
    pub(super) eavesdropper: Heard,
    /// What the eavesdropper has on tape of the calls that are over.
    pub(super) tape: Vec<Vec<u8>>,
    pub(super) set_at: Instant,
}

/// Addresses on the loopback interface that no other demo uses.
pub(super) struct Air {
    pub(super) server: CarrierAddress,
    pub(super) terminals: BTreeMap<&'static str, CarrierAddress>,
    pub(super) media: SocketAddr,
    /// Where the server is asked.
    pub(super) desk: SocketAddr,
}

/// Who gets a package, and only hears. Dave comes later, and asks.
pub(super) const PACKAGED: [&str; 3] = ["alice", "bob", "carol"];
pub(super) const DAVE: &str = "dave";
pub(super) const GROUP: &str = "1";
/// Packets that one session key serves in the demo: a short call crosses it.
pub(super) const REDERIVE: &str = "1024";
/// Samples: three seconds.
const BRIEF: usize = 24_000;
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

impl Stage {
    /// Sets the stage: directories, addresses, listeners. Starts nothing of Keyfall yet.
    pub(super) fn set(dir: &Path) -> anyhow::Result<Self> {
        let keyfall = Keyfall::new(&dir.join("logs"))?;
        let speech = Speech::from_wav(super::speech::RECORDING)?;
        std::fs::write(dir.join("said.wav"), super::speech::RECORDING)
            .context("the recording cannot be written")?;
        let brief = speech.first(BRIEF);
        let air = Air::free()?;
        let frames = Heard::on_air(air.server)?;
        let media = CarrierAddress::new(v4(air.media)?, LOOPBACK, 0)?;
        let eavesdropper = Heard::on_air(media)?;
        let mut ears = BTreeMap::new();
        for name in ["bob", "carol", "dave"] {
            ears.insert(name, Heard::on_port(local(free_pair()?))?);
        }
        let mut takes = BTreeMap::new();
        for name in ["alice", DAVE] {
            takes.insert(name, local(free_pair()?));
        }
        let wire = Wire::to(air.desk)?;
        Ok(Self {
            keyfall,
            dir: dir.to_owned(),
            speech,
            brief,
            air,
            wire,
            frames,
            radio: None,
            running: BTreeMap::new(),
            codes: BTreeMap::new(),
            ears,
            takes,
            eavesdropper,
            tape: Vec::new(),
            set_at: Instant::now(),
        })
    }

    pub(super) fn hears(&self, name: &str) -> anyhow::Result<&Heard> {
        let (heard, _) = self.ears.get(name).context("nobody listens there")?;
        Ok(heard)
    }

    /// What the eavesdropper heard since it was asked last; it stays on tape.
    pub(super) fn overheard(&mut self) -> Vec<Vec<u8>> {
        let air = self.eavesdropper.take();
        self.tape.extend(air.iter().cloned());
        air
    }

    pub(super) fn start(&mut self, name: &str, words: &[&str]) -> anyhow::Result<()> {
        let running = self.keyfall.start(name, words)?;
        self.running.insert(name.to_owned(), running);
        Ok(())
    }

    /// Those who only hear keep silent; dave asks where his package says.
    pub(super) fn run_terminal(&mut self, name: &'static str) -> anyhow::Result<()> {
        let carrier = self.air.terminals.get(name).context("no such terminal")?;
        let (dir, carrier) = (self.path(name), carrier.to_string());
        let mut words = vec!["terminal", "run", &dir, "--carrier", &carrier];
        if name != DAVE {
            words.push("--one-way");
        }
        self.start(name, &words)
    }

    pub(super) fn start_receiver(&mut self, name: &str) -> anyhow::Result<()> {
        let (_, listens) = self.ears.get(name).context("nobody listens there")?;
        let words = [
            "media",
            "receive",
            "--dir",
            &self.path(name),
            "--group",
            GROUP,
            "--from",
            &self.air.media.to_string(),
            "--if",
            "127.0.0.1",
            "--rtp",
            &listens.to_string(),
            "--rederive-after",
            REDERIVE,
        ];
        self.start(&format!("{name}-receives"), &words)?;
        self.wait_relay(name, "receive")
    }

    pub(super) fn start_sender(&mut self, name: &str) -> anyhow::Result<()> {
        let words = [
            "media",
            "send",
            "--dir",
            &self.path(name),
            "--group",
            GROUP,
            "--rtp",
            &self.takes(name)?.to_string(),
            "--to",
            &self.air.media.to_string(),
            "--if",
            "127.0.0.1",
            "--rederive-after",
            REDERIVE,
        ];
        self.start(&format!("{name}-sends"), &words)?;
        self.wait_relay(name, "send")
    }

    /// A new call is a new session.
    pub(super) fn restart_sender(&mut self) -> anyhow::Result<()> {
        self.end("alice-sends");
        self.wait_status("alice", "has ended its first call", |status| {
            status["relays"].as_array().is_some_and(Vec::is_empty)
        })?;
        self.start_sender("alice")
    }

    /// Ends a process, where it runs.
    pub(super) fn end(&mut self, name: &str) {
        if let Some(running) = self.running.remove(name) {
            running.interrupt();
        }
    }

    /// Where the relay of `name` takes what its application says.
    pub(super) fn takes(&self, name: &str) -> anyhow::Result<SocketAddr> {
        self.takes.get(name).copied().context("nobody speaks there")
    }

    /// The application of `name` says all of the recording; its first packet is numbered `first`.
    pub(super) fn speak(&self, name: &str, first: u16) -> anyhow::Result<Sender> {
        let file = self.dir.join("said.wav");
        Sender::start(&file, &self.speech, self.takes(name)?, first)
    }

    /// Or the first seconds of it, by ourselves: packet by packet, where others send in bursts.
    pub(super) fn speak_briefly(&self, name: &str, first: u16) -> anyhow::Result<Sender> {
        Ok(Sender::built_in(&self.brief, self.takes(name)?, first))
    }

    /// One packet of noise from the application of `name`.
    pub(super) fn hum_once(&self, name: &str, ssrc: u32, number: u16) -> anyhow::Result<()> {
        let out = UdpSocket::bind("127.0.0.1:0").context("no socket")?;
        let mut packet = vec![0x80, 97];
        packet.extend(number.to_be_bytes());
        packet.extend((u32::from(number) * 160).to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        packet.extend([0x55; 160]);
        out.send_to(&packet, self.takes(name)?)?;
        Ok(())
    }

    fn wait_relay(&mut self, name: &str, direction: &str) -> anyhow::Result<()> {
        self.wait_status(name, "relays", |status| {
            relay(status, direction)
                .is_some_and(|relay| direction == "receive" || !relay["session"].is_null())
        })
        .map(|_| ())
    }

    pub(super) fn wait_status(
        &mut self,
        name: &str,
        what: &str,
        done: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            go_on()?;
            for running in self.running.values_mut() {
                running.still_there()?;
            }
            // A process that has just been started does not answer yet.
            let (status, answered) =
                self.keyfall
                    .try_ask(&["terminal", "status", &self.path(name)])?;
            if answered && done(&status) {
                return Ok(status);
            }
            ensure!(
                Instant::now() < until,
                "{name} {what}: not within {} s",
                PATIENCE.as_secs()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn status(&self, name: &str) -> anyhow::Result<Value> {
        self.keyfall.ask(&["terminal", "status", &self.path(name)])
    }

    pub(super) fn generation(&self, name: &str) -> anyhow::Result<u64> {
        self.status(name)?["groups"][0]["generation"]
            .as_u64()
            .context("no key is held")
    }

    pub(super) fn why(&self, name: &str, reason: &str) -> anyhow::Result<u64> {
        let why = self.keyfall.ask(&["terminal", "why", &self.path(name)])?;
        let reasons = why["reasons"]
            .as_array()
            .context("no reasons in the answer")?;
        let found = reasons.iter().find(|entry| entry["reason"] == reason);
        Ok(found.and_then(|entry| entry["count"].as_u64()).unwrap_or(0))
    }

    /// RTP packets that a relay took from its application: those that it let through, and those
    /// that it dropped.
    pub(super) fn relay_packets(&self, name: &str, direction: &str) -> anyhow::Result<u64> {
        let status = self.status(name)?;
        let relay = relay(&status, direction).context("no relay")?;
        let dropped = relay["drops"].as_array().map_or(0, |drops| {
            drops.iter().filter_map(|drop| drop["count"].as_u64()).sum()
        });
        Ok(relay["packets"].as_u64().context("no count")? + dropped)
    }

    pub(super) fn first_packet_opened(&self, name: &str) -> anyhow::Result<bool> {
        let status = self.status(name)?;
        let relay = relay(&status, "receive").context("no relay")?;
        Ok(relay["first_packet_opened"] == true)
    }

    /// How many packets of the call, as Bob's application got them, hold traces of speech: the
    /// search finds what is there.
    pub(super) fn speech_in_clear(&self, call: &Call) -> usize {
        let traces = self.speech.traces();
        call.payloads()
            .filter(|payload| contains_any(payload, &traces))
            .count()
    }

    /// The newest frame of a type, as the server sent it.
    pub(super) fn newest(&self, wanted: impl Fn(&Body) -> bool) -> anyhow::Result<Vec<u8>> {
        self.frames
            .all()
            .into_iter()
            .rev()
            .find(|frame| {
                Unverified::decode(frame).is_ok_and(|read| {
                    let fleet = read.command().target == keyfall_protocol::command::Target::All;
                    wanted(&read.command().body) && !fleet
                })
            })
            .context("no such frame was sent")
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }
}

impl Air {
    fn free() -> anyhow::Result<Self> {
        // The process id keeps two demos on one machine apart.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let group = |third: u8| std::net::Ipv4Addr::new(239, 192 + high % 32, third, low);
        let address = |third: u8| -> anyhow::Result<CarrierAddress> {
            let group = std::net::SocketAddrV4::new(group(third), free_pair()?);
            Ok(CarrierAddress::new(group, LOOPBACK, 0)?)
        };
        let mut terminals = BTreeMap::new();
        for (name, third) in PACKAGED.into_iter().chain([DAVE]).zip(2..) {
            terminals.insert(name, address(third)?);
        }
        let media = SocketAddr::from((group(1), free_pair()?));
        Ok(Self {
            server: address(0)?,
            terminals,
            media,
            desk: local(free_pair()?),
        })
    }
}

/// A UDP port that is free together with the next one, for RTP and RTCP.
pub(super) fn free_pair() -> anyhow::Result<u16> {
    for _ in 0..100 {
        let socket = UdpSocket::bind("127.0.0.1:0").context("no free port")?;
        let port = socket
            .local_addr()
            .context("a bound socket has an address")?
            .port();
        let next = port.checked_add(1).filter(|_| port.is_multiple_of(2));
        if next.is_some_and(|next| UdpSocket::bind(("127.0.0.1", next)).is_ok()) {
            return Ok(port);
        }
    }
    anyhow::bail!("no pair of free ports on 127.0.0.1")
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((LOOPBACK, port))
}

fn v4(address: SocketAddr) -> anyhow::Result<std::net::SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(_) => anyhow::bail!("the demo uses IPv4"),
    }
}

pub(super) fn relay<'s>(status: &'s Value, direction: &str) -> Option<&'s Value> {
    status["relays"]
        .as_array()?
        .iter()
        .find(|relay| relay["direction"] == direction)
}

pub(super) fn contains_any(packet: &[u8], traces: &[[u8; 16]]) -> bool {
    let pieces: std::collections::HashSet<&[u8]> = packet.windows(16).collect();
    traces.iter().any(|trace| pieces.contains(&trace[..]))
}

/// The generation modulo 256 in a packet's MKI: third of its last fourteen octets.
pub(super) fn tag_generation(packet: &[u8]) -> Option<u8> {
    packet
        .len()
        .checked_sub(12)
        .and_then(|at| packet.get(at))
        .copied()
}

/// What names the epoch in a packet's MKI: the first two of its last fourteen octets.
pub(super) fn tag_epoch(packet: &[u8]) -> Option<[u8; 2]> {
    let mki: &[u8; 14] = packet.last_chunk()?;
    mki.first_chunk().copied()
}

/// n: the last two octets of the MKI.
pub(super) fn stretch(packet: &[u8]) -> Option<u16> {
    packet
        .last_chunk()
        .map(|&octets| u16::from_be_bytes(octets))
}

/// Lets the last packets arrive.
pub(super) fn settle() {
    std::thread::sleep(Duration::from_millis(300));
}

const LOOPBACK: std::net::Ipv4Addr = std::net::Ipv4Addr::LOCALHOST;
