"""What a leader has open, from its lock to its end: its two machines, its socket, and the links to all others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any, final

from dxos.errors import DxosError
from dxos.limits import HAND_OVER_START_S, WORKER_CLOSE_S
from dxos.version import __version__
from dxos.worker.coordinator import Coordinator
from dxos.worker.leadership import Leadership
from dxos.worker.links import Link
from dxos.worker.places import Places, accept, check_peer, listen
from dxos.worker.settings import Settings

_log = logging.getLogger("dxos.worker")


@final
class Leading:
    """One leadership.

    Args:
        leadership_id: Of the lock.
        places: Of the profile.
        settings: For a worker that is started.
        client_id: Of the client that leads.
        accepted: Called with each connection of a process of this user.
        crowded: Called if one cannot be let in.
    """

    def __init__(
        self,
        leadership_id: int,
        places: Places,
        settings: Settings,
        client_id: str,
        accepted: Callable[[Leading, socket.socket], None],
        crowded: Callable[[DxosError], None],
    ) -> None:
        self.leadership = Leadership(leadership_id, client_id=client_id, config=settings.to_json())
        self.coordinator = Coordinator(leadership_id, pid=os.getpid(), version=__version__)
        self.worker: Link | None = None
        self.zygote: Link | None = None
        self.has_zygote_answered = self.is_handing_over = False
        self.links: dict[int, Link] = {}  # Of clients, by number.
        self._places, self._accepted, self._crowded = places, accepted, crowded
        self._loop = asyncio.get_running_loop()
        self._links_count = 0
        self._open_listener()

    def next_link(self) -> int:
        """The number of a new link, never used before."""
        self._links_count += 1
        return self._links_count

    def all_links(self) -> list[Link | None]:
        """Every link."""
        return [self.worker, self.zygote, *self.links.values()]

    def abandon(self) -> None:
        """In the child of a fork."""
        self._listener.close()

    def listen_again(self) -> None:
        """If somebody has removed the coordinator's socket, nobody could find this leader any more."""
        try:
            found = self._places.coordinator.lstat()
        except FileNotFoundError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            lost = self._listener
            self._open_listener()
            self._loop.remove_reader(lost)
            lost.close()

    def drop_worker(self, start: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Say no more to the worker; whoever ends waits until the worker does, if it does."""
        link, self.worker = self.worker, None
        if link is not None:
            ended = link.finish()
            start(_wait(ended, link))

    def close(self) -> None:
        """Close everything but the worker's link, which was dropped."""
        self._close_listener()
        with contextlib.suppress(OSError):
            found = self._places.coordinator.lstat()
            if (found.st_dev, found.st_ino) == self._identity:
                self._places.coordinator.unlink()
        self.dismiss_zygote()
        for link in self.links.values():
            link.close_soon()
        self._places.tidy()

    def keep_members(self, start: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Close the links of clients a moment later than everything else.

        They try the lock when their link ends, and the newer process to which this one hands over is to be first.
        """
        start(_close_later([self.links.pop(one) for one in self.coordinator.members]))

    def dismiss_zygote(self) -> None:
        """This leader needs none any more."""
        if self.zygote is not None:
            self.zygote.send(b'{"bye": true}')
            self.zygote.close_soon()

    def _open_listener(self) -> None:
        self._listener = listen(self._places.coordinator)
        self._listener.setblocking(False)
        found = self._places.coordinator.lstat()
        self._identity = (found.st_dev, found.st_ino)
        self._loop.add_reader(self._listener, self._accept)

    def _close_listener(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = accept(self._listener)
            except DxosError as error:
                self._crowded(error)
                return
            if connection is None:
                return
            try:
                check_peer(connection)
            except DxosError as error:
                _log.warning("%s", error)
                connection.close()
                continue
            self._accepted(self, connection)


async def _close_later(links: list[Link]) -> None:
    try:
        await asyncio.sleep(HAND_OVER_START_S)
    finally:
        for link in links:
            link.close_soon()


async def _wait(ended: asyncio.Event, link: Link) -> None:
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WORKER_CLOSE_S):
                await ended.wait()
    finally:
        link.close()
