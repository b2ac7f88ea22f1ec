"""`Client`: what an application holds: identity, spaces and network of one profile.

    Client(config) ── initialize() ──▶ host and proxies in a background block ── destroy() ──▶ as before
                            ▲                                                        │
                            └──────────────── any number of times ◀──────────────────┘

Everything but `config`, `services`, `status`, `version` and `initialized` exists between the two only.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, final

import anyio
from anyio.abc import TaskGroup

from dxos.aio import Opener, stay_here
from dxos.client.background import BackgroundBlock
from dxos.client.config import Config
from dxos.client.database import Database, Wanted, plain_query
from dxos.client.everywhere import AllSpaces
from dxos.client.halo import HaloProxy
from dxos.client.invitations import AuthenticatingInvitation, InvitationsProxy
from dxos.client.live import plain_object
from dxos.client.mesh import MeshProxy
from dxos.client.observable import MulticastObservable, Source, reason
from dxos.client.progress import Activities, Activity
from dxos.client.query import Query
from dxos.client.router import DbRouter
from dxos.client.space import Space, SpaceList
from dxos.echo.query import Filter
from dxos.errors import ClosedError, ConfigError, DeadlineError, DxosError, UsageError
from dxos.halo.invitation import Invitation, InvitationEncoder
from dxos.keys import PublicKey
from dxos.limits import CLOSE_TIMEOUT_S, STATUS_TIMEOUT_S
from dxos.services import contract
from dxos.services.contract import Next, Progress, Services, ServicesProvider, SpaceInfo, SystemStatus
from dxos.version import __version__

if TYPE_CHECKING:
    from dxos.client.serializer import Serializer

_log = logging.getLogger("dxos.client")


@final
class Client:
    """A client of one profile.

    As a block, `async with Client(config) as client:`, or by `initialize` and `destroy`; both work on asyncio and trio.

    Args:
        config: Settings; a mapping becomes a `Config`. None: in memory, without signalling servers.
        services: Where the services come from. "worker": a process that all clients of the profile share. "agent": the
            same, and an agent, which is started if there is none, keeps that ready for whoever comes next. "local": a
            host in this process, which has the profile for itself. None: as the setting `runtime.client.services`
            says; without one "worker" for a profile on disk, except on Windows, and "local" for one in memory.

    Raises:
        ConfigError: A wrong setting.
    """

    def __init__(
        self,
        config: Config | Mapping[str, Any] | None = None,
        services: ServicesProvider | Literal["local", "worker", "agent"] | None = None,
    ) -> None:
        self._config = config if isinstance(config, Config) else Config(config)
        self._wanted = services if isinstance(services, str) else self._config.services
        self._services = None if isinstance(services, str) else services
        self._opener = Opener()
        self._was_parents = False  # What was open was the parent's, and is forgotten.
        self._router = DbRouter(self._database_of)
        self._status: Source[SystemStatus | None] = Source(None)
        self._activities = Activities()
        self._lock: anyio.Lock | None = None
        self._block: BackgroundBlock[_Runtime] | None = None
        self._runtime: _Runtime | None = None
        self._error: DxosError | None = None

    # --- Before and after initialize ---

    @property
    def version(self) -> str:
        """The version of this package."""
        return __version__

    @property
    def config(self) -> Config:
        """The settings."""
        return self._config

    @property
    def services(self) -> ServicesProvider:
        """Where the services come from."""
        if self._services is None:
            self._services = _provider(self._wanted, self._config)
        return self._services

    @property
    def initialized(self) -> bool:
        """Whether the client can be used."""
        self._forget_parents()
        return self._runtime is not None

    @property
    def status(self) -> MulticastObservable[SystemStatus | None]:
        """Whether the host works; None before `initialize`, after `destroy`, and when the host has failed."""
        self._forget_parents()
        return self._status

    @property
    def progress(self) -> MulticastObservable[tuple[Activity, ...]]:
        """What takes long and is under way: many objects added or arriving, exports, backups; mostly empty."""
        return self._activities

    @property
    def error(self) -> DxosError | None:
        """Why the host failed after `initialize`; None if it did not."""
        return self._error

    async def get_status(self) -> SystemStatus | None:
        """The present status; an older face of `status`."""
        return self._status.get()

    async def initialize(self) -> None:
        """Start the host, or connect to one, and wait until it works. Without effect when that is done.

        Raises:
            DxosError: What keeps the host from working, such as ProfileLockedError.
            DeadlineError: The host did not say in time that it works.

        Cancelling leaves the client as it was before.
        """
        self._forget_parents()
        async with self._synchronized():
            if self._runtime is not None:
                return
            await self._close()  # What is left of a host that failed.
            self._error = None
            self._opener, self._was_parents = Opener(), False
            block = BackgroundBlock(self._run, self._fail)
            runtime = await block.open()
            self._block = block
            if self._error is None:
                self._runtime = runtime
            else:
                raise self._error

    async def destroy(self) -> None:
        """Store what was changed and release everything; `initialize` brings it back. Without effect when closed.

        Raises:
            DxosError: What went wrong while the host closed.

        Cancelling closes without storing what is not stored yet.
        """
        self._forget_parents()
        async with self._synchronized():
            await self._close()

    async def resume_host_services(self) -> None:
        """Have a host that was made inactive work again: it opens the profile, if no other process has it.

        Raises:
            ClosedError: The client is not initialized.
            StorageError: The profile cannot be opened, such as ProfileLockedError.
        """
        await self._require().services.system.update_status(SystemStatus.ACTIVE)

    async def reset(self) -> None:
        """Delete identity, keys and spaces of this profile from this device, and close.

        Raises:
            ClosedError: The client is not initialized.
        """
        runtime = self._require()
        async with self._synchronized():
            await runtime.services.system.reset()
            await self._close()

    async def back_up(
        self, path: str | os.PathLike[str], passphrase: str, *, progress: Next[Progress] | None = None
    ) -> int:
        """Write the whole profile, identity and keys included, to one file that the passphrase seals.

        The client goes on working meanwhile. `restore` makes a profile of it, on this device or another; from then on
        that one is the device, and this profile must not be opened again.

        Args:
            path: The file; an earlier backup there is replaced.
            passphrase: Without it nobody can restore it, and nobody can guess it faster than twice a second.
            progress: Called with how many bytes are done, and of how many.

        Returns:
            How many bytes the file has.

        Raises:
            UsageError: The profile is in memory, the passphrase is empty, or another file has that name.
            StorageError: The file cannot be written.

        Cancelling waits for the end of it.
        """
        runtime = self._require()
        # A host in another process has a working folder of its own.
        target = os.path.abspath(path)  # noqa: ASYNC240 - it asks no disk.
        await runtime.flush()
        with self._activities.begin("back_up", None, progress) as tell:
            return await runtime.services.system.back_up(target, passphrase, tell)

    async def restore(
        self, path: str | os.PathLike[str], passphrase: str, *, progress: Next[Progress] | None = None
    ) -> None:
        """Make the profile of this client's settings from a backup; `initialize` comes after it.

        Args:
            path: The file.
            passphrase: The one that it was made with.
            progress: Called with how many bytes are done, and of how many.

        Raises:
            PassphraseError: It is not the passphrase.
            CorruptionError: The file is damaged; nothing was restored.
            UsageError: There is a profile already, the client is initialized, or its profile is in memory.
            StorageError: The profile's folder cannot be written.

        Cancelling waits for the end of it.
        """
        folder = self._config.data_root
        if self._runtime is not None:
            raise UsageError("The client is initialized; restore a backup before that.")
        if folder is None:
            raise UsageError("The profile of these settings is in memory; a backup is restored to a folder.")
        # Not at the top: a client of a worker does not pay for the host.
        from dxos.services.backup import restore_profile

        with self._activities.begin("restore", None, progress) as tell:
            await restore_profile(Path(path), folder, passphrase, tell)

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.destroy()
            if self._error is not None:
                raise self._error
            return
        # A cancelled block, above all Ctrl-C, stores what it has, but does not take for ever to do so.
        with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await self.destroy()

    # --- While initialized ---

    @property
    def halo(self) -> HaloProxy:
        """The identity."""
        return self._require().halo

    @property
    def mesh(self) -> MeshProxy:
        """The network."""
        return self._require().mesh

    @property
    def spaces(self) -> SpaceList:
        """The spaces of the identity."""
        return self._require().spaces

    @property
    def echo(self) -> EchoFace:
        """The older face of spaces."""
        self._require()
        return EchoFace(self)

    async def create_space(self, properties: Mapping[str, Any] | None = None, /, **more: Any) -> Space:
        """Create a space.

        Args:
            properties: What describes the space, above all its `name`.
            more: Further properties.

        Returns:
            The space, READY.

        Raises:
            IdentityMissingError: This device has no identity yet.
            InvalidValueError: A property that cannot be stored.
        """
        return await self._require().create_space(properties, **more)

    def get_space(self, key: str | PublicKey | None = None) -> Space | None:
        """A space by its id or key; without one, the identity's default space. None if there is no such.

        JavaScript makes a default space with each identity; this package does not, so `get_space()` is None unless
        the identity has one from there.
        """
        spaces = self._require().spaces
        return spaces.default if key is None else spaces.get(key)

    def query(self, wanted: Wanted = None, /, *filters: Filter, **equalities: Any) -> Query[Any]:
        """Ask all spaces that are ready for objects; the arguments are those of `space.db.query`.

        A subscription also hears of spaces that become ready later.
        """
        return Query(AllSpaces(self._require().spaces), plain_query(wanted, filters, equalities))

    @property
    def db_router(self) -> DbRouter:
        """The registered types, and the way to any object; it is there before `initialize` too."""
        return self._router

    def add_schema(self, *types: type) -> None:
        """Register types: classes derived from `Object` or `Relation`, or models with `typename` and `version`.

        Objects of these types that are known already become typed. Each space gets the schema, in the form that a
        JavaScript peer reads, when a first object of the type is added to it.

        Raises:
            UsageError: No type of objects, or another schema has the same name and version.
        """
        self._router.add_schema(*types)

    def create_serializer(self) -> Serializer:
        """What writes spaces as JSON or CSV, and reads them."""
        from dxos.client.serializer import Serializer

        runtime = self._require()
        return Serializer(runtime.services, runtime, self._activities)

    def accept_invitation(self, invitation: Invitation | str) -> AuthenticatingInvitation:
        """Accept an invitation to a space.

        Args:
            invitation: Decoded, or the code itself.

        Returns:
            An observable, at once. `authenticate` hands in the code; awaiting it gives the invitation with the space's
            key, or raises why there is none.

        Raises:
            InvitationCodeError: Not a code.
        """
        return self._require().accept_invitation(invitation)

    def to_json(self) -> dict[str, Any]:
        """The client as plain data, for people to read; keys are cut short."""
        runtime = self._runtime
        if runtime is None:
            return {"initialized": False}
        return {
            "initialized": True,
            "spaces": len(runtime.spaces),
            "halo": runtime.halo.to_json(),
            "mesh": runtime.mesh.to_json(),
        }

    def __repr__(self) -> str:
        if not self.initialized or self._runtime is None:
            return f"<Client {'failed' if self._error is not None else 'closed'}>"
        return f"<Client initialized {self._runtime.halo!r} {len(self._runtime.spaces)} spaces>"

    __reduce_ex__ = stay_here

    # --- Inside ---

    def _database_of(self, space_id: str) -> Database | None:
        space = None if self._runtime is None else self._runtime.spaces.get(space_id)
        return None if space is None else space.db

    def _require(self) -> _Runtime:
        if self._runtime is not None and not self._opener.is_parent:
            return self._runtime
        self._forget_parents()
        if self._was_parents:
            raise self._opener.error
        if self._error is not None:
            raise ClosedError(f"The host failed ({self._error}); call `initialize()` again.")
        raise ClosedError("The client is not initialized: call `await client.initialize()`, or use `async with`.")

    def _forget_parents(self) -> None:
        """After a fork, what is open is the parent's: it is neither used nor closed here."""
        if not self._opener.is_parent:
            return
        self._opener, self._was_parents = Opener(), self._runtime is not None
        self._lock, self._block, self._runtime, self._error = None, None, None, None
        self._status, self._activities = Source(None), Activities()

    @asynccontextmanager
    async def _synchronized(self) -> AsyncIterator[None]:
        # Made here and not in the constructor, because a client may be made before there is an event loop.
        lock = self._lock
        if lock is None:
            lock = self._lock = anyio.Lock()
        try:
            try:
                lock.acquire_nowait()  # No checkpoint: `destroy` has its effect in a cancelled task too.
            except anyio.WouldBlock:
                await lock.acquire()
            try:
                yield
            finally:
                lock.release()
        finally:
            if not lock.locked():
                self._lock = None  # The next call may come in another event loop.

    async def _close(self) -> None:
        block, self._block, runtime, self._runtime = self._block, None, self._runtime, None
        if block is None:
            return
        try:
            await block.close()
        finally:
            if runtime is not None:
                runtime.end(ClosedError("The client was closed."))
            self._status._next(None)

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[_Runtime]:
        async with self.services as services, anyio.create_task_group() as tasks:
            runtime = _Runtime(services, tasks, self._router, self._activities, self._status)
            try:
                await runtime.open()
                yield runtime
                await runtime.drain()
            finally:
                # Why it ends is not known here yet: a host that fails raises it when this block is left.
                runtime.stop()
            tasks.cancel_scope.cancel()

    def _fail(self, error: Exception) -> None:
        """The host has ended by itself."""
        self._error = reason(error)
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            runtime.end(self._error)
        self._status._next(None)


