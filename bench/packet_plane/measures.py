"""The loads: TCP by iperf3, UDP of 64 octets by e2e/udp_load.py, and how a peak is searched."""

import json
import pathlib
import statistics
import sys
import time

import ground

LOAD = pathlib.Path(ground.__file__).with_name("udp_load.py")
SIZE = 64
# Of a trial of UDP, less than this may be lost.
MOST_LOST = 0.01
# The search ends when it knows the peak to this part of it.
NARROW = 0.04
HIGHEST_RATE = 2_000_000


class Broken(Exception):
    """A load did not come through."""


class Loads:
    """Carries loads from one namespace to the other, through whatever the addresses choose."""

    def __init__(self, here: ground.Ground, a: str, b: str):
        self.here, self.a, self.b = here, a, b
        self.server = None

    def tcp(self, to: str, seconds: float, streams: int) -> float:
        """Gbit/s of goodput, as the receiver counts it."""
        for _ in range(2):
            if self.server is None or self.server.poll() is not None:
                self.server = self.here.start(self.b, "iperf3", "-s", "-p", "5201", log="iperf3.log")
                time.sleep(0.3)
            run = self.here.run(self.a, "iperf3", "-c", to, "-p", "5201", "-t", str(seconds), "-O",
                                "0.5", "-P", str(streams), "-J", "--connect-timeout", "3000",
                                seconds=seconds + 15)
            try:
                said = json.loads(run.stdout)
                return said["end"]["sum_received"]["bits_per_second"] / 1e9
            except (ValueError, KeyError):
                # A server that was left in the middle of a test is busy for ever.
                self.here.stop(self.server)
                self.server = None
        raise Broken(f"iperf3: {run.stdout[-300:]} {run.stderr[-300:]}")

    def udp(self, to: str, rate: float, seconds: float) -> tuple:
        """(packets a second that arrived, packets a second that were sent, part lost)."""
        ear = self.here.start(self.b, sys.executable, LOAD, "receive", to, 5301, "--size", SIZE,
                              "--seconds", seconds + 5, "--uncounted", stdout=-1, text=True)
        try:
            if ear.stdout.readline().strip() != "ready":
                raise Broken("the receiver of UDP does not start")
            run = self.here.run(self.a, sys.executable, LOAD, "send", to, 5301, "--size", SIZE,
                                "--seconds", seconds, "--rate", rate, "--uncounted")
            if run.returncode != 0:
                raise Broken(f"the sender of UDP: {run.stderr[-300:]}")
            sent, heard = json.loads(run.stdout), json.loads(ear.stdout.readline() or "{}")
        finally:
            self.here.stop(ear)
        if not sent["sent"]:
            raise Broken("the sender of UDP sent nothing")
        received = heard.get("received", 0)
        return received / sent["seconds"], sent["rate"], 1 - received / sent["sent"]

    def peak(self, to: str, seconds: float, near: float = 0) -> float:
        """The highest rate found, in packets a second that arrived, of which less than 1 % is lost.
        `near` is where an earlier search found it."""
        best = [0.0]

        def passes(rate: float) -> bool:
            # A machine hesitates now and then: one more try.
            for _ in range(2):
                arrived, sent, lost = self.udp(to, rate, seconds)
                if lost < MOST_LOST:
                    best[0] = max(best[0], arrived)
                    # A sender that cannot send faster cannot ask for more.
                    return sent > 0.9 * rate
            return False

        if near:
            low, high = near * 0.9, near * 1.15
            while not passes(low) and low > 1000:
                low, high = low * 0.7, low
            while high < HIGHEST_RATE and passes(high):
                low, high = high, high * 1.3
        else:
            low, high = 0.0, 25_000.0
            while high < HIGHEST_RATE and passes(high):
                low, high = high, high * 2
        while high - low > NARROW * high and high > 1000:
            middle = (low + high) / 2
            low, high = (middle, high) if passes(middle) else (low, middle)
        return best[0]


class Watch:
    """Use of the machine's processors while something is measured."""

    def __enter__(self):
        self.before, self.began = ticks(), time.monotonic()
        return self

    def __exit__(self, *_):
        busy, every = (after - before for after, before in zip(ticks(), self.before))
        self.seconds = time.monotonic() - self.began
        self.busy = busy / every if every else 0.0


def ticks() -> tuple:
    """(busy, all) of every core since the start of the machine."""
    fields = list(map(int, pathlib.Path("/proc/stat").read_text(encoding="utf-8")
                      .splitlines()[0].split()[1:9]))
    return sum(fields) - fields[3] - fields[4], sum(fields)


def processor_model() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"


def median(values: list) -> float:
    return statistics.median(values) if values else 0.0
