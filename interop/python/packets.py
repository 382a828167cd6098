"""ESP packets (docs/PROTOCOL.md section 16; RFC 4303, 4106, 7634) by hand, one at a time."""

from typing import Optional

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from reader import Key, Refused, demand, tag_hash

KEY_LEN = {1: 32, 2: 16, 3: 32}
CIPHER = {1: AESGCM, 2: AESGCM, 3: ChaCha20Poly1305}
IP_OF = {4: 4, 41: 6}


def keys(key: Key, suite: int, sender: int, session: bytes) -> bytes:
    return key.xl("esp", [suite, sender, session, 0, 0], KEY_LEN[suite] + 4)


def pinned_keys(key: Key, suite: int, spi: int, random: bytes) -> bytes:
    return key.xl("esp-pinned", [suite, spi, random], KEY_LEN[suite] + 4)


def spi(key: Key, sender: int) -> int:
    tag = (tag_hash(key.kid, key.epoch)[1] & 7) << 4 | key.generation % 16
    return 1 << 31 | sender << 7 | tag


def head(packet: bytes) -> tuple:
    """Sender, tag, session and sequence number as a packet says them."""
    demand(len(packet) >= 16 + 2 + 16, "ESP length")
    found = int.from_bytes(packet[:4], "big")
    sequence = int.from_bytes(packet[4:8], "big")
    sender = (found & 0x7fffffff) >> 7
    demand(found >> 31 == 1 and sender > 0, "SPI")
    demand(0 < sequence < 1 << 24 and packet[13:16] == packet[5:8], "sequence number")
    return sender, found & 0x7f, packet[8:13], sequence


def unprotect(key: Key, suite: int, packet: bytes, pinned: Optional[bytes] = None) -> tuple:
    """The inner packet and the sequence number; `pinned` = key and salt of a stock sender."""
    if pinned is None:
        sender, _, session, sequence = head(packet)
        demand(int.from_bytes(packet[:4], "big") == spi(key, sender), "tag")
        material = keys(key, suite, sender, session)
    else:
        material, sequence = pinned, int.from_bytes(packet[4:8], "big")
    secret, salt = material[:-4], material[-4:]
    try:
        text = CIPHER[suite](secret).decrypt(salt + packet[8:16], packet[16:], packet[:8])
    except InvalidTag as fault:
        raise Refused("authentication") from fault
    padding, next_header = text[-2], text[-1]
    demand(padding + 2 <= len(text), "padding")
    inner = text[:len(text) - 2 - padding]
    demand(text[len(inner):-2] == bytes(range(1, padding + 1)), "padding octets")
    demand(next_header in IP_OF and inner and inner[0] >> 4 == IP_OF[next_header], "next header")
    length = int.from_bytes(inner[2:4], "big") if next_header == 4 else 40 + int.from_bytes(inner[4:6], "big")
    demand(length <= len(inner), "inner length")
    return inner[:length], sequence


def protect(material: bytes, suite: int, spi_: int, sequence: int, iv: bytes, inner: bytes) -> bytes:
    """As a stock sender does it, with any IV."""
    padding = -(len(inner) + 2) % 4
    trailer = bytes(range(1, padding + 1)) + bytes([padding, 4 if inner[0] >> 4 == 4 else 41])
    aad = spi_.to_bytes(4, "big") + sequence.to_bytes(4, "big")
    sealed = CIPHER[suite](material[:-4]).encrypt(material[-4:] + iv, inner + trailer, aad)
    return aad + iv + sealed
