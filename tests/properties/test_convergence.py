"""Whatever three hosts write, and whenever they lose each other, restart or die: in the end all have the same.

`DXOS_EXAMPLES=1000 pytest tests/properties/test_convergence.py` looks further than the few examples of every run.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from dxos.echo.mutation import Delete, Insert, Mutation, Put, Remove, SetDeleted, Splice
from dxos.errors import InvalidValueError
from dxos.spaces.space import State
from dxos.testing.peers import Host, agreed, simulated_hosts

EXAMPLES = int(os.environ.get("DXOS_EXAMPLES", "12"))
HOSTS = 3
_FIELDS = ("title", "count", "tags", "shop")


@dataclass(frozen=True)
class Add:
    """A host makes an object."""

    host: int
    value: object


@dataclass(frozen=True)
class Change:
    """A host changes one of the objects that it has."""

    host: int
    which: int
    mutation: Mutation


@dataclass(frozen=True)
class Network:
    """Something happens between hosts, or to one."""

    what: str
    host: int
    other: int
    pause_s: float


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(1 - 2**53, 2**53 - 1),
    st.text(max_size=8),
    st.lists(st.text(max_size=3), max_size=3),
)
fields = st.sampled_from(_FIELDS)
mutations = st.one_of(
    st.builds(lambda field, value: Put((field,), value), fields, values),
    st.builds(lambda value: Put(("shop",), {"aisle": value}), values),
    st.builds(lambda value: Put(("shop", "aisle"), value), values),
    st.builds(lambda field: Delete((field,)), fields),
    st.builds(lambda value: Insert(("tags",), 0, (value,)), values),
    st.builds(lambda count: Remove(("tags",), 0, count), st.integers(0, 2)),
    st.builds(lambda text: Splice(("title",), 0, 0, text), st.text(min_size=1, max_size=4)),
    st.builds(SetDeleted, st.booleans()),
)
hosts_ = st.integers(0, HOSTS - 1)
steps = st.lists(
    st.one_of(
        st.builds(Add, hosts_, values),
        st.builds(Change, hosts_, st.integers(0, 20), mutations),
        st.builds(Change, hosts_, st.integers(0, 20), mutations),
        st.builds(
            Network,
            st.sampled_from(["sever", "mend", "offline", "online", "stop", "kill", "wait", "wait", "close", "open"]),
            hosts_,
            hosts_,
            st.sampled_from([0.0, 0.001, 0.004, 0.02, 0.5, 40.0]),
        ),
    ),
    max_size=24,
)


@pytest.mark.slow
@pytest.mark.timeout(0 if EXAMPLES > 100 else 60)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_every_replica_ends_equal_in_rows_and_documents(steps: list[Add | Change | Network]) -> None:
    clock = MockClock(autojump_threshold=0)
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(_live, steps, Path(folder), backend="trio", backend_options={"clock": clock})


async def _live(steps: list[Add | Change | Network], folder: Path) -> None:
    async with simulated_hosts("alice", "bob", "carol", folder=folder) as hosts:
        alice = hosts[0]
        space_id = (await alice.create_space()).id
        made = {alice.add(alice.space(space_id), title="Milk", tags=["dairy"])}
        for guest in hosts[1:]:
            await guest.join(alice, alice.space(space_id))
        for step in steps:
            host = hosts[step.host]
            if isinstance(step, Network):
                await _happen(step, host, hosts[step.other], space_id)
                continue
            await _use(host, space_id)
            if isinstance(step, Add):
                made.add(host.add(host.space(space_id), title="New", tags=[], count=step.value))
            else:
                _change(host, space_id, step)
        await _end(hosts, space_id, made)


async def _use(host: Host, space_id: str) -> None:
    """Have a host running with its space open; it need not be connected."""
    if not host.is_running:
        await host.start()
    await host.peer.spaces.set_active(space_id, True)
    with anyio.fail_after(120):
        await host.space(space_id).wait_until_ready()


def _change(host: Host, space_id: str, step: Change) -> None:
    space = host.space(space_id)
    known = sorted(host.replica(space))
    try:
        host.edit(space, known[step.which % len(known)], step.mutation)
    except InvalidValueError:
        return  # There is no list, or no text, where it wants to change one.


async def _happen(step: Network, host: Host, other: Host, space_id: str) -> None:
    match step.what:
        case "sever" if host is not other:
            host.sever(other)
        case "mend":
            host.mend(other)
        case "stop" if host.is_running:
            await host.stop()
        case "kill" if host.is_running:
            await host.kill()
        case "offline" if host.is_running:
            await host.peer.network.set_online(False)
        case "online" if host.is_running:
            await host.peer.network.set_online(True)
        case "close" if host.is_running:
            await host.peer.spaces.set_active(space_id, False)
        case "open" if host.is_running:
            await host.peer.spaces.set_active(space_id, True)
    await anyio.sleep(step.pause_s)


async def _end(hosts: tuple[Host, ...], space_id: str, made: set[str]) -> None:
    for host in hosts:
        host.mend(*(other for other in hosts if other is not host))
        await _use(host, space_id)
        await host.peer.network.set_online(True)
    space = hosts[0].space(space_id)
    replica = await agreed(space, *hosts, timeout_s=600)
    assert made <= set(replica), "what was made exists, deleted or not"
    for host in hosts:
        assert host.rows_of_documents(space) == {key: row for key, (row, _) in replica.items()}
        assert host.peer.documents.documents(space_id) == hosts[0].peer.documents.documents(space_id)
        assert host.peer.documents.quarantined(space_id) == {}
        assert host.space(space_id).state is State.READY
        assert host.space(space_id).refused_changes == 0
