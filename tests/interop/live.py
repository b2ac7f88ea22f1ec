"""The two kinds of peers of the live tests: JavaScript ones as child processes, and the signalling server between them.

Reading is done by threads, so that one process serves many tests, each with an event loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import anyio

from dxos import CancellableInvitation, Client, Config, InvitationEncoder, InvitationState, Space
from dxos.errors import DeadlineError, ObjectNotFoundError

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
WAIT_S: Final = 30.0
POLL_S: Final = 0.02
TAIL_LINES: Final = 40


class JavaScriptError(Exception):
    """What a JavaScript peer answered instead of a result."""


class Process:
    """A child process whose lines are read by threads, and which never outlives the tests."""

    def __init__(self, *command: str, environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=ROOT,
            env={**{key: value for key, value in os.environ.items() if not key.startswith("DX_")}, **environ},
        )
        self._said: deque[str] = deque(maxlen=TAIL_LINES)
        self._threads = [
            threading.Thread(target=self._read_out, daemon=True),
            threading.Thread(target=self._read_said, daemon=True),
        ]

    def _begin(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def tail(self) -> str:
        """The last lines on standard error."""
        return "".join(self._said)

    def _read_said(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line)

    def _read_out(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.receive(line)
        self.ended()

    def receive(self, line: str) -> None:
        """One line of standard output."""
        raise NotImplementedError

    def ended(self) -> None:
        """Standard output has ended."""

    def stop(self) -> None:
        """End the process, if need be by force."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(5)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def kill(self) -> None:
        """End the process as a power cut would."""
        self._process.kill()
        self.stop()


