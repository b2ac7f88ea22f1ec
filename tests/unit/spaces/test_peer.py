"""A host among members and strangers that speak every extension and send whatever they like."""

import random as randomness
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field

import anyio
import anyio.abc
import pytest
from google.protobuf.empty_pb2 import Empty

from dxos.aio import Changes
from dxos.echo.mutation import Put
from dxos.errors import DxosError, IdentityExistsError, IdentityMissingError
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.keys.ids import swarm_topic
from dxos.limits import AUTH_CHALLENGE_BYTES_MAX, GOSSIP_BYTES_MAX
from dxos.mesh.connection import Connection, Extension, ExtensionChannel
from dxos.mesh.topology import Mmst
from dxos.spaces.authentication import Authentication
from dxos.spaces.peer import Peer, open_peer
from dxos.spaces.space import Space
from dxos.store.profile import Profile
from dxos.testing.network import MemoryNetwork
from dxos.testing.peers import Host, agreed, seeded_random, simulated_hosts, virtual_ms
from dxos.wire import to_key
from dxos.wire.proto.admission_discovery_pb2 import GetAdmissionCredentialRequest
from dxos.wire.proto.auth_pb2 import AuthenticateRequest, AuthenticateResponse
from dxos.wire.proto.automerge_pb2 import PeerInfo, SyncMessage
from dxos.wire.proto.credentials_pb2 import Credential, DeviceProfileDocument, ProfileDocument
from dxos.wire.proto.gossip_pb2 import GossipMessage
from dxos.wire.proto.notarization_pb2 import NotarizeRequest
from dxos.wire.proto.replicator_pb2 import FeedInfo, StartReplicationRequest, StartReplicationResponse

pytestmark = pytest.mark.anyio

Attack = Callable[[ExtensionChannel, Space], Awaitable[None]]
_MESH = "dxos.mesh.teleport"
_random = randomness.Random(1).randbytes


@dataclass
class Hostile:
    """Connections of somebody who proves to be a member and then attacks on one extension."""

    extension: str
    attack: Attack
    space: Space
    errors: list[DxosError] = field(default_factory=list)
    done: anyio.Event = field(default_factory=anyio.Event)
    ends: int = 0

    def make(self) -> Extension:
        outer = self

        class Attacker(Extension):
            name = outer.extension

            async def opened(self, channel: ExtensionChannel) -> None:
                try:
                    await outer.attack(channel, outer.space)
                except DxosError as error:
                    outer.errors.append(error)
                finally:
                    outer.done.set()
                await anyio.sleep_forever()

        return Attacker()


@asynccontextmanager
async def attacking(mallory: Host, space: Space, extension: str, attack: Attack) -> AsyncIterator[Hostile]:
    """Mallory in the space's swarm, with its own device key, without a space of its own."""
    hostile = Hostile(extension, attack, space)
    identity = mallory.peer.identity.required

    async def connect(stream: anyio.abc.ByteStream, remote: PublicKey, initiator: bool) -> None:
        connection = Connection(
            stream, local_key=mallory.device_key, remote_key=remote, initiator=initiator, now_ms=virtual_ms
        )

        def authenticated(*_: PublicKey) -> None:
            if extension != f"{_MESH}.replicator":
                connection.add_extension(hostile.make())

        if extension == f"{_MESH}.replicator":
            connection.add_extension(hostile.make())
        if extension != f"{_MESH}.auth":
            connection.add_extension(
                Authentication(
                    prove=lambda nonce: identity.prove(nonce, now_ms=virtual_ms()),
                    is_member=lambda _: True,
                    changes=Changes(),
                    authenticated=authenticated,
                    random=_random,
                )
            )
        else:
            connection.add_extension(hostile.make())
        try:
            await connection.run()
        finally:
            hostile.ends += 1

    swarm = mallory.peer.network.join(
        swarm_topic(space.key), peer=mallory.device_key, topology=Mmst(), on_connection=connect
    )
    async with swarm:
        yield hostile


async def garbage_documents(channel: ExtensionChannel, _: Space) -> None:
    await channel.call(f"{_MESH}.automerge.AutomergeReplicatorService.StartReplication", PeerInfo(id="x"), Empty)
    await channel.call(
        f"{_MESH}.automerge.AutomergeReplicatorService.SendSyncMessage", SyncMessage(payload=_random(500)), Empty
    )


async def start_twice(channel: ExtensionChannel, _: Space) -> None:
    for _turn in range(2):
        await channel.call(f"{_MESH}.automerge.AutomergeReplicatorService.StartReplication", PeerInfo(id="x"), Empty)


async def endless_id(channel: ExtensionChannel, _: Space) -> None:
    await channel.call(
        f"{_MESH}.automerge.AutomergeReplicatorService.StartReplication", PeerInfo(id="x" * 1_000_000), Empty
    )


async def garbage_feed(channel: ExtensionChannel, space: Space) -> None:
    info = FeedInfo(feed_key=to_key(space.record.genesis_feed_key), download=True, upload=True)
    answer = await channel.call(
        f"{_MESH}.replicator.ReplicatorService.StartReplication",
        StartReplicationRequest(info=info),
        StartReplicationResponse,
    )
    tag = answer.stream_tag or "nothing"
    await channel.open_raw(tag, "application/x-hypercore").send(_random(5_000))


