#!/usr/bin/env python3
"""The datagrams that a device carries to a terminal, recorded, and played to it once more: same
addresses, same ports, same octets. No test stands here.

Usage: packet_tape.py record FILE DEVICE ADDRESS
       packet_tape.py play FILE ADDRESS
"""

import pathlib
import socket
import struct
import subprocess
import sys
import time

import ground

ETH_P_ALL = 3
UDP = 17
# The TOS of what is played, so that it is not recorded again.
PLAYED = 4


class Tape:
    """Records while in the `with`; the device is one that super-packets do not cross (`cut`)."""

    def __init__(self, here: ground.Ground, namespace: str, device: str, to: str):
        self.here, self.namespace, self.device, self.to = here, namespace, device, to
        self.file = here.top / f"tape-{to}"

    def __enter__(self):
        self.process = self.here.start(self.namespace, sys.executable, __file__, "record",
                                       self.file, self.device, self.to,
                                       stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()
        return self

    def __exit__(self, *_):
        self.here.stop(self.process)

    def play(self) -> int:
        """How many datagrams."""
        run = self.here.run(self.namespace, sys.executable, __file__, "play", self.file, self.to)
        if run.returncode != 0:
            raise SystemExit(f"the tape does not play: {run.stderr}")
        return int(run.stdout)


def cut(namespace: str, device: str, whole: bool = False) -> None:
    """From now on a device gets super-packets cut by its kernel; `whole`: as before."""
    ground.sh("ip", "netns", "exec", namespace, "ethtool", "-K", device, "tx-udp-segmentation",
              "on" if whole else "off")


def record(file: pathlib.Path, device: str, address: str) -> None:
    ear = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    ear.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
    ear.bind((device, ETH_P_ALL))
    wanted = socket.inet_aton(address)
    with open(file, "wb", buffering=0) as tape:
        print("ready", flush=True)
        while True:
            packet, (*_, kind, _, _) = ear.recvfrom(65_535)
            if (kind == socket.PACKET_OUTGOING and packet[1] != PLAYED and packet[9] == UDP
                    and packet[16:20] == wanted):
                tape.write(struct.pack(">H", len(packet)) + packet)


def play(file: pathlib.Path, address: str) -> int:
    mouth = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    mouth.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    octets, at, count = file.read_bytes(), 0, 0
    # What is being written now is whole the next time.
    while at + 2 <= len(octets) and at + 2 + (size := struct.unpack_from(">H", octets, at)[0]) <= len(
            octets):
        packet = bytearray(octets[at + 2:at + 2 + size])
        # The device would have completed the checksum; none is as good.
        packet[26:28] = bytes(2)
        packet[1] = PLAYED
        mouth.sendto(packet, (address, 0))
        at, count = at + 2 + size, count + 1
        if count % 64 == 0:
            time.sleep(0.001)
    return count


if __name__ == "__main__":
    role, file, *rest = sys.argv[1:]
    if role == "record":
        record(pathlib.Path(file), *rest)
    print(play(pathlib.Path(file), *rest), flush=True)
