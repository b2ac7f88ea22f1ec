"""What a client may ask of the host: the service contract, the only thing the two halves share.

In one process a call is a direct call; across processes the same names travel as RPC. So arguments and results are
frozen values of plain data, never live objects, and whoever implements a service raises errors of `dxos.errors` only.

A stream is a callback: `subscribe_…(next)` calls `next` at once with the present value where there is one, then once
for each change, in order, on the event loop, until `unsubscribe()`. Callbacks must not block and must not raise. Across
processes the present value comes a moment later, but before the answer to any call that is made afterwards.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import TracebackType
from typing import Any, Protocol, TypeVar

from msgspec import Struct, field

from dxos.echo.mutation import Mutation
from dxos.echo.query import Query
from dxos.echo.revision import Conflict, Revision
from dxos.echo.rows import ObjectRow, Path
from dxos.errors import DxosError
from dxos.halo.invitation import Invitation
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey

T = TypeVar("T")
Next = Callable[[T], None]
JsonObject = Mapping[str, Any]


class Subscription(Protocol):
    """What a stream returns."""

    def unsubscribe(self) -> None:
        """End the stream; nothing is called after this returns. Doing so twice is harmless."""
        ...


class Progress(Struct, frozen=True, array_like=True):
    """How far a long piece of work is."""

    done: int
    total: int  # In the same unit, such as documents; 0 if there is nothing to do.

    @property
    def fraction(self) -> float:
        """From 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 1.0


# --- System and network ----------------------------------------------------------------------------------------------


# None of the enums here is an IntEnum, which would print itself as a bare number.
class SystemStatus(int, Enum):
    """Whether the host works (numbers of 0.8.3; compare by name)."""

    INACTIVE = 0
    ACTIVE = 1


class Platform(Struct, frozen=True, array_like=True):
    """What a host runs on."""

    version: str  # Of this package.
    python: str  # Such as "3.12.4".
    system: str  # Such as "Linux 6.8".
    pid: int  # Of the host's process.


class SystemService(Protocol):
    """The host itself."""

    def query_status(self, next: Next[SystemStatus | None]) -> Subscription:
        """Whether the host works; None while nothing is heard of it."""
        ...

    async def get_platform(self) -> Platform:
        """What the host runs on."""
        ...

    async def get_config(self) -> JsonObject:
        """The settings that the host runs with, without secrets."""
        ...

    async def get_diagnostics(self) -> JsonObject:
        """What helps to find out what is wrong, as plain data without secrets, keys cut short."""
        ...

    async def update_status(self, status: SystemStatus) -> None:
        """INACTIVE: close the profile, so that another process can have it; ACTIVE: open it again.

        In between there is this service alone. Everybody's streams go on afterwards.

        Raises:
            StorageError: The profile cannot be opened, such as ProfileLockedError.
        """
        ...

    async def reset(self) -> None:
        """Wipe the profile's storage, identity, keys and spaces, as soon as the provider is closed, which is next."""
        ...

    async def back_up(self, path: str, passphrase: str, next: Next[Progress]) -> int:
        """Write the profile, its keys included, to one file that the passphrase seals; how many bytes it has.

        Raises:
            UsageError: The profile is in memory, the passphrase is empty, or another file has that name.
            StorageError: The file cannot be written.
        """
        ...


class SignalState(int, Enum):
    """State of the connection to one signalling server."""

    CONNECTING = 0
    RECONNECTING = 1
    CONNECTED = 2
    DISCONNECTED = 3
    ERROR = 4
    CLOSED = 5


class ConnectionState(int, Enum):
    """Whether this peer takes part in the network."""

    OFFLINE = 0
    ONLINE = 1


class SignalStatus(Struct, frozen=True, array_like=True):
    """One signalling server."""

    server: str  # Its URL.
    state: SignalState


class NetworkStatus(Struct, frozen=True, array_like=True):
    """The network, as the host sees it."""

    swarm: ConnectionState
    signaling: tuple[SignalStatus, ...] = ()
    connections: int = 0  # Open connections to peers, over all spaces.


class NetworkService(Protocol):
    """The network."""

    def query_status(self, next: Next[NetworkStatus]) -> Subscription: ...

    async def update_config(self, state: ConnectionState) -> None:
        """Go offline, closing every connection, or online again."""
        ...


# --- Identity --------------------------------------------------------------------------------------------------------


