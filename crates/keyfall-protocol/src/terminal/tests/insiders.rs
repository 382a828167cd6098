//! Only the server's signature makes a terminal obey (DESIGN section 11, invariants 4 and 11;
//! REQUIREMENTS, W-02).

use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;

use super::driven::Driven;
use super::fixture::{
    FLEET_PERIOD, FOUNDED, Fleet, Stated, generation, group, halt, notify_body, renew_entry,
    terminal_number,
};
use crate::command::codec;
use crate::command::{
    Body, Command, Floor, KeySet, ListedKey, OrderKind, Renew, SignerClass, SigningKey, Target,
    Time, sign_together,
};
use crate::ids::{GroupNumber, KeyEpoch, KeyName, UnixSeconds};
use crate::keys::Secret;
use crate::schedule::Cadence;
use crate::stats::DropReason;
use crate::terminal::{EraseCause, Input};

/// The frame is refused for `reason`, and nothing of the terminal changed: nothing that survives,
/// nothing that waits to be stored, nothing that it could use.
fn refuses(bob: &mut Driven, frame: &[u8], reason: DropReason) {
    let before = (bob.snapshot(), bob.sending(), bob.machine.time());
    let places = bob.places(bob.machine.fleet_generation());
    assert_eq!(bob.hear(frame), Some(reason));
    assert_eq!((bob.snapshot(), bob.sending(), bob.machine.time()), before);
    assert_eq!(bob.places(bob.machine.fleet_generation()), places);
    assert_eq!(bob.asked, []);
}

/// Commands of every type that would change something if the server had signed them.
fn commands(fleet: &mut Fleet) -> Vec<Command> {
    let stated = Stated {
        fleet: 3,
        ..Stated::at(60, 9)
    };
    let wrap = fleet.wrap_key(1).renew_to(generation(3));
    let floor = Floor {
        kid: group().master_key_id(),
        epoch: KeyEpoch::new(7),
        generation: generation(9),
    };
    let time = Body::Time(Time {
        seconds: FOUNDED.plus(60),
        max_error_ms: 0,
        floors: vec![floor],
    });
    let new_epoch = fleet.key_dist_body(8, stated, &[&wrap]);
    let newer = fleet.key_dist_body(7, stated, &[&wrap]);
    let mut key_set = fleet.record.key_set.clone();
    key_set.version += 1;
    let to_bob = Target::Terminal(terminal_number(1));
    let mut order = |kind| {
        let body = fleet.order_body(kind, 1, 5);
        fleet.command(to_bob, body, stated)
    };
    let [delete, init, lock, unlock] = OrderKind::ALL.map(&mut order);
    let exclude = Fleet::exclude_body(&[2], Some(9));
    let change = halt(1, (8, 9), 90);
    vec![
        fleet.command(Target::All, time, stated),
        fleet.command(Target::Group(group()), Fleet::renew_body(7, stated), stated),
        fleet.command(Target::Group(group()), Fleet::renew_body(8, stated), stated),
        fleet.command(Target::Handles, new_epoch, stated),
        fleet.command(Target::Handles, newer, stated),
        fleet.command(Target::All, Body::KeySet(key_set), stated),
        fleet.command(Target::Group(group()), Body::Stop(change), stated),
        fleet.command(Target::Group(group()), Body::Start(change), stated),
        fleet.command(Target::All, notify_body(&[]), stated),
        fleet.command(Target::All, exclude, stated),
        unlock,
        lock,
        init,
        delete,
    ]
}

fn alices_key() -> SigningKey {
    SigningKey::from_seed(alices_seed())
}

fn alices_seed() -> Secret<32> {
    Secret::init_with(|into| into.fill(0xa1))
}

/// A frame with any key name, signed with alice's key.
fn signed_as(name: KeyName, payload: &[u8]) -> Vec<u8> {
    let protected = codec::encode(|e| {
        e.map(2)?.u8(1)?.i64(-19)?.u8(4)?.bytes(name.as_bytes())?;
        Ok(())
    });
    let signed = codec::encode(|e| {
        e.array(4)?.str("Signature1")?.bytes(&protected)?;
        e.bytes(b"KF1/cmd")?.bytes(payload)?;
        Ok(())
    });
    let pair = Ed25519KeyPair::from_seed_unchecked(alices_seed().expose()).expect("32 octets");
    codec::encode(|e| {
        e.tag(minicbor::data::Tag::new(18))?.array(4)?;
        e.bytes(&protected)?.map(0)?.bytes(payload)?;
        e.bytes(pair.sign(&signed).as_ref())?;
        Ok(())
    })
}

