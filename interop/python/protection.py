"""Protection records (PROTOCOL 16), by python-cwt and by hand."""

import ipaddress
from dataclasses import dataclass

import cbor2
from cwt import COSE, COSEKey
from cwt.exceptions import CWTError

from reader import (demand, det, group_number, items, octets, read_signature, seconds, strict, tagged,
                    terminal_number, uint)

AAD = b"KF1/rec"
RECORD_MAX = 700


@dataclass(frozen=True)
class Record:
    signer: bytes
    terminal: int
    version: int
    issued_at: int
    not_after: int
    # ip_network each.
    prefixes: list
    # (address, port) each.
    endpoints: list
    # (group, priority, mtu or None, suite, networks) each.
    groups: list

    def payload(self) -> list:
        groups = [[group, priority, mtu, suite, [prefix_item(it) for it in networks]]
                  for group, priority, mtu, suite, networks in self.groups]
        return [self.terminal, self.version, self.issued_at, self.not_after,
                [prefix_item(it) for it in self.prefixes],
                [[address.packed, port] for address, port in self.endpoints], groups]

    def shown(self) -> dict:
        groups = [{"group": group, "priority": priority, "mtu": mtu, "suite": suite,
                   "networks": [str(it) for it in networks]}
                  for group, priority, mtu, suite, networks in self.groups]
        return {"terminal": self.terminal, "version": self.version, "issued_at": self.issued_at,
                "not_after": self.not_after, "prefixes": [str(it) for it in self.prefixes],
                "endpoints": [endpoint_text(*it) for it in self.endpoints], "groups": groups}


def read_record(frame: bytes) -> Record:
    """Decodes; nothing is verified yet."""
    demand(len(frame) <= RECORD_MAX, "longer than a record")
    protected, unprotected, payload, signature = tagged(strict(frame), 18, 4, "COSE_Sign1")
    signer = read_signature(protected, unprotected, signature)
    demand(type(payload) is bytes, "payload")
    fields = items(strict(payload), 7, 7, "record")
    endpoints = [read_endpoint(it) for it in items(fields[5], 0, 4, "endpoints")]
    demand(len(set(endpoints)) == len(endpoints), "endpoints")
    groups = [read_group(it) for it in items(fields[6], 0, 16, "groups")]
    demand(all(one[0] < two[0] for one, two in zip(groups, groups[1:])), "groups that rise")
    return Record(
        signer=signer,
        terminal=terminal_number(fields[0]),
        version=uint(fields[1], 2**32 - 1, "version"),
        issued_at=seconds(fields[2]),
        not_after=seconds(fields[3]),
        prefixes=read_prefixes(fields[4], "prefixes"),
        endpoints=endpoints,
        groups=groups,
    )


def read_group(value) -> tuple:
    group, priority, mtu, suite, networks = items(value, 5, 5, "group")
    if mtu is not None:
        demand(576 <= uint(mtu, 9216, "MTU"), "MTU")
    demand(uint(suite, 3, "suite") > 0, "suite")
    return (group_number(group), uint(priority, 255, "priority"), mtu, suite,
            read_prefixes(networks, "networks"))


def read_prefixes(value, what: str) -> list:
    prefixes = [read_prefix(it) for it in items(value, 0, 8, what)]
    order = [(it.version, it.network_address.packed, it.prefixlen) for it in prefixes]
    demand(all(one < two for one, two in zip(order, order[1:])), f"{what} that rise")
    return prefixes


def read_prefix(value):
    packed, length = items(value, 2, 2, "prefix")
    address = read_address(packed)
    length = uint(length, address.max_prefixlen, "prefix length")
    prefix = ipaddress.ip_network((address, length), strict=False)
    demand(prefix.network_address == address, "bits behind the prefix")
    return prefix


def read_endpoint(value) -> tuple:
    packed, port = items(value, 2, 2, "endpoint")
    demand(uint(port, 65535, "port") > 0, "port")
    return read_address(packed), port


def read_address(packed):
    demand(type(packed) is bytes and len(packed) in (4, 16), "address")
    return ipaddress.ip_address(octets(packed, len(packed), "address"))


def prefix_item(prefix) -> list:
    return [prefix.network_address.packed, prefix.prefixlen]


def endpoint_text(address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def verifies(frame: bytes, name: bytes, public: bytes, aad: bytes = AAD) -> bool:
    """As python-cwt judges."""
    key = COSEKey.new({1: 1, 2: name, 3: -19, 4: [2], -1: 6, -2: public})
    try:
        COSE.new().decode(frame, key, external_aad=aad)
    except CWTError:
        return False
    return True


def signed(record: Record, key, name: bytes) -> bytes:
    """Made by nothing of ours: Sig_structure (RFC 9052 section 4.4)."""
    protected, payload = det({1: -19, 4: name}), det(record.payload())
    signature = key.sign(det(["Signature1", protected, AAD, payload]))
    return det(cbor2.CBORTag(18, [protected, {}, payload, signature]))
