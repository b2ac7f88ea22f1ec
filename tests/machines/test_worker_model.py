"""Leader, coordinator, clients and worker under storms from a seed; after each, what must hold holds.

`DXOS_EXAMPLES` is how many storms there are; a failure names its seed, and `DXOS_SEED` begins there.
"""

import os

import pytest
from worker_world import Client, World

from dxos.limits import LEADER_RETRY_S_MAX
from dxos.worker import election, following, leadership, sessions

EXAMPLES = int(os.environ.get("DXOS_EXAMPLES", "320"))
FIRST_SEED = int(os.environ.get("DXOS_SEED", "0"))
BATCHES = 8
STORM_S = 20.0
CALM_S = LEADER_RETRY_S_MAX + 30.0
CLIENTS_MAX = 6
FAULTS = ("start", "start", "start", "close", "kill", "freeze", "freeze", "thaw", "thaw", "unlink", "write", "write")


def storm(world: World) -> None:
    """Random faults, more or less often."""
    random = world.random
    world.slow = random.random() < 0.5
    pause_s = random.choice((0.1, 0.5, 1.5))
    for _ in range(random.randint(1, 3)):
        world.start()
    end = world.now + STORM_S
    while world.now < end:
        world.run(random.expovariate(1.0 / pause_s))
        everybody = [*world.open_clients, *world.live_workers]
        match random.choice(FAULTS):
            case "start" if len(world.open_clients) < CLIENTS_MAX:
                world.start()
            case "close" if world.open_clients:
                random.choice(world.open_clients).close()
            case "kill" if everybody:
                random.choice([*everybody, *world.live_workers, *world.leaders]).die()
            case "freeze" if everybody:
                world.freeze(random.choice([*everybody, *world.live_workers, *world.leaders]))
            case "thaw" if everybody:
                world.thaw(random.choice(everybody))
            case "unlink":
                if random.random() < 0.5:
                    world.coordinator_socket = None
                else:
                    world.worker_socket = None
            case "write" if world.profile_lock and not world.profile_lock.frozen:
                world.profile_lock.write()
                world.profile_lock.settle()
    world.slow = False
    for _ in range(random.randint(0, 2)):
        world.start()
    for one in [*world.open_clients, *world.live_workers]:
        if one.frozen and random.random() < 0.3:
            one.die()
        world.thaw(one)


def check(world: World) -> None:
    """The invariants, once all is calm."""
    clients = world.open_clients
    assert not [one for one in world.clients if one.frozen and not one.dead]
    if not clients:
        assert not world.live_workers, "no worker outlives its purpose"
        assert not [one for one in world.ports if not one.client_closed], "every descriptor is closed"
        return
    (leader,) = world.leaders
    assert leader.election.leadership_id == world.newest
    assert leader.reign is not None
    assert leader.reign.leadership.state is leadership.State.READY
    assert [one for one in clients if one.reign] == [leader], "one coordinator"
    (worker,) = world.live_workers
    assert worker is world.profile_lock
    assert worker.sessions.state is sessions.State.SERVING
    assert worker.sessions.leadership_id == world.newest
    for client in clients:
        assert client.following.state is following.State.CONNECTED, "every waiting client is served"
        assert client.following.link_state is following.LinkState.MEMBER
        assert client.session is not None
        assert client.session.worker is worker
        assert not client.session.worker_closed
    names = sorted(one.name for one in clients)
    assert leader.reign.coordinator.clients == names
    assert worker.sessions.clients == {name: attempt_of(clients, name) for name in names}, "sessions are clients"
    open_ports = [one for one in world.ports if not one.client_closed or not one.worker_closed]
    assert sorted(one.client_id for one in open_ports) == names, "every other descriptor is closed"


def check_history(world: World) -> None:
    """What must hold over the whole history."""
    led = [number for client in world.clients for number in client.led]
    assert len(led) == len(set(led)), "no two leaders with one id"
    for client in world.clients:
        assert client.led == sorted(client.led)
        assert client.ports_seen == sorted(set(client.ports_seen)), "attempts only grow"
        assert len(client.reports) <= 2, "what lasts is reported once"
        if client.rejected:
            assert client.reports, "waiting is never failure"


def attempt_of(clients: list[Client], name: str) -> int:
    (client,) = [one for one in clients if one.name == name]
    return client.following.attempt


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_after_every_storm_there_is_one_leader_one_worker_and_a_session_for_everybody(batch: int) -> None:
    for seed in range(FIRST_SEED + batch, FIRST_SEED + EXAMPLES, BATCHES):
        world = World(seed)
        try:
            storm(world)
            world.run(CALM_S)
            check(world)
            check_history(world)
        except Exception as error:
            error.add_note(f"DXOS_SEED={seed}: {world.clients} {world.workers}")
            raise


def test_the_world_can_fail() -> None:
    # Whoever never looks at the lock again is found out: the checks above are not empty.
    world = World(1)
    alice = world.start()
    world.run(5.0)
    check(world)
    alice.election.state = election.State.WAITING
    with pytest.raises((AssertionError, ValueError)):
        check(world)
