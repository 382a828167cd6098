"""The programs that are measured side by side. Each makes a tunnel of its own between the two
namespaces; all are up at the same time, and one after the other carries the load."""

import email.utils
import gzip
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

import ground

# Room for the outer headers of every contender in an underlay of 1500 octets; the same for all.
INNER_MTU = 1420
CRATES = {"boringtun-cli": "0.7.1", "gotatun-cli": "0.10.2"}
PINNED = "the newest on crates.io on 2026-11-28"


class Absent(Exception):
    """Why a contender is not here."""


class Contender:
    """One program. `name` is its key in the result, `place` makes its addresses and ports its own."""

    name = ""
    # What stands in the table beside the name.
    remark = ""

    def __init__(self, here: ground.Ground, a: str, b: str, place: int, folders: tuple):
        self.here, self.a, self.b, self.place = here, a, b, place
        # Where crates were installed, and where this repository's own programs were built.
        self.crates, self.built = folders
        self.near, self.far = f"10.81.{place}.1", f"10.81.{place}.2"
        self.port = 47_000 + place
        self.processes = []
        self.version, self.age = "", ""

    def look(self) -> None:
        """Learns version and age; raises Absent."""

    def up(self) -> None:
        """Brings the tunnel up between self.near in a and self.far in b."""
        raise NotImplementedError

    def start(self, namespace: str, *words, **options) -> None:
        self.processes.append(
            self.here.start(namespace, *words, log=f"{self.name}.log", **options))

    def device(self, side: str) -> str:
        return f"kf{self.place}{side}{self.here.mark}"

    def reachable(self) -> bool:
        ping = ["ping", "-c", "1", "-W", "1", self.far]
        return bool(ground.wait(lambda: self.here.run(self.a, *ping).returncode == 0, 15))

    def processor(self) -> float:
        """Seconds of processor time that its own processes have used."""
        return sum(processor_of(process.pid) for process in self.processes)

    def memory(self) -> int:
        """KiB resident in the largest of its processes."""
        return max((resident_of(process.pid) for process in self.processes), default=0)


class Veth(Contender):
    """The bare pair, without any program: what the machine does at most."""

    name, remark = "veth", "no program between"

    def look(self) -> None:
        self.version = f"Linux {os.uname().release}"

    def up(self) -> None:
        for namespace, device, address in ((self.a, "kf0", self.near), (self.b, "kf1", self.far)):
            ground.sh("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", device)


class Bare(Contender):
    """The forwarder of this repository without a protocol (an example of keyfall-terminal)."""

    name, remark = "bare", "AES-256-GCM on each packet under a fixed key, the same offloads"

    def look(self) -> None:
        self.binary = self.built / "examples/bare_forwarder"
        if not self.binary.exists():
            raise Absent(f"{self.binary} is not built")
        self.version = "this tree"

    def up(self) -> None:
        sides = (("a", self.a, self.near, "10.80.0.1", "10.80.0.2"),
                 ("b", self.b, self.far, "10.80.0.2", "10.80.0.1"))
        for side, namespace, inner, mine, its in sides:
            device = self.device(side)
            self.start(namespace, self.binary, device, f"{mine}:{self.port}",
                       f"{its}:{self.port}", INNER_MTU)
            if not ground.wait(lambda: device_is_there(namespace, device)):
                raise Absent(f"does not start: {self.here.said(f'{self.name}.log')}")
            raise_device(namespace, device, f"{inner}/24")


