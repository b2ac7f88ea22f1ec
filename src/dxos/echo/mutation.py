"""What a client asks to change in one object, as plain data, and what that does to a plain copy of it.

The same list of mutations is applied twice: at once to the client's copy (`apply_to_data`), and by the host to the
CRDT document (`dxos.echo.edit.apply`). A property test holds the two equal.
"""

from __future__ import annotations

import copy
import math
from typing import Any, final

from msgspec import Struct

from dxos.echo.rows import Json, ObjectRow, Path
from dxos.errors import InvalidValueError
from dxos.limits import SPLICE_JOINED_CHARS_MAX, VALUE_DEPTH_MAX

INTEGER_MAX = 2**53 - 1  # Larger ones are rounded by JavaScript peers.


class _Mutation(Struct, frozen=True, array_like=True, tag_field="kind"):
    """It travels as a list: its tag, then its fields."""


@final
class Put(_Mutation, frozen=True, tag="put"):
    """Set a map's key or a list's element; a text that becomes another text keeps its unchanged characters."""

    path: Path  # At least one step.
    value: Json


@final
class Delete(_Mutation, frozen=True, tag="delete"):
    """Remove a map's key; no change where there is no such key."""

    path: Path  # At least one step; the last is a map's key.


@final
class Insert(_Mutation, frozen=True, tag="insert"):
    """Insert values into a list."""

    path: Path  # Of the list.
    index: int  # 0 to the list's length.
    values: tuple[Json, ...]


@final
class Remove(_Mutation, frozen=True, tag="remove"):
    """Remove elements from a list."""

    path: Path  # Of the list.
    index: int
    count: int  # At least 0; all of them must exist.


@final
class Splice(_Mutation, frozen=True, tag="splice"):
    """Replace characters of a text; positions count Unicode code points."""

    path: Path  # Of the text.
    index: int
    delete_count: int
    text: str


@final
class SetDeleted(_Mutation, frozen=True, tag="deleted"):
    """Mark the object as deleted, or take the mark away."""

    deleted: bool


@final
class SetMeta(_Mutation, frozen=True, tag="meta"):
    """Set one key of the object's meta data, such as `keys`: the ids that other systems know the object by."""

    key: str
    value: Json


@final
class ChangeType(_Mutation, frozen=True, tag="type"):
    """Give the object another type, and with it some properties other values.

    Every value is written as a whole, and never as an edit of the text that was there: two peers who do the same at
    once make one object of the new type, and no text twice.
    """

    type: str  # `dxn:type:<name>:<version>`.
    values: dict[str, Any]  # Properties that are new or have another value.
    gone: tuple[str, ...] = ()  # Properties that are no more.


Mutation = Put | Delete | Insert | Remove | Splice | SetDeleted | SetMeta | ChangeType


def check_value(value: object, path: Path = ()) -> None:
    """Refuse what the database cannot store, before anything of it is stored.

    Args:
        value: Any Python value.
        path: Where it would be stored, for the message.

    Raises:
        InvalidValueError: Not JSON-like, not finite, too large, too deep or cyclic; names the path.
    """
    if value is None or isinstance(value, bool):
        return
    if len(path) > VALUE_DEPTH_MAX:
        # A cycle ends here too: walking it costs at most this depth.
        raise InvalidValueError(f"{_shown(path[:4])}… is nested more than {VALUE_DEPTH_MAX} deep.")
    match value:
        case str():
            _check_text(value, path)
        case int():
            if abs(value) > INTEGER_MAX:
                raise InvalidValueError(f"{_shown(path)}: an integer has at most 53 bits; store it as a text.")
        case float():
            if not math.isfinite(value):
                raise InvalidValueError(f"{_shown(path)}: {value} is not a number that can be stored.")
        case dict():
            for key, child in value.items():
                check_key(key, path)
                check_value(child, (*path, key))
        case list():
            for index, child in enumerate(value):
                check_value(child, (*path, index))
        case _:
            raise InvalidValueError(f"{_shown(path)}: a value of type {type(value).__name__} cannot be stored.")


def check_key(key: object, path: Path) -> None:
    """Refuse what cannot be a map's key.

    Raises:
        InvalidValueError: Not a str, empty, or with a lone surrogate.
    """
    if not isinstance(key, str) or not key:
        raise InvalidValueError(f"{_shown(path)}: a key is a text of at least one character, not {key!r:.40}")
    _check_text(key, path)


def _check_text(text: str, path: Path) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidValueError(f"{_shown(path)}: a text with a lone surrogate cannot be stored.") from None


def check(mutation: Mutation) -> None:
    """Refuse a mutation whose values cannot be stored or whose numbers are negative.

    Raises:
        InvalidValueError: Names the path.
    """
    match mutation:
        case Put(path, value):
            _check_path(path, steps_min=1)
            check_value(value, path)
        case Delete(path):
            _check_path(path, steps_min=1)
        case Insert(path, index, values):
            _check_path(path)
            _check_count(path, index)
            for offset, value in enumerate(values):
                check_value(value, (*path, index + offset))
        case Remove(path, index, count):
            _check_path(path)
            _check_count(path, index, count)
        case Splice(path, index, delete_count, text):
            _check_path(path)
            _check_count(path, index, delete_count)
            _check_text(text, path)
        case SetDeleted():
            pass
        case SetMeta(key, value):
            check_key(key, ("meta",))
            check_value(value, ("meta", key))
        case ChangeType(type_, values, gone):
            _check_text(type_, ())
            check_value(values)
            for key in gone:
                check_key(key, ())


