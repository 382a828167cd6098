#!/usr/bin/env python3
"""Key sharing with real sockets: a terminal against a running server, or a server against a terminal.

Usage: live_sharing.py terminal SECRETS [STAY]     asks once, acknowledges, prints what it got; then confirms STOP and
                                                   START for STAY seconds (0)
       live_sharing.py server SECRETS ADDRESS [STAY]   answers at HOST:PORT for STAY seconds (10), prints what was said
       live_sharing.py loopback                    both against each other on 127.0.0.1, every suite

SECRETS of a terminal is JSON, octets in hexadecimal:
  { server: "HOST:PORT", suite: 1, 2 or 3, terminal, wrap_key: octets, kid, generation (of the wrap key), g,
    held: [[kid, epoch, generation], ...], root, key_set_frame, kem_public: octets or absent (fetched by HELLO) }
of a server:
  { g, cookies: true where every request without one gets one, terminals: { number: { wrap_key, kid, generation } },
    root, key_set_frame, beat_seed, keys_seed, kem: { "2": private, "3": private },
    groups: [{ kid, epoch, generation, key, activate_at, schedule, lease_end }, ...] }
Exit code 1: no answer, or none that counts.
"""

import json
import os
import random
import socket
import sys
import threading
import time
from dataclasses import dataclass, field

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import kem
import reader
import sharing
from kem import KINDS, KemSecret
from reader import Contents, Key, Refused, demand, det
from sharing import PSK, Asked, Given

# PROTOCOL 14: 0.5 s, doubled up to 8 s, six tries.
FIRST_WAIT, LONGEST_WAIT, TRIES = 0.5, 8.0, 6


def un(text: str) -> bytes:
    return bytes.fromhex(text)


def address_of(text: str) -> tuple:
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)


def socket_to(address: tuple) -> socket.socket:
    family, kind, protocol, _, found = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
    opened = socket.socket(family, kind, protocol)
    opened.connect(found)
    return opened


@dataclass
class Parts:
    """Datagrams until they make up a message."""

    held: dict = field(default_factory=dict)

    def message(self, datagram: bytes):
        """The message, once it is whole; `None` before, and for what is none."""
        try:
            read = sharing.read_message(sharing.unmarked(datagram))
            if read["type"] != sharing.PART:
                return sharing.unmarked(datagram)
            parts = self.held.setdefault(read["whole"], {})
            parts[read["index"]] = datagram
            return sharing.joined(list(parts.values())) if len(parts) == read["count"] else None
        except Refused:
            return None


# -- A terminal


