"""One Python peer in a process of its own, driven by lines of JSON: the Python side of the benchmark.

    {"id": 1, "do": "createSpace", "name": "bench"}   →   {"id": 1, "ok": {...}, "ms": 12.3}

The commands, their answers and their events are those of `tests/interop/peer.mjs` as far as the benchmark uses them.
Times are taken in here, on the machine's monotonic clock, so that the way through the pipe is not in them.
"""

import time

_STARTED_NS = time.monotonic_ns()

import argparse  # noqa: E402 - the time that the imports take is measured.
import gc  # noqa: E402
import json  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from collections.abc import Awaitable, Callable, Iterable  # noqa: E402
from typing import Any  # noqa: E402

import anyio  # noqa: E402
import anyio.abc  # noqa: E402
import anyio.lowlevel  # noqa: E402
from stalls import StallMeter  # noqa: E402

from dxos import AuthMethod, Client, Config, EchoObject, F, InvitationEncoder, Space  # noqa: E402
from dxos.echo.query import Filter  # noqa: E402
from dxos.services import local  # noqa: E402, F401 - the host, which the client imports when it starts one.

_LOADED_NS = time.monotonic_ns()
_WAIT_S = 120.0
_POLL_S = 0.005
_MIB = 1024 * 1024

Command = dict[str, Any]


def now_ms() -> float:
    """The machine's monotonic clock, which all processes share."""
    return time.monotonic_ns() / 1e6


def say(message: dict[str, Any]) -> None:
    """Print one line for the one who drives this peer."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def fill_in(template: Any, number: int) -> Any:
    """A copy of the template with the number where it says `{i}`."""
    if template == "{i}":
        return number
    if isinstance(template, str):
        return template.replace("{i}", str(number))
    if isinstance(template, dict):
        return {key: fill_in(value, number) for key, value in template.items()}
    if isinstance(template, list):
        return [fill_in(value, number) for value in template]
    return template


def change(targets: Iterable[EchoObject], values: dict[str, Any]) -> None:
    """Assign the same values to each."""
    for one in targets:
        for name, value in values.items():
            setattr(one, name, value)


# What many queries ask, by their kind; the object has number 1.
FOLLOWED: dict[str, Callable[[int], Filter]] = {
    "same": lambda _: F.n == 1,
    "different": lambda number: F.n.in_((1, -1 - number)),
    "others": lambda number: F.n == -1 - number,
}


def resident_bytes() -> int:
    """What this process has in memory now; where the system does not tell, the most it ever had."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


