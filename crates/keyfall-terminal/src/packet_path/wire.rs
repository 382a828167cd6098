//! The UDP socket to the other side: many datagrams with one call, where the kernel can.

#[cfg(test)]
mod tests;

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
    set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// One socket for both directions; its two halves are used by threads of their own.
#[derive(Debug)]
pub struct Wire {
    socket: UdpSocket,
    state: UdpSocketState,
    v6: bool,
}

impl Wire {
    /// # Errors
    /// What the system says.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        Self::open_one(address, Hears::All)
    }

    /// So many on one address, for as many threads. The first one sends, and hears multicast; all that a
    /// peer sends from one address and port comes to one of them. (What is broadcast comes to each.)
    ///
    /// # Errors
    /// What the system says.
    pub fn open_several(address: SocketAddr, count: usize) -> io::Result<Vec<Self>> {
        // Bound as the only one: where others hold the port it is an error.
        let mut wires = vec![Self::open(address)?];
        if count > 1 {
            let address = wires[0].local_address()?;
            SockRef::from(&wires[0].socket).set_reuse_port(true)?;
            for _ in 1..count {
                wires.push(Self::open_one(address, Hears::Shared)?);
            }
        }
        Ok(wires)
    }

    fn open_one(address: SocketAddr, hears: Hears) -> io::Result<Self> {
        let v6 = address.is_ipv6();
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        if v6 {
            // "[::]:4500" hears IPv4, too.
            socket.set_only_v6(false)?;
        }
        if hears == Hears::Shared {
            socket.set_reuse_port(true)?;
            // Else each would get all multicast.
            socket.set_multicast_all_v4(false)?;
            if v6 {
                socket.set_multicast_all_v6(false)?;
            }
        } else {
            // What another socket of this program has joined; it is not so by itself for one of IPv6.
            socket.set_multicast_all_v4(true)?;
        }
        socket.bind(&address.into())?;
        // So that a probe towards a protected address leaves by the outside and not into the tunnel;
        // without CAP_NET_ADMIN there is no tunnel either.
        mark(&socket);
        socket.set_multicast_ttl_v4(MULTICAST_HOPS)?;
        socket.set_multicast_loop_v4(false)?;
        if v6 {
            socket.set_multicast_hops_v6(MULTICAST_HOPS)?;
            socket.set_multicast_loop_v6(false)?;
        }
        // Without CAP_NET_ADMIN the system's bound holds: fewer packets wait, and more are lost.
        if set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            socket.set_recv_buffer_size(BUFFER)?;
        }
        if set_socket_send_buffer_size_force(&socket, BUFFER).is_err() {
            socket.set_send_buffer_size(BUFFER)?;
        }
        let socket = UdpSocket::from(socket);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Where a datagram does not fit the path it goes in fragments: an inner IPv6 packet of 1,280
        // octets crosses a path of 1,280 octets, too.
        set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::WANT)?;
        if v6 {
            set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::WANT)?;
        }
        Ok(Self { socket, state, v6 })
    }

    /// So many on that address; or on the port of ESP in UDP on all, of both families where there are both.
    ///
    /// # Errors
    /// What the system says.
    pub fn open_any(address: Option<SocketAddr>, count: usize) -> io::Result<Vec<Self>> {
        match address {
            Some(address) => Self::open_several(address, count),
            None => Self::open_everywhere(PORT, count),
        }
    }

    fn open_everywhere(port: u16, count: usize) -> io::Result<Vec<Self>> {
        match Self::open_several((Ipv6Addr::UNSPECIFIED, port).into(), count) {
            Err(error) if has_no_v6(&error) => {
                Self::open_several((Ipv4Addr::UNSPECIFIED, port).into(), count)
            }
            other => other,
        }
    }

    /// # Errors
    /// What the system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// By which interface multicast of IPv6 leaves. (That of IPv4 goes as the routes say.)
    ///
    /// # Errors
    /// What the system says.
    pub fn send_multicast_by(&self, interface: u32) -> io::Result<()> {
        if self.v6 {
            SockRef::from(&self.socket).set_multicast_if_v6(interface)?;
        }
        Ok(())
    }

    /// Sends everything in the batch, which is empty afterwards.
    ///
    /// # Errors
    /// What the system says; what was not sent is lost.
    pub fn send(&self, batch: &mut Batch) -> io::Result<()> {
        let Some(to) = batch.to.take() else {
            return Ok(());
        };
        let contents = &batch.buffer[..batch.length];
        let (stride, count) = (batch.stride, batch.count);
        (batch.length, batch.count) = (0, 0);
        if count > 1 && self.state.max_gso_segments() > 1 {
            match self.put(to, contents, Some(stride)) {
                // The path or the device takes no such batch: one by one, perhaps in fragments.
                Err(error) if is_about_size(&error) => {}
                other => return other,
            }
        }
        let mut outcome = Ok(());
        for datagram in contents.chunks(stride) {
            outcome = self.put(to, datagram, None).and(outcome);
        }
        outcome
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// What the system says.
    pub fn send_one(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        self.put(to, datagram, None)
    }

    fn put(&self, to: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> io::Result<()> {
        let transmit = Transmit {
            destination: self.address_for(to),
            ecn: None,
            contents,
            segment_size,
            src_ip: None,
        };
        loop {
            match self
                .state
                .try_send(UdpSockRef::from(&self.socket), &transmit)
            {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut door = [PollFd::new(&self.socket, PollFlags::OUT)];
                    poll(&mut door, None)?;
                }
                // An ICMP error about an earlier datagram: this one did not go yet.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                other => return other,
            }
        }
    }

    fn address_for(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if self.v6 => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            SocketAddr::V4(_) | SocketAddr::V6(_) => to,
        }
    }

    /// What has come, as far as there is room.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; else what the system says.
    pub fn receive(&self, arrivals: &mut Arrivals) -> io::Result<()> {
        arrivals.count = 0;
        let mut slices = arrivals
            .buffers
            .each_mut()
            .map(|buffer| IoSliceMut::new(buffer));
        let socket = UdpSockRef::from(&self.socket);
        arrivals.count = self.state.recv(socket, &mut slices, &mut arrivals.about)?;
        Ok(())
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Which of the datagrams to an address come to a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hears {
    /// Multicast that this program has joined, too.
    All,
    /// Those of some peers.
    Shared,
}

/// Datagrams to one place, of equal size but for the last, sent with one call.
#[derive(Debug)]
pub struct Batch {
    buffer: Box<[u8]>,
    to: Option<SocketAddr>,
    length: usize,
    stride: usize,
    count: usize,
    /// The last datagram was shorter than those before.
    closed: bool,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            buffer: vec![0; BATCH_MAX].into(),
            to: None,
            length: 0,
            stride: 0,
            count: 0,
            closed: false,
        }
    }
}

