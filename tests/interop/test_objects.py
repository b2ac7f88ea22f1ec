"""Objects that a live JavaScript client and Python edit together."""

from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from interop.live import JavaScriptPeer, counts, join, presence, python, sees, until, welcome

from dxos import ConnectionState, EchoObject
from dxos.echo.query import Query

pytestmark = pytest.mark.anyio


def arrived(cart: EchoObject, turn: int) -> bool:
    return bool(cart.count == turn and cart.shop.aisle == turn and len(cart["items"]) == 2 * turn)


async def test_both_edit_one_object_in_turns(shared_js: JavaScriptPeer, signal: str, tmp_path: Path) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        await welcome(space, js)
        cart = space.db.add({"title": "Cart", "count": 0, "items": [{"name": "Milk"}], "shop": {"aisle": 1}})
        await space.db.flush()
        await js.sees(space.id, cart.id, cart.to_dict())
        for turn in range(1, 4):
            change: dict[str, Any] = {"count": turn, "items.0.name": f"Milk {turn}", "shop.aisle": turn}
            push = {"items": [{"name": f"js {turn}"}]}
            await js.do("update", space=space.id, objectId=cart.id, set=change, push=push)
            await until(partial(arrived, cart, turn), "what JavaScript changed")
            assert cart["items"][0]["name"] == f"Milk {turn}"
            cart["items"].append({"name": f"py {turn}"})
            cart.count = turn + 0.5
            cart.shop.note = None
            await space.db.flush()
            await js.sees(space.id, cart.id, cart.to_dict())
        await js.do("update", space=space.id, objectId=cart.id, unset=["shop.note", "count"])
        await until(lambda: "count" not in cart and "note" not in cart.shop, "properties that are gone")
        del cart.title
        cart["items"].pop(0)
        await space.db.flush()
        await js.sees(space.id, cart.id, {"title": None, "items": cart.to_dict()["items"]})


async def test_edits_made_apart_are_merged(shared_js: JavaScriptPeer, signal: str, tmp_path: Path) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        await welcome(space, js)
        data = {"text": "one two three", "left": 0, "right": 0, "items": [1]}
        note = space.db.add(data)
        await space.db.flush()
        await js.sees(space.id, note.id, data)
        await client.mesh.update_config(ConnectionState.OFFLINE)
        note.splice("text", 0, 3, "ONE")
        note.left = 1
        note["items"].append("py")
        await space.db.flush()
        text = {"text": "one two THREE"}
        await js.do("update", space=space.id, objectId=note.id, set={"right": 1}, text=text, push={"items": ["js"]})
        await client.mesh.update_config(ConnectionState.ONLINE)
        await sees(space, note.id, text="ONE two THREE", left=1, right=1)
        merged = note.to_dict()
        assert sorted(map(str, merged["items"])) == ["1", "js", "py"]
        await js.sees(space.id, note.id, merged)


