"""The worker's parent: has imported the host, and forks a worker from it, so that one is there within milliseconds.

    leader ── {"fork": worker} + its link ──▶ zygote ── fork ──▶ worker
                {"fork": worker, "for": leader}         on a connection of its own, which becomes that link, where no
                                                        descriptor can be handed over
           ◀── {"forked": worker, "pid": …} ──      ◀─ SIGCHLD ──
           ◀── {"exited": worker} ───────────
           ◀── {"failed": {"code", "message"}}    no worker can be made here; its link ends when the leader has heard

It has one thread and no event loop, or it could not fork. It keeps no storage and ends when nobody needs it: when its
leader and its worker have left in order, or when no leader comes within ZYGOTE_ADOPT_S.
The newest leader is the one it listens to.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, final

from dxos.errors import BrokenError, DxosError, LinkError
from dxos.limits import REASON_CHARS_MAX, ZYGOTE_ADOPT_S
from dxos.version import __version__
from dxos.worker.links import Deframer, frame, receive_some, send_some
from dxos.worker.lockfile import AliveMark
from dxos.worker.places import Places, check_peer, environment, listen, map_start_error, open_places

_HELLO: Final = {"version": __version__}


# --- In the leader ---------------------------------------------------------------------------------------------------


def spawn_zygote(places: Places) -> socket.socket:
    """Start a zygote; the leader's end of its link, which is ready at once although the zygote is not. Takes 20 ms.

    Raises:
        DxosError: This Python cannot start another one.
    """
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise map_start_error(error, "the worker") from error
    try:
        process = subprocess.Popen(  # noqa: S603 - Our own module, run by the Python that runs this.
            [sys.executable, "-P", "-m", "dxos.worker", "zygote", str(places.host), str(theirs.fileno())],
            env=environment(),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        status = process.wait()
    except OSError as error:
        ours.close()
        raise map_start_error(error, "the worker") from error
    finally:
        theirs.close()
    if status:
        ours.close()
        raise LinkError(f"The worker's process ended at once; {places.log} may say why.", status=status)
    return ours


# --- In the zygote ---------------------------------------------------------------------------------------------------


def run(host: str, descriptor: int) -> None:
    """Be the zygote of a profile, until nobody needs it; then its process ends."""
    places = open_places(Path(host).parent)
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    _raise_limit()
    gc.disable()  # What is imported stays, so looking for garbage among it would cost a tenth of the time.
    try:
        from dxos.worker import process  # The host, which is what this process is for.

        process.warm_up()
        gc.enable()
        gc.collect()
        gc.freeze()  # Or the first collection in a worker would copy every page of the host.
        zygote = _Zygote(places, connection)
    except Exception as error:  # noqa: BLE001 - The top of the process: whoever started it is to hear of it.
        _tell_of_failure(connection, error)
        return
    try:
        worker = zygote.run()
    finally:
        zygote.close()
    if worker is None:
        os._exit(0)  # In order, it would take apart all that was imported, and outlast whoever left last.
    worker_id, mark, link = worker
    os._exit(process.run_worker(places, worker_id, mark, link))


def _raise_limit() -> None:
    """Allow the worker as many open files as the system lets it have: it has two for each client."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # There are systems that call endless what they refuse.
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _tell_of_failure(connection: socket.socket, error: Exception) -> None:
    leader = _Leader(connection)
    leader.send(_failed(error))
    # Until it has heard: the end of this process also ends the link to the worker that it asked for.
    with contextlib.suppress(OSError):
        while connection.recv(4_096):
            pass
    leader.close()


def _failed(error: Exception) -> dict[str, Any]:
    if not isinstance(error, DxosError):
        error = BrokenError(f"The worker cannot start: {type(error).__name__}: {error}")
    return {"failed": {"code": error.code, "message": str(error)[:REASON_CHARS_MAX]}}


