"""Invitations, and the codes that carry them from one person to another (wire reference, section B)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeVar, final
from urllib.parse import parse_qs, urlsplit

from msgspec import Struct

from dxos.errors import DecodeError, InvalidKeyError, InvitationCodeError, PeerError
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.keys.base62 import decode as decode_base62
from dxos.keys.base62 import encode as encode_base62
from dxos.keys.ids import is_space_id
from dxos.keys.ids import space_id as space_id_of
from dxos.limits import INVITATION_CODE_CHARS_MAX

if TYPE_CHECKING:
    from dxos.wire.proto import invitation_pb2, keys_pb2

# The messages are imported where one is made or read: who only names invitations, as every client does, must not wait
# for them.


# None of these is an IntEnum, which would print itself as a bare number.
class InvitationType(int, Enum):
    """How an invitation finds its host."""

    INTERACTIVE = 0  # The host that made it waits for the guest.
    DELEGATED = 1  # Every member that may admit hosts it.
    MULTIUSE = 2  # Old name of INTERACTIVE with `multi_use`; read as that, never made.


class InvitationKind(int, Enum):
    """What the guest becomes."""

    DEVICE = 0  # One more device of the host's identity.
    SPACE = 1  # A member of the host's space.


class AuthMethod(int, Enum):
    """What the guest has to show besides the invitation."""

    NONE = 0
    SHARED_SECRET = 1  # A code that the host's user tells the guest's user.
    KNOWN_PUBLIC_KEY = 2  # A signature by the key pair inside the invitation.


class InvitationState(int, Enum):
    """How far an invitation has come, on either side."""

    INIT = 0
    CONNECTING = 1
    CONNECTED = 2
    READY_FOR_AUTHENTICATION = 3
    AUTHENTICATING = 4
    SUCCESS = 5
    CANCELLED = 6
    TIMEOUT = 7
    ERROR = 8
    EXPIRED = 9

    @property
    def is_final(self) -> bool:
        """Whether no other state follows."""
        return self >= InvitationState.SUCCESS


Number = TypeVar("Number", bound=Enum)


@final
class AdmissionKeypair(Struct, frozen=True, array_like=True):
    """The Ed25519 key pair by which a guest shows that it is the one invited."""

    public_key: PublicKey  # 32 bytes.
    private_key: bytes | None = None  # 64 bytes: seed and public key; a secret.

    def __repr__(self) -> str:
        return f"AdmissionKeypair(public_key={self.public_key!r})"


@final
class Invitation(Struct, frozen=True, array_like=True):
    """One invitation. Its `repr` leaves out the authentication code and the private key."""

    invitation_id: str  # 64 hex digits.
    type: InvitationType
    kind: InvitationKind
    auth_method: AuthMethod
    swarm_key: PublicKey  # 32 bytes: where host and guest meet.
    state: InvitationState = InvitationState.INIT
    timeout_ms: int | None = None  # Of the handshake, on both sides; 0 or more.
    identity_key: PublicKey | None = None  # Of the host that made it; not in the code.
    space_key: PublicKey | None = None
    auth_code: str | None = None  # 6 digits; a secret; not in the code.
    target: str | None = None  # What the guest's application should open; ours to pass on.
    persistent: bool | None = None  # Whether the host keeps it across restarts; not in the code.
    created_ms: int | None = None  # Unix time in milliseconds.
    lifetime_s: int | None = None  # 0 or None: for ever.
    multi_use: bool | None = None  # Whether it admits more than one guest; not in the code.
    guest_keypair: AdmissionKeypair | None = None  # KNOWN_PUBLIC_KEY only.
    delegation_credential_id: PublicKey | None = None  # 32 bytes; DELEGATED only; not in the code.
    role: SpaceRole | None = None  # SPACE only; not in the code.
    space_id: str | None = None

    @property
    def authentication_code(self) -> str | None:
        """The older name of `auth_code`."""
        return self.auth_code

    @property
    def expires_ms(self) -> int | None:
        """When its lifetime is over, as Unix time in milliseconds; None if it has no end."""
        if self.created_ms is None or not self.lifetime_s:
            return None
        return self.created_ms + self.lifetime_s * 1000

    def is_expired(self, now_ms: int) -> bool:
        """Whether its lifetime is over."""
        expires_ms = self.expires_ms
        return expires_ms is not None and expires_ms <= now_ms

    def __repr__(self) -> str:
        uses = " multi-use" if self.multi_use else ""
        return (
            f"<Invitation {self.invitation_id[:8]} {self.kind.name} {self.type.name}{uses} "
            f"{self.auth_method.name} {self.state.name}>"
        )

    def to_message(self) -> invitation_pb2.Invitation:
        """The invitation with all its fields, secrets included: for storage and the service contract."""
        from dxos.wire import to_key, to_timestamp
        from dxos.wire.proto import invitation_pb2, keys_pb2

        message = invitation_pb2.Invitation(
            invitation_id=self.invitation_id,
            type=self.type.name,
            kind=self.kind.name,
            auth_method=self.auth_method.name,
            swarm_key=to_key(self.swarm_key),
            state=self.state.name,
            timeout=self.timeout_ms,
            identity_key=_to_key(self.identity_key),
            space_key=_to_key(self.space_key),
            auth_code=self.auth_code,
            target=self.target,
            persistent=self.persistent,
            created=None if self.created_ms is None else to_timestamp(self.created_ms),
            lifetime=self.lifetime_s,
            multi_use=self.multi_use,
            delegation_credential_id=_to_key(self.delegation_credential_id),
            role=None if self.role is None else self.role.name,
            space_id=self.space_id,
        )
        if self.guest_keypair is not None:
            message.guest_keypair.public_key.CopyFrom(to_key(self.guest_keypair.public_key))
            if self.guest_keypair.private_key is not None:
                message.guest_keypair.private_key.CopyFrom(keys_pb2.PrivateKey(data=self.guest_keypair.private_key))
        return message

    @classmethod
    def from_message(cls, untrusted: invitation_pb2.Invitation) -> Invitation:
        """Check what was read; missing zeros are zeros, MULTIUSE becomes INTERACTIVE with `multi_use`.

        Raises:
            DecodeError: No swarm key or id, an unknown enum number, a negative time, or an id that is not of the key.
        """
        from dxos.wire import from_key, from_timestamp

        kind = _enum(InvitationType, untrusted.type)
        multi_use = untrusted.multi_use if untrusted.HasField("multi_use") else None
        if kind is InvitationType.MULTIUSE:
            kind, multi_use = InvitationType.INTERACTIVE, True
        if not untrusted.swarm_key.data:
            raise DecodeError("It lacks the swarm key.")
        if not untrusted.invitation_id:
            raise DecodeError("It lacks its id.")
        if untrusted.timeout < 0 or untrusted.lifetime < 0 or from_timestamp(untrusted.created) < 0:
            raise DecodeError("A time in it is negative.")
        space_key = _from_key(untrusted, "space_key")
        space_id = untrusted.space_id or None
        if space_id is not None and not is_space_id(space_id):
            raise DecodeError("Its space id is malformed.")
        if space_id is not None and space_key is not None and space_id != space_id_of(space_key):
            raise DecodeError("Its space id does not belong to its space key.")
        return cls(
            invitation_id=untrusted.invitation_id,
            type=kind,
            kind=_enum(InvitationKind, untrusted.kind),
            auth_method=_enum(AuthMethod, untrusted.auth_method),
            swarm_key=from_key(untrusted.swarm_key),
            state=_enum(InvitationState, untrusted.state),
            timeout_ms=untrusted.timeout if untrusted.HasField("timeout") else None,
            identity_key=_from_key(untrusted, "identity_key"),
            space_key=space_key,
            auth_code=untrusted.auth_code if untrusted.HasField("auth_code") else None,
            target=untrusted.target if untrusted.HasField("target") else None,
            persistent=untrusted.persistent if untrusted.HasField("persistent") else None,
            created_ms=from_timestamp(untrusted.created) if untrusted.HasField("created") else None,
            lifetime_s=untrusted.lifetime if untrusted.HasField("lifetime") else None,
            multi_use=multi_use,
            guest_keypair=_from_keypair(untrusted),
            delegation_credential_id=_from_key(untrusted, "delegation_credential_id"),
            role=SpaceRole.from_wire(untrusted.role) if untrusted.HasField("role") else None,
            space_id=space_id,
        )


# The fields that leave the host: neither its identity, nor the authentication code, nor what only it needs.
_FIELDS_IN_CODE: Final = (
    "invitation_id",
    "type",
    "kind",
    "auth_method",
    "swarm_key",
    "state",
    "timeout",
    "space_key",
    "target",
    "created",
    "lifetime",
    "guest_keypair",
    "space_id",
)
_CODE: Final = re.compile(r"[0-9a-zA-Z]+")
# The names under which applications put a code into an address, ours first.
_QUERY_NAMES: Final = (
    "spaceInvitationCode",
    "deviceInvitationCode",
    "haloInvitationCode",
    "spaceInvitation",
    "invitationCode",
    "invitation",
)


@final
class InvitationEncoder:
    """Invitations as text of letters and digits."""

    @staticmethod
    def encode(invitation: Invitation) -> str:
        """The code of an invitation; the authentication code is not in it, the guest's key pair is."""
        from dxos.wire import encode

        message = invitation.to_message()
        for descriptor in message.DESCRIPTOR.fields:
            if descriptor.name not in _FIELDS_IN_CODE:
                message.ClearField(descriptor.name)
        return encode_base62(encode(message))

    @staticmethod
    def decode(code: str) -> Invitation:
        """Read a code, or an address that carries one.

        Args:
            code: The code, or a URL with it in its query or fragment; surrounding white space is ignored.

        Raises:
            InvitationCodeError: Its message says what is wrong with the code.
        """
        text = code.strip()
        if "?" in text or "/" in text or "#" in text or "=" in text:
            text = _code_in_address(text)
        if not text:
            raise InvitationCodeError("The invitation code is empty: paste the whole code.")
        if len(text) > INVITATION_CODE_CHARS_MAX:
            raise InvitationCodeError(
                "This is too long to be an invitation code: copy the code once more.",
                chars_max=INVITATION_CODE_CHARS_MAX,
            )
        if not _CODE.fullmatch(text):
            raise InvitationCodeError("An invitation code has letters and digits only: copy the code once more.")
        from dxos.wire import decode
        from dxos.wire.proto import invitation_pb2

        try:
            message = decode(invitation_pb2.Invitation, decode_base62(text))
        except (InvalidKeyError, PeerError):
            raise InvitationCodeError(
                "The invitation code does not parse: a part of it is missing or changed. Copy it once more."
            ) from None
        for name in set(message.DESCRIPTOR.fields_by_name).difference(_FIELDS_IN_CODE):
            message.ClearField(name)
        try:
            return Invitation.from_message(message)
        except PeerError as error:
            raise InvitationCodeError(f"The invitation code is damaged: {error}. Copy it once more.") from None


