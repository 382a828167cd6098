//! What is delivered of packets that opened.

use keyfall_plane::{ESP_PLACE_LEN, EspRefused, EspSender, Spi};
use keyfall_protocol::command::RecordGroup;
use keyfall_protocol::ids::{EspSession, Generation, KeyEpoch, TerminalNumber, UnixSeconds};
use keyfall_protocol::keys::{EspSuite, MasterKey, Secret};

use super::*;

fn group_of(number: u32) -> GroupNumber {
    GroupNumber::new(number).expect("not 0")
}

/// Terminal n speaks for 10.n.0.0/16; the first group is better than the second.
fn record_of(number: u32, groups: &[u32]) -> ProtectionRecord {
    ProtectionRecord {
        terminal: TerminalNumber::new(number).expect("not 0"),
        version: 1,
        issued_at: UnixSeconds::new(0),
        not_after: UnixSeconds::new(u32::MAX),
        prefixes: vec![format!("10.{number}.0.0/16").parse().expect("a prefix")],
        endpoints: Vec::new(),
        groups: groups
            .iter()
            .map(|&group| RecordGroup {
                group: group_of(group),
                priority: if group == 1 { 10 } else { 0 },
                mtu: None,
                suite: EspSuite::default(),
                networks: Vec::new(),
            })
            .collect(),
    }
}

fn key_of(group: u32) -> MasterKey {
    let secret = Secret::init_with(|into| into.fill(7));
    MasterKey::new(group_of(group), KeyEpoch::new(7), Generation::ZERO, secret)
}

/// A session that says that terminal 2 sends it.
fn session_in(group: u32) -> Session {
    let key = key_of(group);
    let sender = TerminalNumber::new(2).expect("not 0");
    let session = EspSession::new([0; 5]);
    let now = Instant::now();
    let receiver = EspReceiver::new(EspSuite::default(), &key, sender, session);
    let ahead = Ahead::new(0, 0, 0, now);
    let records = Records {
        own: Some(Arc::new(record_of(1, &[1, 2]))),
        theirs: Some(Arc::new(record_of(2, &[1, 2]))),
    };
    let opened = Waiting::new(1 << 20, Duration::from_secs(5));
    let group = group_of(group);
    Session::new(group, (receiver, ahead), records, opened, None, now)
}

fn packet(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let head = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0];
    [&head[..], &source, &destination].concat()
}

/// KR-531: whoever has the key of a lesser group does not get packets through as a member of a
/// better one; what was judged once is judged anew with another record.
#[test]
fn a_session_under_another_group_than_the_rule_gives_delivers_nothing() {
    let from = SocketAddr::from(([192, 0, 2, 2], 4500));
    let packet = packet([10, 2, 0, 9], [10, 1, 0, 5]);
    let mut session = session_in(2);
    let judged = judge(&mut session, from, &packet);
    assert_eq!(judged, Err(DropReason::OtherGroup));
    let mut session = session_in(1);
    let news = judge(&mut session, from, &packet).expect("delivered");
    session.told.extend(news);
    for last in [session.last, None] {
        session.last = last;
        let judged = judge(&mut session, from, &packet);
        assert_eq!(judged, Ok(None), "it was told");
    }
    session.records.theirs = Some(Arc::new(record_of(2, &[2])));
    session.judge_anew();
    let judged = judge(&mut session, from, &packet);
    assert_eq!(judged, Err(DropReason::NotInRecord));
    session.records.theirs = None;
    let judged = judge(&mut session, from, &packet);
    assert_eq!(judged, Err(DropReason::UnknownPeer));
}

/// A packet that fits no record makes the driver search, and not again for each that follows.
#[test]
fn a_session_that_fits_no_record_is_told_of_twice_a_minute() {
    let mut session = session_in(2);
    let now = Instant::now();
    let told = (0..60u64).filter(|&n| session.may_doubt(now + Duration::from_secs(n)));
    assert_eq!(told.count(), 2);
}

/// KR-567: a member says without end that it refuses; the driver hears it once a second.
#[test]
fn what_a_member_refuses_is_told_once_a_second() {
    let mut session = session_in(2);
    let now = Instant::now();
    let told = (0..3_000u64).filter(|&n| session.may_refuse(now + Duration::from_millis(n)));
    assert_eq!(told.count(), 3);
}

/// where a peer was heard counts for five minutes; the driver was told of it once, and a terminal
/// that only receives forgot a peer whose packets came all the time. It is told each minute, also
/// after a pause.
#[test]
fn a_peer_that_goes_on_sending_is_told_of_each_minute() {
    let from = SocketAddr::from(([192, 0, 2, 2], 4500));
    let packet = packet([10, 2, 0, 9], [10, 1, 0, 5]);
    let mut session = session_in(1);
    let start = session.told_since;
    let mut told = Vec::new();
    for second in (0..150).chain(181..200) {
        let now = start + Duration::from_secs(second);
        session.on_second(now);
        session.heard = now;
        session.resting = false;
        if let Some(news) = judge(&mut session, from, &packet).expect("delivered") {
            session.told.push(news);
            told.push(second);
        }
    }
    assert_eq!(told, [0, 60, 120, 181]);
}

