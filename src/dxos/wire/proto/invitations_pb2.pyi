from dxos.wire.proto import credentials_pb2 as _credentials_pb2
from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from dxos.wire.proto import invitation_pb2 as _invitation_pb2
from dxos.wire.proto import keys_pb2 as _keys_pb2
from dxos.wire.proto import timeframe_pb2 as _timeframe_pb2
from dxos.wire.proto import values_pb2 as _values_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InvitationOptions(_message.Message):
    __slots__ = ("role",)
    class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        GUEST: _ClassVar[InvitationOptions.Role]
        HOST: _ClassVar[InvitationOptions.Role]
    GUEST: InvitationOptions.Role
    HOST: InvitationOptions.Role
    ROLE_FIELD_NUMBER: _ClassVar[int]
    role: InvitationOptions.Role
    def __init__(self, role: _Optional[_Union[InvitationOptions.Role, str]] = ...) -> None: ...

class IntroductionRequest(_message.Message):
    __slots__ = ("profile", "invitation_id")
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    INVITATION_ID_FIELD_NUMBER: _ClassVar[int]
    profile: _credentials_pb2.ProfileDocument
    invitation_id: str
    def __init__(self, profile: _Optional[_Union[_credentials_pb2.ProfileDocument, _Mapping]] = ..., invitation_id: _Optional[str] = ...) -> None: ...

class IntroductionResponse(_message.Message):
    __slots__ = ("auth_method", "challenge", "space_key")
    AUTH_METHOD_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    SPACE_KEY_FIELD_NUMBER: _ClassVar[int]
    auth_method: _invitation_pb2.Invitation.AuthMethod
    challenge: bytes
    space_key: _keys_pb2.PublicKey
    def __init__(self, auth_method: _Optional[_Union[_invitation_pb2.Invitation.AuthMethod, str]] = ..., challenge: _Optional[bytes] = ..., space_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ...) -> None: ...

class AuthenticationRequest(_message.Message):
    __slots__ = ("auth_code", "signed_challenge")
    AUTH_CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNED_CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    auth_code: str
    signed_challenge: bytes
    def __init__(self, auth_code: _Optional[str] = ..., signed_challenge: _Optional[bytes] = ...) -> None: ...

class AuthenticationResponse(_message.Message):
    __slots__ = ("status",)
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OK: _ClassVar[AuthenticationResponse.Status]
        INVALID_OTP: _ClassVar[AuthenticationResponse.Status]
        INVALID_OPT_ATTEMPTS: _ClassVar[AuthenticationResponse.Status]
        INTERNAL_ERROR: _ClassVar[AuthenticationResponse.Status]
        INVALID_SIGNATURE: _ClassVar[AuthenticationResponse.Status]
    OK: AuthenticationResponse.Status
    INVALID_OTP: AuthenticationResponse.Status
    INVALID_OPT_ATTEMPTS: AuthenticationResponse.Status
    INTERNAL_ERROR: AuthenticationResponse.Status
    INVALID_SIGNATURE: AuthenticationResponse.Status
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: AuthenticationResponse.Status
    def __init__(self, status: _Optional[_Union[AuthenticationResponse.Status, str]] = ...) -> None: ...

class DeviceAdmissionRequest(_message.Message):
    __slots__ = ("device_key", "control_feed_key", "data_feed_key", "profile")
    DEVICE_KEY_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FEED_KEY_FIELD_NUMBER: _ClassVar[int]
    DATA_FEED_KEY_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    device_key: _keys_pb2.PublicKey
    control_feed_key: _keys_pb2.PublicKey
    data_feed_key: _keys_pb2.PublicKey
    profile: _credentials_pb2.DeviceProfileDocument
    def __init__(self, device_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., control_feed_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., data_feed_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., profile: _Optional[_Union[_credentials_pb2.DeviceProfileDocument, _Mapping]] = ...) -> None: ...

class SpaceAdmissionRequest(_message.Message):
    __slots__ = ("identity_key", "device_key", "control_feed_key", "data_feed_key")
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    DEVICE_KEY_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FEED_KEY_FIELD_NUMBER: _ClassVar[int]
    DATA_FEED_KEY_FIELD_NUMBER: _ClassVar[int]
    identity_key: _keys_pb2.PublicKey
    device_key: _keys_pb2.PublicKey
    control_feed_key: _keys_pb2.PublicKey
    data_feed_key: _keys_pb2.PublicKey
    def __init__(self, identity_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., device_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., control_feed_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., data_feed_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ...) -> None: ...

