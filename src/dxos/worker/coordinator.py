"""The relay in the leader's process: which link belongs to which client, and who gets what.

    GREETING ─welcomed─▶ MEMBER ─closed─▶ (forgotten)
       ├──refused─▶ REFUSED ──closed──▶
       └──closed, at once for who only looks─▶

Invariants
1. A client id has one link: the newest. Nobody speaks for another client.
2. Each message from the leader goes to all members or to the client it names, and to nobody else.
3. A port for a client that is gone is discarded.
"""

from collections import deque
from enum import Enum
from typing import final

from msgspec import Struct

from dxos.errors import LimitError, ProtocolError
from dxos.limits import COORDINATOR_LINKS_MAX, HELLO_TIMEOUT_S
from dxos.worker.messages import (
    PROTOCOL,
    Attending,
    HandOver,
    Hello,
    InitFailed,
    Leading,
    Listening,
    Look,
    Message,
    NewLeader,
    ProvidePort,
    Refused,
    RequestPort,
    SessionFailed,
    Welcome,
)


class State(Enum):
    """Where one link is."""

    GREETING = "greeting"
    MEMBER = "member"
    REFUSED = "refused"
    CLOSED = "closed"


TRANSITIONS = {
    (State.GREETING, "welcomed"): State.MEMBER,
    (State.GREETING, "refused"): State.REFUSED,
    (State.GREETING, "closed"): State.CLOSED,
    (State.MEMBER, "closed"): State.CLOSED,
    (State.REFUSED, "closed"): State.CLOSED,
}


@final
class Send(Struct, frozen=True):
    """Send this; a `ProvidePort` with its descriptor, which is closed here afterwards."""

    link: int
    message: Message


@final
class CloseLink(Struct, frozen=True):
    """Close this link, once what was sent is on its way."""

    link: int


@final
class ToLeader(Struct, frozen=True):
    """Give this to the leadership."""

    message: RequestPort


@final
class ClientLeft(Struct, frozen=True):
    """Tell the leadership that this client has no link any more."""

    client_id: str


@final
class AskedToHandOver(Struct, frozen=True):
    """A newer version wants to lead: tell the election."""

    version: str


@final
class Answer(Struct, frozen=True):
    """Somebody wants to know who shares the profile: call `answer` with the worker."""

    link: int


@final
class Discard(Struct, frozen=True):
    """Close the descriptor of this port."""

    port: ProvidePort


Action = Send | CloseLink | ToLeader | ClientLeft | AskedToHandOver | Answer | Discard


class _Link(Struct):
    state: State
    deadline: float | None  # For its first message, or for its end.
    hello: Hello | None = None


