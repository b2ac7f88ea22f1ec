"""`FakeServices`: a host in memory that speaks the service contract, for tests of what is above it.

    network = FakeNetwork()
    alice, bob = FakeServices(network), FakeServices(network)
    async with Client(services=alice) as client: …

Hosts of one network admit one another, and share the data of a space instead of replicating it; identities, spaces and
objects stay when a host is closed and opened again. No CRDT: concurrent edits are applied one after the other.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, TypeVar, final

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup
from msgspec.structs import replace

from dxos import words
from dxos.echo.difference import differences, merge_rows
from dxos.echo.mutation import SetDeleted, apply_to_row, check_value
from dxos.echo.query import Query, select
from dxos.echo.revision import Conflict, Revision
from dxos.echo.rows import ObjectRow, Path
from dxos.echo.schema import SCHEMA_TYPE
from dxos.errors import (
    AlreadyJoinedError,
    AuthenticationError,
    DxosError,
    IdentityExistsError,
    IdentityMissingError,
    InvalidValueError,
    InvitationCancelledError,
    InvitationUsedError,
    NotAllowedError,
    ObjectNotFoundError,
    SpaceNotFoundError,
    UsageError,
)
from dxos.halo.invitation import AuthMethod, Invitation, InvitationState
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.keys.ids import identity_did, make_object_id
from dxos.keys.ids import space_id as space_id_of
from dxos.limits import INVITATION_ATTEMPTS_MAX, INVITATION_LIFETIME_S, INVITATION_TIMEOUT_S
from dxos.services.contract import (
    ConnectionState,
    Contact,
    CredentialInfo,
    Device,
    DeviceKind,
    Edit,
    Identity,
    InvitationsState,
    InvitationUpdate,
    JsonObject,
    LogEntry,
    LogLevel,
    NetworkStatus,
    Next,
    ObjectState,
    PipelineState,
    Platform,
    Presence,
    Profile,
    Progress,
    QueryPlan,
    Receipt,
    SearchHit,
    SpaceArchive,
    SpaceInfo,
    SpaceMember,
    SpaceMessage,
    SpaceState,
    SpaceStats,
    StorageInfo,
    Subscription,
    SwarmInfo,
    SystemStatus,
)

T = TypeVar("T")

AUTH_CODE = "123456"
_PROPERTIES_TYPE = "dxn:type:dxos.org/type/Properties:0.1.0"
_KEY_BYTES = 65
_keys = itertools.count(1)


def _key(size: int = _KEY_BYTES) -> PublicKey:
    """Another key each time; of no use for signing."""
    digest = hashlib.sha512(next(_keys).to_bytes(8, "big")).digest()
    return PublicKey((b"\x04" + digest + digest)[:size])


@final
class _End:
    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    def unsubscribe(self) -> None:
        self._end()


@final
class _Stream(Generic[T]):
    """A value and who follows it; `value` None says that there is none at first."""

    def __init__(self, read: Callable[[], T] | None = None) -> None:
        self._read = read
        self._next: dict[int, Next[T]] = {}
        self._numbers = itertools.count()

    def subscribe(self, next_: Next[T]) -> Subscription:
        number = next(self._numbers)
        self._next[number] = next_
        if self._read is not None:
            next_(self._read())

        def end() -> None:
            self._next.pop(number, None)

        return _End(end)

    def send(self, value: T) -> None:
        for number, next_ in tuple(self._next.items()):
            if number in self._next:
                next_(value)

    def refresh(self) -> None:
        assert self._read is not None
        self.send(self._read())

    def __len__(self) -> int:
        return len(self._next)


@dataclass
class _Past:
    """One change of an object; its time is its number, from 1."""

    before: ObjectRow | None
    after: ObjectRow
    host: FakeServices | None  # Whose it is; None where it can be undone by nobody.
    step: int  # Changes that are undone at once have the same number.
    undone: bool = False


@dataclass
class _SharedSpace:
    """A space, as all hosts of the network see it."""

    key: PublicKey
    properties_id: str
    members: list[tuple[FakeServices, SpaceRole]] = field(default_factory=list)
    objects: dict[str, ObjectState] = field(default_factory=dict)
    changes: _Stream[tuple[ObjectState, ...]] = field(default_factory=_Stream)
    past: list[_Past] = field(default_factory=list)
    steps: int = 0  # What is undone at once, so far.
    epoch: int = 0
    reclaimed: int = 0  # Objects that epochs have given up.

    @property
    def id(self) -> str:
        return space_id_of(self.key)

    def role_of(self, host: FakeServices) -> SpaceRole:
        return next((role for one, role in self.members if one is host), SpaceRole.INVALID)

    def put(self, row: ObjectRow, host: FakeServices | None = None, step: int = 0) -> ObjectState:
        before = self.objects.get(row.object_id)
        self.past.append(_Past(None if before is None else before.row, row, host, step))
        version = 1 if before is None else before.version + 1
        state = ObjectState(row, version, (hashlib.sha256(f"{row.object_id}{version}".encode()).digest(),))
        self.objects[row.object_id] = state
        return state


@dataclass
class _Hosted:
    """An invitation and whoever takes part in it."""

    host: FakeServices
    invitation: Invitation
    updates: _Stream[InvitationUpdate] = field(default_factory=_Stream)
    failures: int = 0
    done: bool = False


@final
class FakeNetwork:
    """What hosts have in common: spaces, and invitations that wait."""

    def __init__(self) -> None:
        self.hosts_answer = True  # Whether guests find the hosts of invitations.
        self.spaces: dict[str, _SharedSpace] = {}
        self.hosted: dict[str, _Hosted] = {}


@final
class FakeServices:
    """A host in memory, and its provider: `async with fake as services`.

    Attributes:
        calls: The names of the calls so far, such as "data.update".
        refuse: What the next `data.update` raises.
        held: While set, `data.update` waits for it before it applies anything.
        open_error: What opening raises.
    """

    def __init__(self, network: FakeNetwork | None = None) -> None:
        self.network = network or FakeNetwork()
        self.calls: list[str] = []
        self.refuse: DxosError | None = None
        self.held: anyio.Event | None = None
        self.open_error: Exception | None = None
        self.opened = 0
        self._tasks: TaskGroup | None = None
        self.identity_value: Identity | None = None
        self.device_key = _key()
        self.connection = ConnectionState.ONLINE
        self.space_states: dict[str, SpaceState] = {}
        self.system = _System(self)
        self.network_service = _Network(self)
        self.identity = _Identity(self)
        self.devices = _Devices(self)
        self.contacts = _Contacts(self)
        self.invitations = _Invitations(self)
        self.spaces = _Spaces(self)
        self.data = _Data(self)
        self.query = _Query(self)
        self.history = _History(self)

    async def __aenter__(self) -> _Opened:
        await anyio.lowlevel.checkpoint()
        if self.open_error is not None:
            raise self.open_error
        assert self._tasks is None, "opened twice at once"
        self._tasks = await anyio.create_task_group().__aenter__()
        self.opened += 1
        return _Opened(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        tasks.cancel_scope.cancel()
        return await tasks.__aexit__(kind, error, trace)

    def crash(self, error: Exception) -> None:
        """Fail as a host does whose disk is gone."""

        async def fail() -> None:
            raise error

        assert self._tasks is not None
        self._tasks.start_soon(fail)

    def shared(self, space_id: str) -> _SharedSpace:
        """A space of this host."""
        space = self.network.spaces.get(space_id)
        if space is None or not space.role_of(self).is_member:
            raise SpaceNotFoundError(f"There is no space {space_id} here.")
        return space

    def change(self, space_id: str, object_id: str, data: dict[str, Any], *, type: str | None = None) -> None:
        """Change an object as a peer that is no client does."""
        space = self.network.spaces[space_id]
        before = space.objects.get(object_id)
        row = ObjectRow(object_id, type=type, data=data) if before is None else replace(before.row, data=data)
        space.changes.send((space.put(row),))

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Let updates wait while the block runs."""
        self.held = anyio.Event()
        try:
            yield
        finally:
            self.held.set()
            self.held = None

    def _info(self, space: _SharedSpace) -> SpaceInfo:
        state = self.space_states.get(space.id, SpaceState.READY)
        members = []
        for host, role in space.members:
            identity = host.identity_value
            assert identity is not None
            members.append(
                SpaceMember(identity.identity_key, identity.did, identity.profile, role, Presence.ONLINE, host is self)
            )
        name = space.objects[space.properties_id].row.data.get("name")
        return SpaceInfo(
            id=space.id,
            key=space.key,
            state=state,
            members=tuple(members),
            pipeline=PipelineState(epoch=space.epoch),
            role=space.role_of(self),
            properties_id=space.properties_id if state is SpaceState.READY else None,
            cached_name=name,
        )

    def _joined(self) -> list[_SharedSpace]:
        return [one for one in self.network.spaces.values() if one.role_of(self).is_member]

    def _members_changed(self, space: _SharedSpace) -> None:
        for host, _ in space.members:
            host.spaces.stream.refresh()
            host.contacts.stream.refresh()


