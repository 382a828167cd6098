//! IP packets in ESP tunnel mode (RFC 4303) with a key for each (sender, session), named by the
//! packet itself (FORMATS section 7).

mod cipher;
mod export;
mod header;
mod inner;
mod receiver;
mod refusal;
mod sender;
#[cfg(test)]
mod tests;

pub use export::EspExport;
pub use header::{EspArrival, PinnedArrival, Spi};
pub use receiver::EspReceiver;
pub use refusal::{EspRefused, SealRefused};
pub use sender::EspSender;

/// Octets before the inner packet: SPI 4, sequence number 4, IV 8.
pub const ESP_HEAD: usize = 16;
/// The most octets after the inner packet: padding up to 3, its length, the next header, ICV 16.
pub const ESP_TAIL_MAX: usize = 3 + 2 + cipher::ICV_LEN;
/// The last sequence number of a session: 24 bits are in the IV.
pub const ESP_SEQUENCE_MAX: u32 = (1 << 24) - 1;

/// Octets of a dummy packet that names a refused session.
pub const ESP_REFUSAL_LEN: usize = esp_len(5);
/// Octets of a dummy packet that says to a terminal where its sender is.
pub const ESP_PLACE_LEN: usize = esp_len(4);

/// Octets of an ESP packet around an inner packet of `inner_len`.
#[must_use]
pub const fn esp_len(inner_len: usize) -> usize {
    ESP_HEAD + inner_len + sender::padding(inner_len) + 2 + cipher::ICV_LEN
}
