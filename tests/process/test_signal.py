"""The signalling server and client over real sockets, on asyncio as users run them."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import pytest

from dxos.errors import BrokenError, ConfigError, DxosError, SignalError
from dxos.keys import PublicKey
from dxos.limits import SIGNAL_FRAME_BYTES_MAX
from dxos.mesh.signal import PeerAvailable, PeerLeft, Received, SignalEvent, SignalState
from dxos.mesh.signal_client import SignalClient
from dxos.mesh.signal_server import serve_signal
from dxos.mesh.signal_session import SignalSession
from dxos.mesh.websocket import WebSocket, open_websocket
from dxos.wire.proto import values_pb2

pytestmark = pytest.mark.anyio
ALICE, BOB, TOPIC = PublicKey(b"a" * 65), PublicKey(b"b" * 65), PublicKey(b"t" * 32)
PAYLOAD = values_pb2.Any(type_url="dxos.test", value=b"hello")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time on both event loops."""
    return str(request.param)


@dataclass
class Peer:
    client: SignalClient
    events: list[SignalEvent] = field(default_factory=list)
    changed: anyio.Event = field(default_factory=anyio.Event)

    def notice(self, event: SignalEvent | None = None) -> None:
        if event is not None:
            self.events.append(event)
        self.changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        with anyio.fail_after(10):
            while not condition():
                self.changed = anyio.Event()
                await self.changed.wait()

    async def until_event(self, event: SignalEvent) -> None:
        await self.until(lambda: event in self.events)

    async def until_state(self, state: SignalState) -> None:
        await self.until(lambda: all(status.state is state for status in self.client.statuses))


def no_random(count: int) -> bytes:
    return bytes(count)


@asynccontextmanager
async def served(port: int = 0, *, log: list[str] | None = None) -> AsyncIterator[int]:
    async with anyio.create_task_group() as tasks:

        async def serve(*, task_status: anyio.abc.TaskStatus[int]) -> None:
            on_event = None if log is None else log.append
            await serve_signal("127.0.0.1", port, on_event=on_event, task_status=task_status)

        yield await tasks.start(serve)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def running(*ports: int) -> AsyncIterator[Peer]:
    peer = Peer(SignalClient([f"ws://127.0.0.1:{port}/.well-known/dx/signal" for port in ports], random=no_random))
    peer.client.listen(peer.notice)
    peer.client.subscribe(peer.notice)
    async with anyio.create_task_group() as tasks:
        await tasks.start(peer.client.run)
        yield peer
        tasks.cancel_scope.cancel()


async def test_two_peers_find_each_other_talk_and_leave() -> None:
    log: list[str] = []
    async with served(log=log) as port, running(port) as alice:
        async with running(port) as bob:
            alice.client.join(TOPIC, ALICE)
            await alice.until_event(PeerAvailable(TOPIC, ALICE))
            bob.client.join(TOPIC, BOB)
            await alice.until_event(PeerAvailable(TOPIC, BOB))
            await bob.until_event(PeerAvailable(TOPIC, ALICE))
            await bob.client.send(BOB, ALICE, PAYLOAD)
            await alice.until_event(Received(BOB, ALICE, PAYLOAD))
            await alice.client.send(ALICE, BOB, PAYLOAD)
            await bob.until_event(Received(ALICE, BOB, PAYLOAD))
        await alice.until_event(PeerLeft(TOPIC, BOB))
    assert any("joined" in line for line in log)
    assert any("left" in line and "1 peers" in line for line in log)


async def test_leaving_a_topic_tells_the_others() -> None:
    async with served() as port, running(port) as alice, running(port) as bob:
        alice.client.join(TOPIC, ALICE)
        bob.client.join(TOPIC, BOB)
        await alice.until_event(PeerAvailable(TOPIC, BOB))
        bob.client.leave(TOPIC, BOB)
        await alice.until_event(PeerLeft(TOPIC, BOB))


@pytest.mark.slow
async def test_a_server_that_dies_and_returns_is_joined_again() -> None:
    async with served() as port, running(port) as alice, running(port) as bob:
        alice.client.join(TOPIC, ALICE)
        bob.client.join(TOPIC, BOB)
        await alice.until_event(PeerAvailable(TOPIC, BOB))
    async with running(port) as alice, running(port) as bob:  # Nobody is there yet.
        alice.client.join(TOPIC, ALICE)
        bob.client.join(TOPIC, BOB)
        await alice.until_state(SignalState.ERROR)
        with pytest.raises(SignalError):
            await alice.client.send(ALICE, BOB, PAYLOAD)
        async with served(port):
            await alice.until_event(PeerAvailable(TOPIC, BOB))
            await bob.until_event(PeerAvailable(TOPIC, ALICE))
        await alice.until(lambda: alice.client.statuses[0].state is not SignalState.CONNECTED)
        alice.events.clear()
        async with served(port):
            await alice.until_event(PeerAvailable(TOPIC, BOB))
            assert PeerLeft(TOPIC, BOB) not in alice.events, "a restarted server makes nobody leave"
            await bob.client.send(BOB, ALICE, PAYLOAD)
            await alice.until_event(Received(BOB, ALICE, PAYLOAD))


