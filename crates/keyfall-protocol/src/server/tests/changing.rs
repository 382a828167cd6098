//! The key of a running group changes with those that can answer (REQUIREMENTS to
//!

use std::collections::BTreeSet;
use std::time::Duration;

use super::crowd::{CREW, Crowd, Parcel, frame_in, set};
use super::desk::{add, add_terminal, exclude, group, remove, terminal};
use crate::command::{Body, HaltKind, Unverified};
use crate::ids::{Generation, KeyEpoch};
use crate::server::{
    ACTIVATION_LEAD, CHANGE_LEAD, ChangeMode, ChangeState, GroupPolicy, Item, Order, Phase,
    Straggler, Stragglers,
};
use crate::terminal::Event;

const BARRIER: GroupPolicy = policy(ChangeMode::Barrier, Stragglers::Follow);
const HITLESS: GroupPolicy = policy(ChangeMode::Hitless, Stragglers::Follow);

const fn policy(change: ChangeMode, stragglers: Stragglers) -> GroupPolicy {
    GroupPolicy {
        change,
        stragglers,
        legacy: false,
    }
}

const fn ms(span: u64) -> Duration {
    Duration::from_millis(span)
}

fn rekey() -> Order {
    Order::RekeyGroup { group: group(CREW) }
}

fn renew() -> Order {
    Order::RenewGroup { group: group(CREW) }
}

fn kind_of(frame: &[u8]) -> &'static str {
    let read = Unverified::decode(frame).expect("ours");
    read.command().body.name()
}

/// The types of what was sent to single terminals, in their order, each once.
fn words(crowd: &Crowd) -> Vec<&'static str> {
    let mut words = Vec::new();
    for (_, _, octets) in &crowd.to_terminals {
        let word = kind_of(&frame_in(octets));
        if words.last() != Some(&word) {
            words.push(word);
        }
    }
    words
}

fn all_send_with_the_new_key(crowd: &Crowd) {
    for number in crowd.desk.server.groups[&group(CREW)].members.clone() {
        assert_eq!(crowd.sends(number.get()), Some(crowd.key()), "{number}");
    }
}

/// fetched while the old key is sent with; then all stop at once, then all
/// start, in three times the way there and back.
#[test]
fn at_a_barrier_all_stop_before_anyone_starts() {
    let mut crowd = Crowd::new(5, BARRIER);
    crowd.order(rekey());
    crowd.live(ms(2_000));
    assert_eq!(words(&crowd), ["NOTIFY", "STOP", "START"]);
    let report = crowd.report();
    assert_eq!(report.state, ChangeState::Finished);
    let counts = [
        report.reachable,
        report.holding,
        report.stopped,
        report.started,
    ];
    assert_eq!(counts, [5; 4]);
    assert_eq!((report.stragglers.len(), report.left_out), (0, false));
    assert_eq!((report.epoch, report.generation), crowd.key());
    all_send_with_the_new_key(&crowd);
    let times = report.times;
    let [stop, acked, start, done] = [
        times.first_stop,
        times.last_stop_ack,
        times.first_start,
        times.last_start_ack,
    ]
    .map(|at| at.expect("it was"));
    assert!(stop < acked && acked <= start && start < done);
    assert_eq!(report.halted_for(), Some(ms(20)));
    // Nobody sends with the new one before everybody has left off with the old one.
    for n in 1..=5 {
        assert!(crowd.moved_at(n).expect("it moved") >= acked);
        let quiet = crowd.unit(n).longest_quiet;
        assert!(quiet >= ms(10) && quiet <= ms(20), "{quiet:?}");
    }
    // Signed once, and not once for each.
    for kind in ["STOP", "START"] {
        let frames = crowd
            .to_terminals
            .iter()
            .map(|(_, _, octets)| frame_in(octets));
        let frames: BTreeSet<_> = frames.filter(|frame| kind_of(frame) == kind).collect();
        assert_eq!(frames.len(), 1, "{kind}");
    }
}

