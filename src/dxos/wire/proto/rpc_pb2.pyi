from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from dxos.wire.proto import values_pb2 as _values_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Error(_message.Message):
    __slots__ = ("name", "message", "stack", "context")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    name: str
    message: str
    stack: str
    context: _values_pb2.Struct
    def __init__(self, name: _Optional[str] = ..., message: _Optional[str] = ..., stack: _Optional[str] = ..., context: _Optional[_Union[_values_pb2.Struct, _Mapping]] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("id", "method", "payload", "stream")
    ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    id: int
    method: str
    payload: _values_pb2.Any
    stream: bool
    def __init__(self, id: _Optional[int] = ..., method: _Optional[str] = ..., payload: _Optional[_Union[_values_pb2.Any, _Mapping]] = ..., stream: _Optional[bool] = ...) -> None: ...

class Response(_message.Message):
    __slots__ = ("id", "payload", "error", "close", "stream_ready")
    ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    STREAM_READY_FIELD_NUMBER: _ClassVar[int]
    id: int
    payload: _values_pb2.Any
    error: Error
    close: bool
    stream_ready: bool
    def __init__(self, id: _Optional[int] = ..., payload: _Optional[_Union[_values_pb2.Any, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., close: _Optional[bool] = ..., stream_ready: _Optional[bool] = ...) -> None: ...

class StreamClose(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class Bye(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RpcMessage(_message.Message):
    __slots__ = ("request", "response", "open", "open_ack", "stream_close", "bye")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    OPEN_ACK_FIELD_NUMBER: _ClassVar[int]
    STREAM_CLOSE_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    request: Request
    response: Response
    open: bool
    open_ack: bool
    stream_close: StreamClose
    bye: Bye
    def __init__(self, request: _Optional[_Union[Request, _Mapping]] = ..., response: _Optional[_Union[Response, _Mapping]] = ..., open: _Optional[bool] = ..., open_ack: _Optional[bool] = ..., stream_close: _Optional[_Union[StreamClose, _Mapping]] = ..., bye: _Optional[_Union[Bye, _Mapping]] = ...) -> None: ...
