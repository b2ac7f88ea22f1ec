"""What the processes of one profile say to each other, as typed messages and as the bytes of one frame.

    client ⇄ coordinator   Hello → Welcome | Refused → HandOver;  RequestPort → ProvidePort | SessionFailed
    coordinator → clients  NewLeader, InitFailed
    anybody ⇄ coordinator  Look → Leading, Attending for each client
    worker ⇄ leader        Listening → Init → Ready | InitFailed;  Ping ⇄ Pong
                           StartSession → Session | SessionFailed;  Terminate

Whatever its protocol, a process understands `Hello`, `Refused`, `HandOver`, `Look`, `Leading` and `Attending`: later
ones may gain fields with a default, and lose none.

`ProvidePort` and `Session` travel with one descriptor, the port, or where none can be handed over with a ticket; see
`loopback`. A message is a JSON object with its `type`: there are few of them, and a trace can be read.
"""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, final

from msgspec import Meta, MsgspecError, Struct
from msgspec.json import Decoder, Encoder

from dxos.errors import DecodeError, Detail, DxosError, LimitError, from_wire
from dxos.limits import CLIENT_ID_CHARS_MAX, HOST_TEXT_CHARS_MAX, LINK_MESSAGE_BYTES_MAX, REASON_CHARS_MAX

PROTOCOL: Final = 1  # Grows when processes of two versions can no longer work together.
_DETAILS_MAX: Final = 32

Number = Annotated[int, Meta(ge=0, lt=2**53)]
Name = Annotated[str, Meta(max_length=CLIENT_ID_CHARS_MAX)]
Sentence = Annotated[str, Meta(max_length=REASON_CHARS_MAX)]
Settings = Annotated[str, Meta(max_length=HOST_TEXT_CHARS_MAX)]


def _tag(class_name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", class_name).lower()


@final
class Failure(Struct, frozen=True):
    """An error as it travels between processes."""

    code: Sentence  # Of `dxos.errors`.
    message: Sentence
    detail: Annotated[dict[Name, Detail], Meta(max_length=_DETAILS_MAX)] = {}  # Facts for programs, by name.

    @classmethod
    def of(cls, error: DxosError) -> "Failure":
        """An error on its way to another process; what is too long is cut."""
        detail = {
            name[:CLIENT_ID_CHARS_MAX]: value[:REASON_CHARS_MAX] if isinstance(value, str) else value
            for name, value in list(error.detail.items())[:_DETAILS_MAX]
        }
        return cls(error.code, str(error)[:REASON_CHARS_MAX], detail)

    def error(self, more: Mapping[str, Detail] | None = None) -> DxosError:
        """The error again, of the same class.

        Args:
            more: Further facts, as the diagnostics of this process.
        """
        return from_wire(self.code, self.message, {**self.detail, **(more or {})})


class _Message(Struct, frozen=True, tag_field="type", tag=_tag):
    """A JSON object with its `type`; its `repr` leaves out what `_HIDDEN` names."""

    _HIDDEN: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in self._HIDDEN)
        return f"{type(self).__name__}({', '.join(shown)})"


# --- Between a client and the coordinator -----------------------------------------------------------------------------


@final
class Hello(_Message, frozen=True):
    """The first message of a client."""

    client_id: Name
    pid: Number
    version: Name
    protocol: Number
    program: Name = ""  # What runs there, for people.
    since_ms: Number = 0  # When the client was opened, on its clock.


@final
class Welcome(_Message, frozen=True):
    """The client may go on."""

    leadership_id: Number
    ready: bool  # Whether the worker is; if not, `NewLeader` will say so.
    pid: Number
    version: Name
    protocol: Number


@final
class Refused(_Message, frozen=True):
    """The client may not go on."""

    reason: Sentence  # One sentence for people.
    protocol: Number
    version: Name


@final
class HandOver(_Message, frozen=True):
    """A newer client, just refused, asks the older leader to step down."""