/// the default. No member is without a key to send with for a moment, and nobody sends with
/// the new one before all hold it.
#[test]
fn without_a_barrier_nobody_is_silent_for_a_moment() {
    let mut crowd = Crowd::new(5, HITLESS);
    crowd.order(rekey());
    crowd.live(ms(2_000));
    assert_eq!(words(&crowd), ["NOTIFY", "START"]);
    let report = crowd.report();
    assert_eq!(report.state, ChangeState::Finished);
    assert_eq!([report.holding, report.stopped, report.started], [5, 0, 5]);
    assert_eq!(report.halted_for(), None);
    all_send_with_the_new_key(&crowd);
    let held = crowd
        .to_terminals
        .iter()
        .find(|(_, _, it)| kind_of(&frame_in(it)) == "START");
    let held = held.expect("it was said").0;
    for n in 1..=5 {
        assert_eq!(crowd.unit(n).longest_quiet, Duration::ZERO);
        assert!(crowd.moved_at(n).expect("it moved") > held);
    }
    // Long before the key's own time.
    let at = crowd.desk.server.groups[&group(CREW)].schedule.activate_at;
    assert!(crowd.desk.at.wall < at);
}

/// With a renewal nothing has to be fetched: at a barrier STOP alone brings it; without, RENEW goes
/// first, and START comes when the key is active.
#[test]
fn a_renewal_is_not_fetched() {
    let mut crowd = Crowd::new(3, BARRIER);
    crowd.order(renew());
    crowd.live(ms(1_000));
    assert_eq!(words(&crowd), ["STOP", "START"]);
    assert_eq!(crowd.report().state, ChangeState::Finished);
    assert_eq!(crowd.report().halted_for(), Some(ms(20)));
    all_send_with_the_new_key(&crowd);

    let mut crowd = Crowd::new(3, HITLESS);
    crowd.order(renew());
    crowd.live(ms(3_000));
    assert_eq!(words(&crowd), ["RENEW", "START"]);
    let report = crowd.report();
    assert_eq!((report.state, report.started), (ChangeState::Finished, 3));
    all_send_with_the_new_key(&crowd);
    let begun = report.times.begun;
    let start = report.times.first_start.expect("it was said");
    assert!(start.since(begun) >= Duration::from_secs(ACTIVATION_LEAD.into()));
    for n in 1..=3 {
        assert_eq!(crowd.unit(n).longest_quiet, Duration::ZERO);
        let moved = crowd.moved_at(n).expect("it moved");
        assert!(moved.since(begun) >= ms(1_900), "not before it is active");
    }
}

/// what the schedule asks for needs no word.
#[test]
fn a_scheduled_renewal_is_no_change() {
    let mut crowd = Crowd::new(2, BARRIER);
    crowd.live(Duration::from_secs(2 * 86_400));
    assert_eq!(crowd.desk.server.change_of(group(CREW)), None);
    assert_eq!(words(&crowd), Vec::<&str>::new());
}

/// the newcomer is called by name, reads on from the renewal, and nobody else waits for a
/// key; who leaves is told nothing.
#[test]
fn a_newcomer_is_called_and_a_leaver_is_not() {
    let mut crowd = Crowd::new(4, BARRIER);
    crowd.order(remove(CREW, 4));
    crowd.live(ms(2_000));
    assert_eq!((crowd.report().reachable, crowd.report().started), (3, 3));
    let told: BTreeSet<_> = crowd
        .to_terminals
        .iter()
        .map(|(_, number, _)| number.get())
        .collect();
    assert_eq!(told, BTreeSet::from([1, 2, 3]));
    assert_ne!(crowd.held(terminal(4)).0, crowd.key().0);
    crowd.forget_the_past();

    crowd.order(add(CREW, 4));
    // It holds nothing of the group: it was out of it.
    crowd.live(ms(2_000));
    let report = crowd.report();
    assert_eq!((report.state, report.started), (ChangeState::Finished, 4));
    all_send_with_the_new_key(&crowd);
    let called = |frame: &[u8]| {
        let read = Unverified::decode(frame).expect("ours");
        matches!(read.command().body, Body::Notify(_))
    };
    let called: BTreeSet<_> = crowd
        .to_terminals
        .iter()
        .filter(|(_, _, octets)| called(&frame_in(octets)))
        .map(|(_, number, _)| number.get())
        .collect();
    assert_eq!(called, BTreeSet::from([4]));
}

