"""The one place where a task outlives a call: an `async with` block held open from `open` to `close`.

A client can be used without a block (`initialize()`, `destroy()`), but what it opens are blocks: the host, and the
client's own task group. So one task, which belongs to nobody's task group, enters those blocks and waits:

    open() ──▶ [task: async with block() as value: wait for close() ]──▶ close() waits for the task's end
                     └── fails before: open() raises it  └── fails in between: `failed` is called with it

On asyncio it is a plain task, on trio a system task; neither may let an error out, so both are caught at its top.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar, final

import anyio

from dxos.client.observable import UNSET, _Unset
from dxos.errors import ClosedError

T = TypeVar("T")

_log = logging.getLogger("dxos.client")
# The event loop refers to its tasks weakly.
_tasks: set[asyncio.Task[None]] = set()


@final
class BackgroundBlock(Generic[T]):
    """Holds one async context manager open in a task of its own; used once.

    Args:
        block: Called in that task; gives the context manager.
        failed: Called on the event loop if the block ends with an error after it was open and before `close`.
    """

    def __init__(
        self, block: Callable[[], AbstractAsyncContextManager[T]], failed: Callable[[Exception], None]
    ) -> None:
        self._block, self._failed = block, failed
        self._value: T | _Unset = UNSET
        self._error: Exception | None = None
        self._closing = False
        # Made inside the event loop, where a block is opened.
        self._opened, self._stop, self._ended = anyio.Event(), anyio.Event(), anyio.Event()
        self._scope = anyio.CancelScope()

    async def open(self) -> T:
        """Enter the block.

        Raises:
            Exception: What entering it raised.

        Cancelling leaves the block: it is closed when the cancellation reaches the caller.
        """
        _spawn(self._run)
        try:
            await self._opened.wait()
        except BaseException:
            self._closing = True
            self._scope.cancel()
            with anyio.CancelScope(shield=True):
                await self._ended.wait()
            raise
        if self._value is UNSET:
            raise self._error or ClosedError("The client was closed while it opened.")
        return self._value

    async def close(self) -> None:
        """Leave the block, in order; may be called from any task, and again.

        Raises:
            Exception: What leaving it raised.

        Cancelling cuts the block's end short and waits for it.
        """
        self._closing = True
        self._stop.set()
        try:
            await self._ended.wait()
        except BaseException:
            self._scope.cancel()
            with anyio.CancelScope(shield=True):
                await self._ended.wait()
            raise
        error, self._error = self._error, None
        if error is not None:
            raise error

    async def _run(self) -> None:
        opened = False
        try:
            with self._scope:
                async with self._block() as value:
                    self._value, opened = value, True
                    self._opened.set()
                    await self._stop.wait()
            if not self._closing:
                raise ClosedError("The host ended by itself.")
        except Exception as raised:  # noqa: BLE001 - The top of a task: nobody above can act on it.
            error = _lone(raised)
            if opened and not self._closing:
                _log.error("The host failed: %s", error)
                self._failed(error)
            else:
                self._error = error
        finally:
            # Also when the event loop ends and cancels this task from outside.
            self._opened.set()
            self._ended.set()


def _lone(error: Exception) -> Exception:
    """An error that is alone in its groups, by itself, so that callers can name it."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _spawn(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    # Only a program that runs on trio has imported it.
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        trio.lowlevel.spawn_system_task(function, name="dxos client")
        return
    task = asyncio.create_task(function(), name="dxos client")
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
