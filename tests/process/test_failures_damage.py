"""Worse than one failure: a disk that fills while peers send, processes that die while they begin, flipped bits."""

import contextlib
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from process_people import WAIT_S, join, person, program, settings, shown, signalling

from dxos import Client, DxosError, InvitationState, Space
from dxos.errors import StorageError, StorageFullError

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and mounts of POSIX"),
]
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a file system")
BEGINNER = """
import sys, anyio
from pathlib import Path
from process_people import settings
from dxos import Client
import dxos.services.local
async def main():
    print("begin", flush=True)
    async with Client(settings(Path(sys.argv[1]))) as client:
        if client.halo.identity.get() is None:
            await client.halo.create_identity(display_name="Alice")
        while True:
            space = await client.create_space(name="Groceries")
            print(space.id, flush=True)
anyio.run(main)
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A small file system in memory, or a skipped test."""
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path], check=False)
    if done.returncode:
        pytest.skip("cannot mount a file system here")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


async def wait_count(space: Space, count: int, **where: str) -> None:
    """Wait until at least so many objects have these values."""
    enough = anyio.Event()
    subscription = space.db.query(where).subscribe(
        lambda update: enough.set() if len(update.objects) >= count else None
    )
    with anyio.fail_after(WAIT_S):
        await enough.wait()
    subscription.unsubscribe()


@as_root
async def test_a_guest_whose_disk_fills_goes_on_reading_and_completes_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "16m") as disk:
        async with (
            signalling() as server,
            person(None, server) as alice,
            person(disk / "bob", server, name="Bob") as bob,
        ):
            space = await alice.create_space(name="Groceries")
            space.db.add({"title": "Milk"})
            await space.db.flush()
            joined = await join(bob, *await shown(space.create_invitation()))
            fill(disk / "filler")
            for number in range(100):
                space.db.add({"number": number, "text": "x" * 5_000})
            await space.db.flush()
            await anyio.sleep(1.0)
            assert bob.error is None
            assert bob.initialized
            assert await joined.db.query(title="Milk").count() == 1
            joined.db.add({"title": "Rice" * 10_000})
            with pytest.raises(StorageFullError):
                await joined.db.flush()
            (disk / "filler").unlink()
            await wait_count(joined, 102)
            joined.db.add({"title": "Rice"})
            await joined.db.flush()
            await wait_count(space, 1, title="Rice")


@as_root
async def test_a_host_whose_disk_is_full_admits_nobody_and_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        async with (
            signalling() as server,
            person(disk / "alice", server) as alice,
            person(None, server, name="Bob") as bob,
        ):
            space = await alice.create_space(name="Groceries")
            invitation = space.create_invitation()
            code, auth_code = await shown(invitation)
            fill(disk / "filler")
            with contextlib.suppress(DxosError):  # What is left of the last page.
                for _ in range(500):
                    space.db.add({"text": "x" * 500})
                    await space.db.flush()
            guest = bob.accept_invitation(code)
            with anyio.fail_after(WAIT_S), contextlib.suppress(DxosError):
                await guest.authenticate(auth_code)
                await guest
            refused = space.create_invitation()
            with anyio.fail_after(WAIT_S), pytest.raises(StorageFullError):
                await refused
            # Either it was admitted, durably, or it was not and both know.
            admitted = len(space.members.get()) == 2
            assert admitted == (guest.state is InvitationState.SUCCESS)
            assert alice.initialized
            (disk / "filler").unlink()
            if not admitted:
                code, auth_code = await shown(space.create_invitation())
                await join(bob, code, auth_code)
            assert len(space.members.get()) == 2


async def test_a_process_killed_while_it_creates_leaves_a_profile_that_opens(tmp_path: Path) -> None:
    chance = random.Random(5)
    for attempt in range(6):
        path = tmp_path / f"p{attempt % 3}"
        with program(BEGINNER, path) as beginner:
            assert beginner.stdout is not None
            assert beginner.stdout.readline() == "begin\n"
            await anyio.sleep(chance.random() * 0.05)
            beginner.send_signal(signal.SIGKILL)
            created = [line.strip() for line in beginner.stdout if line.endswith("\n")]
        async with person(path) as alice:
            assert set(created) <= {one.id for one in alice.spaces.get()}
            for one in alice.spaces.get():
                await one.wait_until_ready(WAIT_S)
                assert one.name == "Groceries"


async def test_flipped_bits_are_reported_or_harmless(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    async with person(tmp_path / "p") as alice:
        space = await alice.create_space(name="Groceries")
        for number in range(30):
            space.db.add({"number": number, "text": "milk " * 20})
        await space.db.flush()
    path = tmp_path / "p" / "profile.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    good = path.read_bytes()
    chance = random.Random(11)
    outcomes: dict[str, int] = {}
    for _ in range(40):
        altered = bytearray(good)
        for _ in range(chance.choice([1, 1, 8, 64])):
            altered[chance.randrange(len(altered))] ^= 1 << chance.randrange(8)
        for one in path.parent.glob("profile.sqlite-*"):
            one.unlink()
        path.write_bytes(altered)
        outcome = await use(path.parent)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert set(outcomes) <= {"whole", "refused", "reported"}, outcomes
    path.write_bytes(good)
    for one in path.parent.glob("profile.sqlite-*"):
        one.unlink()
    assert await use(path.parent) == "whole"


async def test_a_row_that_is_no_text_any_more_is_made_anew_from_its_document(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    async with person(tmp_path / "p") as alice:
        space = await alice.create_space(name="Groceries")
        space.db.add({"text": "milk"})
        space.db.add({"text": "rice"})
        await space.db.flush()
    with contextlib.closing(sqlite3.connect(tmp_path / "p" / "profile.sqlite")) as database:
        done = database.execute(
            "UPDATE objects SET data = CAST(x'7b2274657874223a22d26963e5227d' AS TEXT) WHERE data LIKE '%rice%'"
        )
        assert done.rowcount == 1
        database.commit()
    async with person(tmp_path / "p") as alice:
        space = await alice.spaces.get()[0].wait_until_ready(WAIT_S)
        found = await space.db.query().run()
        assert sorted(one.text for one in found if "text" in one.to_dict()) == ["milk", "rice"]


async def use(path: Path) -> str:
    """Open a profile, read all of it and write to it; what came of it."""
    with anyio.fail_after(WAIT_S):
        try:
            async with Client(settings(path)) as client:
                if client.halo.identity.get() is None or not client.spaces.get():
                    return "lost"
                space = await client.spaces.get()[0].wait_until_ready(WAIT_S / 4)
                texts = [one.text for one in await space.db.query().run() if "text" in one.to_dict()]
                for one in await space.db.query().run():
                    one.seen = True
                await space.db.flush()
                return "whole" if texts == ["milk " * 20] * 30 else f"changed {len(texts)}"
        except StorageError:
            return "refused"
        except DxosError as error:
            return "reported" if error.code else ""
