//! A super-packet as the kernel hands it over, cut into the packets that it stands for.

use crate::packet_path::checksum;
use crate::packet_path::head::Load;
use crate::packet_path::inner::{Layout, Transport};

/// The packets of one read, written one by one to where they are wanted.
#[derive(Debug)]
pub struct Cut<'a> {
    packet: &'a [u8],
    /// `None`: it goes as it is.
    segments: Option<Segments>,
    /// Where the next payload begins; the packet's length when nothing is left.
    at: usize,
    index: u16,
}

#[derive(Clone, Copy, Debug)]
struct Segments {
    layout: Layout,
    size: usize,
}

impl<'a> Cut<'a> {
    /// `None`: the kernel's header does not fit the packet, which then cannot be sent.
    pub(super) fn new(load: Load, packet: &'a mut [u8]) -> Option<Self> {
        let segments = match load {
            Load::Whole => None,
            Load::Unsummed { start, offset } => {
                let after = packet.get_mut(start..)?;
                let mut sum = checksum::finish(checksum::add(0, after));
                if sum == [0, 0] {
                    sum = [0xff, 0xff];
                }
                after.get_mut(offset..offset + 2)?.copy_from_slice(&sum);
                None
            }
            Load::Segments { size } => {
                let layout = Layout::read(packet)?;
                if size == 0 || layout.payload_at >= packet.len() {
                    return None;
                }
                Some(Segments { layout, size })
            }
        };
        Some(Self {
            at: segments.map_or(0, |it| it.layout.payload_at),
            packet,
            segments,
            index: 0,
        })
    }

    /// Headers as they are in each packet but for lengths, numbers and checksums.
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        self.packet
    }

    /// How many packets are not written yet.
    #[must_use]
    pub fn left(&self) -> u64 {
        let octets = self.packet.len() - self.at;
        let count = self.segments.map_or(1, |it| octets.div_ceil(it.size));
        if octets == 0 { 0 } else { count as u64 }
    }

    /// Octets of the next packet; `None` when all are written.
    #[must_use]
    pub fn next_len(&self) -> Option<usize> {
        let left = self.packet.len() - self.at;
        if left == 0 {
            return None;
        }
        Some(match self.segments {
            None => left,
            Some(segments) => segments.layout.payload_at + left.min(segments.size),
        })
    }

    /// Writes the next packet to the front of `out`, which has room for [`Cut::next_len`] octets.
    pub fn write_next(&mut self, out: &mut [u8]) -> usize {
        let Some(length) = self.next_len() else {
            return 0;
        };
        let out = &mut out[..length];
        let Some(Segments { layout, .. }) = self.segments else {
            out.copy_from_slice(self.packet);
            self.at = self.packet.len();
            return length;
        };
        let payload_at = layout.payload_at;
        let payload = length - payload_at;
        let first = self.index == 0;
        let last = self.at + payload == self.packet.len();
        out[..payload_at].copy_from_slice(&self.packet[..payload_at]);
        out[payload_at..].copy_from_slice(&self.packet[self.at..self.at + payload]);
        if !layout.v6 {
            let id = u16::from_be_bytes([out[4], out[5]]).wrapping_add(self.index);
            out[4..6].copy_from_slice(&id.to_be_bytes());
        }
        if layout.transport == Transport::Tcp {
            let header = &mut out[layout.transport_at..payload_at];
            let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let before = u32::try_from(self.at - payload_at).unwrap_or(u32::MAX);
            header[4..8].copy_from_slice(&sequence.wrapping_add(before).to_be_bytes());
            if !first {
                header[13] &= !TCP_CWR;
            }
            if !last {
                header[13] &= !(TCP_FIN | TCP_PSH);
            }
        }
        layout.write_lengths(out);
        layout.write_checksum(out);
        self.at += payload;
        self.index = self.index.wrapping_add(1);
        length
    }
}

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;