@final
class _Opened:
    """The services of an open fake."""

    def __init__(self, host: FakeServices) -> None:
        self.system = host.system
        self.network = host.network_service
        self.identity = host.identity
        self.devices = host.devices
        self.contacts = host.contacts
        self.invitations = host.invitations
        self.spaces = host.spaces
        self.data = host.data
        self.query = host.query
        self.history = host.history
        self.logging = _Logging(host)
        self.devtools = _Devtools(host)


class _Service:
    def __init__(self, host: FakeServices) -> None:
        self._host = host

    async def _called(self, name: str) -> None:
        self._host.calls.append(name)
        await anyio.lowlevel.checkpoint()


class _System(_Service):
    def query_status(self, next: Next[SystemStatus | None]) -> Subscription:
        return _Stream[SystemStatus | None](lambda: SystemStatus.ACTIVE).subscribe(next)

    async def get_platform(self) -> Platform:
        await anyio.lowlevel.checkpoint()
        return Platform("fake", "3", "fake", 0)

    async def get_config(self) -> JsonObject:
        await self._called("system.get_config")
        return {}

    async def get_diagnostics(self) -> JsonObject:
        await self._called("system.get_diagnostics")
        return {}

    async def update_status(self, status: SystemStatus) -> None:
        await self._called("system.update_status")

    async def reset(self) -> None:
        await self._called("system.reset")
        host = self._host
        for space in host._joined():
            space.members = [(one, role) for one, role in space.members if one is not host]
        host.identity_value = None

    async def back_up(self, path: str, passphrase: str, next: Next[Progress]) -> int:
        await self._called("system.back_up")
        raise UsageError("This profile is in memory; only one in a folder can be backed up.")


