"""People who invite each other over a network in memory: their spaces are sets of members, all else is real."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from halo_people import Ring
from msgspec.structs import replace

from dxos.errors import AlreadyJoinedError, DxosError, IdentityMissingError, NotAllowedError
from dxos.halo.credential import create_credential
from dxos.halo.invitation import (
    AuthMethod,
    Invitation,
    InvitationEncoder,
    InvitationKind,
    InvitationState,
    InvitationType,
)
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.keys.ids import space_id
from dxos.mesh.network import Network
from dxos.spaces.invitation_handshake import InvitationUpdate
from dxos.spaces.invitations import Invitations
from dxos.store.database import Database
from dxos.store.invitations import InvitationStore
from dxos.testing.network import MemoryNetwork
from dxos.wire import from_key, to_key
from dxos.wire.proto.credentials_pb2 import Credential, ProfileDocument, SpaceMember
from dxos.wire.proto.invitations_pb2 import SpaceAdmissionCredentials, SpaceAdmissionRequest

BEGINNING_MS = 1_700_000_000_000


def now_ms() -> int:
    """The time on the wall, which goes with the test's clock."""
    return BEGINNING_MS + round(anyio.current_time() * 1000)


class Person:
    """Somebody with an identity, spaces and a disk, which outlive `online`; implements `Admissions`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ring = Ring()
        self.identity: PublicKey | None = self.ring.create()
        self.peer_key = self.ring.create()
        self.database = Database(None)
        self.store = InvitationStore(self.database)
        self.spaces: dict[PublicKey, dict[PublicKey, SpaceRole]] = {}  # Members by space.
        self.may_admit = True
        self.refusal: DxosError | None = None  # What admitting ends with.
        self.admit_s = 0.0  # How long admitting takes.
        self.forge: Callable[[Credential], None] = lambda _: None
        self.answered: list[SpaceAdmissionCredentials] = []
        self.replayed: SpaceAdmissionCredentials | None = None  # The answer to everybody, if there is one.
        self.guests: list[ProfileDocument | None] = []

    def create_space(self) -> PublicKey:
        """A space of which this is the owner."""
        key = self.ring.create()
        self.spaces[key] = {self.identity_key: SpaceRole.OWNER}
        return key

    @property
    def identity_key(self) -> PublicKey:
        if self.identity is None:
            raise IdentityMissingError("no identity yet")
        return self.identity

    def profile(self) -> ProfileDocument:
        return ProfileDocument(display_name=self.name)

    def check_can_invite(self, invitation: Invitation) -> tuple[PublicKey, str]:
        assert invitation.space_key is not None
        if not self.may_admit:
            raise NotAllowedError("the role does not permit inviting others")
        return invitation.space_key, space_id(invitation.space_key)

    async def admit(
        self, request: SpaceAdmissionRequest, invitation: Invitation, profile: ProfileDocument | None
    ) -> SpaceAdmissionCredentials:
        assert invitation.space_key is not None
        assert invitation.role is not None
        await anyio.sleep(self.admit_s)
        if self.refusal is not None:
            raise self.refusal
        if self.replayed is not None:
            return self.replayed
        members, guest = self.spaces[invitation.space_key], from_key(request.identity_key)
        if guest in members:
            raise AlreadyJoinedError("this identity is a member of the space already")
        members[guest] = invitation.role
        self.guests.append(profile)
        credential = create_credential(
            self.ring,
            issuer=self.identity_key,
            subject=guest,
            assertion=SpaceMember(
                space_key=to_key(invitation.space_key),
                role=invitation.role.name,
                genesis_feed_key=to_key(invitation.space_key),
            ),
            now_ms=now_ms(),
        )
        self.forge(credential)
        self.answered.append(SpaceAdmissionCredentials(credential=credential))
        return self.answered[-1]

    def is_member(self, invitation: Invitation) -> bool:
        return invitation.space_key in self.spaces

    def admission_request(self) -> SpaceAdmissionRequest:
        device_key = to_key(self.peer_key)
        return SpaceAdmissionRequest(
            identity_key=to_key(self.identity_key),
            device_key=device_key,
            control_feed_key=device_key,
            data_feed_key=device_key,
        )

    def accept(self, membership: SpaceMember) -> tuple[PublicKey, str]:
        key = from_key(membership.space_key)
        self.spaces[key] = {self.identity_key: SpaceRole(membership.role)}
        return key, space_id(key)

    @asynccontextmanager
    async def online(self, fabric: MemoryNetwork) -> AsyncIterator["Phone"]:
        """One life of this person's process."""
        async with (
            Network(signal=fabric.signal(), transport=fabric.transport(), random=fabric.random_bytes) as network,
            anyio.create_task_group() as tasks,
        ):
            invitations = Invitations(self.store, network, self, tasks, random=fabric.random_bytes, now_ms=now_ms)
            invitations.resume()
            yield Phone(self, network, invitations)
            tasks.cancel_scope.cancel()


