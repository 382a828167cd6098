//! A server that is put back from a copy, whatever it ordered since (FORMATS section 12;
//! REQUIREMENTS A-32; INVARIANT 1).

use std::collections::BTreeSet;

use super::desk::{
    Desk, FOUNDED, add, add_terminal, counting, create_group, exclude, group, opens, remove,
    terminal,
};
use crate::command::{Body, OrderKind, SigningKey};
use crate::ids::{TerminalNumber, UnixSeconds};
use crate::keys::{Secret, WrapKey};
use crate::rng::{Random, octets};
use crate::schedule::Cadence;
use crate::server::{
    By, CaughtUp, ChangeMode, Class, DraftedKeys, Exclusion, FleetRecord, Founding, GroupPolicy,
    GroupRecord, Item, KeySetDraft, Order, PackageSealing, Refusal, Server, Since, Stragglers,
    TerminalRecord,
};
use crate::sharing::KemSecret;
use crate::sharing::rsa_misty1::{RsaPublic, RsaSecret, RsaSize};
use crate::token::TokenRecord;

const HOUR: u32 = 3_600;

/// What a backup holds.
pub(super) struct Copied {
    fleet: FleetRecord,
    terminals: Vec<TerminalRecord>,
    groups: Vec<GroupRecord>,
    exclusions: Vec<Exclusion>,
    drafted: Option<DraftedKeys>,
    /// Journal entries at that time.
    entries: usize,
    audited_at: UnixSeconds,
}

impl Copied {
    pub(super) fn of(desk: &Desk) -> Self {
        let signer = |key: &SigningKey| SigningKey::from_seed(key.seed().duplicate());
        let fleet = &desk.server.fleet;
        let drafted = desk.server.drafted.as_ref().map(|drafted| DraftedKeys {
            command: drafted.command.clone(),
            beat: signer(&drafted.beat),
            keys: signer(&drafted.keys),
            kem: drafted.kem.as_ref().map(KemSecret::duplicate),
            kem_pq: drafted.kem_pq.as_ref().map(KemSecret::duplicate),
            rsa: drafted.rsa.as_ref().map(RsaSecret::duplicate),
        });
        Self {
            fleet: FleetRecord {
                name: fleet.name.clone(),
                stream: fleet.stream,
                root: fleet.root,
                key_set_frame: fleet.key_set_frame.clone(),
                key_set: fleet.key_set.clone(),
                beat: signer(&fleet.beat),
                keys: signer(&fleet.keys),
                kem: fleet.kem.as_ref().map(KemSecret::duplicate),
                kem_pq: fleet.kem_pq.as_ref().map(KemSecret::duplicate),
                rsa: fleet.rsa.as_ref().map(RsaSecret::duplicate),
                fleet_generation: fleet.fleet_generation,
                sequence_reserved: fleet.sequence_reserved,
                carriers: fleet.carriers.clone(),
                servers: fleet.servers.clone(),
                listen: fleet.listen.clone(),
                keep_time: fleet.keep_time,
                epoch_life: fleet.epoch_life,
                bits_per_second: fleet.bits_per_second,
            },
            terminals: desk.server.terminals().map(duplicate).collect(),
            groups: desk
                .server
                .groups()
                .map(|group| GroupRecord {
                    number: group.number,
                    name: group.name.clone(),
                    members: group.members.clone(),
                    master: group.master.duplicate(),
                    schedule: group.schedule,
                    lease: group.lease,
                    policy: group.policy,
                    packets: group.packets.clone(),
                    search_key: group.search_key.as_ref().map(Secret::duplicate),
                    statements: group.statements.clone(),
                })
                .collect(),
            exclusions: desk.server.exclusions().cloned().collect(),
            drafted,
            entries: desk.journal.len(),
            audited_at: desk.audited_at,
        }
    }

