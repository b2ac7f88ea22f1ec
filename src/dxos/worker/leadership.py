"""A leader and its worker: adopt the one that is there or start one, watch over it, have it serve clients, replace it.

    NEW ─▶ ADOPTING ─linked──────────────▶ STARTING ─listening─▶ INITIALISING ─ready─▶ READY
              └─absent─▶ SPAWNING ─linked──▶ │  └─foreign─▶ DISMISSING ─┐late   │          │
                            ▲                └───stale──▶ KILLING ◀─────┴─stale─┴───stale──┤
                            ├────── gone ───────────────────┴─ (its id was used) ─▶ RENEWING ◀─ gone
                            └────── renewed ──────────────────────────────────────────┘

Invariants
1. At most one worker belongs to a leadership; the next is started when the one before is gone.
2. No two workers have a leadership id in common: before another one is started, the lock is renewed.
3. A worker that we started and that never served ends with us, also if it appears only after we have left; one that
   serves clients is left to the next leader.
4. A worker is killed only for silence that we were awake to hear.
5. Each request is passed on once; a session that nobody waits for any more is discarded.
"""

from collections import deque
from collections.abc import Mapping
from enum import Enum
from typing import final

from msgspec import Struct

from dxos.errors import ProtocolError
from dxos.limits import (
    LEADER_TICK_LATE_S,
    WORKER_DEATHS_MAX,
    WORKER_GRACE_S,
    WORKER_KILL_S_MAX,
    WORKER_PING_S,
    WORKER_STABLE_S,
    WORKER_STALE_S,
    WORKER_START_S_MAX,
)
from dxos.worker.messages import (
    PROTOCOL,
    Failure,
    Init,
    InitFailed,
    Listening,
    Message,
    NewLeader,
    Ping,
    Pong,
    ProvidePort,
    Ready,
    RequestPort,
    Session,
    SessionFailed,
    StartSession,
    Terminate,
)

FENCED = "storage.fenced"  # The error of a worker that has seen a newer leader.


class State(Enum):
    """How far the worker is."""

    NEW = "new"
    ADOPTING = "adopting"  # The driver connects to a worker that may be there.
    SPAWNING = "spawning"  # The driver starts one.
    STARTING = "starting"  # Connected; it does not listen yet.
    INITIALISING = "initialising"
    READY = "ready"
    DISMISSING = "dismissing"  # It was told to end.
    KILLING = "killing"
    RENEWING = "renewing"  # The driver takes a new leadership id.
    ENDED = "ended"


TRANSITIONS: Mapping[tuple[State, str], State] = {
    (State.NEW, "start"): State.ADOPTING,
    (State.ADOPTING, "linked"): State.STARTING,
    (State.ADOPTING, "absent"): State.SPAWNING,
    (State.SPAWNING, "linked"): State.STARTING,
    (State.STARTING, "listening"): State.INITIALISING,
    (State.STARTING, "foreign"): State.DISMISSING,
    (State.STARTING, "stale"): State.KILLING,
    (State.STARTING, "gone"): State.SPAWNING,
    (State.INITIALISING, "ready"): State.READY,
    (State.INITIALISING, "stale"): State.KILLING,
    (State.INITIALISING, "used"): State.RENEWING,
    (State.READY, "stale"): State.KILLING,
    (State.READY, "used"): State.RENEWING,
    (State.DISMISSING, "stale"): State.KILLING,
    (State.DISMISSING, "gone"): State.SPAWNING,
    (State.KILLING, "gone"): State.SPAWNING,
    (State.KILLING, "used"): State.RENEWING,
    (State.RENEWING, "renewed"): State.SPAWNING,
    **{
        (state, "dismissed"): State.DISMISSING
        for state in (State.STARTING, State.INITIALISING, State.READY, State.DISMISSING)
    },
    **{(state, "ended"): State.ENDED for state in State if state is not State.ENDED},
}
_LINKED = (State.STARTING, State.INITIALISING, State.READY, State.DISMISSING)


# --- Actions ----------------------------------------------------------------------------------------------------------


@final
class Adopt(Struct, frozen=True):
    """Connect to the worker that another leader left, if there is one; then `worker_linked` or `worker_absent`."""


