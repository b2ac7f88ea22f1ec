from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from dxos.wire.proto import keys_pb2 as _keys_pb2
from dxos.wire.proto import values_pb2 as _values_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReliablePayload(_message.Message):
    __slots__ = ("message_id", "payload")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    message_id: _keys_pb2.PublicKey
    payload: _values_pb2.Any
    def __init__(self, message_id: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., payload: _Optional[_Union[_values_pb2.Any, _Mapping]] = ...) -> None: ...

class Acknowledgement(_message.Message):
    __slots__ = ("message_id",)
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    message_id: _keys_pb2.PublicKey
    def __init__(self, message_id: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ...) -> None: ...
