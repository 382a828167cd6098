//! A server in a thread of this process, and operators at its socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use keyfall_carrier::{CarrierAddress, MulticastReceiver};
use keyfall_protocol::server::Founding;
use keyfall_server::RunError;
use keyfall_server::journal::JournalError;
use keyfall_server::store::StoreError;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// A founded server directory that goes away with the test.
pub(crate) struct Home {
    _temporary: TempDir,
    pub(crate) dir: PathBuf,
    pub(crate) carrier: CarrierAddress,
}

/// A server that runs in a thread.
pub(crate) struct Served {
    pub(crate) dir: PathBuf,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

impl Home {
    pub(crate) fn founded() -> Self {
        Self::with(Founding::default())
    }

    pub(crate) fn with(founding: Founding) -> Self {
        Self::with_erase_keys(founding, 1)
    }

    pub(crate) fn with_erase_keys(founding: Founding, erase_keys: u8) -> Self {
        let temporary = tempfile::tempdir().expect("a directory");
        let dir = temporary.path().join("fleet");
        let carrier = own_carrier();
        let founding = Founding {
            carriers: vec![carrier.to_string()],
            ..founding
        };
        keyfall_server::init_with(&dir, founding, erase_keys, "test".to_owned()).expect("founded");
        Self {
            _temporary: temporary,
            dir,
            carrier,
        }
    }

    pub(crate) fn serve(&self) -> Served {
        Served::start(&self.dir).expect("the server runs")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Served {
    /// Returns when orders are taken, or with what `run` says.
    pub(crate) fn start(dir: &Path) -> Result<Self, RunError> {
        let locked = |error: &RunError| matches!(error, RunError::Store(error) if is_locked(error));
        when_unlocked(|| Self::start_at_once(dir), locked)
    }

    /// The same, where a lock that is held is an answer.
    pub(crate) fn start_at_once(dir: &Path) -> Result<Self, RunError> {
        let (end, ended) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let path = dir.to_owned();
        let thread = std::thread::spawn(move || {
            runtime().block_on(keyfall_server::run(
                &path,
                || ready.send(()).expect("the test waits"),
                async {
                    ended.await.expect("the test ends it");
                },
            ))
        });
        // The sender is gone without a word where `run` fails.
        if is_ready.recv().is_err() {
            let outcome = thread.join().expect("no panic");
            return Err(outcome.expect_err("it ended before it was ready"));
        }
        Ok(Self {
            dir: dir.to_owned(),
            end: Some(end),
            thread: Some(thread),
        })
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        ask(&self.dir, "GET", path, "").expect("an answer")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, Value) {
        ask(&self.dir, "POST", path, body).expect("an answer")
    }

    /// An order that must be carried out.
    pub(crate) fn order(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, &body.to_string());
        assert_eq!(status, 200, "{path} {body}: {answer}");
        answer
    }

    /// A report that must be there.
    pub(crate) fn report(&self, path: &str) -> Value {
        let (status, answer) = self.get(path);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    pub(crate) fn end(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        if let Some(end) = self.end.take() {
            // Where it ended by a fault, the join tells it.
            end.send(()).unwrap_or_default();
        }
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join().expect("no panic");
            outcome.expect("a clean end");
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.finish();
        }
    }
}

/// What a test opens itself, after the server has ended.
pub(crate) fn opened<T>(open: impl Fn() -> Result<T, StoreError>) -> T {
    when_unlocked(open, is_locked).expect("opens")
}

fn is_locked(error: &StoreError) -> bool {
    matches!(error, StoreError::Journal(JournalError::Locked { .. }))
}

/// A child of another test has our locks too, from its fork until it has become its program.
fn when_unlocked<T, E>(
    open: impl Fn() -> Result<T, E>,
    locked: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match open() {
            Err(error) if locked(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            outcome => return outcome,
        }
    }
}

/// One request on the socket in `dir`: status and document.
pub(crate) fn ask(
    dir: &Path,
    method: &str,
    path: &str,
    body: &str,
) -> std::io::Result<(u16, Value)> {
    let mut stream = UnixStream::connect(dir.join("admin.sock"))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: keyfall\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, document) = answer
        .split_once("\r\n\r\n")
        .ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head
        .get(9..12)
        .and_then(|digits| digits.parse().ok())
        .ok_or(std::io::ErrorKind::InvalidData)?;
    Ok((status, serde_json::from_str(document)?))
}

/// Frames from the carrier, until `enough` of them say so.
pub(crate) fn frames_until(
    carrier: CarrierAddress,
    begin: impl FnOnce(),
    mut enough: impl FnMut(&[u8]) -> bool,
) -> Vec<Vec<u8>> {
    runtime().block_on(async {
        let mut receiver = MulticastReceiver::open(&carrier).expect("a receiver");
        begin();
        let mut frames = Vec::new();
        // Longer than the slowest pace of what a test waits for, a KEYDIST's.
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = tokio::time::timeout(left, receiver.recv())
                .await
                .expect("in time");
            let frame = frame.expect("a frame").to_vec();
            let last = enough(&frame);
            frames.push(frame);
            if last {
                return frames;
            }
        }
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// A multicast group for each test and process, on this machine only.
fn own_carrier() -> CarrierAddress {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let port = 49_000 + NEXT.fetch_add(1, Ordering::Relaxed);
    let [a, b, _, _] = std::process::id().to_le_bytes();
    format!("udp://239.255.{a}.{b}:{port}?if=127.0.0.1&ttl=0")
        .parse()
        .expect("an address")
}
