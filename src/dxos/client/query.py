"""Queries: asked once, or followed as the objects change."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, cast, final

import anyio
import anyio.lowlevel
from msgspec.structs import replace
from typing_extensions import TypeVar

from dxos import words
from dxos.aio import Subscription
from dxos.client.fields import Field, joined, path_of
from dxos.client.object import EchoObject
from dxos.client.results import Results
from dxos.echo.query import Deleted, Filter, Order
from dxos.echo.query import Query as PlainQuery
from dxos.errors import UsageError
from dxos.services.contract import QueryPlan

T = TypeVar("T", bound=EchoObject, default=EchoObject)


@final
@dataclass(frozen=True, slots=True)
class QueryUpdate(Generic[T]):
    """What a query's subscriber is told."""

    objects: tuple[T, ...]  # All results now, in the query's order.
    added: tuple[T, ...] = ()
    removed: tuple[T, ...] = ()
    changed: tuple[T, ...] = ()  # Results before and now, with another content.


@final
@dataclass(frozen=True, slots=True)
class Hit(Generic[T]):
    """One object that a search has found."""

    object: T
    score: float  # How good it is; more is better, and only hits of one search compare.
    snippet: str  # The part of a text around what was found, which is in [brackets].


class Answers(Protocol):
    """Whoever answers queries: the database of a space, or all of them."""

    async def execute(self, query: PlainQuery) -> list[EchoObject]:
        """The objects that a query finds."""
        ...

    async def search(self, query: PlainQuery) -> list[Hit[EchoObject]]:
        """What a query's search finds, the best first."""
        ...

    async def count(self, query: PlainQuery) -> int:
        """How many objects a query finds."""
        ...

    async def explain(self, query: PlainQuery) -> QueryPlan:
        """How a query is answered."""
        ...

    def follow(
        self,
        query: PlainQuery,
        callback: Callable[[QueryUpdate[Any]], object],
        ended: Callable[[], object] | None = None,
    ) -> Subscription:
        """Tell `callback` of a query's results, now and after each change, and `ended` that the client was closed."""
        ...


@final
class Query(Generic[T]):
    """A question to the database; immutable, and nothing is asked before `run`, `first`, `count`, `subscribe`, …"""

    __slots__ = ("_database", "_query")

    def __init__(self, database: Answers, query: PlainQuery) -> None:
        self._database, self._query = database, query

    @property
    def plain(self) -> PlainQuery:
        """The question as a value, for the host."""
        return self._query

    def where(self, *filters: Filter, **equalities: Any) -> Query[T]:
        """Those of the same objects that meet these filters too."""
        return Query(self._database, replace(self._query, filter=joined((self._query.filter, *filters), equalities)))

    def search(self, text: str) -> Query[T]:
        """Those of the same objects in whose texts all these words are, the best first: `oat milk*`, `"oat milk"`.

        Case and accents do not matter; `*` stands for the rest of a word, quotes keep words together.

        Raises:
            InvalidValueError: There is no word in it.
        """
        words.parse(text)
        return Query(self._database, replace(self._query, search=f"{self._query.search} {text}".strip()))

    def order_by(self, *names: str | Field, descending: bool = False) -> Query[T]:
        """The same objects, sorted by properties: `F.shop.aisle`, or `"shop.aisle"`; again for further ones."""
        orders = tuple(Order(path_of(name), descending) for name in names)
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

    async def hits(self) -> list[Hit[T]]:
        """What a search has found, the best first, with the place in the text.

        Raises:
            UsageError: The query has no `search`.
        """
        if not self._query.search:
            raise UsageError("There are hits of a search only: db.query().search(text).hits().")
        return cast("list[Hit[T]]", await self._database.search(self._query))

    async def explain(self) -> QueryPlan:
        """How the host finds the results: which index leads to them, and how many objects it looks at."""
        return await self._database.explain(self._query)

    def __aiter__(self) -> AsyncIterator[QueryUpdate[T]]:
        """The results now, then each change of them as it comes; `run` gives the results alone.

        A loop that is slower than the changes gets those that came meanwhile as one. It ends when the client is
        closed; leaving it earlier ends the subscription.

        Raises:
            ClosedError: The client is closed already.
        """
        return _Updates(self._database, self._query)

    def subscribe(self, callback: Callable[[QueryUpdate[T]], object]) -> Subscription:
        """Have `callback` called with the results soon, and again after each change of them, whoever made it.

        Only changed objects that may match are looked at; own edits of one turn make one call. Where a `search` is not
        sorted otherwise, only the host can tell what a change does to the order, so it is asked again.
        """
        return self._database.follow(self._query, callback)

    def __repr__(self) -> str:
        return f"<Query {self._query!r:.100}>"


class _Unread(Generic[T]):
    """What a loop has not been given yet: one update, however many came."""

    def __init__(self) -> None:
        self._update: QueryUpdate[T] | None = None
        self._begun = False  # The first results were given.
        self.ended = False
        self.changed = anyio.Event()

    def push(self, update: QueryUpdate[T]) -> None:
        self._update = update if self._update is None else _merged(self._update, update)
        self.changed.set()

    def end(self) -> None:
        self.ended = True
        self.changed.set()

    def take(self) -> QueryUpdate[T] | None:
        """The update that is due; None if there is none, or what came has undone itself."""
        update, self._update = self._update, None
        self.changed = anyio.Event()
        if update is None or (self._begun and not (update.added or update.removed or update.changed)):
            return None
        self._begun = True
        return update


def _merged(earlier: QueryUpdate[T], later: QueryUpdate[T]) -> QueryUpdate[T]:
    """Two updates as one: what became of the results before the first."""
    had = {one.id: one for one in (*earlier.removed, *earlier.changed)}  # Among the results before, and spoken of.
    new = {one.id for one in earlier.added}
    added = {one.id for one in later.added if one.id not in had} | new - {one.id for one in later.removed}
    changed = had.keys() - {one.id for one in earlier.removed} | {one.id for one in later.changed if one.id not in new}
    changed |= {one.id for one in later.added if one.id in had}
    removed = {one.id: one for one in earlier.removed} | {one.id: one for one in later.removed if one.id not in new}
    present = {one.id for one in later.objects}
    return QueryUpdate(
        later.objects,
        added=tuple(one for one in later.objects if one.id in added),
        removed=tuple(one for one in removed.values() if one.id not in present),
        changed=tuple(one for one in later.objects if one.id in changed),
    )


@final
class _Updates(AsyncIterator[QueryUpdate[T]]):
    """Not a generator: a loop that is left early ends the subscription by reference counting, without an event loop."""

    def __init__(self, database: Answers, query: PlainQuery) -> None:
        self._unread: _Unread[T] = _Unread()
        # The subscription refers to what is unread, never to this object, or it would live for ever.
        self._subscription = database.follow(query, self._unread.push, self._unread.end)

    async def __anext__(self) -> QueryUpdate[T]:
        await anyio.lowlevel.checkpoint()
        unread = self._unread
        while (update := unread.take()) is None:
            if unread.ended:
                raise StopAsyncIteration
            await unread.changed.wait()
        return update

    def __del__(self) -> None:
        if hasattr(self, "_subscription"):  # A closed client refuses it.
            self._subscription.unsubscribe()
