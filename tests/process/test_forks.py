"""Programs that fork while they have a client open: the child has none of it, and takes nothing from its parent."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from worker_people import until

from dxos.worker.status import Sharing, read_status

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform == "win32", reason="forks"),
    pytest.mark.parametrize("services", ["worker", "local"]),
]
WAIT_S = 30.0
SOURCE = Path(__file__).parents[2] / "src"

CHILD = """
import os, signal, sys
from dxos.errors import ClosedError, ProfileLockedError

folder, services = sys.argv[1:]
config = {"runtime": {"client": {"storage": {"persistent": True, "dataRoot": folder}, "services": services}}}

def in_child(function):
    pid = os.fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return
    signal.alarm(10)  # Ends a child that waits for what never comes.
    function()
    os._exit(0)

def refused(call):
    def attempt():
        try:
            call()
        except ClosedError as error:
            assert "forked" in str(error), error
        else:
            os._exit(3)
    return attempt
"""
BLOCKING = """
from dxos.sync import Client

client = Client(config)
client.initialize()
client.halo.create_identity("Alice")
space = client.create_space(name="Groceries")
milk = space.db.add({"title": "Milk"})
space.db.flush()
"""
CALLS = """
def rename():
    milk.title = "Oat milk"

for call in (
    rename,
    lambda: space.db.add({"title": "Bread"}),
    lambda: space.db.query().run(),
    lambda: space.db.flush(),
    lambda: space.members.wait_for(lambda members: False),
    lambda: space.db.query().subscribe(print),
    lambda: client.create_space(name="Another"),
    lambda: space.create_invitation().wait(),
    lambda: client.spaces,
):
    in_child(refused(call))
    milk.title += "!"
    space.db.flush()
in_child(client.destroy)
print(milk.title, client.status.get().name, space.db.query(title=milk.title).count())
client.destroy()
"""
WAITING = """
import asyncio
from dxos import Client

async def main():
    async with Client(config) as client:
        await client.halo.create_identity("Alice")
        space = await client.create_space(name="Groceries")
        milk = space.db.add({"title": "Milk"})
        members, query = space.members, space.db.query()
        milk.title = "Oat milk"  # Under way.

        async def add():
            space.db.add({"title": "Bread"})

        async def rename():
            milk.title = "Soy milk"

        for call in (
            add,
            rename,
            space.db.flush,
            query.run,
            lambda: members.wait_for(lambda members: False),
            lambda: client.create_space(name="Another"),
        ):
            in_child(refused(lambda: asyncio.run(call())))
        await space.db.flush()
        print(milk.title, len(client.spaces), await query.count() - 1)

asyncio.run(main())
"""
OWN = """
def use_own():
    if services == "local":
        try:
            client.initialize()
        except ProfileLockedError as error:
            assert error.detail["pid"] == os.getppid()
            return
        os._exit(3)
    client.initialize()
    (space,) = client.spaces
    space.wait_until_ready()
    space.db.add({"title": "Bread"})
    # And forgets to close it.

if os.fork() == 0:
    signal.alarm(20)
    use_own()
    sys.exit()
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
print(space.db.query(title="Bread").count())
client.destroy()
"""
POOL = """
from concurrent.futures import ProcessPoolExecutor

def look(_):
    return len(space.db.query().run())

with ProcessPoolExecutor(1) as pool:
    for argument in (1, space, milk):
        try:
            pool.submit(look, argument).result(10)
        except Exception as error:
            print(type(error).__name__)
client.destroy()
"""
ORPHAN = """
signal.alarm(40)  # Neither outlives the test.
child = os.fork()
if child == 0:
    signal.alarm(40)
    while True:
        signal.pause()
print(child, flush=True)
signal.pause()
"""


def start(folder: Path, services: str, *parts: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        # Python 3.12 warns of every fork of a process with threads.
        [
            sys.executable,
            "-W",
            "ignore:This process:DeprecationWarning",
            "-c",
            "".join((CHILD, *parts)),
            str(folder),
            services,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )


def output(folder: Path, services: str, *parts: str) -> tuple[str, str]:
    with start(folder, services, *parts) as script:
        out, errors = script.communicate(timeout=WAIT_S)
    return out, errors


def test_a_child_is_refused_whatever_it_asks_and_the_parent_goes_on(tmp_path: Path, services: str) -> None:
    assert output(tmp_path, services, BLOCKING, CALLS) == ("Milk!!!!!!!!! ACTIVE 1\n", "")


def test_a_child_of_an_event_loop_is_refused_what_it_asks_in_its_own(tmp_path: Path, services: str) -> None:
    assert output(tmp_path, services, WAITING) == ("Oat milk 1 1\n", "")


def test_a_pool_of_processes_says_what_is_wrong(tmp_path: Path, services: str) -> None:
    assert output(tmp_path, services, BLOCKING, POOL) == ("ClosedError\nUsageError\nUsageError\n", "")


def test_a_child_may_open_it_for_itself_or_is_told_who_has_it(tmp_path: Path, services: str) -> None:
    assert output(tmp_path, services, BLOCKING, OWN) == ("1\n" if services == "worker" else "0\n", "")


def test_a_child_that_outlives_its_parent_keeps_nothing_of_the_profile(tmp_path: Path, services: str) -> None:
    with start(tmp_path, services, BLOCKING, ORPHAN) as script:
        assert script.stdout is not None
        try:
            child = int(script.stdout.readline())
        finally:
            script.kill()
        try:
            until(lambda: read_status(tmp_path).sharing is Sharing.CLOSED)
            assert output(tmp_path, "local", "from dxos.sync import Client\nClient(config).initialize()\n") == ("", "")
        finally:
            os.kill(child, 9)
