//! `admin terminal add`: orders, and the files that come of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use keyfall_api::admin as api;
use serde::Serialize;

use crate::admin::AddArgs;
use crate::admin::client::post;
use crate::explain::Code;
use crate::output::{Failure, Output, utc};

/// All packages or tokens that were made.
#[derive(Serialize)]
struct Added {
    schema: u32,
    ok: bool,
    terminals: Vec<Package>,
    /// What stopped it before the last name.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
}

/// One package in its file, or a token.
#[derive(Serialize)]
struct Package {
    number: u32,
    name: String,
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// Where the terminal shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    expires: u32,
}

pub(super) fn add(dir: &Path, args: AddArgs, output: &Output) -> Result<(), Failure> {
    if args.request.is_some() && args.names.len() > 1 {
        let sentence = "--for seals to one terminal's key: name one terminal with it";
        return Err(Failure::new(Code::BadArguments, sentence));
    }
    // Every file is made before the first order, because a number is never given twice.
    let mut files = Vec::new();
    for name in &args.names {
        let file = (!args.token).then(|| PackageFile::make(&args.out, name));
        files.push(file.transpose()?);
    }
    let why: api::Why = args.why.into();
    let mut terminals = Vec::new();
    let mut stopped = None;
    for (name, file) in args.names.iter().zip(files) {
        let order = api::AddTerminal {
            name: name.clone(),
            request: args.request.clone(),
            token: args.token.then_some(args.good_for),
            wipe_roots: args.wipe_roots.clone(),
            why: why.clone(),
        };
        let added = post(dir, "/v1/terminals", &order).and_then(|added| match file {
            Some(file) => file.write(added),
            None => Ok(Package::by_token(added)),
        });
        match added {
            Ok(package) => {
                // Said as it is made: whatever ends this command, no code is lost.
                if !output.is_json() {
                    output.text(&lines_of(&package))?;
                }
                terminals.push(package);
            }
            // What was made before it is shown all the same: its codes are known nowhere else.
            Err(failure) if !terminals.is_empty() => {
                stopped = Some(failure);
                break;
            }
            Err(failure) => return Err(failure),
        }
    }
    let added = Added {
        schema: api::SCHEMA,
        ok: stopped.is_none(),
        terminals,
        stopped: stopped
            .as_ref()
            .map(|failure| failure.sentence().to_owned()),
    };
    output.result(&added, text)?;
    match stopped {
        None => Ok(()),
        Some(failure) if output.is_json() => Err(Failure::shown(failure.code())),
        Some(failure) => Err(failure),
    }
}

fn lines_of(made: &Package) -> String {
    let Package { number, name, .. } = made;
    let expires = utc(made.expires);
    if let Some(token) = &made.token {
        return format!(
            "{name}: terminal {number}, good once until {expires}\n  token {token}\n  \
             whoever has it first is {name}: carry it as a password"
        );
    }
    let package = made.package.as_deref().unwrap_or_default();
    let code = made.code.as_ref().map_or_else(String::new, |code| {
        format!("\n  code {code}: carry it by another way than the file")
    });
    format!("{name}: terminal {number}, package {package}, good until {expires}{code}")
}

/// What follows the lines of each.
fn text(added: &Added) -> String {
    added.terminals.first().map_or_else(String::new, |made| {
        let (name, next) = (&made.name, "Next, on the terminal: keyfall terminal enrol");
        match (&made.package, &made.token) {
            (Some(package), _) => format!("{next} ./{name} {package}"),
            (None, token) => {
                let server = made.server.as_deref().unwrap_or("HOST:PORT");
                let token = token.as_deref().unwrap_or("TOKEN");
                format!("{next} ./{name} --server {server} --token {token}")
            }
        }
    })
}

impl Package {
    fn by_token(added: api::TerminalAdded) -> Self {
        Self {
            number: added.number,
            name: added.name,
            package: None,
            code: None,
            token: added.token,
            server: added.server,
            expires: added.expires,
        }
    }
}

/// A file for a package; taken away again unless the package was written.
struct PackageFile {
    path: PathBuf,
    file: File,
    written: bool,
}

impl PackageFile {
    fn make(out: &Path, name: &str) -> Result<Self, Failure> {
        // The server judges names; this only keeps the file in its directory.
        if name.contains('/') {
            let sentence = format!("{name:?} is no name: a slash is not part of one");
            return Err(Failure::new(Code::BadName, sentence));
        }
        let path = out.join(format!("{name}.enrol"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| not_written(&path, &error))?;
        Ok(Self {
            path,
            file,
            written: false,
        })
    }

    fn write(mut self, added: api::TerminalAdded) -> Result<Package, Failure> {
        let octets = added.package.as_deref().and_then(unhex).ok_or_else(|| {
            let sentence = "the server sent a package that is not hexadecimal";
            Failure::new(Code::AdminSocket, sentence)
        })?;
        self.file
            .write_all(&octets)
            .and_then(|()| self.file.sync_all())
            .map_err(|error| not_written(&self.path, &error))?;
        self.written = true;
        Ok(Package {
            number: added.number,
            name: added.name,
            package: Some(self.path.display().to_string()),
            code: added.code,
            token: None,
            server: None,
            expires: added.expires,
        })
    }
}

impl Drop for PackageFile {
    fn drop(&mut self) {
        if !self.written && fs::remove_file(&self.path).is_err() {
            tracing::warn!(path = %self.path.display(), "an empty package could not be removed");
        }
    }
}

fn not_written(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    let sentence = if error.kind() == io::ErrorKind::AlreadyExists {
        format!("{path} is there already: move it away, for a package is never written over")
    } else {
        format!("cannot write {path}: {error}")
    };
    Failure::new(Code::PackageNotWritten, sentence)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let octet = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    };
    text.as_bytes().chunks(2).map(octet).collect()
}
