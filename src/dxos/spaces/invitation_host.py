"""The host of an invitation: waits in its swarm, and admits whoever shows what it asks for.

Invariants
1. An invitation, its failures and its single use are on the disk before anybody is told of them.
2. One guest at a time; a guest's failure is not the invitation's, until the codes were wrong too often.
3. Nobody is admitted after the end was decided, and no end is decided while somebody is being admitted.
"""

from collections.abc import Callable, Sequence
from typing import Final, final

import anyio
from msgspec.structs import replace

from dxos.errors import (
    AuthenticationError,
    CorruptionError,
    DxosError,
    InvitationError,
    InvitationUsedError,
    PeerError,
    StorageError,
    UsageError,
)
from dxos.halo.invitation import (
    AdmissionKeypair,
    AuthMethod,
    Invitation,
    InvitationKind,
    InvitationState,
    InvitationType,
)
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey, ed25519
from dxos.limits import (
    AUTH_CODE_DIGITS,
    INVITATION_ATTEMPTS_MAX,
    INVITATION_LIFETIME_S,
    INVITATION_LIFETIME_S_MAX,
    INVITATION_TIMEOUT_S,
)
from dxos.mesh import topology
from dxos.mesh.network import Network
from dxos.spaces.invitation_handshake import Admissions, Handshake, InvitationUpdate, Party, cancelled, expired
from dxos.store.invitations import InvitationRecord, InvitationStore
from dxos.teleport import invitation as machines
from dxos.wire import decode, encode
from dxos.wire.proto import invitation_pb2
from dxos.wire.proto.invitations_pb2 import AdmissionResponse

_ID_BYTES: Final = 32
_CODE_CHARS_MAX: Final = 64
_ROLES: Final = frozenset((SpaceRole.ADMIN, SpaceRole.EDITOR, SpaceRole.READER))
State = InvitationState


def fill_in(invitation: Invitation, *, random: Callable[[int], bytes], now_ms: int) -> Invitation:
    """A new invitation with all that its maker left open.

    Args:
        invitation: What is wanted; an empty id stands for a new one.
        random: Gives that many random bytes, good enough for secrets.
        now_ms: Unix time in milliseconds.

    Raises:
        UsageError: Such an invitation cannot be made.
    """
    if invitation.kind is not InvitationKind.SPACE:
        raise UsageError("Invitations of further devices are not supported yet; invite to a space.")
    if invitation.type is not InvitationType.INTERACTIVE:
        raise UsageError("Delegated invitations are not supported yet; make an interactive one.")
    lifetime_s = int(INVITATION_LIFETIME_S) if invitation.lifetime_s is None else invitation.lifetime_s
    if not 0 < lifetime_s <= INVITATION_LIFETIME_S_MAX:
        raise UsageError("An invitation lives for at least a second and at most 30 days.", lifetime_s=lifetime_s)
    role = invitation.role or SpaceRole.EDITOR
    if role not in _ROLES:
        raise UsageError("An invitation makes its guest an ADMIN, EDITOR or READER.", role=role.name)
    timeout_ms = round(INVITATION_TIMEOUT_S * 1000) if not invitation.timeout_ms else invitation.timeout_ms
    code, pair = None, None
    if invitation.auth_method is AuthMethod.SHARED_SECRET:
        code = invitation.auth_code or make_code(random)
        if len(code) > _CODE_CHARS_MAX:
            raise UsageError("An authentication code is short.", chars_max=_CODE_CHARS_MAX)
    elif invitation.auth_method is AuthMethod.KNOWN_PUBLIC_KEY:
        pair = invitation.guest_keypair or _make_pair(random)
    return replace(
        invitation,
        invitation_id=invitation.invitation_id or random(_ID_BYTES).hex(),
        swarm_key=invitation.swarm_key if len(invitation.swarm_key) else PublicKey(random(_ID_BYTES)),
        state=State.INIT,
        timeout_ms=timeout_ms,
        identity_key=None,
        auth_code=code,
        persistent=invitation.persistent is not False,
        created_ms=now_ms,
        lifetime_s=lifetime_s,
        multi_use=bool(invitation.multi_use),
        guest_keypair=pair,
        role=role,
    )


