#!/usr/bin/env python3
"""Checks a file of key-sharing vectors against docs/PROTOCOL.md as sharing.py reads it: opens every message as the
server and as the terminal would, compares every field, makes again octet for octet what is not drawn, and shows that
nothing opens for another.

Usage: verify_sharing.py [FILE]        (interop/vectors/sharing.json)

The file is one JSON object. Octets are lower-case hexadecimal text; DATAGRAMS is a list of whole datagrams, marker
included, one for each part of a message that takes several.

  about         text
  signers       { text: { seed, public, name } }       Ed25519 keys of class keys; name is the key name
  kem           { "2": { private, public }, "3": { private, public } }     the server's KEM keys by suite number.
                private: of X25519 the 32 octets of RFC 7748, of X-Wing the 32-octet seed. In the place of private
                may stand ikm: 32 octets for DeriveKeyPair (RFC 9180 section 7.1.3, draft-ietf-hpke-pq)
  cases         [ CASE, ... ]     one exchange each
  bundles       [ { datagrams, messages: [octets, ...] }, ... ]
  commands      [ { datagrams, frame, type, body }, ... ]   COMMAND; type and body as in commands.json
  introductions [ { hello: DATAGRAMS (one a piece), datagrams: DATAGRAMS (one a piece, no PART), whole, hash,
                    root, key_set_frame, kem_publics: [octets, ...] }, ... ]
  tokens        [ { random, root, text, key }, ... ]
  refused       [ { name, datagram }, ... ]     what a decoder must refuse

CASE:
  name          text
  suite         1, 2 or 3
  terminal      number; 0 where it has none yet (first contact by token)
  wrap_key      { octets, kid, generation }     DK
  g             the G of the request
  fresh         null, or { private, public } (or ikm) as in kem
  first         optional: a KEY-REQ that `cookie` answers (same fields as key_req, and `fresh` where it has its own)
  cookie        optional: { datagrams, cookie, frame: octets or null, suite }; ref is that of `first`
  key_req       { datagrams, message, sha256, ref, id, iv, cookie: octets or null, inner, plain, nonce, time,
                  held: [[kid, epoch, generation], ...], pad: its length }
                inner: the psk form that the hpke suites seal; in psk the message without its cookie
  key_dis       { datagrams, message, inner, iv, plain, signer: text, nonce, time, g,
                  groups: [{ kid, epoch, generation, key, activate_at, schedule: [step, period] or null,
                             lease_end: seconds or null }, ...],
                  not_member: [group, ...], more: bool, r: octets or null, package: octets or null }
  ack           { datagrams, status, suite, mac, wrap_key: { octets, kid, generation } }
                wrap_key: the key it is made under: with an r the one that r makes, else DK
  confirmations [ { datagrams, suite, type: 5 or 6, id, group, transaction, epoch, generation, mac }, ... ]

Parts that are left out of the top level are not checked. Exit code 1: a finding, in one line.
"""

import json
import pathlib
import sys
from dataclasses import replace

from cddl_verifier import Validator
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import packages
import reader
import sharing
from kem import KemSecret
from reader import Key, Refused, demand, det
from sharing import PSK

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
CDDL = Validator(TOP / "docs" / "protocol.cddl")

checks = 0


def same(found, expected, what: str):
    global checks
    checks += 1
    if found != expected:
        raise SystemExit(f"sharing: {what}: found {found!r}, the file says {expected!r}")


def refused(call, what: str):
    global checks
    checks += 1
    try:
        call()
    except Refused:
        return
    raise SystemExit(f"sharing: {what}: was taken")


def form(rule: str, octets: bytes, what: str):
    """The octets are what docs/protocol.cddl says."""
    result = CDDL.validate(octets, root_type=rule, require_deterministic=True)
    same(result.valid, True, f"{what}: {[str(d) for d in result.diagnostics][:2]}")


def un(text):
    return None if text is None else bytes.fromhex(text)


def hex_of(octets):
    return None if octets is None else octets.hex()


def key_of(entry: dict) -> Key:
    return Key(un(entry["octets"]), entry["kid"], 0, entry["generation"])


