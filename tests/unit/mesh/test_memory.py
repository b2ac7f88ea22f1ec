"""Links in memory behave as sockets do, and can be cut as cables can."""

import anyio
import pytest

from dxos.mesh.memory import memory_links

pytestmark = pytest.mark.anyio


async def test_bytes_arrive_in_order_and_as_many_as_asked_for() -> None:
    near, far = memory_links()
    await near.send(b"hello ")
    await near.send(b"world")
    assert await far.receive(3) == b"hel"
    assert await far.receive() == b"lo "
    assert await far.receive() == b"world"


async def test_bytes_take_the_time_of_the_link() -> None:
    near, far = memory_links(latency_s=2.0)
    started = anyio.current_time()
    await near.send(b"x")
    assert anyio.current_time() == started
    assert await far.receive() == b"x"
    assert anyio.current_time() - started == pytest.approx(2.0)


async def test_a_full_link_makes_the_sender_wait() -> None:
    near, far = memory_links(buffer_bytes_max=4)
    with anyio.move_on_after(10) as waiting:
        await near.send(b"too long")
    assert waiting.cancelled_caught
    assert await far.receive() == b"too "
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(near.send, b"12345")
        received = b""
        while len(received) < 5:
            received += await far.receive()
    assert received == b"12345"


async def test_after_closing_the_other_end_reads_the_rest_and_then_the_end() -> None:
    near, far = memory_links()
    await near.send(b"rest")
    await near.aclose()
    await near.aclose()
    assert await far.receive() == b"rest"
    with pytest.raises(anyio.EndOfStream):
        await far.receive()
    with pytest.raises(anyio.BrokenResourceError):
        await far.send(b"x")
    with pytest.raises(anyio.ClosedResourceError):
        await near.send(b"x")


async def test_closing_wakes_a_sender_and_a_receiver_of_the_other_end() -> None:
    near, far = memory_links(buffer_bytes_max=1)
    outcomes: list[str] = []

    async def send() -> None:
        try:
            await far.send(b"xx")
        except anyio.BrokenResourceError:
            outcomes.append("broken")

    async def receive() -> None:
        try:
            await far.receive()
        except anyio.EndOfStream:
            outcomes.append("end")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        tasks.start_soon(receive)
        await anyio.sleep(1)
        await near.aclose()
    assert sorted(outcomes) == ["broken", "end"]


async def test_a_half_closed_link_still_carries_bytes_back() -> None:
    near, far = memory_links()
    await near.send_eof()
    with pytest.raises(anyio.EndOfStream):
        await far.receive()
    await far.send(b"back")
    assert await near.receive() == b"back"


async def test_a_cut_link_swallows_everything_silently() -> None:
    near, far = memory_links(buffer_bytes_max=2)
    await near.send(b"xx")
    near.cut()
    await near.send(b"much more than fits")
    with anyio.move_on_after(3_600) as waiting:
        await far.receive()
    assert waiting.cancelled_caught
    await near.aclose()
    assert repr(far) == "<MemoryStream cut incoming_bytes=2>"


async def test_a_reset_link_is_broken_at_both_ends() -> None:
    near, far = memory_links()
    far.reset()
    for end in (near, far):
        with pytest.raises(anyio.BrokenResourceError):
            await end.receive()
        with pytest.raises(anyio.BrokenResourceError):
            await end.send(b"x")
