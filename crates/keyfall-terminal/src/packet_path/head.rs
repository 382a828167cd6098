//! The header that stands before each packet on a TUN interface with offloads: `struct
//! virtio_net_hdr` of the kernel's <linux/virtio_net.h>, 10 octets, in the machine's order.

/// What one read or one write carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Load {
    /// One packet, whole.
    Whole,
    /// One packet whose transport checksum is the sum of the pseudo header so far.
    Unsummed { start: usize, offset: usize },
    /// Several segments of so many octets of payload each behind one header.
    Segments { size: usize },
}

pub(super) fn read(head: &[u8; HEAD_LEN]) -> Load {
    let number = |at: usize| usize::from(u16::from_ne_bytes([head[at], head[at + 1]]));
    match head[1] & !GSO_ECN {
        GSO_NONE if head[0] & NEEDS_CHECKSUM == 0 => Load::Whole,
        GSO_NONE => Load::Unsummed {
            start: number(6),
            offset: number(8),
        },
        _ => Load::Segments { size: number(4) },
    }
}

/// For several segments: what the kernel needs to cut them.
#[derive(Clone, Copy)]
pub(super) struct Joined {
    pub(super) gso_type: u8,
    pub(super) header: usize,
    pub(super) size: usize,
    pub(super) checksum_start: usize,
    pub(super) checksum_offset: usize,
}

pub(super) fn write(joined: &Joined) -> [u8; HEAD_LEN] {
    let mut head = [0; HEAD_LEN];
    head[0] = NEEDS_CHECKSUM;
    head[1] = joined.gso_type;
    let numbers = [
        joined.header,
        joined.size,
        joined.checksum_start,
        joined.checksum_offset,
    ];
    for (place, number) in head[2..].chunks_exact_mut(2).zip(numbers) {
        let number = u16::try_from(number).expect("parts of an IP packet");
        place.copy_from_slice(&number.to_ne_bytes());
    }
    head
}

pub(super) const HEAD_LEN: usize = 10;
/// A single packet, complete.
pub(super) const WHOLE: [u8; HEAD_LEN] = [0; HEAD_LEN];
const NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
pub(super) const GSO_TCPV4: u8 = 1;
pub(super) const GSO_TCPV6: u8 = 4;
pub(super) const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;
