#!/usr/bin/env python3
"""Many small UDP packets at a rate, and who arrived. What a test or a measurement runs inside a
network namespace; it says one JSON document.

Usage: udp_load.py receive ADDRESS PORT [--size N] [--seconds S] [--uncounted]
       udp_load.py send ADDRESS PORT [--size N] [--seconds S] [--rate PACKETS A SECOND] [--batch N]
                    [--uncounted]

Each packet begins with its number (8 octets). The receiver says `ready`, then counts until it hears
the sender's last words or the time is over. One call of sendmmsg or recvmmsg takes a batch, so that
the load costs the machine little beside what is measured; with --uncounted it costs still less: the
packets are not numbered, and it is known how many came, not which.
"""

import argparse
import ctypes
import json
import socket
import struct
import sys
import time

LAST_WORDS = 0xFFFF_FFFF_FFFF_FFFF
RECEIVE_BUFFER = 16 << 20
SO_RCVBUFFORCE = 33
MSG_WAITFORONE = 0x10000


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Head(ctypes.Structure):
    """struct msghdr of Linux on 64 bits."""

    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32),
                ("iovec", ctypes.POINTER(Iovec)), ("iovec_length", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int)]


class Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = [("head", Head), ("length", ctypes.c_uint)]


class Batch:
    """`count` packets of `size` octets, side by side in one buffer."""

    def __init__(self, count: int, size: int):
        self.count, self.size = count, size
        self.octets = bytearray(count * size)
        base = ctypes.addressof((ctypes.c_char * len(self.octets)).from_buffer(self.octets))
        self.iovecs = (Iovec * count)(*((base + i * size, size) for i in range(count)))
        self.messages = (Message * count)()
        for message, iovec in zip(self.messages, self.iovecs):
            message.head.iovec, message.head.iovec_length = ctypes.pointer(iovec), 1
        self.libc = ctypes.CDLL(None, use_errno=True)

    def number(self, first: int, count: int) -> None:
        for i in range(count):
            struct.pack_into(">Q", self.octets, i * self.size, first + i)

    def numbers(self, count: int) -> list:
        return [struct.unpack_from(">Q", self.octets, i * self.size)[0] for i in range(count)]

    def send(self, out: socket.socket, count: int) -> int:
        """How many were taken."""
        return max(0, self.libc.sendmmsg(out.fileno(), self.messages, count, 0))

    def receive(self, ear: socket.socket) -> int:
        """Waits for at least one; how many came."""
        return max(0, self.libc.recvmmsg(ear.fileno(), self.messages, self.count, MSG_WAITFORONE,
                                         None))


def main() -> int:
    words = argparse.ArgumentParser()
    words.add_argument("role", choices=("send", "receive"))
    words.add_argument("address")
    words.add_argument("port", type=int)
    words.add_argument("--size", type=int, default=64)
    words.add_argument("--seconds", type=float, default=1.0)
    words.add_argument("--rate", type=float, default=0, help="packets a second; 0: as fast as it goes")
    words.add_argument("--batch", type=int, default=32)
    words.add_argument("--uncounted", action="store_true")
    asked = words.parse_args()
    print(json.dumps((send if asked.role == "send" else receive)(asked)), flush=True)
    return 0


def send(asked: argparse.Namespace) -> dict:
    out = connected(asked)
    batch, sent, refused = Batch(asked.batch, asked.size), 0, 0
    began = time.monotonic()
    end = began + asked.seconds
    now = began
    while now < end:
        due = int((now - began) * asked.rate) - sent if asked.rate else asked.batch
        if due > 0:
            due = min(due, asked.batch)
            if not asked.uncounted:
                batch.number(sent, due)
            taken = batch.send(out, due)
            refused += taken == 0
            sent += taken
        else:
            time.sleep(min(0.0002, 1 / asked.rate))
        now = time.monotonic()
    took = now - began
    for _ in range(3):
        time.sleep(0.05)
        batch.number(LAST_WORDS, 1)
        batch.send(out, 1)
    return {"sent": sent, "refused": refused, "seconds": took, "rate": sent / took}


def receive(asked: argparse.Namespace) -> dict:
    ear = socket.socket(family(asked.address), socket.SOCK_DGRAM)
    ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    ear.bind((asked.address, asked.port))
    ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 200_000))
    print("ready", flush=True)
    batch = Batch(256, asked.size)
    if asked.uncounted:
        return receive_uncounted(ear, batch, asked.seconds)
    seen, received, twice, late, highest = bytearray(1 << 16), 0, 0, 0, -1
    gap, last, first = 0.0, None, None
    end = time.monotonic() + asked.seconds
    over = False
    while not over and time.monotonic() < end:
        numbers = batch.numbers(batch.receive(ear))
        now = time.monotonic()
        for number in numbers:
            if number == LAST_WORDS:
                over = True
                continue
            if number >= len(seen):
                seen.extend(bytes(number + (1 << 16) - len(seen)))
            twice += seen[number]
            seen[number] = 1
            late += number < highest
            highest = max(highest, number)
            received += 1
        if numbers and not over:
            gap = max(gap, now - last) if last else gap
            first, last = first or now, now
    return {"received": received - twice, "twice": twice, "out_of_order": late, "highest": highest,
            "seconds": last - first if last else 0.0, "longest_gap": gap,
            "missing": runs(seen, highest), "ended": over}


def receive_uncounted(ear: socket.socket, batch: Batch, seconds: float) -> dict:
    received, first, last, over = 0, None, None, False
    end = time.monotonic() + seconds
    while not over and (now := time.monotonic()) < end:
        count = batch.receive(ear)
        # The last words come alone, after a pause.
        over = count > 0 and batch.numbers(1) == [LAST_WORDS]
        if count and not over:
            received += count
            first, last = first or now, time.monotonic()
    return {"received": received, "seconds": last - first if last else 0.0, "ended": over}


def runs(seen: bytearray, highest: int, most: int = 20) -> list:
    """The first runs of numbers that did not come, as [first, how many]."""
    found, at = [], seen.find(0, 0, highest + 1)
    while at != -1 and len(found) < most:
        end = seen.find(1, at, highest + 1)
        end = highest + 1 if end == -1 else end
        found.append([at, end - at])
        at = seen.find(0, end, highest + 1)
    return found


def connected(asked: argparse.Namespace) -> socket.socket:
    out = socket.socket(family(asked.address), socket.SOCK_DGRAM)
    out.connect((asked.address, asked.port))
    return out


def family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


if __name__ == "__main__":
    sys.exit(main())
