"""What a query asks of an object's row, as data, and its translation to SQL.

Equality is decided on canonical JSON text.  `objects.py` writes every row with one set of options, so a scalar has one
spelling (a number two: 1 and 1.0, and zero also -0.0), and SQLite gives the text at a path back as it was written when
asked for it twice: json_extract(data, p, p) is '["milk","milk"]', and '[null,null]' for nothing at all.  That is exact
where comparing extracted values is not: booleans are no integers, a NUL does not end a string, no number is rounded.
What SQLite's paths cannot spell in every version, and maps of several keys, whose order is free, go through
`property_text`, a function in Python that costs about 4 us a row.  Comparisons and the rest are SQL where SQL is exact,
and `holds`, in Python, where it is not.

Indexes are on `key_sql`: one expression, by which rows are sorted too.  What it gives is nearly the value (SQLite
rounds numbers and ends text at a NUL, both without changing the order), so where there is an index a looser bound on
it goes before the exact condition, and rows that only meet the bound are dropped by the latter.
"""

import contextlib
import json
import math
import operator
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

from msgspec import Struct

from dxos import words
from dxos.errors import InvalidValueError
from dxos.limits import CONDITION_DEPTH_MAX, CONDITION_TERMS_MAX, VALUE_DEPTH_MAX
from dxos.store.database import Parameter

Path = tuple[str | int, ...]
Json = str | int | float | bool | None | list[Any] | dict[str, Any]
PROPERTY_FUNCTION: Final = "dxos_property"
HOLDS_FUNCTION: Final = "dxos_holds"
Comparison = Literal["<", "<=", ">", ">="]
_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_INT_MAX: Final = 2**63 - 1
_EXACT_MAX: Final = 2**53  # Whole numbers up to this are the same as floats.
_NUL: Final = "\\u0000"  # As rows spell it.
_INDEX_MAX: Final = 2**31 - 1  # SQLite's path parser wraps beyond 32 bits.


class Equals(Struct, frozen=True):
    """The value at `path` in the object's data is `value`; None also means that there is none.

    True and 1 differ, 1 and 1.0 do not (but within a list or map they do), NaN equals nothing.
    """

    path: Path  # Names of properties, and indexes of lists from 0; up to VALUE_DEPTH_MAX steps.
    value: Json


class Compare(Struct, frozen=True):
    """The value at `path` is a number, or a text, as `value` is, and stands so to it; true and false are no numbers."""

    path: Path
    comparison: Comparison
    value: int | float | str


class OneOf(Struct, frozen=True):
    """The value at `path` equals one of these."""

    path: Path
    values: tuple[Json, ...]


class Contains(Struct, frozen=True):
    """The value at `path` is a list that has this value, or a text that has this text in it."""

    path: Path
    value: Json


class Missing(Struct, frozen=True):
    """There is nothing at `path`, not even null."""

    path: Path


class Matches(Struct, frozen=True):
    """The texts at and below `path` have what a search of `dxos.words` asks for; needs the index of words."""

    path: Path
    search: str


class Refers(Struct, frozen=True):
    """The object refers to one of these, anywhere or at (or in a list at) `path`."""

    path: Path | None
    dxns: tuple[str, ...]


class LinkIs(Struct, frozen=True):
    """The object is a relation with one of these at this end."""

    end: Literal["source", "target"]
    dxns: tuple[str, ...]


class TypeIs(Struct, frozen=True):
    """The object has this type, or, if that names no version, any version of it; None: it has none."""

    type: str | None  # `dxn:type:<name>:<version>` or `dxn:type:<name>`.


class IdIn(Struct, frozen=True):
    """The object's id is one of these."""

    ids: tuple[str, ...]


class Deleted(Struct, frozen=True):
    """Which of the deleted objects are meant."""

    which: Literal["exclude", "include", "only"]


class And(Struct, frozen=True):
    """All of them hold; so none is true."""

    terms: tuple["Condition", ...]


class Or(Struct, frozen=True):
    """One of them holds; so none is false."""

    terms: tuple["Condition", ...]


class Not(Struct, frozen=True):
    """The other does not hold."""

    term: "Condition"


