//! Who speaks on the socket: the kernel's word (SO_PEERCRED), not theirs.

use axum::body::Bytes;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{FromRequest as _, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::serve::IncomingStream;
use keyfall_api::admin::ProblemCode;
use tokio::net::UnixListener;

use crate::http::error::Refused;

/// The user at the other end; `None` where the kernel does not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Peer(pub(super) Option<u32>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok().map(|cred| cred.uid()))
    }
}

/// The user whom the audit log names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Operator(pub(super) u32);

impl Operator {
    /// "uid 1000".
    pub(super) fn actor(self) -> String {
        format!("uid {}", self.0)
    }
}

/// Lets the server's own user and root through, nobody else.
pub(super) async fn admit(
    State(own_uid): State<u32>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    match admitted(peer, own_uid) {
        Some(operator) => {
            request.extensions_mut().insert(operator);
            next.run(request).await
        }
        None => {
            tracing::warn!(uid = peer.0, "a user who may not order was refused");
            // Who is still writing would not read the answer.
            drop(Bytes::from_request(request, &()).await);
            let sentence = "only root and the user that runs the server may order here";
            Refused::new(ProblemCode::NotYou, sentence).into_response()
        }
    }
}

fn admitted(peer: Peer, own_uid: u32) -> Option<Operator> {
    peer.0
        .filter(|&uid| uid == 0 || uid == own_uid)
        .map(Operator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_servers_own_user_are_admitted() {
        assert_eq!(admitted(Peer(Some(0)), 1000), Some(Operator(0)));
        assert_eq!(admitted(Peer(Some(1000)), 1000), Some(Operator(1000)));
        assert_eq!(admitted(Peer(Some(1001)), 1000), None);
        assert_eq!(admitted(Peer(Some(1000)), 0), None);
        assert_eq!(admitted(Peer(None), 1000), None);
    }
}
