"""Steps of e2e/packets about what comes in as it is, and about what the system refuses."""

import contextlib
import subprocess

import applications as use
import ground
import packet_field

TABLE = ("table", "inet", "keyfall")


def come(it, unit: str) -> int:
    """Pings of the underlay that a unit takes at its own protected addresses, whether or not its answers
    find a way; 4 where it takes all."""
    own = (it.field.inside(unit) if unit in packet_field.SITES else
           [it.inner(unit), it.inner(unit, 6)])
    before = it.field.pinged(it.at(unit))
    for address in own:
        use.ping(it.field, it.field.underlay, address, count=2)
    return it.field.pinged(it.at(unit)) - before


def stays_closed(it) -> str:
    """A gateway that ends, is killed, or boots without a server takes nothing unprotected meanwhile"""
    it.reach("ha", "hb")
    g2, taken = it.at("g2"), {}
    it.units["g2"].terminate()
    it.units["g2"].wait()
    taken["after its end"] = come(it, "g2")
    it.run_unit("g2")
    it.wait("packets pass g2 again", lambda: it.passes("g2"))
    it.units["g2"].kill()
    it.units["g2"].wait()
    taken["after a kill"] = come(it, "g2")
    # As after a boot, and so that no packets pass: what closes is made of what was stored.
    it.field.run(g2, "nft", "delete", *TABLE)
    if (open_to := come(it, "g2")) != 4:
        raise use.Failed(f"without the table {open_to} of 4 come, which proves nothing")
    with away(it):
        it.run_unit("g2", "--tun", "a-name-that-is-too-long")
        it.wait("g2 says that packets do not pass",
                lambda: (it.status("g2").get("packets") or {}).get("state") == "failed")
        taken["after a boot"] = come(it, "g2")
        it.restart("g2")
        taken["while it runs"] = come(it, "g2")
    if any(taken.values()):
        raise use.Failed(f"in clear come to g2: {taken}")
    it.reach("ha", "hb", seconds=30)
    return ""


def later(it) -> str:
    """An address that the outside gets later, inside a protected prefix, opens at once, and closes when it goes"""
    g2, address = it.at("g2"), "10.10.2.200"

    def put(verb: str, device: str) -> None:
        ground.sh("ip", "-n", g2, "addr", verb, f"{address}/32", "dev", device)

    def check(is_open: bool) -> None:
        table = ("nft", "list", *TABLE)
        ground.wait(lambda: (address in it.field.run(g2, *table).stdout) == is_open, 5)
        before = it.field.pinged(g2)
        use.ping(it.field, it.field.underlay, address, count=1)
        if it.field.pinged(g2) - before != is_open:
            raise use.Failed(f"{address}, open {is_open}: {it.field.run(g2, *table).stdout}")

    put("add", "out")
    check(True)
    # The machine has it still, inside.
    put("add", "in")
    put("del", "out")
    check(False)
    put("del", "in")
    it.reach("ha", "hb")
    return ""


def refused(it) -> str:
    """Multicast and a table that the system refuses stop nothing else: told, and tried again"""
    limit, group, h1 = "net.ipv4.igmp_max_memberships", "239.7.9.9", it.at("h1")

    def told() -> list:
        return (it.status("h1").get("packets") or {}).get("refused", [])

    it.reach("h1", "hb")
    it.field.run(h1, "sysctl", "-qw", f"{limit}=0")
    try:
        with owned_table(it, h1):
            it.group("oscar", ("h1", "h2"), f"{group}/32")
            wanted = (group, "unprotected packets come in")
            if not ground.wait(lambda: all(any(words in sentence for sentence in told())
                                           for words in wanted), 20):
                raise use.Failed(f"h1 does not tell of {wanted}: {told()}")
            if group not in ground.sh("ip", "-n", h1, "route", "show", "table", "4500"):
                raise use.Failed(f"there is no route to {group}")
            for source, to in (("h1", "hb"), ("hb", "h1")):
                it.reach(source, to)
        # Of the two the table can be made again.
        if not ground.wait(lambda: group in it.field.run(h1, "nft", "list", *TABLE).stdout, 70, 1):
            raise use.Failed(f"h1 takes unprotected packets to {group}: {told()}")
    finally:
        it.field.run(h1, "sysctl", "-qw", f"{limit}=20")
    if not ground.wait(lambda: it.passes("h1") and not told(), 70, 1):
        raise use.Failed(f"h1 does not try again: {told()}")
    return ""


@contextlib.contextmanager
def owned_table(it, namespace: str):
    """Somebody else's table has the name, whom nobody may take it from meanwhile."""
    it.field.run(namespace, "nft", "delete", *TABLE)
    owner = subprocess.Popen(it.field.command(namespace, "nft", "-i"), stdin=subprocess.PIPE,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    try:
        owner.stdin.write(f"add {' '.join(TABLE)} {{ flags owner; }}\n")
        owner.stdin.flush()
        it.wait("somebody else has the table", lambda: "flags owner" in it.field.run(
            namespace, "nft", "list", "ruleset").stdout)
        yield
    finally:
        owner.stdin.close()
        owner.wait()


@contextlib.contextmanager
def away(it):
    """The server is away meanwhile."""
    server = it.running[0]
    server.terminate()
    server.wait()
    try:
        yield
    finally:
        it.running[0] = it.start("server", "run", "fleet")
        it.running.pop()
        it.wait("the server answers again",
                lambda: it.try_ask("admin", "status", "--dir", "fleet"))
