"""The TCP transport over real sockets, and the whole network over it."""

import socket as sockets
from collections.abc import Callable

import anyio
import anyio.abc
import pytest

from dxos.errors import PeerError, TransportError
from dxos.keys import PublicKey
from dxos.mesh.network import Network
from dxos.mesh.signal_client import SignalClient
from dxos.mesh.signal_server import serve_signal
from dxos.mesh.tcp import TcpTransport
from dxos.mesh.topology import Mmst
from dxos.mesh.transport import Link, Payload

pytestmark = pytest.mark.anyio
ALICE, BOB, TOPIC, SESSION = (PublicKey(letter * 32) for letter in (b"a", b"b", b"t", b"s"))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time on both event loops."""
    return str(request.param)


def make_link(*, initiator: bool, send: Callable[[Payload], None] = lambda _: None) -> Link:
    local, remote = (ALICE, BOB) if initiator else (BOB, ALICE)
    return Link(topic=TOPIC, local=local, remote=remote, session=SESSION, initiator=initiator, send=send)


async def test_the_initiator_listens_on_loopback_and_the_other_side_connects() -> None:
    ends: dict[str, anyio.abc.ByteStream] = {}
    theirs = make_link(initiator=False)
    ours = make_link(initiator=True, send=theirs.deliver_nowait)

    async def connect(name: str, link: Link) -> None:
        ends[name] = await TcpTransport().connect(link)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connect, "ours", ours)
            tasks.start_soon(connect, "theirs", theirs)
        async with ends["ours"], ends["theirs"]:
            await ends["ours"].send(b"hello")
            assert await ends["theirs"].receive() == b"hello"
            for end in ends.values():
                raw = end.extra(anyio.abc.SocketAttribute.raw_socket)
                assert raw.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY)
            port = ends["ours"].extra(anyio.abc.SocketAttribute.local_port)
            with pytest.raises(OSError, match=r"attempts|refused"):
                await anyio.connect_tcp("127.0.0.1", port)


@pytest.mark.skipif(not hasattr(sockets, "TCP_QUICKACK"), reason="this system acknowledges in its own way")
async def test_a_peer_that_waits_for_acknowledgements_does_not_wait_long() -> None:
    rounds = 50
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:

        async def talk(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
                raw.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 0)  # As JavaScript peers have it.
                for _ in range(rounds):
                    await stream.send(b"a header")
                    await stream.send(b" and a body")
                    await stream.receive()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, talk)
            link = make_link(initiator=False)
            link.deliver_nowait({"port": listener.extra(anyio.abc.SocketAttribute.local_port)})
            begin = anyio.current_time()
            async with await TcpTransport().connect(link) as ours:
                for _ in range(rounds):
                    received = b""
                    while received != b"a header and a body":
                        received += await ours.receive()
                    await ours.send(b"answer")
            assert anyio.current_time() - begin < rounds * 0.02, "acknowledged late, a round takes 0.04 s"
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", "::"])
def test_only_loopback_may_be_used_because_the_bytes_are_in_plain_text(host: str) -> None:
    with pytest.raises(TransportError, match="not encrypted"):
        TcpTransport(host=host)


@pytest.mark.parametrize("payload", [{}, {"port": 0}, {"port": "80"}, {"port": 70_000}, {"port": True}, {"port": 1.5}])
async def test_a_signal_without_a_port_is_the_peers_fault(payload: Payload) -> None:
    link = make_link(initiator=False)
    link.deliver_nowait(payload)
    with pytest.raises(PeerError):
        await TcpTransport().connect(link)


async def test_another_machine_is_not_connected_to() -> None:
    link = make_link(initiator=False)
    link.deliver_nowait({"port": 80, "host": "192.0.2.1"})
    with pytest.raises(TransportError, match="another machine"):
        await TcpTransport().connect(link)


async def test_a_port_nobody_listens_on_is_a_transport_error() -> None:
    link = make_link(initiator=False)
    link.deliver_nowait({"port": 1})
    with pytest.raises(TransportError, match="does not answer"):
        await TcpTransport().connect(link)


async def test_two_networks_meet_over_a_real_server_and_real_sockets() -> None:
    heard: dict[PublicKey, bytes] = {}
    all_heard = anyio.Event()

    async def greet(stream: anyio.abc.ByteStream, remote: PublicKey, initiator: bool) -> None:
        await stream.send(b"hello")
        heard[remote] = await stream.receive()
        if len(heard) == 2:
            all_heard.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:

        async def serve(*, task_status: anyio.abc.TaskStatus[int]) -> None:
            await serve_signal("127.0.0.1", 0, task_status=task_status)

        port = await tasks.start(serve)
        servers = [f"ws://127.0.0.1:{port}/.well-known/dx/signal"]

        def make_network() -> Network:
            return Network(signal=SignalClient(servers, random=bytes), transport=TcpTransport())

        async with make_network() as alice, make_network() as bob:
            alice.join(TOPIC, peer=ALICE, topology=Mmst(), on_connection=greet)
            bob.join(TOPIC, peer=BOB, topology=Mmst(), on_connection=greet)
            with anyio.fail_after(10):
                await all_heard.wait()
        tasks.cancel_scope.cancel()
    assert heard == {ALICE: b"hello", BOB: b"hello"}
