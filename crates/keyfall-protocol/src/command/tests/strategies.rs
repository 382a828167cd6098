//! Every command there is, at any numbers.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

pub(super) fn commands() -> impl Strategy<Value = Command> {
    let head = (
        any::<[u8; 4]>(),
        any::<u64>(),
        any::<u32>(),
        any::<u32>(),
        generations(),
    );
    (head, targets(), bodies()).prop_map(
        |((stream, sequence, issued_at, not_after, fleet_generation), target, body)| Command {
            stream: StreamId::new(stream),
            sequence: SequenceNumber::new(sequence),
            issued_at: UnixSeconds::new(issued_at),
            not_after: UnixSeconds::new(not_after),
            target,
            body,
            fleet_generation,
        },
    )
}

fn targets() -> impl Strategy<Value = Target> {
    prop_oneof![
        Just(Target::All),
        groups().prop_map(Target::Group),
        terminals().prop_map(Target::Terminal),
        Just(Target::Handles),
    ]
}

fn bodies() -> impl Strategy<Value = Body> {
    let floors = vec(
        (key_ids(), any::<u32>(), generations()),
        0..=FLOORS_MAX as usize,
    );
    let time = (any::<u32>(), any::<u32>(), floors).prop_map(|(seconds, max_error_ms, floors)| {
        let floors = floors.into_iter().map(|(kid, epoch, generation)| Floor {
            kid,
            epoch: KeyEpoch::new(epoch),
            generation,
        });
        Body::Time(Time {
            seconds: UnixSeconds::new(seconds),
            max_error_ms,
            floors: floors.collect(),
        })
    });
    let renew = vec(entries(), 1..=RENEW_ENTRIES_MAX as usize)
        .prop_map(|entries| Body::Renew(Renew { entries }));
    let key_dist = (1u32..=17).prop_map(|recipients| Body::KeyDist(a_key_dist(recipients)));
    let order = orders().prop_map(|contents| {
        let obey = an_obey_key(contents.terminal);
        Body::Order(SealedOrder::seal(&contents, &obey, &mut Counting(0)))
    });
    prop_oneof![
        time,
        renew,
        key_dist,
        order,
        exclusions().prop_map(Body::Exclude),
        key_sets().prop_map(Body::KeySet),
        halts().prop_map(Body::Stop),
        halts().prop_map(Body::Start),
        notices().prop_map(Body::Notify),
    ]
}

fn entries() -> impl Strategy<Value = RenewEntry> {
    let lease = prop::option::of(any::<u32>());
    (key_ids(), any::<u32>(), schedules(), lease).prop_map(|(kid, epoch, schedule, lease)| {
        RenewEntry {
            kid,
            epoch: KeyEpoch::new(epoch),
            schedule,
            lease_end: lease.map(UnixSeconds::new),
        }
    })
}

