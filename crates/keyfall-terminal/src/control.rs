//! The control socket: JSON lines in, JSON lines out, one task a connection. What is asked goes to
//! the driver; what it answers comes back by the client's own channel.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keyfall_api::control::{Answer, ControlError, Refusal, Request};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::driver::Waking;

/// The name of the socket in a terminal's directory.
pub const SOCKET_NAME: &str = "control.sock";

/// Where the control socket of the terminal in `dir` is.
#[must_use]
pub fn socket_path(dir: &Path) -> PathBuf {
    dir.join(SOCKET_NAME)
}

/// Who asked.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) id: ClientId,
    answers: mpsc::Sender<Answer>,
}

/// Names a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ClientId(u64);

impl Client {
    /// Never waits: whoever does not read loses progress, and then its connection.
    pub(crate) fn tell(&self, answer: Answer) {
        if self.answers.try_send(answer).is_err() {
            tracing::debug!("a client of the control socket does not read");
        }
    }

    pub(crate) fn refuse(&self, refusal: Refusal, sentence: String) {
        self.tell(error(refusal, sentence));
    }
}

/// The open socket; dropping it ends every connection and removes the name.
pub(crate) struct Door {
    path: PathBuf,
    listening: JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.listening.abort();
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket was removed by others");
        }
    }
}

/// Listens at `path`. The caller holds the lock of the directory, so what is there is a leftover.
pub(crate) fn open(path: &Path, wakings: mpsc::Sender<Waking>) -> io::Result<Door> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    // The directory is for its owner only from the start; this says it of the socket, too.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Door {
        path: path.to_owned(),
        listening: tokio::spawn(listen(listener, wakings)),
    })
}

async fn listen(listener: UnixListener, wakings: mpsc::Sender<Waking>) {
    let seats = Arc::new(Semaphore::new(CLIENTS_MAX));
    for id in 0.. {
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(error) => {
                    tracing::warn!(%error, "the control socket takes no connection");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        };
        let wakings = wakings.clone();
        let seat = Arc::clone(&seats).try_acquire_owned();
        tokio::spawn(async move {
            let Ok(_seat) = seat else {
                return refuse(stream).await;
            };
            converse(ClientId(id), stream, &wakings).await;
        });
    }
}

async fn refuse(mut stream: UnixStream) {
    let sentence = format!("{CLIENTS_MAX} programs are connected already: end one of them");
    let line = line_of(&error(Refusal::TooMany, sentence));
    drop(stream.write_all(&line).await);
}

/// Until either side hangs up, or what comes is no request. What was asked before is answered still:
/// a script may close its writing side and wait.
async fn converse(id: ClientId, stream: UnixStream, wakings: &mpsc::Sender<Waking>) {
    let (read, mut write) = stream.into_split();
    let mut lines = Lines {
        from: BufReader::with_capacity(LINE_BUFFER, read),
        line: Vec::new(),
    };
    let (answers, mut answered) = mpsc::channel(ANSWERS_MAX);
    let client = Client { id, answers };
    let outcome = talk(&mut lines, &mut write, &client, &mut answered, wakings).await;
    // The driver may be gone already.
    drop(wakings.send(Waking::HungUp(id)).await);
    drop(client);
    if outcome.is_ok() {
        while let Some(answer) = answered.recv().await {
            if say(&mut write, &answer).await.is_err() {
                return;
            }
        }
    }
}

/// Requests in, answers out; an error where nobody reads any more.
async fn talk(
    lines: &mut Lines,
    write: &mut OwnedWriteHalf,
    client: &Client,
    answered: &mut mpsc::Receiver<Answer>,
    wakings: &mpsc::Sender<Waking>,
) -> io::Result<()> {
    loop {
        tokio::select! {
            request = lines.next() => match request {
                Ok(Some(request)) => {
                    let client = client.clone();
                    if wakings.send(Waking::Asked { client, request }).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(None) => return Ok(()),
                Err(sentence) => {
                    return say(write, &error(Refusal::BadRequest, sentence)).await;
                }
            },
            Some(answer) = answered.recv() => say(write, &answer).await?,
        }
    }
}

async fn say(write: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    write.write_all(&line_of(answer)).await
}

fn line_of(answer: &Answer) -> Vec<u8> {
    let mut line = serde_json::to_vec(answer).expect("answers are maps with text keys");
    line.push(b'\n');
    line
}

fn error(refusal: Refusal, sentence: String) -> Answer {
    Answer::Error(ControlError { refusal, sentence })
}

/// Requests, one a line.
struct Lines {
    from: BufReader<OwnedReadHalf>,
    /// The part of a line that has come.
    line: Vec<u8>,
}

impl Lines {
    /// The next request; `None` at the end. Nothing is lost where the future is dropped.
    async fn next(&mut self) -> Result<Option<Request>, String> {
        loop {
            let came = self.from.fill_buf().await;
            let came = came.map_err(|error| format!("the connection broke: {error}"))?;
            if came.is_empty() {
                return if self.line.is_empty() {
                    Ok(None)
                } else {
                    Err("the connection ended in the middle of a line".into())
                };
            }
            let end = came.iter().position(|&octet| octet == b'\n');
            let used = end.map_or(came.len(), |end| end + 1);
            if self.line.len() + used > LINE_MAX {
                return Err(format!(
                    "a request is one line of at most {LINE_MAX} octets"
                ));
            }
            self.line.extend_from_slice(&came[..used]);
            self.from.consume(used);
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                let request = serde_json::from_slice(&line);
                return request
                    .map(Some)
                    .map_err(|error| format!("that line is no request: {error}"));
            }
        }
    }
}

const CLIENTS_MAX: usize = 64;
const LINE_MAX: usize = 16 * 1024;
const LINE_BUFFER: usize = 2 * 1024;
const ANSWERS_MAX: usize = 16;
