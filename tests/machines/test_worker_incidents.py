"""What went wrong with leaders and workers elsewhere, each as a history of our machines that must end well."""

import pytest
from worker_world import COORDINATOR, Client, World

from dxos.errors import CorruptionError, LinkError, ProfileVersionError
from dxos.limits import (
    LEADER_FAILURES_MAX,
    LEADER_STALE_S,
    LEADER_TICK_LATE_S,
    STEAL_COOLDOWN_S,
    WORKER_ADOPT_S,
    WORKER_STALE_S,
)
from dxos.testing.diagrams import START
from dxos.worker import election, following, leadership, messages
from dxos.worker.messages import Failure

FAIL_OVER_S = 5.0


def people(count: int, *, seed: int = 1) -> tuple[World, list[Client]]:
    """A world in which the first of so many clients leads, and all have a session."""
    world = World(seed)
    found = [world.start(delay=0.1 * number) for number in range(count)]
    world.run(3.0)
    assert [one.following.state for one in found] == [following.State.CONNECTED] * count
    assert world.leaders == found[:1]
    return world, found


def connected(*clients: Client) -> bool:
    return all(one.following.state is following.State.CONNECTED for one in clients)


def leads(client: Client) -> bool:
    """Whether it leads, and its worker serves."""
    return client.reign is not None and client.reign.leadership.state is leadership.State.READY


# --- The leader -------------------------------------------------------------------------------------------------------


def test_a_frozen_leader_that_keeps_the_lock_is_replaced_and_disturbs_nobody() -> None:
    world, (alice, bob, carol) = people(3)
    world.run(STEAL_COOLDOWN_S)
    (worker,) = world.live_workers
    world.freeze(alice)
    frozen_at = world.now
    world.run(30.0, until=lambda: leads(bob) or leads(carol))
    assert LEADER_STALE_S <= world.now - frozen_at < FAIL_OVER_S
    assert world.live_workers == [worker], "it was adopted"
    assert bob.ports_seen == carol.ports_seen == [1], "their sessions went on"
    late = world.start()
    world.run(1.0)
    assert connected(late)
    world.thaw(alice)
    world.run(2.0)
    assert alice.election.state is election.State.WAITING
    assert alice.reign is None
    assert alice.ports_seen == [1]
    assert alice.following.link_state is following.LinkState.MEMBER


def test_whoever_comes_while_the_only_other_one_is_frozen_is_served_as_soon() -> None:
    world, (alice,) = people(1)
    world.run(STEAL_COOLDOWN_S)
    world.freeze(alice)
    came_at, bob = world.now, world.start()
    world.run(30.0, until=lambda: connected(bob))
    assert LEADER_STALE_S <= world.now - came_at < FAIL_OVER_S


def test_a_leader_that_dies_is_followed_at_once_and_its_worker_adopted() -> None:
    world, (alice, bob, carol) = people(3)
    (worker,) = world.live_workers
    alice.die()
    died_at = world.now
    world.run(5.0, until=lambda: leads(bob) or leads(carol))
    assert world.now - died_at < 0.05
    world.run(2 * WORKER_ADOPT_S)
    assert world.live_workers == [worker]
    assert bob.ports_seen == carol.ports_seen == [1]


def test_a_follower_that_reaches_nobody_deposes_nobody() -> None:
    world, _ = people(2)
    mallory = world.start()
    mallory._open_link = lambda: world.soon(mallory, lambda: mallory.following.link_ended(world.now))  # type: ignore[method-assign]
    world.run(600.0)
    assert world.newest == 1
    assert not mallory.reports, "waiting is no failure"
    assert not mallory.rejected


def test_a_follower_that_is_delayed_itself_deposes_nobody() -> None:
    world, (_, bob) = people(2)
    for _ in range(50):
        world.freeze(bob)
        world.run(LEADER_STALE_S + LEADER_TICK_LATE_S)
        world.thaw(bob)
        world.run(0.6)
    assert world.newest == 1
    assert connected(bob)


def test_when_all_processes_were_stopped_together_nobody_is_deposed_and_no_worker_killed() -> None:
    # A suspended machine, or a debugger over all of them; those that follow wake first.
    world, (alice, bob, carol) = people(3)
    (worker,) = world.live_workers
    for one in (alice, bob, carol, worker):
        world.freeze(one)
    world.run(3_600.0)
    for one, pause_s in ((bob, 0.0), (alice, 1.7), (carol, 0.3), (worker, 0.3)):
        world.run(pause_s)
        world.thaw(one)
    world.run(30.0)
    assert world.newest == 1
    assert world.live_workers == [worker]
    assert alice.ports_seen == bob.ports_seen == carol.ports_seen == [1]