    /// The server that goes on in place of `lost`, by all of its journal.
    pub(super) fn restored(self, lost: &Desk, incomplete: Option<usize>) -> (Desk, CaughtUp) {
        let known = incomplete.unwrap_or(lost.journal.len());
        let entries = lost.journal[self.entries..known.max(self.entries)].to_vec();
        let since = Since {
            copied_at: self.audited_at,
            entries,
            sequence: lost.server.fleet.sequence_reserved,
            incomplete: incomplete.is_some(),
        };
        let mut server = Server::new(
            self.fleet,
            self.terminals,
            self.groups,
            self.exclusions,
            lost.at,
        );
        if let Some(drafted) = self.drafted {
            server.resume_draft(drafted);
        }
        let by = By {
            actor: "uid 0".to_owned(),
            reason: None,
            ticket: None,
        };
        let (batch, done) = server
            .catch_up(&since, by, &mut counting())
            .expect("the journal is ours");
        for change in batch.changes {
            server.apply(change);
        }
        let mut desk = Desk::new();
        desk.journal.clone_from(&lost.journal);
        desk.journal.push((
            lost.at.wall,
            batch.journal.expect("a restore is journalled"),
        ));
        desk.audited_at = lost.at.wall;
        desk.root = SigningKey::from_seed(lost.root.seed().duplicate());
        desk.erase = SigningKey::from_seed(lost.erase.seed().duplicate());
        desk.server = server;
        desk.at = lost.at;
        // As a process that starts from what was stored.
        let mut desk = desk.restarted(lost.at.wall);
        desk.store();
        (desk, done)
    }
}

fn duplicate(record: &TerminalRecord) -> TerminalRecord {
    TerminalRecord {
        number: record.number,
        name: record.name.clone(),
        obey: record.obey.duplicate(),
        wrap: record.wrap.duplicate(),
        added_at: record.added_at,
        package_expires: record.package_expires,
        wipe_roots: record.wipe_roots.clone(),
        token: record.token.as_ref().map(|token| TokenRecord {
            id: token.id,
            key: token.key.as_ref().map(WrapKey::duplicate),
        }),
        mixed_at: record.mixed_at,
        legacy_key: record.legacy_key.clone(),
        addresses: record.addresses.clone(),
        record: record.record,
        excluded_at: record.excluded_at,
        memberships: record.memberships.clone(),
        orders: record.orders.clone(),
    }
}

fn fleet(terminals: u32) -> Desk {
    let mut desk = Desk::founded(Founding {
        fleet_period: HOUR,
        ..Founding::default()
    });
    for number in 1..=terminals {
        desk.carry_out(add_terminal(&format!("t{number}")))
            .expect("free");
    }
    desk
}

fn group_of(desk: &mut Desk, name: &str, members: &[u32], cadence: Option<Cadence>) {
    let Order::CreateGroup { name, members, .. } = create_group(name, members) else {
        unreachable!("it makes a group")
    };
    desk.carry_out(Order::CreateGroup {
        packets: None,
        name,
        members,
        cadence,
    })
    .expect("free");
}

fn members(desk: &Desk, number: u32) -> Vec<u32> {
    let record = &desk.server.groups[&group(number)];
    record.members.iter().map(|it| it.get()).collect()
}

fn numbers(terminals: &[TerminalNumber]) -> Vec<u32> {
    terminals.iter().map(|it| it.get()).collect()
}

