//! Stolen online keys: the thief writes the largest number wherever he can, and the next KEYSET with
//! fresh distributions makes every terminal whole without a visit (FORMATS sections 2.1 and 2.2;
//! REQUIREMENTS W-10, W-17).

use super::driven::Driven;
use super::fixture::{FLEET_PERIOD, FOUNDED, Fleet, Stated, generation, group, terminal_number};
use crate::command::{Body, Floor, KeyDist, KeyDistContents, SignerClass, SigningKey, Target};
use crate::ids::{GroupNumber, KeyEpoch, UnixSeconds};
use crate::keys::{MasterKey, Secret, WrapKey};
use crate::schedule::{Cadence, generation_bound};
use crate::stats::DropReason;
use crate::terminal::{Event, GroupState, TerminalState};

const DAY: u32 = 86_400;
const MONTH: u32 = 30 * DAY;
/// Seconds from the founding to the theft's discovery.
const FOUND_OUT: u32 = 7200;
/// The epoch of the fleet's group: as young as the fleet is.
const EPOCH: u32 = 32_774_400;

/// G_max of the first KEYSET's signers.
const G_MAX: u32 = MONTH / FLEET_PERIOD + 64;
/// G0 of the next: also above the farthest own offset.
const G0: u32 = G_MAX + 64;

fn expires() -> UnixSeconds {
    FOUNDED.plus(MONTH)
}

/// The largest epoch that a key of the first KEYSET may name.
fn last_epoch() -> u32 {
    expires().since(KeyEpoch::new(0).birth())
}

fn last_generation() -> u32 {
    generation_bound(KeyEpoch::new(EPOCH), expires()).get()
}

/// Terminal 1 as a member of the group at a young epoch, stored.
fn member(fleet: &mut Fleet) -> Driven {
    assert_eq!(KeyEpoch::new(EPOCH).birth(), FOUNDED);
    let mut bob = fleet.terminal();
    bob.hear(&fleet.time(0));
    bob.hear(&fleet.key_dist(EPOCH, Stated::at(0, 0)));
    bob.store_all();
    assert_eq!(bob.sending(), Some(0));
    bob
}

/// Everything at the last second that the thief's key may name.
fn at_the_end(generation: u32) -> Stated {
    Stated {
        issued_at: expires(),
        activate_at: UnixSeconds::new(0),
        cadence: Cadence::new(64, 600),
        lease: u32::MAX,
        fleet: G_MAX,
        ..Stated::at(0, generation)
    }
}

/// What a stolen beat key can say: time, floors, generations, epochs, schedules, leases, offset, G.
fn largest_of_the_beat_key(fleet: &Fleet) -> Vec<Vec<u8>> {
    let floor = |epoch, at| Floor {
        kid: group().master_key_id(),
        epoch: KeyEpoch::new(epoch),
        generation: generation(at),
    };
    let floors = vec![floor(EPOCH, last_generation()), floor(last_epoch(), 64)];
    vec![
        fleet.beacon(expires(), floors, at_the_end(0)),
        fleet.renew(EPOCH, at_the_end(last_generation())),
        fleet.renew(last_epoch(), at_the_end(64)),
        fleet.renew_fleet(at_the_end(G_MAX)),
        fleet.offset(64, at_the_end(0)),
    ]
}