def make_code(random: Callable[[int], bytes]) -> str:
    """An authentication code: AUTH_CODE_DIGITS decimal digits, each code as likely as any other."""
    count = 10**AUTH_CODE_DIGITS
    fair = 2**32 - 2**32 % count  # Numbers from here on would make low codes likelier.
    while (number := int.from_bytes(random(4), "big")) >= fair:
        pass
    return f"{number % count:0{AUTH_CODE_DIGITS}}"


def _make_pair(random: Callable[[int], bytes]) -> AdmissionKeypair:
    seed = random(ed25519.SEED_BYTES)
    public_key = ed25519.public_key(seed)
    return AdmissionKeypair(PublicKey(public_key), seed + public_key)


@final
class HostedInvitation(Party):
    """One invitation that this profile made.

    Args:
        invitation: With all its fields.
        store: Where its record is.
        network: Where guests are met.
        admissions: The profile.
        random: Gives that many random bytes, good enough for secrets.
        now_ms: Unix time in milliseconds.
        failures: Wrong codes counted before.
    """

    def __init__(
        self,
        invitation: Invitation,
        *,
        store: InvitationStore,
        network: Network,
        admissions: Admissions,
        random: Callable[[int], bytes],
        now_ms: Callable[[], int],
        failures: int = 0,
    ) -> None:
        super().__init__(invitation, network=network, admissions=admissions, now_ms=now_ms, failures=failures)
        self._store, self._random = store, random
        self._admitting = anyio.Lock()
        self._used = False  # Whether the single use is taken; what is left is to tell.

    def save(self) -> None:
        """Write a new invitation to the disk; it is durable when this returns."""
        self._put(self.invitation)
        self._store.sync()

    async def cancel(self) -> None:
        """End it; its code admits nobody from now on, also after a restart. Too late is harmless."""
        async with self._admitting:
            if not self._used:
                self.finish(State.CANCELLED, cancelled())
        await self.wait_done()

    def finish(self, state: InvitationState, error: DxosError | None = None) -> None:
        """Decide the end, and keep it on the disk: without secrets, for whoever asks for the invitation later."""
        if not self.is_over:
            try:
                self._put(replace(self.invitation, state=state, auth_code=None, guest_keypair=None))
                self._store.sync()
            except StorageError as storage_error:
                # Every other end can be told from the record as it is; a cancellation would be forgotten.
                if state is State.CANCELLED:
                    state, error = State.ERROR, storage_error
        super().finish(state, error)

    def _put(self, invitation: Invitation) -> None:
        assert invitation.created_ms is not None
        assert invitation.lifetime_s is not None
        self._store.put(
            InvitationRecord(
                invitation.invitation_id,
                encode(invitation.to_message()),
                invitation.created_ms / 1000,
                float(invitation.lifetime_s),
                invitation.state.name,
            )
        )

    # --- As a party ---------------------------------------------------------------------------------------------------

    def topology(self) -> topology.Topology:
        """One guest at a time."""
        return topology.InvitationHost()

    def begin(self) -> Handshake:
        """With fresh nonces, and all failures there ever were."""
        return _HostHandshake(
            machines.InvitationHost(
                self.invitation,
                failures_count=self.failures,
                challenge=self._random(machines.CHALLENGE_BYTES),
                expires_at=self.expires_at(),
            ),
            self,
        )

    def conclude(self, handshake: Handshake) -> None:
        """Go on waiting, unless this guest was the last."""
        assert isinstance(handshake, _HostHandshake)
        if self._used:
            self.finish(State.SUCCESS)
        elif handshake.storage_error is not None:
            self.finish(State.ERROR, handshake.storage_error)
        elif self.failures >= INVITATION_ATTEMPTS_MAX:
            self.finish(State.ERROR, burned())
        elif self.invitation.is_expired(self.now_ms()):
            self.finish(State.EXPIRED, expired())
        else:
            if handshake.has_admitted:
                self.show(State.SUCCESS)
            self.show(State.CONNECTING)

    async def wait_end(self) -> None:
        """Expire by the clock on the wall, which may run ahead of ours while the machine sleeps."""
        while not self.is_over:
            expires_at = self.expires_at()
            with anyio.CancelScope(deadline=float("inf") if expires_at is None else expires_at):
                await self.ended.wait()
            if self.invitation.is_expired(self.now_ms()):
                async with self._admitting:
                    if not self._used:
                        self.finish(State.EXPIRED, expired())
                if self._used:
                    await self.ended.wait()

    # --- For the handshake --------------------------------------------------------------------------------------------

    def count_failure(self) -> int:
        """Count a wrong code, durably; how many there are.

        Raises:
            StorageError: It could not be counted.
        """
        self.failures += 1  # Whatever becomes of the disk.
        self.failures = max(self.failures, self._store.count_failure(self.invitation.invitation_id))
        return self.failures

    async def admit(self, action: machines.Admit) -> AdmissionResponse:
        """Make the guest a member.

        Raises:
            InvitationUsedError: Another guest was first.
            DxosError: It cannot be done.
        """
        single_use, invitation_id = not self.invitation.multi_use, self.invitation.invitation_id
        async with self._admitting:
            if self.ending is not None:
                raise self.ending.error or InvitationUsedError("The invitation was used; ask for a new one.")
            if single_use and not self._store.claim(invitation_id):
                raise InvitationUsedError("The invitation was used; ask for a new one.")
            try:
                credentials = await self.admissions.admit(action.request.space, self.invitation, action.profile)
            except BaseException:
                if single_use:
                    self._store.release(invitation_id)
                raise
            self._used = single_use
        return AdmissionResponse(space=credentials)


