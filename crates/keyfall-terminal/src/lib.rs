//! The terminal: the process that holds a terminal's keys and uses them.
//!
//! [`serve`] runs it: one thread waits for one cause at a time (a frame from a carrier, a media
//! packet, a request on the control socket, a timer, a store that is done), feeds the machine of
//! `keyfall-protocol`, does what it says, and waits again. One more thread owns the key store.
//!
//! | File | What is in it |
//! | --- | --- |
//! | `driver` | the loop, what events do, and what local programs ask |
//! | `media_relay` | RTP in, SRTP out, and back |
//! | `packet_path` | IP packets from a TUN interface to peers, and back |
//! | `control` | the control socket |
//! | `server_line`, `collecting` | the way to the server, and confirmations that go in one |
//! | `committing`, `key_store` | snapshots to disk, passphrases, erasure |
//! | `tamper`, `hardening` | the device is opened; keys stay inside the process |
//! | `enrolment`, `stored`, `legacy_key` | what is done while no process runs the terminal |
//! | `status`, `inspection` | what people are shown |

#![forbid(unsafe_code)]

mod collecting;
mod committing;
mod control;
mod driver;
mod enrolment;
mod exporting;
mod first_contact;
pub mod hardening;
mod inspection;
pub mod key_store;
mod legacy_key;
mod media_relay;
mod os_random;
pub mod packet_path;
mod server_line;
mod status;
mod stored;
mod tamper;

pub use control::{SOCKET_NAME, socket_path};
pub use driver::{Ending, RunError, RunOptions, serve};
pub use enrolment::{Enrolled, EnrolmentError, enrol, request};
pub use first_contact::{Arrived, enrol_by_token};
pub use inspection::inspect;
pub use legacy_key::{LegacyKeyError, legacy_key};
pub use os_random::OsRandom;
pub use stored::{ProtectError, StoredError, protect, restore, stored_status};
