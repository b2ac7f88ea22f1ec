"""kill -9 at any moment of a random workload, and a disk that fills in the middle of a batch.

`DXOS_CRASH_SEEDS=500 pytest tests/process/test_crash.py` goes further than the seeds of every run; a seed that fails is
run alone with `python tests/crash_workload.py FOLDER SEED 1`.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_people import SOURCE, WAIT_S, person

from dxos.errors import StorageFullError
from dxos.spaces.doctor import examine_folder

SEEDS = int(os.environ.get("DXOS_CRASH_SEEDS", "10"))
PROCESSES = 2
WORKLOAD = Path(__file__).parents[1] / "crash_workload.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="forks, and signals of POSIX"),
]


@pytest.mark.timeout(120 + 6 * SEEDS)
def test_whenever_it_is_killed_everything_acknowledged_is_there_and_the_doctor_finds_nothing(tmp_path: Path) -> None:
    share = -(-SEEDS // PROCESSES)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(WORKLOAD.parent)])}
    running = [
        subprocess.Popen(
            [sys.executable, WORKLOAD, tmp_path, str(first), str(min(share, SEEDS - first))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )
        for first in range(0, SEEDS, share)
    ]
    histories = []
    for one in running:
        output, said = one.communicate()
        assert one.returncode == 0, said
        told = [json.loads(line) for line in output.splitlines()]
        assert not [history for history in told if "error" in history], said
        histories += told
    assert sorted(history["seed"] for history in histories) == list(range(SEEDS))
    groups = sum(history["lives"][-1][1] for history in histories)
    assert groups > 5 * SEEDS, "the workload hardly ran"


@pytest.mark.anyio
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a file system")
async def test_a_batch_for_which_there_is_no_room_is_refused_whole_and_writing_resumes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        async with person(disk / "alice") as alice:
            space = await alice.create_space(name="Groceries")
            milk = space.db.add({"title": "Milk"})
            await space.db.flush()
            fill(disk / "filler")
            milk.title = "Oat milk"
            for number in range(200):
                space.db.add({"number": number, "text": os.urandom(1_000).hex()})
            with pytest.raises(StorageFullError):
                await space.db.flush()
            assert [one.title for one in await space.db.query().run() if "title" in one] == ["Milk"]
            (disk / "filler").unlink()
            space.db.add({"title": "Rice"})
            await space.db.flush()
        report = await examine_folder(disk / "alice")
        assert report.findings == ()
        async with person(disk / "alice") as alice:
            space = await alice.spaces.get()[0].wait_until_ready(WAIT_S)
            assert await space.db.query(title="Milk").count() == 1
            assert await space.db.query(title="Rice").count() == 1
            assert await space.db.query().count() == 3


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A small file system in memory, or a skipped test."""
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", path], check=False).returncode:
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


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