class Keyfall(Contender):
    """Two terminals in host mode, and a server that both hear; one group."""

    name = "keyfall"

    def look(self) -> None:
        self.program = self.built / "keyfall"
        if not self.program.exists():
            raise Absent(f"{self.program} is not built")
        if "--gateway" not in ground.sh(str(self.program), "terminal", "run", "--help"):
            raise Absent(f"{self.program} carries no packets")
        self.version = "this tree"

    def up(self) -> None:
        self.folder = self.here.top / self.name
        self.folder.mkdir()
        carrier = f"udp://239.255.70.{self.place}:47700?if=10.80.0.1&ttl=1"
        self.ask("server", "init", "fleet", "--carrier", carrier, "--rate", "100M")
        self.here.start(self.a, self.program, "server", "run", "fleet", cwd=self.folder,
                        log=f"{self.name}-server.log")
        if not ground.wait(lambda: self.run("admin", "status", "--dir", "fleet").returncode == 0):
            raise Absent(f"the server does not start: {self.here.said(f'{self.name}-server.log')}")
        sides = (("near", self.a, self.near, "10.80.0.1"), ("far", self.b, self.far, "10.80.0.2"))
        for name, _, inner, outer in sides:
            added = self.ask("admin", "terminal", "add", name, "--dir", "fleet")
            self.ask("terminal", "enrol", name, f"{name}.enrol", "--code",
                     added["terminals"][0]["code"])
            self.ask("admin", "terminal", "set", name, "--address", inner, "--endpoint",
                     f"{outer}:{self.port}", "--dir", "fleet")
        self.ask("admin", "group", "create", "all", "--member", "near", "--member", "far",
                 "--packets", "--network", f"10.81.{self.place}.0/24", "--dir", "fleet")
        for name, namespace, _, outer in sides:
            self.start(namespace, self.program, "terminal", "run", name, "--if", outer, "--outside",
                       "kf0" if namespace == self.a else "kf1", "--listen", f"{outer}:{self.port}",
                       "--mtu", INNER_MTU, cwd=self.folder)

    def run(self, *words) -> subprocess.CompletedProcess:
        return self.here.run(self.a, self.program, "--json", *words, cwd=self.folder)

    def ask(self, *words) -> dict:
        run = self.run(*words)
        if run.returncode != 0:
            raise Absent(f"`keyfall {' '.join(map(str, words))}`: {run.stdout}{run.stderr}".strip())
        return json.loads(run.stdout)

    def known(self) -> int:
        """How many peers' records the near terminal holds."""
        run = self.run("terminal", "status", "near")
        return json.loads(run.stdout)["packets"]["peers"] if run.returncode == 0 else 0


class KeyfallCrowd(Keyfall):
    """The same, but each of the two knows 10,000 further members of its group. They never run: what
    a terminal knows of a peer is the peer's record, which the server sends to all."""

    name, remark = "keyfall-10k", "with 10,000 known peers"
    crowd = 10_000
    # How long the carousel may take to tell of them all.
    patience = 660

    def up(self) -> None:
        super().up()
        if not self.reachable():
            raise Absent(f"no answer through it: {self.here.said(f'{self.name}.log')}")
        time.sleep(2)
        before = self.memory()
        request = self.ask("terminal", "enrol", "crowd", "--request")["request_key"]
        server = Admin(self.folder / "fleet/admin.sock")
        names = [f"crowd{number}" for number in range(self.crowd)]
        for number, name in enumerate(names):
            server.post("/v1/terminals", {"name": name, "request": request})
            server.post(f"/v1/terminals/{name}/addresses", {
                "prefixes": [f"10.{90 + number // 65536}.{number // 256 % 256}.{number % 256}/32"],
                "endpoints": [f"10.80.1.{number % 254 + 1}:{self.port}"]})
        server.post("/v1/groups", {"name": "crowd", "members": ["near", "far", *names],
                                   "packets": {"networks": ["10.90.0.0/16"]}})
        # Frames that did not fit into a socket are heard in a later turn of the carousel.
        if not ground.wait(lambda: self.known() > self.crowd, self.patience, 2):
            raise Absent(f"{self.known()} of {self.crowd} peers are known after {self.patience} s")
        time.sleep(2)
        self.octets_each = (self.memory() - before) * 1024 / self.crowd


class Admin(http.client.HTTPConnection):
    """A server's admin socket."""

    def __init__(self, path: pathlib.Path):
        super().__init__("admin")
        self.path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)

    def post(self, path: str, order: dict) -> dict:
        self.request("POST", path, json.dumps(order), {"Content-Type": "application/json"})
        answer = self.getresponse()
        said = json.loads(answer.read())
        if answer.status >= 300:
            raise Absent(f"{path}: {said}")
        return said


