"""Which objects a reader wants, in which order: plain data that travels to the host, and its meaning over rows."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, Literal, cast, final

from msgspec import Meta, Struct

from dxos import words
from dxos.echo.rows import Json, ObjectRow, Path, reference_dxn, same_value, value_at
from dxos.errors import InvalidValueError, UsageError
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


class _Joinable(Struct, frozen=True, array_like=True, tag_field="kind"):
    """Filters are joined by `&` and `|`, and turned around by `~`."""

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
class Everything(_Joinable, frozen=True, tag="everything"):
    """Matches every object."""


@final
class HasType(_Joinable, frozen=True, tag="type"):
    """Matches objects of a type: with its version exactly, without it in any version; None: without schema."""

    type: str | None  # `dxn:type:<name>` or `dxn:type:<name>:<version>`.


@final
class HasId(_Joinable, frozen=True, tag="id"):
    """Matches the objects of these ids."""

    object_ids: tuple[str, ...]


@final
class Equals(_Joinable, frozen=True, tag="equals"):
    """Matches objects whose value at a path of `data` equals this one; 1 equals 1.0; None also matches no value."""

    path: Path
    value: Json


@final
class Compare(_Joinable, frozen=True, tag="compare"):
    """Matches objects whose number or text at a path is smaller or greater than this; text goes by code point."""

    path: Path
    comparison: Comparison
    value: int | float | str


@final
class OneOf(_Joinable, frozen=True, tag="in"):
    """Matches objects whose value at a path equals one of these, as `Equals` has it."""

    path: Path
    values: tuple[Json, ...]


@final
class Contains(_Joinable, frozen=True, tag="contains"):
    """Matches objects with a list at a path that has this value, or a text that has this text in it."""

    path: Path
    value: Json


@final
class Missing(_Joinable, frozen=True, tag="missing"):
    """Matches objects that have nothing at a path, not even null."""

    path: Path


@final
class Matches(_Joinable, frozen=True, tag="matches"):
    """Matches objects in whose texts at and below a path a search of `dxos.words` finds all it asks for."""

    path: Path  # Empty: all texts of the object.
    search: str


@final
class Refers(_Joinable, frozen=True, tag="refers"):
    """Matches objects that refer to one of these, anywhere or at (or in a list at) a path."""

    path: Path | None
    dxns: tuple[str, ...]


@final
class HasSource(_Joinable, frozen=True, tag="source"):
    """Matches relations that begin at one of these."""

    dxns: tuple[str, ...]


@final
class HasTarget(_Joinable, frozen=True, tag="target"):
    """Matches relations that end at one of these."""

    dxns: tuple[str, ...]


@final
class And(_Joinable, frozen=True, tag="and"):
    """Matches what all of these match."""

    filters: tuple[Filter, ...]


@final
class Or(_Joinable, frozen=True, tag="or"):
    """Matches what at least one of these matches."""

    filters: tuple[Filter, ...]


@final
class Not(_Joinable, frozen=True, tag="not"):
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
class Order(Struct, frozen=True, array_like=True):
    """Sort by the value at a path of `data`: none or null first, then numbers, then texts, then the rest."""

    path: Path
    descending: bool = False


@final
class Query(Struct, frozen=True, array_like=True):
    """A filter, and what of its matches is wanted; ties, and the order where none is given, go by object id.

    With a search, its best finds come first where no order is given; how good one is only the host can tell.
    """

    filter: Filter = Everything()
    deleted: Deleted = "exclude"
    order: tuple[Order, ...] = ()
    limit: Annotated[int, Meta(ge=0)] | None = None
    offset: Annotated[int, Meta(ge=0)] = 0
    search: str = ""  # Also only what this finds, in all texts of the object.

    def __post_init__(self) -> None:
        _check(self)


def _check(query: Query) -> None:
    """Refuse what cannot be searched for, whoever made the query."""
    if query.search:
        words.parse(query.search)
    level: list[Filter] = [query.filter]
    for _ in range(VALUE_DEPTH_MAX + 1):
        below: list[Filter] = []
        for one in level:
            match one:
                case And(filters) | Or(filters):
                    below += filters
                case Not(inner):
                    below.append(inner)
                case Matches(_, search):
                    words.parse(search)
                case Compare(_, _, float(value)) if not math.isfinite(value):
                    raise InvalidValueError(f"Nothing is smaller or greater than {value}.")
                case _:
                    pass
        if not below:
            return
        level = below
    raise InvalidValueError("A filter nested too deep.", depth_max=VALUE_DEPTH_MAX)


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
            inside = bool(path) and reference_dxn(value_at(row.data, path[:-1])) is not None
            return not inside and words.found(search, value_at(row.data, path))  # A reference is no text.
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
class _Reversed(Struct, frozen=True, array_like=True):
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
