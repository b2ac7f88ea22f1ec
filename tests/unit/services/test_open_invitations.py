"""Open invitations while hosts change: who invites and who joins go on, whatever state they were in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from dxos.client import Client, Space
from dxos.client.invitations import CancellableInvitation
from dxos.errors import DxosError
from dxos.halo.invitation import AuthMethod, InvitationState
from dxos.services.contract import InvitationUpdate
from dxos.services.remote import RemoteServices
from dxos.testing.peers import Simulation, until
from dxos.testing.remote import Hosts

pytestmark = pytest.mark.anyio
State = InvitationState


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # A virtual clock would jump over the time-outs of guests while a host waits for the disk.


class Pair:
    """Alice invites to her space, Bob joins; the host of one of them changes."""

    def __init__(self, hosts: Hosts, alice: Client, bob: Client, space: Space) -> None:
        self.hosts, self.alice, self.bob, self.space = hosts, alice, bob, space

    async def change_host(self) -> None:
        await self.hosts.kill()
        await self.hosts.start()

    async def invite(self, *, persistent: bool = True) -> CancellableInvitation:
        invitation = self.space.create_invitation(persistent=persistent)
        await invitation.wait_for(lambda one: one.auth_code is not None and one.state is State.CONNECTING)
        return invitation

    def joined(self) -> bool:
        return self.bob.get_space(self.space.id) is not None


@asynccontextmanager
async def pair(path: Path, changing: str) -> AsyncIterator[Pair]:
    simulation = Simulation()
    async with (
        Hosts(simulation, path) as hosts,
        Client(services=RemoteServices(hosts.connect)) as survivor,
        Client(services=simulation.services()) as other,
    ):
        alice, bob = (survivor, other) if changing == "host" else (other, survivor)
        await alice.halo.create_identity("alice")
        await bob.halo.create_identity("bob")
        yield Pair(hosts, alice, bob, await alice.create_space(name="Groceries"))


async def reach(invitation: CancellableInvitation, state: InvitationState) -> None:
    await invitation.wait_for(lambda one: one.state is state)


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("state", [State.CONNECTING, State.READY_FOR_AUTHENTICATION])
async def test_an_invitation_goes_on_with_the_same_codes_when_its_host_changes(
    tmp_path: Path, persistent: bool, state: InvitationState
) -> None:
    async with pair(tmp_path, "host") as them:
        invitation = await them.invite(persistent=persistent)
        code, auth_code = invitation.code, invitation.authentication_code
        assert auth_code is not None
        if state is not State.CONNECTING:
            early = them.bob.accept_invitation(code)
            await reach(early, state)
        await them.change_host()
        if state is not State.CONNECTING:
            with pytest.raises(DxosError):
                await early
        await reach(invitation, State.CONNECTING)
        assert (invitation.code, invitation.authentication_code) == (code, auth_code)
        await them.bob.accept_invitation(code).authenticate(auth_code)
        assert (await invitation).state is State.SUCCESS
        assert them.joined()


async def test_wrong_codes_are_counted_over_changes_of_the_host_also_if_it_shall_not_be_kept(tmp_path: Path) -> None:
    async with pair(tmp_path, "host") as them:
        invitation = await them.invite(persistent=False)
        guest = them.bob.accept_invitation(invitation.code)
        await guest.authenticate("wrong")
        await until(lambda: invitation.failures == 1)
        await them.change_host()
        await until(lambda: invitation.state is State.CONNECTING)
        assert invitation.failures == 1


@pytest.mark.parametrize("persistent", [True, False])
async def test_what_is_over_does_not_begin_anew_for_who_did_not_hear_of_the_end(
    tmp_path: Path, persistent: bool
) -> None:
    async with pair(tmp_path, "host") as them:
        used, cancelled = await them.invite(persistent=persistent), await them.invite(persistent=persistent)
        assert used.authentication_code is not None
        wanted = [used.get(), cancelled.get()]
        await them.bob.accept_invitation(used.code).authenticate(used.authentication_code)
        await cancelled.cancel()
        await them.change_host()
        heard: list[InvitationUpdate] = []
        for one in wanted:
            them.hosts.services.invitations.create_invitation(one, heard.append)
        await until(lambda: len(heard) == 2)
        assert [(one.invitation.state, one.done) for one in heard] == [(State.SUCCESS, True), (State.CANCELLED, True)]


@pytest.mark.parametrize("state", [State.CONNECTING, State.READY_FOR_AUTHENTICATION])
async def test_a_guest_goes_on_when_its_host_changes(tmp_path: Path, state: InvitationState) -> None:
    async with pair(tmp_path, "guest") as them:
        invitation = await them.invite()
        assert invitation.authentication_code is not None
        guest = them.bob.accept_invitation(invitation.code)
        if state is not State.CONNECTING:
            await reach(guest, state)
        await them.change_host()
        await guest.authenticate(invitation.authentication_code)
        assert (await guest).space_id == them.space.id
        assert them.joined()


@pytest.mark.parametrize("code_is", ["right", "wrong"])
async def test_a_code_whose_verdict_was_lost_with_the_host_is_handed_in_again(tmp_path: Path, code_is: str) -> None:
    async with pair(tmp_path, "guest") as them:
        invitation = await them.invite()
        guest = them.bob.accept_invitation(invitation.code)
        auth_code = invitation.authentication_code if code_is == "right" else "wrong"
        assert auth_code is not None
        results: list[InvitationState] = []

        async def authenticate() -> None:
            results.append((await guest.authenticate(auth_code)).state)

        await reach(guest, State.READY_FOR_AUTHENTICATION)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(authenticate)
            await reach(guest, State.AUTHENTICATING)
            await them.change_host()
        assert results == [State.SUCCESS if code_is == "right" else State.READY_FOR_AUTHENTICATION]


async def test_a_guest_that_became_a_member_and_did_not_hear_of_it_has_joined(tmp_path: Path) -> None:
    async with pair(tmp_path, "guest") as them:
        invitation, other = await them.invite(), them.space.create_invitation(auth_method=AuthMethod.NONE)
        await reach(other, State.CONNECTING)
        guest = them.bob.accept_invitation(invitation.code)
        await reach(guest, State.READY_FOR_AUTHENTICATION)
        joined: list[InvitationUpdate] = []
        them.hosts.services.invitations.accept_invitation(other.get(), joined.append)
        await until(lambda: joined[-1].done)
        await them.change_host()
        assert (await guest).space_id == them.space.id
        assert guest.state is State.SUCCESS
        assert them.joined()
