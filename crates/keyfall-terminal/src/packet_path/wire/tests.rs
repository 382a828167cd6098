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

/// Where the port is taken for IPv6 alone, half of the peers would not be heard, and nobody told.
#[test]
fn only_a_system_without_ipv6_is_heard_by_ipv4_alone() {
    let other = Socket::new(Domain::IPV6, Type::DGRAM, None).expect("a socket");
    other.set_only_v6(true).expect("it can");
    let any: SocketAddr = (Ipv6Addr::UNSPECIFIED, 0).into();
    other.bind(&any.into()).expect("a port");
    let taken = UdpSocket::from(other);
    let port = taken.local_addr().expect("bound").port();
    let refused = Wire::open_everywhere(port, 1).expect_err("it is taken");
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    for (error, is_so) in [
        (Errno::AFNOSUPPORT, true),
        (Errno::ADDRNOTAVAIL, true),
        (Errno::MFILE, false),
    ] {
        assert_eq!(has_no_v6(&error.into()), is_so);
    }
}

/// Each socket would get a datagram to many: it comes once, where the program has joined.
#[test]
fn multicast_comes_to_the_first_socket_alone() {
    let v4: IpAddr = [239, 255, 77, 7].into();
    for listens in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
        assert_eq!(
            heard_of_group(listens, v4, 0).expect("by loopback"),
            [5, 0, 0]
        );
    }
    // Of a scope that never leaves the host. The loopback has no multicast of IPv6; in a machine without
    // any, only the end-to-end test shows it.
    let v6 = "ff11::77:7".parse().expect("a group");
    let interfaces = std::fs::read_dir("/sys/class/net").expect("it is Linux");
    let interfaces = interfaces.map(|it| it.expect("an interface").path().join("ifindex"));
    let interfaces =
        interfaces.filter_map(|it| std::fs::read_to_string(it).ok()?.trim().parse().ok());
    let heard: Vec<_> = interfaces
        .filter_map(|it| heard_of_group(Ipv6Addr::UNSPECIFIED.into(), v6, it).ok())
        .collect();
    assert!(heard.iter().all(|it| *it == [5, 0, 0]), "{heard:?}");
}

/// How much each of three sockets hears of five datagrams to a group that the program has joined by that
/// interface.
fn heard_of_group(listens: IpAddr, group: IpAddr, interface: u32) -> io::Result<Vec<usize>> {
    let wires = Wire::open_several((listens, 0).into(), 3)?;
    let port = wires[0].local_address()?.port();
    let speaker;
    let joined;
    match group {
        IpAddr::V4(group) => {
            joined = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            joined.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST)?;
            speaker = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            speaker.set_multicast_if_v4(&Ipv4Addr::LOCALHOST)?;
        }
        IpAddr::V6(group) => {
            joined = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
            joined.join_multicast_v6(&group, interface)?;
            speaker = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
            speaker.set_multicast_if_v6(interface)?;
        }
    }
    for _ in 0..5 {
        speaker.send_to(&[1; 40], &SocketAddr::new(group, port).into())?;
    }
    let counts = heard(&wires).into_iter().map(|it| it.values().sum());
    Ok(counts.collect())
}