# The second term is a name that has one more part, its version; types are few, so no index is needed.
TYPES_NAMED: Final = (
    "SELECT types.number FROM types, (SELECT ? AS whole, ? AS stem) AS wanted WHERE types.name = wanted.whole OR"
    " (substr(types.name, 1, length(stem)) = stem AND instr(substr(types.name, length(stem) + 1), ':') = 0)"
)

Condition = (
    Equals | Compare | OneOf | Contains | Missing | Matches | Refers | LinkIs | TypeIs | IdIn | Deleted | And | Or | Not
)


class Order(Struct, frozen=True):
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
        raise InvalidValueError("A value that JSON cannot hold.") from error
    return text


def to_sql(
    condition: Condition, indexed: Container[Path] = (), types: Callable[[str], list[int]] | None = None
) -> tuple[str, list[Parameter]]:
    """An SQL expression over the columns of `objects` that is 0 or 1, never NULL, and its parameters.

    Args:
        condition: What is asked.
        indexed: The paths for which there is an index.
        types: The numbers of the types that a name means; None leaves that to SQL.

    Raises:
        InvalidValueError: It has more terms, is deeper, or has a longer path than the limits allow.
    """
    parameters: list[Parameter] = []
    budget = CONDITION_TERMS_MAX
    # SQLite looks up one bound of each side only: where there is another, none of our own may come before it.
    ranges = {
        (term.path, isinstance(term.value, str), term.comparison[0] == "<")
        for term in _conjuncts(condition)
        if isinstance(term, Compare)
    }

    def equals(path: Path, values: Sequence[Json]) -> str:
        texts = list(dict.fromkeys(spelling for value in values for spelling in _spellings(value)))
        place = None if any(map(_has_free_order, values)) else sqlite_path(path)
        if place is None:
            parameters.append(canonical_json(path))
            text = f"{PROPERTY_FUNCTION}(objects.data, ?)"
        else:
            parameters.extend((place, place))
            text = "json_extract(objects.data, ?, ?)"
        parameters.extend(f"[{spelling},{spelling}]" for spelling in texts)
        return f"{text} IN ({', '.join('?' * len(texts))})"

    def held(kind: str, path: Path, arguments: list[Any]) -> str:
        parameters.append(canonical_json([kind, list(path), *arguments]))
        return f"{HOLDS_FUNCTION}(objects.data, ?)"

    def refers(dxns: tuple[str, ...]) -> str:
        parameters.append(canonical_json(list(dxns)))
        return (
            "objects.number IN (SELECT object FROM object_references WHERE target IN (SELECT value FROM json_each(?)))"
        )

    def bounded(path: Path, values: Sequence[Json], text: str) -> str:
        place = sqlite_path(path) if path in indexed else None
        bounds = [] if place is None else [_equals_bound(value) for value in values]
        if place is None or not bounds or len(bounds) > _BOUNDS_MAX or None in bounds:
            return text
        key, before = key_sql(place), text.count("?")
        known = [one for one in bounds if one is not None]
        loose = [parameter for _, those in known for parameter in those]
        # What is looked up comes first in the text.
        parameters[len(parameters) - before : len(parameters) - before] = loose
        if all(spelled == "= ?" for spelled, _ in known):
            return f"({key} IN ({', '.join('?' * len(known))}) AND {text})"
        return f"({_join(' OR ', '0', [f'{key} {spelled}' for spelled, _ in known])} AND {text})"

    def compare(path: Path, place: str, comparison: Comparison, value: int | float | str) -> str:
        if isinstance(value, str):
            parameters.extend((place, place, value))
            exactly = held("compare", path, [comparison, value])
            return (
                f"(json_type(objects.data, ?) IS 'text' AND CASE WHEN instr(objects.data, '{_NUL}') = 0"
                f" THEN json_extract(objects.data, ?) {comparison} ? ELSE {exactly} END)"
            )
        number = as_number(value)
        low, high = _around(number)
        is_less = int(comparison[0] == "<")
        parameters.extend((place, place, place, number, place, low, place, high))
        exactly = held("compare", path, [comparison, value])
        return (
            "(coalesce(json_type(objects.data, ?) IN ('integer', 'real'), 0) AND CASE"
            f" WHEN typeof(json_extract(objects.data, ?)) = 'integer' THEN json_extract(objects.data, ?) {comparison} ?"
            f" WHEN json_extract(objects.data, ?) < ? THEN {is_less}"
            f" WHEN json_extract(objects.data, ?) > ? THEN {1 - is_less} ELSE {exactly} END)"
        )

    def translate(condition: Condition, depth: int) -> str:
        nonlocal budget
        budget -= 1
        if budget < 0 or depth > CONDITION_DEPTH_MAX:
            raise InvalidValueError(
                "The query is too large.", terms_max=CONDITION_TERMS_MAX, depth_max=CONDITION_DEPTH_MAX
            )
        match condition:
            case Equals(path, value):
                return bounded(path, [value], equals(path, [value]))
            case OneOf(path, values):
                budget -= len(values)
                return bounded(path, values, equals(path, values))
            case Compare(path, comparison, value):
                place = sqlite_path(path)
                if place is None:
                    return held("compare", path, [comparison, value])
                bound = _compare_bound(comparison, value) if path in indexed else None
                text = compare(path, place, comparison, value)
                if bound is None:
                    return text
                operator_, loose = bound
                # The bound's parameter comes first in the text.
                count = text.count("?")
                parameters.insert(len(parameters) - count, loose)
                key, is_text, is_less = key_sql(place), isinstance(value, str), comparison[0] == "<"
                lookup = f"{key} {operator_} ?"
                if (path, is_text, not is_less) not in ranges and (is_text or not is_less):
                    # Numbers lie before texts and these before the rest, so the other side needs an end too.
                    lookup += f" AND {key} " + (">= ''" if is_less else "< x''" if is_text else "< ''")
                return f"({lookup} AND {text})"
            case Contains(path, value):
                if isinstance(value, str):
                    parameters.append(canonical_json(value)[1:-1])
                    return f"(instr(objects.data, ?) > 0 AND {held('contains', path, [value])})"
                return held("contains", path, [value])
            case Missing(path):
                place = sqlite_path(path)
                if place is None:
                    return held("missing", path, [])
                parameters.append(place)
                return "(json_type(objects.data, ?) IS NULL)"
            case Matches(path, search):
                parameters.append(words_sql(search))
                text = "objects.number IN (SELECT rowid FROM object_words WHERE object_words MATCH ?)"
                return f"({text} AND {held('matches', path, [search])})" if path else f"({text})"
            case Refers(path, dxns):
                text = refers(dxns)
                kind, place_ = ("mentions", ()) if path is None else ("refers", path)
                return f"({text} AND {held(kind, place_, list(dxns))})"
            case LinkIs(end, dxns):
                parameters.append(canonical_json(list(dxns)))
                column = f"objects.{end}"
                return f"({column} IS NOT NULL AND {column} IN (SELECT value FROM json_each(?)))"  # noqa: S608
            case TypeIs(None):
                return "objects.type IS NULL"
            case TypeIs(str(name)) if types is None:
                parameters.extend((name, name + ":"))
                return f"(objects.type IS NOT NULL AND objects.type IN ({TYPES_NAMED}))"
            case TypeIs(str(name)):
                assert types is not None, "the case above is for None"
                numbers = types(name)
                parameters.extend(numbers)
                # One number lets an index also give the order.
                among = "= ?" if len(numbers) == 1 else f"IN ({', '.join('?' * len(numbers))})"
                # The sign keeps the first term from being looked up, as a range, instead of the second.
                return f"(+objects.type IS NOT NULL AND objects.type {among})"
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
        raise InvalidValueError("No condition.")

    return translate(condition, 0), parameters


