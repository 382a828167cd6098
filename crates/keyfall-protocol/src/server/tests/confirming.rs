//! Who may say that it stopped, or that it sends again (REQUIREMENTS, W-07).

use std::time::Duration;

use super::crowd::{CREW, Crowd, Parcel, address};
use super::desk::{counting, group, terminal};
use crate::command::HaltKind;
use crate::ids::{Generation, SequenceNumber};
use crate::server::callers::Caller;
use crate::server::{ChangeMode, ConfirmationCounts, GroupPolicy, Input, Order, Phase};
use crate::sharing::{Bundle, Confirmation};

const BARRIER: GroupPolicy = GroupPolicy {
    change: ChangeMode::Barrier,
    stragglers: crate::server::Stragglers::Wait,
    legacy: false,
};

const fn ms(span: u64) -> Duration {
    Duration::from_millis(span)
}

/// Three members at a barrier that terminal 3 holds up: what it says does not come.
fn held_up() -> Crowd {
    let mut crowd = Crowd::new(3, BARRIER);
    let silent = terminal(3);
    crowd.loses = Box::new(
        move |_, parcel| matches!(parcel, Parcel::ToServer(number, _) if *number == silent),
    );
    crowd.order(Order::RenewGroup { group: group(CREW) });
    crowd.live(ms(100));
    assert_eq!(crowd.report().stopped, 2);
    crowd
}

fn give(crowd: &mut Crowd, from: u32, octets: Vec<u8>) -> ConfirmationCounts {
    let from = address(terminal(from));
    crowd.tell_server(Input::Datagram { from, octets });
    crowd.desk.server.confirmations()
}

/// What terminal 3 said of its STOP.
fn own(crowd: &Crowd) -> Confirmation {
    crowd.confirmations(3).pop().expect("it stopped")
}

#[test]
fn a_confirmation_counts_for_the_member_that_made_it() {
    let mut crowd = held_up();
    let said = own(&crowd);
    let counts = give(&mut crowd, 3, said.encode());
    assert_eq!((counts.taken, crowd.report().stopped), (3, 3));
    assert_eq!(
        crowd
            .desk
            .server
            .change_of(group(CREW))
            .map(|it| it.stopped),
        Some(3)
    );
}

/// KR-336: without the terminal's wrap key nobody confirms in its name, and each octet counts.
#[test]
fn a_forged_confirmation_is_counted_and_met_with_silence() {
    let mut crowd = held_up();
    let said = own(&crowd);
    let place = (said.epoch, said.generation);
    // Another member, with its own key and the other's name.
    let others = crowd.desk.wrap(2);
    let mut forged = Confirmation::make(
        &others,
        HaltKind::Stop,
        group(CREW),
        said.transaction,
        place,
    );
    forged.id = said.id;
    let mut changed = said;
    changed.mac[31] ^= 1;
    // What was said of STOP is no word of START.
    let mut of_start = said;
    of_start.kind = HaltKind::Start;
    crowd.to_terminals.clear();
    for bad in [forged, changed] {
        give(&mut crowd, 3, bad.encode());
    }
    let counts = give(&mut crowd, 3, of_start.encode());
    assert_eq!((counts.taken, counts.forged, counts.out_of_turn), (2, 2, 1));
    assert_eq!(crowd.report().stopped, 2);
    assert!(crowd.to_terminals.is_empty(), "silence");
    let nobody = crowd.desk.server.confirmations().unknown;
    let mut stranger = said;
    stranger.id = [7; 8];
    assert_eq!(give(&mut crowd, 3, stranger.encode()).unknown, nobody + 1);
    for noise in [
        vec![],
        vec![0; 4],
        vec![0, 0, 0, 0, 0x84, 1, 0, 11, 0x80],
        vec![0xff; 1200],
    ] {
        give(&mut crowd, 3, noise);
    }
    // What does not even begin as a confirmation is the desk's, and met with silence, too.
    let silent = crowd.desk.server.desk_counts().silent;
    assert_eq!(crowd.desk.server.confirmations().malformed + silent, 4);
    assert!(crowd.to_terminals.is_empty(), "silence");
    assert_eq!(crowd.report().stopped, 2);
}

