//! What every command leaves: a result on stdout, or one sentence with a code, and an exit code
//! that scripts may rely on (DESIGN section 9).

use std::io::{self, Write};
use std::process::ExitCode;

use keyfall_protocol::calendar::Utc;
use keyfall_protocol::ids::UnixSeconds;
use serde::Serialize;

use crate::explain::Code;

/// Where results go.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
}

/// The exit codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    Done = 0,
    /// Bad contents included.
    Failed = 1,
    /// Wrong arguments.
    Usage = 2,
    /// By policy.
    Refused = 3,
    Unreachable = 4,
    Locked = 5,
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What `keyfall explain` is asked; `None`: nobody reads any more, which is no failure.
    code: Option<Code>,
    /// One sentence that says what to do; empty where the result has said it.
    sentence: String,
}

impl Failure {
    pub(crate) fn new(code: Code, sentence: impl Into<String>) -> Self {
        Self {
            code: Some(code),
            sentence: sentence.into(),
        }
    }

    /// A failure whose document was shown already: only the exit code is left to tell.
    pub(crate) fn told(code: Code) -> Self {
        Self {
            code: Some(code),
            sentence: String::new(),
        }
    }

    /// For a result that was shown and says itself what is wrong: the exit code of `code` alone.
    pub(crate) fn shown(code: Code) -> Self {
        Self::new(code, "")
    }

    /// The code; of a reader who went away none is asked.
    pub(crate) fn code(&self) -> Code {
        self.code.unwrap_or(Code::Output)
    }

    pub(crate) fn sentence(&self) -> &str {
        &self.sentence
    }

    fn exit(&self) -> Exit {
        self.code.map_or(Exit::Done, Code::exit)
    }
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether the caller asked for JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// The result: `value` as the one JSON document, or `people` as text.
    pub(crate) fn result<T: Serialize>(
        &self,
        value: &T,
        people: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            let document = serde_json::to_string(value)
                .map_err(|error| Failure::new(Code::Output, error.to_string()))?;
            self.text(&document)
        } else {
            self.text(&people(value))
        }
    }

    /// As [`Self::result`] for a value that does not say its schema itself.
    pub(crate) fn versioned<T: Serialize>(
        &self,
        value: &T,
        people: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let document = Versioned {
            schema: SCHEMA,
            value,
        };
        self.result(&document, |document| people(document.value))
    }

    /// Text as it is, with a line end.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        match write!(stdout, "{text}{end}").and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure {
                code: None,
                sentence: String::new(),
            }),
            Err(error) => Err(Failure::new(
                Code::Output,
                format!("cannot write the result: {error}"),
            )),
        }
    }

    /// The exit code; where it is not 0, after the sentence and its code were shown.
    pub(crate) fn end(&self, outcome: Result<(), Failure>) -> ExitCode {
        let Err(failure) = outcome else {
            return ExitCode::from(Exit::Done as u8);
        };
        if let Some(code) = failure.code.filter(|_| !failure.sentence.is_empty()) {
            let told = FailureDocument {
                schema: SCHEMA,
                ok: false,
                exit: failure.exit() as u8,
                code: code.text(),
                sentence: &failure.sentence,
            };
            let shown = if self.json {
                self.result(&told, |_| String::new())
            } else {
                let line = writeln!(io::stderr(), "keyfall: {} ({})", told.sentence, told.code);
                line.map_err(|_| Failure {
                    code: None,
                    sentence: String::new(),
                })
            };
            if shown.is_err() {
                // Nobody reads: the exit code still tells.
                return ExitCode::from(failure.exit() as u8);
            }
        }
        ExitCode::from(failure.exit() as u8)
    }
}

#[derive(Serialize)]
struct Versioned<'v, T> {
    schema: u32,
    #[serde(flatten)]
    value: &'v T,
}

/// A field is never renamed or given another meaning within one schema.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct FailureDocument<'f> {
    schema: u32,
    ok: bool,
    exit: u8,
    code: &'f str,
    sentence: &'f str,
}

/// Unix seconds as people read them: `2026-11-21 22:00:41 UTC`.
pub(crate) fn utc(seconds: u32) -> String {
    Utc(UnixSeconds::new(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_seconds_are_shown_as_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_767_225_600), "2026-01-01 00:00:00 UTC");
        assert_eq!(utc(u32::MAX), "2106-02-07 06:28:15 UTC");
    }
}
