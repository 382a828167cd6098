"""Key encapsulation of the suites hpke and hpke-pq (PROTOCOL 14): RFC 9180 base mode, single shot."""

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import (AEAD, KDF, KEM, MLKEM768X25519PrivateKey,
                                                 MLKEM768X25519PublicKey, Suite)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from reader import Refused, demand, octets

HPKE, HPKE_PQ = 2, 3


@dataclass(frozen=True)
class Kind:
    """What RFC 9180 calls a KEM, by its lengths in octets."""

    id: int
    suite: Suite
    public: int
    enc: int


KINDS = {
    HPKE: Kind(0x0020, Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM), 32, 32),
    HPKE_PQ: Kind(0x647A, Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM), 1216, 1120),
}


@dataclass(frozen=True)
class KemSecret:
    """A private key: of X25519 the 32 octets of RFC 7748, of X-Wing its 32-octet seed."""

    kind: int
    private: bytes

    @classmethod
    def derived(cls, kind: int, ikm: bytes) -> "KemSecret":
        """DeriveKeyPair: RFC 9180 section 7.1.3; X-Wing as draft-ietf-hpke-pq says."""
        suite_id = b"KEM" + KINDS[kind].id.to_bytes(2, "big")
        length = (32).to_bytes(2, "big")
        if kind == HPKE:
            prk = HKDF.extract(SHA256(), b"", b"HPKE-v1" + suite_id + b"dkp_prk" + ikm)
            return cls(kind, HKDFExpand(SHA256(), 32, length + b"HPKE-v1" + suite_id + b"sk").derive(prk))
        label = b"DeriveKeyPair"
        labelled = ikm + b"HPKE-v1" + suite_id + len(label).to_bytes(2, "big") + label + length
        return cls(kind, hashlib.shake_256(labelled).digest(32))

    def parts(self):
        """The library's private key."""
        octets(self.private, 32, "private key")
        if self.kind == HPKE:
            return X25519PrivateKey.from_private_bytes(self.private)
        expanded = hashlib.shake_256(self.private).digest(96)
        return MLKEM768X25519PrivateKey(
            MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
            X25519PrivateKey.from_private_bytes(expanded[64:]))

    def public(self) -> bytes:
        if self.kind == HPKE:
            return self.parts().public_key().public_bytes_raw()
        expanded = hashlib.shake_256(self.private).digest(96)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
        return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    def open(self, enc: bytes, ct: bytes, info: bytes) -> bytes:
        octets(enc, KINDS[self.kind].enc, "encapsulated key")
        try:
            return KINDS[self.kind].suite.decrypt(enc + ct, self.parts(), info=info)
        except (InvalidTag, ValueError) as fault:
            raise Refused("does not open under this KEM key") from fault


def seal(kind: int, public: bytes, plain: bytes, info: bytes) -> tuple:
    """[enc, ct], sealed to a public key."""
    demand(len(public) == KINDS[kind].public, "public KEM key")
    if kind == HPKE:
        key = X25519PublicKey.from_public_bytes(public)
    else:
        key = MLKEM768X25519PublicKey(MLKEM768PublicKey.from_public_bytes(public[:1184]),
                                      X25519PublicKey.from_public_bytes(public[1184:]))
    sealed = KINDS[kind].suite.encrypt(plain, key, info=info)
    return sealed[:KINDS[kind].enc], sealed[KINDS[kind].enc:]


def hash_in_keyset(kind: int, public: bytes) -> bytes:
    """How a KEYSET names a server's key: X25519 itself, of what is longer the SHA-256."""
    return public if kind == HPKE else hashlib.sha256(public).digest()
