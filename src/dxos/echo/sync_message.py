"""The outside of Automerge's sync messages and chunks: read what a message says, and bound what it unpacks to.

    message: 0x42 or 0x43 | heads | need | have: count, (last sync: heads | filter: bytes)… | changes: count, bytes… | …
    chunk:   85 6f 4a 83 | checksum, 4 bytes | kind | length | content   kind 0 document, 1 change, 2 deflated change

Numbers are LEB128, lists and bytes begin with their count. The CRDT library parses all of this itself; it is read here
first because the library unpacks compressed chunks without a bound, and to learn a peer's heads without a document.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from typing import final

from msgspec import Struct

from dxos.errors import DecodeError, LimitError
from dxos.limits import DOCUMENT_BYTES_MAX, DOCUMENT_HEADS_MAX, MESSAGE_BYTES_MAX

CHANGES_MAX = 1_000_000  # Chunks in one message.

_VERSIONS = (0x42, 0x43)
_CAPABILITIES = bytes((2, 1, 2))  # Two follow: both versions of the message.
_HASH_BYTES = 32
_MAGIC = b"\x85\x6f\x4a\x83"
_CHECKSUM_BYTES = 4
_DOCUMENT, _CHANGE, _DEFLATED_CHANGE = 0, 1, 2
_DEFLATED_COLUMN = 8
_INDEX_SHIFT_MAX = 63
_HAVES_MAX = 64
_ENTRY_BITS_MAX = 64  # Of a Bloom filter; Automerge uses 10, and 7 probes.
_PROBES_MAX = 64
_TOO_SHORT = "a sync message or document that ends too early"


@final
class SyncMessage(Struct, frozen=True):
    """What a message says about its sender."""

    heads: tuple[bytes, ...]  # Of the sender's document, sorted.
    need: tuple[bytes, ...]  # Changes that the sender asks for.
    changes_count: int  # Chunks that it brings.


def parse(untrusted: bytes) -> SyncMessage:
    """Read a message's outside.

    Raises:
        DecodeError: It does not parse.
        LimitError: It, or what it unpacks to, is larger than a document may be.
    """
    if len(untrusted) > MESSAGE_BYTES_MAX:
        raise LimitError("A sync message is too large.", bytes_count=len(untrusted))
    reader = _Reader(untrusted)
    if reader.byte() not in _VERSIONS:
        raise DecodeError("Not a sync message.")
    heads = reader.hashes()
    need = reader.hashes()
    for _ in range(reader.count(_HAVES_MAX)):
        reader.hashes()
        _check_filter(reader.take(reader.number()))
    changes_count = reader.count(CHANGES_MAX)
    unpacked_bytes = 0
    for _ in range(changes_count):
        unpacked_bytes += _check_chunks(reader.take(reader.number()), DOCUMENT_BYTES_MAX - unpacked_bytes)
    return SyncMessage(tuple(sorted(heads)), tuple(need), changes_count)


def encode_position(heads: Iterable[bytes]) -> bytes:
    """The message of a peer that has those heads, brings nothing and asks for all that is newer."""
    hashes = sorted(heads)
    listed = _leb128(len(hashes)) + b"".join(hashes)
    # heads | no need | one have: last sync at these heads, empty filter | no changes | capabilities
    return bytes((_VERSIONS[0],)) + listed + b"\0" + b"\1" + listed + b"\0" + b"\0" + _CAPABILITIES


def check_chunks(untrusted: bytes) -> None:
    """Bound what a document file unpacks to.

    Raises:
        DecodeError: It is no row of chunks.
        LimitError: It unpacks to more than a document may have.
    """
    _check_chunks(untrusted, DOCUMENT_BYTES_MAX)


def is_one_sound_chunk(content: bytes) -> bool:
    """Whether bytes are one document or one plain change and undamaged, so that they load everywhere as they are."""
    reader = _Reader(content)
    try:
        is_chunk = reader.take(len(_MAGIC)) == _MAGIC
        checksum, start = reader.take(_CHECKSUM_BYTES), len(_MAGIC) + _CHECKSUM_BYTES
        kind = reader.byte()
        reader.take(reader.number())
    except DecodeError:
        return False
    if not is_chunk or kind not in (_DOCUMENT, _CHANGE) or not reader.ended:
        return False
    return hashlib.sha256(memoryview(content)[start:]).digest()[:_CHECKSUM_BYTES] == checksum


def _check_filter(untrusted: bytes) -> None:
    """Refuse a Bloom filter with which the CRDT library would divide by zero, or probe for minutes."""
    if not untrusted:
        return
    reader = _Reader(untrusted)
    entries_count, entry_bits, probes_count = reader.number(), reader.number(), reader.number()
    if entries_count and not (0 < entry_bits <= _ENTRY_BITS_MAX and probes_count <= _PROBES_MAX):
        raise DecodeError("A sync message with a filter that cannot be used.")
    reader.take((entries_count * entry_bits + 7) // 8)


def _check_chunks(untrusted: bytes, bytes_left: int) -> int:
    """How many bytes the chunks unpack to."""
    reader, unpacked_bytes = _Reader(untrusted), 0
    while not reader.ended:
        if reader.take(len(_MAGIC)) != _MAGIC:
            raise DecodeError("Not an Automerge chunk.")
        reader.take(_CHECKSUM_BYTES)
        kind = reader.byte()
        content = reader.take(reader.number())
        unpacked_bytes += len(content)
        if kind == _DEFLATED_CHANGE:
            unpacked_bytes += _inflated_bytes(content, bytes_left - unpacked_bytes)
        elif kind == _DOCUMENT:
            unpacked_bytes += _inflated_columns(content, bytes_left - unpacked_bytes)
        elif kind != _CHANGE:
            raise DecodeError("An Automerge chunk of an unknown kind.")
        if unpacked_bytes > bytes_left:
            raise LimitError("A document unpacks to more than it may.")
    return unpacked_bytes


def _inflated_columns(content: bytes, bytes_left: int) -> int:
    reader = _Reader(content)
    for _ in range(reader.count(CHANGES_MAX)):  # Actors.
        reader.take(reader.number())
    reader.hashes()
    columns = [column for _ in range(2) for column in reader.columns()]  # Of changes, then of operations.
    unpacked_bytes = 0
    for specification, length in columns:
        data = reader.take(length)
        if specification & _DEFLATED_COLUMN:
            unpacked_bytes += _inflated_bytes(data, bytes_left - unpacked_bytes)
    return unpacked_bytes


def _inflated_bytes(data: bytes, bytes_left: int) -> int:
    try:
        unpacked = zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(data, max(bytes_left, 0) + 1)
    except zlib.error:
        raise DecodeError("A compressed part that does not unpack.") from None
    if len(unpacked) > bytes_left:
        raise LimitError("A document unpacks to more than it may.")
    return len(unpacked)


def _leb128(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes((number,))


class _Reader:
    """Takes untrusted bytes from front to back."""

    __slots__ = ("_at", "_data")

    def __init__(self, untrusted: bytes) -> None:
        self._data, self._at = untrusted, 0

    @property
    def ended(self) -> bool:
        return self._at == len(self._data)

    def byte(self) -> int:
        at = self._at
        if at == len(self._data):
            raise DecodeError(_TOO_SHORT)
        self._at = at + 1
        return self._data[at]

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise DecodeError(_TOO_SHORT)
        part = self._data[self._at : end]
        self._at = end
        return part

    def number(self) -> int:
        byte = self.byte()
        if byte < 0x80:
            return byte  # Nearly every number is this small.
        value, shift = byte & 0x7F, 7
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > _INDEX_SHIFT_MAX:
                raise DecodeError("A number of more than 64 bits.")

    def count(self, count_max: int) -> int:
        count = self.number()
        if count > count_max:
            raise LimitError("A list in a sync message is too long.", count=count)
        return count

    def hashes(self) -> list[bytes]:
        return [self.take(_HASH_BYTES) for _ in range(self.count(DOCUMENT_HEADS_MAX))]

    def columns(self) -> list[tuple[int, int]]:
        return [(self.number(), self.number()) for _ in range(self.count(DOCUMENT_HEADS_MAX))]
