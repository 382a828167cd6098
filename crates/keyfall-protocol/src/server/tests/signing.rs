//! New online keys (FORMATS sections 2, 2.1 and 9; the issue: a stolen beat or keys key is undone
//! by the next KEYSET).

use super::desk::{Desk, exclude, group, opens, terminal};
use crate::command::{
    Body, ClearList, FRAME_MAX, Limits, OrderKind, SignerClass, SigningKey, Unverified,
};
use crate::ids::{Generation, KeyEpoch, KeyName, Tick, UnixSeconds};
use crate::keys::Secret;
use crate::server::{
    Class, Done, DraftedKeys, GRACE_MIN, Item, KeySetDraft, OFFSET_MAX, Order, Refusal,
};
use crate::sharing::rsa_misty1::RsaSecret;
use crate::sharing::{KemSecret, KemSuite};

const DAY: u32 = 86_400;

fn other_key(fill: u8) -> SigningKey {
    SigningKey::from_seed(Secret::init_with(|into| into.fill(fill)))
}

fn install(desk: &mut Desk, draft: KeySetDraft) -> Done {
    let frame = desk.key_set(draft).expect("it may be drafted");
    assert!(frame.len() <= FRAME_MAX);
    desk.carry_out(Order::InstallKeys { frame })
        .expect("signed")
}

fn stolen(names: &[KeyName]) -> KeySetDraft {
    KeySetDraft {
        stolen: names.to_vec(),
        ..KeySetDraft::default()
    }
}

/// The online keys' names.
fn online(desk: &Desk) -> [KeyName; 2] {
    let fleet = &desk.server.fleet;
    [&fleet.beat, &fleet.keys].map(|key| key.public().name())
}

/// The days of `desk` go on without what happens in between.
fn later(desk: Desk, seconds: u32) -> Desk {
    let wall = desk.at.wall.plus(seconds);
    let mut desk = desk.restarted(wall);
    desk.store();
    desk.live(1);
    desk
}

#[test]
fn new_keys_sign_everything_and_the_old_ones_are_listed_until_they_end() {
    let mut desk = later(Desk::with_group(3), 20 * DAY);
    let (old, before) = (online(&desk), desk.server.fleet.key_set.clone());
    let g = desk.server.fleet.fleet_generation;
    let epochs: Vec<KeyEpoch> = desk.server.groups().map(|it| it.master.epoch()).collect();
    desk.carry_out(exclude(&[3])).expect("known");
    let Done::KeysInstalled {
        version,
        expires,
        generation,
        groups,
        sign_again,
    } = install(&mut desk, KeySetDraft::default())
    else {
        panic!("installed");
    };
    assert!(version > before.version && groups.is_empty() && sign_again.is_empty());
    assert_eq!(expires, desk.at.wall.plus(30 * DAY));
    assert_eq!(generation, g);
    let key_set = desk.server.fleet.key_set.clone();
    assert_eq!(key_set.fleet_schedule, before.fleet_schedule);
    assert_eq!(
        (key_set.version, &key_set.limits),
        (version, &before.limits)
    );
    let new = online(&desk);
    assert!(new.iter().all(|name| !old.contains(name)));
    let listed: Vec<_> = key_set.keys.iter().map(|key| key.public.name()).collect();
    let [erase, kem, kem_pq] = [2, 3, 4].map(|place| before.keys[place].public.name());
    assert_eq!(
        listed,
        [new[0], new[1], old[0], old[1], erase, kem, kem_pq],
        "what requests are sealed to stays"
    );
    assert_eq!(key_set.key(old[0]), before.key(old[0]), "until they end");
    for (class, name) in [(SignerClass::Beat, new[0]), (SignerClass::Keys, new[1])] {
        assert_eq!(key_set.first_of(class).expect("one").public.name(), name);
    }
    desk.sent.clear();
    desk.live(9);
    let key_sets = desk.sent.iter().filter(|(item, _)| *item == Item::KeySet);
    assert!(key_sets.count() >= 5, "announced");
    desk.live(61);
    for (item, frame) in &desk.sent {
        let read = Unverified::decode(frame).expect("ours");
        match item.class() {
            Class::KeySet => assert_eq!(read.signer(), desk.root.public().name()),
            Class::Time | Class::Renew => assert_eq!(read.signer(), new[0]),
            Class::Exclude | Class::KeyDist => assert_eq!(read.signer(), new[1]),
            Class::Erase | Class::Change | Class::Record => panic!("none is issued"),
        }
    }
    assert!(
        desk.sent
            .iter()
            .any(|(item, _)| item.class() == Class::Exclude)
    );
    let after: Vec<KeyEpoch> = desk.server.groups().map(|it| it.master.epoch()).collect();
    assert_eq!(after, epochs);
    // The next month the first ones have ended.
    let mut desk = later(desk, 12 * DAY);
    install(&mut desk, KeySetDraft::default());
    assert!(desk.server.fleet.key_set.key(old[0]).is_none());
    assert!(desk.server.fleet.key_set.key(new[0]).is_some());
}

