#!/usr/bin/env python3
"""Writes datagrams as a capture that Wireshark reads.

Usage: pcap.py FILE OUT
FILE is JSON: a list of datagrams in hexadecimal (key sharing), or a captured run (docs/PROTOCOL.md section 12), of which
the frames are taken (carrier).
"""

import json
import struct
import sys

SHARING, CARRIER, PACKETS = 47900, 47700, 4500
# Instead of a port: the payload of an ICMP echo request.
ECHO = 0
TERMINAL, SERVER, GROUP = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]), bytes([239, 255, 70, 77])
START = 1_790_018_007


def write(path: str, packets: list):
    """Raw IPv4 (link type 101), one packet a millisecond; a packet is (UDP port, datagram)."""
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101))
        for number, (port, datagram) in enumerate(packets):
            packet = ipv4(number, port, datagram)
            at = divmod(number, 1000)
            file.write(struct.pack("<IIII", START + at[0], at[1] * 1000, len(packet), len(packet)) + packet)


def ipv4(number: int, port: int, datagram: bytes) -> bytes:
    """From a terminal to the server, or from the server to a multicast group. A UDP checksum of 0: none."""
    source, target = (SERVER, GROUP) if port == CARRIER else (TERMINAL, SERVER)
    protocol = 1 if port == ECHO else 17
    udp = (struct.pack(">BBHHH", 8, 0, 0, 1, number % 65_536) if port == ECHO else
           struct.pack(">HHHH", 50_000, port, 8 + len(datagram), 0)) + datagram
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), number % 65_536, 0, 64, protocol, 0, source, target)
    words = sum(struct.unpack(">10H", head))
    words = (words & 0xFFFF) + (words >> 16)
    check = 0xFFFF - ((words & 0xFFFF) + (words >> 16))
    return head[:10] + struct.pack(">H", check) + head[12:] + udp


def main(arguments: list) -> int:
    if len(arguments) != 2:
        print("usage: pcap.py FILE OUT", file=sys.stderr)
        return 2
    with open(arguments[0], encoding="utf-8") as file:
        held = json.load(file)
    port, texts = (CARRIER, held["frames"]) if isinstance(held, dict) else (SHARING, held)
    write(arguments[1], [(port, bytes.fromhex(text)) for text in texts])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