class Terminal:
    def __init__(self, secrets: dict):
        self.suite, self.number, self.g = secrets["suite"], secrets["terminal"], secrets["g"]
        self.wrap = Key(un(secrets["wrap_key"]), secrets["kid"], 0, secrets["generation"])
        self.held = secrets.get("held", [])
        self.root = un(secrets["root"])
        self.keyset = self.verified_keyset(un(secrets["key_set_frame"]))
        self.kem_public = un(secrets["kem_public"]) if "kem_public" in secrets else None
        self.socket, self.parts = socket_to(address_of(secrets["server"])), Parts()

    def verified_keyset(self, frame: bytes) -> dict:
        command = reader.read_frame(frame)
        demand(command.type == reader.KEYSET and reader.obeyed(command, {}, self.root), "KEYSET of the root")
        return command.body

    def heard(self, wait: float):
        """The next whole message within `wait` seconds, else `None`."""
        until = time.monotonic() + wait
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                message = self.parts.message(self.socket.recv(2048))
            except (TimeoutError, ConnectionError):
                continue
            if message is not None:
                return message
        return None

    def send(self, message: bytes, cookie=None):
        for datagram in sharing.split(message, cookie):
            self.socket.send(datagram)

    def introduced(self):
        """PROTOCOL 14, HELLO: fetches the server's KEM key and checks it against the KEYSET."""
        pieces, wanted = {}, 0
        for _ in range(4 * TRIES):
            self.send(sharing.make_hello(wanted))
            message = self.heard(FIRST_WAIT)
            read = sharing.read_message(message) if message else {"type": 0}
            if read["type"] != sharing.INTRODUCTION:
                continue
            pieces[read["piece"]] = message
            wanted = next((at for at in range(read["pieces"]) if at not in pieces), None)
            if wanted is None:
                break
        found = sharing.read_introduction_whole(list(pieces.values()))
        demand(found.root == self.root, "the root that is known")
        self.keyset = self.verified_keyset(found.keyset_frame)
        class_ = {kem.HPKE: 4, kem.HPKE_PQ: 5}[self.suite]
        listed = [key["public"] for key in self.keyset["keys"] if key["class"] == class_]
        at_hand = [*found.kem_publics, *(listed if self.suite == kem.HPKE else [])]
        fitting = [public for public in at_hand if len(public) == KINDS[self.suite].public
                   and kem.hash_in_keyset(self.suite, public) in listed]
        demand(fitting, "a KEM key that the KEYSET lists")
        self.kem_public = fitting[0]

    def ask(self) -> dict:
        """PROTOCOL 14: KEY-REQ until a KEY-DIS counts, then ACK."""
        if self.suite != PSK and self.kem_public is None:
            self.introduced()
        fresh = None if self.suite == PSK else KemSecret(self.suite, os.urandom(32))
        request, cookies, wait = self.request(fresh, None), 0, FIRST_WAIT
        for _ in range(TRIES):
            self.send(request.message, request.cookie)
            until = time.monotonic() + wait * random.uniform(0.75, 1.25)
            while (message := self.heard(until - time.monotonic())) is not None:
                read = sharing.read_message(message)
                if read.get("ref") != request.ref():
                    continue
                if read["type"] == sharing.COOKIE and cookies < TRIES:
                    cookies += 1
                    self.follow(read["frame"])
                    request = self.request(fresh, read["cookie"])
                    self.send(request.message, request.cookie)
                elif read["type"] == sharing.KEY_DIS:
                    found = self.taken(message, request, fresh)
                    if found is not None:
                        return found | {"cookies": cookies}
            wait = min(2 * wait, LONGEST_WAIT)
        raise Refused("no answer that counts")

    def request(self, fresh, cookie) -> sharing.Request:
        """A request of its own for each cookie: no IV seals two texts."""
        asked = Asked(self.number, os.urandom(16), int(time.time()), self.held, fresh and fresh.public(), b"")
        return sharing.padded_key_req(self.suite, self.wrap, self.g, os.urandom(12), asked, cookie, self.kem_public)

    def follow(self, frame):
        """Section 6.2: the G of a verified TIME; the wrap key is renewed to it and its offset."""
        command = reader.read_frame(frame) if frame else None
        if command and reader.obeyed(command, self.keyset, self.root) and command.g > self.g:
            self.wrap = self.wrap.renewed(self.wrap.generation + command.g - self.g)
            self.g = command.g

    def taken(self, message: bytes, request: sharing.Request, fresh):
        listed = {key["name"]: key["public"] for key in self.keyset["keys"] if key["class"] == reader.KEYS}
        try:
            distribution = sharing.open_key_dis(message, request, self.wrap, listed, fresh)
        except Refused:
            return None
        given = distribution.given
        if given.r is not None:
            self.wrap = sharing.first_wrap_key(self.wrap, given.r, self.wrap.kid, self.wrap.generation)
        self.send(sharing.make_ack(request, distribution, self.wrap, 0))
        return {"g": given.g, "time": given.time, "not_member": given.not_member, "more": given.more,
                "first": given.r is not None, "groups": [
                    {"kid": group.key.kid, "epoch": group.key.epoch, "generation": group.key.generation,
                     "fingerprint": group.key.fingerprint()} for group in given.groups]}

    def confirm(self, stay: float) -> list:
        """PROTOCOL 14: answers STOP and START that come in a COMMAND."""
        until, confirmed = time.monotonic() + stay, []
        while (left := until - time.monotonic()) > 0:
            message = self.heard(left)
            read = sharing.read_message(message) if message else {"type": 0}
            if read["type"] != sharing.COMMAND:
                continue
            command = reader.read_frame(read["frame"])
            if command.type in (reader.STOP, reader.START) and reader.obeyed(command, self.keyset, self.root):
                body = command.body
                type_ = sharing.STOP_ACK if command.type == reader.STOP else sharing.START_ACK
                self.send(sharing.make_confirmation(self.wrap, type_, body["group"], body["transaction"],
                                                    body["epoch"], body["generation"]))
                confirmed.append({"type": command.type, **body})
        return confirmed


# -- A server


