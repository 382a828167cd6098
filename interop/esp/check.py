#!/usr/bin/env python3
"""ESP between Keyfall and scapy, both ways, and Keyfall's read by tshark.

Usage: check.py INTEROP_ESP      the built example of keyfall-plane
"""

import os
import shutil
import struct
import subprocess
import sys
import tempfile

from scapy.config import conf
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, IPSecIntegrityError, SecurityAssociation
from scapy.packet import Raw

from peer import Peer

conf.verb = 0
HERE, THERE, GROUP = "192.0.2.1", "192.0.2.2", "239.255.70.78"
SUITES = {1: "AES-GCM", 2: "AES-GCM", 3: "CHACHA20-POLY1305"}
PATTERN = b"a word that must not be on the wire "


def inner_packets() -> list:
    """Of every length of padding, both versions, with ICMP, UDP and a fragment."""
    packets = [IP(src="10.1.0.1", dst="10.1.0.2") / ICMP() / Raw(PATTERN + b"x" * n) for n in range(5)]
    packets += [IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=7, dport=8) / Raw(b"y" * n) for n in range(5)]
    packets.append(IP(src="10.1.0.1", dst="239.1.1.1") / UDP(sport=7, dport=8) / Raw(PATTERN * 30))
    packets.append(IP(src="10.1.0.1", dst="10.1.0.2", flags="MF") / Raw(b"z" * 1480))
    return [bytes(packet) for packet in packets]


def association(spi: int, suite: int, material: bytes) -> SecurityAssociation:
    return SecurityAssociation(
        ESP, spi=spi, crypt_algo=SUITES[suite], crypt_key=material,
        tunnel_header=IP(src=HERE, dst=THERE), nat_t_header=UDP(sport=4500, dport=4500))


def same(found, expected, what: str):
    if found != expected:
        raise SystemExit(f"esp: {what}: found {found!r}, expected {expected!r}")


def carried(packet: bytes) -> IP:
    return IP(src=HERE, dst=THERE) / UDP(sport=4500, dport=4500) / ESP(packet)


def opened_by_scapy(ours: Peer, suite: int) -> int:
    spi, material = ours.keyed("session", suite, 12, 2, "b0b1b2b3ff")
    theirs = association(spi, suite, material)
    for inner in inner_packets():
        packet = ours.seal(inner)
        same(PATTERN in packet, False, "plain text in a sealed packet")
        same(bytes(theirs.decrypt(carried(packet))), inner, f"suite {suite}, opened by scapy")
        try:
            theirs.decrypt(carried(packet[:-1] + bytes([packet[-1] ^ 1])))
        except IPSecIntegrityError:
            continue
        raise SystemExit(f"esp: suite {suite}: scapy opened a changed packet")
    return len(inner_packets())


def sealed_by_scapy(ours: Peer, suite: int) -> int:
    """As a stock sender does it: an SPI of its own, any IV, sequence numbers from 1."""
    spi, material = ours.keyed("pinned", suite, 0x1001, "73" * 16)
    theirs = association(spi, suite, material)
    for number, inner in enumerate(inner_packets(), 1):
        layer = IP if inner[0] >> 4 == 4 else IPv6
        packet = bytes(theirs.encrypt(layer(inner))[ESP])
        sequence, found = ours.open(packet)
        same((sequence, found), (number, inner), f"suite {suite}, sealed by scapy")
        same(ours.open(packet), (None, "refused: replayed"), f"suite {suite}, replayed")
        changed = packet[:-1] + bytes([packet[-1] ^ 1])
        same(ours.open(changed)[0], None, f"suite {suite}, changed")
    return len(inner_packets())


def read_by_tshark(ours: Peer, suite: int, target: str, work: str) -> int:
    ours.keyed("session", suite, 0, 2, "c0c1c2c3c4")
    line = ours.ask("wireshark", HERE, target)
    capture = os.path.join(work, "esp.pcap")
    inner = inner_packets()
    with open(capture, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101))
        for packet in inner:
            outer = bytes(IP(src=HERE, dst=target) / UDP(sport=4500, dport=4500) / Raw(ours.seal(packet)))
            file.write(struct.pack("<IIII", 0, 0, len(outer), len(outer)) + outer)
    command = ["tshark", "-r", capture, "-T", "fields", "-E", "occurrence=l", "-e", "esp.sequence",
               "-e", "ip.src", "-e", "ipv6.src", "-e", "data.data", "-e", "udp.payload"]
    closed = run(command)
    read = run([*command, "-o", "esp.enable_encryption_decode:TRUE", "-o", f"uat:esp_sa:{line}"])
    same(len(read), len(inner), f"suite {suite}: packets that tshark read")
    pattern = PATTERN.hex()
    same(any(pattern in row for row in closed), False, f"suite {suite}: tshark without the key")
    for number, (row, packet) in enumerate(zip(read, inner), 1):
        sequence, ipv4, ipv6, *texts = row.split("\t")
        same(int(sequence), number, f"suite {suite}: sequence number")
        source = ipv4 if packet[0] >> 4 == 4 else ipv6
        same(source, "10.1.0.1" if packet[0] >> 4 == 4 else "fd00::1", f"suite {suite}: inner source")
        if PATTERN in packet:
            same(any(pattern in text for text in texts), True, f"suite {suite}: inner text")
    return len(inner)


def run(command: list) -> list:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"esp: tshark failed: {done.stderr.strip()}")
    return done.stdout.splitlines()


def main() -> int:
    ours = Peer(sys.argv[1])
    opened = sum(opened_by_scapy(ours, suite) for suite in SUITES)
    sealed = sum(sealed_by_scapy(ours, suite) for suite in SUITES)
    print(f"esp: ok, scapy opened {opened} of ours and sealed {sealed} for us, replays and changes refused")
    if not shutil.which("tshark"):
        print("esp: tshark is not here (Debian: tshark), so it did not read ours")
        return 0
    with tempfile.TemporaryDirectory() as work:
        read = sum(read_by_tshark(ours, suite, target, work) for suite in (1, 2) for target in (THERE, GROUP))
    print(f"esp: ok, tshark read {read} of ours with the key (AES-GCM), and nothing without")
    return 0


if __name__ == "__main__":
    sys.exit(main())
