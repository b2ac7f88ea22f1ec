"""The few helpers that structured concurrency still lacks."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Generic, NoReturn, SupportsIndex, TypeVar, final

import anyio
import anyio.lowlevel

from dxos.errors import ClosedError, DeadlineError, DxosError, UsageError
from dxos.limits import SLICE_S

T = TypeVar("T")
SLICE: Final = ContextVar("dxos_slice_s", default=SLICE_S)  # Seconds; of this task, and of those that it starts.
_TURNS: Final = 3  # Of an event loop, until what became due in the first one has had its own.
_log = logging.getLogger(__name__)


@contextmanager
def unwrap_group() -> Iterator[None]:
    """Raise a lone error by itself instead of inside groups, so that callers can name it.

    Of several errors that are all of the tree the first is raised: tasks that fail together, such as those that wait
    for answers on a connection that breaks, fail for one cause. A bug among them is never hidden.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        is_one = len(leaves) == 1 or all(isinstance(one, DxosError) for one in leaves)
        error: BaseException = leaves[0] if is_one else group
    else:
        return
    raise error  # Outside the handler, so that the group is not its context.


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _leaves(one)
        else:
            yield one


@final
class Subscription:
    """What `subscribe` returns: call it, or its `unsubscribe`, to end the stream."""

    __slots__ = ("_end",)

    def __init__(self, end: Callable[[], None]) -> None:
        self._end: Callable[[], None] | None = end

    def unsubscribe(self) -> None:
        """End the stream: nothing is called after this returns. Doing so twice is harmless."""
        end, self._end = self._end, None
        if end is not None:
            end()

    def __call__(self) -> None:
        self.unsubscribe()

    def __repr__(self) -> str:
        return f"<Subscription {'ended' if self._end is None else 'active'}>"


@final
class Listeners(Generic[T]):
    """Callbacks that want to know; an error in one is logged and does not keep the others from being told."""

    __slots__ = ("_callbacks",)

    def __init__(self) -> None:
        self._callbacks: dict[object, Callable[[T], None]] = {}

    def subscribe(self, callback: Callable[[T], None]) -> Subscription:
        """Call `callback` with every value emitted from now on."""
        token = object()
        self._callbacks[token] = callback
        return Subscription(lambda: self._callbacks.pop(token, None) and None)

    def emit(self, value: T) -> None:
        """Tell everyone who has subscribed, in the order in which they did."""
        for token, callback in tuple(self._callbacks.items()):
            if token not in self._callbacks:
                continue  # An earlier callback ended this one.
            try:
                callback(value)
            except Exception:  # noqa: BLE001 - one subscriber's bug must not reach the one who emits.
                _log.exception("a subscriber failed")

    def __len__(self) -> int:
        return len(self._callbacks)


@final
class Opener:
    """The process that opened something: in the child of a fork the parent, with threads that the child lacks."""

    __slots__ = ("_process_id",)

    def __init__(self) -> None:
        self._process_id = os.getpid()

    @property
    def is_parent(self) -> bool:
        """Whether that process has forked this one."""
        return os.getpid() != self._process_id

    @property
    def error(self) -> ClosedError:
        """What the child of a fork is told."""
        return ClosedError(
            "This client was opened by the process that forked this one: call `initialize()` here, and get from it "
            "what you need."
        )

    def check(self) -> None:
        """Raise in the child of a fork."""
        if self.is_parent:
            raise self.error


def stay_here(target: object, protocol: SupportsIndex) -> NoReturn:
    """The `__reduce_ex__` of what belongs to its process, such as an argument of `multiprocessing` must not be."""
    raise UsageError(
        f"A {type(target).__name__} cannot be given to another process: open a client there, and ask it for the "
        "space or object by its id. What `to_dict()` gives is plain data."
    )


@final
class Changes:
    """Wakes every task that waits for some state to change."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def notify(self) -> None:
        """Say that something changed; never blocks, and many calls may wake a waiter once."""
        event, self._event = self._event, None
        if event is not None:
            event.set()

    async def wait(self) -> None:
        """Return after the next `notify`."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()

    async def wait_until(
        self, condition: Callable[[], bool], *, timeout_s: float | None = None, what: str = ""
    ) -> None:
        """Return as soon as `condition()` holds; it is looked at now and after each `notify`.

        Raises:
            DeadlineError: It did not hold within `timeout_s` seconds.
        """
        with anyio.move_on_after(timeout_s) as scope:
            while not condition():
                await self.wait()
        if scope.cancelled_caught:
            raise DeadlineError(f"Timed out waiting for {what or 'a change'}", timeout_s=timeout_s or 0.0)


async def give_way() -> None:
    """Let everything else have its turn before one long call, also what became due only just now.

    A timer that runs out during this turn joins the queue behind this task, and with asyncio it joins it again for the
    task that it wakes; so after a single checkpoint both would wait for the long call as well.
    """
    for _ in range(_TURNS):
        await anyio.lowlevel.checkpoint()


@final
class Pace:
    """Lets everything else have its turn in the middle of long work, whenever that has taken a slice.

        pace = Pace()
        for one in many:
            do(one)
            if pace.is_due:
                await pace.rest()

    Short work does not wait at all, so what needs no longer than a slice is done in one turn of the event loop.
    """

    __slots__ = ("_until",)

    def __init__(self) -> None:
        # The machine's clock and not the event loop's, which stands still in tests and within a turn of theirs.
        self._until = time.perf_counter() + SLICE.get()

    @property
    def is_due(self) -> bool:
        """Whether it is time to rest."""
        return time.perf_counter() >= self._until

    async def rest(self) -> None:
        """Let everything else have its turn; what the work relies on may be different afterwards."""
        await anyio.lowlevel.checkpoint()
        self._until = time.perf_counter() + SLICE.get()
