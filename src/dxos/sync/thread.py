"""The thread in which a blocking client's event loop runs, and how other threads have something done there.

    caller's thread                       loop's thread
    call(f) ── queue ── wait ──▶  f() ──▶ value ───────────────────────────▶ caller goes on
                                   └────▶ coroutine ──▶ a task of its own ──▶ caller goes on

Invariants:
1. Plain functions run one after the other in one task, so none sees what another has half done.
2. Calls of one thread run in one context, so that a block which is entered (a batch) is there for what follows.
3. The loop runs while it is needed or a caller waits; otherwise plain functions run where they are called.
4. A caller that is interrupted (Ctrl-C) waits until what it asked for has been cancelled, but not for ever.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, final

from dxos.errors import ClosedError, DxosError, UsageError
from dxos.limits import CLOSE_TIMEOUT_S

_log = logging.getLogger("dxos.sync")


@final
class LoopThread:
    """An event loop in a thread of its own, started and ended as it is needed.

    Args:
        needed: Whether the loop must go on although nobody waits; asked in any thread.
        close: Ends that need; called if the program ends before anybody did.
    """

    def __init__(self, needed: Callable[[], bool], close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._needed, self._close = needed, close
        # Of the next two; held while the loop starts or ends, and while there is none and a function runs here.
        self._lock = threading.RLock()
        self._serving: _Serving | None = None
        self._waiting = 0
        self._teller = _Teller()
        self._callers = threading.local()

    def call(self, function: Callable[[], Any]) -> Any:
        """Run `function` in the loop's thread; if it gives a coroutine, wait for that one's value.

        Raises:
            UsageError: It would wait in the loop's own thread, where nothing could happen meanwhile.
            BaseException: What it raised; KeyboardInterrupt, after what was under way has been cancelled.
        """
        serving = self._serving
        if serving is not None and threading.get_ident() == serving.thread_id:
            result = function()
            if inspect.iscoroutine(result):
                result.close()
                raise UsageError("A predicate, or another function that gives a value, cannot make a call that waits.")
            return result
        with self._lock:
            serving = self._serving
            if serving is None:
                result = function()
                if not inspect.iscoroutine(result):
                    return result
                function = _just(result)
                serving = self._serving = _Serving()
                _close_at_exit(self)
            self._waiting += 1
        try:
            return serving.run(function, self._context())
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting and not self._needed():
                    self._serving = None
                    _open.discard(self)
                    serving.end()

    def _context(self) -> Context:
        """Of the calls of this thread."""
        context = getattr(self._callers, "context", None)
        if context is None:
            context = self._callers.context = Context()
        assert isinstance(context, Context)
        return context

    def tell(self, function: Callable[[], object]) -> None:
        """Run `function` soon, after those before it, in a thread that may wait for the loop."""
        self._teller.put(function)

    def abandon(self) -> None:
        """In the child of a fork, which has neither the loop's thread nor those that wait for it."""
        self._lock, self._serving, self._waiting = threading.RLock(), None, 0
        self._teller, self._callers = _Teller(), threading.local()

    def close(self) -> None:
        """End what the loop runs for, and the loop."""
        if self._serving is not None:
            self.call(self._close)

    def __repr__(self) -> str:
        return f"<LoopThread {'idle' if self._serving is None else 'running'} {self._waiting} waiting>"


