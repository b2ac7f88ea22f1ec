import itertools

import pytest
from halo_people import SPACE
from hypothesis import given
from hypothesis import strategies as st
from invitation_people import BEGINNING_MS, wanted

from dxos.errors import CorruptionError, InvitationUsedError
from dxos.halo.invitation import AuthMethod, InvitationState
from dxos.limits import INVITATION_ATTEMPTS_MAX
from dxos.spaces.invitation_host import fill_in, make_code, read_record, verdict
from dxos.store.database import Database
from dxos.store.invitations import InvitationRecord, InvitationStore
from dxos.teleport import invitation as machines
from dxos.wire import encode
from dxos.wire.proto.invitations_pb2 import AuthenticationRequest, IntroductionRequest, InvitationOptions

_numbers = itertools.count()


def random(count: int) -> bytes:
    return next(_numbers).to_bytes(count, "big")


INVITATION = fill_in(wanted(SPACE), random=random, now_ms=BEGINNING_MS)


def make_record(state: InvitationState = InvitationState.INIT, **changes: object) -> InvitationRecord:
    record = encode(INVITATION.to_message())
    return InvitationRecord(INVITATION.invitation_id, record, BEGINNING_MS / 1000, 86_400.0, state.name, **changes)  # type: ignore[arg-type]


def test_ten_thousand_guessers_that_reconnect_cause_three_comparisons() -> None:
    store = InvitationStore(Database(None))
    store.put(make_record())
    comparisons = 0
    for number in range(10_000):
        found = store.get(INVITATION.invitation_id)
        assert found is not None
        host = machines.InvitationHost(INVITATION, failures_count=found.attempts, challenge=bytes(32))
        host.open(now=0.0)
        if host.is_over:
            continue
        host.receive(InvitationOptions(role=InvitationOptions.Role.GUEST), now=0.0)
        host.receive(IntroductionRequest(invitation_id=INVITATION.invitation_id), now=0.0)
        actions = host.receive(AuthenticationRequest(auth_code=f"x{number}"), now=0.0)
        comparisons += machines.CountFailure() in actions
        host.failure_counted(store.count_failure(INVITATION.invitation_id))
    assert comparisons == INVITATION_ATTEMPTS_MAX


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1))
def test_a_code_has_six_digits_whatever_the_dice_show(numbers: list[int]) -> None:
    dice = iter([*numbers, 0])
    code = make_code(lambda count: next(dice).to_bytes(count, "big"))
    assert len(code) == 6
    assert code.isdecimal()


def test_numbers_that_would_make_some_codes_likelier_are_thrown_away() -> None:
    dice = iter([2**32 - 1, 4_294_000_000, 4_293_999_999])
    assert make_code(lambda count: next(dice).to_bytes(count, "big")) == "999999"


def test_what_was_asked_for_is_kept() -> None:
    invitation = fill_in(
        wanted(SPACE, auth_code="0815", lifetime_s=60, timeout_ms=5, persistent=False, multi_use=True),
        random=random,
        now_ms=BEGINNING_MS,
    )
    assert (invitation.auth_code, invitation.lifetime_s, invitation.timeout_ms) == ("0815", 60, 5)
    assert (invitation.persistent, invitation.multi_use) == (False, True)


def test_only_what_asks_for_a_secret_has_one() -> None:
    plain = fill_in(wanted(SPACE, AuthMethod.NONE), random=random, now_ms=BEGINNING_MS)
    assert (plain.auth_code, plain.guest_keypair) == (None, None)
    bound = fill_in(wanted(SPACE, AuthMethod.KNOWN_PUBLIC_KEY), random=random, now_ms=BEGINNING_MS)
    assert bound.auth_code is None
    assert bound.guest_keypair is not None


def test_a_record_says_what_became_of_its_invitation() -> None:
    assert verdict(make_record(), now_ms=BEGINNING_MS) is None
    expired = verdict(make_record(), now_ms=BEGINNING_MS + 86_400_000)
    burned = verdict(make_record(attempts=INVITATION_ATTEMPTS_MAX), now_ms=BEGINNING_MS)
    used = verdict(make_record(claimed=True), now_ms=BEGINNING_MS)
    assert expired is not None
    assert burned is not None
    assert used is not None
    assert expired.invitation.state is InvitationState.EXPIRED
    assert burned.failures == INVITATION_ATTEMPTS_MAX
    assert isinstance(used.error, InvitationUsedError)
    assert all(one.invitation.auth_code is None for one in (expired, burned, used))


def test_a_record_without_invitation_is_corruption() -> None:
    with pytest.raises(CorruptionError):
        read_record(InvitationRecord("1", b"\xff", 0.0, 0.0, "INIT"))
