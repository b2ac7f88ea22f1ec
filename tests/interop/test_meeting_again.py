"""Peers that come and go: restarts from disk, three peers, two spaces between the same two."""

from functools import partial
from pathlib import Path

import anyio
import pytest
from interop.conftest import StartJavaScript
from interop.live import (
    JavaScriptPeer,
    SignalServer,
    both_online,
    counts,
    join,
    presence,
    python,
    sees,
    shown,
    until,
    welcome,
)

pytestmark = pytest.mark.anyio


async def test_both_restart_from_disk_and_merge_what_they_edited_apart(
    start_js: StartJavaScript, signal: str, tmp_path: Path
) -> None:
    js = await start_js(tmp_path / "jane").open("Jane")
    async with python(signal, tmp_path / "peter", "Peter") as client:
        space = await client.create_space(name="ours")
        data = {"text": "one two three", "left": 0, "right": 0}
        note = space.db.add(data)
        await space.db.flush()
        space_id, note_id = space.id, note.id
        await welcome(space, js)
        await js.sees(space_id, note_id, data)
        await both_online(js, space, "Jane", "Peter")
    # Python is away.
    await js.do("update", space=space_id, objectId=note_id, set={"right": 1}, text={"text": "one two THREE"})
    added = (await js.do("add", space=space_id, data={"by": "js"}))["objectId"]
    await js.do("close")
    # Both were away; Python is first to be back.
    again = start_js(tmp_path / "jane")
    async with python(signal, tmp_path / "peter", "Peter") as client:
        reopened = client.get_space(space_id)
        assert reopened is not None
        await reopened.wait_until_ready(30)
        note = await reopened.db.get(note_id)
        note.left = 1
        note.splice("text", 0, 3, "ONE")
        ours = reopened.db.add({"by": "py"})
        await reopened.db.flush()
        await again.open()
        await again.do("waitReady", space=space_id)
        merged = {"text": "ONE two THREE", "left": 1, "right": 1}
        await sees(reopened, note_id, **merged)
        await sees(reopened, added, by="js")
        await again.sees(space_id, note_id, merged)
        await again.sees(space_id, ours.id, {"by": "py"})
        await both_online(again, reopened, "Jane", "Peter")


