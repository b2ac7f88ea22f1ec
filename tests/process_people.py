"""People with profiles on disk, a real signalling server and real sockets; and programs that are run beside a test."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from dxos import AuthenticatingInvitation, CancellableInvitation, Client, Config, Invitation, InvitationEncoder, Space
from dxos.mesh.signal_server import serve_signal

WAIT_S = 20.0
NOWHERE = "ws://127.0.0.1:9/.well-known/dx/signal"  # The port of the discard service, where nobody listens.
SOURCE = Path(__file__).parents[1] / "src"


def settings(path: Path | None, *servers: str) -> Config:
    """Settings of a profile, in memory without a path; with the host in this process, which is what is tested."""
    storage = {"persistent": True, "dataRoot": str(path)} if path is not None else {"persistent": False}
    signaling = [{"server": server} for server in servers]
    client = {"storage": storage, "services": "local"}
    return Config({"runtime": {"client": client, "services": {"signaling": signaling}}})


@asynccontextmanager
async def signalling() -> AsyncIterator[str]:
    """A signalling server; its URL."""
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(serve_signal, "127.0.0.1", 0)
        yield f"ws://127.0.0.1:{port}/.well-known/dx/signal"
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def person(path: Path | None, *servers: str, name: str = "Alice") -> AsyncIterator[Client]:
    """A client with an identity."""
    async with Client(settings(path, *servers)) as client:
        if client.halo.identity.get() is None:
            await client.halo.create_identity(display_name=name)
        yield client


async def shown(invitation: CancellableInvitation) -> tuple[str, str]:
    """The code of an invitation and its authentication code, once it waits for guests."""
    found = await invitation.wait_for(lambda one: one.auth_code is not None, timeout_s=WAIT_S)
    assert found.auth_code is not None
    return InvitationEncoder.encode(found), found.auth_code


def wrong(auth_code: str) -> str:
    """Another code."""
    return f"{(int(auth_code) + 1) % 1_000_000:06}"


async def join(client: Client, code: str, auth_code: str) -> Space:
    """Join a space and wait until it is ready."""
    guest = client.accept_invitation(code)
    await guest.authenticate(auth_code)
    space = client.get_space((await guest).space_key)
    assert space is not None
    return await space.wait_until_ready(WAIT_S)


async def raised(invitation: CancellableInvitation | AuthenticatingInvitation) -> Invitation:
    """Await an invitation that should fail; bounded."""
    with anyio.fail_after(WAIT_S):
        return await invitation


def program(code: str, *arguments: str | Path, **environ: str) -> "subprocess.Popen[str]":
    """Run Python code in a process of its own, with pipes for all that it says."""
    return subprocess.Popen(
        [sys.executable, "-W", "default", "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(Path(__file__).parent)]), **environ},
    )


class Remote:
    """A client in a process of its own; see `process_peer.py` for what can be asked of it."""

    def __init__(self, path: Path, *servers: str, name: str = "Alice") -> None:
        self.path, self.name = path, name
        self._arguments = [sys.executable, str(Path(__file__).parent / "process_peer.py"), str(path), name, *servers]
        self._process: anyio.abc.Process | None = None
        self._lines: AsyncIterator[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> "Remote":
        """Start the process and wait until its client is initialized."""
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(Path(__file__).parent)])}
        self._process = await anyio.open_process(self._arguments, env=environ, stderr=subprocess.PIPE)
        assert self._process.stdout is not None
        self._lines = _lines(self._process.stdout)
        assert await self.answer() == "ready"
        return self

    async def ask(self, do: str, **options: Any) -> Any:
        """Have something done; its answer, or an AssertionError with what was raised there."""
        await self.tell(do, **options)
        return await self.answer()

    async def tell(self, do: str, **options: Any) -> None:
        """Ask, and wait for no answer."""
        assert self._process is not None
        assert self._process.stdin is not None
        await self._process.stdin.send((json.dumps({"do": do, **options}) + "\n").encode())

    async def answer(self) -> Any:
        """The answer to what was told before."""
        assert self._lines is not None
        with anyio.fail_after(2 * WAIT_S):
            line = await anext(self._lines, None)
        assert line is not None, f"{self.name} ended: {await self.said()}"
        answer = json.loads(line)
        assert "error" not in answer, f"{self.name}: {answer}"
        return answer["result"]

    async def kill(self) -> None:
        """End the process as a loss of power does."""
        assert self._process is not None
        self._process.kill()
        await self._process.aclose()

    async def stop(self) -> str:
        """End it in order; what it wrote on stderr, which should be nothing."""
        assert self._process is not None
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        with anyio.fail_after(WAIT_S):
            said = await self.said()
            code = await self._process.wait()
        await self._process.aclose()
        assert code == 0, said
        return said

    async def said(self) -> str:
        """What it wrote on stderr until its end."""
        assert self._process is not None
        assert self._process.stderr is not None
        return "".join([part.decode() async for part in self._process.stderr])

    async def __aenter__(self) -> "Remote":
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            with anyio.CancelScope(shield=True):
                await self._process.aclose()


async def _lines(stream: anyio.abc.ByteReceiveStream) -> AsyncIterator[str]:
    waiting = b""
    async for part in stream:
        *whole, waiting = (waiting + part).split(b"\n")
        for line in whole:
            yield line.decode()
