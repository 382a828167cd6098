//! What the driver decides without a thread of packets.

use keyfall_plane::Spi;
use keyfall_protocol::ids::UnixSeconds;
use keyfall_protocol::keys::{MasterKey, Secret};

use super::*;
use crate::packet_path::inner::Inner;

#[test]
fn a_thread_that_panics_is_told_of_like_one_that_fails() {
    let (asks, mut inbox) = mpsc::channel(4);
    say_why(|| panic!("a defect"), "sends", &asks);
    say_why(|| Err(io::Error::other("no room")), "receives", &asks);
    say_why(|| Ok(()), "receives", &asks);
    let mut next = || match inbox.try_recv() {
        Ok(Ask::Ended { sentence }) => Some(sentence),
        _ => None,
    };
    let said = next().expect("the panic");
    assert!(said.starts_with("the thread that sends packets has ended"));
    assert!(next().expect("the failure").ends_with("no room"));
    assert_eq!(next(), None);
}

/// a restarted terminal waits for a beacon and for its first session, and meanwhile refuses: what
/// it could not say does not put off what it can.
#[test]
fn a_refusal_that_cannot_be_said_yet_is_not_counted_as_said() {
    let (now, mut answered) = (Instant::now(), Answered::default());
    let name = SessionName {
        spi: Spi::new(TerminalNumber::MAX, 0),
        session: EspSession::new([1; 5]),
    };
    let refused = (name, IpAddr::from([192, 0, 2, 2]));
    let mut sending = Sending::default();
    for told in [
        Told::Nothing,
        Told::Hold,
        Told::Refuse(DropReason::NoRecord),
    ] {
        sending.tell(Lane::FIRST, told);
        assert!(!is_answered(Some(&sending), &mut answered, refused, now));
    }
    assert!(!is_answered(None, &mut answered, refused, now));
    let key = Told::Key(KeyEpoch::new(1), Generation::ZERO, EspSuite::default());
    sending.tell(Lane::FIRST, key);
    assert!(is_answered(Some(&sending), &mut answered, refused, now));
}

/// KR-564: who stands between two others feeds a third the packets and the dummy packets of each: no session
/// begins by what is for somebody else.
#[test]
fn what_is_for_another_terminal_begins_no_session() {
    let [own, other] = [1, 2].map(|it| TerminalNumber::new(it).expect("not 0"));
    let record = ProtectionRecord {
        terminal: own,
        version: 1,
        issued_at: UnixSeconds::new(0),
        not_after: UnixSeconds::new(u32::MAX),
        prefixes: vec!["10.1.0.0/16".parse().expect("a prefix")],
        endpoints: Vec::new(),
        groups: Vec::new(),
    };
    let packet = |destination: [u8; 4]| {
        Text::Packet(Inner {
            source: IpAddr::from([10, 2, 0, 9]),
            destination: IpAddr::from(destination),
            length: 20,
        })
    };
    let of = |text| is_for(own, Some(&record), text);
    assert!(of(Text::Place(own)) && !of(Text::Place(other)));
    assert!(of(packet([10, 1, 0, 5])) && !of(packet([10, 3, 0, 5])));
    assert!(of(packet([239, 1, 2, 3])) && of(Text::Nothing));
    assert!(!is_for(own, None, packet([10, 1, 0, 5])));
}

/// A mark is stored every two seconds for each session: one that only rises takes none of the locks that
/// sessions begin under.
#[test]
fn stored_marks_order_no_more_than_they_change() {
    let group = GroupNumber::new(1).expect("not 0");
    let name = SessionName {
        spi: Spi::new(TerminalNumber::MAX, 0),
        session: EspSession::new([1; 5]),
    };
    let orders = |settled| settled_orders(group, settled, |_| None);
    assert_eq!(orders(Settled::default()).len(), 0);
    let settled = Settled {
        raised: vec![(name, 7)],
        ..Settled::default()
    };
    let raised = orders(settled);
    assert!(matches!(&raised[..], [ToIngress::Marked(marks)] if *marks == [(name, 7)]));
    let settled = Settled {
        refused: vec![name],
        ..Settled::default()
    };
    let refused = orders(settled);
    assert!(matches!(
        &refused[..],
        [ToIngress::Unknown { .. }, ToIngress::Forget(names)] if *names == [name]
    ));
    let secret = Secret::init_with(|into| into.fill(5));
    let key = MasterKey::new(group, KeyEpoch::new(1), Generation::ZERO, secret);
    let (sender, session) = (name.spi.sender(), name.session);
    let receiver = EspReceiver::new(EspSuite::default(), &key, sender, session);
    let settled = Settled {
        begun: vec![(name, (receiver, 0), 64)],
        ..Settled::default()
    };
    let begun = orders(settled);
    assert!(matches!(&begun[..], [ToIngress::Known(known)] if known[0].mark == 64));
}
