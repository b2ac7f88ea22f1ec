"""`dx` on many records, as a new user tries it: the generated library from its file to a repaired copy.

DXOS_RECORDS says how many; the documentation's walk has 30,000.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow]
ROOT = Path(__file__).parents[2]
RECORDS = int(os.environ.get("DXOS_RECORDS", "200"))
WAIT_S = 60.0 + RECORDS / 100
TYPE = "example.org/type/Book"


class Shell:
    """Where one person types, with a folder of data for one machine."""

    def __init__(self, folder: Path, profile: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DX_")}
        self._environ = {
            **kept,
            "DX_DATA": str(folder),
            "DX_NO_AGENT": "1",
            "DX_PROFILE": profile,
            "DX_SIGNAL": "ws://127.0.0.1:9/",
            "PYTHONPATH": str(ROOT / "src"),
        }

    def text(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dxos.cli", *arguments],
            input="correct horse\n",
            capture_output=True,
            text=True,
            env=self._environ,
            cwd=self.folder,
            timeout=WAIT_S,
            check=False,
        )
        self.said = done.stderr
        assert done.returncode == code, done.stdout[:2_000] + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.text(*arguments, "--json", code=code).splitlines()[0])

    def count(self, space: str, *options: str) -> int:
        found: int = self.json("object", "list", space, "--count", *options)["count"]
        return found


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated file."""
    path = tmp_path_factory.mktemp("library") / "books.csv"
    program = ROOT / "examples" / "library" / "generate.py"
    for form in (path, path.with_suffix(".json")):
        arguments = ["--seed", "7", "--records", str(RECORDS), "--out", str(form)]
        subprocess.run([sys.executable, str(program), *arguments], check=True, timeout=WAIT_S, capture_output=True)
    return path


@pytest.fixture(scope="module")
def expected(books: Path) -> list[dict[str, Any]]:
    """What is in the file, for comparison."""
    found: list[dict[str, Any]] = json.loads(books.with_suffix(".json").read_text())
    assert len(found) == RECORDS
    return found


