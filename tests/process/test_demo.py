"""The demonstration runs, twice in a row, and says so when it fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo" / "demo.py"


def run(folder: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(DEMO)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environ},
        timeout=60,
        check=False,
    )


def test_the_demonstration_works_twice_in_a_row(tmp_path: Path) -> None:
    for _ in range(2):
        done = run(tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("Both replicas compared: equal.") == 3
        assert "Bob sees all 30 objects." in done.stdout


def test_a_failure_is_told_with_what_the_peer_said(tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "automerge"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no CRDT here')")
    done = run(tmp_path, PYTHONPATH=f"{broken.parent}{os.pathsep}{ROOT / 'src'}")
    assert done.returncode == 1
    assert "The demonstration failed: alice ended early" in done.stderr
    assert "no CRDT here" in done.stderr