/// INVARIANT 1, and what DESIGN section 8 asks: nothing that `lost` used comes again, and whom it
/// shut out stays out.
fn assert_goes_on_above(restored: &Desk, lost: &Desk, what: &str) {
    let (now, then) = (&restored.server, &lost.server);
    assert!(
        now.fleet.fleet_generation >= then.fleet.fleet_generation,
        "{what}: G"
    );
    assert!(now.sequence >= then.sequence, "{what}: sequence");
    assert!(
        now.fleet.key_set.version >= then.fleet.key_set.version,
        "{what}: KEYSET"
    );
    assert!(
        now.next_terminal() > then.terminals.keys().next_back().copied(),
        "{what}"
    );
    assert!(
        now.next_group() > then.groups.keys().next_back().copied(),
        "{what}"
    );
    for record in then.terminals() {
        let number = record.number;
        let here = &now.terminals[&number];
        if record.excluded_at.is_some() {
            assert!(
                here.excluded_at.is_some(),
                "{what}: terminal {number} is back"
            );
            assert!(
                now.groups().all(|group| !group.members.contains(&number)),
                "{what}"
            );
        }
        if now.is_lost(number) {
            assert!(
                now.groups().all(|group| !group.members.contains(&number)),
                "{what}"
            );
            continue;
        }
        // It is the same key, further on, and by the same offset: the terminal follows.
        assert!(
            here.wrap.generation() >= record.wrap.generation(),
            "{what}: wrap {number}"
        );
        assert_eq!(
            now.offset(here),
            then.offset(record),
            "{what}: offset of {number}"
        );
        let stepped = record.wrap.duplicate().renew_to(here.wrap.generation());
        assert_eq!(
            stepped.secret().expose(),
            here.wrap.secret().expose(),
            "{what}"
        );
        let lock = |server: &Server| server.terminals[&number].lock().and_then(|it| it.version);
        assert!(now.restored.floors.lock.max(lock(now).unwrap_or(0)) >= lock(then).unwrap_or(0));
    }
    for record in then.groups() {
        let Some(here) = now.groups.get(&record.number) else {
            continue;
        };
        let (new, old) = (&here.master, &record.master);
        let place = (new.epoch(), new.generation());
        assert!(
            place >= (old.epoch(), old.generation()),
            "{what}: group {}",
            record.number
        );
        if new.epoch() == old.epoch() {
            let stepped = old.duplicate().renew_to(new.generation());
            assert_eq!(stepped.secret().expose(), new.secret().expose(), "{what}");
            let scheduled = record.schedule.generation_at(lost.at.wall);
            assert!(new.generation() >= scheduled, "{what}: behind the schedule");
        }
        let trusted = |number: &TerminalNumber| !now.is_lost(*number);
        let expected: BTreeSet<_> = record.members.iter().copied().filter(trusted).collect();
        assert_eq!(
            here.members, expected,
            "{what}: members of {}",
            record.number
        );
    }
}

/// FORMATS section 12: a restored server never starts sending by itself; and it takes orders.
#[test]
fn a_restored_server_sends_nothing_until_it_is_confirmed_also_after_a_restart() {
    let mut lost = Desk::with_group(3);
    let copied = Copied::of(&lost);
    lost.carry_out(add(1, 3)).expect("known");
    let (mut desk, done) = copied.restored(&lost, None);
    assert_eq!((done.joined, done.losses.len()), (1, 0));
    desk.live(3 * HOUR);
    desk.carry_out(exclude(&[3])).expect("orders are taken");
    let wall = desk.at.wall;
    let mut desk = desk.restarted(wall);
    desk.store();
    desk.live(3 * HOUR);
    assert!(desk.sent.is_empty(), "{:?}", desk.sent.first());
    assert!(desk.server.restored().held.is_some());

    desk.carry_out(Order::Confirm).expect("it is held");
    desk.live(60);
    let classes: BTreeSet<_> = desk.heard().iter().map(|(item, _)| item.class()).collect();
    assert_eq!(
        classes.len(),
        Class::ALL.len() - 3,
        "all but ERASE, CHANGE and RECORD: {classes:?}"
    );
    let again = desk
        .carry_out(Order::Confirm)
        .expect_err("it sends already");
    assert_eq!(again, Refusal::NotHeld);
    let wall = desk.at.wall;
    let mut desk = desk.restarted(wall);
    desk.store();
    desk.live(60);
    assert!(!desk.sent.is_empty(), "a restart does not hold it again");
}

/// Who was shut out after the backup stays out, by EXCLUDE too, and the others follow.
#[test]
fn an_exclusion_after_the_backup_stands_and_the_others_follow() {
    let mut lost = Desk::with_group(4);
    lost.carry_out(add(1, 3)).expect("known");
    let copied = Copied::of(&lost);
    lost.live(10);
    lost.carry_out(exclude(&[2])).expect("known");
    lost.carry_out(remove(1, 3)).expect("a member");
    lost.carry_out(Order::RenewDevice {
        terminal: terminal(1),
    })
    .expect("known");
    lost.carry_out(Order::RenewDevices).expect("in time");
    let (mut desk, done) = copied.restored(&lost, None);
    assert_eq!(numbers(&done.excluded), [2]);
    assert_eq!(
        (done.left, done.fresh, done.losses.len()),
        (2, 1, 0),
        "{done:?}"
    );
    assert_goes_on_above(&desk, &lost, "an exclusion");
    assert_eq!(members(&desk, 1), [1]);
    desk.carry_out(Order::Confirm).expect("it is held");
    desk.live(60);
    let epoch = desk.server.groups[&group(1)].master.epoch();
    let mut named = false;
    for (_, command) in desk.heard() {
        match &command.body {
            Body::Exclude(exclude) => {
                assert_eq!(exclude.terminals, [terminal(2)]);
                assert_eq!(exclude.groups[0].new, epoch, "the one that comes");
                named = true;
            }
            Body::KeyDist(dist) => {
                // What the terminals held when the server was lost.
                assert!(opens(&lost.wrap(1), &command, dist), "1 follows");
                assert!(
                    [2, 3]
                        .iter()
                        .all(|&out| !opens(&lost.wrap(out), &command, dist))
                );
            }
            Body::Time(_)
            | Body::Renew(_)
            | Body::Order(_)
            | Body::KeySet(_)
            | Body::Stop(_)
            | Body::Start(_)
            | Body::Notify(_) => {}
        }
    }
    assert!(named, "EXCLUDE is sent again");
}