class Profile(Struct, frozen=True, array_like=True):
    """What an identity tells others about itself."""

    display_name: str | None = None
    avatar_cid: str | None = None
    data: JsonObject = field(default_factory=dict)


class Identity(Struct, frozen=True, array_like=True):
    """The identity of this profile."""

    identity_key: PublicKey  # 65 bytes.
    did: str  # "did:halo:B…", 42 characters.
    space_key: PublicKey  # Of the HALO space, which holds the identity's own credentials.
    profile: Profile


class DeviceKind(int, Enum):
    """Which device."""

    CURRENT = 0
    TRUSTED = 1


class Presence(int, Enum):
    """Whether somebody is connected."""

    OFFLINE = 0
    ONLINE = 1
    REMOVED = 2


class Device(Struct, frozen=True, array_like=True):
    """A device that may act for the identity."""

    device_key: PublicKey
    kind: DeviceKind
    presence: Presence
    label: str | None = None


class Contact(Struct, frozen=True, array_like=True):
    """Another identity that shares a space with this one."""

    identity_key: PublicKey
    did: str
    profile: Profile
    space_ids: tuple[str, ...]


class CredentialInfo(Struct, frozen=True, array_like=True):
    """A credential, decoded as far as programs need it."""

    id: PublicKey  # 32 bytes.
    type: str  # Full name, such as "dxos.halo.credentials.AdmittedFeed".
    issuer: PublicKey
    subject: PublicKey
    issued_ms: int  # Milliseconds since 1970.
    assertion: JsonObject  # camelCase names; keys in hex.
    encoded: bytes  # The protobuf message.


class IdentityService(Protocol):
    """The identity of the profile."""

    def query_identity(self, next: Next[Identity | None]) -> Subscription: ...

    async def create_identity(self, profile: Profile, device_label: str | None = None) -> Identity:
        """Raises IdentityExistsError if there is one already."""
        ...

    async def update_profile(self, profile: Profile) -> Identity: ...

    async def query_credentials(
        self, *, ids: Sequence[PublicKey] | None = None, type: str | None = None
    ) -> list[CredentialInfo]:
        """Credentials of the HALO space, in the order they were processed."""
        ...

    async def sign_presentation(self, ids: Sequence[PublicKey], nonce: bytes | None) -> bytes:
        """An encoded Presentation of those credentials, signed by this device."""
        ...


class DevicesService(Protocol):
    """Devices of the identity."""

    def query_devices(self, next: Next[tuple[Device, ...]]) -> Subscription: ...


class ContactsService(Protocol):
    """Co-members of any space."""

    def query_contacts(self, next: Next[tuple[Contact, ...]]) -> Subscription: ...


# --- Invitations -----------------------------------------------------------------------------------------------------


class InvitationSide(Enum):
    """Which end of an invitation this profile is."""

    CREATED = "created"
    ACCEPTED = "accepted"


class InvitationUpdate(Struct, frozen=True, array_like=True):
    """The present value of one invitation.

    `error` is set with the states CANCELLED, TIMEOUT, ERROR and EXPIRED, and says why in one sentence; a host whose
    guest failed goes back to CONNECTING and has no error. `done` says that this was the last update.
    """

    invitation: Invitation
    error: DxosError | None = None
    done: bool = False
    failures: int = 0  # Wrong authentication codes so far.


class InvitationsState(Struct, frozen=True, array_like=True):
    """All invitations of this profile that are not done."""

    created: tuple[Invitation, ...] = ()
    accepted: tuple[Invitation, ...] = ()


class InvitationsService(Protocol):
    """Inviting and joining."""

    def create_invitation(self, invitation: Invitation, next: Next[InvitationUpdate]) -> Subscription:
        """Host an invitation; unset fields get their defaults. With the id of a known one, follow that one.

        Every update carries the whole invitation, from the first with code and authentication code on. Failing at
        once (no permission, no such space) is an update with state ERROR. Unsubscribing does not cancel it.
        """
        ...

    def accept_invitation(self, invitation: Invitation, next: Next[InvitationUpdate]) -> Subscription:
        """Redeem an invitation. The last update has state SUCCESS and `space_key`, `space_id`; or an error."""
        ...

    async def authenticate(self, invitation_id: str, auth_code: str) -> None:
        """Hand in the authentication code; what comes of it is seen in the updates. Unknown id: UsageError."""
        ...

    async def cancel_invitation(self, invitation_id: str) -> None:
        """Cancel from either side; a code of a cancelled invitation admits nobody, also after a restart."""
        ...

    def query_invitations(self, next: Next[InvitationsState]) -> Subscription: ...


