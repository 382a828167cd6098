"""Keyfall's messages and keys, read as docs/PROTOCOL.md says, with other people's libraries.

Section numbers are those of docs/PROTOCOL.md. Written from that page alone.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Optional

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap
from cwt import COSE, COSEKey
from cwt.exceptions import CWTError

YEAR_2026 = 1_767_225_600
FRAME_MAX = 1200
# None of the classes 4 (X25519), 5 (X-Wing) and 6 (RSA) signs.
BEAT, KEYS, ERASE = 1, 2, 3
TIME, RENEW, KEYDIST, DELETE, INIT, EXCLUDE, KEYSET, LOCK, UNLOCK = 1, 2, 3, 4, 5, 6, 8, 15, 16
STOP, START, NOTIFY = 10, 11, 12
ORDERS = (DELETE, INIT, LOCK, UNLOCK)
CLASS_OF = {TIME: BEAT, RENEW: BEAT, KEYDIST: KEYS, EXCLUDE: KEYS, STOP: KEYS, START: KEYS,
            NOTIFY: BEAT} | dict.fromkeys(ORDERS, ERASE)
STOP_ACK, START_ACK, BUNDLE = 5, 6, 11
MARKER = bytes(4)


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


def tagged(value, tag: int, length: int, what: str) -> list:
    demand(isinstance(value, cbor2.CBORTag) and value.tag == tag, what)
    return items(value.value, length, length, what)


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


def transaction(value) -> int:
    return uint(value, 2**64 - 1, "transaction")


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
    # Key names of all who signed, rising.
    signers: list
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
    whole = strict(frame)
    demand(isinstance(whole, cbor2.CBORTag), "a tag")
    if whole.tag == 98:
        signers, payload = read_together(tagged(whole, 98, 4, "COSE_Sign"))
    else:
        protected, unprotected, payload, signature = tagged(whole, 18, 4, "COSE_Sign1")
        signers = [read_signature(protected, unprotected, signature)]
    demand(type(payload) is bytes, "payload")
    c = fields(strict(payload), {1, 2, 3, 4, 5, 6, 7, 8}, set(), "command")
    bodies = {TIME: read_time, RENEW: read_renew, KEYDIST: read_keydist, EXCLUDE: read_exclude,
              KEYSET: read_keyset, STOP: read_halt, START: read_halt,
              NOTIFY: read_notify} | dict.fromkeys(ORDERS, read_order)
    demand(type(c[5]) is int and c[5] in bodies, "type")
    target, body = read_target(c[6]), bodies[c[5]](c[7])
    demand(c[5] not in (STOP, START) or target == [1, body["group"]], "target of a STOP")
    demand(c[5] != NOTIFY or target[0] != 3, "target of a NOTIFY")
    return Command(
        signers=signers,
        stream=octets(c[1], 4, "stream"),
        sequence=uint(c[2], 2**64 - 1, "sequence"),
        issued_at=seconds(c[3]),
        not_after=seconds(c[4]),
        type=c[5],
        target=target,
        body=body,
        g=generation(c[8]),
        frame=frame,
    )


def read_together(parts: list) -> tuple:
    protected, unprotected, payload, signatures = parts
    demand(protected == b"" and type(protected) is bytes, "protected header of the body")
    demand(unprotected == {} and type(unprotected) is dict, "unprotected header")
    names = [read_signature(*items(signature, 3, 3, "signature"))
             for signature in items(signatures, 2, 4, "signatures")]
    demand(all(one < next_ for one, next_ in zip(names, names[1:])), "signatures by rising name")
    return names, payload


def read_signature(protected, unprotected, signature) -> bytes:
    """The name of the key that is said to have signed."""
    demand(type(protected) is bytes, "protected header")
    demand(unprotected == {} and type(unprotected) is dict, "unprotected header")
    octets(signature, 64, "signature")
    header = fields(strict(protected), {1, 4}, set(), "protected header")
    demand(header[1] == -19, "algorithm")
    return octets(header[4], 8, "key name")


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
    protected, unprotected, ciphertext, recipients = tagged(value, 96, 4, "COSE_Encrypt")
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


def read_order(value) -> dict:
    """DELETE, INIT, LOCK, UNLOCK: what stands outside of the seal."""
    protected, unprotected, ciphertext = tagged(value, 16, 3, "COSE_Encrypt0")
    demand(type(protected) is bytes, "content header")
    header = fields(strict(protected), {1, 4}, set(), "content header")
    demand(header[1] == 3 and type(header[1]) is int, "algorithm")
    iv = octets(fields(unprotected, {5}, set(), "content header")[5], 12, "IV")
    demand(type(ciphertext) is bytes and len(ciphertext) <= 64, "ciphertext")
    return {"cose": det(value), "protected": protected, "iv": iv, "ciphertext": ciphertext,
            "handle": octets(header[4], 5, "handle")}


def read_exclude(value) -> dict:
    body = fields(value, {1, 2}, set(), "EXCLUDE")
    terminals = [terminal_number(number) for number in items(body[1], 1, 64, "terminals")]
    demand(all(one < next_ for one, next_ in zip(terminals, terminals[1:])), "terminals rise")
    for entry in items(body[2], 0, 36, "groups"):
        group, old, new, heal = items(entry, 4, 4, "group")
        group_number(group)
        demand(epoch(old) < epoch(new) and heal is None, "epochs")
    return {"terminals": terminals, "groups": body[2]}


def clear_prefix(value) -> tuple:
    address, length = items(value, 2, 2, "prefix")
    demand(isinstance(address, bytes) and len(address) in (4, 16), "prefix")
    uint(length, 8 * len(address), "prefix length")
    demand(int.from_bytes(address, "big") % 2**(8 * len(address) - length) == 0, "host bits")
    return address, length


def read_keyset(value) -> dict:
    body = fields(value, {1, 2, 3, 4, 8}, {6}, "KEYSET")
    uint(body[1], 2**32 - 1, "version"), seconds(body[2])
    keys = [read_listed_key(key) for key in items(body[3], 1, 12, "keys")]
    demand(len({key["public"] for key in keys}) == len(keys), "a key has one class")
    g0, t0, p0 = items(body[4], 3, 3, "fleet schedule")
    generation(g0), seconds(t0)
    demand(uint(p0, 2**32 - 1, "P0") >= 1, "P0")
    stolen = []
    if 6 in body:
        stolen = [octets(name, 8, "stolen key") for name in items(body[6], 1, 8, "stolen keys")]
    limits = fields(body[8], {1, 4, 5, 6, 7, 8}, {2, 3}, "limits")
    suites = [uint(suite, 4, "suite") for suite in items(limits.get(3, [1]), 1, 4, "suites")]
    demand(0 not in suites and len(set(suites)) == len(suites), "suites")
    demand(limits.get(3) != [1], "psk alone is not said")
    clear = [clear_prefix(prefix) for prefix in items(limits[2], 1, 8, "clear list")] if 2 in limits else []
    # IPv4 stands before IPv6.
    order = sorted(set(clear), key=lambda it: (len(it[0]), it))
    demand(clear == order, "clear list")
    for limit in (1, 4, 5, 7):
        uint(limits[limit], 2**32 - 1, "limit")
    demand(limits[6] is None or uint(limits[6], 2**32 - 1, "exclude-wait") >= 0, "exclude-wait")
    demand(uint(limits[8], 4, "erase signatures") >= 1, "erase signatures")
    return {
        "version": body[1],
        "issued_at": body[2],
        "keys": keys,
        "fleet_schedule": (g0, t0, p0),
        "stolen": stolen,
        "limits": {
            "longest_lease": limits[1], "suites": suites, "grace": limits[4],
            "exclude_grace": limits[5], "exclude_wait": limits[6], "dead_man": limits[7],
            "erase_signatures": limits[8], **({"clear": clear} if clear else {}),
        },
    }


def read_halt(value) -> dict:
    """STOP and START."""
    body = fields(value, {1, 2, 3, 4, 5}, set(), "STOP or START")
    return {"group": group_number(body[1]), "transaction": transaction(body[2]),
            "epoch": epoch(body[3]), "generation": generation(body[4]),
            "deadline": seconds(body[5])}


def read_notify(value) -> dict:
    body = fields(value, {1, 2}, set(), "NOTIFY")
    for entry in items(body[2], 0, 66, "entries"):
        items(entry, 3, 3, "entry")
        group_number(entry[0]), epoch(entry[1]), generation(entry[2])
    return {"spread_ms": uint(body[1], 2**32 - 1, "spread"), "entries": body[2]}


def read_listed_key(value) -> dict:
    name, public, class_, not_before, expires, groups = items(value, 6, 6, "listed key")
    octets(public, 32, "public key")
    demand(name == key_name(public), "key name")
    demand(type(class_) is int and 1 <= class_ <= 6, "class")
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


def verifies(command: Command, publics: dict) -> bool:
    """Whether every signature of the frame is good, as python-cwt judges; `publics` by key name."""
    if not all(name in publics for name in command.signers):
        return False
    return all(signed_by(command, name, publics[name]) for name in command.signers)


def signed_by(command: Command, name: bytes, public: bytes) -> bool:
    key = COSEKey.new({1: 1, 2: name, 3: -19, 4: [2], -1: 6, -2: public})
    try:
        COSE.new().decode(command.frame, key, external_aad=b"KF1/cmd")
    except CWTError:
        return False
    return True


def obeyed(command: Command, keyset: dict, root: bytes) -> bool:
    """Section 6.1, as far as it can be judged without a clock and a state."""
    if command.type == KEYSET:
        return command.signers == [key_name(root)] and verifies(command, {key_name(root): root})
    listed = {key["name"]: key for key in keyset["keys"]}
    if not all(name in listed for name in command.signers):
        return False
    signers = [listed[name] for name in command.signers]
    if not enough(command.type, [key["class"] for key in signers], keyset):
        return False
    signer = next(key for key in signers if key["class"] == CLASS_OF[command.type])
    g0, t0, p0 = keyset["fleet_schedule"]
    g_max = g0 + -(-max(signer["expires"] - t0, 0) // p0) + 64
    return (
        all(key["not_before"] <= command.issued_at <= key["expires"] for key in signers)
        and command.g <= g_max
        and (command.target[0] != 1 or command.target[1] in (signer["groups"] or command.target))
        and verifies(command, {key["name"]: key["public"] for key in signers})
    )


def enough(type_: int, classes: list, keyset: dict) -> bool:
    """Section 2, "Signed by": as many of the classes that the type asks for."""
    wanted = keyset["limits"]["erase_signatures"]
    if type_ in ORDERS:
        return set(classes) == {ERASE} and len(classes) >= wanted
    if type_ == EXCLUDE and len(classes) > 1:
        return sorted(classes) == [KEYS] + [ERASE] * (len(classes) - 1) and len(classes) > wanted
    return classes == [CLASS_OF[type_]]


@dataclass(frozen=True)
class Contents:
    key: Key
    activate_at: int
    schedule: Optional[tuple]
    lease_end: Optional[int]
    # Of a packet group.
    search_key: Optional[bytes] = None


def read_contents(plain: bytes) -> Contents:
    c = fields(strict(plain), {1, 2, 3, 4, 6}, {5, 7, 8}, "contents")
    demand(kid(c[1]) % 4 == 3, "kid of a master key")
    if 7 in c:
        items(c[7], 2, 2, "schedule")
        demand(None not in c[7], "schedule")
    return Contents(
        Key(octets(c[4], 32, "key"), c[1], epoch(c[2]), generation(c[3])),
        seconds(c[6]),
        schedule(*c[7]) if 7 in c else None,
        seconds(c[8]) if 8 in c else None,
        octets(c[5], 16, "search key") if 5 in c else None,
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


@dataclass(frozen=True)
class OrderContents:
    terminal: int
    type: int
    version: Optional[int]
    receipt_wanted: bool


def read_order_contents(plain: bytes) -> OrderContents:
    c = fields(strict(plain), {1, 2}, {3, 4}, "contents")
    demand(c[2] in ORDERS and type(c[2]) is int, "type")
    demand((3 in c) == (c[2] in (LOCK, UNLOCK)), "version")
    demand(c.get(4, True) is True, "receipt wanted")
    version = uint(c[3], 2**32 - 1, "version") if 3 in c else None
    return OrderContents(terminal_number(c[1]), c[2], version, 4 in c)


def open_order(command: Command, obey: Key) -> Optional[OrderContents]:
    """Section 4.4 by hand; `None` where it is for another, or says something else inside."""
    body = command.body
    if body["handle"] != obey.handle():
        return None
    aad = det(["Encrypt0", body["protected"], b""])
    try:
        key = AESGCM(obey.xl("to-terminal", [body["iv"]], 32))
        contents = read_order_contents(key.decrypt(body["iv"], body["ciphertext"], aad))
    except (InvalidTag, Refused):
        return None
    fits = contents.type == command.type and 4 * contents.terminal == obey.kid
    return contents if fits else None


def open_order_by_cose(command: Command, obey: Key) -> OrderContents:
    """The same by python-cwt alone."""
    body = command.body
    sealed_under = obey.xl("to-terminal", [body["iv"]], 32)
    key = COSEKey.new({1: 4, 2: obey.handle(), 3: 3, -1: sealed_under})
    try:
        return read_order_contents(COSE.new().decode(body["cose"], key))
    except (CWTError, ValueError) as fault:
        raise Refused(str(fault)) from fault


@dataclass(frozen=True)
class Receipt:
    terminal: int
    command: bytes
    mac: bytes

    def is_from(self, obey: Key) -> bool:
        return 4 * self.terminal == obey.kid and hmac.compare_digest(
            self.mac, receipt_mac(self.command, obey))


def receipt_mac(command: bytes, obey: Key) -> bytes:
    return hmac.digest(obey.xl("receipt", [command], 32), command, "sha256")


def read_receipt(held: bytes) -> Receipt:
    """Section 4.7: as octets or as text."""
    text = re.fullmatch(rb"\s*KF1-RECEIPT-((?:[0-9a-fA-F]{2})*)\s*", held)
    if text:
        held = bytes.fromhex(text[1].decode())
    terminal, command, mac = items(strict(held), 3, 3, "receipt")
    return Receipt(terminal_number(terminal), octets(command, 32, "hash"), octets(mac, 32, "mac"))


@dataclass(frozen=True)
class Confirmation:
    """STOP-ACK or START-ACK."""
    type: int
    id: bytes
    group: int
    transaction: int
    epoch: int
    generation: int
    mac: bytes

    def authenticated(self) -> bytes:
        return det([self.type, self.group, self.transaction, self.epoch, self.generation])

    def is_from(self, wrap: Key) -> bool:
        return self.id == wrap.xl("key-req-id", None, 8) and hmac.compare_digest(
            self.mac, confirmation_mac(self, wrap))


def confirmation_mac(said: Confirmation, wrap: Key) -> bytes:
    key = wrap.xl("control", [said.transaction], 32)
    return hmac.digest(key, said.authenticated(), "sha256")


def message_in(datagram: bytes) -> bytes:
    demand(len(datagram) <= FRAME_MAX and datagram[:4] == MARKER, "a datagram")
    return datagram[4:]


def read_message(octets_: bytes, length: int) -> list:
    whole = items(strict(octets_), length, length, "message")
    demand(whole[:2] == [1, 0] and all(type(it) is int for it in whole[:3]), "version and suite")
    return whole[2:]


def read_confirmation(datagram: bytes) -> Confirmation:
    return confirmation_of(message_in(datagram))


def confirmation_of(message: bytes) -> Confirmation:
    type_, id_, group, number, epoch_, generation_, mac = read_message(message, 9)
    demand(type_ in (STOP_ACK, START_ACK), "type")
    return Confirmation(type_, octets(id_, 8, "id"), group_number(group), transaction(number),
                        epoch(epoch_), generation(generation_), octets(mac, 32, "mac"))


def read_bundle(datagram: bytes) -> list:
    type_, messages = read_message(message_in(datagram), 4)
    demand(type_ == BUNDLE, "type")
    read = []
    for message in items(messages, 1, 16, "messages"):
        demand(type(message) is bytes, "message")
        read.append(confirmation_of(message))
    return read