#[test]
fn only_what_was_drafted_last_and_the_root_signed_is_installed() {
    let mut desk = Desk::with_group(2);
    let before = desk.state();
    let expect = |desk: &mut Desk, frame: Vec<u8>, expected: Refusal| {
        let outcome = desk.carry_out(Order::InstallKeys { frame });
        assert!(
            matches!(&outcome, Err(it) if *it == expected),
            "{outcome:?}"
        );
        assert_eq!(desk.state(), before);
    };
    let present = desk.server.fleet.key_set_frame.clone();
    expect(&mut desk, present, Refusal::NotTheDraft);
    let mut rng = super::desk::counting();
    let command = desk
        .server
        .draft_key_set(KeySetDraft::default(), &mut rng)
        .expect("always");
    let by_erase = desk.erase.sign(&command);
    expect(&mut desk, by_erase, Refusal::NotTheRoot);
    let by_beat = desk.server.fleet.beat.sign(&command);
    expect(&mut desk, by_beat, Refusal::NotTheRoot);
    expect(&mut desk, b"nonsense".to_vec(), Refusal::NotTheRoot);
    let mut altered = command.clone();
    if let Body::KeySet(key_set) = &mut altered.body {
        key_set.limits.grace += 1;
    }
    let altered = desk.root.sign(&altered);
    expect(&mut desk, altered, Refusal::NotTheDraft);
    // Drafted again: the keys of the first are forgotten.
    let last = desk.key_set(KeySetDraft::default()).expect("always");
    let first = desk.root.sign(&command);
    expect(&mut desk, first, Refusal::NotTheDraft);
    // A draft that was stored by the driver outlives the process, one that was not does not.
    let wall = desk.at.wall;
    let kept = desk.server.drafted.take();
    let mut desk = desk.restarted(wall);
    desk.store();
    let install = |frame: &Vec<u8>| Order::InstallKeys {
        frame: frame.clone(),
    };
    let forgotten = desk.carry_out(install(&last));
    assert!(matches!(forgotten, Err(Refusal::NotTheDraft)));
    let again = kept.as_ref().map(|it| DraftedKeys {
        command: it.command.clone(),
        beat: SigningKey::from_seed(it.beat.seed().duplicate()),
        keys: SigningKey::from_seed(it.keys.seed().duplicate()),
        kem: it.kem.as_ref().map(KemSecret::duplicate),
        kem_pq: it.kem_pq.as_ref().map(KemSecret::duplicate),
        rsa: it.rsa.as_ref().map(RsaSecret::duplicate),
    });
    desk.server.resume_draft(kept.expect("drafted"));
    assert!(desk.carry_out(install(&last)).is_ok());
    desk.server.resume_draft(again.expect("drafted"));
    let twice = desk.carry_out(install(&last));
    assert!(matches!(twice, Err(Refusal::NotTheDraft)), "never back");
    let frame = desk.key_set(KeySetDraft {
        life: 60,
        ..KeySetDraft::default()
    });
    let frame = frame.expect("always");
    desk.live(60);
    let late = desk.carry_out(Order::InstallKeys { frame });
    assert!(matches!(late, Err(Refusal::DraftOutdated)), "{late:?}");
}

#[test]
fn what_a_key_set_cannot_say_is_refused_before_the_root_is_asked() {
    let mut desk = Desk::with_group(2);
    let erase = desk.erase.public().name();
    let stranger = other_key(1).public().name();
    let life = |life| KeySetDraft {
        life,
        ..KeySetDraft::default()
    };
    for (draft, expected) in [
        (life(0), Refusal::BadLife(0)),
        (life(30 * DAY + 1), Refusal::BadLife(30 * DAY + 1)),
        // KR-391.
        (
            KeySetDraft {
                limits: Some(Limits {
                    grace: GRACE_MIN - 1,
                    ..Limits::default()
                }),
                ..KeySetDraft::default()
            },
            Refusal::GraceTooShort(9),
        ),
        (
            KeySetDraft {
                dropped: vec![stranger],
                ..KeySetDraft::default()
            },
            Refusal::NoSuchKey(stranger),
        ),
        (
            stolen(&[erase]),
            Refusal::TooFewEraseKeys {
                listed: 0,
                needed: 1,
            },
        ),
        (
            KeySetDraft {
                erase: (0..10).map(|n| other_key(n).public()).collect(),
                ..KeySetDraft::default()
            },
            Refusal::TooManyKeys(12, 8),
        ),
    ] {
        assert_eq!(desk.key_set(draft), Err(expected));
    }
}

