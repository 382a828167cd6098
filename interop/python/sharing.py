"""Key sharing over UDP, both roles, suites psk, hpke and hpke-pq, with other people's libraries.

Written from docs/PROTOCOL.md alone; "PROTOCOL 14" is the section that has the table of datagrams.
What is random comes in as an argument, so that the same message can be made again.
"""

import hashlib
import hmac
from dataclasses import dataclass, field, replace
from typing import Optional

import cbor2
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

import kem
import packages
from kem import HPKE, HPKE_PQ, KINDS, KemSecret
from reader import (Contents, Key, Refused, demand, det, epoch, fields, generation, group_number, items, key_name,
                    kid, octets, read_contents, read_frame, seconds, strict, tagged, uint)

NONE, PSK, RSA_MISTY1 = 0, 1, 4
MARKER = bytes(4)
DATAGRAM_MAX = 1200
# Octets of a message in one PART.
PART_OCTETS = 1100
KEY_REQ, COOKIE, KEY_DIS, ACK, STOP_ACK, START_ACK, PART, COMMAND, HELLO, INTRODUCTION, BUNDLE = range(1, 12)
NAMES = {KEY_REQ: "KEY-REQ", COOKIE: "COOKIE", KEY_DIS: "KEY-DIS", ACK: "ACK", STOP_ACK: "STOP-ACK",
         START_ACK: "START-ACK", PART: "PART", COMMAND: "COMMAND", HELLO: "HELLO",
         INTRODUCTION: "INTRODUCTION", BUNDLE: "BUNDLE"}
# PROTOCOL 14, ACK: all taken; refused: bounds, could not be stored, locked.
STATUSES = range(4)


def sha256(held: bytes) -> bytes:
    return hashlib.sha256(held).digest()


def text(value, most: int, what: str) -> bytes:
    """An octet string of any length up to `most`."""
    demand(type(value) is bytes and len(value) <= most, what)
    return value


def optional(value, read):
    return None if value is None else read(value)


# -- PROTOCOL 14: datagrams and messages


def datagram(message: bytes) -> bytes:
    """PROTOCOL 14: four zero octets (RFC 3948), then one message; at most 1200 octets."""
    demand(len(MARKER + message) <= DATAGRAM_MAX, "longer than a datagram")
    return MARKER + message


def unmarked(held: bytes) -> bytes:
    """PROTOCOL 14: the message of a datagram."""
    demand(len(held) <= DATAGRAM_MAX and held[:4] == MARKER, "no datagram of this protocol")
    return held[4:]


def ref_of(key_req: bytes) -> bytes:
    """PROTOCOL 14: the first 8 octets of SHA-256 of the KEY-REQ as sent, the cookie included."""
    return sha256(key_req)[:8]


def read_message(message: bytes, longest: int = 65_535) -> dict:
    """PROTOCOL 14: any message, decoded strictly; nothing is verified yet."""
    demand(len(message) <= longest, "longer than a message")
    value = items(strict(message), 3, 16, "message")
    demand(type(value[0]) is int and value[0] == 1, "version")
    suite, type_ = uint(value[1], RSA_MISTY1, "suite"), uint(value[2], BUNDLE, "type")
    demand(type_ in READERS, "type")
    demand((suite != NONE) == (type_ in (KEY_REQ, COOKIE, KEY_DIS, ACK)), "suite")
    return {"suite": suite, "type": type_, **READERS[type_](suite, value[3:])}


def read_key_req(suite: int, rest: list) -> dict:
    """PROTOCOL 14, row KEY-REQ, its three forms."""
    length = {PSK: 4, HPKE: 2, HPKE_PQ: 2, RSA_MISTY1: 1}[suite]
    items(rest, length, length + 1, "KEY-REQ")
    cookie = octets(rest[length], 16, "cookie") if len(rest) > length else None
    if suite == PSK:
        return read_inner_key_req(rest[:length]) | {"cookie": cookie}
    if suite == RSA_MISTY1:
        return {"raw": text(rest[0], 65_535, "published layout"), "cookie": cookie}
    return {"enc": octets(rest[0], KINDS[suite].enc, "enc"), "ct": sealed(rest[1]), "cookie": cookie}


