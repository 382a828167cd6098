//! UDP multicast over IPv4: the carrier of a local network, a radio or a satellite link.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{CarrierAddress, FRAME_MAX};

#[cfg(test)]
mod tests;

/// The server's half: sends frames to a group and hears nothing.
///
/// Blocking; belongs to a thread that may wait for room in the socket's buffer.
#[derive(Debug)]
pub struct MulticastSender {
    socket: UdpSocket,
    group: SocketAddrV4,
}

impl MulticastSender {
    /// Opens a socket that sends by the interface of `address` and with its time to live.
    ///
    /// # Errors
    /// Where no interface of this machine has that address, or the system refuses the socket.
    pub fn open(address: &CarrierAddress) -> Result<Self, CarrierError> {
        let socket = sending_socket(address).map_err(|source| opening(address, source))?;
        Ok(Self {
            socket: socket.into(),
            group: address.group(),
        })
    }

    /// Hands one frame to the system. That it was sent says nothing about who heard it.
    ///
    /// # Errors
    /// [`SendError::TooLong`] and nothing is sent; [`SendError::Io`] where the system refuses:
    /// the sender stays usable, and the frame may be sent again.
    pub fn send(&self, frame: &[u8]) -> Result<(), SendError> {
        if frame.len() > FRAME_MAX {
            return Err(SendError::TooLong { len: frame.len() });
        }
        self.socket
            .send_to(frame, self.group)
            .map(|_| ())
            .map_err(|source| SendError::Io {
                group: self.group,
                source,
            })
    }
}

/// The terminal's half: hears a group and cannot send. No function of it writes, the socket inside
/// is reachable by nothing outside, and its sending side is shut.
///
/// What it hands out came from anybody; nothing is known of a frame but its length.
#[derive(Debug)]
pub struct MulticastReceiver {
    socket: tokio::net::UdpSocket,
    group: SocketAddrV4,
    /// One octet longer than a frame, so that a longer datagram is seen and not cut.
    buffer: Box<[u8; FRAME_MAX + 1]>,
    dropped_too_long: u64,
}

impl MulticastReceiver {
    /// Joins the group of `address` on its interface. Several receivers on one machine may join
    /// one group: each hears every frame.
    ///
    /// # Errors
    /// Where no interface of this machine has that address, or the system refuses the socket.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn open(address: &CarrierAddress) -> Result<Self, CarrierError> {
        let socket = receiving_socket(address)
            .and_then(|socket| tokio::net::UdpSocket::from_std(socket.into()))
            .map_err(|source| opening(address, source))?;
        Ok(Self {
            socket,
            group: address.group(),
            buffer: Box::new([0; FRAME_MAX + 1]),
            dropped_too_long: 0,
        })
    }

    /// Waits for the next frame. Datagrams longer than [`FRAME_MAX`] are dropped and counted.
    /// Nothing is lost where the future is dropped before it is ready.
    ///
    /// # Errors
    /// [`CarrierError::Receive`] where the system reports one, as when the interface goes away;
    /// calling again is allowed.
    pub async fn recv(&mut self) -> Result<&[u8], CarrierError> {
        loop {
            let received = self.socket.recv(&mut self.buffer[..]).await;
            let len = received.map_err(|source| CarrierError::Receive {
                group: self.group,
                source,
            })?;
            if len <= FRAME_MAX {
                return Ok(&self.buffer[..len]);
            }
            self.dropped_too_long += 1;
        }
    }

    /// How many datagrams were dropped because they were longer than a frame.
    #[must_use]
    pub const fn dropped_too_long(&self) -> u64 {
        self.dropped_too_long
    }
}

/// Why a carrier does not open or does not hear.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    #[error(
        "no interface of this machine has the address {interface}: write the address of one that \
         `ip address` shows after if= in the carrier address"
    )]
    NoSuchInterface { interface: Ipv4Addr },
    #[error("cannot open the carrier {address}: {source}")]
    Open {
        address: CarrierAddress,
        source: io::Error,
    },
    #[error("cannot receive from the multicast group {group}: {source}")]
    Receive {
        group: SocketAddrV4,
        source: io::Error,
    },
}

/// Why a frame was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("a frame of {len} octets is longer than the {FRAME_MAX} that a carrier moves")]
    TooLong { len: usize },
    #[error("cannot send to the multicast group {group}: {source}")]
    Io {
        group: SocketAddrV4,
        source: io::Error,
    },
}

fn sending_socket(address: &CarrierAddress) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Without this the frames leave by the interface of the default route.
    socket.set_multicast_if_v4(&address.interface())?;
    socket.set_multicast_ttl_v4(u32::from(address.ttl()))?;
    // Terminals on the server's own machine hear it too.
    socket.set_multicast_loop_v4(true)?;
    socket.bind(&SocketAddrV4::new(address.interface(), 0).into())?;
    Ok(socket)
}

fn receiving_socket(address: &CarrierAddress) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Several terminals on one machine: every socket of a group gets its own copy of a frame.
    socket.set_reuse_address(true)?;
    // Bound to any address, a socket would hear every group that anyone on this machine joined.
    socket.set_multicast_all_v4(false)?;
    socket.bind(&address.group().into())?;
    socket.join_multicast_v4(address.group().ip(), &address.interface())?;
    refuse_sending(&socket)?;
    Ok(socket)
}

/// SECURITY: the kernel too refuses to send from here: EPIPE from now on.
fn refuse_sending(socket: &Socket) -> io::Result<()> {
    match socket.shutdown(Shutdown::Write) {
        // Linux says so of every datagram socket without a peer, after it has shut the side.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}

fn opening(address: &CarrierAddress, source: io::Error) -> CarrierError {
    match source.raw_os_error() {
        // EADDRNOTAVAIL is the kernel's word on the sender's interface, ENODEV on the receiver's.
        Some(EADDRNOTAVAIL | ENODEV) => CarrierError::NoSuchInterface {
            interface: address.interface(),
        },
        _ => CarrierError::Open {
            address: *address,
            source,
        },
    }
}

/// Linux, asm-generic/errno-base.h and errno.h.
const ENODEV: i32 = 19;
const EADDRNOTAVAIL: i32 = 99;
