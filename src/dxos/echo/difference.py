"""What differs between two states of an object, as plain data: to be read, to be undone, and to be made by mutations.

`merge` is the heart of undo: of a change that made `base` out of `wanted`, it takes back what nobody has changed since.

    base     the state after the change          Milk, 2 litres
    wanted   the state before it                 Milk, 1 litre
    present  the state now                       Oat milk, 2 litres
    result   present, with the change taken out  Oat milk, 1 litre

Invariants, held by property tests:
1. Where present equals base, the result is wanted; where wanted equals base, it is present.
2. Where both differ from base in the same plain value, present stays: others' edits are never lost.
3. `to_mutations(present, target)`, applied to present, gives target.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, Literal, final

from msgspec import Struct

from dxos.echo.mutation import Delete, Insert, Mutation, Put, Remove, SetDeleted, SetMeta, Splice
from dxos.echo.rows import Json, ObjectRow, Path, same_value
from dxos.limits import DIFFERENCE_PAIRS_MAX

DifferenceKind = Literal["added", "removed", "changed"]
_SHOWN_CHARS_MAX = 60


class _Absent(Enum):
    """Where a map has no such key."""

    ABSENT = "absent"


_ABSENT = _Absent.ABSENT


@final
class Difference(Struct, frozen=True, array_like=True):
    """One place of an object where two of its states differ.

    `str` of it is for people: `title: 'Milk' → 'Oat milk'`.
    """

    path: Path  # Names of maps' keys and indexes of lists; ("@deleted",) and ("@meta", key) stand for what is no data.
    kind: DifferenceKind
    before: Json  # None where there was nothing.
    after: Json  # None where there is nothing now.

    def __str__(self) -> str:
        where = ".".join(map(str, self.path))
        match self.kind:
            case "added":
                return f"{where}: + {_shown(self.after)}"
            case "removed":
                return f"{where}: - {_shown(self.before)}"
        return f"{where}: {_shown(self.before)} → {_shown(self.after)}"


def _shown(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS_MAX else f"{text[: _SHOWN_CHARS_MAX - 1]}…"


def differences(before: ObjectRow | None, after: ObjectRow | None) -> tuple[Difference, ...]:
    """What differs between two states of an object; None for a state in which it did not exist."""
    old, new = _sections(before), _sections(after)
    return tuple(_differences(old, new, ()))


def _sections(row: ObjectRow | None) -> dict[str, Any]:
    if row is None:
        return {}
    sections = dict(row.data)
    if row.deleted:
        sections["@deleted"] = True
    # Every object has a list of keys, and it says nothing while it is empty.
    meta = {key: value for key, value in row.meta.items() if value != []}
    return {**sections, "@meta": meta} if meta else sections


def _differences(before: Any, after: Any, path: Path) -> Iterator[Difference]:
    if same_value(before, after):
        return
    match before, after:
        case dict(), dict():
            for key in [*before, *(key for key in after if key not in before)]:
                here = (*path, key)
                if key not in after:
                    yield Difference(here, "removed", before[key], None)
                elif key not in before:
                    yield Difference(here, "added", None, after[key])
                else:
                    yield from _differences(before[key], after[key], here)
        case list(), list():
            for tag, start, end, new_start, new_end in _blocks(_hashable(before), _hashable(after)):
                if tag == "paired":
                    for offset in range(end - start):
                        here = (*path, new_start + offset)
                        yield from _differences(before[start + offset], after[new_start + offset], here)
                    continue
                for index in range(start, end):
                    yield Difference((*path, index), "removed", before[index], None)
                for index in range(new_start, new_end):
                    yield Difference((*path, index), "added", None, after[index])
        case _:
            yield Difference(path, "changed", before, after)


# --- Blocks in which two sequences differ ----------------------------------------------------------------------------

Block = tuple[Literal["paired", "other"], int, int, int, int]


def _hashable(values: Sequence[Any]) -> list[str]:
    return [json.dumps(value, sort_keys=True) for value in values]


def _blocks(before: Sequence[Any], after: Sequence[Any]) -> list[Block]:
    """Where two sequences differ, in order; "paired" where as many elements stand in the place of as many others."""
    shorter = min(len(before), len(after))
    start, end = 0, 0
    while start < shorter and before[start] == after[start]:
        start += 1
    while end < shorter - start and before[-1 - end] == after[-1 - end]:
        end += 1
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    if not old and not new:
        return []
    if not old or not new or len(old) * len(new) > DIFFERENCE_PAIRS_MAX:
        return [_block(start, start + len(old), start, start + len(new))]
    from difflib import SequenceMatcher  # Here, because every client names differences and few ask for one.

    codes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [_block(i + start, j + start, k + start, n + start) for tag, i, j, k, n in codes if tag != "equal"]


def _block(start: int, end: int, new_start: int, new_end: int) -> Block:
    return "paired" if end - start == new_end - new_start else "other", start, end, new_start, new_end


# --- Undoing ---------------------------------------------------------------------------------------------------------


def merge_rows(base: ObjectRow, wanted: ObjectRow, present: ObjectRow) -> ObjectRow:
    """The present object with what led from `wanted` to `base` taken back, as far as it still is as it was then."""
    deleted = wanted.deleted if present.deleted == base.deleted else present.deleted
    data, meta = merge(base.data, wanted.data, present.data), merge(base.meta, wanted.meta, present.meta)
    return ObjectRow(present.object_id, present.kind, present.type, deleted, present.source, present.target, meta, data)


def merge(base: Any, wanted: Any, present: Any) -> Any:
    """The present value with the same taken back; shares parts with its arguments."""
    if same_value(base, present):
        return wanted
    if same_value(base, wanted):
        return present
    match base, wanted, present:
        case dict(), dict(), dict():
            return _merge_maps(base, wanted, present)
        case list(), list(), list():
            return _merge_lists(base, wanted, present)
        case str(), str(), str():
            merged = _merge_sequences(list(base), list(wanted), list(present), base, wanted, present, pairing=False)
            return "".join(merged)
    return present


def _merge_maps(base: dict[str, Any], wanted: dict[str, Any], present: dict[str, Any]) -> dict[str, Any]:
    merged = {}
    for key in [*present, *(key for key in wanted if key not in present)]:
        had, want, has = (one.get(key, _ABSENT) for one in (base, wanted, present))
        value = merge(had, want, has) if _ABSENT not in (had, want, has) else _merge_absent(had, want, has)
        if value is not _ABSENT:
            merged[key] = value
    return merged


def _merge_absent(had: Any, want: Any, has: Any) -> Any:
    return want if _same(had, has) else has


def _same(one: Any, other: Any) -> bool:
    return one is other if _ABSENT in (one, other) else same_value(one, other)


def _merge_lists(base: list[Any], wanted: list[Any], present: list[Any]) -> list[Any]:
    return _merge_sequences(base, wanted, present, _hashable(base), _hashable(wanted), _hashable(present), pairing=True)


def _merge_sequences(
    base: list[Any],
    wanted: list[Any],
    present: list[Any],
    base_marks: Sequence[str],
    wanted_marks: Sequence[str],
    present_marks: Sequence[str],
    *,
    pairing: bool,
) -> list[Any]:
    """Both edits of `base` at once: what one of them removed is gone, what one of them inserted is there."""
    ours = _Edits(wanted, _blocks(base_marks, wanted_marks), pairing=pairing)
    theirs = _Edits(present, _blocks(base_marks, present_marks), pairing=pairing)
    merged: list[Any] = []
    for index in range(len(base) + 1):
        merged += ours.inserted.get(index, [])
        merged += theirs.inserted.get(index, [])
        if index == len(base):
            break
        want = _ABSENT if index in ours.removed else ours.changed.get(index, base[index])
        has = _ABSENT if index in theirs.removed else theirs.changed.get(index, base[index])
        # An element that somebody has removed stays so; one that somebody has changed is kept, though we removed it.
        if has is _ABSENT or (want is _ABSENT and index not in theirs.changed):
            continue
        merged.append(has if want is _ABSENT else merge(base[index], want, has))
    return merged


@final
class _Edits:
    """What one side did to a sequence, by the index in what it was."""

    __slots__ = ("changed", "inserted", "removed")

    def __init__(self, after: list[Any], blocks: list[Block], *, pairing: bool) -> None:
        self.removed: set[int] = set()
        self.changed: dict[int, Any] = {}
        self.inserted: dict[int, list[Any]] = {}
        for tag, start, end, new_start, new_end in blocks:
            if tag == "paired" and pairing:
                self.changed.update(zip(range(start, end), after[new_start:new_end], strict=True))
            else:
                self.removed.update(range(start, end))
                self.inserted[start] = after[new_start:new_end]


# --- As mutations ----------------------------------------------------------------------------------------------------


def to_mutations(present: ObjectRow, target: ObjectRow) -> tuple[Mutation, ...]:
    """What makes one state of an object of another, in pieces as small as they come; meta keys are never removed."""
    mutations = list(_mutations(present.data, target.data, ()))
    for key, value in target.meta.items():
        if key not in present.meta or not same_value(present.meta[key], value):
            mutations.append(SetMeta(key, value))
    if present.deleted != target.deleted:
        mutations.append(SetDeleted(target.deleted))
    return tuple(mutations)


def _mutations(present: Any, target: Any, path: Path) -> Iterator[Mutation]:
    if same_value(present, target):
        return
    match present, target:
        case dict(), dict():
            for key in present:
                if key not in target:
                    yield Delete((*path, key))
            for key, value in target.items():
                if key in present:
                    yield from _mutations(present[key], value, (*path, key))
                else:
                    yield Put((*path, key), value)
        case list(), list():
            # From the end, so that what is still to be changed stays at its place.
            for tag, start, end, new_start, new_end in reversed(_blocks(_hashable(present), _hashable(target))):
                if tag == "paired":
                    for offset in range(end - start):
                        here = (*path, start + offset)
                        yield from _mutations(present[start + offset], target[new_start + offset], here)
                    continue
                if end > start:
                    yield Remove(path, start, end - start)
                if new_end > new_start:
                    yield Insert(path, start, tuple(target[new_start:new_end]))
        case str(), str() if path:
            for _, start, end, new_start, new_end in reversed(_blocks(present, target)):
                yield Splice(path, start, end - start, target[new_start:new_end])
        case _:
            yield Put(path, target)
