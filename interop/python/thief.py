"""A thief with a terminal's memory, its raw disk and every recording: finds keys, and opens what they open.

What lies on the disk is read as the module doc of `keyfall-terminal`'s key store says; all else as docs/PROTOCOL.md says.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Optional

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

import media
from reader import (Key, Refused, det, open_keydist, open_order, opens_any, tag_hash)

MAGIC, LOCK_MAGIC = b"KF1 slot", b"KF1 lock"
DEVICE, USER = b"KF1 device store", b"KF1 user store"
OFFSETS = 65


# -- The disk


@dataclass(frozen=True)
class Slot:
    """128 octets that open one sealed snapshot."""
    counter: int
    length: int
    record: int
    part: bytes
    digest: bytes


@dataclass(frozen=True)
class UnlockRecord:
    """What opens the user key where somebody has the passphrase."""
    number: int
    costs: tuple
    salt: bytes
    sealed: bytes

    def user_key(self, passphrase: str) -> Optional[bytes]:
        memory, passes, lanes = self.costs
        key = Argon2id(salt=self.salt, length=32, iterations=passes, lanes=lanes,
                       memory_cost=memory).derive(passphrase.encode())
        return unseal(key, self.sealed, b"KF1 unlock")


def slots_in(octets: bytes) -> set:
    """Every whole root slot, wherever it lies."""
    found = set()
    for at in places(octets, MAGIC):
        slot = octets[at:at + 128]
        if hashlib.sha256(slot[:96]).digest() == slot[96:]:
            number = [int.from_bytes(slot[i:i + 8], "big") for i in (8, 16, 24)]
            found.add(Slot(*number, slot[32:64], slot[64:96]))
    return found


def records_in(octets: bytes) -> set:
    found = set()
    for at in places(octets, LOCK_MAGIC):
        costs = tuple(int.from_bytes(octets[i:i + 4], "big") for i in range(at + 18, at + 30, 4))
        number = int.from_bytes(octets[at + 8:at + 16], "big")
        found.add(UnlockRecord(number, costs, octets[at + 30:at + 62], octets[at + 62:at + 110]))
    return found


def places(octets: bytes, wanted: bytes):
    at = octets.find(wanted)
    while at >= 0:
        yield at
        at = octets.find(wanted, at + 1)


def sealed_in(image: bytes, slots) -> dict:
    """Sealed snapshots of those slots, by digest, wherever a block of the image begins with one."""
    wanted = {}
    for slot in slots:
        wanted.setdefault(slot.length, set()).add(slot.digest)
    found = {}
    for at in range(0, len(image), 1024):
        if not any(image[at:at + 16]):
            continue
        for length, digests in wanted.items():
            sealed = image[at:at + length]
            digest = hashlib.sha256(sealed).digest()
            if digest in digests:
                found[digest] = sealed
    return found


def snapshot_key(part: bytes, user_key: Optional[bytes]) -> bytes:
    if user_key is None:
        return part
    return HKDF(SHA256(), 32, part, b"KF1 user").derive(user_key)


def unseal(key: bytes, sealed: bytes, aad: bytes) -> Optional[bytes]:
    try:
        return AESGCM(key).decrypt(bytes(12), sealed, aad)
    except InvalidTag:
        return None


def opened_with(sealed: bytes, keys) -> Optional[bytes]:
    """The snapshot of either compartment, where one of the keys is its own."""
    for key in keys:
        for aad in (DEVICE, USER):
            plain = unseal(key, sealed, aad)
            if plain is not None:
                return plain
    return None


@dataclass
class Loot:
    """The keys in an opened compartment."""
    number: int
    obey: Optional[Key]
    wrap: Optional[Key]
    masters: list


def read_snapshot(plain: bytes) -> Loot:
    value = cbor2.loads(plain)
    if isinstance(value[1], list):
        # The device compartment begins with the identity.
        number = value[1][0]
        return Loot(number, Key(value[2], 4 * number, 0, 0), None, [])
    number, wrap, generation, _, groups = value[1:6]
    masters = [Key(group[3], 4 * group[0] + 3, group[1], group[2]) for group in groups]
    return Loot(number, None, Key(wrap, 4 * number + 1, 0, generation), masters)


# -- Memory


def windows(octets: bytes, step: int = 1) -> set:
    """Every 32 octets in a row that look drawn, not written."""
    found = set()
    end = len(octets) - 32
    at = 0
    while at <= end:
        if octets[at] == 0 and not any(octets[at:at + 256]):
            at += 256
            continue
        window = octets[at:at + 32]
        if len(set(window)) >= DRAWN:
            found.add(window)
        at += step
    return found


# Of 32 random octets fewer are different not once in a million times.
DRAWN = 21


class Derivation:
    """XL for one key id, epoch, generation and label, for any number of candidates."""

    def __init__(self, kid: int, epoch: int, generation: int, label: str, length: int):
        self.kid, self.epoch, self.generation, self.length = kid, epoch, generation, length
        self.info = det(["KF1", label, kid, epoch, generation, None, length]) + b"\x01"

    def of(self, candidate: bytes) -> bytes:
        return hmac.digest(candidate, self.info, "sha256")[:self.length]

    def found(self, candidates, wanted) -> list:
        return [Key(candidate, self.kid, self.epoch, self.generation)
                for candidate in candidates if self.of(candidate) in wanted]


# -- What it opens


class Thief:
    """Keys of one stolen terminal, and all that follow from them."""

    def __init__(self, number: int):
        self.number = number
        self.obeys, self.wraps, self.masters = [], {}, {}

    def take(self, loot: Loot) -> None:
        self.obeys += [loot.obey] if loot.obey else []
        if loot.wrap:
            self.wraps[loot.wrap.generation] = loot.wrap
        for master in loot.masters:
            self.add_master(master)

    def add_master(self, key: Key) -> None:
        self.masters[key.kid, key.epoch, key.generation] = key

    def search(self, candidates, handles: dict, prints: dict) -> int:
        """Tries candidates as wrap keys against `handles` on the air by generation, and as master
        keys against `prints` by (kid, epoch, generation); how many keys it found."""
        before = len(self.wraps) + len(self.masters)
        for generation, wanted in handles.items():
            derivation = Derivation(4 * self.number + 1, 0, generation, "handle", 5)
            for key in derivation.found(candidates, wanted):
                # Five octets may agree by chance: the wrap decides when a distribution is opened.
                self.wraps.setdefault(generation, key)
        for (kid, epoch, generation), wanted in prints.items():
            derivation = Derivation(kid, epoch, generation, "fingerprint", 8)
            for key in derivation.found(candidates, {wanted}):
                self.add_master(key)
        return len(self.wraps) + len(self.masters) - before

    def wrap_at(self, generation: int) -> Optional[Key]:
        """Derived of the newest that is not newer."""
        older = [held for held in self.wraps if held <= generation]
        return self.wraps[max(older)].renewed(generation) if older else None

    def master_at(self, kid: int, epoch: int, generation: int) -> Optional[Key]:
        older = [held for (k, e, held) in self.masters
                 if (k, e) == (kid, epoch) and held <= generation]
        if not older:
            return None
        key = self.masters[kid, epoch, max(older)].renewed(generation)
        self.add_master(key)
        return key

    def open_distribution(self, command) -> bool:
        """By its handle, at every offset; then by every key whatever the handles say."""
        named = {handle for handle, _ in command.body["recipients"]}
        for offset in range(OFFSETS):
            wrap = self.wrap_at(command.g + offset)
            if wrap is None:
                continue
            contents = open_keydist(command.body, wrap) if wrap.handle() in named else None
            if contents:
                self.add_master(contents.key)
                return True
        return self.opens_somehow(command)

    def opens_somehow(self, command) -> bool:
        tried = [self.wrap_at(command.g)] + list(self.wraps.values()) + [
            Key(obey.octets, 4 * self.number + 1, 0, command.g) for obey in self.obeys]
        return any(key and opens_any(command.body, key) for key in tried)

    def open_order(self, command) -> bool:
        return any(open_order(command, obey) for obey in self.obeys)


class Tape:
    """SRTP packets of one group in the order in which they were heard, with their times."""

    def __init__(self, kid: int, epochs, packets: list):
        self.kid, self.packets, self.masters = kid, packets, {}
        self.epochs = {tag_hash(kid, epoch): epoch for epoch in epochs}

    def generation_of(self, packet: bytes) -> tuple:
        """Epoch and generation by the key tag; no run of a script comes to generation 256."""
        tag = packet[-14:-11]
        return self.epochs.get(tag[:2]), tag[2]

    def opened_by(self, thief: Thief) -> list:
        """Whether each packet opens."""
        return [self.opens(thief, packet) for _, packet in self.packets]

    def opens(self, thief: Thief, packet: bytes) -> bool:
        epoch, generation = self.generation_of(packet)
        if epoch is None:
            return False
        key = thief.master_at(self.kid, epoch, generation)
        try:
            return key is not None and bool(media.unprotect(key, 1, 16, packet, "SRTP"))
        except Refused:
            return False

    def session_keys(self, master: Key) -> list:
        """Of every stream on tape: what is derived of that generation for it."""
        streams = {(packet[-11:-8], packet[-8:-2], packet[8:12]) for _, packet in self.packets
                   if self.generation_of(packet) == (master.epoch, master.generation)}
        keys = []
        for sender, session, ssrc in streams:
            key = media.master(master, 1, int.from_bytes(sender, "big"), session, 0,
                               int.from_bytes(ssrc, "big"))
            keys += [key[:32], media.Session(1, key, "SRTP").key]
        return keys
