"""Steps of e2e/packets about how long packets may be."""

import json
import re

import applications as use
import ground

NARROW = 1280
# Of an inner packet whose datagram fills 1,280 octets: less the headers of IPv4 or IPv6, UDP and ESP.
# A peer is sent to where it was heard last, by the one or by the other.
FITS = (1218, 1198)
# The first octets of data that are too many, with the headers of IPv4 and of the ping before them.
TOO_MUCH = str(max(FITS) + 1 - 28)


def path_mtu(it) -> str:
    """Behind a narrow link in the underlay unmodified hosts hear how much fits, and TCP obeys"""
    it.reach("ha", "hb")
    it.reach("h1", "hb")
    it.field.underlay_mtu(NARROW, "g2")
    try:
        for name in ("ha", "h1"):
            # The first is lost in the underlay, whose router tells the gateway or terminal; and so is
            # one that follows where the peer was heard by the other of IPv4 and IPv6 meanwhile.
            if not (said := ground.wait(lambda: fitting(it, name, "hb"), 20)):
                raise use.Failed(f"{name} hears of {hears(it, name, 'hb', 4)} octets, has learned"
                                 f" {route_mtu(it, name, 'hb', 4)}, and they do not come through")
            # Who lets his packets be cut is not told, and reaches everybody.
            if use.ping(it.field, it.at(name), it.inner("hb"), "-M", "dont", "-s", "1350") != 3:
                raise use.Failed(f"what may be cut does not come through from {name}")
        before = reassembled(it, "g2")
        took = it.fetch("hb", "ha", name="small")
        if (pieces := reassembled(it, "g2") - before) > 20:
            raise use.Failed(f"{pieces} fragments came to g2 while TCP knew the way")
        # IPv6 is never told less than 1,280; what the datagram has no room for comes in fragments.
        ground.wait(lambda: hears(it, "ha", "hb", 6), 10)
        if (learned := route_mtu(it, "ha", "hb", 6)) != 1280:
            raise use.Failed(f"ha has learned {learned} by IPv6, not 1280")
        it.fetch("hb", "ha", 6, name="small")
    finally:
        it.field.underlay_mtu(1500, "g2")
        for name in ("g1", "ha", "h1", "hb", "g2"):
            for family in ("-4", "-6"):
                ground.sh("ip", "-n", it.at(name), family, "route", "flush", "cache")
    return f"{said} octets by IPv4, 1280 by IPv6; 4 MiB by curl in {took:.1f} s, {pieces} fragments"


def fitting(it, source: str, to: str) -> int:
    """How many octets go through, as source hears, learns and sees; else 0."""
    said = hears(it, source, to, 4)
    if said not in FITS or route_mtu(it, source, to, 4) != said:
        return 0
    came = use.ping(it.field, it.at(source), it.inner(to), "-M", "do", "-s", str(said - 28))
    return said if came == 3 else 0


def hears(it, source: str, to: str, version: int) -> int:
    """How many octets go through, as the errors say that reach ping; 0: it hears of none."""
    more = TOO_MUCH if version == 4 else str(1281 - 48)
    run = it.field.run(it.at(source), "ping", "-n", "-c", "2", "-i", "0.3", "-W", "1", "-M", "do",
                       "-s", more, it.inner(to, version))
    heard = re.search(r"mtu\s*=\s*(\d+)", run.stdout + run.stderr)
    return int(heard.group(1)) if heard else 0


def route_mtu(it, source: str, to: str, version: int) -> int:
    answer = json.loads(ground.sh("ip", "-n", it.at(source), "-json", "route", "get",
                                  it.inner(to, version)))
    return next((metric["mtu"] for metric in answer[0].get("metrics", []) if "mtu" in metric), 0)


def reassembled(it, unit: str) -> int:
    """Fragments that came to a unit until now."""
    said = it.field.run(it.at(unit), "nstat", "-asz", "IpReasmReqds", "Ip6ReasmReqds").stdout
    return sum(int(count) for count in re.findall(r"ReasmReqds\s+(\d+)", said))
