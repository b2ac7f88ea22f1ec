"""What a reader of the database sees of one object: a row of plain data, without the CRDT behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, final

from dxos.errors import DecodeError

JsonScalar = None | bool | int | float | str
# `Any` inside, because a recursive alias makes every read of a nested value a cast.
Json = JsonScalar | list[Any] | dict[str, Any]
Path = tuple[str | int, ...]  # Where a value is inside an object's `data`: map keys and list indexes.
Kind = Literal["object", "relation"]

KINDS: tuple[Kind, ...] = ("object", "relation")
REFERENCE_KEY = "/"  # A map with this one key, and a DXN as its value, is a reference.


@final
@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One object as it is at one moment; its `data` is shared with other readers and must not be changed."""

    object_id: str  # 26 characters.
    kind: Kind = "object"
    type: str | None = None  # `dxn:type:<name>:<version>`; None for an object without schema.
    deleted: bool = False
    source: str | None = None  # The DXN where a relation begins.
    target: str | None = None  # The DXN where a relation ends.
    meta: dict[str, Any] = field(default_factory=dict)  # `{"keys": [{"source", "id"}]}` and what peers added.
    data: dict[str, Any] = field(default_factory=dict)  # What the application stored; references are {"/": DXN}.

    def to_wire(self) -> dict[str, Any]:
        """The row as JSON-able data."""
        return {
            "id": self.object_id,
            "kind": self.kind,
            "type": self.type,
            "deleted": self.deleted,
            "source": self.source,
            "target": self.target,
            "meta": self.meta,
            "data": self.data,
        }

    @classmethod
    def from_wire(cls, untrusted: object) -> ObjectRow:
        """Rebuild a row from `to_wire`'s data.

        Raises:
            DecodeError: A missing field, or one of the wrong type.
        """
        match untrusted:
            case {
                "id": str(object_id),
                "kind": "object" | "relation" as kind,
                "type": None | str() as type_,
                "deleted": bool(deleted),
                "source": None | str() as source,
                "target": None | str() as target,
                "meta": dict(meta),
                "data": dict(data),
            }:
                return cls(object_id, cast(Kind, kind), type_, deleted, source, target, meta, data)
        raise DecodeError("Not a row of an object.")


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
