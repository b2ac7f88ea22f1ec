"""The client's side of one socket to a signalling server, as a machine: calls out, events in.

Invariants
1. Requests are numbered from 0; an answer to a number that is not open is ignored, because a stream we closed may
   still deliver what was on its way.
2. Messages of a peer are received while that peer has joined at least one topic.
3. Whatever the server sends, only a `PeerError` comes out of `receive`, and the socket is then closed.
"""

from collections.abc import Iterable
from typing import final

from google.protobuf.message import Message
from msgspec import Struct

from dxos.errors import DecodeError, LimitError, ProtocolError, RemoteError
from dxos.keys import PublicKey
from dxos.limits import RPC_CALLS_MAX, SIGNAL_FRAME_BYTES_MAX, SIGNAL_PEERS_PER_SWARM_MAX, SIGNAL_READY_TIMEOUT_S
from dxos.mesh.signal import PeerAvailable, PeerLeft, Received, SignalEvent
from dxos.wire import decode, encode, pack_any
from dxos.wire.proto import rpc_pb2, signal_pb2, values_pb2

SERVICE = "dxos.mesh.signal.Signal"


class _Joined(Struct, frozen=True):
    """An open stream of one swarm's events."""

    topic: PublicKey
    peer: PublicKey


class _Receiving(Struct, frozen=True):
    """An open stream of one peer's messages."""

    peer: PublicKey


class _Sent(Struct, frozen=True):
    """A message whose receipt the server has not confirmed."""


