"""`dx status`, as processes that share a profile come, freeze, are killed and leave."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_people import SOURCE, People, people, until

from dxos.store.profile import Profile
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


def dx_status(them: People, *options: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "dxos.cli", "status", *options],
        env={
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "DX_DATA": str(them.profile.parents[1]),
            "DX_PROFILE": them.profile.name,
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
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
