"""Steps of e2e/packets that attack from inside and outside: a scan of addresses, and everything that
was ever on the wire once more."""

import json
import subprocess
import sys
import time

import applications as use
import ground
import packet_tape

# Octets that a gateway may grow by while 65,536 addresses are asked for.
GROWTH_MAX = 48 << 20
SCANNED = 65_536


def scan(it) -> str:
    """All 65,536 addresses of a /16 are tried from behind a gateway: memory and tables stay bounded"""
    gateway = it.units["g1"]
    it.reach("ha", "hb")
    before = memory(gateway.pid)
    scanner = it.field.start(it.at("ha"), sys.executable, "-c", SCAN, "10.10", SCANNED // 12,
                             stdout=subprocess.PIPE, text=True)
    load = use.small_packets(it.field, it.at("ha"), it.inner("hb"), it.at("hb"), 2_000, 8)
    # A flow that is new in the middle of it finds its way, too.
    it.reach("ha", "hc", seconds=30)
    sent = int(scanner.stdout.readline() or 0)
    it.field.stop(scanner)
    grown = memory(gateway.pid) - before
    said = it.status("g1")["packets"]
    # What is told of flows is the busiest; nobody lives behind another address.
    wrong = [flow for flow in said["flows"] if flow["way"] == "protected"
             and flow["destination"].startswith("10.10.") and not known(it, flow["destination"])]
    if sent < SCANNED:
        raise use.Failed(f"only {sent} addresses were tried: it proves nothing")
    if load["lost"]:
        raise use.Failed(f"{load['lost']} of {load['sent']} packets of others were lost meanwhile")
    if grown > GROWTH_MAX or said["searches"] > 256:
        raise use.Failed(f"g1 grew by {grown >> 10} KiB and has {said['searches']} open searches")
    if wrong:
        raise use.Failed(f"ways to nobody were learned: {wrong[:3]}")
    refused = sum(drop["count"] for drop in said["drops"] if drop["reason"] == "search_budget")
    if refused < SCANNED // 2:
        raise use.Failed(f"the scan was searched for: {said['drops']}")
    return (f"{sent} addresses tried, g1 grew by {grown >> 10} KiB, {said['searches']} searches open;"
            f" none of {load['sent']} other packets lost")


def known(it, address: str) -> bool:
    """Whether somebody's record speaks for that address."""
    return address.split(".")[2] in ("1", "2", "3")


def memory(pid: int) -> int:
    """Octets that a process has in memory."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) << 10


def killed_receiver(it) -> str:
    """A gateway is killed again and again, and hears all that was on the wire once more: no doubles"""
    it.reach("ha", "hb")
    port, outer = 7_001, it.field.outer("g2")
    ear = it.field.start(it.at("hb"), sys.executable, use.LOAD, "receive", it.inner("hb"), port,
                         "--seconds", "90", stdout=subprocess.PIPE, text=True)
    ear.stdout.readline()
    mouth = it.field.start(it.at("ha"), sys.executable, use.LOAD, "send", it.inner("hb"), port,
                           "--rate", "3000", "--seconds", "12", "--batch", "1",
                           stdout=subprocess.PIPE, text=True)
    replayed = 0
    packet_tape.cut(it.at("g1"), "out")
    with packet_tape.Tape(it.field, it.field.underlay, "to-g2", outer) as tape:
        for pause in (2.0, 0.37, 1.61, 0.05):
            time.sleep(pause)
            it.units["g2"].kill()
            it.units["g2"].wait()
            it.run_unit("g2")
            # Some of it comes before the first genuine packet, some after.
            replayed += tape.play()
            it.wait("packets pass g2 again", lambda: it.passes("g2"))
            replayed += tape.play()
        sent = read_json(mouth)
        replayed += tape.play()
    it.reach("ha", "hb", seconds=30)
    # Its last words may have come while g2 heard nothing; here are others, with nothing before them.
    it.field.run(it.at("ha"), sys.executable, use.LOAD, "send", it.inner("hb"), port, "--rate", "1",
                 "--seconds", "0.001")
    heard = read_json(ear)
    for process in (mouth, ear):
        it.field.stop(process)
    packet_tape.cut(it.at("g1"), "out", whole=True)
    refused = sum(drop["count"] for drop in it.status("g2")["packets"]["drops"])
    if heard["twice"]:
        raise use.Failed(f"{heard['twice']} of {heard['received']} packets were delivered twice")
    if replayed < sent["sent"] or refused < sent["sent"] // 2:
        raise use.Failed(f"{replayed} packets were fed again, {refused} refused: it proves nothing")
    # A gateway that starts hears nothing for a while, and refuses what its marks say.
    if heard["received"] < sent["sent"] // 20:
        raise use.Failed(f"only {heard['received']} of {sent['sent']} came")
    return (f"4 kills; {sent['sent']} sent, {heard['received']} came, {replayed} fed again, none of"
            f" them twice")


def read_json(process: subprocess.Popen) -> dict:
    said = process.stdout.readline()
    if not said:
        raise use.Failed("the load of UDP broke")
    return json.loads(said)


# One packet to each address, in an order that is not the numbers' own.
SCAN = """
import socket, sys, time
front, rate = sys.argv[1], int(sys.argv[2])
mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
began = time.monotonic()
for number in range(65536):
    at = number * 40503 % 65536
    try:
        mouth.sendto(b"who is there", (f"{front}.{at >> 8}.{at & 255}", 9))
    except OSError:
        # An error about one before, or the broadcast address.
        pass
    if number % 64 == 0:
        time.sleep(max(0, began + number / rate - time.monotonic()))
print(65536, flush=True)
time.sleep(60)
"""