/// The keys of those that came after the backup are lost, and their numbers are used.
#[test]
fn who_was_enrolled_after_the_backup_is_unknown_and_its_number_is_used() {
    let mut lost = Desk::with_group(2);
    let copied = Copied::of(&lost);
    for name in ["t3", "t4"] {
        lost.carry_out(add_terminal(name)).expect("free");
    }
    lost.carry_out(add(1, 3)).expect("known");
    lost.carry_out(exclude(&[4])).expect("known");
    lost.carry_out(create_group("late", &[1, 3])).expect("free");
    let (mut desk, done) = copied.restored(&lost, None);
    assert_eq!(numbers(&done.lost), [3, 4]);
    assert_eq!(numbers(&done.excluded), [4]);
    assert_goes_on_above(&desk, &lost, "enrolments");
    assert_eq!(
        members(&desk, 1),
        [1, 2],
        "and a fresh epoch, which 3 does not hold"
    );
    assert_eq!(done.fresh, 1);
    for word in [
        "group late (2)",
        "terminal t3 (3)",
        "add it to crew again",
        "terminal t4 (4)",
    ] {
        assert!(
            done.losses.iter().any(|loss| loss.contains(word)),
            "{word}: {:?}",
            done.losses
        );
    }
    let lost_keys = Err(Refusal::KeysLost(terminal(3)));
    assert_eq!(desk.carry_out(add(1, 3)).map(drop), lost_keys);
    let renewal = Order::RenewDevice {
        terminal: terminal(3),
    };
    assert_eq!(desk.carry_out(renewal).map(drop), lost_keys);
    let draft = desk
        .server
        .draft_order(terminal(3), OrderKind::Delete, false, &mut counting());
    assert_eq!(draft.map(drop), lost_keys);
    desk.carry_out(exclude(&[3]))
        .expect("it may still be excluded");
    desk.carry_out(add_terminal("t3"))
        .expect("the name is free again");
    let newcomer = desk.server.terminal_named("t3").map(|it| it.number);
    assert_eq!(newcomer, Some(terminal(5)));
    group_of(&mut desk, "late", &[1, 5], None);
    assert_eq!(
        members(&desk, 3),
        [1, 5],
        "not under the number of the group that is lost"
    );
}

/// KR-379: whether it was used since, the copy does not know.
#[test]
fn a_token_of_before_the_backup_is_void() {
    let mut desk = fleet(1);
    desk.server.fleet.listen.push("192.0.2.9:47900".to_owned());
    let by_token = Order::AddTerminal {
        name: "dave".to_owned(),
        sealing: PackageSealing::ByToken { life: 3600 },
        wipe_roots: Vec::new(),
    };
    desk.carry_out(by_token).expect("it may be");
    let pending = |desk: &Desk| {
        let record = desk.server.terminal_named("dave").expect("added");
        (record.is_pending(), record.may_ask(desk.at.wall))
    };
    assert_eq!(pending(&desk), (true, true));
    let copied = Copied::of(&desk);
    let (restored, done) = copied.restored(&desk, None);
    assert_eq!(pending(&restored), (true, false));
    let named = |loss: &&String| loss.contains("token of terminal dave (2)");
    assert_eq!(
        done.losses.iter().filter(named).count(),
        1,
        "{:?}",
        done.losses
    );
}

