"""`dx status`, as processes that share a profile come, freeze, are killed and leave."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_people import SOURCE, People, people, until

from dxos.store.profile import Profile
from dxos.worker import messages
from dxos.worker.coordinator import Answer, Coordinator, Send
from dxos.worker.links import Deframer, frame
from dxos.worker.lockfile import LeaderLock
from dxos.worker.messages import PROTOCOL
from dxos.worker.places import listen, open_places
from dxos.worker.status import ProfileStatus, Sharing, read_status

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
LOOK_S_MAX = 1.0


@pytest.fixture
def them(tmp_path: Path) -> Iterator[People]:
    with people(tmp_path / "profile" / "shared") as found:
        yield found


def look(them: People) -> ProfileStatus:
    """What is seen, which never takes long."""
    begin = time.monotonic()
    found = read_status(them.profile)
    assert time.monotonic() - begin < LOOK_S_MAX
    return found


def dx(them: People, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "dxos.cli", *words],
        env={
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "DX_DATA": str(them.profile.parents[1]),
            "DX_PROFILE": them.profile.name,
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def dx_status(them: People, *options: str) -> Any:
    done = dx(them, "status", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if "--json" in options else done.stdout


def test_it_says_that_nobody_is_there_and_makes_nothing(them: People) -> None:
    assert "No process has this profile open." in dx_status(them)
    found = dx_status(them, "--json")
    assert (found["state"], found["leader"], found["worker"], found["clients"]) == ("closed", None, None, [])
    assert not them.profile.exists()


def test_it_follows_leaders_that_are_frozen_and_killed(them: People) -> None:
    alice, bob, carol = them.first(), them.another(), them.another()
    found = dx_status(them, "--json")
    assert found["state"] == "served"
    assert found["leader"]["pid"] == alice.pid
    assert found["worker"]["pid"] == them.worker_pid()
    assert {one["pid"] for one in found["clients"]} == {alice.pid, bob.pid, carol.pid}
    assert {one["program"] for one in found["clients"]} == {"worker_peer.py"}
    assert Path(found["lock"]).name == f"leader.{found['leader']['leadership_id']}"

    alice.signal(signal.SIGSTOP)
    silent = until(lambda: (one := look(them)).sharing is Sharing.SILENT and one)
    assert silent.leader is not None
    assert silent.leader.pid == alice.pid
    second = until(lambda: (one := look(them)).sharing is Sharing.SERVED and one)
    assert second.leader.pid in (bob.pid, carol.pid)
    assert second.leader.leadership_id > silent.leader.leadership_id
    assert second.worker.pid == found["worker"]["pid"], "it was adopted"
    alice.signal(signal.SIGCONT)
    until(lambda: {one.pid for one in look(them).clients} == {alice.pid, bob.pid, carol.pid})

    killed, other = (bob, carol) if second.leader.pid == bob.pid else (carol, bob)
    killed.signal(signal.SIGKILL)
    third = until(lambda: (one := look(them)).sharing is Sharing.SERVED and one)
    assert third.leader.pid in (alice.pid, other.pid)
    os.kill(third.worker.pid, signal.SIGKILL)
    until(lambda: (one := look(them)).sharing is Sharing.SERVED and one.worker and one.worker.pid != third.worker.pid)
    alice.stop()
    other.stop()
    assert look(them).sharing is Sharing.CLOSED
    assert look(them).leader is None


def test_it_names_the_process_that_has_the_profile_for_itself(them: People) -> None:
    with Profile.open(them.profile):
        found = look(them)
        assert (found.sharing, found.holder_pid) == (Sharing.LOCAL, os.getpid())
        assert f"Process {os.getpid()} has this profile for itself." in dx_status(them)


@contextlib.contextmanager
def leader_of_another_version(them: People) -> Iterator[None]:
    """A leader whose protocol is newer than ours."""
    places = open_places(them.profile)
    lock, listener = LeaderLock(places.host, "9.9.9"), listen(places.coordinator)
    assert lock.try_lock() == 1
    machine = Coordinator(1, pid=os.getpid(), version="9.9.9", protocol=PROTOCOL + 1)
    over = threading.Event()

    def serve(number: int, connection: socket.socket) -> None:
        deframer = Deframer()
        machine.linked(number, 0.0)
        while data := connection.recv(4_096):
            for content, _ in deframer.receive(data, []):
                machine.receive(number, messages.decode(content), 0.0)
                while machine.actions:
                    match machine.actions.popleft():
                        case Send(_, message):
                            connection.sendall(frame(messages.encode(message)))
                        case Answer(link):
                            machine.answer(link, None)

    def lead() -> None:
        number = 0
        listener.settimeout(0.1)
        while not over.is_set():
            lock.beat()
            with contextlib.suppress(TimeoutError):
                number += 1
                with listener.accept()[0] as connection:
                    connection.settimeout(0.3)
                    serve(number, connection)

    thread = threading.Thread(target=lead)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        listener.close()
        places.coordinator.unlink()
        lock.release()


def test_a_command_says_that_another_version_leads(them: People) -> None:
    with leader_of_another_version(them):
        refused = dx(them, "identity", "show")
        seen = look(them)
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        f"Process {os.getpid()} has this profile open with a newer version of dxos (9.9.9;"
    )
    assert seen.leader is not None
    assert (seen.leader.version, seen.leader.protocol) == ("9.9.9", PROTOCOL + 1)
