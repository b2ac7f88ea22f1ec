"""Disks that are full, read-only, damaged, in use, or lose their process: met through the public interface."""

import contextlib
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from process_people import WAIT_S, person, program, settings

from dxos import Client
from dxos.echo.document import Document
from dxos.echo.layout import materialize
from dxos.errors import (
    CorruptionError,
    DxosError,
    KeyMissingError,
    ProfileLockedError,
    ProfileVersionError,
    StorageAccessError,
    StorageFullError,
)
from dxos.store.profile import Profile

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals, users and limits of POSIX"),
]
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts, or becomes another user")

HOLDER = """
import sys, anyio
from pathlib import Path
from process_people import person
async def main():
    async with person(Path(sys.argv[1])):
        print("open", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)
anyio.run(main)
"""
# Opens a profile as another user; prints the class, code and sentence of what keeps it from opening.
STRANGER = """
import os, sys, anyio
from pathlib import Path
from process_people import settings
from dxos import Client, DxosError
import dxos.services.local
async def main():
    os.setuid(12345)
    for path in sys.argv[1:]:
        try:
            async with Client(settings(Path(path))) as client:
                print("opened")
        except DxosError as error:
            print(type(error).__name__, error.code, error)
anyio.run(main)
"""
WRITER = """
import sys, anyio
from pathlib import Path
from process_people import settings
from dxos import Client
from dxos.echo.document import Document
from dxos.echo.layout import materialize
async def main():
    async with Client(settings(Path(sys.argv[1]))) as client:
        if client.halo.identity.get() is None:
            await client.halo.create_identity(display_name="Alice")
            await client.create_space(name="Groceries")
        space = await client.spaces.get()[0].wait_until_ready()
        number = 0
        while True:
            added = [space.db.add({"title": f"Item {number}", "tags": ["a"], "note": "x" * 500}) for _ in range(5)]
            await space.db.flush()
            print("added", *[one.id for one in added], flush=True)
            for one in added:
                one.title, number = f"Changed {number}", number + 1
            added[0].tags.append("b")
            await space.db.flush()
            print("changed", *[f"{one.id}={one.title}" for one in added], flush=True)
anyio.run(main)
"""
LIMITED = """
import resource, signal, sys, anyio
from pathlib import Path
from process_people import person
from dxos import DxosError
async def main():
    async with person(Path(sys.argv[1])) as client:
        space = await client.create_space(name="Groceries")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        kept = 0
        try:
            for number in range(1_000):
                for half in "ab":
                    space.db.add({"number": number, "half": half, "text": "x" * 20_000})
                await space.db.flush()
                kept += 1
        except DxosError as error:
            print(type(error).__name__, error.code, error, sep="|")
        assert await space.db.query().count() == 1 + 2 * kept, "the refused batch is not there"
        assert await space.db.query(number=kept).count() == 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        space.db.add({"number": -1})
        await space.db.flush()
        print(kept)
anyio.run(main)
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def says(error: DxosError, kind: type[DxosError], code: str, gist: str) -> None:
    """The error is exactly of this class and code, and one sentence with this gist."""
    assert type(error) is kind, repr(error)
    assert error.code == code
    assert re.search(gist, str(error)), str(error)
    assert "\n" not in str(error)


async def fail_to_open(path: Path, kind: type[DxosError], code: str, gist: str) -> DxosError:
    """Open a profile that does not open, twice: the first failure must not leave anything behind."""
    client = Client(settings(path))
    for _ in range(2):
        with anyio.fail_after(WAIT_S):
            with pytest.raises(kind) as caught:
                await client.initialize()
        says(caught.value, kind, code, gist)
        assert not client.initialized
    return caught.value


async def make(path: Path) -> str:
    """A profile with a space and one object; the object's id."""
    async with person(path) as alice:
        space = await alice.create_space(name="Groceries")
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        return milk.id


# --- Who may open a profile -------------------------------------------------------------------------------------------


async def test_a_second_process_is_told_which_one_has_the_profile(tmp_path: Path) -> None:
    with program(HOLDER, tmp_path / "p") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        error = await fail_to_open(
            tmp_path / "p", ProfileLockedError, "storage.locked", f"Process {holder.pid} .*close it"
        )
        assert error.detail["pid"] == holder.pid
        assert error.retryable
        _, said = holder.communicate("")
        assert said == ""
    async with person(tmp_path / "p"):
        pass


async def test_a_second_client_in_the_same_process_is_refused_too(tmp_path: Path) -> None:
    async with person(tmp_path / "p"):
        await fail_to_open(tmp_path / "p", ProfileLockedError, "storage.locked", f"Process {os.getpid()} ")


