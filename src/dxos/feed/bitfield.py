"""Which blocks of a feed a peer has: a bit for each, and the run-length code in which peers tell each other.

Bits are numbered from the most significant bit of the first byte. On the wire a bitfield is a list of runs, each with
a varint before it: an odd one stands for `n >> 2` bytes that are all 0xff (bit 1 set) or all 0x00; an even one is
followed by `n >> 1` literal bytes.
"""

import re
from typing import final

from dxos.errors import DecodeError, LimitError
from dxos.feed.varint import read_varint, write_varint

_SOME_BIT = re.compile(rb"[^\x00]")
_RUNS = re.compile(rb"\x00{4,}|\xff{4,}|(?:(?!\x00{4}|\xff{4}).)+", re.DOTALL)
_BITS = 8


@final
class Bitfield:
    """A set of small integers that grows with its largest member; ranges and searches run at the speed of memory."""

    __slots__ = ("_bytes", "_zeros")

    def __init__(self, data: bytes = b"") -> None:
        self._bytes = bytearray(data)
        self._zeros = 0  # So many bytes at the front are known to be zero, so that `first` need not look again.

    def __contains__(self, index: int) -> bool:
        at = index >> 3
        return at < len(self._bytes) and bool(self._bytes[at] & (0x80 >> (index & 7)))

    def __bool__(self) -> bool:
        return self.first() is not None

    def __bytes__(self) -> bytes:
        return bytes(self._bytes)

    def first(self) -> int | None:
        """Return the smallest member, or None."""
        found = _SOME_BIT.search(self._bytes, self._zeros)
        if found is None:
            self._zeros = len(self._bytes)
            return None
        self._zeros = found.start()
        return found.start() * _BITS + _BITS - found.group()[0].bit_length()

    def end(self) -> int:
        """Return one more than the largest member, 0 if there is none."""
        length = len(self._bytes.rstrip(b"\x00"))
        if not length:
            return 0
        last = self._bytes[length - 1]
        return length * _BITS - ((last & -last).bit_length() - 1)

    def add(self, start: int, end: int) -> None:
        """Add the numbers from `start` up to, and without, `end`."""
        if start >= end:
            return
        self._grow((end + 7) >> 3)
        first, last = start >> 3, (end - 1) >> 3
        self._zeros = min(self._zeros, first)
        head, tail = 0xFF >> (start & 7), 0xFF << (7 - (end - 1 & 7)) & 0xFF
        if first == last:
            self._bytes[first] |= head & tail
            return
        self._bytes[first] |= head
        self._bytes[first + 1 : last] = b"\xff" * (last - first - 1)
        self._bytes[last] |= tail

    def discard(self, start: int, end: int) -> None:
        """Remove the numbers from `start` up to, and without, `end`."""
        end = min(end, len(self._bytes) * _BITS)
        if start >= end:
            return
        first, last = start >> 3, (end - 1) >> 3
        head, tail = 0xFF >> (start & 7), 0xFF << (7 - (end - 1 & 7)) & 0xFF
        if first == last:
            self._bytes[first] &= ~(head & tail) & 0xFF
            return
        self._bytes[first] &= ~head & 0xFF
        self._bytes[first + 1 : last] = bytes(last - first - 1)
        self._bytes[last] &= ~tail & 0xFF

    def merge(self, other: bytes, start: int) -> None:
        """Add the numbers of a bitfield whose bit 0 is number `start`, a multiple of 8."""
        assert start % _BITS == 0
        at = start >> 3
        self._grow(at + len(other))
        self._zeros = min(self._zeros, at)
        old = int.from_bytes(self._bytes[at : at + len(other)], "big")
        self._bytes[at : at + len(other)] = (old | int.from_bytes(other, "big")).to_bytes(len(other), "big")

    def _grow(self, length: int) -> None:
        if length > len(self._bytes):
            self._bytes.extend(bytes(length - len(self._bytes)))


def encode_runs(data: bytes) -> bytes:
    """Encode a bitfield; zeros at its end are left out."""
    encoded = bytearray()
    for match in _RUNS.finditer(data.rstrip(b"\x00")):
        run = match.group()
        if len(run) >= 4 and run[0] in (0x00, 0xFF) and run.count(run[0]) == len(run):
            encoded += write_varint(len(run) << 2 | (2 if run[0] else 0) | 1)
        else:
            encoded += write_varint(len(run) << 1) + run
    return bytes(encoded)


def decode_runs(untrusted: bytes, *, bytes_max: int) -> bytes:
    """Decode a bitfield.

    Raises:
        DecodeError: A run ends after its data.
        LimitError: Longer than `bytes_max` when decoded; a few bytes can stand for any number of them.
    """
    decoded = bytearray()
    at = 0
    while at < len(untrusted):
        header, at = read_varint(untrusted, at)
        length = header >> 2 if header & 1 else header >> 1
        if len(decoded) + length > bytes_max:
            raise LimitError("A bitfield is too long.", bytes_max=bytes_max)
        if header & 1:
            decoded += (b"\xff" if header & 2 else b"\x00") * length
        else:
            if at + length > len(untrusted):
                raise DecodeError("A bitfield ends early.")
            decoded += untrusted[at : at + length]
            at += length
    return bytes(decoded)
