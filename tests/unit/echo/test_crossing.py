"""Which peers are still to go over to a new root."""

from dxos.echo.crossing import Crossings
from dxos.echo.messages import Collection
from dxos.limits import ROOT_APART_S, ROOT_SETTLE_S

SPACE, OLD, NEW, NEWER = "space", "old", "new", "newer"


def heard(*roots: str | None) -> Crossings:
    crossings = Crossings()
    for root in roots:
        crossings.hear_query(Collection(SPACE, root))
    return crossings


def free_at(
    crossings: Crossings, our_root: str | None, now: float, *, is_here: bool = True, is_first: bool = True
) -> float:
    crossings.evaluate(SPACE, our_root, lambda _: is_here, now, is_first=is_first)
    return crossings.free_at(SPACE)


def test_nothing_waits_for_a_peer_at_our_root() -> None:
    assert free_at(heard(None, NEW), NEW, 5.0) <= 5.0


def test_nothing_waits_for_a_peer_that_names_no_root_or_while_we_know_none() -> None:
    assert free_at(heard(), NEW, 5.0) <= 5.0
    assert free_at(heard(None), NEW, 5.0) <= 5.0
    assert free_at(heard(None, OLD), None, 5.0) <= 5.0


def test_nothing_waits_for_a_peer_that_never_asks_without_a_root() -> None:
    assert free_at(heard(OLD), NEW, 5.0) <= 5.0


def test_a_peer_at_another_root_waits_until_some_time_after_it_names_ours() -> None:
    crossings = heard(None, OLD)
    assert free_at(crossings, NEW, 5.0) == 5.0 + ROOT_APART_S
    assert free_at(crossings, NEW, 6.0) == 5.0 + ROOT_APART_S
    crossings.hear_query(Collection(SPACE, NEW))
    assert free_at(crossings, NEW, 7.0) == 7.0 + ROOT_SETTLE_S
    assert free_at(crossings, NEW, 8.0) == 7.0 + ROOT_SETTLE_S


def test_a_peer_that_is_ahead_waits_until_its_root_is_here() -> None:
    crossings = heard(None, NEW)
    assert free_at(crossings, OLD, 5.0) == 5.0 + ROOT_APART_S
    assert free_at(crossings, NEW, 6.0, is_here=False) > 6.0
    assert free_at(crossings, NEW, 7.0) == 7.0 + ROOT_SETTLE_S


def test_a_peer_that_has_not_named_a_root_yet_waits_if_there_were_others() -> None:
    crossings = heard()
    assert free_at(crossings, NEW, 5.0, is_first=False) == 5.0 + ROOT_APART_S
    assert free_at(crossings, NEW, 6.0, is_first=False) == 5.0 + ROOT_APART_S
    crossings.hear_query(Collection(SPACE, NEW))
    assert free_at(crossings, NEW, 7.0, is_first=False) <= 7.0
    crossings = heard()
    free_at(crossings, NEW, 5.0, is_first=False)
    crossings.hear_query(Collection(SPACE))
    crossings.hear_query(Collection(SPACE, OLD))
    assert free_at(crossings, NEW, 6.0, is_first=False) == 6.0 + ROOT_APART_S


def test_one_epoch_after_another_is_waited_for_anew() -> None:
    crossings = heard(None, OLD)
    assert free_at(crossings, NEW, 5.0) == 5.0 + ROOT_APART_S
    assert free_at(crossings, NEWER, 9.0) == 9.0 + ROOT_APART_S
    crossings.hear_query(Collection(SPACE, NEWER))
    free_at(crossings, NEWER, 10.0)
    assert free_at(crossings, "newest", 30.0) == 30.0 + ROOT_APART_S


def test_a_space_that_is_shared_no_longer_is_forgotten() -> None:
    crossings = heard(None, OLD)
    assert free_at(crossings, NEW, 5.0) > 5.0
    crossings.forget(SPACE)
    assert free_at(crossings, NEW, 5.0) <= 5.0
