"""`MulticastObservable`: a value that changes, as callbacks, as an async iterator, or as something to wait for.

Invariants:
1. A new subscriber gets the present value before `subscribe` returns, if there is one.
2. Each subscriber sees the values in order, also when a subscriber causes the next value.
3. A subscriber that raises is logged, and the others get the value all the same.
4. After `error` or `complete` nothing follows; a late subscriber gets the last value, then that end. So does one in the
   child of a fork, to which nothing comes.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from enum import Enum
from typing import Any, Final, Generic, TypeVar, final

import anyio
import anyio.lowlevel

from dxos.aio import Opener, Subscription
from dxos.errors import ClosedError, DeadlineError, DxosError
from dxos.limits import STREAM_VALUES_MAX

T = TypeVar("T")
U = TypeVar("U")
Next = Callable[[T], object]
Failed = Callable[[Exception], object]
Completed = Callable[[], object]

_log = logging.getLogger("dxos.client")


class _Unset(Enum):
    UNSET = "unset"


UNSET: Final = _Unset.UNSET


class MulticastObservable(ABC, Generic[T]):
    """A value that changes, for any number of readers.

    `async for` gives the present value and then each later one. A reader that is slower than the values keeps the
    newest `STREAM_VALUES_MAX` of them and misses the older ones.
    """

    @abstractmethod
    def get(self) -> T:
        """The present value.

        Raises:
            ClosedError: There is none yet.
        """

    @abstractmethod
    def subscribe(self, next: Next[T], error: Failed | None = None, complete: Completed | None = None) -> Subscription:
        """Have `next` called with the present value at once, then with each later one.

        Args:
            next: Called on the event loop; must not block. What it raises is logged.
            error: Called at most once, last, with the reason why no more values come.
            complete: Called at most once, last, if the values end in order.
        """

    @property
    def value(self) -> T:
        """The present value; the same as `get()`."""
        return self.get()

    def __aiter__(self) -> AsyncIterator[T]:
        return _Reader(self)

    async def wait_for(self, predicate: Callable[[T], bool], timeout_s: float | None = None) -> T:
        """Wait for a value that `predicate` accepts; the present one counts.

        Args:
            predicate: Called on the event loop with each value; what it raises is raised here.
            timeout_s: Seconds to wait; None for ever.

        Raises:
            DeadlineError: No such value in time.
            ClosedError: The values ended without one.
            DxosError: The values ended with that error.

        Cancelling is safe.
        """
        found: list[T] = []
        raised: list[BaseException] = []
        done = anyio.Event()

        def look(value: T) -> None:
            if done.is_set():
                return
            try:
                accepted = predicate(value)
            except BaseException as error:  # noqa: BLE001 - Raised again below, in the task that waits.
                raised.append(error)
                done.set()
                return
            if accepted:
                found.append(value)
                done.set()

        def failed(error: Exception) -> None:
            if not done.is_set():
                raised.append(error)
                done.set()

        def completed() -> None:
            failed(ClosedError("The values ended before the one that was waited for."))

        subscription = self.subscribe(look, failed, completed)
        try:
            with anyio.move_on_after(timeout_s):
                await done.wait()
        finally:
            subscription.unsubscribe()
        if found:
            return found[0]
        if raised:
            raise raised[0]
        assert timeout_s is not None
        raise DeadlineError(f"Nothing that was waited for came within {timeout_s:g} s.", timeout_s=timeout_s)

    def map(self, function: Callable[[T], U]) -> MulticastObservable[U]:
        """An observable of `function` of each value; it is computed anew for each subscriber."""
        return _Mapped(self, function)

    def filter(self, predicate: Callable[[T], bool]) -> MulticastObservable[T]:
        """An observable of the values that `predicate` accepts; `get` raises while the present one is not."""
        return _Filtered(self, predicate)


class Source(MulticastObservable[T]):
    """An observable with a value of its own, for whoever knows the value. The methods with an underscore feed it."""

    def __init__(self, value: T | _Unset = UNSET) -> None:
        self._value: T | _Unset = value
        self._subscribers: dict[int, _Subscriber[T]] = {}
        self._number = 0
        self._ended = False
        self._opener = Opener()
        self._error_value: Exception | None = None
        self._queue: deque[tuple[Callable[[_Subscriber[T]], None], tuple[_Subscriber[T], ...]]] = deque()
        self._delivering = False

    def get(self) -> T:
        if self._value is UNSET:
            raise ClosedError("There is no value yet.")
        return self._value

    def subscribe(self, next: Next[T], error: Failed | None = None, complete: Completed | None = None) -> Subscription:
        subscriber = _Subscriber(next, error, complete)
        self._number += 1
        number = self._number

        def end() -> None:
            subscriber.active = False
            self._subscribers.pop(number, None)

        # Registered first: values that `next` itself causes must reach it too, and those queued before are not for it.
        self._subscribers[number] = subscriber
        if self._value is not UNSET:
            subscriber.give(self._value)
        if self._ended:
            subscriber.end(self._error_value)
        elif self._opener.is_parent:
            subscriber.end(self._opener.error)  # What feeds this was not forked.
        return Subscription(end)

    def _next(self, value: T) -> None:
        if self._ended:
            return
        self._value = value
        self._deliver(lambda subscriber: subscriber.give(value))

    def _error(self, error: Exception) -> None:
        self._end(error)

    def _complete(self) -> None:
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._ended, self._error_value = True, error
        self._deliver(lambda subscriber: subscriber.end(error))

    def _deliver(self, call: Callable[[_Subscriber[T]], None]) -> None:
        self._queue.append((call, tuple(self._subscribers.values())))
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._queue:
                call, subscribers = self._queue.popleft()
                for subscriber in subscribers:
                    call(subscriber)
        finally:
            self._delivering = False

    def __repr__(self) -> str:
        shown = "no value" if self._value is UNSET else f"{self._value!r:.60}"
        return f"<{type(self).__name__} {shown}, {len(self._subscribers)} subscribers>"


@final
class Signal(Generic[T]):
    """Something that happens again and again, for any number of callbacks; nobody hears what was before."""

    __slots__ = ("_callbacks",)

    def __init__(self) -> None:
        self._callbacks: dict[object, Next[T]] = {}

    def subscribe(self, callback: Next[T]) -> Subscription:
        """Have `callback` called from now on."""
        mark = object()
        self._callbacks[mark] = callback

        def end() -> None:
            self._callbacks.pop(mark, None)

        return Subscription(end)

    def emit(self, value: T) -> None:
        """Call whoever is subscribed."""
        for mark, callback in tuple(self._callbacks.items()):
            if mark in self._callbacks:
                call_logged(callback, value)

    def __len__(self) -> int:
        return len(self._callbacks)


class _Subscriber(Generic[T]):
    __slots__ = ("_complete", "_error", "_next", "active")

    def __init__(self, next: Next[T], error: Failed | None, complete: Completed | None) -> None:
        self._next, self._error, self._complete = next, error, complete
        self.active = True

    def give(self, value: T) -> None:
        if self.active:
            call_logged(self._next, value)

    def end(self, error: Exception | None) -> None:
        if not self.active:
            return
        self.active = False
        if error is None:
            if self._complete is not None:
                call_logged(self._complete)
        elif self._error is not None:
            call_logged(self._error, error)


def call_logged(function: Callable[..., object], *args: Any) -> None:
    """Call what the application gave us; what it raises is logged, because nobody here can act on it."""
    try:
        function(*args)
    except Exception:  # noqa: BLE001 - The edge to the application's code.
        _log.exception("A subscriber raised; the other subscribers are not affected.")


class _Buffer(Generic[T]):
    """What a reader has not read yet."""

    def __init__(self) -> None:
        # Bounded, and the oldest value goes first: what is, matters more to a slow reader than what was.
        self.values: deque[T] = deque(maxlen=STREAM_VALUES_MAX)
        self.ended = False
        self.error: Exception | None = None
        self.changed: anyio.Event | None = None

    def push(self, value: T) -> None:
        self.values.append(value)
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        self.ended, self.error = True, error
        self._wake()

    def _wake(self) -> None:
        if self.changed is not None:
            self.changed.set()


@final
class _Reader(AsyncIterator[T]):
    """Not a generator: a loop that is left early ends the subscription by reference counting, without an event loop."""

    def __init__(self, source: MulticastObservable[T]) -> None:
        self._buffer: _Buffer[T] = _Buffer()
        # The subscription refers to the buffer, never to this object, or it would live for ever.
        self._subscription = source.subscribe(self._buffer.push, self._buffer.end, self._buffer.end)

    async def __anext__(self) -> T:
        buffer = self._buffer
        while not buffer.values:
            if buffer.ended:
                error, buffer.error = buffer.error, None
                raise StopAsyncIteration if error is None else error
            buffer.changed = anyio.Event()
            await buffer.changed.wait()
        await anyio.lowlevel.checkpoint()
        return buffer.values.popleft()

    def __del__(self) -> None:
        self._subscription.unsubscribe()


@final
class _Mapped(MulticastObservable[U], Generic[T, U]):
    def __init__(self, source: MulticastObservable[T], function: Callable[[T], U]) -> None:
        self._source, self._function = source, function

    def get(self) -> U:
        return self._function(self._source.get())

    def subscribe(self, next: Next[U], error: Failed | None = None, complete: Completed | None = None) -> Subscription:
        return self._source.subscribe(lambda value: next(self._function(value)), error, complete)


@final
class _Filtered(MulticastObservable[T]):
    def __init__(self, source: MulticastObservable[T], predicate: Callable[[T], bool]) -> None:
        self._source, self._predicate = source, predicate

    def get(self) -> T:
        value = self._source.get()
        if not self._predicate(value):
            raise ClosedError("The present value is filtered out.")
        return value

    def subscribe(self, next: Next[T], error: Failed | None = None, complete: Completed | None = None) -> Subscription:
        def pass_on(value: T) -> None:
            if self._predicate(value):
                next(value)

        return self._source.subscribe(pass_on, error, complete)


def reason(error: Exception) -> DxosError:
    """The error as one of the tree: a foreign one is a bug of a provider, and is named as such."""
    if isinstance(error, DxosError):
        return error
    return DxosError(f"The host failed: {type(error).__name__}: {error}")
