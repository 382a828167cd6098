//! A terminal that is killed at the worst moment.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use keyfall_plane::{SrtpSender, SrtpStream, Stretch};
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, SessionId, TerminalNumber};
use keyfall_protocol::keys::{MasterKey, Secret, SrtpSuite};

use crate::fleet::{Carrier, Fleet, GROUP, multicast};
use crate::ran::{Background, command, keyfall, until};

/// FORMATS section 7: nothing delivered before is delivered again, through any crash. The kill comes
/// with the first packet that the application gets.
#[test]
fn packet_that_was_delivered_is_refused_after_a_kill() {
    let (fleet, carrier, wire) = (Fleet::new(), Carrier::new(), multicast());
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("bob");
    fleet.enrol(&dir, 2, &carrier.address);
    let application = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let place = application.local_addr().unwrap().to_string();
    let out = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let out = socket2::Socket::from(out);
    out.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    let out = UdpSocket::from(out);
    let dir = dir.to_str().unwrap();
    let status = || keyfall(["--json", "terminal", "status", dir]).document();
    let run = || {
        let terminal = Background(command(["terminal", "run", dir]).spawn().unwrap());
        until("it runs", || status()["running"] == true);
        terminal
    };
    let receive = || {
        let from = wire.to_string();
        let mut receive = command([
            "media", "receive", "--dir", dir, "--group", "7", "--from", &from, "--rtp", &place,
        ]);
        let relay = Background(
            receive
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        until("it receives", || {
            status()["relays"].as_array().unwrap().len() == 1
        });
        relay
    };
    let mut terminal = run();
    carrier.tell(&fleet.key_dist(GROUP, 0, &[2]));
    until("the key is stored", || {
        status()["groups"].as_array().unwrap().len() == 1
    });
    for round in 0..4 {
        let relay = receive();
        let packets = call(&fleet, round);
        for packet in &packets {
            out.send_to(packet, wire).unwrap();
        }
        let mut buffer = [0; 256];
        application
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let len = application.recv(&mut buffer).unwrap();
        let mut delivered = vec![sequence(&buffer, len)];
        drop(terminal);
        drop(relay);
        application
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        while let Ok(len) = application.recv(&mut buffer) {
            delivered.push(sequence(&buffer, len));
        }

        terminal = run();
        let relay = receive();
        for packet in &packets {
            out.send_to(packet, wire).unwrap();
        }
        until("all are judged", || {
            let relay = &status()["relays"][0];
            let drops = relay["drops"].as_array().unwrap().iter();
            let dropped: u64 = drops.map(|drop| drop["count"].as_u64().unwrap()).sum();
            dropped + relay["packets"].as_u64().unwrap() == packets.len() as u64
        });
        while let Ok(len) = application.recv(&mut buffer) {
            let again = sequence(&buffer, len);
            assert!(
                !delivered.contains(&again),
                "round {round}: {again} came twice"
            );
        }
        drop(relay);
        until("the relay ends", || {
            status()["relays"].as_array().unwrap().is_empty()
        });
    }
}

fn sequence(packet: &[u8], len: usize) -> u16 {
    assert!(len > 4);
    u16::from_be_bytes([packet[2], packet[3]])
}

/// Forty packets of one session, as another member sends them.
fn call(fleet: &Fleet, round: u8) -> Vec<Vec<u8>> {
    let bytes = Secret::init_with(|octets| octets.fill(77));
    let group = GroupNumber::new(GROUP).unwrap();
    let epoch = KeyEpoch::fresh(None, fleet.now);
    let key = MasterKey::new(group, epoch, Generation::ZERO, bytes);
    let mut sender = SrtpSender::new(
        SrtpStream {
            suite: SrtpSuite::default(),
            sender: TerminalNumber::new(1).unwrap(),
            session: SessionId::new([round; 6]),
            ssrc: 9,
        },
        Stretch::default(),
    );
    let packet = |sequence: u8| {
        let mut packet = vec![0x80, 0, 0, sequence, 0, 0, 0, 0, 0, 0, 0, 9, 42];
        sender.protect_rtp(&key, &mut packet).unwrap();
        packet
    };
    (0..40).map(packet).collect()
}
