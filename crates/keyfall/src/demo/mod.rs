//! `keyfall demo`: the whole story on this machine, with separate processes, in under a minute.

mod children;
mod ears;
pub(crate) mod lossy;
pub(crate) mod networks;
mod rooms;
mod speech;
mod stage;
mod story;
mod theft;
mod two_ways;
mod wire;

use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::explain::Code;
use crate::output::{Failure, Output};
use stage::Stage;
use story::Told;

/// Show the whole story on this machine: enrol, distribute, call, renew, miss, join late, come back,
/// change the key of a running call, lose two terminals, and what their thief can read; networks
/// behind gateways, where this user may make network namespaces and open /dev/net/tun.
///
/// Needs no root and no network but loopback; ends within a minute; leaves nothing behind.
///
/// Example: keyfall demo --keep recordings
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct DemoArgs {
    /// Keep everything in this new directory: recordings, logs, the server, the terminals.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Write all frames and packages, and the terminals' states at the end, to this file, for other
    /// people's programs.
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
}

/// The JSON document.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    steps: Vec<Step>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Step {
    name: String,
    ok: bool,
    /// Why it could not be played on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
    figures: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    wrong: Vec<String>,
}

pub(crate) fn run(args: &DemoArgs, output: &Output) -> Result<(), Failure> {
    let began = Instant::now();
    let temporary = tempfile::Builder::new()
        .prefix("keyfall-demo-")
        .tempdir()
        .map_err(|fault| Failure::new(Code::Demo, format!("no temporary directory: {fault}")))?;
    let dir = match &args.keep {
        Some(dir) => {
            std::fs::create_dir(dir).map_err(|fault| {
                let sentence = format!("{} cannot be made: {fault}; name a new one", dir.display());
                Failure::new(Code::Demo, sentence)
            })?;
            // Children get it as an argument, wherever they run.
            dir.canonicalize().unwrap_or_else(|_| dir.clone())
        }
        None => temporary.path().to_owned(),
    };
    let mut teller = Teller {
        output,
        steps: Vec::new(),
    };
    let told = tell(&dir, args, &mut teller);
    let seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    let ok = told.is_ok() && teller.steps.iter().all(|step| step.ok);
    let report = Report {
        ok,
        steps: teller.steps,
        seconds,
    };
    let wrong = report
        .steps
        .iter()
        .flat_map(|step| step.wrong.clone())
        .next();
    let broken = told.err().map(|fault| format!("{fault:#}")).or(wrong);
    if output.is_json() {
        // The exit code tells; the document is this one, also where a step failed.
        output.result(&report, |_| String::new())?;
        return if ok {
            Ok(())
        } else {
            Err(Failure::told(Code::Demo))
        };
    }
    match broken {
        None => output.text(&summary(&report, args)),
        Some(fault) => Err(Failure::new(
            Code::Demo,
            format!("the demo did not go as it must: {fault}"),
        )),
    }
}

