"""Messages and descriptors over a socket: in order, bounded, and no descriptor left over."""

import asyncio
import contextlib
import os
import resource
import socket
import sys
from collections.abc import Iterator

import pytest

from dxos.errors import BrokenError, DxosError, LimitError, ProtocolError, StorageAccessError
from dxos.limits import LINK_BUFFER_BYTES_MAX, LINK_MESSAGE_BYTES_MAX
from dxos.worker.links import Deframer, Link, frame

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="sockets of POSIX")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = os.listdir("/proc/self/fd") if sys.platform == "linux" else []
    yield
    if before:
        assert len(os.listdir("/proc/self/fd")) <= len(before)


class End:
    """One end that keeps what it hears."""

    def __init__(self, connection: socket.socket) -> None:
        self.heard: list[tuple[bytes, int | None]] = []
        self.error: DxosError | None = None
        self._something = asyncio.Event()
        self.link = Link(connection, self._receive, self._end)

    def _receive(self, message: bytes, descriptor: int | None) -> None:
        self.heard.append((message, descriptor))
        self._something.set()

    def _end(self, error: DxosError) -> None:
        self.error = error
        self._something.set()

    async def hear(self, count: int) -> list[tuple[bytes, int | None]]:
        async with asyncio.timeout(10):
            while len(self.heard) < count and self.error is None:
                self._something.clear()
                await self._something.wait()
        return self.heard

    async def end(self) -> DxosError:
        await self.hear(sys.maxsize)
        assert self.error is not None
        return self.error


@contextlib.contextmanager
def linked() -> Iterator[tuple[End, End]]:
    ours, theirs = (End(one) for one in socket.socketpair())
    try:
        yield ours, theirs
    finally:
        ours.link.close()
        theirs.link.close()


async def test_messages_and_descriptors_arrive_in_order() -> None:
    reader, writer = os.pipe()
    with linked() as (alice, bob):
        for number in range(300):
            alice.link.send(b"%d" % number * number, reader if number % 3 == 0 else None)
        heard = await bob.hear(300)
        assert [message for message, _ in heard] == [b"%d" % number * number for number in range(300)]
        for number, (_, descriptor) in enumerate(heard):
            assert (descriptor is not None) == (number % 3 == 0)
            if descriptor is not None:
                assert not os.get_inheritable(descriptor)
                assert os.fstat(descriptor).st_ino == os.fstat(reader).st_ino
                os.close(descriptor)
    os.close(reader)
    os.close(writer)


async def test_a_descriptor_may_be_closed_as_soon_as_it_is_sent() -> None:
    with linked() as (alice, bob):
        alice.link.send(bytes(LINK_MESSAGE_BYTES_MAX))  # What follows must wait.
        ours, theirs = socket.socketpair()
        alice.link.send(b"port", theirs.fileno())
        theirs.close()
        descriptor = (await bob.hear(2))[1][1]
        assert descriptor is not None
        with ours, socket.socket(fileno=descriptor) as port:
            port.send(b"hello")
            assert ours.recv(5) == b"hello"


@pytest.mark.parametrize("sends", [False, True])
async def test_a_descriptor_for_which_there_is_no_room_ends_the_link_with_the_reason(sends: bool) -> None:
    with linked() as (alice, bob), socket.socket() as port:
        if not sends:
            alice.link.send(b"port", port.fileno())
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            if sends:
                alice.link.send(b"port", port.fileno())
            error = await (alice if sends else bob).end()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert isinstance(error, StorageAccessError)
    assert "too many files are open" in str(error)
    assert bob.heard == []


async def test_the_end_of_the_other_side_is_told_once() -> None:
    with linked() as (alice, bob):
        alice.link.send(b"last words")
        alice.link.close()
        assert isinstance(await bob.end(), BrokenError)
        assert bob.heard == [(b"last words", None)]
        assert bob.link.closed
        bob.link.send(b"to nobody")


async def test_whoever_finishes_learns_when_the_other_end_closes() -> None:
    with linked() as (alice, bob):
        alice.link.send(b"goodbye")
        ended = alice.link.finish()
        await bob.end()
        assert bob.heard == [(b"goodbye", None)]
        assert not ended.is_set()
        bob.link.close()
        async with asyncio.timeout(10):
            await ended.wait()


async def test_a_process_that_does_not_read_is_given_up() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        alice = End(ours)
        for _ in range(LINK_BUFFER_BYTES_MAX // LINK_MESSAGE_BYTES_MAX + 2):
            alice.link.send(bytes(LINK_MESSAGE_BYTES_MAX))
        assert isinstance(await alice.end(), LimitError)
        alice.link.close()


def test_frames_that_make_no_sense_are_refused() -> None:
    with pytest.raises(LimitError):
        Deframer().receive(b"\xff\xff\xff\xff\x00", [])
    with pytest.raises(LimitError):
        Deframer().receive(b"\x00\x00\x00\x01\x07", [])
    with pytest.raises(ProtocolError, match="descriptor"):
        Deframer().receive(frame(b"x", descriptor=True), [])


def test_descriptors_that_nobody_took_are_closed() -> None:
    deframer = Deframer()
    reader, writer = os.pipe()
    assert deframer.receive(b"", [reader, writer]) == []
    deframer.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(reader)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_frames_may_arrive_in_pieces(size: int) -> None:
    data = frame(b"one") + frame(b"") + frame(b"three")
    deframer = Deframer()
    found = [one for at in range(0, len(data), size) for one in deframer.receive(data[at : at + size], [])]
    assert found == [(b"one", None), (b"", None), (b"three", None)]
