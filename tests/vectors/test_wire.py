"""Messages of signalling, swarms, calls, channels and invitations: read, and written again byte for byte."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from dxos.wire import decode, encode
from dxos.wire.proto import (  # noqa: F401 - to have their types known
    invitations_pb2,
    messaging_pb2,
    muxer_pb2,
    rpc_pb2,
    signal_pb2,
    swarm_pb2,
)

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "wire_messages.json").read_text(encoding="utf-8"))[
    "messages"
]


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_a_message_comes_back_byte_for_byte(vector: dict[str, Any]) -> None:
    kind: type[Message] = message_factory.GetMessageClass(
        descriptor_pool.Default().FindMessageTypeByName(vector["type"])
    )
    data = bytes.fromhex(vector["hex"])
    assert encode(decode(kind, data)) == data


def test_a_zero_enum_is_written() -> None:
    assert encode(invitations_pb2.InvitationOptions()) == bytes.fromhex("0800")
