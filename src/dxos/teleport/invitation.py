"""The two sides of the invitation handshake: a host admits one guest that shows what the invitation asks for.

    INIT ─opened─▶ CONNECTING ─met─▶ CONNECTED ─introduced─▶ READY_FOR_AUTHENTICATION ─tried─▶ AUTHENTICATING
                                         │                        │        ▲──────refuted──────────┤
                                         └──(guest, no code)──────┴──────────────admitted──────────┴──▶ SUCCESS
    each of them ─▶ CANCELLED, TIMEOUT, EXPIRED, ERROR

Both sides call Options on each other; then the guest calls Introduce, Authenticate (if the invitation asks for a code
or a signature) and Admit. One machine is one handshake over one connection; an invitation may see several.

The caller serves `dxos.halo.invitations.InvitationHostService` and hands every request to `receive`, every answer or
error to `answer`, and does what they return, in order:

    Call          call the peer, then `answer`
    Respond       answer the request that `receive` was given
    CountFailure  count a wrong code on disk, then `failure_counted` with the total; only then comes a Respond
    Admit         write the admission, then `admit` or `admission_failed`
    Admitted      the guest is in; keep what the host gave
    StateChanged  tell observers
    Failed        the handshake is over; an unanswered request is answered with its error; close the connection

Invariants
1. A request that the state does not allow raises ProtocolError and changes nothing.
2. No Admit without proof, and at most one.
3. A host never compares a code once INVITATION_ATTEMPTS_MAX failures were counted, on whatever connection. Machines of
   one invitation must not authenticate at the same time: the caller holds a lock from `receive` to the last action.
4. After Failed or SUCCESS nothing follows.
"""

import hmac
from dataclasses import dataclass, field
from typing import final

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from msgspec import Struct

from dxos.errors import (
    AuthenticationError,
    BrokenError,
    DxosError,
    InvitationCancelledError,
    InvitationError,
    InvitationExpiredError,
    InvitationTimeoutError,
    InvitationUsedError,
    LimitError,
    ProofError,
    ProtocolError,
    RemoteError,
    UsageError,
)
from dxos.halo.invitation import AuthMethod, Invitation, InvitationKind, InvitationState
from dxos.keys import PublicKey, ed25519
from dxos.limits import (
    ADMISSION_TIMEOUT_S,
    DISPLAY_NAME_CHARS_MAX,
    INTRODUCE_DELAY_S,
    INTRODUCE_TRIES_MAX,
    INVITATION_ATTEMPTS_MAX,
    INVITATION_TIMEOUT_S,
    OPTIONS_TIMEOUT_S,
    RPC_TIMEOUT_S,
)
from dxos.wire import from_key
from dxos.wire.proto import credentials_pb2, invitations_pb2

EXTENSION = "dxos.halo.invitations"
SERVICE = f"{EXTENSION}.InvitationHostService"
OPTIONS = f"{SERVICE}.Options"
INTRODUCE = f"{SERVICE}.Introduce"
AUTHENTICATE = f"{SERVICE}.Authenticate"
ADMIT = f"{SERVICE}.Admit"

CHALLENGE_BYTES = 32
_SIGNATURE_BYTES_MAX = 128
_CODE_CHARS_MAX = 64
# How a 0.8.3 host says that its own Options call is not answered yet.
_HOST_NOT_READY = "Expected CONNECTING to be one of [CONNECTED]"
_HOST = invitations_pb2.InvitationOptions.Role.HOST
_GUEST = invitations_pb2.InvitationOptions.Role.GUEST
_Status = invitations_pb2.AuthenticationResponse.Status

