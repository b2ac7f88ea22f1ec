from dxos.wire.proto import credentials_pb2 as _credentials_pb2
from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from dxos.wire.proto import keys_pb2 as _keys_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetAdmissionCredentialRequest(_message.Message):
    __slots__ = ("space_key", "member_key")
    SPACE_KEY_FIELD_NUMBER: _ClassVar[int]
    MEMBER_KEY_FIELD_NUMBER: _ClassVar[int]
    space_key: _keys_pb2.PublicKey
    member_key: _keys_pb2.PublicKey
    def __init__(self, space_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., member_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ...) -> None: ...

class GetAdmissionCredentialResponse(_message.Message):
    __slots__ = ("admission_credential",)
    ADMISSION_CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    admission_credential: _credentials_pb2.Credential
    def __init__(self, admission_credential: _Optional[_Union[_credentials_pb2.Credential, _Mapping]] = ...) -> None: ...
