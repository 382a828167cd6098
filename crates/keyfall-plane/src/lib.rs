//! Packet protection on buffers: SRTP and SRTCP (RFC 3711, RFC 7714), and the replay window.
//!
//! Nothing here opens a socket, reads a clock, draws randomness or holds a queue. A packet and a key
//! come in, a packet or a typed refusal comes out.
//!
//! # The drive contract
//!
//! **Sending.** One [`SrtpSender`] for each (sender, session, SSRC), never two for the same three:
//! the session is drawn at random and recorded durably before the first packet. Give every RTP and
//! RTCP packet of that SSRC to [`SrtpSender::protect_rtp`] or [`SrtpSender::protect_rtcp`] together
//! with the master key that the group sends with now; session keys are derived inside whenever the
//! key's generation or the stretch number n moved on. On [`ProtectRefused::NewSession`] the packet
//! and the sender are as before: draw a session, make a new sender, give it the same packet.
//!
//! **Receiving.**
//! 1. [`Arrival::of_srtp`] or [`Arrival::of_srtcp`] reads who sent the packet: MKI and SSRC. Nothing
//!    is authenticated yet.
//! 2. Look up the [`SrtpReceiver`] of (group, sender, session, SSRC) and call
//!    [`SrtpReceiver::unprotect_rtp`]. It opens with the session keys it holds.
//! 3. On [`Refused::KeyUnknown`], or on [`Refused::AuthenticationFailed`] where another master key
//!    fits the tag too, spend a trial of the budget: [`SrtpReceiver::try_rtp`] with a master key
//!    whose [`tag`](keyfall_protocol::keys::MasterKey::tag) is the MKI's. For a stream not yet known
//!    make a receiver for the trial and keep it only if the trial opened the packet. A key that was
//!    derived in scratch for the trial is committed only then.
//!
//! The packet is read, never written: after any refusal it can be tried again. Replay windows and
//! key caches change only after authentication.
//!
//! **Forgetting.** When a generation's grace ends, call `retain_keys` on senders and receivers: it
//! wipes session keys by the epoch and generation that they were derived from.
//!
//! **Marks.** [`SrtpReceiver::marks`] is what to store (ahead, by the driver's rule);
//! [`SrtpReceiver::with_marks`] refuses everything up to there after a crash.
//!
//! # Secrets
//!
//! Session keys and salts live in boxes and are wiped on drop. Their derivation leaves traces of an
//! AES key schedule on the stack: the driver scrubs its stack after each input that touches keys.
//!
//! # Errors and panics
//!
//! A refusal names its cause and is to be counted, not shown to the peer. Bytes from the network
//! never panic.

#![forbid(unsafe_code)]

mod replay;
mod srtp;

pub use replay::{ReplayWindow, Stale};
pub use srtp::{
    Arrival, MKI_LEN, Malformed, Marks, Mki, NewSession, ProtectRefused, Refused, SrtpReceiver,
    SrtpSender, SrtpStream, StaticReceiver, Stretch, StretchParams, rtcp_ssrc, rtp_ssrc,
};
