"""`dx agent`: a process that stays between commands, and leaves nothing when it ends."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_people import SOURCE, People, people, until

from dxos import Client
from dxos.errors import DeadlineError
from dxos.worker.agent import find_agent, stop_agent, wait_agent
from dxos.worker.status import Sharing, read_status

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them"),
]
LONG = "1h"  # Longer than any test.


class Terminal:
    """Where somebody types whose commands leave an agent behind."""

    def __init__(self, them: People) -> None:
        self.profile = them.profile
        self.said, self.documents = "", list[Any]()
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "DX_DATA": str(self.profile.parents[1]),
            "DX_PROFILE": self.profile.name,
            "DX_NO_AGENT": "0",
        }

    def dx(self, *arguments: str, idle: str = LONG, code: int = 0) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "dxos.cli", *arguments, "--json"],
            env={**self.environ, "DX_AGENT_IDLE": idle},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.said = done.stderr
        assert done.returncode == code, done.stdout + done.stderr
        self.documents = [json.loads(one) for one in done.stdout.splitlines()]
        return self.documents[-1]


def served(them: People) -> Any:
    """Wait until the profile is served; what is seen."""
    return until(lambda: (one := read_status(them.profile)).sharing is Sharing.SERVED and one)


@pytest.fixture
def them(tmp_path: Path) -> Iterator[People]:
    with people(tmp_path / "profile" / "shared") as found:
        try:
            yield found
        finally:
            pid = find_agent(found.profile)
            if pid:
                os.kill(pid, signal.SIGKILL)
            for path in found.host.glob("agent*"):  # They stay, for the next one.
                path.unlink()


@pytest.fixture
def terminal(them: People) -> Terminal:
    return Terminal(them)


def test_a_command_leaves_an_agent_and_the_next_one_finds_its_worker(terminal: Terminal, them: People) -> None:
    did = terminal.dx("identity", "create", "--name", "Alice")["did"]
    agent = until(lambda: (one := terminal.dx("agent", "status"))["running"] and one)
    first = served(them)
    assert os.getsid(agent["pid"]) != os.getsid(0), "it outlives the terminal"
    assert terminal.dx("identity", "show")["did"] == did
    terminal.dx("identity", "show", "--signal", "ws://127.0.0.1:9/elsewhere")
    assert "other signalling servers" in terminal.said
    again = served(them)
    assert (again.agent.pid, again.worker.pid) == (agent["pid"], first.worker.pid)
    assert terminal.dx("agent", "start")["pid"] == agent["pid"], "there is one"
    assert terminal.dx("agent", "run", code=1)["error"]["code"] == "usage"
    terminal.dx("agent", "logs")
    assert any("takes part" in one["line"] for one in terminal.documents)
    assert stat.S_IMODE((terminal.profile / "host" / "agent.log").stat().st_mode) == 0o600
    assert terminal.dx("agent", "stop") == {"stopped": agent["pid"]}
    assert read_status(terminal.profile).sharing is Sharing.CLOSED
    assert terminal.dx("agent", "stop") == {"stopped": None}
    assert terminal.dx("status", "--no-agent")["agent"] is None
    terminal.dx("identity", "show", "--no-agent")
    assert not find_agent(terminal.profile)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM"])
def test_an_invitation_ends_with_the_terminal_that_shows_it_although_the_agent_stays(
    terminal: Terminal, them: People, name: str
) -> None:
    terminal.dx("identity", "create", "--name", "Alice")
    terminal.dx("space", "create", "Groceries")
    with subprocess.Popen(
        [sys.executable, "-m", "dxos.cli", "space", "share", "Groceries", "--json"],
        env={**terminal.environ, "DX_AGENT_IDLE": LONG},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as sharing:
        assert sharing.stdout is not None
        assert "invitation" in sharing.stdout.readline()
        sharing.send_signal(signal.Signals[name])
        _, said = sharing.communicate(timeout=30)
    assert sharing.returncode == 130
    assert "The invitation is cancelled" in said
    assert find_agent(them.profile)


def test_an_agent_that_nobody_needs_ends_and_one_that_is_needed_stays(terminal: Terminal, them: People) -> None:
    alice = them.first()
    terminal.dx("agent", "start", "--idle", "0.5s")
    with pytest.raises(AssertionError, match="did not come true"):
        until(lambda: not find_agent(them.profile), 1.5)
    alice.stop()
    until(lambda: not find_agent(them.profile))
    assert read_status(them.profile).sharing is Sharing.CLOSED


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_one_that_is_stopped_is_named_and_can_be_ended(
    terminal: Terminal, them: People, anyio_backend: str
) -> None:
    terminal.dx("identity", "create", "--name", "Alice", "--no-agent")
    pid = terminal.dx("agent", "start")["pid"]
    os.kill(pid, signal.SIGSTOP)
    until(lambda: read_status(them.profile).sharing is not Sharing.SERVED)
    with pytest.raises(DeadlineError, match=f"process {pid}, is there and takes no part.*dx agent stop"):
        await wait_agent(them.profile, timeout_s=0.5)
    assert terminal.dx("agent", "stop") == {"stopped": pid}
    assert not find_agent(them.profile)


def test_without_an_agent_a_command_works_all_the_same(terminal: Terminal) -> None:
    (terminal.profile / "host" / "agent").mkdir(parents=True, mode=0o700)
    terminal.profile.chmod(0o700)
    assert terminal.dx("identity", "create", "--name", "Alice")["name"] == "Alice"
    assert "Traceback" not in terminal.said
    (terminal.profile / "host" / "agent").rmdir()


def test_what_needs_the_profile_alone_ends_the_agent_and_names_others(terminal: Terminal, them: People) -> None:
    alice = them.first()
    terminal.dx("agent", "start")
    refused = terminal.dx("doctor", code=1)["error"]
    assert refused["code"] == "storage.locked"
    assert f"{alice.pid} (worker_peer.py)" in refused["message"]
    assert find_agent(them.profile)
    alice.stop()
    assert terminal.dx("doctor")["findings"] == []
    assert not find_agent(them.profile)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_client_can_have_one(them: People, anyio_backend: str) -> None:
    settings = {"runtime": {"client": {"storage": {"persistent": True, "dataRoot": str(them.profile)}}}}
    async with Client(settings, services="agent") as client:
        await client.halo.create_identity()
        await wait_agent(them.profile)
    seen = served(them)
    assert seen.others == ()
    os.kill(seen.agent.pid, signal.SIGKILL)
    until(lambda: not find_agent(them.profile))
    async with Client(settings, services="agent"):
        await wait_agent(them.profile)
    other = await stop_agent(them.profile)
    assert other is not None
    assert other.pid != seen.agent.pid
    assert read_status(them.profile).sharing is Sharing.CLOSED


def test_it_ends_with_its_profile(terminal: Terminal, them: People) -> None:
    pid = terminal.dx("agent", "start")["pid"]
    shutil.rmtree(them.profile)
    until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])
    until(lambda: not them.processes())
    shutil.rmtree(them.profile, ignore_errors=True)
