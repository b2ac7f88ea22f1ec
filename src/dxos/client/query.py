"""Queries: asked once, or followed as the objects change."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, cast, final

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

    def follow(self, query: PlainQuery, callback: Callable[[QueryUpdate[Any]], object]) -> Subscription:
        """Tell `callback` of a query's results, now and after each change."""
        ...


@final
class Query(Generic[T]):
    """A question to the database; immutable, and nothing is asked before `run`, `first`, `count` or `subscribe`."""

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

    def __aiter__(self) -> AsyncIterator[T]:
        return _Results(self)

    def subscribe(self, callback: Callable[[QueryUpdate[T]], object]) -> Subscription:
        """Have `callback` called with the results soon, and again after each change of them, whoever made it.

        Only changed objects that may match are looked at; own edits of one turn make one call. Where a `search` is not
        sorted otherwise, only the host can tell what a change does to the order, so it is asked again.
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
