"""Steps of e2e/packets about how long packets may be."""

import json
import re

import applications as use
import ground

NARROW = 1280
# Of an inner packet whose datagram fills 1,280 octets: less the headers of IPv4, UDP and ESP.
FITS = 1218
# The first octets of data that are too many, with the headers of IPv4 and of the ping before them.
TOO_MUCH = str(FITS + 1 - 28)


def path_mtu(it) -> str:
    """Behind a narrow link in the underlay unmodified hosts hear how much fits, and TCP obeys"""
    it.reach("ha", "hb")
    it.reach("h1", "hb")
    it.field.underlay_mtu(NARROW, "g2")
    try:
        for name in ("ha", "h1"):
            # The first is lost in the underlay, whose router tells the gateway or terminal.
            said = ground.wait(lambda: hears(it, name, "hb", 4), 10)
            if said != FITS:
                raise use.Failed(f"{name} hears of {said or 'nothing'}, not of {FITS} octets")
            if (learned := route_mtu(it, name, "hb", 4)) != FITS:
                raise use.Failed(f"{name} has learned {learned}, not {FITS}")
            if use.ping(it.field, it.at(name), it.inner("hb"), "-M", "do", "-s",
                        str(FITS - 28)) != 3:
                raise use.Failed(f"what fits does not come through from {name}")
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
    return f"{FITS} octets by IPv4, 1280 by IPv6; 4 MiB by curl in {took:.1f} s, {pieces} fragments"


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
    said = it.field.run(it.at(unit), "nstat", "-asz", "IpReasmReqds").stdout
    return int(re.search(r"IpReasmReqds\s+(\d+)", said).group(1))
