from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Open(_message.Message):
    __slots__ = ("discovery_key", "capability")
    DISCOVERY_KEY_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    discovery_key: bytes
    capability: bytes
    def __init__(self, discovery_key: _Optional[bytes] = ..., capability: _Optional[bytes] = ...) -> None: ...

class Options(_message.Message):
    __slots__ = ("extensions", "ack")
    EXTENSIONS_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    extensions: _containers.RepeatedScalarFieldContainer[str]
    ack: bool
    def __init__(self, extensions: _Optional[_Iterable[str]] = ..., ack: _Optional[bool] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("uploading", "downloading")
    UPLOADING_FIELD_NUMBER: _ClassVar[int]
    DOWNLOADING_FIELD_NUMBER: _ClassVar[int]
    uploading: bool
    downloading: bool
    def __init__(self, uploading: _Optional[bool] = ..., downloading: _Optional[bool] = ...) -> None: ...

class Have(_message.Message):
    __slots__ = ("start", "length", "bitfield", "ack")
    START_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    BITFIELD_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    start: int
    length: int
    bitfield: bytes
    ack: bool
    def __init__(self, start: _Optional[int] = ..., length: _Optional[int] = ..., bitfield: _Optional[bytes] = ..., ack: _Optional[bool] = ...) -> None: ...

class Unhave(_message.Message):
    __slots__ = ("start", "length")
    START_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    start: int
    length: int
    def __init__(self, start: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class Want(_message.Message):
    __slots__ = ("start", "length")
    START_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    start: int
    length: int
    def __init__(self, start: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class Unwant(_message.Message):
    __slots__ = ("start", "length")
    START_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    start: int
    length: int
    def __init__(self, start: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("index", "bytes", "hash", "nodes")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    index: int
    bytes: int
    hash: bool
    nodes: int
    def __init__(self, index: _Optional[int] = ..., bytes: _Optional[int] = ..., hash: _Optional[bool] = ..., nodes: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("index", "bytes", "hash")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    index: int
    bytes: int
    hash: bool
    def __init__(self, index: _Optional[int] = ..., bytes: _Optional[int] = ..., hash: _Optional[bool] = ...) -> None: ...

class Data(_message.Message):
    __slots__ = ("index", "value", "nodes", "signature")
    class Node(_message.Message):
        __slots__ = ("index", "hash", "size")
        INDEX_FIELD_NUMBER: _ClassVar[int]
        HASH_FIELD_NUMBER: _ClassVar[int]
        SIZE_FIELD_NUMBER: _ClassVar[int]
        index: int
        hash: bytes
        size: int
        def __init__(self, index: _Optional[int] = ..., hash: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    index: int
    value: bytes
    nodes: _containers.RepeatedCompositeFieldContainer[Data.Node]
    signature: bytes
    def __init__(self, index: _Optional[int] = ..., value: _Optional[bytes] = ..., nodes: _Optional[_Iterable[_Union[Data.Node, _Mapping]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ("discovery_key",)
    DISCOVERY_KEY_FIELD_NUMBER: _ClassVar[int]
    discovery_key: bytes
    def __init__(self, discovery_key: _Optional[bytes] = ...) -> None: ...
