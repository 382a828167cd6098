"""Steps of e2e/packets about key search: `terminal ping`, and search by ICMP echo."""

import json
import time

import applications as use
from packet_field import SITES

# How messages of key search begin (docs/PROTOCOL.md 18.2).
PROBE, ANSWER = bytes.fromhex("000000008801000c"), bytes.fromhex("000000008901000d")


def told_ping(it) -> str:
    """`terminal ping` tells group, key and time; finds by key search; says why there is no way"""
    it.restart("g1")
    it.wait("g1 has heard a beacon", lambda: it.status("g1")["time"], 30)
    first = measured(it, "g1", it.inner("hb"), "bravo")
    if first["way"]["found"] != "search":
        raise use.Failed(f"no key search was needed after a restart: {first['way']}")
    again = measured(it, "g1", it.inner("hb"), "bravo")
    if again["way"]["found"] == "search":
        raise use.Failed("what was found is searched for again")
    # From here on echo sockets that need no privilege are used.
    it.field.set(it.at("g1"), "net.ipv4.ping_group_range", "0 2147483647")
    for unit, to, group in (("g1", it.inner("hb", 6), "bravo"), ("g1", "2", "bravo"),
                            ("h1", it.inner("hb"), "papa")):
        said = measured(it, unit, to, group)
    if said["median_ms"] is None or said["way"]["suite"] != "AES-256-GCM":
        raise use.Failed(f"it tells no time or suite: {said}")
    for unit, to, code, words in (
            ("g1", "10.10.2.200", "", ""),
            ("h1", it.inner("h2"), "KF-3127", "go nowhere"),
            ("h1", "10.200.9.254", "KF-3127", "in no network"),
            ("g1", "10.10.1.2", "KF-3127", "this terminal's own"),
            ("g1", "77", "KF-3127", "it knows 2 (10.10.2.0/24")):
        run = it.run("terminal", "ping", unit, to, "-c", "2", "-W", "0.3")
        said = json.loads(run.stdout)
        good = (words in said.get("sentence", "") and said["code"] == code if code else
                said["received"] == 0 and said["code"] == "KF-3128"
                and said["way"]["group"] == it.groups["bravo"])
        if run.returncode != 1 or not good:
            raise use.Failed(f"{unit} pings {to}: {run.returncode}, {run.stdout.decode()}")
    return (f"found in {first['way']['took_us'] / 1000:.1f} ms, then an echo takes"
            f" {again['median_ms']:.2f} ms")


def measured(it, unit: str, to: str, group: str) -> dict:
    """What `terminal ping` says where all is well."""
    said = it.ask("terminal", "ping", unit, to, "-c", "3", "-i", "0.1")
    if (said["received"] != 3 or said["way"]["group"] != it.groups[group]
            or (said["sealed"] or 0) < 3):
        raise use.Failed(f"{unit} pings {to}: {said}")
    return said


def by_echo(it) -> str:
    """Key search by ICMP echo, where UDP probes do not pass: an unmodified host's reply completes it"""
    units = (*SITES, "h1")
    # Nobody is told where h1 is; the underlay leads to its address.
    it.admin("terminal", "set", "h1", "--no-endpoint")
    it.field.route(it.field.underlay, f"{it.inner('h1')}/32", it.field.outer("h1"))
    with it.field.without_searches_by_udp():
        for unit in units:
            it.restart(unit)
        it.wait("beacons", lambda: all(it.status(unit)["time"] for unit in units), 30)
        it.silent("ha", "hb")
        for unit in units:
            it.restart(unit, "--search", "icmp")
        it.wait("beacons", lambda: all(it.status(unit)["time"] for unit in units), 30)
        # A ping from outside that brings no probe is not answered.
        if use.ping(it.field, it.field.underlay, it.inner("hb")):
            raise use.Failed("the underlay's router reaches hb in clear")
        with it.field.capture(it.at("hb")) as behind, (
                it.field.capture(it.field.underlay)) as outside:
            found = measured(it, "g1", it.inner("hb"), "bravo")["way"]
            it.reach("ha", "hb", 6)
        if found["found"] != "search":
            raise use.Failed(f"no key search was needed: {found}")
        # The request with the ANSWER in it, and the host's reply to it.
        carried = behind.count(ANSWER)
        if carried < 2 or outside.count(PROBE) < 1 or outside.count(ANSWER) < 1:
            raise use.Failed(f"the host saw {carried} answers, outside there are"
                             f" {outside.count(PROBE)} probes, {outside.count(ANSWER)} answers")
        # A terminal in host mode replies itself.
        host = measured(it, "g2", it.inner("h1"), "papa")["way"]
        if host["found"] != "search" or host["endpoint"] != f"{it.inner('h1')}:4500":
            raise use.Failed(f"h1 was not found by search: {host}")
        it.reach("h1", "hb")
        it.reach("hb", "h1")
        # Whoever answers no pings is found all the same.
        for version in ("ipv4.icmp_echo_ignore_all", "ipv6.icmp.echo_ignore_all"):
            it.field.set(it.at("hc"), f"net.{version}", 1)
        try:
            began = time.monotonic()
            it.fetch("ha", "hc", name="small")
            it.fetch("ha", "hc", 6, name="small")
            took = time.monotonic() - began
        finally:
            for version in ("ipv4.icmp_echo_ignore_all", "ipv6.icmp.echo_ignore_all"):
                it.field.set(it.at("hc"), f"net.{version}", 0)
        stopped = it.field.counted("udpless", "searches")
    it.admin("terminal", "set", "h1", "--endpoint", f"{it.field.outer('h1')}:4500")
    for unit in units:
        it.restart(unit)
    it.reach("ha", "hb", seconds=30)
    it.reach("h1", "hb", seconds=30)
    return (f"found in {found['took_us'] / 1000:.1f} ms by hb's own reply, {stopped} probes by UDP"
            f" were stopped; of a host that answers no pings 2 x 4 MiB in {took:.1f} s")