/// Alice is a member with every group key. She signs with a key of her own.
#[test]
fn a_member_who_signs_commands_with_her_own_key_moves_nobody() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    for command in commands(&mut fleet) {
        let forged = alices_key().sign(&command);
        refuses(&mut bob, &forged, DropReason::UnknownSigner);
    }
}

/// She writes the name of every key that the KEYSET lists, and of the root, above her signature.
#[test]
fn a_member_who_signs_in_the_servers_name_moves_nobody() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let names = [
        fleet.record.beat.public().name(),
        fleet.record.keys.public().name(),
        fleet.erase.public().name(),
        fleet.root.public().name(),
    ];
    for command in commands(&mut fleet) {
        for name in names {
            let frame = signed_as(name, &command.encode());
            let before = bob.snapshot();
            assert!(bob.hear(&frame).is_some(), "{command:?}");
            assert_eq!(bob.snapshot(), before);
            assert_eq!((&bob.erased, &bob.asked[..]), (&None, &[][..]));
        }
    }
    let beat = fleet.record.beat.public().name();
    let renew = &commands(&mut fleet)[1];
    refuses(
        &mut bob,
        &signed_as(beat, &renew.encode()),
        DropReason::BadSignature,
    );
}

/// FORMATS section 2.2: three classes that never share a key, and the root signs KEYSET alone: every
/// pair of type and class but the right ones is refused (W-17, W-18).
#[test]
fn a_key_of_another_class_signs_nothing_that_is_obeyed() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    for command in commands(&mut fleet) {
        let right = fleet.signer_of(&command.body).public();
        let classes = [
            (&fleet.record.beat, DropReason::WrongClass),
            (&fleet.record.keys, DropReason::WrongClass),
            (&fleet.erase, DropReason::WrongClass),
            (&fleet.root, DropReason::UnknownSigner),
        ];
        let mut refused = 0;
        for (key, reason) in classes {
            if key.public() != right {
                let by_root = matches!(command.body, Body::KeySet(_));
                let reason = if by_root {
                    DropReason::UnknownSigner
                } else {
                    reason
                };
                refuses(&mut bob, &key.sign(&command), reason);
                refused += 1;
            }
        }
        assert_eq!(refused, 3, "{}", command.body.name());
    }
}

/// A key that requests are sealed to is listed by octets of which somebody may know a signing key.
#[test]
fn what_requests_are_sealed_to_signs_nothing() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let classes = [SignerClass::Kem, SignerClass::KemPq, SignerClass::Rsa];
    let signing = [11, 12, 13].map(|seed| {
        let seed = Secret::init_with(|into| into.fill(seed));
        SigningKey::from_seed(seed)
    });
    let list = |key_set: &mut KeySet| {
        for (class, key) in classes.into_iter().zip(&signing) {
            key_set.keys.push(ListedKey {
                public: key.public(),
                class,
                ..key_set.keys[0].clone()
            });
        }
    };
    let frame = fleet.next_key_set(1, list);
    assert_eq!(bob.hear(&frame), None);
    bob.store_all();
    for command in commands(&mut fleet) {
        let reason = match command.body {
            Body::KeySet(_) => DropReason::UnknownSigner,
            Body::Time(_)
            | Body::Renew(_)
            | Body::KeyDist(_)
            | Body::Order(_)
            | Body::Exclude(_)
            | Body::Stop(_)
            | Body::Start(_)
            | Body::Notify(_) => DropReason::WrongClass,
        };
        for key in &signing {
            refuses(&mut bob, &key.sign(&command), reason);
        }
    }
}

