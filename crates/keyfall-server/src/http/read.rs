//! What a request brings, read strictly; what does not read is answered like every other error.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::Uri;
use axum::http::request::Parts;
use keyfall_api::admin::ProblemCode;
use serde::de::DeserializeOwned;

use crate::http::error::Refused;

/// The body, whatever its content type says. No body is an empty object.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|error| unread(&error.body_text()))?;
        let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
        serde_json::from_slice(body)
            .map(Self)
            .map_err(|error| unread(&error.to_string()))
    }
}

/// The one part of a path that names something.
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        Path::from_request_parts(parts, state)
            .await
            .map(|Path(name)| Self(name))
            .map_err(|error| unread(&error.body_text()))
    }
}

/// What stands after the question mark.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refused> {
    Query::try_from_uri(uri)
        .map(|Query(query)| query)
        .map_err(|error| unread(&error.body_text()))
}

fn unread(why: &str) -> Refused {
    let sentence = format!("the request does not read as this path takes it: {why}");
    Refused::new(ProblemCode::BadRequest, sentence)
}
