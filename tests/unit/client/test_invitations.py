from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from dxos.client import Client
from dxos.errors import (
    AlreadyJoinedError,
    AuthenticationError,
    ClosedError,
    IdentityMissingError,
    InvitationCancelledError,
    InvitationCodeError,
    InvitationUsedError,
    NotAllowedError,
)
from dxos.halo.invitation import AuthMethod, InvitationEncoder, InvitationState
from dxos.halo.roles import SpaceRole
from dxos.testing.services import AUTH_CODE, FakeNetwork, FakeServices

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param, {"clock": MockClock(autojump_threshold=0)} if request.param == "trio" else {}


class Pair:
    """Alice and Bob, with identities, and a space of Alice's."""

    def __init__(self) -> None:
        network = FakeNetwork()
        self.alice, self.bob = Client(services=FakeServices(network)), Client(services=FakeServices(network))

    async def __aenter__(self) -> "Pair":
        await self.alice.initialize()
        await self.bob.initialize()
        await self.alice.halo.create_identity("Alice")
        await self.bob.halo.create_identity("Bob")
        self.space = await self.alice.create_space(name="Groceries")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.bob.destroy()
        await self.alice.destroy()


async def test_a_guest_joins_with_code_and_authentication_code() -> None:
    async with Pair() as pair:
        host = pair.space.create_invitation()
        assert InvitationEncoder.encode(host.get())
        shown = await host.wait_for(lambda one: one.auth_code is not None)
        assert host.authentication_code == shown.authentication_code == AUTH_CODE
        guest = pair.bob.accept_invitation(InvitationEncoder.decode(host.code))
        states: list[InvitationState] = []
        guest.subscribe(lambda one: states.append(one.state))
        await guest.authenticate(f" {AUTH_CODE}\n")
        joined = await guest
        space = pair.bob.get_space(joined.space_key)
        assert space is not None
        await space.wait_until_ready()
        assert space.properties.name == space.name == "Groceries"
        assert [one.name for one in states if one is not InvitationState.CONNECTING] == [
            "CONNECTED",
            "READY_FOR_AUTHENTICATION",
            "AUTHENTICATING",
            "SUCCESS",
        ]
        assert (await host).state is InvitationState.SUCCESS
        assert [one.profile.display_name for one in pair.space.members.get()] == ["Alice", "Bob"]
        assert [one.profile.display_name for one in pair.bob.halo.contacts.get()] == ["Alice"]
        assert pair.space.invitations.get() == ()


async def test_the_guides_unpacking_works() -> None:
    async with Pair() as pair:
        host = pair.space.create_invitation()
        authenticate, invitation = pair.bob.echo.accept_invitation(host.code)
        await authenticate(AUTH_CODE)
        space = pair.bob.echo.get_space(invitation.space_key)
        assert space is not None
        assert pair.bob.spaces.get(space.key) is space


async def test_a_wrong_code_can_be_tried_again_until_the_third() -> None:
    async with Pair() as pair:
        host = pair.space.create_invitation()
        guest = pair.bob.accept_invitation(host.code)
        for failures in (1, 2):
            assert (await guest.authenticate("000000")).state is InvitationState.READY_FOR_AUTHENTICATION
            assert guest.failures == host.failures == failures
        with pytest.raises(AuthenticationError):
            await guest.authenticate("anything")
        with pytest.raises(AuthenticationError):
            await guest
        with pytest.raises(AuthenticationError):
            await host
        with pytest.raises(AuthenticationError):
            await guest.authenticate(AUTH_CODE)


async def test_a_wrong_code_then_the_right_one() -> None:
    async with Pair() as pair:
        guest = pair.bob.accept_invitation(pair.space.create_invitation().code)
        await guest.authenticate("000000")
        assert (await guest.authenticate(AUTH_CODE)).state is InvitationState.SUCCESS


async def test_an_invitation_without_authentication_needs_no_code() -> None:
    async with Pair() as pair:
        host = pair.space.create_invitation(auth_method=AuthMethod.NONE, role=SpaceRole.READER)
        joined = await pair.bob.accept_invitation(host.code)
        space = pair.bob.get_space(joined.space_id)
        assert space is not None
        await space.wait_until_ready()
        with pytest.raises(NotAllowedError):
            space.db.add({"a": 1})
        with pytest.raises(NotAllowedError):
            space.properties.name = "Mine"
        with pytest.raises(NotAllowedError):
            await space.share()


async def test_a_cancelled_invitation_admits_nobody() -> None:
    async with Pair() as pair:
        host = pair.space.create_invitation()
        assert pair.space.invitations.get() == (host,)
        await host.cancel()
        await host.cancel()
        with pytest.raises(InvitationCancelledError):
            await host
        assert pair.space.invitations.get() == ()
        with pytest.raises(InvitationUsedError):
            await pair.bob.accept_invitation(host.code)


async def test_a_guest_may_cancel() -> None:
    async with Pair() as pair:
        guest = pair.bob.accept_invitation(pair.space.create_invitation().code)
        await guest.wait_for(lambda one: one.state is InvitationState.READY_FOR_AUTHENTICATION)
        await guest.cancel()
        with pytest.raises(InvitationCancelledError):
            await guest.authenticate(AUTH_CODE)


async def test_an_invitation_for_many_goes_on() -> None:
    async with Pair() as pair:
        host = pair.space.create_invitation(multi_use=True, auth_method=AuthMethod.NONE)
        await pair.bob.accept_invitation(host.code)
        with pytest.raises(AlreadyJoinedError):
            await pair.bob.accept_invitation(host.code)
        assert host.state is InvitationState.CONNECTING


async def test_without_an_identity_nothing_is_joined() -> None:
    async with Pair() as pair, Client(services=FakeServices()) as carol:
        with pytest.raises(IdentityMissingError):
            await carol.accept_invitation(pair.space.create_invitation().code)


async def test_what_is_no_code_is_refused_at_once() -> None:
    async with Pair() as pair:
        with pytest.raises(InvitationCodeError):
            pair.bob.accept_invitation("no code")


async def test_open_invitations_are_found_again_after_a_restart() -> None:
    async with Pair() as pair:
        host = pair.space.create_invitation()
        await pair.alice.destroy()
        with pytest.raises(ClosedError):
            await host
        await pair.alice.initialize()
        space = pair.alice.get_space(pair.space.id)
        assert space is not None
        (again,) = space.invitations.get()
        assert again is not host
        assert (again.get().invitation_id, again.authentication_code) == (host.get().invitation_id, AUTH_CODE)


async def test_a_failure_that_nobody_awaits_is_silent(recwarn: pytest.WarningsRecorder) -> None:
    async with Pair() as pair:
        guest = pair.bob.accept_invitation(pair.space.create_invitation().code)
        await guest.wait_for(lambda one: one.state is InvitationState.READY_FOR_AUTHENTICATION)
        await guest.cancel()
        del guest
    assert not recwarn.list


async def test_a_code_may_be_handed_in_before_it_is_wanted() -> None:
    async with Pair() as pair:
        guest = pair.bob.accept_invitation(pair.space.create_invitation().code)
        assert guest.state is InvitationState.CONNECTING
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(guest.authenticate, AUTH_CODE)
            assert (await guest).state is InvitationState.SUCCESS


async def test_the_repr_shows_no_secret() -> None:
    async with Pair() as pair:
        host = pair.space.create_invitation()
        assert AUTH_CODE not in repr(host)
        assert host.code not in repr(host)
        assert not host.expired
