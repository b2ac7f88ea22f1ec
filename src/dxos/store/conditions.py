"""What a query asks of an object's row, as data, and its translation to SQL.

Equality is decided on canonical JSON text.  `objects.py` writes every row with one set of options, so a scalar has one
spelling (a number two: 1 and 1.0, and zero also -0.0), and SQLite gives the text at a path back as it was written when
asked for it twice: json_extract(data, p, p) is '["milk","milk"]', and '[null,null]' for nothing at all.  That is exact
where comparing extracted values is not: booleans are no integers, a NUL does not end a string, no number is rounded.
What SQLite's paths cannot spell in every version, and maps of several keys, whose order is free, go through
`property_text`, a function in Python that costs about 4 us a row.
"""

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from dxos.errors import InvalidValueError
from dxos.limits import CONDITION_DEPTH_MAX, CONDITION_TERMS_MAX, VALUE_DEPTH_MAX
from dxos.store.database import Parameter

Path = tuple[str | int, ...]
Json = str | int | float | bool | None | list[Any] | dict[str, Any]
PROPERTY_FUNCTION: Final = "dxos_property"
_INDEX_MAX: Final = 2**31 - 1  # SQLite's path parser wraps beyond 32 bits.


@dataclass(frozen=True, slots=True)
class Equals:
    """The value at `path` in the object's data is `value`; None also means that there is none.

    True and 1 differ, 1 and 1.0 do not (but within a list or map they do), NaN equals nothing.
    """

    path: Path  # Names of properties, and indexes of lists from 0; up to VALUE_DEPTH_MAX steps.
    value: Json


@dataclass(frozen=True, slots=True)
class TypeIs:
    """The object has this type, or, if that names no version, any version of it; None: it has none."""

    type: str | None  # `dxn:type:<name>:<version>` or `dxn:type:<name>`.


@dataclass(frozen=True, slots=True)
class IdIn:
    """The object's id is one of these."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deleted:
    """Which of the deleted objects are meant."""

    which: Literal["exclude", "include", "only"]


@dataclass(frozen=True, slots=True)
class And:
    """All of them hold; so none is true."""

    terms: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of them holds; so none is false."""

    terms: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The other does not hold."""

    term: "Condition"


# The second term is a name that has one more part, its version; types are few, so no index is needed.
_TYPES_NAMED: Final = (
    "SELECT types.number FROM types, (SELECT ? AS whole, ? AS stem) AS wanted WHERE types.name = wanted.whole OR"
    " (substr(types.name, 1, length(stem)) = stem AND instr(substr(types.name, length(stem) + 1), ':') = 0)"
)

Condition = Equals | TypeIs | IdIn | Deleted | And | Or | Not


@dataclass(frozen=True, slots=True)
class Order:
    """By the value at `path`: none and null, then numbers (true is 1), then text by code point, then the rest."""

    path: Path
    descending: bool = False


def canonical_json(value: object, *, sort_keys: bool = False) -> str:
    """The one spelling of `value` in a row, where the keys of maps keep their order unless they are sorted.

    Raises:
        InvalidValueError: NaN, an infinity, text that is not Unicode, a cycle, or a type JSON does not know.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=sort_keys)
        text.encode()
    except (ValueError, TypeError, RecursionError) as error:  # UnicodeEncodeError is a ValueError.
        raise InvalidValueError("a value that JSON cannot hold") from error
    return text


