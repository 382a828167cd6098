//! Enrolment: a sealed package becomes a terminal's directory (REQUIREMENTS R-035).

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use keyfall_protocol::calendar::Utc;
use keyfall_protocol::enrolment::{EnrolmentCode, PackageError, RequestKey, SealedPackage};
use keyfall_protocol::ids::{Tick, UnixSeconds};
use keyfall_protocol::keys::Secret;
use keyfall_protocol::rng::Random;
use keyfall_protocol::terminal::{FirstContactError, Output, Terminal};
use keyfall_protocol::token::NotAToken;

use crate::key_store::{KeyStore, KeyStoreError, Protection, UnlockError};
use crate::os_random::OsRandom;

/// Makes `dir` and a fresh request key in it, or reads the one that is there; returns its public
/// half, to which a package can be sealed.
///
/// # Errors
/// [`EnrolmentError`].
pub fn request(dir: &Path) -> Result<[u8; 32], EnrolmentError> {
    refuse_enrolled(dir)?;
    if let Some(key) = read_request_key(dir)? {
        return Ok(key.public());
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io_error("make the directory", dir, error));
        }
        Ok(()) | Err(_) => {}
    }
    let key = RequestKey::from_seed(Secret::init_with(|octets| OsRandom.fill(octets)));
    let path = dir.join(REQUEST_FILE);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| {
            file.write_all(key.seed().expose())?;
            file.sync_all()?;
            // The key is shown next: its name must survive a power cut, too.
            std::fs::File::open(dir)?.sync_all()
        });
    written.map_err(|error| io_error("write", &path, error))?;
    Ok(key.public())
}

/// What an import made.
#[derive(Debug)]
pub struct Enrolled {
    /// To be shown to people; it is stored and not running.
    pub terminal: Terminal,
}

/// Opens a package and makes the terminal in `dir`; its user compartment opens by `protection`, or
/// by the machine.
///
/// # Errors
/// [`EnrolmentError`]; nothing has changed then. [`PackageError::CodeNeeded`] where the package is
/// sealed under a code and none is given: ask for it and call again.
pub fn enrol(
    dir: &Path,
    package: &[u8],
    code: Option<&EnrolmentCode>,
    protection: Option<&Protection>,
) -> Result<Enrolled, EnrolmentError> {
    refuse_enrolled(dir)?;
    let sealed = SealedPackage::decode(package)?;
    let opened = match &sealed {
        SealedPackage::ToRequest { .. } => {
            let key = read_request_key(dir)?;
            sealed.open_with(&key.ok_or(PackageError::RequestKeyNeeded)?)
        }
        SealedPackage::UnderCode { .. } => sealed.open_under(code.ok_or(PackageError::CodeNeeded)?),
    }?;
    // Only where this machine's clock is plausible at all; a terminal may have none.
    let now = wall_clock().filter(|&now| now >= opened.issued_at);
    if let Some(now) = now.filter(|&now| now > opened.expires) {
        return Err(EnrolmentError::Expired {
            expires: opened.expires,
            now,
        });
    }
    let mut terminal = Terminal::enrol(opened, Tick::default())?;
    let Output::Store(_, snapshot) = terminal.poll_output() else {
        unreachable!("a fresh terminal asks for its store first");
    };
    let user = snapshot.user.expect("a fresh terminal is unlocked");
    KeyStore::create(dir, &mut OsRandom, &snapshot.device, &user, protection)?;
    forget_request_key(dir);
    Ok(Enrolled { terminal })
}

/// Why there is no terminal now.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error(
        "the package ended at {} and this device's clock says {}: ask for a new one, or set the \
         clock where it is ahead", Utc(*expires), Utc(*now)
    )]
    Expired {
        expires: UnixSeconds,
        now: UnixSeconds,
    },
    #[error(transparent)]
    Store(#[from] KeyStoreError),
    #[error(transparent)]
    Protection(UnlockError),
    #[error(transparent)]
    Token(#[from] NotAToken),
    #[error(transparent)]
    FirstContact(#[from] FirstContactError),
    #[error(
        "the server has ordered this terminal to delete its keys: nothing was kept here. Look at \
         `keyfall admin audit`, and ask for a new token"
    )]
    TakenBack,
    #[error("cannot reach {server}: {source}; write --server HOST or HOST:PORT")]
    Server { server: String, source: io::Error },
    #[error("{} holds half a request key: remove it and ask anew", path.display())]
    RequestKey { path: PathBuf },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl From<UnlockError> for EnrolmentError {
    fn from(error: UnlockError) -> Self {
        match error {
            UnlockError::Store(error) => Self::Store(error),
            UnlockError::WrongPassphrase { .. }
            | UnlockError::Wiped
            | UnlockError::BoundSecret(_)
            | UnlockError::Memory => Self::Protection(error),
        }
    }
}

/// Before anything is asked or made: a second import in the same place is refused.
pub(crate) fn refuse_enrolled(dir: &Path) -> Result<(), EnrolmentError> {
    match KeyStore::open(dir) {
        Err(KeyStoreError::NotEnrolled { .. }) => Ok(()),
        Err(KeyStoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => {
            // A crash at the end of an enrolment may have left it.
            forget_request_key(dir);
            Err(KeyStoreError::AlreadyExists {
                dir: dir.to_owned(),
            }
            .into())
        }
        Err(error) => Err(error.into()),
    }
}

fn read_request_key(dir: &Path) -> Result<Option<RequestKey>, EnrolmentError> {
    let path = dir.join(REQUEST_FILE);
    let mut file = match OpenOptions::new().read(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", &path, error)),
    };
    Secret::try_init_with(|octets| file.read_exact(octets))
        .map(|seed| Some(RequestKey::from_seed(seed)))
        .map_err(|_| EnrolmentError::RequestKey { path })
}

/// The package opens with it, so it is overwritten in place before its name goes. The terminal is
/// enrolled already: a failure is told and undoes nothing.
pub(crate) fn forget_request_key(dir: &Path) {
    let path = dir.join(REQUEST_FILE);
    let forgotten = match OpenOptions::new().write(true).open(&path) {
        Ok(mut file) => file
            .write_all(&[0; 32])
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::remove_file(&path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = forgotten {
        tracing::warn!(%error, "the request key could not be erased: remove it by hand");
    }
}

fn wall_clock() -> Option<UnixSeconds> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    u32::try_from(since.as_secs()).ok().map(UnixSeconds::new)
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> EnrolmentError {
    EnrolmentError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

pub(crate) const REQUEST_FILE: &str = "request-key";
