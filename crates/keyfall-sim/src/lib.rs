//! Many terminals in virtual time: the real machines of `keyfall-protocol`, driven on one thread
//! over seeded links and simulated disks, with a witness for the invariants and a thief.
//!
//! A [`World`] has one [`Server`](keyfall_protocol::server::Server) and any number of
//! [`Terminal`](keyfall_protocol::terminal::Terminal)s. It does for them what the daemons do: makes
//! snapshots durable after a while, feeds `Stored`, carries frames, keeps the timeouts, restarts
//! what crashed from what its disk held. Two runs with one seed are equal, frame by frame.
//!
//! ```
//! use std::time::Duration;
//! use keyfall_sim::{Config, LinkQuality, World};
//!
//! let mut world = World::new(1, Config::default());
//! let alice = world.enrol("alice", LinkQuality::PERFECT);
//! let bob = world.enrol("bob", LinkQuality::lossy(300));
//! let group = world.create_group("crew", &[alice, bob], None);
//! world.run_for(Duration::from_secs(600));
//! assert_eq!(world.lag(bob), None);
//! assert!(world.violations().is_empty());
//! # let _ = group;
//! ```
//!
//! What the machines must never do is noted as a [`Violation`], not asserted, so that a caller can
//! report it with the seed. Misuse of the world itself panics.

#![forbid(unsafe_code)]

mod capture;
mod clock;
mod disk;
mod exchange;
mod link;
mod losses;
mod media;
mod memory;
mod preloaded;
mod seeded;
mod sharing;
mod snapshot;
mod station;
mod theft;
mod thief;
mod way;
mod witness;
mod world;

pub use capture::{Captured, CapturedPacket};
pub use clock::Clock;
pub use disk::{ServerDisk, StoreDelay, Stored};
pub use exchange::{Bounds, Exchange, Ground, Step};
pub use link::{Link, LinkQuality};
pub use losses::{LossOutcome, survive_losses};
pub use media::{Ear, Heard, Speaker, rtp_packet};
pub use preloaded::{Preloaded, PreloadedRun, keys_for_a_year, steal_preloaded};
pub use seeded::Seeded;
pub use sharing::{SharingOutcome, survive_sharing};
pub use snapshot::{DiskImage, Loot, SnapshotUnreadable, UserLoot};
pub use station::{Station, StationId, Told};
pub use theft::{Answer, CLOCK_SLACK, Cell, TheftPlan, TheftRun};
pub use thief::{Opened, Thief};
pub use way::{CapturedDatagram, Direction, Interceptor, WayQuality};
pub use witness::Violation;
pub use world::{Config, Errand, World};
