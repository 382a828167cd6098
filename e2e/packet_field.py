"""The field of the packet plane: sites behind gateways, terminals in host mode, the routed underlay
between them, and a control segment on which the server is heard. No test stands here.

  ha - g1 -+            +- h1
  hb - g2 -+- underlay -+- h2     every gateway and terminal also has `ctl` on the control segment
  hc - g3 -+            +- h3, h4
"""

import contextlib
import json
import re
import subprocess
import time

import ground

SITES = {"g1": "ha", "g2": "hb", "g3": "hc"}
# They stand in one subnet of the underlay.
TERMINALS = ("h1", "h2", "h3", "h4")
UNITS = (*SITES, *TERMINALS)
SERVER_ADDRESS = "10.201.0.254"


class Field(ground.Ground):
    """Addresses: site N is 10.10.N.0/24 and fd10:N::/64 with its gateway at 1 and its host at 2; its
    gateway's outer side is 10.200.N.2; the terminals h1 to h4 are 10.200.9.1 to .4 outside."""

    def build(self) -> None:
        self.underlay, self.server = self.namespace("net"), self.namespace("srv")
        self.forwards(self.underlay)
        ground.sh("ip", "-n", self.server, "link", "add", "ctl", "type", "bridge")
        ground.sh("ip", "-n", self.server, "addr", "add", f"{SERVER_ADDRESS}/24", "dev", "ctl")
        ground.sh("ip", "-n", self.server, "link", "set", "ctl", "up")
        self.at = {name: self.namespace(name) for name in (*UNITS, *SITES.values())}
        for number, (gateway, host) in enumerate(SITES.items(), 1):
            self.forwards(self.at[gateway])
            self.link((self.underlay, f"to-{gateway}", f"10.200.{number}.1/24",
                       f"fd20:{number}::1/64"),
                      (self.at[gateway], "out", f"10.200.{number}.2/24", f"fd20:{number}::2/64"))
            self.link((self.at[gateway], "in", f"10.10.{number}.1/24", f"fd10:{number}::1/64"),
                      (self.at[host], "eth", f"10.10.{number}.2/24", f"fd10:{number}::2/64"))
            self.route(self.at[gateway], "default", f"10.200.{number}.1")
            self.route(self.at[gateway], "::/0", f"fd20:{number}::1")
            self.route(self.at[host], "default", f"10.10.{number}.1")
            self.route(self.at[host], "::/0", f"fd10:{number}::1")
            self.route(self.underlay, f"10.10.{number}.0/24", f"10.200.{number}.2")
            self.route(self.underlay, f"fd10:{number}::/64", f"fd20:{number}::2")
        ground.sh("ip", "-n", self.underlay, "link", "add", "lan", "type", "bridge")
        for address in ("10.200.9.254/24", "fd20:9::254/64"):
            ground.sh("ip", "-n", self.underlay, "addr", "add", address, "dev", "lan")
        ground.sh("ip", "-n", self.underlay, "link", "set", "lan", "up")
        for number, terminal in enumerate(TERMINALS, 1):
            self.link((self.underlay, f"to-{terminal}"),
                      (self.at[terminal], "out", f"10.200.9.{number}/24", f"fd20:9::{number}/64"))
            ground.sh("ip", "-n", self.underlay, "link", "set", f"to-{terminal}", "master", "lan")
            self.route(self.at[terminal], "default", "10.200.9.254")
            self.route(self.at[terminal], "::/0", "fd20:9::254")
        for number, unit in enumerate(UNITS, 1):
            self.link((self.server, f"ctl-{unit}"), (self.at[unit], "ctl", f"10.201.0.{number}/24"))
            ground.sh("ip", "-n", self.server, "link", "set", f"ctl-{unit}", "master", "ctl")

    @staticmethod
    def outer(unit: str, version: int = 4) -> str:
        if unit in SITES:
            number = list(SITES).index(unit) + 1
            return f"10.200.{number}.2" if version == 4 else f"fd20:{number}::2"
        number = TERMINALS.index(unit) + 1
        return f"10.200.9.{number}" if version == 4 else f"fd20:9::{number}"

    @staticmethod
    def outside(gateway: str) -> str:
        """Where a NAT before this gateway is."""
        return f"10.200.{list(SITES).index(gateway) + 1}.1"

    @staticmethod
    def control(unit: str) -> str:
        return f"10.201.0.{UNITS.index(unit) + 1}"

    @staticmethod
    def address(host: str, version: int = 4) -> str:
        """Of a host behind a gateway."""
        number = list(SITES.values()).index(host) + 1
        return f"10.10.{number}.2" if version == 4 else f"fd10:{number}::2"

    @staticmethod
    def inside(gateway: str) -> list:
        """The addresses of a gateway on its segment, IPv4 and IPv6."""
        number = list(SITES).index(gateway) + 1
        return [f"10.10.{number}.1", f"fd10:{number}::1"]

    def move(self, terminal: str, address: str) -> None:
        """Gives a terminal another address outside."""
        at = self.at[terminal]
        ground.sh("ip", "-n", at, "-4", "addr", "flush", "dev", "out")
        ground.sh("ip", "-n", at, "addr", "add", f"{address}/24", "dev", "out")
        ground.sh("ip", "-n", at, "route", "replace", "default", "via", "10.200.9.254")

    def underlay_mtu(self, mtu: int, *units: str) -> None:
        for unit in units:
            ground.sh("ip", "-n", self.underlay, "link", "set", f"to-{unit}", "mtu", str(mtu))
            ground.sh("ip", "-n", self.at[unit], "link", "set", "out", "mtu", str(mtu))

    def inner_mtu(self, mtu: int, host: str) -> None:
        """Of the segment behind a gateway."""
        gateway = next(name for name, behind in SITES.items() if behind == host)
        ground.sh("ip", "-n", self.at[gateway], "link", "set", "in", "mtu", str(mtu))
        ground.sh("ip", "-n", self.at[host], "link", "set", "eth", "mtu", str(mtu))

    def kernel_drops(self, namespace: str) -> int:
        """Packets that did not fit into the queues of its devices and UDP sockets until now."""
        links = json.loads(ground.sh("ip", "-n", namespace, "-s", "-json", "link", "show"))
        total = sum(link["stats64"][way]["dropped"] for link in links for way in ("rx", "tx"))
        for line in self.run(namespace, "nstat", "-asz").stdout.splitlines():
            if line.split()[:1] in (["UdpRcvbufErrors"], ["UdpSndbufErrors"], ["Udp6RcvbufErrors"],
                                    ["Udp6SndbufErrors"]):
                total += int(line.split()[1])
        return total

    def pinged(self, namespace: str) -> int:
        """Pings that came to it until now."""
        said = self.run(namespace, "nstat", "-asz", "IcmpInEchos", "Icmp6InEchos").stdout
        return sum(int(line.split()[1]) for line in said.splitlines() if "InEchos" in line)

    def lose(self, percent: int) -> None:
        """So many of a hundred packets do not cross the underlay; 0: none is lost."""
        self.clear("loss")
        some = f"numgen random mod 100 < {percent}" if percent < 100 else ""
        if percent:
            self.rules(self.underlay, f"""table inet loss {{
              counter lost {{ }}
              chain f {{
                type filter hook forward priority 0;
                {some} counter name lost drop
              }}
            }}""")

    def translate(self, unit: str, is_open: bool = False) -> None:
        """Between this unit and the rest stands a NAT: its packets get another address. A strict one
        gives each way another port, too, and lets nobody in who was not spoken to; an open one
        keeps port 4500, and leads there whoever speaks to it."""
        outer = self.outer(unit)
        port = ":4500" if is_open else ":20000-60000 random"
        inward = (f"fib daddr type local udp dport 4500 counter dnat to {outer}:4500" if is_open
                  else "")
        self.rules(self.underlay, f"""table ip translation {{
          chain d {{
            type nat hook prerouting priority -100;
            {inward}
          }}
          chain p {{
            type nat hook postrouting priority 100;
            ip saddr {outer} ip protocol udp masquerade to {port}
            ip saddr {outer} masquerade
          }}
          chain f {{
            type filter hook forward priority 10;
            oifname "to-{unit}" ct state new ct status ! dnat counter drop
          }}
        }}""")

    def speak_from(self, gateway: str, port: int, ports: range) -> None:
        """What this gateway sends comes from that port of its address; to it lead all of these."""
        outer = self.outer(gateway)
        self.rules(self.underlay, f"""table ip ports
        delete table ip ports
        table ip ports {{
          chain f {{
            type filter hook forward priority 0;
            ip saddr {outer} udp sport 4500 udp sport set {port}
          }}
          chain d {{
            type filter hook prerouting priority -300;
            ip daddr {outer} udp dport {ports.start}-{ports.stop - 1} udp dport set 4500
          }}
        }}""")

    def forgetful(self, seconds: int) -> None:
        """A NAT in the underlay forgets who has not spoken for so long."""
        for name in ("udp_timeout", "udp_timeout_stream"):
            ground.sh("ip", "netns", "exec", self.underlay, "sysctl", "-qw",
                      f"net.netfilter.nf_conntrack_{name}={seconds}")

    @contextlib.contextmanager
    def without_server(self, unit: str):
        """The server and that unit do not hear each other; the underlay is as it was."""
        segment = ("ip", "-n", self.server, "link", "set", f"ctl-{unit}")
        ground.sh(*segment, "down")
        try:
            yield
        finally:
            ground.sh(*segment, "up")

    @contextlib.contextmanager
    def without_searches_by_udp(self):
        """What begins with the non-ESP marker does not cross the underlay."""
        self.rules(self.underlay, """table inet udpless {
          counter searches { }
          chain f {
            type filter hook forward priority 0;
            udp dport 4500 @th,64,32 0 counter name searches drop
          }
        }""")
        try:
            yield
        finally:
            self.clear("udpless")

    def clear(self, table: str, family: str = "inet") -> None:
        self.run(self.underlay, "nft", "delete", "table", family, table)

    def counted(self, table: str, counter: str) -> int:
        run = self.run(self.underlay, "nft", "list", "counter", "inet", table, counter)
        return int(re.search(r"packets (\d+)", run.stdout).group(1))

    def capture(self, namespace: str) -> "Capture":
        return Capture(self, namespace)


class Capture:
    """Everything that passes the devices of a namespace, while in the `with`."""

    def __init__(self, field: Field, namespace: str):
        self.field, self.namespace = field, namespace
        self.file = field.top / f"capture-{time.monotonic_ns()}.pcapng"

    def __enter__(self):
        self.process = self.field.start(
            self.namespace, "dumpcap", "-q", "-n", "-B", "64", "-i", "any", "-w", self.file,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # It writes the head of the file when it listens.
        if not ground.wait(lambda: self.file.exists() and self.file.stat().st_size, 10):
            raise SystemExit("dumpcap does not start")
        time.sleep(0.3)
        return self

    def __exit__(self, *_):
        time.sleep(0.7)
        self.field.stop(self.process)

    def count(self, pattern: bytes) -> int:
        return self.file.read_bytes().count(pattern)

    def size(self) -> int:
        return self.file.stat().st_size
