"""The history service: a client asks for the past, and has its own changes undone."""

from typing import final

import anyio.lowlevel

from dxos.echo.query import Query
from dxos.echo.revision import Conflict, Revision
from dxos.echo.rows import ObjectRow
from dxos.errors import NotAllowedError
from dxos.services.contract import ObjectState
from dxos.spaces.history import History
from dxos.spaces.peer import Peer


@final
class HistoryServiceHost:
    """Implements `HistoryService`."""

    def __init__(self, peer: Peer) -> None:
        self._peer, self._history = peer, History(peer.documents)

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
        self._check_writable(space_id)
        states = self._history.undo(space_id, object_id)
        return tuple(ObjectState(one.row, one.version, one.heads) for one in states)

    async def redo(self, space_id: str, object_id: str | None = None) -> tuple[ObjectState, ...]:
        self._check_writable(space_id)
        states = self._history.redo(space_id, object_id)
        return tuple(ObjectState(one.row, one.version, one.heads) for one in states)

    def _check_writable(self, space_id: str) -> None:
        if not self._peer.spaces.ready(space_id).role.may_write:
            raise NotAllowedError("This identity may read this space, not write to it.", space_id=space_id)
