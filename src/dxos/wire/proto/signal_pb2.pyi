from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from dxos.wire.proto import values_pb2 as _values_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JoinRequest(_message.Message):
    __slots__ = ("swarm", "peer", "metadata")
    SWARM_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    swarm: bytes
    peer: bytes
    metadata: _values_pb2.Struct
    def __init__(self, swarm: _Optional[bytes] = ..., peer: _Optional[bytes] = ..., metadata: _Optional[_Union[_values_pb2.Struct, _Mapping]] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("author", "recipient", "payload", "metadata")
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    author: bytes
    recipient: bytes
    payload: _values_pb2.Any
    metadata: _values_pb2.Struct
    def __init__(self, author: _Optional[bytes] = ..., recipient: _Optional[bytes] = ..., payload: _Optional[_Union[_values_pb2.Any, _Mapping]] = ..., metadata: _Optional[_Union[_values_pb2.Struct, _Mapping]] = ...) -> None: ...

class ReceptionRequest(_message.Message):
    __slots__ = ("peer",)
    PEER_FIELD_NUMBER: _ClassVar[int]
    peer: bytes
    def __init__(self, peer: _Optional[bytes] = ...) -> None: ...

class SwarmEvent(_message.Message):
    __slots__ = ("peer_available", "peer_left")
    class PeerAvailable(_message.Message):
        __slots__ = ("peer", "since", "until", "announce_back_to_host")
        PEER_FIELD_NUMBER: _ClassVar[int]
        SINCE_FIELD_NUMBER: _ClassVar[int]
        UNTIL_FIELD_NUMBER: _ClassVar[int]
        ANNOUNCE_BACK_TO_HOST_FIELD_NUMBER: _ClassVar[int]
        peer: bytes
        since: _values_pb2.Timestamp
        until: _values_pb2.Timestamp
        announce_back_to_host: bytes
        def __init__(self, peer: _Optional[bytes] = ..., since: _Optional[_Union[_values_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[_values_pb2.Timestamp, _Mapping]] = ..., announce_back_to_host: _Optional[bytes] = ...) -> None: ...
    class PeerLeft(_message.Message):
        __slots__ = ("peer",)
        PEER_FIELD_NUMBER: _ClassVar[int]
        peer: bytes
        def __init__(self, peer: _Optional[bytes] = ...) -> None: ...
    PEER_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    PEER_LEFT_FIELD_NUMBER: _ClassVar[int]
    peer_available: SwarmEvent.PeerAvailable
    peer_left: SwarmEvent.PeerLeft
    def __init__(self, peer_available: _Optional[_Union[SwarmEvent.PeerAvailable, _Mapping]] = ..., peer_left: _Optional[_Union[SwarmEvent.PeerLeft, _Mapping]] = ...) -> None: ...
