"""TCP between two processes of one machine: the initiator listens on loopback and signals its port.

The bytes are in plain text, which is why no other address is allowed. Any process of the machine may connect to the
port first; it then holds a connection that fails the authentication above, and the session is tried again.
"""

import contextlib
import ipaddress
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final, final

import anyio
import anyio.abc

from dxos.errors import ProtocolError, TransportError
from dxos.mesh.transport import Link

_LOOPBACK = "127.0.0.1"
_PORT_MAX = 0xFFFF
# Linux only, and elsewhere the wait below is shorter.
_QUICK_ACKNOWLEDGEMENT: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)


@final
class TcpTransport:
    """Implements `Transport` on loopback.

    Args:
        host: Where to listen and connect.

    Raises:
        TransportError: No loopback address.
    """

    def __init__(self, *, host: str = _LOOPBACK) -> None:
        if not _is_loopback(host):
            raise TransportError(
                "TCP is not encrypted, so it only connects processes of one machine: use 127.0.0.1.", host=host
            )
        # One family only: a listener on two would get two ports, and only one can be signalled.
        self._host = _LOOPBACK if host == "localhost" else host

    def __repr__(self) -> str:
        return f"<TcpTransport {self._host}>"

    async def connect(self, link: Link) -> anyio.abc.ByteStream:
        """See `Transport.connect`."""
        return await (self._listen(link) if link.initiator else self._dial(link))

    async def _listen(self, link: Link) -> anyio.abc.ByteStream:
        try:
            listeners = await anyio.create_tcp_listener(local_host=self._host, local_port=0, backlog=1)
        except OSError as error:
            raise TransportError("No port can be listened on.") from error
        async with listeners:
            (listener,) = listeners.listeners
            link.send_signal({"port": listener.extra(anyio.abc.SocketAttribute.local_port)})  # noqa: S610
            assert isinstance(listener, anyio.abc.SocketListener)
            return _PromptStream(await listener.accept())

    async def _dial(self, link: Link) -> anyio.abc.ByteStream:
        payload = await link.receive_signal()
        port, host = payload.get("port"), payload.get("host", self._host)
        if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= _PORT_MAX:
            raise ProtocolError("The peer signalled no port.")
        if not isinstance(host, str) or not _is_loopback(host):
            raise TransportError("The peer asks for a connection to another machine, and TCP is not encrypted.")
        try:
            return _PromptStream(await anyio.connect_tcp(self._host, port))
        except OSError as error:
            raise TransportError("The peer's port does not answer.", port=port) from error


@final
class _PromptStream(anyio.abc.ByteStream):
    """A TCP stream that acknowledges at once what it has received.

    0.8.3 leaves Nagle's algorithm on and writes a message in parts: the second part is not sent before the first is
    acknowledged, which Linux puts off for 40 ms. A space of 200 objects took 18 s instead of one.
    """

    def __init__(self, inner: anyio.abc.ByteStream) -> None:
        self._inner = inner
        self._socket: socket.socket = inner.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await self._inner.receive(max_bytes)
        if _QUICK_ACKNOWLEDGEMENT is not None:
            # The system forgets it with the next bytes that we send. A socket closed meanwhile shows at the next read.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACKNOWLEDGEMENT, 1)
        return data

    async def send(self, item: bytes) -> None:
        await self._inner.send(item)

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def aclose(self) -> None:
        await self._inner.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._inner.extra_attributes


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
