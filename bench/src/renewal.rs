//! Renewal: the one-way step, a long chain, a bare Ed25519 verification, and a RENEW verified and
//! applied by a whole terminal.

use std::time::Duration;

use anyhow::Context as _;
use keyfall_protocol::command::{
    Body, Command, KeyDist, KeyDistContents, Renew, RenewEntry, SigningKey, Target, Time,
    Unverified,
};
use keyfall_protocol::enrolment::{EnrolmentPackage, Identity};
use keyfall_protocol::ids::{
    Generation, GroupNumber, KeyEpoch, SequenceNumber, TerminalNumber, Tick, UnixSeconds,
};
use keyfall_protocol::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use keyfall_protocol::rng::Random;
use keyfall_protocol::schedule::Schedule;
use keyfall_protocol::server::{FleetRecord, Founding};
use keyfall_protocol::terminal::{Input, Output, Terminal};

use crate::rounds::{Contender, Limit, Report, Table, interleave};

pub fn run() -> anyhow::Result<Report> {
    let mut key = Some(master());
    let mut chain_key = Some(master());
    let fleet = Fleet::found()?;
    let frames: Vec<_> = (1..=RENEWALS)
        .map(|generation| fleet.renew(generation))
        .collect();
    let mut receiver = fleet.terminal()?;
    let mut next = frames.iter().cycle();
    let frame = frames.first().context("there is one")?;
    let beat = fleet.record.beat.public();
    let mut stranger = fleet.terminal()?;
    let for_others = fleet.for_others()?;
    let absurd = fleet.absurd();
    let mut attacked = fleet.terminal()?;

    let steps = interleave(
        &mut [Contender::new("one-way step", |n| {
            for _ in 0..n {
                key = key.take().map(MasterKey::renew);
            }
        })],
        2_000,
    );
    let chain = interleave(
        &mut [Contender::new("65,536 steps", |n| {
            for _ in 0..n {
                chain_key = chain_key
                    .take()
                    .map(|key| MasterKey::new(group(), key.epoch(), Generation::ZERO, seed(1)))
                    .map(|key| key.renew_to(Generation::new(65_536).expect("in range")));
            }
        })],
        1,
    );
    let mut applied = 0u32;
    let renewals = interleave(
        &mut [
            Contender::new("read and verify alone", |n| {
                for _ in 0..n {
                    let read = Unverified::decode(frame).expect("our own frame");
                    assert!(read.verify(&beat).is_some());
                }
            }),
            Contender::new("RENEW verified and applied", |n| {
                for _ in 0..n {
                    if applied == RENEWALS {
                        receiver = fleet.terminal().expect("it was made before");
                        applied = 0;
                    }
                    applied += 1;
                    let frame = next.next().expect("a cycle does not end");
                    receiver.feed(Input::Datagram(frame));
                }
            }),
            Contender::new("KEYDIST for others, filtered", |n| {
                for _ in 0..n {
                    stranger.feed(Input::Datagram(&for_others));
                }
            }),
            Contender::new("forged, with an absurd G", |n| {
                for _ in 0..n {
                    attacked.feed(Input::Datagram(&absurd));
                }
            }),
        ],
        50,
    );
    assert!(
        receiver
            .terminal
            .groups()
            .iter()
            .all(|held| held.generation.get() == applied)
    );

    assert_eq!(attacked.terminal.fleet_generation(), Generation::ZERO);

    let best = |timings: &[crate::rounds::Timing], at: usize| timings[at].best;
    let limits = vec![
        Limit::at_most("one-way step, ns", 500.0, best(&steps, 0)),
        Limit::at_most("65,536 steps, ms", 35.0, best(&chain, 0) / 1e6),
        Limit::at_most(
            "RENEW verified and applied, us",
            50.0,
            best(&renewals, 1) / 1e3,
        ),
        Limit::at_most(
            "forged, with an absurd G, us",
            10.0,
            best(&renewals, 3) / 1e3,
        ),
    ];
    let table = |title: &str, timings, reference| Table {
        title: title.to_owned(),
        timings,
        reference,
    };
    Ok(Report {
        group: "renewal",
        tables: vec![
            table("one-way renewal", steps, "one-way step"),
            table("a chain of 65,536 generations", chain, "65,536 steps"),
            table("a RENEW in a terminal", renewals, "read and verify alone"),
        ],
        limits,
    })
}

/// A fleet with one terminal in one group.
struct Fleet {
    root: SigningKey,
    record: FleetRecord,
}

/// The terminal with what a driver does after every input.
struct Receiver {
    terminal: Terminal,
    now: Tick,
}

impl Fleet {
    fn found() -> anyhow::Result<Self> {
        let root = SigningKey::from_seed(seed(1));
        let erase = SigningKey::from_seed(seed(2)).public();
        let record = FleetRecord::found(Founding::default(), &root, &erase, WALL, &mut Counter(7));
        Ok(Self { root, record })
    }

