"""One of many processes that share a profile: what an application imports and nothing else, driven as `peer.py` is."""

import time

_STARTED_NS = time.monotonic_ns()

import json  # noqa: E402 - the time that the imports take is measured.
import resource  # noqa: E402
import sys  # noqa: E402
from collections.abc import Awaitable, Callable  # noqa: E402
from typing import Any, cast  # noqa: E402

import anyio  # noqa: E402
import anyio.abc  # noqa: E402

from dxos import Client, EchoObject, Space  # noqa: E402

_LOADED_NS = time.monotonic_ns()
_OWN_OBJECTS = 20

Command = dict[str, Any]


def now_ms() -> float:
    """The machine's monotonic clock, which all processes share."""
    return time.monotonic_ns() / 1e6


def say(message: dict[str, Any]) -> None:
    """Print one line for the one who drives this process."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def resident_bytes() -> int:
    """What this process has in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Sharer:
    """The commands on one client; the space is the first one."""

    def __init__(self, client: Client, tasks: anyio.abc.TaskGroup) -> None:
        self._client, self._tasks = client, tasks
        self._own: list[EchoObject] = []
        self._seen: dict[str, int] = {}  # What the subscription was told last, by object.
        self._changed = anyio.Event()
        self._acknowledged: list[float] = []
        self._journal_scope: anyio.CancelScope | None = None
        self._edits = 0
        self._watched: list[float] = []

    def _space(self) -> Space:
        return self._client.spaces.get()[0]

    async def do_identity(self, command: Command) -> dict[str, Any]:
        await self._client.halo.create_identity(display_name=command["name"])
        await self._client.create_space(name="bench")
        return {}

    async def do_fill(self, command: Command) -> dict[str, Any]:
        db = self._space().db
        await db.add_all({"title": f"Item {n}", "n": n, "tags": ["a", "b"]} for n in range(command["count"]))
        await db.create_index("n")
        await db.flush()
        return {"spaceId": self._space().id}

    async def do_rss(self, _: Command) -> dict[str, Any]:
        return {"rssBytes": resident_bytes()}

    async def do_calls(self, command: Command) -> dict[str, Any]:
        """Calls that do nothing."""
        services = self._client._require().services  # Without what a client does with an answer.
        taken = []
        for _ in range(command["count"]):
            begin = now_ms()
            await services.system.get_platform()
            taken.append(now_ms() - begin)
        return {"callMs": taken}

    # --- An edit, seen by another ---------------------------------------------------------------------------------

    async def do_clock(self, command: Command) -> dict[str, Any]:
        """Write the time into an object, with pauses."""
        db = self._space().db
        made = db.add({"kind": "clock", "at": 0.0})
        await db.flush()
        for _ in range(command["count"]):
            await anyio.sleep(command["pauseMs"] / 1_000)
            made.at = now_ms()
        await db.flush()
        return {}

    async def do_watch(self, _: Command) -> dict[str, Any]:
        """See these edits."""
        ready = anyio.Event()

        def tell(update: Any) -> None:
            at = now_ms()
            ready.set()
            self._watched += [at - one.at for one in update.changed if one.at]

        self._space().db.query(kind="clock").subscribe(tell)
        await ready.wait()
        return {}

    async def do_watched(self, _: Command) -> dict[str, Any]:
        return {"seenMs": self._watched}

    # --- Everybody edits ------------------------------------------------------------------------------------------

    async def do_prepare(self, command: Command) -> dict[str, Any]:
        """Make objects of one's own, and follow everybody's."""
        await self._space().wait_until_ready()
        db = self._space().db
        self._own = [db.add({"kind": "own", "count": 0}) for _ in range(_OWN_OBJECTS)]
        await db.flush()

        def tell(update: Any) -> None:
            for one in (*update.added, *update.changed):
                self._seen[one.id] = one.count
            event, self._changed = self._changed, anyio.Event()
            event.set()

        if command["follow"]:
            db.query(kind="own").subscribe(tell)
        return {}

    async def do_edit(self, command: Command) -> dict[str, Any]:
        """So many edits of single fields in each second, for some seconds, until all are acknowledged."""
        db, begin = self._space().db, now_ms()
        done, total = 0, int(command["rate"] * command["seconds"])
        while done < total:
            due = min(total, int((now_ms() - begin) / 1_000 * command["rate"]) + 1)
            for number in range(done, due):
                self._own[number % _OWN_OBJECTS].count += 1
            done = due
            wait_ms = begin + done * 1_000 / command["rate"] - now_ms()
            await anyio.sleep(max(0, wait_ms) / 1_000)
        await db.flush()
        return {"beginAt": begin, "endAt": now_ms(), "edits": done}

    async def do_await(self, command: Command) -> dict[str, Any]:
        """Until the subscription has told of so many edits of everybody."""
        with anyio.fail_after(60):
            while sum(self._seen.values()) < command["count"]:
                await self._changed.wait()
        return {"count": sum(self._seen.values()), "at": now_ms()}

    async def do_ask(self, _: Command) -> dict[str, Any]:
        return {"count": sum(one.count for one in await self._space().db.query(kind="own").run())}

    # --- Going on while others are killed -------------------------------------------------------------------------

    async def do_journal(self, _: Command) -> dict[str, Any]:
        """Edit from now on, one edit after another, each until it is acknowledged."""
        db = self._space().db
        await self._space().wait_until_ready()
        made = db.add({"kind": "journal", "number": 0})
        await db.flush()

        async def run() -> None:
            with anyio.CancelScope() as self._journal_scope:
                while True:
                    async with db.batch():
                        made.number = self._edits + 1
                    self._edits += 1
                    self._acknowledged.append(now_ms())
                    await anyio.sleep(0.002)

        self._tasks.start_soon(run)
        return {}

    def stop_journal(self) -> None:
        """Edit no more."""
        if self._journal_scope is not None:
            self._journal_scope.cancel()

    async def do_acknowledged(self, _: Command) -> dict[str, Any]:
        """When edits were acknowledged since the last such question, and for the last one that was before."""
        found, self._acknowledged = self._acknowledged, self._acknowledged[-1:]
        return {"at": found, "edits": self._edits}

    # --- Reading --------------------------------------------------------------------------------------------------

    async def do_read(self, command: Command) -> dict[str, Any]:
        """All objects, one, and a page by an index; through the worker."""
        db = self._space().db
        taken: dict[str, list[float]] = {"allMs": [], "getMs": [], "pageMs": []}
        await self._space().wait_until_ready()
        one = (await db.query(n=1).run())[0].id
        for _ in range(command["count"]):
            begin = now_ms()
            held = await db.query().run()
            taken["allMs"].append(now_ms() - begin)
            assert len(held) >= command["objects"]
            del held
        for name, read in (
            ("getMs", lambda: db.get(one)),
            ("pageMs", lambda: db.query().order_by("n").limit(50).run()),
        ):
            for _ in range(20 * command["count"]):
                begin = now_ms()
                await read()
                taken[name].append(now_ms() - begin)
        return taken

    async def answer(self, command: Command) -> None:
        """Run one command and print its answer."""
        begin = now_ms()
        function: Callable[[Command], Awaitable[dict[str, Any]]] = getattr(self, f"do_{command['do']}")
        try:
            result = await function(command)
        except Exception as error:  # noqa: BLE001 - the driver is told, and decides.
            say({"id": command["id"], "error": f"{type(error).__name__}: {error}"})
        else:
            say({"id": command["id"], "ok": result, "ms": now_ms() - begin})


async def main(folder: str, services: str) -> None:
    """Serve commands until `close` or the end of the input."""
    assert services in ("local", "worker"), services
    client = Client(
        {"runtime": {"client": {"storage": {"persistent": True, "dataRoot": folder}}}}, services=cast(Any, services)
    )
    begin = now_ms()
    await client.initialize()
    at = now_ms()
    async with anyio.create_task_group() as tasks:
        sharer = Sharer(client, tasks)
        load_ms = (_LOADED_NS - _STARTED_NS) / 1e6
        say({"event": "ready", "at": at, "loadMs": load_ms, "initializeMs": at - begin, "rssBytes": resident_bytes()})
        async for line in anyio.wrap_file(sys.stdin):
            command = json.loads(line)
            if command["do"] == "close":
                sharer.stop_journal()
                await client.destroy()
                say({"id": command["id"], "ok": {}, "ms": 0})
                break
            tasks.start_soon(sharer.answer, command)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
