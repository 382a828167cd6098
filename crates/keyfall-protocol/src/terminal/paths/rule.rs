//! Which of several common groups protects a datagram (REQUIREMENTS A-24). Both sides come to the same
//! group from the same two records.

use core::net::IpAddr;

use crate::command::{Prefix, ProtectionRecord, RecordGroup};
use crate::ids::GroupNumber;

/// Of the groups that stand in both records: the highest priority, then the most specific network that
/// holds the destination, then the lowest number.
///
/// A group without networks takes every destination. A group whose networks do not hold it is taken
/// where no other is and they hold the source: then this is the way back of what was routed into it.
/// What a group is comes from the record that was signed later.
pub(super) fn choose(
    one: &ProtectionRecord,
    other: &ProtectionRecord,
    source: IpAddr,
    destination: IpAddr,
) -> Option<GroupNumber> {
    let signed = |record: &ProtectionRecord| (record.issued_at, record.terminal);
    let (newer, older) = if signed(one) >= signed(other) {
        (one, other)
    } else {
        (other, one)
    };
    let common = || {
        let groups = newer.groups.iter();
        groups.filter(|group| older.group(group.group).is_some())
    };
    best(common(), |group| fit(group, destination))
        .or_else(|| best(common(), |group| within(&group.networks, source)))
}

/// The group that is routed to where a multicast address is in its networks.
pub(super) fn choose_multicast(own: &ProtectionRecord, destination: IpAddr) -> Option<GroupNumber> {
    best(own.groups.iter(), |group| {
        within(&group.networks, destination)
    })
}

/// The groups of a record by how well the rule would like them, for a destination whose terminal is not
/// known yet.
pub(super) fn in_order(
    own: &ProtectionRecord,
    source: IpAddr,
    destination: IpAddr,
) -> Vec<GroupNumber> {
    let mut groups: Vec<_> = own.groups.iter().collect();
    groups.sort_by_key(|group| {
        let fits = fit(group, destination);
        let back = within(&group.networks, source);
        let rank = |fits: Option<u8>| fits.map(|length| (group.priority, length));
        std::cmp::Reverse((rank(fits), rank(back), std::cmp::Reverse(group.group)))
    });
    groups.into_iter().map(|group| group.group).collect()
}

fn best<'r>(
    groups: impl Iterator<Item = &'r RecordGroup>,
    fit: impl Fn(&RecordGroup) -> Option<u8>,
) -> Option<GroupNumber> {
    groups
        .filter_map(|group| fit(group).map(|length| (group, length)))
        .max_by_key(|&(group, length)| (group.priority, length, std::cmp::Reverse(group.group)))
        .map(|(group, _)| group.group)
}

/// How specific a group's rule for a destination is; 0 also where it has none.
fn fit(group: &RecordGroup, destination: IpAddr) -> Option<u8> {
    if group.networks.is_empty() {
        Some(0)
    } else {
        within(&group.networks, destination)
    }
}

/// The length of the most specific network that holds the address.
fn within(networks: &[Prefix], address: IpAddr) -> Option<u8> {
    let holding = networks.iter().filter(|network| network.contains(address));
    holding.map(Prefix::length).max()
}