# --- Spaces ----------------------------------------------------------------------------------------------------------


class SpaceState(int, Enum):
    """Life of a space (numbers of 0.8.3)."""

    CLOSED = 1
    INACTIVE = 2
    READY = 3
    INITIALIZING = 4
    ERROR = 5
    ACTIVE = 6
    CONTROL_ONLY = 7


class SpaceMember(Struct, frozen=True, array_like=True):
    """A member of a space, in the order of admission."""

    identity_key: PublicKey
    did: str
    profile: Profile
    role: SpaceRole
    presence: Presence
    is_self: bool


class PipelineState(Struct, frozen=True, array_like=True):
    """How far the space's own records have been read."""

    control_feeds: tuple[PublicKey, ...] = ()
    data_feeds: tuple[PublicKey, ...] = ()
    control_timeframe: tuple[tuple[PublicKey, int], ...] = ()  # Processed block numbers by feed.
    epoch: int | None = None  # Number of the current epoch.
    space_root_url: str | None = None  # "automerge:<documentId>"


class SpaceInfo(Struct, frozen=True, array_like=True):
    """A space, as the host sees it."""

    id: str  # 33 characters.
    key: PublicKey
    state: SpaceState
    members: tuple[SpaceMember, ...]
    pipeline: PipelineState
    role: SpaceRole = SpaceRole.INVALID  # Of this identity.
    properties_id: str | None = None  # The object that holds the space's name; None until READY.
    cached_name: str | None = None  # Known before the space is open.
    synced: bool = True  # False while documents that a connected peer has are still missing here.
    arriving: Progress | None = None  # Of the documents that connected peers announced, how many came; None: all.
    refused_changes: int = 0  # Changes dropped because their sender is a READER.
    error: DxosError | None = None


class SpaceStats(Struct, frozen=True, array_like=True):
    """What a space takes on this disk, what of it could be freed, and what was. All sizes in bytes."""

    epoch: int | None  # Number of the current epoch.
    objects: int  # Deleted ones are not among them.
    documents: int  # One for each object, and the roots.
    snapshot_bytes: int  # Documents as snapshots.
    change_bytes: int  # Changes since those snapshots, and documents that have none: `compact` makes less of them.
    changes: int  # How many pieces these are.
    deleted_documents: int  # Documents of deleted objects only: a new epoch frees them.
    deleted_bytes: int
    reclaimed_documents: int  # Given up so far: deleted objects, and roots of earlier epochs.
    reclaimed_bytes: int
    file_bytes: int  # The profile's database with all its spaces, without its log.
    free_bytes: int  # Of it, unused: `compact` gives it back to the disk.


class SpaceMessage(Struct, frozen=True, array_like=True):
    """A message that a peer posted to a channel of a space."""

    channel: str
    payload: JsonObject
    sender: PublicKey  # The device that posted it.
    message_id: PublicKey
    sent_ms: int


class SpaceArchive(Struct, frozen=True, array_like=True):
    """A space in the archive of 0.8.3: a tar file with its documents, their history included."""

    filename: str  # `<space id>.tar`
    contents: bytes
    missing: int = 0  # Documents that are not in it, because this device has them not, or damaged.


class SpacesService(Protocol):
    """Spaces and their members. A space is named by its id."""

    def query_spaces(self, next: Next[tuple[SpaceInfo, ...]]) -> Subscription: ...

    async def create_space(self, properties: JsonObject) -> SpaceInfo:
        """Create a space; it is READY when this returns. Raises IdentityMissingError without an identity."""
        ...

    async def update_space(self, space_id: str, state: SpaceState) -> None:
        """Open (ACTIVE) or close (INACTIVE) a space; remembered over restarts."""
        ...

    async def update_member_role(self, space_id: str, member: PublicKey, role: SpaceRole) -> None:
        """Raises NotAllowedError where the role of this identity, or the member's, forbids it."""
        ...

    async def post_message(self, space_id: str, channel: str, payload: JsonObject) -> None:
        """Send to whoever is connected; kept by nobody."""
        ...

    def subscribe_messages(self, space_id: str, channel: str, next: Next[SpaceMessage]) -> Subscription: ...

    async def query_credentials(self, space_id: str) -> list[CredentialInfo]: ...

    async def create_epoch(self, space_id: str) -> None:
        """Begin a new epoch; durable, and followed here, when this returns. Raises NotAllowedError for a READER."""
        ...

    async def compact(self, space_id: str, next: Next[Progress]) -> None:
        """Make one snapshot of each document, and give what is unused of the file back to the disk."""
        ...

    async def query_stats(self, space_id: str) -> SpaceStats:
        """What the space takes; it is READY."""
        ...

    async def export_space(self, space_id: str, next: Next[Progress]) -> SpaceArchive:
        """Everything in a space that is READY, as one file."""
        ...

    async def import_space(self, contents: bytes, next: Next[Progress]) -> SpaceInfo:
        """Make a new space with a copy of what an archive holds; it is READY when this returns.

        Raises:
            InvalidValueError: It is no archive of a space, or damaged; nothing is left of it.
        """
        ...