@final
class _HostHandshake(Handshake):
    """A handshake with one guest."""

    def __init__(self, machine: machines.InvitationHost, party: HostedInvitation) -> None:
        super().__init__(machine)
        self._host, self._party = machine, party
        self.has_admitted = False
        self.storage_error: StorageError | None = None  # With it no code may be compared any more.

    def perform(self, action: machines.Action) -> Sequence[machines.Action]:
        """Count failures, and tell observers."""
        match action:
            case machines.CountFailure():
                try:
                    return self._host.failure_counted(self._party.count_failure())
                except StorageError as error:
                    self.storage_error = error
                    return self._host.link_lost(InvitationError("The host cannot go on; ask for a new invitation."))
            case machines.StateChanged(state) if not state.is_final:
                self._party.show(state)
        return ()

    async def admit(self, action: machines.Admit) -> Sequence[machines.Action]:
        """Admit the guest, or tell it why not."""
        try:
            response = await self._party.admit(action)
        except DxosError as error:
            return self._host.admission_failed(error)
        self.has_admitted = True
        return self._host.admit(response)


def burned() -> AuthenticationError:
    """Why an invitation is dead whose code was wrong too often."""
    return AuthenticationError(
        "The authentication code was wrong too often, so the invitation is dead; make a new one.",
        attempts_max=INVITATION_ATTEMPTS_MAX,
    )


def read_record(record: InvitationRecord) -> Invitation:
    """The invitation in a record.

    Raises:
        CorruptionError: There is none in it.
    """
    try:
        return Invitation.from_message(decode(invitation_pb2.Invitation, record.record))
    except PeerError as error:
        raise CorruptionError("The record of an invitation is damaged.") from error


def verdict(record: InvitationRecord, *, now_ms: int) -> InvitationUpdate | None:
    """The last update of an invitation that cannot be used any more; None for one that can.

    Raises:
        CorruptionError: The record is damaged.
    """
    invitation = read_record(record)
    error: DxosError | None
    match invitation.state:
        case State.SUCCESS:
            state, error = State.SUCCESS, None
        case State.CANCELLED:
            state, error = State.CANCELLED, cancelled()
        case State.EXPIRED:
            state, error = State.EXPIRED, expired()
        case _ if record.attempts >= INVITATION_ATTEMPTS_MAX:
            state, error = State.ERROR, burned()
        case _ if record.claimed and not invitation.multi_use:
            # The process ended between taking the use and saying so: whether somebody was admitted, the space knows.
            state, error = State.ERROR, InvitationUsedError("The invitation was used; make a new one.")
        case _ if invitation.state.is_final:
            state, error = State.ERROR, InvitationError("The invitation failed; make a new one.")
        case _ if invitation.is_expired(now_ms):
            state, error = State.EXPIRED, expired()
        case _:
            return None
    ended = replace(invitation, state=state, auth_code=None, guest_keypair=None)
    return InvitationUpdate(ended, error, done=True, failures=record.attempts)
