"""Plain scripts that use the blocking client: how they end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]
WAIT_S = 30.0
SOURCE = Path(__file__).parents[2] / "src"

OPEN = """
import sys
from dxos.sync import Client

client = Client({"runtime": {"client": {"storage": {"persistent": True, "dataRoot": sys.argv[1]}}}})
client.initialize()
"""
WRITE = """
client.halo.create_identity("Alice")
space = client.create_space(name="Groceries")
milk = space.db.add({"title": "Milk"})
"""
KILL = """
import os, pathlib, signal
from dxos.worker.status import read_status

space.db.flush()
worker = read_status(pathlib.Path(sys.argv[1])).worker.pid
zygote = int(pathlib.Path(f"/proc/{worker}/stat").read_text().split()[3])
for one in (zygote, worker):
    os.kill(one, signal.SIGKILL)
"""
READ = """
(space,) = client.spaces
space.wait_until_ready()
print([one["title"] for one in space.db.query().to_dicts() if "title" in one])
client.destroy()
"""
WAIT = """
try:
    print("ready", flush=True)
    space.state.wait_for(lambda one: False)
except KeyboardInterrupt:
    milk.title = "Oat milk"
    print("interrupted", flush=True)
    raise
"""


def start(folder: Path, *parts: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", "".join(parts), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )


def output(folder: Path, *parts: str) -> tuple[int, str, str]:
    with start(folder, *parts) as script:
        out, errors = script.communicate(timeout=WAIT_S)
    return script.returncode, out, errors


def test_a_script_that_forgets_to_close_ends_and_has_stored_everything(tmp_path: Path) -> None:
    assert output(tmp_path, OPEN, WRITE) == (0, "", "")
    assert output(tmp_path, OPEN, READ) == (0, "['Milk']\n", "")


def test_a_script_that_fails_ends_and_has_stored_everything(tmp_path: Path) -> None:
    code, _, errors = output(tmp_path, OPEN, WRITE, "1 / 0")
    assert code == 1
    assert errors.rstrip().endswith("ZeroDivisionError: division by zero")
    assert output(tmp_path, OPEN, READ) == (0, "['Milk']\n", "")


def test_a_client_that_a_script_has_lost_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    assert output(tmp_path, OPEN, "del client") == (0, "", "")


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")
def test_a_script_whose_worker_dies_as_it_ends_has_stored_everything(tmp_path: Path) -> None:
    assert output(tmp_path, OPEN, WRITE, KILL, "space.db.add({'title': 'Bread'})") == (0, "", "")
    assert output(tmp_path, OPEN, READ) == (0, "['Milk', 'Bread']\n", "")


def test_ctrl_c_ends_the_call_that_waits_and_the_client_goes_on(tmp_path: Path) -> None:
    with start(tmp_path, OPEN, WRITE, WAIT) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "ready\n"
        # The call may not have begun to wait yet; it is interrupted all the same.
        script.send_signal(signal.SIGINT)
        out, errors = script.communicate(timeout=WAIT_S)
    assert out == "interrupted\n"
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert script.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert output(tmp_path, OPEN, READ) == (0, "['Oat milk']\n", "")
