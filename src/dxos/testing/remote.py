"""Hosts behind streams in memory, which can be cut: what a client of a worker sees, in one process.

async with Client(services=ServedServices(simulation.services())) as client: …

async with Hosts(simulation, path) as hosts, Client(services=RemoteServices(hosts.connect)) as client:
    await hosts.kill()
    await hosts.start()
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, final

import anyio
from anyio.abc import ByteStream, TaskGroup, TaskStatus

from dxos.aio import Changes
from dxos.errors import FencedError
from dxos.mesh.memory import MemoryStream, memory_links
from dxos.services.contract import Services, ServicesProvider
from dxos.services.remote import RemoteServices
from dxos.services.server import serve
from dxos.testing.peers import Simulation


@final
class OpenServices:
    """A provider of services that are open already, for several clients of one host."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __aenter__(self) -> Services:
        return self._services

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return None

    def __repr__(self) -> str:
        return f"<OpenServices {self._services!r}>"


@final
class ServedServices:
    """A provider of the services of another one, by way of a session.

    Args:
        inner: The host; opened and closed with this.
        client_id: Of the client.
        cuts: After so many pieces of bytes, from either side, each session is cut; what is beyond the list lasts.
    """

    def __init__(self, inner: ServicesProvider, *, client_id: str = "client", cuts: tuple[int, ...] = ()) -> None:
        self._inner, self._client_id, self._cuts = inner, client_id, list(cuts)
        self._stack: AsyncExitStack | None = None
        self._services: Services | None = None
        self._tasks: TaskGroup | None = None
        self._stream: _CutStream | None = None
        self.sessions_count = 0

    async def __aenter__(self) -> Services:
        async with AsyncExitStack() as stack:
            self._services = await stack.enter_async_context(self._inner)
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(self._tasks.cancel_scope.cancel)
            services = await stack.enter_async_context(RemoteServices(self._connect))
            self._stack = stack.pop_all()
        return services

    async def _connect(self) -> ByteStream:
        assert self._tasks is not None
        assert self._services is not None
        await anyio.sleep(0.01 if self.sessions_count else 0.0)  # As a new host takes a moment.
        ours, theirs = memory_links()
        self.sessions_count += 1
        self._stream = _CutStream(ours, self._cuts.pop(0) if self._cuts else None)
        self._tasks.start_soon(self._serve, self._services, theirs)
        return self._stream

    async def _serve(self, services: Services, stream: ByteStream) -> None:
        await serve(services, stream, client_id=self._client_id)

    def cut(self) -> None:
        """End the present session without a goodbye."""
        assert self._stream is not None
        self._stream.cut()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        stack, self._stack = self._stack, None
        assert stack is not None, "closed once for each time it was opened"
        return await stack.__aexit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<ServedServices {self._inner!r} sessions={self.sessions_count}>"


@final
class _CutStream(ByteStream):
    """A client's end, cut after some pieces were sent or received."""

    def __init__(self, inner: MemoryStream, pieces: int | None) -> None:
        self._inner, self._left = inner, pieces

    async def send(self, item: bytes) -> None:
        self._count()
        await self._inner.send(item)

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        found = await self._inner.receive(max_bytes)
        self._count()
        return found

    def _count(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self._left = None
                self.cut()
                raise anyio.BrokenResourceError

    def cut(self) -> None:
        """End it here and there."""
        self._inner.reset()

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def aclose(self) -> None:
        await self._inner.aclose()


@final
class Hosts:
    """Hosts of one profile, one after the other; a client goes from each to the next. The first one is there at once.

    Args:
        simulation: Whose network they use.
        path: Of the profile.
        client_id: Of the client.
    """

    def __init__(self, simulation: Simulation, path: Path, *, client_id: str = "client") -> None:
        self._simulation, self._path, self._client_id = simulation, path, client_id
        self._services: Services | None = None
        self._changed = Changes()
        self._stack = AsyncExitStack()
        self.leadership_id = 0  # Of the present host.

    @property
    def services(self) -> Services:
        """Of the present host."""
        assert self._services is not None
        return self._services

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(self._tasks.cancel_scope.cancel)
            await self.start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    async def start(self) -> None:
        """Start the next one, with a higher leadership."""
        self.leadership_id += 1
        await self._tasks.start(self._run)
        self._changed.notify()

    async def kill(self) -> None:
        """End it, and every session, in the middle of what they do."""
        self._services = None
        self._scope.cancel()
        await self.wait_end()

    async def wait_end(self) -> None:
        """Wait until it ends by itself."""
        await self._ended.wait()

    async def _run(self, *, task_status: TaskStatus[None]) -> None:
        self._ended = anyio.Event()
        try:
            with anyio.CancelScope() as self._scope:
                provider = self._simulation.services(self._path, leadership_id=self.leadership_id)
                async with provider as self._services, anyio.create_task_group() as self._sessions:
                    task_status.started()
                    await anyio.sleep_forever()
        finally:
            self._services = None
            self._ended.set()

    async def connect(self) -> ByteStream:
        """A session with the present host, or the next one if there is none."""
        while self._services is None:
            await self._changed.wait()
        ours, theirs = memory_links()
        self._sessions.start_soon(self._serve, self._services, theirs)
        return ours

    async def _serve(self, services: Services, stream: ByteStream) -> None:
        try:
            await serve(services, stream, client_id=self._client_id)
        except FencedError:
            self._services = None  # The worker ends.
            self._scope.cancel()

    def __repr__(self) -> str:
        return f"<Hosts {self._path} leadership={self.leadership_id}>"
