"""Network namespaces joined by veth, and the processes in them; all of it is gone at the end, also when
asked to end, also when the script that made it is killed (but for the empty namespaces)."""

import ctypes
import ipaddress
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SO_MUCH = 60


class Ground:
    def __init__(self, name: str):
        self.name = name
        # Device names of one run must not meet those of another; they have at most 15 letters.
        self.mark = f"{os.getpid() % 0xFFFFF:x}"
        self.namespaces, self.running = [], []

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: sys.exit(128 + number))
        self.temporary = tempfile.TemporaryDirectory(prefix=f"keyfall-{self.name}-")
        self.top = pathlib.Path(self.temporary.name)
        return self

    def __exit__(self, *_):
        # Asked twice, it still cleans up once.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(self.running):
            end(process)
        for namespace in self.namespaces:
            subprocess.run(["ip", "netns", "del", namespace], stderr=subprocess.DEVNULL)
        # Some programs leave what they are spoken to by.
        for left in pathlib.Path("/var/run/wireguard").glob(f"*{self.mark}.sock"):
            left.unlink()
        self.temporary.cleanup()

    # -- Namespaces

    def namespace(self, name: str) -> str:
        """Its full name, for everything below; loopback is up."""
        full = f"kf-{self.mark}-{name}"
        sh("ip", "netns", "add", full)
        self.namespaces.append(full)
        sh("ip", "-n", full, "link", "set", "lo", "up")
        # No duplicate address detection: an address serves at once.
        self.set(full, "net.ipv6.conf.all.accept_dad", 0)
        self.set(full, "net.ipv6.conf.default.accept_dad", 0)
        return full

    def link(self, one: tuple, other: tuple, mtu: int = 1500) -> None:
        """A veth pair; each end is (namespace, device, addresses)."""
        sh("ip", "link", "add", one[1], "mtu", str(mtu), "netns", one[0], "type", "veth", "peer",
           "name", other[1], "mtu", str(mtu), "netns", other[0])
        for namespace, device, *addresses in (one, other):
            self.set(namespace, f"net.ipv6.conf.{device}.accept_dad", 0)
            for address in addresses:
                sh("ip", "-n", namespace, "addr", "add", address, "dev", device)
            sh("ip", "-n", namespace, "link", "set", device, "up")

    def route(self, namespace: str, to: str, via: str) -> None:
        sh("ip", "-n", namespace, "route", "add", to, "via", via)

    def forwards(self, namespace: str) -> None:
        self.set(namespace, "net.ipv4.ip_forward", 1)
        self.set(namespace, "net.ipv6.conf.all.forwarding", 1)

    def set(self, namespace: str, name: str, value: int) -> None:
        sh("ip", "netns", "exec", namespace, "sysctl", "-qw", f"{name}={value}")

    def rules(self, namespace: str, text: str) -> None:
        """nftables rules."""
        subprocess.run(["ip", "netns", "exec", namespace, "nft", "-f", "-"], input=text, text=True,
                       check=True)

    # -- Processes

    def command(self, namespace: str, *words) -> list:
        return ["ip", "netns", "exec", namespace, *map(str, words)]

    def run(self, namespace: str, *words, seconds: float = SO_MUCH,
            **options) -> subprocess.CompletedProcess:
        """Waits for its end; status 124 if it took longer."""
        try:
            return subprocess.run(self.command(namespace, *words), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                  timeout=seconds, preexec_fn=die_with_parent, **options)
        except subprocess.TimeoutExpired as late:
            said = [text.decode() if isinstance(text, bytes) else text or ""
                    for text in (late.stdout, late.stderr)]
            return subprocess.CompletedProcess(late.cmd, 124, *said)

    def start(self, namespace: str, *words, log: str = "", **options) -> subprocess.Popen:
        """A process that runs until the end of all; what it says goes to the file `log`."""
        if log:
            file = open(self.top / log, "a", encoding="utf-8")
            options |= {"stdout": file, "stderr": file}
        process = subprocess.Popen(self.command(namespace, *words), stdin=subprocess.DEVNULL,
                                   preexec_fn=die_with_parent, **options)
        self.running.append(process)
        return process

    def stop(self, process: subprocess.Popen) -> None:
        self.running.remove(process)
        end(process)

    def said(self, log: str, lines: int = 4) -> str:
        """The last lines of a log."""
        try:
            text = (self.top / log).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return " / ".join(text.strip().splitlines()[-lines:])


def end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def die_with_parent() -> None:
    """For a child: it ends when this script ends, however that is, and Ctrl-C is not for it."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def wait(done, seconds: float = 10, pause: float = 0.05):
    """What `done` answers as soon as it is true, else what it answered last."""
    latest = time.monotonic() + seconds
    while not (answer := done()) and time.monotonic() < latest:
        time.sleep(pause)
    return answer


def sh(*words: str) -> str:
    run = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise SystemExit(f"`{' '.join(words)}`: {run.stderr.strip() or run.returncode}")
    return run.stdout


def lacking(*tools: str) -> list:
    return [tool for tool in tools if shutil.which(tool, path=PATH) is None]


def can() -> str:
    """Why this machine does not do it, or nothing."""
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    if missing := lacking("ip", "nft"):
        return f"{' and '.join(missing)} not here"
    if not os.path.exists("/dev/net/tun"):
        return "/dev/net/tun is not here"
    return ""


def addresses(namespace: str, device: str) -> list:
    answer = json.loads(sh("ip", "-n", namespace, "-json", "addr", "show", "dev", device))
    return [ipaddress.ip_interface(f"{entry['local']}/{entry['prefixlen']}")
            for entry in answer[0]["addr_info"]]


PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
os.environ["PATH"] = PATH
