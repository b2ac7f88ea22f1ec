"""Processes of two versions come to one profile and do not understand each other: the newer leads, the older waits."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from worker_people import SOURCE, People, people

from dxos.version import __version__
from dxos.worker.messages import PROTOCOL
from dxos.worker.status import ProfileStatus, read_status

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them"),
]
LATER = "99.0.0"
OLDER_COUNT = 4


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This package as a version would be whose processes say something else to each other."""
    source = tmp_path_factory.mktemp("newer")
    shutil.copytree(SOURCE / "dxos", source / "dxos", ignore=shutil.ignore_patterns(".*"))
    for name, before, after in (
        ("worker/messages.py", rf"^PROTOCOL: Final = {PROTOCOL}\b", f"PROTOCOL: Final = {PROTOCOL + 1}"),
        ("version.py", rf'"{re.escape(__version__)}"$', f'"{LATER}"'),
    ):
        path = source / "dxos" / name
        text, count = re.subn(before, after, path.read_text(), flags=re.MULTILINE)
        assert count == 1, name
        path.write_text(text)
    return source


def refusal(pid: int, which: str, theirs: str, ours: str) -> str:
    """What a process is told that cannot share the profile."""
    return (
        f"Process {pid} has this profile open with {which} version of dxos ({theirs}; this is {ours}), "
        "and the two cannot share it: use one version, or close that process."
    )


def versions(found: ProfileStatus) -> list[str | None]:
    """Of the leader and the worker."""
    assert found.leader
    assert found.worker
    return [found.leader.version, found.worker.version]


def dx(them: People, source: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of that version."""
    environ = {
        **os.environ,
        "PYTHONPATH": str(source),
        "DX_DATA": str(them.profile.parents[1]),
        "DX_PROFILE": them.profile.name,
        "DX_NO_AGENT": "1",
    }
    command = [sys.executable, "-m", "dxos.cli", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=40, check=False)


def test_an_older_client_is_refused_in_a_sentence(tmp_path: Path, newer: Path) -> None:
    with people(tmp_path / "profile" / "shared") as them:
        alice = them.start(source=newer).ready()
        alice.ask("create")
        sentence = refusal(alice.pid, "a newer", LATER, __version__)
        bob = them.start()
        refused = dx(them, SOURCE, "space", "list")
        assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", sentence + "\n")
        assert bob.fail().splitlines()[-1] == f"dxos.errors.ProfileVersionError: {sentence}"
        assert dx(them, newer, "identity", "show").returncode == 0, "nobody else is troubled"
        assert alice.stop() == ""


def test_a_newer_client_leads_and_older_ones_wait_until_it_has_left(tmp_path: Path, newer: Path) -> None:
    with people(tmp_path / "profile" / "shared") as them:
        alice = them.first()
        alice.ask("add", start=0, count=20)
        bob = them.start(source=newer).ready()
        assert versions(read_status(them.profile)) == [LATER, LATER]
        bob.ask("follow")
        assert bob.ask("asked") == list(range(20)), "all that was acknowledged"
        bob.ask("add", start=20)
        alice.tell("add", start=21)
        assert dx(them, newer, "space", "list").returncode == 0
        assert bob.stop() == ""
        assert alice.answer() == 1, "it was waited for"
        assert versions(read_status(them.profile)) == [__version__, __version__]
        assert alice.ask("numbers", count=22) == list(range(22))
        sentence = refusal(bob.pid, "a newer", LATER, __version__)
        assert alice.stop() == f"This client cannot share the profile for now, and goes on trying: {sentence}\n"


def test_a_newer_client_leads_however_many_older_ones_there_are(tmp_path: Path, newer: Path) -> None:
    with people(tmp_path / "profile" / "shared") as them:
        crowd = [them.first()]
        crowd += [them.start() for _ in range(OLDER_COUNT - 1)]
        crowd[0].ask("add", start=0)
        for number, one in enumerate(crowd[1:], 1):
            one.ready().ask("follow")
            one.ask("add", start=number)
        bob = them.start("trio", source=newer).ready()
        found = read_status(them.profile)
        assert found.leader
        assert (found.leader.pid, versions(found)) == (bob.pid, [LATER, LATER])
        bob.ask("follow")
        assert bob.ask("asked") == list(range(OLDER_COUNT))
        assert bob.stop() == ""
        for number, one in enumerate(crowd, OLDER_COUNT):
            one.ask("add", start=number)
        for one in crowd:
            assert one.ask("numbers", count=2 * OLDER_COUNT) == list(range(2 * OLDER_COUNT))