def order_to_sql(orders: Sequence[Order]) -> tuple[str, list[Parameter]]:
    """What follows ORDER BY, with the object's id last so that equal values keep one order."""
    parameters: list[Parameter] = []
    terms = []
    for order in orders:
        place = sqlite_path(order.path)
        key = ""
        if place is not None:
            key = key_sql(place)
        else:
            parameters += [canonical_json(order.path)] * 3
            source = f"{PROPERTY_FUNCTION}(objects.data, ?)"
            key = _key(source, "'$[0]'")
        terms.append(f"{key} {'DESC' if order.descending else 'ASC'}")
    return ", ".join([*terms, "objects.id"]), parameters


def key_sql(place: str, column: str = "objects.data") -> str:
    """What rows are sorted and indexed by: nothing and null, numbers, text, and last an empty blob for all the rest.

    Args:
        place: A path as `sqlite_path` spells it; it is a part of the statement, because an index is on an expression
            without parameters.
        column: Where the data is.
    """
    literal = place.replace("'", "''")
    return _key(column, f"'{literal}'")


def _key(source: str, literal: str) -> str:
    # Among the rest their ids decide, not the text that they would be extracted as.  A damaged row has a key too, or it
    # could not even be replaced.
    return (
        f"CASE WHEN NOT json_valid({source}) THEN NULL"
        f" WHEN json_type({source}, {literal}) IN ('array', 'object') THEN x''"
        f" ELSE json_extract({source}, {literal}) END"
    )