class BenchPeer:
    """The commands on one client."""

    def __init__(self, client: Client, tasks: anyio.abc.TaskGroup) -> None:
        self._client, self._tasks = client, tasks
        self._held: dict[str, list[EchoObject]] = {}  # As an application holds what it reads.
        self._subscriptions: list[Any] = []
        self.stalls = StallMeter()

    def _space(self, command: Command) -> Space:
        found = self._client.get_space(command["space"])
        assert found is not None, "the driver names spaces that exist"
        return found

    async def do_identity(self, command: Command) -> dict[str, Any]:
        begin = now_ms()
        await self._client.halo.create_identity(display_name=command["name"])
        return {"createMs": now_ms() - begin}

    async def do_createSpace(self, command: Command) -> dict[str, Any]:
        space = await self._client.create_space(name=command["name"])
        return {"spaceId": space.id}

    async def do_waitReady(self, command: Command) -> dict[str, Any]:
        await self._space(command).wait_until_ready()
        return {}

    async def do_add(self, command: Command) -> dict[str, Any]:
        space = self._space(command)
        made = space.db.add(command["data"])
        await space.db.flush()
        return {"objectId": made.id}

    async def do_addMany(self, command: Command) -> dict[str, Any]:
        space = self._space(command)
        made = await space.db.add_all(fill_in(command["template"], number) for number in range(command["count"]))
        await space.db.flush()
        return {"count": len(made)}

    async def do_updateMany(self, command: Command) -> dict[str, Any]:
        space = self._space(command)
        held = await space.db.query().run()
        begin = now_ms()
        change(held, command["set"])
        await space.db.flush()
        return {"updateMs": now_ms() - begin}

    async def do_touch(self, command: Command) -> dict[str, Any]:
        """Change so many objects, which an application goes on holding."""
        space = self._space(command)
        self._held[space.id] = held = await space.db.query(F.n < command["count"]).run()
        change(held, command["set"])
        await space.db.flush()
        return {"count": len(held)}

    async def do_hold(self, command: Command) -> dict[str, Any]:
        """Read all objects, and go on holding them."""
        space = self._space(command)
        self._held[space.id] = await space.db.query().run()
        return {"count": len(self._held[space.id])}

    async def do_edits(self, command: Command) -> dict[str, Any]:
        """One field after another, each until it is durable."""
        space, taken = self._space(command), []
        held = await space.db.query(F.n < command["count"]).run()
        for number in range(command["count"]):
            target = held[number % len(held)]
            begin = now_ms()
            target.title = f"Edited {number}"
            await space.db.flush()
            taken.append(now_ms() - begin)
        return {"durableMs": taken}

    async def do_seen(self, command: Command) -> dict[str, Any]:
        """One field after another, each until the subscriber of a query is told: the object begins or ends to match."""
        space, taken = self._space(command), []
        target = (await space.db.query(n=1).run())[0]
        told, at = anyio.Event(), now_ms()

        def tell(_: Any) -> None:
            nonlocal at
            at = now_ms()
            told.set()

        following = space.db.query(watched=True).subscribe(tell)
        await told.wait()
        for number in range(command["count"]):
            told = anyio.Event()
            begin = now_ms()
            target.watched = number % 2 == 0
            await told.wait()
            taken.append(at - begin)
            await space.db.flush()
        following.unsubscribe()
        return {"seenMs": taken}

    async def do_find(self, command: Command) -> dict[str, Any]:
        """The object of one number, again and again, each time of another."""
        space, taken = self._space(command), []
        for number in range(command["count"]):
            begin = now_ms()
            found = await space.db.query(**{command["name"]: number}).run()
            taken.append(now_ms() - begin)
            assert len(found) == 1, f"{len(found)} objects have number {number}"
        return {"findMs": taken}

    async def do_page(self, command: Command) -> dict[str, Any]:
        """The first objects, by their ids or by a property."""
        space, taken = self._space(command), []
        query = space.db.query().limit(command["limit"])
        query = query.order_by(command["order"]) if "order" in command else query
        for _ in range(command["count"]):
            begin = now_ms()
            found = await query.run()
            taken.append(now_ms() - begin)
            assert len(found) == command["limit"], f"a page of {len(found)}"
            del found
        return {"pageMs": taken}

    async def do_follow(self, command: Command) -> dict[str, Any]:
        """Many subscriptions: until each was told what there is, and what two edits of one object cost then.

        Kinds: of one object; of one query; of queries that differ and all find it; of queries that never find it.
        """
        space, count, kind = self._space(command), command["count"], command["kind"]
        target = (await space.db.query(n=1).run())[0]
        told, all_told = 0, anyio.Event()

        def tell(_: Any) -> None:
            nonlocal told
            told += 1
            if told == count:
                all_told.set()

        begin = now_ms()
        if kind == "object":
            following = [target.subscribe(tell) for _ in range(count)]
        else:
            following = [space.db.query(FOLLOWED[kind](number)).subscribe(tell) for number in range(count)]
            await all_told.wait()
        follow_ms = now_ms() - begin
        taken = []
        for number in range(2):
            told, all_told = 0, anyio.Event()
            begin = now_ms()
            target.title = f"{kind} {number}"
            if kind != "others":
                await all_told.wait()
            await space.db.flush()
            taken.append(now_ms() - begin)
        for one in following:
            one.unsubscribe()
        return {"followMs": follow_ms, "editMs": taken}

    async def do_compact(self, command: Command) -> dict[str, Any]:
        await self._space(command).compact()
        return {}

    async def do_text(self, command: Command) -> dict[str, Any]:
        """Edits of a text, as [index, characters that go, characters that come], so many in each turn; then flush."""
        space, turn = self._space(command), command["turn"]
        target = await space.db.get(command["objectId"])
        for number, (index, delete_count, insert) in enumerate(command["edits"], start=1):
            target.splice("text", index, delete_count, insert)
            if number % turn == 0:
                await anyio.lowlevel.checkpoint()
        await space.db.flush()
        return {"length": len(target.text)}

    async def do_update(self, command: Command) -> dict[str, Any]:
        space = self._space(command)
        target = await space.db.get(command["objectId"])
        at = now_ms()
        for name, value in command["set"].items():
            setattr(target, name, value)
        return {"at": at}

    async def do_count(self, command: Command) -> dict[str, Any]:
        return {"count": len(await self._space(command).db.query().run())}

    async def do_waitFor(self, command: Command) -> dict[str, Any]:
        """Until an object can be read here."""
        space = self._space(command)
        with anyio.fail_after(_WAIT_S):
            while all(  # noqa: ASYNC110 - as an application would that looks now and then.
                one.id != command["objectId"] for one in await space.db.query().run()
            ):
                await anyio.sleep(_POLL_S)
        return {}

    async def do_waitForCount(self, command: Command) -> dict[str, Any]:
        """Until so many objects can be read here, besides the one that names the space."""
        space = self._space(command)
        while await space.db.query().count() <= command["count"]:  # noqa: ASYNC110
            await anyio.sleep(_POLL_S)
        return {}

    async def do_watch(self, command: Command) -> dict[str, Any]:
        target = await self._space(command).db.get(command["objectId"])

        def tell(one: EchoObject) -> None:
            at = now_ms()
            say({"event": "object", "at": at, "object": {"id": one.id, "data": one.to_dict()}})

        self._subscriptions.append((target, target.subscribe(tell)))
        return {}

    async def do_invite(self, command: Command) -> dict[str, Any]:
        invitation = self._space(command).create_invitation()
        shown = await invitation.wait_for(lambda one: one.auth_code is not None)
        return {"code": InvitationEncoder.encode(shown), "authCode": shown.auth_code}

    async def do_join(self, command: Command) -> dict[str, Any]:
        begin = now_ms()
        guest = self._client.accept_invitation(command["code"])
        if guest.get().auth_method is not AuthMethod.NONE:
            await guest.authenticate(command["authCode"])
        joined = await guest
        handshake_ms = now_ms() - begin
        assert joined.space_key is not None
        space = self._client.get_space(joined.space_key)
        assert space is not None
        await space.wait_until_ready()
        return {"spaceId": space.id, "handshakeMs": handshake_ms, "readyMs": now_ms() - begin}

    async def do_rss(self, _: Command) -> dict[str, Any]:
        gc.collect()
        return {"rssBytes": resident_bytes()}

    async def do_stall(self, _: Command) -> dict[str, Any]:
        """The longest stall since the last such call: by the clock, and of it what this process computed itself."""
        taken = self.stalls.take()
        return {"stallMs": taken["stall_ms"], "cpuMs": taken["stall_cpu_ms"]}

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


