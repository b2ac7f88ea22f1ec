"""The worker's links to leaders, on a thread of their own: a host that is busy still says that it is there.

    leader ⇄ Link ─ thread ─┬─ message ─────────────▶ the worker's event loop
                            └─ ping, while it is busy: answered here, for WORKER_BUSY_S_MAX

A long turn of the host is no reason to kill it; a host that never comes back from one is, and so is a stopped process,
whose threads all stand still.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, final

from dxos.errors import DxosError
from dxos.limits import WORKER_BUSY_S_MAX, WORKER_CLOSE_S, WORKER_PING_S
from dxos.worker import messages
from dxos.worker.links import Link
from dxos.worker.messages import Message, Ping, Pong


@final
class Leaders:
    """All links of one worker; its methods and what it calls belong to the event loop on which it was made.

    Args:
        received: Called with each message and the number of its link.
        ended: Called once for a link that broke, or said what makes no sense; `release` closes it.
        broken: Called if a callback in the thread fails, as by an event loop.
        busy_s_max: How long the event loop may be busy before pings go unanswered.
    """

    def __init__(
        self,
        received: Callable[[int, Message], None],
        ended: Callable[[int, DxosError], None],
        broken: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None],
        *,
        busy_s_max: float = WORKER_BUSY_S_MAX,
    ) -> None:
        self._received, self._ended, self._busy_s_max = received, ended, busy_s_max
        self._host = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: self._tell(broken, loop, context))
        self._links: dict[int, Link] = {}  # Of the thread.
        self._count = 0
        self._seen_at = time.monotonic()  # When the host's event loop last ran; written by it, read by the thread.
        self._watching = self._host.call_soon(self._watch)
        self._thread = threading.Thread(target=self._loop.run_forever, name="dxos leaders", daemon=True)
        self._thread.start()

    def add(self, connection: socket.socket) -> int:
        """Speak with who is connected; the number of the link."""
        self._count += 1
        self._loop.call_soon_threadsafe(self._open, self._count, connection)
        return self._count

    def send(self, number: int, message: Message, descriptor: int | None = None) -> None:
        """Send a message; its descriptor is closed afterwards. Without effect if the link is gone."""
        self._loop.call_soon_threadsafe(self._send, number, message, descriptor)

    def close_soon(self, number: int) -> None:
        """Close a link when what it was told is on its way."""
        self._loop.call_soon_threadsafe(self._drop, number, Link.close_soon)

    def release(self, number: int) -> None:
        """Close a link that has ended."""
        self._loop.call_soon_threadsafe(self._drop, number, Link.close)

    def stop(self) -> None:
        """Say nothing more. Links that were not closed stay open until the process ends."""
        self._watching.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WORKER_CLOSE_S)
        if not self._thread.is_alive():
            self._loop.close()

    def __repr__(self) -> str:
        return f"<Leaders links={len(self._links)}>"

    def _watch(self) -> None:
        self._seen_at = time.monotonic()
        self._watching = self._host.call_later(WORKER_PING_S / 2, self._watch)

    # --- In the thread ------------------------------------------------------------------------------------------------

    def _open(self, number: int, connection: socket.socket) -> None:
        def received(untrusted: bytes, descriptor: int | None) -> None:
            if descriptor is not None:
                os.close(descriptor)
            try:
                message = messages.decode(untrusted)
            except DxosError as error:
                self._tell(self._ended, number, error)
                return
            if isinstance(message, Ping) and self._is_busy():
                link.send(messages.encode(Pong(message.nonce)))
            else:
                self._tell(self._received, number, message)

        link = self._links[number] = Link(connection, received, lambda error: self._tell(self._ended, number, error))

    def _is_busy(self) -> bool:
        return WORKER_PING_S < time.monotonic() - self._seen_at < self._busy_s_max

    def _send(self, number: int, message: Message, descriptor: int | None) -> None:
        try:
            link = self._links.get(number)
            if link is not None:
                link.send(messages.encode(message), descriptor)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _drop(self, number: int, close: Callable[[Link], None]) -> None:
        link = self._links.pop(number, None)
        if link is not None:
            close(link)

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # The host's loop is closed: the process ends.
            self._host.call_soon_threadsafe(callback, *args)
