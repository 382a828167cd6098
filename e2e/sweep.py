"""Runs a program once for each of its system calls on the files of one directory, and kills it
there or has the call fail. Points are independent of each other, so some run at a time."""

import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
CALLS = ["openat", "mkdir", "fchmod", "write", "pwrite64", "pwritev", "fsync", "fdatasync",
         "ftruncate", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir"]
FAULTS = ["signal=KILL", "error=ENOSPC", "error=EIO"]


@dataclass(frozen=True)
class Point:
    """What was done, and what came of it."""
    fault: str
    call: str
    where: str
    # Everything that the program had to itself; its directory is `dir` in there.
    place: pathlib.Path
    status: int
    answer: str
    said: str

    @property
    def dir(self) -> pathlib.Path:
        return self.place / "dir"

    @property
    def done(self) -> bool:
        return self.status == 0

    def must(self, holds, what: str) -> None:
        if not holds:
            raise SystemExit(f"{self.where}: {what} ({self.said.strip()})")

    def must_tell(self, *or_says: str) -> None:
        """A full disk is named as one, or as a library names it."""
        if self.fault == "error=ENOSPC" and not self.done:
            names = ("No space left on device", *or_says)
            self.must(any(name in self.said for name in names), "the full disk has no name")


class Sweep:
    """A program and a place for the directories of its runs."""

    def __init__(self, name: str, package: str, example: str):
        if shutil.which("strace") is None:
            print(f"{name}: strace is not here")
            raise SystemExit(77)
        self.name = name
        subprocess.run(["cargo", "build", "--quiet", "-p", package, "--example", example], cwd=ROOT,
                       check=True)
        metadata = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps"],
                                  cwd=ROOT, check=True, stdout=subprocess.PIPE)
        target = json.loads(metadata.stdout)["target_directory"]
        self.program = f"{target}/debug/examples/{example}"
        self.points = 0
        self.counting = threading.Lock()
        self.counts = {}

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix=f"keyfall-{self.name}-")
        self.work = pathlib.Path(self.temporary.name)
        return self

    def __exit__(self, *_):
        self.temporary.cleanup()

    def count(self, what: str, by: int = 1) -> None:
        with self.counting:
            self.counts[what] = self.counts.get(what, 0) + by

    def run(self, *words) -> subprocess.CompletedProcess:
        return subprocess.run([self.program, *map(str, words)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)

    def must_run(self, *words) -> str:
        run = self.run(*words)
        if run.returncode != 0:
            raise SystemExit(f"{self.name}: {words}: {run.stderr}")
        return run.stdout.strip()

    def each(self, verb: str, before, judge, *arguments, faults=FAULTS) -> None:
        """`judge` each point of `VERB DIR ARGUMENTS`, on a copy of `before` where there is one."""
        calls = self.calls_of(verb, before, arguments)
        tasks = [(fault, call, at) for fault in faults for call, at in calls]
        with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            futures = [pool.submit(self.point, verb, before, judge, arguments, *task)
                       for task in tasks]
            for future in concurrent.futures.as_completed(futures):
                try:
                    future.result()
                except BaseException:
                    for other in futures:
                        other.cancel()
                    raise

    def calls_of(self, verb: str, before, arguments: tuple) -> list:
        """Kind and number of each call that has to do with the directory, or answers."""
        with self.place_like(before) as place:
            trace = self.work / "trace"
            run = subprocess.run(["strace", "-f", "-y", "-qq", "-o", trace, "-e",
                                  f"trace={','.join(CALLS)}", self.program, verb,
                                  f"{place}/dir", *self.filled(arguments, place)],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if run.returncode not in (0, 1):
                raise SystemExit(f"{self.name}: {verb}: {run.stderr}")
            counts, found = {}, []
            for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
                call = re.match(r"\d+ +(\w+)\(", line)
                if call is None:
                    continue
                counts[call[1]] = counts.get(call[1], 0) + 1
                if str(place) in line or "write(1<" in line:
                    found.append((call[1], counts[call[1]]))
        return found

    def point(self, verb: str, before, judge, arguments: tuple, fault: str, call: str,
              at: int) -> None:
        with self.place_like(before) as place:
            trace = place / "trace"
            run = subprocess.run(["strace", "-f", "-qq", "-o", trace, "-e", f"trace={call}", "-e",
                                  f"inject={call}:{fault}:when={at}", self.program, verb,
                                  f"{place}/dir", *self.filled(arguments, place)],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            happened = trace.read_text(encoding="utf-8", errors="replace")
            where = f"{self.name}: {verb} with {fault} at {call} {at}"
            if "INJECTED" not in happened and "killed by" not in happened:
                return
            with self.counting:
                self.points += 1
            came = (run.returncode, run.stdout, run.stderr)
            judge(Point(fault, call, where, place, *came), *arguments)

    def place_like(self, before):
        return Place(self.work, before)

    @staticmethod
    def filled(arguments: tuple, place: pathlib.Path) -> list:
        """PLACE stands for the place of the run."""
        return [str(argument).replace("PLACE", str(place)) for argument in arguments]


class Place:
    def __init__(self, work: pathlib.Path, before):
        self.work, self.before = work, before

    def __enter__(self) -> pathlib.Path:
        self.place = pathlib.Path(tempfile.mkdtemp(dir=self.work))
        if self.before is not None:
            for child in self.before.iterdir():
                shutil.copytree(child, self.place / child.name, symlinks=True)
        return self.place

    def __exit__(self, *_):
        shutil.rmtree(self.place)
