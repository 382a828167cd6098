//! Where a restore makes its files, and how they take the places of the old ones.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::directory::Directory;
use crate::durable::sync_parent;
use crate::restore::RestoreError;

/// The server's directory, and the one in it in which everything is made first.
pub(super) struct Paths {
    pub(super) directory: Directory,
    staging: PathBuf,
    pub(super) database: PathBuf,
    pub(super) journal: PathBuf,
}

impl Paths {
    pub(super) fn of(dir: &Path) -> Result<Self, RestoreError> {
        if !dir.is_dir() {
            return Err(RestoreError::NoDirectory {
                path: dir.to_owned(),
            });
        }
        let staging = dir.join("restoring");
        Ok(Self {
            directory: Directory::closed(dir)?,
            database: staging.join("keyfall.db"),
            journal: staging.join("journal"),
            staging,
        })
    }

    /// Begins anew, whatever a restore that was ended left there.
    pub(super) fn clear(&self) -> Result<(), RestoreError> {
        self.remove_staging()?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.staging)
            .map_err(|e| io_error("make", &self.staging, e))
    }

    /// The backup, with what a plain copy of a database has beside it.
    pub(super) fn stage_copy(&self, from: &Path) -> Result<(), RestoreError> {
        for beside in ["", "-wal"] {
            let (from, to) = (with(from, beside), with(&self.database, beside));
            if beside.is_empty() || from.is_file() {
                fs::copy(&from, &to)
                    .and_then(|_| fs::set_permissions(&to, fs::Permissions::from_mode(0o600)))
                    .map_err(|e| io_error("copy", &from, e))?;
            }
        }
        Ok(())
    }

    /// The first `octets` of a journal.
    pub(super) fn stage_journal(&self, from: &Path, octets: u64) -> Result<(), RestoreError> {
        let mut whole = fs::read(from).map_err(|e| io_error("read", from, e))?;
        whole.truncate(usize::try_from(octets).unwrap_or(usize::MAX));
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.journal)
            .and_then(|mut file| {
                file.write_all(&whole)?;
                file.sync_all()
            })
            .map_err(|e| io_error("write", &self.journal, e))
    }

    /// Puts the new files in place of the old ones, each in one step, and says where those are. The
    /// old write-ahead log goes first: beside another database it would destroy that.
    pub(super) fn swap(&self, journal: bool) -> Result<Option<PathBuf>, RestoreError> {
        let database = self.directory.database();
        let old_journal = self.directory.journal();
        let there = database.exists() || (journal && old_journal.exists());
        let aside = there.then(|| self.aside()).transpose()?;
        if let Some(aside) = &aside {
            for beside in ["-wal", "-shm"] {
                let old = with(&database, beside);
                if old.exists() {
                    move_into(aside, &old, |from, to| fs::rename(from, to))?;
                }
            }
        }
        if journal {
            replace(&old_journal, &self.journal, aside.as_deref())?;
        }
        replace(&database, &self.database, aside.as_deref())?;
        self.remove_staging()?;
        Ok(aside)
    }

    fn remove_staging(&self) -> Result<(), RestoreError> {
        match fs::remove_dir_all(&self.staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &self.staging, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The first `replaced-N` that is free, or that a restore which was ended began to fill.
    fn aside(&self) -> Result<PathBuf, RestoreError> {
        for number in 1_u32.. {
            let aside = self.directory.path().join(format!("replaced-{number}"));
            match fs::DirBuilder::new().mode(0o700).create(&aside) {
                Ok(()) => return Ok(aside),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if !aside.join("keyfall.db").exists() {
                        return Ok(aside);
                    }
                }
                Err(error) => return Err(io_error("make", &aside, error)),
            }
        }
        unreachable!("no directory has 2^32 entries")
    }
}

/// `new` takes the place of `old`, which stays under its name in `aside`.
fn replace(old: &Path, new: &Path, aside: Option<&Path>) -> Result<(), RestoreError> {
    if let (Some(aside), true) = (aside, old.exists()) {
        move_into(aside, old, |from, to| {
            // Of a restore that was ended right here.
            drop(fs::remove_file(to));
            fs::hard_link(from, to)
        })?;
    }
    fs::rename(new, old)
        .and_then(|()| sync_parent(old))
        .map_err(|e| io_error("put in place", old, e))
}

fn move_into(
    aside: &Path,
    file: &Path,
    by: impl Fn(&Path, &Path) -> io::Result<()>,
) -> Result<(), RestoreError> {
    let name = file
        .file_name()
        .expect("every file that is moved has a name");
    let to = aside.join(name);
    by(file, &to)
        .and_then(|()| sync_parent(&to))
        .and_then(|()| sync_parent(file))
        .map_err(|e| io_error("move aside", file, e))
}

fn with(path: &Path, beside: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(beside);
    name.into()
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> RestoreError {
    RestoreError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