def read_inner_key_req(rest: list) -> dict:
    """PROTOCOL 14, row KEY-REQ psk, without a cookie."""
    id_, g, iv, ct = items(rest, 4, 4, "KEY-REQ")
    return {"id": octets(id_, 8, "id"), "g": generation(g), "iv": octets(iv, 12, "iv"), "ct": sealed(ct)}


def sealed(value) -> bytes:
    """A ciphertext with its tag of 16 octets."""
    demand(type(value) is bytes and len(value) >= 16, "ciphertext")
    return value


def read_cookie(_suite: int, rest: list) -> dict:
    """PROTOCOL 14, row COOKIE: the frame is a TIME without floors."""
    ref, cookie, frame = items(rest, 3, 3, "COOKIE")
    if frame is not None:
        time = read_frame(text(frame, DATAGRAM_MAX, "frame"))
        demand(time.type == 1 and time.body["floors"] == [], "a TIME without floors")
    return {"ref": octets(ref, 8, "ref"), "cookie": octets(cookie, 16, "cookie"), "frame": frame}


def read_key_dis(suite: int, rest: list) -> dict:
    """PROTOCOL 14, row KEY-DIS, its three forms."""
    length = {PSK: 2, HPKE: 3, HPKE_PQ: 3, RSA_MISTY1: 2}[suite]
    ref = octets(items(rest, length, length, "KEY-DIS")[0], 8, "ref")
    if suite == PSK:
        return {"ref": ref, "cose": text(rest[1], 65_535, "COSE_Sign1")}
    if suite == RSA_MISTY1:
        return {"ref": ref, "raw": text(rest[1], 65_535, "published layout")}
    return {"ref": ref, "enc": octets(rest[1], KINDS[suite].enc, "enc"), "ct": sealed(rest[2])}


def read_ack(_suite: int, rest: list) -> dict:
    """PROTOCOL 14, row ACK."""
    ref, status, mac = items(rest, 3, 3, "ACK")
    demand(uint(status, 2**32 - 1, "status") in STATUSES, "status")
    return {"ref": octets(ref, 8, "ref"), "status": status, "mac": octets(mac, 32, "mac")}


def read_confirmation(_suite: int, rest: list) -> dict:
    """PROTOCOL 14, rows STOP-ACK and START-ACK."""
    id_, group, transaction, epoch_, generation_, mac = items(rest, 6, 6, "confirmation")
    return {"id": octets(id_, 8, "id"), "group": group_number(group),
            "transaction": uint(transaction, 2**64 - 1, "transaction"), "epoch": epoch(epoch_),
            "generation": generation(generation_), "mac": octets(mac, 32, "mac")}


def read_part(_suite: int, rest: list) -> dict:
    """PROTOCOL 14, row PART."""
    whole, index, count, cookie, held = items(rest, 5, 5, "PART")
    demand(uint(count, 64, "count") >= 2 and uint(index, 63, "index") < count, "index")
    text(held, PART_OCTETS, "octets")
    demand(len(held) == PART_OCTETS or (index == count - 1 and held), "all but the last are full")
    return {"whole": octets(whole, 8, "whole"), "index": index, "count": count,
            "cookie": optional(cookie, lambda value: octets(value, 16, "cookie")),
            "octets": held}


def read_command(_suite: int, rest: list) -> dict:
    """PROTOCOL 14, row COMMAND: any signed command of section 4."""
    frame, = items(rest, 1, 1, "COMMAND")
    read_frame(text(frame, DATAGRAM_MAX, "frame"))
    return {"frame": frame}


def read_hello(_suite: int, rest: list) -> dict:
    """PROTOCOL 14, row HELLO."""
    piece, pad = items(rest, 2, 2, "HELLO")
    return {"piece": uint(piece, 63, "piece"), "pad": text(pad, DATAGRAM_MAX, "pad")}


def read_introduction(_suite: int, rest: list) -> dict:
    """PROTOCOL 14, row INTRODUCTION."""
    piece, pieces, whole, held = items(rest, 4, 4, "INTRODUCTION")
    demand(uint(piece, 63, "piece") < uint(pieces, 64, "pieces"), "piece")
    return {"piece": piece, "pieces": pieces, "hash": octets(whole, 32, "hash"),
            "octets": text(held, DATAGRAM_MAX, "octets")}


