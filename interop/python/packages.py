"""Enrolment packages, codes and request keys (docs/PROTOCOL.md section 8)."""

import hashlib
import unicodedata
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from reader import (KEYSET, Key, Refused, demand, generation, items, key_name, octets, read_frame,
                    seconds, strict, terminal_number, uint, verifies)

PACKAGE_MAX = 16_384
LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True)
class Package:
    number: int
    name: str
    fleet: str
    root: bytes
    keyset_frame: bytes
    keyset: dict
    streams: list
    carriers: list
    keep_time: int
    wipe_roots: list
    servers: list
    obey: Key
    wrap: Key
    issued_at: int
    expires: int


def read_sealed(package: bytes) -> list:
    demand(len(package) <= PACKAGE_MAX, "longer than a package")
    value = items(strict(package), 4, 5, "package")
    demand(value[0] == "KF1/enrol" and type(value[1]) is int, "package")
    if (value[1], len(value)) == (1, 4):
        demand(type(value[2]) is bytes and type(value[3]) is bytes, "package")
    else:
        demand((value[1], len(value)) == (2, 5), "form")
        octets(value[2], 16, "salt"), octets(value[3], 12, "IV")
        demand(type(value[4]) is bytes, "package")
    return value


def read_package(plain: bytes) -> Package:
    identity, obey, wrap, g, issued_at, expires = items(strict(plain), 6, 6, "package")
    number, name, fleet, root, frame, streams, carriers, servers, keep, wipe_roots = items(
        identity, 10, 10, "identity")
    terminal_number(number)
    items(wipe_roots, 0, 8, "wipe roots")
    for text in [name, fleet, *items(carriers, 0, 16, "carriers"), *items(servers, 0, 16, "servers"),
                 *wipe_roots]:
        demand(type(text) is str and 1 <= len(text.encode()) <= 200, "text")
        demand(not any(unicodedata.category(c) == "Cc" for c in text), "text")
    for path in wipe_roots:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        demand(path.startswith("/") and parts and ".." not in parts, "wipe root")
    octets(root, 32, "root")
    demand(type(frame) is bytes, "KEYSET")
    command = read_frame(frame)
    demand(command.type == KEYSET and verifies(command, {key_name(root): root}), "KEYSET")
    for stream in items(streams, 1, 16, "streams"):
        octets(stream, 4, "stream")
    return Package(
        number, name, fleet, root, frame, command.body, streams, carriers,
        uint(keep, 2**32 - 1, "keep time"),
        wipe_roots,
        servers,
        Key(octets(obey, 32, "obey key"), 4 * number, 0, 0),
        Key(octets(wrap, 32, "wrap key"), 4 * number + 1, 0, generation(g)),
        seconds(issued_at),
        seconds(expires),
    )


def open_under_code(package: bytes, code: str) -> Package:
    _, form, salt, iv, ciphertext = read_sealed(package)
    key = Argon2id(
        salt=salt, length=32, iterations=2, lanes=1, memory_cost=19_456
    ).derive(read_code(code).encode())
    try:
        return read_package(AESGCM(key).decrypt(iv, ciphertext, b"KF1/enrol"))
    except InvalidTag as fault:
        raise Refused("the package does not open with this code") from fault


def letters(typed: str) -> list:
    """Values of the letters that a person typed."""
    alike = {"O": "0", "I": "1", "L": "1"}
    kept = [alike.get(c.upper(), c.upper()) for c in typed if c not in " -"]
    demand(all(len(c) == 1 and c in LETTERS for c in kept), "not a letter")
    return [LETTERS.index(c) for c in kept]


def read_code(typed: str) -> str:
    values = letters(typed)
    demand(len(values) == 16, "not a code")
    return "".join(LETTERS[value] for value in values)


def code_of(random: bytes) -> str:
    text = "".join(LETTERS[octet & 31] for octet in octets(random, 16, "random octets"))
    return "-".join(text[at:at + 4] for at in range(0, 16, 4))


def request_text(public: bytes) -> str:
    number = int.from_bytes(public + hashlib.sha256(public).digest()[:3], "big")
    return "KF1-" + "".join(LETTERS[number >> at & 31] for at in range(275, -1, -5))


def read_request(typed: str) -> bytes:
    values = letters(typed)
    demand(values[:3] == letters("KF1") and len(values) == 59, "not a request key")
    number = 0
    for value in values[3:]:
        number = number << 5 | value
    held = number.to_bytes(35, "big")
    demand(hashlib.sha256(held[:32]).digest()[:3] == held[32:], "a slip of the hand")
    return held[:32]