impl Batch {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.to.is_none()
    }

    /// How many datagrams of this size go together.
    pub(super) fn takes(size: usize) -> usize {
        (BATCH_MAX / size.max(1)).min(DATAGRAMS_MAX)
    }

    /// Where one more datagram of this size for this place is written; `None`: it does not go with
    /// those that are there, which have to be sent first. An empty batch always has room for one.
    pub fn slot(&mut self, to: SocketAddr, size: usize) -> Option<&mut [u8]> {
        if let Some(other) = self.to {
            let fits = other == to
                && !self.closed
                && size <= self.stride
                && self.count < DATAGRAMS_MAX
                && self.length + size <= BATCH_MAX;
            if !fits {
                return None;
            }
        }
        self.buffer.get_mut(self.length..self.length + size)
    }

    /// The datagram in the slot counts.
    pub fn add(&mut self, to: SocketAddr, size: usize) {
        if self.to.is_none() {
            self.to = Some(to);
            self.stride = size;
            self.closed = false;
        }
        self.closed |= size < self.stride;
        self.length += size;
        self.count += 1;
    }
}

/// Datagrams that came with one call.
#[derive(Debug)]
pub struct Arrivals {
    buffers: [Box<[u8]>; ARRIVALS_MAX],
    about: [RecvMeta; ARRIVALS_MAX],
    count: usize,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            // Each takes as many datagrams as the kernel joins, by IPv4, too.
            buffers: std::array::from_fn(|_| vec![0; ARRIVAL_MAX].into()),
            about: [RecvMeta::default(); ARRIVALS_MAX],
            count: 0,
        }
    }
}