/// What a stolen keys key can say together with the wrap key of this one terminal: keys of the
/// thief's own for its group and for others, and exclusion of everybody.
fn largest_of_the_keys_key(fleet: &mut Fleet, thief: &SigningKey) -> Vec<Vec<u8>> {
    let stated = at_the_end(64);
    // The chain to G_MAX and on to the last offset.
    let wrap = fleet.wrap_key(1).renew_to(generation(G_MAX + 8));
    let thiefs = |number: u32, epoch: u32, at: u32| {
        let number = GroupNumber::new(number).expect("not 0");
        let secret = Secret::init_with(|into| into.fill(0x66));
        MasterKey::new(number, KeyEpoch::new(epoch), generation(at), secret)
    };
    let mut dist = |key: MasterKey, wrap: &WrapKey| {
        let contents = KeyDistContents {
            search_key: None,
            key,
            activate_at: stated.activate_at,
            cadence: stated.cadence,
            lease_end: Some(UnixSeconds::new(u32::MAX)),
        };
        let body = Body::KeyDist(KeyDist::seal(&contents, [wrap].into_iter(), &mut fleet.rng));
        let command = fleet.command(Target::Handles, body, stated);
        thief.sign(&command)
    };
    let mut frames = vec![
        dist(thiefs(1, last_epoch(), 64), &wrap),
        dist(thiefs(2, last_epoch(), 64), &wrap),
        dist(thiefs(3, 1, 0), &wrap),
    ];
    for block in 0..4 {
        let names: Vec<_> = (1 + 64 * block..65 + 64 * block).collect();
        let body = Fleet::exclude_body(&names, Some(last_epoch()));
        frames.push(thief.sign(&fleet.command(Target::All, body, stated)));
    }
    frames
}

/// The root's answer: fresh keys, a schedule that begins above all that the old ones may have
/// claimed with offset and all, and where it is known, whose word is void.
fn answer(fleet: &mut Fleet, stolen: Vec<crate::ids::KeyName>) -> Vec<u8> {
    fleet.next_key_set(FOUND_OUT, |key_set| {
        key_set.fleet_schedule.first = generation(G0);
        key_set.fleet_schedule.from = FOUNDED.plus(FOUND_OUT);
        key_set.stolen = stolen;
    })
}

/// What the server sends under the new keys: time, and a fresh epoch of the group.
fn carousel(fleet: &mut Fleet) -> Vec<Vec<u8>> {
    let stated = Stated {
        fleet: G0,
        cadence: Cadence::new(1, 3600),
        ..Stated::at(FOUND_OUT + 60, 0)
    };
    vec![
        fleet.beacon(FOUNDED.plus(FOUND_OUT + 60), vec![], stated),
        fleet.key_dist(EPOCH + 60, stated),
    ]
}

/// As if there had been no thief.
fn is_whole(bob: &mut Driven, fleet: &mut Fleet) {
    bob.store_all();
    let wrap = fleet.wrap_key(1).renew_to(generation(G0));
    let held = (generation(G0), wrap.fingerprint());
    assert_eq!(bob.machine.wrap_key(), Some(held));
    assert_eq!(bob.machine.fleet_generation(), generation(G0));
    assert_eq!(bob.machine.time(), Some(FOUNDED.plus(FOUND_OUT + 60)));
    assert_eq!(bob.machine.state(), TerminalState::Ready);
    let status = bob.machine.groups();
    let own = status.iter().find(|status| status.group == group());
    let own = own.expect("held");
    assert_eq!(own.state, GroupState::Ready);
    assert_eq!(own.epoch, KeyEpoch::new(EPOCH + 60));
    assert_eq!(own.generation, generation(0));
    assert_eq!(
        own.lease_end,
        Some(FOUNDED.plus(FOUND_OUT + 60 + 72 * 3600))
    );
    assert_eq!(own.valid_until, Some(FOUNDED.plus(FOUND_OUT + 60 + 3600)));
    assert_eq!(bob.sending(), Some(0));
    let peer = bob.machine.may_receive(group(), terminal_number(2));
    assert_eq!(peer, Ok(()));
    assert_eq!(bob.machine.excluded().count(), 0);
    assert_eq!(bob.erased, None);
    // Nothing of the thief's is sent with in any other group either.
    for status in status.iter().filter(|status| status.group != group()) {
        assert_eq!(status.state, GroupState::Distrusted);
        assert!(bob.machine.send_key(status.group).is_none());
    }
    // It goes on: the next beat, the next hour, the next offset.
    bob.wait(3600);
    assert_eq!(bob.generation(), Some(1));
    assert_eq!(bob.machine.fleet_generation(), generation(G0 + 1));
    let stated = Stated {
        fleet: G0 + 1,
        ..Stated::at(FOUND_OUT + 3660, 5)
    };
    assert_eq!(bob.hear(&fleet.offset(1, stated)), None);
    let ahead = fleet.wrap_key(1).renew_to(generation(G0 + 2));
    let held = (ahead.generation(), ahead.fingerprint());
    assert_eq!(bob.machine.wrap_key(), Some(held));
    assert_eq!(bob.hear(&fleet.renew(EPOCH + 60, stated)), None);
    assert_eq!(bob.generation(), Some(5));
}

