"""Gossip: who hears what, once, and what is refused."""

import anyio
import pytest

from dxos.errors import InvalidValueError, LimitError
from dxos.keys import PublicKey
from dxos.limits import GOSSIP_BYTES_MAX, GOSSIP_IDS_REMEMBERED_MAX, GOSSIP_QUEUE_MAX
from dxos.spaces.gossip import Gossip, GossipExtension
from dxos.testing.peers import seeded_random, simulated_hosts, until
from dxos.wire import pack_any, to_key, to_struct
from dxos.wire.proto.gossip_pb2 import GossipMessage
from dxos.wire.proto.values_pb2 import Any as PackedAny

pytestmark = pytest.mark.anyio
HERE, THERE = PublicKey(bytes(32)), PublicKey(b"t" * 32)


def payload(text: str) -> PackedAny:
    return pack_any(to_struct({"text": text}))


def make(name: PublicKey = HERE) -> Gossip:
    return Gossip(peer_id=name, random=seeded_random(name.truncate().__hash__() % 1000), now_ms=lambda: 1)


def message(number: int, *, channel: str = "news", peer: PublicKey = THERE) -> GossipMessage:
    return GossipMessage(
        peer_id=to_key(peer), message_id=to_key(PublicKey(number.to_bytes(32, "big"))), channel_id=channel
    )


async def test_members_hear_those_that_they_are_not_connected_to_once_each_and_nobody_itself() -> None:
    async with simulated_hosts("alice", "bob", "carol") as (alice, bob, carol):
        space = await alice.create_space()
        alice_hears, bob_hears, carol_hears = heard = ([], [], [])  # type: tuple[list[str], list[str], list[str]]
        for guest in (bob, carol):
            await guest.join(alice, space)
        bob.sever(carol)
        await until(lambda: len(space.connections) == 2)
        await until(lambda: carol.device_key not in bob.space(space.id).connections)
        await anyio.sleep(5)
        for host, hears in zip((alice, bob, carol), heard, strict=True):
            gossip = host.space(space.id).gossip
            gossip.subscribe("news", lambda one, hears=hears: hears.append(one.message_id.data))  # type: ignore[misc]
        for _ in range(3):
            bob.space(space.id).gossip.post("news", payload("hello"))
        await anyio.sleep(5)
        assert bob_hears == []
        assert len(alice_hears) == len(set(alice_hears)) == 3
        assert carol_hears == alice_hears


def test_a_message_is_passed_on_to_all_but_where_it_came_from_and_once() -> None:
    gossip = make()
    source, other = GossipExtension(gossip), GossipExtension(gossip)
    gossip.neighbours += [source, other]
    gossip.receive(message(1), source=source)
    gossip.receive(message(1), source=other)
    gossip.receive(message(2, peer=HERE), source=source)  # Our own, come around.
    assert (len(source._queue), len(other._queue)) == (0, 1)


def test_a_neighbour_that_is_too_slow_misses_messages() -> None:
    gossip = make()
    slow = GossipExtension(gossip)
    gossip.neighbours.append(slow)
    for _ in range(GOSSIP_QUEUE_MAX + 10):
        gossip.post("news", payload("x"))
    assert len(slow._queue) == GOSSIP_QUEUE_MAX


def test_what_is_remembered_is_bounded() -> None:
    gossip = make()
    for number in range(GOSSIP_IDS_REMEMBERED_MAX + 10):
        gossip.receive(message(number), source=GossipExtension(gossip))
    assert len(gossip._seen) == GOSSIP_IDS_REMEMBERED_MAX


def test_large_messages_are_refused_on_both_ways() -> None:
    gossip = make()
    with pytest.raises(InvalidValueError):
        gossip.post("news", payload("x" * GOSSIP_BYTES_MAX))
    with pytest.raises(InvalidValueError):
        gossip.post("x" * 2_000, payload("x"))
    source = GossipExtension(gossip)
    for untrusted in (
        message(1, channel="x" * 2_000),
        message(1, peer=PublicKey(bytes(GOSSIP_BYTES_MAX))),
        GossipMessage(),
        GossipMessage(message_id=to_key(PublicKey(bytes(66)))),
    ):
        with pytest.raises(LimitError):
            gossip.receive(untrusted, source=source)


def test_a_subscription_ends_and_leaves_nothing() -> None:
    gossip = make()
    heard: list[str] = []
    end = gossip.subscribe("news", lambda one: heard.append(one.channel_id))
    gossip.receive(message(1), source=GossipExtension(gossip))
    gossip.receive(message(2, channel="other"), source=GossipExtension(gossip))
    end.unsubscribe()
    gossip.receive(message(3), source=GossipExtension(gossip))
    assert heard == ["news"]
    assert gossip._channels == {}
