"""Key search (docs/PROTOCOL.md section 18): reads and makes probes and answers, and applies the rule."""

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass
from typing import Optional

from reader import MARKER, Refused, demand, det, strict

PROBE, ANSWER = 12, 13


@dataclass(frozen=True)
class Probe:
    nonce: bytes
    source: bytes
    destination: bytes
    record: bytes
    handles: tuple

    def text(self, asker: int, epoch: int, generation: int) -> bytes:
        record = hashlib.sha256(self.record).digest()
        return det(["probe", self.nonce, self.source, self.destination, asker, record, epoch, generation])

    def handle_of(self, key: bytes, asker: int, epoch: int) -> Optional[tuple]:
        """Epoch and generation of the handle that `asker` made with `key`."""
        for mac, of_epoch, generation in self.handles:
            if of_epoch == epoch and mac == authenticate(key, self.text(asker, epoch, generation)):
                return epoch, generation
        return None

    def datagram(self) -> bytes:
        handles = [list(handle) for handle in self.handles]
        return MARKER + det([1, 0, PROBE, self.nonce, self.source, self.destination, self.record, handles])


@dataclass(frozen=True)
class Answer:
    nonce: bytes
    answer_nonce: bytes
    record: bytes
    epoch: int
    generation: int
    mac: bytes

    def text(self, probe: Probe, number: int) -> bytes:
        asked = hashlib.sha256(probe.datagram()[4:]).digest()
        record = hashlib.sha256(self.record).digest()
        return det(["answer", asked, self.answer_nonce, record, self.epoch, self.generation, number,
                    probe.source, probe.destination])

    def is_by(self, key: bytes, probe: Probe, number: int) -> bool:
        return self.mac == authenticate(key, self.text(probe, number))

    def datagram(self) -> bytes:
        return MARKER + det([1, 0, ANSWER, self.nonce, self.answer_nonce, self.record, self.epoch,
                             self.generation, self.mac])


def authenticate(key: bytes, text: bytes) -> bytes:
    return hmac.new(key, text, hashlib.sha256).digest()[:16]


def read(datagram: bytes):
    """The probe or the answer that these octets are."""
    demand(len(datagram) <= 1200 and datagram[:4] == MARKER, "datagram")
    message = strict(datagram[4:])
    demand(isinstance(message, list) and message[:2] == [1, 0] and len(message) > 3, "message")
    if message[2] == PROBE:
        demand(len(message) == 8, "PROBE")
        _, _, _, nonce, source, destination, record, handles = message
        octets(nonce, 16)
        for address in (source, destination):
            demand(isinstance(address, bytes) and len(address) in (4, 16), "address")
        demand(len(source) == len(destination), "family")
        demand(isinstance(record, bytes) and len(record) <= 700, "record")
        demand(isinstance(handles, list) and 1 <= len(handles) <= 16, "handles")
        for handle in handles:
            demand(isinstance(handle, list) and len(handle) == 3, "handle")
            octets(handle[0], 16)
            standing(*handle[1:])
        return Probe(nonce, source, destination, record, tuple(tuple(handle) for handle in handles))
    demand(message[2] == ANSWER and len(message) == 9, "type")
    _, _, _, nonce, answer_nonce, record, epoch, generation, mac = message
    for field in (nonce, answer_nonce, mac):
        octets(field, 16)
    demand(isinstance(record, bytes) and len(record) <= 700, "record")
    standing(epoch, generation)
    return Answer(nonce, answer_nonce, record, epoch, generation, mac)


def octets(value, length: int):
    demand(isinstance(value, bytes) and len(value) == length, "octets")


def standing(epoch, generation):
    for value, most in ((epoch, 2**32 - 1), (generation, 2**31)):
        demand(type(value) is int and 0 <= value <= most, "epoch, generation")


def record_fields(frame: bytes) -> dict:
    """What a protection record says; its signature is looked at elsewhere."""
    payload = strict(frame).value[2]
    number, version, issued_at, not_after, prefixes, _, groups = strict(payload)
    return {"number": number, "version": version, "issued_at": issued_at, "not_after": not_after,
            "prefixes": prefixes, "groups": {group[0]: group for group in groups}}


def holds(prefix: list, address: bytes) -> bool:
    network = ipaddress.ip_network((prefix[0], prefix[1]))
    return len(prefix[0]) == len(address) and ipaddress.ip_address(address) in network


def speaks_for(record: dict, address: bytes) -> bool:
    return any(holds(prefix, address) for prefix in record["prefixes"])


def choose(one: dict, other: dict, source: bytes, destination: bytes) -> Optional[int]:
    """The rule (18.1)."""
    newer, older = sorted((one, other), key=lambda it: (it["issued_at"], it["number"]), reverse=True)
    common = [group for number, group in newer["groups"].items() if number in older["groups"]]

    def longest(group: list, address: bytes) -> Optional[int]:
        return max((prefix[1] for prefix in group[4] if holds(prefix, address)), default=None)

    def best(ranked: list) -> Optional[int]:
        return min(ranked, default=(None,) * 3, key=lambda it: (-it[0], -it[1], it[2]))[2]

    taking = [(group[1], longest(group, destination) or 0, group[0]) for group in common
              if not group[4] or longest(group, destination) is not None]
    back = [(group[1], longest(group, source), group[0]) for group in common
            if longest(group, source) is not None]
    return best(taking or back)
