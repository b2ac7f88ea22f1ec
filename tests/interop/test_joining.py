"""Invitations between a live JavaScript client and Python: every kind that both have, hosted by either side."""

from pathlib import Path

import pytest
from interop.conftest import StartJavaScript
from interop.live import (
    JavaScriptError,
    JavaScriptPeer,
    both_online,
    counts,
    join,
    python,
    sees,
    shown,
    until,
    welcome,
)

from dxos import AuthMethod, InvitationEncoder, InvitationState, SpaceRole
from dxos.errors import AuthenticationError, BrokenError, InvitationCancelledError, InvitationExpiredError

pytestmark = pytest.mark.anyio


def other_than(code: str) -> str:
    return "111111" if code == "000000" else "000000"


async def test_a_python_guest_with_a_wrong_code_and_then_the_right_one_shares_objects(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    space_id = (await js.do("createSpace", name="shop"))["spaceId"]
    data = {"title": "Milk", "price": 1.5, "tags": ["dairy"]}
    milk = (await js.do("add", space=space_id, data=data))["objectId"]
    invitation = await js.do("invite", space=space_id)
    async with python(signal, tmp_path, "Peter") as client:
        guest = client.accept_invitation(InvitationEncoder.decode(invitation["code"]))
        assert (await guest.authenticate(other_than(invitation["authCode"]))).state is (
            InvitationState.READY_FOR_AUTHENTICATION
        )
        assert (await guest.authenticate(invitation["authCode"])).state is InvitationState.SUCCESS
        space = client.get_space(space_id)
        assert space is not None
        await space.wait_until_ready(30)
        await until(lambda: space.name == "shop", "the name")
        seen = await sees(space, milk, **data)
        seen.title = "Oat milk"
        seen.price = 2
        seen.tags.append("vegan")
        added = {"title": "Bread", "done": True, "shop": {"aisle": 3}, "sizes": [1, 2.5, None]}
        bread = space.db.add(added)
        await space.db.flush()
        await js.sees(space_id, milk, {"title": "Oat milk", "price": 2, "tags": ["dairy", "vegan"]})
        await js.sees(space_id, bread.id, added)
        await both_online(js, space, "Jane", "Peter")


async def test_a_javascript_guest_joins_a_python_space_until_ready_and_writes_back(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="Groceries")
        milk = space.db.add({"title": "Milk", "done": False, "tags": ["dairy"], "shop": {"aisle": 3}})
        bread = space.db.add({"title": "Bread", "amount": 2.5, "note": None})
        await space.db.flush()
        joined = await welcome(space, js)
        assert (joined["spaceId"], joined["state"]) == (space.id, "SPACE_READY")
        await js.sees(space.id, milk.id, milk.to_dict())
        await js.sees(space.id, bread.id, {"title": "Bread", "amount": 2.5, "note": None})
        await js.do("update", space=space.id, objectId=milk.id, set={"done": True, "shop.aisle": 4})
        cheese = (await js.do("add", space=space.id, data={"title": "Cheese", "tags": ["dairy"]}))["objectId"]
        await sees(space, milk.id, done=True, shop={"aisle": 4})
        await sees(space, cheese, title="Cheese", tags=["dairy"])
        await counts(space, 3)
        await both_online(js, space, "Jane", "Peter")
        assert (await js.do("waitReady", space=space.id))["name"] == "Groceries"


async def test_an_invitation_without_authentication_works_both_ways(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space_id = (await js.do("createSpace", name="theirs"))["spaceId"]
        theirs = await join(client, await js.do("invite", space=space_id, authMethod="none"))
        assert theirs.id == space_id
        ours = await client.create_space(name="ours")
        assert (await welcome(ours, js, auth_method=AuthMethod.NONE))["state"] == "SPACE_READY"


async def test_three_wrong_codes_end_the_invitation_of_a_python_host_for_a_javascript_guest(
    start_js: StartJavaScript, signal: str, tmp_path: Path
) -> None:
    js = await start_js().open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        invitation = space.create_invitation()
        given = await shown(invitation)
        joining = js.ask("join", code=given["code"])
        for attempt in range(1, 4):

            def asked(attempt: int = attempt) -> bool:
                states = [one["state"] for one in js.events if one["event"] == "invitation"]
                return states.count("READY_FOR_AUTHENTICATION") >= attempt

            await until(asked, "the code is asked for")
            await js.do("authenticate", code=given["code"], authCode=other_than(given["authCode"]))
        with pytest.raises(JavaScriptError):
            await joining
        with pytest.raises(AuthenticationError):
            await invitation
        assert invitation.failures == 3
        assert len(space.members.get()) == 1


async def test_a_multi_use_invitation_of_a_python_host_admits_javascript_and_python(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with (
        python(signal, tmp_path / "peter", "Peter") as peter,
        python(signal, tmp_path / "paula", "Paula") as paula,
    ):
        space = await peter.create_space(name="ours")
        given = await shown(space.create_invitation(multi_use=True))
        await js.do("join", **given)
        theirs = await join(paula, given)
        await both_online(js, theirs, "Jane", "Peter", "Paula")


async def test_a_multi_use_invitation_of_a_javascript_host_admits_two_python_guests(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with (
        python(signal, tmp_path / "peter", "Peter") as peter,
        python(signal, tmp_path / "paula", "Paula") as paula,
    ):
        space_id = (await js.do("createSpace", name="theirs"))["spaceId"]
        invitation = await js.do("invite", space=space_id, multiUse=True)
        space = await join(peter, invitation)
        await join(paula, invitation)
        await js.do("cancelInvitation", invitationId=invitation["invitationId"])
        await both_online(js, space, "Jane", "Peter", "Paula")


async def test_an_invitation_that_its_host_cancels_admits_nobody(
    start_js: StartJavaScript, signal: str, tmp_path: Path
) -> None:
    js = await start_js().open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space_id = (await js.do("createSpace", name="theirs"))["spaceId"]
        theirs = await js.do("invite", space=space_id)
        guest = client.accept_invitation(theirs["code"])
        await guest.wait_for(lambda one: one.state is InvitationState.READY_FOR_AUTHENTICATION, 30)
        await js.do("cancelInvitation", invitationId=theirs["invitationId"])
        with pytest.raises(BrokenError):  # A JavaScript host says nothing: it just leaves.
            await guest
        assert client.get_space(space_id) is None

        ours = await client.create_space(name="ours")
        invitation = ours.create_invitation()
        given = await shown(invitation)
        joining = js.ask("join", code=given["code"])
        await js.event("invitation", side="guest", state="READY_FOR_AUTHENTICATION")
        await invitation.cancel()
        with pytest.raises(JavaScriptError):
            await joining
        with pytest.raises(InvitationCancelledError):
            await invitation
        assert len(ours.members.get()) == 1


async def test_an_expired_invitation_admits_nobody(shared_js: JavaScriptPeer, signal: str, tmp_path: Path) -> None:
    js = await shared_js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space_id = (await js.do("createSpace", name="theirs"))["spaceId"]
        theirs = await js.do("invite", space=space_id, lifetime=1)
        ours = await client.create_space(name="ours")
        invitation = ours.create_invitation(lifetime_s=1)
        given = await shown(invitation)
        with pytest.raises(InvitationExpiredError):
            await invitation
        with pytest.raises(InvitationExpiredError):
            await client.accept_invitation(theirs["code"])
        with pytest.raises(JavaScriptError):
            await js.do("join", **given, timeoutMs=4_000)
        assert len(ours.members.get()) == 1


async def test_a_python_host_that_restarts_half_way_admits_a_javascript_guest(
    start_js: StartJavaScript, signal: str, tmp_path: Path
) -> None:
    js, other = start_js(), start_js()
    await js.open("Jane")
    async with python(signal, tmp_path, "Peter") as client:
        space = await client.create_space(name="ours")
        space.db.add({"title": "Milk"})
        await space.db.flush()
        given = await shown(space.create_invitation())
        first = js.ask("join", code=given["code"])
        await js.event("invitation", side="guest", state="READY_FOR_AUTHENTICATION")
    async with python(signal, tmp_path, "Peter") as client:
        reopened = client.get_space(space.id)
        assert reopened is not None
        await reopened.wait_until_ready(30)
        (again,) = reopened.invitations.get()
        assert again.authentication_code == given["authCode"]
        with pytest.raises(JavaScriptError):
            await first  # A JavaScript guest does not try again by itself, and not well in the same process.
        await other.open("Jim")
        await other.do("join", **given)
        assert await other.objects(space.id, match={"title": "Milk"}) == [{"title": "Milk"}]
        await again


async def test_three_wrong_codes_end_the_invitation_of_a_python_guest_with_a_javascript_host(
    start_js: StartJavaScript, signal: str, tmp_path: Path
) -> None:
    js = await start_js().open("Jane")
    space_id = (await js.do("createSpace", name="theirs"))["spaceId"]
    invitation = await js.do("invite", space=space_id)
    async with python(signal, tmp_path, "Peter") as client:
        guest = client.accept_invitation(invitation["code"])
        for _ in range(2):
            await guest.authenticate(other_than(invitation["authCode"]))
        with pytest.raises(AuthenticationError):
            await guest.authenticate(other_than(invitation["authCode"]))
        assert client.get_space(space_id) is None


async def test_a_javascript_admin_invites_another_to_a_python_space(
    shared_js: JavaScriptPeer, signal: str, tmp_path: Path
) -> None:
    js = await shared_js.open("Jane")
    async with (
        python(signal, tmp_path / "peter", "Peter") as peter,
        python(signal, tmp_path / "paula", "Paula") as paula,
    ):
        space = await peter.create_space(name="ours")
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        await welcome(space, js, role=SpaceRole.ADMIN)
        third = await join(paula, await js.do("invite", space=space.id, role="editor"))
        (await sees(third, milk.id, title="Milk")).title = "Oat milk"
        await third.db.flush()
        await sees(space, milk.id, title="Oat milk")
        await until(lambda: len(space.members.get()) == 3, "all members")
