"""No room or no descriptors left, met by processes that share a profile: each is told what is lacking."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_people import WAIT_S, program
from worker_people import SOURCE, people, until

from dxos.limits import LEADER_BEAT_S
from dxos.worker.lockfile import read_leader

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


# --- Room -------------------------------------------------------------------------------------------------------------


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


# --- Descriptors ------------------------------------------------------------------------------------------------------

TOO_MANY = "Cannot {}: too many files are open; close some, or raise the limit (ulimit -n)."
SHARE = TOO_MANY.format("share the profile with other processes")
# Opens a profile with ever more descriptors, closes what was opened, and says what came of it.
LIMITED = """
import os, resource, sys, threading, anyio
from dxos import Client, DxosError
async def main():
    settings = {"runtime": {"client": {"storage": {"persistent": True, "dataRoot": sys.argv[1]}}}}
    before, (soft, hard) = sorted(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)
    for more in range(CLIENT_DESCRIPTORS_MIN + 1):
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) - 1 + more, hard))
        try:
            async with Client(settings):
                print("opened")
        except DxosError as error:
            print(error.code, error)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sorted(os.listdir("/proc/self/fd")) == before, "nothing half-open stays behind"
    with anyio.fail_after(5):
        while threading.active_count() > 1:  # A thread that has said that it ends is about to.
            await anyio.sleep(0.001)
from dxos.limits import CLIENT_DESCRIPTORS_MIN
from dxos.worker import provider, thread, messages
anyio.run(main, backend=sys.argv[2])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_who_may_not_open_enough_files_is_told_so_and_leaves_nothing(tmp_path: Path, backend: str) -> None:
    with people(tmp_path / "p") as them, program(LIMITED, them.profile, backend) as limited:
        said, errors = limited.communicate(timeout=WAIT_S)
    assert errors == ""
    *refusals, last = said.splitlines()
    assert set(refusals) == {f"storage.access {SHARE}"}
    assert last == "opened"


@pytest.mark.parametrize("limit", [7, 20])
def test_a_command_that_may_not_open_enough_files_says_so(tmp_path: Path, limit: int) -> None:
    with people(tmp_path / "profile" / "shared") as them:
        done = subprocess.run(
            ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", sys.executable, "-m", "dxos.cli", "space", "list"],
            env={
                **os.environ,
                "PYTHONPATH": str(SOURCE),
                "DX_DATA": str(tmp_path),
                "DX_PROFILE": "shared",
                "DX_NO_AGENT": "1",
            },
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr in [SHARE + "\n", TOO_MANY.format("run this command") + "\n"]
        assert not them.processes()


def test_a_leader_that_can_open_no_more_files_goes_on_and_gives_way_to_who_comes(tmp_path: Path) -> None:
    with people(tmp_path / "p") as them:
        alice = them.first()
        led = read_leader(them.host)
        worker = them.worker_pid()
        assert alice.ask("hoard") > 0
        time.sleep(2 * LEADER_BEAT_S)
        alice.ask("add", start=0)
        assert read_leader(them.host) == led
        bob = them.another()
        assert bob.ask("asked") == [0]
        bob.ask("wait_role", leads=True)
        bob.ask("add", start=1)
        assert alice.ask("numbers", count=2) == [0, 1]
        assert them.worker_pid() == worker, "no session was disturbed"
        alice.ask("relent")
        alice.ask("wait_member")
        bob.signal(signal.SIGKILL)
        alice.ask("wait_role", leads=True)
        alice.ask("add", start=2)
        assert them.worker_pid() == worker
        assert "too many files are open" in alice.stop()
