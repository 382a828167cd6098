//! The TUN interface, with the kernel's offloads where it has them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use tun_rs::{DeviceBuilder, SyncDevice};

use crate::packet_path::cut::Cut;
use crate::packet_path::head::{self, HEAD_LEN};
use crate::packet_path::join::{Join, PACKET_MAX};
use crate::packet_path::wire::Batch;

/// A TUN interface that goes when it is dropped.
pub struct Tun {
    device: SyncDevice,
    name: String,
    /// Whether each packet comes behind the kernel's header, and several may come as one.
    offload: bool,
    /// Whether the kernel takes joined packets; a refused write ends it (pitfall of some kernels).
    joins: AtomicBool,
}

impl Tun {
    /// Opens it, down; the system chooses a number for a name that ends in "%d".
    ///
    /// # Errors
    /// What the system says; `PermissionDenied` without CAP_NET_ADMIN.
    pub fn open(name: &str, mtu: u16, offload: bool) -> io::Result<Self> {
        Self::open_device(name, mtu, offload, false)
    }

    /// The same with so many queues. Each flow is read from one of them: the one that packets of it were
    /// written to last, or one that the kernel chooses.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_queues(name: &str, mtu: u16, count: usize) -> io::Result<Vec<Self>> {
        let mut queues = vec![Self::open_device(name, mtu, true, count > 1)?];
        for _ in 1..count {
            let one = &queues[0];
            let device = one.device.try_clone()?;
            device.set_nonblocking(true)?;
            let queue = Self {
                name: one.name.clone(),
                offload: one.offload,
                joins: AtomicBool::new(true),
                device,
            };
            queues.push(queue);
        }
        Ok(queues)
    }

    fn open_device(name: &str, mtu: u16, offload: bool, queues: bool) -> io::Result<Self> {
        let build = |offload: bool| {
            DeviceBuilder::new()
                .name(name)
                .mtu(mtu)
                .enable(false)
                .offload(offload)
                .multi_queue(queues)
                .build_sync()
        };
        let device = match build(offload) {
            // An interface without offloads is slower, and does the same.
            Err(error) if offload && error.kind() != io::ErrorKind::PermissionDenied => {
                build(false)?
            }
            other => other?,
        };
        device.set_nonblocking(true)?;
        Ok(Self {
            name: device.name()?,
            offload: device.tcp_gso(),
            joins: AtomicBool::new(true),
            device,
        })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Brings it up.
    ///
    /// # Errors
    /// What the system says.
    pub fn up(&self) -> io::Result<()> {
        self.device.enabled(true)
    }

    /// Has the kernel's own TCP hand over only as much at a time as goes out with one call: 64 KiB are
    /// a few segments more, which would need a second one. Not for a gateway: what is forwarded
    /// would then come in single packets where it is longer. Without it packets pass, too.
    /// `sealed`: octets of the datagram of a packet as long as the MTU.
    pub fn fit_batches(&self, mtu: u16, sealed: usize) {
        let payload = usize::from(mtu).saturating_sub(TCP_HEADERS);
        let size = Batch::takes(sealed) * payload + KERNEL_HEADERS;
        if !self.offload || size >= PACKET_MAX {
            return;
        }
        let size = size.to_string();
        let words = ["link", "set", "dev", &self.name, "gso_max_size", &size];
        Command::new("ip").args(words).output().ok();
    }

    /// What the interface may get in one write.
    #[must_use]
    pub fn join(&self) -> Join {
        Join::new(self.offload, self.offload && self.device.udp_gso())
    }

    /// Room for one read.
    #[must_use]
    pub fn buffer() -> Box<[u8]> {
        vec![0; HEAD_LEN + PACKET_MAX + 1].into()
    }

    /// The next packets, `None` for what cannot be sent.
    ///
    /// # Errors
    /// `WouldBlock` when there are none; else what the system says.
    pub fn read<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Cut<'a>>> {
        let length = self.device.recv(buffer)?;
        let octets = &mut buffer[..length];
        if !self.offload {
            return Ok(Cut::new(head::Load::Whole, octets));
        }
        let Some((head, packet)) = octets.split_first_chunk_mut::<HEAD_LEN>() else {
            return Ok(None);
        };
        Ok(Cut::new(head::read(head), packet))
    }

    /// Writes what [`Join`] made: the kernel's header and a packet. Where the kernel refuses several
    /// as one, they go one by one, and from then on nothing is joined.
    ///
    /// # Errors
    /// What the system says; the packets are lost.
    pub fn write(&self, octets: &mut [u8]) -> io::Result<()> {
        if !self.offload {
            return self.put(&octets[HEAD_LEN..]);
        }
        match self.put(octets) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let Some((head, packet)) = octets.split_first_chunk_mut::<HEAD_LEN>() else {
                    return Err(error);
                };
                let load = head::read(head);
                if !matches!(load, head::Load::Segments { .. }) {
                    return Err(error);
                }
                self.joins.store(false, Ordering::Relaxed);
                let mut cut = Cut::new(load, packet).ok_or(error)?;
                let mut single = [0; HEAD_LEN + SEGMENT_MAX];
                while let Some(packet) = cut.take_next() {
                    let end = HEAD_LEN + packet.len();
                    let Some(place) = single.get_mut(HEAD_LEN..end) else {
                        return Err(io::ErrorKind::InvalidInput.into());
                    };
                    place.copy_from_slice(packet);
                    self.put(&single[..end])?;
                }
                Ok(())
            }
            other => other,
        }
    }

    /// Whether joined packets are still taken.
    #[must_use]
    pub fn joins(&self) -> bool {
        self.joins.load(Ordering::Relaxed)
    }

    fn put(&self, octets: &[u8]) -> io::Result<()> {
        loop {
            match self.device.send(octets) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(drop),
            }
        }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// Octets of IPv4 and TCP without options.
const TCP_HEADERS: usize = 40;
/// What the kernel's TCP leaves for headers (MAX_TCP_HEADER), and some.
const KERNEL_HEADERS: usize = 400;
/// Octets of a packet in a joined one: an underlay of 9,000 octets, and some.
const SEGMENT_MAX: usize = 16 * 1024;
