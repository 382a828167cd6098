//! SRTP and SRTCP with a key for each (sender, session, n, SSRC), named by the MKI (FORMATS
//! section 6).

mod cipher;
mod header;
mod index;
mod kdf;
mod mki;
mod receiver;
mod refusal;
mod sender;
mod static_receiver;
#[cfg(test)]
pub(crate) mod tests;

pub use header::{rtcp_ssrc, rtp_ssrc};
pub use index::Stretch;
pub use mki::{Arrival, MKI_LEN, Mki, SrtpStream};
pub use receiver::{Marks, SrtpReceiver};
pub use refusal::{Malformed, NewSession, ProtectRefused, Refused};
pub use sender::{SrtpSender, StretchParams};
pub use static_receiver::StaticReceiver;
