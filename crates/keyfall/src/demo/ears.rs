//! What is heard: plain RTP as an application gets it, and multicast as anybody gets it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use keyfall_carrier::{CarrierAddress, MulticastReceiver};

/// Datagrams that came, in the order in which they came, and when. Collects in a thread until the
/// process ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Mutex<Vec<Timed>>>);

/// A datagram, and when it was heard.
pub(super) type Timed = (Instant, Vec<u8>);

impl Heard {
    /// Listens on a local UDP port: the application behind a relay.
    pub(super) fn on_port(address: SocketAddr) -> anyhow::Result<(Self, SocketAddr)> {
        let socket = UdpSocket::bind(address).context("no socket to listen on")?;
        let bound = socket
            .local_addr()
            .context("a bound socket has an address")?;
        let heard = Self::default();
        let collected = heard.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok(len) = socket.recv(&mut buffer) {
                collected.push(&buffer[..len]);
            }
        });
        Ok((heard, bound))
    }

    /// Listens to a multicast group: anybody on the network.
    pub(super) fn on_air(address: CarrierAddress) -> anyhow::Result<Self> {
        let heard = Self::default();
        let collected = heard.clone();
        let (ready, opened) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let run = || -> anyhow::Result<()> {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .build()?;
                runtime.block_on(async {
                    let mut receiver = MulticastReceiver::open(&address)?;
                    // The other end is gone only where the demo has ended.
                    ready.send(()).unwrap_or_default();
                    loop {
                        collected.push(receiver.recv().await?);
                    }
                })
            };
            if let Err(fault) = run() {
                tracing::warn!("nothing is heard any more: {fault:#}");
            }
        });
        opened
            .recv_timeout(Duration::from_secs(5))
            .with_context(|| format!("{address} cannot be heard"))?;
        Ok(heard)
    }

    fn push(&self, datagram: &[u8]) {
        self.hold().push((Instant::now(), datagram.to_vec()));
    }

    /// Everything so far.
    pub(super) fn all(&self) -> Vec<Vec<u8>> {
        self.hold()
            .iter()
            .map(|(_, octets)| octets.clone())
            .collect()
    }

    /// The same, with the time of each.
    pub(super) fn timed(&self) -> Vec<Timed> {
        self.hold().clone()
    }

    pub(super) fn count(&self) -> usize {
        self.hold().len()
    }

    /// What came so far; begins anew.
    pub(super) fn take(&self) -> Vec<Vec<u8>> {
        let taken = std::mem::take(&mut *self.hold());
        taken.into_iter().map(|(_, octets)| octets).collect()
    }

    fn hold(&self) -> MutexGuard<'_, Vec<Timed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// RTP packets of one call, in the order of their sequence numbers.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// Extended sequence number and payload.
    packets: Vec<(u32, Vec<u8>)>,
}

impl Call {
    /// `None` octets of a datagram that is not RTP are left out; the first packet's number begins.
    pub(super) fn of(datagrams: &[Vec<u8>]) -> Self {
        let mut packets: Vec<(u32, Vec<u8>)> = Vec::new();
        for datagram in datagrams {
            let Ok(packet) = rtp_types::RtpPacket::parse(datagram) else {
                continue;
            };
            let number = packet.sequence_number();
            let newest = packets.iter().map(|&(number, _)| number).max();
            let extended = match newest {
                // One turn ahead, so that a packet that came late does not go below zero.
                None => 65_536 + u32::from(number),
                Some(newest) => {
                    let [_, _, high, low] = newest.to_be_bytes();
                    let ahead = number.wrapping_sub(u16::from_be_bytes([high, low]));
                    let step = i32::from(i16::from_be_bytes(ahead.to_be_bytes()));
                    newest.saturating_add_signed(step)
                }
            };
            packets.push((extended, packet.payload().to_vec()));
        }
        packets.sort_by_key(|&(number, _)| number);
        packets.dedup_by_key(|&mut (number, _)| number);
        Self { packets }
    }

    pub(super) fn count(&self) -> usize {
        self.packets.len()
    }

    /// The lowest sequence number, modulo 65,536.
    pub(super) fn first(&self) -> Option<u16> {
        self.packets
            .first()
            .map(|&(number, _)| (number % 65_536) as u16)
    }

    /// Gaps between the first and the last packet.
    pub(super) fn lost_between(&self) -> u32 {
        match (self.packets.first(), self.packets.last()) {
            (Some(&(first, _)), Some(&(last, _))) => {
                last - first + 1 - u32::try_from(self.packets.len()).unwrap_or(0)
            }
            (None, _) | (_, None) => 0,
        }
    }

    pub(super) fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        self.packets.iter().map(|(_, payload)| payload.as_slice())
    }
}
