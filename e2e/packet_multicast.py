#!/usr/bin/env python3
"""Steps of e2e/packets with packets to many; and, run by itself, the multicast router of the underlay.

Usage: packet_multicast.py DEVICE=IPv4 SENDER=IPv6 SENDER ...
"""

import socket
import struct
import subprocess
import sys
import time

import applications as use

# An address of each family that the group names, and a port.
ADDRESSES, PORT = {4: "239.7.7.7", 6: "ff15::7:7"}, 7777
# Of the group whose members are gateways, too.
GATEWAYS = {4: "239.8.8.8", 6: "ff15::8:8"}
COUNT = 100


def to_hosts(it) -> str:
    """One sender's multicast to three receivers, IPv4 and IPv6; encrypted once, nothing of it plain"""
    speaker, *listeners = it.LISTENERS
    for version in (4, 6):
        for named in (True, False):
            heard_by_all(it, speaker, listeners, version, named=named)
    return f"{COUNT} of {COUNT} at each of three, by IPv4 and IPv6"


def heard_by_all(it, speaker: str, listeners: list, version: int,
                 addresses: dict = ADDRESSES, named: bool = True) -> None:
    """Each hears every packet, and the underlay sees none of it; `named`: the speaker says by which
    device."""
    address = addresses[version]
    ears = {name: use.MulticastEar(it.field, it.at(name), address, PORT, it.device(name))
            for name in listeners}
    time.sleep(1)
    with it.field.capture(it.field.underlay) as capture:
        use.say_multicast(it.field, it.at(speaker), address, PORT,
                          it.device(speaker) if named else "", COUNT)
    time.sleep(1)
    heard = {name: ear.heard() for name, ear in ears.items()}
    if any(count != COUNT for count in heard.values()):
        raise use.Failed(f"of {COUNT} packets by IPv{version} were heard: {heard}")
    if found := capture.count(use.PATTERN):
        raise use.Failed(f"{found} patterns in the capture")
    if capture.size() < COUNT * 100:
        raise use.Failed("nothing was captured: it proves nothing")


def behind_gateways(it) -> str:
    """A host behind a gateway sends to many: hosts behind two others and one in host mode hear it"""
    members = ("g1", "g2", "g3", "h1")
    it.group("november", members, *(f"{address}/{bits}" for address, bits in zip(
        GATEWAYS.values(), (32, 128))))
    for name in members:
        it.wait(f"{name} has the group", lambda: it.held(name, it.groups["november"]))
    devices = [f"to-{gateway}={it.field.outer(gateway)}={it.field.outer(gateway, 6)}"
               for gateway in ("g1", "g2", "g3")]
    router = it.field.start(it.field.underlay, sys.executable, __file__, *devices,
                            f"lan={it.field.outer('h1')}={it.field.outer('h1', 6)}",
                            stdout=subprocess.PIPE, text=True)
    if router.stdout.readline().strip() != "ready":
        raise use.Failed("the underlay does not route multicast")
    try:
        for version in (4, 6):
            heard_by_all(it, "ha", ["hb", "hc", "h1"], version, GATEWAYS)
            heard_by_all(it, "h1", ["ha", "hb", "hc"], version, GATEWAYS)
    finally:
        it.field.stop(router)
    return f"{COUNT} of {COUNT} at each, from ha and from h1, by IPv4 and IPv6"


def route(devices: list) -> None:
    """What comes in by a device from its sender goes out by all the others."""
    v4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
    v6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    init, add_interface, add_route = 200, 202, 204
    v4.setsockopt(socket.IPPROTO_IP, init, 1)
    v6.setsockopt(socket.IPPROTO_IPV6, init, 1)
    for number, (device, _, _) in enumerate(devices):
        index = socket.if_nametoindex(device)
        by_index = 8
        v4.setsockopt(socket.IPPROTO_IP, add_interface,
                      struct.pack("=HBBIi4x", number, by_index, 1, 0, index))
        v6.setsockopt(socket.IPPROTO_IPV6, add_interface,
                      struct.pack("=HBBHxxI", number, 0, 1, index, 0))
    for number, (_, sender4, sender6) in enumerate(devices):
        others = [other for other in range(len(devices)) if other != number]
        hops = bytes(1 if other in others else 0 for other in range(32))
        v4.setsockopt(socket.IPPROTO_IP, add_route, struct.pack(
            "=4s4sH32s2xIIIi", socket.inet_aton(sender4), socket.inet_aton(GATEWAYS[4]), number,
            hops, 0, 0, 0, 0))
        place = [struct.pack("=HHI16sI", socket.AF_INET6, 0, 0,
                             socket.inet_pton(socket.AF_INET6, address), 0)
                 for address in (sender6, GATEWAYS[6])]
        v6.setsockopt(socket.IPPROTO_IPV6, add_route, b"".join(place) + struct.pack(
            "=Hxx8I", number, sum(1 << other for other in others), *(0,) * 7))
    print("ready", flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    route([device.split("=") for device in sys.argv[1:]])