/// whichever single message is lost, and whichever two, the change ends, everybody sends
/// with the new key in time, and nobody is stopped for longer than the STOP holds.
#[test]
fn whichever_message_is_lost_the_change_ends() {
    for mode in ChangeMode::ALL {
        for order in [rekey(), renew()] {
            let mut crowd = Crowd::new(3, policy(mode, Stragglers::Follow));
            let first = crowd.posted();
            crowd.order(order.clone());
            crowd.live(ms(4_000));
            let count = crowd.posted() - first;
            assert!((9..200).contains(&count), "{mode:?} {order:?}: {count}");
            let pairs = (1..=count).flat_map(|a| (a..=count).map(move |b| (a, b)));
            // Of pairs, those that lie together, and some others.
            for (a, b) in pairs.filter(|(a, b)| b - a < 6 || (a * 31 + b) % 41 == 0) {
                let mut crowd = Crowd::new(3, policy(mode, Stragglers::Follow));
                crowd.loses = Box::new(move |n, _| n == first + a || n == first + b);
                crowd.order(order.clone());
                crowd.live(ms(13_000));
                let report = crowd.report();
                let what = format!("{mode:?} {order:?} without {a} and {b}");
                assert_eq!(report.state, ChangeState::Finished, "{what}");
                assert_eq!(report.silent().count(), 0, "{what}: {report:?}");
                for n in 1..=3 {
                    assert_eq!(crowd.sends(n), Some(crowd.key()), "{what}");
                    let quiet = crowd.unit(n).longest_quiet;
                    assert!(quiet < ms(2_000), "{what}: {quiet:?}");
                }
            }
        }
    }
}

/// A-21, `follow`: one that never answers is named with what it missed, holds the others up for
/// seconds at the most, and is not waited for again.
#[test]
fn stragglers_follow() {
    for (mode, patience) in [(ChangeMode::Barrier, 7_500), (ChangeMode::Hitless, 6_500)] {
        let mut crowd = Crowd::new(4, policy(mode, Stragglers::Follow));
        crowd.unit(3).on = false;
        crowd.order(rekey());
        crowd.live(ms(patience));
        for n in [1, 2, 4] {
            assert_eq!(crowd.sends(n), Some(crowd.key()), "{mode:?}");
        }
        // All others before the key's own time.
        let lead = Duration::from_secs(CHANGE_LEAD.into());
        assert!(ms(patience) < lead);
        crowd.live(ms(6_000));
        let report = crowd.report();
        assert_eq!(report.state, ChangeState::Finished);
        let straggler = Straggler {
            terminal: terminal(3),
            missed: Phase::Distributing,
            caught_up: false,
        };
        assert_eq!(report.stragglers, [straggler]);
        assert!(!report.left_out);
        assert_eq!((report.reachable, report.started), (4, 3));
        // It is not reachable until it is heard.
        crowd.forget_the_past();
        crowd.order(renew());
        crowd.live(ms(4_000));
        assert_eq!((crowd.report().reachable, crowd.report().started), (3, 3));
        crowd.unit(3).on = true;
        crowd.fetch(terminal(3));
        crowd.order(renew());
        crowd.live(ms(4_000));
        assert_eq!((crowd.report().reachable, crowd.report().started), (4, 4));
        all_send_with_the_new_key(&crowd);
    }
}

/// who hears STOP and no START resumes by itself, and is named late or silent by what it says.
#[test]
fn a_straggler_that_confirms_in_the_end_is_late_and_not_silent() {
    let mut crowd = Crowd::new(3, BARRIER);
    let late = terminal(2);
    // Its STOP-ACKs are lost.
    crowd.loses = Box::new(move |_, parcel| {
        let Parcel::ToServer(number, octets) = parcel else {
            return false;
        };
        *number == late && octets.get(7) == Some(&5)
    });
    crowd.order(rekey());
    crowd.live(ms(6_000));
    let report = crowd.report();
    assert_eq!((report.stopped, report.started), (2, 3));
    let straggler = Straggler {
        terminal: late,
        missed: Phase::Stopping,
        caught_up: true,
    };
    assert_eq!(report.stragglers, [straggler]);
    assert_eq!(report.silent().count(), 0);
    all_send_with_the_new_key(&crowd);
}

