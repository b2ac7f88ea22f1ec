"""Two and more networks in one process, on a clock that jumps."""

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from dxos.errors import BrokenError, ClosedError, UsageError
from dxos.keys import PublicKey
from dxos.mesh.network import Network, NetworkStatus
from dxos.mesh.topology import FullyConnected, InvitationGuest, InvitationHost, Mmst
from dxos.testing.network import MemoryNetwork

pytestmark = pytest.mark.anyio
TOPIC, OTHER_TOPIC = PublicKey(b"t" * 32), PublicKey(b"u" * 32)
ALICE, BOB, CAROL = (PublicKey(letter * 65) for letter in (b"a", b"b", b"c"))


class Echo:
    """A connection that lives until the other end closes, and what happened to it."""

    def __init__(self) -> None:
        self.opened: list[tuple[PublicKey, bool]] = []
        self.closed: list[PublicKey] = []
        self.open_now: set[PublicKey] = set()

    async def __call__(self, stream: anyio.abc.ByteStream, remote: PublicKey, initiator: bool) -> None:
        assert remote not in self.open_now, "one connection for each remote"
        self.opened.append((remote, initiator))
        self.open_now.add(remote)
        try:
            await stream.send(b"hello")
            while True:
                await stream.receive()
        finally:
            self.open_now.remove(remote)
            self.closed.append(remote)


def make_network(fabric: MemoryNetwork) -> Network:
    return Network(signal=fabric.signal(), transport=fabric.transport(), random=fabric.random_bytes)


async def test_two_peers_of_a_topic_are_connected_and_those_of_another_are_not() -> None:
    fabric, echo = MemoryNetwork(seed=1, latency_s=0.05), Echo()
    async with make_network(fabric) as alice, make_network(fabric) as bob, make_network(fabric) as carol:
        ours = alice.join(TOPIC, peer=ALICE, topology=Mmst(), on_connection=echo)
        theirs = bob.join(TOPIC, peer=BOB, topology=Mmst(), on_connection=Echo())
        carol.join(OTHER_TOPIC, peer=CAROL, topology=Mmst(), on_connection=Echo())
        await anyio.sleep(1)
        assert ours.connected == {BOB}
        assert theirs.connected == {ALICE}
        assert echo.opened == [(BOB, True)], "the lower key offers first"
        assert carol.swarms[OTHER_TOPIC].peers == frozenset()


async def test_a_connection_that_breaks_is_made_again_soon() -> None:
    fabric, echo = MemoryNetwork(seed=2, latency_s=0.02), Echo()
    async with make_network(fabric) as alice, make_network(fabric) as bob:
        ours = alice.join(TOPIC, peer=ALICE, topology=Mmst(), on_connection=echo)
        bob.join(TOPIC, peer=BOB, topology=Mmst(), on_connection=Echo())
        await anyio.sleep(10)
        assert fabric.reset(ALICE, BOB) == 1
        await anyio.sleep(2)
        assert ours.connected == {BOB}
        assert len(echo.opened) == 2


async def test_offline_closes_everything_and_online_brings_it_back() -> None:
    fabric, echo = MemoryNetwork(seed=3, latency_s=0.02), Echo()
    async with make_network(fabric) as alice, make_network(fabric) as bob:
        ours = alice.join(TOPIC, peer=ALICE, topology=Mmst(), on_connection=echo)
        theirs = bob.join(TOPIC, peer=BOB, topology=Mmst(), on_connection=Echo())
        await anyio.sleep(1)
        await alice.set_online(False)
        await alice.set_online(False)
        assert not alice.status.online
        assert ours.connected == frozenset()
        assert echo.open_now == set()
        await anyio.sleep(30)
        assert theirs.peers == frozenset()
        late = alice.join(OTHER_TOPIC, peer=ALICE, topology=Mmst(), on_connection=Echo())
        bob.join(OTHER_TOPIC, peer=BOB, topology=Mmst(), on_connection=Echo())
        await alice.set_online(True)
        await anyio.sleep(3)
        assert ours.connected == {BOB}
        assert late.connected == {BOB}