/// KR-564: who has the key of a lesser group must not move the peers of a better one by packets that
/// name no addresses; a session that delivered may, up to its mark, and each place is told once.
#[test]
fn a_dummy_packet_moves_only_whom_packets_were_heard_of() {
    let [here, there] = [2, 3].map(|last| SocketAddr::from(([192, 0, 2, last], 4500)));
    let packet = packet([10, 2, 0, 9], [10, 1, 0, 5]);
    let ends = ([10, 2, 0, 9].into(), [10, 1, 0, 5].into());
    let now = Instant::now();
    let place = |sequence: u32| {
        let spi = Spi::new(TerminalNumber::new(2).expect("not 0"), 0);
        let [_, low @ ..] = sequence.to_be_bytes();
        [
            &spi.get().to_be_bytes()[..],
            &sequence.to_be_bytes(),
            &[0; 5],
            &low,
            &[0; 20],
        ]
        .concat()
    };
    let mut lesser = session_in(2);
    lesser.ahead = Ahead::new(10, 0, 0, now);
    assert!(judge(&mut lesser, here, &packet).is_err());
    let stands_at = |session: &Session, number, from| session.stands_at(&place(number), from);
    assert_eq!(stands_at(&lesser, 2, there), None);
    let mut session = session_in(1);
    session.ahead = Ahead::new(10, 0, 0, now);
    assert_eq!(stands_at(&session, 1, there), None, "nothing was judged");
    let news = judge(&mut session, here, &packet).expect("delivered");
    session.told.extend(news);
    assert_eq!(stands_at(&session, 3, here), None, "it is known there");
    assert_eq!(stands_at(&session, 11, there), None, "above the mark");
    let moved = Some((ends, there));
    assert_eq!(stands_at(&session, 4, there), moved);
    session.records.theirs = Some(Arc::new(record_of(2, &[2])));
    session.judge_anew();
    assert_eq!(stands_at(&session, 5, there), None, "another record");
    // One that says the same, as the server signs it every few days.
    session.records.theirs = Some(Arc::new(record_of(2, &[1, 2])));
    session.judge_anew();
    assert_eq!(stands_at(&session, 6, there), moved);
}

/// a terminal that sent much to others says to a peer by dummy packets that it moved. The first is
/// above the mark of its session and lets a higher one be stored, so that the second counts. KR-564: one
/// that is for another peer moves nobody, whoever copied it on its way.
#[test]
fn a_dummy_packet_moves_its_sender_only_at_whom_it_names() {
    let mut session = session_in(1);
    let now = Instant::now();
    session.ahead = Ahead::new(64, 0, 0, now);
    let [from, there] = [2, 3].map(|last| SocketAddr::from(([192, 0, 2, last], 4500)));
    let packet = packet([10, 2, 0, 9], [10, 1, 0, 5]);
    let ends = ([10, 2, 0, 9].into(), [10, 1, 0, 5].into());
    judge(&mut session, from, &packet).expect("delivered");
    let (key, sender, number) = (key_of(1), TerminalNumber::new(2), EspSession::new([0; 5]));
    let sender = sender.expect("not 0");
    let name = SessionName {
        spi: Spi::new(sender, key.esp_tag()),
        session: number,
    };
    let mut sending = EspSender::new(EspSuite::default(), &key, sender, number);
    for _ in 0..10_000 {
        let sealed = sending.seal_place(sender, &mut [0; ESP_PLACE_LEN]);
        sealed.expect("there is room");
    }
    let mut say = |session: &mut Session, owed: &mut Vec<Ask>, to: u32| {
        let to = TerminalNumber::new(to).expect("not 0");
        let mut sealed = [0; ESP_PLACE_LEN];
        sending.seal_place(to, &mut sealed).expect("there is room");
        let opened = session.receiver.open_into(&sealed, &mut [0; 64]);
        assert_eq!(opened, Err(EspRefused::Place(to)));
        session.on_place(name, (to, &sealed), (there, now), owed)
    };
    let mut owed = Vec::new();
    let refused = say(&mut session, &mut owed, 3);
    assert_eq!(refused, Err(DropReason::NotForUs));
    assert_eq!(say(&mut session, &mut owed, 1), Ok(None));
    let [Ask::Mark { mark, .. }] = owed[..] else {
        panic!("no mark is asked for");
    };
    session.ahead.stored(mark);
    let refused = say(&mut session, &mut owed, 3);
    assert_eq!(refused, Err(DropReason::NotForUs));
    let moved = say(&mut session, &mut owed, 1);
    assert_eq!(moved, Ok(Some((ends, there))));
}
