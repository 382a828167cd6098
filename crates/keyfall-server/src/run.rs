//! `server run`: store, driver and admin API together, until they are told to end.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyfall_protocol::ApiMisuse;
use keyfall_protocol::ids::UnixSeconds;
use keyfall_protocol::server::AuditEntry;

use crate::answering::Doors;
use crate::clock;
use crate::directory::{Directory, DirectoryError};
use crate::driver;
use crate::http;
use crate::store::{Recovered, State, Store, StoreError};

/// Why a server does not run, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the clock of this machine stands at {now}, before the KEYSET of this server was signed \
         ({signed}): set the clock"
    )]
    ClockBehind {
        now: UnixSeconds,
        signed: UnixSeconds,
    },
    #[error("cannot listen on {}: {source}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("cannot answer terminals at {address}: {source}")]
    Listen { address: String, source: io::Error },
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    #[error("a fault in this program: {0}")]
    Misuse(#[from] ApiMisuse),
    #[error("a fault in this program ended the driver; the lines before this one say where")]
    DriverPanicked,
}

/// Runs the server in `path` until `end`; `ready` is called when orders are taken. Everything is
/// stored at every moment; ending only closes.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    path: &Path,
    ready: impl FnOnce(),
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    let directory = Directory::open(path)?;
    let (mut store, state, recovered) = opened(&directory)?;
    store.note(&started(clock::wall(), &recovered))?;

    let socket = directory.admin_socket();
    let io_error = |source| RunError::Socket {
        path: socket.clone(),
        source,
    };
    let own_uid = fs::metadata(directory.database()).map_err(io_error)?.uid();
    let listener = http::listen(&socket).map_err(io_error)?;
    let listen = state.fleet.listen.clone();
    let doors =
        Doors::open(&listen).map_err(|(address, source)| RunError::Listen { address, source })?;
    let driver = driver::start(state, store, doors).map_err(RunError::Thread)?;
    tracing::info!(path = %directory.path().display(), "the server runs");
    ready();

    // The driver ends by itself only where this program is at fault.
    let (closing, closed) = tokio::sync::oneshot::channel::<()>();
    let until = async move {
        tokio::select! {
            () = end => {}
            _ = driver.ended => {}
        }
        drop(closing);
    };
    let database = directory.database();
    let served = tokio::select! {
        served = http::serve(listener, driver.handle.clone(), &database, own_uid, until) => served,
        () = patience(closed) => Ok(()),
    };
    // While the directory is still locked: the next process makes its own. It may be gone already.
    drop(fs::remove_file(&socket));
    driver.handle.end();
    let outcome = driver.thread.join();
    tracing::info!("the server has ended");
    served.map_err(io_error)?;
    Ok(outcome.map_err(|_| RunError::DriverPanicked)??)
}

/// The store of a server that nobody else runs, and what is in it.
///
/// # Errors
/// [`RunError`].
pub(crate) fn opened(directory: &Directory) -> Result<(Store, State, Recovered), RunError> {
    let (store, recovered) = Store::open(directory)?;
    let state = store.load()?;
    let (now, signed) = (clock::wall(), state.fleet.key_set.issued_at);
    if now < signed {
        return Err(RunError::ClockBehind { now, signed });
    }
    say_recovered(&recovered);
    Ok((store, state, recovered))
}

/// How long open requests may take to come to their end: a half request must not keep a server up.
async fn patience(closed: tokio::sync::oneshot::Receiver<()>) {
    drop(closed.await);
    tokio::time::sleep(Duration::from_secs(5)).await;
}

fn say_recovered(recovered: &Recovered) {
    if let Some(torn) = recovered.torn {
        tracing::warn!(
            entry = torn.number,
            octets = torn.octets,
            "a crash cut off the last line of the order journal; nothing was sent on its word"
        );
    }
    if let Some(entry) = recovered.void {
        tracing::warn!(
            entry,
            "a crash came between the order journal and the database; that order was not carried out"
        );
    }
}

fn started(at: UnixSeconds, recovered: &Recovered) -> AuditEntry {
    AuditEntry {
        at,
        actor: "server".to_owned(),
        action: "server run",
        subject: "server".to_owned(),
        outcome: match recovered.void {
            Some(entry) => format!("started; order journal entry {entry} was not carried out"),
            None => "started".to_owned(),
        },
        reason: None,
        ticket: None,
    }
}