def test_a_lock_that_is_lost_while_opening_leaves_no_worker() -> None:
    for delay in (0.0, 0.02, 0.05, 0.1, 0.2, 0.3):
        world = World(3)
        alice = world.start(delay=0.0)
        world.run(delay)
        world.freeze(alice)
        bob = world.start()
        world.run(2 * STEAL_COOLDOWN_S)
        assert connected(bob), delay
        world.thaw(alice)
        world.run(2 * WORKER_ADOPT_S)
        assert connected(alice, bob), delay
        assert len(world.leaders) == len(world.live_workers) == 1, delay


def test_a_client_that_closes_while_opening_leaves_no_worker() -> None:
    for step in range(30):
        world = World(4)
        alice = world.start(delay=0.0)
        world.run(0.02 * step)
        alice.close()
        world.run(2 * WORKER_ADOPT_S)
        assert alice.dead
        assert not world.live_workers, step
        assert not any(one.holder for one in world.generations.values())


def test_two_clients_that_start_at_the_same_instant_share_one_worker_a_hundred_times() -> None:
    for seed in range(100):
        world = World(seed)
        alice, bob = world.start(delay=0.0), world.start(delay=0.0)
        world.run(2.0)
        assert connected(alice, bob), seed
        assert len(world.leaders) == len(world.workers) == 1, seed
        assert alice.ports_seen == bob.ports_seen == [1], seed


def test_a_removed_socket_of_the_coordinator_is_made_again() -> None:
    world, _ = people(1)
    world.coordinator_socket = None
    bob = world.start()
    world.run(2.0)
    assert connected(bob)
    assert world.newest == 1


# --- Waiting and failing ----------------------------------------------------------------------------------------------


def test_waiting_for_a_slow_host_is_no_failure_however_long_it_takes() -> None:
    world = World(5)
    world.host_s = 1_200.0
    alice, bob = world.start(), world.start()
    world.run(2_000.0, until=lambda: connected(alice, bob))
    assert world.now > 60.0, "it was slow"
    assert connected(alice, bob)
    assert len(world.workers) == 1
    assert not alice.reports + bob.reports


def test_a_host_that_cannot_be_opened_rejects_everybody_who_waits_with_its_error() -> None:
    world = World(6)
    world.init_failure = Failure.of(CorruptionError("Feed 1 is damaged.", feed=1))
    found = [world.start(delay=0.0) for _ in range(3)]
    world.run(5.0)
    for one in found:
        assert one.rejected is not None
        error = one.rejected.error(one.following.diagnostics())
        assert isinstance(error, CorruptionError)
        assert error.detail["feed"] == 1
        assert error.detail["worker_connect_phase"] == "closed, none"
        assert one.dead
    assert len(world.workers) == 1, "nobody tried again"
    assert not world.live_workers


def test_a_host_that_cannot_be_opened_again_is_tried_until_it_can() -> None:
    world, (alice, bob) = people(2)
    world.init_failure = Failure.of(CorruptionError("Not now."))
    world.workers[0].die()
    world.run(8.0)
    assert not alice.rejected
    assert not bob.rejected
    assert 2 <= len(world.workers) <= 12, "with pauses"
    world.init_failure = None
    world.run(60.0)
    assert connected(alice, bob)


def test_workers_that_never_serve_are_reported_once_and_to_whoever_waits_with_their_error() -> None:
    world = World(7)
    alice = world.start()
    while not alice.rejected and world.now < 120.0:
        world.run(0.05)
        for worker in world.live_workers:
            worker.die()
    assert alice.rejected is not None
    assert isinstance(alice.rejected.error(), LinkError)
    assert len(alice.reports) == 1
    assert len(world.workers) == LEADER_FAILURES_MAX
    assert world.now > 3.0, "with pauses between"


def test_a_client_of_an_older_version_is_told_so_and_deposes_nobody() -> None:
    world = World(8)
    alice = world.start(protocol=2)
    world.run(2.0)
    bob = world.start(protocol=1)
    world.run(0.5)
    assert bob.rejected is not None
    assert isinstance(bob.rejected.error(), ProfileVersionError)
    assert "newer version of dxos" in bob.rejected.message
    assert world.newest == 1
    assert connected(alice)


def test_a_newer_client_has_the_older_leader_step_down_and_its_worker_end() -> None:
    world, (alice,) = people(1)
    (worker,) = world.live_workers
    bob = world.start(protocol=2)
    world.run(5.0)
    assert worker.dead
    assert world.leaders == [bob]
    assert connected(bob)
    assert alice.session is None, "it cannot follow a newer leader"
    (warning,) = alice.warnings
    assert "newer version of dxos" in warning.message