class DelegateSpaceInvitation(_message.Message):
    __slots__ = ("invitation_id", "auth_method", "swarm_key", "role", "guest_key", "expires_on", "multi_use")
    INVITATION_ID_FIELD_NUMBER: _ClassVar[int]
    AUTH_METHOD_FIELD_NUMBER: _ClassVar[int]
    SWARM_KEY_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    GUEST_KEY_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_ON_FIELD_NUMBER: _ClassVar[int]
    MULTI_USE_FIELD_NUMBER: _ClassVar[int]
    invitation_id: str
    auth_method: _invitation_pb2.Invitation.AuthMethod
    swarm_key: _keys_pb2.PublicKey
    role: _credentials_pb2.SpaceMember.Role
    guest_key: _keys_pb2.PublicKey
    expires_on: _values_pb2.Timestamp
    multi_use: bool
    def __init__(self, invitation_id: _Optional[str] = ..., auth_method: _Optional[_Union[_invitation_pb2.Invitation.AuthMethod, str]] = ..., swarm_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., role: _Optional[_Union[_credentials_pb2.SpaceMember.Role, str]] = ..., guest_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., expires_on: _Optional[_Union[_values_pb2.Timestamp, _Mapping]] = ..., multi_use: _Optional[bool] = ...) -> None: ...

class CancelDelegatedInvitation(_message.Message):
    __slots__ = ("credential_id",)
    CREDENTIAL_ID_FIELD_NUMBER: _ClassVar[int]
    credential_id: _keys_pb2.PublicKey
    def __init__(self, credential_id: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ...) -> None: ...

class AdmissionRequest(_message.Message):
    __slots__ = ("device", "space")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    device: DeviceAdmissionRequest
    space: SpaceAdmissionRequest
    def __init__(self, device: _Optional[_Union[DeviceAdmissionRequest, _Mapping]] = ..., space: _Optional[_Union[SpaceAdmissionRequest, _Mapping]] = ...) -> None: ...

class DeviceAdmissionCredentials(_message.Message):
    __slots__ = ("identity_key", "halo_space_key", "genesis_feed_key", "control_timeframe", "credential")
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    HALO_SPACE_KEY_FIELD_NUMBER: _ClassVar[int]
    GENESIS_FEED_KEY_FIELD_NUMBER: _ClassVar[int]
    CONTROL_TIMEFRAME_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    identity_key: _keys_pb2.PublicKey
    halo_space_key: _keys_pb2.PublicKey
    genesis_feed_key: _keys_pb2.PublicKey
    control_timeframe: _timeframe_pb2.TimeframeVector
    credential: _credentials_pb2.Credential
    def __init__(self, identity_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., halo_space_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., genesis_feed_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., control_timeframe: _Optional[_Union[_timeframe_pb2.TimeframeVector, _Mapping]] = ..., credential: _Optional[_Union[_credentials_pb2.Credential, _Mapping]] = ...) -> None: ...

class SpaceAdmissionCredentials(_message.Message):
    __slots__ = ("credential", "control_timeframe", "data_timeframe")
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    CONTROL_TIMEFRAME_FIELD_NUMBER: _ClassVar[int]
    DATA_TIMEFRAME_FIELD_NUMBER: _ClassVar[int]
    credential: _credentials_pb2.Credential
    control_timeframe: _timeframe_pb2.TimeframeVector
    data_timeframe: _timeframe_pb2.TimeframeVector
    def __init__(self, credential: _Optional[_Union[_credentials_pb2.Credential, _Mapping]] = ..., control_timeframe: _Optional[_Union[_timeframe_pb2.TimeframeVector, _Mapping]] = ..., data_timeframe: _Optional[_Union[_timeframe_pb2.TimeframeVector, _Mapping]] = ...) -> None: ...

class AdmissionResponse(_message.Message):
    __slots__ = ("device", "space")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    device: DeviceAdmissionCredentials
    space: SpaceAdmissionCredentials
    def __init__(self, device: _Optional[_Union[DeviceAdmissionCredentials, _Mapping]] = ..., space: _Optional[_Union[SpaceAdmissionCredentials, _Mapping]] = ...) -> None: ...
