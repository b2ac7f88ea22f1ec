"""A client's way to its session: finding the coordinator, asking for a port, keeping it, asking again.

    the port   SEEKING ─provided─▶ CONNECTED ─ended─▶ SEEKING ─rejected─▶ FAILED;  each ─close─▶ CLOSED
    the link   NONE ─link─▶ LINKING ─opened─▶ GREETING ─welcomed─▶ MEMBER;  each ─ended─▶ NONE

The two are apart: a session goes on when its leader is gone, and a link without a port asks for one.

Invariants
1. Waiting is never failure: only what the coordinator says is one, or an error that will not pass; and only InitFailed
   and SessionFailed before the first session, as later ones are for the leader to mend.
2. Attempts only grow; each new session is asked for with a new one, and a port of an old one, or of a leader older than
   one we know, is discarded.
3. Every waiting client is served in the end: what may be lost with a link, a leader or a worker is asked for again.
4. Whoever had a session is told, once, that the coordinator refuses it or cannot be reached, and goes on trying: a
   leader of another version may leave again, and this process may lead itself.
5. Older leaders are asked to hand over one after another, however many there are, but not for longer than
   HAND_OVER_S_MAX: one of them may not be able to.
"""

import math
from collections import deque
from enum import Enum
from typing import final

from msgspec import Struct

from dxos.errors import Detail, ProtocolError
from dxos.limits import (
    HAND_OVER_S_MAX,
    HELLO_TIMEOUT_S,
    LINK_RETRY_S_MAX,
    LINK_RETRY_S_MIN,
    PORT_POLL_S,
    PORT_TIMEOUT_S,
    PORT_TIMEOUT_S_MAX,
)
from dxos.worker.messages import (
    PROTOCOL,
    Failure,
    HandOver,
    Hello,
    InitFailed,
    Message,
    NewLeader,
    ProvidePort,
    Refused,
    RequestPort,
    SessionFailed,
    Welcome,
)


class State(Enum):
    """Whether there is a session."""

    SEEKING = "seeking"
    CONNECTED = "connected"
    FAILED = "failed"
    CLOSED = "closed"


class LinkState(Enum):
    """Where the link to the coordinator is."""

    NONE = "none"
    LINKING = "linking"  # The driver connects.
    GREETING = "greeting"  # Our hello is sent.
    MEMBER = "member"


TRANSITIONS = {
    (State.SEEKING, "provided"): State.CONNECTED,
    (State.SEEKING, "rejected"): State.FAILED,
    (State.CONNECTED, "ended"): State.SEEKING,
    (State.SEEKING, "close"): State.CLOSED,
    (State.CONNECTED, "close"): State.CLOSED,
    (State.FAILED, "close"): State.CLOSED,
}
LINK_TRANSITIONS = {
    (LinkState.NONE, "link"): LinkState.LINKING,
    (LinkState.LINKING, "opened"): LinkState.GREETING,
    (LinkState.LINKING, "ended"): LinkState.NONE,
    (LinkState.GREETING, "welcomed"): LinkState.MEMBER,
    (LinkState.GREETING, "ended"): LinkState.NONE,
    (LinkState.MEMBER, "ended"): LinkState.NONE,
}


# --- Actions ----------------------------------------------------------------------------------------------------------


@final
class OpenLink(Struct, frozen=True):
    """Connect to the coordinator's socket; then `link_opened`, `link_ended` (nobody is there) or `link_failed`."""


@final
class CloseLink(Struct, frozen=True):
    """Close the link, or stop opening it; nothing is called for it any more."""


@final
class Send(Struct, frozen=True):
    """Send this to the coordinator."""

    message: Message


@final
class Connected(Struct, frozen=True):
    """This port is the session; call `port_ended` with its attempt when it ends."""

    port: ProvidePort


@final
class Discard(Struct, frozen=True):
    """Close this port."""

    port: ProvidePort


