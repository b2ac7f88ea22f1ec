"""The signalling server: who is in a swarm, and messages between peers; nothing is stored, nothing authenticated.

    socket ──Join────────────▶ a stream of SwarmEvent: those present, the joiner itself, later ones, those who leave
           ──ReceiveMessages─▶ a stream of Message
           ──SendMessage─────▶ Empty

Invariants
1. A peer is present in a swarm while at least one socket has joined for it: two sockets of one peer are one presence.
2. What one socket sends or fails to read costs that socket only: `receive` raises, and the driver closes it.
3. Frames wait in a queue of bounded length for each socket; a full queue closes the socket, since a client that
   missed an event would show a false picture, and one that reconnects gets a true one.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import final

import anyio
import anyio.abc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from msgspec import Struct, field

from dxos.errors import DecodeError, LimitError, LinkError, PeerError, ProtocolError
from dxos.limits import (
    SIGNAL_FRAME_BYTES_MAX,
    SIGNAL_OPEN_TIMEOUT_S,
    SIGNAL_PEERS_PER_SWARM_MAX,
    SIGNAL_QUEUE_FRAMES_MAX,
    SIGNAL_REQUESTS_BURST_MAX,
    SIGNAL_REQUESTS_PER_S_MAX,
    SIGNAL_SOCKET_IDLE_S_MAX,
    SIGNAL_SOCKETS_MAX,
    SIGNAL_SWARMS_PER_SOCKET_MAX,
)
from dxos.mesh.signal_session import SERVICE
from dxos.mesh.websocket import WebSocket, accept_websocket
from dxos.wire import decode, encode, pack_any, to_timestamp
from dxos.wire.proto import rpc_pb2, signal_pb2

_KEY_BYTES_MAX = 128


@final
class Socket(Struct, eq=False):
    """What the server knows of one client."""

    number: int
    frames: deque[bytes] = field(default_factory=deque)  # To be sent, oldest first.
    joined: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)  # Stream id to (swarm, peer).
    receiving: dict[int, bytes] = field(default_factory=dict)  # Stream id to peer.
    tokens: float = float(SIGNAL_REQUESTS_BURST_MAX)  # Requests it may make at once.
    filled_at: float = 0.0
    overflowed: bool = False

    def __repr__(self) -> str:
        return f"<Socket {self.number} swarms={len(self.joined)} queued={len(self.frames)}>"


class ServerStats(Struct, frozen=True):
    """How much a server is used just now."""

    sockets: int
    swarms: int
    peers: int  # Distinct (swarm, peer) pairs.
    messages: int  # Delivered since it started.


@final
class SignalServer:
    """The rules, without sockets; `Socket.frames` fill, and `wake` is called with each socket that got some."""

    def __init__(
        self,
        *,
        wake: Callable[[Socket], None],
        on_event: Callable[[str], None] | None = None,
        sockets_max: int = SIGNAL_SOCKETS_MAX,
        peers_max: int = SIGNAL_PEERS_PER_SWARM_MAX,
    ) -> None:
        self._sockets_max, self._peers_max = sockets_max, peers_max
        self._wake, self._tell = wake, on_event or (lambda _: None)
        self._sockets: set[Socket] = set()
        self._swarms: dict[bytes, dict[bytes, dict[tuple[int, int], Socket]]] = {}  # Swarm, peer, (socket, stream).
        self._receivers: dict[bytes, dict[tuple[int, int], Socket]] = {}
        self._numbers = 0
        self._messages = 0

    @property
    def stats(self) -> ServerStats:
        """How much it is used just now."""
        peers = sum(len(swarm) for swarm in self._swarms.values())
        return ServerStats(len(self._sockets), len(self._swarms), peers, self._messages)

    def __repr__(self) -> str:
        stats = self.stats
        return f"<SignalServer sockets={stats.sockets} swarms={stats.swarms} peers={stats.peers}>"

    def open(self, now: float) -> Socket:
        """Take a new client.

        Raises:
            LimitError: There are too many.
        """
        if len(self._sockets) >= self._sockets_max:
            raise LimitError("Too many sockets.", sockets_max=self._sockets_max)
        self._numbers += 1
        socket = Socket(self._numbers, filled_at=now)
        self._sockets.add(socket)
        return socket

    def close(self, socket: Socket) -> None:
        """Forget a client; the others in its swarms are told. Twice is fine."""
        for stream in list(socket.joined):
            self._leave(socket, stream)
        for stream in list(socket.receiving):
            self._stop_receiving(socket, stream)
        socket.frames.clear()
        self._sockets.discard(socket)

    def receive(self, socket: Socket, untrusted_frame: str | bytes, *, now: float, now_ms: int) -> None:
        """Take one frame from a client.

        Raises:
            PeerError: Close this socket.
        """
        self._spend(socket, now)
        if isinstance(untrusted_frame, str):
            return  # `__ping__`, and whatever else a client says to keep the socket warm.
        message = decode(rpc_pb2.RpcMessage, untrusted_frame, bytes_max=SIGNAL_FRAME_BYTES_MAX)
        match message.WhichOneof("content"):
            case "request":
                self._request(socket, message.request, now_ms)
            case "stream_close":
                self._leave(socket, message.stream_close.id)
                self._stop_receiving(socket, message.stream_close.id)
            case "bye":
                raise ProtocolError("The client said goodbye.")

    def _spend(self, socket: Socket, now: float) -> None:
        refilled = socket.tokens + (now - socket.filled_at) * SIGNAL_REQUESTS_PER_S_MAX
        socket.tokens, socket.filled_at = min(refilled, float(SIGNAL_REQUESTS_BURST_MAX)) - 1.0, now
        if socket.tokens < 0.0:
            raise LimitError("A flood of requests.", per_s_max=SIGNAL_REQUESTS_PER_S_MAX)

    def _request(self, socket: Socket, request: rpc_pb2.Request, now_ms: int) -> None:
        payload = request.payload.value
        match request.method.removeprefix(SERVICE + "."):
            case "Join":
                join = decode(signal_pb2.JoinRequest, payload)
                self._join(socket, request.id, _checked(join.swarm), _checked(join.peer), now_ms)
            case "ReceiveMessages":
                reception = decode(signal_pb2.ReceptionRequest, payload)
                self._start_receiving(socket, request.id, _checked(reception.peer))
            case "SendMessage":
                self._deliver(decode(signal_pb2.Message, payload))
                self._answer(socket, request.id, Empty())
            case _:
                error = rpc_pb2.Error(name="Error", message="no such method")
                self._queue(socket, rpc_pb2.Response(id=request.id, error=error))

    def _join(self, socket: Socket, stream: int, topic: bytes, peer: bytes, now_ms: int) -> None:
        self._check_stream(socket, stream)
        swarm = self._swarms.get(topic, {})
        if peer not in swarm and len(swarm) >= self._peers_max:
            raise LimitError("Too many peers in a swarm.", peers_max=self._peers_max)
        self._swarms[topic] = swarm
        self._queue(socket, rpc_pb2.Response(id=stream, stream_ready=True))
        present, is_new = list(swarm), peer not in swarm
        swarm.setdefault(peer, {})[socket.number, stream] = socket
        socket.joined[stream] = (topic, peer)
        for other in present:
            if other != peer:
                self._answer(socket, stream, _available(other, now_ms))
        arrival = _available(peer, now_ms)
        if is_new:
            for watcher, watching in _streams(swarm):
                self._answer(watcher, watching, arrival)
            self._tell(f"{_short(peer)} joined {_short(topic)}: {len(swarm)} peers")
        else:
            self._answer(socket, stream, arrival)

    def _leave(self, socket: Socket, stream: int) -> None:
        if stream not in socket.joined:
            return
        topic, peer = socket.joined.pop(stream)
        swarm = self._swarms[topic]
        del swarm[peer][socket.number, stream]
        if swarm[peer]:
            return
        del swarm[peer]
        departure = signal_pb2.SwarmEvent(peer_left=signal_pb2.SwarmEvent.PeerLeft(peer=peer))
        for watcher, watching in _streams(swarm):
            self._answer(watcher, watching, departure)
        self._tell(f"{_short(peer)} left {_short(topic)}: {len(swarm)} peers")
        if not swarm:
            del self._swarms[topic]

    def _start_receiving(self, socket: Socket, stream: int, peer: bytes) -> None:
        self._check_stream(socket, stream)
        receivers = self._receivers.setdefault(peer, {})
        receivers[socket.number, stream] = socket
        socket.receiving[stream] = peer
        self._queue(socket, rpc_pb2.Response(id=stream, stream_ready=True))

    def _stop_receiving(self, socket: Socket, stream: int) -> None:
        if stream not in socket.receiving:
            return
        peer = socket.receiving.pop(stream)
        del self._receivers[peer][socket.number, stream]
        if not self._receivers[peer]:
            del self._receivers[peer]

    def _deliver(self, message: signal_pb2.Message) -> None:
        """Hand a message to every socket that receives for its recipient: repeats are the receiver's to drop."""
        _checked(message.author)
        for (_, stream), receiver in list(self._receivers.get(_checked(message.recipient), {}).items()):
            self._answer(receiver, stream, message)
            self._messages += 1

    def _check_stream(self, socket: Socket, stream: int) -> None:
        if stream in socket.joined or stream in socket.receiving:
            raise ProtocolError("A request's number is in use.", id=stream)
        if len(socket.joined) + len(socket.receiving) >= 2 * SIGNAL_SWARMS_PER_SOCKET_MAX:
            raise LimitError("Too many swarms on one socket.", swarms_max=SIGNAL_SWARMS_PER_SOCKET_MAX)

    def _answer(self, socket: Socket, stream: int, payload: Message) -> None:
        self._queue(socket, rpc_pb2.Response(id=stream, payload=pack_any(payload, dot=True)))

    def _queue(self, socket: Socket, response: rpc_pb2.Response) -> None:
        if len(socket.frames) >= SIGNAL_QUEUE_FRAMES_MAX:
            socket.overflowed = True  # The driver closes it; here, others' events must still go out.
        else:
            socket.frames.append(encode(rpc_pb2.RpcMessage(response=response)))
        self._wake(socket)


