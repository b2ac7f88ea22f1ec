"""The door of a worker, over real sockets of the loopback address."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import anyio.lowlevel
import pytest

from dxos.errors import LinkError
from dxos.limits import LOOPBACK_TOKEN_BYTES, LOOPBACK_TRIES_MAX
from dxos.worker.links import are_descriptors_handed_over
from dxos.worker.loopback import ADDRESS, Door, Ticket, enter
from dxos.worker.messages import ProvidePort, Session, decode, encode
from dxos.worker.ports import stream_of

pytestmark = pytest.mark.anyio
WRONG = bytes(LOOPBACK_TOKEN_BYTES)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door()
    with contextlib.closing(door):
        yield door


async def come_in(ticket: Ticket) -> socket.socket:
    return await enter(ticket.port, ticket.token.hex(), ticket.answer.hex())


async def test_who_has_the_ticket_comes_in_and_the_connection_is_a_stream(door: Door) -> None:
    ticket = door.offer()
    ours, theirs = await asyncio.gather(come_in(ticket), door.wait(ticket))
    assert theirs is not None
    async with await stream_of(ours) as client, await stream_of(theirs) as worker:
        await client.send(b"hello")
        assert await worker.receive() == b"hello"
        await worker.send(b"and you")
        assert await client.receive() == b"and you"


async def test_a_ticket_is_good_for_one(door: Door) -> None:
    ticket = door.offer()
    first, admitted = await asyncio.gather(come_in(ticket), door.wait(ticket))
    assert admitted is not None
    with first, admitted:
        second = asyncio.create_task(come_in(ticket))
        with socket.create_connection((ADDRESS, ticket.port)) as stranger:
            # The stranger ends at once; the second waits for an answer until it ends itself.
            stranger.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(stranger, WRONG * LOOPBACK_TRIES_MAX)
            assert await asyncio.get_running_loop().sock_recv(stranger, 1) == b""
        assert not second.done()
        second.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await second


async def test_strangers_disturb_nobody(door: Door) -> None:
    tickets = [door.offer() for _ in range(3)]
    strangers = [socket.create_connection((ADDRESS, tickets[0].port)) for _ in range(80)]
    for number, one in enumerate(strangers):
        with contextlib.suppress(OSError):
            one.send(WRONG * LOOPBACK_TRIES_MAX if number % 2 else WRONG[:5])
    waiting = [asyncio.create_task(door.wait(one)) for one in tickets]
    ours = await asyncio.gather(*(come_in(one) for one in tickets))
    for one, theirs in zip(ours, await asyncio.gather(*waiting), strict=True):
        assert theirs is not None
        with one, theirs:
            assert theirs.getpeername() == one.getsockname(), "each has the connection of its own ticket"
    for one in strangers:
        one.close()


async def test_a_ticket_whose_wait_was_cancelled_is_withdrawn(door: Door) -> None:
    ticket = door.offer()
    waiting = asyncio.create_task(door.wait(ticket))
    for _ in range(2):
        await anyio.lowlevel.checkpoint()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert repr(door) == "<Door <Doorkeeper offers=0 waiting=0>>"


async def test_what_took_the_place_of_a_dead_worker_is_not_taken_for_it() -> None:
    async def pass_for_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(LOOPBACK_TOKEN_BYTES))
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(pass_for_it, ADDRESS, 0) as server:
        with pytest.raises(LinkError, match="not the worker"):
            await enter(server.sockets[0].getsockname()[1], "01" * LOOPBACK_TOKEN_BYTES, "02" * LOOPBACK_TOKEN_BYTES)


@pytest.mark.parametrize("what", ["closed door", "no such port", "no token"])
async def test_a_ticket_of_no_use_is_an_error_of_the_link(what: str) -> None:
    with contextlib.closing(Door()) as door:
        ticket = door.offer()
        port, token = ticket.port, ticket.token.hex()
    with pytest.raises(LinkError) as caught:
        await enter(70_000 if what == "no such port" else port, "?" if what == "no token" else token, token)
    assert token not in f"{caught.value!r} {caught.value.detail}"


async def test_a_ticket_travels_and_is_shown_by_no_repr(door: Door) -> None:
    ticket = door.offer()
    token, answer = ticket.token.hex(), ticket.answer.hex()
    session = Session("client", 1, ticket.port, token, answer)
    port = ProvidePort("client", 1, 2, "worker", "alive", "0.1.0", ticket.port, token, answer)
    for message in (session, port):
        assert decode(encode(message)) == message
        assert f"port={ticket.port}" in repr(message)
    shown = repr((ticket, session, port, door))
    assert not [secret for secret in (token, answer, repr(ticket.token), repr(ticket.answer)) if secret in shown]


def test_descriptors_are_preferred_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DX_PORTS", raising=False)
    assert are_descriptors_handed_over() is hasattr(socket, "SCM_RIGHTS")
    monkeypatch.setenv("DX_PORTS", "loopback")
    assert not are_descriptors_handed_over()
