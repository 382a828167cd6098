//! Where relays listen and send: addresses as people write them, and the sockets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use keyfall_api::control::{ControlError, Refusal};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::media_relay::refused;

/// Which interface multicast goes by where the request names none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interfaces {
    /// The one by which the first carrier is heard.
    pub(crate) of_carrier: Option<Ipv4Addr>,
}

impl Interfaces {
    /// The interface that was asked for, or the carrier's.
    pub(super) fn choose(&self, asked: Option<&str>) -> Result<Option<Ipv4Addr>, ControlError> {
        let Some(asked) = asked else {
            return Ok(self.of_carrier);
        };
        let address: Option<Ipv4Addr> = asked.parse().ok();
        let named = |address: &Ipv4Addr| {
            !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()
        };
        let address = address.filter(named).ok_or_else(|| {
            let sentence = format!(
                "{asked:?} is not the IPv4 address of an interface: write it as in --if 127.0.0.1"
            );
            refused(Refusal::BadRequest, sentence)
        })?;
        Ok(Some(address))
    }
}

/// An RTP port and the RTCP port after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) rtp: SocketAddrV4,
    pub(super) rtcp: SocketAddrV4,
}

impl Place {
    /// Reads `address:port`; `what` is the argument it stands for.
    pub(super) fn parse(text: &str, what: &str) -> Result<Self, ControlError> {
        let rtp = text.parse::<SocketAddrV4>().map_err(|_| {
            let sentence = format!(
                "{text:?} is not an IPv4 address and port: write {what} as in {what} 127.0.0.1:5004"
            );
            refused(Refusal::BadRequest, sentence)
        })?;
        let next = rtp.port().checked_add(1).filter(|_| rtp.port() != 0);
        let next = next.ok_or_else(|| {
            let sentence = format!(
                "port {} of {what} leaves none for RTCP after it: write one from 1 to 65534",
                rtp.port()
            );
            refused(Refusal::BadRequest, sentence)
        })?;
        Ok(Self {
            rtp,
            rtcp: SocketAddrV4::new(*rtp.ip(), next),
        })
    }

    pub(super) fn is_multicast(&self) -> bool {
        self.rtp.ip().is_multicast()
    }

    /// Two sockets that listen there: bound to the group where it is one, joined on `interface`.
    pub(super) fn listen(
        &self,
        interface: Option<Ipv4Addr>,
    ) -> Result<(UdpSocket, UdpSocket), ControlError> {
        let open = |address: SocketAddrV4| {
            let opened = if self.is_multicast() {
                let interface = interface.ok_or_else(no_interface)?;
                joined(address, interface)
            } else {
                bound(address)
            };
            opened.map_err(|error| cannot_listen(address, interface, &error))
        };
        Ok((open(self.rtp)?, open(self.rtcp)?))
    }

    /// A socket that sends there.
    pub(super) fn sender(
        &self,
        interface: Option<Ipv4Addr>,
        ttl: u8,
    ) -> Result<UdpSocket, ControlError> {
        let interface = if self.is_multicast() {
            Some(interface.ok_or_else(no_interface)?)
        } else {
            None
        };
        sending(interface, ttl).map_err(|error| {
            let by = interface.map_or_else(String::new, |interface| format!(" by {interface}"));
            let sentence = format!("cannot send to {}{by}: {error}", self.rtp);
            refused(Refusal::Address, sentence)
        })
    }

    pub(super) fn rtp_address(&self) -> SocketAddr {
        SocketAddr::V4(self.rtp)
    }

    pub(super) fn rtcp_address(&self) -> SocketAddr {
        SocketAddr::V4(self.rtcp)
    }
}

fn bound(address: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    into_tokio(socket)
}

fn joined(group: SocketAddrV4, interface: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Several terminals on one machine: every socket of a group gets its own copy.
    socket.set_reuse_address(true)?;
    socket.set_multicast_all_v4(false)?;
    socket.bind(&group.into())?;
    socket.join_multicast_v4(group.ip(), &interface)?;
    into_tokio(socket)
}

fn sending(interface: Option<Ipv4Addr>, ttl: u8) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if let Some(interface) = interface {
        // Without this the packets leave by the interface of the default route.
        socket.set_multicast_if_v4(&interface)?;
        socket.set_multicast_ttl_v4(u32::from(ttl))?;
        socket.set_multicast_loop_v4(true)?;
    }
    let own = interface.unwrap_or(Ipv4Addr::UNSPECIFIED);
    socket.bind(&SocketAddrV4::new(own, 0).into())?;
    into_tokio(socket)
}

fn into_tokio(socket: Socket) -> io::Result<UdpSocket> {
    // Best effort: half a second of fast video, where the system allows so much.
    drop(socket.set_recv_buffer_size(RECEIVE_BUFFER));
    UdpSocket::from_std(socket.into())
}

fn no_interface() -> ControlError {
    let sentence = "a multicast group needs an interface: add --if and the address of one of this \
                    machine's interfaces";
    refused(Refusal::BadRequest, sentence.into())
}

fn cannot_listen(
    address: SocketAddrV4,
    interface: Option<Ipv4Addr>,
    error: &io::Error,
) -> ControlError {
    let kind = error.kind();
    let sentence = if kind == io::ErrorKind::AddrInUse {
        format!("another program listens on {address} already: end it or choose another port")
    } else if kind == io::ErrorKind::AddrNotAvailable {
        format!("{address} is no address of this machine: choose one that `ip address` shows")
    } else if let Some(interface) = interface.filter(|_| address.ip().is_multicast()) {
        format!("cannot join {address} by {interface}: {error}")
    } else {
        format!("cannot listen on {address}: {error}")
    };
    refused(Refusal::Address, sentence)
}

const RECEIVE_BUFFER: usize = 1 << 20;