def _streams(swarm: dict[bytes, dict[tuple[int, int], Socket]]) -> list[tuple[Socket, int]]:
    return [(socket, stream) for streams in swarm.values() for (_, stream), socket in streams.items()]


def _available(peer: bytes, now_ms: int) -> signal_pb2.SwarmEvent:
    available = signal_pb2.SwarmEvent.PeerAvailable(peer=peer, since=to_timestamp(now_ms))
    return signal_pb2.SwarmEvent(peer_available=available)


def _checked(untrusted_key: bytes) -> bytes:
    if not 1 <= len(untrusted_key) <= _KEY_BYTES_MAX:
        raise DecodeError("A key of impossible length.", bytes=len(untrusted_key))
    return untrusted_key


def _short(key: bytes) -> str:
    return key.hex()[:8]


# --- Driver -----------------------------------------------------------------------------------------------------------


@final
class _Writers:
    """What connects the machine with each socket's tasks."""

    def __init__(self) -> None:
        self._changed: dict[int, anyio.Event] = {}
        self._scopes: dict[int, anyio.CancelScope] = {}

    def wake(self, socket: Socket) -> None:
        """Let a socket's frames be written, or end it if they are too many."""
        if socket.overflowed and socket.number in self._scopes:
            self._scopes[socket.number].cancel()  # Its writer may be stuck in a send for ever.
        elif socket.number in self._changed:
            self._changed[socket.number].set()

    async def write(self, socket: Socket, websocket: WebSocket) -> None:
        """Send what is queued until cancelled."""
        while True:
            changed = self._changed[socket.number] = anyio.Event()  # Renewed before looking, so no frame is missed.
            while socket.frames:
                await websocket.send(socket.frames.popleft())
            await changed.wait()

    def watch(self, socket: Socket, scope: anyio.CancelScope) -> None:
        """Cancel this scope when the socket overflows."""
        self._scopes[socket.number] = scope

    def forget(self, socket: Socket) -> None:
        """The socket is closed."""
        self._changed.pop(socket.number, None)
        self._scopes.pop(socket.number, None)


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


