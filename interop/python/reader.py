"""Keyfall's messages and keys, read as docs/PROTOCOL.md says, with other people's libraries.

Section numbers are those of docs/PROTOCOL.md. Written from that page alone.
"""

import hashlib
import unicodedata
from dataclasses import dataclass
from typing import Optional

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap
from cwt import COSE, COSEKey
from cwt.exceptions import CWTError

YEAR_2026 = 1_767_225_600
FRAME_MAX, PACKAGE_MAX = 1200, 16_384
BEAT, KEYS, ERASE, KEM = 1, 2, 3, 4
TIME, RENEW, KEYDIST, KEYSET = 1, 2, 3, 8
CLASS_OF = {TIME: BEAT, RENEW: BEAT, KEYDIST: KEYS}


class Refused(Exception):
    """Not a message of this release, or not for whoever reads it."""


# -- Section 1: deterministic CBOR


def strict(octets: bytes):
    """The one value whose one encoding these octets are."""
    try:
        value = cbor2.loads(octets)
        again = cbor2.dumps(value, canonical=True)
    except Exception as fault:  # whatever a stranger's octets make the library raise
        raise Refused(f"not CBOR: {fault}") from fault
    if again != octets:
        raise Refused("not deterministic, or something follows the end")
    return value


def det(value) -> bytes:
    return cbor2.dumps(value, canonical=True)


def demand(condition: bool, what: str):
    if not condition:
        raise Refused(what)


def uint(value, most: int, what: str) -> int:
    demand(type(value) is int and 0 <= value <= most, what)
    return value


def octets(value, length: int, what: str) -> bytes:
    demand(type(value) is bytes and len(value) == length, what)
    return value


def items(value, least: int, most: int, what: str) -> list:
    demand(type(value) is list and least <= len(value) <= most, what)
    return value


def fields(value, wanted: set, optional: set, what: str) -> dict:
    demand(type(value) is dict and wanted <= set(value) <= wanted | optional, what)
    return value


def tagged(value, tag: int, what: str) -> list:
    demand(isinstance(value, cbor2.CBORTag) and value.tag == tag, what)
    return items(value.value, 4, 4, what)


# -- Section 2: numbers


def seconds(value) -> int:
    return uint(value, 2**32 - 1, "time")


def generation(value) -> int:
    return uint(value, 2**31, "generation")


def epoch(value) -> int:
    return uint(value, 2**32 - 1, "epoch")


def kid(value) -> int:
    number, kind = divmod(uint(value, 2**32 - 1, "kid"), 4)
    demand(value == 0 or kind == 2 or number > 0, "kid")
    demand(kind > 1 or number < 2**24, "kid")
    return value


def group_number(value) -> int:
    demand(uint(value, 2**30 - 1, "group") > 0, "group")
    return value


def terminal_number(value) -> int:
    demand(uint(value, 2**24 - 1, "terminal") > 0, "terminal")
    return value


def schedule(step, period):
    if step is None and period is None:
        return None
    uint(step, 64, "step"), uint(period, 2**32 - 1, "period")
    demand(step >= 1 and period >= 1 and step * 600 <= 64 * period, "schedule")
    return step, period


def key_name(public: bytes) -> bytes:
    return hashlib.sha256(public).digest()[:8]


# -- Section 3: key schedule


@dataclass(frozen=True)
class Key:
    octets: bytes
    kid: int
    epoch: int
    generation: int

    def info(self, label: str, ctx, length: int) -> bytes:
        return det(["KF1", label, self.kid, self.epoch, self.generation, ctx, length])

    def xl(self, label: str, ctx, length: int) -> bytes:
        return HKDFExpand(SHA256(), length, self.info(label, ctx, length)).derive(self.octets)

    def renewed(self, to: int) -> "Key":
        demand(to >= self.generation, "a generation never goes down")
        key = self
        for reached in range(self.generation, to):
            key = Key(key.xl("renew", None, 32), self.kid, self.epoch, reached + 1)
        return key

    def handle(self) -> bytes:
        return self.xl("handle", None, 5)

    def fingerprint(self) -> str:
        return self.xl("fingerprint", None, 8).hex()

    def tag(self) -> bytes:
        return tag_hash(self.kid, self.epoch) + bytes([self.generation % 256])


def tag_hash(kid_: int, epoch_: int) -> bytes:
    return hashlib.sha256(det(["KF1", "tag", kid_, epoch_])).digest()[:2]


# -- Section 4: commands


@dataclass
class Command:
    signer: bytes
    stream: bytes
    sequence: int
    issued_at: int
    not_after: int
    type: int
    target: list
    body: dict
    g: int
    frame: bytes


