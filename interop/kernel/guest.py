#!/usr/bin/env python3
"""A Linux guest on a wire that ends in this program, with SAs that Keyfall printed.

Usage: guest.py INTEROP_ESP KERNEL WORK      the example of keyfall-plane, an unpacked kernel package, a scratch folder
Each Ethernet frame of the guest is one UDP datagram on loopback, so that neither root nor a network device is needed.
"""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time

from scapy.config import conf
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from peer import Peer

conf.verb = 0
US, GUEST, GROUP = "192.0.2.1", "192.0.2.2", "239.255.70.78"
OUR_MAC, GUEST_MAC, GROUP_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02", "01:00:5e:7f:46:4e"
OURS_INSIDE, GUEST_INSIDE = "10.1.0.1", "10.1.0.2"
PINNED_SPI = 0x1001
MODULES = ("virtio_pci virtio_net hmac sha512_generic jitterentropy_rng drbg ctr gcm ghash_generic seqiv chacha_generic "
           "poly1305_generic chacha20poly1305 xfrm_user esp4")
BOOT_SECONDS, ANSWER_SECONDS = 120, 10


def fail(what: str):
    raise SystemExit(f"interop kernel: FAILED, {what}")


class Session:
    """One of our senders: to the guest's address or to the group, under one suite."""

    def __init__(self, program: str, suite: int, sender: int, target: str):
        self.ours, self.suite, self.target = Peer(program), suite, target
        self.ours.keyed("session", suite, 12, sender, f"b0b1b2b3{sender:02x}")
        self.state = self.ours.ask("ip-xfrm", US, target)
        self.name = f"suite {suite} to {target}"

    def ping(self, number: int) -> bytes:
        inner_target = GROUP if self.target == GROUP else GUEST_INSIDE
        inner = IP(src=OURS_INSIDE, dst=inner_target) / ICMP(id=self.suite, seq=number) / Raw(b"keyfall")
        packet = self.ours.seal(bytes(inner))
        mac = GROUP_MAC if self.target == GROUP else GUEST_MAC
        outer = IP(src=US, dst=self.target) / UDP(sport=4500, dport=4500, chksum=0) / Raw(packet)
        return bytes(Ether(src=OUR_MAC, dst=mac) / outer)


