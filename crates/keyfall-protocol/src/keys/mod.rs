//! Keys of the three ranks, the one-way step, derivation and wrapping (FORMATS section 3).
//!
//! One type a rank; the step consumes; nothing here can be cloned, printed or serialised.

mod derive;
mod esp;
mod hierarchy;
mod ring;
mod secret;
mod suite;
mod wrap;

pub use derive::{Context, Label, key_tag};
pub use esp::{EspKeys, PinnedSpi, esp_tag_hash};
pub use hierarchy::{Master, MasterKey, Obey, ObeyKey, PreSharedKey, SrtpMaster, Wrap, WrapKey};
pub use ring::Ring;
pub use secret::Secret;
pub use suite::{EspSuite, SrtpSuite};
pub use wrap::{KeyEncryptionKey, Sealed, WRAPPED_LEN};
