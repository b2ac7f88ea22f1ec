"""The worker: the process that owns a profile's storage, keys, network and documents, and serves all its clients.

    leaders ⇄ links ─▶ Sessions (machine) ─▶ host: LocalServices         opened once, closed at the end
                                          ─▶ sessions: serve(…) on a port each

Invariants:
1. Whoever left last can see when the storage is let go of: its link or its port is closed after that, and not before.
2. The worker holds the mark of its life until everything else is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Final, final

import anyio
from anyio.abc import UNIXSocketStream
from msgspec import Struct
from msgspec.structs import replace

from dxos.aio import unwrap_group
from dxos.errors import DxosError, FencedError, ProfileLockedError
from dxos.limits import LEADER_BEAT_S, WORKER_GRACE_S
from dxos.services.contract import Services
from dxos.services.local import LocalServices
from dxos.services.methods import all_methods
from dxos.services.server import serve
from dxos.store.files import map_os_error
from dxos.version import __version__
from dxos.worker import messages, sessions
from dxos.worker.leaders import Leaders
from dxos.worker.links import are_descriptors_handed_over
from dxos.worker.lockfile import AliveMark, alive_pid, kill_alive, sweep
from dxos.worker.logs import logging_to
from dxos.worker.loopback import Door, Ticket
from dxos.worker.messages import Failure
from dxos.worker.places import Places, accept, check_peer, listen, remove_unheard
from dxos.worker.ports import stream_of
from dxos.worker.sessions import Sessions
from dxos.worker.settings import Settings

_log = logging.getLogger("dxos.worker")
_LOCK_LOOK_S: Final = 0.01
_DYING_S: Final = 0.5  # For the system to close the files of a process that was killed, on a machine that is busy.
_CROWDED_S: Final = 0.1  # How long somebody waits for whom no descriptor is left, until that is tried again.


def warm_up() -> None:
    """Have ready what every worker needs, before the first is forked: nothing with threads or random numbers."""

    async def serve_nobody() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.close()
        async with await UNIXSocketStream.from_socket(ours), anyio.create_task_group():
            pass

    all_methods()
    asyncio.run(serve_nobody())
    assert threading.active_count() == 1, "what has threads cannot be forked"


def run_worker(places: Places, worker_id: str, mark: AliveMark, connection: socket.socket) -> int:
    """Be a worker until nobody needs it; the exit status, which is 0 if it ended in order."""
    with logging_to(places.log):
        try:
            asyncio.run(_Worker(places, worker_id, connection).run())
        except Exception:  # noqa: BLE001 - The top of a process.
            _log.exception("The worker failed")
            return 1
        finally:
            mark.remove()
        return 0


class _Session(Struct):
    task: asyncio.Task[None]
    port: int = -1  # The client's end, until it is handed over; then -1.
    ticket: Ticket | None = None  # In place of it, likewise.


@final
class _Worker:
    def __init__(self, places: Places, worker_id: str, connection: socket.socket) -> None:
        self._places, self._first = places, connection
        key = places.alive(worker_id).name
        self._machine = Sessions(worker_id, pid=os.getpid(), version=__version__, liveness_key=key)
        self._links: set[int] = set()
        self._lingering: list[socket.socket] = []  # Closed when the storage is let go of.
        self._sessions: dict[tuple[str, int], _Session] = {}
        self._listener: socket.socket | None = None
        self._inode = 0
        self._provider: LocalServices | None = None
        self._services: Services | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_acting = False
        self._ending, self._host_closing = asyncio.Event(), asyncio.Event()
        self._host_task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    async def run(self) -> None:
        """Until nobody needs this worker.

        Raises:
            Exception: What the host failed with.
        """
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._broken)
        self._leaders = Leaders(self._received, self._link_ended, self._broken)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._asked_to_end)
        self._door = None if are_descriptors_handed_over() else Door()
        try:
            with self._happening():
                self._link(self._first)
            await self._ending.wait()
            # Sessions first, then the host, then locks.
            await asyncio.sleep(0)
            sessions = [one.task for one in self._sessions.values()]
            for task in sessions:
                task.cancel()
            await asyncio.gather(*sessions, return_exceptions=True)
            self._host_closing.set()
            if self._host_task is not None:
                await self._host_task
            self._machine.ended()
        finally:
            if self._door is not None:
                self._door.close()
            self._tidy()
            self._leaders.stop()
        if self._failure is not None:
            raise self._failure

    def _open_listener(self) -> None:
        """Be there for the next leader; not before the first one wants a worker, or it might find one that ends."""
        self._listener = listen(self._places.worker)
        self._listener.setblocking(False)
        self._inode = self._places.worker.lstat().st_ino
        self._listen()

    def _tidy(self) -> None:
        """Remove what nobody needs any more; what a newer one has put in its place stays."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            if self._can_be_found():
                with contextlib.suppress(OSError):
                    self._places.worker.unlink()
        with contextlib.suppress(DxosError):
            sweep(self._places.host)
        # A leader that was killed could not; one that has its link still has nothing to prove.
        remove_unheard(self._places.coordinator, wait_s=0.0 if self._links else _DYING_S)
        self._places.tidy()

    # --- The machine --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _happening(self) -> Iterator[None]:
        """Tell the machine in the block, then do what it decided; nested, the outermost does it."""
        if self._is_acting:
            yield
            return
        self._is_acting = True
        try:
            yield
            while self._machine.actions:
                self._act(self._machine.actions.popleft())
        finally:
            self._is_acting = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._machine.next_timer()
        if at is not None:
            self._timer = self._loop.call_later(max(0.0, at - self._now()), self._wake)

    def _wake(self) -> None:
        with self._happening():
            self._machine.handle_timer(self._now())

    def _act(self, action: sessions.Action) -> None:
        match action:
            case sessions.Send(number, message):
                self._send(number, message)
            case sessions.CloseLink(number):
                if number in self._links:
                    self._links.remove(number)
                    self._leaders.close_soon(number)
            case sessions.StartHost(init):
                settings = Settings.from_json(init.config)
                self._provider = LocalServices(
                    self._places.profile,
                    settings.signal_servers,
                    backup_passphrase=settings.backup_passphrase,
                    leadership_id=init.leadership_id,
                )
                self._host_task = self._loop.create_task(self._host(self._provider))
            case sessions.Promote(leadership_id):
                self._promote(leadership_id)
            case sessions.OpenSession(client_id, attempt):
                self._open_session(client_id, attempt)
            case sessions.CloseSession(client_id, attempt):
                session = self._sessions.get((client_id, attempt))
                if session is not None:
                    self._loop.call_soon(session.task.cancel)  # When it has begun, or it would not clean up.
            case sessions.End(reason):
                _log.info("The worker ends: %s", reason)
                self._ending.set()

    def _send(self, number: int, message: messages.Message) -> None:
        descriptor: int | None = None
        if isinstance(message, messages.Session):
            session = self._sessions.get((message.client_id, message.attempt))
            if session is None:
                return
            if session.ticket is not None:
                port, token, answer = session.ticket.port, session.ticket.token.hex(), session.ticket.answer.hex()
                message, session.ticket = replace(message, port=port, token=token, answer=answer), None
            elif session.port >= 0:
                descriptor, session.port = session.port, -1
            else:
                return
        self._leaders.send(number, message, descriptor)

    def _broken(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A bug in a callback: what a worker half knows is worth less than a new worker."""
        loop.default_exception_handler(context)
        error = context.get("exception")
        if isinstance(error, Exception):
            self._failure = error
            self._ending.set()

    def _asked_to_end(self) -> None:
        with self._happening():
            self._machine.terminate("The system asked for it.")

    @staticmethod
    def _now() -> float:
        return time.monotonic()

    # --- Leaders ------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        if self._listener is not None and self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                connection = accept(self._listener)
            except DxosError as error:
                _log.warning("%s", error)
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_CROWDED_S, self._listen)
                return
            if connection is None:
                return
            try:
                check_peer(connection)
            except DxosError as error:
                _log.warning("%s", error)
                connection.close()
                continue
            with self._happening():
                self._link(connection)

    def _link(self, connection: socket.socket) -> None:
        number = self._leaders.add(connection)
        self._links.add(number)
        self._machine.linked(number)

    def _received(self, number: int, message: messages.Message) -> None:
        with self._happening():
            try:
                self._machine.receive(number, message, self._now())
            except DxosError as error:
                self._link_ended(number, error)

    def _link_ended(self, number: int, error: DxosError) -> None:
        with self._happening():
            if number not in self._links:
                return
            self._links.remove(number)
            self._machine.link_ended(number, self._now())
            if self._machine.state is sessions.State.ORPHANED and not self._can_be_found():
                self._machine.terminate("No leader can find it, as its socket was removed.")
        if not self._ending.is_set():  # Or it says by its end that the storage is let go of.
            self._leaders.release(number)

    def _can_be_found(self) -> bool:
        try:
            return self._places.worker.lstat().st_ino == self._inode
        except OSError:
            return False

    def _release(self, one: socket.socket) -> None:
        """Close it now, or if its end is the reason why this worker ends, when the storage is let go of."""
        if self._ending.is_set():
            self._lingering.append(one)
        else:
            one.close()

    # --- The host -----------------------------------------------------------------------------------------------------

    async def _host(self, provider: LocalServices) -> None:
        opened = False
        try:
            self._open_listener()
            with unwrap_group():
                async with contextlib.AsyncExitStack() as stack:
                    self._services = await self._open(stack, provider)
                    opened = True
                    _log.info("The worker serves the profile for leader %s.", self._machine.leadership_id)
                    with self._happening():
                        self._machine.initialised(self._now())
                    await self._host_closing.wait()
        except Exception as error:  # noqa: BLE001 - The top of the host: its leader hears of it.
            self._fail(error, opened)

    async def _open(self, stack: contextlib.AsyncExitStack, provider: LocalServices) -> Services:
        """Open the host, as soon as a worker before this one has let go of the storage."""
        begin = self._now()
        until = begin + WORKER_GRACE_S
        while True:
            try:
                return await stack.enter_async_context(provider)
            except ProfileLockedError as error:
                holder = error.detail.get("pid", 0)
                marks = [one for one in self._places.host.glob("alive.*") if holder and alive_pid(one) == holder]
                # A worker whose folder was removed has no mark any more, and ends as soon as its leader has looked.
                is_refused = not marks and self._now() - begin > 2 * LEADER_BEAT_S
                if is_refused or self._host_closing.is_set():
                    raise
                if marks and self._now() > until:
                    _log.warning("Worker %s was replaced, but keeps the storage; it is killed.", holder)
                    kill_alive(marks[0], signal.SIGKILL)
                    until = self._now() + WORKER_GRACE_S
            await asyncio.sleep(_LOCK_LOOK_S)

    def _fail(self, error: Exception, opened: bool) -> None:
        known = error if isinstance(error, DxosError) else DxosError(f"The host failed: {error!r:.200}")
        _log.error("The host %s: %s", "failed" if opened else "cannot be opened", error, exc_info=known is not error)
        with self._happening():
            if not opened:
                self._machine.init_failed(Failure.of(known))
            elif known.code == "storage.fenced":
                self._machine.fenced()
            else:
                self._failure = error
                self._machine.terminate("Its host failed.")

    def _promote(self, leadership_id: int) -> None:
        assert self._provider is not None, "there is a host, or there will be one"
        try:
            self._provider.lead(leadership_id)
        except DxosError as error:
            self._fail(error, opened=True)
        else:
            _log.info("The worker serves the profile for leader %s.", leadership_id)

    # --- Sessions -----------------------------------------------------------------------------------------------------

    def _open_session(self, client_id: str, attempt: int) -> None:
        if self._door is not None:
            ticket = self._door.offer()
            task = self._loop.create_task(self._admit(client_id, attempt, ticket, self._door))
            session = _Session(task, ticket=ticket)
        else:
            try:
                ours, theirs, kept = _make_port()
            except DxosError as error:
                _log.warning("%s", error)
                self._machine.session_failed(client_id, attempt, Failure.of(error))
                return
            task = self._loop.create_task(self._serve(client_id, attempt, ours, kept))
            session = _Session(task, port=theirs.detach())
        self._sessions[client_id, attempt] = session
        self._machine.session_opened(client_id, attempt)

    async def _admit(self, client_id: str, attempt: int, ticket: Ticket, door: Door) -> None:
        """Wait for the client, then serve it."""
        connection = kept = None
        try:
            connection = await door.wait(ticket)
            kept = None if connection is None else connection.dup()
        except OSError as error:
            _log.warning("%s", map_os_error(error, "serve another process"))
        finally:
            if kept is None:
                if connection is not None:
                    connection.close()
                del self._sessions[client_id, attempt]
                with self._happening():
                    self._machine.session_ended(client_id, attempt)
        if connection is not None and kept is not None:
            await self._serve(client_id, attempt, connection, kept)

    async def _serve(self, client_id: str, attempt: int, connection: socket.socket, kept: socket.socket) -> None:
        """Serve a client; the end of `kept`, the same connection, says more than that this session is over."""
        assert self._services is not None, "sessions are opened while the host is open"
        connection.setblocking(False)
        try:
            await serve(self._services, await stream_of(connection), client_id=client_id)
        except FencedError:
            with self._happening():
                self._machine.fenced()
        finally:
            connection.close()
            session = self._sessions.pop((client_id, attempt))
            if session.port >= 0:
                os.close(session.port)
            with self._happening():
                self._machine.session_ended(client_id, attempt)
                if self._is_reset_wanted():
                    self._machine.terminate("A client asked to delete the profile.")
            self._release(kept)

    def _is_reset_wanted(self) -> bool:
        return self._services is not None and bool(getattr(self._services.system, "reset_wanted", False))


def _make_port() -> tuple[socket.socket, socket.socket, socket.socket]:
    """Our end of a session, the client's, and ours once more."""
    try:
        ours, theirs = socket.socketpair()
        try:
            return ours, theirs, ours.dup()
        except OSError:
            ours.close()
            theirs.close()
            raise
    except OSError as error:
        raise map_os_error(error, "serve another process") from error
