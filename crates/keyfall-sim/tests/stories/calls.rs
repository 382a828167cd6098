//! Real SRTP packets between terminals (REQUIREMENTS, W-04).

use std::rc::Rc;
use std::time::Duration;

use keyfall_protocol::DropReason;
use keyfall_protocol::ids::{GroupNumber, SessionId};
use keyfall_protocol::keys::MasterKey;
use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::Order;
use keyfall_protocol::terminal::{Cause, Event};
use keyfall_sim::{CapturedPacket, Config, LinkQuality, Loot, Speaker, StationId, Told, World};

use crate::asking::NEAR;
use crate::{all_are_current, nothing_was_wrong};

struct Call {
    world: World,
    alice: StationId,
    bob: StationId,
    crew: GroupNumber,
    speaker: Speaker,
}

impl Call {
    /// Alice speaks to bob in a group with that cadence.
    fn new(cadence: Option<Cadence>) -> Self {
        let mut world = World::new(45, Config::default());
        let alice = world.enrol("alice", LinkQuality::PERFECT);
        let bob = world.enrol("bob", LinkQuality::PERFECT);
        let crew = world.create_group("crew", &[alice, bob], cadence);
        world.run_for(Duration::from_secs(12));
        all_are_current(&world);
        let speaker = world
            .speaker(alice, crew, 0x1234_5678)
            .expect("she is a member");
        let mut call = Self {
            world,
            alice,
            bob,
            crew,
            speaker,
        };
        let first = call.say();
        assert!(call.hear(&first).is_ok(), "the first packet decrypts");
        call
    }

    fn say(&mut self) -> CapturedPacket {
        self.world
            .speak(&mut self.speaker, b"speech")
            .expect("she may send")
    }

    fn hear(&mut self, packet: &CapturedPacket) -> Result<(), DropReason> {
        self.world.hear(self.bob, packet).map(|plain| {
            assert!(plain.ends_with(b"speech"));
        })
    }

    fn wait(&mut self, seconds: u64) {
        self.world.run_for(Duration::from_secs(seconds));
    }

    fn renew(&mut self) {
        let order = Order::RenewGroup { group: self.crew };
        self.world.order(order).expect("it may be renewed");
    }

    /// Bob's newest generation and the one that he sends with.
    fn bob_is_at(&self) -> (u32, Option<u32>) {
        let machine = self.world.station(self.bob).terminal().expect("it is on");
        let sends = machine
            .send_key(self.crew)
            .map(|key| key.generation().get());
        (machine.groups()[0].generation.get(), sends)
    }

    /// The group's key out of alice's own store, renewed by herself.
    fn insiders_key(&self, generation: u32) -> MasterKey {
        let loot = Loot::read(self.world.station(self.alice).newest_image());
        let mut user = loot.expect("an image").user.expect("it is open");
        user.masters
            .remove(0)
            .renew_to(keyfall_protocol::ids::Generation::new(generation).expect("small"))
    }

    /// What an insider says under any generation, in a session of her own.
    fn insider_says(&mut self, generation: u32) -> CapturedPacket {
        let key = self.insiders_key(generation);
        let number = self.world.station(self.alice).number;
        let session = SessionId::new(
            generation.to_be_bytes().repeat(2)[..6]
                .try_into()
                .expect("6"),
        );
        let mut speaker = Speaker::new(self.alice, number, self.crew, session, 7);
        speaker.say(self.world.now(), &key, b"speech")
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        let machine = self.world.station(self.bob).terminal().expect("it is on");
        machine.drops().of(reason)
    }
}

/// R-045, F-03; invariants 2, 4 and 5: bob misses the RENEW and catches up from alice's packet;
/// he sends with the new key when it is stored.
#[test]
fn a_missed_renewal_is_made_up_from_the_next_packet() {
    let mut call = Call::new(None);
    call.world.cut_link(call.bob, true);
    call.renew();
    call.wait(3);
    assert_eq!(call.bob_is_at(), (0, Some(0)), "he missed it");
    let packet = call.say();
    assert_eq!(packet.generation.get(), 1);
    assert_eq!(call.hear(&packet), Ok(()));
    assert_eq!(call.bob_is_at(), (1, Some(0)), "not stored yet");
    call.wait(1);
    assert_eq!(call.bob_is_at(), (1, Some(1)));
    let renewal = |told: &Told| {
        let Event::Renewed {
            from, to, cause, ..
        } = told.event
        else {
            return None;
        };
        Some((from.get(), to.get(), cause))
    };
    let gap = call.world.station(call.bob).told().iter().find_map(renewal);
    assert_eq!(gap, Some((0, 1, Cause::Gap)));
    let next = call.say();
    assert_eq!(call.hear(&next), Ok(()), "the call goes on");
    all_are_current(&call.world);
}

