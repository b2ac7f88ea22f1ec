"""The worker's side: which leader it obeys, which clients it serves, and when it ends.

    LISTENING ─init─▶ INITIALISING ─initialised─▶ SERVING ⇄ ORPHANED (no leader)
        │                  │                        │           │ nobody adopts it, or nobody is served
        └──────────────────┴────────────────────────┴───────────┴─▶ ENDING ─ended─▶ ENDED

Invariants
1. It obeys the link with the highest leadership id that said `init`; an older leader is told so and dropped.
2. A client has one session: a newer attempt ends the one before, an older attempt is ignored.
3. No session outlives its worker, and no worker its purpose: without a leader it ends when nobody is served, or after
   WORKER_ADOPT_S; without a leader before it serves, at once.
4. Pings are answered in every state.
"""

from collections import deque
from enum import Enum
from typing import final

from msgspec import Struct

from dxos.errors import ProtocolError
from dxos.limits import WORKER_ADOPT_S, WORKER_SESSIONS_MAX
from dxos.worker.messages import (
    PROTOCOL,
    Failure,
    Init,
    InitFailed,
    Listening,
    Message,
    Ping,
    Pong,
    Ready,
    Session,
    SessionFailed,
    StartSession,
    Terminate,
)


class State(Enum):
    """What the worker is for at the moment."""

    LISTENING = "listening"
    INITIALISING = "initialising"
    SERVING = "serving"
    ORPHANED = "orphaned"
    ENDING = "ending"  # The driver ends sessions, host and locks, in this order.
    ENDED = "ended"


TRANSITIONS = {
    (State.LISTENING, "init"): State.INITIALISING,
    (State.INITIALISING, "init"): State.INITIALISING,
    (State.INITIALISING, "initialised"): State.SERVING,
    (State.SERVING, "init"): State.SERVING,
    (State.SERVING, "orphaned"): State.ORPHANED,
    (State.ORPHANED, "init"): State.SERVING,
    (State.LISTENING, "end"): State.ENDING,
    (State.INITIALISING, "end"): State.ENDING,
    (State.SERVING, "end"): State.ENDING,
    (State.ORPHANED, "end"): State.ENDING,
    (State.ENDING, "ended"): State.ENDED,
}


# --- Actions ----------------------------------------------------------------------------------------------------------


@final
class Send(Struct, frozen=True):
    """Send this to a leader; a `Session` with its port, whose descriptor is closed here afterwards, or its ticket."""

    link: int
    message: Message


@final
class CloseLink(Struct, frozen=True):
    """Close the link to a leader, once what was sent is on its way."""

    link: int


@final
class StartHost(Struct, frozen=True):
    """Open the storage and all above it; then `initialised` or `init_failed`."""

    init: Init


@final
class Promote(Struct, frozen=True):
    """Write with this leadership id from now on."""

    leadership_id: int


@final
class OpenSession(Struct, frozen=True):
    """Make a port and serve this client; then `session_opened` or `session_failed`, and in the end `session_ended`."""

    client_id: str
    attempt: int


@final
class CloseSession(Struct, frozen=True):
    """End a session, whether it was handed over or not; then `session_ended`."""

    client_id: str
    attempt: int


@final
class End(Struct, frozen=True):
    """End: sessions first, then host, then locks; then `ended`, and exit."""

    reason: str  # One sentence, for the log.


Action = Send | CloseLink | StartHost | Promote | OpenSession | CloseSession | End


class _Session(Struct):
    attempt: int
    is_open: bool = False