# --- Data ------------------------------------------------------------------------------------------------------------


class ObjectState(Struct, frozen=True, array_like=True):
    """One object as the host has it.

    A client keeps `version` and `heads` with its copy: rows with a lower version than the one it has are old news, and
    `heads` says which state of the document its edits refer to.
    """

    row: ObjectRow
    version: int  # Grows with every change of this object on this host.
    heads: tuple[bytes, ...]  # Of the object's document; 32 bytes each, sorted.


class Edit(Struct, frozen=True, array_like=True):
    """What a client asks to change in one object.

    `create` is the whole new object (its id made by the client), then there are no mutations; otherwise `mutations` are
    applied in order, in one change, to the document as it was at `base_heads`, and merged.
    """

    object_id: str
    create: ObjectRow | None = None
    mutations: tuple[Mutation, ...] = ()
    base_heads: tuple[bytes, ...] = ()


class Receipt(Struct, frozen=True, array_like=True):
    """Which update of which client this is, so that the host knows one that it has applied already."""

    client_id: str  # Of one client for its whole life; at most CLIENT_ID_CHARS_MAX.
    sequence: int  # Grows with each update of the client; those of one space are asked for one after the other.


class DataService(Protocol):
    """Objects of a space."""

    def subscribe(
        self, space_id: str, next: Next[tuple[ObjectState, ...]], *, missed: Callable[[], None] | None = None
    ) -> Subscription:
        """Every object that changes from now on, whoever changed it, once per change; nothing at first.

        `missed` is called when changes may have been missed, because another host has taken over: whoever asks from
        then on, and goes on listening, has all of them.
        """
        ...

    async def begin_step(self, space_id: str) -> int:
        """A number for several updates that are undone as one: what one call of an application is sent in."""
        ...

    async def update(
        self, space_id: str, edits: Sequence[Edit], *, receipt: Receipt | None = None, step: int | None = None
    ) -> tuple[ObjectState, ...]:
        """Apply edits as one transaction: all or none. It is seen by subscribers before this returns.

        An update whose receipt the host has is not applied again, and answered all the same. While a space that was
        open is opening again, this waits.

        Args:
            space_id: Of the space.
            edits: What to do, in this order.
            receipt: Which update this is.
            step: What is undone together with it, by `begin_step`; None: nothing else.

        Returns:
            The new state of each edited object, in the order of `edits`.

        Raises:
            NotAllowedError: This identity is a READER.
            ObjectNotFoundError: An edited object does not exist.
            StorageFullError: Nothing was written.
        """
        ...

    def forget(self, client_id: str) -> None:
        """This client makes no more updates: its receipts are not needed."""
        ...

    async def flush(self, space_id: str) -> None:
        """Return when everything updated before is durable on the disk."""
        ...

    async def get(self, space_id: str, object_ids: Sequence[str]) -> tuple[ObjectState, ...]:
        """The objects that exist, deleted ones included, in any order."""
        ...


class SearchHit(Struct, frozen=True, array_like=True):
    """One object that a search has found."""

    state: ObjectState
    score: float  # How good it is (BM25); more is better, and only hits of one search compare.
    snippet: str  # The part of a text around what was found, which is in [brackets].


class QueryPlan(Struct, frozen=True, array_like=True):
    """How a query is answered."""

    steps: tuple[str, ...]  # In SQLite's words.
    index: str | None  # What leads to the rows: a property's path, `type`, `id`, …; None: all are looked at.
    rows: int  # How many objects are looked at; a limit ends it where no sorting is left to do.