/// As many as are listed; of the old online keys those that end first give way.
#[test]
fn a_key_set_never_lists_more_than_terminals_read() {
    let mut desk = Desk::with_group(2);
    let erase: Vec<_> = (0..5).map(|n| other_key(n).public()).collect();
    let draft = KeySetDraft {
        erase: erase.clone(),
        ..KeySetDraft::default()
    };
    install(&mut desk, draft);
    for _ in 0..6 {
        desk.live(5);
        install(&mut desk, KeySetDraft::default());
        let key_set = &desk.server.fleet.key_set;
        assert!(key_set.keys.len() <= 12);
        assert!(erase.iter().all(|key| key_set.key(key.name()).is_some()));
        let names = key_set.keys.iter().map(|key| key.public.name());
        assert!(names.take(2).eq(online(&desk)));
    }
    // Replaced, without a theft.
    let dropped = vec![erase[0].name(), desk.erase.public().name()];
    let draft = KeySetDraft {
        dropped,
        ..KeySetDraft::default()
    };
    install(&mut desk, draft);
    let key_set = &desk.server.fleet.key_set;
    assert!(key_set.key(erase[0].name()).is_none() && key_set.stolen.is_empty());
    let refused = desk.server.draft_order(
        terminal(1),
        OrderKind::Delete,
        false,
        &mut super::desk::counting(),
    );
    assert!(refused.is_ok(), "the others can");
}

/// FORMATS section 2.1: nothing that a stolen key claimed is ahead of what the next KEYSET says.
#[test]
fn a_theft_moves_everything_beyond_what_the_stolen_key_could_claim() {
    let mut desk = Desk::with_group(3);
    for _ in 0..7 {
        let order = Order::RenewDevice {
            terminal: terminal(2),
        };
        desk.carry_out(order).expect("known");
    }
    desk.carry_out(exclude(&[3])).expect("known");
    desk.live(7300);
    let [_, keys] = online(&desk);
    let before = desk.server.fleet.key_set.clone();
    let (old, wraps) = (desk.server.groups[&group(1)].master.epoch(), desk.wrap(1));
    let bound = before.fleet_schedule.bound(before.keys[1].expires);
    let drafted = desk.key_set(stolen(&[keys])).expect("listed");
    // The root is far away; meanwhile a device is renewed, and G ticks.
    let order = Order::RenewDevice {
        terminal: terminal(1),
    };
    desk.carry_out(order).expect("known");
    desk.live(3700);
    desk.sent.clear();
    let Ok(Done::KeysInstalled {
        generation, groups, ..
    }) = desk.carry_out(Order::InstallKeys { frame: drafted })
    else {
        panic!("signed");
    };
    let fleet = &desk.server.fleet;
    assert!(fleet.key_set.key(keys).is_none());
    assert_eq!(fleet.key_set.stolen, [keys]);
    let schedule = fleet.key_set.fleet_schedule;
    assert!(schedule.first >= bound.plus(64 + OFFSET_MAX));
    assert_eq!(generation, schedule.first.plus(1), "an hour went by");
    assert_eq!(fleet.fleet_generation, generation);
    for it in desk.server.terminals() {
        assert_eq!(it.wrap.generation(), generation, "no offset is left");
    }
    assert_eq!(
        desk.wrap(1).secret().expose(),
        wraps.renew_to(generation).secret().expose()
    );
    assert_eq!(groups.len(), 1);
    assert!(desk.server.groups[&group(1)].master.epoch() > old);
    desk.live(31);
    // Everything that stands is said anew: the exclusion under the new key, the fresh epoch.
    let new = online(&desk)[1];
    let signed = |class: Class| {
        let frame = desk.sent.iter().find(|(item, _)| item.class() == class);
        Unverified::decode(&frame.expect("sent").1)
            .expect("ours")
            .signer()
    };
    assert_eq!((signed(Class::Exclude), signed(Class::KeyDist)), (new, new));
    let wrap = desk.wrap(1);
    let heard = desk.heard();
    let opened = heard.iter().any(
        |(_, command)| matches!(&command.body, Body::KeyDist(dist) if opens(&wrap, command, dist)),
    );
    assert!(opened);
    // It goes on by the new schedule, and through a restart.
    desk.live(3600);
    assert_eq!(desk.server.schedule_refused(), None);
    assert_eq!(desk.server.fleet.fleet_generation, generation.plus(1));
    let wall = desk.at.wall;
    let mut desk = desk.restarted(wall);
    desk.store();
    assert_eq!(desk.server.fleet.fleet_generation, generation.plus(1));
    desk.live(60);
    assert_eq!(desk.server.fleet.fleet_generation, generation.plus(1));
    // The next one says it again, for those that missed it, and moves nothing.
    let schedule = desk.server.fleet.key_set.fleet_schedule;
    install(&mut desk, KeySetDraft::default());
    let key_set = &desk.server.fleet.key_set;
    assert_eq!(
        (&key_set.stolen[..], key_set.fleet_schedule),
        (&[keys][..], schedule)
    );
}

