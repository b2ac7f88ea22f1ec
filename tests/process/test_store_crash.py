"""Real processes: killed while they write, in each other's way, out of room, and without the right to write."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dxos.errors import ProfileLockedError, StorageFullError
from dxos.store.database import Database
from dxos.store.invitations import InvitationRecord, InvitationStore
from dxos.store.profile import Profile

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")]

WRITER = """
import sys
from dxos.store.profile import Profile
profile = Profile.open(sys.argv[1])
count = int(sys.argv[2])
while True:
    document = f"document {count % 7}"
    with profile.database.transaction():
        profile.documents.append(document, "space", [count.to_bytes(4, "big") * 50], [count.to_bytes(32, "big")])
        profile.metadata.put_setting("count", str(count).encode())
    if count % 40 == 0:
        profile.documents.replace_with_snapshot(document, profile.documents.load(document), [bytes(32)])
    profile.sync()
    print(count, flush=True)
    count += 1
"""
LIMITED = """
import resource, sys
from dxos.errors import StorageFullError
from dxos.store.profile import Profile
profile = Profile.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
count = 0
try:
    while True:
        with profile.database.transaction():
            for part in "ab":
                profile.metadata.put_setting(f"{part}{count}", b"x" * 5_000)
        count += 1
except StorageFullError:
    assert profile.metadata.setting(f"a{count - 1}") == b"x" * 5_000
    assert profile.metadata.setting(f"a{count}") is None
    print(count, flush=True)
"""
HOLDER = """
import sys
from dxos.store.profile import Profile
profile = Profile.open(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""
RACER = """
import sys
from pathlib import Path
from dxos.store.database import Database
from dxos.store.invitations import InvitationStore
store = InvitationStore(Database(Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
print(*[int(store.claim("invitation")), *(store.count_failure("invitation") for _ in range(25))])
"""
GUEST = """
import os, sys
from pathlib import Path
from dxos.errors import StorageAccessError
from dxos.store.database import Database
from dxos.store.files import make_private_directory
os.setuid(12345)
for attempt in (lambda: make_private_directory(Path(sys.argv[1])), lambda: Database(Path(sys.argv[2]))):
    try:
        attempt()
    except StorageAccessError as error:
        print(error)
"""


def start(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    source = Path(sys.modules["dxos"].__path__[0]).parent
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    )


def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    chance = random.Random(1)
    next_count = 0
    for _ in range(10):
        with start(WRITER, tmp_path / "p", str(next_count)) as writer:
            assert writer.stdout is not None
            wanted = chance.randrange(1, 120)
            acknowledged = next_count - 1
            for line in writer.stdout:
                acknowledged = int(line)
                if acknowledged >= next_count + wanted:
                    break
            writer.send_signal(signal.SIGKILL)
            # What it said before it died counts too.
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
        with Profile.open(tmp_path / "p") as profile:
            profile.database.check()
            count = int(profile.metadata.setting("count") or b"-1")
            assert acknowledged <= count <= acknowledged + 1
            contents = [profile.documents.load(document_id) or b"" for document_id in profile.documents.ids("space")]
            assert sum(map(len, contents)) == 200 * (count + 1)
        next_count = count + 1


def test_a_second_process_learns_who_holds_the_profile_and_gets_it_when_that_one_dies(tmp_path: Path) -> None:
    with start(HOLDER, tmp_path / "p") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(ProfileLockedError) as caught:
            Profile.open(tmp_path / "p")
        assert caught.value.detail == {"pid": holder.pid}
        holder.kill()
    Profile.open(tmp_path / "p").close()


def test_of_four_processes_one_claims_and_no_failure_is_counted_twice(tmp_path: Path) -> None:
    path = tmp_path / "d.sqlite"
    InvitationStore(Database(path)).put(InvitationRecord("invitation", b"", 0.0, 1.0, "CONNECTING"))
    racers = [start(RACER, path) for _ in range(4)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    outputs = []
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        output, _ = racer.communicate()
        outputs.append([int(number) for number in output.split()])
    assert sorted(output[0] for output in outputs) == [0, 0, 0, 1]
    assert sorted(number for output in outputs for number in output[1:]) == list(range(1, 101))


def test_when_the_disk_refuses_a_write_none_of_the_batch_is_there_and_reads_go_on(tmp_path: Path) -> None:
    with start(LIMITED, tmp_path / "p") as writer:
        output, _ = writer.communicate()
    assert writer.returncode == 0
    count = int(output)
    assert count > 5
    with Profile.open(tmp_path / "p") as profile:
        assert profile.metadata.setting(f"b{count - 1}") == b"x" * 5_000
        assert profile.metadata.setting(f"a{count}") is None
        profile.metadata.put_setting("more", b"x")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a file system")
def test_a_full_file_system_refuses_data_and_keys_and_loses_nothing(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(tmp_path)], check=False)
    if mounted.returncode:
        pytest.skip("cannot mount a file system here")
    try:
        with Profile.open(tmp_path / "p") as profile:
            key = profile.keyring.create()
            profile.metadata.put_setting("first", b"milk")
            profile.sync()
            with contextlib.suppress(OSError), (tmp_path / "filler").open("wb", buffering=0) as filler:
                while filler.write(b"x" * 4096):
                    pass
            with pytest.raises(StorageFullError):
                profile.metadata.put_setting("second", b"x" * 100_000)
            with pytest.raises(StorageFullError):
                profile.keyring.create()
            assert profile.metadata.setting("first") == b"milk"
            assert profile.metadata.setting("second") is None
            assert profile.keyring.keys() == [key]
            (tmp_path / "filler").unlink()
            profile.metadata.put_setting("second", b"bread")
            profile.sync()
        with Profile.open(tmp_path / "p") as profile:
            assert profile.metadata.setting("second") == b"bread"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user")
def test_without_the_right_to_write_the_folder_is_named_as_the_reason() -> None:
    # Not tmp_path, whose parents another user may not enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        Profile.open(folder / "p").close()
        (folder / "p").chmod(0o755)
        (folder / "p" / "profile.sqlite").chmod(0o644)
        with start(GUEST, folder / "new", folder / "p" / "profile.sqlite") as guest:
            output, _ = guest.communicate()
    assert output.splitlines() == [
        "Cannot make the profile's folder: check the permissions of the folder.",
        "Cannot open profile.sqlite: check the permissions of the folder.",
    ]
