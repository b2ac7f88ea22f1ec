"""A worker that was replaced learns it from the storage, and its clients go on with the one that has the profile."""

import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from dxos import Client

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform == "win32", reason="processes cannot share a profile there yet"),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def worker_of(client: Client) -> tuple[int, int]:
    """The worker's process, and the leadership under which it writes."""
    system: Any = client._require().services.system
    return (await system.get_platform()).pid, (await system.get_config())["leadership_id"]


async def test_an_edit_that_a_replaced_worker_may_not_write_is_written_once_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    settings = {"runtime": {"client": {"storage": {"persistent": True, "dataRoot": str(folder)}}}}
    async with Client(settings) as client:
        await client.halo.create_identity("alice")
        space = await client.create_space()
        entries = space.db.add({"items": []})
        await space.db.flush()
        pid, leadership_id = await worker_of(client)
        (file,) = folder.rglob("profile.sqlite")
        with sqlite3.connect(file) as newer:
            newer.execute("UPDATE leadership SET id = ?", (leadership_id + 5,))
        newer.close()
        entries.items.append(1)
        await space.db.flush()
        next_pid, next_id = await worker_of(client)
        assert next_pid != pid
        assert next_id == leadership_id + 6
        assert list(entries.to_dict()["items"]) == [1]
        await space.db.undo()
        assert list(entries.to_dict()["items"]) == []