/// A-21, `wait`: START comes when the last has confirmed, and after an hour all the same.
#[test]
fn stragglers_are_waited_for_an_hour_at_the_most() {
    for (mode, order) in [
        (ChangeMode::Hitless, rekey()),
        (ChangeMode::Barrier, rekey()),
        (ChangeMode::Barrier, renew()),
    ] {
        let waits = policy(mode, Stragglers::Wait);
        let mut crowd = Crowd::new(3, waits);
        crowd.unit(3).on = false;
        crowd.order(order.clone());
        crowd.live(Duration::from_secs(600));
        assert!(!words(&crowd).contains(&"START"), "{mode:?}");
        assert_ne!(crowd.sends(1), Some(crowd.key()));
        crowd.unit(3).on = true;
        crowd.live(Duration::from_secs(15));
        assert_eq!(crowd.report().state, ChangeState::Finished, "{mode:?}");
        assert_eq!(crowd.report().stragglers, []);
        all_send_with_the_new_key(&crowd);

        let mut crowd = Crowd::new(3, waits);
        crowd.unit(3).on = false;
        crowd.order(order);
        crowd.live(Duration::from_secs(3_590));
        assert!(!words(&crowd).contains(&"START"));
        crowd.live(Duration::from_secs(30));
        let report = crowd.report();
        assert_eq!(report.state, ChangeState::Finished, "{mode:?}");
        assert_eq!(report.silent().collect::<Vec<_>>(), [terminal(3)]);
        for n in [1, 2] {
            assert_eq!(crowd.sends(n), Some(crowd.key()), "{mode:?}");
        }
    }
}

/// A-21, `leave-out`: one more fresh epoch, without the silent one, once; in the audit log.
#[test]
fn stragglers_are_left_out_once() {
    let mut crowd = Crowd::new(4, policy(ChangeMode::Barrier, Stragglers::LeaveOut));
    crowd.unit(3).on = false;
    crowd.order(rekey());
    let first = crowd.key();
    crowd.live(ms(13_000));
    let record = &crowd.desk.server.groups[&group(CREW)];
    assert!(!record.members.contains(&terminal(3)));
    assert!(
        crowd.key().0 > first.0,
        "it shares nothing with what the straggler may hold"
    );
    let audited = crowd
        .desk
        .audits
        .iter()
        .filter(|it| it.action == "left out");
    let audited: Vec<_> = audited.map(|it| (&*it.subject, &*it.outcome)).collect();
    let outcome = format!("terminals 3, epoch {} without them", crowd.key().0);
    assert_eq!(audited, [("crew", &*outcome)]);
    // The others change once more; one that is silent now is named only.
    crowd.unit(2).on = false;
    crowd.live(ms(15_000));
    let report = crowd.report();
    assert_eq!(
        (report.state, report.left_out),
        (ChangeState::Finished, false)
    );
    assert_eq!((report.epoch, report.generation), crowd.key());
    assert_eq!(report.reachable, 3);
    for n in [1, 4] {
        assert_eq!(crowd.sends(n), Some(crowd.key()));
    }
    let left_out = crowd
        .desk
        .audits
        .iter()
        .filter(|it| it.action == "left out");
    assert_eq!(left_out.count(), 1);
}

/// A server that is cut off leaves nobody out.
#[test]
fn where_nobody_answers_nobody_is_left_out() {
    let mut crowd = Crowd::new(3, policy(ChangeMode::Barrier, Stragglers::LeaveOut));
    crowd.loses = Box::new(|_, _| true);
    crowd.order(rekey());
    crowd.live(ms(15_000));
    assert_eq!(crowd.report().silent().count(), 3);
    assert_eq!(crowd.desk.server.groups[&group(CREW)].members.len(), 3);
}

/// who only hears moves by the key's own time, and with nobody who can answer there is no
/// change and no other lead.
#[test]
fn who_only_hears_moves_by_the_clock() {
    let mut crowd = Crowd::new(4, HITLESS);
    for n in [3, 4] {
        crowd.unit(n).hears = true;
        crowd.desk.server.peers.forget(terminal(n));
    }
    let begun = crowd.now();
    crowd.order(rekey());
    let lead = crowd.desk.server.groups[&group(CREW)].schedule.activate_at;
    assert_eq!(lead, crowd.desk.at.wall.plus(CHANGE_LEAD));
    crowd.live(ms(12_000));
    assert_eq!(crowd.report().reachable, 2);
    all_send_with_the_new_key(&crowd);
    for n in 1..=4 {
        let moved = crowd.moved_at(n).expect("it moved").since(begun);
        assert_eq!(moved < ms(1_000), n < 3, "{n} moved after {moved:?}");
        assert_eq!(crowd.unit(n).longest_quiet, Duration::ZERO, "{n}");
    }

    for n in [1, 2] {
        crowd.unit(n).hears = true;
        crowd.desk.server.peers.forget(terminal(n));
    }
    let before = crowd.report();
    crowd.order(rekey());
    let lead = crowd.desk.server.groups[&group(CREW)].schedule.activate_at;
    assert_eq!(lead, crowd.desk.at.wall.plus(ACTIVATION_LEAD));
    crowd.live(ms(4_000));
    assert_eq!(crowd.report(), before);
    all_send_with_the_new_key(&crowd);
}

