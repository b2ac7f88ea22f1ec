"""Clients and hosts of a simulated network in one process, on memory transport, from one seed.

    async with simulated_clients(2) as (alice, bob):
        theirs = await join(await alice.create_space(name="Groceries"), bob)

    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        await bob.join(alice, space)
        alice.sever(bob)

With trio's jumping clock a day of heartbeats takes no time, and a run repeats from its seed.
"""

import math
import random as randomness
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, final

import anyio
import anyio.abc

from dxos.aio import SLICE
from dxos.client import Client, Space
from dxos.echo import layout
from dxos.echo.document import Heads
from dxos.echo.mutation import Mutation
from dxos.echo.query import Query
from dxos.echo.rows import ObjectRow
from dxos.errors import TransportError
from dxos.halo.credential import assertion_of
from dxos.halo.invitation import AuthMethod
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.keys.ids import make_object_id
from dxos.limits import SLICE_S
from dxos.mesh.transport import Link, Transport
from dxos.services.local import LocalServices
from dxos.spaces.documents import ObjectEdit, StoredObject
from dxos.spaces.peer import Peer, open_peer
from dxos.spaces.space import Space as OpenSpace
from dxos.store.profile import Profile
from dxos.testing.network import MemoryNetwork
from dxos.wire.proto.credentials_pb2 import DeviceProfileDocument, ProfileDocument, SpaceMember

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
_EPOCH_MS = 1_760_000_000_000


def seeded_random(seed: int) -> Callable[[int], bytes]:
    """Random bytes that repeat from a seed; keys are not made from them."""
    return randomness.Random(seed).randbytes


def virtual_ms() -> int:
    """Unix time in milliseconds, as the event loop's clock goes."""
    return _EPOCH_MS + int(anyio.current_time() * 1000)


@final
class Simulation:
    """A network in memory, and the clients on it."""

    def __init__(self, *, seed: int = 1, latency_s: float = 0.001) -> None:
        self.network = MemoryNetwork(seed=seed, latency_s=latency_s)
        if SLICE.get() == SLICE_S:
            SLICE.set(math.inf)  # By the machine's clock work would be cut elsewhere each time.
        self._seed = seed
        self._count = 0

    def services(self, path: Path | None = None, *, leadership_id: int = 0) -> LocalServices:
        """A host on this network; in memory, or in a folder that outlives it."""
        self._count += 1
        return LocalServices(
            path,
            signal=self.network.signal,
            transport=self.network.transport,
            random=seeded_random(self._seed * 1000 + self._count),
            now_ms=virtual_ms,
            leadership_id=leadership_id,
        )


@asynccontextmanager
async def simulated_clients(count: int, *, seed: int = 1) -> AsyncIterator[tuple[Client, ...]]:
    """Clients with identities (alice, bob, carol, …), connected by one network in memory."""
    simulation = Simulation(seed=seed)
    async with AsyncExitStack() as stack:
        clients = []
        for index in range(count):
            client = await stack.enter_async_context(Client(services=simulation.services()))
            await client.halo.create_identity(display_name=NAMES[index % len(NAMES)])
            clients.append(client)
        yield tuple(clients)


async def join(host: Space, guest: Client) -> Space:
    """Invite and join without a code; the guest's space is ready when this returns."""
    invitation = host.create_invitation(auth_method=AuthMethod.NONE)
    shown = await invitation.wait_for(lambda one: one.swarm_key is not None and one.created_ms is not None)
    joined = await guest.accept_invitation(shown)
    assert joined.space_key is not None
    space = guest.get_space(joined.space_key)
    assert space is not None
    await space.wait_until_ready()
    return space


async def converged(*spaces: Space, timeout_s: float = 60.0) -> list[dict[str, object]]:
    """Wait until all replicas have the same objects; what they have, by id.

    Raises:
        TimeoutError: They differ after `timeout_s` seconds on the event loop's clock.
    """
    with anyio.fail_after(timeout_s):
        while True:
            contents = [
                sorted((one.id, repr(one.to_dict())) for one in await space.db.query().run()) for space in spaces
            ]
            if all(content == contents[0] for content in contents):
                return [one.to_dict() for one in await spaces[0].db.query().run()]
            await anyio.sleep(0.05)


