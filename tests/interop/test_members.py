"""Roles and records of a space shared by Python and a live JavaScript client."""

from pathlib import Path

import pytest
from interop.live import JavaScriptPeer, join, python, sees, until, welcome

from dxos import Space, SpaceRole

pytestmark = pytest.mark.anyio


async def same_records(js: JavaScriptPeer, space: Space) -> None:
    """Wait until both sides have processed the same blocks of the same feeds."""

    async def look() -> bool:
        ours = {key.hex: index for key, index in space.pipeline.get().control_timeframe}
        theirs = (await js.do("timeframe", space=space.id))["feeds"]
        return bool(ours == theirs)

    await until(look, f"the same control feeds: {space.pipeline.get().control_timeframe}")


async def test_records_of_a_javascript_space_replicate_both_ways(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with (
        python(signal, tmp_path / "peter", "Peter") as peter,
        python(signal, tmp_path / "paula", "Paula") as paula,
    ):
        space_id = (await js.do("createSpace", name="theirs"))["spaceId"]
        space = await join(peter, await js.do("invite", space=space_id, role="admin"))
        await until(lambda: space.role is SpaceRole.ADMIN, "may invite")
        await same_records(js, space)

        # What Peter writes to his own feed reaches JavaScript.
        invitation = space.create_invitation()
        shown = await invitation.wait_for(lambda one: one.auth_code is not None, 30)
        third = await join(paula, {"code": invitation.code, "authCode": shown.auth_code})
        await same_records(js, space)
        await same_records(js, third)
        assert len(space.pipeline.get().control_timeframe) >= 2
        theirs = {one["credentialId"] for one in (await js.do("credentials", space=space_id))["credentials"]}
        assert {one.id.hex for one in await space.query_credentials()} == theirs


@pytest.mark.parametrize("role", [SpaceRole.READER, SpaceRole.EDITOR, SpaceRole.ADMIN])
async def test_a_javascript_guest_has_the_role_that_a_python_host_gave_it(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path, role: SpaceRole
) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        await welcome(space, js, role=role)
        await js.sees(space.id, milk.id, {"title": "Milk"})
        roles = {str(one["displayName"]): one["role"] for one in (await js.do("members", space=space.id))["members"]}
        assert roles == {"Peter": "OWNER", "Jane": role.name}
        assert {one.profile.display_name: one.role for one in space.members.get()} == {
            "Peter": SpaceRole.OWNER,
            "Jane": role,
        }
        await js.do("update", space=space.id, objectId=milk.id, set={"title": "Oat milk"})
        if role is SpaceRole.READER:
            await until(lambda: space.info.refused_changes > 0, "the change is refused")
            assert milk.title == "Milk"
        else:
            await sees(space, milk.id, title="Oat milk")


async def test_a_member_that_python_removes_hears_nothing_more(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        await welcome(space, js)
        await js.sees(space.id, milk.id, {"title": "Milk"})
        jane = next(one for one in space.members.get() if not one.is_self)
        await space.remove_member(jane)
        await until(lambda: not client.mesh.network_status.get().connections, "the connection ends")
        milk.title = "Secret milk"
        await space.db.flush()
        assert (await js.do("get", space=space.id, objectId=milk.id))["object"]["data"] == {"title": "Milk"}
