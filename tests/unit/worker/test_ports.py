"""A session's socket as a byte stream of asyncio."""

import socket
from collections.abc import AsyncIterator

import anyio
import pytest

from dxos.worker.ports import SocketPort

LONG = bytes(range(256)) * 40_000  # More than the system and the port take in ahead.


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def ports(anyio_backend: str) -> AsyncIterator[tuple[SocketPort, SocketPort]]:
    one, other = (SocketPort(connection) for connection in socket.socketpair())
    yield one, other
    await one.aclose()
    await other.aclose()


Ports = tuple[SocketPort, SocketPort]


async def test_bytes_arrive_in_order_and_in_pieces_as_long_as_is_asked_for(ports: Ports) -> None:
    one, other = ports
    await one.send(b"first")
    await one.send(b"second")
    with anyio.fail_after(5):
        assert [await other.receive(4), await other.receive(4), await other.receive(4)] == [b"firs", b"tsec", b"ond"]


async def test_who_sends_more_than_is_read_waits_and_loses_nothing(ports: Ports) -> None:
    one, other = ports
    sent = anyio.Event()

    async def send() -> None:
        await one.send(LONG)
        sent.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            assert not sent.is_set(), "the reader has a limit"
            received = b""
            while len(received) < len(LONG):
                received += await other.receive()
    assert received == LONG


async def test_what_was_sent_before_the_end_is_read_before_the_end(ports: Ports) -> None:
    one, other = ports
    await one.send(b"last words")
    await one.send_eof()
    with anyio.fail_after(5):
        assert await other.receive() == b"last words"
        with pytest.raises(anyio.EndOfStream):
            await other.receive()
        await other.send(b"still here")
        assert await one.receive() == b"still here"


async def test_closing_wakes_who_reads_and_who_writes(ports: Ports) -> None:
    one, other = ports
    raised: list[type[Exception]] = []

    async def read() -> None:
        try:
            await one.receive()
        except anyio.ClosedResourceError as error:
            raised.append(type(error))

    async def write() -> None:
        try:
            await one.send(LONG)
        except anyio.ClosedResourceError as error:
            raised.append(type(error))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(write)
            await anyio.wait_all_tasks_blocked()
            await one.aclose()
    assert raised == [anyio.ClosedResourceError] * 2
    with pytest.raises(anyio.ClosedResourceError):
        await one.send(b"too late")
    await one.aclose()
    del other


async def test_the_other_end_being_gone_is_told_to_who_writes(ports: Ports) -> None:
    one, other = ports
    await other.aclose()
    with pytest.raises(anyio.BrokenResourceError):
        await one.send(b"hello")
    with pytest.raises(anyio.EndOfStream):
        await one.receive()


async def test_cancelling_a_read_loses_nothing(ports: Ports) -> None:
    one, other = ports
    with anyio.move_on_after(0.01):
        await other.receive()
    await one.send(b"hello")
    with anyio.fail_after(5):
        assert await other.receive() == b"hello"
