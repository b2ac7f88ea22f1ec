"""A client that shares its profile with others, in a process of its own, told what to do line by line.

Arguments: the folder of the profile, asyncio or trio, signalling servers. Each line of input is a command in JSON, each
line of output its result or its error; the first line says how long it took to open. The end of the input closes the
client in order.
"""

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import anyio
import anyio.abc

from dxos import Client, DxosError
from dxos.worker.provider import WorkerServices

WAIT_S = 30.0


class Peer:
    """What can be asked; the space is the first one."""

    def __init__(self, client: Client, tasks: anyio.abc.TaskGroup) -> None:
        self._client, self._tasks = client, tasks
        self._count = 0
        self._hoard: list[int] = []
        self._changed = anyio.Event()
        self._updates: list[list[int]] = []

    async def create(self) -> str:
        """An identity and a space."""
        await self._client.halo.create_identity(display_name="Alice")
        return (await self._client.create_space(name="Shared")).id

    async def follow(self) -> int:
        """Follow all objects from now on; how many there are."""
        space = await self._client.spaces.get()[0].wait_until_ready(WAIT_S)
        self._space = space
        space.db.query().subscribe(self._update)
        return self._count

    def _update(self, update: Any) -> None:
        self._updates.append(sorted(one["number"] for one in update.objects if "number" in one))
        self._count = len(self._updates[-1])
        event, self._changed = self._changed, anyio.Event()
        event.set()

    async def add(self, start: int, count: int = 1) -> int:
        """Add objects and wait until they are stored."""
        for number in range(start, start + count):
            self._space.db.add({"number": number})
        await self._space.db.flush()
        return count

    async def numbers(self, count: int) -> list[int]:
        """Wait until the subscription has so many objects; their numbers."""
        with anyio.fail_after(WAIT_S):
            while self._count < count:
                await self._changed.wait()
        return self._updates[-1]

    async def asked(self) -> list[int]:
        """The numbers of all objects, by a query."""
        return sorted(one["number"] for one in await self._space.db.query().run() if "number" in one)

    async def role(self) -> dict[str, Any]:
        """What this process does for the others."""
        assert isinstance(self._client.services, WorkerServices)
        return dict(self._client.services.diagnostics())

    async def wait_role(self, leads: bool) -> dict[str, Any]:
        """Wait until it leads, with a worker that is ready, or until it does not."""
        with anyio.fail_after(WAIT_S):
            while True:
                role = await self.role()
                if role["worker_is_leader"] == leads and (not leads or role.get("worker_state") == "ready"):
                    return role
                await anyio.sleep(0.01)

    async def wait_member(self) -> None:
        """Wait until it is connected to the leader."""
        with anyio.fail_after(WAIT_S):
            while not (await self.role())["worker_connect_phase"].endswith("member"):  # noqa: ASYNC110 - Nobody tells.
                await anyio.sleep(0.01)

    async def reset(self) -> None:
        """Delete the profile, and close."""
        await self._client.reset()

    async def block(self, seconds: float) -> None:
        """Be an application that does not let its event loop run."""
        time.sleep(seconds)  # noqa: ASYNC251 - That is what is tested.

    async def hoard(self) -> int:
        """Open files until there may be no more; how many."""
        opened = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 50, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        with contextlib.suppress(OSError):
            while True:
                self._hoard.append(os.open(os.devnull, os.O_RDONLY))
        return len(self._hoard)

    async def relent(self) -> None:
        """Close them."""
        while self._hoard:
            os.close(self._hoard.pop())

    def modules(self) -> list[str]:
        """What this process has imported."""
        return sorted(sys.modules)


async def main(path: str, make: Callable[[Client, anyio.abc.TaskGroup], Peer] = Peer) -> None:
    """Answer until the input ends."""
    begin = time.perf_counter()
    settings = {
        "runtime": {
            "client": {"storage": {"persistent": True, "dataRoot": path}},
            "services": {"signaling": [{"server": server} for server in sys.argv[3:]]},
        }
    }
    async with Client(settings) as client, anyio.create_task_group() as tasks:
        peer = make(client, tasks)
        say(time.perf_counter() - begin)
        async for line in anyio.wrap_file(sys.stdin):
            command = json.loads(line)
            do = command.pop("do")
            try:
                found = getattr(peer, do)(**command)
                say(found if do == "modules" else await found)
            except (DxosError, AssertionError, TimeoutError) as error:
                print(json.dumps({"error": type(error).__name__, "message": str(error)}), flush=True)
        tasks.cancel_scope.cancel()


def say(result: Any) -> None:
    """Answer."""
    print(json.dumps({"result": result}), flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], backend=sys.argv[2])