class WireGuard(Contender):
    """Userspace WireGuard, spoken to by `wg`. Keys are made by wg."""

    program, options, environment = "", (), {}

    def binary(self) -> str:
        return self.program

    def look(self) -> None:
        if missing := ground.lacking("wg", self.binary()):
            raise Absent(f"{' and '.join(pathlib.Path(name).name for name in missing)} not here")

    def up(self) -> None:
        keys = []
        for side, namespace in (("a", self.a), ("b", self.b)):
            private = ground.sh("wg", "genkey").strip()
            public = subprocess.run(["wg", "pubkey"], input=private, text=True, check=True,
                                    stdout=subprocess.PIPE).stdout.strip()
            file = self.here.top / f"{self.name}-{side}.key"
            file.write_text(private, encoding="utf-8")
            keys.append((file, public))
            self.start(namespace, self.binary(), *self.options, self.device(side),
                       env={**os.environ, **self.environment})
        sides = ((self.a, "a", self.near, 0, "10.80.0.2"), (self.b, "b", self.far, 1, "10.80.0.1"))
        for namespace, side, inner, mine, peer in sides:
            device = self.device(side)
            control = pathlib.Path("/var/run/wireguard") / f"{device}.sock"
            if not ground.wait(control.exists):
                raise Absent(f"does not start: {self.here.said(f'{self.name}.log')}")
            self.here.run(namespace, "wg", "set", device, "private-key", keys[mine][0],
                          "listen-port", self.port, "peer", keys[1 - mine][1], "endpoint",
                          f"{peer}:{self.port}", "allowed-ips", "10.81.0.0/16").check_returncode()
            raise_device(namespace, device, f"{inner}/24")


class BoringTun(WireGuard):
    name, program, options = "boringtun", "boringtun-cli", ("--foreground",
                                                            "--disable-drop-privileges")
    remark = "4 threads, its default"

    def binary(self) -> str:
        return str(self.crates / "bin" / self.program)

    def look(self) -> None:
        super().look()
        self.version = ground.sh(self.binary(), "--version").split()[-1]
        self.age = PINNED


class BoringTunOne(BoringTun):
    name, remark, environment = "boringtun-1", "1 thread", {"WG_THREADS": "1"}


class GotaTun(BoringTun):
    name, program, remark, environment = "gotatun", "gotatun", "", {}


class WireGuardGo(WireGuard):
    name, program, options = "wireguard-go", "wireguard-go", ("--foreground",)

    def look(self) -> None:
        super().look()
        self.version, self.age = debian("wireguard-go")


class Nebula(Contender):
    name, remark = "nebula", "AES-256-GCM"

    def look(self) -> None:
        if missing := ground.lacking("nebula", "nebula-cert"):
            raise Absent(f"{' and '.join(missing)} not here")
        self.version, self.age = debian("nebula")

    def up(self) -> None:
        folder = self.here.top / "nebula"
        folder.mkdir()
        subprocess.run(["nebula-cert", "ca", "-name", "bench"], cwd=folder, check=True)
        for side, address in (("a", self.near), ("b", self.far)):
            subprocess.run(["nebula-cert", "sign", "-name", side, "-ip", f"{address}/24"],
                           cwd=folder, check=True)
            open_wall = [{"port": "any", "proto": "any", "host": "any"}]
            # A configuration file of Nebula is YAML, and JSON is YAML.
            configuration = {
                "pki": {"ca": f"{folder}/ca.crt", "cert": f"{folder}/{side}.crt",
                        "key": f"{folder}/{side}.key"},
                "static_host_map": {self.near: [f"10.80.0.1:{self.port}"],
                                    self.far: [f"10.80.0.2:{self.port}"]},
                "lighthouse": {"am_lighthouse": False},
                "listen": {"host": "0.0.0.0", "port": self.port, "batch": 128,
                           "read_buffer": 4 << 20, "write_buffer": 4 << 20},
                "punchy": {"punch": False}, "cipher": "aes", "routines": 2,
                "tun": {"dev": self.device(side), "mtu": INNER_MTU, "tx_queue": 1000},
                "logging": {"level": "warning"},
                "firewall": {"outbound": open_wall, "inbound": open_wall},
            }
            file = folder / f"{side}.yaml"
            file.write_text(json.dumps(configuration), encoding="utf-8")
            self.start(self.a if side == "a" else self.b, "nebula", "-config", file)


