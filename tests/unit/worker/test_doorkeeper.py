"""One-time tokens at a door: who is let in, who is turned away, and that nobody else notices."""

import pytest

from dxos.limits import (
    LOOPBACK_SHOW_S,
    LOOPBACK_TOKEN_BYTES,
    LOOPBACK_TOKEN_S,
    LOOPBACK_TRIES_MAX,
    LOOPBACK_WAITING_MAX,
)
from dxos.worker.doorkeeper import Admit, Doorkeeper, Expired, TurnAway

RIGHT, OTHER, WRONG = (bytes([number]) * LOOPBACK_TOKEN_BYTES for number in range(3))


@pytest.fixture
def door() -> Doorkeeper:
    door = Doorkeeper()
    door.offer(1, RIGHT, 0.0)
    door.offer(2, OTHER, 0.0)
    return door


def taken(door: Doorkeeper) -> list[object]:
    found: list[object] = list(door.actions)
    door.actions.clear()
    return found


def test_a_token_admits_once(door: Doorkeeper) -> None:
    door.connected(7, 0.0)
    door.connected(8, 0.0)
    door.receive(7, RIGHT, 1.0)
    door.receive(8, RIGHT, 1.0)
    assert taken(door) == [Admit(7, 1)]
    door.receive(8, OTHER, 1.0)
    assert taken(door) == [Admit(8, 2)], "a wrong token is one try, and no harm to others"


def test_a_token_may_come_in_pieces_and_no_more_than_it_is_read(door: Doorkeeper) -> None:
    door.connected(7, 0.0)
    for index in range(LOOPBACK_TOKEN_BYTES):
        assert not door.actions
        assert door.wanted(7) == LOOPBACK_TOKEN_BYTES - index
        door.receive(7, RIGHT[index : index + 1], 0.0)
    assert taken(door) == [Admit(7, 1)]
    assert door.wanted(7) == 0


def test_the_third_wrong_token_ends_a_connection_and_no_other_one(door: Doorkeeper) -> None:
    door.connected(7, 0.0)
    door.connected(8, 0.0)
    for _ in range(LOOPBACK_TRIES_MAX):
        assert not door.actions
        door.receive(7, WRONG, 0.0)
    assert taken(door) == [TurnAway(7)]
    door.receive(7, RIGHT, 0.0)  # It was on its way.
    door.receive(8, RIGHT, 0.0)
    assert taken(door) == [Admit(8, 1)]


def test_a_connection_that_shows_nothing_ends(door: Doorkeeper) -> None:
    door.connected(7, 1.0)
    door.receive(7, RIGHT[:-1], 1.0)
    assert door.next_timer() == 1.0 + LOOPBACK_SHOW_S
    door.handle_timer(0.9 + LOOPBACK_SHOW_S)
    assert not door.actions
    door.handle_timer(1.0 + LOOPBACK_SHOW_S)
    assert taken(door) == [TurnAway(7)]
    assert door.next_timer() == LOOPBACK_TOKEN_S


@pytest.mark.parametrize("is_noticed", [True, False], ids=["by the timer", "before the timer"])
def test_an_old_token_admits_nobody(door: Doorkeeper, is_noticed: bool) -> None:
    if is_noticed:
        door.handle_timer(LOOPBACK_TOKEN_S)
        assert taken(door) == [Expired(1), Expired(2)]
    door.connected(7, LOOPBACK_TOKEN_S)
    door.receive(7, RIGHT, LOOPBACK_TOKEN_S)
    assert not door.actions


def test_a_token_that_was_revoked_admits_nobody(door: Doorkeeper) -> None:
    door.revoke(1)
    door.connected(7, 0.0)
    door.receive(7, RIGHT, 0.0)
    assert not door.actions
    door.handle_timer(LOOPBACK_TOKEN_S)
    assert taken(door) == [Expired(2), TurnAway(7)]


def test_of_too_many_that_wait_the_oldest_goes(door: Doorkeeper) -> None:
    for number in range(LOOPBACK_WAITING_MAX + 2):
        door.connected(number, 0.0)
    assert taken(door) == [TurnAway(0), TurnAway(1)]
    door.receive(LOOPBACK_WAITING_MAX + 1, RIGHT, 0.0)
    assert taken(door) == [Admit(LOOPBACK_WAITING_MAX + 1, 1)]


def test_a_connection_that_is_gone_is_forgotten(door: Doorkeeper) -> None:
    door.connected(7, 0.0)
    door.ended(7)
    door.ended(7)
    door.receive(7, RIGHT, 0.0)
    assert taken(door) == [TurnAway(7)]


def test_no_token_is_shown_by_a_repr(door: Doorkeeper) -> None:
    door.connected(7, 0.0)
    door.receive(7, RIGHT, 0.0)
    assert repr(door) == "<Doorkeeper offers=1 waiting=0>"
    assert RIGHT.hex() not in repr(taken(door))
