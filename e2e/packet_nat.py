"""A step of e2e/packets about key search with NATs in the underlay: who finds whom, and what helps."""

import json
import time

import applications as use
from packet_field import SITES

PAIR = ("g1", "g2")
# What `terminal ping` says: echoes by a way that was found so; nobody answered the search; what is
# sent there brings nothing back (KF-3128).
SEARCH, RECORD, UNANSWERED, NO_ECHO = "search", "record", "KF-2104", "no echo"
# A NAT forgets after so many seconds, so that no way of one round is open in the next.
FORGETS = 3

# Who stands behind a strict NAT, who behind an open one, whose records name an endpoint, how they
# search, and who asks whom in turn with what comes of it.
ROUNDS = (
    # The answer to g1 comes from where g1 did not speak to; no probe comes in to it.
    (("g1",), (), (), "udp", (("g1", UNANSWERED), ("g2", UNANSWERED))),
    # By ICMP the answer comes in, and then no packet does.
    (("g1",), (), (), "icmp", (("g2", UNANSWERED), ("g1", NO_ECHO))),
    # An open NAT lets the answer in; a search for who is behind it goes to an address that it hides.
    ((), ("g1",), (), "udp", (("g2", UNANSWERED), ("g1", SEARCH))),
    ((), ("g1",), (), "udp", (("g1", SEARCH), ("g2", RECORD))),
    # Who says where it is is spoken to there, and answers by the way that is open.
    (("g1",), (), ("g2",), "udp", (("g2", UNANSWERED), ("g1", RECORD))),
    (("g1",), (), ("g2",), "udp",
     (("g1", RECORD), ("g2", RECORD), ("g2 later", NO_ECHO))),
    (PAIR, (), (), "udp", (("g1", UNANSWERED), ("g2", UNANSWERED))),
    # What both say of themselves helps nobody, where neither NAT lets strangers in.
    (PAIR, (), PAIR, "udp", (("g1", NO_ECHO), ("g2", NO_ECHO))),
    (("g1",), ("g2",), (), "udp", (("g1", UNANSWERED), ("g2", UNANSWERED))),
    (("g1",), ("g2",), ("g2",), "udp", (("g1", RECORD), ("g2", RECORD))),
)


def who_finds_whom(it) -> str:
    """Key search behind strict and open NATs, of one or both: each case ends as OPERATIONS says"""
    wrong = []
    it.field.forgetful(FORGETS)
    try:
        for strict, open_to, named, search, asks in ROUNDS:
            begin(it, strict, open_to, named, search)
            got = tuple((asker, told(it, asker)) for asker, _ in asks)
            if got != asks:
                wrong.append(f"strict {strict}, open {open_to}, endpoints {named}, by {search}: {got}")
            it.field.clear("translation", "ip")
    finally:
        it.field.clear("translation", "ip")
        begin(it, (), (), (), "udp")
    if wrong:
        raise use.Failed("; ".join(wrong))
    for source, to in (("ha", "hb"), ("hb", "ha")):
        it.reach(source, to, seconds=30)
    return f"{len(ROUNDS)} cases"


def begin(it, strict: tuple, open_to: tuple, named: tuple, search: str) -> None:
    """Both gateways begin anew and know of no place of each other."""
    for unit in PAIR:
        it.units[unit].terminate()
        it.units[unit].wait()
    ended = time.monotonic()
    for unit in (*strict, *open_to):
        it.field.translate(unit, unit in open_to)
    for unit in PAIR:
        # Behind a NAT: the NAT's own address.
        at = it.field.outside(unit) if unit in (*strict, *open_to) else it.field.outer(unit)
        words = ("--endpoint", f"{at}:4500") if unit in named else ("--no-endpoint",)
        it.admin("terminal", "set", unit, *words)
        it.run_unit(unit, "--search", search)
    for unit in PAIR:
        it.wait(f"packets pass {unit}, and it has heard its record",
                lambda: it.passes(unit) and it.status(unit)["time"])
    # What was open is forgotten: nothing was sent since by the port of packets. And each hears where the
    # other is.
    ready = ended + (FORGETS + 4 if named else FORGETS + 1)
    time.sleep(max(0, ready - time.monotonic()))


def told(it, asker: str) -> str:
    """How the other one was found where echoes came back, else why not; later: when the NAT forgot."""
    asker, *later = asker.split()
    if later:
        time.sleep(2 * FORGETS)
    other = PAIR[asker == "g1"]
    run = it.run("terminal", "ping", asker, it.inner(SITES[other]), "-c", "3", "-W", "1")
    said = json.loads(run.stdout)
    if run.returncode == 0:
        return said["way"]["found"]
    if said.get("received") == 0 and said["sealed"]:
        return NO_ECHO
    return UNANSWERED if UNANSWERED in said.get("sentence", "") else f"something else: {said}"