/// The issue: the beat key, whether the root names it as stolen or only lists another.
#[test]
fn what_a_stolen_beat_key_wrote_is_outlived_by_the_next_keyset() {
    for named in [true, false] {
        let mut fleet = Fleet::new();
        let mut bob = member(&mut fleet).restarted();
        for frame in largest_of_the_beat_key(&fleet) {
            bob.hear(&frame);
            bob.store_all();
        }
        assert_eq!(bob.machine.time(), Some(expires()), "it did reach him");
        assert_eq!(bob.machine.fleet_generation(), generation(G_MAX));
        assert_eq!(bob.user().offset, 64);
        assert_eq!(bob.generation(), Some(last_generation()));
        assert_eq!(bob.sending(), None);

        let thief = fleet.replace_key(SignerClass::Beat, FOUND_OUT);
        let stolen = named.then(|| thief.public().name());
        let key_set = answer(&mut fleet, stolen.into_iter().collect());
        assert_eq!(bob.hear(&key_set), None);
        bob.store_all();
        let restarted = bob.restarted();
        for mut bob in [bob, restarted] {
            let waits = bob.status().state == GroupState::WaitsForKey;
            assert_eq!(waits, !named, "for the epoch of the thief's");
            for frame in carousel(&mut fleet) {
                assert_eq!(bob.hear(&frame), None);
            }
            is_whole(&mut bob, &mut fleet);
        }
    }
}

/// The issue: the keys key, with the wrap key of this terminal.
#[test]
fn what_a_stolen_keys_key_wrote_is_outlived_by_the_next_keyset() {
    let mut fleet = Fleet::new();
    let mut bob = member(&mut fleet);
    let thief = fleet.replace_key(SignerClass::Keys, FOUND_OUT);
    for frame in largest_of_the_keys_key(&mut fleet, &thief) {
        assert_eq!(bob.hear(&frame), None, "it did reach him");
        bob.store_all();
    }
    assert_eq!(bob.machine.state(), TerminalState::Excluded);
    assert_eq!(bob.machine.excluded().count(), 256);
    assert_eq!(bob.user().offset, 8);
    assert_eq!(bob.epoch(), KeyEpoch::new(last_epoch()));
    assert!(bob.machine.holds(GroupNumber::new(3).expect("not 0")));

    let key_set = answer(&mut fleet, vec![thief.public().name()]);
    assert_eq!(bob.hear(&key_set), None);
    let readmitted =
        |event: &Event| matches!(event, Event::Readmitted { terminals } if terminals.len() == 256);
    bob.store_all();
    assert!(bob.events.iter().any(readmitted));
    assert_eq!(bob.status().state, GroupState::Distrusted);
    assert_eq!(bob.machine.why_not_sending(group()), DropReason::Distrusted);
    let restarted = bob.restarted();
    for mut bob in [bob, restarted] {
        bob.hear(&fleet.beacon(
            FOUNDED.plus(FOUND_OUT + 59),
            vec![],
            Stated::at(FOUND_OUT, 0),
        ));
        bob.store_all();
        assert_eq!(bob.sending(), None, "distrusted, also after a power cut");
        for frame in carousel(&mut fleet) {
            assert_eq!(bob.hear(&frame), None);
        }
        is_whole(&mut bob, &mut fleet);
    }
}

