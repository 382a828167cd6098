//! The chapter of private networks: two subnets behind gateways and a van, in network namespaces of
//! their own. A process of its own plays it, because only there it may make interfaces; it tells its
//! steps on stdout, one JSON document a line.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::demo::Teller;
use crate::demo::children::{self, Keyfall, Running, go_on, wait_for};
use crate::demo::rooms::{self, End, Tap};
use crate::demo::stage::PATIENCE;
use crate::demo::story::Told;

/// Where the chapter is played.
#[derive(Args, Debug)]
pub(crate) struct NetworksArgs {
    dir: PathBuf,
}

/// One line of what the chapter tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Step {
        name: String,
        sentence: String,
        figures: Map<String, Value>,
        wrong: Vec<String>,
    },
    /// It cannot be played here, because.
    Skipped(String),
    Failed(String),
}

/// Plays the chapter; every fault is a line, too.
pub(crate) fn run(args: &NetworksArgs) -> anyhow::Result<()> {
    children::mind_signals()?;
    if let Err(fault) = lay_cables() {
        return print(&Line::Skipped(format!("{fault:#}")));
    }
    let played = Stage::set(&args.dir).and_then(|mut stage| stage.play());
    match played {
        Ok(()) => Ok(()),
        Err(fault) => print(&Line::Failed(format!("{fault:#}"))),
    }
}

fn print(line: &Line) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(line)?).context("nobody reads")?;
    stdout.flush().context("nobody reads")
}

/// Has the chapter played, and tells what it tells. Where it cannot be played, that is said, and the
/// story goes on.
pub(super) fn tell(keyfall: &Keyfall, dir: &Path, teller: &mut Teller<'_>) -> anyhow::Result<()> {
    let dir = dir.join("networks");
    std::fs::create_dir(&dir).context("no directory for the networks")?;
    let dir = dir.to_string_lossy().into_owned();
    let mut stage = match keyfall.start_in_new_rooms("networks", &["demo-networks", &dir]) {
        Ok(stage) => stage,
        Err(fault) => return teller.skipped("networks", &format!("{fault:#}")),
    };
    while let Some(line) = stage.line()? {
        match serde_json::from_str(&line).context("a chapter that tells nothing readable")? {
            Line::Step {
                name,
                sentence,
                figures,
                wrong,
            } => {
                let told = Told {
                    sentence,
                    figures,
                    wrong,
                };
                teller.told(&name, told)?;
            }
            Line::Skipped(because) => return teller.skipped("networks", &because),
            Line::Failed(fault) => {
                teller.failed("networks");
                anyhow::bail!("{fault}");
            }
        }
        teller.now("  …  networks")?;
    }
    teller.now("")
}

/// The rooms. `depot` and `store` are hosts that know nothing of Keyfall; `gate-1` and `gate-2`
/// stand before them; the van has its own terminal. This process's own room is the Internet.
const ROOMS: [&str; 5] = ["depot", "gate-1", "gate-2", "store", "van"];
const INTERNET: &str = "br0";
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 254);
const STORE: Ipv4Addr = Ipv4Addr::new(192, 168, 2, 2);
const DEPOT_NET: &str = "192.168.1.0/24";
const STORE_NET: &str = "192.168.2.0/24";
const VAN: &str = "10.77.0.9/32";
const CARRIER: &str = "udp://239.255.70.90:47790?if=10.90.0.254";
const DOCUMENT: usize = 64 << 20;

