"""What is measured of this package: one function for each group of figures, over peers in processes of their own.

The groups, and the names of their figures, are those of `js/bench.mjs`.
"""

import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

PEER = Path(__file__).with_name("peer.py")
TEMPLATE: dict[str, Any] = {"title": "Item {i}", "done": False, "n": "{i}", "tags": ["a", "b"], "shop": {"aisle": 3}}
# The JavaScript client sends at most ten updates a second; an edit alone is one that need not wait for its turn there.
EDIT_PAUSE_S = 0.2
WAIT_S = 120.0
_LINE_BYTES_MAX = 64 * 1024 * 1024

Samples = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured."""

    count: int  # Objects.
    edits: int
    repeats: int  # Of what is cheap enough to repeat within one run.
    signal_url: str


def now_ms() -> float:
    """The machine's monotonic clock, which all processes share."""
    return time.monotonic_ns() / 1e6


class PeerFailed(Exception):
    """A peer answered with an error, or ended."""


@dataclass(eq=False)
class Peer:
    """A peer in a process of its own; made by `start`."""

    process: anyio.abc.Process
    spawned_at: float
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

    async def _wait(self, found: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
        with anyio.fail_after(WAIT_S):
            while (message := found()) is None:
                if self._ended:
                    raise PeerFailed("a peer ended by itself; run it alone to see why")
                self._changed = anyio.Event()
                await self._changed.wait()
        return message

    async def event(self, check: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event that passes the check; it and all before it are forgotten."""

        def found() -> dict[str, Any] | None:
            for index, event in enumerate(self._events):
                if check(event):
                    del self._events[: index + 1]
                    return event
            return None

        return await self._wait(found)

    async def do(self, name: str, /, **fields: Any) -> dict[str, Any]:
        """Run a command; its answer with the milliseconds that it took in there."""
        assert self.process.stdin is not None
        self._next += 1
        number = self._next
        await self.process.stdin.send(json.dumps({**fields, "id": number, "do": name}).encode() + b"\n")
        message = await self._wait(lambda: self._answers.pop(number, None))
        if "error" in message:
            raise PeerFailed(f"{name}: {message['error']}")
        return {**message["ok"], "ms": message["ms"]}

    async def close(self) -> None:
        """End it in order."""
        await self.do("close")
        await self.process.wait()


class Bench:
    """Starts peers and folders, and takes them away at the end."""

    def __init__(self, settings: Settings, tasks: anyio.abc.TaskGroup, stack: AsyncExitStack) -> None:
        self.settings = settings
        self._tasks, self._stack = tasks, stack

    def folder(self) -> str:
        """A new folder."""
        made = tempfile.mkdtemp(prefix="dxos-bench-")
        self._stack.callback(shutil.rmtree, made, ignore_errors=True)
        return made

    async def start(self, folder: str, *, alone: bool = False) -> Peer:
        """A peer with its data in that folder."""
        command = [sys.executable, str(PEER), "--data", folder]
        if not alone:
            command += ["--signal", self.settings.signal_url]
        spawned_at = now_ms()
        process = await anyio.open_process(command, stderr=None)
        self._stack.callback(_kill, process)
        peer = Peer(process, spawned_at)
        self._tasks.start_soon(peer.read)
        peer.ready = await peer.event(lambda event: event["event"] == "ready")
        return peer

    async def owner(self, folder: str) -> tuple[Peer, str]:
        """A peer with an identity and a space that nothing is in."""
        peer = await self.start(folder)
        await peer.do("identity", name="Alice")
        return peer, (await peer.do("createSpace", name="bench"))["spaceId"]

    async def fill(self, peer: Peer, space: str) -> dict[str, Any]:
        """Create the objects, and flush."""
        return await peer.do("addMany", space=space, count=self.settings.count, template=TEMPLATE)

    async def join(self, host: Peer, space: str) -> tuple[Peer, float, dict[str, Any]]:
        """Let a fresh peer in; with it, when that began, and what it answered."""
        guest = await self.start(self.folder())
        await guest.do("identity", name="Bob")
        invited = await host.do("invite", space=space)
        begin = now_ms()
        joined = await guest.do("join", code=invited["code"], authCode=invited["authCode"])
        return guest, begin, joined


@asynccontextmanager
async def open_bench(settings: Settings) -> AsyncIterator[Bench]:
    """A bench whose peers and folders are gone at the end."""
    async with anyio.create_task_group() as tasks:
        async with AsyncExitStack() as stack:
            yield Bench(settings, tasks, stack)
        tasks.cancel_scope.cancel()


def _kill(process: anyio.abc.Process) -> None:
    if process.returncode is None:
        process.kill()


def disk_bytes(root: str) -> int:
    """The length of all files in a folder."""
    return sum(path.stat().st_size for path in Path(root).rglob("*") if path.is_file())


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies; between two neighbours the nearest is taken."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


async def measure_start(bench: Bench) -> Samples:
    """First steps of a new profile."""
    samples: Samples = {
        "load_code_ms": [],
        "initialize_ms": [],
        "create_identity_ms": [],
        "create_space_ms": [],
    }
    for _ in range(bench.settings.repeats):
        peer = await bench.start(bench.folder())
        samples["load_code_ms"].append(peer.ready["loadMs"])
        samples["initialize_ms"].append(peer.ready["initializeMs"])
        samples["create_identity_ms"].append((await peer.do("identity", name="Alice"))["createMs"])
        samples["create_space_ms"].append((await peer.do("createSpace", name="bench"))["ms"])
        await peer.close()
    return samples


async def measure_objects(bench: Bench) -> Samples:
    """Many objects on one peer: created, changed, on disk, opened again, in memory."""
    samples: Samples = {}
    count, folder = bench.settings.count, bench.folder()
    peer, space = await bench.owner(folder)
    # What a profile with an empty space takes is not charged to the objects.
    await peer.close()
    empty_bytes = disk_bytes(folder)
    peer = await bench.start(folder)
    await peer.do("waitReady", space=space)
    samples["create_objects_ms"] = [(await bench.fill(peer, space))["ms"]]
    samples["rss_after_create_bytes"] = [(await peer.do("rss"))["rssBytes"]]
    samples["update_objects_ms"] = [(await peer.do("updateMany", space=space, set={"done": True}))["updateMs"]]
    await peer.close()
    samples["disk_bytes_per_object"] = [(disk_bytes(folder) - empty_bytes) / count]

    peer = await bench.start(folder)

    async def full_query() -> float:
        await peer.do("waitReady", space=space)
        while (await peer.do("count", space=space))["count"] < count:
            pass
        return now_ms()

    opened_at = await full_query()
    samples["reopen_fresh_from_spawn_ms"] = [opened_at - peer.spawned_at]
    samples["reopen_fresh_from_initialize_ms"] = [opened_at - peer.ready["at"] + peer.ready["initializeMs"]]
    samples["rss_after_reopen_bytes"] = [(await peer.do("rss"))["rssBytes"]]
    reopened = await peer.do("reopen")
    begin = now_ms()
    samples["reopen_same_process_ms"] = [await full_query() - begin + reopened["initializeMs"]]
    await peer.close()
    return samples


async def measure_join(bench: Bench) -> Samples:
    """Many objects to a peer that joins."""
    host, space = await bench.owner(bench.folder())
    await bench.fill(host, space)
    guest, begin, joined = await bench.join(host, space)
    await guest.do("waitFor", space=space, count=bench.settings.count)
    total_ms = now_ms() - begin
    await guest.close()
    await host.close()
    return {"join_objects_ms": [total_ms], "join_objects_after_ready_ms": [total_ms - joined["readyMs"]]}


async def measure_edit(bench: Bench) -> Samples:
    """One edit after another, from the line that makes it to the other peer's subscriber."""
    host, space = await bench.owner(bench.folder())
    object_id = (await host.do("add", space=space, data={"title": "Item", "n": -1}))["objectId"]
    guest, _, _ = await bench.join(host, space)
    await guest.do("waitFor", space=space, objectId=object_id)
    await guest.do("watch", space=space, objectId=object_id)
    n = 0

    async def delays(pause_s: float) -> list[float]:
        nonlocal n
        taken = []
        for _ in range(bench.settings.edits):
            wanted = n
            updated = await host.do("update", space=space, objectId=object_id, set={"n": wanted})
            seen = await guest.event(lambda event: event["object"]["data"].get("n") == wanted)  # noqa: B023
            taken.append(seen["at"] - updated["at"])
            n += 1
            await anyio.sleep(pause_s)
        return taken

    alone = await delays(EDIT_PAUSE_S)
    hurried = await delays(0)
    await guest.close()
    await host.close()
    return {
        "edit_p50_ms": [quantile(alone, 0.5)],
        "edit_p90_ms": [quantile(alone, 0.9)],
        "edit_p99_ms": [quantile(alone, 0.99)],
        "edit_back_to_back_p50_ms": [quantile(hurried, 0.5)],
        "edit_back_to_back_p99_ms": [quantile(hurried, 0.99)],
    }


async def measure_invitation(bench: Bench) -> Samples:
    """A guest who knows the code: until admitted, and until the space can be used."""
    samples: Samples = {"invitation_handshake_ms": [], "invitation_ready_ms": []}
    host, space = await bench.owner(bench.folder())
    for _ in range(bench.settings.repeats):
        guest, _, joined = await bench.join(host, space)
        samples["invitation_handshake_ms"].append(joined["handshakeMs"])
        samples["invitation_ready_ms"].append(joined["readyMs"])
        await guest.close()
    await host.close()
    return samples


GROUPS: dict[str, Callable[[Bench], Awaitable[Samples]]] = {
    "start": measure_start,
    "objects": measure_objects,
    "join": measure_join,
    "edit": measure_edit,
    "invitation": measure_invitation,
}