async def test_a_profile_of_a_newer_version_is_left_as_it_is(tmp_path: Path) -> None:
    await make(tmp_path / "p")
    path = tmp_path / "p" / "profile.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version = {version + 1}")
        database.commit()
    before = path.read_bytes()
    await fail_to_open(tmp_path / "p", ProfileVersionError, "storage.version", "newer version.*upgrade")
    assert path.read_bytes() == before


async def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("not a folder")
    await fail_to_open(tmp_path / "p", StorageAccessError, "storage.access", "no folder; choose another")
    await fail_to_open(tmp_path / "p" / "below", StorageAccessError, "storage.access", "no folder; choose another")
    assert (tmp_path / "p").read_text() == "not a folder"


async def test_a_link_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    await make(tmp_path / "p")
    (tmp_path / "link").symlink_to(tmp_path / "p")
    await fail_to_open(tmp_path / "link", StorageAccessError, "storage.access", "link; name the folder itself")


@as_root
async def test_a_folder_of_somebody_else_or_without_the_right_to_write_is_refused() -> None:
    # Not tmp_path, whose parents another user may not enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chmod(folder, 0o755)
        await make(folder / "roots")
        for one, mode in (("unreadable", 0o000), ("unwritable", 0o500)):
            (folder / one).mkdir()
            os.chown(folder / one, 12345, 12345)
            (folder / one).chmod(mode)
        paths = [folder / one for one in ("roots", "new", "unreadable", "unwritable")]
        with program(STRANGER, *paths) as stranger:
            output, said = stranger.communicate(timeout=WAIT_S)
        assert said == ""
        roots, new, unreadable, unwritable = output.splitlines()
        assert roots == ("StorageAccessError storage.access The profile's folder is another user's; choose another.")
        assert re.match("StorageAccessError storage.access Cannot make .*: check the permissions of the folder", new)
        for line in (unreadable, unwritable):
            assert re.match("StorageAccessError storage.access .*cannot be written; check its permissions", line)


@contextlib.contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    """A file system in memory at a path, or a skipped test."""
    path.mkdir(exist_ok=True)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", path], check=False, capture_output=True
    ).returncode:
        pytest.skip("cannot mount a file system here")
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


def remount(path: Path, options: str) -> None:
    """Change the options of a file system."""
    subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


