//! The program `ip`, which every system with such interfaces has.

use std::fs;
use std::net::IpAddr;

use keyfall_protocol::command::Prefix;

/// Why the system was not set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    #[error("`ip {arguments}` could not be run: {source}; install iproute2")]
    NoProgram {
        arguments: String,
        source: std::io::Error,
    },
    #[error("`ip {arguments}` was refused: {answer}")]
    Refused { arguments: String, answer: String },
    #[error("the multicast {0} of a group could not be joined: {1}")]
    Multicast(IpAddr, #[source] std::io::Error),
    #[error(
        "unprotected packets come in for protected addresses of this machine: {0}; install nftables, \
         or close them yourself"
    )]
    Unprotected(String),
    #[error(
        "multicast is not passed on between the segment and the tunnel: {0}; it needs CAP_NET_RAW \
         besides CAP_NET_ADMIN"
    )]
    Segment(#[source] std::io::Error),
    #[error("{path} could not be written: {source}")]
    Switch {
        path: String,
        source: std::io::Error,
    },
}

/// What the system refused, in sentences.
#[derive(Default)]
pub(super) struct Refused(pub(super) Vec<String>);

pub(super) fn families() -> impl Iterator<Item = &'static str> {
    let v6 = fs::exists("/proc/sys/net/ipv6").unwrap_or(false);
    ["-4", "-6"].into_iter().take(if v6 { 2 } else { 1 })
}

pub(super) fn is_of(family: &str, prefix: &Prefix) -> bool {
    prefix.address().is_ipv6() == (family == "-6")
}

pub(super) fn value_of<'a>(shown: &'a str, key: &str) -> Option<&'a str> {
    shown.split_whitespace().skip_while(|&it| it != key).nth(1)
}

/// What is to go may be gone.
pub(super) fn undo(arguments: &[&str]) {
    if let Err(error) = ip(arguments) {
        tracing::debug!(%error, "there was nothing to take back");
    }
}

impl Refused {
    /// Whether it was taken.
    pub(super) fn note<T>(&mut self, outcome: Result<T, HostError>) -> bool {
        if let Err(error) = &outcome
            && self.0.len() < TOLD_MAX
        {
            self.0.push(error.to_string());
        }
        outcome.is_ok()
    }
}

/// The subnets of an interface.
pub(super) fn attached(interface: &str) -> Vec<Prefix> {
    let of = addressed(Some(interface)).into_iter();
    of.filter_map(|(_, address, length)| Prefix::around(address, length))
        .collect()
}

/// Addresses of an interface, or of all, with the interface and the length of the subnet.
pub(super) fn addressed(interface: Option<&str>) -> Vec<(String, IpAddr, u8)> {
    let mut arguments = vec!["-o", "address", "show"];
    arguments.extend(interface.iter().flat_map(|it| ["dev", it]));
    let shown = ip(&arguments).unwrap_or_default();
    let read = |line: &str| {
        let device = line.split_whitespace().nth(1)?;
        let (address, length) = value_of(line, "inet")
            .or_else(|| value_of(line, "inet6"))?
            .split_once('/')?;
        Some((
            device.to_owned(),
            address.parse().ok()?,
            length.parse().ok()?,
        ))
    };
    shown.lines().filter_map(read).collect()
}

/// What it prints.
pub(super) fn ip(arguments: &[&str]) -> Result<String, HostError> {
    let text = || arguments.join(" ");
    let outcome = run("ip", arguments, "");
    let outcome = outcome.map_err(|source| HostError::NoProgram {
        arguments: text(),
        source,
    })?;
    if outcome.status.success() {
        return Ok(String::from_utf8_lossy(&outcome.stdout).into_owned());
    }
    let answer = String::from_utf8_lossy(&outcome.stderr);
    Err(HostError::Refused {
        arguments: text(),
        answer: answer.trim().to_owned(),
    })
}

#[cfg(test)]
pub(super) use refusing::run;
#[cfg(not(test))]
pub(super) use running::run;

#[cfg(not(test))]
mod running {
    use std::io::{self, Write};
    use std::process::{Command, Output, Stdio};

    /// What a program says that reads `input`.
    pub(in crate::packet_path) fn run(
        program: &str,
        arguments: &[&str],
        input: &str,
    ) -> io::Result<Output> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut reads) = child.stdin.take() {
            // What does not read it says why.
            drop(reads.write_all(input.as_bytes()));
        }
        child.wait_with_output()
    }
}

/// Sentences about what was refused; with more nobody sees the first.
const TOLD_MAX: usize = 4;

/// A system that refuses everything, and remembers what it was told.
#[cfg(test)]
pub(super) mod refusing {
    use std::cell::RefCell;
    use std::io;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{ExitStatus, Output};

    thread_local! {
        static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    pub(in crate::packet_path) fn run(
        program: &str,
        arguments: &[&str],
        _: &str,
    ) -> io::Result<Output> {
        let told = [&[program], arguments].concat().join(" ");
        TOLD.with_borrow_mut(|all| all.push(told));
        Ok(Output {
            status: ExitStatus::from_raw(1 << 8),
            stdout: Vec::new(),
            stderr: b"no".to_vec(),
        })
    }

    /// Since it was asked last, the first first.
    pub(in crate::packet_path) fn told() -> Vec<String> {
        TOLD.take()
    }
}
