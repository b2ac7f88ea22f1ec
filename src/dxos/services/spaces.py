"""The spaces service: spaces, members, messages."""

from collections.abc import Callable, Hashable
from typing import final

import anyio.lowlevel
from anyio.abc import TaskGroup
from msgspec.structs import replace

from dxos.echo.query import Query
from dxos.errors import DecodeError, NotAllowedError
from dxos.halo.roles import FeedDesignation, SpaceRole
from dxos.keys import PublicKey
from dxos.keys.ids import identity_did
from dxos.services.contract import (
    CredentialInfo,
    JsonObject,
    Next,
    PipelineState,
    Presence,
    Progress,
    SpaceArchive,
    SpaceInfo,
    SpaceMember,
    SpaceMessage,
    SpaceState,
    SpaceStats,
    Subscription,
)
from dxos.services.halo import describe_credentials, follow, from_profile_document
from dxos.spaces.peer import Peer
from dxos.spaces.space import Space, State
from dxos.wire import from_key, from_struct, from_timestamp, pack_any, to_struct, unpack_any
from dxos.wire.proto.gossip_pb2 import GossipMessage
from dxos.wire.proto.values_pb2 import Struct

_CHANNEL_PREFIX = "user-channel/"  # 0.8.3 keeps applications' channels apart from its own by this.
_STATES = {
    State.CLOSED: SpaceState.CLOSED,
    State.CONTROL_ONLY: SpaceState.CONTROL_ONLY,
    State.INITIALIZING: SpaceState.INITIALIZING,
    State.READY: SpaceState.READY,
    State.ERROR: SpaceState.ERROR,
}