async def test_a_left_swarm_ends_its_connections_and_may_be_joined_again() -> None:
    fabric, echo = MemoryNetwork(seed=4), Echo()
    async with make_network(fabric) as alice, make_network(fabric) as bob:
        async with alice.join(TOPIC, peer=ALICE, topology=Mmst(), on_connection=echo) as ours:
            theirs = bob.join(TOPIC, peer=BOB, topology=Mmst(), on_connection=Echo())
            await anyio.sleep(1)
            assert ours.connected == {BOB}
        assert echo.closed == [BOB]
        await ours.leave()
        assert alice.swarms == {}
        await anyio.sleep(1)
        assert theirs.connected == frozenset()
        again = alice.join(TOPIC, peer=ALICE, topology=Mmst(), on_connection=echo)
        await anyio.sleep(2)
        assert again.connected == {BOB}


async def test_a_kicked_peer_stays_out_until_it_is_unbarred() -> None:
    fabric, echo = MemoryNetwork(seed=5, latency_s=0.02), Echo()
    async with make_network(fabric) as alice, make_network(fabric) as bob:
        ours = alice.join(TOPIC, peer=ALICE, topology=Mmst(), on_connection=echo)
        bob.join(TOPIC, peer=BOB, topology=Mmst(), on_connection=Echo())
        await anyio.sleep(1)
        ours.kick(BOB)
        await anyio.sleep(300)
        assert ours.connected == frozenset()
        assert len(echo.opened) == 1
        ours.unbar(BOB)
        await anyio.sleep(60)
        assert ours.connected == {BOB}


async def test_a_host_admits_two_guests_one_after_the_other() -> None:
    fabric, served = MemoryNetwork(seed=6, latency_s=0.05), list[PublicKey]()
    open_now = 0

    async def serve(stream: anyio.abc.ByteStream, remote: PublicKey, initiator: bool) -> None:
        nonlocal open_now
        open_now += 1
        assert initiator
        assert open_now == 1
        await anyio.sleep(5)
        served.append(remote)
        open_now -= 1

    async with make_network(fabric) as host, make_network(fabric) as bob, make_network(fabric) as carol:
        host.join(TOPIC, peer=ALICE, topology=InvitationHost(), on_connection=serve)
        bob.join(TOPIC, peer=BOB, topology=InvitationGuest(), on_connection=Echo())
        carol.join(TOPIC, peer=CAROL, topology=InvitationGuest(), on_connection=Echo())
        await anyio.sleep(11)
    assert sorted(served) == [BOB, CAROL]


async def test_an_error_of_one_connection_is_shown_and_hurts_nobody_else() -> None:
    fabric, echo = MemoryNetwork(seed=7), Echo()

    async def fail(stream: anyio.abc.ByteStream, remote: PublicKey, initiator: bool) -> None:
        if remote == BOB:
            raise BrokenError("no luck")
        await anyio.sleep_forever()

    async with make_network(fabric) as alice, make_network(fabric) as bob, make_network(fabric) as carol:
        ours = alice.join(TOPIC, peer=ALICE, topology=FullyConnected(), on_connection=fail)
        bob.join(TOPIC, peer=BOB, topology=FullyConnected(), on_connection=Echo())
        carol.join(TOPIC, peer=CAROL, topology=FullyConnected(), on_connection=echo)
        await anyio.sleep(3)
        errors = {peer.remote: peer.error for peer in ours.status.peers}
        assert errors == {BOB: "no luck", CAROL: None}
        assert ours.connected >= {CAROL}


async def test_a_bug_in_a_connection_is_logged_and_ends_only_that(caplog: pytest.LogCaptureFixture) -> None:
    fabric = MemoryNetwork(seed=8)
    echo = Echo()

    async def fail(stream: anyio.abc.ByteStream, remote: PublicKey, initiator: bool) -> None:
        if remote == BOB:
            raise ZeroDivisionError
        await echo(stream, remote, initiator)

    async with make_network(fabric) as alice, make_network(fabric) as bob, make_network(fabric) as carol:
        ours = alice.join(TOPIC, peer=ALICE, topology=FullyConnected(), on_connection=fail)
        bob.join(TOPIC, peer=BOB, topology=FullyConnected(), on_connection=Echo())
        carol.join(TOPIC, peer=CAROL, topology=FullyConnected(), on_connection=echo)
        await anyio.sleep(3)
        errors = {peer.remote: peer.error for peer in ours.status.peers}
        assert "bug" in (errors[BOB] or "")
        assert errors[CAROL] is None
        assert CAROL in ours.connected
    bugs = [one for one in caplog.records if one.exc_info and one.exc_info[0] is ZeroDivisionError]
    assert bugs
    caplog.clear()  # Any other test would fail by it.


