//! On 127.0.0.1 without root. Each test has a port of its own.

use std::time::Duration;

use super::*;

fn address(text: &str) -> CarrierAddress {
    text.parse().expect("an address")
}

/// A frame for every socket is in its buffer when `send_to` returns on loopback; this is for a
/// busy machine.
const SOON: Duration = Duration::from_secs(5);
/// Long enough for what should not come to have come.
const QUIET: Duration = Duration::from_millis(200);

async fn hears(receiver: &mut MulticastReceiver) -> Vec<u8> {
    let frame = tokio::time::timeout(SOON, receiver.recv())
        .await
        .expect("in time");
    frame.expect("no error").to_vec()
}

async fn stays_quiet(receiver: &mut MulticastReceiver) -> bool {
    tokio::time::timeout(QUIET, receiver.recv()).await.is_err()
}

#[tokio::test]
async fn two_receivers_hear_one_sender() {
    let address = address("udp://239.255.70.1:47701?if=127.0.0.1&ttl=0");
    let mut alice = MulticastReceiver::open(&address).expect("alice");
    let mut bob = MulticastReceiver::open(&address).expect("bob");
    let server = MulticastSender::open(&address).expect("server");
    for frame in [&b"first"[..], b"", &[7; FRAME_MAX]] {
        server.send(frame).expect("sent");
        assert_eq!(hears(&mut alice).await, frame);
        assert_eq!(hears(&mut bob).await, frame);
    }
}

#[tokio::test]
async fn a_receiver_hears_its_group_only() {
    let ours = address("udp://239.255.70.2:47702?if=127.0.0.1&ttl=0");
    let theirs = address("udp://239.255.70.3:47702?if=127.0.0.1&ttl=0");
    let mut alice = MulticastReceiver::open(&ours).expect("alice");
    let mut carol = MulticastReceiver::open(&theirs).expect("carol");
    MulticastSender::open(&theirs)
        .expect("their server")
        .send(b"theirs")
        .expect("sent");
    assert_eq!(hears(&mut carol).await, b"theirs");
    assert!(stays_quiet(&mut alice).await);
    MulticastSender::open(&ours)
        .expect("our server")
        .send(b"ours")
        .expect("sent");
    assert_eq!(hears(&mut alice).await, b"ours");
    assert!(stays_quiet(&mut carol).await);
}

#[tokio::test]
async fn a_receiver_hears_no_unicast_to_its_port() {
    let address = address("udp://239.255.70.4:47704?if=127.0.0.1&ttl=0");
    let mut alice = MulticastReceiver::open(&address).expect("alice");
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    stranger
        .send_to(b"to the port", "127.0.0.1:47704")
        .expect("sent");
    assert!(stays_quiet(&mut alice).await);
}

#[tokio::test]
async fn what_is_too_long_is_not_sent_and_not_taken() {
    let address = address("udp://239.255.70.5:47705?if=127.0.0.1&ttl=0");
    let mut alice = MulticastReceiver::open(&address).expect("alice");
    let server = MulticastSender::open(&address).expect("server");
    let error = server.send(&[1; FRAME_MAX + 1]).expect_err("too long");
    assert_eq!(
        error.to_string(),
        "a frame of 1201 octets is longer than the 1200 that a carrier moves"
    );
    for len in [FRAME_MAX + 1, 9000] {
        server
            .socket
            .send_to(&vec![1; len], address.group())
            .expect("sent past the check");
    }
    server.send(b"after").expect("sent");
    assert_eq!(hears(&mut alice).await, b"after");
    assert_eq!(alice.dropped_too_long(), 2);
}

#[tokio::test]
async fn the_kernel_refuses_to_send_from_a_receiver() {
    let address = address("udp://239.255.70.6:47706?if=127.0.0.1&ttl=0");
    let mut alice = MulticastReceiver::open(&address).expect("alice");
    let error = alice
        .socket
        .send_to(b"x", address.group())
        .await
        .expect_err("shut");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    MulticastSender::open(&address)
        .expect("server")
        .send(b"still")
        .expect("sent");
    assert_eq!(hears(&mut alice).await, b"still");
}

#[tokio::test]
async fn an_interface_of_another_machine_is_named() {
    // TEST-NET-1 (RFC 5737): nobody's.
    let address = address("udp://239.255.70.7:47707?if=192.0.2.1");
    let sentence = "no interface of this machine has the address 192.0.2.1: write the address of \
                    one that `ip address` shows after if= in the carrier address";
    let sender = MulticastSender::open(&address).expect_err("no such interface");
    assert_eq!(sender.to_string(), sentence);
    let receiver = MulticastReceiver::open(&address).expect_err("no such interface");
    assert_eq!(receiver.to_string(), sentence);
}