/// The same while it is locked: the notes of the thief's are void, and it is whole when it is
/// unlocked.
#[test]
fn a_locked_terminal_outlives_both_stolen_keys() {
    let mut fleet = Fleet::new();
    let mut bob = member(&mut fleet).restarted_locked();
    let frames = largest_of_the_beat_key(&fleet);
    let keys = fleet.replace_key(SignerClass::Keys, FOUND_OUT);
    for frame in frames
        .into_iter()
        .chain(largest_of_the_keys_key(&mut fleet, &keys))
    {
        bob.hear(&frame);
        bob.store_all();
    }
    assert_eq!(bob.machine.notes.offset, Some(64), "it did reach him");
    assert_eq!(bob.machine.notes.renewals.len(), 1);
    assert_eq!(bob.machine.notes.epochs.len(), 1);
    assert_eq!(bob.machine.excluded().count(), 256);
    let beat = fleet.replace_key(SignerClass::Beat, FOUND_OUT);
    let stolen = vec![beat.public().name(), keys.public().name()];
    let key_set = answer(&mut fleet, stolen);
    assert_eq!(bob.hear(&key_set), None);
    bob.store_all();
    let restarted = bob.restarted_locked();
    for mut bob in [bob, restarted] {
        let notes = &bob.machine.notes;
        assert!(notes.renewals.is_empty() && notes.epochs.is_empty(), "void");
        assert_eq!(bob.unlock(), Ok(()));
        assert_eq!(bob.generation(), Some(0), "where it was before the theft");
        for frame in carousel(&mut fleet) {
            assert_eq!(bob.hear(&frame), None);
        }
        is_whole(&mut bob, &mut fleet);
    }
}

/// FORMATS section 2.1: also without a fresh epoch: a schedule and a lease that a dropped key dated
/// at its very end give way to what is stated from the KEYSET on, by a lower number.
#[test]
fn a_statement_of_a_dropped_key_gives_way_to_a_lower_number() {
    let mut fleet = Fleet::new();
    let mut bob = member(&mut fleet);
    let dated = Stated {
        issued_at: expires(),
        lease: 0,
        ..Stated::at(0, 3)
    };
    assert_eq!(bob.hear(&fleet.renew(EPOCH, dated)), None);
    let genuine = Stated {
        cadence: Cadence::new(1, 3600),
        ..Stated::at(FOUND_OUT + 1, 2)
    };
    let too_early = Stated {
        issued_at: FOUNDED.plus(FOUND_OUT - 1),
        ..genuine
    };
    let refused = bob.hear(&fleet.renew(EPOCH, genuine));
    assert_eq!(refused, Some(DropReason::NotNewer));
    fleet.replace_key(SignerClass::Beat, FOUND_OUT - 10);
    let key_set = fleet.next_key_set(FOUND_OUT, |_| ());
    assert_eq!(bob.hear(&key_set), None);
    bob.store_all();
    let restarted = bob.restarted();
    for mut bob in [bob, restarted] {
        let refused = bob.hear(&fleet.renew(EPOCH, too_early));
        assert_eq!(refused, Some(DropReason::NotNewer));
        assert_eq!(bob.hear(&fleet.renew(EPOCH, genuine)), None);
        bob.hear(&fleet.time(FOUND_OUT + 2));
        bob.store_all();
        let status = bob.status();
        assert_eq!(status.generation, generation(3), "never down");
        assert_eq!(status.lease_end, Some(expires()), "it moves only forward");
        assert_eq!(status.valid_until, Some(FOUNDED.plus(FOUND_OUT + 3601)));
        let newer = Stated {
            issued_at: FOUNDED.plus(FOUND_OUT),
            ..genuine
        };
        let refused = bob.hear(&fleet.renew(EPOCH, newer));
        assert_eq!(refused, Some(DropReason::NotNewer), "as ever from then on");
    }
}