def indexable(condition: Condition | None, orders: Sequence[Order]) -> list[Path]:
    """The paths an index on which would help, the most useful first."""
    found: dict[Path, int] = {}
    for term in _conjuncts(condition):
        match term:
            case Equals(path, value) if _equals_bound(value) is not None:
                found[path] = min(found.get(path, 9), 0 if value is not None else 3)
            case OneOf(path, values) if 0 < len(values) <= _BOUNDS_MAX and None not in map(_equals_bound, values):
                found[path] = min(found.get(path, 9), 1)
            case Compare(path, comparison, value) if _compare_bound(comparison, value) is not None:
                found[path] = min(found.get(path, 9), 2)
    paths = sorted(found, key=lambda path: found[path])
    if orders:
        paths.append(orders[0].path)
    return [path for path in dict.fromkeys(paths) if path and sqlite_path(path) is not None]


def is_narrow(condition: Condition | None) -> bool:
    """Whether the condition says by ids, references, links or words which few rows it can be about."""
    return any(isinstance(term, IdIn | Refers | LinkIs | Matches) for term in _conjuncts(condition))


def about(condition: Condition | None, paths: Container[Path], *, by: tuple[type[Condition], ...]) -> list[Condition]:
    """The parts of a condition, all of which hold, that are on these paths or of these kinds."""
    return [
        term
        for term in _conjuncts(condition)
        if isinstance(term, by) or (isinstance(term, Equals | OneOf | Compare) and term.path in paths)
    ]


def searches(condition: Condition | None) -> bool:
    """Whether the condition needs the index of words."""
    match condition:
        case Matches():
            return True
        case And(terms) | Or(terms):
            return any(map(searches, terms))
        case Not(term):
            return searches(term)
    return False


def type_of(condition: Condition | None) -> str | None:
    """The type that all matches have; None if the condition does not say."""
    return next((term.type for term in _conjuncts(condition) if isinstance(term, TypeIs)), None)


def _conjuncts(condition: Condition | None) -> Iterator[Condition]:
    match condition:
        case And(terms):
            for term in terms:
                yield from _conjuncts(term)
        case None:
            pass
        case _:
            yield condition


def words_sql(search: str) -> str:
    """A search as FTS5 has it; words are letters and digits, so nothing in them needs care."""
    phrases = (f'"{" ".join(one.words)}"{" *" if one.prefix else ""}' for one in words.parse(search))
    return " AND ".join(phrases)


def words_of(data: str) -> str:
    """The words of a row for the index; a mark, which is no word, keeps phrases within one text."""
    return " \u00b6 ".join(" ".join(words.split(text)) for text in words.texts_in(json.loads(data)))


def as_number(value: int | float) -> int | float:
    """The number as SQL knows it: an integer of more than 64 bits is a float."""
    if isinstance(value, int) and not -_INT_MAX - 1 <= value <= _INT_MAX:
        return math.copysign(math.inf, value) if value.bit_length() > 1_023 else float(value)
    return value