class Guest:
    def __init__(self, kernel: pathlib.Path, image: pathlib.Path):
        self.wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.wire.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = probe.getsockname()
        ours = self.wire.getsockname()[1]
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "256", "-nographic", "-no-reboot", "-nodefaults",
             "-serial", "stdio", "-kernel", str(kernel / "boot" / "vmlinuz"), "-initrd", str(image),
             "-append", "console=ttyS0 quiet panic=-1 random.trust_cpu=on",
             "-netdev", f"socket,id=wire,udp=127.0.0.1:{ours},localaddr=127.0.0.1:{self.address[1]}",
             "-device", f"virtio-net-pci,netdev=wire,mac={GUEST_MAC},romfile="],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        self.lines = []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.lines.append(line.strip())

    def wait_for(self, word: str, seconds: float):
        end = time.monotonic() + seconds
        while not any(word in line for line in self.lines):
            if self.process.poll() is not None or time.monotonic() > end:
                fail(f"the guest did not say {word!r}; its last lines: {self.lines[-12:]}")
            time.sleep(0.1)

    def counters(self) -> dict:
        """Of /proc/net/xfrm_stat, as the guest prints them once a second, from a printing that is whole and new."""
        seen = len(self.lines)
        end = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < end:
            lines = self.lines[seen:]
            if lines.count("counters end") >= 2:
                last = len(lines) - lines[::-1].index("counters end")
                block = lines[:last - 1]
                start = len(block) - block[::-1].index("counters end")
                return {name: int(value) for name, value in (line.split() for line in block[start:] if line.startswith("Xfrm"))}
            time.sleep(0.1)
        fail("the guest's counters did not come")

    def send(self, frame: bytes):
        self.wire.sendto(frame, self.address)

    def answer(self, seconds: float):
        """The ESP packet of the next datagram to our port, or None."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.wire.settimeout(left)
            try:
                frame = Ether(self.wire.recv(65_536))
            except TimeoutError:
                break
            if UDP in frame and frame[IP].dst == US and frame[UDP].dport == 4500:
                return bytes(frame[UDP].payload)
        return None

    def end(self):
        self.process.kill()
        self.process.wait()


def image(work: pathlib.Path, kernel: pathlib.Path, states: list) -> pathlib.Path:
    root = work / "root"
    for folder in ("bin", "dev", "proc", "sys", "etc"):
        (root / folder).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), root / "bin" / "busybox")
    shutil.copy(work / "listen", root / "bin" / "listen")
    with_libraries(root, shutil.which("ip"))
    version = next((kernel / "lib" / "modules").iterdir()).name
    needed = modules(kernel, version)
    for path in needed:
        place = root / "lib" / "modules" / version / path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(kernel / "lib" / "modules" / version / path, place)
    for name in ("modules.order", "modules.builtin"):
        shutil.copy(kernel / "lib" / "modules" / version / name, root / "lib" / "modules" / version / name)
    subprocess.run(["depmod", "-b", str(root), version], check=True, capture_output=True)
    (root / "init").write_text(init(states))
    (root / "init").chmod(0o755)
    made = work / "guest.cpio"
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    with open(made, "wb") as out:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names.encode(), stdout=out, check=True)
    return made


def modules(kernel: pathlib.Path, version: str) -> list:
    """The wanted modules and what they stand on, as far as they are not built in."""
    subprocess.run(["depmod", "-b", str(kernel), version], check=True, capture_output=True)
    folder = kernel / "lib" / "modules" / version
    stands_on = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, rest = line.split(":")
        stands_on[pathlib.PurePath(path).name.split(".")[0].replace("-", "_")] = [path, *rest.split()]
    return sorted({path for name in MODULES.split() for path in stands_on.get(name, [])})


def with_libraries(root: pathlib.Path, program: str):
    shutil.copy(program, root / "bin" / "ip")
    for line in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.splitlines():
        path = next((word for word in line.split() if word.startswith("/")), None)
        if path:
            place = root / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)


def init(states: list) -> str:
    # By its path, or the shell takes its own.
    ip = "/bin/ip"
    policy = f"{ip} xfrm policy add"
    lines = [
        "#!/bin/busybox sh",
        "/bin/busybox --install -s /bin",
        "mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev",
        f"for module in {MODULES}; do modprobe $module 2>/dev/null; done",
        "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 0 > /proc/sys/net/ipv4/conf/default/rp_filter",
        "echo 0 > /proc/sys/net/ipv4/icmp_echo_ignore_broadcasts",
        f"{ip} link set lo up; {ip} link set eth0 up",
        "echo 0 > /proc/sys/net/ipv4/conf/eth0/rp_filter",
        f"{ip} address add {GUEST}/24 dev eth0; {ip} address add {GUEST_INSIDE}/32 dev eth0",
        f"{ip} neighbour add {US} lladdr {OUR_MAC} dev eth0 nud permanent",
        f"{ip} route add {OURS_INSIDE} via {US} dev eth0 src {GUEST_INSIDE}",
        *(f"{ip} {state} || echo 'guest: an SA was refused'" for state in states),
        f"{policy} src {OURS_INSIDE} dst {GUEST_INSIDE} dir in tmpl src {US} dst {GUEST} proto esp mode tunnel",
        f"{policy} src {OURS_INSIDE} dst {GROUP} dir in tmpl src {US} dst {GROUP} proto esp mode tunnel",
        f"{policy} src {GUEST_INSIDE} dst {OURS_INSIDE} dir out tmpl src {GUEST} dst {US} proto esp "
        f"spi {PINNED_SPI} mode tunnel",
        f"/bin/listen {GROUP} &",
        "sleep 1; echo guest: ready",
        "while true; do cat /proc/net/xfrm_stat; echo counters end; sleep 1; done",
    ]
    return "\n".join(lines) + "\n"


def talk(guest: Guest, sessions: list, stock: Peer) -> tuple:
    """Pings under each session; each answer comes on the pinned SA. How many, and all that the guest sent."""
    answered, heard = 0, []
    for session in sessions:
        for number in range(1, 6):
            frame = session.ping(number)
            guest.send(frame)
            packet = guest.answer(ANSWER_SECONDS)
            if packet is None:
                fail(f"{session.name}: no answer to ping {number}; {guest.counters()}")
            sequence, inner = stock.open(packet)
            if sequence is None:
                fail(f"{session.name}: we refuse the guest's answer: {inner}")
            reply = IP(inner)
            if (reply.src, reply.dst, reply[ICMP].type, reply[ICMP].seq) != (GUEST_INSIDE, OURS_INSIDE, 0, number):
                fail(f"{session.name}: another answer: {reply.summary()}")
            answered += 1
            heard.append(packet)
            if number == 3:
                replayed = frame
        before = guest.counters().get("XfrmInStateSeqError", 0)
        guest.send(replayed)
        if guest.answer(2) is not None:
            fail(f"{session.name}: the guest answers a replay")
        if guest.counters().get("XfrmInStateSeqError", 0) != before + 1:
            fail(f"{session.name}: the guest does not count the replay: {guest.counters()}")
    return answered, heard


def main() -> int:
    program, kernel, work = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    sessions = [Session(program, suite, sender, target)
                for sender, (suite, target) in enumerate(((1, GUEST), (1, GROUP), (2, GUEST), (2, GROUP), (3, GUEST)), 2)]
    stock = Peer(program)
    stock.keyed("pinned", 1, PINNED_SPI, "73" * 16)
    states = [*(session.state for session in sessions), stock.ask("ip-xfrm", GUEST, US)]
    started = time.monotonic()
    guest = Guest(kernel, image(work, kernel, states))
    try:
        guest.wait_for("guest: ready", BOOT_SECONDS)
        if any("refused" in line for line in guest.lines):
            fail(f"Linux refuses an SA that we printed: {guest.lines[-12:]}")
        booted = time.monotonic() - started
        answered, heard = talk(guest, sessions, stock)
    finally:
        guest.end()
    if any(stock.open(packet)[0] is not None for packet in heard):
        fail("we open a replay of the guest's")
    print(f"interop kernel: ok, Linux (up after {booted:.0f} s) opened {answered} of ours in {len(sessions)} sessions to its "
          f"address and to a group, answered each on a pinned SA, and refused {len(sessions)} replays; we refused "
          f"{len(heard)} of its")
    return 0


if __name__ == "__main__":
    sys.exit(main())
