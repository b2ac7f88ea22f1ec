"""`Space`: one shared database with its members, as an application holds it; and the list of all of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol, final, overload

import anyio

from dxos.aio import Changes, Subscription, stay_here
from dxos.client.database import Database, Spawn
from dxos.client.history import PastSpace
from dxos.client.invitations import (
    AuthenticatingInvitation,
    CancellableInvitation,
    InvitationsProxy,
    make_space_invitation,
)
from dxos.client.live import plain_object
from dxos.client.object import EchoObject
from dxos.client.observable import MulticastObservable, Source
from dxos.client.progress import Activities
from dxos.client.tables import properties_table, table
from dxos.echo.revision import Revision
from dxos.errors import DeadlineError, DxosError, NotAllowedError, SpaceNotReadyError
from dxos.halo.invitation import AuthMethod, Invitation
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.limits import SPACE_REOPEN_S, TABLE_ROWS_MAX
from dxos.services.contract import (
    CredentialInfo,
    Next,
    PipelineState,
    Presence,
    Progress,
    Services,
    SpaceArchive,
    SpaceInfo,
    SpaceMember,
    SpaceMessage,
    SpaceState,
    SpaceStats,
    SystemStatus,
)

_READ_ONLY: Final = frozenset({SpaceRole.READER, SpaceRole.REMOVED})
_OPENING: Final = frozenset({SpaceState.CLOSED, SpaceState.CONTROL_ONLY, SpaceState.INITIALIZING})
_ID_CHARS_SHOWN: Final = 8

_log = logging.getLogger("dxos.client")


@final
class Space:
    """A space of this identity. Made by the client; the same space is the same object."""

    def __init__(
        self,
        info: SpaceInfo,
        services: Services,
        invitations: InvitationsProxy,
        activities: Activities,
        spawn: Spawn,
        status: MulticastObservable[SystemStatus | None],
    ) -> None:
        self._info, self._services, self._invitations, self._spawn = info, services, invitations, spawn
        self._activities = activities
        self._db = Database(
            info.id, services.data, services.query, services.history, activities, spawn, self._check_writable, status
        )
        self._properties: EchoObject | None = None
        self._opening = False
        self._stale = False  # Whether rows may have been missed, because nobody followed them.
        self._state: Source[SpaceState] = Source(SpaceState.CLOSED)
        self._members: Source[tuple[SpaceMember, ...]] = Source(())
        self._pipeline: Source[PipelineState] = Source(info.pipeline)
        self._received = Changes()
        self._held: SpaceInfo | None = None  # While a new host opens the space again: what it says meanwhile.
        self._held_until = -math.inf  # Seconds on the event loop's clock.
        self._end_error: DxosError | None = None  # Why the host says nothing more of this space.

    # --- What it is ---

    @property
    def id(self) -> str:
        """The space's id: 33 characters."""
        return self._info.id

    @property
    def key(self) -> PublicKey:
        """The space's key."""
        return self._info.key

    @property
    def info(self) -> SpaceInfo:
        """All that the host says of the space at this moment."""
        return self._info

    @property
    def db(self) -> Database:
        """The objects of the space."""
        return self._db

    @property
    def state(self) -> MulticastObservable[SpaceState]:
        """The life of the space; READY once its properties are here too."""
        return self._state

    @property
    def is_open(self) -> bool:
        """Whether the space is READY."""
        return self._state.get() is SpaceState.READY

    @property
    def error(self) -> DxosError | None:
        """Why the space is in state ERROR."""
        return self._info.error

    @property
    def properties(self) -> EchoObject:
        """The object that says what the space is called, and what applications add to that.

        Raises:
            SpaceNotReadyError: The space is closed or still opening.
        """
        if self._properties is None:
            raise SpaceNotReadyError(f"Space {self._short} is not open: `await space.wait_until_ready()` first.")
        return self._properties

    @property
    def name(self) -> str | None:
        """The name in the properties, or the last one known while the space is closed."""
        if self._properties is not None and self._properties.loaded:
            found = getattr(self._properties, "name", None)
            return found if isinstance(found, str) else None
        return self._info.cached_name

    @property
    def role(self) -> SpaceRole:
        """What this identity may do here."""
        return self._info.role

    @property
    def members(self) -> MulticastObservable[tuple[SpaceMember, ...]]:
        """The members, in the order of their admission."""
        return self._members

    @property
    def pipeline(self) -> MulticastObservable[PipelineState]:
        """How far the space's own records have been read."""
        return self._pipeline

    @property
    def invitations(self) -> MulticastObservable[tuple[CancellableInvitation, ...]]:
        """Open invitations to this space, also those from before a restart."""
        return self._invitations.created.map(
            lambda all_: tuple(one for one in all_ if one.get().space_id == self.id or one.get().space_key == self.key)
        )

    # --- Life ---

    async def wait_until_ready(self, timeout_s: float | None = None) -> Space:
        """Wait until the space can be used.

        Raises:
            DeadlineError: It was not ready in time.
            DxosError: It could not be opened; the error says why.
        """
        state = await self._state.wait_for(lambda one: one in (SpaceState.READY, SpaceState.ERROR), timeout_s)
        if state is SpaceState.ERROR:
            raise self._info.error or SpaceNotReadyError(f"Space {self._short} could not be opened.")
        return self

    async def wait_until_synced(
        self, timeout_s: float | None = None, *, member: SpaceMember | PublicKey | None = None
    ) -> Space:
        """Wait until another member is connected, and neither this side nor a connected one lacks anything.

        What was changed here before is then with every connected peer. While no other member is online there is
        nobody to say so, and this goes on waiting.

        Args:
            timeout_s: Seconds to wait; None for ever.
            member: Who must be online; None: any other member.

        Raises:
            DeadlineError: It was not so in time.
            ClosedError: The client was closed, or the space is gone from this device.
            DxosError: The space could not be opened, or the host refused a change that was on its way.

        Cancelling is safe.
        """
        key = member.identity_key if isinstance(member, SpaceMember) else member
        with anyio.move_on_after(timeout_s):
            await self.wait_until_ready()
            await self._db.flush()
            await self._wait_for_info(lambda info: _is_synced(info, key))
            return self
        raise DeadlineError(
            f"No connected member of space {self._short} had the same content in time; it is kept here, and travels "
            "when a member is online."
        )

    async def _wait_for_info(self, condition: Callable[[SpaceInfo], bool]) -> None:
        # Asked for anew, because what the host told last may be older than the edits that it has taken since; and
        # looked at as it comes, because it may not be so any more when this task has its turn.
        met = False

        def look(infos: tuple[SpaceInfo, ...]) -> None:
            nonlocal met
            met = met or any(info.id == self.id and condition(info) for info in infos)
            self._received.notify()

        stream = self._services.spaces.query_spaces(look)
        try:
            while not met:
                if self._end_error is not None:
                    raise self._end_error
                await self._received.wait()
        finally:
            stream.unsubscribe()

    async def open(self) -> None:
        """Open the space; remembered over restarts. Returns when it is ready."""
        await self._services.spaces.update_space(self.id, SpaceState.ACTIVE)
        await self.wait_until_ready()

    async def close(self) -> None:
        """Store what was changed, and close the space on this device; remembered over restarts."""
        if self.is_open:
            await self._db.flush()
        await self._services.spaces.update_space(self.id, SpaceState.INACTIVE)
        await self._state.wait_for(lambda one: one is not SpaceState.READY)

    # --- Members ---

    def create_invitation(
        self,
        *,
        auth_method: AuthMethod = AuthMethod.SHARED_SECRET,
        multi_use: bool = False,
        lifetime_s: int | None = None,
        timeout_s: float | None = None,
        persistent: bool | None = None,
        role: SpaceRole | None = None,
        target: str | None = None,
    ) -> CancellableInvitation:
        """Invite somebody to this space.

        Args:
            auth_method: SHARED_SECRET: the guest needs a code of six digits too; NONE: the invitation is enough.
            multi_use: Whether it admits more than one guest.
            lifetime_s: Seconds until it ends: 1 to 2,592,000 (30 days). None: 24 hours.
            timeout_s: Seconds a guest has from its arrival to its admission. None: 180.
            persistent: Whether it goes on after a restart. None: yes.
            role: What the guest may do. None: EDITOR.
            target: What the guest's application should show first.

        Returns:
            An observable, at once. Its first value is in state INIT; the authentication code is in a later one. It
            fails with NotAllowedError if this identity may not invite.
        """
        return self._invitations.create(
            make_space_invitation(
                self.id,
                self.key,
                auth_method=auth_method,
                multi_use=multi_use,
                lifetime_s=lifetime_s,
                timeout_s=timeout_s,
                persistent=persistent,
                role=role,
                target=target,
            )
        )

    share = create_invitation

    async def update_member_role(self, member: SpaceMember | PublicKey, role: SpaceRole) -> None:
        """Give a member another role.

        Raises:
            NotAllowedError: The role of this identity, or of the member, forbids it.
        """
        key = member.identity_key if isinstance(member, SpaceMember) else member
        await self._services.spaces.update_member_role(self.id, key, role)

    async def remove_member(self, member: SpaceMember | PublicKey) -> None:
        """Remove a member; the others stop talking to it at once.

        Raises:
            NotAllowedError: The role of this identity, or of the member, forbids it.
        """
        await self.update_member_role(member, SpaceRole.REMOVED)

    def at(self, moment: datetime | Revision) -> PastSpace:
        """The space as it was, to be read.

        Args:
            moment: When, in local time if it has no time zone; or a revision from `obj.history()`: right after it.

        Raises:
            UsageError: Nobody knows when the revision was made.
        """
        return self._db.at(moment)

    async def query_credentials(self) -> list[CredentialInfo]:
        """The credentials of the space, in the order in which they were processed."""
        return await self._services.spaces.query_credentials(self.id)

    # --- Epochs and room ---

    async def create_epoch(self) -> None:
        """Begin anew without old history and without deleted objects, which are given up here and by all who follow.

        Every member goes over to the new epoch when it hears of it. Whoever was away loses nothing: what they added and
        edited meanwhile is taken over. Objects that others deleted stay deleted. Cancelling leaves it begun, or not.

        Raises:
            SpaceNotReadyError: The space is not open.
            NotAllowedError: You are READER, or no other member has been online since this device joined.
        """
        if self.is_open:
            await self._db.flush()
        await self._services.spaces.create_epoch(self.id)

    async def compact(self, *, progress: Next[Progress] | None = None) -> None:
        """Store each object as one piece, without giving up history, and give unused room back to the disk.

        Cancelling leaves what was done so far.

        Args:
            progress: Called with how many documents are done, and of how many.

        Raises:
            SpaceNotReadyError: The space is not open.
        """
        if self.is_open:
            await self._db.flush()
        with self._activities.begin("compact", self.id, progress) as tell:
            await self._services.spaces.compact(self.id, tell)

    async def stats(self) -> SpaceStats:
        """What the space takes on the disk, what of it could be freed, and what was.

        Raises:
            SpaceNotReadyError: The space is not open.
        """
        return await self._services.spaces.query_stats(self.id)

    async def export_archive(self, *, progress: Next[Progress] | None = None) -> SpaceArchive:
        """The whole space as one file, its history included, that JavaScript peers import too.

        `client.spaces.import_archive` makes a new space of it. Objects that have not arrived here yet, or are damaged,
        are not in it: `missing` counts them.

        Args:
            progress: Called with how many documents are done, and of how many.

        Raises:
            SpaceNotReadyError: The space is closed.
        """
        if self.is_open:
            await self._db.flush()
        with self._activities.begin("export", self.id, progress) as tell:
            return await self._services.spaces.export_space(self.id, tell)

    # --- Messages ---

    async def post_message(self, channel: str, payload: Mapping[str, Any]) -> None:
        """Send to every member that is connected now; nobody keeps it, and it does not come back here.

        Args:
            channel: Any name.
            payload: JSON-like data.

        Raises:
            InvalidValueError: A value in it that is none.
        """
        await self._services.spaces.post_message(self.id, channel, plain_object(payload))

    def listen(self, channel: str, callback: Callable[[SpaceMessage], object]) -> Subscription:
        """Have `callback` called with each message that another member posts to a channel."""
        messages: Source[SpaceMessage] = Source()
        subscription = messages.subscribe(callback)
        stream = self._services.spaces.subscribe_messages(self.id, channel, messages._next)

        def end() -> None:
            stream.unsubscribe()
            subscription.unsubscribe()

        return Subscription(end)

    __reduce_ex__ = stay_here

    # --- For the client ---

    @property
    def _short(self) -> str:
        return self.id[:_ID_CHARS_SHOWN]

    def _check_writable(self) -> None:
        if self._info.state is not SpaceState.READY:
            raise SpaceNotReadyError(f"Space {self._short} is not open: `await space.wait_until_ready()` first.")
        if self._info.role in _READ_ONLY:
            raise NotAllowedError(f"You are {self._info.role.name} in space {self._short} and cannot change it.")

    def _expect_reopening(self) -> None:
        """The host is gone: the next one opens the space again, and until then it is used as it was."""
        if self._info.state is SpaceState.READY:
            self._held_until = anyio.current_time() + SPACE_REOPEN_S

    async def _release(self) -> None:
        await anyio.sleep_until(self._held_until)
        if self._held is not None:
            self._receive(self._held)

    def _receive(self, info: SpaceInfo) -> None:
        if info.state in _OPENING and anyio.current_time() < self._held_until:
            if self._held is None:
                self._spawn(self._release)
            self._held = info
            return
        self._held, self._held_until = None, -math.inf
        self._info = info
        self._received.notify()
        self._activities._report_sync(info.id, info.arriving)
        if info.members != self._members.get():
            self._members._next(info.members)
        if info.pipeline != self._pipeline.get():
            self._pipeline._next(info.pipeline)
        if info.state is not SpaceState.READY:
            self._db.pause()
            self._properties = None
            self._tell(info.state)
            return
        if self._db.open():
            self._stale = True
        if self._stale and not self._opening:
            self._opening = True
            self._tell(SpaceState.INITIALIZING)
            self._spawn(self._load)

    async def _load(self) -> None:
        """The host is ready; so is this once the properties are here."""
        while self._stale:
            self._stale = False  # Set again if the space closes and opens meanwhile.
            try:
                await self._db.refresh()
                if self._info.properties_id is not None:
                    self._properties = await self._db.get(self._info.properties_id)
            except DxosError as error:
                _log.warning("Space %s has no properties: %s", self._short, error)
        self._opening = False
        if self._info.state is SpaceState.READY:
            self._tell(SpaceState.READY)
        else:
            self._properties = None

    def _tell(self, state: SpaceState) -> None:
        if self._state.get() is not state:
            self._state._next(state)

    def _end(self, error: DxosError, *, is_gone: bool = False) -> None:
        self._db.end(is_gone=is_gone)
        self._end_error = error
        self._received.notify()
        self._activities._report_sync(self.id, None)
        self._tell(SpaceState.CLOSED)
        for source in (self._state, self._members, self._pipeline):
            source._error(error)

    def to_json(self) -> dict[str, Any]:
        """The space as plain data, for people to read."""
        return {
            "id": self.id,
            "key": self.key.hex,
            "name": self.name,
            "state": self._state.get().name,
            "role": self._info.role.name,
            "members": len(self._members.get()),
        }

    def _repr_html_(self) -> str:
        return properties_table("Space", self.to_json())

    def __repr__(self) -> str:
        name = f" {self.name!r:.40}" if self.name else ""
        return f"<Space {self._short}{name} {self._state.get().name}>"