def secret_of(suite: int, entry) -> KemSecret:
    if entry is None:
        return None
    if "ikm" in entry:
        secret = KemSecret.derived(suite, un(entry["ikm"]))
    else:
        secret = KemSecret(suite, un(entry["private"]))
    same(secret.public().hex(), entry["public"], "public KEM key")
    return secret


class File:
    def __init__(self, held: dict):
        self.held = held
        self.signers, self.publics, self.kem = {}, {}, {}
        for name, entry in held.get("signers", {}).items():
            private = Ed25519PrivateKey.from_private_bytes(un(entry["seed"]))
            public = private.public_key().public_bytes_raw()
            same((public.hex(), reader.key_name(public).hex()), (entry["public"], entry["name"]), name)
            self.signers[name], self.publics[un(entry["name"])] = private, public
        for suite, entry in held.get("kem", {}).items():
            self.kem[int(suite)] = secret_of(int(suite), entry)


def whole(datagrams: list, what: str) -> bytes:
    """The message of these datagrams; put together in another order it is the same."""
    held = [un(one) for one in datagrams]
    for one in held:
        same(len(one) <= sharing.DATAGRAM_MAX, True, f"{what}: length")
        form("sharing-message", one[4:], what)
    message = sharing.joined(held)
    if len(held) > 1:
        same(sharing.joined(held[::-1]), message, f"{what}: parts in another order")
        refused(lambda: sharing.joined(held[1:]), f"{what}: a part missing")
        changed = [held[0][:-1] + bytes([held[0][-1] ^ 1]), *held[1:]]
        refused(lambda: sharing.joined(changed), f"{what}: a part changed")
    refused(lambda: sharing.joined([b"\0\0\0\1" + held[0][4:], *held[1:]]), f"{what}: another marker")
    return message


