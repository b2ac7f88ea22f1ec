"""No room or no descriptors left, met by processes that share a profile: each is told what is lacking."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from worker_people import people, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system in memory."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a file system here")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


@contextlib.contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Within, the disk is full, and what becomes free is taken at once."""
    over = threading.Event()

    def fill() -> None:
        with (disk / "filler").open("wb", buffering=0) as file:
            while not over.wait(0.001):
                with contextlib.suppress(OSError):
                    while file.write(b"x" * 4_096):
                        pass

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        until(lambda: shutil.disk_usage(disk).free == 0)
        yield
    finally:
        over.set()
        thread.join()
        (disk / "filler").unlink()


def test_whoever_comes_when_the_disk_is_full_and_the_worker_has_died_is_told_so(disk: Path) -> None:
    with people(disk / "p") as them:
        alice = them.first()
        until(lambda: "zygote" in them.processes().values())
        with filled(disk):
            os.kill(them.worker_pid(), signal.SIGKILL)
            bob = them.start()
            assert "StorageFullError: Cannot mark a worker: the disk is full; free some space." in bob.fail()
        alice.ask("add", start=0)
        assert alice.ask("numbers", count=1) == [0]
