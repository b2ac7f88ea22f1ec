"""Queries that are followed: who is told of what, at a cost that grows with what changed and not with how many follow.

changed object ──▶ LiveQueries: queries that hold it, and those it may match, by id, reference, value or type
                          └──▶ each LiveQuery: its place among the matches ──▶ callback, if the results differ
"""

from __future__ import annotations

import itertools
import logging
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, cast, final

from msgspec.structs import replace

from dxos.aio import Pace
from dxos.client.object import EchoObject
from dxos.client.observable import call_logged
from dxos.client.query import QueryUpdate
from dxos.client.state import core_of
from dxos.echo.query import (
    And,
    Equals,
    Filter,
    HasId,
    HasType,
    OneOf,
    Or,
    Refers,
    SortKey,
    references_in,
    sort_key,
    wants,
)
from dxos.echo.query import Query as PlainQuery
from dxos.echo.rows import ObjectRow, Path, value_at
from dxos.errors import DxosError

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
_Place = tuple[Any, ...]  # A kind of question and what it asks for: hashable.
_REST: Final[_Place] = ("rest",)
_ANYWHERE: Final[tuple[int, set[_Place]]] = (9, {_REST})

_log = logging.getLogger("dxos.client")


class Asked(Protocol):
    """What a live query asks of the database it follows."""

    async def execute(self, query: PlainQuery) -> list[EchoObject]:
        """The objects that a query finds."""
        ...


@final
class LiveQuery:
    """One subscription: the matches, sorted, and the results, which are a part of them where there is a limit.

    How good the finds of a search are only the host can tell, and each change may move them all: it is asked again,
    but only when an object has changed that is, was, or will be found.
    """

    def __init__(
        self,
        database: Asked,
        query: PlainQuery,
        callback: Callable[[QueryUpdate[Any]], object],
        spawn: Spawn,
        ended: Callable[[], object] | None = None,
    ) -> None:
        self._database, self._query, self._callback, self._spawn = database, query, callback, spawn
        self._ended = ended
        self._keys: list[SortKey] = []  # Of the matches, in order; an object's id is the last part of its key.
        self._matches: list[EchoObject] = []
        self._key_of: dict[str, SortKey] = {}
        self._results: tuple[EchoObject, ...] = ()
        self._early: dict[str, EchoObject] = {}  # Changed before the first results were there.
        self._ranked = bool(query.search) and not query.order
        self._asking = False
        self._touched: dict[str, EchoObject] = {}  # Changed since the host was asked.
        self.begun = False
        self.active = True

    async def begin(self) -> None:
        """Ask the host once; from there on only changes matter."""
        found = await self._ask(replace(self._query, limit=None, offset=0))
        pace = Pace()
        for target in found:
            self._place(target)
            if pace.is_due:
                await pace.rest()
        if not self.active:
            return
        self.begun = True
        early, self._early = self._early, {}
        for target in early.values():
            self._place(target)
        self._results = tuple(self._window(found)) if self._ranked and not early else self._select()
        call_logged(self._callback, QueryUpdate(self._results, added=self._results))
        if self._ranked and early:
            self._ask_again(early)

    async def _ask(self, query: PlainQuery) -> list[EchoObject]:
        try:
            return await self._database.execute(query)
        except DxosError as error:
            # The space was closed in between; when it opens, its rows come as changes.
            _log.warning("A query could not be followed from its start: %s", error)
            return []

    def end(self) -> None:
        """Nothing changes any more: the client is closed."""
        if self.active and self._ended is not None:
            call_logged(self._ended)

    @property
    def query(self) -> PlainQuery:
        """What is asked."""
        return self._query

    @property
    def filter(self) -> Filter:
        """What all matches meet."""
        return self._query.filter

    def rewritten(self, rewrite: Callable[[PlainQuery], PlainQuery]) -> bool:
        """Ask another way; whether it is another. What matches already goes on to."""
        before, self._query = self._query, rewrite(self._query)
        return self._query != before

    def wants(self, row: ObjectRow) -> bool:
        """Whether the query matches a row."""
        return wants(self._query, row)

    def holds(self, object_id: str) -> bool:
        """Whether an object was a match when it was last looked at."""
        return object_id in self._key_of

    def ids(self) -> Iterable[str]:
        """The ids of all matches."""
        return self._key_of.keys()

    def consider(self, changed: Sequence[EchoObject]) -> None:
        """Look at changed objects, and tell the subscriber if the results are others now."""
        if not self.begun:
            self._early.update((target.id, target) for target in changed)
            return
        held = {target.id for target in changed if self.holds(target.id)}
        touched = {target.id: target for target in changed if self._place(target) or target.id in held}
        if not touched:
            return
        if self._ranked:
            self._ask_again(touched)
            return
        before, self._results = self._results, self._select()
        if self._query.limit is None and not self._query.offset:
            now = sorted((one for one in touched if self.holds(one)), key=self._key_of.__getitem__)
            update = QueryUpdate(
                self._results,
                added=tuple(touched[one] for one in now if one not in held),
                removed=tuple(target for one, target in touched.items() if not self.holds(one)),
                changed=tuple(touched[one] for one in now if one in held),
            )
        else:
            update = difference(before, self._results, touched)
        self._tell(update)

    def _tell(self, update: QueryUpdate[Any]) -> None:
        if self.active and (update.added or update.removed or update.changed):
            call_logged(self._callback, update)

    def _place(self, target: EchoObject) -> bool:
        """Put an object in its place among the matches, or take it out; whether it is one."""
        object_id, core = target.id, core_of(target)
        key = self._key_of.pop(object_id, None)
        if key is not None:
            place = bisect_left(self._keys, key)
            del self._keys[place], self._matches[place]
        if core.home is not cast(object, self._database) or not core.loaded:
            return False
        row = core.row()
        if not self.wants(row):
            return False
        key = self._key_of[object_id] = sort_key(self._query, row)
        place = bisect_left(self._keys, key)
        self._keys.insert(place, key)
        self._matches.insert(place, target)
        return True

    def _select(self) -> tuple[EchoObject, ...]:
        return tuple(self._window(self._matches))

    def _window(self, matches: Sequence[EchoObject]) -> Sequence[EchoObject]:
        query = self._query
        return matches[query.offset : None if query.limit is None else query.offset + query.limit]

    # --- Searches ---

    def _ask_again(self, touched: Mapping[str, EchoObject]) -> None:
        self._touched.update(touched)
        if not self._asking:
            self._asking = True
            self._spawn(self._follow_host)

    async def _follow_host(self) -> None:
        try:
            while self._touched and self.active:
                touched, self._touched = self._touched, {}
                before, self._results = self._results, tuple(await self._ask(self._query))
                self._tell(difference(before, self._results, touched))
        finally:
            self._asking = False


