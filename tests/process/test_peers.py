"""Peers in processes of their own, over a signalling server in another and TCP between them."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from process_people import WAIT_S, Remote, program

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]
SERVER = """
import sys, anyio
from dxos.mesh.signal_server import serve_signal
async def main():
    async with anyio.create_task_group() as tasks:
        print(await tasks.start(serve_signal, "127.0.0.1", int(sys.argv[1])), flush=True)
anyio.run(main)
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Server:
    """A signalling server in a process of its own, which can be killed and started again at the same port."""

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = program(SERVER, str(self.port))
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        """End it as a loss of power does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.communicate()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/.well-known/dx/signal"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.kill()


@asynccontextmanager
async def people(tmp_path: Path, server: Server, *names: str) -> AsyncIterator[list[Remote]]:
    """The first has a space, which the others have joined."""
    remotes = [Remote(tmp_path / name.lower(), server.url, name=name) for name in names]
    try:
        async with anyio.create_task_group() as tasks:
            for one in remotes:
                tasks.start_soon(one.start)
        await remotes[0].ask("create", name="Groceries")
        if len(remotes) > 1:
            code, auth_code = await remotes[0].ask("invite", multi_use=len(remotes) > 2)
            for one in remotes[1:]:
                await one.ask("join", code=code, auth_code=auth_code)
        yield remotes
    finally:
        for one in remotes:
            await one.__aexit__()


async def agree(*remotes: Remote) -> dict[str, object]:
    """Wait until all have the same content; the content."""
    with anyio.fail_after(WAIT_S):
        while True:
            first, *others = [await one.ask("content") for one in remotes]
            if all(one == first for one in others):
                return first  # type: ignore[no-any-return]
            await anyio.sleep(0.05)


async def test_two_processes_share_a_space_restart_and_meet_again(tmp_path: Path, server: Server) -> None:
    async with people(tmp_path, server, "Alice", "Bob") as (alice, bob):
        assert await alice.ask("invited") == "SUCCESS"
        await alice.ask("add", count=5)
        await bob.ask("wait_count", count=6)
        await bob.ask("edit", number=2, by="bob")
        await bob.ask("add", count=5, start=5)
        await alice.ask("wait_count", count=1, by="bob")
        await alice.ask("wait_count", count=11)
        assert await alice.ask("members", online=2) == ["Alice", "Bob"]
        before = await agree(alice, bob)
        for one in (alice, bob):
            assert await one.stop() == ""
        # Each changes something while the other is away.
        await alice.start()
        await alice.ask("edit", number=2, by="alice")
        assert await alice.stop() == ""
        await bob.start()
        await bob.ask("edit", number=3, by="bob")
        await alice.start()
        await bob.ask("wait_count", count=1, by="alice")
        await alice.ask("wait_count", count=1, by="bob")
        after = await agree(alice, bob)
        assert after.keys() == before.keys()
        for one in (alice, bob):
            assert await one.stop() == ""


async def test_three_processes_have_the_same_in_the_end(tmp_path: Path, server: Server) -> None:
    async with people(tmp_path, server, "Alice", "Bob", "Carol") as (alice, bob, carol):
        for number, one in enumerate((alice, bob, carol)):
            await one.ask("add", count=10, start=10 * number)
        for one in (alice, bob, carol):
            await one.ask("wait_count", count=31)
        for one in (alice, bob, carol):
            await one.tell("edit", number=4, by=one.name)
        for one in (alice, bob, carol):
            await one.answer()
        content = await agree(alice, bob, carol)
        (edited,) = [one for one in content.values() if isinstance(one, dict) and one.get("number") == 4]
        assert sorted(edited["tags"]) == ["Alice", "Bob", "Carol", "a"]
        assert await alice.ask("members", online=3) == ["Alice", "Bob", "Carol"]
        # Without the one who made the space, the others go on.
        assert await alice.stop() == ""
        await bob.ask("add", count=1, start=100)
        await carol.ask("wait_count", count=1, number=100)
        for one in (bob, carol):
            assert await one.stop() == ""


async def test_a_signalling_server_that_is_killed_and_returns_is_used_again(tmp_path: Path, server: Server) -> None:
    async with people(tmp_path, server, "Alice", "Bob") as (alice, bob):
        server.kill()
        await alice.ask("signal", state="RECONNECTING|ERROR|CONNECTING|DISCONNECTED")
        # What is connected stays connected.
        await alice.ask("add", count=3)
        await bob.ask("wait_count", count=4)
        await bob.ask("network", online=False)
        await alice.ask("add", count=3, start=3)
        await bob.ask("network", online=True)
        server.start()
        await alice.ask("signal", state="CONNECTED")
        await bob.ask("wait_count", count=7)
        await agree(alice, bob)
        for one in (alice, bob):
            assert await one.stop() == ""


async def test_what_is_changed_offline_is_exchanged_when_both_are_online(tmp_path: Path, server: Server) -> None:
    async with people(tmp_path, server, "Alice", "Bob") as (alice, bob):
        await alice.ask("add", count=2)
        await bob.ask("wait_count", count=3)
        assert await bob.ask("network", online=False) == "OFFLINE"
        assert await alice.ask("members", online=1) == ["Alice", "Bob"]
        await alice.ask("edit", number=0, by="alice")
        await bob.ask("edit", number=1, by="bob")
        assert await bob.ask("network", online=True) == "ONLINE"
        await alice.ask("wait_count", count=1, by="bob")
        await bob.ask("wait_count", count=1, by="alice")
        await agree(alice, bob)


@pytest.mark.parametrize("loser", ["Alice", "Bob"])
async def test_a_peer_killed_while_it_synchronizes_completes_after_its_restart(
    tmp_path: Path, server: Server, loser: str
) -> None:
    async with people(tmp_path, server, "Alice", "Bob") as (alice, bob):
        await bob.ask("network", online=False)
        await alice.ask("add", count=500)
        await bob.ask("network", online=True)
        assert 50 <= await bob.ask("wait_count", count=50) < 501, "it is killed on the way"
        killed = alice if loser == "Alice" else bob
        await killed.kill()
        await killed.start()
        assert await bob.ask("wait_count", count=501) == 501
        await agree(alice, bob)
        for one in (alice, bob):
            assert await one.stop() == ""


@pytest.mark.parametrize("loser", ["Alice", "Bob"])
async def test_a_handshake_whose_peer_is_killed_can_be_done_again(tmp_path: Path, server: Server, loser: str) -> None:
    bob = Remote(tmp_path / "bob", server.url, name="Bob")
    async with people(tmp_path, server, "Alice") as (alice,), bob:
        code, auth_code = await alice.ask("invite")
        assert await bob.ask("begin_to_join", code=code, auth_code=auth_code) == "READY_FOR_AUTHENTICATION"
        killed = alice if loser == "Alice" else bob
        await killed.kill()
        await killed.start()
        await alice.ask("invitation_state", name="CONNECTING")
        await bob.ask("join", code=code, auth_code=auth_code)
        assert await alice.ask("invited") == "SUCCESS"
        for one in (alice, bob):
            assert await one.stop() == ""
