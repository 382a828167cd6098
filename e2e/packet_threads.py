"""A step of e2e/packets about gateways that send and receive with several threads each."""

import pathlib
import time

import applications as use
from packet_changes import Background, attempts, dropped_by_kernel, longest_stall, renew

THREADS = 3
# The kernel hands each place of a peer to one thread: of so many hardly ever one gets none.
PORTS = range(40_000, 40_024)


def packet_threads(it) -> str:
    """Gateways with three threads each way: all of them carry, through changes, moves and a restart"""
    it.admin("group", "set", "bravo", "--change", "hitless")
    three = ("--packet-threads", str(THREADS))
    try:
        for unit in ("g1", "g2"):
            it.restart(unit, *three)
        it.reach("ha", "hb")
        said = [attempts(lambda: both_ways(it)), attempts(lambda: through_changes(it)),
                attempts(lambda: from_many_ports(it))]
        # A peer that was restarted refuses what each of the threads sends.
        it.units["g2"].kill()
        it.units["g2"].wait()
        began = time.monotonic()
        it.run_unit("g2", *three)
        it.wait("packets pass g2 again", lambda: it.passes("g2"))
        it.reach("ha", "hb", seconds=12)
        said += [f"after a restart {time.monotonic() - began:.1f} s", attempts(lambda: both_ways(it))]
    finally:
        it.field.clear("ports", "ip")
        for unit in ("g1", "g2"):
            it.restart(unit)
    return "; ".join(said)


def both_ways(it) -> tuple:
    """16 connections each way: what is seen, and whether one stood still or a thread had nothing."""
    before = [sessions(it, unit) for unit in ("g1", "g2")]
    with use.Iperf(it.field, it.at("hb"), it.inner("hb")) as iperf:
        told = iperf.tcp(it.at("ha"), 4, "-P", "16", "--bidir")
    ways = [told["end"][name]["bits_per_second"] / 1e9
            for name in ("sum_received", "sum_received_bidir_reverse")]
    least = min(stream["receiver"]["bytes"] for stream in told["end"]["streams"])
    after = [sessions(it, unit) for unit in ("g1", "g2")]
    used = [sum(count > was.get(name, 0) for name, count in now.items())
            for was, now in zip(before, after)]
    return (f"{ways[0]:.1f} and {ways[1]:.1f} Gbit/s in {used[1]} and {used[0]} sessions, a"
            f" connection at least {least >> 10} KiB", not least or used != [THREADS, THREADS])


def sessions(it, unit: str) -> dict:
    """How many packets came there in each session of the group."""
    return {session["session"]: session["packets"]
            for session in it.status(unit)["packets"]["sessions"]
            if session["group"] == it.groups["bravo"]}


def through_changes(it) -> tuple:
    """Small packets, while connections keep all threads busy and the key changes twenty times."""
    drops = dropped_by_kernel(it)
    with use.Iperf(it.field, it.at("hb"), it.inner("hb")) as iperf:
        worker = Background(lambda: iperf.tcp(it.at("ha"), 8, "-P", "8", "-b", "10M"))
        report = use.small_packets(it.field, it.at("ha"), it.inner("hb"), it.at("hb"), 2_000, 6,
                                   during=lambda: renew(it, 20))
        stall = longest_stall(worker.result())
    drops = dropped_by_kernel(it) - drops
    return (f"20 changes, {report['lost']} of {report['sent']} packets lost, {drops} at full queues,"
            f" connections stood still for {stall:.1f} s", report["lost"] > drops or stall > 0.3)


def from_many_ports(it) -> tuple:
    """The place of g1 moves on all the time, and the key changes twenty times: its sessions come to each
    of the threads of g2 that receive, and each packet comes once."""
    def change() -> None:
        renewing = Background(lambda: renew(it, 20))
        for port in PORTS:
            it.field.speak_from("g1", port, PORTS)
            time.sleep(0.3)
        renewing.result()

    drops, before = dropped_by_kernel(it), busy(it, "g2", "packets-in")
    report = use.small_packets(it.field, it.at("ha"), it.inner("hb"), it.at("hb"), 2_000,
                               0.4 * len(PORTS), during=change)
    drops = dropped_by_kernel(it) - drops
    it.field.clear("ports", "ip")
    took = [now - was for was, now in zip(before, busy(it, "g2", "packets-in"))]
    idle = [seconds for seconds in took if seconds < sum(took) / 20]
    return (f"from {len(PORTS)} ports and with 20 changes {report['lost']} of {report['sent']} packets"
            f" lost, {report['twice']} came twice, {drops} at full queues; threads that receive ran for"
            f" {', '.join(f'{seconds:.2f}' for seconds in took)} s",
            report["lost"] > drops or report["twice"] or len(took) != THREADS or idle)


def busy(it, unit: str, name: str) -> list:
    """For how many seconds each thread of that name ran there."""
    threads = pathlib.Path(f"/proc/{it.units[unit].pid}/task").iterdir()
    named = {(one / "comm").read_text().strip(): one for one in threads}
    return [int((one / "schedstat").read_text().split()[0]) / 1e9
            for comm, one in sorted(named.items()) if comm.startswith(name)]
