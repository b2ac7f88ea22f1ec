"""One client's part in choosing the leader: trying the lock, judging its holder, stealing it, stepping down.

    IDLE ─start─▶ TRYING ─acquired─▶ LEADING ─deposed──────────▶ WAITING
                   ▲  └──busy──▶ WAITING    ├─failed───────────▶ PAUSED
                   ├───retry───────┘ │      └─handed_over──────▶ PAUSED
                   ├───rested── PAUSED      steal
                   │                 └─────▶ STEALING ─acquired─▶ LEADING, ─busy─▶ WAITING

Invariants
1. At most one leader acts: whoever sees a newer generation of the lock steps down before it does anything else.
2. Waiting is never failure: it has no time-out, and nothing is reported of it.
3. Only a holder whose heartbeat did not move for LEADER_STALE_S, seen without interruption on a clock of ours that ran
   on time, is deposed; and only if the lock was found held meanwhile. What we fail to reach ourselves is no reason.
4. Stealing slows down: not within STEAL_COOLDOWN_S of the newest generation's birth, doubled for each generation that
   brought us no session, and at most LEADER_STEALS_MAX times without one in between.
5. A leadership that failed is followed by a pause, doubled each time; LEADER_FAILURES_MAX in a row, or the last steal
   in vain, are reported once.
6. Whoever had an error of the coordinator's steals no more.
"""

import math
from collections import deque
from collections.abc import Mapping
from enum import Enum
from typing import final

from msgspec import Struct

from dxos.errors import Detail
from dxos.limits import (
    HAND_OVER_PAUSE_S,
    LEADER_FAILURES_MAX,
    LEADER_RETRY_S_MAX,
    LEADER_RETRY_S_MIN,
    LEADER_STALE_S,
    LEADER_STEALS_MAX,
    LEADER_TICK_LATE_S,
    LOCK_RETRY_S,
    LOCK_RETRY_S_MIN,
    STEAL_COOLDOWN_S,
)
from dxos.worker.messages import Failure


class State(Enum):
    """Where this client is."""

    IDLE = "idle"
    TRYING = "trying"  # The driver tries the lock.
    WAITING = "waiting"  # Another process leads.
    STEALING = "stealing"  # The driver makes a newer generation of the lock, and tries that.
    LEADING = "leading"
    PAUSED = "paused"  # We led and it failed, or we handed over.
    CLOSED = "closed"


TRANSITIONS: Mapping[tuple[State, str], State] = {
    (State.IDLE, "start"): State.TRYING,
    (State.TRYING, "acquired"): State.LEADING,
    (State.TRYING, "busy"): State.WAITING,
    (State.WAITING, "retry"): State.TRYING,
    (State.WAITING, "steal"): State.STEALING,
    (State.STEALING, "acquired"): State.LEADING,
    (State.STEALING, "busy"): State.WAITING,
    (State.LEADING, "renewed"): State.LEADING,
    (State.LEADING, "deposed"): State.WAITING,
    (State.LEADING, "failed"): State.PAUSED,
    (State.LEADING, "handed_over"): State.PAUSED,
    (State.PAUSED, "rested"): State.TRYING,
    **{(state, "close"): State.CLOSED for state in State if state is not State.CLOSED},
}


# --- Actions ----------------------------------------------------------------------------------------------------------


@final
class TryLock(Struct, frozen=True):
    """Try the lock; then call `lock_acquired` or `lock_busy`."""


@final
class StealLock(Struct, frozen=True):
    """Make the generation after this one and try that; then call `lock_acquired` or `lock_busy`."""

    frozen: int  # The leadership id whose heartbeat stands still.


@final
class Lead(Struct, frozen=True):
    """Begin to lead: coordinator, worker, heartbeat."""

    leadership_id: int


@final
class Beat(Struct, frozen=True):
    """Move the heartbeat of the lock."""

    leadership_id: int


@final
class StepDown(Struct, frozen=True):
    """Stop leading: end the leadership (`Leadership.close`), close the coordinator, then let go of the lock."""

    leadership_id: int
    terminate: bool  # Whether the worker has to end too, and before the lock is let go of.


@final
class ReportFailure(Struct, frozen=True):
    """This client has tried long enough for its user to know; it goes on trying."""

    failure: Failure


Action = TryLock | StealLock | Lead | Beat | StepDown | ReportFailure


class _Sighting(Struct):
    """The newest generation of the lock, as this process saw it."""

    id: int
    beat: int
    born: float  # On our clock; long ago, if it was there before us.
    since: float  # From then on its heartbeat did not move, and we looked on time.
    moved: bool = False  # Whether its heartbeat ever did.


