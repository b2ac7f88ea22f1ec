"""Ctrl-C and cancellation at any moment: the program ends quietly and soon, and the profile opens again."""

import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import anyio
import pytest
from process_people import WAIT_S, join, person, program, settings, shown, signalling

from dxos import Client

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]
BUSY = """
import sys, anyio
from pathlib import Path
from process_people import settings
from dxos import Client
async def main():
    path, server, code = sys.argv[1:]
    print("begin", flush=True)
    async with Client(settings(Path(path), server)) as client:
        print("initialized", flush=True)
        if client.halo.identity.get() is None:
            await client.halo.create_identity(display_name="Bob")
        while True:
            guest = client.accept_invitation(code)
            print("accepting", flush=True)
            space = await client.create_space(name="Mine")
            print("created", flush=True)
            space.db.add({"title": "Milk"})
            await guest.cancel()
import dxos.services.local  # What takes long to import is no part of the test.
try:
    anyio.run(main)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
LOADING = """
import sys

class Teller:
    def find_spec(self, name, path=None, target=None):
        if name == "dxos.cli.main":
            print("loading", flush=True)

sys.meta_path.insert(0, Teller())
sys.argv[:] = ["dx", "version"]
from dxos.cli.__main__ import main
sys.exit(main())
"""
MOMENTS = ["begin", "initialized", "accepting", "created"]
DELAYS_S = [0.0, 0.001, 0.002, 0.004, 0.008, 0.02]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def opens(path: Path) -> None:
    """Open the profile, write to it, and close it."""
    with anyio.fail_after(WAIT_S):
        async with person(path, name="Bob") as bob:
            for one in bob.spaces.get():
                await one.wait_until_ready(WAIT_S)
            space = await bob.create_space(name="After")
            space.db.add({"title": "Rice"})
            await space.db.flush()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_ctrl_c_at_any_moment_ends_quietly_and_the_profile_opens(tmp_path: Path) -> None:
    chance = random.Random(3)
    async with signalling() as server, person(None, server) as alice:
        space = await alice.create_space(name="Groceries")
        code, _ = await shown(space.create_invitation())
        for moment in [*MOMENTS, *MOMENTS]:
            with program(BUSY, tmp_path / "bob", server, code) as busy:
                assert busy.stdout is not None
                while busy.stdout.readline() != f"{moment}\n":
                    pass
                await anyio.sleep(chance.random() * 0.01)
                busy.send_signal(signal.SIGINT)
                output, said = await anyio.to_thread.run_sync(partial(busy.communicate, timeout=WAIT_S))
            assert output.splitlines()[-1:] == ["interrupted"], said
            assert busy.returncode == 0
            assert said == "", moment
        await opens(tmp_path / "bob")


def test_ctrl_c_while_the_command_is_loaded_ends_it_quietly() -> None:
    chance, codes = random.Random(5), set()
    for _ in range(8):
        with program(LOADING) as loading:
            assert loading.stdout is not None
            assert loading.stdout.readline() == "loading\n"
            time.sleep(chance.random() * 0.05)
            loading.send_signal(signal.SIGINT)
            _, said = loading.communicate(timeout=WAIT_S)
        assert said in ("", "Interrupted.\n")
        codes.add(loading.returncode)
    assert 130 in codes
    assert codes <= {0, 130}


@pytest.mark.parametrize("delay_s", DELAYS_S)
async def test_a_cancelled_initialize_leaves_a_profile_that_opens(tmp_path: Path, delay_s: float) -> None:
    client = Client(settings(tmp_path / "p"))
    with anyio.move_on_after(delay_s):
        await client.initialize()
    if client.initialized:
        await client.destroy()
    await client.initialize()
    await client.destroy()
    await opens(tmp_path / "p")


@pytest.mark.parametrize("delay_s", DELAYS_S)
async def test_a_cancelled_creation_is_whole_or_not_there(tmp_path: Path, delay_s: float) -> None:
    with anyio.move_on_after(WAIT_S) as scope:
        async with person(tmp_path / "p") as alice:
            scope.deadline = anyio.current_time() + delay_s
            while True:
                await alice.create_space(name="Groceries")
    async with person(tmp_path / "p") as alice:
        for one in alice.spaces.get():
            await one.wait_until_ready(WAIT_S)
            assert one.name == "Groceries"
    await opens(tmp_path / "p")


@pytest.mark.parametrize("delay_s", [*DELAYS_S[::3], 0.03, 0.06, 0.12, 0.2])
async def test_a_cancelled_guest_can_come_again(tmp_path: Path, delay_s: float) -> None:
    async with signalling() as server, person(None, server) as alice:
        space = await alice.create_space(name="Groceries")
        space.db.add({"title": "Milk"})
        invitation = space.create_invitation(multi_use=True)
        code, auth_code = await shown(invitation)
        with anyio.move_on_after(WAIT_S) as scope:
            async with person(tmp_path / "p", server, name="Bob") as bob:
                scope.deadline = anyio.current_time() + delay_s
                await join(bob, code, auth_code)
        async with person(tmp_path / "p", server, name="Bob") as bob:
            if bob.get_space(space.key) is None and len(space.members.get()) == 1:
                await join(bob, code, auth_code)
            joined = bob.get_space(space.key)
            if joined is not None:
                await joined.wait_until_ready(WAIT_S)
                assert joined.name == "Groceries"
    await opens(tmp_path / "p")
