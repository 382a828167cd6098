#!/usr/bin/env python3
"""A router's forwarding of multicast, without a routing protocol: whatever arrives at one of its
devices for a group leaves by all the others, until it is ended (Linux's ip_mroute.h).

Usage: multicast_router.py GROUP,... DEVICE...
"""

import socket
import struct
import sys

INIT, ADD_VIF, ADD_MFC_PROXY = 200, 202, 210
USE_IFINDEX = 8
MAX_VIFS = 32


def main() -> int:
    groups, devices = sys.argv[1].split(","), sys.argv[2:]
    router = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
    router.setsockopt(socket.IPPROTO_IP, INIT, 1)
    for vif, device in enumerate(devices):
        index = socket.if_nametoindex(device)
        router.setsockopt(socket.IPPROTO_IP, ADD_VIF,
                          struct.pack("@HBBIi4x", vif, USE_IFINDEX, 1, 0, index))
    def forward(group: str, parent: int, to: list) -> None:
        limits = [int(vif in to) for vif in range(MAX_VIFS)]
        router.setsockopt(socket.IPPROTO_IP, ADD_MFC_PROXY, struct.pack(
            "@4s4sH32BIIIi", socket.inet_aton("0.0.0.0"), socket.inet_aton(group), parent, *limits,
            0, 0, 0, 0))

    every = list(range(len(devices)))
    # (*, *) of a device: it belongs to the tree. (*, G): to every device but the one it came by.
    for vif in every:
        forward("0.0.0.0", vif, [vif])
    for group in groups:
        forward(group, 0, every)
    print("ready", flush=True)
    while True:
        router.recv(2048)


if __name__ == "__main__":
    sys.exit(main())