@final
class Spawn(Struct, frozen=True):
    """Start a worker; then `worker_linked` or `spawn_failed`, also if the leadership has ended meanwhile."""


@final
class Kill(Struct, frozen=True):
    """Kill the worker for certain; then `worker_gone`, when its process is no more and its link is closed."""

    worker_id: str  # Empty, if it never said.


@final
class DropWorker(Struct, frozen=True):
    """Close the link to the worker; nothing is heard of it any more."""


@final
class Renew(Struct, frozen=True):
    """Take a new leadership id; then `renewed`, or `lost` if another process was faster."""


@final
class ToWorker(Struct, frozen=True):
    """Send this to the worker."""

    message: Message


@final
class ToClients(Struct, frozen=True):
    """Give this to the coordinator; a `ProvidePort` with the descriptor that came with its `Session`."""

    message: NewLeader | InitFailed | ProvidePort | SessionFailed


@final
class Discard(Struct, frozen=True):
    """Close the descriptor that came with this message: nobody waits for it."""

    session: Session


@final
class Deposed(Struct, frozen=True):
    """There is a newer leader."""


@final
class Failed(Struct, frozen=True):
    """The leadership failed; close it and let another one try."""

    failure: Failure


@final
class Closed(Struct, frozen=True):
    """The leadership is over, and the lock may be let go of; the last action."""


Action = Adopt | Spawn | Kill | DropWorker | Renew | ToWorker | ToClients | Discard | Deposed | Failed | Closed


