"""Queries over all spaces: each is asked, and the answers are joined in the query's order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from msgspec.structs import replace

from dxos.aio import Subscription
from dxos.client.database import Database
from dxos.client.following import difference
from dxos.client.object import EchoObject
from dxos.client.observable import MulticastObservable, call_logged
from dxos.client.query import Hit, QueryUpdate
from dxos.client.space import Space
from dxos.client.state import core_of
from dxos.echo.query import Query as PlainQuery
from dxos.echo.query import sort_key
from dxos.services.contract import QueryPlan


@final
class AllSpaces:
    """Answers queries over the databases of all spaces that are ready.

    Args:
        spaces: All spaces of the identity.
    """

    def __init__(self, spaces: MulticastObservable[tuple[Space, ...]]) -> None:
        self._spaces = spaces

    def _ready(self) -> list[Database]:
        return [space.db for space in self._spaces.get() if space.is_open]

    async def execute(self, query: PlainQuery) -> list[EchoObject]:
        """The objects that a query finds."""
        if query.search and not query.order:
            return [hit.object for hit in await self.search(query)]
        found = [target for one in self._ready() for target in await one.execute(_whole(query))]
        found.sort(key=lambda target: sort_key(query, core_of(target).row()))
        return list(_part(query, found))

    async def search(self, query: PlainQuery) -> list[Hit[EchoObject]]:
        """What a query's search finds, the best first; how good one is depends on the texts of all spaces."""
        found = [hit for one in self._ready() for hit in await one.search(_whole(query))]
        found.sort(key=lambda hit: -hit.score)
        return list(_part(query, found))

    async def count(self, query: PlainQuery) -> int:
        """How many objects a query finds."""
        return sum([await one.count(query) for one in self._ready()])

    async def explain(self, query: PlainQuery) -> QueryPlan:
        """How a query is answered: the steps of all spaces, and the index if it is the same in all."""
        plans = [await one.explain(_whole(query)) for one in self._ready()]
        steps = tuple(step for plan in plans for step in plan.steps)
        indexes = {plan.index for plan in plans}
        return QueryPlan(steps, indexes.pop() if len(indexes) == 1 else None, sum(plan.rows for plan in plans))

    def follow(
        self,
        query: PlainQuery,
        callback: Callable[[QueryUpdate[Any]], object],
        ended: Callable[[], object] | None = None,
    ) -> Subscription:
        """Tell `callback` of a query's results, now and after each change, also of spaces that open later."""
        followed = _Followed(query, callback)
        states: dict[str, Subscription] = {}

        def refresh(_: object) -> None:
            followed.follow(self._ready())

        def look(spaces: tuple[Space, ...]) -> None:
            present = {space.id for space in spaces}
            for gone in states.keys() - present:
                states.pop(gone).unsubscribe()
            for space in spaces:
                if space.id not in states:
                    states[space.id] = space.state.subscribe(refresh)
            refresh(spaces)

        listed = self._spaces.subscribe(look, complete=ended)

        def end() -> None:
            listed.unsubscribe()
            for one in states.values():
                one.unsubscribe()
            followed.end()

        return Subscription(end)

    def __repr__(self) -> str:
        return f"<AllSpaces {len(self._ready())} ready>"


@final
class _Followed:
    """One subscription to all spaces."""

    def __init__(self, query: PlainQuery, callback: Callable[[QueryUpdate[Any]], object]) -> None:
        self._query, self._callback = query, callback
        self._subscriptions: dict[Database, Subscription] = {}
        self._found: dict[Database, tuple[EchoObject, ...]] = {}
        self._results: tuple[EchoObject, ...] = ()

    def follow(self, databases: list[Database]) -> None:
        """Follow these and no others."""
        gone = self._subscriptions.keys() - set(databases)
        for one in gone:
            self._subscriptions.pop(one).unsubscribe()
            self._found.pop(one, None)
        for one in databases:
            if one not in self._subscriptions:
                self._subscriptions[one] = one.follow(_whole(self._query), self._receiver(one))
        if gone:
            self._tell({})

    def end(self) -> None:
        """Follow nothing."""
        for one in self._subscriptions.values():
            one.unsubscribe()

    def _receiver(self, database: Database) -> Callable[[QueryUpdate[Any]], object]:
        def receive(update: QueryUpdate[Any]) -> None:
            self._found[database] = update.objects
            self._tell({one.id: one for one in update.changed})

        return receive

    def _tell(self, touched: dict[str, EchoObject]) -> None:
        found = [one for objects in self._found.values() for one in objects]
        found.sort(key=lambda target: sort_key(self._query, core_of(target).row()))
        before, self._results = self._results, tuple(_part(self._query, found))
        update = difference(before, self._results, touched)
        if update.added or update.removed or update.changed or not before:
            call_logged(self._callback, update)


def _whole(query: PlainQuery) -> PlainQuery:
    """What each space is asked for: the first of one may be the last of all."""
    return replace(query, offset=0, limit=None if query.limit is None else query.limit + query.offset)


def _part(query: PlainQuery, found: list[Any]) -> list[Any]:
    return found[query.offset : None if query.limit is None else query.offset + query.limit]