@final
class NewLeader(_Message, frozen=True):
    """A leader has a worker that is ready."""

    leadership_id: Number


@final
class RequestPort(_Message, frozen=True):
    """A client wants a session."""

    client_id: Name
    attempt: Number  # Grows with each session that the client asks for.


@final
class ProvidePort(_Message, frozen=True):
    """A session for that client; with the descriptor of its port, or a ticket."""

    _HIDDEN = ("token", "answer")

    client_id: Name
    attempt: Number
    leadership_id: Number
    worker_id: Name
    liveness_key: Sentence  # The name of the file that the worker keeps locked as long as it lives.
    version: Name  # The worker's.
    port: Number = 0  # At the loopback address; 0: a descriptor comes with this.
    token: Name = ""  # In hexadecimal digits; admits once.
    answer: Name = ""  # By which the worker is known.


@final
class SessionFailed(_Message, frozen=True):
    """The worker does not serve that client."""

    client_id: Name
    attempt: Number
    failure: Failure


# --- Between somebody who only looks and the coordinator --------------------------------------------------------------


@final
class Look(_Message, frozen=True):
    """Who shares this profile? Instead of a hello; the answer follows, and the end of the link."""


@final
class Leading(_Message, frozen=True):
    """The leader and its worker."""

    leadership_id: Number
    pid: Number
    version: Name
    ready: bool  # Whether the worker serves.
    worker_id: Name  # Empty, if there is none at the moment.
    worker_pid: Number
    worker_version: Name
    clients_count: Number  # So many `Attending` follow.
    protocol: Number


@final
class Attending(_Message, frozen=True):
    """One client that is connected to the coordinator."""

    client_id: Name
    pid: Number
    version: Name
    program: Name
    since_ms: Number


# --- Between a leader and its worker ----------------------------------------------------------------------------------


@final
class Listening(_Message, frozen=True):
    """The worker hears its leader from now on."""

    worker_id: Name
    pid: Number
    version: Name
    protocol: Number


@final
class Init(_Message, frozen=True):
    """Begin to serve, or to serve for this leader."""

    _HIDDEN = ("config",)

    client_id: Name  # Of the leader.
    leadership_id: Number
    owner_client_id: Name  # Of the client whose settings are used.
    config: Settings  # JSON; may hold credentials of services.


@final
class Ready(_Message, frozen=True):
    """The worker serves."""

    leadership_id: Number
    liveness_key: Sentence


@final
class InitFailed(_Message, frozen=True):
    """The worker cannot serve; from the coordinator to its clients, that none can be served."""

    leadership_id: Number
    failure: Failure


@final
class Ping(_Message, frozen=True):
    """Are you there?"""

    nonce: Number


@final
class Pong(_Message, frozen=True):
    """The answer to the ping with that nonce."""

    nonce: Number


@final
class StartSession(_Message, frozen=True):
    """Serve a client."""

    client_id: Name
    attempt: Number


@final
class Session(_Message, frozen=True):
    """That client is served; with the descriptor of its port, or a ticket."""

    _HIDDEN = ("token", "answer")

    client_id: Name
    attempt: Number
    port: Number = 0
    token: Name = ""
    answer: Name = ""


@final
class Terminate(_Message, frozen=True):
    """End, in order."""

    leadership_id: Number


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
_ENCODER: Final = Encoder()
_DECODER: Final[Decoder[Message]] = Decoder(Message)


def name_of(kind: type[Message]) -> str:
    """The name of a kind of message, as the original writes it: `request-port`."""
    return str(kind.__struct_config__.tag)


def encode(message: Message) -> bytes:
    """The bytes of one frame.

    Raises:
        LimitError: The settings are too long to be sent.
    """
    found = _ENCODER.encode(message)
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
        return _DECODER.decode(untrusted)
    except (MsgspecError, ValueError, RecursionError) as error:  # ValueError: no UTF-8.
        raise DecodeError("No message between processes, or one with a field out of range.") from error