fn lay_cables() -> anyhow::Result<()> {
    ensure!(
        Path::new("/dev/net/tun").exists(),
        "there is no /dev/net/tun"
    );
    rooms::ip(&["link", "add", INTERNET, "type", "bridge"])?;
    rooms::ip(&["address", "add", "10.90.0.254/24", "dev", INTERNET])?;
    rooms::ip(&["link", "set", INTERNET, "up"])?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("nothing may be forwarded")?;
    for room in ROOMS {
        rooms::make(room)?;
    }
    let end = |room, interface, address| End {
        room,
        interface,
        address,
    };
    rooms::connect(
        end("depot", "eth0", "192.168.1.2/24"),
        end("gate-1", "in0", "192.168.1.1/24"),
    )?;
    rooms::connect(
        end("store", "eth0", "192.168.2.2/24"),
        end("gate-2", "in0", "192.168.2.1/24"),
    )?;
    for (room, address) in OUTSIDE {
        let cable = format!("to-{room}");
        rooms::ip(&[
            "link", "add", "out0", "netns", room, "type", "veth", "peer", "name", &cable,
        ])?;
        rooms::ip(&["link", "set", &cable, "master", INTERNET, "up"])?;
        rooms::ip(&["-n", room, "address", "add", address, "dev", "out0"])?;
        rooms::ip(&["-n", room, "link", "set", "out0", "up"])?;
        rooms::ip(&["-n", room, "route", "add", "default", "via", "10.90.0.254"])?;
    }
    for (host, gate) in [("depot", "192.168.1.1"), ("store", "192.168.2.1")] {
        rooms::ip(&["-n", host, "route", "add", "default", "via", gate])?;
    }
    for (net, gate) in [(DEPOT_NET, "10.90.0.1"), (STORE_NET, "10.90.0.2")] {
        rooms::ip(&["route", "add", net, "via", gate])?;
    }
    for gate in ["gate-1", "gate-2"] {
        rooms::forward(gate)?;
    }
    tun_works()
}

const OUTSIDE: [(&str, &str); 3] = [
    ("gate-1", "10.90.0.1/24"),
    ("gate-2", "10.90.0.2/24"),
    ("van", "10.90.0.9/24"),
];

fn tun_works() -> anyhow::Result<()> {
    rooms::ip(&["tuntap", "add", "mode", "tun", "name", "kf-try"])?;
    rooms::ip(&["link", "delete", "kf-try"])
}

struct Stage {
    keyfall: Keyfall,
    dir: PathBuf,
    running: BTreeMap<&'static str, Running>,
    /// Everything that passes outside of the gateways, and what passes behind one of them.
    outside: Tap,
    behind: Tap,
}

impl Stage {
    fn set(dir: &Path) -> anyhow::Result<Self> {
        rooms::serve_document("store", STORE, DOCUMENT)?;
        Ok(Self {
            keyfall: Keyfall::new(&dir.join("logs"))?,
            dir: dir.to_owned(),
            running: BTreeMap::new(),
            outside: Tap::on_own_room()?,
            behind: Tap::on("store")?,
        })
    }

    fn play(&mut self) -> anyhow::Result<()> {
        self.step("networks", Self::join_networks)?;
        self.step("search", Self::search_and_download)?;
        self.step("change", Self::change_under_traffic)?;
        self.step("stolen gate", Self::exclude_a_gateway)
    }

    fn step(
        &mut self,
        name: &str,
        act: fn(&mut Self) -> anyhow::Result<Told>,
    ) -> anyhow::Result<()> {
        go_on()?;
        let told = act(self).with_context(|| format!("step {name}"))?;
        print(&Line::Step {
            name: name.to_owned(),
            sentence: told.sentence,
            figures: told.figures,
            wrong: told.wrong,
        })
    }