def holds(data: str, test: str) -> int:
    """Whether a row meets one condition, exactly; what `held` spells."""
    kind, path, arguments = _test(test)
    missing, value = _follow(json.loads(data), path)
    match kind:
        case "compare":
            comparison, limit = arguments
            if isinstance(limit, str) or isinstance(value, bool) or not isinstance(value, int | float):
                return int(isinstance(limit, str) and isinstance(value, str) and _COMPARISONS[comparison](value, limit))
            return int(_COMPARISONS[comparison](as_number(value), as_number(limit)))
        case "contains":
            return int(_contains(value, arguments[0]))
        case "matches":
            return int(words.found(arguments[0], value))
        case "refers":
            these = value if isinstance(value, list) else [value]
            return int(any(_refers(one, arguments) for one in these))
        case "mentions":
            return int(_mentions(value, arguments))
    assert kind == "missing", "every test has a name"
    return int(missing)


def _refers(value: object, dxns: Container[object]) -> bool:
    return isinstance(value, dict) and len(value) == 1 and value.get("/") in dxns


def _mentions(value: object, dxns: Container[object]) -> bool:
    if _refers(value, dxns):
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_mentions(one, dxns) for one in inner)


@lru_cache(maxsize=64)
def _test(test: str) -> tuple[str, list[Any], list[Any]]:
    kind, path, *arguments = json.loads(test)
    return kind, path, arguments


def _contains(value: object, wanted: object) -> bool:
    if isinstance(value, list):
        spellings = _spellings(wanted)  # type: ignore[arg-type]
        return any(canonical_json(one, sort_keys=True) in spellings for one in value)
    return isinstance(value, str) and isinstance(wanted, str) and wanted in value


def _follow(value: Any, path: Iterable[str | int]) -> tuple[bool, Any]:
    """Whether there is nothing at a path, and what there is."""
    for step in path:
        match value, step:
            case dict(), str() if step in value:
                value = value[step]
            case list(), int() if 0 <= step < len(value):
                value = value[step]
            case _:
                return True, None
    return False, value


def property_text(data: str, path: str) -> str:
    """The canonical text at a path, twice, in a list, as json_extract gives it, but with the keys of maps sorted."""
    missing, value = _follow(json.loads(data), json.loads(path))
    if missing:
        return "[null,null]"
    text = canonical_json(value, sort_keys=True)
    return f"[{text},{text}]"


_BOUNDS_MAX: Final = 32  # Values of one condition that are looked up one by one.


def _around(number: int | float) -> tuple[float, float]:
    """Bounds between which SQLite may have read a number that is this one."""
    if math.isinf(number):
        return number, number
    slack = abs(number) * 2.0**-50 + 2.0**-1_000
    return float(number) - slack, float(number) + slack


def _equals_bound(value: Json) -> tuple[str, list[Parameter]] | None:
    """What an index finds all rows with that value by, and perhaps others; None if it cannot."""
    match value:
        case None:
            return "IS NULL", []
        case bool():
            return "= ?", [int(value)]
        case int() | float():
            number = as_number(value)
            if abs(number) <= _EXACT_MAX and number == int(number):
                return "= ?", [int(number)]
            if not math.isfinite(number):
                return None
            return "BETWEEN ? AND ?", list(_around(number))
        case str():
            return "= ?", [value.partition("\0")[0]]
    return None


def _compare_bound(comparison: Comparison, value: int | float | str) -> tuple[str, Parameter] | None:
    is_less = comparison[0] == "<"
    if isinstance(value, str):
        return f"{comparison[0]}=", value.partition("\0")[0] if not is_less else value
    number = as_number(value)
    if not math.isfinite(number):
        return None
    low, high = _around(number)
    return f"{comparison[0]}=", high if is_less else low


def _join(operator: str, empty: str, terms: list[str]) -> str:
    return f"({operator.join(terms)})" if terms else empty


def sqlite_path(path: Path) -> str | None:
    """The path as SQLite writes it; None if a step needs escapes or wraps, which SQLite's versions read differently."""
    if len(path) > VALUE_DEPTH_MAX:
        raise InvalidValueError("The path of a property is too long.", steps_max=VALUE_DEPTH_MAX)
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
