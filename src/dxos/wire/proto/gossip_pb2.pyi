from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from dxos.wire.proto import keys_pb2 as _keys_pb2
from dxos.wire.proto import values_pb2 as _values_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GossipMessage(_message.Message):
    __slots__ = ("peer_id", "channel_id", "message_id", "timestamp", "payload")
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    peer_id: _keys_pb2.PublicKey
    channel_id: str
    message_id: _keys_pb2.PublicKey
    timestamp: _values_pb2.Timestamp
    payload: _values_pb2.Any
    def __init__(self, peer_id: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., channel_id: _Optional[str] = ..., message_id: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., timestamp: _Optional[_Union[_values_pb2.Timestamp, _Mapping]] = ..., payload: _Optional[_Union[_values_pb2.Any, _Mapping]] = ...) -> None: ...
