"""Every error this package raises on purpose, grouped by who can do something about it.

    DxosError
    ├── UsageError                  the caller: fix the call
    │   ├── ClosedError             the client, space or stream was closed (or never opened)
    │   ├── ConfigError             a setting that is missing, unknown or out of range
    │   ├── InvalidKeyError         text or bytes that are no key, id, DID or DXN
    │   ├── InvalidValueError       a value the database cannot store
    │   ├── IdentityMissingError    this device has no identity yet
    │   ├── IdentityExistsError     this device has an identity already
    │   ├── SpaceNotFoundError      no such space, or a name that is not unique
    │   ├── SpaceNotReadyError      the space is closed or still opening
    │   ├── ObjectNotFoundError     no such object in that space
    │   ├── AlreadyJoinedError      this identity is a member already
    │   ├── NotAllowedError         the role of this identity does not permit it
    │   └── PassphraseError         not the passphrase that the backup was sealed with
    ├── InvitationError             this invitation will not work: ask for a new one
    │   ├── InvitationCodeError     malformed, truncated or foreign code
    │   ├── InvitationExpiredError  its lifetime is over
    │   ├── InvitationCancelledError
    │   ├── InvitationUsedError     single use, and somebody used it
    │   ├── InvitationTimeoutError  the other side did not answer in time
    │   └── AuthenticationError     the authentication code was wrong too often
    ├── PeerError                   the remote peer: drop it, do not retry
    │   ├── DecodeError             bytes that do not parse
    │   ├── ProtocolError           a message its state does not allow
    │   ├── LimitError              more or larger than the limits allow
    │   ├── ProofError              a signature, hash or chain that does not verify
    │   └── RemoteError             the peer answered a call with an error
    ├── LinkError                   the network: the same call may work later
    │   ├── BrokenError             the connection was lost in use
    │   ├── DeadlineError           no answer within the time allowed
    │   ├── SignalError             no signalling server answers
    │   └── TransportError          a transport that cannot reach that address
    └── StorageError                the disk, or bytes on it that are not ours
        ├── StorageFullError        no room: nothing of the refused batch was written
        ├── StorageAccessError      missing permission, read-only, or not a folder
        ├── ProfileLockedError      another process has this profile open
        ├── ProfileVersionError     written by a newer version
        ├── FencedError             another process leads this profile now
        ├── KeyMissingError         the keyring lacks a private key
        └── CorruptionError         a document, row, feed or key that fails its check

A bug here is AssertionError and a bad Python argument is TypeError or ValueError; neither is in the tree.
Across processes an error keeps its `code`, message and `detail`, never its traceback.
"""

from typing import ClassVar

Detail = str | int | float | bool
_BY_CODE: dict[str, type["DxosError"]] = {}


class DxosError(Exception):
    """Base of the tree above.

    Attributes:
        code: Stable dotted name, used between processes, by `dx --json` and in the documentation; never reused.
        retryable: Whether the same call may succeed later though nothing else has changed.
        detail: Facts for programs (ids, limits, counts); no secrets, no prose.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **detail: Detail) -> None:
        super().__init__(message)
        self.detail = detail

    def __init_subclass__(cls, *, code: str, retryable: bool = False) -> None:
        assert code not in _BY_CODE, f"error code {code!r} is taken"
        cls.code, cls.retryable = code, retryable
        _BY_CODE[code] = cls


class UsageError(DxosError, code="usage"):
    """The call is wrong; fix the call."""


class ClosedError(UsageError, code="usage.closed"):
    """The object was closed, or was never opened."""


class HostInactiveError(ClosedError, code="usage.closed.inactive", retryable=True):
    """The host was asked to yield; nothing of the call was done, and it can be made again when the host works again."""

    def __init__(
        self,
        message: str = "The host is inactive; `await client.resume_host_services()` makes it work again.",
        **detail: Detail,
    ) -> None:
        super().__init__(message, **detail)


class ConfigError(UsageError, code="usage.config"):
    """A setting is missing, unknown or out of range."""


class InvalidKeyError(UsageError, code="usage.key"):
    """Text or bytes that are no key, id, DID or DXN."""


class InvalidValueError(UsageError, code="usage.value"):
    """A value that the database cannot store."""


class IdentityMissingError(UsageError, code="usage.identity-missing"):
    """This device has no identity yet."""


class IdentityExistsError(UsageError, code="usage.identity-exists"):
    """This device has an identity already."""


class SpaceNotFoundError(UsageError, code="usage.space-not-found"):
    """No such space, or a name that more than one space has."""


class SpaceNotReadyError(UsageError, code="usage.space-not-ready"):
    """The space is closed or still opening."""


class ObjectNotFoundError(UsageError, code="usage.object-not-found"):
    """No such object in that space."""


class AlreadyJoinedError(UsageError, code="usage.already-joined"):
    """This identity is a member of the space already."""


class NotAllowedError(UsageError, code="usage.not-allowed"):
    """The role of this identity does not permit the call."""


class PassphraseError(UsageError, code="usage.passphrase"):
    """Not the passphrase that a backup was sealed with."""


class InvitationError(DxosError, code="invitation"):
    """The invitation will not work; ask for a new one."""


class InvitationCodeError(InvitationError, code="invitation.code"):
    """A malformed, truncated or foreign invitation code."""


class InvitationExpiredError(InvitationError, code="invitation.expired"):
    """The invitation's lifetime is over."""


