"""`--where`: a condition as a person types it, such as `year >= 1990` or `tags contains rare`.

    FIELD = VALUE            also !=, <, <=, >, >=
    FIELD in VALUE, VALUE    also not in
    FIELD between VALUE and VALUE
    FIELD contains VALUE     a list with this value, or a text with this text in it
    FIELD startswith TEXT    FIELD matches WORDS
    FIELD is null            also is not null, is missing, exists

A field is a name; `a.b` goes inside, `a[0]` is an element, and a name with other characters stands in quotes. A value
is JSON, or else a text; what begins with a quote or a bracket must be JSON.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast, final

from dxos import words
from dxos.errors import InvalidValueError, UsageError

if TYPE_CHECKING:
    from dxos.client.fields import Field
    from dxos.echo.query import Comparison, Filter

_SPACES: Final = re.compile(r"\s*")
_NAME: Final = re.compile(r'[^\s.\[\]"=<>!]+')
_INDEX: Final = re.compile(r"\[(\d{1,9})\]")
_SIGN: Final = re.compile(r"[=<>!]+")
_WORD: Final = re.compile(
    r"(not\s+in|in|between|contains|startswith|matches|is\s+not\s+null|is\s+null|is\s+missing|exists)(?!\w)", re.I
)
_END: Final = re.compile(r"\s*\Z")
_ONLY: Final = (_END, "the end, or quotes around the whole text")
_COMMA: Final = re.compile(r"\s*(?:,|\Z)")
_AND: Final = re.compile(r"\s+and\s+", re.I)
_OPERATORS: Final = (
    "=, !=, <, <=, >, >=, in, not in, between, contains, startswith, matches, "
    "is null, is not null, is missing or exists"
)
_FOUND_CHARS_MAX: Final = 20
_SHOWN_CHARS_MAX: Final = 80


def parse_condition(text: str) -> Filter:
    """The filter that a person has typed.

    Raises:
        UsageError: It is none; the message says at which character, and what is expected there.
    """
    return _Reader(text, "--where").condition()


def parse_field(text: str) -> Field:
    """The property that a person has named, to sort by.

    Raises:
        UsageError: It is no name.
    """
    reader = _Reader(text, "--order-by")
    found = reader.field()
    reader.end()
    return found


@final
class _Reader:
    """Reads one condition from left to right."""

    def __init__(self, text: str, option: str) -> None:
        self._text, self._option, self._at = text, option, 0
        self._skip()

    def condition(self) -> Filter:
        from dxos.client.fields import path_of
        from dxos.echo.query import Compare, Contains, Equals, Not, OneOf

        field = self.field()
        self._skip()
        path, operator = path_of(field), self._operator()
        self._skip()
        match operator:
            case "is null":
                found: Filter = Equals(path, None)
            case "is not null":
                found = Not(Equals(path, None))
            case "is missing":
                found = field.is_missing()
            case "exists":
                found = field.exists()
            case "=" | "==":
                found = Equals(path, self._only_value())
            case "!=":
                found = Not(Equals(path, self._only_value()))
            case "in":
                found = OneOf(path, self._values())
            case "not in":
                found = Not(OneOf(path, self._values()))
            case "contains":
                found = Contains(path, self._only_value())
            case "startswith":
                found = field.startswith(self._only_text())
            case "matches":
                found = field.matches(self._search())
            case "between":
                low = self._ordered(_AND, "and, as in: between 1 and 9", closes=True)
                self._skip()
                found = field.between(low, self._ordered(*_ONLY, closes=False))
            case _:
                found = Compare(path, cast("Comparison", operator), self._ordered(*_ONLY, closes=False))
        self.end()
        return found

    def field(self) -> Field:
        from dxos.client.fields import F

        field = F[self._step()]
        while True:
            index = _INDEX.match(self._text, self._at)
            if index is not None:
                self._at = index.end()
                field = field[int(index[1])]
            elif self._text.startswith(".", self._at):
                self._at += 1
                field = field[self._step()]
            else:
                return field

    def end(self) -> None:
        if _END.match(self._text, self._at) is None:
            self._refuse("the end")

    def _step(self) -> str:
        if self._text.startswith('"', self._at):
            name = self._json("the name of a property")
            assert isinstance(name, str), "it begins with a quote"
            return name
        found = _NAME.match(self._text, self._at)
        if found is None:
            self._refuse("the name of a property")
        self._at = found.end()
        return found[0]

    def _operator(self) -> str:
        found = _SIGN.match(self._text, self._at)
        if found is not None and found[0] not in ("=", "==", "!=", "<", "<=", ">", ">="):
            found = None
        found = found or _WORD.match(self._text, self._at)
        if found is None:
            self._refuse(_OPERATORS)
        self._at = found.end()
        return " ".join(found[0].lower().split())

    def _only_value(self) -> Any:
        return self._value(*_ONLY, closes=False)

    def _ordered(self, ending: re.Pattern[str], expected: str, *, closes: bool) -> int | float | str:
        """A number or a text, which are all that has an order."""
        begun = self._at
        value = self._value(ending, expected, closes=closes)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            self._at = begun
            self._refuse("a number or a text, which have an order")
        return value

    def _only_text(self) -> str:
        """What is left, as a text also if it looks like a number."""
        begun = self._at
        value = self._only_value()
        return value if isinstance(value, str) else self._text[begun:].strip()

    def _search(self) -> str:
        """What is left, as it is: quotes mean something in a search."""
        text = self._text[self._at :].rstrip()
        try:
            words.parse(text)
        except InvalidValueError:
            self._refuse("words to search for")
        self._at += len(text)
        return text

    def _values(self) -> tuple[Any, ...]:
        if self._text.startswith("[", self._at):
            return tuple(self._json("a list, or values with commas between them"))
        values: list[Any] = []
        while not values or self._text[: self._at].rstrip().endswith(","):
            self._skip()
            values.append(self._value(_COMMA, "a comma or the end", closes=True))
        return tuple(values)

    def _value(self, ending: re.Pattern[str], expected: str, *, closes: bool) -> Any:
        """One value and what ends it, which is passed over if it `closes`."""
        if self._text[self._at : self._at + 1] in ('"', "[", "{"):
            value = self._json("JSON")
            found = ending.match(self._text, self._at)
        else:
            found = ending.search(self._text, self._at)
            if found is not None:
                value = self._plain(self._text[self._at : found.start()])
        if found is None:
            self._refuse(expected)
        self._at = found.end() if closes else found.start()
        return value

    def _plain(self, text: str) -> Any:
        if not text:
            self._refuse('a value; "" is the empty text')
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return text

    def _json(self, expected: str) -> Any:
        try:
            value, self._at = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(self._text, self._at)
        except (ValueError, RecursionError):
            self._refuse(f"{expected}, which is not complete here")
        return value

    def _skip(self) -> None:
        found = _SPACES.match(self._text, self._at)
        assert found is not None, "it matches nothing too"
        self._at = found.end()

    def _refuse(self, expected: str) -> NoReturn:
        rest = self._text[self._at :].strip()
        if rest:
            self._skip()
        shown = rest if len(rest) <= _FOUND_CHARS_MAX else rest[: _FOUND_CHARS_MAX - 1] + "…"
        instead = f", not {shown!r}" if rest else ""
        place = f"{self._option} {self._text!r:.{_SHOWN_CHARS_MAX}}, character {self._at + 1}"
        raise UsageError(f"{place}: expected {expected}{instead}.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