def read_frame(frame: bytes) -> Command:
    """Decodes; nothing is verified yet."""
    demand(len(frame) <= FRAME_MAX, "longer than a frame")
    protected, unprotected, payload, signature = tagged(strict(frame), 18, "COSE_Sign1")
    demand(type(protected) is bytes and type(payload) is bytes, "COSE_Sign1")
    demand(unprotected == {} and type(unprotected) is dict, "unprotected header")
    octets(signature, 64, "signature")
    header = fields(strict(protected), {1, 4}, set(), "protected header")
    demand(header[1] == -19, "algorithm")
    c = fields(strict(payload), {1, 2, 3, 4, 5, 6, 7, 8}, set(), "command")
    bodies = {TIME: read_time, RENEW: read_renew, KEYDIST: read_keydist, KEYSET: read_keyset}
    demand(type(c[5]) is int and c[5] in bodies, "type")
    return Command(
        signer=octets(header[4], 8, "key name"),
        stream=octets(c[1], 4, "stream"),
        sequence=uint(c[2], 2**64 - 1, "sequence"),
        issued_at=seconds(c[3]),
        not_after=seconds(c[4]),
        type=c[5],
        target=read_target(c[6]),
        body=bodies[c[5]](c[7]),
        g=generation(c[8]),
        frame=frame,
    )


def read_target(value) -> list:
    items(value, 1, 2, "target")
    demand(type(value[0]) is int, "target")
    if len(value) == 1:
        demand(value[0] in (0, 3), "target")
    else:
        demand(value[0] in (1, 2), "target")
        group_number(value[1]) if value[0] == 1 else terminal_number(value[1])
    return value


def read_time(value) -> dict:
    body = fields(value, {1, 2}, {3}, "TIME")
    seconds(body[1]), uint(body[2], 2**32 - 1, "error")
    if 3 in body:
        for floor in items(body[3], 1, 66, "floors"):
            items(floor, 3, 3, "floor")
            kid(floor[0]), epoch(floor[1]), generation(floor[2])
    return {"seconds": body[1], "max_error_ms": body[2], "floors": body.get(3, [])}


def read_renew(value) -> dict:
    entries = items(fields(value, {1}, set(), "RENEW")[1], 1, 32, "entries")
    for entry in entries:
        items(entry, 7, 7, "entry")
        kid(entry[0]), epoch(entry[1]), generation(entry[2]), seconds(entry[3])
        schedule(entry[4], entry[5])
        if entry[6] is not None:
            seconds(entry[6])
    return {"entries": entries}


def read_keydist(value) -> dict:
    protected, unprotected, ciphertext, recipients = tagged(value, 96, "COSE_Encrypt")
    demand(protected == bytes.fromhex("a10103"), "content header")
    iv = octets(fields(unprotected, {5}, set(), "content header")[5], 12, "IV")
    demand(type(ciphertext) is bytes and len(ciphertext) <= 144, "ciphertext")
    read = []
    for recipient in items(recipients, 1, 17, "recipients"):
        protected, header, wrapped = items(recipient, 3, 3, "recipient")
        demand(protected == b"", "recipient header")
        header = fields(header, {1, 4}, set(), "recipient header")
        demand(header[1] == -5, "algorithm")
        read.append((octets(header[4], 5, "handle"), octets(wrapped, 40, "wrapped key")))
    return {"cose": det(value), "iv": iv, "ciphertext": ciphertext, "recipients": read}


def read_keyset(value) -> dict:
    body = fields(value, {1, 2, 3, 4, 8}, set(), "KEYSET")
    uint(body[1], 2**32 - 1, "version"), seconds(body[2])
    keys = [read_listed_key(key) for key in items(body[3], 1, 12, "keys")]
    demand(len({key["public"] for key in keys}) == len(keys), "a key has one class")
    g0, t0, p0 = items(body[4], 3, 3, "fleet schedule")
    generation(g0), seconds(t0)
    demand(uint(p0, 2**32 - 1, "P0") >= 1, "P0")
    limits = fields(body[8], {1, 4}, set(), "limits")
    uint(limits[1], 2**32 - 1, "longest lease"), uint(limits[4], 2**32 - 1, "grace")
    return {
        "version": body[1],
        "issued_at": body[2],
        "keys": keys,
        "fleet_schedule": (g0, t0, p0),
        "longest_lease": limits[1],
        "grace": limits[4],
    }


