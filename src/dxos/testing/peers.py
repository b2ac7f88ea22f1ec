"""Clients of a simulated network in one process, on memory transport, from one seed.

    async with simulated_clients(2) as (alice, bob):
        theirs = await join(await alice.create_space(name="Groceries"), bob)

With trio's jumping clock a day of heartbeats takes no time, and a run repeats from its seed.
"""

import random as randomness
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import final

import anyio

from dxos.client import Client, Space
from dxos.halo.invitation import AuthMethod
from dxos.services.local import LocalServices
from dxos.testing.network import MemoryNetwork

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
        self._seed = seed
        self._count = 0

    def services(self, path: Path | None = None) -> LocalServices:
        """A host on this network; in memory, or in a folder that outlives it."""
        self._count += 1
        return LocalServices(
            path,
            signal=self.network.signal,
            transport=self.network.transport,
            random=seeded_random(self._seed * 1000 + self._count),
            now_ms=virtual_ms,
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
