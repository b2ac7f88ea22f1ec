"""One end of a session: frames, goodbyes, and others that break the rules."""

import anyio
import pytest

from dxos.errors import LimitError, PeerError
from dxos.limits import MESSAGE_BYTES_MAX
from dxos.mesh.memory import memory_links
from dxos.services.port import Port
from dxos.teleport.rpc import Closed, Envelope, Event, Opened, Requested
from dxos.wire.proto import values_pb2

pytestmark = pytest.mark.anyio


async def test_a_goodbye_ends_both_sides_in_order() -> None:
    ours, theirs = memory_links()
    heard: list[Event] = []
    here, there = Port(ours, lambda _: None), Port(theirs, heard.append)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here.run)
        tasks.start_soon(there.run)
        await anyio.sleep(1)
        here.close()
    assert heard == [Opened(), Closed(in_order=True)]


async def test_a_stream_that_ends_is_no_goodbye() -> None:
    ours, theirs = memory_links()
    heard: list[Event] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Port(theirs, heard.append).run)
        await ours.aclose()
    assert heard == [Closed()]


async def test_who_does_not_read_what_it_asked_for_is_told_so_and_costs_no_more_memory() -> None:
    ours, theirs = memory_links(buffer_bytes_max=1_000)
    asked: list[int] = []

    def hear(event: Event) -> None:
        if isinstance(event, Requested):
            asked.append(event.id)

    port = Port(theirs, hear, queue_bytes_max=10_000)
    client = Port(ours, lambda _: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(port.run)
        async with anyio.create_task_group() as reading:
            reading.start_soon(client.run)
            client.rpc.call("a.B", values_pb2.Any(), stream=True)
            client.flush()
            await anyio.sleep(1)
            assert len(asked) == 1
            port.rpc.send_envelope(asked[0], Envelope("x", bytes(100_000)))
            with pytest.raises(LimitError, match="does not read"):
                port.flush()
            reading.cancel_scope.cancel()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "untrusted",
    [
        (MESSAGE_BYTES_MAX + 1).to_bytes(4, "big"),
        b"\x00\x00\x00\x02\xff\xff",
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
    ],
)
async def test_bytes_that_are_no_frames_end_the_session(untrusted: bytes) -> None:
    ours, theirs = memory_links()
    await ours.send(untrusted)
    with pytest.raises((PeerError, ExceptionGroup)):
        await Port(theirs, lambda _: None).run()


async def test_what_is_not_urgent_goes_at_once_after_a_pause_and_together_under_load() -> None:
    ours, theirs = memory_links()
    port = Port(theirs, lambda _: None)
    pieces: list[bytes] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(port.run)
        await anyio.sleep(1)
        await ours.receive()  # Its `open`.
        began = anyio.current_time()
        for number in range(10):
            port.rpc.outgoing.append(bytes([number]))
            port.flush(is_urgent=False)
            await anyio.sleep(0.0001)
        while sum(map(len, pieces)) < 50:
            pieces.append(await ours.receive())
        assert len(pieces[0]) == 5, "the first does not wait"
        assert len(pieces) <= 3
        assert anyio.current_time() - began < 0.01
        tasks.cancel_scope.cancel()
