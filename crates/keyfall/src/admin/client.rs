//! This program's side of the admin API.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Once;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use keyfall_api::admin::{Problem, ProblemCode, SOCKET, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::explain::Code;
use crate::output::Failure;
use crate::terminal::small_runtime;

/// Asks the server in `dir`.
pub(crate) fn get<T: DeserializeOwned>(dir: &Path, path: &str) -> Result<T, Failure> {
    exchange(dir, Method::GET, path, Bytes::new())
}

/// Orders the server in `dir`.
pub(crate) fn post<T: DeserializeOwned>(
    dir: &Path,
    path: &str,
    order: &impl Serialize,
) -> Result<T, Failure> {
    let body = serde_json::to_vec(order)
        .map_err(|error| Failure::new(Code::Unexpected, error.to_string()))?;
    let answer = exchange(dir, Method::POST, path, body.into())?;
    note_hold(dir);
    Ok(answer)
}

/// What answers call "sent" is not, as long as a restored server waits to be confirmed.
fn note_hold(dir: &Path) {
    static NOTED: Once = Once::new();
    let held = get::<Status>(dir, "/v1/status").is_ok_and(|status| status.held_since.is_some());
    if held {
        NOTED.call_once(|| {
            // Nobody may read it.
            drop(writeln!(
                io::stderr(),
                "Note: the server is held since it was restored: nothing of it is sent before \
                 `keyfall admin confirm`"
            ));
        });
    }
}

/// A name as a part of a path (RFC 3986 section 2.1).
pub(crate) fn segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for octet in name.bytes() {
        if octet.is_ascii_alphanumeric() || b"-_~".contains(&octet) {
            segment.push(char::from(octet));
        } else {
            segment.push_str(&format!("%{octet:02X}"));
        }
    }
    segment
}

fn exchange<T: DeserializeOwned>(
    dir: &Path,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<T, Failure> {
    let answer = small_runtime()?.block_on(async {
        let stream = connect(dir).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        // Ends with the sender; what breaks it breaks the request too.
        let driven = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "keyfall")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| Failure::new(Code::Unexpected, error.to_string()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error))?;
        let ok = response.status().is_success();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| broken(&error))?;
        driven.abort();
        Ok((ok, body.to_bytes()))
    });
    let (ok, body) = answer?;
    if ok {
        serde_json::from_slice(&body).map_err(|error| unreadable(&error))
    } else {
        let problem: Problem = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
        Err(Failure::new(code_of(problem.code), problem.sentence))
    }
}

async fn connect(dir: &Path) -> Result<UnixStream, Failure> {
    let socket = dir.join(SOCKET);
    UnixStream::connect(&socket).await.map_err(|error| {
        let dir = dir.display();
        let absent = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        if absent.contains(&error.kind()) {
            let sentence =
                format!("no server runs in {dir}: start it with `keyfall server run {dir}`");
            Failure::new(Code::ServerNotRunning, sentence)
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            let sentence = format!(
                "only root and the user that runs the server in {dir} may order there: become \
                 one of them"
            );
            Failure::new(Code::NotYou, sentence)
        } else {
            let sentence = format!("cannot reach {}: {error}", socket.display());
            Failure::new(Code::AdminSocket, sentence)
        }
    })
}

fn broken(error: &hyper::Error) -> Failure {
    let sentence = format!("the connection to the server broke: {error}; look at its log");
    Failure::new(Code::AdminSocket, sentence)
}

fn unreadable(error: &serde_json::Error) -> Failure {
    let sentence = format!(
        "the server answers what this program does not know: {error}; run programs of one version"
    );
    Failure::new(Code::AdminSocket, sentence)
}

pub(crate) fn code_of(code: ProblemCode) -> Code {
    match code {
        ProblemCode::BadRequest => Code::BadOrder,
        ProblemCode::NoSuchPath => Code::NoSuchPath,
        ProblemCode::NotYou => Code::NotYou,
        ProblemCode::BadName => Code::BadName,
        ProblemCode::NameTaken => Code::NameTaken,
        ProblemCode::NoSuchTerminal => Code::NoSuchTerminal,
        ProblemCode::NoSuchGroup => Code::NoSuchGroup,
        ProblemCode::NoMembers => Code::NoMembers,
        ProblemCode::AlreadyMember => Code::AlreadyMember,
        ProblemCode::NumbersUsedUp => Code::NumbersUsedUp,
        ProblemCode::BadRequestKey => Code::BadRequestKey,
        ProblemCode::BadPeriod => Code::BadPeriod,
        ProblemCode::RenewedTooOften => Code::RenewedTooOften,
        ProblemCode::NotStored => Code::NotStored,
        ProblemCode::StoreFault => Code::StoreFault,
        ProblemCode::Ending => Code::Ending,
        ProblemCode::NotMember => Code::NotMember,
        ProblemCode::BadWipeRoot => Code::BadWipeRoot,
        ProblemCode::Excluded => Code::Excluded,
        ProblemCode::ExcludedTooMany => Code::ExcludedTooMany,
        ProblemCode::EraseSignatures => Code::EraseSignatures,
        ProblemCode::NotTheDraft => Code::NotTheDraft,
        ProblemCode::BadReceipt => Code::BadReceipt,
        ProblemCode::AlreadyProved => Code::AlreadyProved,
        ProblemCode::NoSuchKey => Code::NoSuchKey,
        ProblemCode::BadKeySet => Code::BadKeySet,
        ProblemCode::NotTheRoot => Code::NotTheRoot,
        ProblemCode::HourlyLimit => Code::HourlyLimit,
        ProblemCode::KeysLost => Code::KeysLost,
        ProblemCode::NotHeld => Code::NotHeld,
        ProblemCode::BadTokenLife => Code::BadTokenLife,
        ProblemCode::NoTokens => Code::NoTokens,
        ProblemCode::BadAddresses => Code::BadAddresses,
        ProblemCode::Overlapping => Code::Overlapping,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_part_of_a_path() {
        assert_eq!(segment("truck-1_a"), "truck-1_a");
        assert_eq!(segment("../a b?é"), "%2E%2E%2Fa%20b%3F%C3%A9");
    }

    /// The code that the server sends is the one that `keyfall explain` knows.
    #[test]
    fn a_problem_keeps_its_code() {
        for number in 3301..=3334 {
            let text = format!("\"KF-{number}\"");
            let code: ProblemCode = serde_json::from_str(&text).expect("a code of the API");
            assert_eq!(format!("\"{}\"", code_of(code).text()), text);
        }
        assert!(serde_json::from_str::<ProblemCode>("\"KF-3335\"").is_err());
    }
}