class _Logging(_Service):
    def query_logs(self, level: LogLevel, next: Next[LogEntry]) -> Subscription:
        return _End(lambda: None)


class _Devtools(_Service):
    async def get_storage_info(self) -> StorageInfo:
        await self._called("devtools.get_storage_info")
        return StorageInfo(0, 0, 0)

    def subscribe_to_swarm_info(self, next: Next[tuple[SwarmInfo, ...]]) -> Subscription:
        next(())
        return _End(lambda: None)


class _Network(_Service):
    def __init__(self, host: FakeServices) -> None:
        super().__init__(host)
        self.stream = _Stream(lambda: NetworkStatus(host.connection))

    def query_status(self, next: Next[NetworkStatus]) -> Subscription:
        return self.stream.subscribe(next)

    async def update_config(self, state: ConnectionState) -> None:
        await self._called("network.update_config")
        self._host.connection = state
        self.stream.refresh()


class _Identity(_Service):
    def __init__(self, host: FakeServices) -> None:
        super().__init__(host)
        self.stream = _Stream(lambda: host.identity_value)
        self.credentials: list[CredentialInfo] = []

    def query_identity(self, next: Next[Identity | None]) -> Subscription:
        return self.stream.subscribe(next)

    async def create_identity(self, profile: Profile, device_label: str | None = None) -> Identity:
        await self._called("identity.create_identity")
        host = self._host
        if host.identity_value is not None:
            raise IdentityExistsError("This device has an identity already.")
        key = _key()
        host.identity_value = Identity(key, identity_did(key), _key(), profile)
        self.credentials.append(
            CredentialInfo(_key(32), "dxos.halo.credentials.AuthorizedDevice", key, host.device_key, 0, {}, b"")
        )
        self.stream.refresh()
        host.devices.stream.refresh()
        return host.identity_value

    async def update_profile(self, profile: Profile) -> Identity:
        await self._called("identity.update_profile")
        if self._host.identity_value is None:
            raise IdentityMissingError("This device has no identity yet.")
        self._host.identity_value = replace(self._host.identity_value, profile=profile)
        self.stream.refresh()
        for space in self._host.network.spaces.values():
            if space.role_of(self._host).is_member:
                self._host._members_changed(space)
        return self._host.identity_value

    async def query_credentials(
        self, *, ids: Sequence[PublicKey] | None = None, type: str | None = None
    ) -> list[CredentialInfo]:
        await self._called("identity.query_credentials")
        return [one for one in self.credentials if (ids is None or one.id in ids) and type in (None, one.type)]

    async def sign_presentation(self, ids: Sequence[PublicKey], nonce: bytes | None) -> bytes:
        await self._called("identity.sign_presentation")
        return b"".join(bytes(one) for one in ids) + (nonce or b"")