async def main(arguments: argparse.Namespace) -> None:
    """Serve commands until `close` or the end of the input."""
    client_settings: dict[str, Any] = {
        "storage": {"persistent": arguments.data is not None},
        "services": arguments.services,
    }
    if arguments.data is not None:
        client_settings["storage"]["dataRoot"] = arguments.data
    runtime: dict[str, Any] = {"client": client_settings}
    if arguments.signal is not None:
        runtime["services"] = {"signaling": [{"server": arguments.signal}]}
    client = Client(Config({"runtime": runtime}))
    begin = now_ms()
    await client.initialize()
    at = now_ms()
    async with anyio.create_task_group() as tasks:
        peer = BenchPeer(client, tasks)
        say({"event": "ready", "at": at, "loadMs": (_LOADED_NS - _STARTED_NS) / 1e6, "initializeMs": at - begin})
        if arguments.stalls:
            tasks.start_soon(peer.stalls.run)
        async for line in anyio.wrap_file(sys.stdin):
            command = json.loads(line)
            if command["do"] == "close":
                await client.destroy()
                say({"id": command["id"], "ok": {}, "ms": 0})
                break
            tasks.start_soon(peer.answer, command)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--signal")
    parser.add_argument("--data")
    parser.add_argument("--stalls", action="store_true")
    parser.add_argument("--services", default="local", help="where the host is: local (here) or worker")
    anyio.run(main, parser.parse_args())
