from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from dxos.wire.proto import keys_pb2 as _keys_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PeerState(_message.Message):
    __slots__ = ("connections", "identity_key", "peer_id")
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    connections: _containers.RepeatedCompositeFieldContainer[_keys_pb2.PublicKey]
    identity_key: _keys_pb2.PublicKey
    peer_id: _keys_pb2.PublicKey
    def __init__(self, connections: _Optional[_Iterable[_Union[_keys_pb2.PublicKey, _Mapping]]] = ..., identity_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., peer_id: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ...) -> None: ...