class SpaceMaker(Protocol):
    """What the list of spaces asks of the client."""

    async def import_archive(self, contents: bytes, progress: Next[Progress] | None) -> Space: ...

    async def create_space(self, properties: Mapping[str, Any] | None = None, /, **more: Any) -> Space: ...

    def accept_invitation(self, invitation: Invitation | str) -> AuthenticatingInvitation: ...


@final
class SpaceList(Source[tuple[Space, ...]]):
    """The spaces of this identity: an observable of all, with ways to find, make and join one."""

    def __init__(self, maker: SpaceMaker, default_id: Callable[[], str | None]) -> None:
        super().__init__(())
        self._maker, self._default_id = maker, default_id

    @overload
    def get(self) -> tuple[Space, ...]: ...
    @overload
    def get(self, key: str | PublicKey) -> Space | None: ...
    def get(self, key: str | PublicKey | None = None) -> tuple[Space, ...] | Space | None:
        """All spaces; or the one of that id or key, None if there is no such."""
        spaces = super().get()
        if key is None:
            return spaces
        return next((one for one in spaces if key in (one.id, one.key, one.key.hex)), None)

    @property
    def default(self) -> Space | None:
        """The identity's default space; None unless one was made, which 0.8.3 does by itself and we do not."""
        found = self._default_id()
        return None if found is None else self.get(found)

    async def create(self, properties: Mapping[str, Any] | None = None, /, **more: Any) -> Space:
        """The same as `client.create_space`."""
        return await self._maker.create_space(properties, **more)

    async def import_archive(self, archive: SpaceArchive | bytes, *, progress: Next[Progress] | None = None) -> Space:
        """Make a new space with a copy of what an archive holds; this identity is its owner and only member.

        Args:
            archive: From `space.export_archive`, or the content of a file, which a JavaScript peer may have written.
            progress: Called with how many documents are done, and of how many.

        Raises:
            InvalidValueError: It is no archive of a space, or damaged; nothing is left of it.
            IdentityMissingError: This device has no identity yet.

        Cancelling leaves nothing of it, or the whole space.
        """
        contents = archive.contents if isinstance(archive, SpaceArchive) else archive
        return await self._maker.import_archive(contents, progress)

    def join(self, invitation: Invitation | str) -> AuthenticatingInvitation:
        """The same as `client.accept_invitation`."""
        return self._maker.accept_invitation(invitation)

    def __iter__(self) -> Any:
        return iter(self.get())

    def __len__(self) -> int:
        return len(self.get())

    def _repr_html_(self) -> str:
        spaces = self.get()
        columns = ("name", "id", "state", "role", "members")
        rows = [[one.to_json()[name] for name in columns] for one in spaces[:TABLE_ROWS_MAX]]
        return table(columns, rows, total=len(spaces) if len(spaces) > len(rows) else None)


def _is_synced(info: SpaceInfo, member: PublicKey | None) -> bool:
    return info.synced and any(
        one.presence is Presence.ONLINE and not one.is_self and member in (None, one.identity_key)
        for one in info.members
    )
