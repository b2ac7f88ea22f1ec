"""What a process boundary costs: a host in this process, clients in others, each on one socket pair.

    python bench/processes.py [--edits 100] [--clients 20]

A call that does nothing; how long after an edit another process sees it; and edits of many clients at once, with the
time that the host's process works for each.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
from anyio.abc import ByteStream, SocketStream, TaskGroup

from dxos.client import Client
from dxos.client.database import Database
from dxos.services.contract import Profile, Services
from dxos.services.local import LocalServices
from dxos.services.remote import RemoteServices
from dxos.services.server import serve

_CALLS = 2_000
_SEEN = 300
_SEEN_PAUSE_S = 0.005
_BURST_OBJECTS = 20

Figures = dict[str, float]


# --- A client ---------------------------------------------------------------------------------------------------------


async def client(role: str, descriptor: int, edits: int) -> None:
    """Play a part; lines of standard input and output say when to begin and to end."""
    stream = await SocketStream.from_socket(socket.socket(fileno=descriptor))

    async def connect() -> ByteStream:
        return stream

    services = RemoteServices(connect)
    if role == "call":
        async with services as host:
            await told(await call(host))
        return
    async with Client(services=services) as one:
        space = one.spaces.get()[0]
        await space.wait_until_ready()
        await told(await _ROLES[role](space.db, edits))


async def told(figures: Figures) -> None:
    """Print what came out, and wait until all have."""
    print(json.dumps(figures), flush=True)
    await line()


async def line() -> None:
    """Wait for a line."""
    await anyio.to_thread.run_sync(sys.stdin.readline)


async def call(host: Services) -> Figures:
    """A call that does nothing."""
    print("ready", flush=True)
    await line()
    took = []
    for _ in range(_CALLS):
        began = time.perf_counter()
        await host.system.get_platform()
        took.append(time.perf_counter() - began)
    return {"call_p50_us": statistics.median(took) * 1e6}


async def write(db: Database, _: int) -> Figures:
    """Edit an object again and again, with the time in it."""
    target = db.add({"kind": "clock", "at": 0.0})
    await db.flush()
    print("ready", flush=True)
    await line()
    for _ in range(_SEEN):
        target.at = time.perf_counter()
        await anyio.sleep(_SEEN_PAUSE_S)
    return {}


async def watch(db: Database, _: int) -> Figures:
    """See these edits."""
    took: list[float] = []
    db.query(kind="clock").subscribe(
        lambda update: took.extend(time.perf_counter() - one.at for one in update.changed if one.at)
    )
    print("ready", flush=True)
    await line()
    await anyio.sleep(2 * _SEEN * _SEEN_PAUSE_S)
    return {"seen_p50_ms": statistics.median(took) * 1e3}


async def edit(db: Database, edits: int) -> Figures:
    """Edit one object, each time waiting for the host's answer."""
    target = db.add({"n": 0})
    await db.flush()
    print("ready", flush=True)
    await line()
    for number in range(edits):
        async with db.batch():
            target.n = number
    return {}


async def burst(db: Database, edits: int) -> Figures:
    """Edit some objects in each turn."""
    targets = [db.add({"n": 0}) for _ in range(_BURST_OBJECTS)]
    await db.flush()
    print("ready", flush=True)
    await line()
    for number in range(edits // _BURST_OBJECTS):
        async with db.batch():
            for target in targets:
                target.n = number
    return {}


_ROLES = {"write": write, "watch": watch, "edit": edit, "burst": burst}


# --- The host ---------------------------------------------------------------------------------------------------------


async def play(services: Services, tasks: TaskGroup, roles: list[str], edits: int) -> tuple[Figures, float, float]:
    """Have clients play their parts at once: what they say, the time it took, and the time this process worked."""
    processes = []
    for number, role in enumerate(roles):
        ours, theirs = socket.socketpair()
        command = [sys.executable, __file__, "--role", role, str(theirs.fileno()), "--edits", str(edits)]
        process = subprocess.Popen(  # noqa: ASYNC220 - Before anything is measured.
            command, pass_fds=[theirs.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        theirs.close()
        stream = await SocketStream.from_socket(ours)

        async def run(stream: ByteStream = stream, client_id: str = f"{role}-{time.time_ns()}-{number}") -> None:
            await serve(services, stream, client_id=client_id)

        tasks.start_soon(run)
        processes.append(process)

    async def hear(process: "subprocess.Popen[str]") -> str:
        assert process.stdout is not None
        return await anyio.to_thread.run_sync(process.stdout.readline)

    def say(process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    for process in processes:
        assert (await hear(process)).strip() == "ready"
    began, worked = time.perf_counter(), time.process_time()
    for process in processes:
        say(process)
    figures: Figures = {}
    for process in processes:
        figures |= json.loads(await hear(process))
    took_s, worked_s = time.perf_counter() - began, time.process_time() - worked
    for process in processes:
        say(process)
        await anyio.to_thread.run_sync(process.wait)
    return figures, took_s, worked_s


async def host(edits: int, clients: int) -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory() as folder:
        async with LocalServices(Path(folder) / "profile") as services, anyio.create_task_group() as tasks:
            await services.identity.create_identity(Profile("alice"))
            await services.spaces.create_space({"name": "Bench"})
            print("call, p50: {call_p50_us:.0f} us".format_map((await play(services, tasks, ["call"], 0))[0]))
            seen = (await play(services, tasks, ["write", "watch"], 0))[0]
            print("edit seen in another process, p50: {seen_p50_ms:.2f} ms".format_map(seen))
            for role in ("edit", "burst"):
                _, took_s, worked_s = await play(services, tasks, [role] * clients, edits)
                count = clients * edits
                per_edit_us = worked_s / count * 1e6
                print(f"{role}, {clients} clients: {count / took_s:.0f}/s in sum; host works {per_edit_us:.0f} us each")
            tasks.cancel_scope.cancel()


def main() -> None:
    """Either part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--role")
    parser.add_argument("descriptor", type=int, nargs="?")
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--clients", type=int, default=20)
    options = parser.parse_args()
    if options.role:
        anyio.run(client, options.role, options.descriptor, options.edits)
    else:
        anyio.run(host, options.edits, options.clients)


if __name__ == "__main__":
    main()
