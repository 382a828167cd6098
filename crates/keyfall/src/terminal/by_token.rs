//! `keyfall terminal enrol DIR --server HOST --token TOKEN`: first contact over the network.

use std::io::Read as _;
use std::path::Path;

use clap::Args;
use keyfall_terminal::Arrived;
use keyfall_terminal::key_store::Protection;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{EnrolDone, enrolment_failure};
use crate::explain::Code;
use crate::output::{Failure, Output};

/// How a terminal is enrolled without a package.
#[derive(Args, Debug)]
pub(super) struct TokenArgs {
    /// Where the server answers, as HOST or HOST:PORT (47900 where none is said).
    #[arg(
        long,
        value_name = "HOST[:PORT]",
        requires = "token",
        conflicts_with_all = ["request", "code"]
    )]
    server: Option<String>,
    /// The token that `keyfall admin terminal add NAME --token` printed; - for stdin, so that other users
    /// of this machine do not see it.
    #[arg(
        long,
        value_name = "TOKEN",
        requires = "server",
        conflicts_with_all = ["request", "code"]
    )]
    token: Option<String>,
}

#[derive(Serialize)]
struct TokenDone {
    #[serde(flatten)]
    enrolled: EnrolDone,
    /// The server has shown that it knows the terminal.
    confirmed: bool,
    /// It has said that it does not.
    denied: bool,
    groups: usize,
}

impl TokenArgs {
    /// Both, or none: clap holds them together.
    pub(super) fn given(self) -> Option<(String, Zeroizing<String>)> {
        self.server.zip(self.token.map(Zeroizing::new))
    }
}

pub(super) fn enrol(
    dir: &Path,
    (server, token): (&str, &Zeroizing<String>),
    protection: Option<&Protection>,
    output: &Output,
) -> Result<(), Failure> {
    let typed = if token.as_str() == "-" {
        &read_token()?
    } else {
        token
    };
    let arrived = keyfall_terminal::enrol_by_token(dir, server, typed.trim(), protection)
        .map_err(|error| enrolment_failure(&error))?;
    let Arrived {
        terminal,
        confirmed,
        denied,
    } = arrived;
    let identity = terminal.identity();
    let at = if identity.servers.is_empty() {
        format!(" --server {server}")
    } else {
        String::new()
    };
    let next = format!("keyfall terminal run {}{at}", dir.display());
    let done = TokenDone {
        enrolled: EnrolDone::of(&terminal, next, protection.is_some()),
        confirmed,
        denied,
        groups: terminal.groups().len(),
    };
    output.versioned(&done, |done| {
        let server_says = if done.confirmed {
            format!(
                "the server has confirmed it, and the token is used; groups held: {}",
                done.groups
            )
        } else if done.denied {
            "the server says that it does not know this terminal: somebody else may have used the token. The \
             terminal is kept, and asks again when it runs; look at `keyfall admin audit`, and where somebody \
             else did, exclude that terminal and ask for a new token"
                .to_owned()
        } else {
            "the server has not confirmed it yet: that is made up for when the terminal runs"
                .to_owned()
        };
        let text = done.enrolled.text(dir);
        text.replacen('\n', &format!("\n{server_says}\n"), 1)
    })
}

fn read_token() -> Result<Zeroizing<String>, Failure> {
    // Room for all from the start: a growing buffer would leave copies.
    let mut typed = Zeroizing::new(String::with_capacity(TOKEN_READ_MAX as usize));
    let read = std::io::stdin()
        .lock()
        .take(TOKEN_READ_MAX)
        .read_to_string(&mut typed);
    read.map_err(|error| Failure::new(Code::BadInput, format!("cannot read the token: {error}")))?;
    Ok(typed)
}

/// A token has 61 letters.
const TOKEN_READ_MAX: u64 = 256;
