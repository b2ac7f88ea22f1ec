"""Both sides of the invitation handshake, joined by a list, and every request in every state."""

from collections.abc import Callable

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dxos.errors import (
    AuthenticationError,
    BrokenError,
    DxosError,
    InvitationCancelledError,
    InvitationExpiredError,
    InvitationTimeoutError,
    InvitationUsedError,
    PeerError,
    ProtocolError,
    RemoteError,
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
from dxos.keys import PublicKey, ed25519
from dxos.limits import INTRODUCE_DELAY_S, INTRODUCE_TRIES_MAX, INVITATION_ATTEMPTS_MAX, OPTIONS_TIMEOUT_S
from dxos.teleport import invitation as machines
from dxos.teleport.invitation import (
    GUEST_TRANSITIONS,
    HOST_TRANSITIONS,
    Action,
    Admit,
    Admitted,
    Call,
    CountFailure,
    Failed,
    InvitationGuest,
    InvitationHost,
    Respond,
    StateChanged,
)
from dxos.wire import to_key
from dxos.wire.proto import credentials_pb2, invitations_pb2

State = InvitationState
SEED = bytes(range(32))
PAIR = AdmissionKeypair(PublicKey(ed25519.public_key(SEED)), SEED + ed25519.public_key(SEED))
CHALLENGE = b"c" * 32
SPACE_REQUEST = invitations_pb2.AdmissionRequest(
    space=invitations_pb2.SpaceAdmissionRequest(identity_key=to_key(PublicKey(b"i" * 65)))
)
DEVICE_REQUEST = invitations_pb2.AdmissionRequest(
    device=invitations_pb2.DeviceAdmissionRequest(device_key=to_key(PublicKey(b"d" * 65)))
)
SPACE_RESPONSE = invitations_pb2.AdmissionResponse(space=invitations_pb2.SpaceAdmissionCredentials())
DEVICE_RESPONSE = invitations_pb2.AdmissionResponse(device=invitations_pb2.DeviceAdmissionCredentials())


def make_invitation(method: AuthMethod = AuthMethod.SHARED_SECRET) -> Invitation:
    return Invitation(
        invitation_id="ab" * 32,
        type=InvitationType.INTERACTIVE,
        kind=InvitationKind.SPACE,
        auth_method=method,
        swarm_key=PublicKey(b"s" * 32),
        auth_code="123456" if method is AuthMethod.SHARED_SECRET else None,
        guest_keypair=PAIR if method is AuthMethod.KNOWN_PUBLIC_KEY else None,
    )


class Handshake:
    """Host and guest joined by a list, with a disk that is a number."""

    def __init__(self, invitation: Invitation, *, failures_count: int = 0, code: str = "123456") -> None:
        self.host = InvitationHost(invitation, failures_count=failures_count, challenge=CHALLENGE)
        guest_invitation = replace(invitation, auth_code=None)
        self.guest = InvitationGuest(guest_invitation, admission=SPACE_REQUEST)
        self.now = 0.0
        self.failures_count = failures_count
        self.code = code
        self.codes_tried = 0
        self.host_states: list[State] = []
        self.guest_states: list[State] = []
        self.errors: dict[str, DxosError] = {}
        self.admitted: Message | None = None
        self.admission: Callable[[], Message | DxosError] = lambda: SPACE_RESPONSE

    def run(self) -> None:
        self.do_guest(self.guest.open(now=self.now))
        self.do_host(self.host.open(now=self.now))
        for _ in range(20):
            due = [at for at in (self.guest.next_timer(), self.host.next_timer()) if at is not None]
            if not due or (self.guest.is_over and self.host.is_over):
                return
            if self.guest.state is State.READY_FOR_AUTHENTICATION and not self.guest.is_over:
                self.codes_tried += 1
                self.do_guest(self.guest.authenticate(self.code))
                continue
            self.now = min(due)
            self.do_guest(self.guest.handle_timer(now=self.now))
            self.do_host(self.host.handle_timer(now=self.now))

    def do_guest(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Call(_, request):
                    self.do_guest(self.guest.answer(self.ask_host(request), now=self.now))
                case StateChanged(state):
                    self.guest_states.append(state)
                case Admitted(response):
                    self.admitted = response
                case Failed(error):
                    self.errors["guest"] = error

    def ask_host(self, request: Message) -> Message | DxosError:
        try:
            return self.do_host(self.host.receive(request, now=self.now)) or RemoteError(
                str(self.errors["host"]), name=type(self.errors["host"]).__name__
            )
        except PeerError as error:
            return RemoteError(str(error), name=type(error).__name__)

    def do_host(self, actions: list[Action]) -> Message | None:
        response: Message | None = None
        for action in actions:
            match action:
                case Call(_, request):
                    for answer in self.guest.receive(request, now=self.now):
                        self.do_guest([answer])
                    self.do_host(self.host.answer(Empty(), now=self.now))
                case Respond(message):
                    response = message
                case CountFailure():
                    self.failures_count += 1
                    response = self.do_host(self.host.failure_counted(self.failures_count)) or response
                case Admit():
                    outcome = self.admission()
                    done = (
                        self.host.admission_failed(outcome)
                        if isinstance(outcome, DxosError)
                        else self.host.admit(invitations_pb2.AdmissionResponse.FromString(outcome.SerializeToString()))
                    )
                    response = self.do_host(done) or response
                case StateChanged(state):
                    self.host_states.append(state)
                case Failed(error):
                    self.errors["host"] = error
        return response


def test_a_guest_with_the_right_code_is_admitted() -> None:
    handshake = Handshake(make_invitation())
    handshake.run()
    assert handshake.errors == {}
    assert handshake.admitted == SPACE_RESPONSE
    assert handshake.host_states[-3:] == [State.READY_FOR_AUTHENTICATION, State.AUTHENTICATING, State.SUCCESS]
    assert handshake.guest_states == [
        State.CONNECTING,
        State.CONNECTED,
        State.READY_FOR_AUTHENTICATION,
        State.AUTHENTICATING,
        State.SUCCESS,
    ]


def test_the_guest_introduces_itself_a_little_after_options() -> None:
    handshake = Handshake(make_invitation(AuthMethod.NONE))
    handshake.run()
    assert handshake.now == pytest.approx(INTRODUCE_DELAY_S)


@pytest.mark.parametrize("method", [AuthMethod.NONE, AuthMethod.KNOWN_PUBLIC_KEY])
def test_a_guest_is_admitted_without_a_code_if_none_is_asked_for(method: AuthMethod) -> None:
    handshake = Handshake(make_invitation(method))
    handshake.run()
    assert handshake.errors == {}
    assert handshake.admitted == SPACE_RESPONSE
    assert handshake.guest_states[-1] is handshake.host_states[-1] is State.SUCCESS


def test_a_wrong_code_takes_both_sides_back_to_be_asked_again() -> None:
    handshake = Handshake(make_invitation(), code="000000")
    original = handshake.guest.authenticate

    def second_is_right(code: str) -> list[Action]:
        return original("123456" if handshake.codes_tried > 1 else code)

    handshake.guest.authenticate = second_is_right  # type: ignore[method-assign]
    handshake.run()
    assert handshake.guest_states.count(State.READY_FOR_AUTHENTICATION) == 2
    assert handshake.host_states.count(State.READY_FOR_AUTHENTICATION) == 2
    assert handshake.failures_count == 1
    assert handshake.admitted == SPACE_RESPONSE


def test_the_third_wrong_code_ends_it_on_both_sides() -> None:
    handshake = Handshake(make_invitation(), code="000000")
    handshake.run()
    assert handshake.codes_tried == handshake.failures_count == INVITATION_ATTEMPTS_MAX
    assert isinstance(handshake.errors["host"], AuthenticationError)
    assert isinstance(handshake.errors["guest"], AuthenticationError)
    assert handshake.host.state is handshake.guest.state is State.ERROR
    assert handshake.admitted is None


def test_failures_of_other_connections_count() -> None:
    handshake = Handshake(make_invitation(), failures_count=2, code="000000")
    handshake.run()
    assert handshake.codes_tried == 1
    assert isinstance(handshake.errors["guest"], AuthenticationError)


def test_ten_thousand_reconnecting_guessers_cause_three_comparisons() -> None:
    invitation = make_invitation()
    failures_count = 0
    for guess in range(10_000):
        host = InvitationHost(invitation, failures_count=failures_count, challenge=CHALLENGE)
        if isinstance(host.open(now=0.0)[-1], Failed):
            continue
        host.receive(options_of(guest=True), now=0.0)
        host.receive(introduction(), now=0.0)
        assert host.receive(code(f"{200_000 + guess:06}"), now=0.0)[-1] == CountFailure()
        failures_count += 1
        host.failure_counted(failures_count)
    assert failures_count == INVITATION_ATTEMPTS_MAX


def test_a_guest_without_the_known_key_is_refused() -> None:
    invitation = make_invitation(AuthMethod.KNOWN_PUBLIC_KEY)
    stranger = bytes(reversed(SEED))
    handshake = Handshake(invitation)
    handshake.guest.invitation = replace(
        invitation, guest_keypair=AdmissionKeypair(PAIR.public_key, stranger + ed25519.public_key(stranger))
    )
    handshake.run()
    assert isinstance(handshake.errors["host"], AuthenticationError)
    assert isinstance(handshake.errors["guest"], AuthenticationError)
    assert handshake.failures_count == 0


def test_what_the_host_says_reaches_the_guest_as_its_class() -> None:
    handshake = Handshake(make_invitation())
    handshake.admission = lambda: InvitationUsedError("the invitation was used already")
    handshake.run()
    assert isinstance(handshake.errors["host"], InvitationUsedError)
    assert isinstance(handshake.errors["guest"], InvitationUsedError)


def test_a_guest_with_another_invitation_is_refused() -> None:
    handshake = Handshake(make_invitation())
    handshake.guest.invitation = replace(handshake.guest.invitation, invitation_id="cd" * 32)
    handshake.run()
    assert isinstance(handshake.errors["host"], ProtocolError)
    assert isinstance(handshake.errors["guest"], RemoteError)


def test_two_guests_or_two_hosts_refuse_each_other() -> None:
    one, other = (InvitationGuest(make_invitation(), admission=SPACE_REQUEST) for _ in range(2))
    call = one.open(now=0.0)[-1]
    other.open(now=0.0)
    assert isinstance(call, Call)
    actions = other.receive(call.request, now=0.0)
    assert isinstance(actions[-1], Failed)
    assert isinstance(actions[-1].error, ProtocolError)


def test_a_role_that_is_not_written_is_no_role() -> None:
    host = InvitationHost(make_invitation(), failures_count=0, challenge=CHALLENGE)
    host.open(now=0.0)
    assert isinstance(host.receive(invitations_pb2.InvitationOptions(), now=0.0)[-1], Failed)


def test_the_guest_tries_again_while_a_host_of_0_8_3_is_not_ready() -> None:
    guest = ready_guest()
    now, tries_count = 0.0, 0
    for _ in range(INTRODUCE_TRIES_MAX):
        at = guest.next_timer()
        assert at is not None
        now = at
        call = guest.handle_timer(now=now)[-1]
        assert isinstance(call, Call)
        assert call.method == machines.INTRODUCE
        tries_count += 1
        actions = guest.answer(RemoteError("Expected CONNECTING to be one of [CONNECTED]", name="Error"), now=now)
    assert isinstance(actions[-1], Failed)
    assert tries_count == INTRODUCE_TRIES_MAX


def test_a_guest_does_not_sign_a_challenge_of_another_length() -> None:
    guest = ready_guest(make_invitation(AuthMethod.KNOWN_PUBLIC_KEY))
    guest.handle_timer(now=1.0)
    response = invitations_pb2.IntroductionResponse(auth_method="KNOWN_PUBLIC_KEY", challenge=b"a whole message")
    actions = guest.answer(response, now=1.0)
    assert isinstance(actions[-1], Failed)
    assert isinstance(actions[-1].error, ProtocolError)


def test_a_silent_peer_is_given_up_after_the_time_for_options() -> None:
    host = InvitationHost(make_invitation(), failures_count=0, challenge=CHALLENGE)
    host.open(now=5.0)
    assert host.next_timer() == 5.0 + OPTIONS_TIMEOUT_S
    assert host.handle_timer(now=5.0) == []
    actions = host.handle_timer(now=5.0 + OPTIONS_TIMEOUT_S)
    assert actions[0] == StateChanged(State.TIMEOUT)
    assert isinstance(actions[1], Failed)
    assert isinstance(actions[1].error, InvitationTimeoutError)
    assert host.next_timer() is None


def test_an_invitation_that_expires_in_mid_handshake_is_refused() -> None:
    host = InvitationHost(make_invitation(), failures_count=0, challenge=CHALLENGE, expires_at=7.0)
    host.open(now=0.0)
    host.receive(options_of(guest=True), now=1.0)
    actions = host.receive(introduction(), now=7.0)
    assert actions[0] == StateChanged(State.EXPIRED)
    assert isinstance(actions[1], Failed)
    assert isinstance(actions[1].error, InvitationExpiredError)


def test_cancelling_ends_every_state_once() -> None:
    for state in host_builders():
        host = host_builders()[state]()
        actions = host.cancel()
        if state.is_final:
            assert actions == []
        else:
            assert host.state is State.CANCELLED
            assert isinstance(actions[-1], Failed)
            assert isinstance(actions[-1].error, InvitationCancelledError)
        assert host.cancel() == [] == host.link_lost(BrokenError("gone"))


def test_a_host_needs_what_the_invitation_asks_for() -> None:
    for method in (AuthMethod.SHARED_SECRET, AuthMethod.KNOWN_PUBLIC_KEY):
        bare = replace(make_invitation(method), auth_code=None, guest_keypair=None)
        with pytest.raises(UsageError):
            InvitationHost(bare, failures_count=0, challenge=CHALLENGE)


def test_the_repr_is_one_line_without_secrets() -> None:
    host = InvitationHost(make_invitation(), failures_count=0, challenge=CHALLENGE)
    assert repr(host) == "<InvitationHost abababab INIT>"


# --- Every request in every state ------------------------------------------------------------------------------------


def options_of(*, guest: bool) -> invitations_pb2.InvitationOptions:
    return invitations_pb2.InvitationOptions(role="GUEST" if guest else "HOST")


def introduction() -> invitations_pb2.IntroductionRequest:
    return invitations_pb2.IntroductionRequest(invitation_id="ab" * 32)


def code(text: str) -> invitations_pb2.AuthenticationRequest:
    return invitations_pb2.AuthenticationRequest(auth_code=text)


def ready_guest(invitation: Invitation | None = None) -> InvitationGuest:
    guest = InvitationGuest(invitation or make_invitation(), admission=SPACE_REQUEST)
    guest.open(now=0.0)
    guest.receive(options_of(guest=False), now=0.0)
    guest.answer(Empty(), now=0.0)
    return guest


def host_builders() -> dict[State, Callable[[], InvitationHost]]:
    def make(*requests: Message) -> InvitationHost:
        host = InvitationHost(make_invitation(), failures_count=0, challenge=CHALLENGE)
        host.open(now=0.0)
        for request in requests:
            host.receive(request, now=0.0)
            if isinstance(request, invitations_pb2.InvitationOptions):
                host.answer(Empty(), now=0.0)
        return host

    def ended(end: Callable[[InvitationHost], object], *requests: Message) -> InvitationHost:
        host = make(*requests)
        end(host)
        return host

    met = (options_of(guest=True),)
    introduced = (*met, introduction())
    proven = (*introduced, code("123456"))
    return {
        State.INIT: lambda: InvitationHost(make_invitation(), failures_count=0, challenge=CHALLENGE),
        State.CONNECTING: make,
        State.CONNECTED: lambda: make(*met),
        State.READY_FOR_AUTHENTICATION: lambda: make(*introduced),
        State.AUTHENTICATING: lambda: make(*proven),
        State.SUCCESS: lambda: ended(lambda host: host.admit(SPACE_RESPONSE), *proven, SPACE_REQUEST),
        State.CANCELLED: lambda: ended(lambda host: host.cancel(), *met),
        State.TIMEOUT: lambda: ended(lambda host: host.handle_timer(now=1e6), *introduced),
        State.ERROR: lambda: ended(lambda host: host.link_lost(), *introduced),
    }


REQUESTS: dict[str, Message] = {
    "options": options_of(guest=True),
    "same role": options_of(guest=False),
    "introduction": introduction(),
    "right code": code("123456"),
    "wrong code": code("000000"),
    "admission": SPACE_REQUEST,
    "device admission": DEVICE_REQUEST,
    "nothing": Empty(),
}
ALLOWED = {
    (State.INIT, "options"),
    (State.INIT, "same role"),
    (State.CONNECTING, "options"),
    (State.CONNECTING, "same role"),
    (State.CONNECTED, "introduction"),
    (State.READY_FOR_AUTHENTICATION, "right code"),
    (State.READY_FOR_AUTHENTICATION, "wrong code"),
    (State.AUTHENTICATING, "admission"),
    (State.AUTHENTICATING, "device admission"),
}


@pytest.mark.parametrize("state", list(host_builders()))
@pytest.mark.parametrize("name", list(REQUESTS))
def test_a_host_refuses_what_its_state_does_not_allow(state: State, name: str) -> None:
    host = host_builders()[state]()
    assert host.state is state
    if (state, name) in ALLOWED:
        host.receive(REQUESTS[name], now=0.0)
        return
    with pytest.raises(ProtocolError):
        host.receive(REQUESTS[name], now=0.0)
    assert host.state is state


@pytest.mark.parametrize("name", [name for name in REQUESTS if name not in ("options", "same role")])
def test_a_guest_serves_options_only(name: str) -> None:
    guest = ready_guest()
    with pytest.raises(ProtocolError):
        guest.receive(REQUESTS[name], now=0.0)
    with pytest.raises(ProtocolError):
        guest.receive(options_of(guest=False), now=0.0)


def test_an_admission_of_another_kind_is_refused_on_either_side() -> None:
    host = host_builders()[State.AUTHENTICATING]()
    assert isinstance(host.receive(DEVICE_REQUEST, now=0.0)[-1], Failed)
    handshake = Handshake(make_invitation())
    handshake.admission = lambda: DEVICE_RESPONSE
    handshake.run()
    assert isinstance(handshake.errors["guest"], ProtocolError)


def test_admission_is_asked_for_once() -> None:
    host = host_builders()[State.AUTHENTICATING]()
    assert isinstance(host.receive(SPACE_REQUEST, now=0.0)[-1], Admit)
    with pytest.raises(ProtocolError):
        host.receive(SPACE_REQUEST, now=0.0)


def test_no_second_code_is_compared_while_the_first_is_being_counted() -> None:
    host = host_builders()[State.READY_FOR_AUTHENTICATION]()
    assert host.receive(code("000000"), now=0.0)[-1] == CountFailure()
    with pytest.raises(ProtocolError):
        host.receive(code("123456"), now=0.0)


def test_a_host_that_meets_a_fast_guest_takes_its_introduction_before_its_own_options_are_answered() -> None:
    host = InvitationHost(make_invitation(), failures_count=0, challenge=CHALLENGE)
    host.open(now=0.0)
    host.receive(options_of(guest=True), now=0.0)
    assert isinstance(host.receive(introduction(), now=0.0)[-1], Respond)
    assert host.answer(Empty(), now=0.0) == []


def test_every_open_state_can_end() -> None:
    for table in (HOST_TRANSITIONS, GUEST_TRANSITIONS):
        for state in State:
            ends = {event for origin, event in table if origin is state}
            assert ({"cancelled", "timed out", "expired", "failed"} <= ends) is not state.is_final


@given(
    st.lists(
        st.one_of(
            st.sampled_from(sorted(set(REQUESTS) - {"right code"})).map(REQUESTS.__getitem__),
            st.text(max_size=8).filter(lambda text: text != "123456").map(code),
            st.builds(lambda name: invitations_pb2.IntroductionRequest(invitation_id=name), st.text(max_size=4)),
        ),
        max_size=12,
    )
)
def test_nothing_but_the_code_leads_to_an_admission(requests: list[Message]) -> None:
    host = InvitationHost(make_invitation(), failures_count=0, challenge=CHALLENGE)
    host.open(now=0.0)
    failures_count = 0
    for request in requests:
        try:
            actions = host.receive(request, now=0.0)
        except PeerError:
            continue
        assert not any(isinstance(action, Admit) for action in actions)
        if CountFailure() in actions:
            failures_count += 1
            host.failure_counted(failures_count)
    assert failures_count <= INVITATION_ATTEMPTS_MAX


def test_what_a_guest_says_of_itself_reaches_the_admission() -> None:
    guest_profile = credentials_pb2.ProfileDocument(display_name="Bob")
    host = host_builders()[State.CONNECTED]()
    request = introduction()
    request.profile.CopyFrom(guest_profile)
    host.receive(request, now=0.0)
    host.receive(code("123456"), now=0.0)
    admit = host.receive(SPACE_REQUEST, now=0.0)[-1]
    assert isinstance(admit, Admit)
    assert admit.profile == guest_profile
