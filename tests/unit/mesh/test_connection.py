"""Connections over memory links, on a clock that jumps."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from google.protobuf.empty_pb2 import Empty

from dxos.errors import (
    BrokenError,
    DeadlineError,
    DecodeError,
    DxosError,
    NotAllowedError,
    RemoteError,
    UsageError,
)
from dxos.keys import PublicKey
from dxos.limits import CHANNEL_SEND_BYTES, CONTROL_IDLE_S_MAX, RPC_CALLS_MAX, RPC_OPEN_TIMEOUT_S, STREAM_VALUES_MAX
from dxos.mesh.connection import Connection, Extension, ExtensionChannel, Serve, ServeStream
from dxos.mesh.memory import MemoryStream, memory_links
from dxos.wire.proto import automerge_pb2, muxer_pb2

pytestmark = pytest.mark.anyio

SERVICE = "dxos.mesh.teleport.automerge.AutomergeReplicatorService"
SEND = f"{SERVICE}.SendSyncMessage"
START = f"{SERVICE}.StartReplication"
ALICE, BOB = PublicKey(b"a" * 32), PublicKey(b"b" * 32)
Message = automerge_pb2.SyncMessage


class Echo(Extension):
    """Answers what it is told to, and keeps what it got."""

    name = "dxos.mesh.teleport.automerge"

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.opened_with: ExtensionChannel | None = None
        self.was_opened = anyio.Event()
        self.was_cancelled = False
        self.gate: Callable[[bytes], Any] | None = None
        self.error: Exception | None = None
        self.stream_ended = anyio.Event()
        self.items: list[bytes] = []

    @property
    def handlers(self) -> Mapping[str, Serve[Any] | ServeStream[Any]]:
        return {SEND: Serve(Message, self._send), START: ServeStream(automerge_pb2.PeerInfo, self._start)}

    async def opened(self, channel: ExtensionChannel) -> None:
        self.opened_with = channel
        self.was_opened.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.was_cancelled = True

    async def _send(self, request: Message) -> Message:
        self.got.append(request.payload)
        if self.error is not None:
            raise self.error
        if self.gate is not None:
            await self.gate(request.payload)
        return Message(payload=request.payload)

    async def _start(self, request: automerge_pb2.PeerInfo) -> AsyncIterator[Message]:
        try:
            for item in self.items:
                yield Message(payload=item)
            if request.id == "forever":
                await anyio.sleep_forever()
            if request.id == "wrong":
                raise NotAllowedError("not for you")
        finally:
            self.stream_ended.set()


class Other(Echo):
    name = "dxos.mesh.teleport.gossip"


class Pair:
    """Two connections over one link, each with an extension."""

    def __init__(self, alice: Extension | None, bob: Extension | None, **options: Any) -> None:
        self.link, self.far = memory_links(**options)
        self.alice = make(self.link, ALICE, BOB, initiator=True)
        self.bob = make(self.far, BOB, ALICE, initiator=False)
        self.channel = self.alice.add_extension(alice) if alice else None
        if bob:
            self.bob.add_extension(bob)

    async def send(self, payload: bytes, timeout_s: float = 3.0) -> bytes:
        assert self.channel is not None
        return (await self.channel.call(SEND, Message(payload=payload), Message, timeout_s=timeout_s)).payload


def make(stream: MemoryStream, local: PublicKey, remote: PublicKey, *, initiator: bool) -> Connection:
    return Connection(
        stream,
        local_key=local,
        remote_key=remote,
        initiator=initiator,
        now_ms=lambda: int(anyio.current_time() * 1000),
    )


@asynccontextmanager
async def connected(alice: Extension | None, bob: Extension | None, **options: Any) -> AsyncIterator[Pair]:
    pair = Pair(alice, bob, **options)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.alice.run)
        tasks.start_soon(pair.bob.run)
        yield pair
        await pair.alice.aclose()
        with anyio.fail_after(10):
            await pair.bob.closed.wait()
        tasks.cancel_scope.cancel()


async def test_a_call_reaches_the_other_side_and_its_answer_comes_back() -> None:
    async with connected(Echo(), bob := Echo()) as pair:
        assert await pair.send(b"hello") == b"hello"
        assert bob.got == [b"hello"]
        assert pair.alice.remote_extensions == {"dxos.mesh.teleport.automerge"}
    assert pair.alice.error is pair.bob.error is None
    assert bob.was_cancelled


async def test_an_extension_may_be_added_while_running_and_called_before_the_peer_has_it() -> None:
    async with connected(None, None) as pair:
        await anyio.sleep(1)
        pair.channel = pair.alice.add_extension(Echo())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.send, b"early")
            await anyio.sleep(1)
            pair.bob.add_extension(bob := Echo())
        assert bob.got == [b"early"]


async def test_an_extension_the_peer_lacks_is_never_opened() -> None:
    alice = Echo()
    async with connected(alice, Other()) as pair:
        with pytest.raises(DeadlineError):
            await pair.send(b"hello")
        assert not alice.was_opened.is_set()


async def test_registering_twice_is_an_error() -> None:
    async with connected(Echo(), None) as pair:
        with pytest.raises(UsageError):
            pair.alice.add_extension(Echo())


@pytest.mark.parametrize("size", [0, 1, 8_191, 8_192, 8_193, 250_000, 5_000_000])
async def test_messages_of_any_size_arrive_whole(size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with connected(Echo(), Echo()) as pair:
        assert await pair.send(payload, timeout_s=30.0) == payload


async def test_a_small_message_overtakes_a_large_one_of_another_extension() -> None:
    order: list[str] = []
    async with connected(Echo(), Echo(), latency_s=0.01) as pair:
        small = pair.alice.add_extension(Other())
        pair.bob.add_extension(Other())
        assert await pair.send(b"warm") == b"warm"
        await small.call(SEND, Message(payload=b"warm"), Message)

        async def send_large() -> None:
            await pair.send(bytes(5_000_000), timeout_s=60.0)
            order.append("large")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_large)
            await anyio.sleep(0.001)
            await small.call(SEND, Message(payload=b"small"), Message)
            order.append("small")
    assert order == ["small", "large"]


async def test_requests_start_in_the_order_they_were_sent_though_the_first_waits() -> None:
    bob, gate = Echo(), anyio.Event()

    async def wait(payload: bytes) -> None:
        if payload == b"0":
            await gate.wait()

    bob.gate = wait
    answered: list[bytes] = []
    async with connected(Echo(), bob) as pair:

        async def call(payload: bytes) -> None:
            answered.append(await pair.send(payload))

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(call, str(number).encode())
                await anyio.sleep(0.01)
            assert answered == [b"1", b"2", b"3", b"4"]
            gate.set()
    assert bob.got == [b"0", b"1", b"2", b"3", b"4"]


async def test_an_error_of_the_tree_reaches_the_caller_by_name_and_message() -> None:
    bob = Echo()
    bob.error = NotAllowedError("readers may not write")
    async with connected(Echo(), bob) as pair:
        with pytest.raises(RemoteError, match="readers may not write") as caught:
            await pair.send(b"x")
        assert caught.value.detail["name"] == "NotAllowedError"
        bob.error = None
        assert await pair.send(b"y") == b"y"


async def test_a_bug_in_a_handler_tells_the_caller_nothing() -> None:
    bob = Echo()
    bob.error = RuntimeError("secret")
    async with connected(Echo(), bob) as pair:
        with pytest.raises(RemoteError, match="internal error"):
            await pair.send(b"x")


async def test_an_unknown_method_is_an_error() -> None:
    async with connected(Echo(), Echo()) as pair:
        assert pair.channel is not None
        with pytest.raises(RemoteError, match="no such method"):
            await pair.channel.call(f"{SERVICE}.Nothing", Empty(), Empty)


async def test_a_fatal_extension_ends_the_connection_with_its_error() -> None:
    class Fatal(Echo):
        fatal = True

    bob = Fatal()
    bob.error = NotAllowedError("go away")
    async with connected(Echo(), bob) as pair:
        with pytest.raises(RemoteError, match="go away"):
            await pair.send(b"x")
        await pair.bob.closed.wait()
        await pair.alice.closed.wait()
    assert isinstance(pair.bob.error, NotAllowedError)
    assert isinstance(pair.alice.error, BrokenError)
    assert pair.alice.error.detail["reason"] == "go away"


async def test_a_late_answer_is_a_deadline_and_the_connection_goes_on() -> None:
    bob = Echo()
    bob.gate = lambda payload: anyio.sleep(5 if payload == b"slow" else 0)
    async with connected(Echo(), bob) as pair:
        started = anyio.current_time()
        with pytest.raises(DeadlineError):
            await pair.send(b"slow")
        assert anyio.current_time() - started == pytest.approx(3.0, abs=0.01)
        await anyio.sleep(10)
        assert await pair.send(b"quick") == b"quick"


async def test_a_cancelled_call_leaves_the_connection_usable() -> None:
    bob = Echo()
    bob.gate = lambda payload: anyio.sleep(1 if payload == b"slow" else 0)
    async with connected(Echo(), bob) as pair:
        with anyio.move_on_after(0.5):
            await pair.send(b"slow")
        assert await pair.send(b"quick") == b"quick"
        assert repr(pair.channel) == "<ExtensionChannel dxos.mesh.teleport.automerge open calls=0 requests=0>"


async def test_heartbeats_keep_an_idle_connection_for_hours() -> None:
    async with connected(Echo(), Echo(), latency_s=0.05) as pair:
        await anyio.sleep(4 * 3_600)
        assert await pair.send(b"still here") == b"still here"


async def test_a_cut_link_is_noticed_within_a_minute() -> None:
    async with connected(Echo(), Echo()) as pair:
        await pair.send(b"x")
        await anyio.sleep(35)
        pair.link.cut()
        started = anyio.current_time()
        with pytest.raises(BrokenError):
            await pair.send(b"y", timeout_s=1_000)
        assert anyio.current_time() - started <= CONTROL_IDLE_S_MAX
        await pair.alice.closed.wait()
    assert isinstance(pair.alice.error, DeadlineError)


async def test_a_reset_link_ends_both_sides_at_once() -> None:
    async with connected(Echo(), Echo()) as pair:
        await pair.send(b"x")
        started = anyio.current_time()
        pair.link.reset()
        await pair.alice.closed.wait()
        await pair.bob.closed.wait()
        assert anyio.current_time() - started < 0.1
        with pytest.raises(BrokenError):
            await pair.send(b"y")
    assert isinstance(pair.alice.error, BrokenError)


async def test_a_peer_that_never_speaks_is_dropped() -> None:
    link, _far = memory_links()
    connection = make(link, ALICE, BOB, initiator=True)
    started = anyio.current_time()
    await connection.run()
    assert anyio.current_time() - started == pytest.approx(RPC_OPEN_TIMEOUT_S, abs=0.01)
    assert isinstance(connection.error, DeadlineError)


async def test_garbage_ends_the_connection_with_the_reason() -> None:
    link, far = memory_links()
    connection = make(link, ALICE, BOB, initiator=True)
    await far.send(b"GET / HTTP/1.1\r\n\r\n" * 2_000)
    await connection.run()
    assert isinstance(connection.error, DxosError)
    assert connection.error.code.startswith("peer")
    assert connection.closed.is_set()


async def test_an_answer_that_does_not_parse_is_an_error_of_that_call_only() -> None:
    async with connected(Echo(), Echo()) as pair:
        assert pair.channel is not None
        with pytest.raises(DecodeError):
            await pair.channel.call(SEND, Message(payload=b"\xff" * 9), muxer_pb2.OpenChannel)
        assert await pair.send(b"x") == b"x"


async def test_cancelling_run_closes_the_stream_and_fails_calls() -> None:
    link, far = memory_links()
    connection = make(link, ALICE, BOB, initiator=True)
    channel = connection.add_extension(Echo())
    errors: list[Exception] = []

    async def call() -> None:
        try:
            await channel.call(SEND, Message(), Message)
        except BrokenError as error:
            errors.append(error)

    async with anyio.create_task_group() as callers, anyio.create_task_group() as tasks:
        tasks.start_soon(connection.run)
        callers.start_soon(call)
        await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()
    assert len(errors) == 1
    assert connection.closed.is_set()
    await far.receive()  # What was under way still arrives.
    with pytest.raises(anyio.EndOfStream):
        await far.receive()


async def test_closing_lets_queued_answers_out_first() -> None:
    bob = Echo()
    async with connected(Echo(), bob) as pair:

        async def close(_: bytes) -> None:
            pair.bob.close_nowait(NotAllowedError("done with you"))

        await pair.send(b"warm")
        bob.gate = close
        with pytest.raises(BrokenError):
            await pair.send(b"x")
        assert isinstance(pair.bob.error, NotAllowedError)


async def test_a_slow_peer_makes_callers_wait_instead_of_filling_memory() -> None:
    bob = Echo()
    async with connected(Echo(), bob, latency_s=0.5) as pair:
        await pair.send(b"warm", timeout_s=60.0)
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(pair.send, bytes(100_000), 600.0)
            await anyio.sleep(0.1)
            assert pair.alice._outlet.session.queued_bytes <= CHANNEL_SEND_BYTES + 2 * 100_000
    assert len(bob.got) == 101


async def test_more_calls_than_the_peer_answers_at_once_wait_for_their_turn() -> None:
    bob, gate = Echo(), anyio.Event()
    bob.gate = lambda _: gate.wait()
    async with connected(Echo(), bob) as pair:
        async with anyio.create_task_group() as tasks:
            for number in range(2 * RPC_CALLS_MAX):
                tasks.start_soon(pair.send, str(number).encode(), 60.0)
            await anyio.sleep(1)
            assert len(bob.got) < RPC_CALLS_MAX
            gate.set()
        assert len(bob.got) == 2 * RPC_CALLS_MAX
        assert pair.bob.error is None


async def test_a_stream_of_answers_is_read_to_its_end() -> None:
    bob = Echo()
    bob.items = [b"1", b"2", b"3"]
    async with connected(Echo(), bob) as pair:
        assert pair.channel is not None
        async with await pair.channel.call_stream(START, automerge_pb2.PeerInfo(id="x"), Message) as stream:
            await stream.wait_ready()
            assert [item.payload async for item in stream] == [b"1", b"2", b"3"]


async def test_leaving_a_stream_stops_the_peer() -> None:
    bob = Echo()
    bob.items = [b"1"]
    async with connected(Echo(), bob) as pair:
        assert pair.channel is not None
        async with await pair.channel.call_stream(START, automerge_pb2.PeerInfo(id="forever"), Message) as stream:
            assert (await anext(stream)).payload == b"1"
            await anyio.sleep(3_600)
            assert not bob.stream_ended.is_set()
        with anyio.fail_after(1):
            await bob.stream_ended.wait()


async def test_an_error_ends_a_stream_after_what_came_before_it() -> None:
    bob = Echo()
    bob.items = [b"1"]
    async with connected(Echo(), bob) as pair:
        assert pair.channel is not None
        async with await pair.channel.call_stream(START, automerge_pb2.PeerInfo(id="wrong"), Message) as stream:
            assert (await anext(stream)).payload == b"1"
            with pytest.raises(RemoteError, match="not for you"):
                await anext(stream)


async def test_a_stream_that_is_not_read_is_bounded() -> None:
    bob = Echo()
    bob.items = [b"x"] * (2 * STREAM_VALUES_MAX)
    async with connected(Echo(), bob) as pair:
        assert pair.channel is not None
        async with await pair.channel.call_stream(START, automerge_pb2.PeerInfo(id="x"), Message) as stream:
            await anyio.sleep(1)
            with pytest.raises(DxosError, match="not read fast enough"):
                async for _ in stream:
                    pass


async def test_bytes_of_a_raw_channel_arrive_in_order_also_those_sent_before_it_is_open() -> None:
    async with connected(Echo(), Echo()) as pair:
        await pair.send(b"warm")
        bob_channel = pair.bob.channel("dxos.mesh.teleport.automerge")
        assert pair.channel is not None
        assert bob_channel is not None
        ours = pair.channel.open_raw("feed-1", "application/x-hypercore")
        await ours.send(b"early ")
        await anyio.sleep(1)
        theirs = bob_channel.open_raw("feed-1", "application/x-hypercore")
        await theirs.wait_open()
        await ours.send(b"and late")
        received = b""
        while len(received) < 14:
            received += await theirs.receive(4)
        assert received == b"early and late"
        with pytest.raises(UsageError):
            pair.channel.open_raw("feed-1")
        await theirs.send(b"back")
        assert await ours.receive() == b"back"
        await theirs.aclose()
        await ours.send(b"into the void")
        assert await pair.send(b"x") == b"x"
    with pytest.raises(anyio.EndOfStream):
        await ours.receive()


async def test_a_raw_channel_nobody_reads_stops_the_reader_until_somebody_does() -> None:
    async with connected(Echo(), Echo()) as pair:
        await pair.send(b"warm")
        bob_channel = pair.bob.channel("dxos.mesh.teleport.automerge")
        assert pair.channel is not None
        assert bob_channel is not None
        ours, theirs = pair.channel.open_raw("feed-1"), bob_channel.open_raw("feed-1")
        size = 20 * 1024 * 1024

        async def send_all() -> None:
            for _ in range(size // 65_536):
                await ours.send(bytes(65_536))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_all)
            await anyio.sleep(5)
            received = 0
            while received < size:
                received += len(await theirs.receive())
        assert await pair.send(b"x") == b"x"


async def test_a_connection_is_named_in_one_line() -> None:
    async with connected(Echo(), Echo()) as pair:
        await pair.send(b"x")
        assert repr(pair.alice) == "<Connection 61616161→62626262 initiator open>"
    assert repr(pair.bob) == "<Connection 62626262→61616161 acceptor closed>"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_all_of_it_also_runs_on_asyncio() -> None:
    bob, gate = Echo(), anyio.Event()
    bob.items = [b"1"]

    async def wait(payload: bytes) -> None:
        if payload == b"first":
            await gate.wait()

    bob.gate = wait
    async with connected(Echo(), bob) as pair, anyio.create_task_group() as tasks:
        assert pair.channel is not None
        tasks.start_soon(pair.send, b"first")
        assert await pair.send(bytes(100_000)) == bytes(100_000)
        gate.set()
        async with await pair.channel.call_stream(START, automerge_pb2.PeerInfo(id="forever"), Message) as stream:
            assert (await anext(stream)).payload == b"1"
        with anyio.fail_after(5):
            await bob.stream_ended.wait()
    assert pair.alice.error is pair.bob.error is None
    assert bob.was_cancelled