class _Devices(_Service):
    def __init__(self, host: FakeServices) -> None:
        super().__init__(host)
        self.stream = _Stream(self._devices)

    def _devices(self) -> tuple[Device, ...]:
        if self._host.identity_value is None:
            return ()
        return (Device(self._host.device_key, DeviceKind.CURRENT, Presence.ONLINE),)

    def query_devices(self, next: Next[tuple[Device, ...]]) -> Subscription:
        return self.stream.subscribe(next)


class _Contacts(_Service):
    def __init__(self, host: FakeServices) -> None:
        super().__init__(host)
        self.stream = _Stream(self._contacts)

    def _contacts(self) -> tuple[Contact, ...]:
        spaces: dict[PublicKey, list[str]] = {}
        found: dict[PublicKey, Identity] = {}
        for space in self._host._joined():
            for other, _ in space.members:
                if other is not self._host and other.identity_value is not None:
                    key = other.identity_value.identity_key
                    found[key] = other.identity_value
                    spaces.setdefault(key, []).append(space.id)
        return tuple(Contact(key, one.did, one.profile, tuple(spaces[key])) for key, one in found.items())

    def query_contacts(self, next: Next[tuple[Contact, ...]]) -> Subscription:
        return self.stream.subscribe(next)


class _Invitations(_Service):
    def __init__(self, host: FakeServices) -> None:
        super().__init__(host)
        self.stream = _Stream(self._state)
        self.guests: dict[str, _Hosted] = {}

    def _state(self) -> InvitationsState:
        hosted = self._host.network.hosted.values()
        return InvitationsState(tuple(one.invitation for one in hosted if one.host is self._host and not one.done))

    def query_invitations(self, next: Next[InvitationsState]) -> Subscription:
        return self.stream.subscribe(next)

    def create_invitation(self, invitation: Invitation, next: Next[InvitationUpdate]) -> Subscription:
        hosted = self._host.network.hosted.get(invitation.invitation_id)
        if hosted is None:
            role = self._host.shared(invitation.space_id or "").role_of(self._host)
            if not role.may_admit:
                error = NotAllowedError("Only an owner or admin may invite.")
                failed = replace(invitation, state=InvitationState.ERROR)
                next(InvitationUpdate(failed, error=error, done=True))
                return _End(lambda: None)
            secret = AUTH_CODE if invitation.auth_method is AuthMethod.SHARED_SECRET else None
            invitation = replace(
                invitation,
                state=InvitationState.CONNECTING,
                auth_code=secret,
                timeout_ms=invitation.timeout_ms or round(INVITATION_TIMEOUT_S * 1000),
                lifetime_s=round(INVITATION_LIFETIME_S) if invitation.lifetime_s is None else invitation.lifetime_s,
                role=invitation.role or SpaceRole.EDITOR,
            )
            hosted = self._host.network.hosted[invitation.invitation_id] = _Hosted(self._host, invitation)
            self.stream.refresh()
        subscription = hosted.updates.subscribe(next)
        next(InvitationUpdate(hosted.invitation, failures=hosted.failures))
        return subscription

    def accept_invitation(self, invitation: Invitation, next: Next[InvitationUpdate]) -> Subscription:
        guest = _Hosted(self._host, replace(invitation, state=InvitationState.CONNECTING))
        subscription = guest.updates.subscribe(next)
        self.guests[invitation.invitation_id] = guest
        next(InvitationUpdate(guest.invitation))
        assert self._host._tasks is not None
        self._host._tasks.start_soon(self._redeem, guest)
        return subscription

    async def _redeem(self, guest: _Hosted) -> None:
        await anyio.lowlevel.checkpoint()
        if not self._host.network.hosts_answer:
            return
        hosted = self._host.network.hosted.get(guest.invitation.invitation_id)
        space = self._host.network.spaces.get(guest.invitation.space_id or "")
        if space is not None and space.role_of(self._host).is_member:
            self._end(guest, InvitationState.ERROR, AlreadyJoinedError("You are a member of this space already."))
        elif self._host.identity_value is None:
            self._end(guest, InvitationState.ERROR, IdentityMissingError("This device has no identity yet."))
        elif hosted is None or hosted.done:
            self._end(guest, InvitationState.ERROR, InvitationUsedError("The invitation was used or cancelled."))
        else:
            for state in (InvitationState.CONNECTED, InvitationState.READY_FOR_AUTHENTICATION):
                self._move(hosted, state)
                self._move(guest, state)
                await anyio.lowlevel.checkpoint()
            if hosted.invitation.auth_method is AuthMethod.NONE:
                self._admit(guest, hosted)

    async def authenticate(self, invitation_id: str, auth_code: str) -> None:
        await self._called("invitations.authenticate")
        guest = self.guests.get(invitation_id)
        hosted = self._host.network.hosted.get(invitation_id)
        if guest is None or hosted is None:
            raise UsageError("No such invitation.")
        self._move(guest, InvitationState.AUTHENTICATING)
        await anyio.lowlevel.checkpoint()
        if auth_code == hosted.invitation.auth_code:
            self._admit(guest, hosted)
            return
        hosted.failures += 1
        guest.failures += 1
        if hosted.failures < INVITATION_ATTEMPTS_MAX:
            self._move(guest, InvitationState.READY_FOR_AUTHENTICATION)
            self._move(hosted, InvitationState.READY_FOR_AUTHENTICATION)
            return
        error = AuthenticationError("The authentication code was wrong too often.")
        self._end(guest, InvitationState.ERROR, error)
        self._end(hosted, InvitationState.ERROR, error)

    async def cancel_invitation(self, invitation_id: str) -> None:
        await self._called("invitations.cancel_invitation")
        error = InvitationCancelledError("The invitation was cancelled.")
        for one in (self._host.network.hosted.get(invitation_id), self.guests.get(invitation_id)):
            if one is not None and one.host is self._host and not one.done:
                self._end(one, InvitationState.CANCELLED, error)

    def _admit(self, guest: _Hosted, hosted: _Hosted) -> None:
        space = hosted.host.shared(hosted.invitation.space_id or "")
        space.members.append((self._host, hosted.invitation.role or SpaceRole.EDITOR))
        self._host._members_changed(space)
        guest.invitation = replace(guest.invitation, space_key=space.key, space_id=space.id)
        self._end(guest, InvitationState.SUCCESS)
        if not hosted.invitation.multi_use:
            self._end(hosted, InvitationState.SUCCESS)
            return
        self._move(hosted, InvitationState.SUCCESS)
        self._move(hosted, InvitationState.CONNECTING)

    def _move(self, one: _Hosted, state: InvitationState) -> None:
        one.invitation = replace(one.invitation, state=state)
        one.updates.send(InvitationUpdate(one.invitation, failures=one.failures))

    def _end(self, one: _Hosted, state: InvitationState, error: DxosError | None = None) -> None:
        one.done, one.invitation = True, replace(one.invitation, state=state)
        one.updates.send(InvitationUpdate(one.invitation, error=error, done=True, failures=one.failures))
        one.host.invitations.stream.refresh()