def places(message: bytes) -> list:
    """Some octets to change: the head, and a dozen places up to the end."""
    return sorted({0, 1, 2, 3, len(message) - 1} | {len(message) * part // 13 for part in range(13)})


def changed(message: bytes, place: int) -> bytes:
    return message[:place] + bytes([message[place] ^ 1]) + message[place + 1:]


# -- One exchange


def case_vector(file: File, case: dict):
    name, suite, dk = case["name"], case["suite"], key_of(case["wrap_key"])
    server, fresh = file.kem.get(suite), secret_of(suite, case.get("fresh"))
    if "first" in case:
        before = secret_of(suite, case["first"].get("fresh", case.get("fresh")))
        first = key_req_vector(case, case["first"], dk, server, before, f"{name}, first KEY-REQ")
        cookie_vector(case["cookie"], first, f"{name}, COOKIE")
        same(case["key_req"]["cookie"], case["cookie"]["cookie"], f"{name}, cookie that is given back")
    request = key_req_vector(case, case["key_req"], dk, server, fresh, f"{name}, KEY-REQ")
    given = key_dis_vector(file, case, request, dk, fresh, f"{name}, KEY-DIS")
    ack_vector(case, request, given, dk, f"{name}, ACK")
    for entry in case.get("confirmations", []):
        confirmation_vector(entry, dk, f"{name}, {sharing.NAMES[entry['type']]}")


def key_req_vector(case: dict, entry: dict, dk: Key, server, fresh, what: str) -> sharing.Request:
    """PROTOCOL 14, row KEY-REQ, as the server reads it."""
    suite, message = case["suite"], whole(entry["datagrams"], what)
    same(message.hex(), entry["message"], what)
    request = sharing.open_key_req(message, dk, server)
    asked = request.asked
    found = {
        "sha256": request.hash().hex(), "ref": request.ref().hex(), "id": sharing.key_req_id(dk).hex(),
        "iv": request.iv.hex(), "cookie": hex_of(request.cookie), "inner": request.inner.hex(),
        "plain": sharing.key_req_plain(asked).hex(), "nonce": asked.nonce.hex(), "time": asked.time,
        "held": asked.held, "pad": len(asked.pad),
    }
    same(found, {field: entry[field] for field in found}, what)
    same((request.g, asked.terminal), (case["g"], case["terminal"]), what)
    same(hex_of(asked.fresh), fresh.public().hex() if fresh else None, f"{what}: fresh key")
    form("key-req-plaintext", un(entry["plain"]), what)
    if suite == PSK:
        again = sharing.make_key_req(suite, dk, request.g, request.iv, asked, request.cookie)
        same(again.message.hex(), entry["message"], f"{what} made again")
        same(len(entry["datagrams"]), 1, f"{what}: datagrams")
    else:
        form("key-req-inner", request.inner, what)
        again = sharing.make_key_req(suite, dk, request.g, request.iv, asked, request.cookie, server.public())
        same(again.inner.hex(), entry["inner"], f"{what}: inner made again")
        same(len(again.message), len(message), f"{what}: length")
    same(sharing.is_padded(request), True, f"{what}: padding")
    for place in places(message):
        refused(lambda: sharing.open_key_req(changed(message, place), dk, server), f"{what}, octet {place} changed")
    other = Key(dk.octets, dk.kid, 0, dk.generation + 1)
    refused(lambda: sharing.open_key_req(message, other, server), f"{what} by another key")
    if server:
        stranger = KemSecret(suite, bytes(range(32)))
        refused(lambda: sharing.open_key_req(message, dk, stranger), f"{what} for another server")
    return request


def cookie_vector(entry: dict, first: sharing.Request, what: str):
    """PROTOCOL 14, row COOKIE."""
    message, frame = whole(entry["datagrams"], what), un(entry["frame"])
    read = sharing.read_message(message)
    found = (read["type"], read["ref"].hex(), read["cookie"].hex(), hex_of(read["frame"]))
    same(found, (sharing.COOKIE, first.ref().hex(), entry["cookie"], entry["frame"]), what)
    again = sharing.make_cookie(entry["suite"], first.message, un(entry["cookie"]), frame)
    same(again.hex(), message.hex(), f"{what} made again")
    same(len(message) <= len(first.message), True, f"{what} is not larger than the request")


def key_dis_vector(file: File, case: dict, request, dk: Key, fresh, what: str) -> sharing.Distribution:
    """PROTOCOL 14, row KEY-DIS, as the terminal reads it."""
    entry, suite = case["key_dis"], case["suite"]
    message = whole(entry["datagrams"], what)
    same(message.hex(), entry["message"], what)
    distribution = sharing.open_key_dis(message, request, dk, file.publics, fresh)
    given = distribution.given
    found = {
        "inner": distribution.inner.hex(), "iv": distribution.iv.hex(), "plain": distribution.plain.hex(),
        "nonce": given.nonce.hex(), "time": given.time, "g": given.g,
        "groups": [shown(group) for group in given.groups], "not_member": given.not_member, "more": given.more,
        "r": hex_of(given.r), "package": hex_of(given.package),
    }
    same(found, {field: entry[field] for field in found}, what)
    signer = file.signers[entry["signer"]]
    same(distribution.signer, reader.key_name(signer.public_key().public_bytes_raw()), f"{what}: signer")
    form("key-dis-plaintext", distribution.plain, what)
    if given.package is not None:
        packages.read_package(given.package)
    again = sharing.make_key_dis(request, dk, distribution.iv, given, signer)
    same(again.inner.hex(), entry["inner"], f"{what}: inner made again")
    if suite == PSK:
        same(again.message.hex(), entry["message"], f"{what} made again")
    else:
        form("key-dis-inner", distribution.inner, what)
        same(len(again.message), len(message), f"{what}: length")
    key_dis_for_others(file, request, message, dk, fresh, what)
    return distribution


def key_dis_for_others(file: File, request, message: bytes, dk: Key, fresh, what: str):
    """Nobody else takes it, and nothing else is taken."""
    for place in places(message):
        refused(lambda: sharing.open_key_dis(changed(message, place), request, dk, file.publics, fresh),
                f"{what}, octet {place} changed")
    other = Key(dk.octets, dk.kid, 0, dk.generation + 1)
    refused(lambda: sharing.open_key_dis(message, request, other, file.publics, fresh), f"{what} under another key")
    refused(lambda: sharing.open_key_dis(message, request, dk, {}, fresh), f"{what}, signer not listed")
    wrong = {name: bytes(range(32)) for name in file.publics}
    refused(lambda: sharing.open_key_dis(message, request, dk, wrong, fresh), f"{what}, another signer")
    another = replace(request, message=request.message + b"\0")
    refused(lambda: sharing.open_key_dis(message, another, dk, file.publics, fresh), f"{what} to another request")
    nonce = replace(request, asked=replace(request.asked, nonce=bytes(16)))
    refused(lambda: sharing.open_key_dis(message, nonce, dk, file.publics, fresh), f"{what}, another nonce")
    if fresh:
        stranger = KemSecret(fresh.kind, bytes(range(32)))
        refused(lambda: sharing.open_key_dis(message, request, dk, file.publics, stranger), f"{what}, another KEM key")


def shown(group: reader.Contents) -> dict:
    key = group.key
    return {"kid": key.kid, "epoch": key.epoch, "generation": key.generation, "key": key.octets.hex(),
            "activate_at": group.activate_at, "schedule": group.schedule and list(group.schedule),
            "lease_end": group.lease_end}


def ack_vector(case: dict, request, distribution, dk: Key, what: str):
    """PROTOCOL 14, row ACK; with an r it is made under the wrap key that r makes."""
    entry, r = case["ack"], distribution.given.r
    message, key = whole(entry["datagrams"], what), key_of(entry["wrap_key"])
    if r is None:
        same(key, dk, f"{what}: key")
    else:
        package = distribution.given.package
        # By a token the wrap key comes along; the token's own key mixes nothing (14.10).
        before = dk if package is None else packages.read_package(package).wrap
        if package is not None:
            same((key.kid, key.generation), (before.kid, before.generation), f"{what}: wrap key of the package")
        made = sharing.first_wrap_key(before, r, key.kid, key.generation)
        same(made.octets.hex(), key.octets.hex(), f"{what}: wrap key after first contact")
        same(sharing.ack_is_from(message, request, distribution, dk), None, f"{what} under the old wrap key")
    same(sharing.ack_is_from(message, request, distribution, key), entry["status"], what)
    same(sharing.read_message(message)["mac"].hex(), entry["mac"], what)
    again = sharing.make_ack(request, distribution, key, entry["status"], entry["suite"])
    same(again.hex(), message.hex(), f"{what} made again")
    for status in set(sharing.STATUSES) - {entry["status"]}:
        forged = det([1, entry["suite"], sharing.ACK, request.ref(), status, un(entry["mac"])])
        same(sharing.ack_is_from(forged, request, distribution, key), None, f"{what} with status {status}")


def confirmation_vector(entry: dict, dk: Key, what: str):
    """PROTOCOL 14, rows STOP-ACK and START-ACK."""
    message = whole(entry["datagrams"], what)
    read = sharing.read_message(message)
    numbers = ("type", "group", "transaction", "epoch", "generation")
    same([read[name] for name in numbers], [entry[name] for name in numbers], what)
    same((read["id"].hex(), read["mac"].hex()), (entry["id"], entry["mac"]), what)
    same(sharing.confirmation_is_from(message, dk), True, what)
    again = sharing.make_confirmation(dk, *[entry[name] for name in numbers], entry["suite"])
    same(again.hex(), message.hex(), f"{what} made again")
    reflected = det([1, entry["suite"], 11 - entry["type"], *reader.strict(message)[3:]])
    same(sharing.confirmation_is_from(reflected, dk), False, f"{what} as the other type")
    for name in numbers[1:]:
        other = dict(entry, **{name: entry[name] + 1})
        forged = det([1, entry["suite"], entry["type"], un(entry["id"]), *[other[n] for n in numbers[1:]],
                      un(entry["mac"])])
        refused(lambda: demand(sharing.confirmation_is_from(forged, dk), "another's"), f"{what} with another {name}")


# -- What stands beside the exchanges


def bundle_vector(_file: File, entry: dict):
    """PROTOCOL 14, row BUNDLE."""
    message = whole(entry["datagrams"], "BUNDLE")
    read = sharing.read_message(message)
    same([one.hex() for one in read["messages"]], entry["messages"], "BUNDLE")
    same(sharing.make_bundle(read["messages"], read["suite"]).hex(), message.hex(), "BUNDLE made again")


def command_vector(_file: File, entry: dict):
    """PROTOCOL 14, row COMMAND."""
    message = whole(entry["datagrams"], "COMMAND")
    read = sharing.read_message(message)
    same(read["frame"].hex(), entry["frame"], "COMMAND")
    command = reader.read_frame(read["frame"])
    same(command.type, entry["type"], "COMMAND")
    if command.type in (reader.TIME, reader.STOP, reader.START, reader.NOTIFY):
        same(command.body, entry["body"], "COMMAND")
    same(sharing.make_command(read["frame"], read["suite"]).hex(), message.hex(), "COMMAND made again")


def introduction_vector(_file: File, entry: dict):
    """PROTOCOL 14, rows HELLO and INTRODUCTION."""
    hellos, pieces = [un(one) for one in entry["hello"]], [un(one) for one in entry["datagrams"]]
    for piece, hello in enumerate(hellos):
        message = sharing.unmarked(hello)
        form("sharing-message", message, "HELLO")
        read = sharing.read_message(message)
        same((read["type"], read["piece"], len(hello)), (sharing.HELLO, piece, 1200), "HELLO")
        same(sharing.make_hello(piece, read["suite"]).hex(), message.hex(), "HELLO made again")
    messages = [sharing.unmarked(piece) for piece in pieces]
    for message in messages:
        form("sharing-message", message, "INTRODUCTION")
    found = sharing.read_introduction_whole(messages[::-1])
    same(found.octets().hex(), entry["whole"], "INTRODUCTION")
    same(sharing.sha256(found.octets()).hex(), entry["hash"], "INTRODUCTION")
    same([found.root.hex(), found.keyset_frame.hex(), [one.hex() for one in found.kem_publics]],
         [entry["root"], entry["key_set_frame"], entry["kem_publics"]], "INTRODUCTION")
    form("introduction", found.octets(), "INTRODUCTION")
    keyset = reader.read_frame(found.keyset_frame)
    same(reader.verifies(keyset, {reader.key_name(found.root): found.root}), True, "KEYSET under the root")
    same(all(len(piece) <= 1200 for piece in pieces), True, "no piece is larger than a HELLO")
    refused(lambda: sharing.read_introduction_whole(messages[1:] or [changed(messages[0], -1)]), "a piece missing")


def token_vector(_file: File, entry: dict):
    """PROTOCOL 14, token."""
    random, root = un(entry["random"]), un(entry["root"])
    same(sharing.token_text(random, root), entry["text"].replace("-", "").replace("KF1T", "KF1T-", 1), "token")
    typed = entry["text"].lower().replace("0", "o").replace("1", "l")
    same(sharing.read_token(typed), (random, sharing.sha256(root)[:16]), "token as typed")
    same(sharing.token_key(random, root).octets.hex(), entry["key"], "token key")
    wrong = entry["text"][:-1] + ("0" if entry["text"][-1] != "0" else "1")
    refused(lambda: sharing.read_token(wrong), "a slip of the hand")


def refused_vector(_file: File, entry: dict):
    refused(lambda: sharing.joined([un(entry["datagram"])]), f"refused: {entry['name']}")


PARTS = {"cases": case_vector, "bundles": bundle_vector, "commands": command_vector,
         "introductions": introduction_vector, "tokens": token_vector, "refused": refused_vector}


def main(arguments: list) -> int:
    path = pathlib.Path(arguments[0]) if arguments else TOP / "interop" / "vectors" / "sharing.json"
    held = json.loads(path.read_text(encoding="utf-8"))
    unknown = set(held) - set(PARTS) - {"about", "signers", "kem"}
    same(unknown, set(), "parts of the file")
    file = File(held)
    for name, check in PARTS.items():
        before = checks
        for entry in held.get(name, []):
            try:
                check(file, entry)
            except (Refused, KeyError) as fault:
                what = entry.get("name", "")
                raise SystemExit(f"sharing: {name} {what}: {type(fault).__name__}: {fault}") from fault
        print(f"sharing: {name}: {checks - before} checks")
    print(f"sharing: ok, {checks} checks")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
