"""New epochs between a live JavaScript client and Python: who follows, and what those who were away bring along."""

from pathlib import Path

import pytest
from interop.live import JavaScriptPeer, join, python, sees, until, welcome

from dxos import ConnectionState

pytestmark = pytest.mark.anyio


async def at_root(js: JavaScriptPeer, space: str, root: str | None) -> bool:
    """Whether the JavaScript client's database has gone over to this root."""
    return root is not None and (await js.do("root", space=space))["root"] == root


async def test_javascript_follows_an_epoch_of_python(shared_js: JavaScriptPeer, signal: str, tmp_path: Path) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        await welcome(space, js)
        milk, bread = space.db.add({"title": "Milk"}), space.db.add({"title": "Bread"})
        await space.db.flush()
        for one in (milk, bread):
            await js.sees(space.id, one.id, {"title": one.title})
        space.db.remove(bread)
        await space.db.flush()
        await space.create_epoch()
        root = space.pipeline.get().space_root_url

        async def followed() -> bool:
            epochs = (await js.do("epochs", space=space.id))["epochs"]
            return len(epochs) == 2 and epochs[-1]["root"] == root and await at_root(js, space.id, root)

        await until(followed, "the epoch in JavaScript")
        assert (await space.stats()).reclaimed_documents == 1
        cheese = (await js.do("add", space=space.id, data={"title": "Cheese"}))["objectId"]
        await sees(space, cheese, title="Cheese")
        await js.do("update", space=space.id, objectId=milk.id, set={"title": "Oat milk"})
        await sees(space, milk.id, title="Oat milk")
        milk.litres = 2
        eggs = space.db.add({"title": "Eggs"})
        await space.db.flush()
        await js.sees(space.id, milk.id, {"title": "Oat milk", "litres": 2})
        await js.sees(space.id, eggs.id, {"title": "Eggs"})


async def test_a_live_query_of_javascript_shows_what_is_added_right_after_an_epoch(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        await welcome(space, js)
        await js.do("watch", space=space.id)
        await space.create_epoch()
        eggs = space.db.add({"title": "Eggs"})
        await space.db.flush()

        def shown() -> bool:
            seen = [one["object"] for one in list(js.events) if one["event"] == "object"]
            return any(one["id"] == eggs.id and one["data"] == {"title": "Eggs"} for one in seen)

        await until(shown, "Eggs in the live query")


async def test_python_takes_over_what_javascript_did_offline_before_it_heard_of_an_epoch(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        await welcome(space, js)
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        await js.sees(space.id, milk.id, {"title": "Milk"})
        await js.do("offline")
        cheese = (await js.do("add", space=space.id, data={"title": "Cheese"}))["objectId"]
        await js.do("update", space=space.id, objectId=milk.id, set={"title": "Oat milk"})
        await space.create_epoch()
        eggs = space.db.add({"title": "Eggs"})
        await space.db.flush()
        await js.do("online")
        await sees(space, cheese, title="Cheese")
        await sees(space, milk.id, title="Oat milk")
        await js.sees(space.id, eggs.id, {"title": "Eggs"})
        await js.sees(space.id, cheese, {"title": "Cheese"})


async def test_an_epoch_of_javascript_costs_python_nothing_that_it_did_offline(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space_id = (await js.do("createSpace", name="theirs"))["spaceId"]
        milk = (await js.do("add", space=space_id, data={"title": "Milk"}))["objectId"]
        space = await join(client, await js.do("invite", space=space_id))
        await sees(space, milk, title="Milk")
        await client.mesh.update_config(ConnectionState.OFFLINE)
        (await space.db.get(milk)).title = "Oat milk"
        bread = space.db.add({"title": "Bread"})
        space.properties.name = "ours and theirs"
        await space.db.flush()
        await js.do("epoch", space=space_id)
        eggs = (await js.do("add", space=space_id, data={"title": "Eggs"}))["objectId"]
        await client.mesh.update_config(ConnectionState.ONLINE)
        await sees(space, eggs, title="Eggs")
        await js.sees(space_id, milk, {"title": "Oat milk"})
        await js.sees(space_id, bread.id, {"title": "Bread"})
        await until(lambda: space.name == "ours and theirs", "the name here")

        async def renamed() -> bool:
            spaces = (await js.do("spaces"))["spaces"]
            return any(one["spaceId"] == space_id and one["name"] == "ours and theirs" for one in spaces)

        await until(renamed, "the name in JavaScript")