State = InvitationState
_OPEN = tuple(state for state in State if not state.is_final)
_ENDS = {
    (state, event): end
    for state in _OPEN
    for event, end in (
        ("cancelled", State.CANCELLED),
        ("timed out", State.TIMEOUT),
        ("expired", State.EXPIRED),
        ("failed", State.ERROR),
    )
}
HOST_TRANSITIONS = {
    (State.INIT, "opened"): State.CONNECTING,
    (State.CONNECTING, "met"): State.CONNECTED,
    (State.CONNECTED, "introduced"): State.READY_FOR_AUTHENTICATION,
    (State.READY_FOR_AUTHENTICATION, "tried"): State.AUTHENTICATING,
    (State.AUTHENTICATING, "refuted"): State.READY_FOR_AUTHENTICATION,
    (State.READY_FOR_AUTHENTICATION, "admitted"): State.SUCCESS,  # An invitation that asks for nothing.
    (State.AUTHENTICATING, "admitted"): State.SUCCESS,
    **_ENDS,
}
GUEST_TRANSITIONS = {
    (State.INIT, "opened"): State.CONNECTING,
    (State.CONNECTING, "met"): State.CONNECTED,
    (State.CONNECTED, "introduced"): State.READY_FOR_AUTHENTICATION,
    (State.READY_FOR_AUTHENTICATION, "tried"): State.AUTHENTICATING,
    (State.AUTHENTICATING, "refuted"): State.READY_FOR_AUTHENTICATION,
    (State.CONNECTED, "admitted"): State.SUCCESS,  # An invitation that asks for nothing.
    (State.AUTHENTICATING, "admitted"): State.SUCCESS,
    **_ENDS,
}


@final
@dataclass(frozen=True, slots=True)
class Call:
    """Call the peer, and give `answer` its response or the error."""

    method: str
    request: Message = field(repr=False)  # Of Authenticate: the code, which no log may show.
    response: type[Message]
    timeout_s: float


@final
@dataclass(frozen=True, slots=True)
class Respond:
    """Answer the request in hand."""

    response: Message = field(repr=False)


@final
class CountFailure(Struct, frozen=True):
    """Count one wrong code on disk, then call `failure_counted`."""


@final
@dataclass(frozen=True, slots=True)
class Admit:
    """Admit the guest, then call `admit` with the response, or `admission_failed`."""

    request: invitations_pb2.AdmissionRequest = field(repr=False)  # Of the invitation's kind.
    profile: credentials_pb2.ProfileDocument | None  # What the guest says of itself.


@final
class Admitted(Struct, frozen=True):
    """The host admitted us; nothing in it is verified yet."""

    response: invitations_pb2.AdmissionResponse  # Of the invitation's kind.


@final
class StateChanged(Struct, frozen=True):
    """For observers."""

    state: InvitationState


@final
class Failed(Struct, frozen=True):
    """The handshake is over; the last action."""

    error: DxosError


Action = Call | Respond | CountFailure | Admit | Admitted | StateChanged | Failed


class _Handshake:
    """What host and guest have in common: the state, its time limits, and meeting by Options."""

    _transitions: dict[tuple[InvitationState, str], InvitationState]
    _role: invitations_pb2.InvitationOptions.Role

    def __init__(self, invitation: Invitation, *, expires_at: float | None) -> None:
        self.state = State.INIT
        self.invitation = invitation
        self._expires_at = expires_at
        self._timeout_s = INVITATION_TIMEOUT_S if not invitation.timeout_ms else invitation.timeout_ms / 1000
        self._times_out_at: float | None = None
        self._options_by: float | None = None
        self._answered = False  # The peer answered our Options.
        self._role_known = False  # The peer sent its own.

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.invitation.invitation_id[:8]} {self.state.name}>"

    @property
    def is_over(self) -> bool:
        """Whether nothing can follow."""
        return self.state.is_final

    def open(self, *, now: float) -> list[Action]:
        """Begin, once the extension is open on a connection; `now` in seconds."""
        if self.state is not State.INIT:
            raise UsageError("A handshake is opened once.")
        self._times_out_at = now + self._timeout_s
        self._options_by = now + OPTIONS_TIMEOUT_S
        request = invitations_pb2.InvitationOptions(role=self._role)
        return [*self._move("opened"), Call(OPTIONS, request, Empty, OPTIONS_TIMEOUT_S)]

    def cancel(self) -> list[Action]:
        """Our user ends it; nothing happens if it is over."""
        return self._end("cancelled", InvitationCancelledError("The invitation was cancelled."))

    def link_lost(self, error: DxosError | None = None) -> list[Action]:
        """The connection is gone; nothing happens if the handshake is over."""
        return self._end("failed", error or BrokenError("The connection was lost during the invitation."))

    def next_timer(self) -> float | None:
        """When `handle_timer` has something to do."""
        if self.is_over:
            return None
        return min(
            (at for at in (self._expires_at, self._times_out_at, self._options_by) if at is not None), default=None
        )

    def handle_timer(self, *, now: float) -> list[Action]:
        """End the handshake if its time is over."""
        if self._expires_at is not None and now >= self._expires_at:
            return self._end("expired", InvitationExpiredError("The invitation has expired; ask for a new one."))
        if any(at is not None and now >= at for at in (self._times_out_at, self._options_by)):
            return self._end(
                "timed out",
                InvitationTimeoutError("The other side did not go on with the invitation; try the code again."),
            )
        return []

    def _receive_options(self, request: invitations_pb2.InvitationOptions, *, now: float) -> list[Action]:
        if self.state not in (State.INIT, State.CONNECTING) or self._role_known:
            raise ProtocolError("Options may be sent once, and first.")
        if not request.HasField("role") or request.role == self._role or request.role not in (_HOST, _GUEST):
            return self._end("failed", ProtocolError("Host and guest are needed, but both sides have one role."))
        self._role_known = True
        return [Respond(Empty()), *self._try_to_meet(now=now)]

    def _options_answered(self, answer: Message | DxosError, *, now: float) -> list[Action]:
        if isinstance(answer, DxosError):
            return self._end("failed", _reason(answer))
        self._answered = True
        return self._try_to_meet(now=now)

    def _try_to_meet(self, *, now: float) -> list[Action]:
        if self.state is not State.CONNECTING or not (self._answered and self._role_known):
            return []
        return self._meet(now=now)

    def _meet(self, *, now: float) -> list[Action]:
        self._options_by = None
        return self._move("met")

    def _move(self, event: str) -> list[Action]:
        self.state = self._transitions[self.state, event]
        return [StateChanged(self.state)]

    def _end(self, event: str, error: DxosError) -> list[Action]:
        if self.is_over:
            return []
        return [*self._move(event), Failed(error)]