def _check_path(path: Path, steps_min: int = 0) -> None:
    if len(path) < steps_min or len(path) > VALUE_DEPTH_MAX:
        raise InvalidValueError(f"A path has {steps_min} to {VALUE_DEPTH_MAX} steps.")
    for step in path:
        if isinstance(step, str):
            check_key(step, path)
        elif isinstance(step, bool) or step < 0:
            raise InvalidValueError(f"{_shown(path)}: an index is 0 or more.")


def _check_count(path: Path, *counts: int) -> None:
    if any(isinstance(count, bool) or count < 0 for count in counts):
        raise InvalidValueError(f"{_shown(path)}: an index or count is 0 or more.")


def joined(first: Mutation, second: Mutation) -> Splice | None:
    """The one mutation that does what two do, where the second goes on typing, or deleting, at the place of the first.

    Typing comes in single characters; sent as they are, each would cost as much as many.
    """
    if not isinstance(first, Splice) or not isinstance(second, Splice) or first.path != second.path:
        return None
    if len(first.text) + len(second.text) > SPLICE_JOINED_CHARS_MAX:
        return None
    if not second.delete_count and second.index == first.index + len(first.text):
        return Splice(first.path, first.index, first.delete_count, first.text + second.text)
    if not first.text and not second.text and second.index in (first.index, first.index - second.delete_count):
        return Splice(first.path, second.index, first.delete_count + second.delete_count, "")
    return None


def apply_to_data(data: dict[str, Any], mutations: list[Mutation] | tuple[Mutation, ...]) -> dict[str, Any]:
    """The data after the mutations; the given data is left as it was. `SetDeleted` and `SetMeta` change no data.

    Raises:
        InvalidValueError: A mutation that does not fit the data, or a value that cannot be stored.
    """
    changed = copy.deepcopy(data)
    for mutation in mutations:
        check(mutation)
        _apply(changed, mutation)
    return changed


def apply_to_row(row: ObjectRow, mutations: list[Mutation] | tuple[Mutation, ...]) -> ObjectRow:
    """The row after the mutations.

    Raises:
        InvalidValueError: A mutation that does not fit the data, or a value that cannot be stored.
    """
    deleted, meta, type_ = row.deleted, row.meta, row.type
    for mutation in mutations:
        match mutation:
            case SetDeleted(deleted):
                pass
            case SetMeta(key, value):
                meta = {**meta, key: copy.deepcopy(value)}
            case ChangeType(type_):
                pass
            case _:
                pass
    data = apply_to_data(row.data, mutations)
    return ObjectRow(row.object_id, row.kind, type_, deleted, row.source, row.target, meta, data)


def _apply(data: dict[str, Any], mutation: Mutation) -> None:
    match mutation:
        case Put(path, value):
            _put(data, path, copy.deepcopy(value))
        case Delete(path):
            parent = _at(data, path[:-1])
            if not isinstance(parent, dict) or not isinstance(path[-1], str):
                raise misfit(path, "no map")
            parent.pop(path[-1], None)
        case Insert(path, index, values):
            target = _at(data, path)
            if not isinstance(target, list) or index > len(target):
                raise misfit(path, "no list of that length")
            target[index:index] = copy.deepcopy(list(values))
        case Remove(path, index, count):
            target = _at(data, path)
            if not isinstance(target, list) or index + count > len(target):
                raise misfit(path, "no list of that length")
            del target[index : index + count]
        case Splice(path, index, delete_count, text):
            target = _at(data, path)
            if not path or not isinstance(target, str) or index + delete_count > len(target):
                raise misfit(path, "no text of that length")
            _put(data, path, target[:index] + text + target[index + delete_count :])
        case ChangeType(_, values, gone):
            for key in gone:
                data.pop(key, None)
            data |= copy.deepcopy(values)
        case SetDeleted() | SetMeta():
            pass


def _put(data: dict[str, Any], path: Path, value: Json) -> None:
    parent, step = _at(data, path[:-1]), path[-1]
    match parent, step:
        case (dict(), str()):
            parent[step] = value
        case (list(), int()) if step < len(parent):
            parent[step] = value
        case _:
            raise misfit(path, "no map or list with such a place")


def _at(data: Any, path: Path) -> Any:
    for count, step in enumerate(path):
        match data, step:
            case (dict(), str()) if step in data:
                data = data[step]
            case (list(), int()) if step < len(data):
                data = data[step]
            case _:
                raise misfit(path[: count + 1], "nothing")
    return data


def misfit(path: Path, found: str) -> InvalidValueError:
    """The error for a mutation that does not fit the object it is applied to."""
    return InvalidValueError(f"{_shown(path)}: there is {found} at this place.")


def _shown(path: Path) -> str:
    return ".".join(map(str, path))[:200] or "the object"
