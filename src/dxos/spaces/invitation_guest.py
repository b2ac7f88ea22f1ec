"""The guest of an invitation: waits in its swarm for the host, shows what it asks for, and joins the space."""

import math
from collections.abc import Callable, Sequence
from typing import final

import anyio
from msgspec.structs import replace

from dxos.errors import (
    AlreadyJoinedError,
    AuthenticationError,
    DxosError,
    InvitationError,
    InvitationExpiredError,
    InvitationTimeoutError,
    ProofError,
    UsageError,
)
from dxos.halo.credential import assertion_of, verify_credential
from dxos.halo.invitation import AuthMethod, Invitation, InvitationKind, InvitationState
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.keys.ids import space_id
from dxos.limits import INVITATION_TIMEOUT_S
from dxos.mesh import topology
from dxos.mesh.network import Network
from dxos.spaces.invitation_handshake import Admissions, Handshake, Party, cancelled, expired
from dxos.teleport import invitation as machines
from dxos.wire import from_key
from dxos.wire.proto.credentials_pb2 import Credential, SpaceMember
from dxos.wire.proto.invitations_pb2 import AdmissionRequest, SpaceAdmissionCredentials

State = InvitationState


def check_admission(untrusted: Credential, invitation: Invitation, *, identity_key: PublicKey) -> SpaceMember:
    """Check what a host answered, as far as it can be checked before the space's own records are here.

    Args:
        untrusted: The host's answer.
        invitation: What it answers; its space, if it names one, is the one expected.
        identity_key: Ours.

    Raises:
        PeerError: It does not verify, is no admission, not ours, or to another space than expected.
    """
    verify_credential(untrusted)
    membership = assertion_of(untrusted)
    if not isinstance(membership, SpaceMember) or not SpaceRole.from_wire(membership.role).is_member:
        raise ProofError("The host answered with a credential that admits nobody.")
    if from_key(untrusted.subject.id) != identity_key:
        raise ProofError("The host admitted somebody else.")
    space_key = from_key(membership.space_key)
    if invitation.space_key not in (None, space_key) or invitation.space_id not in (None, space_id(space_key)):
        raise ProofError("The host admitted this identity to another space than the invitation names.")
    return membership


