"""Invitations of whole profiles, with all that is below them."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from invitation_people import Watch, now_ms, wanted

from dxos.errors import AlreadyJoinedError, IdentityMissingError, NotAllowedError, SpaceNotFoundError
from dxos.halo.invitation import AuthMethod, InvitationEncoder, InvitationState
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.services.contract import InvitationsState, InvitationUpdate
from dxos.services.invitations import InvitationsServiceHost
from dxos.spaces.peer import Peer, open_peer
from dxos.store.profile import Profile
from dxos.testing.network import MemoryNetwork
from dxos.wire.proto.credentials_pb2 import DeviceProfileDocument, ProfileDocument

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def peers(*names: str) -> AsyncIterator[list[Peer]]:
    """Profiles in memory, each with an identity."""
    fabric = MemoryNetwork(seed=3)
    async with AsyncExitStack() as stack:
        made = []
        for name in names:
            peer = await stack.enter_async_context(
                open_peer(
                    Profile.open(None),
                    signal=fabric.signal(),
                    transport=fabric.transport(),
                    random=os.urandom,
                    now_ms=now_ms,
                )
            )
            if name:
                peer.create_identity(ProfileDocument(display_name=name), DeviceProfileDocument())
            made.append(peer)
        yield made


async def test_a_guest_joins_the_space_with_the_role_of_the_invitation() -> None:
    async with peers("alice", "bob") as (alice, bob):
        space = await alice.spaces.create({"name": "Groceries"})
        host, guest = InvitationsServiceHost(alice), InvitationsServiceHost(bob)
        hosted: list[InvitationUpdate] = []
        lists: list[InvitationsState] = []
        host.query_invitations(lists.append)
        host.create_invitation(wanted(space.key, role=SpaceRole.READER), hosted.append)
        whole = hosted[0].invitation
        joined: list[InvitationUpdate] = []
        over = anyio.Event()

        def follow(update: InvitationUpdate) -> None:
            joined.append(update)
            if update.done:
                over.set()

        guest.accept_invitation(InvitationEncoder.decode(InvitationEncoder.encode(whole)), follow)
        assert whole.auth_code is not None
        await guest.authenticate(whole.invitation_id, whole.auth_code)
        with anyio.fail_after(60):
            await over.wait()
            found = bob.spaces.get(space.id)
            await found.wait_until_ready()
        assert joined[-1].invitation.state is InvitationState.SUCCESS
        assert joined[-1].invitation.space_key == space.key
        assert found.role is SpaceRole.READER
        assert hosted[-1].done
        assert lists[-1] == InvitationsState()
        again = Watch()
        bob.invitations.accept(whole, again)
        assert isinstance(again.last.error, AlreadyJoinedError)
        below = Watch()
        bob.invitations.create(wanted(space.key), below)
        assert isinstance(below.last.error, NotAllowedError)


async def test_a_guest_that_never_heard_of_its_admission_gets_the_same_answer_again() -> None:
    async with peers("alice", "bob") as (alice, bob):
        space = await alice.spaces.create({})
        identity_key = bob.identity.required.identity_key
        admitted = space.admit(identity_key, SpaceRole.ADMIN)
        hosted, joined = Watch(), Watch()
        alice.invitations.create(wanted(space.key, AuthMethod.NONE), hosted)
        bob.invitations.accept(hosted.invitation, joined)
        await joined.wait_done()
        assert joined.state is InvitationState.SUCCESS
        member = space.pipeline.state.member(identity_key)
        assert member is not None
        assert member.role is SpaceRole.ADMIN
        assert member.credential == admitted


async def test_without_a_space_or_an_identity_there_is_no_invitation() -> None:
    async with peers("alice", "") as (alice, nobody):
        for peer, kind in ((alice, SpaceNotFoundError), (nobody, IdentityMissingError)):
            watch = Watch()
            peer.invitations.create(wanted(PublicKey(b"no such space")), watch)
            assert isinstance(watch.last.error, kind)
        watch = Watch()
        nobody.invitations.accept(wanted(PublicKey(b"space"), invitation_id="1", swarm_key=PublicKey(b"swarm")), watch)
        assert isinstance(watch.last.error, IdentityMissingError)
