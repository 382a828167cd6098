//! The demo's processes: this same binary, started as anybody would start it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

/// This binary, and where its processes write their logs.
#[derive(Clone, Debug)]
pub(super) struct Keyfall {
    binary: PathBuf,
    logs: PathBuf,
}

/// A process that ends with the demo.
#[derive(Debug)]
pub(super) struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

/// A process that tells on its stdout.
#[derive(Debug)]
pub(super) struct Teller {
    running: Running,
    told: BufReader<ChildStdout>,
}

/// The lossy relay and the line to it.
#[derive(Debug)]
pub(super) struct Radio {
    _running: Running,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Keyfall {
    pub(super) fn new(logs: &Path) -> anyhow::Result<Self> {
        let binary = std::env::current_exe().context("this program does not know its own file")?;
        std::fs::create_dir_all(logs).context("no directory for logs")?;
        Ok(Self {
            binary,
            logs: logs.to_owned(),
        })
    }

    /// Runs a command to its end; its JSON document, or its own sentence as the error.
    pub(super) fn ask(&self, words: &[&str]) -> anyhow::Result<Value> {
        let (document, ok) = self.try_ask(words)?;
        ensure!(ok, "`keyfall {}`: {}", words.join(" "), sentence(&document));
        Ok(document)
    }

    /// Runs a command that may be refused: its JSON document and whether it exited with 0.
    pub(super) fn try_ask(&self, words: &[&str]) -> anyhow::Result<(Value, bool)> {
        let run = Command::new(&self.binary)
            .arg("--json")
            .args(words)
            .env_remove("KEYFALL_DIR")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("`keyfall {}` does not start", words.join(" ")))?;
        let document = serde_json::from_slice(&run.stdout).with_context(|| {
            let told = String::from_utf8_lossy(&run.stderr);
            format!(
                "`keyfall {}` printed no JSON document: {told}",
                words.join(" ")
            )
        })?;
        Ok((document, run.status.success()))
    }

