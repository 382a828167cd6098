//! A tunnel without a protocol, to compare with: the same offloads, AES-256-GCM on each packet under
//! one fixed key, and nothing else. It protects nothing.
//!
//! Usage: bare_forwarder TUN LISTEN PEER [MTU]
//! as in: bare_forwarder bare0 10.9.0.1:5000 10.9.0.2:5000 1420
//!
//! A datagram is: number 8 octets, then what the cipher gives. The number is the nonce.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use keyfall_terminal::packet_path::{Arrivals, Batch, Cut, Tun, Wire, wait};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (tun, listen, peer, mtu) = match arguments.as_slice() {
        [tun, listen, peer] => (tun, listen, peer, 1_420),
        [tun, listen, peer, mtu] => (tun, listen, peer, mtu.parse()?),
        _ => return Err("usage: bare_forwarder TUN LISTEN PEER [MTU]".into()),
    };
    let peer: SocketAddr = peer.parse()?;
    let listen: SocketAddr = listen.parse()?;
    let tun = Arc::new(Tun::open(tun, mtu, true)?);
    tun.fit_batches(mtu, HEAD + usize::from(mtu) + TAG);
    tun.up()?;
    let wire = Arc::new(Wire::open(listen)?);
    // The two directions must not share numbers.
    let first = u64::from(listen < peer) << 63;
    let (outwards, out) = (Arc::clone(&tun), Arc::clone(&wire));
    let egress = thread::spawn(move || send(&outwards, &out, peer, first));
    let ingress = thread::spawn(move || receive(&tun, &wire));
    egress.join().map_err(|_| "the sending thread failed")??;
    ingress
        .join()
        .map_err(|_| "the receiving thread failed")??;
    Ok(())
}

fn key() -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, &[0x5a; 32]).expect("32 octets");
    LessSafeKey::new(key)
}

fn nonce(number: [u8; 8]) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number);
    Nonce::assume_unique_for_key(nonce)
}

fn send(tun: &Tun, wire: &Wire, peer: SocketAddr, first: u64) -> io::Result<()> {
    let (key, mut number) = (key(), first);
    let (mut buffer, mut batch) = (Tun::buffer(), Batch::default());
    loop {
        let cut = match tun.read(&mut buffer) {
            Ok(Some(cut)) => cut,
            Ok(None) => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                lost(wire.send(&mut batch));
                wait(tun, tun, None)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        seal(cut, wire, peer, &key, &mut number, &mut batch);
    }
}

fn seal(
    mut cut: Cut<'_>,
    wire: &Wire,
    peer: SocketAddr,
    key: &LessSafeKey,
    number: &mut u64,
    batch: &mut Batch,
) {
    while let Some(length) = cut.next_len() {
        let size = HEAD + length + TAG;
        if batch.slot(peer, size).is_none() {
            lost(wire.send(batch));
        }
        let Some(slot) = batch.slot(peer, size) else {
            return;
        };
        let Some(inner) = cut.take_next() else {
            return;
        };
        let (head, rest) = slot.split_at_mut(HEAD);
        let (text, tag) = rest.split_at_mut(length);
        *number += 1;
        let octets = number.to_be_bytes();
        head.copy_from_slice(&octets);
        key.seal_out_of_place_scatter(nonce(octets), Aad::empty(), inner, text, &[], tag)
            .expect("a packet is short enough");
        batch.add(peer, size);
    }
}

fn receive(tun: &Tun, wire: &Wire) -> io::Result<()> {
    let key = key();
    let (mut arrivals, mut join) = (Arrivals::default(), tun.join());
    let mut write = |octets: &mut [u8]| lost(tun.write(octets));
    loop {
        match wire.receive(&mut arrivals) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait(wire, wire, None)?;
                continue;
            }
            Err(error) => return Err(error),
        }
        for (_, datagram) in arrivals.datagrams() {
            let Some((head, rest)) = datagram.split_first_chunk::<HEAD>() else {
                continue;
            };
            let Some((inner, tag)) = rest.split_last_chunk::<TAG>() else {
                continue;
            };
            let out = &mut join.slot()[..inner.len()];
            let opened = key.open_separate_gather(nonce(*head), Aad::empty(), inner, tag, out);
            if opened.is_ok() {
                join.push(inner.len(), &mut write);
            } else {
                join.give_up();
            }
        }
        join.flush(&mut write);
    }
}

/// A packet that cannot go is lost, as on any link.
fn lost(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        eprintln!("bare_forwarder: {error}");
    }
}

const HEAD: usize = 8;
const TAG: usize = 16;
