#!/usr/bin/env python3
"""The suite rsa-misty1, written from docs/PROTOCOL.md section 15 alone: RSA by Python's cryptography, MISTY1 by Botan.

Usage: exchange.py vectors FILE       opens every exchange of interop/vectors/rsa_misty1.json, refuses changed ones
       exchange.py plan FILE          makes exchanges of its own, as lines for our `answer`; FILE gets what must come
       exchange.py check FILE < LINES what ours answered

Runs in the interop runners' Python. Botan is Debian's, and speaks through a process of its own.
"""

import hashlib
import hmac
import json
import pathlib
import secrets
import subprocess
import sys

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

HERE = pathlib.Path(__file__).resolve().parent
KEY_REQ, KEY_DIS, ACK = 1, 3, 4
KEYS_MAX = 256


class Refused(Exception):
    """Not a message of the suite, or not for whoever reads it."""


def demand(condition: bool, what: str):
    if not condition:
        raise Refused(what)


# -- Primitives


class Botan:
    """MISTY1 in CBC mode by Debian's python3-botan."""

    def __init__(self):
        self.process = subprocess.Popen(
            ["/usr/bin/python3", str(HERE / "botan_misty1.py"), "serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, word: str, key: bytes, iv: bytes, text: bytes) -> bytes:
        self.process.stdin.write(f"{word} {key.hex()} {iv.hex()} {text.hex()}\n")
        self.process.stdin.flush()
        return bytes.fromhex(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def oaep():
    return padding.OAEP(mgf=padding.MGF1(algorithm=SHA256()), algorithm=SHA256(), label=None)


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def mac(key: bytes, *parts: bytes) -> bytes:
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def spki(key) -> bytes:
    return key.public_bytes(serialization.Encoding.DER,
                            serialization.PublicFormat.SubjectPublicKeyInfo)


def key_name(public) -> bytes:
    return sha(sha(spki(public)))[:8]


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def number(octets: bytes) -> int:
    return int.from_bytes(octets, "big")


# -- Header


def join(kind: int, reference: bytes, rsa_field: bytes, rest: bytes) -> bytes:
    lengths = len(rsa_field).to_bytes(2, "big") + len(rest).to_bytes(2, "big")
    return b"KF\x01" + bytes([kind]) + lengths + reference + rsa_field + rest


def split(kind: int, message: bytes):
    demand(message[:4] == b"KF\x01" + bytes([kind]), "another message")
    rsa_len, rest_len = number(message[4:6]), number(message[6:8])
    demand(len(message) == 16 + rsa_len + rest_len, "lengths")
    return message[8:16], message[16:16 + rsa_len], message[16 + rsa_len:]


# -- KEY-REQ


def seal_key_req(server, terminal: int, nonce: bytes, time: int) -> bytes:
    field = server.encrypt(u32(terminal) + nonce + u32(time), oaep())
    return join(KEY_REQ, key_name(server), field, b"")


def open_key_req(server, message: bytes):
    reference, field, rest = split(KEY_REQ, message)
    demand(reference == key_name(server.public_key()) and not rest, "for another server")
    plain = decrypt(server, field)
    demand(len(plain) == 24, "ID information")
    terminal, nonce, time = number(plain[:4]), plain[4:20], number(plain[20:])
    demand(0 < terminal < 1 << 24, "terminal number")
    return terminal, nonce, time


def decrypt(own, field: bytes) -> bytes:
    try:
        return own.decrypt(field, oaep())
    except ValueError as fault:
        raise Refused("RSA field") from fault


# -- KEY-DIS


def seal_key_dis(botan, terminal, key_req: bytes, nonce: bytes, groups, fresh: bytes, iv: bytes):
    km = HKDFExpand(algorithm=SHA256(), length=16, info=sha(key_req)).derive(fresh)
    content = len(groups).to_bytes(2, "big")
    for group, epoch, generation, key in groups:
        content += u32(group) + u32(epoch) + u32(generation) + key
    plain = content + mac(km, nonce, content)[:16]
    plain += bytes(-len(plain) % 8)
    field = terminal.encrypt(km + sha(km)[:16], oaep())
    rest = iv + botan.ask("encrypt", km, iv, plain)
    return join(KEY_DIS, sha(key_req)[:8], field, rest), km, plain


def open_key_dis(botan, own, key_req: bytes, nonce: bytes, message: bytes):
    reference, field, rest = split(KEY_DIS, message)
    demand(reference == sha(key_req)[:8], "to another request")
    demand(len(rest) % 8 == 0 and len(rest) >= 8 + 24, "MISTY1 field")
    plain = decrypt(own, field)
    demand(len(plain) == 32 and plain[16:] == sha(plain[:16])[:16], "checksum of the RSA field")
    km, iv = plain[:16], rest[:8]
    plain = botan.ask("decrypt", km, iv, rest[8:])
    count = number(plain[:2])
    end = 2 + 44 * count
    demand(count <= KEYS_MAX and len(plain) == end + 16 + -(end + 16) % 8, "count")
    demand(plain[end:end + 16] == mac(km, nonce, plain[:end])[:16], "checksum of the MISTY1 field")
    demand(not any(plain[end + 16:]), "padding")
    groups = []
    for at in range(2, end, 44):
        group, epoch, generation = (number(plain[at + i:at + i + 4]) for i in (0, 4, 8))
        demand(0 < group < 1 << 30 and generation <= 1 << 31, "numbers")
        demand(not groups or groups[-1][0] < group, "order")
        groups.append((group, epoch, generation, plain[at + 12:at + 44]))
    return groups, km, plain


# -- ACK


def make_ack(km: bytes, key_req: bytes, key_dis: bytes, plain: bytes, status: int) -> bytes:
    messages, said = sha(key_req, key_dis), bytes([status])
    return join(ACK, messages[:8], b"", said + mac(km, messages, said, sha(plain)))


# -- What the runner asks for


checks = 0


def same(found, expected, what: str):
    global checks
    checks += 1
    if found != expected:
        sys.exit(f"exchange: {what}: found {found!r}, expected {expected!r}")


def refused(call, what: str):
    global checks
    checks += 1
    try:
        call()
    except Refused:
        return
    sys.exit(f"exchange: {what}: was taken")


def private(octets: bytes):
    return serialization.load_der_private_key(octets, password=None)


def changed(message: bytes):
    """Each octet of the header and every fifth of the rest changed; cut; longer."""
    for at in [*range(16), *range(16, len(message), 5)]:
        yield message[:at] + bytes([message[at] ^ 1 << at % 8]) + message[at + 1:]
    yield message[:-1]
    yield message + bytes(8)


def vectors(path: str):
    file = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    botan = Botan()
    keys = {}
    for who in ("server", "terminal"):
        keys[who] = private(bytes.fromhex(file[who]["private"]))
        public = keys[who].public_key()
        same(spki(public).hex(), file[who]["public"], f"public key of the {who}")
        same(sha(spki(public)).hex(), file[who]["fingerprint"], f"fingerprint of the {who}")
        same(key_name(public).hex(), file[who]["name"], f"name of the {who}'s key")
    server, terminal = keys["server"], keys["terminal"]
    for case in file["exchanges"]:
        name = case["name"]
        key_req, key_dis = bytes.fromhex(case["key_req"]), bytes.fromhex(case["key_dis"])
        nonce = bytes.fromhex(case["nonce"])
        same(nonce, stream(f"nonce of {name}", 16), f"{name}: nonce of the stream")
        same(open_key_req(server, key_req), (case["terminal"], nonce, case["time"]),
             f"{name}: ID information")
        groups, km, plain = open_key_dis(botan, terminal, key_req, nonce, key_dis)
        same([{"group": group, "epoch": epoch, "generation": generation, "key": key.hex()}
              for group, epoch, generation, key in groups], case["groups"], f"{name}: groups")
        same(km.hex(), case["km"], f"{name}: Km")
        same(plain.hex(), case["plain"], f"{name}: plaintext")
        for ack in case["acks"]:
            same(make_ack(km, key_req, key_dis, plain, ack["status"]).hex(), ack["ack"],
                 f"{name}: ACK {ack['status']}")
        drawn = stream(name, 40)
        same(drawn[32:].hex(), case["iv"], f"{name}: IV")
        again, _, _ = seal_key_dis(botan, terminal.public_key(), key_req, nonce, groups,
                                   drawn[:32], drawn[32:])
        same(again[:16] + again[272:], key_dis[:16] + key_dis[272:], f"{name}: sealed again")
        for other in changed(key_req):
            refused(lambda: open_key_req(server, other), f"{name}: a changed KEY-REQ")
        for other in changed(key_dis):
            refused(lambda: open_key_dis(botan, terminal, key_req, nonce, other),
                    f"{name}: a changed KEY-DIS")
        refused(lambda: open_key_dis(botan, terminal, key_req, bytes(16), key_dis),
                f"{name}: a KEY-DIS to another nonce")
    botan.end()
    print(checks)


def stream(name: str, length: int) -> bytes:
    """Section 12."""
    blocks = [sha(name.encode(), u32(i)) for i in range(-(-length // 32))]
    return b"".join(blocks)[:length]


def plan(path: str):
    """One line an exchange: SERVER TERMINAL KEY-REQ KEY-DIS ACK, and in the file what ours must answer."""
    botan, expected = Botan(), []
    made = [rsa.generate_private_key(65537, bits) for bits in (2048, 3072, 2056)]

    def pkcs8(key) -> bytes:
        return key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8,
                                 serialization.NoEncryption())

    def line(server, terminal, key_req, key_dis, ack, answer: str):
        print(*(part.hex() for part in (pkcs8(server), pkcs8(terminal), key_req, key_dis, ack)))
        expected.append(answer)

    for turn, count in enumerate([0, 1, 2, 3, 16, KEYS_MAX]):
        server, terminal = made[turn % 3], made[(turn + 1) % 3]
        number_of, nonce, time = 1 + secrets.randbelow((1 << 24) - 1), secrets.token_bytes(16), turn
        groups = sorted({1 + secrets.randbelow((1 << 30) - 1) for _ in range(count)})
        groups = [(group, secrets.randbits(32), secrets.randbelow((1 << 31) + 1),
                   secrets.token_bytes(32)) for group in groups]
        key_req = seal_key_req(server.public_key(), number_of, nonce, time)
        request = (botan, terminal.public_key(), key_req)
        key_dis, km, plain = seal_key_dis(*request, nonce, groups,
                                          secrets.token_bytes(32), secrets.token_bytes(8))
        ack = make_ack(km, key_req, key_dis, plain, turn)
        keys = b"".join(u32(a) + u32(b) + u32(c) + key for a, b, c, key in groups).hex() or "-"
        id_information = (u32(number_of) + nonce + u32(time)).hex()
        parts = (server, terminal, key_req, key_dis, ack)
        line(*parts, f"{id_information} {keys} {turn} {ack.hex()}")
        other = bytearray(key_req)
        other[100] ^= 1
        line(server, terminal, bytes(other), key_dis, ack, "refused KEY-REQ")
        # By somebody who has the terminal's public key and could not read the request.
        forged, _, _ = seal_key_dis(*request, bytes(16), groups, bytes(32), bytes(8))
        line(server, terminal, key_req, forged, ack, "refused KEY-DIS")
        # By somebody who has all but Km, or all but the plaintext.
        for km, plain in ((bytes(16), plain), (km, key_dis)):
            line(server, terminal, key_req, key_dis,
                 make_ack(km, key_req, key_dis, plain, turn), "refused ACK")
    botan.end()
    pathlib.Path(path).write_text("".join(f"{answer}\n" for answer in expected), encoding="utf-8")


def check(path: str):
    expected = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    found = sys.stdin.read().splitlines()
    same(len(found), len(expected), "lines")
    for place, (ours, theirs) in enumerate(zip(found, expected)):
        same(ours, theirs, f"line {place}")
    print(len(expected))


if __name__ == "__main__":
    {"vectors": vectors, "plan": plan, "check": check}[sys.argv[1]](*sys.argv[2:])
