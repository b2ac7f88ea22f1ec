"""The host's side of sessions: what one client does costs nobody else anything."""

import random

import anyio
import anyio.lowlevel
import pytest

from dxos.client import Client
from dxos.client.space import Space
from dxos.limits import SESSION_PIECE_BYTES
from dxos.services.contract import SpaceArchive
from dxos.testing.peers import Simulation
from dxos.testing.remote import ServedServices

pytestmark = pytest.mark.anyio


async def long_archive(client: Client) -> tuple[Space, SpaceArchive]:
    await client.halo.create_identity("alice")
    space = await client.create_space()
    space.db.add({"text": random.Random(1).randbytes(8 * SESSION_PIECE_BYTES).hex()})
    await space.db.flush()
    return space, await space.export_archive()


# --- Long arguments ---------------------------------------------------------------------------------------------------


async def test_calls_are_made_while_long_arguments_of_another_one_are_under_way() -> None:
    served = ServedServices(Simulation().services())
    async with Client(services=served) as client:
        space, archive = await long_archive(client)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.spaces.import_archive, archive)
            for number in range(20):
                space.db.add({"number": number})
                await space.db.flush()
        assert await space.db.query().count() == 20 + 2
        assert len(client.spaces) == 2
        assert served.sessions_count == 1


async def test_long_arguments_whose_call_was_cancelled_are_no_part_of_the_next_call() -> None:
    served = ServedServices(Simulation().services())
    async with Client(services=served) as client:
        space, archive = await long_archive(client)
        for turns in (10, 20, 30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.spaces.import_archive, archive)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert len(client.spaces) == 1, "cancelled before it began"
        copy = await client.spaces.import_archive(archive)
        assert len(await copy.db.query().run()) == len(await space.db.query().run())
        assert served.sessions_count == 1