def read_bundle(_suite: int, rest: list) -> dict:
    """PROTOCOL 14, row BUNDLE: whole messages, each a STOP-ACK or a START-ACK."""
    held, = items(rest, 1, 1, "BUNDLE")
    for message in items(held, 1, 16, "messages"):
        type_ = read_message(text(message, DATAGRAM_MAX, "message"))["type"]
        demand(type_ in (STOP_ACK, START_ACK), "a confirmation")
    return {"messages": held}


READERS = {KEY_REQ: read_key_req, COOKIE: read_cookie, KEY_DIS: read_key_dis, ACK: read_ack,
           STOP_ACK: read_confirmation, START_ACK: read_confirmation, PART: read_part,
           COMMAND: read_command, HELLO: read_hello, INTRODUCTION: read_introduction, BUNDLE: read_bundle}


# -- PROTOCOL 14: what takes more than one datagram


def split(message: bytes, cookie: Optional[bytes] = None) -> list:
    """PROTOCOL 14, row PART: the datagrams of a message; one without PART where it fits."""
    if len(MARKER + message) <= DATAGRAM_MAX:
        return [datagram(message)]
    pieces = [message[at:at + PART_OCTETS] for at in range(0, len(message), PART_OCTETS)]
    return [datagram(part(message, index, len(pieces), cookie, held))
            for index, held in enumerate(pieces)]


def part(whole: bytes, index: int, count: int, cookie: Optional[bytes], held: bytes) -> bytes:
    """PROTOCOL 14, row PART."""
    return det([1, NONE, PART, sha256(whole)[:8], index, count, cookie, held])


def joined(datagrams: list) -> bytes:
    """PROTOCOL 14, row PART: the message of one datagram, or of its parts in any order."""
    messages = [unmarked(held) for held in datagrams]
    if len(messages) == 1 and read_message(messages[0])["type"] != PART:
        return messages[0]
    parts = [read_message(message) for message in messages]
    demand(all(one["type"] == PART for one in parts), "parts")
    first = parts[0]
    same = ("whole", "count", "cookie")
    demand(all(one[name] == first[name] for one in parts for name in same), "parts of one message")
    by_index = {one["index"]: one["octets"] for one in parts}
    demand(sorted(by_index) == list(range(first["count"])), "a part is missing")
    message = b"".join(by_index[index] for index in range(first["count"]))
    demand(sha256(message)[:8] == first["whole"], "parts that make up another message")
    read_message(message)
    return message


# -- PROTOCOL 14: KEY-REQ


@dataclass(frozen=True)
class Asked:
    """What stands inside of a KEY-REQ."""

    # 0: a terminal that has no number yet (first contact by token).
    terminal: int
    nonce: bytes
    time: int
    held: list
    fresh: Optional[bytes]
    pad: bytes


@dataclass(frozen=True)
class Request:
    """A KEY-REQ that was opened or made."""

    message: bytes
    suite: int
    g: int
    iv: bytes
    asked: Asked
    cookie: Optional[bytes]
    # The psk form inside of the hpke suites; of psk the message without its cookie.
    inner: bytes

    def ref(self) -> bytes:
        return ref_of(self.message)

    def hash(self) -> bytes:
        return sha256(self.message)


def key_req_id(dk: Key) -> bytes:
    """PROTOCOL 14: `id` = XL(DK, "key-req-id", null, 8)."""
    return dk.xl("key-req-id", None, 8)


def key_req_plain(asked: Asked) -> bytes:
    """PROTOCOL 14, plaintext of a KEY-REQ."""
    return det([asked.terminal, asked.nonce, asked.time, asked.held, asked.fresh, asked.pad])


def read_key_req_plain(plain: bytes, suite: int) -> Asked:
    """PROTOCOL 14, plaintext of a KEY-REQ."""
    terminal, nonce, time, held, fresh, pad = items(strict(plain), 6, 6, "plaintext of a KEY-REQ")
    for entry in items(held, 0, 400, "held"):
        items(entry, 3, 3, "held")
        kid(entry[0]), epoch(entry[1]), generation(entry[2])
    demand((fresh is None) == (suite == PSK), "fresh key")
    if fresh is not None:
        octets(fresh, KINDS[suite].public, "fresh key")
    demand(text(pad, 65_535, "pad").count(0) == len(pad), "pad of zeros")
    return Asked(uint(terminal, 2**24 - 1, "terminal"), octets(nonce, 16, "nonce"), seconds(time), held,
                 fresh, pad)