def test_a_newer_client_leads_however_many_older_ones_there_are() -> None:
    world, found = people(12)
    bob = world.start(protocol=2)
    world.run(30.0, until=lambda: connected(bob))
    assert world.leaders == [bob]
    assert not any(one.rejected for one in found)


def test_a_newer_client_that_leaves_again_gives_the_older_ones_their_host_back() -> None:
    world, (alice, bob) = people(2)
    for spell, leave in enumerate((Client.close, Client.die), 1):
        carol = world.start(protocol=2)
        world.run(30.0)
        assert world.leaders == [carol]
        assert connected(carol)
        assert len(alice.warnings) == len(bob.warnings) == spell, "once, however long it takes"
        leave(carol)
        left_at = world.now
        world.run(30.0, until=lambda: connected(alice, bob))
        assert connected(alice, bob)
        assert world.now - left_at < FAIL_OVER_S
        assert not alice.rejected
        assert not bob.rejected
        assert len(world.live_workers) == 1
    world.run(STEAL_COOLDOWN_S)
    (frozen,) = world.leaders
    (other,) = {alice, bob} - {frozen}
    world.freeze(frozen)
    world.run(30.0, until=lambda: leads(other))
    assert leads(other), "whoever was refused may depose again, once it is not"


# --- The worker -------------------------------------------------------------------------------------------------------


def test_after_the_worker_died_everybody_gets_a_new_port_and_no_old_one() -> None:
    world, found = people(3)
    world.run(2.0)
    world.workers[0].die()
    died_at = world.now
    world.run(10.0, until=lambda: world.now > died_at + 0.01 and connected(*found))
    assert world.now - died_at < 1.0
    assert [one.ports_seen[-1] > 1 for one in found] == [True] * 3
    assert world.newest == 2, "no two workers have an id in common"
    assert world.leaders == found[:1], "whoever leads goes on"


def test_a_worker_that_stops_is_killed_and_replaced() -> None:
    world, found = people(2)
    world.run(2.0)
    (worker,) = world.live_workers
    world.freeze(worker)
    frozen_at = world.now
    world.run(20.0, until=lambda: worker.dead and connected(*found))
    assert WORKER_STALE_S <= world.now - frozen_at < FAIL_OVER_S


def test_leader_and_worker_that_stop_together_are_replaced() -> None:
    world, (alice, bob, carol) = people(3)
    world.run(STEAL_COOLDOWN_S)
    (worker,) = world.live_workers
    world.freeze(alice)
    world.freeze(worker)
    world.run(30.0, until=lambda: worker.dead and connected(bob, carol))
    assert world.newest > 1
    assert connected(bob, carol)
    world.thaw(alice)
    world.run(5.0)
    assert connected(alice)
    assert len(world.live_workers) == 1


def test_a_worker_that_dies_whenever_it_serves_is_started_with_pauses() -> None:
    world, (alice,) = people(1)
    for _ in range(600):
        world.run(0.05)
        for worker in world.live_workers:
            if connected(alice):
                worker.die()
    assert len(world.workers) < 60, f"{len(world.workers)} in 30 s"
    world.run(60.0)
    assert connected(alice)


def test_a_port_of_a_leader_that_died_on_the_way_is_closed_and_asked_for_again() -> None:
    world, (alice, bob) = people(2)
    carol = world.start()
    world.run(5.0, until=lambda: any(one == (COORDINATOR, carol.name, "provide-port") for one in world.said))
    alice.die()
    world.run(5.0)
    assert connected(bob, carol)
    (worker,) = world.live_workers
    assert worker.sessions.clients == {bob.name: 1, carol.name: carol.following.attempt}
    assert len([one for one in world.ports if not one.client_closed]) == 2


# --- The order of the start ------------------------------------------------------------------------------------------


def test_the_messages_of_the_start_come_in_the_order_of_the_diagram() -> None:
    world = World(9)
    alice = world.start(delay=0.0)
    world.run(3.0, until=lambda: connected(alice))
    bob = world.start(delay=0.0)
    world.run(3.0, until=lambda: connected(bob))
    names = {alice.name: "C1", bob.name: "C2", COORDINATOR: "Coord", world.workers[0].name: "W"}
    aside = {messages.name_of(kind) for kind in (messages.Ping, messages.Pong)}
    said = [(names[one], names[other], what) for one, other, what in world.said if what not in aside]
    assert tuple(said) == START


@pytest.mark.parametrize("seed", range(5))
def test_the_last_one_to_leave_leaves_nothing(seed: int) -> None:
    world, found = people(4, seed=seed)
    world.random.shuffle(found)
    for one in found:
        one.close()
        world.run(world.random.choice((0.0, 0.01, 1.0)))
    world.run(1.0)
    assert not world.open_clients
    assert not world.live_workers
    assert all(one.client_closed and one.worker_closed for one in world.ports)
