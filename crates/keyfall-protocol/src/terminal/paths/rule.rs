//! Which of several common groups protects a datagram (REQUIREMENTS A-24). Both sides come to the same
//! group from the same two records, and the one that receives takes a packet under no other.

use core::net::IpAddr;
use std::cmp::Reverse;

use crate::command::{Prefix, ProtectionRecord, RecordGroup};
use crate::ids::GroupNumber;
use crate::stats::DropReason;

/// How much the rule likes a group: it takes the destination, or is that of the way back; priority,
/// length of the network, lowest number.
pub(super) type Rank = (bool, u8, u8, Reverse<GroupNumber>);

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
    rank(one, other, source, destination).map(|(.., Reverse(group))| group)
}

/// The same, with how much the rule likes it.
pub(super) fn rank(
    one: &ProtectionRecord,
    other: &ProtectionRecord,
    source: IpAddr,
    destination: IpAddr,
) -> Option<Rank> {
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
    let there = best(common(), |group| fit(group, destination));
    let back = || best(common(), |group| within(&group.networks, source));
    there
        .map(|(priority, length, group)| (true, priority, length, group))
        .or_else(|| back().map(|(priority, length, group)| (false, priority, length, group)))
}

/// Whether a packet that opened under `group` may be delivered: from an address of its sender to one of
/// this terminal, under the group of the rule, or of the rule for the way back, since a path that was
/// found is kept for both. Datagrams to all members come under the group that their sender's record
/// routes them into.
///
/// SECURITY: who is in a lesser group alone speaks for nobody in a better one (KR-531).
///
/// # Errors
/// Why it may not.
pub fn may_deliver(
    own: &ProtectionRecord,
    theirs: &ProtectionRecord,
    group: GroupNumber,
    source: IpAddr,
    destination: IpAddr,
) -> Result<(), DropReason> {
    if !theirs.speaks_for(source) || theirs.group(group).is_none() {
        return Err(DropReason::NotInRecord);
    }
    let is_of_the_rule = if destination.is_multicast() {
        choose_multicast(theirs, destination) == Some(group)
    } else if own.speaks_for(destination) {
        choose(own, theirs, source, destination) == Some(group)
            || choose(own, theirs, destination, source) == Some(group)
    } else {
        return Err(DropReason::NotForUs);
    };
    is_of_the_rule.then_some(()).ok_or(DropReason::OtherGroup)
}

/// The group that is routed to where a multicast address is in its networks.
pub(super) fn choose_multicast(own: &ProtectionRecord, destination: IpAddr) -> Option<GroupNumber> {
    best(own.groups.iter(), |group| {
        within(&group.networks, destination)
    })
    .map(|(.., Reverse(group))| group)
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
        Reverse((rank(fits), rank(back), Reverse(group.group)))
    });
    groups.into_iter().map(|group| group.group).collect()
}

fn best<'r>(
    groups: impl Iterator<Item = &'r RecordGroup>,
    fit: impl Fn(&RecordGroup) -> Option<u8>,
) -> Option<(u8, u8, Reverse<GroupNumber>)> {
    groups
        .filter_map(|group| Some((group.priority, fit(group)?, Reverse(group.group))))
        .max()
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