class Server:
    def __init__(self, secrets: dict, address: tuple):
        self.g, self.cookies = secrets["g"], secrets["cookies"]
        self.keys = [Key(un(one["wrap_key"]), one["kid"], 0, one["generation"]) for one in
                     secrets["terminals"].values()]
        self.root, self.keyset_frame = un(secrets["root"]), un(secrets["key_set_frame"])
        self.beat, self.signer = (Ed25519PrivateKey.from_private_bytes(un(secrets[name]))
                                  for name in ("beat_seed", "keys_seed"))
        self.kem = {int(suite): KemSecret(int(suite), un(text)) for suite, text in secrets["kem"].items()}
        self.groups = [Contents(Key(un(one["key"]), one["kid"], one["epoch"], one["generation"]), one["activate_at"],
                             one["schedule"], one["lease_end"]) for one in secrets["groups"]]
        family = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0][0]
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.secret, self.parts, self.open, self.told = os.urandom(32), {}, {}, []

    def serve(self, stay: float) -> list:
        until = time.monotonic() + stay
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                datagram, source = self.socket.recvfrom(2048)
                message = self.parts.setdefault(source, Parts()).message(datagram)
                if message is not None:
                    self.answer(message, source)
            except (TimeoutError, Refused):
                continue
        return self.told

    def answer(self, message: bytes, source: tuple):
        read = sharing.read_message(message)
        if read["type"] == sharing.HELLO:
            publics = [self.kem[kem.HPKE_PQ].public()] if kem.HPKE_PQ in self.kem else []
            pieces = sharing.make_introduction(sharing.Introduction(self.root, self.keyset_frame, publics))
            if read["piece"] < len(pieces):
                self.send(pieces[read["piece"]], source)
        elif read["type"] == sharing.KEY_REQ:
            self.distribute(message, read, source)
        elif read["type"] == sharing.ACK and read["ref"] in self.open:
            request, distribution, key = self.open[read["ref"]]
            status = sharing.ack_is_from(message, request, distribution, key)
            if status is not None:
                self.told.append({"terminal": request.asked.terminal, "suite": request.suite, "status": status})
                self.confirmations(source)
        elif read["type"] in (sharing.STOP_ACK, sharing.START_ACK):
            if any(sharing.confirmation_is_from(message, key) for key in self.keys):
                self.told.append({"confirmed": sharing.NAMES[read["type"]], "group": read["group"],
                                  "transaction": read["transaction"]})

    def cookie_for(self, source: tuple) -> bytes:
        """Opaque to the terminal; PROTOCOL 14 says how Keyfall makes its own."""
        return sharing.hmac.digest(self.secret, repr(source[:2]).encode(), "sha256")[:16]

    def distribute(self, message: bytes, read: dict, source: tuple):
        cookie = self.cookie_for(source)
        if self.cookies and read["cookie"] != cookie:
            frame = self.signed(self.beat, reader.TIME, [0], {1: int(time.time()), 2: 1000})
            self.send(sharing.make_cookie(read["suite"], message, cookie, frame), source)
            return
        for key in self.keys:
            try:
                request = sharing.open_key_req(message, key, self.kem.get(read["suite"]))
            except Refused:
                continue
            lacks = [group for group in self.groups
                     if [group.key.kid, group.key.epoch, group.key.generation] not in request.asked.held]
            known = {group.key.kid for group in self.groups}
            strange = [kid // 4 for kid, _, _ in request.asked.held if kid not in known]
            given = Given(request.asked.nonce, int(time.time()), self.g, lacks, strange)
            distribution = sharing.make_key_dis(request, key, os.urandom(12), given, self.signer)
            self.open[request.ref()] = request, distribution, key
            self.send(distribution.message, source)

    def confirmations(self, source: tuple):
        """STOP and START of the first group, as COMMANDs."""
        if not self.groups:
            return
        key, now = self.groups[0].key, int(time.time())
        body = {1: key.kid // 4, 2: now * 1000, 3: key.epoch, 4: key.generation, 5: now + 60}
        for type_ in (reader.STOP, reader.START):
            frame = self.signed(self.signer, type_, [1, body[1]], body)
            self.send(sharing.make_command(frame), source)

    def signed(self, private: Ed25519PrivateKey, type_: int, target: list, body: dict) -> bytes:
        """Section 4: a frame signed by one key."""
        now = int(time.time())
        payload = det({1: bytes(4), 2: now * 1000, 3: now, 4: now + 3600, 5: type_, 6: target, 7: body, 8: self.g})
        protected = det({1: -19, 4: reader.key_name(private.public_key().public_bytes_raw())})
        signature = private.sign(det(["Signature1", protected, b"KF1/cmd", payload]))
        return det(cbor2.CBORTag(18, [protected, {}, payload, signature]))

    def send(self, message: bytes, source: tuple):
        for datagram in sharing.split(message):
            self.socket.sendto(datagram, source)


# -- Both


def loopback() -> int:
    """Python against Python: the two roles above understand each other in every suite, with a G that moved on."""
    root, beat, keys = (Ed25519PrivateKey.generate() for _ in range(3))
    now, wrap, server_kem = int(time.time()), os.urandom(32), {suite: os.urandom(32) for suite in KINDS}
    publics = [beat.public_key().public_bytes_raw(), keys.public_key().public_bytes_raw(),
               KemSecret(kem.HPKE, server_kem[kem.HPKE]).public()]
    for suite in (PSK, kem.HPKE, kem.HPKE_PQ):
        listed = [[reader.key_name(public), public, class_, now - 60, now + 86_400, []]
                  for public, class_ in zip(publics, (1, 2, 4))]
        groups = [{"kid": 4 * number + 3, "epoch": 22_774_400, "generation": 3, "key": os.urandom(32).hex(),
                   "activate_at": now, "schedule": [1, 600], "lease_end": now + 3600} for number in range(1, 20)]
        held = [[4 * 19 + 3, 22_774_400, 3], [4 * 99 + 3, 22_774_400, 1]]
        secrets = {"g": 8, "cookies": True, "terminals": {"2": {"wrap_key": "", "kid": 9, "generation": 10}},
                   "root": root.public_key().public_bytes_raw().hex(), "beat_seed": beat.private_bytes_raw().hex(),
                   "keys_seed": keys.private_bytes_raw().hex(), "groups": groups,
                   "kem": {str(kind): private.hex() for kind, private in server_kem.items()}, "key_set_frame": ""}
        secrets["terminals"]["2"]["wrap_key"] = Key(wrap, 9, 0, 7).renewed(10).octets.hex()
        body = {1: 1, 2: now - 60, 3: listed, 4: [5, now, 86_400],
                8: {1: 259_200, 4: 30, 5: 0, 6: 600, 7: 2_592_000, 8: 1}}
        payload = det({1: bytes(4), 2: 1, 3: now, 4: now, 5: reader.KEYSET, 6: [0], 7: body, 8: 0})
        protected = det({1: -19, 4: reader.key_name(root.public_key().public_bytes_raw())})
        signature = root.sign(det(["Signature1", protected, b"KF1/cmd", payload]))
        secrets["key_set_frame"] = det(cbor2.CBORTag(18, [protected, {}, payload, signature])).hex()
        server = Server(secrets, ("127.0.0.1", 0))
        thread = threading.Thread(target=server.serve, args=(3.0,), daemon=True)
        thread.start()
        mine = {"server": "127.0.0.1:%d" % server.socket.getsockname()[1], "suite": suite, "terminal": 2,
                "wrap_key": wrap.hex(), "kid": 9, "generation": 7, "g": 5, "held": held, "root": secrets["root"],
                "key_set_frame": secrets["key_set_frame"]}
        if suite == kem.HPKE_PQ:
            # Class 5 is not in every release's KEYSET: given beforehand.
            mine["kem_public"] = KemSecret(suite, server_kem[suite]).public().hex()
        terminal = Terminal(mine)
        found = terminal.ask()
        confirmed = terminal.confirm(1.0)
        told = list(server.told)
        demand([group["kid"] for group in found["groups"]] == [group["kid"] for group in groups[:18]], "the difference")
        demand(found["not_member"] == [99] and found["cookies"] == 1, "groups of others, one cookie")
        demand([one["type"] for one in confirmed] == [reader.STOP, reader.START], "STOP and START")
        demand(told[0] == {"terminal": 2, "suite": suite, "status": 0} and len(told) == 3, f"what the server heard: {told}")
        print(f"live: suite {suite}: {len(found['groups'])} groups, then STOP-ACK and START-ACK")
    print("live: ok")
    return 0


def main(arguments: list) -> int:
    role, rest = (arguments or [""])[0], arguments[1:]
    try:
        if role == "loopback" and not rest:
            return loopback()
        if role == "terminal" and len(rest) in (1, 2):
            terminal = Terminal(json.load(open(rest[0], encoding="utf-8")))
            found = terminal.ask()
            found["confirmed"] = terminal.confirm(float(rest[1])) if len(rest) == 2 else []
            print(json.dumps(found))
            return 0
        if role == "server" and len(rest) in (2, 3):
            server = Server(json.load(open(rest[0], encoding="utf-8")), address_of(rest[1]))
            print(json.dumps(server.serve(float(rest[2]) if len(rest) == 3 else 10.0)))
            return 0
    except Refused as fault:
        print(f"live: {fault}", file=sys.stderr)
        return 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