@final
class SignalSession:
    """One socket; frames to send gather in `take_frames`."""

    def __init__(self) -> None:
        self._next_id = 0
        self._open: dict[int, _Joined | _Receiving | _Sent] = {}
        self._ready_by: dict[int, float] = {}  # Streams the server has not confirmed: until when it must.
        self._frames: list[bytes] = []
        self._peers: dict[tuple[PublicKey, PublicKey], set[PublicKey]] = {}  # Announced, by (topic, our peer).
        self._unconfirmed = 0

    def __repr__(self) -> str:
        return f"<SignalSession {len(self._peers)} swarms, {self._unconfirmed} unconfirmed>"

    @property
    def deadline(self) -> float | None:
        """When `check` must be called, unless the server answers before."""
        return min(self._ready_by.values(), default=None)

    def check(self, now: float) -> None:
        """Fail if the server did not confirm a stream in time.

        Raises:
            ProtocolError: It did not.
        """
        deadline = self.deadline
        if deadline is not None and now >= deadline:
            raise ProtocolError("The signalling server does not answer.", timeout_s=SIGNAL_READY_TIMEOUT_S)

    def take_frames(self) -> list[bytes]:
        """What is to be sent, in order; each is one binary frame."""
        frames, self._frames = self._frames, []
        return frames

    def join(self, topic: PublicKey, peer: PublicKey, now: float) -> None:
        """Announce ourselves in a swarm; joining twice is no error."""
        if (topic, peer) in self._peers:
            return
        if not any(joined == peer for _, joined in self._peers):
            reception = signal_pb2.ReceptionRequest(peer=bytes(peer))
            self._ready_by[self._request("ReceiveMessages", reception, _Receiving(peer))] = now + SIGNAL_READY_TIMEOUT_S
        self._peers[topic, peer] = set()
        request = signal_pb2.JoinRequest(swarm=bytes(topic), peer=bytes(peer))
        self._ready_by[self._request("Join", request, _Joined(topic, peer))] = now + SIGNAL_READY_TIMEOUT_S

    def match(self, joined: Iterable[tuple[PublicKey, PublicKey]], now: float) -> None:
        """Join and leave until exactly these (topic, peer) pairs are joined."""
        wanted = dict.fromkeys(joined)
        for pair in [pair for pair in self._peers if pair not in wanted]:
            self.leave(*pair)
        for topic, peer in wanted:
            self.join(topic, peer, now)

    def leave(self, topic: PublicKey, peer: PublicKey) -> None:
        """Leave a swarm; one that was not joined is no error."""
        if self._peers.pop((topic, peer), None) is None:
            return
        self._close_stream(_Joined(topic, peer))
        if not any(joined == peer for _, joined in self._peers):
            self._close_stream(_Receiving(peer))

    def send(self, author: PublicKey, recipient: PublicKey, payload: values_pb2.Any) -> None:
        """Send one message.

        Raises:
            LimitError: The server has too many to confirm, or the message is too long for it.
        """
        if self._unconfirmed >= RPC_CALLS_MAX:
            raise LimitError("The signalling server confirms no messages.", calls_max=RPC_CALLS_MAX)
        if len(payload.value) > SIGNAL_FRAME_BYTES_MAX // 2:
            raise LimitError("A message is too long for signalling.", bytes=len(payload.value))
        message = signal_pb2.Message(author=bytes(author), recipient=bytes(recipient), payload=payload)
        self._request("SendMessage", message, _Sent())
        self._unconfirmed += 1

    def receive(self, untrusted_frame: bytes) -> list[SignalEvent]:
        """Take one binary frame from the server.

        Raises:
            PeerError: It makes no sense, or the server ended a stream; close the socket.
        """
        message = decode(rpc_pb2.RpcMessage, untrusted_frame, bytes_max=SIGNAL_FRAME_BYTES_MAX)
        match message.WhichOneof("content"):
            case "response":
                return self._answer(message.response)
            case "bye":
                raise ProtocolError("The signalling server said goodbye.")
            case "request":
                raise ProtocolError("A signalling server makes no requests.")
        return []  # A handshake that this socket does not have, or something newer.

    def _answer(self, response: rpc_pb2.Response) -> list[SignalEvent]:
        call = self._open.get(response.id)
        if call is None:
            return []
        match call, response.WhichOneof("content"):
            case _Sent(), "error":
                self._end_send(response.id)  # The messenger sends again; one refused message is no broken socket.
            case _Sent(), _:
                self._end_send(response.id)
            case _, "stream_ready":
                self._ready_by.pop(response.id, None)
            case _, "error":
                raise RemoteError("the signalling server refused: " + response.error.message[:200])
            case _, "close":
                raise ProtocolError("The signalling server ended a stream.")
            case _Joined(topic, peer), "payload":
                self._ready_by.pop(response.id, None)
                event = decode(signal_pb2.SwarmEvent, response.payload.value, bytes_max=SIGNAL_FRAME_BYTES_MAX)
                return self._swarm_event(topic, peer, event)
            case _Receiving(peer), "payload":
                self._ready_by.pop(response.id, None)
                message = decode(signal_pb2.Message, response.payload.value, bytes_max=SIGNAL_FRAME_BYTES_MAX)
                if message.recipient != bytes(peer):
                    raise ProtocolError("A message for another peer.")
                return [Received(_key(message.author), peer, message.payload)]
        return []

    def _swarm_event(self, topic: PublicKey, peer: PublicKey, event: signal_pb2.SwarmEvent) -> list[SignalEvent]:
        announced = self._peers.get((topic, peer))
        if announced is None:
            return []
        match event.WhichOneof("event"):
            case "peer_available":
                remote = _key(event.peer_available.peer)
                if remote not in announced and len(announced) >= SIGNAL_PEERS_PER_SWARM_MAX:
                    raise LimitError("A swarm has too many peers.", peers_max=SIGNAL_PEERS_PER_SWARM_MAX)
                announced.add(remote)
                return [PeerAvailable(topic, remote)]
            case "peer_left":
                remote = _key(event.peer_left.peer)
                announced.discard(remote)
                return [PeerLeft(topic, remote)]
        return []

    def _request(self, method: str, payload: Message, call: _Joined | _Receiving | _Sent) -> int:
        request_id, self._next_id = self._next_id, (self._next_id + 1) % 0x7FFFFFFF
        request = rpc_pb2.Request(
            id=request_id,
            method=f"{SERVICE}.{method}",
            payload=pack_any(payload, dot=True),
            stream=not isinstance(call, _Sent),
        )
        self._open[request_id] = call
        self._frames.append(encode(rpc_pb2.RpcMessage(request=request)))
        return request_id

    def _close_stream(self, call: _Joined | _Receiving) -> None:
        for request_id, other in self._open.items():
            if other == call:
                del self._open[request_id]
                self._ready_by.pop(request_id, None)
                self._frames.append(encode(rpc_pb2.RpcMessage(stream_close=rpc_pb2.StreamClose(id=request_id))))
                return

    def _end_send(self, request_id: int) -> None:
        del self._open[request_id]
        self._unconfirmed -= 1


def _key(untrusted: bytes) -> PublicKey:
    if not 1 <= len(untrusted) <= 128:
        raise DecodeError("A peer key of impossible length.", bytes=len(untrusted))
    return PublicKey(untrusted)
