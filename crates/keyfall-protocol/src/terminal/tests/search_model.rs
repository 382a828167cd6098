//! Any fleet of gateways, any groups, any loss, against a plain reading of the rule (REQUIREMENTS
//!

use proptest::prelude::*;

use super::net::{Net, address, number_of, prefix};
use crate::command::RecordGroup;
use crate::keys::EspSuite;
use crate::stats::DropReason;
use crate::terminal::Way;

#[derive(Clone, Debug)]
struct Fleet {
    /// By group: priority, and the networks that it is routed for.
    groups: Vec<(u8, Vec<String>)>,
    /// By gateway: its groups, and at which generation of each it is.
    members: Vec<Vec<(usize, u32)>>,
    /// Of ten parcels so many are lost.
    loss: u32,
    seed: u64,
}

const GROUPS: usize = 4;

fn fleets() -> impl Strategy<Value = Fleet> {
    let network = prop::sample::select(vec![
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.2.0.0/16",
        "10.2.7.0/24",
        "10.9.0.0/16",
    ]);
    let networks = prop::collection::btree_set(network, 0..3);
    let group = (0..3u8, networks).prop_map(|(priority, networks)| {
        (priority, networks.into_iter().map(str::to_owned).collect())
    });
    let member = prop::collection::btree_map(0..GROUPS, 0..4u32, 0..=GROUPS);
    let member = member.prop_map(|groups| groups.into_iter().collect());
    (
        prop::collection::vec(group, GROUPS),
        prop::collection::vec(member, 2..4),
        0..7u32,
        any::<u64>(),
    )
        .prop_map(|(groups, members, loss, seed)| Fleet {
            groups,
            members,
            loss,
            seed,
        })
}

impl Fleet {
    fn record_group(&self, group: usize) -> RecordGroup {
        let (priority, networks) = &self.groups[group];
        RecordGroup {
            group: number_of(group as u32 + 1),
            priority: *priority,
            mtu: None,
            suite: EspSuite::default(),
            networks: networks.iter().map(|text| prefix(text)).collect(),
        }
    }

    fn net(&self) -> Net {
        let members: Vec<Vec<_>> = self
            .members
            .iter()
            .map(|groups| {
                groups
                    .iter()
                    .map(|&(group, _)| self.record_group(group))
                    .collect()
            })
            .collect();
        let members: Vec<&[_]> = members.iter().map(|groups: &Vec<_>| &groups[..]).collect();
        let mut net = Net::new(&members);
        for (place, groups) in self.members.iter().enumerate() {
            for &(group, generation) in groups.iter().filter(|(_, generation)| *generation > 0) {
                net.give_key(place as u32 + 1, number_of(group as u32 + 1), 7, generation);
            }
        }
        let (mut state, loss) = (self.seed | 1, u64::from(self.loss));
        net.loses = Box::new(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % 10 < loss
        });
        net
    }

    /// Rule A-24, as it is written.
    fn expected(&self, from: usize, to: usize, source: &str, destination: &str) -> Option<u32> {
        let common = self.members[from]
            .iter()
            .filter(|(group, _)| self.members[to].iter().any(|(other, _)| other == group))
            .map(|&(group, _)| group);
        let common: Vec<_> = common.collect();
        let longest = |group: usize, of: &str| {
            let holding = self.groups[group]
                .1
                .iter()
                .filter(|it| prefix(it).contains(address(of)));
            holding.map(|it| prefix(it).length()).max()
        };
        let takes = |&group: &usize| {
            self.groups[group].1.is_empty() || longest(group, destination).is_some()
        };
        let (candidates, by): (Vec<usize>, _) = if common.iter().any(takes) {
            (common.into_iter().filter(takes).collect(), destination)
        } else {
            let back = |&group: &usize| longest(group, source).is_some();
            (common.into_iter().filter(back).collect(), source)
        };
        let mut best: Option<usize> = None;
        for group in candidates {
            let rank = |group: usize| (self.groups[group].0, longest(group, by).unwrap_or(0));
            if best.is_none_or(|held| rank(group) > rank(held)) {
                best = Some(group);
            }
        }
        best.map(|group| group as u32 + 1)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is lost: the group of the rule or none; with nothing lost always the group; the way
    /// back under the same one; both sides at one generation.
    #[test]
    fn a_search_finds_the_group_of_the_rule_or_nothing(fleet in fleets(), c in 0..3u8) {
        for (from, to) in [(0, 1), (1, 0)] {
            let mut net = fleet.net();
            let (source, destination) = (format!("10.{}.7.{c}", from + 1), format!("10.{}.7.{c}", to + 1));
            let expected = fleet.expected(from, to, &source, &destination);
            let (one, two) = (from as u32 + 1, to as u32 + 1);
            match net.way(one, &source, &destination) {
                Way::Protect { group, peer, .. } => {
                    prop_assert_eq!(Some(group.get()), expected);
                    prop_assert_eq!(peer.get(), two);
                    let both = [one, two].map(|n| net.generation(n, group.get()));
                    prop_assert_eq!(both[0], both[1], "X-04");
                    net.packet(two, one, group.get(), &source, &destination);
                    let back = net.way(two, &destination, &source);
                    let same = matches!(back, Way::Protect { group: it, .. } if it == group);
                    prop_assert!(same, "{:?} and back {:?}", group, back);
                }
                Way::Drop(DropReason::NoAnswer | DropReason::NotHeld) => {
                    prop_assert!(expected.is_none() || fleet.loss > 0);
                }
                Way::Drop(DropReason::NoCommonGroup) => prop_assert_eq!(expected, None),
                way @ (Way::Drop(_)
                | Way::Clear
                | Way::Searching
                | Way::ProtectMulticast { .. }) => prop_assert!(false, "{:?}", way),
            }
        }
    }
}
