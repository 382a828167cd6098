//! Who is shut out reads nothing that comes, and who joins reads nothing that was (DESIGN section
//! 11, invariant 6; REQUIREMENTS, W-01; FORMATS sections 2.3 and 5.3).

use std::time::Duration;

use keyfall_protocol::DropReason;
use keyfall_protocol::ids::{GroupNumber, KeyEpoch};
use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::Order;
use keyfall_sim::{Config, LinkQuality, Speaker, StationId, Thief, World};

use crate::{all_are_current, nothing_was_wrong, quickly_renewed};

/// A fleet in which `leave` terminals will be excluded and a few stay, with groups of all of them.
struct Fleet {
    world: World,
    stay: Vec<StationId>,
    leave: Vec<StationId>,
    groups: Vec<GroupNumber>,
    speakers: Vec<Speaker>,
}

impl Fleet {
    fn new(leave: usize, groups: usize) -> Self {
        let config = Config {
            founding: quickly_renewed(),
            ..Config::default()
        };
        let mut world = World::new(69, config);
        let mut enrol = |name: &str, count: usize| -> Vec<_> {
            (0..count)
                .map(|n| world.enrol(&format!("{name}-{n}"), LinkQuality::PERFECT))
                .collect()
        };
        let (stay, leave) = (enrol("stays", 3), enrol("leaves", leave));
        let groups: Vec<_> = (0..groups)
            .map(|n| {
                // Each of the stolen ones is in every other group, the first in all.
                let member = |(place, id): (usize, &StationId)| {
                    (place == 0 || (place + n) % 2 == 0).then_some(*id)
                };
                let stolen = leave.iter().enumerate().filter_map(member);
                let members: Vec<_> = stay.iter().copied().chain(stolen).collect();
                world.create_group(&format!("group-{n}"), &members, Cadence::new(1, 600))
            })
            .collect();
        world.run_for(Duration::from_secs(30));
        all_are_current(&world);
        let speaker = |group: &GroupNumber| {
            let speaker = world.speaker(stay[0], *group, group.get());
            speaker.expect("a member")
        };
        let speakers = groups.iter().map(speaker).collect();
        Self {
            world,
            stay,
            leave,
            groups,
            speakers,
        }
    }

    /// One word in each group, which the others who stay hear.
    fn talk(&mut self) {
        for speaker in &mut self.speakers {
            let packet = self.world.speak(speaker, b"speech").expect("she may");
            let heard = self.world.hear(self.stay[1], &packet);
            assert!(heard.is_ok(), "{heard:?}");
        }
    }

    /// Everything that all who are excluded hold now.
    fn collude(&mut self, thief: &mut Thief) {
        for &id in &self.leave {
            thief.join(&self.world.steal(id));
        }
    }

    fn epoch(&self, group: GroupNumber) -> KeyEpoch {
        let record = self.world.server_disk().group(group);
        record.expect("it was created").master.epoch()
    }
}