class OpenVpn(Contender):
    name, remark = "openvpn", "AES-256-GCM over UDP, without the kernel's part"

    def look(self) -> None:
        if missing := ground.lacking("openvpn", "openssl"):
            raise Absent(f"{' and '.join(missing)} not here")
        self.version, self.age = debian("openvpn")

    def up(self) -> None:
        folder = self.here.top / "openvpn"
        folder.mkdir()
        prints = {}
        for side in "ab":
            ground.sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                      "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={side}",
                      "-keyout", f"{folder}/{side}.key", "-out", f"{folder}/{side}.crt")
            told = ground.sh("openssl", "x509", "-in", f"{folder}/{side}.crt", "-noout",
                             "-fingerprint", "-sha256")
            prints[side] = told.strip().split("=")[1]
        sides = (("a", self.a, "10.80.0.2", self.near, self.far, "--tls-client"),
                 ("b", self.b, "10.80.0.1", self.far, self.near, "--tls-server"))
        for side, namespace, peer, mine, its, role in sides:
            self.start(
                namespace, "openvpn", "--dev", self.device(side), "--dev-type", "tun", "--proto",
                "udp", "--local", "10.80.0.1" if side == "a" else "10.80.0.2", "--lport",
                self.port, "--remote", peer, self.port, role, "--dh", "none", "--cert",
                f"{folder}/{side}.crt", "--key", f"{folder}/{side}.key", "--peer-fingerprint",
                prints["b" if side == "a" else "a"], "--ifconfig", mine, its, "--data-ciphers",
                "AES-256-GCM", "--cipher", "AES-256-GCM", "--tun-mtu", INNER_MTU, "--fast-io",
                "--sndbuf", 4 << 20, "--rcvbuf", 4 << 20, "--txqueuelen", 1000, "--disable-dco")


def device_is_there(namespace: str, device: str) -> bool:
    return subprocess.run(["ip", "-n", namespace, "link", "show", device],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def raise_device(namespace: str, device: str, address: str) -> None:
    ground.sh("ip", "-n", namespace, "addr", "add", address, "dev", device)
    ground.sh("ip", "-n", namespace, "link", "set", device, "mtu", str(INNER_MTU), "up")


def debian(package: str) -> tuple:
    """(version, since when that version is in Debian)."""
    state = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if state.returncode != 0:
        raise Absent(f"{package} is no package here")
    version = state.stdout
    upstream = re.sub(r"-[^-]*$", "", version)
    dates = []
    try:
        with gzip.open(f"/usr/share/doc/{package}/changelog.Debian.gz", "rt",
                       encoding="utf-8") as log:
            current = False
            for line in log:
                if entry := re.match(r"\S+ \(([^)]*)\)", line):
                    current = entry.group(1).startswith(upstream)
                elif current and line.startswith(" -- "):
                    dates.append(email.utils.parsedate_to_datetime(line.split("  ")[-1].strip()))
    except OSError:
        pass
    return version, f"in Debian since {min(dates):%Y-%m}" if dates else ""


def processor_of(pid: int) -> float:
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1]
    except OSError:
        return 0.0
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def resident_of(pid: int) -> int:
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines()
                 if line.startswith("VmRSS")), 0)


def install(folder: pathlib.Path) -> list:
    """What a measurement needs and this machine lacks, as far as it may be installed; what could not."""
    problems = []
    packages = ["iperf3", "wireguard-tools", "wireguard-go", "nebula", "openvpn", "openssl",
                "iputils-ping"]
    wanted = [name for name in packages if not is_installed(name)]
    if wanted and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
                 "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update", "-qq"], **quiet)
        # One by one, so that one that is not there takes no other with it.
        for name in wanted:
            run = subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends",
                                  name], **quiet)
            problems += [f"{name} could not be installed"] if run.returncode else []
    for name, version in CRATES.items():
        listed = folder / ".crates.toml"
        there = listed.read_text(encoding="utf-8") if listed.exists() else ""
        if f'"{name} {version} ' in there:
            continue
        if shutil.which("cargo") is None:
            problems.append(f"{name} could not be installed without cargo")
            continue
        print(f"packets: cargo installs {name} {version}, a few minutes", file=sys.stderr)
        run = subprocess.run(["cargo", "install", "--locked", "--quiet", "--root", folder,
                              "--target-dir", folder / "build", f"{name}@{version}"])
        problems += [f"{name} {version} could not be installed"] if run.returncode else []
    shutil.rmtree(folder / "build", ignore_errors=True)
    return problems


def is_installed(package: str) -> bool:
    state = subprocess.run(["dpkg-query", "-W", "-f", "${Status}", package], text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return state.stdout == "install ok installed"


PEERS = [BoringTun, BoringTunOne, GotaTun, WireGuardGo, Nebula, OpenVpn]
ALL = [Veth, Bare, Keyfall, *PEERS, KeyfallCrowd]
