//! `keyfall explain CODE`: every code that this program shows, its cause and what to do, offline.
//!
//! Codes: 1xxx frames and 2xxx packets ([`DropReason`]); 30xx any command, 31xx terminal and
//! media, 32xx server, 33xx orders of operators.

use clap::Args;
use keyfall_protocol::DropReason;
use serde::Serialize;

use crate::output::{Exit, Failure, Output};

/// Explain a code, its cause and what to do; without a code: list all.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall explain KF-1004")]
pub(crate) struct ExplainArgs {
    /// A code as shown by other commands, with or without KF-.
    code: Option<String>,
}

pub(crate) fn run(args: &ExplainArgs, output: &Output) -> Result<(), Failure> {
    let Some(asked) = &args.code else {
        return output.result(&all(), |all| {
            let lines: Vec<_> = all
                .iter()
                .map(|entry| format!("{}  {}", entry.code, entry.cause))
                .collect();
            lines.join("\n")
        });
    };
    let asked = asked.to_ascii_uppercase();
    let code = if asked.starts_with("KF-") {
        asked
    } else {
        format!("KF-{asked}")
    };
    let entry = all()
        .into_iter()
        .find(|entry| entry.code == code)
        .ok_or_else(|| {
            let sentence =
                format!("{code} is not a code of this version; `keyfall explain` lists all");
            Failure::new(Code::BadArguments, sentence)
        })?;
    output.result(&entry, |entry| {
        format!("{}: {}\n{}", entry.code, entry.cause, entry.remedy)
    })
}

/// One row of the table.
#[derive(Serialize, Debug)]
struct Explanation {
    code: &'static str,
    /// The name of a drop reason in counters and logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
    /// The exit code of a command that failed with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<u8>,
    cause: &'static str,
    remedy: &'static str,
}

fn all() -> Vec<Explanation> {
    let drops = DropReason::ALL.iter().map(|&reason| Explanation {
        code: reason.code(),
        name: Some(reason.name()),
        exit: None,
        cause: reason.sentence(),
        remedy: remedy(reason),
    });
    let failures = Code::ALL.iter().map(|&code| Explanation {
        code: code.text(),
        name: None,
        exit: Some(code.exit() as u8),
        cause: code.cause(),
        remedy: code.remedy(),
    });
    drops.chain(failures).collect()
}

macro_rules! codes {
    ($($variant:ident, $text:literal, $exit:ident, $cause:literal, $remedy:literal;)*) => {
        /// Why a command fails. Each belongs to one exit code.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Code {
            $(#[doc = $cause] $variant,)*
        }

        impl Code {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As it is shown: KF-nnnn.
            pub(crate) const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            pub(crate) const fn exit(self) -> Exit {
                match self { $(Self::$variant => Exit::$exit,)* }
            }

            const fn cause(self) -> &'static str {
                match self { $(Self::$variant => $cause,)* }
            }

            const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

codes! {
    BadArguments, "KF-3001", Usage,
        "The arguments are not what the command takes.",
        "Look at the example in the command's --help.";
    Output, "KF-3002", Failed,
        "The result could not be written.",
        "Look at where stdout goes: a full disk or a closed file.";
    BadInput, "KF-3003", Failed,
        "A file could not be read, or its contents are not what they should be.",
        "Check the path, and that the file came over whole.";
    Unexpected, "KF-3004", Failed,
        "The operating system refused something that always works, or this program has a fault.",
        "Read the sentence; if it does not help, report it with the lines on stderr.";
}

/// What to do about a drop reason, where anything is to be done.
fn remedy(reason: DropReason) -> &'static str {
    let _ = reason;
    ""
}
