//! How much goes whole to a peer, as the kernel has learned of the path.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::packet_path::host::{asking_socket, inner_mtu, path_mtu_by};

/// What was learned of paths lately.
#[derive(Default)]
pub(super) struct PathMtus {
    last: Option<(SocketAddr, Known)>,
    known: HashMap<SocketAddr, Known>,
    /// By which the kernel is asked, IPv4 and IPv6. (A look with a socket of its own takes 7 µs, this 2.)
    sockets: [Option<UdpSocket>; 2],
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

    fn ask(&mut self, to: SocketAddr) -> Option<u32> {
        let socket = match &mut self.sockets[usize::from(to.is_ipv6())] {
            Some(socket) => socket,
            none => none.insert(asking_socket(to).ok()?),
        };
        path_mtu_by(socket, to)
    }

    fn ask_anew(&mut self, to: SocketAddr, now: Instant) -> Known {
        // Where the kernel has no answer, it says so when something is sent.
        let fits = self.ask(to).map_or(usize::MAX, |mtu| {
            let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            usize::from(inner_mtu(mtu, to.is_ipv6()))
        });
        if self.known.len() >= KNOWN_MAX {
            let lately = |known: &mut Known| now.saturating_duration_since(known.asked) < KEPT;
            self.known.retain(|_, known| lately(known));
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
        }
        let known = Known { fits, asked: now };
        self.known.insert(to, known);
        known
    }
}

/// A sender that begins anew after a loss hears what was learned of it meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(100);
const KNOWN_MAX: usize = 16_384;
const KEPT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::packet_path::host::mtu_of;

    #[test]
    fn loopback_takes_what_its_device_takes() {
        let mut paths = PathMtus::default();
        let now = Instant::now();
        let to: SocketAddr = (Ipv4Addr::LOCALHOST, 4_500).into();
        let lo = mtu_of("lo").unwrap_or(u16::MAX);
        assert_eq!(paths.fits(to, now), usize::from(inner_mtu(lo, false)));
        assert_eq!(paths.fits(to, now), usize::from(inner_mtu(lo, false)));
        let nowhere = SocketAddr::from(([255; 4], 4_500));
        assert_eq!(paths.fits(nowhere, now), usize::MAX, "it may not be asked");
        let other: SocketAddr = ([127, 0, 0, 2], 4_500).into();
        assert_eq!(paths.fits(other, now), usize::from(inner_mtu(lo, false)));
        let [Some(socket), None] = &paths.sockets else {
            panic!("one socket")
        };
        assert!(socket.peer_addr().is_err(), "nothing is heard by it");
        assert!(socket.local_addr().is_ok_and(|it| it.ip().is_unspecified()));
    }
}