def read_listed_key(value) -> dict:
    name, public, class_, not_before, expires, groups = items(value, 6, 6, "listed key")
    octets(public, 32, "public key")
    demand(name == key_name(public), "key name")
    demand(type(class_) is int and 1 <= class_ <= 4, "class")
    demand(seconds(not_before) <= seconds(expires), "expires")
    demand(class_ > KEYS or expires - not_before <= 30 * 86_400, "expires")
    for group in items(groups, 0, 64, "groups"):
        group_number(group)
    return {
        "name": name,
        "public": public,
        "class": class_,
        "not_before": not_before,
        "expires": expires,
        "groups": groups,
    }


def verifies(command: Command, public: bytes) -> bool:
    """Whether the frame is signed by this key, as python-cwt judges."""
    key = COSEKey.new({1: 1, 2: command.signer, 3: -19, 4: [2], -1: 6, -2: public})
    try:
        COSE.new().decode(command.frame, key, external_aad=b"KF1/cmd")
    except CWTError:
        return False
    return True


def obeyed(command: Command, keyset: dict, root: bytes) -> bool:
    """Section 6.1, as far as it can be judged without a clock and a state."""
    if command.type == KEYSET:
        return command.signer == key_name(root) and verifies(command, root)
    signer = next((key for key in keyset["keys"] if key["name"] == command.signer), None)
    if signer is None or signer["class"] != CLASS_OF[command.type]:
        return False
    g0, t0, p0 = keyset["fleet_schedule"]
    g_max = g0 + -(-max(signer["expires"] - t0, 0) // p0) + 64
    return (
        signer["not_before"] <= command.issued_at <= signer["expires"]
        and command.g <= g_max
        and (command.target[0] != 1 or command.target[1] in (signer["groups"] or command.target))
        and verifies(command, signer["public"])
    )


@dataclass(frozen=True)
class Contents:
    key: Key
    activate_at: int
    schedule: Optional[tuple]
    lease_end: Optional[int]


def read_contents(plain: bytes) -> Contents:
    c = fields(strict(plain), {1, 2, 3, 4, 6}, {7, 8}, "contents")
    demand(kid(c[1]) % 4 == 3, "kid of a master key")
    if 7 in c:
        items(c[7], 2, 2, "schedule")
        demand(None not in c[7], "schedule")
    return Contents(
        Key(octets(c[4], 32, "key"), c[1], epoch(c[2]), generation(c[3])),
        seconds(c[6]),
        schedule(*c[7]) if 7 in c else None,
        seconds(c[8]) if 8 in c else None,
    )


def open_keydist(body: dict, wrap: Key) -> Optional[Contents]:
    """Section 4.3 by hand; `None` where no recipient has this key's handle or it does not open."""
    for handle, wrapped in body["recipients"]:
        if handle == wrap.handle():
            kek = unwrap(wrapped, wrap)
            if kek:
                return open_content(body, kek)
    return None


def open_by_cose(body: dict, wrap: Key) -> Contents:
    """The same by python-cwt alone."""
    key = COSEKey.new({1: 4, 2: wrap.handle(), 3: -5, -1: wrap.xl("wrap", None, 32)})
    try:
        return read_contents(COSE.new().decode(body["cose"], key))
    except CWTError as fault:
        raise Refused(str(fault)) from fault


def opens_any(body: dict, wrap: Key) -> bool:
    """Whether any wrap opens with this key, whatever its handle says."""
    return any(unwrap(wrapped, wrap) for _, wrapped in body["recipients"])


def unwrap(wrapped: bytes, wrap: Key) -> Optional[bytes]:
    try:
        return aes_key_unwrap(wrap.xl("wrap", None, 32), wrapped)
    except InvalidUnwrap:
        return None


def open_content(body: dict, kek: bytes) -> Optional[Contents]:
    aad = det(["Encrypt", bytes.fromhex("a10103"), b""])
    try:
        return read_contents(AESGCM(kek).decrypt(body["iv"], body["ciphertext"], aad))
    except InvalidTag:
        return None


# -- Section 8: enrolment package

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
    number, name, fleet, root, frame, streams, carriers, keep = items(identity, 8, 8, "identity")
    terminal_number(number)
    for text in [name, fleet, *items(carriers, 0, 16, "carriers")]:
        demand(type(text) is str and 1 <= len(text.encode()) <= 200, "text")
        demand(not any(unicodedata.category(c) == "Cc" for c in text), "text")
    octets(root, 32, "root")
    demand(type(frame) is bytes, "KEYSET")
    command = read_frame(frame)
    demand(command.type == KEYSET and verifies(command, root), "KEYSET")
    for stream in items(streams, 1, 16, "streams"):
        octets(stream, 4, "stream")
    return Package(
        number, name, fleet, root, frame, command.body, streams, carriers,
        uint(keep, 2**32 - 1, "keep time"),
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
