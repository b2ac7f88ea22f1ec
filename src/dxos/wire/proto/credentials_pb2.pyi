from dxos.wire.proto import dialect_pb2 as _dialect_pb2
from dxos.wire.proto import keys_pb2 as _keys_pb2
from dxos.wire.proto import timeframe_pb2 as _timeframe_pb2
from dxos.wire.proto import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeviceType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNKNOWN: _ClassVar[DeviceType]
    BROWSER: _ClassVar[DeviceType]
    NATIVE: _ClassVar[DeviceType]
    AGENT: _ClassVar[DeviceType]
    AGENT_MANAGED: _ClassVar[DeviceType]
    MOBILE: _ClassVar[DeviceType]
UNKNOWN: DeviceType
BROWSER: DeviceType
NATIVE: DeviceType
AGENT: DeviceType
AGENT_MANAGED: DeviceType
MOBILE: DeviceType

class SpaceGenesis(_message.Message):
    __slots__ = ("space_key",)
    SPACE_KEY_FIELD_NUMBER: _ClassVar[int]
    space_key: _keys_pb2.PublicKey
    def __init__(self, space_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ...) -> None: ...

class SpaceMember(_message.Message):
    __slots__ = ("space_key", "role", "profile", "genesis_feed_key", "invitation_credential_id")
    class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        INVALID: _ClassVar[SpaceMember.Role]
        ADMIN: _ClassVar[SpaceMember.Role]
        EDITOR: _ClassVar[SpaceMember.Role]
        READER: _ClassVar[SpaceMember.Role]
        OWNER: _ClassVar[SpaceMember.Role]
        REMOVED: _ClassVar[SpaceMember.Role]
    INVALID: SpaceMember.Role
    ADMIN: SpaceMember.Role
    EDITOR: SpaceMember.Role
    READER: SpaceMember.Role
    OWNER: SpaceMember.Role
    REMOVED: SpaceMember.Role
    SPACE_KEY_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    GENESIS_FEED_KEY_FIELD_NUMBER: _ClassVar[int]
    INVITATION_CREDENTIAL_ID_FIELD_NUMBER: _ClassVar[int]
    space_key: _keys_pb2.PublicKey
    role: SpaceMember.Role
    profile: ProfileDocument
    genesis_feed_key: _keys_pb2.PublicKey
    invitation_credential_id: _keys_pb2.PublicKey
    def __init__(self, space_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., role: _Optional[_Union[SpaceMember.Role, str]] = ..., profile: _Optional[_Union[ProfileDocument, _Mapping]] = ..., genesis_feed_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., invitation_credential_id: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ...) -> None: ...

class MemberProfile(_message.Message):
    __slots__ = ("profile",)
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    profile: ProfileDocument
    def __init__(self, profile: _Optional[_Union[ProfileDocument, _Mapping]] = ...) -> None: ...

class AuthorizedDevice(_message.Message):
    __slots__ = ("identity_key", "device_key")
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    DEVICE_KEY_FIELD_NUMBER: _ClassVar[int]
    identity_key: _keys_pb2.PublicKey
    device_key: _keys_pb2.PublicKey
    def __init__(self, identity_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., device_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ...) -> None: ...

class AdmittedFeed(_message.Message):
    __slots__ = ("space_key", "identity_key", "device_key", "designation")
    class Designation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        GENERAL: _ClassVar[AdmittedFeed.Designation]
        CONTROL: _ClassVar[AdmittedFeed.Designation]
        DATA: _ClassVar[AdmittedFeed.Designation]
    GENERAL: AdmittedFeed.Designation
    CONTROL: AdmittedFeed.Designation
    DATA: AdmittedFeed.Designation
    SPACE_KEY_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    DEVICE_KEY_FIELD_NUMBER: _ClassVar[int]
    DESIGNATION_FIELD_NUMBER: _ClassVar[int]
    space_key: _keys_pb2.PublicKey
    identity_key: _keys_pb2.PublicKey
    device_key: _keys_pb2.PublicKey
    designation: AdmittedFeed.Designation
    def __init__(self, space_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., identity_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., device_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., designation: _Optional[_Union[AdmittedFeed.Designation, str]] = ...) -> None: ...

