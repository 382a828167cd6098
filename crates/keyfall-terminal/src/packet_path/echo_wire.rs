//! The sockets of key search by ICMP echo: ears that see echoes as they come by an interface, whoever
//! they are for, and mouths that send whole packets.
//!
//! An ear is a packet socket behind a filter of the kernel: what is for a protected host is seen before
//! the gateway's rules drop it, and nothing else of the traffic is copied.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::ReadBuf;

use crate::packet_path::echo::{
    Echo, EchoName, ICMP, ICMP_V6, REPLY, REPLY_V6, REQUEST, REQUEST_V6,
};
use crate::packet_path::wire::mark;

/// All sockets of one packet path.
#[derive(Debug)]
pub(crate) struct EchoWire {
    ears: Ears,
    mouth: Socket,
    /// `None`: this system has no IPv6.
    mouth_v6: Option<Socket>,
}

#[derive(Debug)]
struct Ears {
    ears: Vec<Ear>,
    /// Whose turn it is: a flood at one leaves the others theirs.
    next: usize,
    buffer: Box<[u8]>,
}

#[derive(Debug)]
struct Ear {
    socket: tokio::net::UdpSocket,
    side: Side,
}

/// Whose echoes are heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// Searches, and answers to own ones.
    Outside,
    /// Replies of hosts to what was planted.
    Inside,
}

/// By which interfaces packets come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    Only(u32),
    AllBut(u32),
}

impl EchoWire {
    /// `inside`: where unmodified hosts are, on a gateway.
    ///
    /// # Errors
    /// What the system says: it takes CAP_NET_RAW.
    pub(crate) fn open(outside: By, inside: Option<u32>) -> io::Result<Self> {
        let mut ears = Vec::new();
        let mouth_v6 = mouth(Domain::IPV6).ok();
        for v6 in [false, true]
            .into_iter()
            .take(1 + usize::from(mouth_v6.is_some()))
        {
            ears.push(ear(Side::Outside, outside, v6)?);
            if let Some(inside) = inside {
                ears.push(ear(Side::Inside, By::Only(inside), v6)?);
            }
        }
        Ok(Self {
            ears: Ears::new(ears),
            mouth: mouth(Domain::IPV4)?,
            mouth_v6,
        })
    }

    /// The next packet, and by which side it came.
    pub(crate) async fn heard(&mut self) -> (Side, Vec<u8>) {
        poll_fn(|context| self.ears.poll_heard(context)).await
    }

    /// A probe leaves towards `to` as the payload of an echo request.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn ask(&self, to: IpAddr, (id, seq): (u16, u16), probe: &[u8]) -> io::Result<()> {
        let name = EchoName {
            asker: source_towards(to)?,
            asked: to,
            id,
            seq,
        };
        let request = Echo {
            is_request: true,
            name,
            payload: probe,
        };
        let packet = request.write().ok_or(ErrorKind::InvalidInput)?;
        self.send(&packet)
    }

    /// Sends a whole packet, whatever its source says.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<()> {
        let echo = Echo::read(packet).ok_or(ErrorKind::InvalidInput)?;
        let to = if echo.is_request {
            echo.name.asked
        } else {
            echo.name.asker
        };
        let mouth = match to {
            IpAddr::V4(_) => &self.mouth,
            IpAddr::V6(_) => self.mouth_v6.as_ref().ok_or(ErrorKind::Unsupported)?,
        };
        mouth
            .send_to(packet, &SocketAddr::new(to, 0).into())
            .map(drop)
    }
}

impl Ears {
    fn new(ears: Vec<Ear>) -> Self {
        Self {
            ears,
            next: 0,
            buffer: vec![0; LONGEST].into(),
        }
    }

    fn poll_heard(&mut self, context: &mut Context<'_>) -> Poll<(Side, Vec<u8>)> {
        let count = self.ears.len();
        for at in (self.next..self.next + count).map(|turn| turn % count) {
            let ear = &self.ears[at];
            let mut buffer = ReadBuf::new(&mut self.buffer);
            match ear.socket.poll_recv(context, &mut buffer) {
                Poll::Ready(Ok(())) => {
                    self.next = at + 1;
                    return Poll::Ready((ear.side, buffer.filled().to_vec()));
                }
                // An interface that went down; packets come again when it is up.
                Poll::Ready(Err(_)) => context.waker().wake_by_ref(),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }
}

fn ear(side: Side, by: By, v6: bool) -> io::Result<Ear> {
    let kind = i32::from(if v6 { ETH_P_IPV6 } else { ETH_P_IP }.to_be());
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(kind)))?;
    let filter = filter(side, by, v6)
        .map(|(code, yes, no, operand)| SockFilter::new(code, yes, no, operand));
    socket.attach_filter(&filter.collect::<Vec<_>>())?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_nonblocking(true)?;
    // SECURITY: what came before the filter was there came by any interface (KR-571).
    let socket = UdpSocket::from(socket);
    let mut octet = [0];
    while socket.recv(&mut octet).is_ok() {}
    Ok(Ear {
        socket: tokio::net::UdpSocket::from_std(socket)?,
        side,
    })
}