def _code_in_address(address: str) -> str:
    # A code at its longest, each character escaped, and room for the address around it.
    if len(address) > 4 * INVITATION_CODE_CHARS_MAX:
        raise InvitationCodeError("The address is too long to be an invitation: copy the code once more.")
    try:
        parts = urlsplit(address)
    except ValueError:
        raise InvitationCodeError("The address with the invitation does not parse: copy it once more.") from None
    # Applications that route by fragment put the query after it.
    for query in (parts.query, parts.fragment.rpartition("?")[2], address):
        found: Mapping[str, list[str]] = parse_qs(query)
        for name in _QUERY_NAMES:
            if name in found:
                return found[name][0].strip()
    raise InvitationCodeError("The address carries no invitation code: copy the code itself.")


def _enum(kind: type[Number], number: int) -> Number:
    try:
        return kind(number)
    except ValueError:
        raise DecodeError(f"It has an unknown {kind.__name__}") from None


def _to_key(key: PublicKey | None) -> keys_pb2.PublicKey | None:
    from dxos.wire import to_key

    return None if key is None else to_key(key)


def _from_key(message: invitation_pb2.Invitation, name: str) -> PublicKey | None:
    from dxos.wire import from_key

    return from_key(getattr(message, name)) if message.HasField(name) else None


def _from_keypair(message: invitation_pb2.Invitation) -> AdmissionKeypair | None:
    from dxos.wire import from_key

    if not message.HasField("guest_keypair"):
        return None
    keypair = message.guest_keypair
    private_key = keypair.private_key.data if keypair.HasField("private_key") else None
    return AdmissionKeypair(from_key(keypair.public_key), private_key)