/// A barrier holds for those that only hear, too: STOP and START are on the carousel.
#[test]
fn who_only_hears_stops_at_a_barrier_too() {
    let mut crowd = Crowd::new(3, BARRIER);
    crowd.unit(3).hears = true;
    crowd.desk.server.peers.forget(terminal(3));
    crowd.order(renew());
    crowd.live(ms(1_000));
    let heard: Vec<_> = crowd.on_air.iter().map(|(_, item, _)| *item).collect();
    assert!(heard.contains(&Item::Stop(group(CREW))) && heard.contains(&Item::Start(group(CREW))));
    let stopped = |event: &Event| matches!(event, Event::Stopped { .. });
    assert!(crowd.unit(3).events.iter().any(stopped));
    all_send_with_the_new_key(&crowd);
}

/// Of two changes in a row the newer wins, whatever the older is at; nobody stays stopped.
#[test]
fn of_two_changes_the_newer_wins() {
    for (first, second) in [
        (BARRIER, BARRIER),
        (BARRIER, HITLESS),
        (HITLESS, BARRIER),
        (policy(ChangeMode::Barrier, Stragglers::Wait), HITLESS),
    ] {
        for after in [0, 5, 10, 15, 20, 25, 30] {
            let mut crowd = Crowd::new(3, first);
            crowd.order(rekey());
            crowd.live(ms(after));
            let older = crowd.key();
            crowd.order(set(second));
            crowd.order(rekey());
            assert!(crowd.key() > older);
            crowd.live(ms(14_000));
            let report = crowd.report();
            let what = format!("{first:?} {second:?} after {after} ms: {report:?}");
            assert_eq!(report.state, ChangeState::Finished, "{what}");
            assert_eq!((report.epoch, report.generation), crowd.key(), "{what}");
            assert_eq!(report.silent().count(), 0, "{what}");
            all_send_with_the_new_key(&crowd);
        }
    }
}

/// R-007 in mid-change: nothing waits, nobody else stays stopped, and the thief is told nothing.
#[test]
fn an_exclusion_in_mid_change_waits_for_nobody() {
    for mode in ChangeMode::ALL {
        for after in [0, 5, 10, 15, 20, 25, 30] {
            let mut crowd = Crowd::new(4, policy(mode, Stragglers::Wait));
            crowd.order(rekey());
            crowd.live(ms(after));
            crowd.forget_the_past();
            crowd.order(exclude(&[4]));
            let activate_at = crowd.desk.server.groups[&group(CREW)].schedule.activate_at;
            assert!(activate_at <= crowd.desk.at.wall, "active at once, as ever");
            crowd.live(ms(1_000));
            let what = format!("{mode:?} after {after} ms");
            for n in 1..=3 {
                assert_eq!(crowd.sends(n), Some(crowd.key()), "{what}");
            }
            let report = crowd.report();
            assert_eq!(report.state, ChangeState::Finished, "{what}");
            assert_eq!((report.reachable, report.started), (3, 3), "{what}");
            assert!(!words(&crowd).contains(&"STOP"), "{what}");
            let to_thief = crowd
                .to_terminals
                .iter()
                .filter(|(_, it, _)| *it == terminal(4));
            assert_eq!(to_thief.count(), 0, "{what}");
            assert_ne!(crowd.held(terminal(4)), crowd.key());
        }
    }
}