/// FORMATS section 2.1: where the thief guessed the number of the next epoch, his key gives way to
/// the genuine one of that number; without a theft nothing of a held epoch is replaced.
#[test]
fn a_genuine_key_replaces_the_thiefs_of_the_same_epoch() {
    let mut fleet = Fleet::new();
    let mut bob = member(&mut fleet);
    let thief = fleet.replace_key(SignerClass::Keys, FOUND_OUT);
    let stated = Stated::at(10, 5);
    let contents = KeyDistContents {
        search_key: None,
        key: MasterKey::new(
            group(),
            KeyEpoch::new(EPOCH + 60),
            generation(5),
            Secret::init_with(|into| into.fill(0x66)),
        ),
        activate_at: stated.activate_at,
        cadence: None,
        lease_end: None,
    };
    let wrap = fleet.wrap_key(1);
    let body = Body::KeyDist(KeyDist::seal(
        &contents,
        [&wrap].into_iter(),
        &mut fleet.rng,
    ));
    let command = fleet.command(Target::Handles, body, stated);
    assert_eq!(bob.hear(&thief.sign(&command)), None);
    bob.store_all();
    assert_eq!(bob.epoch(), KeyEpoch::new(EPOCH + 60));
    let replaced = answer(&mut fleet, vec![]);
    assert_eq!(bob.hear(&replaced), None);
    let [beacon, genuine] = &carousel(&mut fleet)[..] else {
        panic!("two frames");
    };
    assert_eq!(bob.hear(beacon), None);
    // Its keys key was replaced and not named: the key that it brought stands.
    let held = bob.status().fingerprint;
    bob.hear(genuine);
    assert_eq!(bob.status().fingerprint, held);
    let named = fleet.next_key_set(FOUND_OUT + 30, |key_set| {
        key_set.stolen = vec![thief.public().name()];
    });
    assert_eq!(bob.hear(&named), None);
    bob.store_all();
    assert_eq!(bob.status().state, GroupState::Distrusted);
    assert_eq!(bob.hear(genuine), None);
    bob.store_all();
    assert_ne!(bob.status().fingerprint, held);
    assert_eq!(
        bob.status().in_grace,
        0,
        "nothing of the thief's is received"
    );
    is_whole(&mut bob, &mut fleet);
}

/// KEYSET 6, heard while locked: a group whose key the stolen key had brought before does not send
/// after the unlocking, until a newer one comes.
#[test]
fn a_locked_terminal_distrusts_what_a_stolen_key_brought() {
    let mut fleet = Fleet::new();
    let bob = member(&mut fleet).restarted_locked();
    let thief = fleet.replace_key(SignerClass::Keys, FOUND_OUT);
    let key_set = answer(&mut fleet, vec![thief.public().name()]);
    for power_cut in [false, true] {
        let mut bob = bob.restarted_locked();
        assert_eq!(bob.hear(&key_set), None);
        bob.store_all();
        if power_cut {
            // The machine that opens both by itself.
            bob = bob.restarted();
        } else {
            assert_eq!(bob.unlock(), Ok(()));
        }
        assert_eq!(bob.status().state, GroupState::Distrusted);
        for frame in carousel(&mut fleet) {
            assert_eq!(bob.sending(), None);
            assert_eq!(bob.hear(&frame), None);
            bob.store_all();
        }
        is_whole(&mut bob, &mut fleet);
    }
}

/// KEYSET 6: a group is distrusted for who brought its epoch, and no longer once another did; what
/// was distrusted stays so when a later KEYSET names nobody.
#[test]
fn distrust_follows_who_brought_the_epoch() {
    let mut fleet = Fleet::new();
    let mut bob = member(&mut fleet);
    let thief = fleet.replace_key(SignerClass::Keys, 10).public().name();
    let replaced = fleet.next_key_set(10, |_| ());
    let mut trusting = bob.restarted();
    assert_eq!(trusting.hear(&replaced), None);
    let fresh = fleet.key_dist(EPOCH + 5, Stated::at(20, 0));
    assert_eq!(trusting.hear(&fresh), None);
    trusting.store_all();
    let named = fleet.next_key_set(30, |key_set| key_set.stolen = vec![thief]);
    let later = fleet.next_key_set(40, |key_set| key_set.stolen = vec![]);
    for bob in [&mut bob, &mut trusting] {
        assert_eq!(bob.hear(&named), None);
        bob.store_all();
        assert_eq!(bob.hear(&later), None);
        bob.store_all();
    }
    assert_eq!(trusting.status().state, GroupState::Ready);
    for mut bob in [bob.restarted(), bob] {
        assert_eq!(bob.status().state, GroupState::Distrusted);
        assert_eq!(bob.hear(&fresh), None);
        bob.store_all();
        assert_eq!(bob.status().state, GroupState::Ready);
    }
}

