"""Small snapshots, packed to a quarter of their size by what the documents of a space have in common.

A small document is mostly the space's key, type and property names and the frame of the format, which no compression of
it alone can take out. So a snapshot of one document serves as the dictionary for others of its space. A dictionary is
kept twice, each with a check sum, because all that was packed with it depends on it.

    packed    "Z" | number of the dictionary, 4 bytes | raw deflate stream

Documents begin with 0x85, so a packed one is known by its first byte.
"""

import zlib
from typing import Final, final

from dxos.errors import CorruptionError
from dxos.limits import (
    DOCUMENT_BYTES_MAX,
    PACKED_DICTIONARIES_MAX,
    PACKED_DICTIONARY_BYTES_MAX,
    PACKED_SNAPSHOT_BYTES_MAX,
)
from dxos.store.checksum import check_sum
from dxos.store.database import Database

_MARK: Final = b"Z"
_NUMBER_BYTES: Final = 4
_HEADER_BYTES: Final = len(_MARK) + _NUMBER_BYTES
_RAW: Final = -zlib.MAX_WBITS  # No header of zlib's and no check sum: documents have hashes of their own.
_LEVEL: Final = 9
_GOOD: Final = 0.5  # A dictionary that leaves more than this of a snapshot is not the right one.
_MISSES: Final = 64  # After so many snapshots without a right one, a space is one of texts that have little in common,
_RETRY: Final = 16  # and only each 16th of its snapshots is tried with all dictionaries, which takes a millisecond.


@final
class Packing:
    """Packs and unpacks the snapshots of one profile."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dictionaries: dict[int, bytes] = {}
        self._good: dict[int, int] = {}  # By space: the number of the dictionary that served best last.
        self._misses: dict[int, int] = {}  # By space: how many snapshots in turn had no right dictionary.

    def __repr__(self) -> str:
        return f"<Packing dictionaries={len(self._dictionaries)}>"

    def pack(self, space: int, snapshot: bytes) -> bytes:
        """A snapshot as it is written; inside the caller's transaction.

        Args:
            space: The number of its space.
            snapshot: What is packed, unless it is large.
        """
        if len(snapshot) > PACKED_SNAPSHOT_BYTES_MAX:
            return snapshot
        best = snapshot
        numbers, misses = self._numbers(space), self._misses.get(space, 0)
        is_hopeless = misses >= _MISSES and misses % _RETRY
        for number in numbers[:1] if is_hopeless else numbers:
            packed = _pack(number, self._dictionary(number), snapshot)
            if len(packed) < len(best):
                best, self._good[space] = packed, number
            if len(packed) <= _GOOD * len(snapshot):
                self._misses[space] = 0
                return packed
        self._misses[space] = misses + 1
        if len(numbers) < PACKED_DICTIONARIES_MAX and len(snapshot) <= PACKED_DICTIONARY_BYTES_MAX:
            self._good[space] = self._add(space, snapshot)
            return _pack(self._good[space], snapshot, snapshot)
        return best

    def unpack(self, stored: bytes) -> bytes:
        """What was packed; anything else is returned as it is.

        Raises:
            CorruptionError: It is damaged, or its dictionary is.
        """
        if not stored.startswith(_MARK):
            return stored
        dictionary = self._dictionary(int.from_bytes(stored[len(_MARK) : _HEADER_BYTES], "big"))
        inflater = zlib.decompressobj(_RAW, zdict=dictionary)
        try:
            content = inflater.decompress(stored[_HEADER_BYTES:], DOCUMENT_BYTES_MAX)
        except zlib.error as error:
            raise CorruptionError("A packed document is damaged on disk.") from error
        if not inflater.eof:
            raise CorruptionError("A packed document is damaged on disk.")
        return content

    def _numbers(self, space: int) -> list[int]:
        """The dictionaries of a space, the one that was good last first; read each time, since a writing may fail."""
        rows = self._database.rows("SELECT number FROM dictionaries WHERE space = ?", (space,))
        return sorted((row[0] for row in rows), key=lambda number: (number != self._good.get(space), -number))

    def _add(self, space: int, dictionary: bytes) -> int:
        return self._database.insert(
            "INSERT INTO dictionaries (space, check_sum, bytes, copy) VALUES (?, ?, ?, ?)",
            (space, check_sum(dictionary), dictionary, dictionary),
        )

    def _dictionary(self, number: int) -> bytes:
        known = self._dictionaries.get(number)
        if known is None:
            found = self._database.row("SELECT check_sum, bytes, copy FROM dictionaries WHERE number = ?", (number,))
            whole = [] if found is None else [one for one in found[1:] if check_sum(one) == found[0]]
            if not whole:
                raise CorruptionError("What a packed document was packed with is damaged on disk.")
            known = bytes(whole[0])
            if not self._database.in_transaction:  # Inside one it may still be undone, and its number given to another.
                self._dictionaries[number] = known
        return known


def _pack(number: int, dictionary: bytes, snapshot: bytes) -> bytes:
    deflater = zlib.compressobj(_LEVEL, wbits=_RAW, zdict=dictionary)
    return _MARK + number.to_bytes(_NUMBER_BYTES, "big") + deflater.compress(snapshot) + deflater.flush()
