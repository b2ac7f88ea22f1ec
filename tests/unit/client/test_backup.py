"""Backups through the client: of a device that works, to one that works."""

from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from dxos import Client
from dxos.errors import PassphraseError, StorageAccessError, UsageError
from dxos.services.contract import Progress
from dxos.testing.peers import Simulation

pytestmark = [pytest.mark.anyio, pytest.mark.slow]  # One guess of a passphrase takes a third of a second.
SECRET = "correct horse"


@pytest.fixture
def anyio_backend() -> str:
    """It works in threads, which a jumping clock does not wait for."""
    return "asyncio"


def settings(path: Path) -> dict[str, Any]:
    return {"runtime": {"client": {"storage": {"persistent": True, "dataRoot": str(path)}}}}


async def test_a_restored_device_works(tmp_path: Path) -> None:
    simulation, told = Simulation(), list[Progress]()
    async with Client(settings(tmp_path / "old"), services=simulation.services(tmp_path / "old")) as alice:
        identity = await alice.halo.create_identity("Alice")
        space = await alice.create_space(name="shop")
        milk = space.db.add({"title": "Milk"})
        size = await alice.back_up(tmp_path / "file", SECRET, progress=told.append)  # Not flushed before.
        assert told[-1].fraction == 1
        assert size == (tmp_path / "file").stat().st_size
        space.db.add({"title": "late"})
        with pytest.raises(UsageError):
            await alice.restore(tmp_path / "file", SECRET)
    moved = Client(settings(tmp_path / "new"), services=simulation.services(tmp_path / "new"))
    with pytest.raises(PassphraseError):
        await moved.restore(tmp_path / "file", "wrong horse")
    await moved.restore(tmp_path / "file", SECRET, progress=told.append)
    assert told[-1].fraction == 1
    async with moved:
        assert moved.halo.identity.get() == identity
        again = moved.get_space(space.id)
        assert again is not None
        await again.wait_until_ready()
        assert [one.to_dict() for one in await again.db.query(title="Milk").run()] == [{"title": "Milk"}]
        assert await again.db.query(title="late").count() == 0
        (await again.db.get(milk.id)).title = "Oat milk"
        await again.db.flush()
        await moved.create_space(name="another")


async def test_a_relative_path_is_of_the_program_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    services = Simulation().services(tmp_path / "old")
    async with Client(settings(tmp_path / "old"), services=services) as alice, anyio.create_task_group() as tasks:
        await alice.halo.create_identity("Alice")
        tasks.start_soon(alice.back_up, "file", SECRET)
        await anyio.lowlevel.checkpoint()
        monkeypatch.chdir(tmp_path)  # As a host in another process, which stands somewhere else.
    assert (tmp_path / "here" / "file").exists()


async def test_there_must_be_a_file_to_restore(tmp_path: Path) -> None:
    with pytest.raises(StorageAccessError, match="There is no file"):
        await Client(settings(tmp_path / "new")).restore(tmp_path / "nothing", SECRET)


async def test_a_profile_in_memory_has_no_backup(tmp_path: Path) -> None:
    async with Client() as client:
        with pytest.raises(UsageError):
            await client.back_up(tmp_path / "file", SECRET)
    with pytest.raises(UsageError):
        await client.restore(tmp_path / "file", SECRET)
