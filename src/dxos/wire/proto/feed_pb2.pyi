from dxos.wire.proto import credentials_pb2 as _credentials_pb2
from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from dxos.wire.proto import timeframe_pb2 as _timeframe_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CredentialsMessage(_message.Message):
    __slots__ = ("credential",)
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    credential: _credentials_pb2.Credential
    def __init__(self, credential: _Optional[_Union[_credentials_pb2.Credential, _Mapping]] = ...) -> None: ...

class DataMessage(_message.Message):
    __slots__ = ("batch",)
    BATCH_FIELD_NUMBER: _ClassVar[int]
    batch: bytes
    def __init__(self, batch: _Optional[bytes] = ...) -> None: ...

class FeedMessage(_message.Message):
    __slots__ = ("timeframe", "payload")
    class Payload(_message.Message):
        __slots__ = ("credential", "data")
        CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
        DATA_FIELD_NUMBER: _ClassVar[int]
        credential: CredentialsMessage
        data: DataMessage
        def __init__(self, credential: _Optional[_Union[CredentialsMessage, _Mapping]] = ..., data: _Optional[_Union[DataMessage, _Mapping]] = ...) -> None: ...
    TIMEFRAME_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    timeframe: _timeframe_pb2.TimeframeVector
    payload: FeedMessage.Payload
    def __init__(self, timeframe: _Optional[_Union[_timeframe_pb2.TimeframeVector, _Mapping]] = ..., payload: _Optional[_Union[FeedMessage.Payload, _Mapping]] = ...) -> None: ...
