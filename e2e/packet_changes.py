"""Steps of e2e/packets that change keys under traffic, and what they are held against: the same
traffic, just before, without a change."""

import threading
import time

import applications as use

RATE = 50_000
# A machine that is busy with something else gets another chance; a fault of ours shows each time.
ATTEMPTS = 3


def hitless(it) -> str:
    """100 renewals under iperf3, then under 50,000 small packets a second: none is lost to it"""
    it.admin("group", "set", "bravo", "--change", "hitless")
    it.reach("ha", "hb")
    changes = it.asked.changes
    before, began = it.generation("bravo"), time.monotonic()
    renew(it, min(5, changes))
    pace = (time.monotonic() - began) / min(5, changes)
    seconds = max(3.0, changes * pace * 1.2 + 2)
    said = [attempts(lambda: tcp(it, seconds)), attempts(lambda: small_packets(it, seconds))]
    after = it.generation("bravo")
    if after - before < 2 * changes:
        raise use.Failed(f"only {after - before} changes happened")
    return f"{after - before} changes; {'; '.join(said)}"


def attempts(trial) -> str:
    """What it says, as soon as it does not see harm."""
    harm = []
    for _ in range(ATTEMPTS):
        said, bad = trial()
        if not bad:
            return f"{said} (attempt {len(harm) + 1})" if harm else said
        harm.append(said)
    raise use.Failed(f"each of {ATTEMPTS} times: {'; '.join(harm)}")


def tcp(it, seconds: float) -> tuple:
    """iperf3 without changes and with them: what is seen, and whether the changes did harm."""
    again = [missed(it)]
    with use.Iperf(it.field, it.at("hb"), it.inner("hb")) as iperf:
        without = iperf.tcp(it.at("ha"), seconds / 2)
        again.append(missed(it))
        worker = Background(lambda: iperf.tcp(it.at("ha"), seconds))
        time.sleep(0.5)
        renew(it, it.asked.changes)
        during = worker.result()
    again.append(missed(it))
    again = [after - before for before, after in zip(again, again[1:])]
    stalls = [longest_stall(one) for one in (without, during)]
    rates = [one["end"]["sum_received"]["bits_per_second"] / 1e9 for one in (without, during)]
    # The second run is twice as long. One change in ten would be seen.
    due = again[1] - 2 * again[0]
    bad = stalls[1] > max(0.2, stalls[0]) or due > max(it.asked.changes / 10, 1)
    return (f"iperf3 {rates[1]:.1f} Gbit/s, without changes {rates[0]:.1f}; {again[1]} segments missed,"
            f" {again[0]} in half the time without; stood still for {stalls[1]:.1f} s,"
            f" {stalls[0]:.1f} without", bad)


def missed(it) -> int:
    """Segments that ha sent once more so far and that had not come. (Where a thread changes its core
    the underlay's virtual devices put packets in another order; then they came, as hb says.)"""
    counters = {}
    for line in it.field.run(it.at("ha"), "nstat", "-asz").stdout.splitlines()[1:]:
        name, value, _ = line.split()
        counters[name] = int(value)
    return counters["TcpRetransSegs"] - counters["TcpExtTCPDSACKRecvSegs"]


def small_packets(it, seconds: float) -> tuple:
    """The same of small packets; a packet that the machine had no time for is no harm where it has
    none without changes either."""
    lost, overload = [], []
    for during in (None, lambda: renew(it, it.asked.changes)):
        drops = dropped_by_kernel(it)
        report = use.small_packets(it.field, it.at("ha"), it.inner("hb"), it.at("hb"), RATE,
                                   seconds, during=during)
        overload.append(dropped_by_kernel(it) - drops)
        lost.append(report["lost"])
        if lost[-1] > overload[-1]:
            raise use.Failed(f"{lost[-1]} of {report['sent']} packets lost, only {overload[-1]} of"
                             f" them at full queues; {report['missing'][:5]}")
    return (f"of {report['sent']} packets at {report['rate'] / 1000:.0f} kpps {lost[1]} lost,"
            f" {lost[0]} without changes, {report['out_of_order']} out of order",
            lost[1] > 2 * lost[0])


def renew(it, times: int) -> None:
    for _ in range(times):
        it.admin("renew", "--group", "bravo")


def dropped_by_kernel(it) -> int:
    """Packets that found full queues of devices and of sockets."""
    return sum(it.field.kernel_drops(it.at(name)) for name in ("ha", "g1", "g2", "hb")) + (
        it.field.kernel_drops(it.field.underlay))


def suites(it) -> str:
    """A group's suite of ESP is changed under traffic: both sides follow, and nothing is lost"""
    it.reach("ha", "hb")

    def change() -> None:
        for suite in ("chacha20-poly1305", "aes-128-gcm"):
            it.admin("group", "set", "bravo", "--suite", suite)
            # Keys change in the middle of it: sessions begin in the suite of before.
            for pause in (2, 4, 8):
                time.sleep(pause)
                renew(it, 1)

    drops = dropped_by_kernel(it)
    # So slow that also a busy machine has time for each.
    report = use.small_packets(it.field, it.at("ha"), it.inner("hb"), it.at("hb"), 100, 30,
                               during=change)
    drops = dropped_by_kernel(it) - drops
    said = [str(it.ask("terminal", "export", unit, "--group", it.groups["bravo"], "--source",
                       "192.0.2.1", "--destination", "192.0.2.2", "--format", "wireshark"))
            for unit in ("g1", "g2")]
    it.admin("group", "set", "bravo", "--suite", "aes-256-gcm")
    if report["lost"] > drops:
        raise use.Failed(f"{report['lost']} of {report['sent']} packets lost, {drops} of them at full"
                         f" queues; {report['missing'][:5]}")
    if not all("AES-128-GCM" in text for text in said):
        raise use.Failed(f"they send otherwise: {said}")
    return f"two changes, {report['sent']} packets, {report['lost']} lost"


def barrier(it) -> str:
    """A change behind a barrier: everybody stops and starts again, TCP goes on"""
    it.admin("group", "set", "bravo", "--change", "barrier")
    before, times = it.generation("bravo"), 3
    with use.Iperf(it.field, it.at("hb"), it.inner("hb")) as iperf:
        worker = Background(lambda: iperf.tcp(it.at("ha"), 8))
        time.sleep(1)
        for _ in range(times):
            it.admin("renew", "--group", "bravo")
            time.sleep(1.5)
        said = worker.result()
    it.admin("group", "set", "bravo", "--change", "hitless")
    if it.generation("bravo") < before + times:
        raise use.Failed("the key did not change")
    if not said["intervals"][-2]["sum"]["bytes"] or longest_stall(said) > 4:
        raise use.Failed("TCP does not go on")
    return (f"{times} changes, stood still for {longest_stall(said):.1f} s at the longest,"
            f" {said['end']['sum_received']['bits_per_second'] / 1e9:.1f} Gbit/s")


def longest_stall(said: dict) -> float:
    """Seconds for which iperf3 saw nothing pass, at the longest."""
    longest = now = 0
    for moment in said["intervals"][:-1]:
        now = 0 if moment["sum"]["bytes"] else now + 1
        longest = max(longest, now)
    return longest / 10


class Background:
    """Does something meanwhile."""

    def __init__(self, work):
        self.answer, self.problem = None, None
        self.thread = threading.Thread(target=self.do, args=(work,), daemon=True)
        self.thread.start()

    def do(self, work) -> None:
        try:
            self.answer = work()
        except use.Failed as why:
            self.problem = why

    def result(self):
        self.thread.join()
        if self.problem:
            raise self.problem
        return self.answer
