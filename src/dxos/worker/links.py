"""A link: messages, each with a descriptor or none, over a connected unix socket on an asyncio loop.

    frame = length (4 bytes, big-endian) | descriptors (1 byte: 0 or 1) | message

The descriptor travels with the frame's first bytes. The system keeps the order of descriptors, so the next one that
arrived belongs to the next frame that says it has one.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, final

from dxos.errors import BrokenError, DxosError, LimitError, ProtocolError
from dxos.limits import LINK_BUFFER_BYTES_MAX, LINK_DESCRIPTORS_MAX, LINK_MESSAGE_BYTES_MAX
from dxos.store.files import map_os_error

_HEAD_BYTES: Final = 5
_READ_BYTES: Final = 64 * 1024
_CLOEXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_CAN_HAND_OVER: Final = hasattr(socket, "SCM_RIGHTS") and hasattr(socket.socket, "sendmsg")
PORTS: Final = "DX_PORTS"  # Of the environment: `loopback` does without descriptors where they would do.


def are_descriptors_handed_over() -> bool:
    """Whether this process hands over descriptors; else it connects once more, or gives a ticket of `loopback`."""
    return _CAN_HAND_OVER and os.environ.get(PORTS) != "loopback"


def frame(message: bytes, *, descriptor: bool = False) -> bytes:
    """One message as it goes over the line."""
    assert len(message) <= LINK_MESSAGE_BYTES_MAX, "a message of ours fits"
    return len(message).to_bytes(4, "big") + bytes([descriptor]) + message


@final
class Deframer:
    """Turns received bytes and descriptors into messages; owns the descriptors until they are taken."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()

    def receive(self, untrusted: bytes, descriptors: list[int]) -> list[tuple[bytes, int | None]]:
        """Take what arrived; what is whole now.

        Raises:
            PeerError: No frames; nothing more can be received.
        """
        self._buffer += untrusted
        self._descriptors.extend(descriptors)
        found: list[tuple[bytes, int | None]] = []
        while len(self._buffer) >= _HEAD_BYTES:
            length, count = int.from_bytes(self._buffer[:4], "big"), self._buffer[4]
            if length > LINK_MESSAGE_BYTES_MAX or count > 1:
                _close_all(one for _, one in found)
                raise LimitError("A message of another process is too long.", bytes=length)
            if len(self._buffer) < _HEAD_BYTES + length:
                break
            if count and not self._descriptors:
                _close_all(one for _, one in found)
                raise ProtocolError("A message of another process lacks its descriptor.")
            message = bytes(self._buffer[_HEAD_BYTES : _HEAD_BYTES + length])
            del self._buffer[: _HEAD_BYTES + length]
            found.append((message, self._descriptors.popleft() if count else None))
        if len(self._descriptors) > LINK_DESCRIPTORS_MAX:
            raise LimitError("Too many descriptors from another process.")
        return found

    def close(self) -> None:
        """Close the descriptors that nobody took."""
        _close_all(self._descriptors)
        self._descriptors.clear()


