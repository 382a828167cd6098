//! A renewal by order in a server with 100,000 terminals in one group: judged, journalled,
//! committed to SQLite with every fsync, applied, composed and signed.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick, UnixSeconds};
use keyfall_protocol::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use keyfall_protocol::rng::Random;
use keyfall_protocol::schedule::{Cadence, Schedule};
use keyfall_protocol::server::{
    Addresses, Batch, By, Change, Done, Founding, GroupPolicy, GroupRecord, Input, Item, Moment,
    Order, OrderId, Output, Server, Statement, TerminalRecord,
};
use keyfall_server::store::Store;
use keyfall_server::{Directory, OsRandom};

use crate::rounds::{Limit, ROUNDS, Report, Table, Timing};

pub fn run() -> anyhow::Result<Report> {
    let place = Place::new()?;
    let mut large = Operated::new(&place.0.join("large"), 100_000)?;
    let mut small = Operated::new(&place.0.join("small"), 2)?;
    let order = |group| Order::RenewGroup { group };
    let group = GroupNumber::new(1).context("not 0")?;
    let item = Item::Group(group);

    let mut file = fs::File::create(place.0.join("appended"))?;
    let renewals = [
        timed(BARE, RENEWALS, || append_twice(&mut file))?,
        timed("for 2 terminals", RENEWALS, || {
            small.order(order(group), item)
        })?,
        timed("for 100,000 terminals", RENEWALS, || {
            large.order(order(group), item)
        })?,
    ];
    let devices = [timed("100,000 wrap keys", 1, || {
        large.order(Order::RenewDevices, Item::Fleet)
    })?];

    let octets = [&small, &large].map(|operated| operated.renew_octets.clone());
    let most = octets.iter().flatten().copied().max().unwrap_or(0);
    let differing = octets[0].symmetric_difference(&octets[1]).count();
    let limits = vec![
        Limit::at_most(
            "RENEW issued and durably stored for a group of 100,000, ms",
            10.0,
            renewals[2].best / 1e6,
        ),
        Limit::at_most("octets of a RENEW", 170.0, most as f64),
        Limit::at_most(
            "lengths of RENEW that differ between 2 and 100,000 terminals",
            0.0,
            differing as f64,
        ),
    ];
    Ok(Report {
        group: "server",
        tables: vec![
            Table {
                title: "a group renewed by order, to the frame on the carrier".to_owned(),
                timings: renewals.into(),
                reference: BARE,
            },
            Table {
                title: "the device keys of the fleet renewed by order, stored and sealed"
                    .to_owned(),
                timings: devices.into(),
                reference: "100,000 wrap keys",
            },
        ],
        limits,
    })
}

/// What the disk takes for a journal line and a transaction, whoever writes them.
fn append_twice(file: &mut fs::File) -> anyhow::Result<Duration> {
    let began = Instant::now();
    for _ in 0..2 {
        file.write_all(&[0; 200])?;
        file.sync_data()?;
    }
    Ok(began.elapsed())
}

/// Rounds of `count` orders; a round counts as the median of its orders.
fn timed(
    name: &'static str,
    count: usize,
    mut order: impl FnMut() -> anyhow::Result<Duration>,
) -> anyhow::Result<Timing> {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let mut took = Vec::new();
        for _ in 0..count {
            took.push(order()?.as_nanos() as f64);
        }
        took.sort_by(f64::total_cmp);
        rounds.push(took[took.len() / 2]);
    }
    rounds.sort_by(f64::total_cmp);
    Ok(Timing {
        name,
        best: rounds[0],
        median: rounds[rounds.len() / 2],
    })
}

/// A directory on the disk of the build, which goes away.
struct Place(PathBuf);

impl Place {
    fn new() -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let beside = program.parent().context("a program is in a directory")?;
        let path = beside.join(format!("bench-server-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("bench: {} is left behind: {error}", self.0.display());
        }
    }
}

/// A server machine and its store, driven as the driver drives them.
struct Operated {
    machine: Server,
    store: Store,
    orders: u64,
    renew_octets: BTreeSet<usize>,
}

