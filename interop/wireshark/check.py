#!/usr/bin/env python3
"""Runs tshark with keyfall.lua over every message of the vectors: each field must be named and have its value, nothing
may be named that README.md does not list, and what is malformed must be said to be.

Usage: check.py        (tshark in the path)
"""

import collections
import datetime
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

import cbor2

import pcap
from expected import COMMANDS, Observer, det

HERE = pathlib.Path(__file__).resolve().parent
VECTORS = HERE.parent / "vectors"
SHARING = [VECTORS / "sharing.json", HERE.parent / "python" / "sharing.json"]
# What Python refuses and a dissector has nothing to say about: no datagram at all, and one part of several.
NOT_FOR_A_DISSECTOR = {"empty", "nothing", "PART alone"}
FUZZED = 3000
# Each brings a record, which has its own row in README.md.
SEARCH = ("PROBE", "ANSWER")


def fail(what: str):
    raise SystemExit(f"wireshark: FAILED, {what}")


def tshark(*arguments: str) -> str:
    # A home of its own: no settings or plugins of whoever runs this.
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(["tshark", *arguments, "-X", f"lua_script:{HERE / 'keyfall.lua'}"],
                              env=os.environ | {"HOME": home, "TZ": "UTC"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, encoding="utf-8", check=False)
    trouble = [line for line in (done.stdout + done.stderr).splitlines() if re.search("Lua:? Error[: ]", line)]
    if done.returncode != 0 or trouble:
        fail(f"tshark: {(trouble or done.stderr.splitlines())[:3]}")
    return done.stdout


def registered() -> dict:
    """Type of each field, by name."""
    rows = (line.split("\t") for line in tshark("-G", "fields").splitlines() if "\tkeyfall." in line)
    return {row[2]: row[3] for row in rows if row[0] == "F" and row[3] != "FT_NONE"}


def values(text: str, type_: str) -> list:
    """What tshark printed, as expected.py says it."""
    held = text.split("|") if text else []
    if type_ == "FT_BYTES":
        return [bytes.fromhex(one.replace(":", "")) if one != "<MISSING>" else b"" for one in held]
    if type_ == "FT_ABSOLUTE_TIME":
        return [seconds(one) for one in held]
    return [int(one, 0) for one in held]


def seconds(text: str) -> int:
    """Both ways in which versions of Wireshark write a time."""
    text = re.sub(r"\.0+", "", text)
    form = "%Y-%m-%dT%H:%M:%SZ" if "T" in text and text[0].isdigit() else "%b %d, %Y %H:%M:%S UTC"
    return int(datetime.datetime.strptime(text, form).replace(tzinfo=datetime.timezone.utc).timestamp())


def dissected(path: str, types: dict) -> list:
    """Of each packet its fields, the protocol and the column, and what is wrong with it."""
    names = [*types, "_ws.col.Protocol", "_ws.col.Info", "keyfall.malformed", "keyfall.length", "keyfall.hash"]
    arguments = [word for name in names for word in ("-e", name)]
    # Two passes: what a later packet tells must not change what an earlier one said.
    out = tshark("-2", "-r", path, "-T", "fields", "-E", "aggregator=|", *arguments)
    packets = []
    for line in out.splitlines():
        row = line.split("\t")
        fields = {name: values(text, types[name]) for name, text in zip(types, row) if text}
        packets.append((fields, *row[len(types):len(types) + 2], [text for text in row[len(types) + 2:] if text]))
    return packets


def gathered() -> tuple:
    """All messages of the vectors, and those that a decoder refuses, each as (port, octets)."""
    good, bad = [], []
    for path in SHARING:
        if not path.exists():
            continue
        held = json.loads(path.read_text(encoding="utf-8"))
        messages = [case[name] for case in held.get("cases", [])
                    for name in ("first", "cookie", "key_req", "key_dis", "ack") if name in case]
        messages += [one for case in held.get("cases", []) for one in case.get("confirmations", [])]
        messages += [one for name in ("bundles", "commands", "introductions") for one in held.get(name, [])]
        good += [(pcap.SHARING, bytes.fromhex(text)) for one in messages
                 for text in one.get("hello", []) + one["datagrams"]]
        bad += [(pcap.SHARING, bytes.fromhex(one["datagram"])) for one in held.get("refused", [])
                if one["name"] not in NOT_FOR_A_DISSECTOR]
    commands = json.loads((VECTORS / "commands.json").read_text(encoding="utf-8"))
    good += [(pcap.CARRIER, bytes.fromhex(one["frame"])) for one in commands["messages"]]
    records = json.loads((VECTORS / "records.json").read_text(encoding="utf-8"))["records"]
    good += [(pcap.CARRIER, bytes.fromhex(one["frame"])) for one in records]
    search = json.loads((VECTORS / "search.json").read_text(encoding="utf-8"))
    good += [(pcap.PACKETS, bytes.fromhex(one[name])) for one in search["searches"] for name in ("probe", "answer")]
    bad += [(pcap.SHARING, bytes.fromhex(one["octets"])) for one in search["refused"]
            if one["kind"] == "search" and one["name"] not in NOT_FOR_A_DISSECTOR]
    good += beyond_vectors()
    good += [(pcap.CARRIER, cbor2.loads(octets[4:])[3]) for port, octets in good if octets[5:8] == b"\1\0\x08"]
    return good, bad


def beyond_vectors() -> list:
    """What no vector has: the published layout, and a KEYSET that lists suites, a prefix and every class."""
    legacy = det([1, 4, 1, bytes(range(200)), bytes(16)])
    keys = [[bytes([class_]) * 8, bytes([class_]) * 32, class_, 1, 2, [7]] for class_ in range(1, 7)]
    limits = {1: 1, 2: [[bytes([10, 0, 0, 0]), 8]], 3: [3, 2, 1, 4], 4: 2, 5: 3, 6: None, 7: 4, 8: 1}
    payload = det({1: b"abcd", 2: 1, 3: 2, 4: 3, 5: 8, 6: [2, 9], 7: {1: 1, 2: 2, 3: keys, 4: [1, 2, 3], 8: limits}, 8: 0})
    frame = b"\xd2" + det([det({1: -19, 4: bytes(8)}), {}, payload, bytes(64)])
    return [(pcap.SHARING, bytes(4) + held) for held in (
        legacy, det([1, 4, 3, bytes(8), bytes(300)]), det([1, 0, 8, frame]))]


def check_fields(types: dict, good: list, path: str) -> dict:
    """Every packet says what expected.py finds, no more and no less; which fields each message shows."""
    pcap.write(path, good)
    packets = dissected(path, types)
    if len(packets) != len(good):
        fail(f"{len(packets)} of {len(good)} packets")
    observer, shows, seen = Observer(), collections.defaultdict(set), set()
    for number, ((_, octets), (fields, protocol, info, wrong)) in enumerate(zip(good, packets), 1):
        expected, said, labels = observer.datagram(number, octets)
        if fields != expected:
            differ = {name: (fields.get(name), expected.get(name)) for name in {*fields, *expected}
                      if fields.get(name) != expected.get(name)}
            fail(f"packet {number}, {info}: found and expected differ: {differ}")
        if protocol != "KEYFALL" or not info.startswith(said) or wrong:
            fail(f"packet {number}: {protocol}, {info!r} for {said!r}, {wrong}")
        seen |= set(fields)
        if len(labels) == 1:
            shows[labels[0]] |= set(fields)
        elif labels[0] in SEARCH:
            shows[labels[0]] |= {name for name in fields if name != "keyfall.group" and
                                 not name.startswith("keyfall.record.")}
        elif labels[0] == "PART":
            shows[labels[1]] |= {name for name in fields if not name.startswith("keyfall.part.")}
    if set(types) != seen:
        fail(f"fields that no packet has: {sorted(set(types) - seen)}")
    return shows


def check_readme(shows: dict):
    """README.md says of each message exactly what stands in the clear."""
    rows = re.findall(r"^\| ([A-Z][^|]*) \| (`.*`) \|$", (HERE / "README.md").read_text(encoding="utf-8"), re.M)
    listed = {}
    for labels, names in rows:
        for label in labels.split(", "):
            listed[label] = {f"keyfall.{name}" for name in re.findall(r"`([^`]+)`", names)}
    # `request` tells of two packets, and a datagram has its marker.
    beside = {"keyfall.marker", "keyfall.version", "keyfall.suite", "keyfall.type", "keyfall.request"}
    signed = {"keyfall.frame", "keyfall.signer.algorithm", "keyfall.signer.name", "keyfall.signature"} | {
        f"keyfall.command.{name}" for name in ("stream", "sequence", "issued_at", "not_after", "type", "target",
                                               "target.group", "target.terminal", "body", "g")}
    for label in sorted({*shows, *listed}):
        found = shows.get(label, set()) - beside
        if label in {*COMMANDS.values(), "RECORD", *SEARCH}:
            found -= signed
        if found != listed.get(label, set()):
            fail(f"README.md, {label}: shown {sorted(found)}, listed {sorted(listed.get(label, set()))}")


def check_malformed(types: dict, bad: list, path: str):
    pcap.write(path, bad)
    for number, (_, protocol, info, wrong) in enumerate(dissected(path, types), 1):
        if protocol != "KEYFALL" or not wrong:
            fail(f"malformed packet {number} is taken: {info}, {bad[number - 1][1].hex()[:100]}")


def check_other_ports(good: list, path: str):
    """The heuristic knows messages on other ports, and leaves alone what is none; Decode As takes those, too."""
    strange = [b"\1" * 40, bytes(40), bytes(4) + b"\x86\2" + bytes(40), b"\x80\0" + bytes(40)]
    pcap.write(path, [(50_123, octets) for octets in [*(octets for _, octets in good), *strange]])
    for extra, expected in (((), "UDP"), (("-d", "udp.port==50123,keyfall"), "KEYFALL")):
        found = tshark("-r", path, "-T", "fields", "-e", "_ws.col.Protocol", *extra).split()
        if found != ["KEYFALL"] * len(good) + [expected] * len(strange):
            fail(f"on another port: {collections.Counter(found)}, {extra}")


def check_packet_port(types: dict, good: list, path: str):
    """Key search by ICMP echo is read, too; ESP at the packet port is left to Wireshark's own dissector."""
    search = [octets for port, octets in good if port == pcap.PACKETS]
    echoes = [(pcap.ECHO, octets) for octets in search]
    esp, ping = bytes.fromhex("01000001") + bytes(range(60)), bytes(range(56))
    pcap.write(path, [*echoes, (pcap.PACKETS, esp), (pcap.ECHO, ping)])
    found = [(protocol, len(fields) > 8) for fields, protocol, *_ in dissected(path, types)]
    if found != [("KEYFALL", True)] * len(echoes) + [("ESP", False), ("ICMP", False)]:
        fail(f"at the packet port and in echoes: {found}")


def check_noise(good: list, path: str):
    """Changed and cut datagrams: no error in the dissector itself."""
    dice = random.Random(4)
    packets = []
    for _ in range(FUZZED):
        port, octets = dice.choice(good)
        changed = bytearray(octets[:dice.randrange(len(octets))] if dice.random() < 0.3 else octets)
        for _ in range(dice.randrange(4)):
            if changed:
                changed[dice.randrange(min(len(changed), dice.choice((12, 120, 1200))))] = dice.randrange(256)
        packets.append((port, bytes(changed)))
    pcap.write(path, packets)
    tshark("-2", "-r", path, "-V")


def check_parts(types: dict, good: list, path: str):
    """Parts in another order; a part changed is not put together in silence."""
    parts = [packet for packet in good if packet[1][5:8] == b"\1\0\7"]
    pcap.write(path, parts[::-1])
    found = sum(len(fields.get("keyfall.part.message", [])) for fields, *_ in dissected(path, types))
    wanted = {octets[9:17] for _, octets in parts}
    if found != len(wanted):
        fail(f"{found} of {len(wanted)} messages put together from parts in another order")
    first = next(index for index, (_, octets) in enumerate(parts))
    changed = [(port, octets[:-1] + bytes([octets[-1] ^ 1])) if index == first else (port, octets)
               for index, (port, octets) in enumerate(parts)]
    pcap.write(path, changed)
    if sum(bool(wrong) for *_, wrong in dissected(path, types)) != 1:
        fail("a changed part is not noticed, or more than one whole is")


def main() -> int:
    types = registered()
    good, bad = gathered()
    with tempfile.TemporaryDirectory() as work:
        path = f"{work}/keyfall.pcap"
        shows = check_fields(types, good, path)
        check_readme(shows)
        json.loads(tshark("-r", path, "-T", "json", "-c", "5"))
        check_malformed(types, bad, path)
        check_parts(types, good, path)
        check_other_ports(good, path)
        check_packet_port(types, good, path)
        check_noise(good, path)
    print(f"wireshark: ok, {len(types)} fields in {len(good)} packets, {len(bad)} malformed ones, {FUZZED} changed ones")
    return 0


if __name__ == "__main__":
    sys.exit(main())