/// A-11 and the key is on the server's chain: a gap of as many generations as one packet may close.
#[test]
fn many_missed_renewals_are_made_up_from_one_packet() {
    let mut call = Call::new(None);
    call.world.cut_link(call.bob, true);
    for _ in 0..64 {
        call.renew();
    }
    call.wait(3);
    let packet = call.say();
    assert_eq!(packet.generation.get(), 64);
    assert_eq!(call.hear(&packet), Ok(()));
    all_are_current(&call.world);
}

/// Invariant 5: whoever hears the command holds the new generation before anyone sends with it, so
/// that a renewal in mid-call loses no packet and needs no trial.
#[test]
fn a_renewal_in_mid_call_loses_no_packet() {
    let mut call = Call::new(Cadence::new(1, 600));
    for second in 0..1300u64 {
        if second % 100 == 50 {
            call.renew();
        }
        let packet = call.say();
        assert_eq!(call.hear(&packet), Ok(()), "second {second}");
        call.wait(1);
    }
    assert_eq!(call.dropped(DropReason::AboveCeiling), 0);
    let told = call.world.station(call.bob).told();
    let gaps = told.iter().filter(|told| {
        matches!(
            told.event,
            Event::Renewed {
                cause: Cause::Gap,
                ..
            }
        )
    });
    assert_eq!(gaps.count(), 0);
    all_are_current(&call.world);
}

/// Two fresh epochs within one activation lead, the second ordered `after` milliseconds, over the
/// carousel alone or with a way back. Carol hears of it late, when she may send with the first already;
/// where `reversed`, bob hears of both together, and of the second first. All hear all.
fn two_fresh_epochs(after: u64, way_back: bool, reversed: bool) {
    let mut world = World::new(46, Config::default());
    let stations = ["alice", "bob", "carol"].map(|name| world.enrol(name, LinkQuality::PERFECT));
    let crew = world.create_group("crew", &stations, None);
    if way_back {
        stations
            .iter()
            .for_each(|&id| world.open_way_back(id, NEAR));
    }
    world.run_for(Duration::from_secs(12));
    let [_, bob, carol] = stations;
    let mut speakers = stations.map(|id| world.speaker(id, crew, 7).expect("a member"));
    let began = world.now();
    let rekey = Order::RekeyGroup { group: crew };
    let heard = world.frames().len();
    world.cut_link(bob, reversed);
    world.cut_way_back(bob, reversed);
    world.order(rekey.clone()).expect("it may be");
    let mut due = Some(began.plus(Duration::from_millis(after)));
    // As long as all keys are received; then the last is sent with by all.
    while world.now().since(began) < Duration::from_secs(30) {
        world.run_for(Duration::from_millis(50));
        if due.is_some_and(|due| world.now() >= due) {
            due = None;
            world.cut_link(carol, true);
            world.cut_way_back(carol, true);
            let late = world.now().plus(Duration::from_millis(1500));
            world.cut_link_at(late, carol, false);
            world.cut_way_back_at(late, carol, false);
            world.order(rekey.clone()).expect("once more");
            world.run_for(Duration::from_millis(10));
            world.cut_link(bob, false);
            world.cut_way_back(bob, false);
            if reversed {
                // What was sent meanwhile comes now, the newest first.
                let frames: Vec<_> = world.frames()[heard..].iter().rev().cloned().collect();
                for frame in frames {
                    world.feed_frame(bob, &frame.octets);
                }
            }
        }
        for speaker in &mut speakers {
            let packet = world.speak(speaker, b"speech").expect("she may send");
            for id in stations {
                let own = world.station(id).number == packet.sender;
                let what = (
                    after,
                    way_back,
                    reversed,
                    world.now().since(began),
                    packet.epoch,
                );
                assert!(own || world.hear(id, &packet).is_ok(), "{what:?}");
            }
        }
    }
    assert_eq!(due, None);
    world.run_for(Duration::from_secs(1));
    all_are_current(&world);
}

/// Invariant 5 through two fresh epochs, of which the second comes before the first is active, at its
/// activation, and after.
#[test]
fn two_fresh_epochs_in_mid_call_lose_no_packet() {
    for way_back in [false, true] {
        for after in [0, 100, 1000, 1900, 1990, 2100, 5000, 7950, 9000] {
            two_fresh_epochs(after, way_back, false);
        }
        for after in [100, 1000, 1900] {
            two_fresh_epochs(after, way_back, true);
        }
    }
}

/// late packets of the generation before open within the grace, and then not, neither with
/// a key nor with what was derived from it.
#[test]
fn late_packets_open_within_the_grace_only() {
    let mut call = Call::new(None);
    let late = [call.say(), call.say(), call.say()];
    call.renew();
    call.wait(3);
    let next = call.say();
    assert_eq!(call.hear(&next), Ok(()));
    call.wait(20);
    assert_eq!(call.hear(&late[0]), Ok(()), "within 30 s");
    call.wait(15);
    assert_eq!(call.hear(&late[1]), Err(DropReason::OlderGeneration));
    assert_eq!(call.hear(&late[0]), Err(DropReason::Replayed));
    nothing_was_wrong(&call.world);
}

