"""The thread that leads, with a worker and a zygote that are played: it survives what fails, or lets go of all."""

import os
import queue
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from worker_people import until

from dxos.errors import StorageAccessError
from dxos.limits import LEADER_BEAT_S
from dxos.version import __version__
from dxos.worker import messages
from dxos.worker.links import Deframer, frame, receive_some, send_some
from dxos.worker.lockfile import LeaderLock, read_leader
from dxos.worker.places import Places, listen, open_places
from dxos.worker.settings import Settings
from dxos.worker.thread import Ended, Event, LeaderThread, Port, Trace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX"),
]


class Worker:
    """A worker that any leader may adopt, and that serves nobody; and the socket of a zygote that says nothing."""

    def __init__(self, places: Places) -> None:
        self._listeners = [listen(places.worker), listen(places.zygote)]
        self.heard: list[messages.Message] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listeners[0], selectors.EVENT_READ)
        self._links: dict[int, tuple[socket.socket, Deframer]] = {}
        self._stopping, self._wake = socket.socketpair()
        self._selector.register(self._stopping, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._stopping:
                    return
                if key.fileobj is self._listeners[0]:
                    with suppress(OSError):  # No descriptor for it.
                        connection, _ = self._listeners[0].accept()
                        self._links[connection.fileno()] = connection, Deframer()
                        self._selector.register(connection, selectors.EVENT_READ)
                        self._say(connection, messages.Listening("w", os.getpid(), __version__, messages.PROTOCOL))
                else:
                    self._hear(*self._links[key.fd])

    def _hear(self, connection: socket.socket, deframer: Deframer) -> None:
        data, descriptors = receive_some(connection)
        if not data:
            self._selector.unregister(connection)
            del self._links[connection.fileno()]
            connection.close()
            return
        for message, _ in deframer.receive(data, descriptors):
            said = messages.decode(message)
            self.heard.append(said)
            match said:
                case messages.Init(leadership_id=leadership_id):
                    self._say(connection, messages.Ready(leadership_id, "alive.w"))
                case messages.Ping(nonce):
                    self._say(connection, messages.Pong(nonce))
                case messages.StartSession(client_id, attempt):
                    with suppress(OSError):
                        ours, theirs = socket.socketpair()
                        with ours, theirs:
                            self._say(connection, messages.Session(client_id, attempt), theirs.fileno())

    def _say(self, connection: socket.socket, message: messages.Message, descriptor: int | None = None) -> None:
        with suppress(OSError):
            send_some(connection, frame(messages.encode(message), descriptor=descriptor is not None), descriptor)

    def has_heard(self, kind: type[messages.Message]) -> bool:
        """Whether a leader has said so."""
        return any(isinstance(one, kind) for one in self.heard)

    def close(self) -> None:
        """End, which closes all links."""
        self._wake.close()
        self._thread.join()
        self._selector.close()
        for one in (*self._listeners, self._stopping, *(connection for connection, _ in self._links.values())):
            one.close()


class Client:
    """A client's thread, and what it tells."""

    def __init__(self, places: Places, trace: Trace | None = None) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.thread = LeaderThread(places, Settings((), None), f"client-{time.monotonic_ns()}", self.events.put, trace)
        self.thread.start()

    def next_port(self) -> Port:
        """Wait for a session, which is closed at once."""
        event = self.events.get(timeout=10)
        assert isinstance(event, Port), event
        os.close(event.descriptor)
        return event

    def role(self) -> dict[str, Any]:
        """What it does for others."""
        return self.thread.diagnostics()

    def ended(self) -> Exception | None:
        """Wait for its end; the error it ended with."""
        while not isinstance(event := self.events.get(timeout=10), Ended):
            assert isinstance(event, Port), event
            os.close(event.descriptor)
        return event.error


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return open_places(tmp_path / "p")


@contextmanager
def worker(places: Places) -> Iterator[Worker]:
    with closing(Worker(places)) as one:
        yield one


def test_who_handed_over_waits_for_its_workers_end_before_it_tries_the_lock(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dxos.worker.election.HAND_OVER_PAUSE_S", 0.0)
    with worker(places) as one:
        alice = Client(places)
        alice.next_port()
        hand_over(places)
        until(lambda: one.has_heard(messages.Terminate))
        until(lambda: alice.role()["worker_leader_phase"] != "paused", 5)
        assert alice.role()["worker_leader_phase"] == "waiting"
        assert read_leader(places.host)["held"], "until the worker has ended"
        alice.thread.stop()
    assert alice.ended() is None


def test_the_newer_one_may_lead_before_those_who_follow_hear_that_the_leader_has_gone(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dxos.worker.leading.HAND_OVER_START_S", 2.0)
    with worker(places) as one, socket.socket(socket.AF_UNIX) as follower:
        alice = Client(places)
        alice.next_port()
        follower.connect(str(places.coordinator))
        follower.sendall(frame(messages.encode(messages.Hello("bob", os.getpid(), __version__, messages.PROTOCOL))))
        ((welcome, _),) = Deframer().receive(follower.recv(4_096), [])
        assert isinstance(messages.decode(welcome), messages.Welcome)
        newer = threading.Thread(target=hand_over, args=(places,))
        newer.start()
        until(lambda: one.has_heard(messages.Terminate))
        one.close()
        newer.join()  # Its link has ended.
        lock = LeaderLock(places.host, "9.0")
        until(lock.try_lock, 1)
        follower.setblocking(False)
        with pytest.raises(BlockingIOError):
            follower.recv(1)
        follower.settimeout(10)
        assert follower.recv(1) == b""
        lock.release()
        alice.thread.stop()
    assert alice.ended() is None


def hand_over(places: Places) -> None:
    """Be a newer client."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(places.coordinator))
        hello = messages.Hello("newer", os.getpid(), "9.0", messages.PROTOCOL + 1)
        connection.sendall(frame(messages.encode(hello)))
        connection.recv(4_096)
        connection.sendall(frame(messages.encode(messages.HandOver())))
        connection.recv(1)


def test_a_thread_that_ends_by_a_bug_lets_go_of_the_lock_and_of_the_worker(places: Places) -> None:
    broken = threading.Event()

    def trace(sender: str, receiver: str, message: messages.Message) -> None:
        if broken.is_set():
            raise ZeroDivisionError

    with worker(places):
        alice = Client(places, trace)
        alice.next_port()
        broken.set()  # The next ping is traced.
        ended = alice.events.get(timeout=10)
        assert isinstance(ended, Ended)
        assert isinstance(ended.error, ZeroDivisionError)
        lock = LeaderLock(places.host, "1")
        assert lock.try_lock() == 2, "although the process lives and has its client still"
        lock.release()
        alice.thread.stop()


def test_who_has_no_descriptors_for_a_while_leads_on(places: Places) -> None:
    resource = pytest.importorskip("resource", reason="needs a limit of descriptors")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with worker(places):
        alice = Client(places)
        alice.next_port()
        led, lock = read_leader(places.host), LeaderLock(places.host, "")
        taken = [os.open(os.devnull, os.O_RDONLY)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 10, limits[1]))
        try:
            with suppress(OSError):
                while True:
                    taken.append(os.dup(taken[0]))
            with pytest.raises(StorageAccessError, match="too many files"):
                lock.newest()
            time.sleep(2.5 * LEADER_BEAT_S)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for one in taken:
                os.close(one)
        newest = lock.newest()
        assert newest
        assert time.time() - newest.beat_ns / 1e9 < 2 * LEADER_BEAT_S, "its heart beats, for which it needs none"
        assert read_leader(places.host) == led
        assert alice.role()["worker_is_leader"]
        alice.thread.stop()
        assert alice.ended() is None