#[test]
fn orders_of_the_erase_class_after_the_backup_are_named_and_their_versions_passed() {
    let mut lost = Desk::with_group(3);
    let frame = lost.signed(3, OrderKind::Lock, false);
    lost.carry_out(Order::Issue { frame }).expect("signed");
    let copied = Copied::of(&lost);
    for (number, kind) in [
        (2, OrderKind::Delete),
        (1, OrderKind::Lock),
        (3, OrderKind::Unlock),
    ] {
        let frame = lost.signed(number, kind, false);
        lost.carry_out(Order::Issue { frame }).expect("signed");
    }
    let (mut desk, done) = copied.restored(&lost, None);
    assert_eq!(done.losses.len(), 3, "{:?}", done.losses);
    for words in [
        "DELETE of 2027",
        "t2 (2)",
        "LOCK of",
        "t1 (1)",
        "UNLOCK of",
        "t3 (3)",
    ] {
        assert!(
            done.losses.iter().any(|loss| loss.contains(words)),
            "{words}"
        );
    }
    let newest = lost.server.terminals[&terminal(3)]
        .lock()
        .and_then(|it| it.version);
    let frame = desk.signed(3, OrderKind::Unlock, false);
    desk.carry_out(Order::Issue { frame }).expect("signed");
    let version = desk.server.terminals[&terminal(3)]
        .lock()
        .and_then(|it| it.version);
    assert!(version > newest, "{version:?} is not above {newest:?}");
}

/// The KEYSET that terminals hold is the one of the journal; what it voids stays void.
#[test]
fn a_key_set_signed_after_the_backup_is_held_again() {
    let mut lost = Desk::with_group(2);
    lost.live(10);
    let copied = Copied::of(&lost);
    let stolen = lost.server.fleet.keys.public().name();
    let frame = lost
        .key_set(KeySetDraft {
            stolen: vec![stolen],
            ..KeySetDraft::default()
        })
        .expect("drafted");
    lost.carry_out(Order::InstallKeys { frame })
        .expect("signed");
    lost.live(2 * HOUR);
    let (mut desk, done) = copied.restored(&lost, None);
    assert_goes_on_above(&desk, &lost, "a KEYSET");
    assert_eq!(desk.server.fleet.key_set, lost.server.fleet.key_set);
    assert!(done.losses[0].contains("sign-keys"), "{:?}", done.losses);
    // The stolen key, which the copy still has, signs nothing: only the KEYSET is sent.
    desk.carry_out(Order::Confirm).expect("it is held");
    desk.live(60);
    assert!(desk.sent.iter().all(|(item, _)| *item == Item::KeySet));
    let frame = desk.key_set(KeySetDraft::default()).expect("drafted");
    desk.carry_out(Order::InstallKeys { frame })
        .expect("signed");
    assert!(desk.server.fleet.key_set.stolen.contains(&stolen));
    assert!(desk.server.fleet.key_set.version > lost.server.fleet.key_set.version);
    desk.live(60);
    assert!(
        desk.heard()
            .iter()
            .any(|(item, _)| item.class() == Class::KeyDist)
    );
}

/// Where the copy has the draft, it has the keys.
#[test]
fn online_keys_that_waited_in_the_backup_are_not_lost() {
    let mut lost = Desk::with_group(2);
    let frame = lost.key_set(KeySetDraft::default()).expect("drafted");
    let copied = Copied::of(&lost);
    lost.carry_out(Order::InstallKeys { frame })
        .expect("signed");
    let (desk, _) = copied.restored(&lost, None);
    let name = |desk: &Desk| desk.server.fleet.keys.public().name();
    assert_eq!(name(&desk), name(&lost));
    assert_eq!(desk.server.signers_expire(), lost.server.signers_expire());
}