fn key_sets() -> impl Strategy<Value = KeySet> {
    let schedule = (generations(), any::<u32>(), 1..=u32::MAX);
    let stolen = vec(any::<[u8; 8]>().prop_map(KeyName::new), 0..=8);
    let head = (any::<u32>(), any::<u32>());
    (head, listed_keys(), schedule, stolen, limits()).prop_map(
        |((version, issued_at), keys, (first, from, period), stolen, limits)| KeySet {
            version,
            issued_at: UnixSeconds::new(issued_at),
            keys,
            fleet_schedule: FleetSchedule {
                first,
                from: UnixSeconds::new(from),
                period,
            },
            stolen,
            limits,
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    let seconds = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let wait = prop::option::of(any::<u32>());
    let others = (suites(), clear_lists());
    (seconds, wait, 1..=SIGNERS_MAX, others).prop_map(
        |((longest_lease, grace, exclude_grace, dead_man), exclude_wait, signatures, others)| {
            let (suites, clear) = others;
            Limits {
                longest_lease,
                suites,
                clear,
                grace,
                exclude_grace,
                exclude_wait,
                dead_man,
                erase_signatures: signatures as u8,
            }
        },
    )
}

fn clear_lists() -> impl Strategy<Value = ClearList> {
    let prefix = (any::<u32>(), 0..=32u8)
        .prop_map(|(address, length)| Prefix::around(address.to_be_bytes().into(), length));
    prop::collection::vec(prefix, 0..=8).prop_map(|prefixes| {
        let prefixes: Vec<_> = prefixes.into_iter().flatten().collect();
        ClearList::new(&prefixes).unwrap()
    })
}

fn suites() -> impl Strategy<Value = Suites> {
    use SharingSuite::{Hpke, HpkePq, Psk, RsaMisty1};
    let order = Just(vec![Psk, Hpke, HpkePq, RsaMisty1]).prop_shuffle();
    (order, 1..=4usize).prop_map(|(order, count)| Suites::new(&order[..count]).unwrap())
}

fn orders() -> impl Strategy<Value = OrderContents> {
    let kind = prop::sample::select(OrderKind::ALL.to_vec());
    (terminals(), kind, any::<u32>(), any::<bool>()).prop_map(
        |(terminal, kind, version, receipt_wanted)| {
            let versioned = matches!(kind, OrderKind::Lock | OrderKind::Unlock);
            OrderContents {
                terminal,
                kind,
                version: versioned.then_some(version),
                receipt_wanted,
            }
        },
    )
}

fn exclusions() -> impl Strategy<Value = Exclude> {
    let fresh = (groups(), 0..u32::MAX).prop_map(|(group, old)| FreshEpoch {
        group,
        old: KeyEpoch::new(old),
        new: KeyEpoch::new(old + 1),
    });
    let names = prop::collection::btree_set(terminals(), 1..=EXCLUDED_MAX);
    (names, vec(fresh, 0..=FRESH_EPOCHS_MAX)).prop_map(|(terminals, groups)| Exclude {
        terminals: terminals.into_iter().collect(),
        groups,
    })
}

fn halts() -> impl Strategy<Value = Halt> {
    let change = (any::<u64>(), any::<u32>());
    (groups(), change, any::<u32>(), generations()).prop_map(
        |(group, (transaction, deadline), epoch, generation)| Halt {
            group,
            transaction: SequenceNumber::new(transaction),
            epoch: KeyEpoch::new(epoch),
            generation,
            deadline: UnixSeconds::new(deadline),
        },
    )
}

fn notices() -> impl Strategy<Value = Notify> {
    let entry = (groups(), any::<u32>(), generations()).prop_map(|(group, epoch, generation)| {
        let epoch = KeyEpoch::new(epoch);
        NotifyEntry {
            group,
            epoch,
            generation,
        }
    });
    let entries = vec(entry, 0..=NOTIFY_ENTRIES_MAX as usize);
    (any::<u32>(), entries).prop_map(|(spread_ms, entries)| Notify { spread_ms, entries })
}

fn terminals() -> impl Strategy<Value = TerminalNumber> {
    (1..=TerminalNumber::MAX.get()).prop_map(|number| TerminalNumber::new(number).unwrap())
}

fn listed_keys() -> impl Strategy<Value = Vec<ListedKey>> {
    let class = prop::sample::select(vec![
        SignerClass::Beat,
        SignerClass::Keys,
        SignerClass::Erase,
        SignerClass::Kem,
        SignerClass::KemPq,
        SignerClass::Rsa,
    ]);
    let key = (
        any::<u32>(),
        0u32..=30 * 86_400,
        class,
        vec(groups(), 0..=4),
    );
    vec(key, 1..=12).prop_map(|keys| {
        let listed = |(place, (begin, life, class, groups)): (usize, (u32, u32, _, _))| ListedKey {
            // Distinct by their first octet.
            public: VerifyingKey::new([place as u8; 32]),
            class,
            not_before: UnixSeconds::new(begin),
            expires: UnixSeconds::new(begin).plus(life),
            groups,
        };
        keys.into_iter().enumerate().map(listed).collect()
    })
}

fn key_ids() -> impl Strategy<Value = KeyId> {
    prop_oneof![
        Just(KeyId::ALL_RANK_ONE),
        any::<u32>().prop_filter_map("no such key id", |id| KeyId::new(id.into())),
        groups().prop_map(GroupNumber::master_key_id),
    ]
}

fn groups() -> impl Strategy<Value = GroupNumber> {
    (1..=GroupNumber::MAX.get()).prop_map(|number| GroupNumber::new(number).unwrap())
}

fn generations() -> impl Strategy<Value = Generation> {
    (0..=Generation::MAX.get()).prop_map(|number| Generation::new(number).unwrap())
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let cadence = prop::option::of((1u8..=64, 600..=u32::MAX));
    (generations(), any::<u32>(), cadence).prop_map(|(generation, activate_at, cadence)| Schedule {
        generation,
        activate_at: UnixSeconds::new(activate_at),
        cadence: cadence.map(|(step, period)| Cadence::new(step, period).unwrap()),
    })
}
