"""For how long the event loop is held up while something big happens: the longest stall of each kind of work.

    python bench/stalls.py [--count 10000] [--only work|join] [--where 30] [--json FILE]

A task sleeps for a millisecond, again and again, and notes by how much it was late: that is how long any other task of
an application would have waited. Where others use the machine too, the time that the loop's thread was computing says
more. Collecting garbage is part of it, and shown by itself; --freeze does what docs/benchmarks.md advises applications
to do about it.
"""

import argparse
import gc
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from dxos import Client, Config, InvitationEncoder, Space
from dxos.client.fields import F
from dxos.mesh.signal_server import serve_signal

_GUEST = "--guest"
_TICK_S = 0.001
_WAIT_S = 180.0
_TABLE_TYPE = "dxn:type:example.com/type/Item:0.1.0"


def item(number: int) -> dict[str, Any]:
    """One small object."""
    return {"title": f"Item {number}", "done": False, "n": number, "tags": ["a", "b"], "shop": {"aisle": 3}}


class StallMeter:
    """Notes the longest time for which the event loop ran nothing else.

    Args:
        where_ms: Print what the loop's thread is doing whenever it has done nothing else for so long; None: never.
    """

    def __init__(self, where_ms: float | None = None) -> None:
        self._longest_ms = self._longest_cpu_ms = self._longest_gc_ms = 0.0
        self._where_ms, self._turned_at = where_ms, time.perf_counter()
        self._thread_id, self._collecting_since = threading.get_ident(), 0.0

    async def run(self) -> None:
        """Measure, until cancelled."""
        gc.callbacks.append(self._collecting)
        if self._where_ms is not None:
            threading.Thread(target=self._watch, daemon=True).start()
        while True:
            begin, begin_cpu = time.perf_counter(), time.thread_time()
            self._turned_at = begin
            await anyio.sleep(_TICK_S)
            self._longest_ms = max(self._longest_ms, (time.perf_counter() - begin - _TICK_S) * 1e3)
            self._longest_cpu_ms = max(self._longest_cpu_ms, (time.thread_time() - begin_cpu) * 1e3)

    def take(self) -> dict[str, float]:
        """The longest stall since the last call, by the clock and by what the loop's thread itself computed."""
        longest = {"stall_ms": self._longest_ms, "stall_cpu_ms": self._longest_cpu_ms, "gc_ms": self._longest_gc_ms}
        self._longest_ms = self._longest_cpu_ms = self._longest_gc_ms = 0.0
        return longest

    def _collecting(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._collecting_since = time.thread_time()
        else:
            self._longest_gc_ms = max(self._longest_gc_ms, (time.thread_time() - self._collecting_since) * 1e3)

    def _watch(self) -> None:
        assert self._where_ms is not None
        shown_at = 0.0
        while True:
            time.sleep(0.002)
            turned_at = self._turned_at
            late_ms = (time.perf_counter() - turned_at) * 1e3
            if late_ms > self._where_ms and turned_at != shown_at:
                shown_at = turned_at
                stack = traceback.extract_stack(sys._current_frames()[self._thread_id])
                own = [f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in stack if "dxos" in one.filename]
                print(f"    held up for {late_ms:.0f} ms: {' > '.join(own[-7:])}", file=sys.stderr)


@asynccontextmanager
async def open_client(folder: str, signal_url: str | None = None) -> AsyncIterator[Client]:
    """A client with its data in that folder, and its host in this process, so that the loop has the work of both."""
    runtime: dict[str, Any] = {"client": {"storage": {"persistent": True, "dataRoot": folder}}}
    if signal_url is not None:
        runtime["services"] = {"signaling": [{"server": signal_url}]}
    async with Client(Config({"runtime": runtime}), services="local") as client:
        yield client


class Work:
    """What is done to one space, in this order; each method is one row."""

    def __init__(self, client: Client, space: Space, count: int) -> None:
        self._client, self._space, self._count = client, space, count
        self._held: list[Any] = []
        self._archive: Any = None
        self._json = self._csv = b""

    async def add_all(self) -> None:
        """Add many."""
        await self._space.db.add_all(item(number) for number in range(self._count))
        await self._space.db.flush()

    async def query(self) -> None:
        """Read all of them for the first time."""
        self._held = await self._space.db.query().run()

    async def query_again(self) -> None:
        """Read all of them, which the application holds."""
        await self._space.db.query().run()

    async def subscribe(self) -> None:
        """A subscription's first result."""
        told = anyio.Event()
        subscription = self._space.db.query().subscribe(lambda _: told.set())
        await told.wait()
        subscription.unsubscribe()

    async def index(self) -> None:
        """Make an index, and ask by it."""
        await self._space.db.query(F.n > self._count // 2).count()

    async def words(self) -> None:
        """Index the words of all texts, and search."""
        await self._space.db.query().search("item 17").run()

    async def update(self) -> None:
        """Change one property of each."""
        for one in self._held:
            if "n" in one:
                one.n = one.n + 1
                if one.n % 100 == 0:
                    await anyio.lowlevel.checkpoint()  # As an application does that has so many to change.
        await self._space.db.flush()

    async def update_at_once(self) -> None:
        """The same in one turn of the application's; its own loop is not counted."""
        for one in self._held:
            if "n" in one:
                one.n = one.n + 1
        await _let_go()
        await self._space.db.flush()

    async def export_archive(self) -> None:
        """Write an archive."""
        self._archive = await self._space.export_archive()

    async def import_archive(self) -> None:
        """Read it into a new space."""
        await self._client.spaces.import_archive(self._archive)

    async def write_json(self) -> None:
        """Write JSON."""
        self._json = await self._client.create_serializer().serialize_space(self._space)

    async def read_json(self) -> None:
        """Read it into a new space."""
        await self._client.create_serializer().deserialize_space(self._json)

    async def write_csv(self) -> None:
        """Write a table."""
        self._csv = await self._client.create_serializer().serialize_table(self._space, None)

    async def read_csv(self) -> None:
        """Read it into a new space."""
        await self._client.create_serializer().deserialize_table(self._csv, _TABLE_TYPE)

    async def compact(self) -> None:
        """Make one snapshot of each document."""
        await self._space.compact()

    async def delete(self) -> None:
        """Delete every tenth object."""
        for one in self._held[::10]:
            if "n" in one:
                self._space.db.remove(one)
        await _let_go()
        await self._space.db.flush()

    async def epoch(self) -> None:
        """Begin an epoch."""
        await self._space.create_epoch()

    async def stats(self) -> None:
        """Ask what the space takes."""
        await self._space.stats()

    async def collect(self) -> None:
        """Collect garbage while all objects are held; what a collection of the oldest generation takes."""
        gc.collect()


async def _let_go() -> None:
    """Leave out what this program itself has just held up."""
    for _ in range(3):  # The meter's turn comes after ours.
        await anyio.lowlevel.checkpoint()
    METER.take()


METER = StallMeter()
STEPS: tuple[str, ...] = tuple(name for name in vars(Work) if not name.startswith("_"))


async def measure_work(arguments: argparse.Namespace, folder: str) -> dict[str, dict[str, float]]:
    """Every step on one space; how long each took, and its longest stall."""
    found: dict[str, dict[str, float]] = {}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(METER.run)
        async with open_client(folder) as client:
            await client.halo.create_identity(display_name="Alice")
            work = Work(client, await client.create_space(name="stalls"), arguments.count)
            for name in STEPS:
                # What it builds on is done all the same.
                step: Callable[[], Awaitable[None]] = getattr(work, name)
                if arguments.freeze and name == "query_again":
                    gc.freeze()
                await anyio.sleep(0.05)
                METER.take()
                begin = time.perf_counter()
                await step()
                seconds = time.perf_counter() - begin
                await anyio.sleep(0.01)
                found[name] = METER.take() | {"seconds": seconds}
                show(name, found[name])
        tasks.cancel_scope.cancel()
    return found


async def measure_join(arguments: argparse.Namespace, folder: str) -> dict[str, dict[str, float]]:
    """A guest in a process of its own joins a space with many objects."""
    found: dict[str, dict[str, float]] = {}
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(serve_signal, "127.0.0.1", 0)
        url = f"ws://127.0.0.1:{port}/.well-known/dx/signal"
        tasks.start_soon(METER.run)
        async with open_client(folder, url) as client:
            await client.halo.create_identity(display_name="Alice")
            space = await client.create_space(name="stalls")
            await space.db.add_all(item(number) for number in range(arguments.count))
            await space.db.flush()
            shown = await space.create_invitation().wait_for(lambda one: one.auth_code is not None)
            METER.take()
            command = [sys.executable, __file__, _GUEST, url, InvitationEncoder.encode(shown), str(shown.auth_code)]
            command += ["--count", str(arguments.count)]
            if arguments.where is not None:
                command += ["--where", str(arguments.where)]
            guest = await anyio.run_process(command, stderr=None)
            host = METER.take()
        told = json.loads(guest.stdout)
        found["join_guest"] = told
        found["join_host"] = host | {"seconds": told["seconds"]}
        for name, one in found.items():
            show(name, one)
        tasks.cancel_scope.cancel()
    return found


async def be_guest(arguments: argparse.Namespace, folder: str) -> None:
    """Join, and tell how it was."""
    url, code, auth_code = arguments.guest
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(METER.run)
        async with open_client(folder, url) as client:
            await client.halo.create_identity(display_name="Bob")
            METER.take()
            begin = time.perf_counter()
            invitation = client.accept_invitation(code)
            await invitation.authenticate(auth_code)
            joined = await invitation
            assert joined.space_key is not None
            space = client.get_space(joined.space_key)
            assert space is not None
            await space.wait_until_ready()
            with anyio.fail_after(_WAIT_S):
                while await space.db.query().count() <= arguments.count:  # noqa: ASYNC110 - as an application looks.
                    await anyio.sleep(0.02)
            print(json.dumps(METER.take() | {"seconds": time.perf_counter() - begin}))
        tasks.cancel_scope.cancel()


def show(name: str, one: dict[str, float]) -> None:
    """One line, as soon as it is known."""
    computing = f"computing {one['stall_cpu_ms']:5.1f} ms, garbage {one['gc_ms']:5.1f} ms"
    print(f"{name:16} longest stall {one['stall_ms']:6.1f} ms, {computing}   in {one['seconds']:6.2f} s", flush=True)


async def measure(count: int, *, runs: int = 1, where_ms: float | None = None) -> dict[str, dict[str, float]]:
    """Everything, for `bench/run.py`: medians of the longest stall and the time by step."""
    arguments = argparse.Namespace(count=count, where=where_ms, freeze=False)
    rounds = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="dxos-bench-") as folder:
            rounds.append(await measure_work(arguments, folder) | await measure_join(arguments, folder + "/join"))
    return {
        name: {what: statistics.median(one[name][what] for one in rounds) for what in rounds[0][name]}
        for name in rounds[0]
    }


async def main(arguments: argparse.Namespace) -> None:
    """As the command line says."""
    METER._where_ms = arguments.where
    found: dict[str, dict[str, float]] = {}
    folder = tempfile.mkdtemp(prefix="dxos-bench-")
    try:
        if arguments.guest is not None:
            await be_guest(arguments, folder)
            return
        if arguments.only != "join":
            found |= await measure_work(arguments, folder + "/work")
        if arguments.only != "work":
            found |= await measure_join(arguments, folder + "/join")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure how long the event loop is held up.")
    parser.add_argument("--count", type=int, default=10_000, help="objects (default 10,000)")
    parser.add_argument("--only", choices=("work", "join"), help="one half of it")
    parser.add_argument("--where", type=float, metavar="MS", help="print what holds the loop up for longer than that")
    parser.add_argument("--freeze", action="store_true", help="call gc.freeze() after the first full query")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(_GUEST, nargs=3, help=argparse.SUPPRESS)
    anyio.run(main, parser.parse_args())
