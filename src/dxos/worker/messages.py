"""What the processes of one profile say to each other, as typed messages and as the bytes of one frame.

    client ⇄ coordinator   Hello → Welcome | Refused → HandOver;  RequestPort → ProvidePort | SessionFailed
    coordinator → clients  NewLeader, InitFailed
    anybody ⇄ coordinator  Look → Leading, Attending for each client; the same in every version of the protocol
    worker ⇄ leader        Listening → Init → Ready | InitFailed;  Ping ⇄ Pong
                           StartSession → Session | SessionFailed;  Terminate

`ProvidePort` and `Session` travel with one descriptor, the port, or where none can be handed over with a ticket; see
`loopback`. A message is a JSON object with its `type`: there are few of them, and a trace can be read.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, final

from dxos.errors import DecodeError, Detail, DxosError, LimitError, from_wire
from dxos.limits import CLIENT_ID_CHARS_MAX, HOST_TEXT_CHARS_MAX, LINK_MESSAGE_BYTES_MAX, REASON_CHARS_MAX

PROTOCOL: Final = 1  # Grows when processes of two versions can no longer work together.
_NUMBER_MAX: Final = 2**53 - 1
_DETAILS_MAX: Final = 32


@final
@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it travels between processes."""

    code: str  # Of `dxos.errors`.
    message: str
    detail: tuple[tuple[str, Detail], ...] = ()  # Facts for programs, by name.

    @classmethod
    def of(cls, error: DxosError) -> "Failure":
        """An error on its way to another process; what is too long is cut."""
        detail = [
            (name[:REASON_CHARS_MAX], value[:REASON_CHARS_MAX] if isinstance(value, str) else value)
            for name, value in error.detail.items()
        ]
        return cls(error.code, str(error)[:REASON_CHARS_MAX], tuple(detail[:_DETAILS_MAX]))

    def error(self, more: Mapping[str, Detail] | None = None) -> DxosError:
        """The error again, of the same class.

        Args:
            more: Further facts, as the diagnostics of this process.
        """
        return from_wire(self.code, self.message, {**dict(self.detail), **(more or {})})


# --- Between a client and the coordinator -----------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a client."""

    client_id: str
    pid: int
    version: str
    protocol: int = PROTOCOL
    program: str = ""  # What runs there, for people.
    since_ms: int = 0  # When the client was opened, on its clock.


@final
@dataclass(frozen=True, slots=True)
class Welcome:
    """The client may go on."""

    leadership_id: int
    ready: bool  # Whether the worker is; if not, `NewLeader` will say so.
    pid: int
    version: str
    protocol: int = PROTOCOL


@final
@dataclass(frozen=True, slots=True)
class Refused:
    """The client may not go on."""

    reason: str  # One sentence for people.
    protocol: int
    version: str


@final
@dataclass(frozen=True, slots=True)
class HandOver:
    """A newer client, just refused, asks the older leader to step down."""


@final
@dataclass(frozen=True, slots=True)
class NewLeader:
    """A leader has a worker that is ready."""

    leadership_id: int


@final
@dataclass(frozen=True, slots=True)
class RequestPort:
    """A client wants a session."""

    client_id: str
    attempt: int  # Grows with each session that the client asks for.


@final
@dataclass(frozen=True, slots=True)
class ProvidePort:
    """A session for that client; with the descriptor of its port, or a ticket."""

    client_id: str
    attempt: int
    leadership_id: int
    worker_id: str
    liveness_key: str  # The name of the file that the worker keeps locked as long as it lives.
    version: str  # The worker's.
    port: int = 0  # At the loopback address; 0: a descriptor comes with this.
    token: str = field(default="", repr=False)  # In hexadecimal digits; admits once.
    answer: str = field(default="", repr=False)  # By which the worker is known.


@final
@dataclass(frozen=True, slots=True)
class SessionFailed:
    """The worker does not serve that client."""

    client_id: str
    attempt: int
    failure: Failure


# --- Between somebody who only looks and the coordinator --------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Look:
    """Who shares this profile? Instead of a hello; the answer follows, and the end of the link."""


@final
@dataclass(frozen=True, slots=True)
class Leading:
    """The leader and its worker."""

    leadership_id: int
    pid: int
    version: str
    ready: bool  # Whether the worker serves.
    worker_id: str  # Empty, if there is none at the moment.
    worker_pid: int
    worker_version: str
    clients_count: int  # So many `Attending` follow.
    protocol: int = PROTOCOL


@final
@dataclass(frozen=True, slots=True)
class Attending:
    """One client that is connected to the coordinator."""

    client_id: str
    pid: int
    version: str
    program: str
    since_ms: int