async def test_joining_leaving_and_switching_at_every_moment_end_well() -> None:
    fabric = MemoryNetwork(seed=12, latency_s=0.001)
    async with make_network(fabric) as alice, make_network(fabric) as bob:
        bob.join(TOPIC, peer=BOB, topology=FullyConnected(), on_connection=Echo())
        alice.join(TOPIC, peer=ALICE, topology=FullyConnected(), on_connection=Echo())

        async def come_and_go(turns: int) -> None:
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            await alice.join(OTHER_TOPIC, peer=ALICE, topology=Mmst(), on_connection=Echo()).leave()
            alice.join(OTHER_TOPIC, peer=ALICE, topology=Mmst(), on_connection=Echo())

        for turns in range(20):
            await anyio.sleep(1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(come_and_go, turns)
                await alice.set_online(False)
            assert not alice.online
            with anyio.move_on_after(0):
                await alice.set_online(True)
            await alice.set_online(False)
            await alice.set_online(True)
            await alice.swarms[OTHER_TOPIC].leave()
        await anyio.sleep(5)
        assert alice.swarms[TOPIC].connected == {BOB}


async def test_an_error_in_the_block_leaves_it_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with make_network(MemoryNetwork()):
            raise KeyError


async def test_misuse_is_refused() -> None:
    network = make_network(MemoryNetwork())
    with pytest.raises(ClosedError):
        network.join(TOPIC, peer=ALICE, topology=Mmst(), on_connection=Echo())
    with pytest.raises(ClosedError):
        await network.set_online(False)
    async with network:
        network.join(TOPIC, peer=ALICE, topology=Mmst(), on_connection=Echo())
        with pytest.raises(UsageError, match="joined already"):
            network.join(TOPIC, peer=ALICE, topology=Mmst(), on_connection=Echo())


async def test_observers_see_each_step() -> None:
    fabric, seen = MemoryNetwork(seed=9, latency_s=0.05), list[NetworkStatus]()
    async with make_network(fabric) as alice, make_network(fabric) as bob:
        unsubscribe = alice.subscribe(seen.append)
        alice.join(TOPIC, peer=ALICE, topology=Mmst(), on_connection=Echo())
        bob.join(TOPIC, peer=BOB, topology=Mmst(), on_connection=Echo())
        await anyio.sleep(1)
        states = [peer.state for status in seen for swarm in status.swarms for peer in swarm.peers]
        assert list(dict.fromkeys(states)) == ["OFFERING", "CONNECTING", "CONNECTED"]
        unsubscribe()
        count = len(seen)
        await alice.set_online(False)
        assert len(seen) == count


async def test_nobody_is_found_while_signalling_is_down_and_all_is_well_after() -> None:
    fabric, echo = MemoryNetwork(seed=10, latency_s=0.02), Echo()
    fabric.is_up = False
    async with make_network(fabric) as alice, make_network(fabric) as bob:
        ours = alice.join(TOPIC, peer=ALICE, topology=Mmst(), on_connection=echo)
        bob.join(TOPIC, peer=BOB, topology=Mmst(), on_connection=Echo())
        await anyio.sleep(120)
        assert ours.connected == frozenset()
        fabric.is_up = True
        await anyio.sleep(60)
        assert ours.connected == {BOB}


@pytest.mark.parametrize("seed", range(5))
async def test_eight_peers_on_a_bad_network_all_meet(seed: int) -> None:
    fabric = MemoryNetwork(seed=seed, latency_s=0.5, loss=0.3, repeats=0.3, link_latency_s=0.1)
    peers = [PublicKey(bytes([number]) * 65) for number in range(1, 9)]
    async with anyio.create_task_group() as tasks:
        swarms = []

        async def live(peer: PublicKey, *, task_status: anyio.abc.TaskStatus[None]) -> None:
            async with make_network(fabric) as network:
                swarms.append(network.join(TOPIC, peer=peer, topology=FullyConnected(), on_connection=Echo()))
                task_status.started()
                await anyio.sleep_forever()

        for peer in peers:
            await tasks.start(live, peer)
        await anyio.sleep(300)
        assert all(len(swarm.connected) == 7 for swarm in swarms)
        tasks.cancel_scope.cancel()


async def test_repr_is_short() -> None:
    async with make_network(MemoryNetwork()) as network:
        swarm = network.join(TOPIC, peer=ALICE, topology=Mmst(), on_connection=Echo())
        assert repr(network) == "<Network online swarms=1>"
        assert repr(swarm) == "<Swarm 74747474 as 61616161 connected=0>"
