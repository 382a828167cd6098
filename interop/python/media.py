"""SRTP and SRTCP packets (docs/PROTOCOL.md section 9; RFC 3711, 6188, 7714) by hand, one stream at a time."""

import hashlib
import hmac
import struct
from typing import Optional

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from reader import Key, Refused, demand

MKI_LEN = 14
KEY_LEN, SALT_LEN = {1: 32, 2: 16, 3: 16}, {1: 12, 2: 12, 3: 14}


def master(key: Key, suite: int, sender: int, session: bytes, n: int, ssrc: int) -> bytes:
    length = KEY_LEN[suite] + SALT_LEN[suite]
    return key.xl("srtp", [suite, sender, session, n, ssrc], length)


def mki(key: Key, sender: int, session: bytes, n: int) -> bytes:
    return key.tag() + sender.to_bytes(3, "big") + session + n.to_bytes(2, "big")


def unprotect(
    key: Key, suite: int, j: int, packet: bytes, protocol: str, static: Optional[tuple] = None
) -> tuple:
    """The plain packet, its index and its n; `static` = (sender, session, n) where no MKI is sent."""
    if static:
        body, (sender, session, n) = packet, static
    else:
        mac_len = 10 if suite == 3 else 0
        end = len(packet) - mac_len
        found = packet[end - MKI_LEN:end]
        sender, session = int.from_bytes(found[3:6], "big"), found[6:12]
        n = int.from_bytes(found[12:], "big")
        demand(found == mki(key, sender, session, n) and sender > 0, "MKI")
        body = packet[:end - MKI_LEN] + packet[end:]
    at = 8 if protocol == "SRTP" else 4
    ssrc = int.from_bytes(body[at:at + 4], "big")
    keys = Session(suite, master(key, suite, sender, session, n, ssrc), protocol)
    if protocol == "SRTCP":
        plain, index = keys.unprotect_rtcp(ssrc, body)
        return plain, index, n
    seq = int.from_bytes(body[2:4], "big")
    roc = 0 if static else n >> (16 - j)
    index = roc << 16 | seq
    demand(static is not None or index >> j == n, "the packet is not in its stretch")
    return keys.unprotect_rtp(ssrc, index, body), index, n


class Session:
    """RFC 3711 section 4.3 with rate 0."""

    def __init__(self, suite: int, master_: bytes, protocol: str):
        first = 0 if protocol == "SRTP" else 3
        key, salt = master_[:KEY_LEN[suite]], master_[KEY_LEN[suite]:]
        self.suite = suite
        self.key = self.prf(key, salt, first, KEY_LEN[suite])
        self.mac_key = self.prf(key, salt, first + 1, 20)
        self.salt = self.prf(key, salt, first + 2, SALT_LEN[suite])

    @staticmethod
    def prf(key: bytes, salt: bytes, label: int, length: int) -> bytes:
        x = int.from_bytes(salt.ljust(14, b"\0"), "big") ^ label << 48
        return counter_mode(key, x << 16, bytes(length))

    def unprotect_rtp(self, ssrc: int, index: int, body: bytes) -> bytes:
        header = 12 + 4 * (body[0] & 15)
        if body[0] & 16:
            header += 4 + 4 * int.from_bytes(body[header + 2:header + 4], "big")
        if self.suite != 3:
            roc, seq = index >> 16, index & 0xffff
            iv = b"\0\0" + struct.pack(">IIH", ssrc, roc, seq)
            return body[:header] + self.gcm(iv, body[header:], body[:header])
        body, tag = body[:-10], body[-10:]
        self.authenticate(body + (index >> 16).to_bytes(4, "big"), tag)
        return body[:header] + self.cm(ssrc, index, body[header:])

    def unprotect_rtcp(self, ssrc: int, body: bytes) -> tuple:
        if self.suite != 3:
            body, trailer = body[:-4], body[-4:]
        else:
            body, tag = body[:-10], body[-10:]
            self.authenticate(body, tag)
            body, trailer = body[:-4], body[-4:]
        esrtcp = int.from_bytes(trailer, "big")
        demand(esrtcp >> 31 == 1, "SRTCP is always encrypted")
        index = esrtcp & 0x7fffffff
        if self.suite != 3:
            iv = b"\0\0" + struct.pack(">IHI", ssrc, 0, index)
            return body[:8] + self.gcm(iv, body[8:], body[:8] + trailer), index
        return body[:8] + self.cm(ssrc, index, body[8:]), index

    def gcm(self, iv: bytes, text: bytes, aad: bytes) -> bytes:
        nonce = bytes(a ^ b for a, b in zip(iv, self.salt))
        try:
            return AESGCM(self.key).decrypt(nonce, text, aad)
        except InvalidTag as fault:
            raise Refused("authentication") from fault

    def cm(self, ssrc: int, index: int, text: bytes) -> bytes:
        iv = int.from_bytes(self.salt, "big") << 16 ^ ssrc << 64 ^ index << 16
        return counter_mode(self.key, iv, text)

    def authenticate(self, text: bytes, tag: bytes):
        expected = hmac.new(self.mac_key, text, hashlib.sha1).digest()[:10]
        demand(hmac.compare_digest(expected, tag), "authentication")


def counter_mode(key: bytes, iv: int, text: bytes) -> bytes:
    cipher = Cipher(algorithms.AES(key), modes.CTR(iv.to_bytes(16, "big"))).encryptor()
    return cipher.update(text) + cipher.finalize()
