//! The admin API on its Unix socket: who may speak, what a path takes, what it answers.
//!
//! The types are those of [`keyfall_api::admin`]; what is done is in [`crate::admin`].

mod error;
mod peer;
mod read;
mod routes;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tokio::net::UnixListener;

use crate::driver::Handle;
pub(crate) use error::Refused;
use peer::Peer;

/// Listens on `path`, which only the server's user may open. What an ended server left there is
/// replaced: the caller holds the lock of the directory.
///
/// # Errors
/// Where the system refuses, as for a path of more than 107 octets.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until `end`, then lets open requests come to their end.
///
/// # Errors
/// Where the socket breaks.
pub(crate) async fn serve(
    listener: UnixListener,
    driver: Handle,
    database: &Path,
    own_uid: u32,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let service = routes::routes(driver, database.to_owned(), own_uid)
        .into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, service)
        .with_graceful_shutdown(end)
        .await
}