class _Spaces(_Service):
    def __init__(self, host: FakeServices) -> None:
        super().__init__(host)
        self.stream = _Stream(lambda: tuple(host._info(space) for space in host._joined()))
        self.messages: dict[tuple[str, str], _Stream[SpaceMessage]] = {}

    def query_spaces(self, next: Next[tuple[SpaceInfo, ...]]) -> Subscription:
        return self.stream.subscribe(next)

    async def create_space(self, properties: JsonObject) -> SpaceInfo:
        await self._called("spaces.create_space")
        host = self._host
        if host.identity_value is None:
            raise IdentityMissingError("This device has no identity yet: `dx identity create`.")
        check_value(dict(properties))
        object_id = make_object_id(0, bytes(_key(10)))
        space = _SharedSpace(_key(), object_id, [(host, SpaceRole.OWNER)])
        space.put(ObjectRow(object_id, type=_PROPERTIES_TYPE, data=dict(properties)))
        host.network.spaces[space.id] = space
        self.stream.refresh()
        return host._info(space)

    async def update_space(self, space_id: str, state: SpaceState) -> None:
        await self._called("spaces.update_space")
        self._host.shared(space_id)
        opened = state is SpaceState.ACTIVE
        self._host.space_states[space_id] = SpaceState.READY if opened else SpaceState.INACTIVE
        self.stream.refresh()

    async def update_member_role(self, space_id: str, member: PublicKey, role: SpaceRole) -> None:
        await self._called("spaces.update_member_role")
        space = self._host.shared(space_id)
        if not space.role_of(self._host).may_admit:
            raise NotAllowedError("Only an owner or admin may do that.")
        before = list(space.members)
        space.members = [
            (one, role if one.identity_value is not None and one.identity_value.identity_key == member else had)
            for one, had in before
        ]
        self._host._members_changed(space)

    async def post_message(self, space_id: str, channel: str, payload: JsonObject) -> None:
        await self._called("spaces.post_message")
        for other, _ in self._host.shared(space_id).members:
            if other is not self._host:
                stream = other.spaces.messages.setdefault((space_id, channel), _Stream())
                stream.send(SpaceMessage(channel, payload, self._host.device_key, _key(32), 0))

    def subscribe_messages(self, space_id: str, channel: str, next: Next[SpaceMessage]) -> Subscription:
        return self.messages.setdefault((space_id, channel), _Stream()).subscribe(next)

    async def query_credentials(self, space_id: str) -> list[CredentialInfo]:
        await self._called("spaces.query_credentials")
        self._host.shared(space_id)
        return []

    async def create_epoch(self, space_id: str) -> None:
        await self._called("spaces.create_epoch")
        space = self._host.shared(space_id)
        if not space.role_of(self._host).may_write:
            raise NotAllowedError("This identity may only read.")
        deleted = [one for one, state in space.objects.items() if state.row.deleted]
        for one in deleted:
            del space.objects[one]
        space.epoch += 1
        space.reclaimed += len(deleted)
        self._host._members_changed(space)

    async def compact(self, space_id: str, next: Next[Progress]) -> None:
        await self._called("spaces.compact")
        count = len(self._host.shared(space_id).objects)
        next(Progress(count, count))

    async def query_stats(self, space_id: str) -> SpaceStats:
        """Without a CRDT there are no documents, and nothing has a size."""
        await self._called("spaces.query_stats")
        space = self._host.shared(space_id)
        deleted = sum(state.row.deleted for state in space.objects.values())
        objects = len(space.objects) - deleted
        return SpaceStats(space.epoch, objects, len(space.objects), 0, 0, 0, deleted, 0, space.reclaimed, 0, 0, 0)

    async def export_space(self, space_id: str, next: Next[Progress]) -> SpaceArchive:
        """Without a CRDT there are no documents: an archive of this host is one for such hosts only."""
        await self._called("spaces.export_space")
        rows = [state.row for state in self._host.shared(space_id).objects.values()]
        next(Progress(len(rows), len(rows)))
        return SpaceArchive(f"{space_id}.tar", msgspec.json.encode(rows))

    async def import_space(self, contents: bytes, next: Next[Progress]) -> SpaceInfo:
        await self._called("spaces.import_space")
        try:
            rows = msgspec.json.decode(contents, type=list[ObjectRow])
        except msgspec.DecodeError:
            raise InvalidValueError("This archive cannot be imported: no space archive.") from None
        info = await self.create_space({})
        assert info.properties_id is not None
        space = self._host.shared(info.id)
        for row in rows:
            is_properties = row.type == _PROPERTIES_TYPE
            space.put(replace(row, object_id=info.properties_id) if is_properties else row)
        next(Progress(len(rows), len(rows)))
        return info


