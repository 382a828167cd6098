//! No key and nonce twice (DESIGN section 11, invariant 3; REQUIREMENTS W-08, W-09).

use std::collections::HashSet;
use std::time::Duration;

use keyfall_plane::{Arrival, SrtpStream};
use keyfall_protocol::ids::{SessionId, Tick};
use keyfall_protocol::keys::{MasterKey, SrtpSuite};
use keyfall_protocol::server::Class;
use keyfall_protocol::terminal::{Event, Input, Order, Output, Terminal};
use keyfall_sim::{CapturedPacket, Config, LinkQuality, Loot, Seeded, Speaker, StationId, World};

use crate::nothing_was_wrong;

/// Sees every packet and derives its SRTP master key and salt anew from what the wire says. RFC
/// 3711 and RFC 7714 make session key and IV of them, the SSRC and the index alone, so one that
/// repeats here is a nonce that repeats.
#[derive(Default)]
struct Oracle(HashSet<(Vec<u8>, Vec<u8>, u32, u64)>);

impl Oracle {
    /// False where the pair was seen before.
    fn sees(&mut self, chain: &MasterKey, packet: &CapturedPacket) -> bool {
        let arrival = Arrival::of_srtp(SUITE, &packet.octets).expect("sent a moment ago");
        let SrtpStream {
            sender,
            session,
            ssrc,
            ..
        } = arrival.stream(SUITE);
        let key = chain.duplicate().renew_to(packet.generation);
        assert_eq!(key.generation(), packet.generation);
        let master = key.derive_srtp(SUITE, sender, session, arrival.mki.n(), ssrc);
        let sequence = u16::from_be_bytes([packet.octets[2], packet.octets[3]]);
        let index = u64::from(arrival.mki.n()) << 16 | u64::from(sequence);
        let (key, salt) = (master.key().to_vec(), master.salt().to_vec());
        self.0.insert((key, salt, ssrc, index))
    }
}

fn world() -> (World, StationId, StationId) {
    let mut world = World::new(9, Config::default());
    let alice = world.enrol("alice", LinkQuality::PERFECT);
    let bob = world.enrol("bob", LinkQuality::PERFECT);
    world.create_group("crew", &[alice, bob], None);
    world.run_for(Duration::from_secs(12));
    (world, alice, bob)
}

fn chain(world: &World, id: StationId) -> MasterKey {
    let loot = Loot::read(world.station(id).newest_image());
    let user = loot.expect("an image").user;
    user.expect("it is open").masters.remove(0)
}

/// W-09: the application keeps SSRC and sequence numbers; the power is cut at any moment, also
/// before the session was recorded.
#[test]
fn through_a_thousand_power_cuts_no_key_and_nonce_repeat() {
    let (mut world, alice, _) = world();
    let (chain, mut oracle) = (chain(&world, alice), Oracle::default());
    let crew = chain.group();
    for _ in 0..1000 {
        world.crash(alice);
        world.start(alice);
        // A beacon comes every ten seconds.
        let beacon = world
            .frames()
            .iter()
            .rfind(|frame| frame.item.class() == Class::Time);
        let beacon = beacon.expect("there was one").octets.clone();
        world.feed_frame(alice, &beacon);
        // A session asked for and lost with the power is one that nobody uses.
        world.feed(alice, Input::Order(Order::OpenSession { group: crew }));
        if world.rng().chance(300) {
            continue;
        }
        let mut speaker = world.speaker(alice, crew, SSRC).expect("a member");
        for _ in 0..3 {
            let packet = world.speak(&mut speaker, b"speech").expect("she may");
            assert!(oracle.sees(&chain, &packet));
        }
    }
    assert!(oracle.0.len() > 1800, "{}", oracle.0.len());
    nothing_was_wrong(&world);
}

