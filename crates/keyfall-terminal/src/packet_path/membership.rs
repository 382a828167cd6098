//! Which multicast is heard on the outside: every address that a packet group names for itself. The
//! datagrams come to the wire's socket, which takes what this machine has joined.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use keyfall_protocol::command::ProtectionRecord;
use socket2::{Domain, InterfaceIndexOrAddress, Socket, Type};

/// What was joined; it is left when this is dropped.
#[derive(Debug)]
pub(super) struct Memberships {
    /// `None`: the system chooses.
    outside: Option<u32>,
    /// A socket for each, since the system bounds how many groups one may join.
    joined: Vec<(IpAddr, Socket)>,
}

impl Memberships {
    pub(super) const fn new(outside: Option<u32>) -> Self {
        Self {
            outside,
            joined: Vec::new(),
        }
    }

    /// As the record says now. What cannot be joined is tried again the next time.
    ///
    /// # Errors
    /// The first address that was not joined, and why.
    pub(super) fn apply(&mut self, record: &ProtectionRecord) -> Result<(), (IpAddr, io::Error)> {
        let networks = record.groups.iter().flat_map(|group| &group.networks);
        let wanted: Vec<IpAddr> = networks
            .filter(|network| network.is_host() && network.address().is_multicast())
            .map(|network| network.address())
            .collect();
        self.joined.retain(|(group, _)| wanted.contains(group));
        let mut outcome = Ok(());
        for group in wanted {
            if self.joined.iter().any(|&(joined, _)| joined == group) {
                continue;
            }
            match self.join(group) {
                Ok(socket) => self.joined.push((group, socket)),
                Err(error) => outcome = outcome.and(Err((group, error))),
            }
        }
        outcome
    }

    fn join(&self, group: IpAddr) -> io::Result<Socket> {
        match group {
            IpAddr::V4(group) => {
                let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
                let by = self.outside.map_or(
                    InterfaceIndexOrAddress::Address(Ipv4Addr::UNSPECIFIED),
                    InterfaceIndexOrAddress::Index,
                );
                socket.join_multicast_v4_n(&group, &by)?;
                Ok(socket)
            }
            IpAddr::V6(group) => {
                let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
                socket.join_multicast_v6(&group, self.outside.unwrap_or(0))?;
                Ok(socket)
            }
        }
    }
}