@final
class Link:
    """One end; for one event loop, on which its callbacks are called.

    Args:
        connection: Connected; belongs to the link from now on.
        received: Called with each message and its descriptor, which then belongs to the callee.
        ended: Called once if the other end closes or breaks the link; not after `close`, which it still needs.
    """

    def __init__(
        self,
        connection: socket.socket,
        received: Callable[[bytes, int | None], None],
        ended: Callable[[DxosError], None],
    ) -> None:
        connection.setblocking(False)
        self._socket, self._received, self._ended = connection, received, ended
        self._loop = asyncio.get_running_loop()
        self._deframer = Deframer()
        self._waiting: deque[tuple[memoryview, int | None]] = deque()
        self._waiting_bytes = 0
        self.closed = False  # Nothing is sent or received any more.
        self._half = self._closing = False
        self._over = asyncio.Event()
        self._loop.add_reader(connection, self._read)

    def send(self, message: bytes, descriptor: int | None = None) -> None:
        """Send a message; its descriptor is copied now and stays the caller's. Without effect on a closed link."""
        if self.closed:
            return
        try:
            # The caller closes its own at once, and this one may have to wait.
            copy = None if descriptor is None else os.dup(descriptor)
        except OSError as error:
            self._loop.call_soon(self._fail, _mapped(error))
            return
        data = frame(message, descriptor=copy is not None)
        self._waiting.append((memoryview(data), copy))
        self._waiting_bytes += len(data)
        if len(self._waiting) == 1:
            self._write()
        if not self.closed and self._waiting_bytes > LINK_BUFFER_BYTES_MAX:
            self._fail(LimitError("Another process does not read what it is sent."))

    def finish(self) -> asyncio.Event:
        """Send what waits and nothing more, and listen no more; what is set when the other end has closed."""
        self._received, self._ended = _drop, lambda error: self._over.set()
        self._half = True
        if self.closed:
            self._over.set()
        elif not self._waiting:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
        return self._over

    def close_soon(self) -> None:
        """Close as soon as what waits is sent; nothing is heard or told any more."""
        self._received, self._ended = _drop, lambda error: self.close()
        self._closing = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Close; what is not sent yet is lost. Closing twice is no error."""
        self._quiet()
        self.abandon()

    def abandon(self) -> None:
        """Close the descriptors and nothing else: in the child of a fork, where the loop is its parent's."""
        self.closed = True
        self._deframer.close()
        _close_all(one for _, one in self._waiting)
        self._waiting.clear()
        self._socket.close()

    def fileno(self) -> int:
        """The socket's descriptor; -1 when closed."""
        return self._socket.fileno()

    def __repr__(self) -> str:
        return f"<Link {'closed' if self.closed else 'open'} {self._waiting_bytes} bytes waiting>"

    def _read(self) -> None:
        try:
            data, descriptors = receive_some(self._socket)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(_mapped(error))
            return
        if not data:
            self._fail(BrokenError("Another process closed its link."))
            return
        try:
            found = self._deframer.receive(data, descriptors)
        except DxosError as error:
            self._fail(error)
            return
        for number, (message, descriptor) in enumerate(found):
            if self.closed:
                _close_all(one for _, one in found[number:])
                return
            self._received(message, descriptor)

    def _write(self) -> None:
        while self._waiting:
            data, descriptor = self._waiting[0]
            try:
                sent = send_some(self._socket, data, descriptor)
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._write)
                return
            except OSError as error:
                # Soon, because whoever sends does not expect to be called back meanwhile.
                self._loop.call_soon(self._fail, _mapped(error))
                return
            if descriptor is not None:
                os.close(descriptor)
            self._waiting_bytes -= sent
            if sent == len(data):
                self._waiting.popleft()
            else:
                self._waiting[0] = (data[sent:], None)
        self._loop.remove_writer(self._socket)
        if self._closing:
            self.close()
        elif self._half:
            self.finish()

    def _fail(self, error: DxosError) -> None:
        if not self.closed:
            # The socket stays open: that it does may mean something to the other end.
            self._quiet()
            self._ended(error)

    def _quiet(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)


def receive_some(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Some bytes, with the descriptors that came with them; no bytes at the end.

    Raises:
        OSError: What the system says; that no descriptor is left for one that came, too.
    """
    if not _CAN_HAND_OVER:
        return connection.recv(_READ_BYTES), []
    size = array.array("i").itemsize
    data, ancillary, flags, _ = connection.recvmsg(_READ_BYTES, socket.CMSG_LEN(LINK_DESCRIPTORS_MAX * size), _CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % size])
    if flags & socket.MSG_CTRUNC:
        _close_all(descriptors)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    if not _CLOEXEC:
        for one in descriptors:
            os.set_inheritable(one, False)
    return data, list(descriptors)


def send_some(connection: socket.socket, data: memoryview | bytes, descriptor: int | None) -> int:
    """Send some bytes and, with the first of them, a descriptor; how many bytes went.

    Raises:
        OSError: What the system says.
    """
    if descriptor is None:
        return connection.send(data)
    rights = array.array("i", [descriptor])
    return connection.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def _mapped(error: OSError) -> DxosError:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return map_os_error(error, "take a descriptor from another process")
    return BrokenError(f"The link to another process broke ({error.strerror}).")


def _drop(message: bytes, descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _close_all(descriptors: Iterable[int | None]) -> None:
    for one in descriptors:
        if one is not None:
            os.close(one)