/// A newcomer opens the first packet that it hears, and none from before.
#[test]
fn a_newcomer_opens_the_first_packet_and_none_from_before() {
    let mut call = Call::new(None);
    let before = call.say();
    let carol = call.world.enrol("carol", LinkQuality::PERFECT);
    let terminal = call.world.station(carol).number;
    assert_eq!(
        call.world.hear(carol, &before),
        Err(DropReason::NotHeld),
        "a stranger"
    );
    let order = Order::AddMember {
        group: call.crew,
        terminal,
    };
    call.world.order(order).expect("she may join");
    call.wait(15);
    let first = call.say();
    assert!(call.world.hear(carol, &first).is_ok());
    assert_eq!(
        call.world.hear(carol, &before),
        Err(DropReason::OlderGeneration)
    );
    all_are_current(&call.world);
}

/// W-04: an insider who runs ahead moves bob to the ceiling at most, and only with packets that
/// open.
#[test]
fn an_insider_moves_a_member_to_the_ceiling_at_most() {
    let mut call = Call::new(None);
    let over = call.insider_says(65);
    assert_eq!(call.hear(&over), Err(DropReason::OlderGeneration));
    let at_ceiling = call.insider_says(64);
    let mut forged = at_ceiling.clone();
    let mut octets = forged.octets.to_vec();
    octets[20] ^= 1;
    forged.octets = Rc::from(octets);
    let stores = call.world.station(call.bob).stores();
    assert_eq!(call.hear(&forged), Err(DropReason::Authentication));
    assert_eq!(call.bob_is_at(), (0, Some(0)), "it did not open");
    assert_eq!(call.world.station(call.bob).stores(), stores);
    assert_eq!(call.hear(&at_ceiling), Ok(()));
    call.wait(1);
    assert_eq!(call.bob_is_at(), (64, Some(64)));
    let further = call.insider_says(65);
    assert_eq!(call.hear(&further), Err(DropReason::AboveCeiling));
    nothing_was_wrong(&call.world);
}

/// W-04: a flood of packets that claim other generations and sessions moves nothing, costs the
/// budget, and silences neither a call that is on nor a new one once the flood's second is over.
#[test]
fn a_flood_of_forged_packets_moves_nothing_and_silences_nobody() {
    let mut call = Call::new(None);
    let genuine = call.say();
    let stores = call.world.station(call.bob).stores();
    let snapshot = call.world.station(call.bob).newest_image().clone();
    for n in 0..20_000u32 {
        let mut octets = genuine.octets.to_vec();
        let len = octets.len();
        // Generation, session and SSRC of the attacker's choice; the sender stays alice.
        octets[len - 12] = octets[len - 12].wrapping_add((n % 65) as u8);
        octets[len - 6..len - 2].copy_from_slice(&n.to_be_bytes());
        let source = u64::from(n % 500);
        let heard = call.world.hear_from(call.bob, call.crew, source, &octets);
        assert!(
            matches!(
                heard,
                Err(DropReason::Authentication | DropReason::TrialBudget)
            ),
            "{heard:?}"
        );
        if n % 1000 == 0 {
            let packet = call.say();
            assert_eq!(call.hear(&packet), Ok(()), "the call goes on");
        }
    }
    assert!(call.dropped(DropReason::TrialBudget) > 19_000);
    assert_eq!(call.world.station(call.bob).stores(), stores);
    assert_eq!(*call.world.station(call.bob).newest_image(), snapshot);
    call.wait(1);
    let mut second = call
        .world
        .speaker(call.alice, call.crew, 99)
        .expect("she is a member");
    let packet = call.world.speak(&mut second, b"speech").expect("she may");
    assert_eq!(call.hear(&packet), Ok(()));
    nothing_was_wrong(&call.world);
}

/// R-045 beside R-044: a command that comes between two scheduled renewals and is missed.
#[test]
fn a_missed_command_beside_a_schedule_is_made_up_from_the_next_packet() {
    let mut call = Call::new(Cadence::new(1, 3600));
    call.world.cut_link(call.bob, true);
    for _ in 0..3 {
        call.renew();
        call.wait(3);
        let packet = call.say();
        assert_eq!(call.hear(&packet), Ok(()));
    }
    call.wait(1);
    all_are_current(&call.world);
}

/// With a schedule the ceiling is ten minutes ahead: who lost its beacons follows the others.
#[test]
fn a_terminal_without_timers_follows_the_schedule_by_gap() {
    let mut call = Call::new(Cadence::new(1, 300));
    call.world.cut_link(call.bob, true);
    // A power cut takes the time heard; nothing is due to bob then.
    call.world.crash(call.bob);
    call.wait(900);
    call.world.start(call.bob);
    let packet = call.say();
    assert_eq!(packet.generation.get(), 3);
    assert_eq!(call.hear(&packet), Ok(()));
    call.wait(1);
    all_are_current(&call.world);
}