@pytest.fixture(scope="module")
def imported(books: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Ada's machine with the library; tests that change it use a copy."""
    ada = Shell(tmp_path_factory.mktemp("ada"), "ada")
    ada.text("identity", "create", "--name", "Ada")
    report = ada.json("space", "import", str(books), "--name", "Library", "--type", TYPE)
    assert (report["count"], report["name"]) == (RECORDS, "Library")
    return ada


@pytest.fixture
def ada(imported: Shell, tmp_path: Path) -> Shell:
    shutil.copytree(imported.folder, tmp_path / "ada")
    return Shell(tmp_path / "ada", "ada")


def test_the_same_seed_makes_the_same_books(books: Path, expected: list[dict[str, Any]]) -> None:
    assert expected[0]["title"] == "The Borrowed Letter of the Coast"
    with books.open(newline="") as file:
        assert [line["title"] for line in csv.DictReader(file)] == [one["title"] for one in expected]


def test_records_are_counted_filtered_searched_and_sorted(imported: Shell, expected: list[dict[str, Any]]) -> None:
    assert imported.count("Library") == RECORDS
    assert imported.count("Library", "--type", TYPE) == RECORDS
    nineties = [one for one in expected if 1990 <= one["year"] <= 1999]
    assert imported.count("Library", "--where", "year between 1990 and 1999") == len(nineties) > 0
    rare = [one for one in expected if "rare" in one["tags"] and one["genre"] in ("novel", "poetry")]
    conditions = ("--where", "tags contains rare", "--where", "genre in novel, poetry")
    page = imported.json(
        "object", "list", "Library", *conditions, "--order-by", "year", "--order-by", "number", "--desc", "--limit", "5"
    )
    best = sorted(rare, key=lambda one: (one["year"], one["number"]), reverse=True)[:5]
    assert [one["data"] for one in page] == best
    lent = sum("lent_to" in one for one in expected)
    assert imported.count("Library", "--where", "lent_to exists") == lent > 0
    hits = imported.json("object", "list", "Library", "--search", "crooked mirr*", "--limit", "3")
    assert hits
    assert all("[Crooked]" in one["snippet"] for one in hits)
    table = imported.text("object", "list", "Library", "--where", "place.shelf = 7", "--csv")
    assert len(table.splitlines()) == 1 + sum(one["place"]["shelf"] == 7 for one in expected)
    plan = imported.json("object", "list", "Library", "--where", "year = 1990", "--limit", "1", "--explain")
    assert plan["rows"] <= RECORDS


def test_a_record_is_changed_and_changed_back(ada: Shell) -> None:
    (first,) = ada.json("object", "list", "Library", "--where", "number = 1")
    ada.text("object", "update", "Library", first["id"], '{"lent_to": "Bruno"}')
    newest, *_ = ada.json("object", "history", "Library", first["id"])
    assert newest["what"] == f"lent_to: {first['data']['lent_to']!r} → 'Bruno'"
    ada.text("object", "undo", "Library")
    assert ada.json("object", "get", "Library", first["id"]) == first


def test_removed_records_are_given_up_and_their_room_comes_back(ada: Shell, expected: list[dict[str, Any]]) -> None:
    old = ada.json("object", "list", "Library", "--where", "year < 1900")
    assert len(old) == sum(one["year"] < 1900 for one in expected) > 0
    ada.text("object", "remove", "Library", *(one["id"] for one in old))
    assert ada.count("Library", "--deleted") == len(old)
    before = ada.json("space", "stats", "Library")
    assert before["deleted_documents"] == len(old)
    after = ada.json("space", "epoch", "Library")
    assert after["deleted_documents"] == 0
    assert after["reclaimed_documents"] >= before["reclaimed_documents"] + len(old)
    compacted = ada.json("space", "compact", "Library")
    assert compacted["file_bytes"] < before["file_bytes"]
    assert ada.count("Library") == RECORDS - len(old)
    assert ada.count("Library", "--deleted") == 0


@pytest.fixture(scope="module")
def bruno(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Somebody else's machine."""
    bruno = Shell(tmp_path_factory.mktemp("bruno"), "bruno")
    bruno.text("identity", "create", "--name", "Bruno")
    return bruno


@pytest.mark.parametrize("file", ["library.tar", "library.json", "library.csv"])
def test_what_is_exported_can_be_imported_by_somebody_else(
    imported: Shell, bruno: Shell, tmp_path: Path, expected: list[dict[str, Any]], file: str
) -> None:
    path, typed = str(tmp_path / file), ["--type", TYPE] if file.endswith(".csv") else []
    assert imported.json("space", "export", "Library", path, *typed)["count"] >= RECORDS
    space = bruno.json("space", "import", path, *typed)["space"]
    found = bruno.json("object", "list", space, "--type", TYPE, "--order-by", "number")
    assert [one["data"] for one in found] == expected


def test_a_backup_becomes_the_device_on_another_machine(
    imported: Shell, tmp_path: Path, expected: list[dict[str, Any]]
) -> None:
    imported.text("backup", str(tmp_path / "all.backup"))
    other = Shell(tmp_path / "other", "ada")
    restored = other.json("restore", str(tmp_path / "all.backup"))
    assert (restored["name"], restored["spaces"]) == ("Ada", 1)
    found = other.json("object", "list", "Library", "--order-by", "number")
    assert [one["data"] for one in found] == expected


def test_damage_is_found_and_mended(ada: Shell) -> None:
    assert ada.json("doctor")["findings"] == []
    database = ada.folder / "profile" / "ada" / "profile.sqlite"
    content = bytearray(database.read_bytes())
    place = content.rfind(b'"title"')
    assert place > 0, "rows are JSON"
    content[place + 2] ^= 0x10
    database.write_bytes(content)
    assert ada.json("doctor", code=1)["unresolved_count"] > 0
    assert ada.json("doctor", "--repair")["unresolved_count"] == 0
    assert ada.json("doctor")["findings"] == []
    assert ada.count("Library", "--where", "title exists") == RECORDS
