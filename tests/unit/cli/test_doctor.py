"""`dx doctor` on a profile on disk: what it prints, and its exit codes."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dxos.cli.main import main
from dxos.cli.session import Surroundings
from dxos.store.profile import DATABASE_NAME, Profile

pytestmark = pytest.mark.slow


def test_the_doctor_finds_mends_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    surroundings = Surroundings(environ={"DX_DATA": str(tmp_path), "DX_NO_AGENT": "1"})
    assert main(["doctor"], surroundings) == 1
    assert "nothing to check" in capsys.readouterr().err
    folder = tmp_path / "profile" / "default"
    Profile.open(folder).close()
    assert main(["doctor"], surroundings) == 0
    assert "Nothing is wrong" in capsys.readouterr().out
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as database:
        database.execute("INSERT INTO chunks (position, bytes) VALUES (1, x'00')")
        database.commit()
    assert main(["doctor", "--json"], surroundings) == 1
    report, error = map(json.loads, capsys.readouterr().out.splitlines())
    assert [(one["code"], one["outcome"]) for one in report["findings"]] == [("chunk.stray", "repairable")]
    assert error["error"]["code"] == "storage.corruption"
    assert "dx doctor --repair" in error["error"]["message"]
    assert main(["doctor", "--repair"], surroundings) == 0
    assert "repaired" in capsys.readouterr().out
    assert main(["doctor", "--json"], surroundings) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []


def test_a_profile_in_use_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Profile.open(tmp_path / "profile" / "default"):
        assert main(["doctor", "--json"], Surroundings(environ={"DX_DATA": str(tmp_path), "DX_NO_AGENT": "1"})) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "storage.locked"
