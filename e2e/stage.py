"""What the end-to-end scripts share: processes of Keyfall, disks of their own, a radio that can be
jammed, recordings, and somebody who speaks. No test stands here."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "interop" / "python"))
sys.dont_write_bytecode = True


def needs(name: str, root: str, *tools: str) -> None:
    """Ends with 77 where this machine cannot do it; `root` says what root is needed for."""
    if os.geteuid() != 0:
        skip(name, f"{root} needs root")
    for tool in tools:
        if shutil.which(tool) is None:
            skip(name, f"{tool} is not here")


def needs_packages(name: str) -> None:
    """Goes on in the Python that has the packages of interop/python."""
    try:
        import reader  # noqa: F401
    except ImportError:
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target"))
        venv = pathlib.Path(os.environ.get("PYTHON", target / "venv/bin/python3"))
        if venv.exists() and "KEYFALL_STAGE" not in os.environ:
            os.execve(venv, [str(venv), *sys.argv], {**os.environ, "KEYFALL_STAGE": "1"})
        skip(name, "the Python packages of interop/python are not here (scripts/python-env)")


def skip(name: str, why: str) -> None:
    print(f"{name}: {why}")
    raise SystemExit(77)


class Stage:
    """Processes of one story, in one directory; all of it is gone at the end."""

    # Pairs of ports that the kernel gives to nobody by itself, and no other script takes.
    FRAMES = 10_000 + os.getpid() % 80 * 200
    MEDIA, PLAIN, HEARD = FRAMES + 50, FRAMES + 100, FRAMES + 150

    def __init__(self, name: str):
        self.name = name
        given = sys.argv[1] if len(sys.argv) > 1 else TOP / "target/release/keyfall"
        self.keyfall = os.path.abspath(given)
        self.running, self.disks = [], []
        self.air = "239.194.{}.{}".format(os.getpid() >> 8 & 255, os.getpid() & 255)

    def __enter__(self):
        # Asked to end, it still cleans up.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.temporary = tempfile.TemporaryDirectory(prefix=f"keyfall-{self.name}-")
        self.top = pathlib.Path(self.temporary.name)
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.terminate()
            process.wait()
        for disk in self.disks:
            disk.unmount()
        self.temporary.cleanup()

    # -- Keyfall

    def found(self, *options: str) -> None:
        """A server that runs in `fleet`."""
        self.ask("server", "init", "fleet", *options, "--carrier", self.address(self.FRAMES))
        self.start("server", "run", "fleet")
        self.wait("the server answers", lambda: self.try_ask("admin", "status", "--dir", "fleet"))

    def add(self, *names: str, options: tuple = ()) -> dict:
        """Enrols; the codes of the packages NAME.enrol by name."""
        added = self.admin("terminal", "add", *names, *options)
        return {entry["name"]: entry["code"] for entry in added["terminals"]}

    def admin(self, *words: str) -> dict:
        return self.ask("admin", *words, "--dir", "fleet")

    def erase_order(self, verb: str, name: str, *options: str) -> dict:
        options = (*options, "--yes") if verb in ("delete-keys", "initialize") else options
        return self.admin(verb, name, "--erase-key", "fleet/erase.key", *options)

    def ask(self, *words) -> dict:
        run = self.run(*words)
        if run.returncode != 0:
            said = run.stdout.decode() or run.stderr.decode()
            self.fail(f"`keyfall {' '.join(map(str, words))}`: {said.strip()}")
        return json.loads(run.stdout)

    def try_ask(self, *words):
        run = self.run(*words)
        return json.loads(run.stdout) if run.returncode == 0 else None

    def run(self, *words) -> subprocess.CompletedProcess:
        return subprocess.run(self.command("--json", *words), cwd=self.top,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)

    def command(self, *words) -> list:
        return [self.keyfall, *map(str, words)]

    def start(self, *words) -> subprocess.Popen:
        log = open(self.top / f"{len(self.running)}.log", "w", encoding="utf-8")
        process = subprocess.Popen(self.command(*words), cwd=self.top, stdout=log, stderr=log)
        self.running.append(process)
        return process

    def status(self, where) -> dict:
        return self.try_ask("terminal", "status", where) or {
            "state": None, "groups": [], "time": None, "relays": [], "fleet_generation": -1}

    def held(self, where, group: int = 1) -> dict:
        groups = self.status(where)["groups"]
        return next((held for held in groups if held["group"] == group), {})

    # -- Media

    def send(self, where, group: int, place: int = 0) -> None:
        """A relay that takes RTP on this place's own port and sends to its own port on the air."""
        self.start("media", "send", "--dir", where, "--group", group, "--rtp",
                   f"127.0.0.1:{self.PLAIN + 2 * place}", "--to",
                   f"{self.air}:{self.MEDIA + 2 * place}", "--if", "127.0.0.1", "--wait")

    def receive(self, where, group: int, place: int = 0, ear: int = 0) -> None:
        self.start("media", "receive", "--dir", where, "--group", group, "--from",
                   f"{self.air}:{self.MEDIA + 2 * place}", "--if", "127.0.0.1", "--rtp",
                   f"127.0.0.1:{self.HEARD + 2 * ear}", "--wait")

    def address(self, port: int) -> str:
        return f"udp://{self.air}:{port}?if=127.0.0.1&ttl=0"

    # -- The rest of the world

    def disk(self, name: str, size: str = "8M"):
        """A file system in an image file; 77 where none can be mounted."""
        disk = Disk(self.top, name, size)
        if not disk.mount():
            skip(self.name, "no loop device can be mounted here")
        self.disks.append(disk)
        return disk

    def wait(self, what: str, done, seconds: int = 30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer = done()
            if answer:
                return answer
            time.sleep(0.1)
        self.fail(f"{what}: not within {seconds} s")

    def fail(self, why: str) -> None:
        raise SystemExit(f"{self.name}: {why}")


class Disk:
    """An ext4 file system of its own, whose raw octets can be read."""

    def __init__(self, top: pathlib.Path, name: str, size: str):
        self.file, self.place = top / f"{name}.img", top / f"{name}.disk"
        subprocess.run(["truncate", "-s", size, self.file], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.file], check=True)
        self.place.mkdir()

    def mount(self) -> bool:
        done = subprocess.run(["mount", "-o", "loop", self.file, self.place],
                              stderr=subprocess.DEVNULL)
        return done.returncode == 0

    def unmount(self) -> None:
        subprocess.run(["umount", self.place], check=False)

    def raw(self) -> bytes:
        subprocess.run(["sync", "-f", self.place], check=True)
        return self.file.read_bytes()