@final
class Sessions:
    """One worker; `actions` is what to do, in order, and the driver empties it.

    Args:
        worker_id: Names this worker, and no other one ever.
        pid: Of its process.
        version: Of this package.
        liveness_key: The name of the file that is locked as long as it lives.
    """

    def __init__(self, worker_id: str, *, pid: int, version: str, liveness_key: str) -> None:
        self.state = State.LISTENING
        self.actions: deque[Action] = deque()
        self.leadership_id = 0  # The highest that said `init`.
        self._listening = Listening(worker_id, pid, version, PROTOCOL)
        self._liveness_key = liveness_key
        self._links: set[int] = set()
        self._leader: int | None = None  # The link we obey.
        self._sessions: dict[str, _Session] = {}
        self._deadline: float | None = None

    def __repr__(self) -> str:
        worker_id = self._listening.worker_id[:8]
        return f"<Sessions {worker_id} {self.state.value} leader={self.leadership_id} sessions={len(self._sessions)}>"

    @property
    def clients(self) -> dict[str, int]:
        """The clients that are served, or about to be, with the attempt of each."""
        return {client_id: self._sessions[client_id].attempt for client_id in sorted(self._sessions)}

    # --- Inputs: leaders --------------------------------------------------------------------------------------------

    def linked(self, link: int) -> None:
        """A leader connected, or the one that started us is there.

        Args:
            link: The driver's number of it, never used before.
        """
        if self._is_over():
            self.actions.append(CloseLink(link))
            return
        self._links.add(link)
        self.actions.append(Send(link, self._listening))

    def receive(self, link: int, message: Message, now: float) -> None:
        """Take a message of a leader.

        Raises:
            ProtocolError: It makes no sense; the driver closes the link and calls `link_ended`.
        """
        match message:
            case Ping(nonce):
                self.actions.append(Send(link, Pong(nonce)))
            case _ if link not in self._links or self._is_over():
                pass
            case Init():
                self._init(link, message)
            case Terminate(leadership_id):
                if leadership_id >= self.leadership_id:
                    self._end("The leader asked for it.")
            case StartSession(client_id, attempt) if link == self._leader and self.state is State.SERVING:
                self._start_session(client_id, attempt)
            case _:
                raise ProtocolError("A message of a leader that its state does not allow.", state=self.state.value)

    def link_ended(self, link: int, now: float) -> None:
        """A leader is gone, or its link."""
        self._links.discard(link)
        if link == self._leader:
            self._leader = None
        match self.state:
            case State.LISTENING | State.INITIALISING if self._leader is None and not self._links:
                self._end("Its leader left before anybody was served.")
            case State.SERVING if self._leader is None:
                self._orphan(now)

    # --- Inputs: the host -------------------------------------------------------------------------------------------

    def initialised(self, now: float) -> None:
        """The host is open."""
        if self.state is not State.INITIALISING:
            return
        self._move("initialised")
        if self._leader is None:
            self._orphan(now)
        else:
            self._send_ready(self._leader)

    def init_failed(self, failure: Failure) -> None:
        """The host cannot be opened."""
        if self.state is State.INITIALISING:
            for link in sorted(self._links):
                self.actions.append(Send(link, InitFailed(self.leadership_id, failure)))
            self._end("The host cannot be opened.")

    def session_opened(self, client_id: str, attempt: int) -> None:
        """The client can be served; its port is sent to the leader."""
        item = self._sessions.get(client_id)
        if item is None or item.attempt != attempt or item.is_open:
            return  # A newer attempt, or the end, closed it meanwhile.
        assert self._leader is not None, "what a leader asked for is closed when it leaves"
        item.is_open = True
        self.actions.append(Send(self._leader, Session(client_id, attempt)))

    def session_failed(self, client_id: str, attempt: int, failure: Failure) -> None:
        """The client cannot be served."""
        item = self._sessions.get(client_id)
        if item is not None and item.attempt == attempt and not item.is_open:
            del self._sessions[client_id]
            assert self._leader is not None, "what a leader asked for is closed when it leaves"
            self.actions.append(Send(self._leader, SessionFailed(client_id, attempt, failure)))

    def session_ended(self, client_id: str, attempt: int) -> None:
        """The client left, or its session failed."""
        item = self._sessions.get(client_id)
        if item is not None and item.attempt == attempt:
            del self._sessions[client_id]
            if not self._sessions and self.state is State.ORPHANED:
                self._end("Nobody leads, and nobody is served.")

    def fenced(self) -> None:
        """The storage has seen a newer leader than ours: another worker has it."""
        if not self._is_over():
            for link in sorted(self._links):
                failure = Failure("storage.fenced", "Another process leads this profile.")
                self.actions.append(Send(link, InitFailed(self.leadership_id, failure)))
            self._end("Another worker has the storage.")

    def terminate(self, reason: str) -> None:
        """The system asks this process to end."""
        if not self._is_over():
            self._end(reason)

    def ended(self) -> None:
        """Everything is closed."""
        self._move("ended")

    # --- Time -------------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """When `handle_timer` has something to do."""
        return self._deadline

    def handle_timer(self, now: float) -> None:
        """End, if nobody adopted us."""
        if self._deadline is not None and now >= self._deadline and self.state is State.ORPHANED:
            self._end("Its leader is gone, and nobody followed.")

    # --- Decisions --------------------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        return self.state in (State.ENDING, State.ENDED)

    def _init(self, link: int, init: Init) -> None:
        if init.leadership_id <= self.leadership_id:
            failure = Failure("storage.fenced", "Another process leads this profile.")
            self.actions.append(Send(link, InitFailed(self.leadership_id, failure)))
            self._drop(link)
            return
        older, first = self._leader, self.state is State.LISTENING
        self.leadership_id, self._leader = init.leadership_id, link
        self._deadline = None
        self._move("init")
        if older is not None and older != link:
            self._drop(older)
        self.actions.append(StartHost(init) if first else Promote(init.leadership_id))
        if self.state is State.SERVING:
            # What was asked for by the leader before cannot be handed over by it.
            for client_id in [one for one, item in self._sessions.items() if not item.is_open]:
                self._close_session(client_id)
            self._send_ready(link)

    def _start_session(self, client_id: str, attempt: int) -> None:
        item = self._sessions.get(client_id)
        if item is not None and attempt <= item.attempt:
            return
        if item is not None:
            self._close_session(client_id)
        elif len(self._sessions) >= WORKER_SESSIONS_MAX:
            assert self._leader is not None
            failure = Failure("peer.limit", "Too many processes use this profile at once.")
            self.actions.append(Send(self._leader, SessionFailed(client_id, attempt, failure)))
            return
        self._sessions[client_id] = _Session(attempt)
        self.actions.append(OpenSession(client_id, attempt))

    def _send_ready(self, link: int) -> None:
        self.actions.append(Send(link, Ready(self.leadership_id, self._liveness_key)))

    def _close_session(self, client_id: str) -> None:
        item = self._sessions.pop(client_id)
        self.actions.append(CloseSession(client_id, item.attempt))

    def _drop(self, link: int) -> None:
        self._links.discard(link)
        self.actions.append(CloseLink(link))

    def _orphan(self, now: float) -> None:
        self._move("orphaned")
        for client_id in [one for one, item in self._sessions.items() if not item.is_open]:
            self._close_session(client_id)
        if self._sessions:
            self._deadline = now + WORKER_ADOPT_S
        else:
            self._end("Nobody leads, and nobody is served.")

    def _end(self, reason: str) -> None:
        self._move("end")
        self._deadline = None
        for client_id in list(self._sessions):
            self._close_session(client_id)
        self.actions.append(End(reason))

    def _move(self, event: str) -> None:
        self.state = TRANSITIONS[self.state, event]
