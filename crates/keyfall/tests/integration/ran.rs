//! One run of the binary.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Ran {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Failed with that exit code and one sentence that has those words and that code; with --json
    /// the same as one document.
    #[track_caller]
    pub(crate) fn refuses(&self, exit: i32, code: &str, words: &str) {
        assert_eq!(self.exit, exit, "{}{}", self.stdout, self.stderr);
        let lines: Vec<_> = self
            .stderr
            .lines()
            .filter(|l| l.starts_with("keyfall: "))
            .collect();
        assert_eq!(lines.len(), 1, "{}", self.stderr);
        assert!(lines[0].contains(words), "{} lacks {words:?}", lines[0]);
        assert!(lines[0].ends_with(&format!("({code})")), "{}", lines[0]);
        assert_eq!(self.stdout, "");
    }

    /// Done, with one JSON document.
    #[track_caller]
    pub(crate) fn document(&self) -> serde_json::Value {
        assert_eq!(self.exit, 0, "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

pub(crate) fn keyfall(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
    keyfall_with(args, b"")
}

/// With that on stdin.
pub(crate) fn keyfall_with(args: impl IntoIterator<Item = impl AsRef<OsStr>>, stdin: &[u8]) -> Ran {
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without having read all.
    drop(child.stdin.take().unwrap().write_all(stdin));
    let output = child.wait_with_output().unwrap();
    Ran {
        exit: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn command(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyfall"));
    command
        .args(args)
        .env_remove("KEYFALL_DIR")
        .env("KEYFALL_LOG", "warn");
    command
}

/// A process that runs until it is dropped.
pub(crate) struct Background(pub(crate) Child);

impl Drop for Background {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            self.0.wait().unwrap();
        }
    }
}

/// Waits until it holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