/// Echoes that begin with the non-ESP marker and came by these interfaces: all from outside, from inside
/// replies alone.
fn filter(side: Side, by: By, v6: bool) -> impl Iterator<Item = (u16, u8, u8, u32)> {
    let mut rows: Vec<Row> = vec![(LOAD_WORD, INTERFACE, Else::Goes)];
    rows.push(match by {
        By::Only(index) => (EQUALS, index, Else::Drop),
        By::AllBut(index) => (EQUALS, index, Else::DropIfSo),
    });
    let (request, reply) = if v6 {
        (REQUEST_V6, REPLY_V6)
    } else {
        (REQUEST, REPLY)
    };
    if v6 {
        rows.push((LOAD_OCTET, 6, Else::Goes));
        rows.push((EQUALS, ICMP_V6.into(), Else::Drop));
        rows.push((LOAD_OCTET, 40, Else::Goes));
    } else {
        rows.push((LOAD_OCTET, 9, Else::Goes));
        rows.push((EQUALS, ICMP.into(), Else::Drop));
        rows.push((LOAD_HALF, 6, Else::Goes));
        rows.push((HAS_BITS, 0x3fff, Else::DropIfSo));
        rows.push((LOAD_OCTET, 0, Else::Goes));
        rows.push((EQUALS, 0x45, Else::Drop));
        rows.push((LOAD_OCTET, 20, Else::Goes));
    }
    if side == Side::Outside {
        rows.push((EQUALS, request.into(), Else::NextButOne));
    }
    rows.push((EQUALS, reply.into(), Else::Drop));
    rows.push((LOAD_WORD, if v6 { 48 } else { 28 }, Else::Goes));
    rows.push((EQUALS, 0, Else::Drop));
    let last = rows.len();
    let instructions = rows.into_iter().enumerate().map(move |(at, row)| {
        // Over the rows between, and the one that takes the packet.
        let drop = u8::try_from(last - at).expect("a short filter");
        let (yes, no) = match row.2 {
            Else::Goes => (0, 0),
            Else::Drop => (0, drop),
            Else::DropIfSo => (drop, 0),
            Else::NextButOne => (1, 0),
        };
        (row.0, yes, no, row.1)
    });
    let ends = [u32::from(u16::MAX), 0].map(|octets| (RETURN, 0, 0, octets));
    instructions.chain(ends)
}

/// One instruction of a filter: code, operand, and what happens after a comparison.
type Row = (u16, u32, Else);

#[derive(Clone, Copy)]
enum Else {
    /// It compares nothing.
    Goes,
    /// Where it is not so, the packet is not heard.
    Drop,
    /// Where it is so, the packet is not heard.
    DropIfSo,
    /// Where it is so, the next row is left out.
    NextButOne,
}

