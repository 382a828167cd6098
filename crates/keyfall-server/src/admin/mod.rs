//! What operators may do and see, apart from how it reaches us: reports from a [`View`], orders
//! with their answers.
//!
//! [`View`]: crate::driver::View

mod keys;
mod orders;
mod reports;

pub(crate) use orders::{
    OrderError, add_member, add_terminal, create_group, renew_devices, renew_group,
    would_renew_devices, would_renew_group,
};
pub(crate) use reports::{carousel, group, groups, keys, status, terminal, terminals};