class _Data(_Service):
    def subscribe(
        self, space_id: str, next: Next[tuple[ObjectState, ...]], *, missed: Callable[[], None] | None = None
    ) -> Subscription:
        return self._host.shared(space_id).changes.subscribe(next)

    async def update(
        self, space_id: str, edits: Sequence[Edit], *, receipt: Receipt | None = None, step: int | None = None
    ) -> tuple[ObjectState, ...]:
        await self._called("data.update")
        if self._host.held is not None:
            await self._host.held.wait()
        refuse, self._host.refuse = self._host.refuse, None
        if refuse is not None:
            raise refuse
        space = self._host.shared(space_id)
        rows = [self._apply(space, edit) for edit in edits]
        if step is None:
            step = await self.begin_step(space_id)
        states = tuple(space.put(row, None if row.type == SCHEMA_TYPE else self._host, step) for row in rows)
        space.changes.send(states)
        return states

    async def begin_step(self, space_id: str) -> int:
        space = self._host.shared(space_id)
        space.steps += 1
        return space.steps

    def _apply(self, space: _SharedSpace, edit: Edit) -> ObjectRow:
        if edit.create is not None:
            check_value(edit.create.data)
            return replace(edit.create, meta={"keys": [], **edit.create.meta})  # As in every document.
        state = space.objects.get(edit.object_id)
        if state is None:
            raise ObjectNotFoundError(f"There is no object {edit.object_id}.")
        return apply_to_row(state.row, edit.mutations)

    def forget(self, client_id: str) -> None:
        pass

    async def flush(self, space_id: str) -> None:
        await self._called("data.flush")

    async def get(self, space_id: str, object_ids: Sequence[str]) -> tuple[ObjectState, ...]:
        await self._called("data.get")
        objects = self._host.shared(space_id).objects
        return tuple(objects[one] for one in object_ids if one in objects)

    def remove(self, space_id: str, object_id: str) -> None:
        """Remove an object as a peer that is no client does."""
        space = self._host.shared(space_id)
        space.changes.send((space.put(apply_to_row(space.objects[object_id].row, [SetDeleted(True)])),))


