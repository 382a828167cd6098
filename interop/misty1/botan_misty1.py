#!/usr/bin/python3
"""Botan's MISTY1 in CBC mode, and our texts read with it. For Debian's own Python, which has botan2.

Usage: botan_misty1.py present                    exit code 0 where this Botan has MISTY1
       botan_misty1.py vectors FILE               checks interop/vectors/misty1.json and RFC 2994's appendix
       botan_misty1.py plan COUNT SEED            COUNT lines KEY IV TEXT for our seal and open
       botan_misty1.py check seal|open < LINES    what ours made of them: KEY IV TEXT RESULT
       botan_misty1.py serve                      a line `encrypt|decrypt KEY IV TEXT` in, RESULT out
"""

import json
import random
import sys

import botan2


def blocks(text: bytes):
    return [text[i:i + 8] for i in range(0, len(text), 8)]


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b))


def misty1(key: bytes):
    cipher = botan2.BlockCipher("MISTY1")
    cipher.set_key(key)
    return cipher


def encrypt(key: bytes, iv: bytes, text: bytes) -> bytes:
    cipher, out = misty1(key), [iv]
    for block in blocks(text):
        out.append(bytes(cipher.encrypt(xor(block, out[-1]))))
    return b"".join(out[1:])


def decrypt(key: bytes, iv: bytes, text: bytes) -> bytes:
    if not text:
        return b""
    return xor(bytes(misty1(key).decrypt(text)), iv + text[:-8])


def fields(line: str):
    return [bytes.fromhex(field) for field in line.split()]


def vectors(path: str):
    with open(path, encoding="utf-8") as file:
        texts = json.load(file)["texts"]
    plain = bytes.fromhex("0123456789abcdeffedcba9876543210")
    key = bytes.fromhex("00112233445566778899aabbccddeeff")
    rfc = [(bytes(8), plain[:8], "8b1da5f56ab3d07c"), (bytes(8), plain[8:], "04b68240b13be95d"),
           (bytes.fromhex("0102030405060708"), plain, "461c1e879c18c27fb9adf2d80c89031f")]
    texts += [{"key": key.hex(), "iv": iv.hex(), "plain": text.hex(), "cipher": cipher}
              for iv, text, cipher in rfc]
    for number, text in enumerate(texts):
        key, iv, plain, cipher = (bytes.fromhex(text[name])
                                  for name in ("key", "iv", "plain", "cipher"))
        if encrypt(key, iv, plain) != cipher or decrypt(key, iv, cipher) != plain:
            sys.exit(f"misty1: text {number} of {path} is not what Botan makes of it")
    print(len(texts))


def plan(count: int, seed: int):
    rng = random.Random(seed)
    for _ in range(count):
        print(rng.randbytes(16).hex(), rng.randbytes(8).hex(),
              rng.randbytes(8 * rng.randint(1, 12)).hex())


def check(direction: str):
    call, found = {"seal": encrypt, "open": decrypt}[direction], 0
    for line in sys.stdin:
        key, iv, text, result = fields(line)
        if call(key, iv, text) != result:
            sys.exit(f"misty1: {direction} gives {result.hex()} for {line.rsplit(' ', 1)[0]}")
        found += len(text) // 8
    print(found)


def serve():
    for line in sys.stdin:
        word, rest = line.split(" ", 1)
        call = {"encrypt": encrypt, "decrypt": decrypt}[word]
        print(call(*fields(rest)).hex(), flush=True)


def main():
    word, rest = sys.argv[1], sys.argv[2:]
    if word == "present":
        misty1(bytes(16))
    elif word == "vectors":
        vectors(*rest)
    elif word == "plan":
        plan(*map(int, rest))
    elif word == "check":
        check(*rest)
    elif word == "serve":
        serve()
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