@final
class SpacesServiceHost:
    """Implements `SpacesService`."""

    def __init__(self, peer: Peer, tasks: TaskGroup) -> None:
        self._peer, self._tasks = peer, tasks
        self._described: dict[str, tuple[Hashable, SpaceInfo]] = {}  # By space: what it was made of, and the result.

    def query_spaces(self, next: Next[tuple[SpaceInfo, ...]]) -> Subscription:
        return follow(self._tasks, self._peer.changes, self._present, next)

    def _present(self) -> tuple[SpaceInfo, ...]:
        spaces = self._peer.open_spaces
        return () if spaces is None else tuple(map(self._described_anew, spaces.all.values()))

    def _described_anew(self, space: Space) -> SpaceInfo:
        # Every edit takes every space through this, because peers fall out of step and into it again.
        source = (
            space.state,
            space.is_active,
            tuple(space.pipeline.timeframe.items()),
            space.presence.online,
            space.refused_changes,
            space.error,
        )
        known, info = self._described.get(space.id, (None, None))
        if info is None or known != source or info.properties_id is None:
            info = self._describe(space)
        elif info.synced is not space.synced or info.arriving != _arriving(space):
            info = replace(info, synced=space.synced, arriving=_arriving(space))
        self._described[space.id] = source, info
        return info

    def _describe(self, space: Space) -> SpaceInfo:
        state = space.pipeline.state
        ready = space.state is State.READY
        inactive = space.state is State.CLOSED and not space.is_active
        return SpaceInfo(
            id=space.id,
            key=space.key,
            state=SpaceState.INACTIVE if inactive else _STATES[space.state],
            members=self._members(space),
            pipeline=PipelineState(
                control_feeds=space.pipeline.control_feeds,
                data_feeds=state.feeds_of(FeedDesignation.DATA),
                control_timeframe=tuple(space.pipeline.timeframe.items()),
                epoch=None if state.current_epoch is None else state.current_epoch.number,
                space_root_url=None if space.root_id is None else f"automerge:{space.root_id}",
            ),
            role=space.role,
            properties_id=self._peer.documents.properties_id(space.id) if ready else None,
            cached_name=None if ready else self._peer.documents.stored_name(space.id),
            synced=space.synced,
            arriving=_arriving(space),
            refused_changes=space.refused_changes,
            error=space.error,
        )

    def _members(self, space: Space) -> tuple[SpaceMember, ...]:
        own = self._peer.identity.required.identity_key
        online = space.presence.online
        return tuple(
            SpaceMember(
                one.identity_key,
                identity_did(one.identity_key),
                from_profile_document(one.profile),
                one.role,
                Presence.REMOVED
                if not one.role.is_member
                else Presence.ONLINE
                if one.identity_key == own or one.identity_key in online
                else Presence.OFFLINE,
                one.identity_key == own,
            )
            for one in space.pipeline.state.members.values()
        )

    async def create_space(self, properties: JsonObject) -> SpaceInfo:
        return self._describe(await self._peer.spaces.create(properties))

    async def update_space(self, space_id: str, state: SpaceState) -> None:
        if state not in (SpaceState.ACTIVE, SpaceState.INACTIVE):
            raise NotAllowedError("A space can be made ACTIVE or INACTIVE, no other state can be asked for.")
        await self._peer.spaces.set_active(space_id, state is SpaceState.ACTIVE)

    async def update_member_role(self, space_id: str, member: PublicKey, role: SpaceRole) -> None:
        self._peer.spaces.ready(space_id).change_role(member, role)
        await self._peer.sync()

    async def post_message(self, space_id: str, channel: str, payload: JsonObject) -> None:
        space = self._peer.spaces.ready(space_id)
        space.gossip.post(_CHANNEL_PREFIX + channel, pack_any(to_struct(payload)))

    def subscribe_messages(self, space_id: str, channel: str, next: Next[SpaceMessage]) -> Subscription:
        space = self._peer.spaces.get(space_id)
        return space.gossip.subscribe(_CHANNEL_PREFIX + channel, _reader(channel, next))

    async def query_credentials(self, space_id: str) -> list[CredentialInfo]:
        return describe_credentials(self._peer.spaces.get(space_id).pipeline.state.credentials)

    async def create_epoch(self, space_id: str) -> None:
        await self._peer.spaces.ready(space_id).create_epoch()
        await self._peer.sync()

    async def compact(self, space_id: str, next: Next[Progress]) -> None:
        await self._peer.spaces.ready(space_id).compact(_tell(next))
        await self._peer.sync()

    async def query_stats(self, space_id: str) -> SpaceStats:
        await anyio.lowlevel.checkpoint()
        space, database = self._peer.spaces.ready(space_id), self._peer.profile.database
        sizes, epoch = space.epochs.sizes(), space.pipeline.state.current_epoch
        return SpaceStats(
            epoch=None if epoch is None else epoch.number,
            objects=self._peer.documents.count(space_id, Query()),
            documents=sizes.documents_count,
            snapshot_bytes=sizes.snapshot_bytes,
            change_bytes=sizes.chunk_bytes,
            changes=sizes.chunks_count,
            deleted_documents=sizes.deleted_count,
            deleted_bytes=sizes.deleted_bytes,
            reclaimed_documents=sizes.reclaimed_count,
            reclaimed_bytes=sizes.reclaimed_bytes,
            file_bytes=database.file_bytes,
            free_bytes=database.free_bytes,
        )

    async def export_space(self, space_id: str, next: Next[Progress]) -> SpaceArchive:
        exported = await self._peer.spaces.export_archive(space_id, _tell(next))
        return SpaceArchive(f"{space_id}.tar", exported.contents, exported.missing)

    async def import_space(self, contents: bytes, next: Next[Progress]) -> SpaceInfo:
        return self._describe(await self._peer.spaces.import_archive(contents, _tell(next)))


def _arriving(space: Space) -> Progress | None:
    told = space.arrivals.told
    return None if told is None else Progress(*told)


def _tell(next: Next[Progress]) -> Callable[[int, int], None]:
    return lambda done, total: next(Progress(done, total))


def _reader(channel: str, next: Next[SpaceMessage]) -> Callable[[GossipMessage], None]:
    def read(message: GossipMessage) -> None:
        try:
            payload = unpack_any(message.payload)
        except DecodeError:
            return  # Of a kind that is no application's message.
        if isinstance(payload, Struct):
            sent_ms = from_timestamp(message.timestamp)
            content = {key: value for key, value in from_struct(payload).items() if key != "@type"}
            next(SpaceMessage(channel, content, from_key(message.peer_id), from_key(message.message_id), sent_ms))

    return read
