//! The management server: driver, store, admin operations, HTTP.
//!
//! [`init()`] founds a fleet, [`run()`] keeps it. One thread, the driver, owns the server machine of
//! `keyfall-protocol`, its store, its carriers and its clock; the admin API reaches it by a channel.

#![forbid(unsafe_code)]

mod admin;
mod answering;
mod backup;
mod carriers;
pub mod chain;
mod clock;
mod directory;
mod driver;
mod durable;
mod http;
mod init;
pub mod journal;
mod key_drafts;
pub mod key_file;
mod os_random;
mod restore;
mod run;
pub mod seal;
mod stopped;
pub mod store;

pub use backup::{BackedUp, BackupError, backup};
pub use directory::{Directory, DirectoryError};
pub use init::{Founded, InitError, init, init_with};
pub use os_random::OsRandom;
pub use restore::{Restore, RestoreError, RestoredServer, restore};
pub use run::{RunError, run};
pub use stopped::{Stopped, StoppedError};