def difference(
    before: Sequence[EchoObject], now: tuple[EchoObject, ...], touched: Mapping[str, EchoObject]
) -> QueryUpdate[Any]:
    """What has become of results, some of which have another content."""
    were, are = {target.id for target in before}, {target.id for target in now}
    return QueryUpdate(
        now,
        added=tuple(target for target in now if target.id not in were),
        removed=tuple(target for target in before if target.id not in are),
        changed=tuple(target for target in now if target.id in touched and target.id in were),
    )


@final
class LiveQueries:
    """All live queries of one database, found by what they ask for."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._known: dict[LiveQuery, int] = {}  # In the order of subscription.
        self._beginning: set[LiveQuery] = set()
        self._places: dict[_Place, set[LiveQuery]] = {}
        self._paths: dict[Path, int] = {}  # Properties that queries ask the value of, and how many do.
        self._referring = 0  # Queries that ask for references.

    def __len__(self) -> int:
        return len(self._known)

    def queries(self) -> list[PlainQuery]:
        """What all that have begun match, whatever part of it they show."""
        return [replace(one.query, limit=None, offset=0) for one in self._known if one.begun]

    def add(self, live: LiveQuery) -> None:
        """Follow changes for one more."""
        self._known[live] = next(self._numbers)
        self._beginning.add(live)
        for place in _places(live.filter):
            self._places.setdefault(place, set()).add(live)
            self._count(place, 1)

    def discard(self, live: LiveQuery) -> None:
        """Follow nothing for this one any more."""
        if self._known.pop(live, None) is None:
            return
        self._beginning.discard(live)
        for place in _places(live.filter):
            self._remove(place, live)
            self._count(place, -1)
        for object_id in live.ids():
            self._remove(("held", object_id), live)

    def end(self) -> None:
        """Tell those who asked for it that nothing changes any more."""
        for live in tuple(self._known):
            live.end()

    def rewrite(self, rewrite: Callable[[PlainQuery], PlainQuery]) -> None:
        """Ask another way, because more is known about types."""
        for live in tuple(self._known):
            before = _places(live.filter)
            if live.rewritten(rewrite):
                for place in before:
                    self._remove(place, live)
                    self._count(place, -1)
                for place in _places(live.filter):
                    self._places.setdefault(place, set()).add(live)
                    self._count(place, 1)

    def begun(self, live: LiveQuery) -> None:
        """The query knows its first matches."""
        self._beginning.discard(live)
        if live in self._known:
            for object_id in live.ids():
                self._places.setdefault(("held", object_id), set()).add(live)

    def wanted(self, row: ObjectRow) -> bool:
        """Whether any query matches a row."""
        return any(live.wants(row) for live in self._candidates(row))

    def consider(self, changed: Sequence[EchoObject]) -> None:
        """Show changed objects to the queries that may care."""
        shown: dict[LiveQuery, list[EchoObject]] = {}
        for target in changed:
            for live in self._candidates(core_of(target).row()):
                shown.setdefault(live, []).append(target)
        for live in sorted(shown, key=self._known.__getitem__):
            if live not in self._known:
                continue  # Ended by the callback of another.
            live.consider(shown[live])
            if live.begun and live in self._known:
                for target in shown[live]:
                    place = ("held", target.id)
                    if live.holds(target.id):
                        self._places.setdefault(place, set()).add(live)
                    else:
                        self._remove(place, live)

    def _candidates(self, row: ObjectRow) -> set[LiveQuery]:
        found = set(self._beginning)
        for place in self._places_of(row):
            found |= self._places.get(place, set())
        return found

    def _places_of(self, row: ObjectRow) -> Iterator[_Place]:
        yield _REST
        yield "held", row.object_id
        yield "id", row.object_id
        yield "type", row.type
        if row.type is not None:
            yield "type", row.type.rpartition(":")[0]
        for path in self._paths:
            value = value_at(row.data, path)
            if value is None or isinstance(value, bool | int | float | str):
                yield _value_place(path, value)
        if self._referring:
            for dxn in references_in(row.data):
                yield "reference", dxn

    def _count(self, place: _Place, by: int) -> None:
        match place:
            case ("value", tuple(path), *_):
                self._paths[path] = self._paths.get(path, 0) + by
                if not self._paths[path]:
                    del self._paths[path]
            case ("reference", _):
                self._referring += by

    def _remove(self, place: _Place, live: LiveQuery) -> None:
        there = self._places.get(place)
        if there is not None:
            there.discard(live)
            if not there:
                del self._places[place]


def _places(filter: Filter) -> set[_Place]:
    """Where to look for a query: no object elsewhere can match."""
    return _best_places(filter)[1]


def _best_places(filter: Filter) -> tuple[int, set[_Place]]:
    """The places, and how many objects may come to them: less is fewer."""
    match filter:
        case And(filters):
            return min(map(_best_places, filters), key=lambda one: one[0], default=_ANYWHERE)
        case Or(filters):
            parts = [_best_places(one) for one in filters]
            if not parts:
                return _ANYWHERE
            return max(rank for rank, _ in parts), set().union(*(places for _, places in parts))
        case HasId(object_ids):
            return 0, {("id", one) for one in object_ids}
        case Refers(_, dxns):
            return 1, {("reference", one) for one in dxns}
        case Equals(path, value) if value is None or isinstance(value, bool | int | float | str):
            return 5 if value is None else 2, {_value_place(path, value)}
        case OneOf(path, values) if not any(isinstance(one, list | dict) for one in values):
            return 3, {_value_place(path, one) for one in values}
        case HasType(type_):
            return 4, {("type", type_)}
    return _ANYWHERE


def _value_place(path: Path, value: object) -> _Place:
    # 1 and 1.0 are equal, as in queries, but True is not.
    return "value", path, "number" if type(value) is float else type(value).__name__.replace("int", "number"), value