@final
class InvitationHost(_Handshake):
    """The side that admits.

    Args:
        invitation: With its `auth_code` or `guest_keypair`, whichever it asks for.
        failures_count: Wrong codes counted for this invitation so far.
        challenge: CHALLENGE_BYTES fresh random bytes, for KNOWN_PUBLIC_KEY.
        expires_at: When its lifetime is over, in seconds on the clock of `now`; None for never.

    Raises:
        UsageError: The invitation lacks what it asks the guest for.
    """

    _transitions = HOST_TRANSITIONS
    _role = _HOST

    def __init__(
        self, invitation: Invitation, *, failures_count: int, challenge: bytes, expires_at: float | None = None
    ) -> None:
        super().__init__(invitation, expires_at=expires_at)
        if invitation.auth_method is AuthMethod.SHARED_SECRET and not invitation.auth_code:
            raise UsageError("This invitation needs an authentication code.")
        if invitation.auth_method is AuthMethod.KNOWN_PUBLIC_KEY and invitation.guest_keypair is None:
            raise UsageError("This invitation needs the guest's public key.")
        assert len(challenge) == CHALLENGE_BYTES, "a challenge has a fixed size"
        self.profile: credentials_pb2.ProfileDocument | None = None  # What the guest says of itself.
        self._challenge = challenge
        self._failures_count = failures_count
        self._proven = invitation.auth_method is AuthMethod.NONE
        self._counting = self._admitting = False  # An action of the caller is under way.

    def open(self, *, now: float) -> list[Action]:
        """Begin; a dead or expired invitation fails at once."""
        if self._failures_count >= INVITATION_ATTEMPTS_MAX:
            return self._end("failed", _burned())
        return self.handle_timer(now=now) or super().open(now=now)

    def receive(self, request: Message, *, now: float) -> list[Action]:
        """Take a request of the guest.

        Raises:
            PeerError: The state does not allow it, or it breaks a limit; answer with this error and go on.
        """
        if ended := self.handle_timer(now=now):
            return ended
        match request:
            case invitations_pb2.InvitationOptions():
                return self._receive_options(request, now=now)
            case invitations_pb2.IntroductionRequest():
                return self._receive_introduction(request, now=now)
            case invitations_pb2.AuthenticationRequest():
                return self._receive_authentication(request)
            case invitations_pb2.AdmissionRequest():
                return self._receive_admission(request)
        raise ProtocolError("A request of a kind unknown here.")

    def answer(self, answer: Message | DxosError, *, now: float) -> list[Action]:
        """Take the answer to our Options."""
        return [] if self.is_over else self._options_answered(answer, now=now)

    def failure_counted(self, failures_count: int) -> list[Action]:
        """A CountFailure was done; `failures_count` is the invitation's total."""
        assert failures_count > 0, "a failure was counted"
        if not self._counting:
            raise UsageError("No failure was to be counted.")
        self._counting = False
        self._failures_count = failures_count
        if self.is_over:
            return []
        if failures_count >= INVITATION_ATTEMPTS_MAX:
            response = invitations_pb2.AuthenticationResponse(status=_Status.INVALID_OPT_ATTEMPTS)
            return [Respond(response), *self._end("failed", _burned())]
        response = invitations_pb2.AuthenticationResponse(status=_Status.INVALID_OTP)
        return [*self._move("refuted"), Respond(response)]

    def admit(self, response: invitations_pb2.AdmissionResponse) -> list[Action]:
        """An Admit was done."""
        self._take_admission()
        return [Respond(response), *self._move("admitted")] if not self.is_over else [Respond(response)]

    def admission_failed(self, error: DxosError) -> list[Action]:
        """An Admit could not be done; the guest is told why."""
        self._take_admission()
        return self._end("failed", error)

    def _take_admission(self) -> None:
        if not self._admitting:
            raise UsageError("Nobody was to be admitted.")
        self._admitting = False

    def _receive_introduction(self, request: invitations_pb2.IntroductionRequest, *, now: float) -> list[Action]:
        actions: list[Action] = []
        if self.state is State.CONNECTING and self._role_known:
            # The guest has our Options; that its answer is still under way is no reason to refuse it.
            actions = self._meet(now=now)
        if self.state is not State.CONNECTED:
            raise ProtocolError("Introduce follows Options.")
        if request.invitation_id != self.invitation.invitation_id:
            return actions + self._end("failed", ProtocolError("The guest has another invitation."))
        if len(request.profile.display_name) > DISPLAY_NAME_CHARS_MAX:
            return actions + self._end("failed", LimitError("A display name is too long."))
        if request.HasField("profile"):
            self.profile = request.profile
        response = invitations_pb2.IntroductionResponse(auth_method=self.invitation.auth_method.name)
        if self.invitation.auth_method is AuthMethod.KNOWN_PUBLIC_KEY:
            response.challenge = self._challenge
        self._times_out_at = now + self._timeout_s  # A person may now have to be asked for the code.
        return [*actions, *self._move("introduced"), Respond(response)]

    def _receive_authentication(self, request: invitations_pb2.AuthenticationRequest) -> list[Action]:
        if self.state is not State.READY_FOR_AUTHENTICATION or self._proven or self._admitting:
            raise ProtocolError("Authenticate follows Introduce, once at a time, if it was asked for.")
        if self.invitation.auth_method is AuthMethod.SHARED_SECRET:
            return self._check_code(request.auth_code)
        return self._check_signature(request.signed_challenge)

    def _check_code(self, untrusted: str) -> list[Action]:
        if self._failures_count >= INVITATION_ATTEMPTS_MAX:
            response = invitations_pb2.AuthenticationResponse(status=_Status.INVALID_OPT_ATTEMPTS)
            return [Respond(response), *self._end("failed", _burned())]
        actions = self._move("tried")
        wanted = (self.invitation.auth_code or "").encode()
        if len(untrusted) <= _CODE_CHARS_MAX and hmac.compare_digest(untrusted.encode(), wanted):
            self._proven = True
            return [*actions, Respond(invitations_pb2.AuthenticationResponse(status=_Status.OK))]
        self._counting = True
        return [*actions, CountFailure()]

    def _check_signature(self, untrusted: bytes) -> list[Action]:
        assert self.invitation.guest_keypair is not None, "checked when the machine was made"
        actions = self._move("tried")
        try:
            if len(untrusted) > _SIGNATURE_BYTES_MAX:
                raise ProofError("A signature is too long.")
            ed25519.verify(bytes(self.invitation.guest_keypair.public_key), self._challenge, untrusted)
        except ProofError:
            response = invitations_pb2.AuthenticationResponse(status=_Status.INVALID_SIGNATURE)
            error = AuthenticationError("The guest does not hold the key that the invitation was made for.")
            return [*actions, Respond(response), *self._end("failed", error)]
        self._proven = True
        return [*actions, Respond(invitations_pb2.AuthenticationResponse(status=_Status.OK))]

    def _receive_admission(self, request: invitations_pb2.AdmissionRequest) -> list[Action]:
        if self.state not in (State.READY_FOR_AUTHENTICATION, State.AUTHENTICATING) or not self._proven:
            raise ProtocolError("Admit follows authentication.")
        if self._admitting:
            raise ProtocolError("Admit may be asked for once.")
        if request.WhichOneof("kind") != _kind_field(self.invitation.kind):
            return self._end("failed", ProtocolError("The guest asks for an admission of another kind."))
        self._admitting = True
        return [Admit(request, self.profile)]