class QueryService(Protocol):
    """Queries, answered from rows."""

    async def execute(self, space_id: str, query: Query) -> tuple[ObjectState, ...]:
        """All matching objects, in the order the query asks for, else by id, which is the order of creation."""
        ...

    async def count(self, space_id: str, query: Query) -> int: ...

    async def search(self, space_id: str, query: Query) -> tuple[SearchHit, ...]:
        """What the query's search finds, the best first, whatever order the query asks for."""
        ...

    async def explain(self, space_id: str, query: Query) -> QueryPlan: ...

    async def create_index(self, space_id: str, path: Path, *, by_type: bool) -> None:
        """Have an index on a property, whatever the number of objects; `by_type`: for queries that name the type."""
        ...


# --- History ---------------------------------------------------------------------------------------------------------


class HistoryService(Protocol):
    """The past of a space, and undoing what this device did. Raises ObjectNotFoundError for unknown objects."""

    async def revisions(self, space_id: str, object_id: str, limit: int) -> tuple[Revision, ...]:
        """The newest changes of an object, the last one first."""
        ...

    async def object_at(self, space_id: str, object_id: str, moment: int | bytes) -> ObjectRow | None:
        """An object as it was at a moment (milliseconds since 1970) or after a revision; None: it did not exist."""
        ...

    async def space_at(self, space_id: str, moment_ms: int, query: Query) -> tuple[ObjectRow, ...]:
        """What a query would have found at a moment."""
        ...

    async def conflicts(self, space_id: str, object_id: str) -> tuple[Conflict, ...]:
        """The properties of an object to which different values were given at once, and nobody has decided since."""
        ...

    async def undo(self, space_id: str, object_id: str | None = None) -> tuple[ObjectState, ...]:
        """Take back the last update of this device, in the space or in one object; nothing left to undo: ().

        Seen by subscribers before this returns. Raises NotAllowedError for a READER.
        """
        ...

    async def redo(self, space_id: str, object_id: str | None = None) -> tuple[ObjectState, ...]:
        """Do again what was undone last, unless this device has made other changes since; as `undo`."""
        ...


# --- Looking inside --------------------------------------------------------------------------------------------------


class LogLevel(int, Enum):
    """How much a record matters (numbers of Python's own levels)."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class LogEntry(Struct, frozen=True, array_like=True):
    """A record of the host's log."""

    level: LogLevel
    logger: str  # Such as "dxos.mesh.network".
    message: str  # At most LOG_MESSAGE_CHARS_MAX.
    time_ms: int  # Since 1970.


class LoggingService(Protocol):
    """The host's log."""

    def query_logs(self, level: LogLevel, next: Next[LogEntry]) -> Subscription:
        """Records of that level and above, from now on."""
        ...


class StorageInfo(Struct, frozen=True, array_like=True):
    """What a profile takes on the disk, in bytes."""

    file_bytes: int  # The database.
    free_bytes: int  # Of it, unused.
    log_bytes: int  # The database's log.


class SwarmInfo(Struct, frozen=True, array_like=True):
    """A swarm that this peer is in."""

    topic: PublicKey
    connected: tuple[PublicKey, ...]  # Devices.


class DevtoolsHost(Protocol):
    """What tools for developers ask."""

    async def get_storage_info(self) -> StorageInfo: ...

    def subscribe_to_swarm_info(self, next: Next[tuple[SwarmInfo, ...]]) -> Subscription:
        """All swarms, now and after each change."""
        ...


# --- Provider --------------------------------------------------------------------------------------------------------


class Services(Protocol):
    """All services of one host."""

    @property
    def system(self) -> SystemService: ...
    @property
    def network(self) -> NetworkService: ...
    @property
    def identity(self) -> IdentityService: ...
    @property
    def devices(self) -> DevicesService: ...
    @property
    def contacts(self) -> ContactsService: ...
    @property
    def invitations(self) -> InvitationsService: ...
    @property
    def spaces(self) -> SpacesService: ...
    @property
    def data(self) -> DataService: ...
    @property
    def query(self) -> QueryService: ...
    @property
    def history(self) -> HistoryService: ...
    @property
    def logging(self) -> LoggingService: ...
    @property
    def devtools(self) -> DevtoolsHost: ...


class ServicesProvider(Protocol):
    """Where a client gets its services from; may be opened and closed again any number of times.

    `async with provider as services:` opens it: starts the host, or connects to one. The body is cancelled, and an
    error of the tree raised, if the host fails.
    """

    async def __aenter__(self) -> Services: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...
