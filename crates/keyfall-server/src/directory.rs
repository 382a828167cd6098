//! What stands in a server's directory, and who may look into it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A server's directory: mode 0700, owned by the server's user.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

/// Why a directory is not taken.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error(
        "{} is not empty: name a directory that is new, for `keyfall server init` never writes over \
         anything",
        path.display()
    )]
    NotEmpty { path: PathBuf },
    #[error("{} is not a directory: name one that is new", path.display())]
    NotADirectory { path: PathBuf },
    #[error(
        "there is no server in {}: make one with `keyfall server init {}`",
        path.display(),
        path.display()
    )]
    NoServer { path: PathBuf },
    #[error(
        "{} has mode {mode:04o} and others may look into it: chmod 700 {}",
        path.display(),
        path.display()
    )]
    DirectoryTooOpen { path: PathBuf, mode: u32 },
    #[error(
        "{} has mode {mode:04o} and others may read or change it: chmod 600 {}",
        path.display(),
        path.display()
    )]
    FileTooOpen { path: PathBuf, mode: u32 },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl Directory {
    /// A new directory for a server, or one that is there and empty. Tells whether it was made.
    ///
    /// # Errors
    /// [`DirectoryError::NotEmpty`], [`DirectoryError::NotADirectory`], [`DirectoryError::Io`];
    /// nothing changed then.
    pub(crate) fn make(path: &Path) -> Result<(Self, bool), DirectoryError> {
        let directory = Self {
            path: path.to_owned(),
        };
        let mut builder = fs::DirBuilder::new();
        let made = match builder.mode(0o700).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                directory.take_empty()?;
                false
            }
            Err(error) => return Err(directory.io("make", error)),
        };
        Ok((directory, made))
    }

    /// The directory of a server that `init` made.
    ///
    /// # Errors
    /// [`DirectoryError::NoServer`]; [`DirectoryError::DirectoryTooOpen`] and
    /// [`DirectoryError::FileTooOpen`] where others may look in; [`DirectoryError::Io`].
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let directory = Self::closed(path)?;
        let database = directory.database();
        match directory.mode_of(&database)? {
            None => Err(directory.no_server()),
            Some(mode) if mode & 0o077 != 0 => Err(DirectoryError::FileTooOpen {
                path: database,
                mode,
            }),
            Some(_) => Ok(directory),
        }
    }

    /// A directory that others may not look into, whatever is in it.
    ///
    /// # Errors
    /// [`DirectoryError::NoServer`], [`DirectoryError::DirectoryTooOpen`], [`DirectoryError::Io`].
    pub(crate) fn closed(path: &Path) -> Result<Self, DirectoryError> {
        let directory = Self {
            path: path.to_owned(),
        };
        let Some(mode) = directory.mode_of(path)? else {
            return Err(directory.no_server());
        };
        if mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(DirectoryError::DirectoryTooOpen { path, mode });
        }
        Ok(directory)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.path.join("keyfall.db")
    }

    #[must_use]
    pub fn seal_key(&self) -> PathBuf {
        self.path.join("seal.key")
    }

    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    #[must_use]
    pub fn root_key(&self) -> PathBuf {
        self.path.join("root.key")
    }

    /// `erase.key`, `erase-2.key` and so on.
    #[must_use]
    pub fn erase_key(&self, number: u8) -> PathBuf {
        self.path.join(match number {
            0 | 1 => "erase.key".to_owned(),
            further => format!("erase-{further}.key"),
        })
    }

    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.path.join("admin.sock")
    }

    fn take_empty(&self) -> Result<(), DirectoryError> {
        let mut entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let path = self.path.clone();
                return Err(DirectoryError::NotADirectory { path });
            }
            other => other.map_err(|e| self.io("look into", e))?,
        };
        if entries.next().is_some() {
            let path = self.path.clone();
            return Err(DirectoryError::NotEmpty { path });
        }
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700))
            .map_err(|e| self.io("close to others", e))
    }

    /// Permission bits; `None` where there is nothing.
    fn mode_of(&self, path: &Path) -> Result<Option<u32>, DirectoryError> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.mode() & 0o777)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DirectoryError::Io {
                doing: "look at",
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn no_server(&self) -> DirectoryError {
        DirectoryError::NoServer {
            path: self.path.clone(),
        }
    }

    fn io(&self, doing: &'static str, source: io::Error) -> DirectoryError {
        DirectoryError::Io {
            doing,
            path: self.path.clone(),
            source,
        }
    }
}
