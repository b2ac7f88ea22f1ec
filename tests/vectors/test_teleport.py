"""What 0.8.3 writes on a connection: read, written again byte for byte, and the whole opening of a stream."""

import json
from pathlib import Path

import pytest
from google.protobuf.message import Message

from dxos.errors import PeerError
from dxos.teleport import session as sessions
from dxos.teleport.framer import FrameReader
from dxos.teleport.rpc import RpcPeer
from dxos.teleport.session import Session
from dxos.wire import decode, encode, unpack_any
from dxos.wire.proto import (  # All that a live connection carries: importing a module makes its messages known.
    admission_discovery_pb2,  # noqa: F401
    auth_pb2,  # noqa: F401
    automerge_pb2,  # noqa: F401
    control_pb2,
    gossip_pb2,  # noqa: F401
    invitations_pb2,
    muxer_pb2,
    notarization_pb2,  # noqa: F401
    replicator_pb2,  # noqa: F401
    rpc_pb2,
)

VECTORS = json.loads(Path(__file__).with_name("teleport.json").read_text())
INVITATION_KINDS: dict[str, type[Message]] = {
    "optionsGuest": invitations_pb2.InvitationOptions,
    "optionsHost": invitations_pb2.InvitationOptions,
    "introduce": invitations_pb2.IntroductionRequest,
    "introduceResp": invitations_pb2.IntroductionResponse,
    "authenticate": invitations_pb2.AuthenticationRequest,
    "authOk": invitations_pb2.AuthenticationResponse,
    "admit": invitations_pb2.AdmissionRequest,
}
LIVE = [bytes.fromhex(text) for _, text in VECTORS["live"] if not text.endswith("...")]


@pytest.mark.parametrize("name", VECTORS["rpc"])
def test_messages_of_calls_come_back_byte_for_byte(name: str) -> None:
    data = bytes.fromhex(VECTORS["rpc"][name])
    assert encode(decode(rpc_pb2.RpcMessage, data)) == data


@pytest.mark.parametrize("name", VECTORS["command"])
def test_commands_come_back_byte_for_byte(name: str) -> None:
    data = bytes.fromhex(VECTORS["command"][name])
    assert encode(decode(muxer_pb2.Command, data)) == data


@pytest.mark.parametrize("name", VECTORS["invitation"])
def test_messages_of_the_invitation_come_back_byte_for_byte(name: str) -> None:
    data = bytes.fromhex(VECTORS["invitation"][name])
    assert encode(decode(INVITATION_KINDS[name], data)) == data


def test_a_call_is_written_as_0_8_3_writes_it() -> None:
    peer = RpcPeer(handshake=False)
    peer.start(now=0.0)
    for number in range(2):  # The vector is the second call.
        peer.call(sessions.REGISTER, control_pb2.RegisterExtensionRequest(name="dxos.mesh.teleport.auth"))
        assert len(peer.outgoing) == number + 1
    wanted = decode(rpc_pb2.RpcMessage, bytes.fromhex(VECTORS["rpc"]["request_registerExtension"]))
    ours = decode(rpc_pb2.RpcMessage, peer.outgoing[1])
    ours.request.id = wanted.request.id
    assert encode(ours).hex() == VECTORS["rpc"]["request_registerExtension"]


def test_two_sessions_open_with_the_bytes_of_two_peers_of_0_8_3() -> None:
    initiator, acceptor = Session(now=0.0), Session(now=0.0)
    sent: list[list[str]] = []

    def say(speaker: Session, listener: Session, direction: str) -> None:
        data = speaker.data_to_send(65_536)
        frames = FrameReader().receive(data)
        sent.extend([direction, (len(frame).to_bytes(2, "big") + frame).hex()] for frame in frames)
        if data:
            listener.receive(data, now=0.0)

    for _ in range(4):
        say(initiator, acceptor, "initiator->acceptor")
        say(acceptor, initiator, "acceptor->initiator")
    for direction in ("initiator->acceptor", "acceptor->initiator"):
        # What each side says is the same, in the same order; how the two interleave is a matter of timing.
        assert [entry for entry in sent if entry[0] == direction] == [
            entry for entry in VECTORS["stream"] if entry[0] == direction
        ]
    assert initiator.state is acceptor.state is sessions.State.OPEN


def test_a_session_follows_the_stream_of_0_8_3() -> None:
    session = Session(now=0.0)
    for direction, text in VECTORS["stream"]:
        if direction == "acceptor->initiator":
            session.receive(bytes.fromhex(text), now=0.0)
    assert session.state is sessions.State.OPEN


def test_every_command_of_a_live_connection_is_understood() -> None:
    calls_count = 0
    for data in LIVE:
        command = decode(muxer_pb2.Command, data)
        assert encode(command) == data
        if not command.HasField("data"):
            continue
        try:
            message = decode(rpc_pb2.RpcMessage, command.data.data)
            kind = message.WhichOneof("content")
        except PeerError:
            continue  # A raw channel's bytes.
        if kind == "request" and message.request.method.startswith("dxos."):
            calls_count += 1
            assert message.request.payload.type_url.startswith(".dxos.")
            assert encode(unpack_any(message.request.payload)) == message.request.payload.value
    assert calls_count > 10