/// KR-337: a confirmation is of one transaction and one key.
#[test]
fn a_confirmation_of_another_change_counts_nothing() {
    let mut crowd = held_up();
    let said = own(&crowd);
    let wrap = crowd.desk.wrap(3);
    let make = |transaction, place| {
        Confirmation::make(&wrap, HaltKind::Stop, group(CREW), transaction, place)
    };
    let (epoch, generation) = (said.epoch, said.generation);
    let others = [
        make(
            SequenceNumber::new(said.transaction.get() - 1),
            (epoch, generation),
        ),
        make(said.transaction.plus(1), (epoch, generation)),
        make(said.transaction, (epoch, generation.next())),
        make(said.transaction, (epoch, Generation::ZERO)),
        Confirmation::make(
            &wrap,
            HaltKind::Stop,
            group(2),
            said.transaction,
            (epoch, generation),
        ),
    ];
    for other in others {
        give(&mut crowd, 3, other.encode());
    }
    let counts = crowd.desk.server.confirmations();
    assert_eq!((counts.taken, counts.out_of_turn), (2, 5));
    assert_eq!(crowd.report().stopped, 2);
}

/// KR-338: a recording counts nothing and moves nobody's address, in its change and after it.
#[test]
fn a_recorded_confirmation_counts_once_and_moves_no_address() {
    let mut crowd = held_up();
    let recorded = crowd.confirmations(1).pop().expect("it stopped");
    let thief = address(terminal(99));
    for _ in 0..3 {
        let octets = recorded.encode();
        crowd.tell_server(Input::Datagram {
            from: thief,
            octets,
        });
    }
    let counts = crowd.desk.server.confirmations();
    assert_eq!((counts.taken, counts.repeated), (2, 3));
    let now = crowd.now();
    let place = crowd.desk.server.peers.reachable(terminal(1), now);
    assert_eq!(place, Some(address(terminal(1))));
    // The next change.
    let said = own(&crowd);
    give(&mut crowd, 3, said.encode());
    crowd.loses = Box::new(|_, _| false);
    crowd.live(ms(5_000));
    crowd.order(Order::RenewGroup { group: group(CREW) });
    let before = crowd.desk.server.confirmations().out_of_turn;
    let octets = recorded.encode();
    crowd.tell_server(Input::Datagram {
        from: thief,
        octets,
    });
    assert_eq!(crowd.desk.server.confirmations().out_of_turn, before + 1);
    assert_eq!(crowd.report().stopped, 0);
}

/// A member whose address has changed is spoken to where it confirmed from.
#[test]
fn a_confirmation_says_where_the_member_is_now() {
    let mut crowd = held_up();
    let said = own(&crowd);
    let moved = address(terminal(30));
    let octets = said.encode();
    crowd.tell_server(Input::Datagram {
        from: moved,
        octets,
    });
    let now = crowd.now();
    assert_eq!(
        crowd.desk.server.peers.reachable(terminal(3), now),
        Some(moved)
    );
}

/// a member brings what others said; each is checked, and none of them is where it is.
#[test]
fn a_bundle_confirms_for_those_that_made_its_parts() {
    let mut crowd = held_up();
    let said = own(&crowd);
    let mut forged = said;
    forged.mac[0] ^= 1;
    let repeated = crowd.confirmations(1).pop().expect("it stopped");
    let bundle = Bundle {
        confirmations: vec![forged, said, repeated],
    };
    let counts = give(&mut crowd, 2, bundle.encode());
    assert_eq!((counts.taken, counts.forged, counts.repeated), (3, 1, 1));
    assert_eq!(crowd.report().stopped, 3);
    let now = crowd.now();
    let place = crowd.desk.server.peers.reachable(terminal(3), now);
    assert_eq!(place, Some(address(terminal(3))));
}