async def test_a_python_guest_restarts_and_meets_its_javascript_host_again(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    space_id = (await js.do("createSpace", name="theirs"))["spaceId"]
    milk = (await js.do("add", space=space_id, data={"title": "Milk"}))["objectId"]
    async with python(signal, tmp_path, "Peter") as client:
        space = await join(client, await js.do("invite", space=space_id))
        await sees(space, milk, title="Milk")
    await js.do("update", space=space_id, objectId=milk, set={"title": "Oat milk"})
    async with python(signal, tmp_path, "Peter") as client:
        again = client.get_space(space_id)
        assert again is not None
        await again.wait_until_ready(30)
        seen = await sees(again, milk, title="Oat milk")
        seen.price = 2
        await again.db.flush()
        await js.sees(space_id, milk, {"title": "Oat milk", "price": 2})


async def test_two_python_guests_go_on_without_their_javascript_host(
    start_js: StartJavaScript, signal: str, tmp_path: Path
) -> None:
    js = await start_js(tmp_path / "jane").open("Jane")
    async with (
        python(signal, tmp_path / "peter", "Peter") as peter,
        python(signal, tmp_path / "paula", "Paula") as paula,
    ):
        space_id = (await js.do("createSpace", name="theirs"))["spaceId"]
        milk = (await js.do("add", space=space_id, data={"title": "Milk"}))["objectId"]
        first = await join(peter, await js.do("invite", space=space_id))
        second = await join(paula, await js.do("invite", space=space_id))
        await both_online(js, first, "Jane", "Peter", "Paula")
        js.kill()
        await until(lambda: presence(first)["Jane"] == presence(second)["Jane"] == "OFFLINE", "Jane offline")
        back = start_js(tmp_path / "jane")
        (await sees(first, milk)).title = "Oat milk"
        bread = second.db.add({"title": "Bread"})
        await first.db.flush()
        await second.db.flush()
        await sees(second, milk, title="Oat milk")
        await sees(first, bread.id, title="Bread")
        await back.open()
        await back.do("waitReady", space=space_id)
        await back.sees(space_id, milk, {"title": "Oat milk"})
        await back.sees(space_id, bread.id, {"title": "Bread"})


async def test_two_javascript_guests_and_a_python_host_see_each_others_objects(
    shared_js: JavaScriptPeer, start_js: StartJavaScript, signal: str, tmp_path: Path
) -> None:
    other = start_js()
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        given = await shown(space.create_invitation(multi_use=True))
        await other.open("Jim")
        async with anyio.create_task_group() as tasks:
            for one in (js, other):
                tasks.start_soon(partial(one.do, "join", **given))
        await until(lambda: presence(space) == {"Jane": "ONLINE", "Jim": "ONLINE", "Peter": "ONLINE"}, "all online")
        mine = space.db.add({"by": "py"})
        await space.db.flush()
        for one in (js, other):
            await one.do("add", space=space.id, data={"by": one.identity["displayName"]})
        await counts(space, 3)
        for one in (js, other):
            found = await one.objects(space.id, count=3)
            assert sorted(str(each["by"]) for each in found) == ["Jane", "Jim", "py"]
            await one.sees(space.id, mine.id, {"by": "py"})


async def test_the_same_two_peers_share_two_spaces(shared_js: JavaScriptPeer, signal: str, tmp_path: Path) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        theirs_id = (await js.do("createSpace", name="theirs"))["spaceId"]
        theirs = await join(client, await js.do("invite", space=theirs_id))
        ours = await client.create_space(name="ours")
        await welcome(ours, js)
        for space in (theirs, ours):
            own = space.db.add({"by": "py", "in": space.id})
            await space.db.flush()
            other = (await js.do("add", space=space.id, data={"by": "js", "in": space.id}))["objectId"]
            await js.sees(space.id, own.id, {"by": "py", "in": space.id})
            await sees(space, other, by="js", **{"in": space.id})
        for space in (theirs, ours):
            assert await space.db.query().count() - 1 == 2
            await both_online(js, space, "Jane", "Peter")


async def test_a_javascript_peer_that_was_away_for_a_moment_is_met_again(
    start_js: StartJavaScript, signal: str, tmp_path: Path
) -> None:
    js = await start_js().open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        await welcome(space, js)
        await js.sees(space.id, milk.id, {"title": "Milk"})
        for turn in range(2):
            await js.do("offline")
            await until(lambda: presence(space)["Jane"] == "OFFLINE", "Jane offline")
            milk.title = f"Milk {turn}"
            await space.db.flush()
            await js.do("update", space=space.id, objectId=milk.id, set={"turn": turn})
            await js.do("online")
            await sees(space, milk.id, title=f"Milk {turn}", turn=turn)
            await js.sees(space.id, milk.id, {"title": f"Milk {turn}", "turn": turn})


async def test_a_signalling_server_that_dies_and_returns_is_found_again(
    start_js: StartJavaScript, tmp_path: Path
) -> None:
    server = SignalServer()
    try:
        js = await start_js(server=server.url).open("Jane")
        async with (
            python(server.url, tmp_path / "peter", "Peter") as peter,
            python(server.url, tmp_path / "paula", "Paula") as paula,
        ):
            space = await peter.create_space(name="ours")
            milk = space.db.add({"title": "Milk"})
            await space.db.flush()
            await welcome(space, js)
            await js.sees(space.id, milk.id, {"title": "Milk"})
            server.kill()
            milk.title = "Oat milk"
            await space.db.flush()
            await js.sees(space.id, milk.id, {"title": "Oat milk"})
            server = SignalServer(server.port)
            third = await join(paula, await shown(space.create_invitation()))
            await sees(third, milk.id, title="Oat milk")
            await both_online(js, third, "Jane", "Peter", "Paula")
    finally:
        server.stop()