/// Without the journal nothing is known: every group begins anew, and numbers go on far above.
#[test]
fn without_the_journal_every_group_is_fresh_and_numbers_go_on_at_the_next_million() {
    let mut lost = Desk::with_group(3);
    group_of(&mut lost, "other", &[1, 3], Cadence::new(1, HOUR));
    let copied = Copied::of(&lost);
    let known = lost.journal.len();
    lost.live(5 * HOUR);
    lost.carry_out(exclude(&[2])).expect("known");
    lost.carry_out(add_terminal("t4")).expect("free");
    lost.carry_out(Order::RenewDevices).expect("in time");
    let (mut desk, done) = copied.restored(&lost, Some(known));
    assert_eq!((done.fresh, done.renewed), (2, 0));
    assert!(
        done.losses[0].contains("exclude again"),
        "{:?}",
        done.losses
    );
    for record in desk.server.groups() {
        assert!(record.master.epoch() > lost.server.groups[&record.number].master.epoch());
    }
    assert!(desk.server.fleet.fleet_generation > lost.server.fleet.fleet_generation);
    desk.carry_out(add_terminal("t5")).expect("free");
    let number = desk.server.terminal_named("t5").map(|it| it.number.get());
    assert_eq!(number, Some(1 << 20));
    desk.carry_out(create_group("new", &[1])).expect("free");
    assert!(desk.server.groups.contains_key(&group(1 << 20)));
    desk.carry_out(exclude(&[2])).expect("the operator knows");
    desk.carry_out(Order::Confirm).expect("it is held");
    desk.live(60);
    let mut followed = false;
    for (_, command) in desk.heard() {
        if let Body::KeyDist(dist) = &command.body {
            assert!(!opens(&lost.wrap(2), &command, dist));
            followed |= opens(&lost.wrap(1), &command, dist);
        }
    }
    assert!(followed, "a terminal of the backup follows");
}

/// A journal that lost its end says what it has; the rest counts as unknown.
#[test]
fn what_is_whole_of_a_broken_journal_still_counts() {
    let mut lost = Desk::with_group(3);
    let copied = Copied::of(&lost);
    lost.carry_out(exclude(&[2])).expect("known");
    let known = lost.journal.len();
    lost.carry_out(exclude(&[3])).expect("known");
    let (desk, done) = copied.restored(&lost, Some(known));
    assert_eq!(numbers(&done.excluded), [2]);
    assert!(
        desk.server.terminals[&terminal(3)].excluded_at.is_none(),
        "nobody knows"
    );
}

/// The same copy twice: the second restore knows what the first one used.
/// What the operator set after the backup holds; legacy sharing is on only where it is known that
/// it still was (W-16).
#[test]
fn a_restored_server_changes_keys_as_it_was_set_last() {
    let set = |change, stragglers, legacy| Order::SetGroup {
        group: group(1),
        change,
        stragglers,
        legacy,
    };
    for (after, legacy) in [(None, true), (Some(false), false), (Some(true), true)] {
        let mut lost = fleet(2);
        group_of(&mut lost, "crew", &[1, 2], None);
        lost.carry_out(set(None, None, Some(true))).expect("known");
        let copied = Copied::of(&lost);
        lost.carry_out(set(
            Some(ChangeMode::Barrier),
            Some(Stragglers::Wait),
            after,
        ))
        .expect("known");
        let wanted = GroupPolicy {
            change: ChangeMode::Barrier,
            stragglers: Stragglers::Wait,
            legacy,
        };
        let (desk, _) = copied.restored(&lost, None);
        assert_eq!(desk.server.groups[&group(1)].policy, wanted);
    }
    let mut lost = fleet(2);
    group_of(&mut lost, "crew", &[1, 2], None);
    lost.carry_out(set(None, None, Some(true))).expect("known");
    let copied = Copied::of(&lost);
    let known = lost.journal.len();
    lost.carry_out(set(None, None, Some(false))).expect("known");
    let (desk, done) = copied.restored(&lost, Some(known));
    assert!(!desk.server.groups[&group(1)].policy.legacy);
    let said = |loss: &String| loss.contains("legacy sharing is off");
    assert!(done.losses.iter().any(said), "{:?}", done.losses);
}

/// A key that was replaced, perhaps because it was stolen, does not come back, and none counts where
/// the end of the journal is lost.
#[test]
fn a_restored_server_answers_under_no_legacy_key_of_before() {
    let made = || RsaSecret::generate(RsaSize::Bits2048).expect("made");
    let [first, second] = [made(), made()].map(|key| key.public().clone());
    let set = |key: Option<&RsaPublic>| Order::SetLegacyKey {
        terminal: terminal(1),
        key: key.cloned(),
    };
    let (first, second) = (Some(&first), Some(&second));
    let cases = [
        (vec![], false, first),
        (vec![second], false, second),
        (vec![second, None], false, None),
        (vec![second], true, None),
    ];
    for (after, unknown, expected) in cases {
        let mut lost = fleet(2);
        lost.carry_out(set(first)).expect("known");
        let copied = Copied::of(&lost);
        let known = unknown.then_some(lost.journal.len());
        for &key in &after {
            lost.carry_out(set(key)).expect("known");
        }
        let (desk, _) = copied.restored(&lost, known);
        let held = &desk.server.terminals[&terminal(1)].legacy_key;
        assert_eq!(held.as_ref(), expected, "{after:?} {unknown}");
    }
}