/// What is named stolen is at most what a KEYSET holds, the newest first.
#[test]
fn stolen_keys_are_named_as_long_as_there_is_room() {
    let mut desk = Desk::with_group(2);
    // With as many keys as there may be; `install` looks whether it fits in a frame.
    let draft = KeySetDraft {
        erase: (0..7).map(|n| other_key(n).public()).collect(),
        ..KeySetDraft::default()
    };
    install(&mut desk, draft);
    let mut named = Vec::new();
    for _ in 0..6 {
        let both = online(&desk);
        install(&mut desk, stolen(&both));
        named.splice(0..0, both);
        named.truncate(8);
        assert_eq!(desk.server.fleet.key_set.stolen, named);
        assert_eq!(desk.server.fleet.key_set.keys.len(), 12);
    }
    assert!(desk.server.fleet.fleet_generation > Generation::new(4000).expect("small"));
}

/// The issue: warning from day 20; and after the end new keys make the server speak again.
#[test]
fn the_end_of_the_keys_is_announced_and_new_keys_undo_it() {
    let desk = Desk::with_group(2);
    assert!(!desk.server.signers_warn());
    let desk = later(desk, 20 * DAY - 10);
    assert!(!desk.server.signers_warn());
    let desk = later(desk, 10);
    assert!(desk.server.signers_warn());
    let mut desk = later(desk, 15 * DAY);
    assert!(desk.server.signers_warn());
    desk.live(60);
    desk.sent.clear();
    desk.live(60);
    assert!(desk.sent.iter().all(|(item, _)| *item == Item::KeySet));
    install(&mut desk, KeySetDraft::default());
    assert!(!desk.server.signers_warn());
    desk.live(120);
    for item in [
        Item::Time,
        Item::Fleet,
        Item::Group(group(1)),
        Item::Dist(group(1), 0),
    ] {
        assert!(desk.sent.iter().any(|(sent, _)| *sent == item), "{item:?}");
    }
    let scheduled = desk.server.fleet.key_set.fleet_schedule;
    let (wall, now): (UnixSeconds, Tick) = (desk.at.wall, desk.at.now);
    assert!(now > Tick::default());
    assert_eq!(
        desk.server.fleet.fleet_generation,
        scheduled.generation_at(wall),
        "what was missed is made good"
    );
}

/// Limits that the root tightens hold for the leases of groups that were made before.
#[test]
fn a_shorter_longest_lease_shortens_every_lease() {
    let mut desk = Desk::with_group(2);
    let limits = Limits {
        longest_lease: 1000,
        ..desk.server.fleet.key_set.limits
    };
    let draft = KeySetDraft {
        limits: Some(limits),
        ..KeySetDraft::default()
    };
    install(&mut desk, draft);
    desk.sent.clear();
    desk.live(61);
    let mut leases = 0;
    for (item, command) in desk.heard() {
        if let (Item::Group(_), Body::Renew(renew)) = (item, &command.body) {
            let end = renew.entries[0].lease_end.expect("it has one");
            assert_eq!(end, command.issued_at.plus(1000));
            leases += 1;
        }
    }
    assert!(leases > 0);
}

/// What the erase class signs moves no G, so that nothing has to outrun its five years.
#[test]
fn a_stolen_erase_key_moves_no_generation() {
    let mut desk = Desk::with_group(3);
    desk.carry_out(Order::RenewDevices).expect("within bounds");
    let (before, g) = {
        let fleet = &desk.server.fleet;
        (fleet.key_set.clone(), fleet.fleet_generation)
    };
    let erase = before.first_of(SignerClass::Erase).expect("listed");
    let draft = KeySetDraft {
        erase: vec![other_key(0x77).public()],
        ..stolen(&[erase.public.name()])
    };
    install(&mut desk, draft);
    let fleet = &desk.server.fleet;
    assert_eq!(fleet.key_set.fleet_schedule, before.fleet_schedule);
    assert_eq!(fleet.fleet_generation, g);
    assert!(fleet.key_set.key(erase.public.name()).is_none());
}

