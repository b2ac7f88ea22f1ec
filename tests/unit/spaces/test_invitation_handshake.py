"""What one side says at the end of a connection, and what the other makes of it."""

import pytest
from halo_people import SPACE
from invitation_people import BEGINNING_MS, wanted

from dxos.errors import (
    BrokenError,
    DxosError,
    InvitationCancelledError,
    InvitationExpiredError,
    InvitationTimeoutError,
)
from dxos.halo.invitation import InvitationState
from dxos.spaces.invitation_handshake import InvitationUpdate, Updates, cancelled, expired, told
from dxos.spaces.invitation_host import fill_in
from dxos.teleport import invitation as machines

INVITATION = fill_in(wanted(SPACE), random=bytes, now_ms=BEGINNING_MS)


def _closed_because(error: DxosError) -> BrokenError:
    return BrokenError("the peer closed the connection", reason=str(error))


@pytest.mark.parametrize("error", [cancelled(), expired()])
def test_the_reason_a_peer_gives_becomes_the_error_it_had(error: DxosError) -> None:
    assert type(told(_closed_because(error))) is type(error)


@pytest.mark.parametrize(("expires_at", "kind"), [(1.0, InvitationExpiredError), (None, InvitationTimeoutError)])
def test_what_the_machines_end_with_is_understood(expires_at: float | None, kind: type[DxosError]) -> None:
    host = machines.InvitationHost(INVITATION, failures_count=0, challenge=bytes(32), expires_at=expires_at)
    host.open(now=0.0)
    failed = host.handle_timer(now=1_000.0)[-1]
    assert isinstance(failed, machines.Failed)
    assert type(told(_closed_because(failed.error))) is kind


def test_any_other_reason_stays_a_broken_connection() -> None:
    error = BrokenError("the peer closed the connection", reason="bored")
    assert told(error) is error
    assert told(None) is None
    assert not isinstance(told(error), InvitationCancelledError)


def test_observers_hear_what_is_new_until_the_last_update() -> None:
    first = InvitationUpdate(INVITATION)
    updates = Updates(first)
    heard: list[InvitationUpdate] = []
    updates.follow(heard.append)
    updates.show(first)
    last = InvitationUpdate(INVITATION, cancelled(), done=True)
    updates.show(last)
    updates.show(InvitationUpdate(INVITATION, failures=1))
    assert heard == [first, last]
    late: list[InvitationUpdate] = []
    updates.follow(late.append)
    assert late == [last]
    assert INVITATION.state is InvitationState.INIT
