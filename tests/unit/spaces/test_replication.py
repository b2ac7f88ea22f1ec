"""Sessions of documents: whose connections belong together, and what they leave behind."""

from typing import Any, cast

import anyio
import pytest
from echo_peers import make_document_id

from dxos.echo import messages
from dxos.echo.mutation import Put
from dxos.halo.roles import SpaceRole
from dxos.spaces.documents import Documents
from dxos.spaces.replication import DocumentReplication, Replicator
from dxos.store.profile import Profile
from dxos.testing.peers import Host, agreed, simulated_hosts, until
from dxos.wire.proto.automerge_pb2 import SyncMessage

pytestmark = pytest.mark.anyio


def _claim_id_of(liar: Host, victim: Host) -> None:
    """Have a host announce another one's id, which everybody who ever met it knows."""
    liar.peer.replicator._own_id = lambda: f"host-{victim.device_key.hex}"


async def test_a_member_that_claims_the_id_of_another_device_reads_nothing_of_its_other_spaces() -> None:
    async with simulated_hosts("alice", "bob", "mallory") as (alice, bob, mallory):
        shared, private = await alice.create_space(), await alice.create_space()
        _claim_id_of(mallory, bob)
        await mallory.join(alice, shared)
        await agreed(shared, alice, mallory)
        # Mallory knows the private space's key, and what its documents are called: it asks for them by name.
        await bob.join(alice, private)
        secret = alice.add(private, title="secret")
        await agreed(private, alice, bob)
        assert len(alice.peer.replicator._peers) == 2, "one session for each device"
        mallory.peer.documents.open_space(private.key)
        for document_id in alice.peer.documents.documents(private.id):
            for peer in mallory.peer.replicator._peers.values():
                peer._session.find(document_id)
                peer._changes.notify()
        alice.edit(private, secret, Put(("title",), "still secret"))
        await anyio.sleep(120)
        assert mallory.peer.documents.documents(private.id) == {}
        assert bob.data(private, secret) == {"title": "still secret"}


async def test_a_reader_that_claims_the_id_of_an_editor_still_cannot_write() -> None:
    async with simulated_hosts("alice", "bob", "mallory") as (alice, bob, mallory):
        space = await alice.create_space()
        milk = alice.add(space, title="Milk")
        _claim_id_of(mallory, bob)
        await bob.join(alice, space)
        await mallory.join(alice, space, role=SpaceRole.READER)
        await agreed(space, alice, bob, mallory)
        mallory.edit(space, milk, Put(("title",), "Vandalised"))
        await until(lambda: space.refused_changes > 0)
        assert alice.data(space, milk) == {"title": "Milk"}


async def test_two_hosts_that_share_two_spaces_use_one_session_and_survive_the_loss_of_either_connection() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        spaces = [await alice.create_space(), await alice.create_space()]
        for space in spaces:
            await bob.join(alice, space)
        assert len(alice.peer.replicator._peers) == 1
        for closing in spaces:
            await bob.peer.spaces.set_active(closing.id, False)
            (other,) = [space for space in spaces if space is not closing]
            milk = alice.add(other, title="Milk")
            await until(lambda other=other, milk=milk: bob.data(other, milk) is not None)  # type: ignore[misc]
            await bob.peer.spaces.set_active(closing.id, True)
            await bob.space(closing.id).wait_until_ready()
        for space in spaces:
            await agreed(space, alice, bob)


async def test_closing_a_connection_leaves_no_subscription_behind() -> None:
    async with simulated_hosts("alice", "bob") as (alice, bob):
        space = await alice.create_space()
        await bob.join(alice, space)
        await agreed(space, alice, bob)
        await until(lambda: bob.space(space.id).pipeline.can_write)
        before = (len(space.pipeline.appended), len(space.pipeline.feed_added), len(space.gossip._channels))
        for _ in range(3):
            await bob.peer.network.set_online(False)
            await until(lambda: not space.connections)
            assert len(alice.peer.replicator._peers) == 0
            assert space.gossip.neighbours == []
            assert len(space.pipeline.appended) == 0
            await bob.peer.network.set_online(True)
            await until(lambda: bool(space.connections))
        await anyio.sleep(5)
        assert (len(space.pipeline.appended), len(space.pipeline.feed_added), len(space.gossip._channels)) == before


async def test_messages_that_come_before_the_session_are_taken_in_their_order() -> None:
    class Taking:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def receive(self, message: messages.Message) -> None:
            assert isinstance(message, messages.Unavailable)
            self.seen.append(message.document_id)

    async with simulated_hosts("alice") as (alice,):
        link = DocumentReplication(alice.peer.replicator, await alice.create_space())
        ids = [make_document_id(number) for number in range(20)]
        taking = Taking()
        async with anyio.create_task_group() as tasks:
            for one in ids:
                payload = messages.encode(messages.Unavailable(one), sender="b", target="a")
                tasks.start_soon(link._receive, SyncMessage(payload=payload))
                await anyio.wait_all_tasks_blocked()
            link._peer = cast(Any, taking)
            link._attached.set()
        assert taking.seen == ids


def test_a_replicator_without_peers_is_in_sync() -> None:
    with Profile.open(None) as profile:
        replicator = Replicator(Documents(profile, random=bytes), own_id=lambda: "host-1")
        assert replicator.in_sync("any", [])
        assert repr(replicator) == "<Replicator peers=0>"
