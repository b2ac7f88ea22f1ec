"""The data and query services: a client's edits go to the documents, its queries to their rows."""

from collections.abc import Callable, Sequence
from typing import final

import anyio
import anyio.lowlevel

from dxos import words
from dxos.aio import Listeners, Pace, Subscription
from dxos.echo.query import Query
from dxos.echo.rows import Path
from dxos.errors import NotAllowedError
from dxos.limits import SPACE_REOPEN_S, UPDATE_OBJECTS_MAX
from dxos.services.contract import Edit, Next, ObjectState, QueryPlan, Receipt, SearchHit
from dxos.spaces.documents import ObjectEdit, StoredObject
from dxos.spaces.peer import Peer
from dxos.spaces.queries import searches
from dxos.spaces.space import Space, State


@final
class DataServiceHost:
    """Implements `DataService`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._listeners: dict[str, Listeners[tuple[ObjectState, ...]]] = {}  # By space.
        self._streams: dict[str, Callable[[], None]] = {}  # What ends the one that all of them share.

    def subscribe(
        self, space_id: str, next: Next[tuple[ObjectState, ...]], *, missed: Callable[[], None] | None = None
    ) -> Subscription:
        self._peer.spaces.get(space_id)
        # One tuple for all who listen: by it, what is told to many clients is encoded once.
        listeners = self._listeners.get(space_id)
        if listeners is None:
            listeners = self._listeners[space_id] = Listeners()
            emit = listeners.emit
            self._streams[space_id] = self._peer.documents.subscribe(
                space_id, lambda found: emit(tuple(map(_state, found)))
            )
        inner = listeners.subscribe(next)

        def end() -> None:
            inner.unsubscribe()
            if not len(listeners) and self._listeners.get(space_id) is listeners:
                del self._listeners[space_id]
                self._streams.pop(space_id)()

        return Subscription(end)

    async def update(
        self, space_id: str, edits: Sequence[Edit], *, receipt: Receipt | None = None, step: int | None = None
    ) -> tuple[ObjectState, ...]:
        space = await self._opened(space_id)
        if not space.role.may_write:
            raise NotAllowedError("This identity may read this space, not write to it.", space_id=space_id)
        known = None if receipt is None else (receipt.client_id, receipt.sequence)
        asked = [ObjectEdit(one.object_id, one.create, one.mutations, one.base_heads) for one in edits]
        return tuple(map(_state, self._peer.documents.update(space_id, asked, receipt=known, step=step)))

    async def begin_step(self, space_id: str) -> int:
        self._peer.spaces.get(space_id)
        return self._peer.documents.begin_step()

    async def _opened(self, space_id: str) -> Space:
        """The space, READY; where a host has just started, after it has opened it again."""
        found = self._peer.spaces.get(space_id)
        if found.is_active and found.state not in (State.READY, State.ERROR):
            with anyio.move_on_after(SPACE_REOPEN_S):
                await found.wait_until_ready()
        return self._peer.spaces.ready(space_id)

    def forget(self, client_id: str) -> None:
        self._peer.documents.forget_receipts(client_id)

    async def flush(self, space_id: str) -> None:
        self._peer.spaces.get(space_id)
        # Waiting for the disk is the one thing the event loop must not do; all flushes of a moment share one wait.
        await self._peer.sync()

    async def get(self, space_id: str, object_ids: Sequence[str]) -> tuple[ObjectState, ...]:
        self._peer.spaces.get(space_id)
        pace, states = Pace(), list[ObjectState]()
        for start in range(0, len(object_ids), UPDATE_OBJECTS_MAX):
            states += map(_state, self._peer.documents.get(space_id, object_ids[start : start + UPDATE_OBJECTS_MAX]))
            if pace.is_due:
                await pace.rest()
                self._peer.spaces.get(space_id)
        return tuple(states)


@final
class QueryServiceHost:
    """Implements `QueryService`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def execute(self, space_id: str, query: Query) -> tuple[ObjectState, ...]:
        await self._prepare(space_id, query)
        return tuple(map(_state, await self._peer.documents.read(space_id, query)))

    async def count(self, space_id: str, query: Query) -> int:
        await self._prepare(space_id, query)
        return self._peer.documents.count(space_id, query)

    async def search(self, space_id: str, query: Query) -> tuple[SearchHit, ...]:
        await self._prepare(space_id, query)
        pace, hits = Pace(), list[SearchHit]()
        for one, score in self._peer.documents.search(space_id, query):
            hits.append(SearchHit(_state(one), score, words.snippet(query.search, one.row.data)))
            if pace.is_due:
                await pace.rest()
        return tuple(hits)

    async def explain(self, space_id: str, query: Query) -> QueryPlan:
        await self._prepare(space_id, query)
        plan = self._peer.documents.explain(space_id, query)
        return QueryPlan(plan.steps, plan.index, plan.rows)

    async def create_index(self, space_id: str, path: Path, *, by_type: bool) -> None:
        await anyio.lowlevel.checkpoint()
        self._peer.spaces.get(space_id)
        self._peer.documents.make_index(path, by_type=by_type)

    async def _prepare(self, space_id: str, query: Query) -> None:
        """Let others run, and read the words of changed objects piece by piece if the query searches."""
        await anyio.lowlevel.checkpoint()
        self._peer.spaces.get(space_id)
        while searches(query) and self._peer.documents.index_words():
            await anyio.lowlevel.checkpoint()
            self._peer.spaces.get(space_id)


def _state(stored: StoredObject) -> ObjectState:
    return ObjectState(stored.row, stored.version, stored.heads)
