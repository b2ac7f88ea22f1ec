"""Folders in which processes cannot meet safely: refused with the reason by a client and by `dx`; others closed."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from worker_people import SOURCE, people

from dxos import Client
from dxos.errors import StorageAccessError
from dxos.worker.places import open_places

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform == "win32", reason="folders of POSIX"),
]
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives folders away")
STRANGER = 12_345
NETWORK = (
    "The profile is on a network file system (nfs4), where processes cannot share it safely; "
    'choose a folder on this machine\'s disk, or `services="local"`.'
)
# As Linux lists what is mounted: a disk, and a folder of a server.
MOUNTS = """22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / {} rw,relatime shared:1 - nfs4 server:/srv rw
"""
OPEN = """
import sys, anyio
from dxos import Client
async def main():
    async with Client({"runtime": {"client": {"storage": {"persistent": True, "dataRoot": sys.argv[1]}}}}):
        pass
anyio.run(main)
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def environ(profile: Path) -> dict[str, str]:
    """Where `dx` has its profiles; nobody stays behind."""
    own = {"DX_DATA": str(profile.parents[1]), "DX_PROFILE": profile.name, "DX_NO_AGENT": "1"}
    return {**os.environ, "PYTHONPATH": str(SOURCE), **own}


def dx(profile: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command."""
    command = [sys.executable, "-m", "dxos.cli", *words]
    return subprocess.run(command, env=environ(profile), capture_output=True, text=True, timeout=40, check=False)


async def is_refused(profile: Path, sentence: str) -> None:
    """By a client and by `dx`, which leave everything as it is."""
    before = sorted(profile.parent.rglob("*"))
    settings = {"runtime": {"client": {"storage": {"persistent": True, "dataRoot": str(profile)}}}}
    with pytest.raises(StorageAccessError) as raised:
        await Client(settings).initialize()
    assert str(raised.value) == sentence
    done = dx(profile, "space", "list")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence + "\n")
    assert sorted(profile.parent.rglob("*")) == before


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """Of `dx`, which is not there yet."""
    (tmp_path / "profile").mkdir()
    return tmp_path / "profile" / "shared"


def linked(profile: Path) -> None:
    (profile.parent / "elsewhere").mkdir(mode=0o700)
    profile.symlink_to(profile.parent / "elsewhere")


def linked_inside(profile: Path) -> None:
    (profile.parent / "elsewhere").mkdir()
    profile.mkdir(mode=0o700)
    (profile / "host").symlink_to(profile.parent / "elsewhere")


def file_inside(profile: Path) -> None:
    profile.mkdir(mode=0o700)
    (profile / "host").touch()


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (linked, "The profile's folder is a link; name the folder itself."),
        (linked_inside, "The folder host of the profile is a link; remove it."),
        (Path.touch, "The profile's folder is no folder; choose another."),
        (file_inside, "The folder host of the profile is no folder; remove it."),
    ],
)
async def test_what_is_no_folder_is_refused(profile: Path, prepare: Callable[[Path], None], sentence: str) -> None:
    prepare(profile)
    await is_refused(profile, sentence)


@as_root
@pytest.mark.parametrize("inside", [False, True])
async def test_the_folder_of_another_user_is_refused(profile: Path, inside: bool) -> None:
    folder = profile / "host" if inside else profile
    folder.mkdir(mode=0o700, parents=True)
    os.chown(folder, STRANGER, STRANGER)
    name, advice = (
        ("folder host of the profile", "have it removed") if inside else ("profile's folder", "choose another")
    )
    await is_refused(profile, f"The {name} is another user's; {advice}.")


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux lists them")
@as_root
def test_a_network_file_system_is_refused_and_a_local_host_is_not(profile: Path, tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(MOUNTS.format(profile.parent))

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        """In a process to which the folder looks like a server's."""
        script = 'mount --bind "$0" /proc/$$/mountinfo || exit 77; exec "$@"'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, tmp_path / "mounts", *command],
            env=environ(profile),
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        if done.returncode == 77 or "unshare:" in done.stderr:
            pytest.skip("cannot mount here")
        return done

    done = run(sys.executable, "-c", OPEN, str(profile))
    assert done.stderr.splitlines()[-1] == f"dxos.errors.StorageAccessError: {NETWORK}"
    done = run(sys.executable, "-m", "dxos.cli", "space", "list")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", NETWORK + "\n")
    assert not (profile / "host").exists()
    alone = OPEN.replace("Client(", "Client(services='local', config=")
    assert run(sys.executable, "-c", alone, str(profile)).stderr == ""


def test_folders_that_others_may_enter_are_closed_to_them_and_what_is_made_there_too(profile: Path) -> None:
    (profile / "host").mkdir(parents=True)
    for folder in (profile, profile / "host"):
        folder.chmod(0o777)
    with people(profile) as them:
        alice = them.start().ready()
        assert dx(profile, "status").returncode == 0
        found = [profile, *profile.rglob("*"), *open_places(profile).sockets.rglob("*")]
        modes = {one.name: stat.S_IMODE(one.lstat().st_mode) for one in found}
        assert {"coordinator.sock", "worker.sock", "zygote.sock", "worker.log", "leader.1"} <= set(modes)
        assert [name for name, mode in modes.items() if mode & 0o077] == []
        assert alice.stop() == ""


def test_a_path_too_long_for_sockets_is_shared_by_commands_too(tmp_path: Path) -> None:
    profile = tmp_path / ("long" * 30) / "profile" / "shared"
    profile.mkdir(parents=True)
    with people(profile) as them:
        alice = them.first()
        alice.ask("add", start=0)
        assert '"clients"' in (done := dx(profile, "status", "--json")).stdout, done.stderr
        done = dx(profile, "object", "list", "Shared", "--json")
        assert '"number": 0' in done.stdout, done.stderr
        folder = Path((profile / "host" / "sockets").read_text())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert alice.stop() == ""


async def test_a_folder_for_sockets_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    profile = tmp_path / ("long" * 30) / "profile" / "shared"
    (profile / "host").mkdir(mode=0o700, parents=True)
    profile.chmod(0o700)
    pointer = profile / "host" / "sockets"
    pointer.write_text("somewhere")
    await is_refused(profile, "The profile's file host/sockets names no folder for sockets; remove it.")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "s").symlink_to(tmp_path / "elsewhere")
    pointer.write_text(str(tmp_path / "s"))
    await is_refused(profile, "The folder s of the profile is a link; remove it.")