/// Every octet of every genuine frame, altered in its lowest and its highest bit.
#[test]
fn a_genuine_command_with_one_altered_octet_moves_nobody() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let before = bob.snapshot();
    for command in commands(&mut fleet) {
        let genuine = fleet.signer_of(&command.body).sign(&command);
        for place in 0..genuine.len() {
            for bit in [1, 0x80] {
                let mut altered = genuine.clone();
                altered[place] ^= bit;
                // Within the budget of verifications: the signature refuses it, not the budget.
                bob.now = bob.now.plus(Duration::from_millis(2));
                bob.feed(Input::Datagram(&altered));
            }
        }
        assert_eq!(bob.snapshot(), before, "{:?}", command.body.name());
        assert_eq!(bob.asked, []);
        assert_eq!(bob.machine.drops().of(DropReason::VerifyBudget), 0);
    }
    // The positive control: unaltered they do move him.
    for command in commands(&mut fleet) {
        let groups = bob.machine.groups();
        let taken = bob.hear(&fleet.signer_of(&command.body).sign(&command));
        let expected = match command.body {
            // Told of by its name, and worth a verification.
            Body::Renew(_) if bob.sending().is_none() => Some(DropReason::NewerEpoch),
            // The epoch has gone on.
            Body::KeyDist(_) if groups[0].epoch > KeyEpoch::new(7) => Some(DropReason::NotNewer),
            // UNLOCK and LOCK have one version here: the first counts.
            Body::Order(ref order) if order.kind() == OrderKind::Lock => Some(DropReason::NotNewer),
            Body::Time(_)
            | Body::Renew(_)
            | Body::KeyDist(_)
            | Body::Order(_)
            | Body::Exclude(_)
            | Body::KeySet(_)
            | Body::Stop(_)
            | Body::Start(_)
            | Body::Notify(_) => None,
        };
        assert_eq!(taken, expected, "{}", command.body.name());
        if matches!(command.body, Body::Exclude(_)) {
            bob.store_all();
            assert_eq!(bob.epoch(), KeyEpoch::new(8));
            assert_eq!(bob.generation(), Some(9));
            assert!(bob.machine.is_excluded(terminal_number(2)));
        }
    }
    assert_eq!(bob.erased.map(|it| it.cause), Some(EraseCause::Init));
}

/// FORMATS section 2.1: what a stolen beat or keys key may not claim.
#[test]
fn numbers_above_the_bound_of_their_signer_are_refused() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let life: u32 = 30 * 86_400;
    let g_max = life.div_ceil(FLEET_PERIOD) + 64;
    let over_g = Stated {
        fleet: g_max + 1,
        ..Stated::at(60, 1)
    };
    refuses(&mut bob, &fleet.renew(7, over_g), DropReason::AboveBound);
    refuses(&mut bob, &fleet.key_dist(8, over_g), DropReason::AboveBound);

    // Epoch 7 was born seven seconds into 2026, so that its generations are bounded by years.
    let expires = fleet.record.key_set.keys[0].expires;
    let spans = expires.since(KeyEpoch::new(7).birth()).div_ceil(600) + 1;
    let over = Stated::at(60, spans * 64 + 1);
    refuses(&mut bob, &fleet.renew(7, over), DropReason::AboveBound);

    let unborn = expires.since(KeyEpoch::new(0).birth()) + 1;
    let far = fleet.key_dist(unborn, Stated::at(60, 0));
    refuses(&mut bob, &far, DropReason::AboveBound);
    refuses(
        &mut bob,
        &fleet.renew(unborn, Stated::at(60, 0)),
        DropReason::AboveBound,
    );
    let floor = |epoch, at| Floor {
        kid: group().master_key_id(),
        epoch: KeyEpoch::new(epoch),
        generation: generation(at),
    };
    let floors = vec![floor(unborn, 0), floor(7, spans * 64 + 1)];
    let before = bob.snapshot();
    assert_eq!(
        bob.hear(&fleet.time_with(0, floors)),
        Some(DropReason::AboveBound)
    );
    assert_eq!(bob.snapshot(), before);

    // At the bound they pass.
    let at_bound = Stated {
        fleet: g_max,
        ..Stated::at(60, spans * 64)
    };
    assert_eq!(bob.hear(&fleet.renew(7, at_bound)), None);
    assert_eq!(bob.machine.fleet_generation().get(), g_max);
    assert_eq!(bob.generation(), Some(spans * 64));
}

