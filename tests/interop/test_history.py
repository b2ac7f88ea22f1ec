"""The past of objects that JavaScript and Python edit, and profiles that change meanwhile."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from interop.live import JavaScriptPeer, join, python, sees, until, welcome

from dxos import ConnectionState

pytestmark = pytest.mark.anyio
_SECOND = timedelta(seconds=1)  # JavaScript notes the time in whole seconds.


async def test_what_javascript_changed_has_its_time_and_its_author(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        await welcome(space, js)
        milk = space.db.add({"title": "Milk", "count": 1})
        await space.db.flush()
        await js.sees(space.id, milk.id, {"title": "Milk"})
        before = datetime.now(UTC)
        await js.do("update", space=space.id, objectId=milk.id, set={"title": "Oat milk"})
        after = datetime.now(UTC)
        await sees(space, milk.id, title="Oat milk")
        milk.count = 2
        await space.db.flush()
        await js.sees(space.id, milk.id, {"count": 2})
        await js.do("update", space=space.id, objectId=milk.id, set={"count": 3})
        await sees(space, milk.id, count=3)
        last, ours, theirs, made = await milk.history()
        assert [one.own for one in (last, ours, theirs, made)] == [False, True, False, True]
        assert [list(map(str, one.differences)) for one in (last, ours, theirs)] == [
            ["count: 2 → 3"],
            ["count: 1 → 2"],
            ["title: 'Milk' → 'Oat milk'"],
        ]
        assert theirs.time is not None
        assert before - _SECOND <= theirs.time <= after + _SECOND
        assert theirs.author == last.author
        assert theirs.author not in (ours.author, made.author)
        # What is undone is ours, whatever JavaScript did since.
        assert await milk.undo()
        assert milk.to_dict() == {"title": "Oat milk", "count": 3}


async def test_values_written_at_once_by_both_are_a_conflict_until_one_decides(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space_id = (await js.do("createSpace", name="theirs"))["spaceId"]
        milk_id = (await js.do("add", space=space_id, data={"title": "Milk", "count": 1}))["objectId"]
        space = await join(client, await js.do("invite", space=space_id))
        milk = await sees(space, milk_id, title="Milk")
        await client.mesh.update_config(ConnectionState.OFFLINE)
        milk.count = 2
        milk.brand = "Meadow"  # Shows that this edit has arrived, whichever count wins.
        await space.db.flush()
        await js.do("update", space=space_id, objectId=milk_id, set={"count": 3, "shop": "here"})
        await client.mesh.update_config(ConnectionState.ONLINE)
        await sees(space, milk_id, shop="here")
        (conflict,) = await milk.conflicts()
        assert conflict.path == ("count",)
        assert {(one.value, one.own) for one in conflict.values} == {(2, True), (3, False)}
        assert conflict.values[0].value == milk.count
        await js.sees(space_id, milk_id, {"count": milk.count, "brand": "Meadow"})
        # Either side decides, and the other then has no conflict any more.
        await js.do("update", space=space_id, objectId=milk_id, set={"count": 4})
        await sees(space, milk_id, count=4)
        assert await milk.conflicts() == ()


async def test_a_new_display_name_shows_on_the_other_side(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        await welcome(space, js)

        async def theirs() -> set[str | None]:
            return {one["displayName"] for one in (await js.do("members", space=space.id))["members"]}

        async def renamed() -> bool:
            return await theirs() == {"Peter the Great", "Jane"}

        await client.halo.update_profile("Peter the Great")
        await until(renamed, "JavaScript has the new name")
        await js.do("updateProfile", name="Janet")
        try:
            await until(
                lambda: {one.profile.display_name for one in space.members.get()} == {"Peter the Great", "Janet"},
                "Python has the new name",
            )
        finally:
            await js.do("updateProfile", name="Jane")