# --- Hosts, without the client's half ---------------------------------------------------------------------------------

Replica = dict[str, tuple[ObjectRow, Heads]]  # Objects by id, each with the heads of its document.


@final
class Host:
    """One profile that can be started, stopped, killed, and cut off from others; made by `simulated_hosts`."""

    def __init__(self, name: str, path: Path | None, world: "World", random: Callable[[int], bytes]) -> None:
        self.name, self.path = name, path
        self._world, self.random = world, random
        self._peer: Peer | None = None
        self._scope: anyio.CancelScope | None = None
        self._stopping, self._stopped = anyio.Event(), anyio.Event()
        self._device_key: PublicKey | None = None

    @property
    def peer(self) -> Peer:
        """The open profile."""
        assert self._peer is not None, f"{self.name} is not running"
        return self._peer

    @property
    def is_running(self) -> bool:
        """Whether the profile is open."""
        return self._peer is not None

    @property
    def device_key(self) -> PublicKey:
        """Of its device, whether it runs or not."""
        assert self._device_key is not None, f"{self.name} has no identity yet"
        return self._device_key

    @property
    def identity_key(self) -> PublicKey:
        """Of its identity."""
        return self.peer.identity.required.identity_key

    async def start(self) -> None:
        """Open the profile; one without a folder begins anew."""
        assert self._peer is None, f"{self.name} is running"
        self._stopping, self._stopped = anyio.Event(), anyio.Event()
        await self._world.tasks.start(self._run)

    async def stop(self) -> None:
        """Close the profile in order."""
        self._stopping.set()
        await self._stopped.wait()

    async def kill(self) -> None:
        """End it wherever it is."""
        assert self._scope is not None
        self._scope.cancel()
        await self._stopped.wait()

    async def _run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        network = self._world.network
        try:
            with anyio.CancelScope() as self._scope:
                async with open_peer(
                    Profile.open(self.path),
                    signal=network.signal(),
                    transport=_SeverableTransport(network.transport(), self._world),
                    random=self.random,
                    now_ms=virtual_ms,
                ) as self._peer:
                    if self._peer.identity.current is None:
                        self._peer.create_identity(ProfileDocument(display_name=self.name), DeviceProfileDocument())
                    self._device_key = self._peer.identity.required.device_key
                    task_status.started()
                    await self._stopping.wait()
        finally:
            self._peer = None
            self._stopped.set()

    # --- Spaces -------------------------------------------------------------------------------------------------------

    async def create_space(self, **properties: object) -> OpenSpace:
        """A new space; see `Spaces.create`."""
        return await self.peer.spaces.create(properties)

    def space(self, space_id: str) -> OpenSpace:
        """A space of this host."""
        return self.peer.spaces.get(space_id)

    async def join(
        self, host: "Host", space: OpenSpace, *, role: SpaceRole = SpaceRole.EDITOR, timeout_s: float = 60.0
    ) -> OpenSpace:
        """Have `host` admit this one, without an invitation, and wait until the space is ready here."""
        joined = self.accept(host, space, role=role)
        with anyio.fail_after(timeout_s):
            await joined.wait_until_ready()
        return joined

    def accept(self, host: "Host", space: OpenSpace, *, role: SpaceRole = SpaceRole.EDITOR) -> OpenSpace:
        """Have `host` admit this one; the space is here at once, and ready once peers are found."""
        profile = self.peer.identity.required.profile
        credential = host.space(space.id).admit(self.identity_key, role, profile)
        membership = assertion_of(credential)
        assert isinstance(membership, SpaceMember)
        return self.peer.spaces.accept(membership)

    # --- Objects ------------------------------------------------------------------------------------------------------

    def add(self, space: OpenSpace, **data: Any) -> str:
        """A new object; its id."""
        object_id = make_object_id(virtual_ms(), self.random(10))
        self.peer.documents.update(space.id, [ObjectEdit(object_id, create=ObjectRow(object_id, data=data))])
        return object_id

    def edit(self, space: OpenSpace, object_id: str, *mutations: Mutation) -> StoredObject:
        """Change an object."""
        return self.peer.documents.update(space.id, [ObjectEdit(object_id, mutations=mutations)])[0]

    def data(self, space: OpenSpace, object_id: str) -> dict[str, Any] | None:
        """What an object holds; None where it is not here, or deleted."""
        found = self.peer.documents.get(space.id, [object_id])
        return found[0].row.data if found and not found[0].row.deleted else None

    def replica(self, space: OpenSpace) -> Replica:
        """All objects of a space, the deleted too, as rows show them."""
        found = self.peer.documents.select(space.id, Query(deleted="include"))
        return {one.row.object_id: (one.row, one.heads) for one in found}

    def rows_of_documents(self, space: OpenSpace) -> dict[str, ObjectRow]:
        """What the rows ought to be, read from the documents themselves."""
        documents = self.peer.documents
        rows = [layout.materialize(documents.load(one)) for one in documents.documents(space.id)]
        return {row.object_id: row for found in rows for row in found}

    # --- Network ------------------------------------------------------------------------------------------------------

    def sever(self, *others: "Host") -> None:
        """Break every connection with others, and let none be made until `mend`."""
        for other in others:
            self._world.severed.add(frozenset((self.device_key, other.device_key)))
            self._world.network.reset(self.device_key, other.device_key)
            self._world.network.reset(other.device_key, self.device_key)

    def mend(self, *others: "Host") -> None:
        """Take `sever` back."""
        for other in others:
            self._world.severed.discard(frozenset((self.device_key, other.device_key)))

    def __repr__(self) -> str:
        return f"<Host {self.name} {'stopped' if self._peer is None else 'running'}>"


