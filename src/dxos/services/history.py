"""The history service: a client asks for the past, and has its own changes undone."""

from collections.abc import Callable, Iterator
from typing import final

import anyio
import anyio.lowlevel

from dxos.echo.query import Query
from dxos.echo.revision import Conflict, Revision
from dxos.echo.rows import ObjectRow
from dxos.errors import NotAllowedError
from dxos.services.contract import ObjectState
from dxos.spaces.documents import StoredObject
from dxos.spaces.history import History
from dxos.spaces.peer import Peer

Reverse = Callable[[str, str | None], Iterator[list[StoredObject]]]


@final
class HistoryServiceHost:
    """Implements `HistoryService`."""

    def __init__(self, peer: Peer) -> None:
        self._peer, self._history = peer, History(peer.documents)
        self._turns: dict[str, anyio.Lock] = {}  # By space: a long step is undone before the next one is.

    async def revisions(self, space_id: str, object_id: str, limit: int) -> tuple[Revision, ...]:
        await anyio.lowlevel.checkpoint()
        self._peer.spaces.ready(space_id)
        return await self._history.revisions(space_id, object_id, limit)

    async def object_at(self, space_id: str, object_id: str, moment: int | bytes) -> ObjectRow | None:
        await anyio.lowlevel.checkpoint()
        self._peer.spaces.ready(space_id)
        return self._history.object_at(space_id, object_id, moment)

    async def space_at(self, space_id: str, moment_ms: int, query: Query) -> tuple[ObjectRow, ...]:
        await anyio.lowlevel.checkpoint()
        self._peer.spaces.ready(space_id)
        return await self._history.space_at(space_id, moment_ms, query)

    async def conflicts(self, space_id: str, object_id: str) -> tuple[Conflict, ...]:
        await anyio.lowlevel.checkpoint()
        self._peer.spaces.ready(space_id)
        return self._history.conflicts(space_id, object_id)

    async def undo(self, space_id: str, object_id: str | None = None) -> tuple[ObjectState, ...]:
        return await self._reverse(space_id, object_id, self._history.undo)

    async def redo(self, space_id: str, object_id: str | None = None) -> tuple[ObjectState, ...]:
        return await self._reverse(space_id, object_id, self._history.redo)

    async def _reverse(self, space_id: str, object_id: str | None, reverse: Reverse) -> tuple[ObjectState, ...]:
        self._check_writable(space_id)
        states: list[ObjectState] = []
        async with self._turns.setdefault(space_id, anyio.Lock()):
            for piece in reverse(space_id, object_id):
                states += (ObjectState(one.row, one.version, one.heads) for one in piece)
                await anyio.lowlevel.checkpoint()
        return tuple(states)

    def _check_writable(self, space_id: str) -> None:
        if not self._peer.spaces.ready(space_id).role.may_write:
            raise NotAllowedError("This identity may read this space, not write to it.", space_id=space_id)