/// Where a datagram came from, and which address of ours it was sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    pub from: SocketAddr,
    pub to: Option<IpAddr>,
    pub interface: Option<u32>,
}

impl Arrivals {
    /// The datagrams in their order.
    pub fn datagrams(&self) -> impl Iterator<Item = (Origin, &[u8])> {
        let arrived = self.buffers.iter().zip(&self.about).take(self.count);
        arrived.flat_map(|(buffer, about)| {
            let origin = Origin {
                from: SocketAddr::new(plain(about.addr.ip()), about.addr.port()),
                to: about.dst_ip.map(plain),
                interface: about.interface_index,
            };
            let octets = &buffer[..about.len];
            octets
                .chunks(about.stride.max(1))
                .map(move |datagram| (origin, datagram))
        })
    }
}

/// An IPv4 address that an IPv6 socket wrote in its own way.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// EMSGSIZE, EINVAL and EIO are how paths and devices say it.
fn is_about_size(error: &io::Error) -> bool {
    is_one_of(error, [Errno::MSGSIZE, Errno::INVAL, Errno::IO])
}

/// EAFNOSUPPORT and EADDRNOTAVAIL are how a system without IPv6 says it.
fn has_no_v6(error: &io::Error) -> bool {
    is_one_of(error, [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL])
}

fn is_one_of<const N: usize>(error: &io::Error, these: [Errno; N]) -> bool {
    let code = error.raw_os_error();
    code.is_some_and(|code| these.map(Errno::raw_os_error).contains(&code))
}

/// Which of two can be read, or failed.
#[derive(Clone, Copy, Default, Debug)]
pub struct Came {
    pub first: bool,
    pub second: bool,
}

/// Waits until one of both can be read, or so much time has gone.
///
/// # Errors
/// What the system says.
pub fn wait(first: impl AsFd, second: impl AsFd, longest: Option<Duration>) -> io::Result<Came> {
    let mut doors = [
        PollFd::new(&first, PollFlags::IN),
        PollFd::new(&second, PollFlags::IN),
    ];
    let longest = longest.map(|it| it.try_into().expect("a short time"));
    match poll(&mut doors, longest.as_ref()) {
        Ok(_) => {
            let [first, second] = doors.map(|door| !door.revents().is_empty());
            Ok(Came { first, second })
        }
        Err(Errno::INTR) => Ok(Came::default()),
        Err(errno) => Err(errno.into()),
    }
}

/// This program's own words go past the tunnel.
pub(crate) fn mark<'a>(socket: impl Into<SockRef<'a>>) {
    // Without CAP_NET_ADMIN there is no tunnel.
    socket.into().set_mark(MARK).ok();
}

/// Set on what this program sends itself: the rules let it pass by the tunnel.
pub(super) const MARK: u32 = 4_500;
/// Routers that multicast may cross.
const MULTICAST_HOPS: u32 = 32;
/// RFC 3948.
pub(super) const PORT: u16 = 4_500;
/// The kernel's UDP takes no more with one call: 65,535 octets less the headers of IPv6 and UDP.
const BATCH_MAX: usize = 65_535 - 48;
/// Nor does it join more: an IP packet.
const ARRIVAL_MAX: usize = 65_535;
const DATAGRAMS_MAX: usize = 64;
/// Calls that are taken together.
const ARRIVALS_MAX: usize = 8;
/// Octets that wait in the kernel: some milliseconds at 10 Gbit/s.
const BUFFER: usize = 8 << 20;
