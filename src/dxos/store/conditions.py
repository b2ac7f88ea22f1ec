"""What a query asks of an object's row, as data, and its translation to SQL.

Equality is decided on canonical JSON text.  `objects.py` writes every row with one set of options, so a scalar has one
spelling (a number at most three: 1, 1.0, and for zero -0.0), and SQLite gives the text at a path back as it was
written when asked for it twice: json_extract(data, p, p) is '["milk","milk"]', and '[null,null]' for nothing at all.
That is exact where comparing extracted values is not: booleans are no integers, a NUL does not end a string, and no
number is rounded on its way through.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from dxos.errors import InvalidValueError
from dxos.limits import CONDITION_DEPTH_MAX, CONDITION_TERMS_MAX, PATH_STEPS_MAX
from dxos.store.database import Parameter

Path = tuple[str | int, ...]
Scalar = str | int | float | bool | None
PROPERTY_FUNCTION: Final = "dxos_property"


@dataclass(frozen=True, slots=True)
class Equals:
    """The value at `path` in the object's data is `value`; None also means that there is none.

    True and 1 differ, 1 and 1.0 do not, NaN equals nothing.
    """

    path: Path  # Names of properties, and indexes of lists from 0; 1 to PATH_STEPS_MAX.
    value: Scalar


@dataclass(frozen=True, slots=True)
class TypeIs:
    """The object has this type; None: it has none."""

    type: str | None


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


Condition = Equals | TypeIs | IdIn | Deleted | And | Or | Not


@dataclass(frozen=True, slots=True)
class Order:
    """By the value at `path`: none and null first, then false, true and numbers, then text by code point."""

    path: Path
    descending: bool = False


def canonical_json(value: object) -> str:
    """The one spelling of `value` in a row.

    Raises:
        InvalidValueError: NaN, an infinity, text that is not Unicode, a cycle, or a type JSON does not know.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
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
                property_sql = property_text_sql(path, parameters)
                parameters.extend(f"[{text},{text}]" for text in texts)
                return f"{property_sql} IN ({', '.join('?' * len(texts))})"
            case TypeIs(None):
                return "objects.type IS NULL"
            case TypeIs(name):
                parameters.append(name)
                return "objects.type IS (SELECT coalesce(max(number), -1) FROM types WHERE name = ?)"
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
        if path is None:
            parameters.append(canonical_json(order.path))
            value = f"json_extract({PROPERTY_FUNCTION}(objects.data, ?), '$[0]')"
        else:
            parameters.append(path)
            value = "json_extract(objects.data, ?)"
        terms.append(f"{value} {'DESC' if order.descending else 'ASC'}")
    return ", ".join([*terms, "objects.id"]), parameters


def property_text_sql(path: Path, parameters: list[Parameter]) -> str:
    """An expression for the canonical text at `path`, twice, in a list; adds its parameters."""
    spelled = _sqlite_path(path)
    if spelled is None:
        parameters.append(canonical_json(path))
        return f"{PROPERTY_FUNCTION}(objects.data, ?)"
    parameters.extend((spelled, spelled))
    return "json_extract(objects.data, ?, ?)"


def property_text(data: str, path: str) -> str:
    """What `property_text_sql` gives, for the names that SQLite's paths cannot spell in every version."""
    value: Any = json.loads(data)
    for step in json.loads(path):
        match value, step:
            case dict(), str() if step in value:
                value = value[step]
            case list(), int() if step < len(value):
                value = value[step]
            case _:
                return "[null,null]"
    text = canonical_json(value)
    return f"[{text},{text}]"


def _join(operator: str, empty: str, terms: list[str]) -> str:
    return f"({operator.join(terms)})" if terms else empty


def _sqlite_path(path: Path) -> str | None:
    """The path as SQLite writes it; None if a name needs escapes, which SQLite's versions read differently."""
    if not 1 <= len(path) <= PATH_STEPS_MAX:
        raise InvalidValueError("a property's path has 1 to 32 steps", steps=len(path))
    spelled = "$"
    for step in path:
        if isinstance(step, int):
            if step < 0:
                raise InvalidValueError("an index of a list counts from 0", index=step)
            spelled += f"[{step}]"
        elif not step or canonical_json(step) != f'"{step}"':
            return None
        else:
            spelled += f'."{step}"'
    return spelled


def _spellings(value: Scalar) -> list[str]:
    """Every canonical text of a value equal to this one."""
    if value is None or isinstance(value, str | bool):
        return [canonical_json(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return []
    if value == 0:
        return ["0", "0.0", "-0.0"]
    texts = []
    if value == int(value):
        texts.append(str(int(value)))
    try:
        if float(value) == value:
            texts.append(repr(float(value)))
    except OverflowError:
        pass
    return texts
