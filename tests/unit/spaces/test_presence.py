"""Presence: who is seen online, by whom, and for how long."""

import anyio
import pytest

from dxos.limits import PRESENCE_ANNOUNCE_S, PRESENCE_OFFLINE_S
from dxos.testing.peers import simulated_hosts, until

pytestmark = pytest.mark.anyio


async def test_members_see_each_other_come_and_go() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        theirs = await bob.join(alice, space)
        await until(lambda: space.presence.online == {bob.identity_key})
        await until(lambda: theirs.presence.online == {alice.identity_key})
        key = bob.identity_key
        await bob.peer.network.set_online(False)
        await until(lambda: space.presence.online == frozenset(), timeout_s=5)
        await until(lambda: theirs.presence.online == frozenset(), timeout_s=5)
        await bob.peer.network.set_online(True)
        await until(lambda: space.presence.online == {key})


async def test_members_that_are_connected_only_through_others_are_seen_until_they_fall_silent() -> None:
    async with simulated_hosts("alice", "bob", "carol") as (alice, bob, carol):
        space = await alice.create_space()
        for guest in (bob, carol):
            await guest.join(alice, space)
        bob.sever(carol)
        await anyio.sleep(PRESENCE_ANNOUNCE_S)
        bobs, carols_key = bob.space(space.id), carol.identity_key
        assert carol.device_key not in bobs.connections
        assert bobs.presence.online == {alice.identity_key, carols_key}
        await carol.stop()
        await anyio.sleep(PRESENCE_OFFLINE_S + 2)
        assert bobs.presence.online == {alice.identity_key}


async def test_a_closed_space_sees_nobody() -> None:
    async with simulated_hosts("alice", "bob", "carol") as (alice, bob, carol):
        space = await alice.create_space()
        for guest in (bob, carol):
            await guest.join(alice, space)
        bob.sever(carol)
        await anyio.sleep(30)
        assert len(bob.space(space.id).presence.online) == 2
        await bob.peer.spaces.set_active(space.id, False)
        assert bob.space(space.id).presence.online == frozenset()


async def test_a_link_that_went_dead_without_an_error_counts_as_offline_in_time() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        await bob.join(alice, space)
        await until(lambda: bool(space.presence.online))
        bob.sever(alice)
        await anyio.sleep(90)
        assert space.presence.online == frozenset()