async def serve_signal(
    host: str,
    port: int,
    *,
    on_event: Callable[[str], None] | None = None,
    now_ms: Callable[[], int] = _wall_clock_ms,
    task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve signalling until cancelled.

    Args:
        host: An address to listen on; "127.0.0.1" for this machine only.
        port: 0 chooses a free one.
        on_event: Is given one line for each peer that joins or leaves, and each socket that is thrown out.
        now_ms: The wall clock, milliseconds since 1970.
        task_status: Reports the port once it listens.

    Raises:
        OSError: The address cannot be listened on.
    """
    writers = _Writers()
    server = SignalServer(wake=writers.wake, on_event=on_event)

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            try:
                socket = server.open(anyio.current_time())
            except LimitError:
                return
            try:
                await _serve_stream(server, writers, socket, stream, now_ms)
            except* PeerError as errors:
                if on_event is not None:
                    on_event(f"socket {socket.number} closed: {_first(errors)}")
            except* LinkError:
                pass  # The client left; its swarms are told below.
            finally:
                server.close(socket)
                writers.forget(socket)

    async with await anyio.create_tcp_listener(local_host=host, local_port=port) as listener:
        task_status.started(int(listener.extra(anyio.abc.SocketAttribute.local_port)))  # noqa: S610
        await listener.serve(handle)


async def _serve_stream(
    server: SignalServer, writers: _Writers, socket: Socket, stream: anyio.abc.ByteStream, now_ms: Callable[[], int]
) -> None:
    try:
        with anyio.fail_after(SIGNAL_OPEN_TIMEOUT_S):
            websocket = await accept_websocket(stream)
    except TimeoutError:
        raise ProtocolError("The client connected and said nothing.") from None
    try:
        async with anyio.create_task_group() as tasks:
            writers.watch(socket, tasks.cancel_scope)
            tasks.start_soon(writers.write, socket, websocket)
            await _read(server, socket, websocket, now_ms)
        raise LimitError("The client reads too slowly.", frames_max=SIGNAL_QUEUE_FRAMES_MAX)
    finally:
        await websocket.aclose()


async def _read(server: SignalServer, socket: Socket, websocket: WebSocket, now_ms: Callable[[], int]) -> None:
    while True:
        with anyio.move_on_after(SIGNAL_SOCKET_IDLE_S_MAX) as waiting:
            frame = await websocket.receive()
        if waiting.cancelled_caught:
            raise ProtocolError("The client went silent.", idle_s=SIGNAL_SOCKET_IDLE_S_MAX)
        server.receive(socket, frame, now=anyio.current_time(), now_ms=now_ms())


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