@as_root
async def test_a_read_only_disk_is_named_as_the_reason(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=8m"):
        await make(tmp_path / "disk" / "p")
        remount(tmp_path / "disk", "ro")
        await fail_to_open(tmp_path / "disk" / "p", StorageAccessError, "storage.access", "read-only|cannot be written")
        await fail_to_open(tmp_path / "disk" / "q", StorageAccessError, "storage.access", "read-only; choose another")


# --- Room -------------------------------------------------------------------------------------------------------------


async def test_when_the_disk_refuses_a_batch_nothing_of_it_is_there_and_the_client_goes_on(tmp_path: Path) -> None:
    with program(LIMITED, tmp_path / "p") as limited:
        output, said = limited.communicate(timeout=2 * WAIT_S)
    assert limited.returncode == 0, said
    error, kept = output.splitlines()
    assert re.fullmatch(
        r"StorageFullError\|storage\.full\|.*disk.*nothing of this change was written: free some space\.", error
    )
    async with person(tmp_path / "p") as alice:
        space = await alice.spaces.get()[0].wait_until_ready(WAIT_S)
        assert await space.db.query().count() == 2 + 2 * int(kept)
    assert "Traceback" not in said


@as_root
async def test_on_a_full_disk_reads_go_on_and_writing_resumes_when_there_is_room(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1500k"):
        async with person(tmp_path / "disk" / "p") as alice:
            space = await alice.create_space(name="Groceries")
            milk = space.db.add({"title": "Milk"})
            await space.db.flush()
            filler = tmp_path / "disk" / "filler"
            fill(filler)
            milk.title = "y" * 200_000
            rice = space.db.add({"title": "Rice" * 20_000})
            with pytest.raises(StorageFullError) as caught:
                await space.db.flush()
            says(caught.value, StorageFullError, "storage.full", "free some space")
            assert milk.title == "Milk", "a refused edit is taken back"
            assert [one.title for one in await space.db.query(title="Milk").run()] == ["Milk"]
            assert await space.db.query().count() == 2
            with pytest.raises(StorageFullError) as caught:
                await alice.create_space(name="No room", text="z" * 200_000)
            says(caught.value, StorageFullError, "storage.full", "free some space")
            filler.unlink()
            milk.title = "Oat milk"
            space.db.add(rice)
            await space.db.flush()
            await alice.create_space(name="Room")
        async with person(tmp_path / "disk" / "p") as alice:
            names = {}
            for one in alice.spaces.get():
                await one.wait_until_ready(WAIT_S)
                names[one.name] = one
            assert "Room" in names
            assert await names["Groceries"].db.query(title="Oat milk").count() == 1
            assert await names["Groceries"].db.query(title="Rice" * 20_000).count() == 1


@as_root
async def test_a_disk_too_full_for_a_profile_is_said_and_a_later_try_works(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=400k"):
        filler = tmp_path / "disk" / "filler"
        fill(filler)
        await fail_to_open(tmp_path / "disk" / "p", StorageFullError, "storage.full", "free some space")
        filler.unlink()
        remount(tmp_path / "disk", "size=4m")
        await make(tmp_path / "disk" / "p")


# --- Losing the process -----------------------------------------------------------------------------------------------


async def test_nothing_acknowledged_is_lost_when_a_writing_client_is_killed(tmp_path: Path) -> None:
    started = time.monotonic()
    chance = random.Random(7)
    acknowledged: dict[str, str | None] = {}
    for _ in range(10):
        with program(WRITER, tmp_path / "p") as writer:
            assert writer.stdout is not None
            for _ in range(chance.randrange(1, 6)):
                learn(writer.stdout.readline(), acknowledged)
            await anyio.sleep(chance.random() * 0.02)  # The moment of the kill.
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout:
                if line.endswith("\n"):
                    learn(line, acknowledged)
        async with person(tmp_path / "p") as alice:
            space = await alice.spaces.get()[0].wait_until_ready(WAIT_S)
            rows = {one.id: one for one in await space.db.query().run()}
            assert acknowledged.keys() <= rows.keys()
            for object_id, title in acknowledged.items():
                if title is not None:
                    assert rows[object_id].title == title
        check_agreement(tmp_path / "p", space.id)
    with contextlib.closing(sqlite3.connect(tmp_path / "p" / "profile.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(acknowledged) >= 50
    assert time.monotonic() - started < 30


def learn(line: str, acknowledged: dict[str, str | None]) -> None:
    """Note what the writer says is durable."""
    kind, *said = line.rstrip("\n").split(" ", 1)
    if kind == "added":
        acknowledged.update(dict.fromkeys(said[0].split()))
    elif kind == "changed":
        for one in re.findall(r"(\S+)=(Changed \d+)", said[0]):
            acknowledged[one[0]] = one[1]


def check_agreement(path: Path, space_id: str) -> None:
    """Every row says what its document says, and every document opens."""
    with Profile.open(path) as profile:
        profile.database.check()
        assert profile.documents.quarantined(space_id) == {}
        for document_id in profile.documents.ids(space_id):
            for row in materialize(Document.load(profile.documents.load(document_id) or b"")):
                record = profile.objects.get(space_id, row.object_id)
                assert record is not None
                assert (record.document_id, record.data, record.deleted) == (document_id, row.data, row.deleted)


# --- Damage -----------------------------------------------------------------------------------------------------------


async def test_a_database_that_is_none_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    await make(tmp_path / "p")
    path = tmp_path / "p" / "profile.sqlite"
    path.write_bytes(b"Lorem ipsum " * 1_000)
    await fail_to_open(tmp_path / "p", CorruptionError, "storage.corruption", "damaged|no database|not.*database")
    assert path.read_bytes() == b"Lorem ipsum " * 1_000


async def test_a_lost_database_or_key_is_said_and_nothing_is_made_in_its_place(tmp_path: Path) -> None:
    await make(tmp_path / "p")
    path = tmp_path / "p" / "profile.sqlite"
    path.rename(tmp_path / "kept")
    await fail_to_open(tmp_path / "p", CorruptionError, "storage.corruption", "no database; restore")
    (tmp_path / "kept").rename(path)
    keys = list((tmp_path / "p" / "keyring").iterdir())
    for key in keys:
        key.rename(tmp_path / key.name)
    await fail_to_open(tmp_path / "p", KeyMissingError, "storage.key-missing", "restore it from a backup")
    for key in keys:
        (tmp_path / key.name).rename(key)
    async with person(tmp_path / "p") as alice:
        space = await alice.spaces.get()[0].wait_until_ready(WAIT_S)
        assert await space.db.query(title="Milk").count() == 1