impl Operated {
    /// Founds a server and fills it with one group of `terminals`.
    fn new(dir: &Path, terminals: u32) -> anyhow::Result<Self> {
        let founding = Founding {
            // The link is not what is measured.
            bits_per_second: 10_000_000_000,
            ..Founding::default()
        };
        keyfall_server::init(dir, founding, "bench".to_owned())?;
        let directory = Directory::open(dir)?;
        let (mut store, _) = Store::open(&directory)?;
        let at = moment(0)?;
        store.commit(&filling(terminals, at.wall)?, at.wall, &mut OsRandom)?;
        let state = store.load()?;
        let machine = state.start(at);
        let mut operated = Self {
            machine,
            store,
            orders: 0,
            renew_octets: BTreeSet::new(),
        };
        operated.feed(Input::Timeout, None)?;
        Ok(operated)
    }

    /// From the order to the frame that says it.
    fn order(&mut self, order: Order, says_it: Item) -> anyhow::Result<Duration> {
        self.orders += 1;
        let input = Input::Order {
            id: OrderId(self.orders),
            order,
            by: By {
                actor: "bench".to_owned(),
                reason: None,
                ticket: None,
            },
        };
        let began = Instant::now();
        let mut done = self.feed(input, Some(says_it))?;
        // The link may have been busy with another frame.
        while !done {
            self.orders += 1;
            done = self.feed(Input::Timeout, Some(says_it))?;
        }
        Ok(began.elapsed())
    }

    /// Whether the frame of `awaited` left.
    fn feed(&mut self, input: Input, awaited: Option<Item>) -> anyhow::Result<bool> {
        let mut next = Some(input);
        let mut left = false;
        while let Some(input) = next.take() {
            let at = moment(self.orders)?;
            self.machine.handle_input(at, &mut OsRandom, input)?;
            loop {
                match self.machine.poll_output() {
                    Output::Store(id) => {
                        let batch = self.machine.batch(id).context("it was asked for")?;
                        self.store.commit(batch, at.wall, &mut OsRandom)?;
                        next = Some(Input::Stored(id));
                    }
                    Output::Transmit { item, frame } => {
                        if let Item::Group(_) = item {
                            self.renew_octets.insert(frame.len());
                        }
                        left |= awaited == Some(item);
                    }
                    // Nobody asks here.
                    Output::Send { .. } | Output::Work(_) => {}
                    Output::Done { outcome, .. } => {
                        let done = outcome?;
                        let renewed =
                            matches!(done, Done::Renewed { .. } | Done::FleetRenewed { .. });
                        anyhow::ensure!(renewed, "another answer than a renewal");
                    }
                    Output::Timeout { .. } => break,
                }
            }
        }
        Ok(left)
    }
}

/// All terminals and their group in one transaction.
fn filling(terminals: u32, wall: UnixSeconds) -> anyhow::Result<Batch> {
    let secret = || Secret::init_with(|into| OsRandom.fill(into));
    let mut changes = Vec::new();
    let mut members = BTreeSet::new();
    for number in 1..=terminals {
        let number = TerminalNumber::new(number).context("24 bits")?;
        members.insert(number);
        changes.push(Change::Terminal(TerminalRecord {
            number,
            name: format!("t{number}"),
            obey: ObeyKey::new(number, secret()),
            wrap: WrapKey::new(number, Generation::ZERO, secret()),
            added_at: wall,
            package_expires: wall,
            wipe_roots: Vec::new(),
            token: None,
            mixed_at: None,
            legacy_key: None,
            addresses: Addresses::default(),
            record: None,
            excluded_at: None,
            memberships: Vec::new(),
            orders: Vec::new(),
        }));
    }
    let group = GroupNumber::new(1).context("not 0")?;
    let epoch = KeyEpoch::fresh(None, wall);
    let schedule = Schedule {
        generation: Generation::ZERO,
        activate_at: wall,
        cadence: Cadence::new(1, 3600),
    };
    changes.push(Change::Group(GroupRecord {
        number: group,
        name: "all".to_owned(),
        members,
        master: MasterKey::new(group, epoch, Generation::ZERO, secret()),
        schedule,
        lease: 72 * 3600,
        policy: GroupPolicy::default(),
        packets: None,
        search_key: None,
        statements: vec![Statement {
            stated_at: wall,
            epoch,
            schedule,
        }],
    }));
    Ok(Batch {
        changes,
        audit: None,
        journal: None,
    })
}

/// A second of link for each order.
fn moment(step: u64) -> anyhow::Result<Moment> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Moment {
        now: Tick::from_secs(step),
        wall: UnixSeconds::new(u32::try_from(since.as_secs())?),
    })
}

const BARE: &str = "200 octets appended twice";
/// In one round.
const RENEWALS: usize = 51;