#[test]
fn a_second_restore_from_the_same_backup_goes_on_above_the_first() {
    let mut lost = Desk::with_group(3);
    group_of(&mut lost, "ticking", &[1, 2], Cadence::new(1, HOUR));
    let (first, second) = (Copied::of(&lost), Copied::of(&lost));
    lost.carry_out(remove(1, 2)).expect("a member");
    lost.live(3 * HOUR + 1000);
    let (mut desk, _) = first.restored(&lost, None);
    assert_goes_on_above(&desk, &lost, "the first");
    desk.carry_out(Order::Confirm).expect("it is held");
    desk.carry_out(exclude(&[3])).expect("known");
    desk.live(2 * HOUR);
    let (again, _) = second.restored(&desk, None);
    assert_goes_on_above(&again, &desk, "the second");
}

/// Forty lives of a server, each lost at a random place after a random backup.
#[test]
fn whatever_was_ordered_since_no_number_comes_back_and_nobody_is_readmitted() {
    for seed in 0..40_u8 {
        let mut lost = fleet(6);
        let mut dice = counting();
        for _ in 0..seed {
            let _: [u8; 1] = octets(&mut dice);
        }
        group_of(&mut lost, "hourly", &[1, 2, 3], Cadence::new(1, HOUR));
        group_of(&mut lost, "fast", &[2, 3, 4], Cadence::new(2, 900));
        group_of(&mut lost, "still", &[4, 5], None);
        for _ in 0..8 {
            random_order(&mut lost, &mut dice);
        }
        let copied = Copied::of(&lost);
        let mut said = Vec::new();
        for _ in 0..12 {
            said.push(random_order(&mut lost, &mut dice));
        }
        let (mut desk, _) = copied.restored(&lost, None);
        assert_goes_on_above(&desk, &lost, &format!("seed {seed}: {said:?}"));
        desk.live(120);
        assert!(desk.sent.is_empty(), "seed {seed}");
        desk.carry_out(Order::Confirm).expect("it is held");
        desk.live(120);
        for (_, command) in desk.heard() {
            let Body::KeyDist(dist) = &command.body else {
                continue;
            };
            for record in lost.server.terminals() {
                let out = record.excluded_at.is_some() || desk.server.is_lost(record.number);
                let opened = opens(&record.wrap, &command, dist);
                assert!(!(out && opened), "seed {seed}: {} reads on", record.number);
            }
        }
    }
}

/// Gives an order that may be refused, or lets time pass; says what it was.
fn random_order(desk: &mut Desk, dice: &mut dyn Random) -> String {
    let [what, which, of, time] = octets::<4>(dice).map(u32::from);
    let count = desk.server.terminals.len();
    let some = 1 + which % u32::try_from(count).expect("few");
    let in_group = 1 + of % 3;
    desk.live(time * 13);
    let order = match what % 12 {
        0 => add_terminal(&format!("n{}", count + 1)),
        1 => exclude(&[some]),
        2 => remove(in_group, some),
        3 | 4 => add(in_group, some),
        5 => Order::RenewGroup {
            group: group(in_group),
        },
        6 => Order::RekeyGroup {
            group: group(in_group),
        },
        7 => Order::RenewDevices,
        8 => Order::RenewDevice {
            terminal: terminal(some),
        },
        9 => {
            let frame = desk.signed(some, OrderKind::Lock, false);
            Order::Issue { frame }
        }
        10 => {
            let stolen = (which % 2 == 0).then(|| desk.server.fleet.keys.public().name());
            let draft = KeySetDraft {
                stolen: stolen.into_iter().collect(),
                ..KeySetDraft::default()
            };
            match desk.key_set(draft) {
                Ok(frame) => Order::InstallKeys { frame },
                Err(refusal) => return refusal.to_string(),
            }
        }
        _ => {
            desk.live(time * 97);
            return format!("time {}", desk.at.wall.since(FOUNDED));
        }
    };
    let said = format!("{order:?}").chars().take(60).collect();
    // Some are refused.
    drop(desk.carry_out(order));
    said
}
