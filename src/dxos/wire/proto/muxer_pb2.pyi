from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OpenChannel(_message.Message):
    __slots__ = ("id", "tag", "content_type")
    ID_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    id: int
    tag: str
    content_type: str
    def __init__(self, id: _Optional[int] = ..., tag: _Optional[str] = ..., content_type: _Optional[str] = ...) -> None: ...

class Data(_message.Message):
    __slots__ = ("channel_id", "data")
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    channel_id: int
    data: bytes
    def __init__(self, channel_id: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Destroy(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: str
    def __init__(self, error: _Optional[str] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: str
    def __init__(self, error: _Optional[str] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("open_channel", "data", "destroy", "close")
    OPEN_CHANNEL_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DESTROY_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    open_channel: OpenChannel
    data: Data
    destroy: Destroy
    close: Close
    def __init__(self, open_channel: _Optional[_Union[OpenChannel, _Mapping]] = ..., data: _Optional[_Union[Data, _Mapping]] = ..., destroy: _Optional[_Union[Destroy, _Mapping]] = ..., close: _Optional[_Union[Close, _Mapping]] = ...) -> None: ...
