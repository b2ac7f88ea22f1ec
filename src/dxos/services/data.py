"""The data and query services: a client's edits go to the documents, its queries to their rows."""

from collections.abc import Sequence
from typing import final

import anyio.lowlevel

from dxos.aio import Subscription
from dxos.echo.query import Query
from dxos.errors import NotAllowedError
from dxos.services.contract import Edit, Next, ObjectState
from dxos.spaces.documents import ObjectEdit, StoredObject
from dxos.spaces.peer import Peer


@final
class DataServiceHost:
    """Implements `DataService`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def subscribe(self, space_id: str, next: Next[tuple[ObjectState, ...]]) -> Subscription:
        documents = self._peer.documents
        return Subscription(documents.subscribe(space_id, lambda found: next(tuple(map(_state, found)))))

    async def update(self, space_id: str, edits: Sequence[Edit]) -> tuple[ObjectState, ...]:
        space = self._peer.spaces.ready(space_id)
        if not space.role.may_write:
            raise NotAllowedError("this identity may read this space, not write to it", space_id=space_id)
        asked = [ObjectEdit(one.object_id, one.create, one.mutations, one.base_heads) for one in edits]
        return tuple(map(_state, self._peer.documents.update(space_id, asked)))

    async def flush(self, space_id: str) -> None:
        self._peer.spaces.get(space_id)
        # Waiting for the disk is the one thing the event loop must not do; all flushes of a moment share one wait.
        await self._peer.sync()

    async def get(self, space_id: str, object_ids: Sequence[str]) -> tuple[ObjectState, ...]:
        self._peer.spaces.get(space_id)
        return tuple(map(_state, self._peer.documents.get(space_id, object_ids)))


@final
class QueryServiceHost:
    """Implements `QueryService`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def execute(self, space_id: str, query: Query) -> tuple[ObjectState, ...]:
        await anyio.lowlevel.checkpoint()
        self._peer.spaces.get(space_id)
        return tuple(map(_state, self._peer.documents.select(space_id, query)))

    async def count(self, space_id: str, query: Query) -> int:
        await anyio.lowlevel.checkpoint()
        self._peer.spaces.get(space_id)
        return self._peer.documents.count(space_id, query)


def _state(stored: StoredObject) -> ObjectState:
    return ObjectState(stored.row, stored.version, stored.heads)
