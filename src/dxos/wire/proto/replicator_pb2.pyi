from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from dxos.wire.proto import keys_pb2 as _keys_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FeedInfo(_message.Message):
    __slots__ = ("feed_key", "download", "upload")
    FEED_KEY_FIELD_NUMBER: _ClassVar[int]
    DOWNLOAD_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    feed_key: _keys_pb2.PublicKey
    download: bool
    upload: bool
    def __init__(self, feed_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., download: _Optional[bool] = ..., upload: _Optional[bool] = ...) -> None: ...

class UpdateFeedsRequest(_message.Message):
    __slots__ = ("feeds",)
    FEEDS_FIELD_NUMBER: _ClassVar[int]
    feeds: _containers.RepeatedCompositeFieldContainer[FeedInfo]
    def __init__(self, feeds: _Optional[_Iterable[_Union[FeedInfo, _Mapping]]] = ...) -> None: ...

class StartReplicationRequest(_message.Message):
    __slots__ = ("info",)
    INFO_FIELD_NUMBER: _ClassVar[int]
    info: FeedInfo
    def __init__(self, info: _Optional[_Union[FeedInfo, _Mapping]] = ...) -> None: ...

class StartReplicationResponse(_message.Message):
    __slots__ = ("stream_tag",)
    STREAM_TAG_FIELD_NUMBER: _ClassVar[int]
    stream_tag: str
    def __init__(self, stream_tag: _Optional[str] = ...) -> None: ...

class StopReplicationRequest(_message.Message):
    __slots__ = ("info",)
    INFO_FIELD_NUMBER: _ClassVar[int]
    info: FeedInfo
    def __init__(self, info: _Optional[_Union[FeedInfo, _Mapping]] = ...) -> None: ...