/// FORMATS section 2.1: an own offset is at most 64, in a statement and found in a distribution.
#[test]
fn an_offset_above_64_is_refused() {
    let mut fleet = Fleet::new();
    let mut bob = member(&mut fleet);
    let stated = Stated::at(1, 0);
    let before = bob.snapshot();
    assert_eq!(
        bob.hear(&fleet.offset(65, stated)),
        Some(DropReason::AboveBound)
    );
    assert_eq!(bob.snapshot(), before);
    assert_eq!(bob.hear(&fleet.offset(60, stated)), None);
    bob.store_all();
    let before = bob.snapshot();
    let wrap = fleet.wrap_key(1).renew_to(generation(65));
    let body = fleet.key_dist_body(EPOCH + 1, stated, &[&wrap]);
    let command = fleet.command(Target::Handles, body, stated);
    let frame = fleet.record.keys.sign(&command);
    assert_eq!(bob.hear(&frame), Some(DropReason::AboveBound));
    assert_eq!(bob.snapshot(), before);
}

/// FORMATS section 2.1: a schedule that begins long ago runs nobody through a longer chain than the
/// signer could have named.
#[test]
fn a_schedule_from_long_ago_renews_no_further_than_the_bound() {
    let mut fleet = Fleet::new();
    let mut bob = member(&mut fleet);
    let stated = Stated {
        activate_at: UnixSeconds::new(0),
        cadence: Cadence::new(64, 600),
        ..Stated::at(1, 0)
    };
    bob.hear(&fleet.renew(EPOCH, stated));
    assert_eq!(bob.generation(), Some(last_generation()));
    bob.wait(3600);
    assert_eq!(bob.generation(), Some(last_generation()));
}

/// FORMATS section 2.1: what outlives a stolen key is issued at or after the KEYSET that drops it:
/// older statements of listed keys come back by no replay.
#[test]
fn what_was_issued_before_the_keyset_wins_over_no_higher_number() {
    let mut fleet = Fleet::new();
    let mut bob = member(&mut fleet);
    // The keys key is listed by both; a second one, which brings the newest epoch, by the first.
    let second = fleet.replace_key(SignerClass::Keys, 0);
    let fresh = fleet.record.keys.public();
    let first_set = fleet.next_key_set(1, |key_set| {
        let listed = key_set.keys[1].clone();
        key_set.keys.push(crate::command::ListedKey {
            public: second.public(),
            ..listed
        });
    });
    assert_eq!(bob.hear(&first_set), None);
    let recorded = fleet.key_dist(EPOCH + 10, Stated::at(10, 0));
    let newer = fleet.key_dist_body(EPOCH + 20, Stated::at(20, 0), &[&fleet.wrap_key(1)]);
    let newer = fleet.command(Target::Handles, newer, Stated::at(20, 0));
    assert_eq!(bob.hear(&second.sign(&newer)), None);
    let second_set = fleet.next_key_set(30, |key_set| {
        key_set.keys.truncate(3);
        assert_eq!(key_set.keys[1].public, fresh);
    });
    assert_eq!(bob.hear(&second_set), None);
    bob.store_all();
    assert_eq!(bob.hear(&recorded), Some(DropReason::NotNewer));
    let renewed = fleet.key_dist(EPOCH + 15, Stated::at(29, 0));
    assert_eq!(bob.hear(&renewed), Some(DropReason::NotNewer));
    assert_eq!(bob.epoch(), KeyEpoch::new(EPOCH + 20));
    // Issued after it, it does.
    let renewed = fleet.key_dist(EPOCH + 16, Stated::at(30, 0));
    assert_eq!(bob.hear(&renewed), None);
    assert_eq!(bob.epoch(), KeyEpoch::new(EPOCH + 16));
}