async def test_one_of_two_servers_is_enough() -> None:
    async with served() as port, served() as other, running(1, port) as alice, running(port, other) as bob:
        alice.client.join(TOPIC, ALICE)
        bob.client.join(TOPIC, BOB)
        await alice.until_event(PeerAvailable(TOPIC, BOB))
        await bob.client.send(BOB, ALICE, PAYLOAD)
        await alice.until_event(Received(BOB, ALICE, PAYLOAD))


@pytest.mark.parametrize("hostile", [b"", b"\xff" * 40, b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100_000])
async def test_whoever_is_no_websocket_client_is_thrown_out(hostile: bytes) -> None:
    async with served() as port:
        stream = await anyio.connect_tcp("127.0.0.1", port)
        async with stream:
            with anyio.fail_after(10):
                try:
                    await stream.send(hostile)
                    await stream.send_eof()
                    while await stream.receive():
                        pass
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    pass
        async with running(port) as alice:
            alice.client.join(TOPIC, ALICE)
            await alice.until_event(PeerAvailable(TOPIC, ALICE))


@pytest.mark.parametrize("hostile", [b"\xff\xff", b"x" * (SIGNAL_FRAME_BYTES_MAX + 1)], ids=["nonsense", "too long"])
async def test_a_hostile_frame_closes_that_socket_only(hostile: bytes) -> None:
    async with served() as port, running(port) as alice:
        alice.client.join(TOPIC, ALICE)
        await alice.until_event(PeerAvailable(TOPIC, ALICE))
        socket = await open_websocket(f"ws://127.0.0.1:{port}/")
        await socket.send(hostile)
        with pytest.raises(DxosError), anyio.fail_after(10):
            await socket.receive()
        await socket.aclose()
        assert alice.client.statuses[0].state is SignalState.CONNECTED


async def flood(socket: WebSocket) -> None:
    for _ in range(20_000):
        await socket.send("__ping__")


@pytest.mark.slow
async def test_a_flood_closes_that_socket_only() -> None:
    log: list[str] = []
    async with served(log=log) as port, running(port) as alice:
        await alice.until_state(SignalState.CONNECTED)
        socket = await open_websocket(f"ws://127.0.0.1:{port}/")
        with pytest.raises(BrokenError), anyio.fail_after(20):
            await flood(socket)
        await socket.aclose()
        assert alice.client.statuses[0].state is SignalState.CONNECTED
    assert any("flood" in line for line in log)


@pytest.mark.slow
async def test_a_client_that_does_not_read_is_closed_and_the_others_are_served() -> None:
    log: list[str] = []
    big = values_pb2.Any(type_url="dxos.test", value=b"x" * 60_000)
    async with served(log=log) as port, running(port) as alice:
        slow = await open_websocket(f"ws://127.0.0.1:{port}/")
        session = SignalSession()
        session.join(TOPIC, BOB, 0.0)
        for frame in session.take_frames():
            await slow.send(frame)
        alice.client.join(TOPIC, ALICE)
        await alice.until_event(PeerAvailable(TOPIC, BOB))
        while PeerLeft(TOPIC, BOB) not in alice.events:
            for _ in range(100):
                with contextlib.suppress(SignalError):  # Those the server has not confirmed yet are limited, too.
                    await alice.client.send(ALICE, BOB, big)
            await anyio.sleep(0.01)
        await slow.aclose()
        assert alice.client.statuses[0].state is SignalState.CONNECTED
    assert any("too slowly" in line for line in log)


@pytest.mark.parametrize("hostile", [b"HTTP/1.1 200 OK\r\n\r\nhello", b"\0" * 1000, b"", b"x" * 100_000])
async def test_a_server_that_is_none_is_an_error_of_that_server_only(hostile: bytes) -> None:
    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(anyio.BrokenResourceError):
                await stream.receive()
                await stream.send(hostile or b"\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        async with running(listener.extra(anyio.abc.SocketAttribute.local_port)) as alice:
            await alice.until_state(SignalState.ERROR)
            assert alice.client.statuses[0].error
        tasks.cancel_scope.cancel()


async def test_an_address_without_a_server_is_a_state_and_no_exception() -> None:
    async with running(1) as alice:
        await alice.until_state(SignalState.ERROR)
        assert alice.client.statuses[0].error


@pytest.mark.parametrize("address", ["http://x", "ws://", "ws://x:y", "", "ws://x:99999"])
async def test_what_is_no_websocket_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError):
        SignalClient([address], random=no_random)
