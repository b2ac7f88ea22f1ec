"""Websockets over anyio: the `websockets` library's protocol without its event loop, and one task at a time reading."""

import ssl
from typing import final
from urllib.parse import urlsplit

import anyio
import anyio.abc
from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from dxos.errors import BrokenError, ConfigError, DecodeError, DxosError, ProtocolError, SignalError
from dxos.limits import SIGNAL_FRAME_BYTES_MAX, SIGNAL_HEADER_BYTES_MAX, SIGNAL_OPEN_TIMEOUT_S

_READ_BYTES = 65_536
_PORTS = {"ws": 80, "wss": 443}


@final
class WebSocket:
    """An open websocket; made by `open_websocket` and `accept_websocket`."""

    def __init__(self, stream: anyio.abc.ByteStream, protocol: ClientProtocol | ServerProtocol) -> None:
        self._stream, self._protocol = stream, protocol
        self._sending = anyio.Lock()
        self._parts: list[bytes] = []
        self._text = False
        self._ready: list[str | bytes] = []
        self.heard_at = anyio.current_time()  # When the other side last sent anything, by the event loop's clock.

    def __repr__(self) -> str:
        return f"<WebSocket {self._protocol.side.name.lower()} {self._protocol.state.name}>"

    async def send(self, message: str | bytes) -> None:
        """Send one text or binary frame; waits while the other side is slow.

        Raises:
            BrokenError: The socket is closed.

        Cancelling may leave half a frame sent: close the socket.
        """
        try:
            if isinstance(message, str):
                self._protocol.send_text(message.encode())
            else:
                self._protocol.send_binary(message)
        except WebSocketException as error:
            raise BrokenError("The websocket is closed.") from error
        await self._flush()

    async def ping(self) -> None:
        """Have the other side answer, which `heard_at` shows.

        Raises:
            BrokenError: The socket is closed.
        """
        try:
            self._protocol.send_ping(b"")
        except WebSocketException as error:
            raise BrokenError("The websocket is closed.") from error
        await self._flush()

    async def receive(self) -> str | bytes:
        """Return the next message.

        Raises:
            BrokenError: The socket was closed, in order or not.
            PeerError: The other side broke the protocol, or sent too long a message.
        """
        while not self._ready:
            if not await self._read():
                raise BrokenError("The websocket was closed.")
            for event in self._protocol.events_received():
                if isinstance(event, Frame):
                    self._take(event)
            await self._flush()  # Answers to pings and closes, which the protocol has queued.
        return self._ready.pop(0)

    async def aclose(self) -> None:
        """Close the socket at once, telling the other side if that needs no waiting."""
        with anyio.move_on_after(0.1, shield=True):  # Courtesy only.
            try:
                self._protocol.send_close()
                await self._flush()
            except (WebSocketException, DxosError):
                pass  # Closed already.
        with anyio.CancelScope(shield=True):
            await anyio.aclose_forcefully(self._stream)

    def _take(self, frame: Frame) -> None:
        match frame.opcode:
            case Opcode.TEXT | Opcode.BINARY:
                self._parts, self._text = [bytes(frame.data)], frame.opcode is Opcode.TEXT
            case Opcode.CONT:
                self._parts.append(bytes(frame.data))
            case _:
                return
        if frame.fin:
            data, self._parts = b"".join(self._parts), []
            try:
                self._ready.append(data.decode() if self._text else data)
            except UnicodeDecodeError as error:
                raise DecodeError("A text frame that is not UTF-8.") from error

    async def _read(self) -> bool:
        """Feed the protocol once; False at the end."""
        try:
            self._protocol.receive_data(await self._stream.receive(_READ_BYTES))
        except anyio.EndOfStream:
            return False
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise BrokenError("The websocket broke.") from error
        self.heard_at = anyio.current_time()
        if self._protocol.parser_exc is not None and not isinstance(self._protocol.parser_exc, EOFError):
            await self._flush()
            raise ProtocolError("The other side broke the websocket protocol.") from self._protocol.parser_exc
        return True

    async def _flush(self) -> None:
        async with self._sending:
            data = b"".join(self._protocol.data_to_send())
            if not data:
                return
            try:
                await self._stream.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                raise BrokenError("The websocket broke.") from error


def check_address(address: str) -> None:
    """Check a websocket address.

    Raises:
        ConfigError: It does not begin with ws:// or wss://, or names no host.
    """
    try:
        parts = urlsplit(address)
        if parts.scheme in _PORTS and parts.hostname and (parts.port is None or parts.port > 0):
            return
    except ValueError:
        pass
    raise ConfigError(f"A signalling server's address looks like ws://host:port/path, not {address[:200]!r}")


async def open_websocket(address: str) -> WebSocket:
    """Connect to a server.

    Args:
        address: `ws://` or `wss://`.

    Raises:
        ConfigError: Not such an address.
        SignalError: Nobody answers there, or not with a websocket, within SIGNAL_OPEN_TIMEOUT_S.
    """
    check_address(address)
    uri = parse_uri(address)
    try:
        with anyio.fail_after(SIGNAL_OPEN_TIMEOUT_S):
            if uri.secure:
                context = ssl.create_default_context()
                stream: anyio.abc.ByteStream = await anyio.connect_tcp(
                    uri.host, uri.port, tls=True, ssl_context=context, tls_standard_compatible=False
                )
            else:
                stream = await anyio.connect_tcp(uri.host, uri.port)
            try:
                protocol = ClientProtocol(uri, max_size=SIGNAL_FRAME_BYTES_MAX)
                socket = WebSocket(stream, protocol)
                protocol.send_request(protocol.connect())
                await socket._flush()
                while not any(isinstance(event, Response) for event in protocol.events_received()):
                    if not await socket._read():
                        raise SignalError("The signalling server hung up.")
                if protocol.handshake_exc is not None:
                    raise SignalError("The address is not that of a signalling server.") from protocol.handshake_exc
            except BaseException:
                await anyio.aclose_forcefully(stream)
                raise
    except (OSError, TimeoutError, ssl.SSLError) as error:
        raise SignalError(f"The signalling server does not answer: {address}") from error
    except (WebSocketException, BrokenError, ProtocolError) as error:
        raise SignalError("The address is not that of a signalling server.") from error
    return socket


async def accept_websocket(stream: anyio.abc.ByteStream) -> WebSocket:
    """Answer a client's handshake on a connection just accepted; any path is served, and the caller sets a deadline.

    Raises:
        DecodeError: Not a websocket handshake, or too long a one.
        BrokenError: The client went away.
    """
    protocol = ServerProtocol(max_size=SIGNAL_FRAME_BYTES_MAX)
    socket = WebSocket(stream, protocol)
    read_bytes = 0
    while True:
        try:
            untrusted = await stream.receive(4096)
        except anyio.EndOfStream:
            raise BrokenError("The client hung up.") from None
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise BrokenError("The client hung up.") from error
        read_bytes += len(untrusted)
        if read_bytes > SIGNAL_HEADER_BYTES_MAX:
            raise DecodeError("Too long a handshake.")
        protocol.receive_data(untrusted)
        request = next((event for event in protocol.events_received() if isinstance(event, Request)), None)
        if request is not None:
            break
        if protocol.handshake_exc is not None or protocol.parser_exc is not None:
            raise DecodeError("Not a websocket handshake.")
    protocol.send_response(protocol.accept(request))
    await socket._flush()
    if protocol.handshake_exc is not None:
        raise DecodeError("Not a websocket handshake.") from protocol.handshake_exc
    for event in protocol.events_received():  # What came with the handshake.
        if isinstance(event, Frame):
            socket._take(event)
    return socket