/// What requests are sealed to signs nothing: stolen, it is replaced, and no G has to outrun its
/// five years.
#[test]
fn a_stolen_kem_key_is_replaced_and_moves_no_generation() {
    for suite in [KemSuite::X25519, KemSuite::XWing] {
        let mut desk = Desk::with_group(2);
        let (before, g) = {
            let fleet = &desk.server.fleet;
            (fleet.key_set.clone(), fleet.fleet_generation)
        };
        let kem = before.first_of(suite.class()).expect("listed").public;
        install(&mut desk, stolen(&[kem.name()]));
        let fleet = &desk.server.fleet;
        assert_eq!(fleet.key_set.fleet_schedule, before.fleet_schedule);
        assert_eq!(fleet.fleet_generation, g);
        assert_eq!(fleet.key_set.stolen, [kem.name()]);
        let listed: Vec<_> = fleet.key_set.keys.iter().map(|it| it.public).collect();
        assert!(!listed.contains(&kem));
        assert_eq!(listed.len(), before.keys.len() + 2, "the old online keys");
        for held in [&fleet.kem, &fleet.kem_pq] {
            let public = held.as_ref().expect("drawn").public();
            assert!(listed.contains(&public.listing()), "{public:?}");
        }
    }
}

/// A server restored from a copy holds no KEM key that was drawn after it: requests sealed to the
/// one that is listed would never open, so the next KEYSET lists another.
#[test]
fn a_listed_kem_key_that_is_not_held_is_replaced() {
    let mut desk = Desk::with_group(2);
    let before = desk.server.fleet.key_set.clone();
    let [kem, kem_pq] = [KemSuite::X25519, KemSuite::XWing]
        .map(|suite| before.first_of(suite.class()).expect("listed").public);
    desk.server.fleet.kem_pq = None;
    desk.server.fleet.kem = Some(KemSecret::from_seed(
        KemSuite::X25519,
        Secret::init_with(|into| into.fill(1)),
    ));
    install(&mut desk, KeySetDraft::default());
    let fleet = &desk.server.fleet;
    let listed: Vec<_> = fleet.key_set.keys.iter().map(|it| it.public).collect();
    assert!(!listed.contains(&kem) && !listed.contains(&kem_pq));
    for held in [&fleet.kem, &fleet.kem_pq] {
        let public = held.as_ref().expect("drawn").public();
        assert!(listed.contains(&public.listing()), "{public:?}");
    }
}

/// A theft that is found out when the key is listed no more: what it excluded is undone all the
/// same, and every group gets a fresh epoch.
#[test]
fn a_key_that_is_listed_no_more_can_be_named_stolen() {
    let mut desk = Desk::with_group(3);
    let schedule = desk.server.fleet.key_set.fleet_schedule;
    let gone = KeyName::new([9; 8]);
    let Done::KeysInstalled { groups, .. } = install(&mut desk, stolen(&[gone])) else {
        panic!("installed");
    };
    assert_eq!(groups.len(), 1);
    let key_set = &desk.server.fleet.key_set;
    assert_eq!(key_set.stolen, [gone]);
    assert_eq!(key_set.fleet_schedule, schedule);
}

/// FORMATS 8.1: the root alone says to where packets go unprotected, and says it again each time.
#[test]
fn the_clear_list_is_the_roots() {
    let mut desk = Desk::with_group(2);
    let clear = |desk: &Desk| {
        let limits = desk.server.fleet.key_set.limits;
        limits
            .clear
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert!(clear(&desk).is_empty());
    let prefix = |text: &str| text.parse().expect("a prefix");
    let wanted = KeySetDraft {
        clear: ClearList::new(&[prefix("198.51.100.0/24"), prefix("10.0.0.0/8")]),
        ..KeySetDraft::default()
    };
    install(&mut desk, wanted);
    assert_eq!(clear(&desk), ["10.0.0.0/8", "198.51.100.0/24"]);
    let mut desk = later(desk, DAY);
    install(&mut desk, KeySetDraft::default());
    assert_eq!(clear(&desk).len(), 2, "as it is");
    let mut desk = later(desk, DAY);
    let none = KeySetDraft {
        clear: Some(ClearList::default()),
        ..KeySetDraft::default()
    };
    install(&mut desk, none);
    assert!(clear(&desk).is_empty());
}
