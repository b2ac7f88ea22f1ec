"""What a reader of the database sees of one object: a row of plain data, without the CRDT behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, final

from msgspec import Meta, Struct, field

from dxos.limits import VALUE_DEPTH_MAX

JsonScalar = None | bool | int | float | str
# `Any` inside, because a recursive alias makes every read of a nested value a cast.
Json = JsonScalar | list[Any] | dict[str, Any]
# Where a value is inside an object's `data`: map keys and list indexes.
Path = Annotated[tuple[str | int, ...], Meta(max_length=VALUE_DEPTH_MAX)]
Kind = Literal["object", "relation"]

KINDS: tuple[Kind, ...] = ("object", "relation")
REFERENCE_KEY = "/"  # A map with this one key, and a DXN as its value, is a reference.


@final
class ObjectRow(Struct, frozen=True, array_like=True):
    """One object as it is at one moment; its `data` is shared with other readers and must not be changed."""

    object_id: str  # 26 characters.
    kind: Kind = "object"
    type: str | None = None  # `dxn:type:<name>:<version>`; None for an object without schema.
    deleted: bool = False
    source: str | None = None  # The DXN where a relation begins.
    target: str | None = None  # The DXN where a relation ends.
    meta: dict[str, Any] = field(default_factory=dict)  # `{"keys": [{"source", "id"}]}` and what peers added.
    data: dict[str, Any] = field(default_factory=dict)  # What the application stored; references are {"/": DXN}.


def reference(dxn: str) -> dict[str, str]:
    """The value that refers to another object."""
    return {REFERENCE_KEY: dxn}


def reference_dxn(value: object) -> str | None:
    """The DXN that a value refers to, or None where the value is no reference."""
    if isinstance(value, Mapping) and len(value) == 1:
        dxn = value.get(REFERENCE_KEY)
        return dxn if isinstance(dxn, str) else None
    return None


def same_value(one: object, other: object) -> bool:
    """Whether two plain values are stored alike: unlike `==`, 1, 1.0 and True differ."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_value(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    return one == other


def value_at(data: object, path: Path) -> object:
    """The value at a path of plain data; None where there is none."""
    for step in path:
        if isinstance(data, dict):
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int) and 0 <= step < len(data):
            data = data[step]
        else:
            return None
    return data
