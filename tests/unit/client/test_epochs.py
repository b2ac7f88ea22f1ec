"""Epochs, compaction and statistics through the client, with a whole host behind it."""

import pytest

from dxos import Progress
from dxos.errors import SpaceNotReadyError
from dxos.testing.peers import converged, join, simulated_clients

pytestmark = pytest.mark.anyio


async def test_an_epoch_stores_what_is_unsaved_and_both_members_go_on() -> None:
    async with simulated_clients(2) as (alice, bob):
        space = await alice.create_space(name="Groceries")
        theirs = await join(space, bob)
        bread = space.db.add({"title": "Bread"})
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        space.db.remove(bread)
        milk.title = "Oat milk"
        await space.create_epoch()
        await theirs.pipeline.wait_for(lambda one: one.epoch == 1, 60)
        told: list[Progress] = []
        await space.compact(progress=told.append)
        assert told
        assert told[-1].fraction == 1.0
        stats = await space.stats()
        assert (stats.epoch, stats.objects, stats.deleted_documents, stats.reclaimed_documents) == (1, 2, 0, 1)
        assert stats.changes == 0
        milk.title = "Soy milk"
        theirs.db.add({"title": "Eggs"})
        await space.db.flush()
        await theirs.db.flush()
        await converged(space, theirs)
        assert {one.title for one in await space.db.query().run() if one.id != space.properties.id} == {
            "Soy milk",
            "Eggs",
        }


async def test_a_closed_space_has_no_statistics_and_begins_no_epoch() -> None:
    async with simulated_clients(1) as (alice,):
        space = await alice.create_space(name="Groceries")
        await space.close()
        for refused in (space.create_epoch, space.compact, space.stats):
            with pytest.raises(SpaceNotReadyError):
                await refused()
