//! Several sockets on one address.

use std::collections::HashMap;

use super::*;

/// What has come to each, by where it came from.
fn heard(wires: &[Wire]) -> Vec<HashMap<SocketAddr, usize>> {
    let heard = wires.iter().map(|wire| {
        let (mut heard, mut arrivals) = (HashMap::new(), Arrivals::default());
        while wire.receive(&mut arrivals).is_ok() {
            for (origin, _) in arrivals.datagrams() {
                *heard.entry(origin.from).or_insert(0) += 1;
            }
        }
        heard
    });
    heard.collect()
}

/// the packets of a flow stay in their order, and one thread has not all to do.
#[test]
fn each_peer_comes_to_one_socket_and_all_sockets_are_used() {
    for (listens, loopback) in [
        (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 1])),
        (Ipv6Addr::UNSPECIFIED.into(), [127, 0, 0, 1].into()),
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()),
    ] {
        let wires = Wire::open_several((listens, 0).into(), 3).expect("sockets");
        let to = wires.first().map(Wire::local_address);
        let to = SocketAddr::new(loopback, to.expect("three").expect("bound").port());
        let peers: Vec<_> = (0..100)
            .map(|_| UdpSocket::bind((loopback, 0)).expect("a socket"))
            .collect();
        for _ in 0..3 {
            for peer in &peers {
                peer.send_to(&[1; 40], to).expect("it goes");
            }
        }
        let heard = heard(&wires);
        assert!(heard.iter().all(|it| it.len() > 5), "{heard:?}");
        assert!(heard.iter().flat_map(HashMap::values).all(|&it| it == 3));
        assert_eq!(heard.iter().map(HashMap::len).sum::<usize>(), 100);
    }
}

/// A port that somebody else has is an error, also where he would share it.
#[test]
fn a_port_that_is_taken_is_not_shared() {
    let other = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    other.set_reuse_port(true).expect("it can");
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    other.bind(&any.into()).expect("a port");
    let taken = UdpSocket::from(other);
    let taken_at = taken.local_addr().expect("bound");
    for count in [1, 3] {
        let refused = Wire::open_several(taken_at, count).expect_err("it is taken");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }
}

/// Each socket would get a datagram to many: it comes once, where the program has joined.
#[test]
fn multicast_comes_to_the_first_socket_alone() {
    let group = Ipv4Addr::new(239, 255, 77, 7);
    let wires = Wire::open_several((Ipv4Addr::UNSPECIFIED, 0).into(), 3).expect("sockets");
    let to = wires.first().map(Wire::local_address);
    let port = to.expect("three").expect("bound").port();
    let joined = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    joined
        .join_multicast_v4(&group, &Ipv4Addr::LOCALHOST)
        .expect("loopback");
    let speaker = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    speaker
        .set_multicast_if_v4(&Ipv4Addr::LOCALHOST)
        .expect("loopback");
    for _ in 0..5 {
        let to: SocketAddr = (group, port).into();
        speaker.send_to(&[1; 40], &to.into()).expect("it goes");
    }
    let counts = heard(&wires).into_iter().map(|it| it.values().sum());
    assert_eq!(counts.collect::<Vec<usize>>(), [5, 0, 0]);
}