class _Runtime:
    """What exists between `initialize` and `destroy`."""

    def __init__(
        self,
        services: Services,
        tasks: TaskGroup,
        types: DbRouter,
        activities: Activities,
        status: Source[SystemStatus | None],
    ) -> None:
        self.services, self._tasks, self._types, self.activities = services, tasks, types, activities
        self.mesh = MeshProxy(services.network)
        self.invitations = InvitationsProxy(services.invitations)
        self.halo = HaloProxy(services, self.invitations, self._spawn)
        self.spaces = SpaceList(self, self.halo._default_space_id)
        self._by_id: dict[str, Space] = {}
        self._status = status
        self._streams: list[contract.Subscription] = []
        self._stopped, self._ended = False, False

    async def open(self) -> None:
        """Follow everything the host tells, and wait until it says that it works."""
        status = self._status

        def receive(value: SystemStatus | None) -> None:
            for space in self._by_id.values():
                space._expect_reopening()  # From when the host is gone, and from when the next one is there.
            status._next(value)

        self._streams.append(self.services.system.query_status(receive))
        with anyio.move_on_after(STATUS_TIMEOUT_S) as waiting:
            await status.wait_for(lambda one: one is SystemStatus.ACTIVE)
        if waiting.cancelled_caught:
            if status.get() is SystemStatus.INACTIVE:
                raise DeadlineError(
                    "A process that shares this profile has asked its host to yield: call `resume_host_services()` "
                    "there, or close all processes that share it."
                )
            raise DeadlineError(f"The host did not say within {STATUS_TIMEOUT_S:g} s that it works.")
        self.mesh._open()
        self.invitations.open()
        self.halo._open()
        self._streams.append(self.services.spaces.query_spaces(self._receive_spaces))
        # Whatever the streams had to tell at once, has been told before this is answered.
        await self.services.system.get_platform()

    async def flush(self) -> None:
        """Have everything that was edited be durable."""
        for space in self._by_id.values():
            if space.is_open:
                await space.db.flush()

    async def drain(self) -> None:
        """Send what is not sent yet."""
        for space in self._by_id.values():
            await space.db.drain()

    def stop(self) -> None:
        """Stop following the host."""
        self._stopped = True
        for stream in self._streams:
            stream.unsubscribe()
        self.mesh._stop()
        self.invitations.stop()
        self.halo._stop()
        for space in self._by_id.values():
            space.db.pause()

    def end(self, error: DxosError) -> None:
        """Say to whoever follows this that nothing more comes."""
        if self._ended:
            return
        self.stop()
        self._ended = True
        self.invitations.end(error)
        for space in self._by_id.values():
            space._end(error)
        self.halo._end()
        self.mesh._end()
        self.spaces._complete()

    async def create_space(self, properties: Mapping[str, Any] | None = None, /, **more: Any) -> Space:
        """Create a space and wait until it is ready."""
        return await self._received(
            await self.services.spaces.create_space(plain_object({**(properties or {}), **more}))
        )

    async def _received(self, info: SpaceInfo) -> Space:
        space = self._by_id.get(info.id)
        if space is None:
            self._receive_spaces((*(one.info for one in self._by_id.values()), info))
            space = self._by_id[info.id]
        return await space.wait_until_ready()

    async def import_archive(self, contents: bytes, progress: Next[Progress] | None) -> Space:
        """Make a space of an archive and wait until it is ready."""
        with self.activities.begin("import", None, progress) as tell:
            return await self._received(await self.services.spaces.import_space(contents, tell))

    def accept_invitation(self, invitation: Invitation | str) -> AuthenticatingInvitation:
        """Accept an invitation, decoded or not."""
        if isinstance(invitation, str):
            invitation = InvitationEncoder.decode(invitation)
        return self.invitations.accept(invitation)

    def _receive_spaces(self, infos: tuple[SpaceInfo, ...]) -> None:
        present = {info.id for info in infos}
        for gone in [one for one in self._by_id if one not in present]:
            self._by_id.pop(gone)._end(ClosedError("The space is gone from this device."), is_gone=True)
        if present - self._by_id.keys():
            self.halo._read_credentials()  # The identity notes which spaces it is in.
        for info in infos:
            if info.id not in self._by_id:
                space = self._by_id[info.id] = Space(
                    info, self.services, self.invitations, self.activities, self._spawn, self._status
                )
                space.db.use_types(self._types)
        # In the list before their states change, so that whoever hears of a state finds the space.
        spaces = tuple(self._by_id[info.id] for info in infos)
        for info in infos:
            self._by_id[info.id]._receive(info)
        self.spaces._next(spaces)

    def _spawn(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if not self._stopped:
            self._tasks.start_soon(function)


def _provider(wanted: str | None, config: Config) -> ServicesProvider:
    """What the settings ask for; not imported before, because a client of a worker does not pay for the host."""
    folder = config.data_root
    if wanted is None:
        wanted = "local" if folder is None or sys.platform == "win32" else "worker"
    if wanted == "local":
        from dxos.services.local import LocalServices

        return LocalServices(folder, config.signal_servers, backup_passphrase=config.backup_passphrase)
    if wanted not in ("worker", "agent"):
        raise ConfigError(f'Services come from "local", "worker" or "agent", or a provider, not {wanted!r:.80}.')
    if folder is None:
        raise ConfigError('A profile in memory cannot be shared by processes: use `services="local"`.')
    if sys.platform == "win32":
        raise ConfigError('Processes cannot share a profile on Windows yet: use `services="local"`.')
    from dxos.worker.provider import WorkerServices

    return WorkerServices(
        folder,
        config.signal_servers,
        backup_passphrase=config.backup_passphrase,
        agent_idle_s=config.agent_idle_s if wanted == "agent" else None,
    )


@final
class EchoFace:
    """`client.echo`: the spaces, under the names of the first releases."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create_space(self, properties: Mapping[str, Any] | None = None, /, **more: Any) -> Space:
        """The same as `client.create_space`."""
        return await self._client.create_space(properties, **more)

    def query_spaces(self) -> SpaceList:
        """The same as `client.spaces`: an object with `value` and `subscribe`."""
        return self._client.spaces

    def get_space(self, key: str | PublicKey | None = None) -> Space | None:
        """The same as `client.get_space`."""
        return self._client.get_space(key)

    def accept_invitation(self, invitation: Invitation | str) -> AuthenticatingInvitation:
        """The same as `client.accept_invitation`."""
        return self._client.accept_invitation(invitation)

    def __repr__(self) -> str:
        return f"<EchoFace {self._client!r}>"