@final
class Coordinator:
    """One leader's; `actions` is what to do, in order, and the driver empties it.

    Args:
        leadership_id: Of the leader.
        pid: Of its process.
        version: Of this package.
        protocol: Of the messages.
    """

    def __init__(self, leadership_id: int, *, pid: int, version: str, protocol: int = PROTOCOL) -> None:
        self.actions: deque[Action] = deque()
        self.leadership_id = leadership_id
        self._pid, self._version, self._protocol = pid, version, protocol
        self._is_ready = False
        self._links: dict[int, _Link] = {}
        self._clients: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Coordinator {self.leadership_id} links={len(self._links)} clients={len(self._clients)}>"

    @property
    def clients(self) -> list[str]:
        """The ids of the clients that are connected."""
        return sorted(self._clients)

    @property
    def members(self) -> list[int]:
        """Their links."""
        return list(self._clients.values())

    # --- Inputs: links ----------------------------------------------------------------------------------------------

    def linked(self, link: int, now: float) -> None:
        """Somebody connected.

        Args:
            link: The driver's number of it, never used before.
            now: Seconds.
        """
        if len(self._links) >= COORDINATOR_LINKS_MAX:
            self.actions.append(CloseLink(link))
            return
        self._links[link] = _Link(State.GREETING, now + HELLO_TIMEOUT_S)

    def receive(self, link: int, message: Message, now: float) -> None:
        """Take a message of a client.

        Raises:
            PeerError: It makes no sense; the driver closes the link and calls `link_ended`.
        """
        item = self._links.get(link)
        if item is None:
            return
        match item.state, message:
            case State.GREETING, Hello():
                self._greet(link, item, message, now)
            case State.GREETING, Look():
                self.actions.append(Answer(link))
            case State.MEMBER, RequestPort(client_id) if item.hello and item.hello.client_id == client_id:
                self.actions.append(ToLeader(message))
            case State.REFUSED, HandOver() if item.hello and item.hello.protocol > self._protocol:
                self.actions.append(AskedToHandOver(item.hello.version))
            case _:
                raise ProtocolError("A message of a client that its state does not allow.", state=item.state.value)

    def link_ended(self, link: int) -> None:
        """The link is closed, whoever did it."""
        item = self._links.pop(link, None)
        if item is None:
            return
        item.state = TRANSITIONS[item.state, "closed"]
        client_id = item.hello.client_id if item.hello else ""
        if self._clients.get(client_id) == link:
            del self._clients[client_id]
            self.actions.append(ClientLeft(client_id))

    # --- Inputs: the leader -----------------------------------------------------------------------------------------

    def relay(self, message: NewLeader | InitFailed | ProvidePort | SessionFailed) -> None:
        """Take a message of the leadership."""
        match message:
            case NewLeader() | InitFailed():
                self._is_ready = isinstance(message, NewLeader)
                for link in self._clients.values():
                    self.actions.append(Send(link, message))
            case ProvidePort(client_id) | SessionFailed(client_id):
                if client_id in self._clients:
                    self.actions.append(Send(self._clients[client_id], message))
                elif isinstance(message, ProvidePort):
                    self.actions.append(Discard(message))

    def answer(self, link: int, worker: Listening | None) -> None:
        """Tell who looks what there is, and close its link.

        Args:
            link: Of the `Answer`.
            worker: The present one.
        """
        if link not in self._links:
            return
        hellos = [item.hello for one in self._clients.values() if (item := self._links[one]).hello]
        leading = Leading(
            self.leadership_id,
            self._pid,
            self._version,
            ready=self._is_ready,
            worker_id=worker.worker_id if worker else "",
            worker_pid=worker.pid if worker else 0,
            worker_version=worker.version if worker else "",
            clients_count=len(hellos),
            protocol=self._protocol,
        )
        self.actions.append(Send(link, leading))
        for one in hellos:
            attending = Attending(one.client_id, one.pid, one.version, one.program, one.since_ms)
            self.actions.append(Send(link, attending))
        self.actions.append(CloseLink(link))
        self.link_ended(link)

    def renewed(self, leadership_id: int) -> None:
        """The leader goes on with a new id, and a new worker that is not ready yet."""
        assert leadership_id > self.leadership_id, "ids only grow"
        self.leadership_id, self._is_ready = leadership_id, False

    def close(self) -> None:
        """The leadership is over."""
        for link in list(self._links):
            self.actions.append(CloseLink(link))
        self._links.clear()
        self._clients.clear()

    # --- Time -------------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """When `handle_timer` has something to do."""
        return min((item.deadline for item in self._links.values() if item.deadline is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Close links that say nothing."""
        late = [link for link, item in self._links.items() if item.deadline is not None and now >= item.deadline]
        for link in late:
            self.actions.append(CloseLink(link))
            self.link_ended(link)

    # --- Decisions --------------------------------------------------------------------------------------------------

    def _greet(self, link: int, item: _Link, hello: Hello, now: float) -> None:
        if not hello.client_id:
            raise LimitError("A client without an id.")
        item.hello = hello
        if hello.protocol != self._protocol:
            item.state = TRANSITIONS[item.state, "refused"]
            item.deadline = now + HELLO_TIMEOUT_S
            self.actions.append(Send(link, Refused(self._reason(hello), self._protocol, self._version)))
            return
        item.state = TRANSITIONS[item.state, "welcomed"]
        item.deadline = None
        older = self._clients.get(hello.client_id)
        if older is not None:
            self.actions.append(CloseLink(older))
            self.link_ended(older)
        self._clients[hello.client_id] = link
        welcome = Welcome(self.leadership_id, self._is_ready, self._pid, self._version, self._protocol)
        self.actions.append(Send(link, welcome))

    def _reason(self, hello: Hello) -> str:
        which = "a newer" if hello.protocol < self._protocol else "an older"
        return (
            f"Process {self._pid} has this profile open with {which} version of dxos ({self._version}; this is "
            f"{hello.version}), and the two cannot share it: use one version, or close that process."
        )
