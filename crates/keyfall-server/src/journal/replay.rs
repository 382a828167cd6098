//! A journal read from its beginning, for a server that is restored. Nothing is changed by it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use keyfall_protocol::ids::UnixSeconds;

use crate::chain::Link;
use crate::journal::{Entry, Journal, JournalError, TornLine, io_error};

/// What a journal has.
#[derive(Debug)]
pub struct Replayed {
    /// Line 1 first.
    pub lines: Vec<ReplayedLine>,
    /// Octets of these lines.
    pub octets: u64,
    /// A last line without an end: nothing was sent on its word.
    pub torn: Option<TornLine>,
    /// Why the lines after these do not count.
    pub broken: Option<JournalError>,
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayedLine {
    pub at: UnixSeconds,
    pub entry: Entry,
    /// Stands for this line and all before it.
    pub link: Link,
}

/// Reads the journal at `path` as far as it hangs together.
///
/// # Errors
/// [`JournalError::Missing`], [`JournalError::Io`].
pub fn replay(path: &Path) -> Result<Replayed, JournalError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(JournalError::Missing {
                path: path.to_owned(),
            });
        }
        other => other.map_err(|e| io_error("open", path, e))?,
    };
    let mut reader = BufReader::new(file.try_clone().map_err(|e| io_error("open", path, e))?);
    let mut journal = Journal::before_the_first_line(file, path);
    let mut replayed = Replayed {
        lines: Vec::new(),
        octets: 0,
        torn: None,
        broken: None,
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line);
        let octets = read.map_err(|e| io_error("read", path, e))? as u64;
        match line.split_last() {
            None => return Ok(replayed),
            Some((b'\n', line)) => match journal.take_line(line, octets) {
                Ok((at, entry)) => {
                    let link = journal.link();
                    replayed.lines.push(ReplayedLine { at, entry, link });
                    replayed.octets += octets;
                }
                Err(error) => {
                    replayed.broken = Some(error);
                    return Ok(replayed);
                }
            },
            Some(_) => {
                replayed.torn = Some(TornLine {
                    number: journal.number() + 1,
                    octets: line.len(),
                });
                return Ok(replayed);
            }
        }
    }
}
