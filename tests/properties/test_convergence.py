"""Whatever three hosts write, and whenever they lose each other, restart or die: in the end all have the same.

The same objects, the same rows and the same answers to queries; and the doctor finds nothing wrong with any of them.

`DXOS_EXAMPLES=1000 pytest tests/properties/test_convergence.py` looks further than the few examples of every run.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from dxos.echo import query as queries
from dxos.echo.mutation import ChangeType, Delete, Insert, Mutation, Put, Remove, SetDeleted, SetMeta, Splice
from dxos.echo.query import Compare, Contains, Equals, HasSource, HasType, Matches, Missing, Order, Query, Refers
from dxos.echo.rows import ObjectRow, reference
from dxos.errors import InvalidValueError
from dxos.keys.ids import make_object_id
from dxos.spaces.doctor import examine_folder
from dxos.spaces.documents import ObjectEdit
from dxos.spaces.space import State
from dxos.testing.peers import Host, agreed, simulated_hosts, virtual_ms

EXAMPLES = int(os.environ.get("DXOS_EXAMPLES", "12"))
HOSTS = 3
TASK = "dxn:type:example.com/type/Task:0.1.0"
_FIELDS = ("title", "count", "tags", "shop")
_REFERENCE = "reference"  # A map with this key alone becomes a reference to one of the objects that the host has.
_QUERIES = (
    Query(),
    Query(deleted="only"),
    Query(Missing(("count",)), deleted="include"),
    Query(Equals(("title",), "New")),
    Query(Compare(("count",), ">=", 0), order=(Order(("count",), descending=True),), limit=3),
    Query(Compare(("title",), "<", "N") | Contains(("tags",), "dairy")),
    Query(HasType(TASK) & ~Equals(("shop", "aisle"), None), order=(Order(("title",)), Order(("shop", "aisle")))),
    Query(Matches((), "new OR milk*"), deleted="include"),
)


@dataclass(frozen=True)
class Add:
    """A host makes an object."""

    host: int
    value: object
    type: str | None = None
    source: int | None = None  # Of a relation: which of its objects it begins at, and which it ends at.
    target: int = 0


@dataclass(frozen=True)
class Change:
    """A host changes one of the objects that it has, in one or several ways at once."""

    host: int
    which: int
    mutations: tuple[Mutation, ...]


@dataclass(frozen=True)
class Network:
    """Something happens between hosts, or to one."""

    what: str
    host: int
    other: int
    pause_s: float


texts = st.one_of(st.text(max_size=8), st.sampled_from(["New", "milk and\x00", "ñandú 🥕", "x" * 300]))
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(1 - 2**53, 2**53 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        texts,
        st.integers(0, 20).map(lambda which: {_REFERENCE: which}),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "日"]), inner, max_size=2),
    max_leaves=5,
)
fields = st.sampled_from(_FIELDS)
paths = st.sampled_from([("title",), ("tags",), ("tags", 0), ("tags", 0, "a"), ("shop", "aisle"), ("count", "a", 0)])
mutations = st.one_of(
    st.builds(lambda field, value: Put((field,), value), fields, values),
    st.builds(lambda value: Put(("shop",), {"aisle": value}), values),
    st.builds(Put, paths, values),
    st.builds(lambda field: Delete((field,)), fields),
    st.builds(Delete, st.sampled_from([("shop", "aisle"), ("tags", 0, "a"), ("count", "a")])),
    st.builds(lambda index, new: Insert(("tags",), index, tuple(new)), st.integers(0, 3), st.lists(values, max_size=3)),
    st.builds(lambda value: Insert(("tags",), 0, (value,)), values),
    st.builds(lambda index, count: Remove(("tags",), index, count), st.integers(0, 2), st.integers(0, 2)),
    st.builds(lambda text: Splice(("title",), 0, 0, text), st.text(min_size=1, max_size=4)),
    st.builds(Splice, paths, st.integers(0, 4), st.integers(0, 3), texts),
    st.builds(SetDeleted, st.booleans()),
    st.builds(lambda value: SetMeta("keys", [{"source": "x", "id": value}]), texts),
    st.builds(lambda value: ChangeType(TASK, {"count": value}, ("shop",)), values),
)
hosts_ = st.integers(0, HOSTS - 1)
changes = st.builds(Change, hosts_, st.integers(0, 20), st.lists(mutations, min_size=1, max_size=3).map(tuple))
steps = st.lists(
    st.one_of(
        st.builds(Add, hosts_, values, st.sampled_from([None, TASK])),
        st.builds(Add, hosts_, values, st.just(TASK), st.integers(0, 20), st.integers(0, 20)),
        changes,
        changes,
        changes,
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
                made.add(_add(host, space_id, step))
            else:
                _change(host, space_id, step)
        await _end(hosts, space_id, made)
        for host in hosts:
            await host.stop()
            assert (await examine_folder(folder / host.name)).findings == (), host


async def _use(host: Host, space_id: str) -> None:
    """Have a host running with its space open; it need not be connected."""
    if not host.is_running:
        await host.start()
    await host.peer.spaces.set_active(space_id, True)
    with anyio.fail_after(120):
        await host.space(space_id).wait_until_ready()


def _add(host: Host, space_id: str, step: Add) -> str:
    known = sorted(host.replica(host.space(space_id)))
    data = {"title": "New", "tags": [], "count": _resolved(step.value, known)}
    object_id = make_object_id(virtual_ms(), host.random(10))
    row = ObjectRow(object_id, type=step.type, data=data)
    if step.source is not None:
        source, target = (f"dxn:echo:@:{known[which % len(known)]}" for which in (step.source, step.target))
        row = ObjectRow(object_id, "relation", step.type, source=source, target=target, data=data)
    host.peer.documents.update(space_id, [ObjectEdit(object_id, create=row)])
    return object_id


def _change(host: Host, space_id: str, step: Change) -> None:
    space = host.space(space_id)
    known = sorted(host.replica(space))
    try:
        host.edit(space, known[step.which % len(known)], *(_resolved(one, known) for one in step.mutations))
    except InvalidValueError:
        return  # There is no list, or no text, where it wants to change one.


def _resolved(value: Any, known: list[str]) -> Any:
    """A value, or a mutation with values, whose references name objects."""
    match value:
        case {"reference": int(which)}:
            return reference(f"dxn:echo:@:{known[which % len(known)]}")
        case dict():
            return {key: _resolved(one, known) for key, one in value.items()}
        case list():
            return [_resolved(one, known) for one in value]
        case Put():
            return Put(value.path, _resolved(value.value, known))
        case Insert():
            return Insert(value.path, value.index, tuple(_resolved(one, known) for one in value.values))
        case ChangeType():
            return ChangeType(value.type, _resolved(value.values, known), value.gone)
    return value


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
    rows = [row for row, _ in replica.values()]
    dxns = tuple(f"dxn:echo:@:{object_id}" for object_id in made)
    for query in (*_QUERIES, Query(Refers(None, dxns), deleted="include"), Query(HasSource(dxns[:2]))):
        wanted = [row.object_id for row in queries.select(query, rows)]
        for host in hosts:
            assert [one.row.object_id for one in host.peer.documents.select(space_id, query)] == wanted, query
