"""What the dissector must say of a datagram: every field by its name with its values in order, found by cbor2 and hashlib.

Octets stay octets, numbers and times are integers. A packet is judged with those before it, as Wireshark does.
"""

import hashlib

import cbor2

SUITES = {0: "none", 1: "psk", 2: "hpke", 3: "hpke-pq", 4: "rsa-misty1"}
MESSAGES = {1: "KEY-REQ", 2: "COOKIE", 3: "KEY-DIS", 4: "ACK", 5: "STOP-ACK", 6: "START-ACK", 7: "PART", 8: "COMMAND",
            9: "HELLO", 10: "INTRODUCTION", 11: "BUNDLE", 12: "PROBE", 13: "ANSWER"}
COMMANDS = {1: "TIME", 2: "RENEW", 3: "KEYDIST", 4: "DELETE", 5: "INIT", 6: "EXCLUDE", 8: "KEYSET", 10: "STOP",
            11: "START", 12: "NOTIFY", 15: "LOCK", 16: "UNLOCK"}
# Items of a message behind [1, suite, type, by (type, suite); 0: any suite.
ITEMS = {
    (1, 1): ["id", "g", "iv", "ct", "cookie"], (1, 2): ["enc", "ct", "cookie"], (1, 3): ["enc", "ct", "cookie"],
    (1, 4): ["legacy", "cookie"], (2, 0): ["ref", "cookie", "frame"], (3, 1): ["ref", "cose"],
    (3, 2): ["ref", "enc", "ct"], (3, 3): ["ref", "enc", "ct"], (3, 4): ["ref", "legacy"],
    (4, 0): ["ref", "status", "mac"], (5, 0): ["id", "group", "transaction", "epoch", "generation", "mac"],
    (6, 0): ["id", "group", "transaction", "epoch", "generation", "mac"],
    (7, 0): ["part.whole", "part.index", "part.count", "cookie", "part.octets"], (8, 0): ["frame"],
    (9, 0): ["hello.piece", "hello.pad"],
    (12, 0): ["search.nonce", "search.source", "search.destination", "frame"],
    (13, 0): ["search.nonce", "search.answer_nonce", "frame", "epoch", "generation", "mac"],
    (10, 0): ["introduction.piece", "introduction.pieces", "introduction.hash", "introduction.octets"],
}
STANDING = ["kid", "epoch", "generation"]
LIMITS = {1: "longest_lease", 4: "grace", 5: "exclude_grace", 6: "exclude_wait", 7: "dead_man", 8: "erase_signatures"}


def det(value) -> bytes:
    return cbor2.dumps(value, canonical=True)


