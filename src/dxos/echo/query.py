"""Which objects a reader wants, in which order: plain data that travels to the host, and its meaning over rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast, final

from dxos.echo.rows import Json, ObjectRow, Path, same_value, value_at
from dxos.errors import DecodeError
from dxos.limits import VALUE_DEPTH_MAX

Deleted = Literal["exclude", "include", "only"]
DELETED: tuple[Deleted, ...] = ("exclude", "include", "only")


@final
@dataclass(frozen=True, slots=True)
class Everything:
    """Matches every object."""


@final
@dataclass(frozen=True, slots=True)
class HasType:
    """Matches objects of a type: with its version exactly, without it in any version; None: without schema."""

    type: str | None  # `dxn:type:<name>` or `dxn:type:<name>:<version>`.


@final
@dataclass(frozen=True, slots=True)
class HasId:
    """Matches the objects of these ids."""

    object_ids: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class Equals:
    """Matches objects whose value at a path of `data` equals this one; 1 equals 1.0; None also matches no value."""

    path: Path
    value: Json


@final
@dataclass(frozen=True, slots=True)
class And:
    """Matches what all of these match."""

    filters: tuple[Filter, ...]


@final
@dataclass(frozen=True, slots=True)
class Or:
    """Matches what at least one of these matches."""

    filters: tuple[Filter, ...]


@final
@dataclass(frozen=True, slots=True)
class Not:
    """Matches what this one does not."""

    filter: Filter


Filter = Everything | HasType | HasId | Equals | And | Or | Not


@final
@dataclass(frozen=True, slots=True)
class Order:
    """Sort by the value at a path of `data`: none or null first, then numbers, then texts, then the rest."""

    path: Path
    descending: bool = False


@final
@dataclass(frozen=True, slots=True)
class Query:
    """A filter, and what of its matches is wanted; ties, and the order where none is given, go by object id."""

    filter: Filter = Everything()
    deleted: Deleted = "exclude"
    order: tuple[Order, ...] = ()
    limit: int | None = None  # At least 0.
    offset: int = 0

    def to_wire(self) -> dict[str, Any]:
        """The query as JSON-able data."""
        return {
            "filter": to_wire(self.filter),
            "deleted": self.deleted,
            "order": [[list(order.path), order.descending] for order in self.order],
            "limit": self.limit,
            "offset": self.offset,
        }

    @classmethod
    def from_wire(cls, untrusted: object) -> Query:
        """Rebuild a query from `to_wire`'s data.

        Raises:
            DecodeError: A missing field, or one of the wrong type.
        """
        match untrusted:
            case {
                "filter": filter_,
                "deleted": "exclude" | "include" | "only" as deleted,
                "order": list(order),
                "limit": None | int() as limit,
                "offset": int(offset),
            } if (limit is None or limit >= 0) and offset >= 0:
                orders = tuple(map(_order, order))
                return cls(from_wire(filter_), cast(Deleted, deleted), orders, limit, offset)
        raise DecodeError("not a query")


def to_wire(filter: Filter) -> list[Any]:
    """The filter as a JSON-able list, its name first."""
    match filter:
        case Everything():
            return ["everything"]
        case HasType(type_):
            return ["type", type_]
        case HasId(object_ids):
            return ["id", list(object_ids)]
        case Equals(path, value):
            return ["equals", list(path), value]
        case And(filters):
            return ["and", list(map(to_wire, filters))]
        case Or(filters):
            return ["or", list(map(to_wire, filters))]
        case Not(inner):
            return ["not", to_wire(inner)]


def from_wire(untrusted: object, *, depth: int = 0) -> Filter:
    """Rebuild a filter from `to_wire`'s list.

    Raises:
        DecodeError: No such filter, an argument of the wrong type, or nested too deep.
    """
    if depth > VALUE_DEPTH_MAX:
        raise DecodeError("a filter nested too deep")
    match untrusted:
        case ["everything"]:
            return Everything()
        case ["type", None | str() as type_]:
            return HasType(type_)
        case ["id", list(ids)] if all(isinstance(one, str) for one in ids):
            return HasId(tuple(ids))
        case ["equals", list(path), None | bool() | int() | float() | str() | list() | dict() as value]:
            return Equals(_path(path), value)
        case ["and", list(filters)]:
            return And(tuple(from_wire(one, depth=depth + 1) for one in filters))
        case ["or", list(filters)]:
            return Or(tuple(from_wire(one, depth=depth + 1) for one in filters))
        case ["not", inner]:
            return Not(from_wire(inner, depth=depth + 1))
    raise DecodeError("not a filter")


def _path(untrusted: list[Any]) -> Path:
    if len(untrusted) > VALUE_DEPTH_MAX or not all(type(step) in (str, int) for step in untrusted):
        raise DecodeError("not a path")
    return tuple(untrusted)


def _order(untrusted: object) -> Order:
    match untrusted:
        case [list(path), bool(descending)]:
            return Order(_path(path), descending)
    raise DecodeError("not an order")


def matches(filter: Filter, row: ObjectRow) -> bool:
    """Whether the filter matches the row; whether it is deleted is the query's matter."""
    match filter:
        case Everything():
            return True
        case HasType(type_):
            return row.type == type_ or (type_ is not None and row.type is not None and _unversioned(row.type) == type_)
        case HasId(object_ids):
            return row.object_id in object_ids
        case Equals(path, value):
            found = value_at(row.data, path)
            return same_value(_comparable(found), _comparable(value))
        case And(filters):
            return all(matches(one, row) for one in filters)
        case Or(filters):
            return any(matches(one, row) for one in filters)
        case Not(inner):
            return not matches(inner, row)


def _unversioned(type_dxn: str) -> str:
    return type_dxn.rpartition(":")[0]


def _comparable(value: object) -> object:
    """A whole float as an int, because JavaScript and SQL do not tell them apart."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def select(query: Query, rows: Iterable[ObjectRow]) -> list[ObjectRow]:
    """The rows that a query wants, in its order."""
    found = [row for row in rows if _wanted(query.deleted, row) and matches(query.filter, row)]
    found.sort(key=lambda row: row.object_id)
    # The sort is stable, so the least important order goes first.
    for order in reversed(query.order):
        found.sort(key=lambda row, path=order.path: _rank(value_at(row.data, path)), reverse=order.descending)  # type: ignore[misc]
    end = None if query.limit is None else query.offset + query.limit
    return found[query.offset : end]


def _wanted(deleted: Deleted, row: ObjectRow) -> bool:
    return deleted == "include" or row.deleted == (deleted == "only")


def _rank(value: object) -> tuple[int, float, str]:
    match value:
        case None:
            return 0, 0, ""
        case bool() | int() | float():
            return 1, value, ""
        case str():
            return 2, 0, value
    return 3, 0, ""