/// A server that ends in the middle leaves nobody stopped: a STOP ends by itself, and the report
/// says what became of it.
#[test]
fn a_server_that_ends_in_the_middle_leaves_nobody_stopped() {
    for after in [0, 5, 10, 15, 20, 25] {
        let mut crowd = Crowd::new(3, BARRIER);
        crowd.order(rekey());
        let transaction = crowd.desk.server.sequence;
        crowd.live(ms(after));
        // Nothing comes from the new server.
        crowd.loses = Box::new(|_, _| true);
        crowd.restart();
        let what = format!("after {after} ms");
        let report = crowd.report();
        if report.state != ChangeState::Finished {
            assert_eq!(report.state, ChangeState::Interrupted, "{what}");
        }
        crowd.live(Duration::from_secs(12));
        for n in 1..=3 {
            let sends = crowd.sends(n);
            assert_eq!(sends, Some(crowd.held(terminal(n))), "{what}");
        }
        // The next change has a higher number than any before.
        crowd.loses = Box::new(|_, _| false);
        for n in 1..=3 {
            crowd.fetch(terminal(n));
        }
        crowd.order(rekey());
        crowd.live(ms(8_000));
        assert_eq!(crowd.report().state, ChangeState::Finished, "{what}");
        assert_eq!(crowd.report().started, 3, "{what}");
        all_send_with_the_new_key(&crowd);
        let of_last = crowd.confirmations(1).pop().expect("it confirmed");
        assert!(of_last.transaction > transaction, "{what}");
    }
}

/// The same under `wait`, where a STOP holds for an hour: the new server says START to all that
/// hear it, on the carousel or when they call.
#[test]
fn a_restarted_server_ends_the_stop_of_the_one_before() {
    let mut crowd = Crowd::new(4, policy(ChangeMode::Barrier, Stragglers::Wait));
    crowd.unit(2).hears = true;
    crowd.unit(4).on = false;
    crowd.order(renew());
    crowd.live(ms(5_000));
    assert_eq!((crowd.sends(1), crowd.sends(2)), (None, None));
    crowd.restart();
    assert_eq!(crowd.report().state, ChangeState::Interrupted);
    crowd.live(Duration::from_secs(20));
    assert_eq!(crowd.sends(2), Some(crowd.key()));
    assert_eq!(crowd.sends(1), None, "it hears nobody");
    crowd.fetch(terminal(1));
    crowd.live(ms(50));
    assert_eq!(crowd.sends(1), Some(crowd.key()));
}

/// G moves in the middle: STOP is signed anew for those that have not confirmed, for their
/// confirmations are under the new G then; the transaction stays.
#[test]
fn a_step_of_g_in_mid_change_stops_nothing() {
    let mut crowd = Crowd::new(3, BARRIER);
    crowd.unit(3).on = false;
    crowd.order(renew());
    crowd.live(ms(100));
    crowd.order(Order::RenewDevices);
    crowd.unit(3).on = true;
    crowd.live(ms(4_000));
    let report = crowd.report();
    assert_eq!((report.stopped, report.started), (3, 3));
    let numbers: BTreeSet<_> = (1..=3)
        .flat_map(|n| crowd.confirmations(n))
        .map(|it| it.transaction)
        .collect();
    assert_eq!(numbers.len(), 1);
    all_send_with_the_new_key(&crowd);
}

/// F-07's size: a thousand machines, all at once, and each confirmation counted once.
#[test]
fn a_thousand_members_change_in_two_round_trips() {
    let mut crowd = Crowd::new(1_000, BARRIER);
    crowd.order(renew());
    crowd.live(ms(200));
    let report = crowd.report();
    assert_eq!(report.state, ChangeState::Finished);
    let counts = [report.reachable, report.stopped, report.started];
    assert_eq!(counts, [1_000; 3]);
    assert_eq!(report.halted_for(), Some(ms(20)));
    assert_eq!(
        crowd.to_terminals.len(),
        2_000,
        "no more than one STOP and one START for each"
    );
    let counts = crowd.desk.server.confirmations();
    assert_eq!(
        (counts.taken, counts.repeated, counts.forged),
        (2_000, 0, 0)
    );
    all_send_with_the_new_key(&crowd);
    let kinds: BTreeSet<_> = crowd
        .confirmations(1)
        .iter()
        .map(|it| it.kind == HaltKind::Start)
        .collect();
    assert_eq!(kinds.len(), 2);
}

/// Who was enrolled and never heard is reached by the carousel alone.
#[test]
fn who_was_never_heard_is_not_waited_for() {
    let mut crowd = Crowd::new(2, BARRIER);
    crowd.desk.carry_out(add_terminal("t3")).expect("free");
    crowd.order(add(CREW, 3));
    crowd.live(ms(1_000));
    let report = crowd.report();
    assert_eq!((report.state, report.reachable), (ChangeState::Finished, 2));
    assert_eq!(crowd.key().1, Generation::ZERO.next());
    assert_ne!(crowd.key().0, KeyEpoch::new(0));
}