@final
class Election:
    """One client; `actions` is what to do, in order, and the driver empties it.

    The driver calls `tick` every LEADER_BEAT_S, `handle_timer` when `next_timer` says, and `observe` before each action
    of a leadership.
    """

    def __init__(self) -> None:
        self.state = State.IDLE
        self.actions: deque[Action] = deque()
        self.leadership_id = 0  # With which we lead; 0 if we do not.
        self.failures_count = 0  # Leaderships of ours that failed in a row.
        self.steals_count = 0  # Since the last session.
        self._sighting: _Sighting | None = None
        self._ticked_at = -math.inf
        self._looked = False
        self._busy_at = -math.inf
        self._wake_at = math.inf  # Of TRYING again, in WAITING and PAUSED.
        self._hurry_s = math.inf  # The pause between tries since our connection to the leader ended.
        self._handed_id = math.inf  # Which we handed over: a newer one says that it was taken.
        self._fruitless = 0  # Generations that began while we had no session.
        self._has_session = False
        self._may_steal = True
        self._reported = False

    def __repr__(self) -> str:
        seen = self._sighting.id if self._sighting else 0
        return f"<Election {self.state.value} newest={seen} steals={self.steals_count} failures={self.failures_count}>"

    @property
    def newest_id(self) -> int:
        """The newest leadership that was seen; 0 if there was none."""
        return self._sighting.id if self._sighting else 0

    def diagnostics(self, now: float) -> dict[str, Detail]:
        """Facts for an error's detail."""
        found: dict[str, Detail] = {
            "worker_leader_phase": self.state.value,
            "worker_is_leader": self.state is State.LEADING,
            "worker_leader_failures": self.failures_count,
            "worker_steal_count": self.steals_count,
        }
        if self._sighting:
            found["worker_ms_since_leader_heartbeat"] = round((now - self._sighting.since) * 1_000)
        return found

    # --- Inputs -----------------------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Become a candidate."""
        self._try("start", now)

    def lock_acquired(self, leadership_id: int, now: float) -> None:
        """The lock is ours, with an id that nobody led with before."""
        if self.state is State.CLOSED:  # It came too late to be used, and nobody else will let go of it.
            self.actions.append(StepDown(leadership_id, terminate=False))
            return
        self._move("acquired")
        self.leadership_id = leadership_id
        self._see(leadership_id, 0, now)
        self.actions.append(Lead(leadership_id))

    def lock_busy(self, now: float) -> None:
        """Another process has the lock; or the attempt failed in a way that will pass."""
        if self.state is not State.CLOSED:
            self._move("busy")
            self._busy_at, self._wake_at = now, now + min(self._hurry_s, LOCK_RETRY_S)
            self._hurry_s *= 2.0

    def renewed(self, leadership_id: int, now: float) -> None:
        """We lead on with a newer id, as the leadership asked for."""
        if self.state is State.CLOSED:
            self.actions.append(StepDown(leadership_id, terminate=False))
            return
        self._move("renewed")
        assert leadership_id > self.leadership_id, "ids only grow"
        self.leadership_id = leadership_id
        self._see(leadership_id, 0, now)

    def observe(self, newest: int, now: float) -> bool:
        """Look at the newest generation before acting; whether we lead."""
        if self.state is State.LEADING and newest > self.leadership_id:
            self._depose(now)
        return self.state is State.LEADING

    def deposed(self, now: float) -> None:
        """Somebody else told us that there is a newer leader: the storage, the worker, or a renewal in vain."""
        if self.state is State.LEADING:
            self._depose(now)

    def link_ended(self, now: float) -> None:
        """Our connection to the coordinator ended: its process may be gone."""
        if self.state is State.WAITING:
            # Of a process that is killed, the system closes one file after another: the lock may be last.
            self._hurry_s = LOCK_RETRY_S_MIN
            self._try("retry", now)

    def next_timer(self) -> float | None:
        """When `handle_timer` has something to do: the lock is to be tried again before the next `tick`."""
        return self._wake_at if self.state is State.WAITING and self._hurry_s < LOCK_RETRY_S else None

    def handle_timer(self, now: float) -> None:
        """Try the lock again."""
        at = self.next_timer()
        if at is not None and now >= at:
            self._try("retry", now)

    def tick(self, now: float, newest: int, beat: int) -> None:
        """Look at the lock.

        Args:
            now: Seconds on our monotonic clock.
            newest: The newest generation; 0 if there is none.
            beat: When its heartbeat moved last, on whatever clock: only whether it moves counts.
        """
        if self.state is State.CLOSED:
            return
        late, self._ticked_at = now - self._ticked_at > LEADER_TICK_LATE_S, now
        if newest:
            self._look(newest, beat, late=late, now=now)
        self._looked = True
        match self.state:
            case State.LEADING if self.observe(newest, now):
                self.actions.append(Beat(self.leadership_id))
            case State.WAITING if self._is_stale(now):
                self._steal(now)
            case State.WAITING if now >= self._wake_at:
                self._try("retry", now)
            case State.PAUSED if now >= self._wake_at or newest > self._handed_id:
                self._try("rested", now)

    def connected(self) -> None:
        """This client has a session."""
        self._has_session = True
        self._hurry_s = math.inf
        self._calm()

    def disconnected(self) -> None:
        """This client's session ended."""
        self._has_session = False

    def coordinator_failed(self) -> None:
        """The coordinator refused us, or cannot be reached for a reason that will not pass by itself."""
        self._may_steal = False

    def coordinator_greeted(self) -> None:
        """The coordinator takes us."""
        self._may_steal = True

    def leadership_ready(self) -> None:
        """The worker of our leadership serves."""
        if self._has_session:
            self._calm()

    def leadership_failed(self, failure: Failure, now: float, jitter: float) -> None:
        """Our leadership failed.

        Args:
            failure: Why.
            now: Seconds.
            jitter: 0 to 1, drawn at random: those who fail together should not try again together.
        """
        if self.state is not State.LEADING:
            return
        assert 0.0 <= jitter <= 1.0
        pause_s = min(LEADER_RETRY_S_MIN * 2.0**self.failures_count, LEADER_RETRY_S_MAX)
        self.failures_count += 1
        self._move("failed")
        self._leave(terminate=False)
        self._wake_at = now + pause_s * (0.5 + 0.5 * jitter)
        if self.failures_count >= LEADER_FAILURES_MAX:
            self._report(failure)

    def hand_over(self, now: float) -> None:
        """A newer version asks us to let it lead."""
        if self.state is State.LEADING:
            self._move("handed_over")
            self._handed_id = self.leadership_id
            self._leave(terminate=True)
            self._wake_at = now + HAND_OVER_PAUSE_S

    def close(self) -> None:
        """This client leaves; the last call that has an effect, but for a lock that arrives late."""
        if self.state is State.CLOSED:
            return
        leading = self.state is State.LEADING
        self._move("close")
        if leading:
            self._leave(terminate=False)

    # --- Decisions --------------------------------------------------------------------------------------------------

    def _look(self, newest: int, beat: int, *, late: bool, now: float) -> None:
        seen = self._sighting
        if seen is None or newest != seen.id:
            self._see(newest, beat, now)
        elif beat != seen.beat:
            seen.beat, seen.since = beat, now
            # The beat of a new file is its birth; the next is its leader's own.
            if seen.moved and self._has_session and self.state is State.WAITING:
                self._calm()
            seen.moved = True
        elif late:
            seen.since = now

    def _see(self, newest: int, beat: int, now: float) -> None:
        first = self._sighting is None and not self._looked
        if not first and not self._has_session:
            self._fruitless += 1
        self._sighting = _Sighting(newest, beat, -math.inf if first else now, now)

    def _is_stale(self, now: float) -> bool:
        seen = self._sighting
        if seen is None or not self._may_steal or self._busy_at <= seen.since:
            return False
        cooldown_s = STEAL_COOLDOWN_S * 2.0 ** min(self._fruitless, LEADER_STEALS_MAX)
        return now - seen.since >= LEADER_STALE_S and now - seen.born >= cooldown_s

    def _steal(self, now: float) -> None:
        assert self._sighting is not None
        if self.steals_count >= LEADER_STEALS_MAX:
            self._report(Failure("link.deadline", "The process that leads does not answer, nor did those before it."))
            if now >= self._wake_at:
                self._try("retry", now)
            return
        self.steals_count += 1
        self._move("steal")
        self.actions.append(StealLock(self._sighting.id))

    def _try(self, event: str, now: float) -> None:
        self._move(event)
        self._wake_at = self._handed_id = math.inf
        self.actions.append(TryLock())

    def _depose(self, now: float) -> None:
        self._move("deposed")
        self._leave(terminate=False)
        self._wake_at = now + LOCK_RETRY_S

    def _leave(self, *, terminate: bool) -> None:
        self.actions.append(StepDown(self.leadership_id, terminate))
        self.leadership_id = 0

    def _calm(self) -> None:
        self.failures_count = self.steals_count = self._fruitless = 0
        self._reported = False

    def _report(self, failure: Failure) -> None:
        if not self._reported:
            self._reported = True
            self.actions.append(ReportFailure(failure))

    def _move(self, event: str) -> None:
        self.state = TRANSITIONS[self.state, event]