# --- Between a leader and its worker ----------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Listening:
    """The worker hears its leader from now on."""

    worker_id: str
    pid: int
    version: str
    protocol: int = PROTOCOL


@final
@dataclass(frozen=True, slots=True)
class Init:
    """Begin to serve, or to serve for this leader."""

    client_id: str  # Of the leader.
    leadership_id: int
    owner_client_id: str  # Of the client whose settings are used.
    config: str = field(repr=False)  # JSON; may hold credentials of services.


@final
@dataclass(frozen=True, slots=True)
class Ready:
    """The worker serves."""

    leadership_id: int
    liveness_key: str


@final
@dataclass(frozen=True, slots=True)
class InitFailed:
    """The worker cannot serve; from the coordinator to its clients, that none can be served."""

    leadership_id: int
    failure: Failure


@final
@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there?"""

    nonce: int


@final
@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to the ping with that nonce."""

    nonce: int


@final
@dataclass(frozen=True, slots=True)
class StartSession:
    """Serve a client."""

    client_id: str
    attempt: int


@final
@dataclass(frozen=True, slots=True)
class Session:
    """That client is served; with the descriptor of its port, or a ticket."""

    client_id: str
    attempt: int
    port: int = 0
    token: str = field(default="", repr=False)
    answer: str = field(default="", repr=False)


@final
@dataclass(frozen=True, slots=True)
class Terminate:
    """End, in order."""

    leadership_id: int


Message = (
    Hello
    | Welcome
    | Refused
    | HandOver
    | NewLeader
    | RequestPort
    | ProvidePort
    | SessionFailed
    | Look
    | Leading
    | Attending
    | Listening
    | Init
    | Ready
    | InitFailed
    | Ping
    | Pong
    | StartSession
    | Session
    | Terminate
)
Kind = type[Message]


def name_of(kind: Kind) -> str:
    """The name of a kind of message, as the original writes it: `request-port`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()


_KINDS: Final[dict[str, Kind]] = {name_of(kind): kind for kind in Message.__args__}
_FIELDS: Final = {kind: {one.name: one.type for one in fields(kind)} for kind in _KINDS.values()}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}
_CHARS_MAX: Final = {"config": HOST_TEXT_CHARS_MAX, "reason": REASON_CHARS_MAX, "liveness_key": REASON_CHARS_MAX}


def encode(message: Message) -> bytes:
    """The bytes of one frame.

    Raises:
        LimitError: The settings are too long to be sent.
    """
    kind = type(message)
    content: dict[str, object] = {"type": _NAMES[kind]}
    for name in _FIELDS[kind]:
        value = getattr(message, name)
        if isinstance(value, Failure):
            value = {"code": value.code, "message": value.message, "detail": dict(value.detail)}
        content[name] = value
    found = json.dumps(content, separators=(",", ":")).encode()
    if len(found) > LINK_MESSAGE_BYTES_MAX:
        raise LimitError("A message between processes is too long.", bytes=len(found))
    return found


def decode(untrusted: bytes) -> Message:
    """The message of one frame; fields of later versions are left out.

    Raises:
        DecodeError: No message, or one with a field missing or out of range.
        LimitError: It is too long.
    """
    if len(untrusted) > LINK_MESSAGE_BYTES_MAX:
        raise LimitError("A message between processes is too long.", bytes=len(untrusted))
    try:
        content = json.loads(untrusted)
    except (ValueError, RecursionError) as error:
        raise DecodeError("No message between processes.") from error
    name = content.get("type") if isinstance(content, dict) else None
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise DecodeError("A message between processes of an unknown kind.")
    checked: dict[str, Any] = {name: _check(name, type_, content.get(name)) for name, type_ in _FIELDS[kind].items()}
    return kind(**checked)


def _check(name: str, type_: object, untrusted: object) -> object:
    match untrusted:
        case bool() if type_ is bool:
            return untrusted
        case int() if type_ is int and not isinstance(untrusted, bool) and 0 <= untrusted <= _NUMBER_MAX:
            return untrusted
        case str() if type_ is str and len(untrusted) <= _CHARS_MAX.get(name, CLIENT_ID_CHARS_MAX):
            return untrusted
        case dict() if type_ is Failure:
            return _failure(untrusted)
    raise DecodeError("A field of a message between processes is missing or out of range.", field=name)


def _failure(untrusted: dict[str, object]) -> Failure:
    match untrusted:
        case {"code": str(code), "message": str(message), "detail": dict(detail)} if (
            max(len(code), len(message)) <= REASON_CHARS_MAX
            and len(detail) <= _DETAILS_MAX
            and all(isinstance(value, str | int | float) for value in detail.values())
        ):
            return Failure(code, message, tuple(detail.items()))
    raise DecodeError("An error from another process that does not parse.")