async def unknown_feed(channel: ExtensionChannel, _: Space) -> None:
    info = FeedInfo(feed_key=to_key(PublicKey(_random(65))), download=True, upload=True)
    answer = await channel.call(
        f"{_MESH}.replicator.ReplicatorService.StartReplication",
        StartReplicationRequest(info=info),
        StartReplicationResponse,
    )
    assert not answer.stream_tag


async def garbage_gossip(channel: ExtensionChannel, _: Space) -> None:
    for message in (
        GossipMessage(),
        GossipMessage(message_id=to_key(PublicKey(_random(60_000)))),
        GossipMessage(message_id=to_key(PublicKey(_random(32))), channel_id="x" * 5_000),
        GossipMessage(message_id=to_key(PublicKey(_random(GOSSIP_BYTES_MAX)))),
        GossipMessage(message_id=to_key(PublicKey(_random(32))), channel_id="dxos.mesh.presence.Presence"),
    ):
        try:
            await channel.call("dxos.mesh.teleport.gossip.GossipService.Announce", message, Empty)
        except DxosError:
            continue


async def garbage_credentials(channel: ExtensionChannel, space: Space) -> None:
    method = f"{_MESH}.notarization.NotarizationService.Notarize"
    genuine = space.pipeline.state.credentials
    for credentials in ([Credential()], [Credential()] * 1_000, list(genuine[:3])):
        try:
            await channel.call(method, NotarizeRequest(credentials=credentials), Empty)
        except DxosError:
            continue


async def garbage_discovery(channel: ExtensionChannel, _: Space) -> None:
    method = f"{_MESH}.AdmissionDiscoveryService.GetAdmissionCredential"
    await channel.call(method, GetAdmissionCredentialRequest(), Empty)


async def empty_challenge(channel: ExtensionChannel, _: Space) -> None:
    method = f"{_MESH}.auth.AuthService.Authenticate"
    await channel.call(method, AuthenticateRequest(challenge=b""), AuthenticateResponse)


async def endless_challenge(channel: ExtensionChannel, _: Space) -> None:
    method = f"{_MESH}.auth.AuthService.Authenticate"
    challenge = bytes(AUTH_CHALLENGE_BYTES_MAX + 1)
    await channel.call(method, AuthenticateRequest(challenge=challenge), AuthenticateResponse)


ATTACKS: list[tuple[str, Attack]] = [
    (f"{_MESH}.automerge", garbage_documents),
    (f"{_MESH}.automerge", start_twice),
    (f"{_MESH}.automerge", endless_id),
    (f"{_MESH}.replicator", garbage_feed),
    (f"{_MESH}.replicator", unknown_feed),
    (f"{_MESH}.gossip", garbage_gossip),
    (f"{_MESH}.notarization", garbage_credentials),
    (f"{_MESH}.admission-discovery", garbage_discovery),
    (f"{_MESH}.auth", empty_challenge),
    (f"{_MESH}.auth", endless_challenge),
]


@pytest.mark.parametrize(("extension", "attack"), ATTACKS, ids=[attack.__name__ for _, attack in ATTACKS])
async def test_a_hostile_member_loses_its_own_connection_at_most(
    extension: str, attack: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    async with simulated_hosts("alice", "bob", "mallory") as (alice, bob, mallory):
        space = await alice.create_space()
        milk = alice.add(space, title="Milk")
        await bob.join(alice, space)
        await agreed(space, alice, bob)
        space.admit(mallory.identity_key, SpaceRole.EDITOR)
        credentials = len(space.pipeline.state.credentials)
        async with attacking(mallory, space, extension, attack) as hostile:
            with anyio.fail_after(60):
                await hostile.done.wait()
            await anyio.sleep(5)
            assert bob.device_key in space.connections, "others notice nothing"
            bob.edit(space, milk, Put(("title",), "Oat milk"))
            assert (await agreed(space, alice, bob))[milk][0].data == {"title": "Oat milk"}
        assert len(space.pipeline.state.credentials) == credentials
        assert not [one for one in caplog.records if one.exc_info], "misbehaviour of others is no bug of ours"


# --- Putting a peer together -------------------------------------------------------------------------------------


@asynccontextmanager
async def alone(profile: Profile) -> AsyncIterator[Peer]:
    network = MemoryNetwork(seed=1)
    async with open_peer(
        profile, signal=network.signal(), transport=network.transport(), random=seeded_random(1), now_ms=virtual_ms
    ) as peer:
        yield peer


async def test_without_an_identity_there_are_no_spaces() -> None:
    async with alone(Profile.open(None)) as peer:
        assert peer.open_spaces is None
        with pytest.raises(IdentityMissingError):
            _ = peer.spaces
        peer.create_identity(ProfileDocument(display_name="alice"), DeviceProfileDocument())
        assert peer.spaces.all == {}
        with pytest.raises(IdentityExistsError):
            peer.create_identity(ProfileDocument(display_name="alice"), DeviceProfileDocument())


async def test_the_profile_is_closed_at_the_end_whatever_happens() -> None:
    for raises in (False, True):
        profile = Profile.open(None)
        with pytest.raises(ValueError, match="a user's own") if raises else nullcontext():
            async with alone(profile):
                if raises:
                    raise ValueError("a user's own")
        assert "closed" in repr(profile)
