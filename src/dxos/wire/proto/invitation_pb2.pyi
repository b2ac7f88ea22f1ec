from dxos.wire.proto import credentials_pb2 as _credentials_pb2
from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from dxos.wire.proto import keys_pb2 as _keys_pb2
from dxos.wire.proto import values_pb2 as _values_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AdmissionKeypair(_message.Message):
    __slots__ = ("public_key", "private_key")
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_KEY_FIELD_NUMBER: _ClassVar[int]
    public_key: _keys_pb2.PublicKey
    private_key: _keys_pb2.PrivateKey
    def __init__(self, public_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., private_key: _Optional[_Union[_keys_pb2.PrivateKey, _Mapping]] = ...) -> None: ...

class Invitation(_message.Message):
    __slots__ = ("invitation_id", "type", "kind", "auth_method", "swarm_key", "state", "timeout", "identity_key", "space_key", "auth_code", "target", "persistent", "created", "lifetime", "multi_use", "guest_keypair", "delegation_credential_id", "role", "space_id")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        INTERACTIVE: _ClassVar[Invitation.Type]
        DELEGATED: _ClassVar[Invitation.Type]
        MULTIUSE: _ClassVar[Invitation.Type]
    INTERACTIVE: Invitation.Type
    DELEGATED: Invitation.Type
    MULTIUSE: Invitation.Type
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DEVICE: _ClassVar[Invitation.Kind]
        SPACE: _ClassVar[Invitation.Kind]
    DEVICE: Invitation.Kind
    SPACE: Invitation.Kind
    class AuthMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[Invitation.AuthMethod]
        SHARED_SECRET: _ClassVar[Invitation.AuthMethod]
        KNOWN_PUBLIC_KEY: _ClassVar[Invitation.AuthMethod]
    NONE: Invitation.AuthMethod
    SHARED_SECRET: Invitation.AuthMethod
    KNOWN_PUBLIC_KEY: Invitation.AuthMethod
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        INIT: _ClassVar[Invitation.State]
        CONNECTING: _ClassVar[Invitation.State]
        CONNECTED: _ClassVar[Invitation.State]
        READY_FOR_AUTHENTICATION: _ClassVar[Invitation.State]
        AUTHENTICATING: _ClassVar[Invitation.State]
        SUCCESS: _ClassVar[Invitation.State]
        CANCELLED: _ClassVar[Invitation.State]
        TIMEOUT: _ClassVar[Invitation.State]
        ERROR: _ClassVar[Invitation.State]
        EXPIRED: _ClassVar[Invitation.State]
    INIT: Invitation.State
    CONNECTING: Invitation.State
    CONNECTED: Invitation.State
    READY_FOR_AUTHENTICATION: Invitation.State
    AUTHENTICATING: Invitation.State
    SUCCESS: Invitation.State
    CANCELLED: Invitation.State
    TIMEOUT: Invitation.State
    ERROR: Invitation.State
    EXPIRED: Invitation.State
    INVITATION_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    AUTH_METHOD_FIELD_NUMBER: _ClassVar[int]
    SWARM_KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    SPACE_KEY_FIELD_NUMBER: _ClassVar[int]
    AUTH_CODE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PERSISTENT_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_FIELD_NUMBER: _ClassVar[int]
    MULTI_USE_FIELD_NUMBER: _ClassVar[int]
    GUEST_KEYPAIR_FIELD_NUMBER: _ClassVar[int]
    DELEGATION_CREDENTIAL_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SPACE_ID_FIELD_NUMBER: _ClassVar[int]
    invitation_id: str
    type: Invitation.Type
    kind: Invitation.Kind
    auth_method: Invitation.AuthMethod
    swarm_key: _keys_pb2.PublicKey
    state: Invitation.State
    timeout: int
    identity_key: _keys_pb2.PublicKey
    space_key: _keys_pb2.PublicKey
    auth_code: str
    target: str
    persistent: bool
    created: _values_pb2.Timestamp
    lifetime: int
    multi_use: bool
    guest_keypair: AdmissionKeypair
    delegation_credential_id: _keys_pb2.PublicKey
    role: _credentials_pb2.SpaceMember.Role
    space_id: str
    def __init__(self, invitation_id: _Optional[str] = ..., type: _Optional[_Union[Invitation.Type, str]] = ..., kind: _Optional[_Union[Invitation.Kind, str]] = ..., auth_method: _Optional[_Union[Invitation.AuthMethod, str]] = ..., swarm_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., state: _Optional[_Union[Invitation.State, str]] = ..., timeout: _Optional[int] = ..., identity_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., space_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., auth_code: _Optional[str] = ..., target: _Optional[str] = ..., persistent: _Optional[bool] = ..., created: _Optional[_Union[_values_pb2.Timestamp, _Mapping]] = ..., lifetime: _Optional[int] = ..., multi_use: _Optional[bool] = ..., guest_keypair: _Optional[_Union[AdmissionKeypair, _Mapping]] = ..., delegation_credential_id: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., role: _Optional[_Union[_credentials_pb2.SpaceMember.Role, str]] = ..., space_id: _Optional[str] = ...) -> None: ...
