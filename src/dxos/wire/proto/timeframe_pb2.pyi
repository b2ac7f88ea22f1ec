from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TimeframeVector(_message.Message):
    __slots__ = ("frames",)
    class Frame(_message.Message):
        __slots__ = ("feed_key", "seq")
        FEED_KEY_FIELD_NUMBER: _ClassVar[int]
        SEQ_FIELD_NUMBER: _ClassVar[int]
        feed_key: bytes
        seq: int
        def __init__(self, feed_key: _Optional[bytes] = ..., seq: _Optional[int] = ...) -> None: ...
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedCompositeFieldContainer[TimeframeVector.Frame]
    def __init__(self, frames: _Optional[_Iterable[_Union[TimeframeVector.Frame, _Mapping]]] = ...) -> None: ...