    /// Starts a command that stays in front until the demo ends it.
    pub(super) fn start(&self, name: &str, words: &[&str]) -> anyhow::Result<Running> {
        let log = self.logs.join(format!("{name}.log"));
        let child = self
            .command(words, &log)?
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let child = child.with_context(|| format!("{name} does not start"))?;
        Ok(Running {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// The same in a network namespace that `ip` knows by the name `room`.
    pub(super) fn start_in(
        &self,
        room: &str,
        name: &str,
        words: &[&str],
    ) -> anyhow::Result<Running> {
        let log = self.logs.join(format!("{name}.log"));
        let stderr = std::fs::File::create(&log).context("no log file")?;
        let child = Command::new("ip")
            .args(["netns", "exec", room])
            .arg(&self.binary)
            .args(words)
            .env_remove("KEYFALL_DIR")
            .stderr(stderr)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let child = child.with_context(|| format!("{name} does not start"))?;
        Ok(Running {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Starts a command in a new network namespace in which it may make others, which end with it:
    /// nobody outside sees them. Without root it is root of a user namespace.
    pub(super) fn start_in_new_rooms(&self, name: &str, words: &[&str]) -> anyhow::Result<Teller> {
        let log = self.logs.join(format!("{name}.log"));
        let stderr = std::fs::File::create(&log).context("no log file")?;
        let is_root = rustix::process::geteuid().is_root();
        let mut child = Command::new("unshare")
            .args(if is_root { &["-nm"][..] } else { &["-Urnm"] })
            .args(["--", "sh", "-c"])
            .arg("mount -t tmpfs tmpfs /run && exec \"$0\" \"$@\"")
            .arg(&self.binary)
            .args(words)
            .env_remove("KEYFALL_DIR")
            .stderr(stderr)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("`unshare` does not start: it is in Debian's package util-linux")?;
        let told = child.stdout.take().context("a child without a stdout")?;
        let running = Running {
            name: name.to_owned(),
            child,
            log,
        };
        Ok(Teller {
            running,
            told: BufReader::new(told),
        })
    }

    /// Starts the lossy relay.
    pub(super) fn start_radio(&self, words: &[&str]) -> anyhow::Result<Radio> {
        let log = self.logs.join("radio.log");
        let mut child = self
            .command(words, &log)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the lossy relay does not start")?;
        let orders = child.stdin.take().context("the lossy relay has no stdin")?;
        let answers = child
            .stdout
            .take()
            .context("the lossy relay has no stdout")?;
        let running = Running {
            name: "the lossy relay".to_owned(),
            child,
            log,
        };
        Ok(Radio {
            _running: running,
            orders,
            answers: BufReader::new(answers),
        })
    }

    fn command(&self, words: &[&str], log: &Path) -> anyhow::Result<Command> {
        let stderr = std::fs::File::create(log).context("no log file")?;
        let mut command = Command::new(&self.binary);
        command.args(words).env_remove("KEYFALL_DIR").stderr(stderr);
        Ok(command)
    }
}

impl Running {
    /// An error with the end of its log where the process has ended by itself.
    pub(super) fn still_there(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait().context("a process is lost")? {
            bail!("{}", self.last_words(&status));
        }
        Ok(())
    }

    fn last_words(&self, status: &ExitStatus) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or("it said nothing");
        format!("{} ended ({status}): {last}", self.name)
    }

    /// Ends it as Ctrl-C would, and waits for it.
    pub(super) fn interrupt(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let asked = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .is_some_and(|pid| kill_process(pid, Signal::INT).is_ok());
        let patience = Instant::now() + Duration::from_secs(3);
        if asked {
            while Instant::now() < patience {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        // It did not listen; nothing of the demo may stay behind.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(|_| ()).unwrap_or_default();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

impl Teller {
    /// The next line; `None` when it has told all and ended well.
    pub(super) fn line(&mut self) -> anyhow::Result<Option<String>> {
        let mut line = String::new();
        if self.told.read_line(&mut line).context("nothing readable")? > 0 {
            return Ok(Some(line));
        }
        let ended = self.running.child.wait().context("a process is lost")?;
        ensure!(ended.success(), "{}", self.running.last_words(&ended));
        Ok(None)
    }
}

impl Radio {
    /// From now on `name` hears nothing.
    pub(super) fn cut(&mut self, name: &str) -> anyhow::Result<()> {
        self.order(&format!("cut {name}"))
    }

    /// From now on `name` hears again.
    pub(super) fn join(&mut self, name: &str) -> anyhow::Result<()> {
        self.order(&format!("join {name}"))
    }

    fn order(&mut self, line: &str) -> anyhow::Result<()> {
        writeln!(self.orders, "{line}").context("the lossy relay is gone")?;
        self.orders.flush().context("the lossy relay is gone")?;
        let mut answer = String::new();
        self.answers
            .read_line(&mut answer)
            .context("the lossy relay is gone")?;
        ensure!(
            answer.trim_end() == line,
            "the lossy relay answered {answer:?}"
        );
        Ok(())
    }
}

/// Waits until `done` gives something, looking every 20 ms.
pub(super) fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut done: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let until = Instant::now() + patience;
    loop {
        go_on()?;
        if let Some(found) = done()? {
            return Ok(found);
        }
        ensure!(
            Instant::now() < until,
            "{what}: not within {} s",
            patience.as_secs()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

static ENDED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C and SIGTERM end the demo as an error does: processes and directory go.
pub(super) fn mind_signals() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (ready, minded) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime.block_on(async {
            let signals = signal(SignalKind::interrupt()).and_then(|interrupt| {
                let terminate = signal(SignalKind::terminate())?;
                Ok((interrupt, terminate))
            });
            let outcome = signals.as_ref().map(|_| ()).map_err(ToString::to_string);
            // The other end is gone only where the demo has ended.
            ready.send(outcome).unwrap_or_default();
            if let Ok((mut interrupt, mut terminate)) = signals {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                ENDED.store(true, Ordering::SeqCst);
            }
        });
    });
    let outcome = minded.recv().context("the thread for signals is gone")?;
    outcome.map_err(|fault| anyhow::anyhow!("signals cannot be minded: {fault}"))
}

/// An error where somebody has ended the demo.
pub(super) fn go_on() -> anyhow::Result<()> {
    ensure!(!ENDED.load(Ordering::SeqCst), "it was ended from outside");
    Ok(())
}

/// What a failed command says.
pub(super) fn sentence(document: &Value) -> String {
    document["sentence"]
        .as_str()
        .map_or_else(|| document.to_string(), str::to_owned)
}
