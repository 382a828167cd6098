//! This program's side of a terminal's control socket.

use std::future::Future;
use std::io;
use std::path::Path;

use keyfall_api::control::{Answer, ControlError, Refusal, Request};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{SignalKind, signal};

use crate::explain::Code;
use crate::output::Failure;
use crate::terminal::small_runtime;

/// One request, one answer; an error that the terminal answers is this command's.
pub(crate) fn ask(dir: &Path, request: &Request) -> Result<Answer, Failure> {
    small_runtime()?.block_on(async {
        let mut control = Control::connect(dir).await?;
        control.say(request).await?;
        control.hear().await
    })
}

/// A connection to a running terminal.
pub(crate) struct Control {
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
    line: Vec<u8>,
}

impl Control {
    pub(crate) async fn connect(dir: &Path) -> Result<Self, Failure> {
        let socket = keyfall_terminal::socket_path(dir);
        let stream = UnixStream::connect(&socket).await.map_err(|error| {
            let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
            if nobody.contains(&error.kind()) {
                let dir = dir.display();
                let sentence = format!(
                    "no terminal runs in {dir}: start it with `keyfall terminal run {dir}`"
                );
                return Failure::new(Code::TerminalNotRunning, sentence);
            }
            let sentence = format!("cannot reach {}: {error}", socket.display());
            Failure::new(Code::ControlSocket, sentence)
        })?;
        let (read, to) = stream.into_split();
        Ok(Self {
            from: BufReader::new(read),
            to,
            line: Vec::new(),
        })
    }

    pub(crate) async fn say(&mut self, request: &Request) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(request)
            .map_err(|error| Failure::new(Code::Unexpected, error.to_string()))?;
        line.push(b'\n');
        self.to
            .write_all(&line)
            .await
            .map_err(|error| broken(&error.to_string()))
    }

    /// The next answer. Nothing is lost where the future is dropped.
    pub(crate) async fn hear(&mut self) -> Result<Answer, Failure> {
        let read = self.from.read_until(b'\n', &mut self.line).await;
        read.map_err(|error| broken(&error.to_string()))?;
        if self.line.last() != Some(&b'\n') {
            return Err(broken("it ended"));
        }
        let line = std::mem::take(&mut self.line);
        match serde_json::from_slice(&line) {
            Ok(Answer::Error(error)) => Err(refused(error)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(broken(&format!(
                "it says what this version does not know: {error}"
            ))),
        }
    }
}

/// Completes at Ctrl-C or SIGTERM.
pub(crate) fn interrupted() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(
                Code::Unexpected,
                format!("cannot listen for signals: {error}"),
            )
        })
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// The terminal answered something else than what was asked.
pub(crate) fn unexpected() -> Failure {
    broken("it answers something else")
}

fn refused(error: ControlError) -> Failure {
    let code = match error.refusal {
        Refusal::BadRequest => Code::BadArguments,
        Refusal::NotAMember => Code::NotAMember,
        Refusal::Address => Code::MediaAddress,
        Refusal::NoSuchRelay => Code::NoSuchRelay,
        Refusal::TooMany => Code::TooMany,
        Refusal::Taken => Code::Taken,
        Refusal::Locked => Code::TerminalLocked,
        Refusal::LockedByServer => Code::LockedByServer,
        Refusal::WrongPassphrase => Code::WrongPassphrase,
        Refusal::BadPassphrase => Code::BadPassphrase,
        Refusal::NotProtected => Code::NotProtected,
        Refusal::Deleted => Code::Deleted,
        Refusal::NoWay => Code::NoWay,
    };
    Failure::new(code, error.sentence)
}

fn broken(what: &str) -> Failure {
    let sentence = format!("the connection to the terminal broke: {what}; look at its log");
    Failure::new(Code::ControlSocket, sentence)
}