class InvitationCancelledError(InvitationError, code="invitation.cancelled"):
    """The invitation was cancelled by one of its two sides."""


class InvitationUsedError(InvitationError, code="invitation.used"):
    """The invitation admits one guest, and admitted one."""


class InvitationTimeoutError(InvitationError, code="invitation.timeout", retryable=True):
    """The other side did not appear or answer in time."""


class AuthenticationError(InvitationError, code="invitation.authentication"):
    """The authentication code was wrong too often; the invitation is dead."""


class PeerError(DxosError, code="peer"):
    """The remote peer misbehaves; its connection is closed."""


class DecodeError(PeerError, code="peer.decode"):
    """Bytes that do not parse."""


class ProtocolError(PeerError, code="peer.protocol"):
    """A message that its state does not allow."""


class LimitError(PeerError, code="peer.limit"):
    """More, or larger, than `dxos.limits` allows."""


class ProofError(PeerError, code="peer.proof"):
    """A signature, hash or chain that does not verify."""


class RemoteError(PeerError, code="peer.remote"):
    """The peer answered a call with an error."""


class LinkError(DxosError, code="link", retryable=True):
    """The network; the same call may work later."""


class BrokenError(LinkError, code="link.broken", retryable=True):
    """The connection was lost in use."""


class DeadlineError(LinkError, code="link.deadline", retryable=True):
    """No answer within the time allowed."""


class SignalError(LinkError, code="link.signal", retryable=True):
    """No signalling server answers."""


class TransportError(LinkError, code="link.transport"):
    """The transport cannot, or must not, reach that address."""


class StorageError(DxosError, code="storage"):
    """The disk, or bytes on it that are not ours."""


class StorageFullError(StorageError, code="storage.full", retryable=True):
    """No room left; nothing of the refused batch was written."""


class StorageAccessError(StorageError, code="storage.access"):
    """A missing permission, a read-only file system, or a path that is no folder."""


class ProfileLockedError(StorageError, code="storage.locked", retryable=True):
    """Another process has this profile open."""


class ProfileVersionError(StorageError, code="storage.version"):
    """The profile was written by a newer version of this package."""


class FencedError(StorageError, code="storage.fenced"):
    """Another process has taken this profile over; nothing of the refused batch was written."""


class KeyMissingError(StorageError, code="storage.key-missing"):
    """The keyring lacks a private key that is needed."""


class CorruptionError(StorageError, code="storage.corruption"):
    """A document, row, feed or key that fails its check."""


def from_wire(code: str, message: str, detail: dict[str, Detail]) -> DxosError:
    """Rebuild an error another process sent; a code newer than us becomes its nearest known ancestor."""
    while code and code not in _BY_CODE:
        code = code.rpartition(".")[0]
    return _BY_CODE.get(code, DxosError)(message, **detail)
