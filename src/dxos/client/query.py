"""Queries: asked once, or followed as the objects change."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, cast, final

from typing_extensions import TypeVar

from dxos.aio import Subscription
from dxos.client.object import EchoObject
from dxos.client.observable import call_logged
from dxos.client.results import Results
from dxos.client.state import core_of
from dxos.echo.query import Deleted, Everything, Order, matches, select
from dxos.echo.query import Query as PlainQuery
from dxos.echo.rows import ObjectRow
from dxos.errors import DxosError

if TYPE_CHECKING:
    from dxos.client.database import Database

T = TypeVar("T", bound=EchoObject, default=EchoObject)

_log = logging.getLogger("dxos.client")


@final
@dataclass(frozen=True, slots=True)
class QueryUpdate(Generic[T]):
    """What a query's subscriber is told."""

    objects: tuple[T, ...]  # All results now, in the query's order.
    added: tuple[T, ...] = ()
    removed: tuple[T, ...] = ()
    changed: tuple[T, ...] = ()  # Results before and now, with another content.


@final
class Query(Generic[T]):
    """A question to the database; immutable, and nothing is asked before `run`, `first`, `count` or `subscribe`."""

    __slots__ = ("_database", "_query")

    def __init__(self, database: Database, query: PlainQuery) -> None:
        self._database, self._query = database, query

    @property
    def plain(self) -> PlainQuery:
        """The question as a value, for the host."""
        return self._query

    def order_by(self, *names: str, descending: bool = False) -> Query[T]:
        """The same objects, sorted by properties; a dot goes into nested maps: `shop.aisle`."""
        orders = tuple(Order(tuple(name.split(".")), descending) for name in names)
        return Query(self._database, replace(self._query, order=(*self._query.order, *orders)))

    def limit(self, count: int) -> Query[T]:
        """At most so many of the same objects."""
        return Query(self._database, replace(self._query, limit=count))

    def offset(self, count: int) -> Query[T]:
        """Without the first so many."""
        return Query(self._database, replace(self._query, offset=count))

    def deleted(self, which: Deleted) -> Query[T]:
        """With removed objects ("include"), or of them alone ("only")."""
        return Query(self._database, replace(self._query, deleted=which))

    async def run(self) -> Results[T]:
        """All results, own edits included; what they refer to is loaded too."""
        return Results(cast(list[T], await self._database.execute(self._query)))

    async def to_dicts(self) -> list[dict[str, Any]]:
        """All results as plain data for data-frame libraries: `id` and the properties of each."""
        return (await self.run()).to_dicts()

    async def first(self) -> T | None:
        """The first result, or None."""
        limit = 1 if self._query.limit is None else min(self._query.limit, 1)
        return next(iter(await Query[T](self._database, replace(self._query, limit=limit)).run()), None)

    async def count(self) -> int:
        """How many results there are."""
        return await self._database.count(self._query)

    def __aiter__(self) -> AsyncIterator[T]:
        return _Results(self)

    def subscribe(self, callback: Callable[[QueryUpdate[T]], object]) -> Subscription:
        """Have `callback` called with the results soon, and again after each change of them, whoever made it.

        Only changed objects are looked at; own edits of one turn make one call.
        """
        return self._database.follow(self._query, callback)

    def __repr__(self) -> str:
        return f"<Query {self._query!r:.100}>"


@final
class _Results(AsyncIterator[T]):
    """Results one by one; no generator, which trio complains about when a loop is left early."""

    def __init__(self, query: Query[T]) -> None:
        self._query = query
        self._rest: Iterator[T] | None = None

    async def __anext__(self) -> T:
        if self._rest is None:
            self._rest = iter(await self._query.run())
        for target in self._rest:
            return target
        raise StopAsyncIteration


@final
class LiveQuery:
    """One subscription: the matches, and the results, which are a part of them where there is a limit."""

    def __init__(self, database: Database, query: PlainQuery, callback: Callable[[QueryUpdate[Any]], object]) -> None:
        self._database, self._query, self._callback = database, query, callback
        self._matches: dict[str, EchoObject] = {}
        self._results: tuple[EchoObject, ...] = ()
        self._begun = False
        self._early: dict[str, EchoObject] = {}  # Changed before the first results were there.
        self.active = True

    async def begin(self) -> None:
        """Ask the host once; from there on only changes matter."""
        try:
            found = await self._database.execute(replace(self._query, limit=None, offset=0))
        except DxosError as error:
            # The space was closed in between; when it opens, its rows come as changes.
            _log.warning("A query could not be followed from its start: %s", error)
            found = []
        if not self.active:
            return
        self._begun = True
        candidates = {target.id: target for target in found} | self._early
        self._early = {}
        self._matches = {one.id: one for one in candidates.values() if self.wants(core_of(one).row())}
        self._results = self._select()
        call_logged(self._callback, QueryUpdate(self._results, added=self._results))

    def wants(self, row: ObjectRow) -> bool:
        """Whether the query matches a row."""
        row, deleted = self._database.named(row), self._query.deleted
        return (deleted == "include" or row.deleted == (deleted == "only")) and matches(self._query.filter, row)

    def consider(self, changed: Sequence[EchoObject]) -> None:
        """Look at changed objects, and tell the subscriber if the results are others now."""
        if not self._begun:
            self._early.update((target.id, target) for target in changed)
            return
        touched = set()
        for target in changed:
            core = core_of(target)
            if core.home is self._database and core.loaded and self.wants(core.row()):
                self._matches[target.id] = target
                touched.add(target.id)
            elif self._matches.pop(target.id, None) is not None:
                touched.add(target.id)
        if not touched:
            return
        before = {target.id: target for target in self._results}
        self._results = self._select()
        now = {target.id for target in self._results}
        update = QueryUpdate(
            self._results,
            added=tuple(target for target in self._results if target.id not in before),
            removed=tuple(target for one, target in before.items() if one not in now),
            changed=tuple(target for target in self._results if target.id in touched and target.id in before),
        )
        if self.active and (update.added or update.removed or update.changed):
            call_logged(self._callback, update)

    def _select(self) -> tuple[EchoObject, ...]:
        query = self._query
        if not query.order and query.limit is None and not query.offset:
            return tuple(self._matches[one] for one in sorted(self._matches))
        rows = (core_of(target).row() for target in self._matches.values())
        # Whether they match is known already.
        chosen = select(replace(query, filter=Everything(), deleted="include"), rows)
        return tuple(self._matches[row.object_id] for row in chosen)