class Epoch(_message.Message):
    __slots__ = ("number", "previous_id", "timeframe", "snapshot_cid", "automerge_root")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEFRAME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_CID_FIELD_NUMBER: _ClassVar[int]
    AUTOMERGE_ROOT_FIELD_NUMBER: _ClassVar[int]
    number: int
    previous_id: _keys_pb2.PublicKey
    timeframe: _timeframe_pb2.TimeframeVector
    snapshot_cid: str
    automerge_root: str
    def __init__(self, number: _Optional[int] = ..., previous_id: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., timeframe: _Optional[_Union[_timeframe_pb2.TimeframeVector, _Mapping]] = ..., snapshot_cid: _Optional[str] = ..., automerge_root: _Optional[str] = ...) -> None: ...

class HaloSpace(_message.Message):
    __slots__ = ("identity_key", "halo_key")
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    HALO_KEY_FIELD_NUMBER: _ClassVar[int]
    identity_key: _keys_pb2.PublicKey
    halo_key: _keys_pb2.PublicKey
    def __init__(self, identity_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., halo_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ...) -> None: ...

class IdentityRecovery(_message.Message):
    __slots__ = ("identity_key", "recovery_key", "algorithm", "lookup_key")
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_KEY_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    LOOKUP_KEY_FIELD_NUMBER: _ClassVar[int]
    identity_key: _keys_pb2.PublicKey
    recovery_key: _keys_pb2.PublicKey
    algorithm: str
    lookup_key: _keys_pb2.PublicKey
    def __init__(self, identity_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., recovery_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., algorithm: _Optional[str] = ..., lookup_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ...) -> None: ...

class ProfileDocument(_message.Message):
    __slots__ = ("display_name", "avatar_cid", "data")
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    AVATAR_CID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    display_name: str
    avatar_cid: str
    data: _values_pb2.Struct
    def __init__(self, display_name: _Optional[str] = ..., avatar_cid: _Optional[str] = ..., data: _Optional[_Union[_values_pb2.Struct, _Mapping]] = ...) -> None: ...

class IdentityProfile(_message.Message):
    __slots__ = ("profile",)
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    profile: ProfileDocument
    def __init__(self, profile: _Optional[_Union[ProfileDocument, _Mapping]] = ...) -> None: ...

class DeviceProfileDocument(_message.Message):
    __slots__ = ("label", "platform", "platform_version", "architecture", "os", "os_version", "type")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_VERSION_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    OS_FIELD_NUMBER: _ClassVar[int]
    OS_VERSION_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    label: str
    platform: str
    platform_version: str
    architecture: str
    os: str
    os_version: str
    type: DeviceType
    def __init__(self, label: _Optional[str] = ..., platform: _Optional[str] = ..., platform_version: _Optional[str] = ..., architecture: _Optional[str] = ..., os: _Optional[str] = ..., os_version: _Optional[str] = ..., type: _Optional[_Union[DeviceType, str]] = ...) -> None: ...

class DeviceProfile(_message.Message):
    __slots__ = ("profile",)
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    profile: DeviceProfileDocument
    def __init__(self, profile: _Optional[_Union[DeviceProfileDocument, _Mapping]] = ...) -> None: ...

class DefaultSpace(_message.Message):
    __slots__ = ("space_id",)
    SPACE_ID_FIELD_NUMBER: _ClassVar[int]
    space_id: str
    def __init__(self, space_id: _Optional[str] = ...) -> None: ...