class _Query(_Service):
    async def execute(self, space_id: str, query: Query) -> tuple[ObjectState, ...]:
        await self._called("query.execute")
        objects = self._host.shared(space_id).objects
        return tuple(objects[row.object_id] for row in select(query, (one.row for one in objects.values())))

    async def count(self, space_id: str, query: Query) -> int:
        return len(await self.execute(space_id, replace(query, limit=None, offset=0)))

    async def search(self, space_id: str, query: Query) -> tuple[SearchHit, ...]:
        found = await self.execute(space_id, query)
        return tuple(SearchHit(one, 1.0, words.snippet(query.search, one.row.data)) for one in found)

    async def explain(self, space_id: str, query: Query) -> QueryPlan:
        await self._called("query.explain")
        return QueryPlan(("SCAN",), None, len(self._host.shared(space_id).objects))

    async def create_index(self, space_id: str, path: Path, *, by_type: bool) -> None:
        await self._called("query.create_index")
        self._host.shared(space_id)


class _History(_Service):
    async def revisions(self, space_id: str, object_id: str, limit: int) -> tuple[Revision, ...]:
        await self._called("history.revisions")
        found = [
            self._revision(number, one)
            for number, one in enumerate(self._host.shared(space_id).past, start=1)
            if one.after.object_id == object_id
        ]
        return tuple(found[::-1][:limit])

    def _revision(self, number: int, one: _Past) -> Revision:
        own, author = one.host is self._host, bytes(self._host.device_key)[:16]
        id_ = number.to_bytes(32, "big")
        return Revision(id_, one.after.object_id, number, own, author, differences(one.before, one.after))

    async def object_at(self, space_id: str, object_id: str, moment: int | bytes) -> ObjectRow | None:
        await self._called("history.object_at")
        return self._rows_at(space_id, moment).get(object_id)

    async def space_at(self, space_id: str, moment_ms: int, query: Query) -> tuple[ObjectRow, ...]:
        await self._called("history.space_at")
        return tuple(select(query, self._rows_at(space_id, moment_ms).values()))

    def _rows_at(self, space_id: str, moment: int | bytes) -> dict[str, ObjectRow]:
        number = int.from_bytes(moment, "big") if isinstance(moment, bytes) else moment
        return {one.after.object_id: one.after for one in self._host.shared(space_id).past[:number]}

    async def conflicts(self, space_id: str, object_id: str) -> tuple[Conflict, ...]:
        await self._called("history.conflicts")
        return ()  # One edit is applied after the other here.

    async def undo(self, space_id: str, object_id: str | None = None) -> tuple[ObjectState, ...]:
        await self._called("history.undo")
        return self._reverse(space_id, object_id, undone=False)

    async def redo(self, space_id: str, object_id: str | None = None) -> tuple[ObjectState, ...]:
        await self._called("history.redo")
        return self._reverse(space_id, object_id, undone=True)

    def _reverse(self, space_id: str, object_id: str | None, *, undone: bool) -> tuple[ObjectState, ...]:
        space = self._host.shared(space_id)
        mine = [one for one in space.past if one.host is self._host and object_id in (None, one.after.object_id)]
        done = [one for one in mine if not one.undone]
        if undone:
            latest = max((one.step for one in done), default=0)
            step = min((one.step for one in mine if one.undone and one.step >= latest), default=0)
        else:
            step = max((one.step for one in done), default=0)
        states: dict[str, ObjectState] = {}
        for one in mine if undone else reversed(mine):
            if one.step == step and one.undone is undone:
                one.undone = not undone
                before = one.before or replace(one.after, deleted=True)
                base, wanted = (before, one.after) if undone else (one.after, before)
                present = space.objects[one.after.object_id].row
                states[present.object_id] = space.put(merge_rows(base, wanted, present))
        space.changes.send(tuple(states.values()))
        return tuple(states.values())


def _check_contract(fake: FakeServices) -> None:
    """Never called: the type checker compares the fake with the contract here."""
    from dxos.services.contract import ServicesProvider

    provider: ServicesProvider = fake
    assert provider