@final
class World:
    """What simulated hosts share."""

    def __init__(self, network: MemoryNetwork, tasks: anyio.abc.TaskGroup) -> None:
        self.network, self.tasks = network, tasks
        self.severed: set[frozenset[PublicKey]] = set()  # Pairs of devices.


@final
class _SeverableTransport:
    """A transport that cannot connect those who are severed."""

    def __init__(self, inner: Transport, world: World) -> None:
        self._inner, self._world = inner, world

    async def connect(self, link: Link) -> anyio.abc.ByteStream:
        """See `Transport.connect`."""
        if frozenset((link.local, link.remote)) in self._world.severed:
            raise TransportError("The peers are severed.")
        return await self._inner.connect(link)


@asynccontextmanager
async def simulated_hosts(
    *names: str, folder: Path | None = None, seed: int = 1, latency_s: float = 0.001
) -> AsyncIterator[tuple[Host, ...]]:
    """Hosts with identities, on one network in memory, each in a folder of its own if `folder` is given."""
    async with anyio.create_task_group() as tasks:
        network = MemoryNetwork(seed=seed, latency_s=latency_s, link_latency_s=latency_s)
        world = World(network, tasks)
        hosts = tuple(
            Host(name, None if folder is None else folder / name, world, seeded_random(seed * 1000 + number))
            for number, name in enumerate(names)
        )
        for host in hosts:
            await host.start()
        yield hosts
        tasks.cancel_scope.cancel()


async def agreed(space: OpenSpace, *hosts: Host, timeout_s: float = 120.0) -> Replica:
    """Wait until all hosts have the same objects at the same heads; what they have.

    Raises:
        TimeoutError: They differ after `timeout_s` seconds on the event loop's clock.
    """
    pause_s = 0.01
    with anyio.fail_after(timeout_s):
        while True:
            first = hosts[0].replica(space)
            if all(host.replica(space) == first for host in hosts[1:]):
                return first
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, 1.0)


async def until(condition: Callable[[], bool], *, timeout_s: float = 120.0) -> None:
    """Wait until a condition holds, whatever it depends on.

    Raises:
        TimeoutError: It does not hold after `timeout_s` seconds on the event loop's clock.
    """
    pause_s = 0.01
    with anyio.fail_after(timeout_s):
        while not condition():
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, 1.0)