/// FORMATS sections 2.1 and 2.2: a signer's dates, and a command's own end.
#[test]
fn commands_outside_their_signers_time_or_past_their_end_are_refused() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let expires = fleet.record.key_set.keys[0].expires;
    let early = Stated {
        issued_at: UnixSeconds::new(FOUNDED.get() - 1),
        ..Stated::at(0, 1)
    };
    refuses(&mut bob, &fleet.renew(7, early), DropReason::SignerExpired);
    let late = Stated {
        issued_at: expires.plus(1),
        ..Stated::at(0, 1)
    };
    refuses(&mut bob, &fleet.renew(7, late), DropReason::SignerExpired);

    let body = Fleet::renew_body(7, Stated::at(0, 1));
    let mut ended = fleet.command(Target::Group(group()), body, Stated::at(0, 1));
    ended.not_after = FOUNDED.plus(50);
    let frame = fleet.record.beat.sign(&ended);
    bob.wait(51);
    refuses(&mut bob, &frame, DropReason::PastNotAfter);

    bob.wait(u64::from(expires.since(FOUNDED)));
    bob.store_all();
    let recorded = fleet.renew(7, Stated::at(100, 1));
    refuses(&mut bob, &recorded, DropReason::SignerExpired);
}

/// FORMATS section 2.2: a signing key speaks for its groups only.
#[test]
fn a_signing_key_that_is_limited_to_groups_is_not_obeyed_in_others() {
    let mut fleet = Fleet::new();
    let other = GroupNumber::new(2).expect("not 0");
    let mut key_set = fleet.record.key_set.clone();
    for key in &mut key_set.keys[..2] {
        key.groups = vec![other];
    }
    fleet.record.key_set = key_set.clone();
    fleet.sign_key_set();
    let mut bob = fleet.terminal();
    bob.hear(&fleet.time(0));
    let dist = fleet.key_dist(7, Stated::at(0, 0));
    refuses(&mut bob, &dist, DropReason::GroupNotAllowed);

    // A member by an older KEYSET: RENEW to the group, and to all, and by a floor.
    let mut bob = {
        let mut wide = Fleet::new();
        let mut bob = wide.member();
        bob.machine.key_set = key_set;
        bob
    };
    let stated = Stated::at(60, 1);
    refuses(
        &mut bob,
        &fleet.renew(7, stated),
        DropReason::GroupNotAllowed,
    );
    let body = Body::Renew(Renew {
        entries: vec![renew_entry(group().master_key_id(), 7, stated)],
    });
    let to_all = fleet.command(Target::All, body, stated);
    let frame = fleet.record.beat.sign(&to_all);
    refuses(&mut bob, &frame, DropReason::GroupNotAllowed);
    let floor = Floor {
        kid: group().master_key_id(),
        epoch: KeyEpoch::new(7),
        generation: generation(1),
    };
    let before = bob.snapshot();
    bob.hear(&fleet.time_with(0, vec![floor]));
    assert_eq!(bob.snapshot(), before);
}

/// FORMATS section 2.2: a command that is addressed to a group needs a signer who speaks for it,
/// whatever is in it.
#[test]
fn a_signing_key_that_is_limited_to_groups_addresses_no_other() {
    let mut fleet = Fleet::new();
    fleet.record.key_set.keys[0].groups = vec![GroupNumber::new(2).expect("not 0")];
    fleet.sign_key_set();
    let mut bob = fleet.terminal();
    let body = Body::Time(Time {
        seconds: FOUNDED.plus(10),
        max_error_ms: 0,
        floors: vec![],
    });
    let command = fleet.command(Target::Group(group()), body, Stated::at(10, 0));
    let frame = fleet.record.beat.sign(&command);
    refuses(&mut bob, &frame, DropReason::GroupNotAllowed);
}

/// FORMATS section 2: COSE_Sign is for orders and exclusions; what one key says, one key signs.
#[test]
fn what_one_key_says_is_not_signed_by_several() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    for command in commands(&mut fleet) {
        let own = fleet.signer_of(&command.body).public();
        let one = matches!(
            command.body,
            Body::Time(_) | Body::Renew(_) | Body::KeyDist(_)
        );
        for other in [&fleet.record.beat, &fleet.record.keys, &fleet.erase] {
            if one && other.public() != own {
                let both = [fleet.signer_of(&command.body), other];
                let frame = sign_together(&command, &both);
                refuses(&mut bob, &frame, DropReason::WrongClass);
            }
        }
    }
}

