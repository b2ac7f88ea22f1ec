"""`F`: properties by name, and the filters that comparing them makes.

F.done == True          F.shop.aisle >= 3         F.tags.contains("dairy")
F.title.matches("milk*") & ~F.done.exists()       F["a name with spaces"] != None
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast, final

from dxos import words
from dxos.client.live import plain
from dxos.client.object import EchoObject
from dxos.client.state import core_of
from dxos.echo.query import (
    And,
    Compare,
    Comparison,
    Contains,
    Equals,
    Everything,
    Filter,
    HasId,
    HasSource,
    HasTarget,
    Matches,
    Missing,
    Not,
    OneOf,
    Or,
    Refers,
)
from dxos.echo.rows import Json, Path, reference
from dxos.errors import InvalidValueError, UsageError

_TEXT_MAX: Final = "\U0010ffff"
_ID: Final = ("id",)  # No property's name, so it means that of the object.


@final
class Field:
    """A property, or what is inside one: `F.shop.aisle`, `F.tags[0]`, `F["any name"]`.

    Comparing it makes a filter for `db.query`; join filters by `&` and `|`, turn them around by `~`. A name that is a
    method here, such as `matches`, is reached as an item: `F["matches"]`.
    """

    __slots__ = ("_path",)
    __hash__ = None  # type: ignore[assignment]  # Equal is what `==` makes a filter of.
    __iter__ = None  # Or indexes would make it look like an endless list.

    _path: Path

    def __init__(self, path: Path = ()) -> None:
        object.__setattr__(self, "_path", path)

    def __getattr__(self, name: str) -> Field:
        if name.startswith("_"):
            raise AttributeError(f"{name!r} is no free name; write F[{name!r}] for a property of that name")
        return Field((*self._path, name))

    def __getitem__(self, step: str | int) -> Field:
        if type(step) not in (str, int) or (isinstance(step, int) and step < 0):
            raise UsageError(f"A property has a name, and an element an index from 0: not {step!r:.80}.")
        return Field((*self._path, step))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"F.{name} stands for a property of any object; assign to an object's own: obj.{name}")

    def __eq__(self, other: object) -> Filter:  # type: ignore[override]
        """Has this value; None also where there is none. An object: refers to it."""
        return equality(self._named(), other)

    def __ne__(self, other: object) -> Filter:  # type: ignore[override]
        """Has another value, or none."""
        return Not(equality(self._named(), other))

    def __lt__(self, other: float | str) -> Filter:
        """Is a smaller number, or a text before this one."""
        return self._compare("<", other)

    def __le__(self, other: float | str) -> Filter:
        """Is a number up to this, or a text before or like this one."""
        return self._compare("<=", other)

    def __gt__(self, other: float | str) -> Filter:
        """Is a greater number, or a text after this one."""
        return self._compare(">", other)

    def __ge__(self, other: float | str) -> Filter:
        """Is a number from this, or a text after or like this one."""
        return self._compare(">=", other)

    def between(self, low: float | str, high: float | str) -> Filter:
        """Is from `low` to `high`, both included."""
        return And((self._compare(">=", low), self._compare("<=", high)))

    def in_(self, values: Iterable[Any]) -> Filter:
        """Has one of these values."""
        known = list(values)
        if self._path == _ID:
            return HasId(tuple(_object_id(one) for one in known))
        if any(isinstance(one, EchoObject) for one in known):
            return Or(tuple(equality(self._named(), one) for one in known))
        return OneOf(self._named(), tuple(_scalar(one) for one in known))

    def contains(self, value: Any) -> Filter:
        """Is a list with this value or object, or a text with this text in it, as it is spelled."""
        path = self._named()
        if isinstance(value, EchoObject):
            dxns = references_to(value)
            return And((Refers(None, dxns), Or(tuple(Contains(path, reference(one)) for one in dxns))))
        return Contains(path, _scalar(value))

    def startswith(self, text: str) -> Filter:
        """Is a text that begins like this."""
        return self.between(text, text + _TEXT_MAX)

    def matches(self, search: str) -> Filter:
        """Has these words in its text, or the texts inside it: `oat milk*`, `"in this order"`.

        All words must be there, in any order; case and accents do not matter, `*` stands for the rest of a word.
        `F.matches(…)` looks at all texts of an object.

        Raises:
            InvalidValueError: There is no word in it.
        """
        words.parse(search)
        return Matches(self._path, search)

    def is_missing(self) -> Filter:
        """Is not there; `F.x == None` also finds null."""
        return Missing(self._named())

    def exists(self) -> Filter:
        """Is there, be it null."""
        return Not(Missing(self._named()))

    def refers_to(self, target: EchoObject) -> Filter:
        """Refers to the object, itself or as an element; `F.refers_to(…)` looks at every property."""
        return Refers(self._path or None, references_to(target))

    def has_source(self, target: EchoObject) -> Filter:
        """`F.has_source(…)`: is a relation that begins at the object."""
        return HasSource(self._links(target))

    def has_target(self, target: EchoObject) -> Filter:
        """`F.has_target(…)`: is a relation that ends at the object."""
        return HasTarget(self._links(target))

    def _links(self, target: EchoObject) -> tuple[str, ...]:
        if self._path:
            raise UsageError("Source and target belong to a relation as a whole: F.has_source(…), F.has_target(…).")
        return references_to(target)

    def _named(self) -> Path:
        if not self._path:
            raise UsageError("Name a property: F.title == …")
        return self._path

    def _compare(self, comparison: Comparison, value: object) -> Filter:
        if self._path == _ID:
            raise UsageError("Ids have no order that says anything: F.id == …, F.id.in_(…).")
        known = _scalar(value)
        if isinstance(known, bool) or not isinstance(known, int | float | str):
            raise InvalidValueError(f"{self!r}: only numbers and texts have an order, not {value!r:.80}")
        return Compare(self._named(), comparison, known)

    def __contains__(self, value: object) -> bool:
        raise UsageError(f"Write {self!r}.contains(…): Python's `in` has to know the answer at once.")

    def __bool__(self) -> bool:
        raise UsageError(f"{self!r} stands for a property of any object, so it has no value: compare it.")

    def __repr__(self) -> str:
        steps = (f".{one}" if isinstance(one, str) and one.isidentifier() else f"[{one!r}]" for one in self._path)
        return "F" + "".join(steps)


F: Final = Field()


def equality(path: Path, value: Any) -> Filter:
    """The filter for a value at a path; an object stands for a reference to it, and `id` is the object's own."""
    if path == _ID:
        return HasId((_object_id(value),))
    if not isinstance(value, EchoObject):
        return Equals(path, _scalar(value))
    dxns = references_to(value)
    # The first term is found by an index, and the second says where.
    return And((Refers(None, dxns), Or(tuple(Equals(path, reference(one)) for one in dxns))))


def references_to(target: EchoObject) -> tuple[str, ...]:
    """Every form in which peers write a reference to an object."""
    home = core_of(target).home
    places = ("@",) if home is None else ("@", home.space_id)
    return tuple(f"dxn:echo:{place}:{target.id}" for place in places)


def path_of(field: str | Field) -> Path:
    """The path that a field, or a name with dots, means."""
    return tuple(field.split(".")) if isinstance(field, str) else field._named()


def joined(filters: Iterable[Filter], equalities: Mapping[str, Any]) -> Filter:
    """One filter for all of these."""
    both: list[Filter] = [*(one for one in filters if not isinstance(one, Everything))]
    both += [equality((name,), value) for name, value in equalities.items()]
    return both[0] if len(both) == 1 else And(tuple(both)) if both else Everything()


def _object_id(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidValueError(f"id: expected a text, not {value!r:.80}")
    return value


def _scalar(value: object) -> Json:
    stored = plain(value, None)
    if isinstance(stored, float) and not math.isfinite(stored):
        raise InvalidValueError(f"{value!r} equals nothing and has no order.")
    return cast("Json", stored)