fn tell(dir: &std::path::Path, args: &DemoArgs, teller: &mut Teller<'_>) -> anyhow::Result<()> {
    children::mind_signals()?;
    let mut stage = Stage::set(dir)?;
    teller.step("enrol", || stage.enrol())?;
    teller.step("distribute", || stage.distribute())?;
    let [call, renew] = teller.hold("call", || stage.call_and_renew().map(|(a, b)| [a, b]))?;
    teller.told("call", call)?;
    teller.told("renew", renew)?;
    teller.step("token", || stage.enrol_dave())?;
    teller.step("miss", || stage.miss_and_catch_up())?;
    let [caught, rederive, late] = teller.hold("catch up", || {
        stage.second_call().map(|(a, b, c)| [a, b, c])
    })?;
    teller.told("catch up", caught)?;
    teller.told("re-derive", rederive)?;
    teller.told("join late", late)?;
    let watch = stage.begin_watch().context("step validity")?;
    teller.step("come back", || stage.come_back())?;
    teller.step("hitless", || stage.change_hitless())?;
    teller.step("barrier", || stage.change_at_a_barrier())?;
    teller.step("validity", || stage.renew_by_validity(&watch))?;
    let mut loss = theft::Loss::default();
    teller.step("delete", || stage.delete_dave(&mut loss))?;
    teller.step("exclude", || stage.exclude_bob(&mut loss))?;
    teller.step("thief", || stage.thief(&loss))?;
    networks::tell(&stage.keyfall, dir, teller)?;
    if let Some(file) = &args.capture {
        let capture = stage.capture()?.to_string();
        // Packages with their codes: for the eyes of whoever asked for it.
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(file)
            .and_then(|mut file| file.write_all(capture.as_bytes()))
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

/// Prints each step as it ends; on a terminal also the one that runs.
struct Teller<'o> {
    output: &'o Output,
    steps: Vec<Step>,
}

impl Teller<'_> {
    fn step(
        &mut self,
        name: &'static str,
        act: impl FnOnce() -> anyhow::Result<Told>,
    ) -> anyhow::Result<()> {
        let [told] = self.hold(name, || act().map(|told| [told]))?;
        self.told(name, told)
    }

    /// Runs what several steps share.
    fn hold<const N: usize>(
        &mut self,
        name: &'static str,
        act: impl FnOnce() -> anyhow::Result<[Told; N]>,
    ) -> anyhow::Result<[Told; N]> {
        children::go_on()?;
        self.now(&format!("  …  {name}"))?;
        let told = act();
        self.now("")?;
        if told.is_err() {
            self.failed(name);
        }
        told.with_context(|| format!("step {name}"))
    }

    fn failed(&mut self, name: &str) {
        self.steps.push(Step {
            name: name.to_owned(),
            ok: false,
            skipped: None,
            figures: Map::new(),
            wrong: Vec::new(),
        });
    }

    /// A step that cannot be played on this machine is no fault.
    fn skipped(&mut self, name: &str, because: &str) -> anyhow::Result<()> {
        self.now("")?;
        if !self.output.is_json() {
            self.print(&format!("  --  {name:<11} skipped: {because}"))?;
        }
        self.steps.push(Step {
            name: name.to_owned(),
            ok: true,
            skipped: Some(because.to_owned()),
            figures: Map::new(),
            wrong: Vec::new(),
        });
        Ok(())
    }

    fn told(&mut self, name: &str, told: Told) -> anyhow::Result<()> {
        let ok = told.wrong.is_empty();
        if !self.output.is_json() {
            let sign = if ok { "ok" } else { "NO" };
            self.print(&format!("  {sign}  {name:<11} {}", told.sentence))?;
            for wrong in &told.wrong {
                self.print(&format!("      {:<11} {wrong}", ""))?;
            }
        }
        self.steps.push(Step {
            name: name.to_owned(),
            ok,
            skipped: None,
            figures: told.figures,
            wrong: told.wrong,
        });
        Ok(())
    }

    fn print(&self, line: &str) -> anyhow::Result<()> {
        self.output
            .text(line)
            .map_err(|_| anyhow::anyhow!("nobody reads"))
    }

    /// The line of what runs now, taken away again by the next.
    fn now(&self, line: &str) -> anyhow::Result<()> {
        let mut stderr = std::io::stderr();
        if stderr.is_terminal() && !self.output.is_json() {
            write!(stderr, "\r\x1b[K{line}")?;
            stderr.flush()?;
        }
        Ok(())
    }
}

fn summary(report: &Report, args: &DemoArgs) -> String {
    let kept = args.keep.as_ref().map_or_else(
        || "Nothing was left behind; `keyfall demo --keep DIR` keeps the recordings.".to_owned(),
        |dir| {
            format!(
                "Listen to {0}/said.wav, {0}/bob-heard.wav and {0}/air.wav.",
                dir.display()
            )
        },
    );
    format!(
        "\n{} steps in {:.0} s. alice, bob and carol never sent a word to the server: their keys came \
         over a link\nthat only goes one way. dave asked; same keys, same commands.\n{kept}\n\nTry next:\n  keyfall server init fleet --carrier \
         'udp://239.255.70.77:47700?if=127.0.0.1'\n  keyfall attack\n  keyfall terminal --help\n  keyfall explain KF-2003",
        report.steps.len(),
        report.seconds,
    )
}
