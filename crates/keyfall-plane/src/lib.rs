//! Packet protection on buffers: SRTP and SRTCP (RFC 3711, RFC 7714), ESP (RFC 4303), and the
//! replay window.
//!
//! Nothing here opens a socket, reads a clock, draws randomness or holds a queue. A packet and a key
//! come in, a packet or a typed refusal comes out.
//!
//! # The drive contract of SRTP
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
//! # The drive contract of ESP
//!
//! **Sending.** One [`EspSender`] for each (master key, sender, session), never two for one session:
//! the first session of a start is drawn at random, each later one is the one after it, and all are
//! recorded durably before they are used. Lay the inner packet at [`ESP_HEAD`] in a buffer with room
//! for [`ESP_TAIL_MAX`] behind it and call [`EspSender::seal`]; or give it to
//! [`EspSender::seal_from`] where it lies, which reads it once and writes the ESP packet elsewhere,
//! so that the segments of a large packet can share one buffer: write the headers of the next
//! segment over the end of the one that was just sealed. What comes out is the payload of one UDP
//! datagram (RFC 3948). On [`SealRefused::NewSession`], before that by [`EspSender::remaining`], and
//! whenever the group sends with another master key: a new session, a new sender.
//!
//! **Receiving.**
//! 1. [`EspArrival::read`] reads who sent the packet: SPI, session and sequence number. Nothing is
//!    authenticated yet. [`EspRefused::ReservedSpi`] may be the non-ESP marker or a keepalive,
//!    [`EspRefused::Pinned`] a stock sender's packet: [`PinnedArrival::read`].
//! 2. Look up the [`EspReceiver`] of (SPI, session) and call [`EspReceiver::open_into`].
//! 3. Where there is none, spend trials of the budget: make a receiver with each master key whose
//!    [`esp_tag`](keyfall_protocol::keys::MasterKey::esp_tag) is the SPI's, and keep the one that
//!    opened the packet. A key that was derived in scratch is committed only then, and the packet is
//!    delivered when the session's first mark is durable.
//! 4. Two groups may have the same tag, sender and session: on [`EspRefused::AuthenticationFailed`]
//!    a receiver of another master key may still open the packet.
//!
//! The packet is read once, never written, and nothing is allocated for it. The window changes only
//! after authentication. Check that the inner source address is one of the sender's: ESP says who
//! sent, not for whom.
//!
//! **Forgetting.** When a generation's grace ends, drop the senders and receivers whose `source` it
//! is. [`EspReceiver::rest`] gives an idle receiver's memory back.
//!
//! **Marks.** [`EspReceiver::highest`] is what to store (ahead, by the driver's rule);
//! [`EspReceiver::with_mark`] refuses everything up to there after a crash.
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

mod esp;
mod replay;
mod srtp;

pub use esp::{
    ESP_HEAD, ESP_PLACE_LEN, ESP_REFUSAL_LEN, ESP_SEQUENCE_MAX, ESP_TAIL_MAX, EspArrival,
    EspExport, EspReceiver, EspRefused, EspSender, PinnedArrival, SealRefused, Spi, esp_len,
};
pub use replay::{ReplayWindow, Stale};
pub use srtp::{
    Arrival, MKI_LEN, Malformed, Marks, Mki, NewSession, ProtectRefused, Refused, SrtpReceiver,
    SrtpSender, SrtpStream, StaticReceiver, Stretch, StretchParams, rtcp_ssrc, rtp_ssrc,
};