/// W-09: one state directory copied a thousand times; every copy sends.
#[test]
fn a_thousand_clones_of_one_terminal_repeat_no_key_and_nonce() {
    let (world, alice, _) = world();
    let (chain, mut oracle) = (chain(&world, alice), Oracle::default());
    let image = world.station(alice).synced().clone();
    let beacon = world
        .frames()
        .iter()
        .rfind(|frame| frame.item.class() == Class::Time);
    let beacon = beacon.expect("there was one").octets.clone();
    for seed in 0..1000 {
        let mut clone =
            Terminal::restore(&image.device, Some(&image.user), Tick::default()).expect("an image");
        let mut rng = Seeded::new(1_000_000 + seed);
        let order = Order::OpenSession {
            group: chain.group(),
        };
        let mut session = None;
        let mut inputs = vec![Input::Order(order), Input::Datagram(&beacon)];
        while let Some(input) = inputs.pop() {
            clone
                .handle_input(Tick::default(), &mut rng, input)
                .expect("the contract is kept");
            loop {
                match clone.poll_output() {
                    Output::Store(id, _) => inputs.push(Input::Stored(id)),
                    Output::Event(Event::SessionReady { session: it, .. }) => session = Some(it),
                    Output::Event(_) | Output::ToServer(_) | Output::Erase(_) => {}
                    Output::Probe { .. } | Output::Answer { .. } | Output::ToPeer { .. } => {}
                    Output::Timeout { .. } => break,
                }
            }
        }
        let session = session.expect("granted");
        let number = clone.identity().number;
        let mut speaker = Speaker::new(alice, number, chain.group(), session, SSRC);
        let key = clone.send_key(chain.group()).expect("stored and active");
        for _ in 0..3 {
            let packet = speaker.say(Tick::default(), key, b"speech");
            assert!(oracle.sees(&chain, &packet), "clone {seed}");
        }
    }
    assert_eq!(oracle.0.len(), 3000);
}

/// W-08: two terminals forced to one SSRC and one sequence number.
#[test]
fn two_terminals_with_one_ssrc_share_no_key_and_nonce() {
    let (mut world, alice, bob) = world();
    let (chain, mut oracle) = (chain(&world, alice), Oracle::default());
    let mut sent = Vec::new();
    for id in [alice, bob] {
        let mut speaker = world.speaker(id, chain.group(), SSRC).expect("a member");
        for _ in 0..1000 {
            let packet = world.speak(&mut speaker, &[0; 32]).expect("they may");
            assert!(oracle.sees(&chain, &packet));
            sent.push(packet);
        }
    }
    let keystreams: HashSet<_> = sent.iter().map(|packet| &packet.octets[12..44]).collect();
    assert_eq!(keystreams.len(), 2000);
    // Each is heard by the other, in spite of the one SSRC.
    assert!(world.hear(bob, &sent[0]).is_ok());
    assert!(world.hear(alice, &sent[1000]).is_ok());
}

/// W-08: should two terminals ever draw one session, their numbers still tell their keys apart.
#[test]
fn two_terminals_with_one_ssrc_and_one_session_share_no_key_and_nonce() {
    let (world, alice, bob) = world();
    let (chain, mut oracle) = (chain(&world, alice), Oracle::default());
    let session = SessionId::new(*b"chance");
    for id in [alice, bob] {
        let number = world.station(id).number;
        let mut speaker = Speaker::new(id, number, chain.group(), session, SSRC);
        for _ in 0..10 {
            let packet = speaker.say(world.now(), &chain, b"speech");
            assert!(oracle.sees(&chain, &packet));
        }
    }
}

/// The positive control: a session that is used twice is seen.
#[test]
fn the_oracle_sees_a_session_that_is_used_twice() {
    let (mut world, alice, _) = world();
    let (chain, mut oracle) = (chain(&world, alice), Oracle::default());
    let speaker = world.speaker(alice, chain.group(), SSRC).expect("a member");
    let stream = *speaker.stream();
    let again = || Speaker::new(alice, stream.sender, chain.group(), stream.session, SSRC);
    let first = again().say(world.now(), &chain, b"speech");
    let second = again().say(world.now(), &chain, b"other words");
    assert!(oracle.sees(&chain, &first));
    assert!(!oracle.sees(&chain, &second));
}

const SSRC: u32 = 0x5555_5555;
const SUITE: SrtpSuite = SrtpSuite::AeadAes256Gcm;