class Watch:
    """Notes everything that is said of one invitation."""

    def __init__(self) -> None:
        self.updates: list[InvitationUpdate] = []
        self._changed = anyio.Event()

    def __call__(self, update: InvitationUpdate) -> None:
        assert not self.done, "nothing follows the last update"
        self.updates.append(update)
        self._changed.set()

    @property
    def last(self) -> InvitationUpdate:
        return self.updates[-1]

    @property
    def done(self) -> bool:
        return bool(self.updates) and self.updates[-1].done

    @property
    def invitation(self) -> Invitation:
        return self.last.invitation

    @property
    def state(self) -> InvitationState:
        return self.invitation.state

    @property
    def states(self) -> list[str]:
        return [update.invitation.state.name for update in self.updates]

    async def wait(self, condition: Callable[["Watch"], bool]) -> "Watch":
        with anyio.fail_after(100_000):
            while not condition(self):
                self._changed = anyio.Event()
                await self._changed.wait()
        return self

    async def wait_state(self, state: InvitationState) -> "Watch":
        return await self.wait(lambda watch: watch.state is state)

    async def wait_done(self) -> "Watch":
        return await self.wait(lambda watch: watch.done)


class Phone:
    """A person who is online."""

    def __init__(self, person: Person, network: Network, invitations: Invitations) -> None:
        self.person, self.network, self.invitations = person, network, invitations

    def invite(self, wanted: Invitation) -> Watch:
        watch = Watch()
        self.invitations.create(wanted, watch)
        return watch

    def accept(self, invitation: Invitation) -> Watch:
        """Redeem what is left of an invitation once it went through its code."""
        watch = Watch()
        self.invitations.accept(InvitationEncoder.decode(InvitationEncoder.encode(invitation)), watch)
        return watch

    async def answer(self, watch: Watch, code: str) -> Watch:
        """Hand in a code when it is asked for, and wait for what comes of it."""
        await watch.wait_state(InvitationState.READY_FOR_AUTHENTICATION)
        count = len(watch.updates)
        self.invitations.authenticate(watch.invitation.invitation_id, code)
        return await watch.wait(
            lambda it: it.done or (len(it.updates) > count and it.state is InvitationState.READY_FOR_AUTHENTICATION)
        )

    async def join(self, invitation: Invitation, code: str | None = None) -> Watch:
        """Redeem an invitation, and wait for the end."""
        watch = self.accept(invitation)
        if code is not None:
            self.invitations.authenticate(invitation.invitation_id, code)
        return await watch.wait_done()


def wanted(space_key: PublicKey, auth_method: AuthMethod = AuthMethod.SHARED_SECRET, **changes: object) -> Invitation:
    """What a host's user asks for."""
    plain = Invitation(
        "", InvitationType.INTERACTIVE, InvitationKind.SPACE, auth_method, PublicKey(b""), space_key=space_key
    )
    return replace(plain, **changes)


def other(code: str | None) -> str:
    """A wrong code."""
    return "000000" if code != "000000" else "000001"