@final
class Leadership:
    """From the lock to its end; `actions` is what to do, in order, and the driver empties it.

    Args:
        leadership_id: Of the lock.
        client_id: Of the client in the leader's process.
        config: Its settings as JSON, with which a worker is started.
    """

    def __init__(self, leadership_id: int, *, client_id: str, config: str) -> None:
        self.state = State.NEW
        self.actions: deque[Action] = deque()
        self.leadership_id = leadership_id
        self.worker: Listening | None = None  # What the present worker said of itself.
        self._liveness_key = ""
        self._client_id, self._config = client_id, config
        self._adopted = False
        self._is_used = False  # Whether a worker was told this id.
        self._verdict: Failure | None = None  # Why the worker that is being killed is to be the last.
        self._closing = False
        self._requests: dict[str, int] = {}  # The last attempt of each client that was passed on.
        self._deadline: float | None = None  # In states that wait for a process.
        self._ping_at: float | None = None
        self._nonce = 0
        self._silent_at: float | None = None  # When the oldest ping without an answer has waited too long.
        self._ready_at = 0.0
        self._deaths_count = 0

    def __repr__(self) -> str:
        worker = self.worker.worker_id[:8] if self.worker else "-"
        return f"<Leadership {self.leadership_id} {self.state.value} worker={worker} clients={len(self._requests)}>"

    # --- Inputs: the leader's process -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; once the lock is ours and the coordinator listens."""
        self._move("start")
        self._adopted = True
        self.actions.append(Adopt())

    def close(self, now: float, *, terminate: bool = False) -> None:
        """Lead no more; `Closed` follows.

        Args:
            now: Seconds.
            terminate: Whether the worker ends with us, because the next leader could not work with it.
        """
        if self.state is State.ENDED:
            return
        self._closing = True
        if terminate and self.state in _LINKED:
            self._dismiss(now)
        elif terminate and self.state is State.KILLING:
            pass  # It is on its way.
        else:
            self._end()

    def renewed(self, leadership_id: int, now: float) -> None:
        """We lead on with a newer id."""
        if self.state is State.RENEWING:
            assert leadership_id > self.leadership_id, "ids only grow"
            self.leadership_id, self._is_used = leadership_id, False
            self._spawn("renewed")

    def lost(self) -> None:
        """Another process leads: it was faster than our renewal."""
        self._depose()

    # --- Inputs: the worker's process -------------------------------------------------------------------------------

    def worker_linked(self, now: float) -> None:
        """There is a link to the worker."""
        if self.state not in (State.ADOPTING, State.SPAWNING):
            # We left while it was started; nobody else knows of it.
            self.actions.append(ToWorker(Terminate(self.leadership_id)))
            self.actions.append(DropWorker())
            return
        self._move("linked")
        self._deadline = now + (WORKER_STALE_S if self._adopted else WORKER_START_S_MAX)

    def worker_absent(self, now: float) -> None:
        """There is no worker to adopt."""
        if self.state is State.ADOPTING:
            self._spawn("absent")

    def spawn_failed(self, failure: Failure) -> None:
        """No process could be started."""
        if self.state is State.SPAWNING:
            self._fail(failure)

    def worker_cannot_start(self, failure: Failure) -> None:
        """What a worker needs is not here, so that starting another one would not help: clients are told."""
        if self.state in (State.SPAWNING, State.STARTING):
            self.actions.append(ToClients(InitFailed(self.leadership_id, failure)))
            self._fail(failure)

    def worker_gone(self, now: float) -> None:
        """The link to the worker ended, or the killed process is no more."""
        adopted, verdict = self._adopted, self._verdict
        match self.state:
            case State.KILLING | State.DISMISSING if self._closing:
                self._end()
            case State.KILLING if verdict is not None:
                self._fail(verdict)
            case State.READY if self._died_young(now):
                self._fail(_gone("The worker ended again and again as soon as it served.", self._deaths_count))
            case State.READY | State.KILLING | State.DISMISSING:
                self._replace()
            case State.STARTING | State.INITIALISING if adopted:
                self._replace()  # It was about to end, as nobody had adopted it yet.
            case State.STARTING | State.INITIALISING:
                self._fail(_gone("The worker ended before it served.", 1))

    def receive(self, message: Message, now: float) -> None:
        """Take a message of the worker.

        Raises:
            ProtocolError: It makes no sense now; the driver closes the link and calls `worker_gone`.
        """
        if self.state not in _LINKED:
            if isinstance(message, Session):
                self.actions.append(Discard(message))
            return
        self._silent_at = None
        match self.state, message:
            case State.STARTING, Listening():
                self._listening(message, now)
            case State.INITIALISING, Ready(leadership_id, liveness_key) if leadership_id == self.leadership_id:
                self._move("ready")
                self._liveness_key, self._ready_at = liveness_key, now
                self._requests.clear()
                self.actions.append(ToClients(NewLeader(self.leadership_id)))
            case ((State.INITIALISING | State.READY), InitFailed(failure=failure)) if failure.code == FENCED:
                self._depose()
            case State.INITIALISING, InitFailed(failure=failure):
                self.actions.append(ToClients(InitFailed(self.leadership_id, failure)))
                self._fail(failure)
            case _, Session():
                self._session(message)
            case State.READY, SessionFailed():
                if self._requests.get(message.client_id) == message.attempt:
                    self.actions.append(ToClients(message))
            case _, Pong():
                pass
            case State.DISMISSING, _:
                pass  # Said before it heard us.
            case _:
                raise ProtocolError("A message of the worker that its state does not allow.", state=self.state.value)

    # --- Inputs: clients --------------------------------------------------------------------------------------------

    def request(self, request: RequestPort) -> None:
        """A client asks for a session; ignored before the worker is ready, as `NewLeader` makes it ask again."""
        if self.state is State.READY and request.attempt > self._requests.get(request.client_id, 0):
            self._requests[request.client_id] = request.attempt
            self.actions.append(ToWorker(StartSession(request.client_id, request.attempt)))

    def client_left(self, client_id: str) -> None:
        """The coordinator has no link to that client any more."""
        self._requests.pop(client_id, None)

    # --- Time -------------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """When `handle_timer` has something to do."""
        times = (self._deadline, self._ping_at, self._silent_at)
        return min((one for one in times if one is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Ask the worker whether it is there, and kill it if it is not."""
        due = self.next_timer()
        if due is None or now < due:
            return
        if now - due > LEADER_TICK_LATE_S:
            # It was us who slept; what the worker said meanwhile waits to be read.
            self._silent_at = None if self._silent_at is None else now + LEADER_TICK_LATE_S
            self._deadline = None if self._deadline is None else now + LEADER_TICK_LATE_S
        if self._deadline is not None and now >= self._deadline:
            self._late(now)
        elif self._silent_at is not None and now >= self._silent_at:
            self._silent(now)
        elif self._ping_at is not None and now >= self._ping_at:
            self._ping(now)

    # --- Decisions --------------------------------------------------------------------------------------------------

    def _listening(self, worker: Listening, now: float) -> None:
        self.worker = worker
        self._deadline = None
        if worker.protocol != PROTOCOL:
            self._move("foreign")
            self.actions.append(ToWorker(Terminate(self.leadership_id)))
            self._deadline = now + WORKER_GRACE_S
            return
        self._move("listening")
        self._is_used = True
        self.actions.append(
            ToWorker(Init(self._client_id, self.leadership_id, owner_client_id=self._client_id, config=self._config))
        )
        self._ping(now)

    def _session(self, session: Session) -> None:
        worker = self.worker
        if self.state is not State.READY or self._requests.get(session.client_id) != session.attempt or worker is None:
            self.actions.append(Discard(session))
            return
        port = ProvidePort(
            session.client_id,
            session.attempt,
            leadership_id=self.leadership_id,
            worker_id=worker.worker_id,
            liveness_key=self._liveness_key,
            version=worker.version,
            port=session.port,
            token=session.token,
            answer=session.answer,
        )
        self.actions.append(ToClients(port))

    def _ping(self, now: float) -> None:
        self._nonce += 1
        self._ping_at = now + WORKER_PING_S
        self._silent_at = now + WORKER_STALE_S if self._silent_at is None else self._silent_at
        self.actions.append(ToWorker(Ping(self._nonce)))

    def _late(self, now: float) -> None:
        match self.state:
            case State.KILLING:
                failure = _gone("A worker that does not answer cannot be ended.", 1)
                if self._closing:
                    self._end()
                else:
                    self._fail(failure)
            case State.STARTING if not self._adopted:
                self._verdict = _gone("The worker's process started, but does not listen.", 1)
                self._kill(now)
            case _:
                self._kill(now)

    def _silent(self, now: float) -> None:
        if self.state is State.INITIALISING and not self._adopted:
            self._verdict = _gone("The worker stopped to answer before it served.", 1)
        self._kill(now)

    def _kill(self, now: float) -> None:
        self._move("stale")
        self._quiet()
        self._deadline = now + WORKER_KILL_S_MAX
        self.actions.append(Kill(self.worker.worker_id if self.worker else ""))

    def _dismiss(self, now: float) -> None:
        self._move("dismissed")
        self._quiet()
        self._deadline = now + WORKER_GRACE_S
        self.actions.append(ToWorker(Terminate(self.leadership_id)))

    def _replace(self) -> None:
        if not self._is_used:
            self._spawn("gone")
            return
        self._move("used")
        self._forget_worker()
        self.actions.append(Renew())

    def _spawn(self, event: str) -> None:
        self._move(event)
        self._forget_worker()
        self._adopted = False
        self.actions.append(Spawn())

    def _died_young(self, now: float) -> bool:
        self._deaths_count = self._deaths_count + 1 if now - self._ready_at < WORKER_STABLE_S else 0
        return self._deaths_count > WORKER_DEATHS_MAX

    def _depose(self) -> None:
        if self.state is not State.ENDED:
            self.actions.append(Deposed())
            self._end()

    def _fail(self, failure: Failure) -> None:
        self.actions.append(Failed(failure))
        self._end()

    def _end(self) -> None:
        # What was decided and not done yet would be done by somebody who leads no more.
        kept = [one for one in self.actions if not isinstance(one, Adopt | Spawn | Kill | Renew | ToWorker)]
        self.actions.clear()
        self.actions.extend(kept)
        if self.state in _LINKED:
            if self.state is not State.READY and not self._adopted:
                self.actions.append(ToWorker(Terminate(self.leadership_id)))
            self.actions.append(DropWorker())
        self._move("ended")
        self._forget_worker()
        self.actions.append(Closed())

    def _forget_worker(self) -> None:
        self._quiet()
        self._requests.clear()
        self.worker, self._liveness_key = None, ""

    def _quiet(self) -> None:
        self._deadline = self._ping_at = self._silent_at = None

    def _move(self, event: str) -> None:
        self.state = TRANSITIONS[self.state, event]


def _gone(message: str, count: int) -> Failure:
    return Failure("link.broken", message, {"workers_count": count})
