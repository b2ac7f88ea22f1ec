"""The way out of a connection: who may queue bytes now, and waking the task that writes them."""

from collections.abc import Callable
from typing import final

import anyio

from dxos.errors import BrokenError, DeadlineError
from dxos.limits import CHANNEL_BUFFER_BYTES_MAX, CHANNEL_SEND_BYTES, RPC_CALLS_READ_MAX
from dxos.teleport.session import Session


@final
class Outlet:
    """What the parts of one connection share: its session, and the events by which they wake each other."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.closing = anyio.Event()  # The end has begun; set once.
        self.sendable = anyio.Event()  # Something may be queued; the writer renews it.
        self.eased = anyio.Event()  # Something the peer sent was dealt with; the reader renews it.
        self.timer_changed = anyio.Event()  # Something is due earlier; the timer renews it.
        self.timer_target: float | None = None  # What the timer sleeps for.
        self.raw_bytes = 0  # Received on raw streams and not read.
        self._room = anyio.Event()  # Bytes went out, calls ended, or the end has begun; senders renew it.

    def wake(self) -> None:
        """Say that the session was given something: to send, to wait for, or an answer."""
        self.sendable.set()
        self.eased.set()
        at = self.session.timer_at
        if at is not None and (self.timer_target is None or at < self.timer_target):
            self.timer_changed.set()

    def notify_room(self) -> None:
        """Wake those who wait for room."""
        self._room.set()

    def must_wait(self, lane: str | int, calls_count: int = 0) -> bool:
        """Whether a sender has to wait.

        Args:
            lane: The name of an extension, or the number of a raw channel.
            calls_count: Our unanswered calls to that extension, when one is to be added.
        """
        session = self.session
        return (
            session.queued_bytes_of(lane) >= CHANNEL_SEND_BYTES
            or session.queued_bytes >= CHANNEL_BUFFER_BYTES_MAX // 2
            or calls_count >= RPC_CALLS_READ_MAX
        )

    async def wait_room(
        self, lane: str | int, *, deadline: float = float("inf"), calls_count: Callable[[], int] = lambda: 0
    ) -> None:
        """Wait until a sender need not wait any longer; cancelling changes nothing.

        Raises:
            DeadlineError: The deadline passed, on the clock of `anyio.current_time`.
            BrokenError: The connection is closing.
        """
        with anyio.CancelScope(deadline=deadline) as scope:
            while self.must_wait(lane, calls_count()):
                if self.closing.is_set():
                    raise BrokenError("The connection is closed.")
                if self._room.is_set():
                    self._room = anyio.Event()
                await self._room.wait()
        if scope.cancelled_caught:
            raise DeadlineError("The peer takes what we send too slowly.")