@final
class ClosePort(Struct, frozen=True):
    """Close the session's port; nothing is called for it any more."""

    attempt: int


@final
class Rejected(Struct, frozen=True):
    """There will be no session."""

    failure: Failure


@final
class Warned(Struct, frozen=True):
    """There is no way to the coordinator at the moment, for a reason that people should know."""

    failure: Failure


Action = OpenLink | CloseLink | Send | Connected | Discard | ClosePort | Rejected | Warned


@final
class Following:
    """One client; `actions` is what to do, in order, and the driver empties it.

    Args:
        client_id: Names this client, and no other one ever.
        pid: Of its process.
        version: Of this package.
        protocol: Of the messages.
        program: What runs there, for people.
        since_ms: When the client was opened, on its clock.
    """

    def __init__(
        self,
        client_id: str,
        *,
        pid: int,
        version: str,
        protocol: int = PROTOCOL,
        program: str = "",
        since_ms: int = 0,
    ) -> None:
        self.state, self.link_state = State.SEEKING, LinkState.NONE
        self.actions: deque[Action] = deque()
        self.client_id, self.attempt = client_id, 0
        self.leadership_id = 0  # The newest that this client knows of.
        self.was_connected = False
        self._hello = Hello(client_id, pid, version, protocol, program, since_ms)
        self._link_id = 0  # The leadership of the coordinator at the other end of the link.
        self._newest_id = 0  # The newest generation of the lock that was seen.
        self._is_ready = False  # Whether that has a worker.
        self._requested_id = 0  # The leadership of which the present attempt was asked.
        self._link_at: float | None = None  # When to connect again.
        self._link_retry_s = LINK_RETRY_S_MIN
        self._greeting_until: float | None = None
        self._greeting_s = HELLO_TIMEOUT_S
        self._poll_at: float | None = None
        self._attempt_until = math.inf
        self._attempt_s = PORT_TIMEOUT_S
        self._timeouts_count = self._port_failures_count = 0
        self._link_failures_count = 0
        self._asking_until: float | None = None  # Older leaders to hand over; set by the first that refuses us.
        self._is_warned = False  # Since the last welcome.
        self._error = ""

    def __repr__(self) -> str:
        return f"<Following {self.client_id[:8]} {self.state.value} {self.link_state.value} attempt={self.attempt}>"

    def diagnostics(self) -> dict[str, Detail]:
        """Facts for an error's detail."""
        found: dict[str, Detail] = {
            "worker_connect_phase": f"{self.state.value}, {self.link_state.value}",
            "worker_connect_failures": self._link_failures_count,
            "worker_port_timeouts": self._timeouts_count,
            "worker_port_failures": self._port_failures_count,
        }
        if self._error:
            found["worker_coordinator_error"] = self._error
        return found

    # --- Inputs: the link -------------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Begin."""
        self.attempt = 1
        self._link()

    def nudge(self, now: float) -> None:
        """A coordinator has just begun to listen in this process, so there is no need to wait.

        Neither for one that has not greeted: it is the one before, which may be frozen.
        """
        if not self._is_open():
            return
        if self.link_state is LinkState.NONE:
            self._link()
        elif self.link_state is LinkState.GREETING:
            self._relink_afresh()

    def link_opened(self, now: float) -> None:
        """The link is there."""
        if self.link_state is LinkState.LINKING:
            self._move_link("opened")
            self._greeting_until = now + self._greeting_s
            self.actions.append(Send(self._hello))

    def link_ended(self, now: float) -> None:
        """The link ended, or nobody listens."""
        if self.link_state is LinkState.NONE:
            return
        was_member = self.link_state is LinkState.MEMBER
        self._unlink()
        if not was_member:
            self._link_failures_count += 1
        if self._is_open():
            # A leader that is gone is followed within milliseconds, if anybody is there to follow it.
            self._link_retry_s = LINK_RETRY_S_MIN if was_member else min(2 * self._link_retry_s, LINK_RETRY_S_MAX)
            self._link_at = now + self._link_retry_s

    def link_failed(self, failure: Failure, now: float) -> None:
        """The coordinator cannot be reached, for a reason that will not pass by itself."""
        if self.link_state is not LinkState.NONE:
            self._unlink()
        self._shut_out(failure, now)

    def observe(self, newest: int, now: float) -> None:
        """Look at the newest generation of the lock: a link to an older leader, perhaps a frozen one, is of no use."""
        seen, self._newest_id = self._newest_id, newest or self._newest_id
        if 0 < newest < self.leadership_id:
            self.leadership_id = newest  # The files were lost, and the numbers begin again.
        if not self._is_open():
            return
        if self.link_state is LinkState.MEMBER:
            if newest > self._link_id:
                self._relink()
        elif self.link_state is LinkState.GREETING and 0 < seen < newest:
            # A frozen process does not greet, though the system connects to its socket.
            self._relink_afresh()
        elif self.link_state is LinkState.NONE and self._is_warned and seen < newest:
            self._asking_until = None  # It may be one that takes us, or hands over.
            self._link()

    def receive(self, message: Message, now: float) -> None:
        """Take a message of the coordinator.

        Raises:
            ProtocolError: It makes no sense; the driver closes the link and calls `link_ended`.
        """
        match self.link_state, message:
            case LinkState.GREETING, Welcome():
                self._welcomed(message, now)
            case LinkState.GREETING, Refused():
                self._refused(message, now)
            case LinkState.MEMBER, NewLeader(leadership_id):
                self._link_id, self._is_ready = leadership_id, True
                self._know(leadership_id)
                self._ask(now)
            case _, ProvidePort():
                self._provided(message)
            case LinkState.MEMBER, SessionFailed(attempt=attempt, failure=failure):
                if attempt == self.attempt and not self.was_connected:
                    self._reject(failure)
            case LinkState.MEMBER, InitFailed(failure=failure):
                self._is_ready = False
                if not self.was_connected:
                    self._reject(failure)
            case _:
                raise ProtocolError("A message of the coordinator that makes no sense.", state=self.link_state.value)

    # --- Inputs: the session ----------------------------------------------------------------------------------------

    def port_ended(self, attempt: int, now: float) -> None:
        """The session ended: its worker did, or serves us no more."""
        if self.state is not State.CONNECTED or attempt != self.attempt:
            return
        self._move("ended")
        self._renew_attempt()
        self._ask(now)

    def port_failed(self, attempt: int, now: float) -> None:
        """The port that was provided cannot be reached; another one is asked for in a moment."""
        if self.state is State.SEEKING and attempt == self.attempt:
            self._port_failures_count += 1
            self._renew_attempt()
            self._poll_at = now + PORT_POLL_S

    def persistent_failure(self, failure: Failure) -> None:
        """The election of this process has given up hope; before the first session that is an answer."""
        if not self.was_connected:
            self._reject(failure)

    def close(self) -> None:
        """This client leaves; the last call that has an effect."""
        if self.state is State.CLOSED:
            return
        if self.state is State.CONNECTED:
            self.actions.append(ClosePort(self.attempt))
        self._move("close")
        self._leave_link()

    # --- Time -------------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """When `handle_timer` has something to do."""
        times = (self._link_at, self._greeting_until, self._poll_at)
        return min((one for one in times if one is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Connect again, give up a coordinator that does not greet, ask again for a port."""
        if self._link_at is not None and now >= self._link_at:
            self._link()
        if self._greeting_until is not None and now >= self._greeting_until:
            self._greeting_s = min(2 * self._greeting_s, PORT_TIMEOUT_S)
            self._relink()
        if self._poll_at is not None and now >= self._poll_at:
            self._ask(now)

    # --- Decisions --------------------------------------------------------------------------------------------------

    def _is_open(self) -> bool:
        return self.state in (State.SEEKING, State.CONNECTED)

    def _welcomed(self, welcome: Welcome, now: float) -> None:
        self._move_link("welcomed")
        self._greeting_until, self._greeting_s = None, HELLO_TIMEOUT_S
        self._link_retry_s = LINK_RETRY_S_MIN
        self._is_warned, self._error = False, ""
        self._link_id, self._is_ready = welcome.leadership_id, welcome.ready
        self._know(welcome.leadership_id)
        if self.state is State.SEEKING and self._requested_id:
            self._renew_attempt()  # Its answer may have been lost with the link before.
        self._ask(now)

    def _refused(self, refused: Refused, now: float) -> None:
        if self._hello.protocol > refused.protocol:
            if self._asking_until is None:
                self._asking_until = now + HAND_OVER_S_MAX
            if now < self._asking_until:
                # The older leader steps down, and with it goes its coordinator.
                self._error = refused.reason
                self.actions.append(Send(HandOver()))
                self._greeting_until = now + HELLO_TIMEOUT_S
                return
        self._shut_out(Failure("storage.version", refused.reason), now)

    def _shut_out(self, failure: Failure, now: float) -> None:
        self._error = failure.message
        if not self.was_connected:
            self._reject(failure)
        elif self._is_open():
            self._leave_link()
            self._link_at = now + LINK_RETRY_S_MAX
            if not self._is_warned:
                self._is_warned = True
                self.actions.append(Warned(failure))

    def _provided(self, port: ProvidePort) -> None:
        wanted = self.state is State.SEEKING and port.client_id == self.client_id and port.attempt == self.attempt
        if not wanted or port.leadership_id < self.leadership_id:
            self.actions.append(Discard(port))
            return
        self._move("provided")
        self.was_connected, self._asking_until = True, None
        self._know(port.leadership_id)
        self._poll_at, self._attempt_s = None, PORT_TIMEOUT_S
        self.actions.append(Connected(port))

    def _ask(self, now: float) -> None:
        self._poll_at = None
        if self.state is not State.SEEKING or self.link_state is not LinkState.MEMBER or not self._is_ready:
            return
        if self._requested_id and self._requested_id != self._link_id:
            self._renew_attempt()
        elif self._requested_id and now >= self._attempt_until:
            self._timeouts_count += 1
            self._attempt_s = min(2 * self._attempt_s, PORT_TIMEOUT_S_MAX)
            self._renew_attempt()
        if not self._requested_id:
            self._requested_id, self._attempt_until = self._link_id, now + self._attempt_s
        self._poll_at = now + PORT_POLL_S
        self.actions.append(Send(RequestPort(self.client_id, self.attempt)))

    def _renew_attempt(self) -> None:
        self.attempt += 1
        self._requested_id = 0

    def _know(self, leadership_id: int) -> None:
        self.leadership_id = max(self.leadership_id, leadership_id)

    def _reject(self, failure: Failure) -> None:
        if not self._is_open():
            return
        self._move("rejected")
        self._leave_link()
        self.actions.append(Rejected(failure))

    def _link(self) -> None:
        self._link_at = None
        self._move_link("link")
        self.actions.append(OpenLink())

    def _relink(self) -> None:
        self.actions.append(CloseLink())
        self._unlink()
        self._link()

    def _relink_afresh(self) -> None:
        """Connect again, to another coordinator, which has as long to greet as the first one had."""
        self._greeting_s = HELLO_TIMEOUT_S
        self._relink()

    def _leave_link(self) -> None:
        if self.link_state is not LinkState.NONE:
            self.actions.append(CloseLink())
            self._unlink()
        self._link_at = None

    def _unlink(self) -> None:
        self._move_link("ended")
        self._greeting_until = self._poll_at = None
        self._is_ready = False

    def _move(self, event: str) -> None:
        self.state = TRANSITIONS[self.state, event]

    def _move_link(self, event: str) -> None:
        self.link_state = LINK_TRANSITIONS[self.link_state, event]
