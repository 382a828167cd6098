#!/usr/bin/env python3
"""Reads a captured run (docs/PROTOCOL.md section 12) and finds in it the keys that the terminals say they have.

Usage: verify_capture.py FILE
Exit code 1: a finding; each is one line.
"""

import collections
import json
import sys
from dataclasses import dataclass, field

import reader
from reader import Command, Key, Package, Refused

NAMES = {reader.TIME: "TIME", reader.RENEW: "RENEW", reader.KEYDIST: "KEYDIST",
         reader.KEYSET: "KEYSET"}


@dataclass
class Verdict:
    findings: list = field(default_factory=list)
    told: list = field(default_factory=list)


@dataclass
class Heard:
    """One terminal, as far as its package and the frames let a reader follow it."""

    package: Package
    masters: dict = field(default_factory=dict)
    # KEYDISTs of which any wrap opens with its wrap key, and those that it could try.
    opened: int = 0
    tried: int = 0


def judge(capture: dict) -> Verdict:
    verdict = Verdict()
    root = bytes.fromhex(capture["root"])
    terminals = open_packages(capture, root, verdict)
    if not terminals:
        verdict.findings.append("no package opens, so nothing can be verified")
        return verdict
    keyset = next(iter(terminals.values())).package.keyset
    commands = verified(capture["frames"], keyset, root, verdict)
    for name, heard in terminals.items():
        follow(name, heard, commands, verdict)
        compare(name, heard, capture["status"].get(name), verdict)
    return verdict


def open_packages(capture: dict, root: bytes, verdict: Verdict) -> dict:
    terminals = {}
    for entry in capture["packages"]:
        name = entry["name"]
        try:
            package = reader.open_under_code(bytes.fromhex(entry["package_hex"]), entry["code"])
        except Refused as fault:
            verdict.findings.append(f"{name}: the package does not open: {fault}")
            continue
        if (package.root, package.name) != (root, name):
            verdict.findings.append(f"{name}: the package is another fleet's or terminal's")
        terminals[name] = Heard(package)
        verdict.told.append(
            f"{name}: package opens with its code, terminal {package.number}, G {package.wrap.generation}")
    return terminals


def verified(frames: list, keyset: dict, root: bytes, verdict: Verdict) -> list:
    commands, counts = [], collections.Counter()
    for place, text in enumerate(frames):
        try:
            command = reader.read_frame(bytes.fromhex(text))
        except Refused as fault:
            verdict.findings.append(f"frame {place} is no command: {fault}")
            continue
        if reader.obeyed(command, keyset, root):
            commands.append(command)
            counts[NAMES[command.type]] += 1
        else:
            verdict.findings.append(f"frame {place} ({NAMES[command.type]}) is not signed as it must be")
    listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    verdict.told.append(f"{len(commands)} of {len(frames)} frames verify: {listed}")
    return commands


def follow(name: str, heard: Heard, commands: list, verdict: Verdict):
    """Steps the wrap key with every G and opens what names its handle."""
    wrap = heard.package.wrap
    keys = {wrap.generation: wrap}
    for command in commands:
        newest = keys[max(keys)]
        if command.g > newest.generation:
            keys[command.g] = newest.renewed(command.g)
        if command.type == reader.KEYDIST and command.g in keys:
            open_one(name, heard, keys[command.g], command, verdict)
    verdict.told.append(f"{name}: opens {heard.opened} of {heard.tried} KEYDISTs")


def open_one(name: str, heard: Heard, wrap: Key, command: Command, verdict: Verdict):
    heard.tried += 1
    contents = reader.open_keydist(command.body, wrap)
    if contents is None:
        # Whatever the handles say, no wrap may open.
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


def compare(name: str, heard: Heard, status: dict, verdict: Verdict):
    groups = status["groups"] if status else []
    if not groups and heard.opened:
        verdict.findings.append(f"{name} holds no group, yet {heard.opened} KEYDISTs open for it")
    if not status:
        return
    obey = heard.package.obey
    match(name, "obey key", obey, status["obey_kid"], 0, status["obey_fingerprint"], verdict)
    match(name, "wrap key", heard.package.wrap, status["wrap_kid"], status["fleet_generation"],
          status["wrap_fingerprint"], verdict)
    for group in groups:
        key = heard.masters.get((group["kid"], group["epoch"]))
        if key is None:
            verdict.findings.append(f"{name}: no KEYDIST brought key {group['kid']} epoch {group['epoch']}")
            continue
        match(name, f"master key of epoch {key.epoch}", key, group["kid"], group["generation"],
              group["fingerprint"], verdict)


def match(name: str, what: str, key: Key, kid: int, generation: int, fingerprint: str, verdict: Verdict):
    """The key, renewed up to what the status says, has the status's fingerprint."""
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
