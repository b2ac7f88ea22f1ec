"""`dx space export`, `dx space import`, `dx backup` and `dx restore` on profiles in a folder."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from dxos.cli.main import main
from dxos.cli.session import Surroundings
from dxos.testing.services import FakeServices

SECRET = "correct horse"


class Dx:
    """`dx` on profiles in a folder, or on a host in memory."""

    def __init__(self, capsys: pytest.CaptureFixture[str], data: Path, services: FakeServices | None) -> None:
        self._capsys, self._data, self._services = capsys, data, services

    def __call__(self, *arguments: str, code: int = 0, stdin: str = "") -> str:
        environ = {"DX_DATA": str(self._data), "DX_CONFIG": str(self._data), "DX_NO_AGENT": "1"}
        returned = main(arguments, Surroundings(environ, self._services, io.StringIO(stdin)))
        printed, self.said = self._capsys.readouterr()
        assert returned == code, self.said
        return printed

    def json(self, *arguments: str, code: int = 0, stdin: str = "") -> Any:
        return json.loads(self(*arguments, "--json", code=code, stdin=stdin))


@pytest.fixture
def alice(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Dx:
    """With a space and two objects, in memory."""
    dx = Dx(capsys, tmp_path, FakeServices())
    dx("identity", "create", "--name", "Alice")
    dx("space", "create", "Shop")
    dx("object", "add", "Shop", '[{"title": "Milk"}, {"title": "Bread"}]')
    return dx


@pytest.mark.parametrize("suffix", ["tar", "json", "csv"])
def test_a_space_goes_out_and_comes_in(alice: Dx, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"shop.{suffix}"
    out = alice.json("space", "export", "Shop", str(file))
    assert out["file"] == str(file)
    assert out["format"] == {"tar": "archive"}.get(suffix, suffix)
    assert file.stat().st_mode & 0o777 == 0o600
    back = alice.json("space", "import", str(file), "--name", "Copy")
    assert back["name"] == "Copy"
    assert [one["data"] for one in alice.json("object", "list", back["space"])] == [
        {"title": "Milk"},
        {"title": "Bread"},
    ]


def test_what_it_says_to_people(alice: Dx, tmp_path: Path) -> None:
    file = tmp_path / "shop.csv"
    assert alice("space", "export", "Shop", str(file)).startswith("Exported 2 objects to ")
    assert alice("space", "import", str(file)).startswith("Imported 2 objects into shop (B")


def test_a_table_of_nothing_says_that_types_are_tables_of_their_own(alice: Dx, tmp_path: Path) -> None:
    (tmp_path / "books.csv").write_text("title\nRed\n")
    space = alice.json("space", "import", str(tmp_path / "books.csv"), "--type", "example.org/type/Book")["space"]
    assert alice.json("space", "export", space, str(tmp_path / "none.csv"))["count"] == 0
    assert "--type NAME" in alice.said
    alice("space", "export", space, str(tmp_path / "all.csv"), "--type", "example.org/type/Book")
    assert alice.said == ""


def test_objects_can_be_added_to_a_space_with_a_type(alice: Dx, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("title,count\nTea,2\n")
    alice("space", "import", str(tmp_path / "more.csv"), "--into", "Shop", "--type", "example.org/type/Item")
    added = alice.json("object", "list", "Shop")[-1]
    assert added["data"] == {"title": "Tea", "count": 2}
    assert added["type"] == "dxn:type:example.org/type/Item:0.1.0"
    out = alice.json("space", "export", "Shop", str(tmp_path / "o.csv"), "--type", "example.org/type/Item")
    assert out["count"] == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("export", "Shop", "{}/there.json"), "storage.access"),
        (("export", "Shop", "{}/shop.txt"), "usage"),
        (("export", "Shop", "{}/shop.json", "--type", "x"), "usage"),
        (("export", "None", "{}/shop.json"), "usage.space-not-found"),
        (("export", "Shop", "{}/no/such/folder.json"), "storage.access"),
        (("import", "{}/missing.json"), "usage.value"),
        (("import", "{}/there.json"), "usage.value"),
        (("import", "{}/there.json", "--format", "archive"), "usage.value"),
        (("import", "{}/there.tar", "--into", "Shop"), "usage"),
        (("import", "{}/there.json", "--into", "Shop", "--name", "x"), "usage"),
    ],
)
def test_what_cannot_be_done_is_said(alice: Dx, tmp_path: Path, arguments: tuple[str, ...], code: str) -> None:
    (tmp_path / "there.json").write_text("x")
    (tmp_path / "there.tar").write_text("x")
    said = alice.json("space", *(one.replace("{}", str(tmp_path)) for one in arguments), code=1)
    assert said["error"]["code"] == code
    assert (tmp_path / "there.json").read_text() == "x"
    assert len(alice.json("space", "list")) == 1


def test_a_file_is_replaced_on_request(alice: Dx, tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("x")
    alice("space", "export", "Shop", str(tmp_path / "there.json"), "--force")
    assert json.loads((tmp_path / "there.json").read_bytes())["version"] == 1


@pytest.mark.slow
def test_a_profile_is_backed_up_and_restored(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    dx, file = Dx(capsys, tmp_path, None), str(tmp_path / "file")
    assert dx.json("backup", file, code=1)["error"]["code"] == "storage.access"
    did = dx.json("identity", "create", "--name", "Alice")["did"]
    dx("space", "create", "Shop")
    assert dx.json("backup", file, stdin=f"{SECRET}\n")["bytes"] == Path(file).stat().st_size
    assert "Keep the passphrase" in dx.said
    assert dx.json("restore", file, "--profile", "new", stdin="wrong", code=1)["error"]["code"] == "usage.passphrase"
    (tmp_path / "secret").write_text(SECRET + "\n")
    restored = dx.json("restore", file, "--profile", "new", "--passphrase-file", str(tmp_path / "secret"))
    assert restored == {"profile": str(tmp_path / "profile" / "new"), "name": "Alice", "did": did, "spaces": 1}
    assert [one["name"] for one in dx.json("space", "list", "--profile", "new")] == ["Shop"]
    assert dx.json("restore", file, stdin=SECRET, code=1)["error"]["code"] == "usage"
    assert SECRET not in dx.said


def test_an_empty_passphrase_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    dx = Dx(capsys, tmp_path, None)
    dx("identity", "create")
    assert dx.json("backup", str(tmp_path / "file"), code=1)["error"]["code"] == "usage.value"
    missing = str(tmp_path / "missing")
    said = dx.json("backup", str(tmp_path / "file"), "--passphrase-file", missing, code=1)
    assert said["error"]["code"] == "usage.value"
    assert dx.json("restore", missing, "--profile", "new", code=1)["error"]["code"] == "usage.value"
    assert not (tmp_path / "file").exists()
