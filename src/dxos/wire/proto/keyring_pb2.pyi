from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class KeyRecord(_message.Message):
    __slots__ = ("public_key", "private_key")
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_KEY_FIELD_NUMBER: _ClassVar[int]
    public_key: bytes
    private_key: bytes
    def __init__(self, public_key: _Optional[bytes] = ..., private_key: _Optional[bytes] = ...) -> None: ...