async def test_many_objects_and_a_long_text_travel_each_way(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    long = "".join(f"{number:07d} äöü\n" for number in range(250_000 // 12))
    assert 249_000 < len(long) <= 250_000
    space_id = (await js.do("createSpace", name="theirs"))["spaceId"]
    await js.do("addMany", space=space_id, count=200, template={"title": "js {i}", "number": "{i}"})
    text = (await js.do("add", space=space_id, data={"text": long}))["objectId"]
    async with python(signal, tmp_path, "Peter") as client:
        space = await join(client, await js.do("invite", space=space_id))
        await counts(space, 201)
        assert (await sees(space, text)).text == long
        assert {one.number for one in await space.db.query().run() if "number" in one} == set(range(200))
        for number in range(200):
            space.db.add({"title": f"py {number}", "number": 1_000 + number})
        answer = space.db.add({"text": long[::-1]})
        await space.db.flush()
        await js.do("waitForCount", space=space_id, count=402)
        await js.sees(space_id, answer.id, {"text": long[::-1]})


async def test_a_removed_object_is_removed_for_the_other_side(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        await welcome(space, js)
        milk, bread = space.db.add({"title": "Milk"}), space.db.add({"title": "Bread"})
        await space.db.flush()
        await js.objects(space.id, count=2)
        space.db.remove(milk)
        await space.db.flush()
        await js.do("waitFor", space=space.id, objectId=milk.id, deleted=True)
        await js.do("remove", space=space.id, objectId=bread.id)
        await until(lambda: bread.deleted, "the bread is gone")
        await counts(space, 0)
        assert {one.id for one in await space.db.query(Query(deleted="only")).run()} == {milk.id, bread.id}
        space.db.add(milk)
        await space.db.flush()
        await js.sees(space.id, milk.id, {"title": "Milk"})


async def test_a_new_epoch_of_a_javascript_space_leaves_python_working(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with (
        python(signal, tmp_path / "peter", "Peter") as client,
        python(signal, tmp_path / "paula", "Paula") as later,
    ):
        space_id = (await js.do("createSpace", name="theirs"))["spaceId"]
        milk = (await js.do("add", space=space_id, data={"title": "Milk"}))["objectId"]
        space = await join(client, await js.do("invite", space=space_id))
        await sees(space, milk, title="Milk")
        epochs = (await js.do("epoch", space=space_id))["epochs"]
        assert len(epochs) == 2
        await until(lambda: space.pipeline.get().epoch == 1, "the new epoch")
        assert space.pipeline.get().space_root_url == epochs[-1]["root"]
        await until(lambda: space.name == "theirs", "the name")
        (await sees(space, milk)).title = "Oat milk"
        bread = space.db.add({"title": "Bread"})
        await space.db.flush()
        await js.sees(space_id, milk, {"title": "Oat milk"})
        await js.sees(space_id, bread.id, {"title": "Bread"})
        cheese = (await js.do("add", space=space_id, data={"title": "Cheese"}))["objectId"]
        await sees(space, cheese, title="Cheese")
        third = await join(later, await js.do("invite", space=space_id))
        await counts(third, 3)
        assert third.name == "theirs"


async def test_messages_reach_who_listens_and_who_leaves_goes_offline(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    heard: list[Any] = []
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        await welcome(space, js)
        await js.do("listen", space=space.id, channel="chat")
        space.listen("chat", lambda message: heard.append(dict(message.payload)))

        async def answered() -> bool:
            # Kept by nobody, so it is said until somebody is there to hear it.
            await js.do("postMessage", space=space.id, channel="chat", message={"from": "js", "n": 1})
            return {"from": "js", "n": 1} in heard

        await until(answered, "a message from JavaScript")
        # A JavaScript peer empties the maps inside a message, whoever sent it.
        await space.post_message("chat", {"from": "py", "list": [1, "two", None, [True]]})
        said = await js.event("message", spaceId=space.id, channel="chat")
        assert said["message"]["from"] == "py"
        assert said["message"]["list"] == [1, "two", None, [True]]
        await until(lambda: presence(space).get("Jane") == "ONLINE", "Jane online")

    async def alone() -> bool:
        return (await js.presence(space.id))["Peter"] == "OFFLINE"

    await until(alone, "Peter offline")


async def test_many_edits_at_the_same_time_end_in_the_same_object(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        await welcome(space, js)
        note = space.db.add({"text": "start", "items": [], "by": {}, "last": ""})
        await space.db.flush()
        await js.sees(space.id, note.id, {"text": "start"})
        asked = []
        for turn in range(20):
            change = {f"by.js{turn}": turn, "last": f"js {turn}"}
            push = {"items": [f"js {turn}"]}
            asked.append(js.ask("update", space=space.id, objectId=note.id, set=change, push=push, flush=False))
            note.splice("text", len(note.text), 0, f" py{turn}")
            note["items"].append(f"py {turn}")
            note.by[f"py{turn}"] = turn
            note.last = f"py {turn}"
            await anyio.sleep(0.01)
        for one in asked:
            await one
        await space.db.flush()
        await until(lambda: len(note["items"]) == 40 and len(note.by) == 40, "all edits")
        merged = note.to_dict()
        assert merged["text"] == "start" + "".join(f" py{turn}" for turn in range(20))
        assert {one for one in merged["items"] if one.startswith("js")} == {f"js {turn}" for turn in range(20)}
        assert await js.sees(space.id, note.id, {"items": merged["items"], "last": merged["last"]}) == merged


async def test_values_of_every_kind_arrive_as_they_were(shared_js: JavaScriptPeer, signal: str, tmp_path: Path) -> None:
    js = await shared_js.open("Jane")
    data = {
        "text": 'naïve 😀 日本 👩‍👩‍👧 \u0000 "quotes" \\ \n',
        "empty": "",
        "numbers": [0, -1, 2**53 - 1, -(2**53) + 1, 0.1, -1.5e-300, 5e-324],
        "others": [None, True, False, [], {}, [[], [{}]], {"a": {"b": {"c": [1, {"d": None}]}}}],
        "key with spaces.and/dots": {"ключ": "значение"},
    }
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        await welcome(space, js)
        ours = space.db.add(data)
        await space.db.flush()
        assert await js.sees(space.id, ours.id, {"empty": ""}) == data
        theirs = (await js.do("add", space=space.id, data=data))["objectId"]
        assert (await sees(space, theirs)).to_dict() == data
        # Places in a text are counted in characters here, and in UTF-16 units there.
        ours.splice("text", 7, 1, "🎉🎉")
        await space.db.flush()
        text = 'naïve 😀🎉🎉日本 👩‍👩‍👧 \u0000 "quotes" \\ \n'
        assert ours.text == text
        await js.sees(space.id, ours.id, {"text": text})
        await js.do("update", space=space.id, objectId=ours.id, text={"text": text.replace("日本", "日 本")})
        await sees(space, ours.id, text=text.replace("日本", "日 本"))
