"""The peers that are measured: processes of ours or of the JavaScript client, driven by the same lines of JSON."""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

_LINE_BYTES_MAX = 64 * 1024 * 1024
_HERE = Path(__file__).parent
JS_FOLDER = _HERE.parent / "tests" / "interop"
TEMPLATE: dict[str, Any] = {"title": "Item {i}", "done": False, "n": "{i}", "tags": ["a", "b"], "shop": {"aisle": 3}}


class Side(Enum):
    """Whose client it is."""

    OURS = "python"
    JS = "js"


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured."""

    count: int  # Objects.
    edits: int
    repeats: int  # Of what is cheap enough to repeat within one run.
    step_s: float  # No step is waited for longer than this.
    signal_url: str
    services: str = "local"  # Where the host of our peers is: in their process, or in a worker.
    kills: int = 24  # Of processes that share a profile.


class PeerFailed(Exception):
    """A peer answered with an error, or ended."""


class StepTooLong(Exception):
    """A step was not done in the time that it may take; what builds on it cannot be measured."""


def now_ms() -> float:
    """The machine's monotonic clock, which all processes share."""
    return time.monotonic_ns() / 1e6


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies; between two neighbours the nearest is taken."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(eq=False)
class Peer:
    """A peer in a process of its own; made by `Bench.start`."""

    process: anyio.abc.Process
    spawned_at: float
    wait_s: float
    ready: dict[str, Any] = field(default_factory=dict)
    _next: int = 0
    _answers: dict[int, dict[str, Any]] = field(default_factory=dict)
    _events: list[dict[str, Any]] = field(default_factory=list)
    _changed: anyio.Event = field(default_factory=anyio.Event)
    _ended: bool = False

    async def read(self) -> None:
        """Take in what the peer prints, until it ends."""
        assert self.process.stdout is not None
        lines = BufferedByteReceiveStream(self.process.stdout)
        while True:
            try:
                message = json.loads(await lines.receive_until(b"\n", _LINE_BYTES_MAX))
            except (anyio.IncompleteRead, anyio.EndOfStream):
                self._ended = True
                self._changed.set()
                return
            if "event" in message:
                self._events.append(message)
            else:
                self._answers[message["id"]] = message
            self._changed.set()

    async def _wait(self, what: str, found: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
        try:
            with anyio.fail_after(self.wait_s):
                while (message := found()) is None:
                    if self._ended:
                        raise PeerFailed(f"{what}: a peer ended by itself; run it alone to see why")
                    self._changed = anyio.Event()
                    await self._changed.wait()
        except TimeoutError as error:
            raise StepTooLong(what) from error
        return message

    async def event(self, check: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event that passes the check; it and all before it are forgotten."""

        def found() -> dict[str, Any] | None:
            for index, event in enumerate(self._events):
                if check(event):
                    del self._events[: index + 1]
                    return event
            return None

        return await self._wait("an event", found)

    async def do(self, name: str, /, **fields: Any) -> dict[str, Any]:
        """Run a command; its answer with the milliseconds that it took in there."""
        assert self.process.stdin is not None
        self._next += 1
        number = self._next
        await self.process.stdin.send(json.dumps({**fields, "id": number, "do": name}).encode() + b"\n")
        message = await self._wait(name, lambda: self._answers.pop(number, None))
        if "error" in message:
            raise PeerFailed(f"{name}: {message['error']}")
        return {**message["ok"], "ms": message["ms"]}

    async def close(self) -> None:
        """End it in order."""
        await self.do("close")
        await self.process.wait()


@dataclass(frozen=True, slots=True)
class Filled:
    """A profile with objects in a space, closed; to be copied and not to be opened."""

    folder: str
    space: str
    empty_bytes: int  # What the profile took before the objects came.


Shelf = dict[tuple[Side, int], Filled]  # Profiles that one group has filled and others use.


class Bench:
    """Starts peers and folders, takes them away at the end, and takes down the figures.

    Args:
        side: Whose peers.
        settings: How much.
        tasks: Reads what the peers say.
        stack: Ends the peers and removes the folders.
        shelf: Of profiles that outlive this bench.
        shelf_stack: Removes those.
    """

    def __init__(
        self,
        side: Side,
        settings: Settings,
        tasks: anyio.abc.TaskGroup,
        stack: AsyncExitStack,
        shelf: Shelf,
        shelf_stack: AsyncExitStack,
    ) -> None:
        self.side, self.settings = side, settings
        self.samples: dict[str, list[float]] = {}
        self.failed_joins = 0
        self._tasks, self._stack, self._shelf, self._shelf_stack = tasks, stack, shelf, shelf_stack

    def note(self, key: str, *values: float) -> None:
        """Take down a figure."""
        self.samples.setdefault(key, []).extend(values)

    async def step(self, key: str, doing: Awaitable[dict[str, Any]], field: str = "ms") -> dict[str, Any]:
        """Take down what a command took; infinity, and StepTooLong, if that is longer than anybody waits."""
        try:
            answer = await doing
        except StepTooLong:
            self.note(key, math.inf)
            raise
        found = answer[field]
        self.note(key, *(found if isinstance(found, list) else [found]))
        return answer

    def folder(self, stack: AsyncExitStack | None = None) -> str:
        """A new folder."""
        made = tempfile.mkdtemp(prefix="dxos-bench-")
        (stack or self._stack).callback(shutil.rmtree, made, ignore_errors=True)
        return made

    async def start(self, folder: str, *, stalls: bool = False) -> Peer:
        """A peer with its data in that folder."""
        if self.side is Side.JS:
            # Garbage is collected before memory is measured, which Node allows only when started so.
            command = ["node", "--expose-gc", str(JS_FOLDER / "peer.mjs")]
        else:
            command = [sys.executable, str(_HERE / "peer.py"), "--services", self.settings.services]
        command += ["--data", folder, "--signal", self.settings.signal_url]
        return await self._spawn(command + (["--stalls"] if stalls else []))

    async def share(self, folder: str, services: str = "worker") -> Peer:
        """One of many processes with the profile in that folder."""
        return await self._spawn([sys.executable, str(_HERE / "sharer.py"), folder, services])

    async def _spawn(self, command: list[str]) -> Peer:
        # What is installed is compiled, so what is measured is too, from its second start on.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        spawned_at = now_ms()
        # What the JavaScript client says of its timers would bury the progress.
        stderr = None if self.side is Side.OURS else subprocess.DEVNULL
        process = await anyio.open_process(command, stderr=stderr, env=environment)
        self._stack.callback(_kill, process)
        peer = Peer(process, spawned_at, self.settings.step_s)
        self._tasks.start_soon(peer.read)
        peer.ready = await peer.event(lambda event: event["event"] == "ready")
        return peer

    async def owner(self, folder: str) -> tuple[Peer, str]:
        """A peer with an identity and a space that nothing is in."""
        peer = await self.start(folder)
        await peer.do("identity", name="Alice")
        return peer, (await peer.do("createSpace", name="bench"))["spaceId"]

    async def opened(self, folder: str, space: str, *, stalls: bool = False) -> Peer:
        """A peer on a profile that exists, when its space is ready."""
        peer = await self.start(folder, stalls=stalls)
        await self.wait_ready(peer, space)
        return peer

    async def wait_ready(self, peer: Peer, space: str) -> None:
        """Until the space is ready."""
        await peer.do("waitReady", space=space, timeoutMs=self.settings.step_s * 1_000)

    async def wait_count(self, peer: Peer, space: str) -> None:
        """Until all objects are there."""
        fields = {"space": space, "count": self.settings.count, "timeoutMs": self.settings.step_s * 1_000}
        await peer.do("waitForCount", **fields)

    async def fill(self, peer: Peer, space: str) -> dict[str, Any]:
        """Create the objects, and flush."""
        return await peer.do("addMany", space=space, count=self.settings.count, template=TEMPLATE, ids=False)

    def keep(self, filled: Filled) -> None:
        """Let other groups use a profile."""
        self._shelf[self.side, self.settings.count] = filled

    def lasting_folder(self) -> str:
        """A new folder that outlives this bench."""
        return self.folder(self._shelf_stack)

    async def filled(self) -> Filled:
        """A profile of one's own with all objects; made unless there is one to copy."""
        found = self._shelf.get((self.side, self.settings.count))
        if found is None:
            folder = self.lasting_folder()
            peer, space = await self.owner(folder)
            await peer.close()
            empty_bytes = disk_bytes(folder)
            peer = await self.opened(folder, space)
            await self.fill(peer, space)
            await peer.close()
            found = Filled(folder, space, empty_bytes)
            self.keep(found)
        copy = self.folder()
        await anyio.to_thread.run_sync(lambda: shutil.copytree(found.folder, copy, dirs_exist_ok=True))
        return Filled(copy, found.space, found.empty_bytes)

    async def join(self, host: Peer, space: str, *, stalls: bool = False) -> tuple[Peer, float, dict[str, Any]]:
        """Let a fresh peer in; with it, when that began, and what it answered.

        Two JavaScript peers now and then fail at their very first call, because the guest may ask before the host is
        ready to be asked; how often is counted, for a failed try is not a slow one.
        """
        guest = await self.start(self.folder(), stalls=stalls)
        await guest.do("identity", name="Bob")
        if stalls:
            await guest.do("stall")  # From here on.
        invited = await host.do("invite", space=space)
        fields = {"code": invited["code"], "authCode": invited["authCode"], "timeoutMs": self.settings.step_s * 1_000}
        while True:
            begin = now_ms()
            try:
                return guest, begin, await guest.do("join", **fields)
            except PeerFailed:
                self.failed_joins += 1
                if self.side is Side.OURS or self.failed_joins >= 3:
                    raise


def _kill(process: anyio.abc.Process) -> None:
    if process.returncode is None:
        process.kill()


def disk_bytes(root: str) -> int:
    """The length of all files in a folder."""
    return sum(path.stat().st_size for path in Path(root).rglob("*") if path.is_file())
