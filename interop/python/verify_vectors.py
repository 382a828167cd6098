#!/usr/bin/env python3
"""Checks every file of interop/vectors against docs/PROTOCOL.md as reader.py, media.py and packets.py read it.

Usage: verify_vectors.py
"""

import hashlib
import ipaddress
import json
import pathlib
import sys

import cbor2
from cddl_verifier import Validator
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

import kem
import media
import packages
import packets
import protection
import reader
import search as key_search
import verify_capture
from reader import Key, Refused, det

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
VECTORS = TOP / "interop" / "vectors"
CDDL = Validator(TOP / "docs" / "protocol.cddl")

checks = 0


def same(found, expected, what: str):
    global checks
    checks += 1
    if found != expected:
        raise SystemExit(f"vectors: {what}: found {found!r}, the file says {expected!r}")


def refused(call, what: str):
    global checks
    checks += 1
    try:
        call()
    except Refused:
        return
    raise SystemExit(f"vectors: {what}: was taken")


def form(rule: str, octets: bytes, what: str):
    """The octets are what docs/protocol.cddl says."""
    result = CDDL.validate(octets, root_type=rule, require_deterministic=True)
    same(result.valid, True, f"{what}: {[str(d) for d in result.diagnostics][:2]}")


def stream(name: str, length: int) -> bytes:
    """Section 12: SHA-256(name ‖ i), one after another."""
    blocks = [hashlib.sha256(name.encode() + i.to_bytes(4, "big")).digest()
              for i in range(length // 32 + 1)]
    return b"".join(blocks)[:length]


def un(text: str) -> bytes:
    return bytes.fromhex(text)


def load(name: str) -> dict:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def derivations():
    held = load("derivations.json")
    for entry in held["keys"]:
        first = None
        for step in entry["generations"]:
            key = Key(un(step["key"]), entry["kid"], entry["epoch"], step["generation"])
            first = first or key
            what = f"{entry['name']} generation {key.generation}"
            same(first.renewed(key.generation), key, what)
            for value in step["values"]:
                ctx = value["ctx"]
                if ctx is not None:
                    ctx = [un(part) if isinstance(part, str) else part for part in ctx]
                label, length = value["label"], value["len"]
                same(key.info(label, ctx, length).hex(), value["info"], f"{what} {label} info")
                same(key.xl(label, ctx, length).hex(), value["out"], f"{what} {label}")
                form("derivation-info", un(value["info"]), f"{what} {label}")
    names = [entry["name"].split(",")[0] for entry in held["keys"]]
    for name, entry in zip(names, held["keys"]):
        same(stream(name, 32).hex(), entry["generations"][0]["key"], name)
    for tag in held["tags"]:
        same(reader.tag_hash(tag["kid"], tag["epoch"]).hex(), tag["tag_hash"], f"tag {tag}")


def srtp():
    held = load("srtp.json")
    sender, session, ssrc = held["sender"], un(held["session"]), held["ssrc"]
    first = held["masters"][0]
    kid, epoch = first["kid"], first["epoch"]
    for entry in held["masters"]:
        key = Key(un(entry["master_key"]), entry["kid"], entry["epoch"], entry["generation"])
        what = f"suite {entry['suite']} generation {key.generation} n {entry['n']}"
        made = media.master(key, entry["suite"], sender, session, entry["n"], ssrc)
        same(made.hex(), entry["key"] + entry["salt"], what)
        same(media.mki(key, sender, session, entry["n"]).hex(), entry["mki"], what)
    for entry in held["packets"]:
        key = Key(un(entry["master_key"]), kid, epoch, entry["generation"])
        static = None if entry["mki"] else (sender, session, entry["n"])
        what = f"suite {entry['suite']} {entry['protocol']} {entry['what']}"
        arguments = (key, entry["suite"], 10)
        opened = media.unprotect(*arguments, un(entry["packet"]), entry["protocol"], static)
        same(opened, (un(entry["plain"]), entry["index"], entry["n"]), what)
        for place in (1, 9, 20, -1, -12, -20):
            changed = bytearray(un(entry["packet"]))
            changed[place] ^= 1
            refused(
                lambda: media.unprotect(*arguments, bytes(changed), entry["protocol"], static),
                f"{what} with octet {place} changed",
            )
    for entry in held["indexes"]:
        j, index, n = entry["j"], entry["index"], entry["n"]
        same((index >> j, n >> (16 - j), index & 0xffff), (n, entry["roc"], entry["seq"]), "index")


def esp():
    held = load("esp.json")
    sender, session = held["sender"], un(held["session"])
    for entry in held["sessions"]:
        key = Key(un(entry["master_key"]), entry["kid"], entry["epoch"], entry["generation"])
        what = f"suite {entry['suite']} generation {key.generation}"
        made = packets.keys(key, entry["suite"], sender, session)
        same(made.hex(), entry["key"] + entry["salt"], what)
        same(packets.spi(key, sender), entry["spi"], what)
    kid, epoch = key.kid, key.epoch
    for entry in held["pinned"]:
        key = Key(un(entry["master_key"]), kid, epoch, entry["generation"])
        made = packets.pinned_keys(key, entry["suite"], entry["spi"], un(entry["random"]))
        what = f"pinned, suite {entry['suite']} generation {key.generation}"
        same(made.hex(), entry["key"] + entry["salt"], what)
    for entry in held["packets"]:
        key = Key(un(entry["master_key"]), kid, epoch, entry["generation"])
        suite, packet = entry["suite"], un(entry["packet"])
        what = f"suite {suite} session {entry['session']} packet {entry['sequence']}"
        sequence, inner = entry["sequence"], un(entry["inner"])
        same(packets.unprotect(key, suite, packet), (inner, sequence), what)
        made = packets.protect(packets.keys(key, suite, sender, un(entry["session"])), suite,
                               packets.spi(key, sender), sequence, packet[8:16], inner)
        same(made.hex(), entry["packet"], what)
        for place in (*range(16), 20, -1, -16, -17):
            changed = bytearray(packet)
            changed[place] ^= 1
            refused(lambda: packets.unprotect(key, suite, bytes(changed)),
                    f"{what} with octet {place} changed")


def commands():
    held = load("commands.json")
    signers, publics = {}, {}
    for name, entry in held["signers"].items():
        same(stream(name, 32).hex(), entry["seed"], name)
        signers[name] = Ed25519PrivateKey.from_private_bytes(un(entry["seed"]))
        same(signers[name].public_key().public_bytes_raw().hex(), entry["public"], name)
        same(reader.key_name(un(entry["public"])).hex(), entry["name"], name)
        publics[un(entry["name"])] = un(entry["public"])
    for entry in held["messages"]:
        command_vector(entry, signers, publics)
    obeyed(held)


def command_vector(entry: dict, signers: dict, publics: dict):
    what, frame = entry["name"], un(entry["frame"])
    form("signed-command", frame, what)
    same(len(frame), entry["size"], what)
    command = reader.read_frame(frame)
    same(reader.verifies(command, publics), True, what)
    for name in command.signers:
        # Every signature counts.
        same(reader.verifies(command, publics | {name: stream("another key", 32)}), False, what)
    expected = entry["command"]
    found = {
        "stream": command.stream.hex(), "sequence": command.sequence,
        "issued_at": command.issued_at, "not_after": command.not_after, "type": command.type,
        "target": command.target, "g": command.g, "body": shown(command),
    }
    same(found, expected, what)
    # And the same made by hand.
    payload, parts = un(entry["payload"]), []
    alone = len(entry["signatures"]) == 1
    for name, one in zip(command.signers, entry["signatures"], strict=True):
        private = signers[one["signer"]]
        same(reader.key_name(private.public_key().public_bytes_raw()), name, what)
        protected = det({1: -19, 4: name})
        same(protected.hex(), one["protected"], what)
        body = ["Signature1"] if alone else ["Signature", b""]
        signed = det([*body, protected, b"KF1/cmd", payload])
        same(signed.hex(), one["to_be_signed"], what)
        same(private.sign(signed).hex(), one["signature"], what)
        parts.append([protected, {}, un(one["signature"])])
    if alone:
        protected, unprotected, signature = parts[0]
        whole = cbor2.CBORTag(18, [protected, unprotected, payload, signature])
    else:
        whole = cbor2.CBORTag(98, [b"", {}, payload, parts])
    same(det(whole), frame, what)
    if "distribution" in entry:
        distribution_vector(what, command, entry["distribution"])
    if "order" in entry:
        order_vector(what, command, entry["order"])


def obeyed(held: dict):
    """Section 6.1: which frames count under which KEYSET, and which do not."""
    root = un(held["signers"]["root"]["public"])
    frames = {entry["name"]: reader.read_frame(un(entry["frame"])) for entry in held["messages"]}
    four, strict = (frames[name].body for name in
                    ("KEYSET with four keys", "KEYSET that asks for two signatures"))
    for name, command in frames.items():
        if "largest" in name:
            continue
        by_two = len(command.signers) > 1 and command.type in reader.ORDERS
        under = strict if by_two else four
        same(reader.obeyed(command, under, root), True, f"{name} is obeyed")
        if command.type in reader.ORDERS:
            same(reader.obeyed(command, four if by_two else strict, root), False, name)
    for entry in held["not_obeyed"]:
        command = reader.read_frame(un(entry["frame"]))
        keyset = frames[entry["key_set"]].body
        same(reader.obeyed(command, keyset, root), False, entry["name"])


def shown(command: reader.Command) -> dict:
    body = command.body
    if command.type == reader.KEYDIST:
        return {"handles": [handle.hex() for handle, _ in body["recipients"]]}
    if command.type in reader.ORDERS:
        return {"handle": body["handle"].hex()}
    if command.type == reader.KEYSET:
        keys = [dict(key, name=key["name"].hex(), public=key["public"].hex())
                for key in body["keys"]]
        return dict(body, keys=keys, fleet_schedule=list(body["fleet_schedule"]),
                    stolen=[name.hex() for name in body["stolen"]])
    return body


def distribution_vector(what: str, command: reader.Command, entry: dict):
    body, plain = command.body, un(entry["plaintext"])
    kek, iv = map(un, entry["drawn"])
    same(iv, body["iv"], what)
    form("keydist-contents", plain, what)
    expected = entry["contents"]
    key = Key(un(expected["key"]), expected["kid"], expected["epoch"], expected["generation"])
    cadence = (expected["step"], expected["period"]) if expected["step"] else None
    search_key = un(expected["search_key"]) if expected["search_key"] else None
    contents = reader.Contents(key, expected["activate_at"], cadence, expected["lease_end"], search_key)
    same(reader.read_contents(plain), contents, what)
    aad = det(["Encrypt", un("a10103"), b""])
    same(aad.hex(), entry["enc_structure"], what)
    same(AESGCM(kek).encrypt(iv, plain, aad), body["ciphertext"], what)
    same(len(body["recipients"]), len(entry["recipients"]), what)
    for (handle, wrapped), named in zip(body["recipients"], entry["recipients"]):
        number, g = named["terminal"], named["wrap_generation"]
        wrap = Key(un(named["wrap_key"]), 4 * number + 1, 0, g)
        fresh = Key(stream(f"wrap key of terminal {number}", 32), 4 * number + 1, 0, 0)
        same(fresh.renewed(g), wrap, what)
        same(wrap.handle(), handle, what)
        same(handle.hex(), named["handle"], what)
        same(aes_key_wrap(wrap.xl("wrap", None, 32), kek), wrapped, what)
        same(reader.open_keydist(body, wrap), contents, what)
        same(reader.open_by_cose(body, wrap), contents, what)
    stranger = Key(stream("wrap key of terminal 99", 32), 4 * 99 + 1, 0, 0).renewed(g)
    for wrap in (stranger, wrap.renewed(g + 1)):
        same(reader.open_keydist(body, wrap), None, what)
        same(reader.opens_any(body, wrap), False, what)


def order_vector(what: str, command: reader.Command, entry: dict):
    expected, plain = entry["contents"], un(entry["plaintext"])
    number = expected["terminal"]
    same(stream(f"obey key of terminal {number}", 32).hex(), entry["obey_key"], what)
    obey = Key(un(entry["obey_key"]), 4 * number, 0, 0)
    (iv,) = map(un, entry["drawn"])
    same(iv, command.body["iv"], what)
    form("order-contents", plain, what)
    contents = reader.OrderContents(number, *(expected[field] for field in (
        "type", "version", "receipt_wanted")))
    same(contents.type, command.type, what)
    same(reader.read_order_contents(plain), contents, what)
    same(obey.xl("to-terminal", [iv], 32).hex(), entry["sealed_under"], what)
    aad = det(["Encrypt0", det({1: 3, 4: obey.handle()}), b""])
    same(aad.hex(), entry["enc_structure"], what)
    same(AESGCM(un(entry["sealed_under"])).encrypt(iv, plain, aad), command.body["ciphertext"], what)
    same(reader.open_order(command, obey), contents, what)
    same(reader.open_order_by_cose(command, obey), contents, what)
    for stranger in (Key(stream("obey key of terminal 99", 32), 4 * 99, 0, 0),
                     Key(obey.octets, 4 * 99, 0, 0)):
        same(reader.open_order(command, stranger), None, what)
        refused(lambda: reader.open_order_by_cose(command, stranger), what)


def records():
    held = load("records.json")
    signers = load("commands.json")["signers"]
    for entry in held["records"]:
        what, signer = f"record of {entry['name']}", signers[entry["signer"]]
        frame, name = un(entry["frame"]), un(signer["name"])
        form("signed-record", frame, what)
        record = protection.read_record(frame)
        same(record.signer, name, what)
        same(record.shown(), {field: entry[field] for field in record.shown()}, what)
        same(det(record.payload()).hex(), entry["payload"], what)
        same(protection.verifies(frame, name, un(signer["public"])), True, what)
        other = signers["beat key"]
        same(protection.verifies(frame, name, un(other["public"])), False, what)
        same(protection.verifies(frame, name, un(signer["public"]), b"KF1/cmd"), False, what)
        key = Ed25519PrivateKey.from_private_bytes(un(signer["seed"]))
        same(protection.signed(record, key, name).hex(), entry["frame"], what)
    for entry in held["refused"]:
        refused(lambda: protection.read_record(un(entry["frame"])), f"record: {entry['name']}")


def receipts():
    held = load("receipts.json")
    frames = {entry["name"]: un(entry["frame"]) for entry in load("commands.json")["messages"]}
    obey = Key(un(held["obey_key"]), 4 * 2, 0, 0)
    for entry in held["receipts"]:
        what = f"receipt of {entry['command']}"
        form("receipt", un(entry["octets"]), what)
        receipt = reader.read_receipt(un(entry["octets"]))
        same(reader.read_receipt(f"  {entry['text']}\n".encode()), receipt, what)
        same(hashlib.sha256(frames[entry["command"]]).digest(), receipt.command, what)
        same((receipt.terminal, receipt.command.hex()), (entry["terminal"], entry["hash"]), what)
        same(obey.xl("receipt", [receipt.command], 32).hex(), entry["key"], what)
        same(receipt.is_from(obey), True, what)
        made = [4, receipt.command, reader.receipt_mac(receipt.command, obey)]
        same(det([2, *made[1:]]).hex(), entry["octets"], what)
        same(reader.Receipt(*made).is_from(obey), False, what)
    for entry in held["not_from_it"]:
        receipt = reader.read_receipt(entry["text"].encode())
        same(reader.read_receipt(un(entry["octets"])), receipt, entry["name"])
        same(receipt.is_from(obey), False, entry["name"])


def search():
    held = load("search.json")
    keys = {entry["group"]: un(entry["search_key"]) for entry in held["search_keys"]}
    for number, octets in keys.items():
        same(stream(f"search key of group {number}", 32)[:16], octets, f"search key {number}")
    for entry in held["searches"]:
        what, ends = entry["name"], [ipaddress.ip_address(entry[end]).packed for end in ("source", "destination")]
        sent, answered = un(entry["probe"]), un(entry["answer"])
        for datagram, size in ((sent, "probe_size"), (answered, "answer_size")):
            same(len(datagram), entry[size], what)
        form("probe", sent[4:], what)
        form("answer", answered[4:], what)
        records = [un(entry[record]) for record in ("asker_record", "answerer_record")]
        probe, answer = key_search.read(sent), key_search.read(answered)
        same([probe.source, probe.destination, probe.record], [*ends, records[0]], what)
        asker, answerer = map(key_search.record_fields, records)
        same([asker["number"], answerer["number"]], [entry["asker"], entry["answerer"]], what)
        same([key_search.speaks_for(asker, ends[0]), key_search.speaks_for(answerer, ends[1])], [True, True], what)
        for handle in entry["handles"]:
            found = probe.handle_of(keys[handle["group"]], entry["asker"], handle["epoch"])
            same(found, (handle["epoch"], handle["generation"]), what)
            same(probe.handle_of(keys[handle["group"]], entry["answerer"], handle["epoch"]), None, what)
        group = key_search.choose(asker, answerer, *ends)
        same(group, entry["group"], what)
        same(answer.record, records[1], what)
        for number, octets in keys.items():
            same(answer.is_by(octets, probe, entry["answerer"]), number == group, what)
        same(answer.is_by(keys[group], probe, entry["asker"]), False, what)
        # Both made anew from their parts.
        made = key_search.Probe(un(entry["nonce"]), *ends, records[0], ())
        handles = tuple((key_search.authenticate(keys[it["group"]], made.text(entry["asker"], it["epoch"], it["generation"])),
                         it["epoch"], it["generation"]) for it in entry["handles"])
        made = key_search.Probe(made.nonce, *ends, records[0], handles)
        same(made.datagram(), sent, what)
        made = key_search.Answer(made.nonce, un(entry["answer_nonce"]), records[1], entry["epoch"],
                                 entry["generation"], answer.mac)
        mac = key_search.authenticate(keys[group], made.text(probe, entry["answerer"]))
        same((mac, made.datagram()), (answer.mac, answered), what)
    for entry in held["refused"]:
        refused(lambda: key_search.read(un(entry["octets"])), entry["name"])


def confirmations():
    held = load("confirmations.json")
    for entry in held["confirmations"]:
        what, datagram = entry["name"], un(entry["datagram"])
        form("confirmation", datagram[4:], what)
        same(len(datagram), entry["size"], what)
        said = reader.read_confirmation(datagram)
        wrap = Key(un(entry["wrap_key"]), entry["wrap_kid"], 0, entry["wrap_generation"])
        first = stream(f"wrap key of terminal {wrap.kid // 4}", 32)
        if "largest" in what:
            same(first, wrap.octets, what)
        else:
            same(Key(first, wrap.kid, 0, 0).renewed(wrap.generation), wrap, what)
        found = {"type": said.type, "id": said.id.hex(), "group": said.group,
                 "transaction": said.transaction, "epoch": said.epoch,
                 "generation": said.generation, "mac": said.mac.hex()}
        same(found, {field: entry[field] for field in found}, what)
        same(said.authenticated().hex(), entry["authenticated"], what)
        same(said.is_from(wrap), True, what)
        whole = [1, 0, *found_by_hand(said, wrap)]
        same((bytes(4) + det(whole)).hex(), entry["datagram"], what)
        for other in (Key(wrap.octets, wrap.kid, 0, wrap.generation + 1),
                      Key(wrap.octets, wrap.kid + 4, 0, wrap.generation),
                      Key(bytes(32), wrap.kid, 0, wrap.generation)):
            same(said.is_from(other), False, what)
    for entry in held["bundles"]:
        what, datagram = entry["name"], un(entry["datagram"])
        form("bundle", datagram[4:], what)
        same(len(datagram), entry["size"], what)
        read = reader.read_bundle(datagram)
        same(read, [reader.confirmation_of(un(one)) for one in entry["messages"]], what)
    for entry in held["refused"]:
        read = {"confirmation": reader.read_confirmation, "bundle": reader.read_bundle}
        refused(lambda: read[entry["kind"]](un(entry["octets"])), entry["name"])


def found_by_hand(said: reader.Confirmation, wrap: Key) -> list:
    return [said.type, wrap.xl("key-req-id", None, 8), said.group, said.transaction, said.epoch,
            said.generation, reader.confirmation_mac(said, wrap)]


def enrolment():
    held = load("enrolment.json")
    entry = held["to_request"]
    private = derive_key_pair(un(entry["request_seed"]))
    public = private.public_key().public_bytes_raw()
    same(public.hex(), entry["request_public"], "request key")
    same(packages.request_text(public), entry["request_text"], "request key as text")
    same(packages.read_request(entry["request_text"].lower().replace("0", "o")), public, "typed")
    wrong = entry["request_text"][:-1] + ("0" if entry["request_text"][-1] != "0" else "1")
    refused(lambda: packages.read_request(wrong), "a slip of the hand")
    package = un(entry["package"])
    form("enrolment-package", package, "package to a request key")
    _, _, enc, ciphertext = packages.read_sealed(package)
    ephemeral = derive_key_pair(un(entry["drawn"][0]))
    same(ephemeral.public_key().public_bytes_raw(), enc, "ephemeral key")
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    plain = suite.decrypt(enc + ciphertext, private, info=b"KF1/enrol")
    form("package-contents", plain, "contents to a request key")
    package_vector(packages.read_package(plain), entry["contents"])

    entry = held["under_code"]
    same(packages.code_of(un(entry["code_drawn"][0])), entry["code"], "code")
    package = un(entry["package"])
    form("enrolment-package", package, "package under a code")
    for typed in entry["typed"]:
        package_vector(packages.open_under_code(package, typed), entry["contents"])
    same([value.hex() for value in packages.read_sealed(package)[2:4]], entry["drawn"], "salt, IV")
    refused(lambda: packages.open_under_code(package, "0000-0000-0000-0000"), "another code")
    for typed in entry["not_a_code"]:
        refused(lambda: packages.read_code(typed), f"code {typed!r}")


def package_vector(found: packages.Package, expected: dict):
    shown_ = {
        "number": found.number, "name": found.name, "fleet": found.fleet,
        "root": found.root.hex(), "key_set_frame": found.keyset_frame.hex(),
        "streams": [s.hex() for s in found.streams], "carriers": found.carriers, "servers": found.servers,
        "keep_time": found.keep_time, "wipe_roots": found.wipe_roots, "obey_key": found.obey.octets.hex(),
        "wrap_key": found.wrap.octets.hex(), "wrap_generation": found.wrap.generation,
        "issued_at": found.issued_at, "expires": found.expires,
        "obey_fingerprint": found.obey.fingerprint(),
        "wrap_fingerprint": found.wrap.fingerprint(),
    }
    same(shown_, expected, f"package of {found.name}")


def derive_key_pair(ikm: bytes) -> X25519PrivateKey:
    """RFC 9180 section 7.1.3, DHKEM(X25519, HKDF-SHA256)."""
    suite_id = b"KEM" + (0x0020).to_bytes(2, "big")
    prk = HKDF.extract(SHA256(), b"", b"HPKE-v1" + suite_id + b"dkp_prk" + ikm)
    info = (32).to_bytes(2, "big") + b"HPKE-v1" + suite_id + b"sk"
    return X25519PrivateKey.from_private_bytes(HKDFExpand(SHA256(), 32, info).derive(prk))


READERS = {
    "frame": (reader.read_frame, "signed-command"),
    "package": (packages.read_sealed, "enrolment-package"),
    "receipt": (reader.read_receipt, "receipt"),
    "keydist-contents": (reader.read_contents, "keydist-contents"),
    "order-contents": (reader.read_order_contents, "order-contents"),
    "package-contents": (packages.read_package, "package-contents"),
}


def hpke():
    held = load("hpke.json")
    names = {"hpke": kem.HPKE, "hpke-pq": kem.HPKE_PQ}
    same({entry["suite"] for entry in held["sealed"]}, set(names), "hpke: suites")
    for entry in held["sealed"]:
        kind, what = names[entry["suite"]], f"{entry['suite']}, {len(entry['plain']) // 2} octets"
        same(entry["kem"], kem.KINDS[kind].id, f"{what}: KEM")
        secret = kem.KemSecret.derived(kind, un(entry["seed"]))
        same(secret.public().hex(), entry["public"], f"{what}: public key from the seed")
        same(kem.hash_in_keyset(kind, secret.public()).hex(), entry["listed"], f"{what}: as a KEYSET lists it")
        enc, ct, info = un(entry["enc"]), un(entry["ct"]), un(entry["info"])
        same(secret.open(enc, ct, info).hex(), entry["plain"], what)
        drawn = un("".join(entry["drawn"]))
        same(drawn, stream(entry["drawn_from"], len(drawn)), f"{what}: drawn")
        # The sender's X25519 half: all of it, or what follows the ciphertext of ML-KEM-768.
        if kind == kem.HPKE:
            same(kem.KemSecret.derived(kind, drawn).public().hex(), entry["enc"], f"{what}: encapsulated key")
        else:
            half = X25519PrivateKey.from_private_bytes(drawn[32:]).public_key().public_bytes_raw()
            same(half, enc[1088:], f"{what}: X25519 half of the encapsulated key")
        other = kem.KemSecret.derived(kind, bytes(32))
        refused(lambda: other.open(enc, ct, info), f"{what} under another key")
        refused(lambda: secret.open(enc, ct, info + b"x"), f"{what} for another purpose")
        for place in (0, len(enc) - 1, len(enc), len(enc + ct) - 1):
            changed = bytearray(enc + ct)
            changed[place] ^= 1
            refused(lambda: secret.open(bytes(changed[:len(enc)]), bytes(changed[len(enc):]), info),
                    f"{what}, octet {place} changed")


def malformed():
    beyond_cddl = []
    entries = load("malformed.json")["refused"]
    for entry in entries:
        octets = un(entry["octets"])
        read, rule = READERS[entry["kind"]]
        refused(lambda: read(octets), f"{entry['kind']}: {entry['name']}")
        if conforms(rule, octets):
            beyond_cddl.append(entry["name"])
    # CDDL cannot say what is deterministic, and what numbers have to do with each other.
    same(len(beyond_cddl) < len(entries) // 4, True, f"CDDL takes {beyond_cddl}")


def conforms(rule: str, octets: bytes) -> bool:
    try:
        return CDDL.validate(octets, root_type=rule).valid
    except Exception:  # not CBOR at all
        return False


def capture():
    held = load("capture.json")
    same(verify_capture.judge(held).findings, [], "capture")
    frames = held["frames"]
    for what, damaged in {
        "a frame changed": dict(held, frames=[damage(frames[3])] + frames),
        "another root": dict(held, root=held["root"][2:] + "00"),
        "another code": dict(held, packages=other_code(held["packages"])),
        "bob's KEYDISTs missing": dict(held, frames=frames[:2] + frames[6:]),
        "carol says she has the key": dict(held, status=carol_as_bob(held["status"])),
        "bob says he has nothing": dict(held, status={}),
        "another fingerprint": dict(held, status=other_fingerprint(held["status"])),
        "carol's receipt without her DELETE": dict(held, frames=frames[:-1]),
        "a receipt of bob's that is carol's": dict(held, status=bobs_receipt(held["status"])),
    }.items():
        same(verify_capture.judge(damaged).findings != [], True, what)


def damage(frame: str) -> str:
    return frame[:-2] + f"{int(frame[-2:], 16) ^ 1:02x}"


def other_code(packages: list) -> list:
    return [dict(package, code="0000-0000-0000-0000") for package in packages]


def carol_as_bob(status: dict) -> dict:
    return dict(status, carol=dict(status["carol"], groups=status["bob"]["groups"]))


def other_fingerprint(status: dict) -> dict:
    group = dict(status["bob"]["groups"][0], fingerprint="0" * 16)
    return dict(status, bob=dict(status["bob"], groups=[group]))


def bobs_receipt(status: dict) -> dict:
    return dict(status, bob=dict(status["bob"], deleted=status["carol"]["deleted"]))


def main() -> int:
    for part in (derivations, srtp, esp, commands, records, search, receipts, confirmations, enrolment, hpke,
                 malformed, capture):
        before = checks
        part()
        print(f"vectors: {part.__name__}: {checks - before} checks")
    print(f"vectors: ok, {checks} checks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
