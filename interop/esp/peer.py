"""Our half, `interop_esp`, driven line by line: one line in, one line out."""

import subprocess


class Peer:
    def __init__(self, program: str):
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *words) -> str:
        self.process.stdin.write(" ".join(str(word) for word in words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"interop_esp ended at {words[0]}")
        return answer.rstrip("\n")

    def keyed(self, *words) -> tuple:
        """The SPI, and key with salt, of a session or a stock sender."""
        spi, material = self.ask(*words).split()
        return int(spi), bytes.fromhex(material)

    def seal(self, inner: bytes) -> bytes:
        return bytes.fromhex(self.ask("seal", inner.hex()))

    def open(self, packet: bytes) -> tuple:
        """Sequence number and inner packet; (None, reason) where it is refused."""
        answer = self.ask("open", packet.hex())
        if answer.startswith("refused"):
            return None, answer
        sequence, inner = answer.split()
        return int(sequence), bytes.fromhex(inner)
