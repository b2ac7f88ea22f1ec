"""What a 0.8.3 client and a signalling server said to each other, and the messages one by one."""

import json
from pathlib import Path

import pytest
from google.protobuf.message import Message

from dxos.keys import PublicKey
from dxos.mesh.messenger import Acknowledged, Delivered, MessengerMachine, Transmit
from dxos.mesh.signal import PeerAvailable, Received
from dxos.mesh.signal_server import SignalServer
from dxos.mesh.signal_session import SignalSession
from dxos.mesh.swarm import ConnectionLimiter, Open, Send, Signalled, SwarmMachine
from dxos.mesh.topology import InvitationGuest
from dxos.wire import decode, encode
from dxos.wire.proto import messaging_pb2, rpc_pb2, signal_pb2, swarm_pb2

VECTOR = json.loads(Path(__file__).with_name("mesh.json").read_text())
TRACE = [(direction, bytes.fromhex(text)) for direction, text in VECTOR["signal_trace"]]
REQUESTS = [frame for direction, frame in TRACE if direction == "out"]
KINDS: list[tuple[str, str, type[Message]]] = [
    ("e_signal", "join", signal_pb2.JoinRequest),
    ("e_signal", "receive", signal_pb2.ReceptionRequest),
    ("e_signal", "peerAvailable", signal_pb2.SwarmEvent),
    ("e_signal", "peerLeft", signal_pb2.SwarmEvent),
    ("e_messaging", "reliable", messaging_pb2.ReliablePayload),
    ("e_messaging", "ack", messaging_pb2.Acknowledgement),
    *(("e_swarm", name, swarm_pb2.SwarmMessage) for name in VECTOR["e_swarm"]),
]


@pytest.mark.parametrize(("section", "name", "kind"), KINDS)
def test_each_message_is_read_and_written_byte_for_byte(section: str, name: str, kind: type[Message]) -> None:
    data = bytes.fromhex(VECTOR[section][name])
    assert encode(decode(kind, data)) == data


def test_our_client_asks_for_messages_and_joins_with_the_same_bytes() -> None:
    wanted = decode(signal_pb2.JoinRequest, decode(rpc_pb2.RpcMessage, REQUESTS[1]).request.payload.value)
    session = SignalSession()
    session.join(PublicKey(wanted.swarm), PublicKey(wanted.peer), now=0.0)
    assert session.take_frames() == REQUESTS[:2]


def test_our_client_understands_what_the_server_said() -> None:
    wanted = decode(signal_pb2.JoinRequest, decode(rpc_pb2.RpcMessage, REQUESTS[1]).request.payload.value)
    session, events = SignalSession(), []
    session.join(PublicKey(wanted.swarm), PublicKey(wanted.peer), now=0.0)
    for direction, frame in TRACE:
        if direction == "in":
            events += session.receive(frame)
    assert sum(isinstance(event, PeerAvailable) for event in events) == 2
    assert sum(isinstance(event, Received) for event in events) >= 3
    assert session.deadline is None


def test_our_messenger_and_swarm_go_through_the_recorded_meeting() -> None:
    join = decode(signal_pb2.JoinRequest, decode(rpc_pb2.RpcMessage, REQUESTS[1]).request.payload.value)
    topic, local = PublicKey(join.swarm), PublicKey(join.peer)
    session, messenger = SignalSession(), MessengerMachine()
    swarm = SwarmMachine(
        topic=topic, local=local, topology=InvitationGuest(), limiter=ConnectionLimiter(), random=lambda n: b"r" * n
    )
    session.join(topic, local, now=0.0)
    actions: list[object] = []
    for direction, frame in TRACE:
        for event in session.receive(frame) if direction == "in" else []:
            if isinstance(event, PeerAvailable):
                swarm.peer_available(event.peer, 0.0)
            elif isinstance(event, Received):
                for output in messenger.receive(event.author, event.recipient, event.payload):
                    assert not isinstance(output, Acknowledged), "we sent nothing"
                    if isinstance(output, Delivered):
                        swarm.receive(output.author, decode(swarm_pb2.SwarmMessage, output.payload.value), 0.0)
            swarm.evaluate(0.0)
            actions += swarm.take_actions()
    send, opened, signalled, *_ = actions
    assert isinstance(send, Send)
    assert send.message.data.answer.accept
    assert isinstance(opened, Open)
    assert not opened.initiator
    assert isinstance(signalled, Signalled)
    assert isinstance(signalled.payload["port"], int)


def test_our_server_answers_the_recorded_client() -> None:
    server = SignalServer(wake=lambda _: None)
    socket = server.open(0.0)
    for frame in REQUESTS:
        server.receive(socket, frame, now=0.0, now_ms=0)
    answers = [decode(rpc_pb2.RpcMessage, frame).response for frame in socket.frames]
    assert [answer.WhichOneof("content") for answer in answers[:3]] == ["stream_ready", "stream_ready", "payload"]
    confirmed = {answer.id for answer in answers if answer.payload.type_url == ".google.protobuf.Empty"}
    requests = [decode(rpc_pb2.RpcMessage, frame).request for frame in REQUESTS]
    assert confirmed == {request.id for request in requests if request.method.endswith(".SendMessage")}
    assert encode(decode(rpc_pb2.RpcMessage, socket.frames[0])) == TRACE[1][1]


def test_the_transmitted_envelope_is_the_recorded_one() -> None:
    reliable = decode(messaging_pb2.ReliablePayload, bytes.fromhex(VECTOR["e_messaging"]["reliable"]))
    key = PublicKey(b"k" * 65)
    outputs = MessengerMachine().send(key, key, reliable.payload, message_id=reliable.message_id.data, now=0.0)
    (transmit,) = outputs
    assert isinstance(transmit, Transmit)
    assert transmit.payload.value.hex() == VECTOR["e_messaging"]["reliable"]
