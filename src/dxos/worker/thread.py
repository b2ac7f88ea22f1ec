"""The thread in each client's process that finds a session, stands for leadership, and leads when it is its turn.

    machines      Following ── always           Election ── always        Coordinator, Leadership ── while it leads
    what they do  link to the coordinator       lock files                listener, links; zygote, worker

This driver holds no rules: it tells the machines what happened, does what they decided, and looks at the clock. All
of it runs on one asyncio loop in a daemon thread, so a process that ends without closing lets go of everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from msgspec import Struct

from dxos.errors import BrokenError, ClosedError, DxosError, StorageAccessError
from dxos.limits import (
    CLIENT_ID_CHARS_MAX,
    LEADER_BEAT_S,
    WORKER_CLOSE_S,
    WORKER_KILL_S_MAX,
    WORKER_START_S_MAX,
    ZYGOTE_ANSWER_S,
)
from dxos.store.files import map_os_error
from dxos.version import __version__
from dxos.worker import election, following, messages
from dxos.worker.election import Election
from dxos.worker.following import Following
from dxos.worker.links import Link, are_descriptors_handed_over, frame
from dxos.worker.lockfile import LeaderLock, is_locked, kill_alive, marks_in, read_leader, sweep
from dxos.worker.messages import Failure, Message
from dxos.worker.places import Places, connect
from dxos.worker.settings import Settings
from dxos.worker.zygote import spawn_zygote

# What only a leader needs is imported where it leads: most processes that share a profile follow.
if TYPE_CHECKING:
    from dxos.worker import coordinator, leadership
    from dxos.worker.leading import Leading

_log = logging.getLogger("dxos.worker")
_KILL_LOOK_S: Final = 0.005
Trace = Callable[[str, str, Message], None]


# --- What the application's event loop is told ------------------------------------------------------------------------


@final
class Port(Struct, frozen=True):
    """A session; its descriptor belongs to whoever gets this."""

    descriptor: int
    attempt: int
    leadership_id: int
    worker_id: str


@final
class Ended(Struct, frozen=True):
    """The thread has ended; the last event."""

    error: Exception | None  # A bug, or what the operating system refused.


Event = Port | DxosError | Ended


@final
class LeaderThread:
    """The thread of one open client.

    Args:
        places: Of the profile.
        settings: With which a worker is started, if it is up to this process.
        client_id: Names this client, and no other one ever.
        hand: Called in the thread with each event.
        trace: Called in the thread with each message that this process sends or receives: who, to whom, what.
    """

    def __init__(
        self,
        places: Places,
        settings: Settings,
        client_id: str,
        hand: Callable[[Event], None],
        trace: Trace | None = None,
    ) -> None:
        self._driver = _Driver(places, settings, client_id, hand, trace)
        self._hand = hand
        self._thread = threading.Thread(target=self._run, name="dxos leader", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._wanted: list[Callable[[], None]] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def port_ended(self, attempt: int) -> None:
        """The session of that port is over, and another one is wanted; from any thread."""
        self._call(lambda: self._driver.port_ended(attempt))

    def stop(self) -> None:
        """Leave, in order; `Ended` follows; from any thread."""
        if self._thread.ident is None:
            self._hand(Ended(None))
        self._call(self._driver.stop)

    def diagnostics(self) -> dict[str, Any]:
        """What this process does for the profile at the moment."""
        return self._driver.diagnostics()

    def abandon(self) -> None:
        """In the child of a fork: close what is the parent's."""
        self._driver.abandon()

    def __repr__(self) -> str:
        return f"<LeaderThread {self._driver!r}>"

    def _call(self, function: Callable[[], None]) -> None:
        with self._lock:
            if self._loop is None:
                self._wanted.append(function)
                return
            with contextlib.suppress(RuntimeError):  # It has ended.
                self._loop.call_soon_threadsafe(function)

    def _run(self) -> None:
        error: Exception | None = None
        try:
            asyncio.run(self._main())
        except OSError as raised:
            error = map_os_error(raised, "share the profile") if raised.errno else raised
        except Exception as raised:  # noqa: BLE001 - The top of a thread: the application hears of it.
            error = raised
        finally:
            self._hand(Ended(error))

    async def _main(self) -> None:
        self._driver.start()
        with self._lock:
            self._loop = asyncio.get_running_loop()
            for function in self._wanted:
                self._loop.call_soon(function)
        await self._driver.run()