/// Who is no member, or is one no more, confirms nothing.
#[test]
fn a_stranger_to_the_group_confirms_nothing() {
    let mut crowd = held_up();
    let said = own(&crowd);
    crowd
        .desk
        .carry_out(super::desk::add_terminal("t4"))
        .expect("free");
    let wrap = crowd.desk.wrap(4);
    let place = (said.epoch, said.generation);
    let made = Confirmation::make(&wrap, HaltKind::Stop, group(CREW), said.transaction, place);
    let counts = give(&mut crowd, 4, made.encode());
    assert_eq!((counts.taken, counts.unknown), (2, 1));
    assert_eq!(crowd.report().reachable, 3);
}

/// Who was not reachable when the change began takes part as soon as it is heard.
#[test]
fn a_member_that_calls_in_mid_change_takes_part() {
    let mut crowd = Crowd::new(3, BARRIER);
    crowd.desk.server.peers.forget(terminal(3));
    crowd.unit(2).on = false;
    crowd.order(Order::RekeyGroup { group: group(CREW) });
    crowd.live(ms(50));
    assert_eq!(crowd.report().reachable, 2);
    crowd.fetch(terminal(3));
    let report = crowd.report();
    assert_eq!((report.reachable, report.holding), (3, 2));
    assert_eq!(
        report.state,
        crate::server::ChangeState::At(Phase::Distributing)
    );
    crowd.unit(2).on = true;
    crowd.live(Duration::from_secs(15));
    assert_eq!(crowd.report().started, 3);
}

/// Names follow the wrap keys: with G, with a key's own renewal, with a new terminal.
#[test]
fn callers_are_known_by_the_name_that_their_key_has_now() {
    let mut crowd = Crowd::new(3, BARRIER);
    let find = |crowd: &mut Crowd, id| {
        let server = &mut crowd.desk.server;
        let g = server.fleet.fleet_generation;
        server.callers.find(id, g, &server.terminals)
    };
    let id = |crowd: &Crowd, n| crowd.desk.wrap(n).key_req_id();
    let first = id(&crowd, 1);
    assert_eq!(find(&mut crowd, first), Some(Caller::Terminal(terminal(1))));
    crowd.order(Order::RenewDevice {
        terminal: terminal(1),
    });
    let second = id(&crowd, 1);
    assert_ne!(first, second);
    assert_eq!(find(&mut crowd, first), None);
    assert_eq!(
        find(&mut crowd, second),
        Some(Caller::Terminal(terminal(1)))
    );
    crowd.order(Order::RenewDevices);
    assert_eq!(find(&mut crowd, second), None);
    for n in 1..=3 {
        let now = id(&crowd, n);
        assert_eq!(find(&mut crowd, now), Some(Caller::Terminal(terminal(n))));
    }
    crowd
        .desk
        .carry_out(super::desk::add_terminal("t4"))
        .expect("free");
    let fourth = id(&crowd, 4);
    assert_eq!(
        find(&mut crowd, fourth),
        Some(Caller::Terminal(terminal(4)))
    );
}

/// Anything at all from the network: no panic, no word, no change of state.
#[test]
fn noise_changes_nothing() {
    let mut crowd = held_up();
    let before = crowd.desk.state();
    let mut dice = counting();
    let said = own(&crowd).encode();
    crowd.to_terminals.clear();
    for at in 0..said.len() {
        let mut changed = said.clone();
        let [flip] = crate::rng::octets::<1>(&mut dice);
        changed[at] ^= flip | 1;
        give(&mut crowd, 3, changed);
        give(&mut crowd, 3, said[..at].to_vec());
    }
    assert_eq!(crowd.report().stopped, 2);
    assert_eq!(crowd.desk.state(), before);
    assert!(crowd.to_terminals.is_empty());
}