fn mouth(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?;
    mark(&socket);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The address that this machine has towards `to`, outside of the tunnel.
fn source_towards(to: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    mark(&socket);
    socket.connect((to, DISCARD))?;
    Ok(socket.local_addr()?.ip())
}

/// linux/if_ether.h.
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// IPPROTO_RAW: packets bring their own headers.
const RAW: i32 = 255;
/// RFC 863; nothing is sent there.
const DISCARD: u16 = 9;
/// linux/bpf_common.h and linux/filter.h: classic BPF.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_OCTET: u16 = 0x30;
const EQUALS: u16 = 0x15;
const HAS_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;
/// SKF_AD_OFF + SKF_AD_IFINDEX: the interface that a packet came by.
const INTERFACE: u32 = 0xffff_f008;
/// Octets of packets that wait in the kernel.
const BUFFER: usize = 256 << 10;
const LONGEST: usize = 65_536;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const OUTSIDE: u32 = 3;
    const ELSEWHERE: u32 = 9;

    /// Whether the kernel would hand it to the ear, by its rules for classic BPF.
    fn hears(ear: (Side, By, bool), interface: u32, packet: &[u8]) -> bool {
        let program: Vec<_> = filter(ear.0, ear.1, ear.2).collect();
        let load = |at: u32, length: usize| {
            let at = at as usize;
            let octets = packet.get(at..at + length)?;
            Some(octets.iter().fold(0, |all, &it| all << 8 | u32::from(it)))
        };
        let (mut held, mut at) = (0, 0);
        loop {
            let (code, yes, no, operand) = program[at];
            at += 1;
            let jump = |so: bool| usize::from(if so { yes } else { no });
            // What reaches beyond the packet ends the program.
            let loaded = match code {
                LOAD_WORD if operand == INTERFACE => Some(interface),
                LOAD_WORD => load(operand, 4),
                LOAD_HALF => load(operand, 2),
                LOAD_OCTET => load(operand, 1),
                EQUALS => {
                    at += jump(held == operand);
                    continue;
                }
                HAS_BITS => {
                    at += jump(held & operand != 0);
                    continue;
                }
                _ => return operand > 0,
            };
            let Some(loaded) = loaded else {
                return false;
            };
            held = loaded;
        }
    }

    fn packet(is_request: bool, v6: bool, payload: &[u8]) -> Vec<u8> {
        let (asker, asked) = if v6 {
            ("2001:db8::1", "fd10:2::7")
        } else {
            ("192.0.2.1", "10.10.2.7")
        };
        let name = EchoName {
            asker: asker.parse().unwrap(),
            asked: asked.parse().unwrap(),
            id: 7,
            seq: 1,
        };
        let echo = Echo {
            is_request,
            name,
            payload,
        };
        echo.write().unwrap()
    }

    /// W-21: who floods one ear does not make the others deaf.
    #[tokio::test]
    async fn a_flood_at_one_ear_leaves_the_others_their_turn() {
        let sockets = [Side::Outside, Side::Inside].map(|side| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            (side, socket)
        });
        let mouth = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let places = sockets
            .each_ref()
            .map(|(_, socket)| socket.local_addr().unwrap());
        for _ in 0..20 {
            mouth.send_to(b"flood", places[0]).unwrap();
        }
        mouth.send_to(b"reply", places[1]).unwrap();
        let ears = sockets.map(|(side, socket)| Ear {
            socket: tokio::net::UdpSocket::from_std(socket).unwrap(),
            side,
        });
        for ear in &ears {
            ear.socket.readable().await.unwrap();
        }
        let mut ears = Ears::new(ears.into());
        let mut heard = Vec::new();
        for _ in 0..3 {
            heard.push(poll_fn(|context| ears.poll_heard(context)).await.0);
        }
        assert_eq!(heard, [Side::Outside, Side::Inside, Side::Outside]);
    }

    /// KR-571.
    #[test]
    fn probes_are_heard_from_outside_alone() {
        for v6 in [false, true] {
            let request = packet(true, v6, b"\0\0\0\0probe");
            let reply = packet(false, v6, b"\0\0\0\0answer");
            let ping = packet(true, v6, &[8; 56]);
            let outside = (Side::Outside, By::Only(OUTSIDE), v6);
            assert!(hears(outside, OUTSIDE, &request) && hears(outside, OUTSIDE, &reply));
            assert!(!hears(outside, ELSEWHERE, &request) && !hears(outside, ELSEWHERE, &reply));
            assert!(!hears(outside, OUTSIDE, &ping), "somebody's ping");
            let inside = (Side::Inside, By::Only(OUTSIDE), v6);
            assert!(!hears(inside, OUTSIDE, &request), "a probe from inside");
            assert!(hears(inside, OUTSIDE, &reply));
            let host = (Side::Outside, By::AllBut(ELSEWHERE), v6);
            assert!(hears(host, OUTSIDE, &request) && !hears(host, ELSEWHERE, &request));
            for length in 0..request.len() - 6 {
                assert!(!hears(outside, OUTSIDE, &request[..length]), "{length}");
            }
        }
        let mut fragment = packet(true, false, b"\0\0\0\0probe");
        fragment[6] = 0x20;
        assert!(!hears(
            (Side::Outside, By::Only(OUTSIDE), false),
            OUTSIDE,
            &fragment
        ));
        let mut datagram = packet(true, false, b"\0\0\0\0probe");
        datagram[9] = 17;
        assert!(!hears(
            (Side::Outside, By::Only(OUTSIDE), false),
            OUTSIDE,
            &datagram
        ));
    }
}