class ServiceAccess(_message.Message):
    __slots__ = ("server_name", "server_metadata", "server_key", "identity_key", "capabilities")
    SERVER_NAME_FIELD_NUMBER: _ClassVar[int]
    SERVER_METADATA_FIELD_NUMBER: _ClassVar[int]
    SERVER_KEY_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    server_name: str
    server_metadata: _values_pb2.Struct
    server_key: _keys_pb2.PublicKey
    identity_key: _keys_pb2.PublicKey
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, server_name: _Optional[str] = ..., server_metadata: _Optional[_Union[_values_pb2.Struct, _Mapping]] = ..., server_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., identity_key: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., capabilities: _Optional[_Iterable[str]] = ...) -> None: ...

class Auth(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Claim(_message.Message):
    __slots__ = ("id", "assertion")
    ID_FIELD_NUMBER: _ClassVar[int]
    ASSERTION_FIELD_NUMBER: _ClassVar[int]
    id: _keys_pb2.PublicKey
    assertion: _values_pb2.Any
    def __init__(self, id: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., assertion: _Optional[_Union[_values_pb2.Any, _Mapping]] = ...) -> None: ...

class Proof(_message.Message):
    __slots__ = ("type", "creation_date", "signer", "nonce", "value", "chain")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    CREATION_DATE_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    type: str
    creation_date: _values_pb2.Timestamp
    signer: _keys_pb2.PublicKey
    nonce: bytes
    value: bytes
    chain: Chain
    def __init__(self, type: _Optional[str] = ..., creation_date: _Optional[_Union[_values_pb2.Timestamp, _Mapping]] = ..., signer: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., nonce: _Optional[bytes] = ..., value: _Optional[bytes] = ..., chain: _Optional[_Union[Chain, _Mapping]] = ...) -> None: ...

class Chain(_message.Message):
    __slots__ = ("credential",)
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    credential: Credential
    def __init__(self, credential: _Optional[_Union[Credential, _Mapping]] = ...) -> None: ...

class Credential(_message.Message):
    __slots__ = ("id", "issuer", "issuance_date", "expiration_date", "expiration_ref", "subject", "proof", "parent_credential_ids")
    ID_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    ISSUANCE_DATE_FIELD_NUMBER: _ClassVar[int]
    EXPIRATION_DATE_FIELD_NUMBER: _ClassVar[int]
    EXPIRATION_REF_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    PARENT_CREDENTIAL_IDS_FIELD_NUMBER: _ClassVar[int]
    id: _keys_pb2.PublicKey
    issuer: _keys_pb2.PublicKey
    issuance_date: _values_pb2.Timestamp
    expiration_date: _values_pb2.Timestamp
    expiration_ref: bytes
    subject: Claim
    proof: Proof
    parent_credential_ids: _containers.RepeatedCompositeFieldContainer[_keys_pb2.PublicKey]
    def __init__(self, id: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., issuer: _Optional[_Union[_keys_pb2.PublicKey, _Mapping]] = ..., issuance_date: _Optional[_Union[_values_pb2.Timestamp, _Mapping]] = ..., expiration_date: _Optional[_Union[_values_pb2.Timestamp, _Mapping]] = ..., expiration_ref: _Optional[bytes] = ..., subject: _Optional[_Union[Claim, _Mapping]] = ..., proof: _Optional[_Union[Proof, _Mapping]] = ..., parent_credential_ids: _Optional[_Iterable[_Union[_keys_pb2.PublicKey, _Mapping]]] = ...) -> None: ...

class Presentation(_message.Message):
    __slots__ = ("credentials", "proofs")
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    PROOFS_FIELD_NUMBER: _ClassVar[int]
    credentials: _containers.RepeatedCompositeFieldContainer[Credential]
    proofs: _containers.RepeatedCompositeFieldContainer[Proof]
    def __init__(self, credentials: _Optional[_Iterable[_Union[Credential, _Mapping]]] = ..., proofs: _Optional[_Iterable[_Union[Proof, _Mapping]]] = ...) -> None: ...
