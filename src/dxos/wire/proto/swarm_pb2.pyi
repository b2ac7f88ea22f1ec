from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from dxos.wire.proto import keys_pb2 as _keys_pb2
from dxos.wire.proto import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Offer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Answer(_message.Message):
    __slots__ = ("accept", "offer_message_id")
    ACCEPT_FIELD_NUMBER: _ClassVar[int]
    OFFER_MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    accept: bool
    offer_message_id: _keys_pb2.PublicKey
    def __init__(self, accept: _Optional[bool] = ..., offer_message_id: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ...) -> None: ...

class Signal(_message.Message):
    __slots__ = ("payload",)
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    payload: _values_pb2.Struct
    def __init__(self, payload: _Optional[_Union[_values_pb2.Struct, _Mapping]] = ...) -> None: ...

class SignalBatch(_message.Message):
    __slots__ = ("signals",)
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    signals: _containers.RepeatedCompositeFieldContainer[Signal]
    def __init__(self, signals: _Optional[_Iterable[_Union[Signal, _Mapping]]] = ...) -> None: ...

class MessageData(_message.Message):
    __slots__ = ("offer", "answer", "signal", "signal_batch")
    OFFER_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_BATCH_FIELD_NUMBER: _ClassVar[int]
    offer: Offer
    answer: Answer
    signal: Signal
    signal_batch: SignalBatch
    def __init__(self, offer: _Optional[_Union[Offer, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., signal: _Optional[_Union[Signal, _Mapping]] = ..., signal_batch: _Optional[_Union[SignalBatch, _Mapping]] = ...) -> None: ...

class SwarmMessage(_message.Message):
    __slots__ = ("topic", "session_id", "data", "message_id")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    topic: _keys_pb2.PublicKey
    session_id: _keys_pb2.PublicKey
    data: MessageData
    message_id: _keys_pb2.PublicKey
    def __init__(self, topic: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., session_id: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., data: _Optional[_Union[MessageData, _Mapping]] = ..., message_id: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ...) -> None: ...