def to_sql(condition: Condition) -> tuple[str, list[Parameter]]:
    """An SQL expression over the columns of `objects` that is 0 or 1, never NULL, and its parameters.

    Raises:
        InvalidValueError: It has more terms, is deeper, or has a longer path than the limits allow.
    """
    parameters: list[Parameter] = []
    budget = CONDITION_TERMS_MAX

    def translate(condition: Condition, depth: int) -> str:
        nonlocal budget
        budget -= 1
        if budget < 0 or depth > CONDITION_DEPTH_MAX:
            raise InvalidValueError(
                "the query is too large", terms_max=CONDITION_TERMS_MAX, depth_max=CONDITION_DEPTH_MAX
            )
        match condition:
            case Equals(path, value):
                texts = _spellings(value)
                spelled = None if _has_free_order(value) else _sqlite_path(path)
                if spelled is None:
                    parameters.append(canonical_json(path))
                    text = f"{PROPERTY_FUNCTION}(objects.data, ?)"
                else:
                    parameters.extend((spelled, spelled))
                    text = "json_extract(objects.data, ?, ?)"
                parameters.extend(f"[{spelling},{spelling}]" for spelling in texts)
                return f"{text} IN ({', '.join('?' * len(texts))})"
            case TypeIs(None):
                return "objects.type IS NULL"
            case TypeIs(str(name)):
                parameters.extend((name, name + ":"))
                return f"(objects.type IS NOT NULL AND objects.type IN ({_TYPES_NAMED}))"
            case IdIn(ids):
                parameters.append(canonical_json(ids))
                return "objects.id IN (SELECT value FROM json_each(?))"
            case Deleted("exclude"):
                return "objects.deleted = 0"
            case Deleted("only"):
                return "objects.deleted = 1"
            case Deleted("include"):
                return "1"
            case And(terms):
                return _join(" AND ", "1", [translate(term, depth + 1) for term in terms])
            case Or(terms):
                return _join(" OR ", "0", [translate(term, depth + 1) for term in terms])
            case Not(term):
                return f"NOT ({translate(term, depth + 1)})"
        raise InvalidValueError("no condition")

    return translate(condition, 0), parameters


def order_to_sql(orders: Sequence[Order]) -> tuple[str, list[Parameter]]:
    """What follows ORDER BY, with the object's id last so that equal values keep one order."""
    parameters: list[Parameter] = []
    terms = []
    for order in orders:
        path = _sqlite_path(order.path)
        place: list[Parameter] = [path]
        source = "objects.data"
        if path is None:
            place = [canonical_json(order.path), "$[0]"]
            source = f"{PROPERTY_FUNCTION}(objects.data, ?)"
        direction = "DESC" if order.descending else "ASC"
        is_rest = f"coalesce(json_type({source}, ?) IN ('array', 'object'), 0)"
        # Among the rest their ids decide, not the text that they would be extracted as.
        value = f"CASE WHEN {is_rest} THEN NULL ELSE json_extract({source}, ?) END"
        terms += [f"{is_rest} {direction}", f"{value} {direction}"]
        parameters += place * 3
    return ", ".join([*terms, "objects.id"]), parameters


def property_text(data: str, path: str) -> str:
    """The canonical text at a path, twice, in a list, as json_extract gives it, but with the keys of maps sorted."""
    value: Any = json.loads(data)
    for step in json.loads(path):
        match value, step:
            case dict(), str() if step in value:
                value = value[step]
            case list(), int() if 0 <= step < len(value):
                value = value[step]
            case _:
                return "[null,null]"
    text = canonical_json(value, sort_keys=True)
    return f"[{text},{text}]"


def _join(operator: str, empty: str, terms: list[str]) -> str:
    return f"({operator.join(terms)})" if terms else empty


def _sqlite_path(path: Path) -> str | None:
    """The path as SQLite writes it; None if a step needs escapes or wraps, which SQLite's versions read differently."""
    if len(path) > VALUE_DEPTH_MAX:
        raise InvalidValueError("the path of a property is too long", steps_max=VALUE_DEPTH_MAX)
    spelled = "$"
    for step in path:
        if isinstance(step, int):
            if not 0 <= step <= _INDEX_MAX:
                return None
            spelled += f"[{step}]"
        elif not step or canonical_json(step) != f'"{step}"':
            return None
        else:
            spelled += f'."{step}"'
    return spelled


def _has_free_order(value: object) -> bool:
    """Whether equal values may have different texts because a map's keys may come in any order."""
    match value:
        case dict():
            return len(value) > 1 or any(map(_has_free_order, value.values()))
        case list():
            return any(map(_has_free_order, value))
    return False


def _spellings(value: Json) -> list[str]:
    """Every canonical text of a value equal to this one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [canonical_json(value, sort_keys=True)]
    if isinstance(value, float) and not math.isfinite(value):
        return []
    if value == 0:
        return ["0", "0.0", "-0.0"]
    texts = []
    if value == int(value):
        texts.append(canonical_json(int(value)))
    # A whole number may be stored as a float, if one is as exact.
    with contextlib.suppress(OverflowError):
        if float(value) == value:
            texts.append(repr(float(value)))
    return texts