@final
class _Leader:
    """The link of one leader, whole messages at a time."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(True)
        connection.settimeout(1)  # Of a send; a leader that does not read is no leader.
        self.connection = connection
        self.leadership_id = 0
        self._deframer = Deframer()

    def receive(self) -> list[tuple[dict[str, Any], int | None]]:
        """What it says.

        Raises:
            EOFError: Nothing any more.
            DxosError, ValueError: Nothing that makes sense.
        """
        try:
            data, descriptors = receive_some(self.connection)
        except OSError:
            raise EOFError from None
        if not data:
            raise EOFError
        return [(json.loads(message), one) for message, one in self._deframer.receive(data, descriptors)]

    def send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            data = frame(json.dumps(message).encode())
            while data:
                data = data[send_some(self.connection, data, None) :]

    def close(self) -> None:
        self._deframer.close()
        self.connection.close()


@final
class _Zygote:
    def __init__(self, places: Places, connection: socket.socket) -> None:
        self._places = places
        self._selector = selectors.DefaultSelector()
        self._listener = listen(places.zygote)
        self._identity = os.stat(places.zygote).st_ino
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._stopping = False
        signal.signal(signal.SIGTERM, self._stop)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._links: dict[int, _Leader] = {}
        self._leader: _Leader | None = None
        self._workers: dict[int, str] = {}
        self._unborn: socket.socket | None = None  # The link to a worker that could not be made.
        self._deadline = time.monotonic() + ZYGOTE_ADOPT_S
        self._add(connection)

    def run(self) -> tuple[str, AliveMark, socket.socket] | None:
        """Serve leaders; in the child of a fork, what it is to work with."""
        while not self._stopping:
            timeout = None if self._leader else self._deadline - time.monotonic()
            if timeout is not None and timeout <= 0:
                break
            for key, _ in self._selector.select(timeout):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._woken:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(4_096)
                    self._reap()
                elif (link := self._links.get(key.fd)) is not None and link is key.data:
                    worker = self._receive(link)  # Another one has that number if it was dropped meanwhile.
                    if worker is not None:
                        return worker
        with contextlib.suppress(OSError):
            if os.stat(self._places.zygote).st_ino == self._identity:
                self._places.zygote.unlink()
        self._places.tidy()
        return None

    def close(self) -> None:
        """Close every descriptor; in a worker these are its parent's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for one in (self._listener, self._woken, self._wake):
            one.close()
        for link in self._links.values():
            link.close()
        if self._unborn is not None:
            self._unborn.close()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _add(self, connection: socket.socket) -> None:
        link = _Leader(connection)
        self._links[connection.fileno()] = link
        self._selector.register(connection, selectors.EVENT_READ, link)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            try:
                check_peer(connection)
            except DxosError:
                connection.close()
                return
            self._add(connection)

    def _drop(self, link: _Leader) -> None:
        self._selector.unregister(link.connection)
        del self._links[link.connection.fileno()]
        link.close()
        if link is self._leader:
            self._leader = None
            self._deadline = time.monotonic() + ZYGOTE_ADOPT_S

    def _receive(self, link: _Leader) -> tuple[str, AliveMark, socket.socket] | None:
        try:
            for message, descriptor in link.receive():
                match message:
                    case {"leader": int(leadership_id), "version": str(version)} if version == __version__:
                        self._lead(link, leadership_id)
                    case {"leader": _}:
                        self._drop(link)  # Another version: it needs another zygote.
                    case {"fork": str(worker_id)} if descriptor is not None and link is self._leader:
                        worker = self._fork(worker_id, socket.socket(fileno=descriptor))
                        if worker is not None:
                            return worker
                    case {"fork": str(worker_id), "for": int(leadership_id)}:
                        return self._fork_for(link, worker_id, leadership_id)
                    case {"bye": True} if link is self._leader:
                        # It left in order: what it needed no more, perhaps nobody does.
                        self._stopping = not self._workers
                    case _:
                        if descriptor is not None:
                            os.close(descriptor)
        except (EOFError, DxosError, ValueError):
            if link.connection.fileno() in self._links:
                self._drop(link)
        return None

    def _lead(self, link: _Leader, leadership_id: int) -> None:
        if self._leader is not None and self._leader is not link:
            if leadership_id < self._leader.leadership_id:
                self._drop(link)  # It was frozen, and does not know yet that it was replaced.
                return
            self._drop(self._leader)
        link.leadership_id = leadership_id
        self._leader = link
        link.send({**_HELLO, "pid": os.getpid()})

    def _fork_for(
        self, link: _Leader, worker_id: str, leadership_id: int
    ) -> tuple[str, AliveMark, socket.socket] | None:
        if self._leader is None or link is self._leader or leadership_id < self._leader.leadership_id:
            self._drop(link)
            return None
        self._selector.unregister(link.connection)
        del self._links[link.connection.fileno()]
        return self._fork(worker_id, link.connection)

    def _fork(self, worker_id: str, connection: socket.socket) -> tuple[str, AliveMark, socket.socket] | None:
        assert self._leader is not None
        try:
            pid, mark = self._make_worker(worker_id)
        except DxosError as error:
            if self._unborn is not None:
                self._unborn.close()
            self._unborn = connection  # Open until the next one: its end would be taken for the worker's.
            self._leader.send(_failed(error))
            return None
        if pid == 0:
            return worker_id, mark, connection
        self._workers[pid] = worker_id
        mark.write(pid)
        mark.close()
        connection.close()
        self._leader.send({"forked": worker_id, "pid": pid})
        return None

    def _make_worker(self, worker_id: str) -> tuple[int, AliveMark]:
        # Locked before the worker exists, so that nobody ever meets one without it.
        mark = AliveMark(self._places.alive(worker_id))
        try:
            return os.fork(), mark
        except OSError as error:
            mark.remove()
            raise map_start_error(error, "the worker") from error

    def _reap(self) -> None:
        while self._workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            worker_id = self._workers.pop(pid, "")
            if self._leader is not None:
                self._leader.send({"exited": worker_id, "status": status})
            elif status == 0:
                self._stopping = True  # In order, because nobody is left.