@final
class AcceptedInvitation(Party):
    """One invitation that this profile redeems.

    Args:
        invitation: From its code.
        network: Where the host is met.
        admissions: The profile.
        now_ms: Unix time in milliseconds.
    """

    def __init__(
        self, invitation: Invitation, *, network: Network, admissions: Admissions, now_ms: Callable[[], int]
    ) -> None:
        # The state in a code is the host's, and anybody can write one.
        invitation = replace(invitation, state=State.CONNECTING)
        super().__init__(invitation, network=network, admissions=admissions, now_ms=now_ms)
        self._code: str | None = None  # Given by our user, and not tried yet.
        self._met = anyio.Event()

    def check(self) -> None:
        """Whether it can be tried at all.

        Raises:
            UsageError: It is of a kind unknown here.
            IdentityMissingError: There is no identity yet.
            InvitationExpiredError: Its lifetime is over.
            AlreadyJoinedError: This identity is a member already.
        """
        if self.invitation.kind is not InvitationKind.SPACE:
            raise UsageError("Invitations of further devices are not supported yet; ask for an invitation to a space.")
        _ = self.admissions.identity_key
        if self.invitation.is_expired(self.now_ms()):
            raise expired()
        if self.admissions.is_member(self.invitation):
            raise AlreadyJoinedError("This identity is a member of the space already; open it from the list of spaces.")

    def authenticate(self, code: str) -> None:
        """Hand in the authentication code; it is tried as soon as the host asks for one."""
        self._code = code
        if isinstance(self.handshake, _GuestHandshake):
            self.handshake.code_given()

    async def cancel(self) -> None:
        """End it; the host is told."""
        self.finish(State.CANCELLED, cancelled())
        await self.wait_done()

    def take_code(self) -> str | None:
        """The code to try now, once."""
        code, self._code = self._code, None
        return code

    def has_met(self) -> None:
        """The host is there: from now on the handshake keeps the time."""
        self._met.set()

    def finish(self, state: InvitationState, error: DxosError | None = None) -> None:
        """Decide the end; nobody waits for the host any more."""
        super().finish(state, error)
        self._met.set()

    # --- As a party ---------------------------------------------------------------------------------------------------

    def topology(self) -> topology.Topology:
        """The host makes the offer."""
        return topology.InvitationGuest()

    def begin(self) -> Handshake:
        """With whoever made an offer; nothing proves yet that it is the host."""
        return _GuestHandshake(
            machines.InvitationGuest(
                self.invitation,
                admission=AdmissionRequest(space=self.admissions.admission_request()),
                profile=self.admissions.profile(),
                expires_at=self.expires_at(),
            ),
            self,
        )

    def conclude(self, handshake: Handshake) -> None:
        """One handshake decides, unless it failed before the other side was known to be a host."""
        error = handshake.error
        if isinstance(error, AuthenticationError) and self.invitation.auth_method is AuthMethod.SHARED_SECRET:
            self.failures += 1
        if error is None:
            self.finish(State.SUCCESS)
        elif handshake.met or (isinstance(error, InvitationError) and not isinstance(error, InvitationTimeoutError)):
            self.finish(_state_of(error), error)
        else:
            self.show(State.CONNECTING)

    async def wait_end(self) -> None:
        """Wait for the host no longer than the invitation's time-out."""
        timeout_ms = self.invitation.timeout_ms
        timeout_at = anyio.current_time() + (timeout_ms / 1000 if timeout_ms else INVITATION_TIMEOUT_S)
        expires_at = self.expires_at()
        deadline = min(timeout_at, math.inf if expires_at is None else expires_at)
        with anyio.CancelScope(deadline=deadline):
            await self._met.wait()
        if not self._met.is_set():
            if deadline == timeout_at:
                error = InvitationTimeoutError(
                    "The host of the invitation did not appear: see that it is online and uses the same signalling "
                    "server, or ask for a new code, because this one may have been used."
                )
                self.finish(State.TIMEOUT, error)
            else:
                self.finish(State.EXPIRED, expired())
        await self.ended.wait()


@final
class _GuestHandshake(Handshake):
    """A handshake with the host."""

    def __init__(self, machine: machines.InvitationGuest, party: AcceptedInvitation) -> None:
        super().__init__(machine)
        self._guest, self._party = machine, party
        self._is_trying = False  # A code was sent, and its verdict is not here.

    def code_given(self) -> None:
        """Try the code if one is asked for now."""
        self._act(self._try_code())

    def perform(self, action: machines.Action) -> Sequence[machines.Action]:
        """Follow the machine, try codes, and join the space."""
        match action:
            case machines.StateChanged(state):
                return self._follow(state)
            case machines.Admitted(response):
                try:
                    self._join(response.space)
                except DxosError as error:
                    self.error = error
        return ()

    def _follow(self, state: InvitationState) -> Sequence[machines.Action]:
        party = self._party
        if self._is_trying and state is State.READY_FOR_AUTHENTICATION:
            party.failures += 1
        self._is_trying = state is State.AUTHENTICATING
        if state is State.CONNECTED:
            party.has_met()
        if not state.is_final:
            party.show(state)
        return self._try_code()

    def _try_code(self) -> Sequence[machines.Action]:
        wanted = self._guest.auth_method is AuthMethod.SHARED_SECRET
        if not wanted or self._guest.state is not State.READY_FOR_AUTHENTICATION:
            return ()
        code = self._party.take_code()
        return () if code is None else self._guest.authenticate(code)

    def _join(self, untrusted: SpaceAdmissionCredentials) -> None:
        party = self._party
        identity_key = party.admissions.identity_key
        membership = check_admission(untrusted.credential, party.invitation, identity_key=identity_key)
        space_key, joined_id = party.admissions.accept(membership)
        party.invitation = replace(party.invitation, space_key=space_key, space_id=joined_id)


def _state_of(error: DxosError) -> InvitationState:
    """The state of an invitation that ended with an error."""
    match error:
        case InvitationExpiredError():
            return State.EXPIRED
        case InvitationTimeoutError():
            return State.TIMEOUT
    return State.ERROR
