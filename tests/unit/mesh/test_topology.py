from random import Random

from dxos.keys import PublicKey
from dxos.limits import MMST_ORIGINATE_MAX, MMST_PEERS_MAX, MMST_UPDATE_S
from dxos.mesh.topology import (
    FullyConnected,
    InvitationGuest,
    InvitationHost,
    Mmst,
    View,
    nearest,
    ring_neighbours,
    ring_successor,
)

PEERS = [PublicKey(bytes([number]) * 32) for number in range(40)]
LOCAL, OTHERS = PEERS[20], frozenset(PEERS) - {PEERS[20]}
RANDOM = Random(1).randbytes


def view(connected: frozenset[PublicKey] = frozenset(), candidates: frozenset[PublicKey] = frozenset()) -> View:
    return View(LOCAL, connected, candidates)


def test_fully_connected_wants_everyone() -> None:
    changes = FullyConnected().decide(view(candidates=OTHERS), now=0.0, random=RANDOM)
    assert set(changes.connect) == OTHERS


def test_a_guest_offers_to_nobody_and_accepts_everybody() -> None:
    guest = InvitationGuest()
    assert guest.decide(view(candidates=OTHERS), now=0.0, random=RANDOM).connect == ()
    assert guest.accepts(view(connected=OTHERS), PEERS[0])


def test_a_host_offers_to_one_and_prefers_whom_it_has_not_tried() -> None:
    host, candidates = InvitationHost(), frozenset(PEERS[:3])
    tried = [host.decide(view(candidates=candidates), now=0.0, random=RANDOM).connect[0] for _ in range(6)]
    assert tried == [*PEERS[:3], *PEERS[:3]]
    assert host.decide(view(frozenset(PEERS[3:4]), candidates), now=0.0, random=RANDOM).connect == ()


def test_mmst_connects_to_the_next_on_the_ring_and_the_nearest() -> None:
    changes = Mmst().decide(view(candidates=frozenset(PEERS[:20] + PEERS[21:30])), now=0.0, random=RANDOM)
    assert len(changes.connect) == MMST_ORIGINATE_MAX
    assert changes.connect[0] == PEERS[21]


def test_mmst_rations_further_changes() -> None:
    mmst = Mmst()
    first = mmst.decide(view(candidates=OTHERS), now=0.0, random=RANDOM).connect
    rest = OTHERS - set(first)
    few = frozenset(first[1:2])
    assert mmst.decide(view(few, rest), now=1.0, random=RANDOM).connect == ()
    assert mmst.deadline == MMST_UPDATE_S
    assert mmst.decide(view(few, rest), now=MMST_UPDATE_S, random=RANDOM).connect != ()


def test_mmst_alone_never_waits() -> None:
    mmst, candidates = Mmst(), frozenset(PEERS[:1])
    for step in range(20):
        assert mmst.decide(view(candidates=candidates), now=step * 0.1, random=RANDOM).connect == (PEERS[0],)


def test_mmst_drops_one_that_is_too_many_but_no_neighbour_on_the_ring() -> None:
    connected = frozenset(PEERS[: MMST_PEERS_MAX + 3])
    changes = Mmst().decide(view(connected), now=0.0, random=RANDOM)
    assert len(changes.disconnect) == 1
    assert changes.disconnect[0] not in ring_neighbours(LOCAL, connected)


def test_mmst_accepts_up_to_its_limit_and_neighbours_beyond() -> None:
    full = frozenset(PEERS[:MMST_PEERS_MAX])
    assert Mmst().accepts(view(full - {PEERS[0]}), PEERS[30])
    assert not Mmst().accepts(view(full, frozenset(PEERS[21:30])), PEERS[30])
    assert Mmst().accepts(view(full, frozenset(PEERS[22:30])), PEERS[21])


def test_the_ring_wraps_around() -> None:
    assert ring_successor(PEERS[39], frozenset(PEERS[:39])) == PEERS[0]
    assert ring_neighbours(PEERS[0], frozenset(PEERS[1:])) == {PEERS[1], PEERS[39]}
    assert ring_successor(LOCAL, frozenset()) is None


def test_nearness_is_by_xor() -> None:
    assert nearest(PEERS[20], frozenset((PEERS[21], PEERS[22], PEERS[4]))) == [PEERS[21], PEERS[22], PEERS[4]]