class _Call:
    """One function on its way through the loop."""

    __slots__ = ("_context", "_done", "_error", "_function", "_task", "_value")

    def __init__(self, function: Callable[[], Any], context: Context) -> None:
        self._function, self._context = function, context
        self._done = threading.Lock()  # The cheapest thing to wait for; released once.
        self._done.acquire()
        self._value: Any = None
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    # In the caller's thread.

    def wait(self, timeout_s: float = -1) -> Any:
        if not self._done.acquire(timeout=timeout_s):
            return None
        if self._error is not None:
            error, self._error = self._error, None  # Or it would hold the frame that holds it.
            raise error
        return self._value

    # In the loop's thread.

    def run(self, tasks: set[asyncio.Task[None]]) -> None:
        try:
            result = self._context.run(self._function)
        except BaseException as error:  # noqa: BLE001 - Raised again in the caller's thread.
            self.finish(None, error)
            return
        if not inspect.iscoroutine(result):
            self.finish(result)
            return
        task = self._task = asyncio.create_task(self._follow(result), name="dxos sync", context=self._context)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _follow(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            value = await coroutine
        except asyncio.CancelledError:
            self.finish(None, ClosedError("The call was cancelled, because the client ended."))
            raise
        except BaseException as error:  # noqa: BLE001 - Raised again in the caller's thread.
            self.finish(None, error)
        else:
            self.finish(value)

    def finish(self, value: Any, error: BaseException | None = None) -> None:
        self._value, self._error = value, error
        self._done.release()

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class _Serving:
    """A running loop: begins when it is made, until `end`."""

    def __init__(self) -> None:
        self._calls: deque[_Call] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="dxos loop")
        self._thread.start()
        ready.wait()
        assert self._thread.ident is not None
        self.thread_id: int = self._thread.ident

    def run(self, function: Callable[[], Any], context: Context) -> Any:
        """Have a function run, and wait for its value."""
        call = _Call(function, context)
        self._calls.append(call)
        self._loop.call_soon_threadsafe(self._wake.set)
        try:
            return call.wait()
        except KeyboardInterrupt:
            self._loop.call_soon_threadsafe(call.cancel)
            try:
                call.wait(CLOSE_TIMEOUT_S)
            except Exception as error:  # noqa: BLE001 - The interruption matters more.
                _log.debug("an interrupted call ended with %r", error)
            raise

    def end(self) -> None:
        """End the loop, and wait until its thread has ended."""
        self._ending = True
        self._loop.call_soon_threadsafe(self._wake.set)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        asyncio.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        while not self._ending:
            await self._wake.wait()
            self._wake.clear()
            while self._calls:
                self._calls.popleft().run(self._tasks)


@final
class _Teller:
    """Runs functions one after the other in a daemon thread that starts with the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Not bounded: the loop cannot wait for a function that may itself wait for the loop.
        self._queue: queue.SimpleQueue[Callable[[], object]] | None = None

    def put(self, function: Callable[[], object]) -> None:
        with self._lock:
            if self._queue is None:
                self._queue = queue.SimpleQueue()
                threading.Thread(target=_tell_all, args=(self._queue,), name="dxos callbacks", daemon=True).start()
        self._queue.put(function)

    def __del__(self) -> None:
        if self._queue is not None:
            self._queue.put(_leave)


def _tell_all(functions: queue.SimpleQueue[Callable[[], object]]) -> None:
    for function in iter(functions.get, _leave):
        try:
            function()
        except Exception:  # noqa: BLE001 - The top of a thread, and the edge to the application's code.
            _log.exception("A subscriber raised; the other subscribers are not affected.")


def _leave() -> None:
    """Says that a teller's thread should end."""


def _just(value: Any) -> Callable[[], Any]:
    return lambda: value


_open: set[LoopThread] = set()  # Whose loop runs; also those that the program has lost.
_closing_lock = threading.Lock()
_closer: threading.Thread | None = None


def _close_at_exit(thread: LoopThread) -> None:
    """Close it when the main thread ends, as a script that forgets to close wants its edits stored all the same."""
    global _closer
    with _closing_lock:
        _open.add(thread)
        if _closer is None:
            # Not `atexit`: that comes after the interpreter has waited for threads, and the loop would go on for ever.
            _closer = threading.Thread(target=_close_all, name="dxos closer")
            _closer.start()


def _close_all() -> None:
    threading.main_thread().join()
    for thread in list(_open):
        try:
            thread.close()
        except DxosError as error:
            _log.error("A client could not be closed in order: %s", error)
        except Exception:  # noqa: BLE001 - The top of a thread.
            _log.exception("A client could not be closed in order.")


def _abandon_all() -> None:
    """In the child of a fork."""
    global _closer, _closing_lock
    for thread in list(_open):
        thread.abandon()
    _open.clear()
    _closer, _closing_lock = None, threading.Lock()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_abandon_all)