class Observer:
    """Reads one capture."""

    def __init__(self):
        self.requests, self.pieces = {}, {}

    def datagram(self, number: int, octets: bytes) -> tuple:
        """({field: [value, ...]}, what the column says at least, [labels for README.md's table])."""
        self.number, self.found, self.labels = number, {}, []
        if octets[:4] == bytes(4):
            self.put("marker", octets[:4])
            info = self.message(octets[4:])
        else:
            self.put("frame", octets)
            info = self.frame(octets)
        return self.found, info, self.labels

    def put(self, name: str, value):
        if value is not None:
            self.found.setdefault(f"keyfall.{name}", []).append(value)

    def put_all(self, names: list, values: list):
        for name, value in zip(names, values):
            self.put(name, value)

    # -- PROTOCOL 14

    def message(self, message: bytes) -> str:
        version, suite, type_, *rest = cbor2.loads(message)
        self.put_all(["version", "suite", "type"], [version, suite, type_])
        sized = type_ in (1, 3)
        self.labels.append(MESSAGES[type_] + (" " + SUITES[suite] if sized else ""))
        if type_ == 11:
            for one in rest[0]:
                self.put("bundle.message", one)
                self.message(one)
            return f"BUNDLE of {len(rest[0])}"
        self.put_all(ITEMS[type_, suite if sized else 0], rest)
        name = self.labels[-1]
        if type_ == 1:
            ref = hashlib.sha256(message).digest()[:8]
            self.put("ref", ref)
            self.requests.setdefault(ref, self.number)
        if type_ in (2, 3, 4) and rest[0] in self.requests:
            self.put("request", self.requests[rest[0]])
        if type_ == 3 and suite == 1:
            self.distribution(rest[1])
        if type_ == 2 and rest[2] is not None:
            self.frame(rest[2])
        if type_ == 8:
            return "COMMAND " + self.frame(rest[0])
        if type_ == 12:
            for handle in rest[4]:
                self.put("search.handle", det(handle))
                self.put_all(["mac", "epoch", "generation"], handle)
            self.frame(rest[3])
        if type_ == 13:
            self.frame(rest[2])
        if type_ in (7, 10):
            self.piece(type_, rest)
        return name

    def distribution(self, cose: bytes):
        protected, _, payload, signature = cbor2.loads(cose).value
        self.signer(protected, signature)
        self.put_all(["iv", "ct"], cbor2.loads(payload))

    def piece(self, type_: int, rest: list):
        if type_ == 7:
            key, index, count, octets = rest[0], rest[1], rest[2], rest[4]
        else:
            index, count, key, octets = rest
        held = self.pieces.setdefault((type_, key), {})
        held[index] = octets
        if len(held) < count:
            return
        whole = b"".join(held[at] for at in range(count))
        self.put("part.message", whole)
        if type_ == 7:
            self.message(whole)
        else:
            root, frame, publics = cbor2.loads(whole)
            self.put_all(["introduction.root", "frame"], [root, frame])
            self.frame(frame)
            for public in publics:
                self.put("introduction.kem", public)

    # -- Section 4

    def signer(self, protected: bytes, signature: bytes):
        header = cbor2.loads(protected)
        self.put_all(["signer.algorithm", "signer.name", "signature"], [header[1], header[4], signature])

    def frame(self, frame: bytes) -> str:
        whole = cbor2.loads(frame)
        protected, _, payload, signature = whole.value
        for one in [[protected, {}, signature]] if whole.tag == 18 else signature:
            self.signer(one[0], one[2])
        if isinstance(cbor2.loads(payload), list):
            return self.record(cbor2.loads(payload))
        stream, sequence, issued_at, not_after, type_, target, body, g = cbor2.loads(payload).values()
        self.put_all([f"command.{name}" for name in ("stream", "sequence", "issued_at", "not_after", "type", "target",
                                                     "body", "g")],
                     [stream, sequence, issued_at, not_after, type_, target[0], det(body), g])
        if target[0] in (1, 2):
            self.put(("command.target.group", "command.target.terminal")[target[0] - 1], target[1])
        self.labels.append(COMMANDS[type_])
        {1: self.time, 2: self.renew, 3: self.keydist, 6: self.exclude, 8: self.keyset, 10: self.stop, 11: self.stop,
         12: self.notify}.get(type_, self.order)(body)
        return f"{COMMANDS[type_]} sequence {sequence}, G {g}"

    def record(self, items: list) -> str:
        """Section 17."""
        self.labels.append("RECORD")
        self.put_all([f"record.{name}" for name in ("terminal", "version", "issued_at", "not_after")], items)
        for prefix in items[4]:
            self.prefix("record.prefix", prefix)
        for address, port in items[5]:
            self.put("record.endpoint", det([address, port]))
            self.put_all(["record.address", "record.port"], [address, port])
        for group, priority, mtu, suite, networks in items[6]:
            self.put("record.group", det([group, priority, mtu, suite, networks]))
            self.put_all(["group", "record.priority", "record.mtu", "record.suite"],
                         [group, priority, mtu, suite])
            for network in networks:
                self.prefix("record.network", network)
        return f"RECORD of terminal {items[0]}, version {items[1]}"

    def prefix(self, name: str, prefix: list):
        self.put(name, det(prefix))
        self.put_all(["record.address", "record.length"], prefix)

    def time(self, body: dict):
        self.put_all(["time.seconds", "time.error"], [body[1], body[2]])
        for floor in body.get(3, []):
            self.put("floor", det(floor))
            self.put_all(STANDING, floor)

    def renew(self, body: dict):
        for entry in body[1]:
            self.put("entry", det(entry))
            self.put_all([*STANDING, "activate_at", "step", "period", "lease_end"], entry)

    def keydist(self, body):
        _, unprotected, ciphertext, recipients = body.value
        self.put_all(["iv", "ct"], [unprotected[5], ciphertext])
        for recipient in recipients:
            self.put_all(["recipient", "handle", "wrapped"], [det(recipient), recipient[1][4], recipient[2]])

    def order(self, body):
        protected, unprotected, ciphertext = body.value
        self.put_all(["handle", "iv", "ct"], [cbor2.loads(protected)[4], unprotected[5], ciphertext])

    def exclude(self, body: dict):
        for terminal in body[1]:
            self.put("exclude.terminal", terminal)
        for entry in body[2]:
            self.put("entry", det(entry))
            self.put_all(["group", "exclude.old", "exclude.new"], entry)

    def keyset(self, body: dict):
        self.put_all(["keyset.version", "keyset.issued_at"], [body[1], body[2]])
        for key in body[3]:
            self.put("keyset.key", det(key))
            self.put_all([f"keyset.{name}" for name in ("name", "public", "class", "not_before", "expires")], key)
            for group in key[5]:
                self.put("keyset.group", group)
        self.put_all(["keyset.g0", "keyset.t0", "keyset.p0"], body[4])
        for name in body.get(6, []):
            self.put("keyset.stolen", name)
        for number, name in LIMITS.items():
            self.put(f"keyset.{name}", body[8][number])
        for prefix in body[8].get(2, []):
            self.prefix("keyset.clear", prefix)
        for suite in body[8].get(3, []):
            self.put("keyset.suite", suite)

    def stop(self, body: dict):
        self.put_all(["group", "transaction", "epoch", "generation", "stop.deadline"], body.values())

    def notify(self, body: dict):
        self.put("notify.spread", body[1])
        for entry in body[2]:
            self.put("entry", det(entry))
            self.put_all(["group", "epoch", "generation"], entry)