def make_key_req(suite: int, dk: Key, g: int, iv: bytes, asked: Asked, cookie: Optional[bytes] = None,
                 server_public: Optional[bytes] = None) -> Request:
    """PROTOCOL 14, row KEY-REQ: sealed under the wrap key, in the hpke suites once more to the server."""
    plain, id_ = key_req_plain(asked), key_req_id(dk)
    aad = det(["KF1/key-req", suite, id_, g, cookie])
    ct = AESGCM(dk.xl("key-req", [iv], 32)).encrypt(iv, plain, aad)
    inner = [1, suite, KEY_REQ, id_, g, iv, ct]
    outer = inner
    if suite != PSK:
        outer = [1, suite, KEY_REQ, *kem.seal(suite, server_public, det(inner), b"KF1/key-req")]
    message = det(outer + ([] if cookie is None else [cookie]))
    return Request(message, suite, g, iv, asked, cookie, det(inner))


def padded_key_req(suite: int, dk: Key, g: int, iv: bytes, asked: Asked, cookie: Optional[bytes] = None,
                   server_public: Optional[bytes] = None) -> Request:
    """PROTOCOL 14: the pair padded to a length of its suite; else to the next multiple of 64 that can be reached."""
    for length in range(4096):
        request = make_key_req(suite, dk, g, iv, replace(asked, pad=bytes(length)), cookie, server_public)
        if is_padded(request):
            return request
    raise Refused("no padding fits")


# Octets of the pair at least.
PADDED = {PSK: 252, HPKE: 184, HPKE_PQ: 1408}


def is_padded(request: Request) -> bool:
    """PROTOCOL 14: the pair has the least length of its suite, or a multiple of 64 above it."""
    size, least = len(request.inner), PADDED[request.suite]
    return size == least or (size > least and size % 64 == 0)


def open_key_req(message: bytes, dk: Key, server: Optional[KemSecret] = None) -> Request:
    """PROTOCOL 14, row KEY-REQ: as the server opens it; `dk` is the key that `id` names."""
    outer = read_message(message)
    demand(outer["type"] == KEY_REQ and outer["suite"] in (PSK, HPKE, HPKE_PQ), "a KEY-REQ")
    suite, inner = outer["suite"], outer
    if suite == PSK:
        inner_octets = det([1, suite, KEY_REQ, outer["id"], outer["g"], outer["iv"], outer["ct"]])
    else:
        demand(server is not None and server.kind == suite, "the server's key")
        inner_octets = server.open(outer["enc"], outer["ct"], b"KF1/key-req")
        value = items(strict(inner_octets), 7, 7, "inner KEY-REQ")
        demand(value[:3] == [1, suite, KEY_REQ], "inner KEY-REQ")
        inner = read_inner_key_req(value[3:])
    demand(inner["id"] == key_req_id(dk), "another's id")
    plain = opened(dk.xl("key-req", [inner["iv"]], 32), inner["iv"], inner["ct"],
                   det(["KF1/key-req", suite, inner["id"], inner["g"], outer["cookie"]]))
    asked = read_key_req_plain(plain, suite)
    demand(dk.kid == 0 or dk.kid == 4 * asked.terminal + 1, "another's number")
    return Request(message, suite, inner["g"], inner["iv"], asked, outer["cookie"], inner_octets)


