//! The tamper input: a file that says that the device was opened (REQUIREMENTS R-039).

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

/// A file that a tamper switch makes, or the value of a GPIO line.
#[derive(Debug)]
pub(crate) struct TamperFile {
    path: PathBuf,
    /// Told already.
    unreadable: bool,
}

impl TamperFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            unreadable: false,
        }
    }

    /// Whether it is there and says anything but 0. A file that cannot be read erases nothing: the
    /// log says so.
    pub(crate) fn says_opened(&mut self) -> bool {
        let mut octets = Vec::new();
        let read =
            File::open(&self.path).and_then(|file| file.take(READ_MAX).read_to_end(&mut octets));
        match read {
            Ok(_) => {
                self.unreadable = false;
                octets.trim_ascii() != b"0"
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound && !self.unreadable {
                    self.unreadable = true;
                    tracing::error!(%error, "the tamper input cannot be read");
                }
                false
            }
        }
    }
}

const READ_MAX: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_appears_and_a_line_that_rises_are_tamper() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("tamper");
        let mut file = TamperFile::new(path.clone());
        assert!(!file.says_opened(), "it is not there");
        for (content, opened) in [
            ("0", false),
            ("0\n", false),
            ("1\n", true),
            ("", true),
            ("opened at noon", true),
        ] {
            std::fs::write(&path, content).expect("written");
            assert_eq!(file.says_opened(), opened, "{content:?}");
        }
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("made");
        assert!(!file.says_opened(), "it cannot be read");
    }
}
