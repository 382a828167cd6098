#!/usr/bin/env python3
"""Reads a captured run (docs/PROTOCOL.md section 12) and finds in it the keys that the terminals say they have.

Usage: verify_capture.py FILE
Exit code 1: a finding; each is one line.
"""

import collections
import hashlib
import json
import sys
from dataclasses import dataclass, field

import packages
import reader
from packages import Package
from reader import Command, Key, Refused

NAMES = {reader.TIME: "TIME", reader.RENEW: "RENEW", reader.KEYDIST: "KEYDIST",
         reader.DELETE: "DELETE", reader.INIT: "INIT", reader.EXCLUDE: "EXCLUDE",
         reader.KEYSET: "KEYSET", reader.LOCK: "LOCK", reader.UNLOCK: "UNLOCK",
         reader.STOP: "STOP", reader.START: "START", reader.NOTIFY: "NOTIFY"}


@dataclass
class Verdict:
    findings: list = field(default_factory=list)
    told: list = field(default_factory=list)


@dataclass
class Heard:
    """One terminal, as far as its package and the frames let a reader follow it."""

    package: Package
    g: int
    offset: int = 0
    keysets: list = field(default_factory=list)
    masters: dict = field(default_factory=dict)
    # KEYDISTs of which any wrap opens with its wrap key, and those that it could try.
    opened: int = 0
    tried: int = 0
    # Orders to it alone, each with what stands inside.
    orders: list = field(default_factory=list)
    wraps: dict = field(default_factory=dict)

    def wrap_at(self, generation: int) -> Key:
        """Also beyond what an order ended: whoever took the keys out of it goes on."""
        if generation not in self.wraps:
            held = [key for key in self.wraps.values() if key.generation <= generation]
            nearest = max(held, key=lambda key: key.generation, default=self.package.wrap)
            self.wraps[generation] = nearest.renewed(max(generation, nearest.generation))
        return self.wraps[generation]


def judge(capture: dict) -> Verdict:
    verdict = Verdict()
    root = bytes.fromhex(capture["root"])
    terminals = open_packages(capture, root, verdict)
    if not terminals:
        verdict.findings.append("no package opens, so nothing can be verified")
        return verdict
    commands = verified(capture["frames"], terminals, root, verdict)
    for name, heard in terminals.items():
        follow(name, heard, commands, verdict)
        compare(name, heard, capture["status"].get(name), verdict)
        excluded(name, heard, commands, verdict)
        receipt(name, heard, commands, capture["status"].get(name), verdict)
    orders(terminals, commands, verdict)
    return verdict


def open_packages(capture: dict, root: bytes, verdict: Verdict) -> dict:
    terminals = {}
    for entry in capture["packages"]:
        name = entry["name"]
        try:
            package = packages.open_under_code(bytes.fromhex(entry["package_hex"]), entry["code"])
        except Refused as fault:
            verdict.findings.append(f"{name}: the package does not open: {fault}")
            continue
        if (package.root, package.name) != (root, name):
            verdict.findings.append(f"{name}: the package is another fleet's or terminal's")
        terminals[name] = Heard(package, package.wrap.generation, keysets=[package.keyset])
        verdict.told.append(
            f"{name}: package opens with its code, terminal {package.number}, G {package.wrap.generation}")
    return terminals


def verified(frames: list, terminals: dict, root: bytes, verdict: Verdict) -> list:
    commands, counts, read = [], collections.Counter(), []
    for place, text in enumerate(frames):
        try:
            read.append((place, reader.read_frame(bytes.fromhex(text))))
        except Refused as fault:
            verdict.findings.append(f"frame {place} is no command: {fault}")
    keysets = [heard.package.keyset for heard in terminals.values()]
    keysets += [command.body for _, command in read
                if command.type == reader.KEYSET and reader.obeyed(command, {}, root)]
    distinct = {keyset["version"]: keyset for keyset in keysets}.values()
    for place, command in read:
        # Which KEYSET was held when it was heard is not known.
        if any(reader.obeyed(command, keyset, root) for keyset in distinct):
            commands.append(command)
            counts[NAMES[command.type]] += 1
        else:
            verdict.findings.append(f"frame {place} ({NAMES[command.type]}) is not signed as it must be")
    listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    verdict.told.append(f"{len(commands)} of {len(frames)} frames verify: {listed}")
    return commands


def follow(name: str, heard: Heard, commands: list, verdict: Verdict):
    """Steps the wrap key with every G and offset and opens what names its handle."""
    for command in commands:
        if command.type == reader.KEYSET:
            take_keyset(heard, command.body)
            continue
        heard.g = max(heard.g, command.g)
        if command.type == reader.RENEW:
            own = [entry[2] - command.g for entry in command.body["entries"]
                   if entry[0] == heard.package.wrap.kid]
            heard.offset = max([heard.offset, *(offset for offset in own if offset <= 64)])
        elif command.type == reader.KEYDIST:
            open_one(name, heard, command, verdict)
        elif command.type in reader.ORDERS:
            contents = reader.open_order(command, heard.package.obey)
            if contents:
                heard.orders.append((command, contents))
    verdict.told.append(f"{name}: opens {heard.opened} of {heard.tried} KEYDISTs"
                        + "".join(f", {NAMES[c.type]}" for _, c in heard.orders))


def take_keyset(heard: Heard, keyset: dict):
    """Section 6.11: a newer schedule overtakes the offset."""
    held = heard.keysets[-1]
    if keyset["version"] <= held["version"]:
        return
    heard.keysets.append(keyset)
    if keyset["fleet_schedule"] != held["fleet_schedule"]:
        rise = max(keyset["fleet_schedule"][0] - heard.g, 0)
        heard.g, heard.offset = heard.g + rise, max(heard.offset - rise, 0)


