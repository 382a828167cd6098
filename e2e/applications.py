"""Real applications that carry a load from one namespace to another, and what they say about it."""

import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import ground

# Stands in every 64 octets of what is transferred.
PATTERN = b"keyfall: these octets are plain "
LOAD = pathlib.Path(__file__).with_name("udp_load.py")


class Failed(Exception):
    """An application did not do it; what it said."""


def ping(here: ground.Ground, source: str, to: str, *options: str, count: int = 3) -> int:
    """How many of the pings came back."""
    pace = () if "-f" in options else ("-i", "0.2")
    run = here.run(source, "ping", "-n", *pace, "-c", count, "-W", "2",
                   *options, to)
    heard = re.search(r"(\d+) received", run.stdout)
    return int(heard.group(1)) if heard else 0


def flood(here: ground.Ground, source: str, to: str, count: int = 3000) -> None:
    """ping -f: none is lost."""
    back = ping(here, source, to, "-f", "-q", count=count)
    if back != count:
        raise Failed(f"ping -f {to}: {back} of {count} came back")


def make_file(path: pathlib.Path, size: int) -> str:
    """A file of that size, full of the pattern and unlike at every place; its SHA-256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for start in range(0, size, 1 << 20):
            block = b"".join(PATTERN + b"%032d" % (start + at) for at in range(0, 1 << 20, 64))
            block = block[:size - start]
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


class FileServer:
    """A web server of a directory, while in the `with`."""

    def __init__(self, here: ground.Ground, at: str, folder: pathlib.Path, address: str):
        self.here, self.at, self.folder, self.address = here, at, folder, address

    def __enter__(self):
        self.process = self.here.start(
            self.at, sys.executable, "-c", SERVE, self.folder, self.address,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        host = f"[{self.address}]" if ":" in self.address else self.address
        self.url = f"http://{host}:8080"
        if not ground.wait(lambda: self.here.run(
                self.at, "curl", "-sfg", "-o", os.devnull, self.url).returncode == 0):
            raise Failed("the web server does not start")
        return self

    def __exit__(self, *_):
        self.here.stop(self.process)


def download(here: ground.Ground, at: str, url: str, seconds: int = 60) -> str:
    """curl's SHA-256 of a URL."""
    target = here.top / f"download-{time.monotonic_ns()}"
    run = here.run(at, "curl", "-sfgS", "--max-time", seconds, "-o", target, url,
                   seconds=seconds + 5)
    if run.returncode != 0:
        raise Failed(f"curl {url}: {run.stderr.strip() or run.returncode}")
    with open(target, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    target.unlink()
    return digest


class Iperf:
    """iperf3's server, while in the `with`."""

    def __init__(self, here: ground.Ground, at: str, address: str):
        self.here, self.at, self.address = here, at, address

    def __enter__(self):
        self.process = self.here.start(self.at, "iperf3", "-s", "-B", self.address, log="iperf3.log")
        time.sleep(0.3)
        return self

    def __exit__(self, *_):
        self.here.stop(self.process)

    def tcp(self, source: str, seconds: float, *options: str) -> dict:
        """What iperf3 says at the end; `intervals` of 0.1 s among it."""
        run = self.here.run(source, "iperf3", "-c", self.address, "-t", seconds, "-i", "0.1", "-J",
                            "--connect-timeout", "5000", *options, seconds=seconds + 20)
        try:
            said = json.loads(run.stdout)
            said["end"]["sum_received"]
        except (ValueError, KeyError):
            raise Failed(f"iperf3 to {self.address}: {run.stdout[-200:]}{run.stderr}") from None
        return said


def small_packets(here: ground.Ground, source: str, to: str, at: str, rate: int, seconds: float,
                  during=None) -> dict:
    """Numbered UDP packets of 64 octets; what sender and receiver say, while `during` is done."""
    port = 20_000 + time.monotonic_ns() // 1000 % 20_000
    ear = here.start(at, sys.executable, LOAD, "receive", to, port, "--seconds", seconds + 10,
                     stdout=subprocess.PIPE, text=True)
    if ear.stdout.readline().strip() != "ready":
        raise Failed("the receiver of UDP does not start")
    mouth = here.start(source, sys.executable, LOAD, "send", to, port, "--rate", rate, "--seconds",
                       seconds, stdout=subprocess.PIPE, text=True)
    try:
        if during:
            during()
        sent, heard = (json.loads(one.stdout.readline() or "{}") for one in (mouth, ear))
    finally:
        here.stop(mouth)
        here.stop(ear)
    if not sent or not heard:
        raise Failed("the load of UDP broke")
    return {**heard, **sent, "lost": sent["sent"] - heard["received"]}


class MulticastEar:
    """Hears a multicast group on a device."""

    def __init__(self, here: ground.Ground, at: str, group: str, port: int, device: str):
        self.here = here
        self.process = here.start(at, sys.executable, "-c", HEAR, group, port, device,
                                  stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise Failed("the receiver of multicast does not start")

    def heard(self) -> int:
        """How many different packets until now; it ends."""
        self.process.send_signal(signal.SIGINT)
        said = self.process.stdout.readline()
        self.here.stop(self.process)
        return int(said or 0)


def say_multicast(here: ground.Ground, at: str, group: str, port: int, device: str,
                  count: int) -> None:
    """Without a device: by the one that the system chooses."""
    run = here.run(at, sys.executable, "-c", SAY, group, port, device, count, PATTERN.decode())
    if run.returncode != 0:
        raise Failed(f"sending multicast: {run.stderr.strip().splitlines()[-1]}")


# The web server of Python, without its question for the name of the host.
SERVE = """
import functools, http.server, socket, sys
folder, address = sys.argv[1:]
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
    def server_bind(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((address, 8080))
        self.server_name, self.server_port = address, 8080
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
Server((address, 8080), handler).serve_forever()
"""
HEAR = """
import signal, socket, struct, sys
group, port, device = sys.argv[1:]
index = socket.if_nametoindex(device)
if ":" in group:
    ear = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    ear.bind((group, int(port), 0, index))
    ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP,
                   socket.inet_pton(socket.AF_INET6, group) + struct.pack("i", index))
else:
    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.bind((group, int(port)))
    ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                   socket.inet_aton(group) + bytes(4) + struct.pack("i", index))
heard = set()
def end(*_):
    print(len(heard), flush=True)
    sys.exit()
signal.signal(signal.SIGINT, end)
print("ready", flush=True)
while True:
    heard.add(ear.recv(2048))
"""
SAY = """
import socket, struct, sys, time
group, port, device, count, pattern = sys.argv[1:]
index = socket.if_nametoindex(device) if device else 0
if ":" in group:
    mouth = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    mouth.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    mouth.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 8)
else:
    mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(8) + struct.pack("i", index))
    mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 8)
for number in range(int(count)):
    mouth.sendto(b"%8d" % number + pattern.encode(), (group, int(port)))
    time.sleep(0.01)
"""


class Secure:
    """dropbear, spoken to by ssh and scp with a key of its own. It sees a home of its own."""

    def __init__(self, here: ground.Ground, at: str, address: str):
        self.here, self.at, self.address = here, at, address
        self.folder = here.top / "ssh"

    def __enter__(self):
        self.folder.mkdir(exist_ok=True)
        for name in ("host", "user"):
            if not (self.folder / name).exists():
                ground.sh("dropbearkey", "-t", "ed25519", "-f", str(self.folder / name))
        told = ground.sh("dropbearkey", "-y", "-f", str(self.folder / "user")).splitlines()
        # dbclient and scp keep keys in files of their own kinds.
        if not (self.folder / "copier").exists():
            ground.sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
                      str(self.folder / "copier"))
        public = [next(line for line in told if line.startswith("ssh-")),
                  (self.folder / "copier.pub").read_text(encoding="ascii").strip()]
        (self.folder / "allowed").write_text("\n".join(public) + "\n", encoding="utf-8")
        # A namespace made by `ip netns exec` has mounts of its own.
        self.process = self.here.start(
            self.at, "sh", "-c",
            'home=$(getent passwd "$(id -u)" | cut -d: -f6) && mount -t tmpfs -o mode=700 none "$home"'
            ' && mkdir -m 700 "$home/.ssh" && cp "$0/allowed" "$home/.ssh/authorized_keys"'
            ' && chmod 600 "$home/.ssh/authorized_keys"'
            ' && exec dropbear -F -E -s -r "$0/host" -P "$0/pid" -p "$1:2222"',
            self.folder, f"[{self.address}]" if ":" in self.address else self.address,
            log="dropbear.log")
        ground.wait((self.folder / "pid").exists)
        return self

    def __exit__(self, *_):
        self.here.stop(self.process)

    def fetch(self, source: str, path: pathlib.Path) -> str:
        """The SHA-256 of a file, carried over ssh."""
        run = subprocess.Popen(
            self.here.command(source, "dbclient", "-y", "-y", "-T", "-i", self.folder / "user", "-p",
                              "2222", self.address, "cat", path),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(self.folder)}, preexec_fn=ground.die_with_parent)
        try:
            said, _ = run.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
            raise Failed("ssh takes more than a minute") from None
        if run.returncode != 0:
            raise Failed(f"ssh: {self.here.said('dropbear.log')}")
        return hashlib.sha256(said).hexdigest()

    def copy(self, source: str, path: pathlib.Path) -> str:
        """The SHA-256 of what scp made of a file on this server's machine."""
        target = self.folder / f"copied-{time.monotonic_ns()}"
        host = f"[{self.address}]" if ":" in self.address else self.address
        run = self.here.run(source, "scp", "-O", "-q", "-B", "-F", "none", "-P", "2222", "-i",
                            self.folder / "copier", "-o", "StrictHostKeyChecking=no", "-o",
                            "UserKnownHostsFile=/dev/null", path, f"{host}:{target}")
        if run.returncode != 0:
            raise Failed(f"scp: {run.stderr.strip()} {self.here.said('dropbear.log')}")
        with open(target, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        target.unlink()
        return digest