def opened(key: bytes, iv: bytes, ct: bytes, aad: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(iv, ct, aad)
    except InvalidTag as fault:
        raise Refused("does not open") from fault


# -- PROTOCOL 14: COOKIE


def make_cookie(suite: int, key_req: bytes, cookie: bytes, frame: Optional[bytes]) -> bytes:
    """PROTOCOL 14, row COOKIE."""
    return det([1, suite, COOKIE, ref_of(key_req), cookie, frame])


# -- PROTOCOL 14: KEY-DIS


def group_entry(contents: Contents) -> dict:
    """PROTOCOL 14, group entry of a KEY-DIS: the contents of a KEYDIST (section 4.3)."""
    key = contents.key
    entry = {1: key.kid, 2: key.epoch, 3: key.generation, 4: key.octets, 6: contents.activate_at}
    if contents.search_key is not None:
        entry[5] = contents.search_key
    if contents.schedule is not None:
        entry[7] = list(contents.schedule)
    if contents.lease_end is not None:
        entry[8] = contents.lease_end
    return entry


@dataclass(frozen=True)
class Given:
    """What stands inside of a KEY-DIS."""

    nonce: bytes
    time: int
    g: int
    # Contents of KEYDISTs.
    groups: list
    not_member: list
    more: bool = False
    r: Optional[bytes] = None
    package: Optional[bytes] = None


@dataclass(frozen=True)
class Distribution:
    """A KEY-DIS that was opened or made."""

    message: bytes
    # The psk form inside of the hpke suites; of psk the message itself.
    inner: bytes
    signer: bytes
    iv: bytes
    plain: bytes
    given: Given


def key_dis_plain(given: Given) -> bytes:
    """PROTOCOL 14, plaintext of a KEY-DIS."""
    return det([given.nonce, given.time, given.g, [group_entry(group) for group in given.groups],
                given.not_member, given.more, given.r, given.package])


def read_key_dis_plain(plain: bytes) -> Given:
    """PROTOCOL 14, plaintext of a KEY-DIS."""
    nonce, time, g, groups, strange, more, r, package = items(strict(plain), 8, 8, "plaintext of a KEY-DIS")
    demand(type(more) is bool, "more")
    return Given(
        octets(nonce, 16, "nonce"), seconds(time), generation(g),
        [read_contents(det(entry)) for entry in items(groups, 0, 400, "groups")],
        [group_number(group) for group in items(strange, 0, 400, "groups of others")], more,
        optional(r, lambda value: octets(value, 32, "r")),
        optional(package, lambda value: text(value, packages.PACKAGE_MAX, "package")))


def to_be_signed(protected: bytes, payload: bytes, key_req: bytes) -> bytes:
    """PROTOCOL 14: Sig_structure with external_aad "KF1/dis" and SHA-256 of the KEY-REQ."""
    return det(["Signature1", protected, b"KF1/dis" + sha256(key_req), payload])


def make_key_dis(request: Request, dk: Key, iv: bytes, given: Given, signer: Ed25519PrivateKey) -> Distribution:
    """PROTOCOL 14, row KEY-DIS: sealed, signed, in the hpke suites sealed once more to the fresh key."""
    suite, name = request.suite, key_name(signer.public_key().public_bytes_raw())
    plain = key_dis_plain(given)
    aad = det(["KF1/key-dis", suite, request.ref()])
    ct = AESGCM(dk.xl("key-dis", [request.hash(), iv], 32)).encrypt(iv, plain, aad)
    payload, protected = det([iv, ct]), det({1: -19, 4: name})
    signature = signer.sign(to_be_signed(protected, payload, request.message))
    cose = det(cbor2.CBORTag(18, [protected, {}, payload, signature]))
    inner = det([1, suite, KEY_DIS, request.ref(), cose])
    message = inner
    if suite != PSK:
        info = b"KF1/key-dis" + request.hash()
        message = det([1, suite, KEY_DIS, request.ref(),
                       *kem.seal(suite, request.asked.fresh, inner, info)])
    return Distribution(message, inner, name, iv, plain, given)


def open_key_dis(message: bytes, request: Request, dk: Key, publics: dict,
                 fresh: Optional[KemSecret] = None) -> Distribution:
    """PROTOCOL 14, row KEY-DIS: as the terminal opens it; `publics` are keys of class keys by name."""
    outer = read_message(message)
    suite = request.suite
    demand((outer["type"], outer["suite"]) == (KEY_DIS, suite), "a KEY-DIS of the suite that was asked in")
    demand(outer["ref"] == request.ref(), "an answer to another request")
    inner, cose = message, outer.get("cose")
    if suite != PSK:
        demand(fresh is not None and fresh.kind == suite, "the fresh key")
        inner = fresh.open(outer["enc"], outer["ct"], b"KF1/key-dis" + request.hash())
        value = items(strict(inner), 5, 5, "inner KEY-DIS")
        demand(value[:4] == [1, suite, KEY_DIS, request.ref()], "inner KEY-DIS")
        cose = text(value[4], 65_535, "COSE_Sign1")
    name, payload = verified(cose, request, publics)
    iv, ct = items(strict(payload), 2, 2, "payload")
    octets(iv, 12, "iv")
    plain = opened(dk.xl("key-dis", [request.hash(), iv], 32), iv, sealed(ct),
                   det(["KF1/key-dis", suite, request.ref()]))
    given = read_key_dis_plain(plain)
    demand(given.nonce == request.asked.nonce, "another nonce")
    return Distribution(message, inner, name, iv, plain, given)


def verified(cose: bytes, request: Request, publics: dict) -> tuple:
    """PROTOCOL 14: COSE_Sign1 by a listed key of class keys; (key name, payload)."""
    protected, unprotected, payload, signature = tagged(strict(cose), 18, 4, "COSE_Sign1")
    demand(type(protected) is bytes and type(payload) is bytes, "COSE_Sign1")
    demand(unprotected == {} and type(unprotected) is dict, "unprotected header")
    header = fields(strict(protected), {1, 4}, set(), "protected header")
    demand(type(header[1]) is int and header[1] == -19, "algorithm")
    name = octets(header[4], 8, "key name")
    demand(name in publics, "a signer that is not listed")
    try:
        Ed25519PublicKey.from_public_bytes(publics[name]).verify(
            octets(signature, 64, "signature"), to_be_signed(protected, payload, request.message))
    except InvalidSignature as fault:
        raise Refused("the signature is another's") from fault
    return name, payload


# -- PROTOCOL 14: ACK, STOP-ACK, START-ACK


def ack_mac(dk: Key, key_req: bytes, key_dis: bytes, plain: bytes, status: int) -> bytes:
    """PROTOCOL 14, ACK: HMAC under XL(DK, "ack", [SHA-256(KEY-REQ ‖ KEY-DIS)], 32)."""
    key = dk.xl("ack", [sha256(key_req + key_dis)], 32)
    return hmac.digest(key, det(["ACK", status, sha256(plain)]), "sha256")


def make_ack(request: Request, distribution: Distribution, dk: Key, status: int,
             suite: Optional[int] = None) -> bytes:
    """PROTOCOL 14, row ACK."""
    mac = ack_mac(dk, request.message, distribution.message, distribution.plain, status)
    return det([1, request.suite if suite is None else suite, ACK, request.ref(), status, mac])


def ack_is_from(message: bytes, request: Request, distribution: Distribution, dk: Key) -> Optional[int]:
    """PROTOCOL 14, ACK: the status, where it answers this KEY-DIS and is the terminal's."""
    ack = read_message(message)
    demand(ack["type"] == ACK and ack["ref"] == request.ref(), "an ACK of this exchange")
    mac = ack_mac(dk, request.message, distribution.message, distribution.plain, ack["status"])
    return ack["status"] if hmac.compare_digest(mac, ack["mac"]) else None


def confirmation_mac(dk: Key, type_: int, group: int, transaction: int, epoch_: int, generation_: int) -> bytes:
    """PROTOCOL 14, STOP-ACK and START-ACK: HMAC under XL(DK, "control", [transaction], 32)."""
    key = dk.xl("control", [transaction], 32)
    return hmac.digest(key, det([type_, group, transaction, epoch_, generation_]), "sha256")


def make_confirmation(dk: Key, type_: int, group: int, transaction: int, epoch_: int, generation_: int,
                      suite: int = NONE) -> bytes:
    """PROTOCOL 14, rows STOP-ACK and START-ACK."""
    mac = confirmation_mac(dk, type_, group, transaction, epoch_, generation_)
    return det([1, suite, type_, key_req_id(dk), group, transaction, epoch_, generation_, mac])


def confirmation_is_from(message: bytes, dk: Key) -> bool:
    """PROTOCOL 14, STOP-ACK and START-ACK: whether this key made it."""
    one = read_message(message)
    demand(one["type"] in (STOP_ACK, START_ACK), "a confirmation")
    mac = confirmation_mac(dk, one["type"], one["group"], one["transaction"], one["epoch"], one["generation"])
    return one["id"] == key_req_id(dk) and hmac.compare_digest(mac, one["mac"])


def make_bundle(messages: list, suite: int = NONE) -> bytes:
    """PROTOCOL 14, row BUNDLE."""
    return det([1, suite, BUNDLE, messages])


def make_command(frame: bytes, suite: int = NONE) -> bytes:
    """PROTOCOL 14, row COMMAND."""
    return det([1, suite, COMMAND, frame])


# -- PROTOCOL 14: first contact


@dataclass(frozen=True)
class Introduction:
    root: bytes
    keyset_frame: bytes
    kem_publics: list = field(default_factory=list)

    def octets(self) -> bytes:
        return det([self.root, self.keyset_frame, self.kem_publics])


def make_hello(piece: int, suite: int = NONE) -> bytes:
    """PROTOCOL 14, row HELLO: a datagram of 1200 octets."""
    for length in range(DATAGRAM_MAX):
        message = det([1, suite, HELLO, piece, bytes(length)])
        if len(MARKER + message) == DATAGRAM_MAX:
            return message
    raise Refused("no padding fits")


def make_introduction(introduction: Introduction, suite: int = NONE) -> list:
    """PROTOCOL 14, row INTRODUCTION: its pieces, none larger than a HELLO."""
    whole = introduction.octets()
    room = DATAGRAM_MAX - len(MARKER + det([1, suite, INTRODUCTION, 63, 64, bytes(32), b""])) - 2
    pieces = [whole[at:at + room] for at in range(0, len(whole), room)]
    return [det([1, suite, INTRODUCTION, piece, len(pieces), sha256(whole), held])
            for piece, held in enumerate(pieces)]


def read_introduction_whole(messages: list) -> Introduction:
    """PROTOCOL 14, row INTRODUCTION: the pieces put together, and the KEYSET verified under the root."""
    pieces = [read_message(message) for message in messages]
    demand(all(one["type"] == INTRODUCTION for one in pieces), "pieces")
    first = pieces[0]
    demand(all((one["pieces"], one["hash"]) == (first["pieces"], first["hash"]) for one in pieces), "pieces")
    by_piece = {one["piece"]: one["octets"] for one in pieces}
    demand(sorted(by_piece) == list(range(first["pieces"])), "a piece is missing")
    whole = b"".join(by_piece[piece] for piece in range(first["pieces"]))
    demand(sha256(whole) == first["hash"], "pieces of another whole")
    root, frame, publics = items(strict(whole), 3, 3, "introduction")
    read_frame(text(frame, DATAGRAM_MAX, "KEYSET"))
    for public in items(publics, 0, 8, "KEM keys"):
        text(public, 4096, "KEM key")
    return Introduction(octets(root, 32, "root"), frame, publics)


def token_text(random: bytes, root: bytes) -> str:
    """PROTOCOL 8, token: "KF1T-" and 56 letters that hold 16, 16 and 3 octets."""
    held = octets(random, 16, "random octets") + sha256(root)[:16]
    number = int.from_bytes(held + sha256(held)[:3], "big")
    return "KF1T-" + "".join(packages.LETTERS[number >> at & 31] for at in range(275, -1, -5))


def read_token(typed: str) -> tuple:
    """PROTOCOL 8, token: (16 random octets, the first 16 of the root's SHA-256)."""
    values = packages.letters(typed)
    demand(values[:4] == packages.letters("KF1T") and len(values) == 60, "not a token")
    number = 0
    for value in values[4:]:
        number = number << 5 | value
    held = number.to_bytes(35, "big")
    demand(sha256(held[:32])[:3] == held[32:], "a slip of the hand")
    return held[:16], held[16:32]


def token_key(random: bytes, root: bytes) -> Key:
    """PROTOCOL 14.10: kid 0, epoch 0, generation 0, by HKDF-Extract with the salt "KF1/token" and the root's hash."""
    return Key(HKDF.extract(SHA256(), b"KF1/token" + sha256(root)[:16], random), 0, 0, 0)


def first_wrap_key(held: Key, r: bytes, kid_: int, at: int) -> Key:
    """PROTOCOL 14: what the wrap key becomes with the r of the first hpke KEY-DIS."""
    prk = HKDF.extract(SHA256(), held.octets, r)
    info = det(["KF1", "first", kid_, 0, at, None, 32])
    return Key(HKDFExpand(SHA256(), 32, info).derive(prk), kid_, 0, at)