def open_one(name: str, heard: Heard, command: Command, verdict: Verdict):
    heard.tried += 1
    # Section 6.5: under the present G also what an offset that was missed would be.
    for ahead in range(9 if command.g == heard.g else 1):
        wrap = heard.wrap_at(command.g + heard.offset + ahead)
        contents = reader.open_keydist(command.body, wrap)
        if contents:
            heard.offset += ahead
            break
    else:
        # Whatever the handles say, no wrap may open.
        wrap = heard.wrap_at(command.g + heard.offset)
        heard.opened += reader.opens_any(command.body, wrap)
        return
    heard.opened += 1
    if reader.open_by_cose(command.body, wrap) != contents:
        verdict.findings.append(f"{name}: python-cwt finds something else in a KEYDIST")
    key = contents.key
    held = heard.masters.setdefault((key.kid, key.epoch), key)
    older, newer = sorted((held, key), key=lambda each: each.generation)
    if older.renewed(newer.generation) != newer:
        verdict.findings.append(f"{name}: two KEYDISTs of key {key.kid} are not of one chain")
    heard.masters[key.kid, key.epoch] = older


def excluded(name: str, heard: Heard, commands: list, verdict: Verdict):
    """No KEYDIST brings it an epoch that began without it."""
    without = [entry for command in commands if command.type == reader.EXCLUDE
               and heard.package.number in command.body["terminals"]
               for entry in command.body["groups"]]
    for group, _, new, _ in without:
        opened = [epoch for kid, epoch in heard.masters if kid == 4 * group + 3 and epoch >= new]
        if opened:
            verdict.findings.append(f"{name} was excluded from group {group} at epoch {new}, "
                                    f"yet a KEYDIST brings it epoch {opened[0]}")
    if without:
        verdict.told.append(f"{name}: excluded from {len({entry[0] for entry in without})} groups, "
                            "and opens nothing of their new epochs")


def receipt(name: str, heard: Heard, commands: list, status: dict, verdict: Verdict):
    """Section 4.7: where it left one, it is its own and of a DELETE in this run."""
    text = ((status or {}).get("deleted") or {}).get("receipt")
    if text is None:
        return
    wanted = {hashlib.sha256(command.frame).digest() for command, contents in heard.orders
              if contents.receipt_wanted}
    try:
        found = reader.read_receipt(text.encode())
    except Refused as fault:
        verdict.findings.append(f"{name}: its receipt is none: {fault}")
        return
    if not found.is_from(heard.package.obey) or found.command not in wanted:
        verdict.findings.append(f"{name}: its receipt is not its own, or not of a DELETE of this run")
    else:
        verdict.told.append(f"{name}: its receipt proves the DELETE")


def orders(terminals: dict, commands: list, verdict: Verdict):
    """What is for one terminal opens for no other."""
    for command in {c.frame: c for c in commands if c.type in reader.ORDERS}.values():
        names = [name for name, heard in terminals.items()
                 if any(order.frame == command.frame for order, _ in heard.orders)]
        if len(names) > 1:
            verdict.findings.append(f"a {NAMES[command.type]} opens for {' and '.join(names)}")


def compare(name: str, heard: Heard, status: dict, verdict: Verdict):
    groups = status["groups"] if status else []
    # Locked, it shows none; deleted, it has none any more.
    lost = status is not None and status.get("state") in ("locked", "locked-by-server", "deleted")
    if not groups and heard.opened and not lost:
        verdict.findings.append(f"{name} holds no group, yet {heard.opened} KEYDISTs open for it")
    if not status:
        return
    obey, wrap = heard.package.obey, heard.package.wrap
    match(name, "obey key", obey, status["obey_kid"], 0, status["obey_fingerprint"], verdict)
    match(name, "wrap key", wrap, status["wrap_kid"], status["fleet_generation"] + heard.offset,
          status["wrap_fingerprint"], verdict)
    for group in groups:
        key = heard.masters.get((group["kid"], group["epoch"]))
        if key is None:
            verdict.findings.append(f"{name}: no KEYDIST brought key {group['kid']} epoch {group['epoch']}")
            continue
        match(name, f"master key of epoch {key.epoch}", key, group["kid"], group["generation"],
              group["fingerprint"], verdict)


def match(name: str, what: str, key: Key, kid: int, generation: int, fingerprint: str, verdict: Verdict):
    """The key, renewed up to what the status says, has the status's fingerprint, if it shows one."""
    if fingerprint is None:
        return
    if key.kid != kid or key.generation > generation:
        verdict.findings.append(f"{name}: {what}: the status says {kid} at {generation}, "
                                f"the frames say {key.kid} at {key.generation}")
        return
    found = key.renewed(generation).fingerprint()
    if found != fingerprint:
        verdict.findings.append(f"{name}: {what}: fingerprint {found}, the status says {fingerprint}")
    else:
        steps = generation - key.generation
        verdict.told.append(f"{name}: {what} {kid}: fingerprint {found} after {steps} renewals")


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    with open(sys.argv[1], encoding="utf-8") as file:
        verdict = judge(json.load(file))
    for line in verdict.told:
        print(f"capture: {line}")
    for line in verdict.findings:
        print(f"capture: FINDING: {line}")
    print(f"capture: {len(verdict.findings)} findings" if verdict.findings else "capture: ok")
    return 1 if verdict.findings else 0


if __name__ == "__main__":
    sys.exit(main())
