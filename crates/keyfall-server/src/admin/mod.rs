//! What operators may do and see, apart from how it reaches us: reports from a [`View`], orders
//! with their answers.
//!
//! [`View`]: crate::driver::View

mod erasing;
mod exposure;
mod group_policy;
mod key_set;
mod keys;
mod leaving;
mod legacy;
mod orders;
mod overdue;
mod packets;
mod reports;
mod restored;

pub(crate) use erasing::{draft_erase, issue_erase, take_receipt};
pub(crate) use exposure::exposure;
pub(crate) use group_policy::{names_something, set_group, would_set_group};
pub(crate) use key_set::{draft_key_set, install_key_set, legacy_warning, signed_frame, wanted};
pub(crate) use leaving::{
    exclude, rekey_group, remove_member, would_exclude, would_rekey_group, would_remove_member,
};
pub(crate) use legacy::set_legacy_key;
pub(crate) use orders::{
    OrderError, add_member, add_terminal, by, create_group, renew_device, renew_devices,
    renew_group, would_renew_device, would_renew_devices, would_renew_group,
};
pub(crate) use packets::{set_addresses, set_packets};
pub(crate) use reports::{carousel, group, groups, keys, status, terminal, terminals};
pub(crate) use restored::{confirm, confirmation};
