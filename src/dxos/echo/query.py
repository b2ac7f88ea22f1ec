"""Which objects a reader wants, in which order: plain data that travels to the host, and its meaning over rows."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, final

from dxos import words
from dxos.echo.rows import Json, ObjectRow, Path, reference_dxn, same_value, value_at
from dxos.errors import DecodeError, InvalidValueError, UsageError
from dxos.limits import VALUE_DEPTH_MAX

Deleted = Literal["exclude", "include", "only"]
DELETED: tuple[Deleted, ...] = ("exclude", "include", "only")
Comparison = Literal["<", "<=", ">", ">="]
_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EXACT_INT: Final = 2**63  # Integers beyond are compared as SQL does: as floats.


class _Joinable:
    """Filters are joined by `&` and `|`, and turned around by `~`."""

    __slots__ = ()

    def __and__(self, other: Filter) -> And:
        return And((cast("Filter", self), other))

    def __or__(self, other: Filter) -> Or:
        return Or((cast("Filter", self), other))

    def __invert__(self) -> Not:
        return Not(cast("Filter", self))

    def __bool__(self) -> bool:
        # `a and b` would silently be `b`, and `1 < F.n < 3` only its second half.
        raise UsageError(
            "A filter is neither true nor false: join filters by & and |, not by `and`, `or` or `1 < F.n < 3`."
        )


@final
@dataclass(frozen=True, slots=True)
class Everything(_Joinable):
    """Matches every object."""


@final
@dataclass(frozen=True, slots=True)
class HasType(_Joinable):
    """Matches objects of a type: with its version exactly, without it in any version; None: without schema."""

    type: str | None  # `dxn:type:<name>` or `dxn:type:<name>:<version>`.


@final
@dataclass(frozen=True, slots=True)
class HasId(_Joinable):
    """Matches the objects of these ids."""

    object_ids: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class Equals(_Joinable):
    """Matches objects whose value at a path of `data` equals this one; 1 equals 1.0; None also matches no value."""

    path: Path
    value: Json


@final
@dataclass(frozen=True, slots=True)
class Compare(_Joinable):
    """Matches objects whose number or text at a path is smaller or greater than this; text goes by code point."""

    path: Path
    comparison: Comparison
    value: int | float | str


@final
@dataclass(frozen=True, slots=True)
class OneOf(_Joinable):
    """Matches objects whose value at a path equals one of these, as `Equals` has it."""

    path: Path
    values: tuple[Json, ...]


@final
@dataclass(frozen=True, slots=True)
class Contains(_Joinable):
    """Matches objects with a list at a path that has this value, or a text that has this text in it."""

    path: Path
    value: Json


@final
@dataclass(frozen=True, slots=True)
class Missing(_Joinable):
    """Matches objects that have nothing at a path, not even null."""

    path: Path


@final
@dataclass(frozen=True, slots=True)
class Matches(_Joinable):
    """Matches objects in whose texts at and below a path a search of `dxos.words` finds all it asks for."""

    path: Path  # Empty: all texts of the object.
    search: str


@final
@dataclass(frozen=True, slots=True)
class Refers(_Joinable):
    """Matches objects that refer to one of these, anywhere or at (or in a list at) a path."""

    path: Path | None
    dxns: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class HasSource(_Joinable):
    """Matches relations that begin at one of these."""

    dxns: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class HasTarget(_Joinable):
    """Matches relations that end at one of these."""

    dxns: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class And(_Joinable):
    """Matches what all of these match."""

    filters: tuple[Filter, ...]


@final
@dataclass(frozen=True, slots=True)
class Or(_Joinable):
    """Matches what at least one of these matches."""

    filters: tuple[Filter, ...]


@final
@dataclass(frozen=True, slots=True)
class Not(_Joinable):
    """Matches what this one does not."""

    filter: Filter


Filter = (
    Everything
    | HasType
    | HasId
    | Equals
    | Compare
    | OneOf
    | Contains
    | Missing
    | Matches
    | Refers
    | HasSource
    | HasTarget
    | And
    | Or
    | Not
)


@final
@dataclass(frozen=True, slots=True)
class Order:
    """Sort by the value at a path of `data`: none or null first, then numbers, then texts, then the rest."""

    path: Path
    descending: bool = False


@final
@dataclass(frozen=True, slots=True)
class Query:
    """A filter, and what of its matches is wanted; ties, and the order where none is given, go by object id.

    With a search, its best finds come first where no order is given; how good one is only the host can tell.
    """

    filter: Filter = Everything()
    deleted: Deleted = "exclude"
    order: tuple[Order, ...] = ()
    limit: int | None = None  # At least 0.
    offset: int = 0
    search: str = ""  # Also only what this finds, in all texts of the object.

    def to_wire(self) -> dict[str, Any]:
        """The query as JSON-able data."""
        return {
            "filter": to_wire(self.filter),
            "deleted": self.deleted,
            "order": [[list(order.path), order.descending] for order in self.order],
            "limit": self.limit,
            "offset": self.offset,
            "search": self.search,
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
                "search": str(search),
            } if (limit is None or limit >= 0) and offset >= 0:
                orders = tuple(map(_order, order))
                return cls(
                    from_wire(filter_), cast(Deleted, deleted), orders, limit, offset, _search(search) if search else ""
                )
        raise DecodeError("Not a query.")


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
        case Compare(path, comparison, value):
            return ["compare", list(path), comparison, value]
        case OneOf(path, values):
            return ["in", list(path), list(values)]
        case Contains(path, value):
            return ["contains", list(path), value]
        case Missing(path):
            return ["missing", list(path)]
        case Matches(path, search):
            return ["matches", list(path), search]
        case Refers(place, dxns):
            return ["refers", None if place is None else list(place), list(dxns)]
        case HasSource(dxns):
            return ["source", list(dxns)]
        case HasTarget(dxns):
            return ["target", list(dxns)]
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
        raise DecodeError("A filter nested too deep.")
    match untrusted:
        case ["everything"]:
            return Everything()
        case ["type", None | str() as type_]:
            return HasType(type_)
        case ["id", list(ids)] if all(isinstance(one, str) for one in ids):
            return HasId(tuple(ids))
        case ["equals", list(path), None | bool() | int() | float() | str() | list() | dict() as value]:
            return Equals(_path(path), value)
        case ["compare", list(path), "<" | "<=" | ">" | ">=" as comparison, int() | float() | str() as value] if (
            not isinstance(value, bool) and (not isinstance(value, float) or math.isfinite(value))
        ):
            return Compare(_path(path), comparison, value)
        case ["in", list(path), list(values)]:
            return OneOf(_path(path), tuple(values))
        case ["contains", list(path), None | bool() | int() | float() | str() | dict() as value]:
            return Contains(_path(path), value)
        case ["missing", list(path)]:
            return Missing(_path(path))
        case ["matches", list(path), str(search)]:
            return Matches(_path(path), _search(search))
        case ["refers", None | list() as place, list(dxns)]:
            return Refers(None if place is None else _path(place), _texts(dxns))
        case ["source", list(dxns)]:
            return HasSource(_texts(dxns))
        case ["target", list(dxns)]:
            return HasTarget(_texts(dxns))
        case ["and", list(filters)]:
            return And(tuple(from_wire(one, depth=depth + 1) for one in filters))
        case ["or", list(filters)]:
            return Or(tuple(from_wire(one, depth=depth + 1) for one in filters))
        case ["not", inner]:
            return Not(from_wire(inner, depth=depth + 1))
    raise DecodeError("Not a filter.")


def _path(untrusted: list[Any]) -> Path:
    if len(untrusted) > VALUE_DEPTH_MAX or not all(type(step) in (str, int) for step in untrusted):
        raise DecodeError("Not a path.")
    return tuple(untrusted)


def _texts(untrusted: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(one, str) for one in untrusted):
        raise DecodeError("Not a list of texts.")
    return tuple(untrusted)


def _search(untrusted: str) -> str:
    try:
        words.parse(untrusted)
    except InvalidValueError as error:
        raise DecodeError("Not a search.") from error
    return untrusted


def _order(untrusted: object) -> Order:
    match untrusted:
        case [list(path), bool(descending)]:
            return Order(_path(path), descending)
    raise DecodeError("Not an order.")


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
            return _equal(value_at(row.data, path), value)
        case Compare(path, comparison, value):
            return _compared(value_at(row.data, path), comparison, value)
        case OneOf(path, values):
            found = value_at(row.data, path)
            return any(_equal(found, value) for value in values)
        case Contains(path, value):
            return _contained(value_at(row.data, path), value)
        case Missing(path):
            return _missing(row.data, path)
        case Matches(path, search):
            return words.found(search, value_at(row.data, path))
        case Refers(None, dxns):
            return any(one in dxns for one in references_in(row.data))
        case Refers(path, dxns):
            assert path is not None, "None was handled"
            found = value_at(row.data, path)
            return any(reference_dxn(one) in dxns for one in (found if isinstance(found, list) else [found]))
        case HasSource(dxns):
            return row.source in dxns
        case HasTarget(dxns):
            return row.target in dxns
        case And(filters):
            return all(matches(one, row) for one in filters)
        case Or(filters):
            return any(matches(one, row) for one in filters)
        case Not(inner):
            return not matches(inner, row)


def _unversioned(type_dxn: str) -> str:
    return type_dxn.rpartition(":")[0]


def _equal(found: object, value: object) -> bool:
    return same_value(_comparable(found), _comparable(value))


def _compared(found: object, comparison: Comparison, value: int | float | str) -> bool:
    match found:
        case bool():
            return False
        case int() | float() if not isinstance(value, str):
            return _COMPARISONS[comparison](as_number(found), as_number(value))
        case str() if isinstance(value, str):
            return _COMPARISONS[comparison](found, value)
    return False


def as_number(value: int | float) -> int | float:
    """The number as SQL knows it: an integer of more than 64 bits is a float."""
    if isinstance(value, int) and not -_EXACT_INT <= value < _EXACT_INT:
        return math.copysign(math.inf, value) if value.bit_length() > 1_023 else float(value)
    return value


def _contained(found: object, value: object) -> bool:
    if isinstance(found, list):
        return any(_equal(one, value) for one in found)
    return isinstance(found, str) and isinstance(value, str) and value in found


def _missing(data: dict[str, Any], path: Path) -> bool:
    *above, last = path or ("",)
    holder = value_at(data, tuple(above))
    if isinstance(holder, list):
        return not (isinstance(last, int) and 0 <= last < len(holder))
    return not (isinstance(holder, dict) and last in holder)


def references_in(value: object) -> Iterable[str]:
    """Every DXN that is referred to inside a value."""
    rest = [value]
    while rest:
        one = rest.pop()
        dxn = reference_dxn(one)
        if dxn is not None:
            yield dxn
        elif isinstance(one, dict):
            rest.extend(one.values())
        elif isinstance(one, list):
            rest.extend(one)


def _comparable(value: object) -> object:
    """A whole float as an int, because JavaScript and SQL do not tell them apart."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def wants(query: Query, row: ObjectRow) -> bool:
    """Whether the row is a match, of which order and limit may still leave it out."""
    if query.deleted != "include" and row.deleted != (query.deleted == "only"):
        return False
    return matches(query.filter, row) and (not query.search or words.found(query.search, row.data))


def select(query: Query, rows: Iterable[ObjectRow]) -> list[ObjectRow]:
    """The rows that a query wants, in its order; a search's finds are all as good."""
    found = [row for row in rows if wants(query, row)]
    found.sort(key=lambda row: sort_key(query, row))
    end = None if query.limit is None else query.offset + query.limit
    return found[query.offset : end]


SortKey = tuple[Any, ...]


def sort_key(query: Query, row: ObjectRow) -> SortKey:
    """What puts rows into the query's order."""
    ranks = (
        (_Reversed(rank) if order.descending else rank)
        for order, rank in ((order, _rank(value_at(row.data, order.path))) for order in query.order)
    )
    return (*ranks, row.object_id)


@final
@dataclass(frozen=True, slots=True)
class _Reversed:
    rank: tuple[int, float, str]

    def __lt__(self, other: _Reversed) -> bool:
        return other.rank < self.rank


def _rank(value: object) -> tuple[int, float, str]:
    match value:
        case None:
            return 0, 0, ""
        case bool() | int() | float():
            return 1, value, ""
        case str():
            return 2, 0, value
    return 3, 0, ""