/// W-04: forged KEYSETs cost a bounded number of signature checks, as all else that strangers send.
#[test]
fn a_flood_of_forged_frames_costs_the_budget_of_verifications() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let key_set = fleet.next_key_set(10, |_| ());
    for genuine in [key_set, fleet.renew(7, Stated::at(10, 1))] {
        bob.wait(1);
        let mut forged = genuine.clone();
        let before = bob.machine.drops().clone();
        for n in 0..1100u16 {
            let end = forged.len() - 2;
            forged[end..].copy_from_slice(&n.to_be_bytes());
            bob.feed(Input::Datagram(&forged));
        }
        let checked = |reason| bob.machine.drops().of(reason) - before.of(reason);
        assert_eq!(checked(DropReason::BadSignature), 1000);
        assert_eq!(checked(DropReason::VerifyBudget), 100);
        bob.wait(1);
        assert_eq!(bob.hear(&genuine), None);
        bob.store_all();
    }
}

/// FORMATS section 2.1, "newer than what is held for its object": old statements change nothing,
/// and a newer issue of an older generation takes nothing back (invariant 1).
#[test]
fn a_generation_never_goes_down_and_an_epoch_never_comes_back() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.hear(&fleet.renew(7, Stated::at(10, 20)));
    bob.hear(&fleet.key_dist(9, Stated::at(11, 4)));
    bob.store_all();
    for old in [
        fleet.renew(9, Stated::at(11, 4)),
        fleet.renew(9, Stated::at(5, 3)),
        fleet.renew(7, Stated::at(50, 30)),
        fleet.key_dist(7, Stated::at(50, 30)),
        fleet.key_dist(8, Stated::at(50, 0)),
        fleet.key_dist(9, Stated::at(11, 3)),
    ] {
        refuses(&mut bob, &old, DropReason::NotNewer);
    }
    let reissued = Stated {
        cadence: Cadence::new(1, 600),
        ..Stated::at(60, 2)
    };
    assert_eq!(bob.hear(&fleet.renew(9, reissued)), None);
    assert_eq!(bob.hear(&fleet.key_dist(9, Stated::at(61, 2))), None);
    assert_eq!(bob.generation(), Some(4));
    assert_eq!(bob.machine.groups()[0].epoch, KeyEpoch::new(9));
}

/// A newer epoch in a RENEW of several entries counts, wherever it stands among them.
#[test]
fn a_newer_epoch_is_noticed_among_entries_for_groups_that_are_not_held() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let stated = Stated::at(60, 0);
    let strange = GroupNumber::new(99).expect("not 0").master_key_id();
    let body = Body::Renew(Renew {
        entries: vec![
            renew_entry(group().master_key_id(), 8, stated),
            renew_entry(strange, 8, stated),
        ],
    });
    let frame = fleet
        .record
        .beat
        .sign(&fleet.command(Target::All, body, stated));
    bob.hear(&frame);
    assert_eq!(bob.sending(), None);
    assert_eq!(bob.generation(), Some(0), "nothing is discarded");
}

/// Carol hears what is for others, and her state is as before.
#[test]
fn a_distribution_for_others_changes_nothing() {
    let mut fleet = Fleet::new();
    let mut carol = fleet.terminal();
    carol.hear(&fleet.time(0));
    let others = [fleet.wrap_key(2), fleet.wrap_key(3)];
    let body = fleet.key_dist_body(7, Stated::at(0, 0), &[&others[0], &others[1]]);
    let command = fleet.command(Target::Handles, body, Stated::at(0, 0));
    let frame = fleet.record.keys.sign(&command);
    refuses(&mut carol, &frame, DropReason::NotAddressed);
    let Body::KeyDist(key_dist) = &command.body else {
        unreachable!("made above");
    };
    assert!(key_dist.open_any(carol.user().wrap.newest()).is_none());
    assert!(key_dist.open_any(&others[1]).is_some());
    assert_eq!(carol.machine.identity.number, terminal_number(1));
}