/// Invariant 6 for `leave` terminals in up to `groups` groups, which put everything together.
fn excluded_read_nothing_new(leave: usize, groups: usize) {
    let mut fleet = Fleet::new(leave, groups);
    let mut thief = Thief::default();
    fleet.collude(&mut thief);
    fleet.talk();
    let mut stolen_words = fleet
        .world
        .speaker(fleet.leave[0], fleet.groups[0], 99)
        .expect("a member");
    fleet.collude(&mut thief);
    let (frames_before, packets_before) = (fleet.world.frames().len(), fleet.world.packets().len());
    let old: Vec<_> = fleet.groups.iter().map(|&it| fleet.epoch(it)).collect();

    let forged = fleet.world.speak(&mut stolen_words, b"forged");
    fleet.world.exclude(&fleet.leave).expect("they may be");
    fleet.world.run_for(Duration::from_secs(2));
    // Peers drop at once what an excluded terminal says.
    let forged = forged.expect("it could still send");
    let heard = fleet.world.hear(fleet.stay[1], &forged);
    assert_eq!(heard, Err(DropReason::ExcludedSender));
    assert!(fleet.world.speak(&mut stolen_words, b"more").is_none());
    fleet.collude(&mut thief);

    fleet.world.run_for(Duration::from_secs(20));
    all_are_current(&fleet.world);
    let aside = fleet.world.packets().len();
    fleet.talk();
    for step in 0..6 {
        let group = fleet.groups[step % fleet.groups.len()];
        let order = match step {
            0 => Order::RenewGroup { group },
            1 => Order::RekeyGroup { group },
            2 => Order::RenewDevices,
            3 => {
                let late = fleet.world.enrol("late", LinkQuality::PERFECT);
                let terminal = fleet.world.station(late).number;
                Order::AddMember { group, terminal }
            }
            4 => Order::RenewDevice {
                terminal: fleet.world.station(fleet.stay[0]).number,
            },
            _ => Order::RemoveMember {
                group,
                terminal: fleet.world.station(fleet.stay[2]).number,
            },
        };
        fleet.world.order(order).expect("it may be ordered");
        fleet.world.run_for(Duration::from_secs(10));
        fleet.talk();
    }
    // Over a tick of G and of the groups.
    fleet.world.run_for(Duration::from_secs(620));
    fleet.talk();
    fleet.collude(&mut thief);
    all_are_current(&fleet.world);

    let (frames, packets) = (fleet.world.frames(), fleet.world.packets());
    let opened = thief.open(frames, packets);
    let opened_frames = opened.frames.iter().filter(|&&it| it >= frames_before);
    assert_eq!(opened_frames.count(), 0, "distributions of new epochs");
    let is_new = |&&place: &&usize| {
        let packet = &packets[place];
        let group = fleet.groups.iter().position(|it| *it == packet.group);
        packet.epoch != old[group.expect("one of them")]
    };
    assert_eq!(opened.packets.iter().filter(is_new).count(), 0);
    // The positive control: all that was said before.
    let past = opened.packets.iter().filter(|&&it| it < packets_before);
    assert_eq!(past.count(), packets_before);
    assert!(packets.len() - aside >= 8 * groups);
}

#[test]
fn one_excluded_terminal_reads_nothing_new() {
    excluded_read_nothing_new(1, 1);
    excluded_read_nothing_new(1, 16);
}

#[test]
fn sixteen_excluded_terminals_together_read_nothing_new() {
    excluded_read_nothing_new(16, 4);
}

#[test]
fn sixty_four_excluded_terminals_together_read_nothing_new() {
    let groups = if cfg!(debug_assertions) { 4 } else { 16 };
    excluded_read_nothing_new(64, groups);
}

/// the joiner reads nothing from before, the leaver nothing from after, and who comes back
/// nothing from between, with all that they ever had and every recording.
#[test]
fn joining_renews_and_leaving_rekeys() {
    let mut fleet = Fleet::new(1, 1);
    let (group, guest) = (
        fleet.groups[0],
        fleet.world.enrol("guest", LinkQuality::PERFECT),
    );
    let terminal = fleet.world.station(guest).number;
    let mut thief = Thief::default();
    let mut said = vec![0];
    let orders = [
        Order::AddMember { group, terminal },
        Order::RemoveMember { group, terminal },
        Order::AddMember { group, terminal },
        Order::RemoveMember { group, terminal },
    ];
    for order in orders {
        for _ in 0..5 {
            fleet.talk();
            thief.join(&fleet.world.steal(guest));
            fleet.world.run_for(Duration::from_secs(7));
        }
        said.push(fleet.world.packets().len());
        fleet.world.order(order).expect("it may be ordered");
        fleet.world.run_for(Duration::from_secs(5));
        thief.join(&fleet.world.steal(guest));
    }
    (0..5).for_each(|_| fleet.talk());
    said.push(fleet.world.packets().len());
    let opened = thief.open(fleet.world.frames(), fleet.world.packets());
    let read = |from: usize, until: usize| {
        let within = opened
            .packets
            .iter()
            .filter(|&&it| (from..until).contains(&it));
        within.count()
    };
    let read: Vec<_> = said.windows(2).map(|pair| read(pair[0], pair[1])).collect();
    assert_eq!(read, [0, 5, 0, 5, 0], "apart, member, apart, member, apart");
    nothing_was_wrong(&fleet.world);
}
