//! Changing the key of a group that is at work.

mod policy;

pub use policy::{ChangeMode, GroupPolicy, Stragglers};
