"""What host and guest of an invitation have in common: an observable, a place to meet, one handshake at a time.

    Party (one invitation)  ── swarm on the invitation's swarm key
       └─ Handshake (one connection)  ── a machine of `dxos.teleport.invitation`, driven by calls and by time

Invariants
1. A party has one handshake at a time; further connections wait for their turn.
2. What ends an invitation is decided once, and is on the disk, where the disk is concerned, before anybody hears of it.
3. When the last update is given out the swarm is left.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, final

import anyio
from anyio.abc import ByteStream, TaskGroup
from google.protobuf.message import Message
from msgspec import Struct
from msgspec.structs import replace

from dxos.aio import Listeners, Subscription
from dxos.errors import (
    BrokenError,
    DxosError,
    InvitationCancelledError,
    InvitationError,
    InvitationExpiredError,
    InvitationTimeoutError,
    ProtocolError,
)
from dxos.halo.invitation import Invitation, InvitationState
from dxos.keys import PublicKey
from dxos.limits import CONNECTION_CLOSE_S_MAX, OPTIONS_TIMEOUT_S
from dxos.mesh.connection import Connection, Extension, ExtensionChannel, Serve
from dxos.mesh.network import Network
from dxos.mesh.topology import Topology
from dxos.teleport import invitation as machines
from dxos.wire.proto.credentials_pb2 import ProfileDocument, SpaceMember
from dxos.wire.proto.invitations_pb2 import (
    AdmissionRequest,
    AuthenticationRequest,
    IntroductionRequest,
    InvitationOptions,
    SpaceAdmissionCredentials,
    SpaceAdmissionRequest,
)

_log = logging.getLogger(__name__)


class Admissions(Protocol):
    """What invitations ask of the profile they belong to."""

    @property
    def identity_key(self) -> PublicKey:
        """Of this profile's identity.

        Raises:
            IdentityMissingError: There is none yet.
        """
        ...

    @property
    def peer_key(self) -> PublicKey:
        """Our key in swarms; raises as `identity_key` does."""
        ...

    def profile(self) -> ProfileDocument:
        """What we say of ourselves."""
        ...

    def check_can_invite(self, invitation: Invitation) -> tuple[PublicKey, str]:
        """The key and id of the space that the invitation names by either.

        Raises:
            UsageError: There is no such space, it is not open, or this identity may not admit others to it.
        """
        ...

    async def admit(
        self, request: SpaceAdmissionRequest, invitation: Invitation, profile: ProfileDocument | None
    ) -> SpaceAdmissionCredentials:
        """Make a guest a member, durable when this returns; one that is a member already keeps its role.

        Raises:
            DxosError: It cannot be done; nothing was changed.
        """
        ...

    def is_member(self, invitation: Invitation) -> bool:
        """Whether this identity is a member of the space that the invitation names, if it names one."""
        ...

    def admission_request(self) -> SpaceAdmissionRequest:
        """What we ask a host for."""
        ...

    def accept(self, membership: SpaceMember) -> tuple[PublicKey, str]:
        """Join the space we were admitted to by a credential that was checked; its key and id. Durable on return.

        Raises:
            AlreadyJoinedError: We are a member already.
            StorageError: Nothing was written.
        """
        ...


@final
class InvitationUpdate(Struct, frozen=True):
    """The present value of one invitation."""

    invitation: Invitation
    error: DxosError | None = None  # With CANCELLED, TIMEOUT, ERROR and EXPIRED: why.
    done: bool = False  # Whether it is the last.
    failures: int = 0  # Wrong authentication codes so far.


@final
class Updates:
    """One invitation as its observers see it."""

    def __init__(self, present: InvitationUpdate) -> None:
        self.present = present
        self._listeners: Listeners[InvitationUpdate] = Listeners()

    def follow(self, next: Callable[[InvitationUpdate], None]) -> Subscription:
        """Call `next` with the present value, then with each one that follows."""
        subscription = self._listeners.subscribe(next)
        next(self.present)
        return subscription

    def show(self, update: InvitationUpdate) -> None:
        """Give out a new value; one that says nothing new, or comes after the last, is dropped."""
        if update != self.present and not self.present.done:
            self.present = update
            self._listeners.emit(update)


class Handshake(Extension):
    """One handshake over one connection; `run` it once. Made for inheriting."""

    name = machines.EXTENSION

    def __init__(self, machine: machines.InvitationHost | machines.InvitationGuest) -> None:
        self.machine = machine
        self.met = False  # Whether both sides know that they speak with a host, or a guest.
        self.error: DxosError | None = None  # Why it failed.
        self._opened = anyio.Event()
        self._over = anyio.Event()
        self._timer_changed = anyio.Event()
        self._channel: ExtensionChannel | None = None
        self._tasks: TaskGroup | None = None

    @property
    def handlers(self) -> Mapping[str, Serve[Any]]:
        """What the other side may call; the machine refuses what is not for it."""
        return {
            machines.OPTIONS: Serve(InvitationOptions, self._serve),
            machines.INTRODUCE: Serve(IntroductionRequest, self._serve),
            machines.AUTHENTICATE: Serve(AuthenticationRequest, self._serve),
            machines.ADMIT: Serve(AdmissionRequest, self._serve),
        }

    async def run(
        self,
        stream: ByteStream,
        *,
        local_key: PublicKey,
        remote_key: PublicKey,
        initiator: bool,
        now_ms: Callable[[], int],
    ) -> None:
        """From the opening of the connection to its end; `machine`, `error` then say what came of it.

        Cancelling drops the connection.
        """
        connection = Connection(stream, local_key=local_key, remote_key=remote_key, initiator=initiator, now_ms=now_ms)
        self._channel = connection.add_extension(self)
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._keep_time)
                tasks.start_soon(self._close_when_over, connection)
                await connection.run()
                tasks.cancel_scope.cancel()
        finally:
            self._tasks = None
            self._act(self.machine.link_lost(told(connection.error)))

    def end(self, error: DxosError) -> None:
        """End it; the other side is told why. Nothing happens if it is over."""
        self._act(self.machine.link_lost(error))

    async def opened(self, channel: ExtensionChannel) -> None:
        """The other side speaks of invitations too."""
        self._opened.set()
        if not self.machine.is_over:
            self._act(self.machine.open(now=anyio.current_time()))

    # --- For those who inherit --------------------------------------------------------------------------------------

    def perform(self, action: machines.Action) -> Sequence[machines.Action]:
        """Do what one side only does; what the machine wants done next."""
        raise NotImplementedError

    async def admit(self, action: machines.Admit) -> Sequence[machines.Action]:
        """Admit the guest; what the machine wants done next."""
        raise NotImplementedError

    # --- Inside -----------------------------------------------------------------------------------------------------

    async def _serve(self, request: Message) -> Message:
        answer = self._act(self.machine.receive(request, now=anyio.current_time()))
        if isinstance(answer, machines.Admit):
            # A guest that vanishes now was admitted all the same: nobody may find half of it done.
            with anyio.CancelScope(shield=True):
                actions = await self.admit(answer)
            answer = self._act(actions)
        if isinstance(answer, Message):
            return answer
        raise self.error or ProtocolError("The invitation is over.")

    def _act(self, actions: Sequence[machines.Action]) -> Message | machines.Admit | None:
        """Do what the machine wants; the answer to the request in hand, or what must be done before there is one."""
        answer: Message | machines.Admit | None = None
        waiting = deque(actions)
        while waiting:
            match waiting.popleft():
                case machines.Call() as call:
                    if self._tasks is not None:
                        self._tasks.start_soon(self._call, call)
                case machines.Respond(response):
                    answer = response
                case machines.Admit() as admit:
                    answer = admit
                case machines.Failed(error):
                    self.error = error
                case action:
                    if action == machines.StateChanged(InvitationState.CONNECTED):
                        self.met = True
                    waiting.extend(self.perform(action))
        self._timer_changed.set()
        if self.machine.is_over:
            self._over.set()
        return answer

    async def _call(self, call: machines.Call) -> None:
        assert self._channel is not None, "set before tasks are"
        answer: Message | DxosError
        try:
            answer = await self._channel.call(call.method, call.request, call.response, timeout_s=call.timeout_s)
        except BrokenError:
            return  # The connection ends, and knows better why.
        except DxosError as error:
            answer = error
        self._act(self.machine.answer(answer, now=anyio.current_time()))

    async def _keep_time(self) -> None:
        with anyio.move_on_after(OPTIONS_TIMEOUT_S):
            await self._opened.wait()
        if not self._opened.is_set():
            self.end(InvitationTimeoutError("The other side did not begin with the invitation; try the code again."))
        while (at := self.machine.next_timer()) is not None:
            self._timer_changed = anyio.Event()
            with anyio.CancelScope(deadline=at):
                await self._timer_changed.wait()
            if not self._timer_changed.is_set():
                self._act(self.machine.handle_timer(now=anyio.current_time()))

    async def _close_when_over(self, connection: Connection) -> None:
        await self._over.wait()
        if self.error is None and isinstance(self.machine, machines.InvitationHost):
            # A 0.8.3 guest takes the end of the connection for a failure until it has dealt with our answer.
            with anyio.move_on_after(CONNECTION_CLOSE_S_MAX):
                await connection.closed.wait()
        connection.close_nowait(self.error)


class Party:
    """One side of one invitation, until it is over; `run` is its task. Made for inheriting.

    Args:
        invitation: As observers see it first.
        network: Where the two sides meet.
        admissions: The profile.
        now_ms: Unix time in milliseconds.
        failures: Wrong codes before.
    """

    def __init__(
        self,
        invitation: Invitation,
        *,
        network: Network,
        admissions: Admissions,
        now_ms: Callable[[], int],
        failures: int = 0,
    ) -> None:
        self.invitation = invitation
        self.updates = Updates(InvitationUpdate(invitation, failures=failures))
        self.failures = failures
        self.network, self.admissions, self.now_ms = network, admissions, now_ms
        self.ending: InvitationUpdate | None = None  # The last update, once it is decided.
        self.ended = anyio.Event()
        self.handshake: Handshake | None = None
        self._turn = anyio.Lock()
        self._done = anyio.Event()

    @property
    def is_over(self) -> bool:
        """Whether the end is decided."""
        return self.ending is not None

    async def wait_done(self) -> None:
        """Return when the last update was given out."""
        await self._done.wait()

    def show(self, state: InvitationState) -> None:
        """Tell observers of a state that is not the last."""
        if not self.is_over:
            self.updates.show(InvitationUpdate(replace(self.invitation, state=state), failures=self.failures))

    def finish(self, state: InvitationState, error: DxosError | None = None) -> None:
        """Decide the end; the first decision stands. A handshake under way ends, and the other side is told."""
        if self.is_over:
            return
        self.ending = InvitationUpdate(
            replace(self.invitation, state=state), error=error, done=True, failures=self.failures
        )
        self.ended.set()
        if self.handshake is not None and error is not None:
            self.handshake.end(error)

    def give_up(self) -> None:
        """End before `run` was started."""
        assert self.ending is not None, "the end is decided"
        self.updates.show(self.ending)
        self._done.set()

    async def run(self) -> None:
        """Meet the other side until the invitation is over."""
        try:
            async with self.network.join(
                self.invitation.swarm_key,
                peer=self.admissions.peer_key,
                topology=self.topology(),
                on_connection=self._connect,
            ):
                self.show(InvitationState.CONNECTING)
                await self.wait_end()
                async with self._turn:  # So that the other side still hears our last words.
                    pass
        except DxosError as error:
            self.finish(InvitationState.ERROR, error)
        self.give_up()

    async def _connect(self, stream: ByteStream, remote: PublicKey, initiator: bool) -> None:
        async with self._turn:
            if self.is_over:
                return
            self.handshake = handshake = self.begin()
            try:
                await handshake.run(
                    stream,
                    local_key=self.admissions.peer_key,
                    remote_key=remote,
                    initiator=initiator,
                    now_ms=self.now_ms,
                )
            finally:
                self.handshake = None
                self.conclude(handshake)

    def expires_at(self) -> float | None:
        """When the lifetime is over, on the event loop's clock."""
        expires_ms = self.invitation.expires_ms
        return None if expires_ms is None else anyio.current_time() + (expires_ms - self.now_ms()) / 1000

    # --- For those who inherit --------------------------------------------------------------------------------------

    def topology(self) -> Topology:
        """Whom to connect to."""
        raise NotImplementedError

    def begin(self) -> Handshake:
        """A handshake with whoever is connected now."""
        raise NotImplementedError

    def conclude(self, handshake: Handshake) -> None:
        """Decide what the end of a handshake means for the invitation."""
        raise NotImplementedError

    async def wait_end(self) -> None:
        """Return when the end is decided, deciding it where time does."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.updates.present.invitation!r} failures={self.failures}>"


def cancelled() -> InvitationCancelledError:
    """Why a cancelled invitation ends; its text is also what tells the other side."""
    return InvitationCancelledError("The invitation was cancelled; ask for a new one.")


def expired() -> InvitationExpiredError:
    """Why an expired invitation ends; its text is also what tells the other side."""
    return InvitationExpiredError("The invitation has expired; ask for a new one.")


def timed_out() -> InvitationTimeoutError:
    """Why a handshake ends that does not go on; its text is also what tells the other side."""
    return InvitationTimeoutError("The other side did not go on with the invitation; try the code again.")


# The machines end with the same texts; the two sides' clocks start together, so either may be the one to say it.
_SAYINGS: Mapping[str, Callable[[], InvitationError]] = {str(make()): make for make in (cancelled, expired, timed_out)}


def told(error: DxosError | None) -> DxosError | None:
    """The error behind the reason a peer gave for closing; the wire carries nothing but its text."""
    make = None if error is None else _SAYINGS.get(str(error.detail.get("reason", "")))
    return error if make is None else make()