@final
class _Driver:
    def __init__(
        self, places: Places, settings: Settings, client_id: str, hand: Callable[[Event], None], trace: Trace | None
    ) -> None:
        self._places, self._settings, self._client_id = places, settings, client_id
        self._hand, self._trace = hand, trace or (lambda sender, receiver, message: None)
        self._lock = LeaderLock(places.host, __version__)
        self._election = Election()
        self._following = Following(
            client_id, pid=os.getpid(), version=__version__, program=_program(), since_ms=int(time.time() * 1_000)
        )
        self._to_coordinator: Link | None = None
        self._leading: Leading | None = None
        self._ports: dict[tuple[str, int], int] = {}  # Descriptors on their way, by client and attempt.
        self._tasks: set[asyncio.Task[None]] = set()
        self._above = 0  # The highest leadership id that the storage has seen.
        self._timer: asyncio.TimerHandle | None = None
        self._tick_at = 0.0
        self._is_acting = False
        self._stopping = False
        self._error: Exception | None = None

    def __repr__(self) -> str:
        return f"{self._election!r} {self._following!r}"

    # --- Inputs -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        with self._happening():
            self._following.start(self._now())
            self._act()  # The diagram's order: the coordinator is looked for before the lock.
            self._election.start(self._now())

    async def run(self) -> None:
        """Until `stop`, and until what was begun is over."""
        await self._done.wait()
        if self._error is not None:
            self.abandon()  # Others are to notice now, and not when this process ends.
        elif self._tasks:
            await asyncio.wait(self._tasks, timeout=WORKER_CLOSE_S)
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        if self._stopping or self._error is not None:
            return
        with self._happening():
            self._stopping = True
            self._following.close()
            self._act()
            self._election.close()
            self._act()
        if self._leading is None:
            self._done.set()

    def port_ended(self, attempt: int) -> None:
        with self._happening():
            self._election.disconnected()
            self._following.port_ended(attempt, self._now())

    def abandon(self) -> None:
        """Close everything and tell nobody."""
        self._lock.release()
        for link in (self._to_coordinator, *(self._leading.all_links() if self._leading else ())):
            if link is not None:
                link.abandon()
        if self._leading is not None:
            self._leading.abandon()
        for descriptor in self._ports.values():
            os.close(descriptor)
        self._ports.clear()

    def diagnostics(self) -> dict[str, Any]:
        now = self._now()
        found: dict[str, Any] = {
            **self._election.diagnostics(now),
            **self._following.diagnostics(),
            "client_id": self._client_id,
            "leadership_id": self._election.leadership_id or self._following.leadership_id,
        }
        leading = self._leading
        if leading is not None:
            found["worker_state"] = leading.leadership.state.value
            found["worker_pid"] = leading.leadership.worker.pid if leading.leadership.worker else 0
            found["clients"] = leading.coordinator.clients
        return found

    @contextlib.contextmanager
    def _happening(self) -> Any:
        """Tell the machines in the block, then do what they decided; nested, the outermost does it."""
        if self._is_acting or self._error is not None:
            yield
            return
        self._is_acting = True
        try:
            yield
            self._act()
            self._schedule()
        except Exception as error:  # noqa: BLE001 - The top of every callback: the thread ends with it.
            self._error = error
            self._done.set()
        finally:
            self._is_acting = False

    @staticmethod
    def _now() -> float:
        return time.monotonic()

    # --- Time -------------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        times = [self._tick_at, self._election.next_timer(), self._following.next_timer()]
        if self._leading is not None:
            times += [self._leading.leadership.next_timer(), self._leading.coordinator.next_timer()]
        wait_s = min(one for one in times if one is not None) - self._now()
        self._timer = self._loop.call_later(max(0.0, wait_s), self._wake)

    def _wake(self) -> None:
        with self._happening():
            now = self._now()
            if now >= self._tick_at:
                self._tick_at = now + LEADER_BEAT_S
                self._tick(now)
                self._act()
            self._election.handle_timer(self._now())
            self._following.handle_timer(self._now())
            if self._leading is not None:
                self._leading.leadership.handle_timer(self._now())
            if self._leading is not None:
                self._leading.coordinator.handle_timer(self._now())

    def _tick(self, now: float) -> None:
        try:
            newest = self._lock.newest()
        except DxosError:
            if self._lock.held:  # A leader needs no descriptor to see whether it is one, and goes on.
                self._election.tick(now, self._lock.held, 0)
            return  # Everybody else judges nobody by what was not seen.
        newest_id, beat = (newest.id, newest.beat_ns) if newest else (0, 0)
        self._election.tick(now, newest_id, beat)
        self._following.observe(newest_id, now)

    # --- Decisions ----------------------------------------------------------------------------------------------------

    def _act(self) -> None:
        """Do what the machines decided, and what they decide because of that."""
        while True:
            leading = self._leading
            if self._election.actions:
                self._elect(self._election.actions.popleft())
            elif leading is not None and leading.leadership.actions:
                self._observe()
                if not self._election.actions:
                    self._lead(leading, leading.leadership.actions.popleft())
            elif leading is not None and leading.coordinator.actions:
                self._relay(leading, leading.coordinator.actions.popleft())
            elif self._following.actions:
                self._follow(self._following.actions.popleft())
            else:
                return

    def _observe(self) -> None:
        """See whether this process leads still, before it acts as if it did."""
        if self._lock.held and not self._stopping and self._lock.is_superseded():
            self._election.deposed(self._now())

    def _cannot_lead(self, error: DxosError) -> None:
        """What leading takes is lacking here, such as descriptors: let another process try."""
        self._election.leadership_failed(Failure.of(error), self._now(), random.random())  # noqa: S311 - No secret.

    def _elect(self, action: election.Action) -> None:
        match action:
            case election.TryLock() | election.StealLock() if self._leading is not None:
                # By this process, which has handed over and waits for its worker's end.
                self._election.lock_busy(self._now())
            case election.TryLock():
                self._lock_by(self._lock.try_lock)
            case election.StealLock(frozen):
                pid = read_leader(self._places.host).get("pid", "unknown")
                _log.warning("Process %s leads this profile and is frozen; this one takes over.", pid)
                self._lock_by(lambda: self._lock.steal(frozen))
            case election.Lead(leadership_id):
                self._begin_to_lead(leadership_id)
            case election.Beat():
                self._beat()
            case election.StepDown(_, terminate):
                if self._leading is None:
                    self._lock.release()
                else:
                    self._leading.is_handing_over = terminate
                    self._leading.leadership.close(self._now(), terminate=terminate)
            case election.ReportFailure(failure):
                _log.error("%s", failure.message)
                self._following.persistent_failure(failure)

    def _beat(self) -> None:
        try:
            if not self._lock.beat():
                self._election.deposed(self._now())
            elif self._leading is not None:
                self._leading.listen_again()
        except DxosError as error:
            self._cannot_lead(error)

    def _lock_by(self, lock: Callable[[], int | None]) -> None:
        try:
            leadership_id, above = lock(), max(self._above, self._following.leadership_id)
            if leadership_id is not None and leadership_id <= above:
                leadership_id = self._lock.renew(above)  # The files were lost.
        except DxosError as error:
            # Whoever opens is told; whoever is open goes on as it was, and tries again.
            self._following.persistent_failure(Failure.of(error))
            leadership_id = None
        if leadership_id is None:
            self._election.lock_busy(self._now())
        else:
            self._election.lock_acquired(leadership_id, self._now())

    def _begin_to_lead(self, leadership_id: int) -> None:
        try:
            from dxos.worker.leading import Leading

            self._leading = Leading(
                leadership_id, self._places, self._settings, self._client_id, self._accepted, self._crowded
            )
        except (DxosError, OSError) as error:  # What a leader needs could not even be imported.
            self._lock.release()
            self._cannot_lead(error if isinstance(error, DxosError) else map_os_error(error, "lead the profile"))
            return
        _log.info("Process %s leads with id %s.", os.getpid(), leadership_id)
        self._leading.leadership.start()
        self._following.nudge(self._now())

    def _crowded(self, error: DxosError) -> None:
        _log.warning("This process leads the others no longer: %s", error)
        with self._happening():
            self._cannot_lead(error)

    # --- Leading: the worker ------------------------------------------------------------------------------------------

    def _lead(self, leading: Leading, action: leadership.Action) -> None:
        from dxos.worker import leadership

        machine, now = leading.leadership, self._now()
        match action:
            case leadership.Adopt():
                try:
                    connection = connect(self._places.worker)
                except DxosError as error:
                    self._cannot_lead(error)
                    return
                if connection is None:
                    machine.worker_absent(now)
                else:
                    self._link_worker(leading, connection)
            case leadership.Spawn():
                self._start(self._spawn(leading))
            case leadership.Kill(worker_id):
                self._start(self._kill(leading, worker_id))
            case leadership.DropWorker():
                leading.drop_worker(self._start)
            case leadership.Renew():
                self._renew(leading)
            case leadership.ToWorker(message):
                self._trace("leader", "worker", message)
                if leading.worker is not None:
                    leading.worker.send(messages.encode(message))
            case leadership.ToClients(message):
                self._trace("leader", "coordinator", message)
                if isinstance(message, messages.NewLeader):
                    self._election.leadership_ready()
                    self._keep_zygote(leading)
                leading.coordinator.relay(message)
            case leadership.Discard(session):
                self._close_port(session.client_id, session.attempt)
            case leadership.Deposed():
                self._election.deposed(now)
            case leadership.Failed(failure):
                _log.error("The worker failed: %s", failure.message)
                self._election.leadership_failed(failure, now, random.random())  # noqa: S311 - No secret.
            case leadership.Closed():
                self._end_leading(leading)

    def _renew(self, leading: Leading) -> None:
        try:
            number = self._lock.renew(max(leading.leadership.leadership_id, self._above))
        except DxosError as error:
            self._cannot_lead(error)
            return
        if number is None:
            leading.leadership.lost()
            return
        self._election.renewed(number, self._now())
        leading.coordinator.renewed(number)
        leading.leadership.renewed(number, self._now())

    def _link_worker(self, leading: Leading, connection: socket.socket) -> None:
        def received(message: bytes, descriptor: int | None) -> None:
            with self._happening():
                self._from_worker(leading, link, message, descriptor)

        def ended(error: DxosError) -> None:
            with self._happening():
                link.close()
                if leading.worker is not link:
                    return
                leading.worker = None
                if isinstance(error, StorageAccessError):  # A session came, and no descriptor is left for it.
                    self._cannot_lead(error)
                else:
                    leading.leadership.worker_gone(self._now())

        link = Link(connection, received, ended)
        if leading.worker is not None:
            leading.worker.close()
        leading.worker = link
        leading.leadership.worker_linked(self._now())

    def _from_worker(self, leading: Leading, link: Link, untrusted: bytes, descriptor: int | None) -> None:
        from dxos.worker import leadership

        try:
            if leading.worker is not link:
                raise StorageAccessError("A worker that was dropped.")
            message = messages.decode(untrusted)
            self._trace("worker", "leader", message)
            if isinstance(message, messages.Session) and descriptor is not None:
                self._keep_port(message.client_id, message.attempt, descriptor)
                descriptor = None
            if isinstance(message, messages.InitFailed) and message.failure.code == leadership.FENCED:
                self._above = max(self._above, *(v for v in message.failure.detail.values() if isinstance(v, int)), 0)
            leading.leadership.receive(message, self._now())
        except DxosError as error:
            if leading.worker is link:
                _log.warning("The worker's link was closed: %s", error)
                link.close()
                leading.worker = None
                leading.leadership.worker_gone(self._now())
        finally:
            if descriptor is not None:
                os.close(descriptor)

    async def _spawn(self, leading: Leading) -> None:
        """Have the zygote fork a worker; the zygote that is here, the one that another leader left, or a new one."""
        for is_last in (False, True):
            worker_id = secrets.token_hex(8)  # Another one each time: the first may still come, and end at once.
            try:
                sweep(self._places.host)
                ours = await self._ask_for_worker(leading, worker_id, fresh=is_last)
            except (OSError, DxosError) as error:
                known = error if isinstance(error, DxosError) else map_os_error(error, "start the worker")
                with self._happening():
                    leading.leadership.spawn_failed(Failure.of(known))
                return
            # A new one imports the host first; one that is there forks within milliseconds, unless it is frozen.
            is_forked = is_last or not leading.has_zygote_answered or await self._marked(worker_id)
            if is_forked and leading is self._leading:
                with self._happening():
                    self._link_worker(leading, ours)
                return
            ours.close()
            if leading is not self._leading:
                return  # A worker that has no leader ends.

    async def _ask_for_worker(self, leading: Leading, worker_id: str, *, fresh: bool) -> socket.socket:
        """This leader's end of the link to a worker that the zygote forks, or will."""
        zygote = await self._reach_zygote(leading, fresh=fresh)
        if are_descriptors_handed_over():
            ours, theirs = socket.socketpair()
            with theirs:
                zygote.send(json.dumps({"fork": worker_id}).encode(), theirs.fileno())
            return ours
        until = self._now() + WORKER_START_S_MAX
        while True:
            if leading.has_zygote_answered or leading is not self._leading or self._now() > until:
                break
            await asyncio.sleep(_KILL_LOOK_S)  # It listens when it has imported the host.
        connection = connect(self._places.zygote)
        if connection is None:
            raise BrokenError("The process that starts workers has ended.")
        request = {"fork": worker_id, "for": leading.leadership.leadership_id}
        try:
            connection.send(frame(json.dumps(request).encode()))  # It fits: nothing was sent there before.
        except OSError as error:
            connection.close()
            raise BrokenError("The process that starts workers has ended.") from error
        return connection

    async def _marked(self, worker_id: str) -> bool:
        until = self._now() + ZYGOTE_ANSWER_S
        while self._now() < until:
            if self._places.alive(worker_id).exists():
                return True
            await asyncio.sleep(_KILL_LOOK_S)
        return False

    async def _reach_zygote(self, leading: Leading, *, fresh: bool) -> Link:
        if leading.zygote is not None and not fresh:
            return leading.zygote
        connection = None if fresh else connect(self._places.zygote)
        leading.has_zygote_answered = connection is not None  # Or will at once, unless it is frozen.
        if connection is None:
            connection = await _in_thread(lambda: spawn_zygote(self._places))
        if leading.zygote is not None:
            leading.zygote.close()

        def received(message: bytes, descriptor: int | None) -> None:
            leading.has_zygote_answered = True
            failed = json.loads(message).get("failed")
            if failed is not None:
                with self._happening():
                    leading.leadership.worker_cannot_start(Failure(failed["code"], failed["message"]))

        def ended(error: DxosError) -> None:
            with self._happening():
                link.close()
                from dxos.worker import leadership

                if leading.zygote is link:
                    leading.zygote = None
                    if leading.leadership.state is leadership.State.READY:
                        self._keep_zygote(leading)

        link = leading.zygote = Link(connection, received, ended)
        link.send(json.dumps({"leader": leading.leadership.leadership_id, "version": __version__}).encode())
        if leading is not self._leading:
            leading.dismiss_zygote()
            raise ClosedError("This process leads no longer.")
        return link

    def _keep_zygote(self, leading: Leading) -> None:
        """Have one ready before it is needed."""
        if leading.zygote is None and not self._stopping:
            self._start(self._prepare(leading))

    async def _prepare(self, leading: Leading) -> None:
        with contextlib.suppress(DxosError):  # It is tried again, and reported, when it is needed.
            await self._reach_zygote(leading, fresh=False)

    async def _kill(self, leading: Leading, worker_id: str) -> None:
        """Kill the worker, or if it never said which it is, every one: this leader has no other."""
        if leading.worker is not None:
            leading.worker.close()
            leading.worker = None
        try:
            marks = [self._places.alive(worker_id)] if worker_id else marks_in(self._places.host)
            for mark in marks:
                kill_alive(mark, signal.SIGKILL)
            until = self._now() + WORKER_KILL_S_MAX
            while any(is_locked(mark) for mark in marks):
                if self._now() > until:
                    return  # The machine has given it up.
                await asyncio.sleep(_KILL_LOOK_S)
        except DxosError as error:
            with self._happening():
                if leading is self._leading:
                    self._cannot_lead(error)
            return
        for mark in marks:
            mark.unlink(missing_ok=True)
        with self._happening():
            leading.leadership.worker_gone(self._now())

    def _end_leading(self, leading: Leading) -> None:
        if leading.is_handing_over:
            leading.keep_members(self._start)
        leading.coordinator.close()
        while leading.coordinator.actions:
            self._relay(leading, leading.coordinator.actions.popleft())
        leading.close()
        self._leading = None
        self._lock.release()
        if self._stopping:
            self._done.set()

    # --- Leading: the coordinator -------------------------------------------------------------------------------------

    def _accepted(self, leading: Leading, connection: socket.socket) -> None:
        with self._happening():
            number = leading.next_link()

            def received(message: bytes, descriptor: int | None) -> None:
                if descriptor is not None:
                    os.close(descriptor)
                with self._happening():
                    try:
                        leading.coordinator.receive(number, messages.decode(message), self._now())
                    except DxosError as error:
                        ended(error)

            def ended(error: DxosError) -> None:
                with self._happening():
                    leading.links.pop(number, link).close()
                    leading.coordinator.link_ended(number)

            link = leading.links[number] = Link(connection, received, ended)
            leading.coordinator.linked(number, self._now())

    def _relay(self, leading: Leading, action: coordinator.Action) -> None:
        from dxos.worker import coordinator

        match action:
            case coordinator.Send(number, messages.ProvidePort(port=0) as message):
                link = leading.links.get(number)
                descriptor = self._ports.get((message.client_id, message.attempt))
                if link is not None and descriptor is not None:
                    link.send(messages.encode(message), descriptor)
                self._close_port(message.client_id, message.attempt)
            case coordinator.Send(number, message):
                link = leading.links.get(number)
                if link is not None:
                    link.send(messages.encode(message))
            case coordinator.CloseLink(number):
                link = leading.links.pop(number, None)
                if link is not None:
                    link.close_soon()
            case coordinator.ToLeader(message):
                self._trace("coordinator", "leader", message)
                leading.leadership.request(message)
            case coordinator.ClientLeft(client_id):
                leading.leadership.client_left(client_id)
            case coordinator.AskedToHandOver(version):
                _log.info("Version %s of dxos asks to lead this profile.", version)
                self._election.hand_over(self._now())
            case coordinator.Answer(number):
                leading.coordinator.answer(number, leading.leadership.worker)
            case coordinator.Discard(port_message):
                self._close_port(port_message.client_id, port_message.attempt)

    # --- Following ----------------------------------------------------------------------------------------------------

    def _follow(self, action: following.Action) -> None:
        match action:
            case following.OpenLink():
                self._open_link()
            case following.CloseLink():
                if self._to_coordinator is not None:
                    self._to_coordinator.close_soon()
                    self._to_coordinator = None
            case following.Send(message):
                self._trace("client", "coordinator", message)
                if self._to_coordinator is not None:
                    self._to_coordinator.send(messages.encode(message))
            case following.Connected(port):
                descriptor = self._ports.pop((port.client_id, port.attempt))
                self._election.connected()
                self._hand(Port(descriptor, port.attempt, port.leadership_id, port.worker_id))
            case following.Discard(port):
                self._close_port(port.client_id, port.attempt)
            case following.ClosePort():
                pass  # The application's loop closes it; until then it may be used.
            case following.Warned(failure):
                _log.warning("This client cannot share the profile for now, and goes on trying: %s", failure.message)
            case following.Rejected(failure):
                self._hand(failure.error({**self._election.diagnostics(self._now()), **self._following.diagnostics()}))

    def _open_link(self) -> None:
        now = self._now()
        try:
            connection = connect(self._places.coordinator)
        except DxosError as error:
            self._election.coordinator_failed()
            self._following.link_failed(Failure.of(error), now)
            return
        if connection is None:
            self._following.link_ended(now)
            return

        def received(untrusted: bytes, descriptor: int | None) -> None:
            with self._happening():
                self._from_coordinator(link, untrusted, descriptor)

        def ended(error: DxosError) -> None:
            with self._happening():
                link.close()
                if self._to_coordinator is not link:
                    return
                self._to_coordinator = None
                if isinstance(error, StorageAccessError):  # A session came, and no descriptor is left for it.
                    self._following.link_failed(Failure.of(error), self._now())
                    return
                self._following.link_ended(self._now())
                self._election.link_ended(self._now())

        link = self._to_coordinator = Link(connection, received, ended)
        self._following.link_opened(now)

    def _from_coordinator(self, link: Link, untrusted: bytes, descriptor: int | None) -> None:
        try:
            if self._to_coordinator is not link:
                return
            message = messages.decode(untrusted)
            self._trace("coordinator", "client", message)
            if isinstance(message, messages.ProvidePort):
                if descriptor is None:
                    if message.port:
                        self._start(self._enter(message))
                    return
                self._keep_port(message.client_id, message.attempt, descriptor)
                descriptor = None
            if isinstance(message, messages.Refused):
                self._election.coordinator_failed()
            elif isinstance(message, messages.Welcome):
                self._election.coordinator_greeted()
            self._following.receive(message, self._now())
        except DxosError as error:
            _log.warning("The coordinator's link was closed: %s", error)
            link.close()
            self._to_coordinator = None
            self._following.link_ended(self._now())
        finally:
            if descriptor is not None:
                os.close(descriptor)

    async def _enter(self, ticket: messages.ProvidePort) -> None:
        """Make the port for which there is a ticket."""
        from dxos.worker.loopback import enter

        try:
            connection = await enter(ticket.port, ticket.token, ticket.answer)
        except DxosError as error:
            _log.warning("%s", error)
            with self._happening():
                if isinstance(error, StorageAccessError):  # No descriptor is left.
                    if self._to_coordinator is not None:
                        self._to_coordinator.close_soon()
                        self._to_coordinator = None
                    self._following.link_failed(Failure.of(error), self._now())
                else:
                    self._following.port_failed(ticket.attempt, self._now())
            return
        with self._happening():
            self._keep_port(ticket.client_id, ticket.attempt, connection.detach())
            self._following.receive(ticket, self._now())

    # --- Descriptors and tasks ----------------------------------------------------------------------------------------

    def _keep_port(self, client_id: str, attempt: int, descriptor: int) -> None:
        self._close_port(client_id, attempt)
        self._ports[client_id, attempt] = descriptor

    def _close_port(self, client_id: str, attempt: int) -> None:
        descriptor = self._ports.pop((client_id, attempt), None)
        if descriptor is not None:
            os.close(descriptor)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(self._guard(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except Exception as error:  # noqa: BLE001 - The top of a task: the thread ends with it.
            self._error = error
            self._done.set()


def _program() -> str:
    """The name of what runs here; not its arguments, which may be private."""
    module = getattr(sys.modules.get("__main__"), "__spec__", None)  # Of `python -m`.
    name = Path(sys.argv[0] or sys.executable).name if module is None else module.name.removesuffix(".__main__")
    return name[:CLIENT_ID_CHARS_MAX]


async def _in_thread(function: Callable[[], socket.socket]) -> socket.socket:
    """Call what blocks; not by `asyncio.to_thread`, which refuses once a program ends that still has edits to store."""
    outcome: Future[socket.socket] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001 - Raised again where it is waited for.
            outcome.set_exception(error)

    try:
        threading.Thread(target=run, name="dxos zygote", daemon=True).start()
    except RuntimeError:  # Python 3.12 starts no thread once a program ends; then nothing else waits for this one.
        run()
    return await asyncio.wrap_future(outcome)