@final
class InvitationGuest(_Handshake):
    """The side that is admitted.

    Args:
        invitation: From the code; with `guest_keypair` for KNOWN_PUBLIC_KEY.
        admission: What we ask for; of the invitation's kind.
        profile: What we say of ourselves.
        expires_at: When its lifetime is over, in seconds on the clock of `now`; None for never.
    """

    _transitions = GUEST_TRANSITIONS
    _role = _GUEST

    def __init__(
        self,
        invitation: Invitation,
        *,
        admission: invitations_pb2.AdmissionRequest,
        profile: credentials_pb2.ProfileDocument | None = None,
        expires_at: float | None = None,
    ) -> None:
        super().__init__(invitation, expires_at=expires_at)
        assert admission.WhichOneof("kind") == _kind_field(invitation.kind), "ask for what the invitation is for"
        self.auth_method = invitation.auth_method  # Of the code, until the host tells its own.
        self.space_key: PublicKey | None = None  # What the host says it is.
        self._admission, self._profile = admission, profile
        self._pending: str | None = None  # The method whose answer we wait for.
        self._introduce_at: float | None = None
        self._tries_count = 0  # Of Introduce.
        self._failures_count = 0  # Wrong codes on this connection.

    def open(self, *, now: float) -> list[Action]:
        """Begin; an expired invitation fails at once."""
        ended = self.handle_timer(now=now)
        if ended:
            return ended
        self._pending = OPTIONS
        return super().open(now=now)

    def receive(self, request: Message, *, now: float) -> list[Action]:
        """Take a request of the host: only Options are served.

        Raises:
            ProtocolError: Any other, or Options twice; answer with this error and go on.
        """
        if ended := self.handle_timer(now=now):
            return ended
        if isinstance(request, invitations_pb2.InvitationOptions):
            return self._receive_options(request, now=now)
        raise ProtocolError("A guest does not serve this.")

    def authenticate(self, code: str) -> list[Action]:
        """Try a code that our user gave.

        Raises:
            UsageError: None is asked for now.
        """
        if self.state is not State.READY_FOR_AUTHENTICATION or self.auth_method is not AuthMethod.SHARED_SECRET:
            raise UsageError("No authentication code is asked for now.", state=self.state.name)
        return self._authenticate(invitations_pb2.AuthenticationRequest(auth_code=code))

    def answer(self, answer: Message | DxosError, *, now: float) -> list[Action]:
        """Take the answer to our last Call, or the error it ended with."""
        pending, self._pending = self._pending, None
        if self.is_over:
            return []
        if ended := self.handle_timer(now=now):
            return ended
        match pending, answer:
            case method, _ if method == OPTIONS:
                return self._options_answered(answer, now=now)
            case method, RemoteError() if method == INTRODUCE and _HOST_NOT_READY in str(answer):
                return self._introduce_later(answer, now=now)
            case _, DxosError():
                return self._end("failed", _reason(answer))
            case method, invitations_pb2.IntroductionResponse() if method == INTRODUCE:
                return self._introduced(answer, now=now)
            case method, invitations_pb2.AuthenticationResponse() if method == AUTHENTICATE:
                return self._authenticated(answer, now=now)
            case method, invitations_pb2.AdmissionResponse() if method == ADMIT:
                return self._admitted(answer)
        raise UsageError("An answer of another kind than was waited for.")

    def next_timer(self) -> float | None:
        """When `handle_timer` has something to do."""
        at = super().next_timer()
        if at is None or self._introduce_at is None:
            return at
        return min(at, self._introduce_at)

    def handle_timer(self, *, now: float) -> list[Action]:
        """Introduce ourselves when it is time, or end the handshake when its time is over."""
        if ended := super().handle_timer(now=now):
            return ended
        if self.is_over or self._introduce_at is None or now < self._introduce_at:
            return []
        self._introduce_at = None
        self._tries_count += 1
        self._pending = INTRODUCE
        request = invitations_pb2.IntroductionRequest(invitation_id=self.invitation.invitation_id)
        if self._profile is not None:
            request.profile.CopyFrom(self._profile)
        return [Call(INTRODUCE, request, invitations_pb2.IntroductionResponse, RPC_TIMEOUT_S)]

    def _meet(self, *, now: float) -> list[Action]:
        self._introduce_at = now + INTRODUCE_DELAY_S
        return super()._meet(now=now)

    def _introduce_later(self, error: DxosError, *, now: float) -> list[Action]:
        if self._tries_count >= INTRODUCE_TRIES_MAX:
            return self._end("failed", error)
        self._introduce_at = now + INTRODUCE_DELAY_S * 2**self._tries_count
        return []

    def _introduced(self, response: invitations_pb2.IntroductionResponse, *, now: float) -> list[Action]:
        try:
            self.auth_method = AuthMethod(response.auth_method)
        except ValueError:
            return self._end("failed", ProtocolError("The host asks for an authentication unknown here."))
        if response.HasField("space_key") and response.space_key.data:
            self.space_key = from_key(response.space_key)
        self._times_out_at = now + self._timeout_s
        match self.auth_method:
            case AuthMethod.NONE:
                return self._ask_admission()
            case AuthMethod.SHARED_SECRET:
                return self._move("introduced")
            case AuthMethod.KNOWN_PUBLIC_KEY:
                return self._sign(response.challenge)

    def _sign(self, untrusted_challenge: bytes) -> list[Action]:
        pair = self.invitation.guest_keypair
        if pair is None or pair.private_key is None:
            return self._end("failed", AuthenticationError("The invitation was made for somebody who holds its key."))
        if len(untrusted_challenge) != CHALLENGE_BYTES:
            # A host that chose the length could have us sign a whole message of another protocol.
            return self._end("failed", ProtocolError("A challenge has 32 bytes."))
        signature = ed25519.sign(pair.private_key, untrusted_challenge)
        actions = self._move("introduced")
        return actions + self._authenticate(invitations_pb2.AuthenticationRequest(signed_challenge=signature))

    def _authenticate(self, request: invitations_pb2.AuthenticationRequest) -> list[Action]:
        self._pending = AUTHENTICATE
        call = Call(AUTHENTICATE, request, invitations_pb2.AuthenticationResponse, ADMISSION_TIMEOUT_S)
        return [*self._move("tried"), call]

    def _authenticated(self, response: invitations_pb2.AuthenticationResponse, *, now: float) -> list[Action]:
        if response.status == _Status.OK:
            return self._ask_admission()
        if response.status == _Status.INVALID_OTP and self.auth_method is AuthMethod.SHARED_SECRET:
            self._failures_count += 1
            if self._failures_count < INVITATION_ATTEMPTS_MAX:
                self._times_out_at = now + self._timeout_s
                return self._move("refuted")
        if response.status in (_Status.INVALID_OTP, _Status.INVALID_OPT_ATTEMPTS):
            return self._end("failed", _burned())
        return self._end("failed", AuthenticationError("The host refused the authentication; ask for a new one."))

    def _ask_admission(self) -> list[Action]:
        self._pending = ADMIT
        return [Call(ADMIT, self._admission, invitations_pb2.AdmissionResponse, ADMISSION_TIMEOUT_S)]

    def _admitted(self, response: invitations_pb2.AdmissionResponse) -> list[Action]:
        if response.WhichOneof("kind") != _kind_field(self.invitation.kind):
            return self._end("failed", ProtocolError("The host gave an admission of another kind."))
        return [Admitted(response), *self._move("admitted")]


def _kind_field(kind: InvitationKind) -> str:
    return "device" if kind is InvitationKind.DEVICE else "space"


def _burned() -> AuthenticationError:
    return AuthenticationError(
        "The authentication code was wrong too often; ask for a new invitation.", attempts_max=INVITATION_ATTEMPTS_MAX
    )


# What a host of this library says by the name of its error; anyone else's name stays a RemoteError.
_SPOKEN: dict[str, type[InvitationError]] = {
    kind.__name__: kind
    for kind in (
        AuthenticationError,
        InvitationCancelledError,
        InvitationExpiredError,
        InvitationTimeoutError,
        InvitationUsedError,
    )
}


def _reason(error: DxosError) -> DxosError:
    if isinstance(error, RemoteError):
        kind = _SPOKEN.get(str(error.detail.get("name", "")))
        return error if kind is None else kind(str(error))
    return error