    fn terminal(&self) -> anyhow::Result<Receiver> {
        let number = TerminalNumber::new(1).context("not 0")?;
        let wrap = || WrapKey::new(number, Generation::ZERO, seed(4));
        let package = EnrolmentPackage {
            identity: Identity {
                number,
                name: "bench".to_owned(),
                fleet: "bench".to_owned(),
                root: self.root.public(),
                key_set_frame: self.record.key_set_frame.clone(),
                streams: vec![self.record.stream],
                carriers: Vec::new(),
                servers: Vec::new(),
                keep_time: 60,
                wipe_roots: Vec::new(),
            },
            obey: ObeyKey::new(number, seed(3)),
            wrap: wrap(),
            issued_at: WALL,
            expires: WALL.plus(60),
        };
        let key_dist = KeyDist::seal(&contents(), std::iter::once(&wrap()), &mut Counter(9));
        let frame =
            self.record
                .keys
                .sign(&self.command(Target::Handles, Body::KeyDist(key_dist), 0));
        let mut receiver = Receiver {
            terminal: Terminal::enrol(package, Tick::default())?,
            now: Tick::default(),
        };
        receiver.feed(Input::Timeout);
        receiver.feed(Input::Datagram(&frame));
        anyhow::ensure!(
            receiver.terminal.holds(group()),
            "the KEYDIST was not taken"
        );
        Ok(receiver)
    }

    /// A full KEYDIST that names seventeen other terminals.
    fn for_others(&self) -> anyhow::Result<Vec<u8>> {
        let wraps: Option<Vec<_>> = (2..19)
            .map(|number| {
                let terminal = TerminalNumber::new(number)?;
                Some(WrapKey::new(terminal, Generation::ZERO, seed(6)))
            })
            .collect();
        let contents = contents();
        let wraps = wraps.context("numbers from 2 on")?;
        let key_dist = KeyDist::seal(&contents, wraps.iter(), &mut Counter(9));
        Ok(self
            .record
            .keys
            .sign(&self.command(Target::Handles, Body::KeyDist(key_dist), 0)))
    }

    /// What somebody without a key sends in the beat key's name to make terminals step.
    fn absurd(&self) -> Vec<u8> {
        let mut command = self.command(Target::Handles, Body::Time(self.time()), 0);
        command.fleet_generation = Generation::MAX;
        let mut frame = self.record.beat.sign(&command);
        if let Some(last) = frame.last_mut() {
            *last ^= 1;
        }
        frame
    }

    fn time(&self) -> Time {
        Time {
            seconds: WALL,
            max_error_ms: 0,
            floors: Vec::new(),
        }
    }

    fn renew(&self, generation: u32) -> Vec<u8> {
        let schedule = Schedule {
            generation: Generation::new(generation).expect("in range"),
            activate_at: WALL,
            cadence: None,
        };
        let entry = RenewEntry {
            kid: group().master_key_id(),
            epoch: epoch(),
            schedule,
            lease_end: Some(WALL.plus(3600)),
        };
        let body = Body::Renew(Renew {
            entries: vec![entry],
        });
        self.record
            .beat
            .sign(&self.command(Target::Group(group()), body, generation))
    }

    fn command(&self, target: Target, body: Body, sequence: u32) -> Command {
        Command {
            stream: self.record.stream,
            sequence: SequenceNumber::at(WALL).plus(u64::from(sequence)),
            issued_at: WALL.plus(sequence),
            not_after: WALL.plus(86_400),
            target,
            body,
            fleet_generation: Generation::ZERO,
        }
    }
}

impl Receiver {
    fn feed(&mut self, input: Input<'_>) {
        // Time goes on, so that the budget of verifications is not what is measured.
        self.now = self.now.plus(Duration::from_millis(2));
        let (now, mut rng) = (self.now, Counter(3));
        self.terminal
            .handle_input(now, &mut rng, input)
            .expect("no misuse");
        loop {
            match self.terminal.poll_output() {
                Output::Store(id, _) => {
                    self.terminal
                        .handle_input(now, &mut rng, Input::Stored(id))
                        .expect("it was handed out");
                }
                Output::Event(_) | Output::ToServer(_) | Output::Erase(_) => {}
                Output::Probe { .. } | Output::Answer { .. } | Output::ToPeer { .. } => {}
                Output::Timeout { .. } => return,
            }
        }
    }
}

struct Counter(u8);

impl Random for Counter {
    fn fill(&mut self, into: &mut [u8]) {
        for octet in into {
            self.0 = self.0.wrapping_mul(5).wrapping_add(113);
            *octet = self.0;
        }
    }
}

fn seed(octet: u8) -> Secret<32> {
    Secret::init_with(|into| into.fill(octet))
}

fn master() -> MasterKey {
    MasterKey::new(group(), epoch(), Generation::ZERO, seed(5))
}

fn contents() -> KeyDistContents {
    KeyDistContents {
        search_key: None,
        key: master(),
        activate_at: WALL,
        cadence: None,
        lease_end: None,
    }
}

/// Runs one kind of work `n` times and nothing else, for the instruction count.
pub fn only(work: &str, n: u32) -> anyhow::Result<()> {
    let fleet = Fleet::found()?;
    let mut receiver = fleet.terminal()?;
    let frames: Vec<_> = (1..=ONLY_MAX)
        .map(|generation| fleet.renew(generation))
        .collect();
    let for_others = fleet.for_others()?;
    for frame in frames.iter().take(n as usize) {
        match work {
            "verify" => receiver.feed(Input::Datagram(frame)),
            "filter" => receiver.feed(Input::Datagram(&for_others)),
            other => anyhow::bail!("{other} is neither verify nor filter"),
        }
    }
    Ok(())
}

/// As many as [`only`] can be asked for.
pub const ONLY_MAX: u32 = 300;

fn group() -> GroupNumber {
    GroupNumber::new(1).expect("not 0")
}

/// The second of [`WALL`].
fn epoch() -> KeyEpoch {
    KeyEpoch::fresh(None, WALL)
}

const WALL: UnixSeconds = UnixSeconds::new(1_800_000_000);
/// Fewer than a signer may claim within the life of its key.
const RENEWALS: u32 = 10_000;