class Recording:
    """Datagrams of a multicast group, with the time at which each was heard."""

    def __init__(self, address: str, port: int):
        self.heard = []
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        ear.bind((address, port))
        ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                       socket.inet_aton(address) + socket.inet_aton("127.0.0.1"))
        threading.Thread(target=self.collect, args=(ear,), daemon=True).start()

    def collect(self, ear: socket.socket) -> None:
        while True:
            octets = ear.recv(2048)
            self.heard.append((time.time(), octets))
            self.pass_on(octets)

    def pass_on(self, octets: bytes) -> None:
        """Nothing; see `Radio`."""


class Radio(Recording):
    """Hears the server's carrier and sends each frame to those who are not jammed."""

    def __init__(self, stage: Stage):
        self.stage, self.ports, self.jammed = stage, {}, set()
        self.out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF,
                            socket.inet_aton("127.0.0.1"))
        self.out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
        super().__init__(stage.air, stage.FRAMES)

    def carrier_of(self, name: str) -> str:
        port = self.ports.setdefault(name, Stage.FRAMES + 2 + 2 * len(self.ports))
        return self.stage.address(port)

    def pass_on(self, octets: bytes) -> None:
        for name, port in list(self.ports.items()):
            if name not in self.jammed:
                self.out.sendto(octets, (self.stage.air, port))


class Speaker:
    """Sends RTP with random payloads to relays, until told to stop."""

    def __init__(self, places: list, pause: float):
        self.speaking = True
        self.thread = threading.Thread(target=self.speak, args=(places, pause), daemon=True)
        self.thread.start()

    def speak(self, places: list, pause: float) -> None:
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        count = 0
        while self.speaking:
            for place in places:
                head = struct.pack(">BBHII", 0x80, 97, count % 65_536, count * 160,
                                   0x4B460001 + place)
                out.sendto(head + os.urandom(80), ("127.0.0.1", Stage.PLAIN + 2 * place))
            count += 1
            time.sleep(pause)

    def stop(self) -> None:
        self.speaking = False
        self.thread.join()


class Watch:
    """Everything that files ever held, as far as somebody who looks all the time can see it."""

    def __init__(self, *paths: pathlib.Path):
        self.paths, self.seen, self.watching = paths, set(), True
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self) -> None:
        while self.watching:
            for path in self.paths:
                try:
                    self.seen.add(path.read_bytes())
                except OSError:
                    continue
            time.sleep(0.005)

    def stop(self) -> None:
        self.watching = False
        self.thread.join()


def read_memory(pid: int) -> list:
    """Every readable region of a process, but for files that are mapped and not written."""
    regions = []
    maps = pathlib.Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps.splitlines():
            begin, end, rights, path = re.match(
                r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)", line).groups()
            public = path.startswith("/") and "w" not in rights
            if "r" in rights and not public and not path.startswith("[v"):
                try:
                    memory.seek(int(begin, 16))
                    regions.append(memory.read(int(end, 16) - int(begin, 16)))
                except OSError:
                    continue
    return regions


def halves(octets: bytes) -> list:
    middle = len(octets) // 2
    return [octets, octets[:middle], octets[middle:]]