class SignalServer(Process):
    """`dx signal serve`, on a free port unless one is given."""

    def __init__(self, port: int = 0) -> None:
        self._url: Future[str] = Future()
        super().__init__(
            sys.executable, "-m", "dxos.cli", "signal", "serve", "--port", str(port), "--json",
            environ={"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self._begin()
        try:
            self.url = self._url.result(WAIT_S)
        except BaseException:
            self.stop()
            raise

    @property
    def port(self) -> int:
        """Where it listens, or did."""
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def receive(self, line: str) -> None:
        """The first line says where it listens."""
        if not self._url.done():
            self._url.set_result(json.loads(line)["listening"])

    def ended(self) -> None:
        """It could not even begin."""
        if not self._url.done():
            self._url.set_exception(RuntimeError(self.tail))


class JavaScriptPeer(Process):
    """`peer.mjs`: a live `@dxos/client` 0.8.3."""

    def __init__(self, signal: str, data: Path | None = None) -> None:
        self._numbers = itertools.count(1)
        self._answers: dict[int, Future[dict[str, Any]]] = {}
        self._ready: Future[dict[str, Any]] = Future()
        self.events: list[dict[str, Any]] = []
        self.identity: dict[str, Any] = {}
        storage = ["--memory"] if data is None else ["--data", str(data)]
        super().__init__("node", str(HERE / "peer.mjs"), "--signal", signal, *storage, environ={"LOG_FILTER": "warn"})
        self._begin()

    def receive(self, line: str) -> None:
        """An answer or an event."""
        message = json.loads(line)
        if "event" in message:
            self.events.append(message)
            if message["event"] == "ready":
                self._ready.set_result(message)
            return
        answer = self._answers.pop(message["id"], None)
        if answer is None or answer.cancelled():
            return
        if "error" in message:
            answer.set_exception(JavaScriptError(message["error"]))
        else:
            answer.set_result(message["ok"])

    def ended(self) -> None:
        """Nobody answers any more."""
        for future in (self._ready, *self._answers.values()):
            if not future.done():
                future.set_exception(JavaScriptError(f"the process has ended: {self.tail}"))

    async def open(self, name: str | None = None) -> JavaScriptPeer:
        """Wait until the client works; with a name, as that identity."""
        with anyio.fail_after(WAIT_S):
            await asyncio.wrap_future(self._ready)
        if name is not None:
            self.identity = await self.do("identity", name=name)
        return self

    def ask(self, command: str, /, **arguments: Any) -> asyncio.Future[dict[str, Any]]:
        """Send a command; the answer is awaited later."""
        number = next(self._numbers)
        future = self._answers[number] = Future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "do": command, **arguments}) + "\n")
        return asyncio.wrap_future(future)

    async def do(self, command: str, /, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        with anyio.fail_after(2 * WAIT_S):
            return await self.ask(command, **arguments)

    async def objects(self, space: str, **arguments: Any) -> list[dict[str, Any]]:
        """Wait for objects; their properties, in the order of their ids."""
        found: list[dict[str, Any]] = (await self.do("waitFor", space=space, **arguments))["objects"]
        return [one["data"] for one in sorted(found, key=lambda one: str(one["id"]))]

    async def sees(self, space: str, object_id: str, match: dict[str, Any], **arguments: Any) -> dict[str, Any]:
        """Wait until one object has these values."""
        found = await self.do("waitFor", space=space, objectId=object_id, match=match, **arguments)
        result: dict[str, Any] = found["objects"][0]["data"]
        return result

    async def event(self, kind: str, /, **fields: Any) -> dict[str, Any]:
        """Wait for an event with these fields, which may have come already."""

        def find() -> dict[str, Any] | None:
            return next(
                (
                    one
                    for one in list(self.events)
                    if one["event"] == kind and all(one.get(name) == value for name, value in fields.items())
                ),
                None,
            )

        found = await until(find, f"the event {kind} {fields}")
        assert isinstance(found, dict)
        return found

    async def presence(self, space: str) -> dict[str, str]:
        """Who is online, by display name."""
        members = (await self.do("members", space=space))["members"]
        return {str(one["displayName"]): str(one["presence"]) for one in members}


async def until(condition: Callable[[], Any | Awaitable[Any]], what: str = "", *, seconds: float = WAIT_S) -> Any:
    """Poll until a condition holds; gives what it gave."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline:
            raise DeadlineError(f"not within {seconds} s: {what or inspect.getsource(condition).strip()}")
        await anyio.sleep(POLL_S)


def config(signal: str, data: Path) -> Config:
    """Settings of a Python client on disk."""
    return Config(
        {
            "runtime": {
                "client": {"storage": {"persistent": True, "dataRoot": str(data)}, "services": "local"},
                "services": {"signaling": [{"server": signal}]},
            }
        }
    )


async def sees(space: Space, object_id: str, **values: Any) -> Any:
    """Wait until a Python space has an object with these values; gives the object."""

    async def look() -> Any:
        try:
            found = await space.db.get(object_id)
        except ObjectNotFoundError:
            return None
        return found if all(found.to_dict().get(name) == value for name, value in values.items()) else None

    return await until(look, f"object {object_id} with {values} in {space!r}")


async def counts(space: Space, wanted: int) -> None:
    """Wait until a Python space has so many objects, that of its properties not counted."""

    async def look() -> bool:
        return await space.db.query().count() - 1 == wanted

    await until(look, f"{wanted} objects in {space!r}")


def presence(space: Space) -> dict[str, str]:
    """Who is online, as Python sees it, by display name."""
    return {str(one.profile.display_name): one.presence.name for one in space.members.get()}


@asynccontextmanager
async def python(signal: str, data: Path, name: str) -> AsyncIterator[Client]:
    """A Python client on disk; the first time, it gets an identity of that name."""
    async with Client(config(signal, data)) as client:
        if client.halo.identity.get() is None:
            await client.halo.create_identity(name)
        yield client


async def join(client: Client, invitation: dict[str, Any]) -> Space:
    """A Python client joins with what a JavaScript peer answered to `invite`, or `shown` gave."""
    guest = client.accept_invitation(InvitationEncoder.decode(invitation["code"]))
    if invitation.get("authCode"):
        await guest.authenticate(invitation["authCode"])
    with anyio.fail_after(WAIT_S):
        joined = await guest
    assert joined.space_key is not None
    space = client.get_space(joined.space_key)
    assert space is not None
    return await space.wait_until_ready(WAIT_S)


async def shown(invitation: CancellableInvitation) -> dict[str, Any]:
    """What the host's user shows the guest: the arguments of a JavaScript peer's `join`."""
    hosted = await invitation.wait_for(lambda one: one.state is InvitationState.CONNECTING, WAIT_S)
    given = {} if hosted.auth_code is None else {"authCode": hosted.auth_code}
    return {"code": InvitationEncoder.encode(hosted), **given}


async def welcome(space: Space, js: JavaScriptPeer, **options: Any) -> dict[str, Any]:
    """A JavaScript peer joins a Python space and waits until it is READY."""
    invitation = space.create_invitation(**options)
    result = await js.do("join", **await shown(invitation))
    await invitation.wait_for(lambda one: one.state is InvitationState.SUCCESS, WAIT_S)
    return result


async def both_online(js: JavaScriptPeer, space: Space, *names: str) -> None:
    """Wait until the JavaScript and the Python side show all of these as online."""
    online = dict.fromkeys(names, "ONLINE")
    await until(lambda: presence(space) == online, f"all online for Python: {presence(space)}")

    async def look() -> bool:
        return await js.presence(space.id) == online

    await until(look, "all online for JavaScript")
