"""All spaces of a profile: created here or joined, found again on the disk, opened and closed."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, final

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from msgspec.structs import replace

from dxos.echo.archive import ArchiveMetadata, read_archive
from dxos.echo.layout import PROPERTIES_TYPE, ObjectStructure
from dxos.errors import (
    AlreadyJoinedError,
    DxosError,
    InvalidValueError,
    LimitError,
    PeerError,
    SpaceNotFoundError,
    SpaceNotReadyError,
    StorageError,
)
from dxos.halo.genesis import data_space_genesis
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.keys.ids import make_object_id, space_id
from dxos.limits import PARSE_INLINE_BYTES_MAX
from dxos.spaces.archives import ArchiveImport, ExportedSpace, Tell, export_space, remove_unfinished
from dxos.spaces.pipeline import ControlPipeline
from dxos.spaces.space import ACTIVE, INACTIVE, Space, SpaceContext, State
from dxos.store.metadata import MetadataStore, SpaceRecord
from dxos.wire import from_key, to_key
from dxos.wire.proto.credentials_pb2 import SpaceMember

_log = logging.getLogger(__name__)
_RANDOM_BYTES = 10


@final
class Spaces:
    """The spaces of one profile, by id.

    Args:
        context: What they share.
        tasks: Where open spaces run.
    """

    def __init__(self, context: SpaceContext, tasks: TaskGroup) -> None:
        self._context, self._tasks = context, tasks
        self._metadata = MetadataStore(context.profile.database)
        self.all: dict[str, Space] = {}
        self._switching = anyio.Lock()

    def open_all(self) -> None:
        """Open every space that was not closed by its user."""
        remove_unfinished(self._context.profile)
        for record in self._metadata.spaces():
            self._forget_key(record.space_key)  # A host may have died between making the space and this.
            self._start(record)

    def _forget_key(self, space_key: PublicKey) -> None:
        """Whoever had a space's own key could make members at will; once there is a genesis, nothing needs it."""
        try:
            self._context.profile.keyring.delete(space_key)
        except StorageError as error:
            _log.warning("the key of space %s could not be deleted: %s", space_key.truncate(), error)

    def get(self, space: str) -> Space:
        """A space by its id.

        Raises:
            SpaceNotFoundError: This profile has no such space.
        """
        found = self.all.get(space)
        if found is None:
            raise SpaceNotFoundError("This profile has no such space.", space_id=space)
        return found

    def ready(self, space: str) -> Space:
        """A space that can be used now.

        Raises:
            SpaceNotFoundError: This profile has no such space.
            SpaceNotReadyError: It is closed, or still opening.
        """
        found = self.get(space)
        if found.state is not State.READY:
            raise SpaceNotReadyError(
                "The space is not ready: wait for it (space.wait_until_ready), or open it.", space_id=space
            )
        return found

    def by_key(self, key: PublicKey) -> Space | None:
        """A space by its key, or None."""
        return self.all.get(space_id(key))

    async def create(self, properties: Mapping[str, Any]) -> Space:
        """Make a new space whose owner is this identity; it is durable and ready when this returns."""
        record = self._new_record()

        def make_root() -> str:
            structure = ObjectStructure(dict(properties), PROPERTIES_TYPE)
            return self._context.documents.create_root(record.space_id, structure, self._new_object_id())

        return await self._found(record, make_root)

    async def export_archive(self, space: str, tell: Tell) -> ExportedSpace:
        """A space that is ready, as an archive.

        Raises:
            CorruptionError: Its root document is damaged.
            InvalidValueError: It is too large for an archive.
        """
        context, root_id = self._context, self.ready(space).root_id
        assert root_id is not None, "a space that is ready has a root"
        metadata = ArchiveMetadata(root_id, space, context.now_ms(), context.identity.did)
        try:
            return await export_space(context.profile.documents, metadata, space, tell)
        except LimitError as error:  # No peer's fault here.
            raise InvalidValueError(str(error), **error.detail) from error

    async def import_archive(self, untrusted: bytes, tell: Tell) -> Space:
        """Make a new space with a copy of what an archive holds; durable and ready when this returns.

        Args:
            untrusted: The archive.
            tell: Told how many documents have been copied, and of how many.

        Raises:
            InvalidValueError: It is no archive of a space, or damaged.
            StorageError: No room; nothing stays.

        Cancelling leaves nothing of it.
        """
        record = self._new_record()
        copy = ArchiveImport(
            self._context.profile,
            record.space_key,
            new_id=self._context.documents.new_id,
            new_object_id=self._new_object_id,
        )
        try:
            if len(untrusted) <= PARSE_INLINE_BYTES_MAX:
                metadata, documents = read_archive(untrusted)
            else:
                metadata, documents = await anyio.to_thread.run_sync(read_archive, untrusted)
            root_id = await copy.run(metadata, documents, tell)
            return await self._found(record, lambda: root_id)
        except BaseException as error:
            if record.space_id not in self.all:
                copy.undo()
                for key in (record.space_key, record.control_feed_key, record.data_feed_key):
                    self._forget_key(key)
            if isinstance(error, PeerError | InvalidValueError):  # No peer's fault here.
                raise InvalidValueError(f"This archive cannot be imported: {error}", **error.detail) from error
            raise

    def _new_record(self) -> SpaceRecord:
        keyring = self._context.profile.keyring
        key, control, data = keyring.create(), keyring.create(), keyring.create()
        return SpaceRecord(space_id(key), key, control, control, data, ACTIVE)

    def _new_object_id(self) -> str:
        return make_object_id(self._context.now_ms(), self._context.random(_RANDOM_BYTES))

    async def _found(self, record: SpaceRecord, make_root: Callable[[], str]) -> Space:
        """Found a space whose keys were made: its root, its first credentials, and its record, all or none."""
        context = self._context
        keyring, identity = context.profile.keyring, context.identity
        key, control = record.space_key, record.control_feed_key
        context.documents.open_space(key)
        try:
            with context.profile.database.transaction():
                root_id = make_root()
                pipeline = ControlPipeline(key, control, open_storage=context.open_storage, signer=keyring)
                pipeline.set_writer(control)
                for credential in data_space_genesis(
                    keyring,
                    space_key=key,
                    chain=identity.chain,
                    control_feed_key=control,
                    data_feed_key=record.data_feed_key,
                    automerge_root=f"automerge:{root_id}",
                    now_ms=context.now_ms(),
                    profile=identity.profile,
                ):
                    pipeline.write(credential)
                self._metadata.put_space(record)
                self._record_membership(record, SpaceRole.OWNER)
            context.profile.sync()
        except BaseException:
            context.documents.close_space(record.space_id)
            identity.pipeline.reload()  # It may hold a membership that was not stored in the end.
            raise
        self._forget_key(key)
        space = self._start(record)
        await space.wait_until_ready()
        return space

    def has_joined(self, space: str) -> bool:
        """Whether this identity is a member of a space, or about to learn that it is."""
        found = self.all.get(space)
        return found is not None and (found.role.is_member or not found.pipeline.state.members)

    def accept(self, membership: SpaceMember) -> Space:
        """Join a space that this identity was admitted to; durable when this returns, ready once peers are found.

        Args:
            membership: From a credential that was checked.

        Raises:
            AlreadyJoinedError: This identity is a member already.
            StorageError: Nothing was written.
        """
        context = self._context
        key = from_key(membership.space_key)
        if self.has_joined(space_id(key)):
            raise AlreadyJoinedError(
                "This identity is a member of the space already; open it from the list of spaces.",
                space_id=space_id(key),
            )
        known = self.by_key(key)
        if known is not None:
            return known  # It was removed, and admitted again: the space's own records will say so.
        keyring = context.profile.keyring
        record = SpaceRecord(
            space_id(key),
            key,
            from_key(membership.genesis_feed_key),
            keyring.create(),
            keyring.create(),
            ACTIVE,
            json.dumps({"role": SpaceRole.from_wire(membership.role).name}).encode(),
        )
        try:
            with context.profile.database.transaction():
                self._metadata.put_space(record)
                self._record_membership(record, SpaceRole.from_wire(membership.role))
        except BaseException:
            context.identity.pipeline.reload()
            raise
        context.profile.sync()
        return self._start(record)

    def _record_membership(self, record: SpaceRecord, role: SpaceRole) -> None:
        self._context.identity.record_membership(
            SpaceMember(
                space_key=to_key(record.space_key),
                role=role.name,
                genesis_feed_key=to_key(record.genesis_feed_key),
            ),
            now_ms=self._context.now_ms(),
        )

    async def set_active(self, space: str, active: bool) -> None:
        """Open or close a space, and remember which over restarts."""
        async with self._switching:
            found = self.get(space)
            if active != found.is_active:
                record = replace(found.record, state=ACTIVE if active else INACTIVE)
                self._metadata.put_space(record)
                found.record = record
            if not active:
                found.close()
                await found.wait_until_closed()
            elif not found.is_running:
                self._run_soon(found)

    def _start(self, record: SpaceRecord) -> Space:
        space = self.all[record.space_id] = Space(record, self._context)
        if record.state == ACTIVE:
            self._run_soon(space)
        self._context.changes.notify()
        return space

    def _run_soon(self, space: Space) -> None:
        space.begin()
        self._tasks.start_soon(self._run, space, name=f"space {space.id[:9]}")

    async def _run(self, space: Space) -> None:
        """Run one space; whatever ends it, a full disk or a damaged feed, the others go on."""
        try:
            await space.run()
        except* DxosError as errors:
            lone: BaseException = errors
            while isinstance(lone, BaseExceptionGroup):
                lone = lone.exceptions[0]
            assert isinstance(lone, DxosError)
            _log.error("the space %s was closed: %s", space.id, lone)
            space.fail(lone)

    def __repr__(self) -> str:
        return f"<Spaces {len(self.all)}>"
