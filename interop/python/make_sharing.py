#!/usr/bin/env python3
"""Makes a file of key-sharing vectors with Python as terminal and server, for a reader that is not this one.

Usage: make_sharing.py FILE
The form of the file stands at the top of verify_sharing.py. What is drawn comes from names, as in docs/PROTOCOL.md
section 12; only what HPKE draws is new each time.
"""

import json
import sys

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import reader
import sharing
from kem import HPKE, HPKE_PQ, KemSecret
from reader import Contents, Key, det
from sharing import ACK, PSK, Asked, Given, Introduction, sha256
from verify_sharing import hex_of, shown

NOW = 1_790_018_007
EPOCH = 22_774_400
TERMINAL, G, OFFSET = 2, 5, 3


def stream(name: str, length: int) -> bytes:
    """Section 12: SHA-256(name ‖ i), one after another."""
    blocks = [sha256(name.encode() + i.to_bytes(4, "big")) for i in range(length // 32 + 1)]
    return b"".join(blocks)[:length]


def signer(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(stream(name, 32))


def public(private: Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()


def signed(private: Ed25519PrivateKey, type_: int, target: list, body: dict) -> bytes:
    """Section 4: a frame signed by one key."""
    payload = det({1: stream("stream", 4), 2: 64, 3: NOW, 4: NOW + 86_400, 5: type_, 6: target, 7: body, 8: G})
    protected = det({1: -19, 4: reader.key_name(public(private))})
    signature = private.sign(det(["Signature1", protected, b"KF1/cmd", payload]))
    return det(cbor2.CBORTag(18, [protected, {}, payload, signature]))


KEYS_KEY, BEAT_KEY, ROOT = signer("keys key"), signer("beat key"), signer("root")
IKM = {}


def kem_secret(suite: int, name: str) -> KemSecret:
    """From octets that are drawn, as RFC 9180 section 7.1.3 says."""
    secret = KemSecret.derived(suite, stream(name, 32))
    IKM[secret.private] = stream(name, 32)
    return secret


SERVER = {suite: kem_secret(suite, f"server KEM key of suite {suite}") for suite in (HPKE, HPKE_PQ)}
DK = Key(stream(f"wrap key of terminal {TERMINAL}", 32), 4 * TERMINAL + 1, 0, 0).renewed(G + OFFSET)


# What a package brings that comes by a token: at the G of the answer, without an offset.
PACKAGE_WRAP = Key(stream("wrap key of the package", 32), 4 * TERMINAL + 1, 0, G)


def key_entry(key: Key) -> dict:
    return {"octets": key.octets.hex(), "kid": key.kid, "generation": key.generation}


def secret_entry(secret) -> dict:
    return {"ikm": IKM[secret.private].hex(), "public": secret.public().hex()} if secret else None


def datagrams(message: bytes, cookie=None) -> list:
    return [one.hex() for one in sharing.split(message, cookie)]


def key_req_entry(request: sharing.Request, dk: Key) -> dict:
    asked = request.asked
    return {
        "datagrams": datagrams(request.message, request.cookie), "message": request.message.hex(),
        "sha256": request.hash().hex(), "ref": request.ref().hex(), "id": sharing.key_req_id(dk).hex(),
        "iv": request.iv.hex(), "cookie": hex_of(request.cookie), "inner": request.inner.hex(),
        "plain": sharing.key_req_plain(asked).hex(), "nonce": asked.nonce.hex(), "time": asked.time,
        "held": asked.held, "pad": len(asked.pad),
    }


def key_dis_entry(distribution: sharing.Distribution, suite: int) -> dict:
    given = distribution.given
    return {
        "datagrams": datagrams(distribution.message), "message": distribution.message.hex(),
        "inner": distribution.inner.hex(), "iv": distribution.iv.hex(), "plain": distribution.plain.hex(),
        "signer": "keys key", "nonce": given.nonce.hex(), "time": given.time, "g": given.g,
        "groups": [shown(group) for group in given.groups], "not_member": given.not_member, "more": given.more,
        "r": hex_of(given.r), "package": hex_of(given.package),
    }


def group(number: int, cadence=(1, 600), lease_end=NOW + 259_200) -> Contents:
    octets = stream(f"master key of group {number}, epoch {EPOCH}", 32)
    return Contents(Key(octets, 4 * number + 3, EPOCH, 13), NOW - 7, cadence, lease_end)


def exchange(name: str, suite: int, groups: list, held=(), cookie=False, status=0, time=NOW, more=False,
             not_member=(), first_by=None, confirmed=(), under=None) -> dict:
    """One case; `first_by`: None, "package" or "token"; `under`: the wrap key that is asked under."""
    dk = sharing.token_key(stream("token", 16), public(ROOT)) if first_by == "token" else under or DK
    g, terminal = (0, 0) if first_by == "token" else (G, TERMINAL)
    fresh = None if suite == PSK else kem_secret(suite, f"{name}: fresh key")
    asked = Asked(terminal, stream(f"{name}: nonce", 16), time, [list(entry) for entry in held],
                  fresh and fresh.public(), b"")
    server = SERVER[suite].public() if fresh else None
    case = {"name": name, "suite": suite, "terminal": terminal, "wrap_key": key_entry(dk), "g": g,
            "fresh": secret_entry(fresh)}
    given_back = None
    if cookie:
        one = sharing.padded_key_req(suite, dk, g, stream(f"{name}: first iv", 12), asked, None, server)
        given_back = stream(f"{name}: cookie", 16)
        frame = signed(BEAT_KEY, reader.TIME, [0], {1: NOW, 2: 1000}) if suite == PSK else None
        message = sharing.make_cookie(suite, one.message, given_back, frame)
        case["first"] = key_req_entry(one, dk)
        case["cookie"] = {"datagrams": datagrams(message), "cookie": given_back.hex(),
                          "frame": hex_of(frame), "suite": suite}
    request = sharing.padded_key_req(suite, dk, g, stream(f"{name}: iv", 12), asked, given_back, server)
    case["key_req"] = key_req_entry(request, dk)
    given = Given(asked.nonce, NOW, G, groups, list(not_member), more,
                  stream(f"{name}: r", 32) if first_by else None,
                  contents_of_package() if first_by == "token" else None)
    distribution = sharing.make_key_dis(request, dk, stream(f"{name}: iv of KEY-DIS", 12), given, KEYS_KEY)
    case["key_dis"] = key_dis_entry(distribution, suite)
    before = PACKAGE_WRAP if first_by == "token" else dk
    after = sharing.first_wrap_key(before, given.r, before.kid, before.generation) if given.r else dk
    ack = sharing.make_ack(request, distribution, after, status)
    case["ack"] = {"datagrams": datagrams(ack), "status": status, "suite": suite,
                   "mac": reader.strict(ack)[-1].hex(), "wrap_key": key_entry(after)}
    case["confirmations"] = [confirmation_entry(dk, type_, *rest) for type_, *rest in confirmed]
    return case


def confirmation_entry(dk: Key, type_: int, group_: int, transaction: int, epoch: int, generation: int) -> dict:
    message = sharing.make_confirmation(dk, type_, group_, transaction, epoch, generation)
    return {"datagrams": datagrams(message), "suite": 0, "type": type_, "id": sharing.key_req_id(dk).hex(),
            "group": group_, "transaction": transaction, "epoch": epoch, "generation": generation,
            "mac": reader.strict(message)[-1].hex()}


def keyset_frame() -> bytes:
    listed = [[reader.key_name(held), held, class_, NOW - 3600, NOW + 86_400 * 29, []] for held, class_ in
              ((public(BEAT_KEY), 1), (public(KEYS_KEY), 2), (SERVER[HPKE].public(), 4),
               (sha256(SERVER[HPKE_PQ].public()), 5))]
    limits = {1: 259_200, 3: [HPKE, HPKE_PQ, PSK], 4: 30, 5: 0, 6: 600, 7: 2_592_000, 8: 1}
    return signed(ROOT, reader.KEYSET, [0], {1: 7, 2: NOW - 3600, 3: listed, 4: [G, NOW, 86_400], 8: limits})


def contents_of_package() -> bytes:
    """Section 8: what first contact by token brings."""
    identity = [TERMINAL, "dave", "coast guard", public(ROOT), keyset_frame(), [stream("stream", 4)],
                ["udp://239.255.70.77:47700?if=127.0.0.1&ttl=1"], ["192.0.2.1:47701"], 120, []]
    return det([identity, stream(f"obey key of terminal {TERMINAL}", 32),
                PACKAGE_WRAP.octets, G, NOW, NOW + 604_800])


def cases() -> list:
    transaction = 22_792_407_000
    confirmed = [(type_, 7, transaction, EPOCH, 14) for type_ in (sharing.STOP_ACK, sharing.START_ACK)]
    held = [(31, EPOCH, 12), (35, EPOCH, 0)]
    many = [group(number) for number in range(1, 33)]
    made = []
    for suite, word in ((PSK, "psk"), (HPKE, "hpke"), (HPKE_PQ, "hpke-pq")):
        made += [
            exchange(f"{word}, one group", suite, [group(7)], cookie=suite == HPKE_PQ, confirmed=confirmed),
            exchange(f"{word} with a cookie", suite, [group(7), group(8, None, None)], held, cookie=True,
                     not_member=[9]),
            exchange(f"{word}, refused for its bounds", suite, [group(7)], status=1, cookie=suite == HPKE_PQ),
            exchange(f"{word}, time unknown, nothing lacks", suite, [], held, time=0, cookie=suite == HPKE_PQ),
            exchange(f"{word}, thirty-two groups in several parts", suite, many,
                     [(4 * number + 3, EPOCH, 1) for number in range(1, 33)], cookie=True, more=True, status=2),
        ]
    for suite, word in ((HPKE, "hpke"), (HPKE_PQ, "hpke-pq")):
        made += [exchange(f"{word}, first of a package", suite, [group(7)], first_by="package", cookie=True),
                 *enrolment(suite, word)]
    largest = [(type_, 2**30 - 1, 2**64 - 1, 2**32 - 1, 2**31) for type_ in (5, 6)]
    made.append(exchange("psk, confirmations at the largest numbers", PSK, [group(2**30 - 1)], [], confirmed=largest))
    return made


def enrolment(suite: int, word: str) -> list:
    """PROTOCOL 14.10 as a whole: by the token, then under the mixed key for the keys of its groups."""
    by_token = exchange(f"{word}, first contact by token", suite, [], first_by="token", cookie=True, time=0, more=True)
    held = by_token["ack"]["wrap_key"]
    mixed = Key(bytes.fromhex(held["octets"]), held["kid"], 0, held["generation"])
    return [by_token, exchange(f"{word}, keys after a token", suite, [group(7)], cookie=True, under=mixed)]


def commands() -> list:
    stop = {1: 7, 2: 22_792_407_000, 3: EPOCH, 4: 14, 5: NOW + 60}
    shown_stop = {"group": 7, "transaction": stop[2], "epoch": EPOCH, "generation": 14, "deadline": NOW + 60}
    listed = [[7, EPOCH, 13], [8, EPOCH, 13]]
    made = [
        (KEYS_KEY, reader.STOP, [1, 7], stop, shown_stop), (KEYS_KEY, reader.START, [1, 7], stop, shown_stop),
        (BEAT_KEY, reader.NOTIFY, [2, TERMINAL], {1: 0, 2: []}, {"spread_ms": 0, "entries": []}),
        (BEAT_KEY, reader.NOTIFY, [0], {1: 2000, 2: listed}, {"spread_ms": 2000, "entries": listed}),
        (BEAT_KEY, reader.TIME, [0], {1: NOW, 2: 1000}, {"seconds": NOW, "max_error_ms": 1000, "floors": []}),
    ]
    entries = []
    for private, type_, target, body, told in made:
        frame = signed(private, type_, target, body)
        entries.append({"datagrams": datagrams(sharing.make_command(frame)), "frame": frame.hex(), "type": type_,
                        "body": told})
    return entries


def introductions() -> list:
    entries = []
    for publics in ([], [SERVER[HPKE_PQ].public()]):
        introduction = Introduction(public(ROOT), keyset_frame(), publics)
        pieces = sharing.make_introduction(introduction)
        entries.append({
            "hello": [sharing.datagram(sharing.make_hello(piece)).hex() for piece in range(len(pieces))],
            "datagrams": [sharing.datagram(piece).hex() for piece in pieces],
            "whole": introduction.octets().hex(), "hash": sha256(introduction.octets()).hex(),
            "root": introduction.root.hex(), "key_set_frame": introduction.keyset_frame.hex(),
            "kem_publics": [held.hex() for held in publics]})
    return entries


def bundles() -> list:
    messages = [sharing.make_confirmation(Key(stream(f"wrap key of terminal {number}", 32), 4 * number + 1, 0, 0)
                                          .renewed(G), sharing.STOP_ACK, 7, 22_792_407_000, EPOCH, 14)
                for number in range(1, 11)]
    return [{"datagrams": datagrams(sharing.make_bundle(held)), "messages": [one.hex() for one in held]}
            for held in (messages[:1], messages)]


def tokens() -> list:
    random = stream("token", 16)
    return [{"random": random.hex(), "root": public(ROOT).hex(), "text": sharing.token_text(random, public(ROOT)),
             "key": sharing.token_key(random, public(ROOT)).octets.hex()}]


def refused() -> list:
    """Of each message what differs from it by one thing that no decoder takes."""
    ack = [1, 1, ACK, bytes(8), 0, bytes(32)]
    part = [1, 0, sharing.PART, bytes(8), 0, 2, None, bytes(1100)]
    stop = [1, 0, sharing.STOP_ACK, bytes(8), 7, 1, 2, 3, bytes(32)]
    frame = signed(BEAT_KEY, reader.TIME, [0], {1: NOW, 2: 1000})
    floors = signed(BEAT_KEY, reader.TIME, [0], {1: NOW, 2: 1000, 3: [[31, EPOCH, 1]]})
    arrays = {
        "no array": {1: 1, 2: 1, 3: ACK}, "another version": [2, *ack[1:]], "another suite": [1, 5, *ack[2:]],
        "type 0": [1, 1, 0, *ack[3:]], "type 12": [1, 1, 12, *ack[3:]], "type as text": [1, 1, "4", *ack[3:]],
        "ref of 7": [*ack[:3], bytes(7), *ack[4:]], "status 4": [*ack[:4], 4, ack[5]],
        "status true": [*ack[:4], True, ack[5]], "mac of 31": [*ack[:5], bytes(31)], "one more": [*ack, 0],
        "one less": ack[:-1], "KEY-REQ without suite": [1, 0, 1, bytes(8), 5, bytes(12), bytes(40)],
        "KEY-REQ: iv of 11": [1, 1, 1, bytes(8), 5, bytes(11), bytes(40)],
        "KEY-REQ: G above 2^31": [1, 1, 1, bytes(8), 2**31 + 1, bytes(12), bytes(40)],
        "KEY-REQ: ciphertext below a tag": [1, 1, 1, bytes(8), 5, bytes(12), bytes(15)],
        "KEY-REQ: cookie of 15": [1, 1, 1, bytes(8), 5, bytes(12), bytes(40), bytes(15)],
        "KEY-REQ: cookie null": [1, 1, 1, bytes(8), 5, bytes(12), bytes(40), None],
        "KEY-REQ hpke: enc of 31": [1, 2, 1, bytes(31), bytes(40)],
        "KEY-REQ hpke-pq: enc of 32": [1, 3, 1, bytes(32), bytes(40)],
        "COOKIE of 15": [1, 1, 2, bytes(8), bytes(15), None],
        "COOKIE: TIME with floors": [1, 1, 2, bytes(8), bytes(16), floors],
        "COOKIE: no TIME": [1, 1, 2, bytes(8), bytes(16), keyset_frame()],
        "KEY-DIS without suite": [1, 0, 3, bytes(8), bytes(100)],
        "PART: count 1": [*part[:5], 1, *part[6:]], "PART: count 65": [*part[:5], 65, *part[6:]],
        "PART: index 2 of 2": [*part[:4], 2, *part[5:]], "PART: cookie of 15": [*part[:6], bytes(15), part[7]],
        "PART that is not full": [*part[:7], bytes(1099)],
        "PART alone": part,
        "STOP-ACK: group 0": [*stop[:4], 0, *stop[5:]], "STOP-ACK: group of 31 bits": [*stop[:4], 2**30, *stop[5:]],
        "STOP-ACK: transaction below zero": [*stop[:5], -1, *stop[6:]],
        "STOP-ACK: epoch of 33 bits": [*stop[:6], 2**32, *stop[7:]],
        "STOP-ACK: generation above 2^31": [*stop[:7], 2**31 + 1, stop[8]],
        "COMMAND: no frame": [1, 0, 8, b""], "COMMAND: frame and more": [1, 0, 8, frame + b"\0"],
        "INTRODUCTION: piece 1 of 1": [1, 0, 10, 1, 1, bytes(32), b"octets"],
        "BUNDLE of none": [1, 0, 11, []], "BUNDLE of a BUNDLE": [1, 0, 11, [det([1, 0, 11, [det(stop)]])]],
        "BUNDLE of an ACK": [1, 0, 11, [det(ack)]],
    }
    entries = {name: sharing.MARKER + det(value) for name, value in arrays.items()}
    whole = sharing.MARKER + det(ack)
    entries |= {
        "no marker": det(ack), "marker that is not zero": b"\0\0\1\0" + det(ack), "something behind": whole + b"\0",
        "cut": whole[:-1], "empty": b"", "marker alone": sharing.MARKER,
        "longer than 1200": sharing.MARKER + det([1, 0, 9, 0, bytes(1200)]),
        "version in two octets": sharing.MARKER + b"\x86\x18\x01" + det(ack)[2:],
        "array of indefinite length": sharing.MARKER + b"\x9f" + det(ack)[1:] + b"\xff",
        "a tag around it": sharing.MARKER + b"\xc1" + det(ack),
    }
    return [{"name": name, "datagram": held.hex()} for name, held in entries.items()]


def main(arguments: list) -> int:
    if len(arguments) != 1:
        print("usage: make_sharing.py FILE", file=sys.stderr)
        return 2
    keys = {"seed": stream("keys key", 32).hex(), "public": public(KEYS_KEY).hex(),
            "name": reader.key_name(public(KEYS_KEY)).hex()}
    made = {
        "about": "docs/PROTOCOL.md, \"Key sharing\", made by interop/python/make_sharing.py; the form stands at the top "
                 "of verify_sharing.py",
        "signers": {"keys key": keys},
        "kem": {str(suite): secret_entry(secret) for suite, secret in SERVER.items()},
        "cases": cases(), "bundles": bundles(), "commands": commands(), "introductions": introductions(),
        "tokens": tokens(), "refused": refused(),
    }
    with open(arguments[0], "w", encoding="utf-8") as file:
        json.dump(made, file, indent=1, ensure_ascii=False)
        file.write("\n")
    print(f"sharing: made {len(made['cases'])} exchanges and {len(made['refused'])} datagrams to refuse")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
