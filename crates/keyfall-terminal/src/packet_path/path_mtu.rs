//! How much goes whole to a peer, as the kernel has learned of the path.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{ip_mtu, ipv6_mtu};

use crate::packet_path::host::inner_mtu;
use crate::packet_path::wire;

/// What was learned of paths lately.
#[derive(Default)]
pub(super) struct PathMtus {
    /// It asks the kernel, and never sends.
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    last: Option<(SocketAddr, Known)>,
    known: HashMap<SocketAddr, Known>,
}

#[derive(Clone, Copy)]
struct Known {
    /// Octets of an inner packet.
    fits: usize,
    asked: Instant,
}

impl PathMtus {
    /// Octets of the longest inner packet whose datagram goes there whole.
    pub(super) fn fits(&mut self, to: SocketAddr, now: Instant) -> usize {
        let is_new = |known: &Known| now.saturating_duration_since(known.asked) < ASK_EVERY;
        if let Some((last, known)) = self.last
            && last == to
            && is_new(&known)
        {
            return known.fits;
        }
        let known = match self.known.get(&to) {
            Some(&known) if is_new(&known) => known,
            Some(_) | None => self.ask_anew(to, now),
        };
        self.last = Some((to, known));
        known.fits
    }

    fn ask_anew(&mut self, to: SocketAddr, now: Instant) -> Known {
        // Where the kernel has no answer, it says so when something is sent.
        let fits = self.ask(to).map_or(usize::MAX, |mtu| {
            let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            usize::from(inner_mtu(mtu, to.is_ipv6()))
        });
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let known = Known { fits, asked: now };
        self.known.insert(to, known);
        known
    }

    fn ask(&mut self, to: SocketAddr) -> io::Result<u32> {
        let (socket, any) = match to {
            SocketAddr::V4(_) => (&mut self.v4, (Ipv4Addr::UNSPECIFIED, 0).into()),
            SocketAddr::V6(_) => (&mut self.v6, (Ipv6Addr::UNSPECIFIED, 0).into()),
        };
        let socket = match socket {
            Some(socket) => socket,
            None => {
                let any: SocketAddr = any;
                let opened = UdpSocket::bind(any)?;
                wire::mark(&opened);
                socket.insert(opened)
            }
        };
        // The route of a socket is looked up when it is connected.
        socket.connect(to)?;
        let mtu = match to {
            SocketAddr::V4(_) => ip_mtu(&*socket)?,
            SocketAddr::V6(_) => ipv6_mtu(&*socket)?,
        };
        Ok(mtu)
    }
}

/// A sender that begins anew after a loss hears what was learned of it meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(100);
const KNOWN_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_takes_what_its_device_takes() {
        let mut paths = PathMtus::default();
        let now = Instant::now();
        let to: SocketAddr = (Ipv4Addr::LOCALHOST, 4_500).into();
        let lo = crate::packet_path::host::mtu_of("lo").unwrap_or(u16::MAX);
        assert_eq!(paths.fits(to, now), usize::from(inner_mtu(lo, false)));
        assert_eq!(paths.fits(to, now), usize::from(inner_mtu(lo, false)));
    }
}
