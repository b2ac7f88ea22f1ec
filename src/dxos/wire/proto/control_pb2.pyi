from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from dxos.wire.proto import values_pb2 as _values_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RegisterExtensionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ControlHeartbeatRequest(_message.Message):
    __slots__ = ("request_timestamp",)
    REQUEST_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    request_timestamp: _values_pb2.Timestamp
    def __init__(self, request_timestamp: _Optional[_Union[_values_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ControlHeartbeatResponse(_message.Message):
    __slots__ = ("request_timestamp",)
    REQUEST_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    request_timestamp: _values_pb2.Timestamp
    def __init__(self, request_timestamp: _Optional[_Union[_values_pb2.Timestamp, _Mapping]] = ...) -> None: ...
