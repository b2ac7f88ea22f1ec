"""The past of a document: its changes with their times, its objects as they were, and what was written at once.

The document keeps who changed what after having seen what, and no reliable time: JavaScript peers write theirs in
seconds, Python peers none. So times come from outside, where somebody noted them, and this module makes them
consistent: a change is never earlier than what it depends on.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, final

from msgspec import Struct

from dxos.echo import layout
from dxos.echo.document import MISSING, Change, Document, Heads
from dxos.echo.rows import Json, ObjectRow, Path, reference_dxn
from dxos.errors import DecodeError
from dxos.keys.ids import object_time_ms
from dxos.limits import HISTORY_CHANGES_MAX

_MAGIC = b"\x85\x6f\x4a\x83"
_KEY = slice(4, 8)
_TYPE_AT, _BODY_AT = 8, 9
_CHANGE, _COMPRESSED = 1, 2
_HASH_BYTES = 32
_HEAD_BYTES_MAX = 256 * 1024  # Hashes of dependencies and the actor come before the time.
_NUMBER_BYTES_MAX = 9
_SECOND_MS = 1_000


def change_key(change: bytes) -> int:
    """A short name of a change, unique enough in one document, from its hash."""
    return int.from_bytes(change[:4], "big")


def chunk_key(chunk: bytes) -> int:
    """The same, from its chunk, whose check sum is the beginning of the hash."""
    return int.from_bytes(chunk[_KEY], "big")


def chunk_time_ms(chunk: bytes) -> int | None:
    """The time that its author wrote into a change, in milliseconds since 1970; None if there is none.

    Anything may stand there: whoever uses it should not believe the future.

    Raises:
        DecodeError: Not a change chunk.
    """
    if chunk[:4] != _MAGIC or len(chunk) <= _BODY_AT or chunk[_TYPE_AT] not in (_CHANGE, _COMPRESSED):
        raise DecodeError("Not a change chunk.")
    _, at = _number(chunk, _BODY_AT)
    body = chunk[at:]
    if chunk[_TYPE_AT] == _COMPRESSED:
        try:
            body = zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, _HEAD_BYTES_MAX)
        except zlib.error as error:
            raise DecodeError("A compressed change that does not inflate.") from error
    count, at = _number(body, 0)
    size, at = _number(body, at + count * _HASH_BYTES)
    _, at = _number(body, at + size)  # The change's number among its author's.
    _, at = _number(body, at)  # The number of its first operation.
    seconds, _ = _number(body, at, signed=True)
    return seconds * _SECOND_MS if seconds > 0 else None


def _number(data: bytes, at: int, *, signed: bool = False) -> tuple[int, int]:
    """A LEB128 number and where it ends."""
    value = shift = 0
    for index in range(at, min(at + _NUMBER_BYTES_MAX, len(data))):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (value - (1 << shift) if signed and byte & 0x40 else value), index + 1
    raise DecodeError("A number in a change that does not end.")


@final
class DatedChange(Struct, frozen=True):
    """A change, and when it was made as far as anybody knows."""

    change: Change
    time_ms: int | None  # Known of this change itself.
    effective_ms: int  # Not before what it depends on; for what is known of none of them, the object's creation.


def dated_changes(document: Document, times: Mapping[int, int], *, created_ms: int, now_ms: int) -> list[DatedChange]:
    """All changes of a document with their times, each after what it depends on.

    Args:
        document: The document.
        times: What was noted beside it, in milliseconds, by `change_key`.
        created_ms: When its first object was made; for a first change of which nothing was noted.
        now_ms: What a change itself says later than this is a wrong clock's, and counts as now.
    """
    dated: list[DatedChange] = []
    effective: dict[bytes, int] = {}
    for change in document.changes():
        own = times.get(change_key(change.hash))
        if not change.deps:
            # One's own may be noted as made when a long step began.
            own = created_ms if own is None else max(own, min(created_ms, now_ms))
        if own is None:
            told_ms = chunk_time_ms(change.raw_bytes)
            own = None if told_ms is None else min(told_ms, now_ms)
        latest = max([*(effective[dep] for dep in change.deps), own or 0], default=0)
        effective[change.hash] = latest
        dated.append(DatedChange(change, own, latest))
    return dated


def created_ms(object_id: str) -> int:
    """When an object was made, by its id."""
    return object_time_ms(object_id)


def heads_at(dated: Iterable[DatedChange], moment_ms: int) -> Heads:
    """The heads that a document had at a moment; empty where it did not exist yet."""
    heads: dict[bytes, None] = {}
    for one in dated:
        if one.effective_ms <= moment_ms:
            for dep in one.change.deps:
                heads.pop(dep, None)
            heads[one.change.hash] = None
    return tuple(sorted(heads))


# --- Conflicts -------------------------------------------------------------------------------------------------------


@final
class ConcurrentValue(Struct, frozen=True):
    """One of several values that were written at the same place at once."""

    value: Json
    change: bytes  # The hash of the change that wrote it.


def conflicts(document: Document, object_id: str) -> dict[Path, tuple[ConcurrentValue, ...]]:
    """Where peers who did not know of each other wrote different values, and nobody has decided since.

    The values of each place, by its path in the object's data; the one that everybody sees comes first. Maps' keys
    alone can be in conflict, at any depth, since elements of lists and characters of texts are kept side by side. Only
    the newest HISTORY_CHANGES_MAX changes are looked at.

    Raises:
        DecodeError: The document cannot be read at all.
    """
    changes = document.changes()[-HISTORY_CHANGES_MAX:]
    if len(document.heads) == 1 and all(len(one.deps) <= 1 for one in changes) and _is_chain(changes):
        return {}  # Nobody ever wrote at once with somebody else.
    row = layout.object_at(document, object_id, document.heads)
    if row is None:
        return {}
    ancestors = _ancestors(changes)
    base: Path = ("objects", object_id, "data")
    found = {}
    for path in _key_paths(row.data, ()):
        values = _concurrent(document, changes, ancestors, (*base, *path))
        if len(values) > 1:
            found[path] = tuple(values)
    return found


def _is_chain(changes: Sequence[Change]) -> bool:
    return all(later.deps == (earlier.hash,) for earlier, later in pairwise(changes))


def _ancestors(changes: Sequence[Change]) -> dict[bytes, int]:
    """For each change the set of those before it, as the bits of a number."""
    number = {one.hash: index for index, one in enumerate(changes)}
    ancestors: dict[bytes, int] = {}
    for one in changes:
        seen = 0
        for dep in one.deps:
            if dep in number:
                seen |= ancestors[dep] | 1 << number[dep]
        ancestors[one.hash] = seen
    return ancestors


def _key_paths(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, dict) and (not path or reference_dxn(value) is None):
        for key, child in value.items():
            yield (*path, key)
            yield from _key_paths(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _key_paths(child, (*path, index))


def _concurrent(
    document: Document, changes: Sequence[Change], ancestors: Mapping[bytes, int], path: Path
) -> list[ConcurrentValue]:
    """The values at a map's key that no other writing has replaced, the winning one first.

    Asked for the state right after a change, the document shows what the change wrote, if it wrote here: of all that
    its author knew, its own writing is the last. What shows something else than the changes it depends on has written.
    """
    # What the oldest of these changes depend on is asked for too, else they would seem to have written here.
    hashes = list(dict.fromkeys(hash_ for one in changes for hash_ in (*one.deps, one.hash)))
    now, *after = document.writings(path, [document.heads, *((one,) for one in hashes)])
    shown = dict(zip(hashes, after, strict=True))
    writers = [
        (index, one)
        for index, one in enumerate(changes)
        if all(shown[dep] != shown[one.hash] for dep in one.deps) and (one.deps or shown[one.hash] is not None)
    ]
    replaced = 0
    for _, one in writers:
        replaced |= ancestors[one.hash]
    standing = [one for index, one in writers if not replaced >> index & 1 and shown[one.hash] is not None]
    standing.sort(key=lambda one: (shown[one.hash] != now, one.hash))
    values = []
    for one in standing:
        value = document.to_python(path, (one.hash,))
        if value is not MISSING:
            values.append(ConcurrentValue(value, one.hash))
    return values


def object_before(document: Document, object_id: str, change: Change) -> ObjectRow | None:
    """An object as the author of a change saw it; None if it did not exist."""
    return layout.object_at(document, object_id, change.deps) if change.deps else None


def object_after(document: Document, object_id: str, change: Change) -> ObjectRow | None:
    """An object as the author of a change left it; None if it did not exist."""
    return layout.object_at(document, object_id, (change.hash,))