    fn admin(&self, words: &[&str]) -> anyhow::Result<Value> {
        let server = self.path("server");
        let mut all = vec!["admin"];
        all.extend_from_slice(words);
        all.extend_from_slice(&["--dir", &server]);
        self.keyfall.ask(&all)
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    fn status(&self, name: &str) -> anyhow::Result<Value> {
        self.keyfall.ask(&["terminal", "status", &self.path(name)])
    }

    /// Two gateways and a van, two groups that overlap in one gateway.
    fn join_networks(&mut self) -> anyhow::Result<Told> {
        let server = self.path("server");
        let desk = format!("{SERVER}:4747");
        self.keyfall.ask(&[
            "server",
            "init",
            &server,
            "--name",
            "demo",
            "--carrier",
            CARRIER,
            "--listen",
            &desk,
            "--address",
            &desk,
        ])?;
        let run = self.keyfall.start("server", &["server", "run", &server])?;
        self.running.insert("server", run);
        wait_for("the server answers", PATIENCE, || {
            let (_, answers) = self
                .keyfall
                .try_ask(&["admin", "status", "--dir", &server])?;
            Ok(answers.then_some(()))
        })?;
        let packages = self.dir.to_string_lossy().into_owned();
        let added = self.admin(&[
            "terminal", "add", "gate-1", "gate-2", "van", "--out", &packages,
        ])?;
        let terminals = added["terminals"].as_array().context("no terminals")?;
        for terminal in terminals {
            let word = |name: &str| terminal[name].as_str().context("half a package");
            let dir = self.path(word("name")?);
            let (package, code) = (word("package")?, word("code")?);
            self.keyfall
                .ask(&["terminal", "enrol", &dir, package, "--code", code])?;
        }
        for (name, prefix, endpoint) in [
            ("gate-1", DEPOT_NET, None),
            ("gate-2", STORE_NET, None),
            ("van", VAN, Some("10.90.0.9:4500")),
        ] {
            let mut set = vec!["terminal", "set", name, "--prefix", prefix];
            if let Some(endpoint) = endpoint {
                set.extend(["--endpoint", endpoint]);
            }
            self.admin(&set)?;
        }
        for (group, one, other, networks) in [
            ("stores", "gate-1", "gate-2", &["192.168.0.0/16"][..]),
            ("fleet", "gate-2", "van", &[STORE_NET, "10.77.0.0/16"]),
        ] {
            let mut create = vec!["group", "create", group, "--packets"];
            create.extend(["--member", one, "--member", other]);
            for network in networks {
                create.extend(["--network", network]);
            }
            self.admin(&create)?;
        }
        for (name, room, words) in [
            (
                "gate-1",
                "gate-1",
                &["--gateway", "in0", "--outside", "out0"][..],
            ),
            (
                "gate-2",
                "gate-2",
                &["--gateway", "in0", "--outside", "out0"],
            ),
            ("van", "van", &["--outside", "out0"]),
        ] {
            let dir = self.path(name);
            let address = OUTSIDE.iter().find(|(its, _)| *its == room);
            let (address, _) = address
                .and_then(|(_, address)| address.split_once('/'))
                .context("no address")?;
            let carrier = CARRIER.replace("10.90.0.254", address);
            let mut all = vec!["terminal", "run", &dir, "--carrier", &carrier];
            all.extend_from_slice(words);
            let run = self.keyfall.start_in(room, name, &all)?;
            self.running.insert(name, run);
        }
        for (name, groups) in [("gate-1", 1), ("gate-2", 2), ("van", 1)] {
            wait_for("a gateway holds its keys", PATIENCE, || {
                for running in self.running.values_mut() {
                    running.still_there()?;
                }
                let (status, answers) =
                    self.keyfall
                        .try_ask(&["terminal", "status", &self.path(name)])?;
                let held = status["groups"].as_array().map_or(0, Vec::len);
                let sends = status["packets"]["state"] == "running";
                Ok((answers && held == groups && sends).then_some(()))
            })?;
        }
        Ok(Told::new(
            "two subnets behind gateways and a van, two groups that overlap; no host knows of \
             Keyfall, no gateway was told of another",
            json!({"gateways": 2, "groups": 2}),
        ))
    }

    /// The first packet of a flow finds the key on its way.
    fn search_and_download(&mut self) -> anyhow::Result<Told> {
        self.outside.take();
        self.behind.take();
        let first = Instant::now();
        let pings = rooms::act_within("depot", || rooms::ping(STORE, 1, Duration::from_millis(1)))?;
        let first = first.elapsed();
        let (page, took) = rooms::act_within("depot", || rooms::download(STORE, PATIENCE))?;
        let whole = page == rooms::document(DOCUMENT);
        let (outside, behind) = (self.outside.take(), self.behind.take());
        let (seen, present) = (rooms::readable(&outside), rooms::readable(&behind));
        let group = self.group_of_flow("gate-1", "192.168.1.2")?;
        let gbps = 8.0 * page.len() as f64 / took.as_secs_f64() / 1e9;
        Ok(Told::new(
            format!(
                "a ping finds gate-2 on its way and its key in {:.0} ms; then {} MiB of plain HTTP come \
                 through at {gbps:.1} Gbit/s under the group \"stores\": readable in {seen} of {} frames \
                 outside, in {present} behind the gateway",
                first.as_secs_f64() * 1e3,
                DOCUMENT >> 20,
                outside.len(),
            ),
            json!({
                "first_ping_answered": pings.answered == 1,
                "first_ping_ms": round(first.as_secs_f64() * 1e3),
                "download_octets": page.len(),
                "download_gbps": round(gbps),
                "frames_outside": outside.len(),
                "readable_outside": seen,
                "readable_behind": present,
                "group": group,
            }),
        )
        .must(group == STORES, "the flow is not under the group that both gateways share")
        .must(pings.answered == 1, "the first ping was lost")
        .must(whole, "the download is not what the store holds")
        .must(!outside.is_empty(), "nobody listened outside")
        .must(seen == 0, "plain text was seen outside")
        .must(present > 0, "the search for plain text finds nothing where it is"))
    }

    /// Keys change while packets pass; none is lost.
    fn change_under_traffic(&mut self) -> anyhow::Result<Told> {
        let before = self.status("gate-1")?;
        let pings = rooms::within("depot", || {
            rooms::ping(STORE, PINGS, Duration::from_millis(2))
        });
        for _ in 0..CHANGES {
            std::thread::sleep(Duration::from_millis(500));
            self.admin(&["renew", "--group", "stores", "--reason", "demo"])?;
        }
        self.admin(&["rekey", "stores", "--reason", "demo"])?;
        let pings = match pings.join() {
            Ok(pings) => pings?,
            Err(_) => anyhow::bail!("the pings ended badly"),
        };
        let after = self.status("gate-1")?;
        let told = self.status("gate-2")?;
        let key = |status: &Value| {
            let group = &status["groups"][0];
            (group["epoch"].clone(), group["fingerprint"].clone())
        };
        let lost = pings.sent - pings.answered;
        Ok(Told::new(
            format!(
                "{CHANGES} renewals and a fresh key under {} pings: {lost} lost",
                pings.sent
            ),
            json!({"changes": CHANGES + 1, "packets": pings.sent, "packets_lost": lost}),
        )
        .must(
            lost == 0,
            &format!(
                "packets were lost: {} and {}",
                after["packets"]["drops"], told["packets"]["drops"]
            ),
        )
        .must(key(&before) != key(&after), "the key did not change"))
    }

    /// gate-1 is stolen.
    fn exclude_a_gateway(&mut self) -> anyhow::Result<Told> {
        let van = rooms::act_within("van", || rooms::download(STORE, PATIENCE))?;
        let began = Instant::now();
        self.admin(&["exclude", "gate-1", "--yes", "--reason", "demo"])?;
        let shut = wait_for("the stolen gateway is shut out", PATIENCE, || {
            let pings =
                rooms::act_within("depot", || rooms::ping(STORE, 1, Duration::from_millis(1)))?;
            Ok((pings.answered == 0).then(|| began.elapsed()))
        })?;
        let again = rooms::act_within("van", || rooms::download(STORE, PATIENCE))?;
        let group = self.group_of_flow("van", "10.77.0.9")?;
        Ok(Told::new(
            format!(
                "gate-1 is stolen: behind it nothing comes through any more after {:.1} s; the van, in \
                 \"fleet\" with gate-2, goes on",
                shut.as_secs_f64()
            ),
            json!({
                "shut_out_ms": round(shut.as_secs_f64() * 1e3),
                "van_goes_on": again.0 == van.0,
                "van_group": group,
            }),
        )
        .must(group == FLEET, "the van's flow is not under the group that it shares with gate-2")
        .must(again.0 == van.0, "the van lost its way to the store"))
    }

    /// The group that protects what `source` sends to the store.
    fn group_of_flow(&self, name: &str, source: &str) -> anyhow::Result<u64> {
        let status = self.status(name)?;
        let flows = status["packets"]["flows"].as_array();
        let ours =
            |flow: &&Value| flow["source"] == source && flow["destination"] == STORE.to_string();
        flows
            .and_then(|flows| flows.iter().find(ours))
            .and_then(|flow| flow["group"].as_u64())
            .with_context(|| format!("{name} protects no flow from {source} to the store"))
    }
}

fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

/// The numbers of the two groups, in the order in which they were made.
const STORES: u64 = 1;
const FLEET: u64 = 2;
const PINGS: u16 = 1000;
const CHANGES: u32 = 3;
