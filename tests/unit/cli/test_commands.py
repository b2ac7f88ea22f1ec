"""Each command against a host in memory: what it prints for people and programs, and what it refuses."""

import io
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from dxos.cli.main import main
from dxos.cli.session import Surroundings
from dxos.testing.services import FakeServices
from dxos.version import __version__


class Dx:
    """`dx` on one profile in memory."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.stdin = io.StringIO()
        self._surroundings = Surroundings(environ={}, services=FakeServices(), stdin=self.stdin)

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command; what it says goes to `said`."""
        returned = main(arguments, self._surroundings)
        printed, self.said = self._capsys.readouterr()
        assert returned == code, self.said
        return printed

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))


@pytest.fixture
def dx(capsys: pytest.CaptureFixture[str]) -> Dx:
    return Dx(capsys)


@pytest.fixture
def alice(dx: Dx) -> Dx:
    dx("identity", "create", "--name", "Alice")
    dx("space", "create", "Groceries")
    return dx


def test_an_identity_is_created_once_and_shown(dx: Dx) -> None:
    created = dx.json("identity", "create", "--name", "Alice")
    assert created["name"] == "Alice"
    assert created["did"].startswith("did:halo:B")
    assert dx.json("identity", "show") == created
    assert dx.json("identity", "create", code=1)["error"]["code"] == "usage.identity-exists"


def test_an_identity_can_be_renamed(alice: Dx) -> None:
    alice("identity", "update", "--name", "Alicia")
    assert alice.json("identity", "show")["name"] == "Alicia"


def test_without_an_identity_the_next_step_is_said(dx: Dx) -> None:
    for arguments in (("identity", "show"), ("space", "create", "X"), ("space", "join", "abc")):
        assert dx.json(*arguments, code=1)["error"]["code"] == "usage.identity-missing"
        assert "dx identity create" in dx.said


def test_a_space_is_created_listed_and_described(alice: Dx) -> None:
    (listed,) = alice.json("space", "list")
    assert (listed["name"], listed["state"], listed["role"], listed["members"]) == ("Groceries", "READY", "OWNER", 1)
    assert alice.json("space", "info", "Groceries") == listed
    assert alice.json("space", "info", listed["id"][:12]) == listed
    assert listed["id"] in alice("space", "list")
    assert re.search(r"Name +Groceries", alice("space", "info", "groceries"))


def test_without_spaces_the_next_step_is_said(dx: Dx) -> None:
    dx("identity", "create")
    assert dx.json("space", "list") == []
    assert "dx space create" in dx("space", "list")
    assert dx.json("object", "list", "Groceries", code=1)["error"]["code"] == "usage.space-not-found"


def test_members_are_listed_with_their_roles(alice: Dx) -> None:
    (member,) = alice.json("space", "members", "Groceries")
    assert (member["name"], member["role"], member["self"]) == ("Alice", "OWNER", True)
    assert "OWNER" in alice("space", "members", "Groceries")


def test_objects_are_added_listed_shown_changed_and_removed(alice: Dx) -> None:
    (milk,) = alice.json("object", "add", "Groceries", '{"title": "Milk", "done": false, "shop": {"aisle": 3}}')
    assert milk["data"] == {"title": "Milk", "done": False, "shop": {"aisle": 3}}
    assert milk in alice.json("object", "list", "Groceries")
    assert alice.json("object", "get", "Groceries", milk["id"].lower()) == milk
    updated = alice.json("object", "update", "Groceries", milk["id"], '{"done": true}', "--unset", "shop")
    assert updated == {**milk, "data": {"title": "Milk", "done": True}}
    assert alice.json("object", "get", "Groceries", milk["id"]) == updated
    assert alice.json("object", "remove", "Groceries", milk["id"]) == {"removed": [milk["id"]]}
    assert milk["id"] not in [one["id"] for one in alice.json("object", "list", "Groceries")]


def test_a_list_adds_many_and_stdin_is_read(alice: Dx) -> None:
    alice.stdin.write('[{"title": "Milk"}, {"title": "Rice"}]')
    alice.stdin.seek(0)
    added = alice.json("object", "add", "Groceries", "-")
    assert [one["data"]["title"] for one in added] == ["Milk", "Rice"]
    assert [line for line in alice("object", "add", "Groceries", "[{}, {}]").splitlines() if len(line) == 26]


def test_objects_can_be_chosen_sorted_and_limited(alice: Dx) -> None:
    alice(
        "object", "add", "Groceries", '[{"n": 2, "t": "x"}, {"n": 1, "t": "x"}, {"n": 3, "t": "1"}, {"n": 0, "t": 1}]'
    )

    def numbers(*options: str) -> list[int]:
        return [one["data"]["n"] for one in alice.json("object", "list", "Groceries", *options)]

    assert numbers("--where", "t=x", "--order-by", "n") == [1, 2]
    assert numbers("--where", "t=x", "--order-by", "n", "--limit", "1") == [1]
    assert numbers("--where", "t=1") == [0]
    assert numbers("--where", "t=1", "--where", "n=0") == [0]
    assert numbers("--where", 't="1"') == [3]

    (inside,) = alice.json("object", "add", "Groceries", '{"shop": {"aisle": 3}}')
    assert alice.json("object", "list", "Groceries", "--where", "shop.aisle=3") == [inside]
    assert alice.json("object", "list", "Groceries", "--where", "nonsense", code=1)["error"]["code"] == "usage"


BOOKS = (
    '[{"title": "Red", "year": 1990, "tags": ["rare"]}, {"title": "Green", "year": 2001, "tags": [], "lent": null},'
    ' {"title": "Blue", "year": 1985, "tags": ["rare", "new"], "lent": "Ada"}]'
)


@pytest.mark.parametrize(
    ("options", "titles"),
    [
        (["--where", "year >= 1990"], ["Red", "Green"]),
        (["--where", "year between 1980 and 1990", "--order-by", "year"], ["Blue", "Red"]),
        (["--where", "tags contains rare", "--where", "title != Red"], ["Blue"]),
        (["--where", "lent is null"], ["Red", "Green"]),
        (["--where", "lent is missing"], ["Red"]),
        (["--where", "title in Red, Blue", "--order-by", "title", "--desc"], ["Red", "Blue"]),
        (["--order-by", "year", "--offset", "1", "--limit", "1"], ["Red"]),
        (["--search", "re*"], ["Red"]),
        (["--type", "example.org/type/Book"], []),
        (["--limit", "0"], []),
    ],
)
def test_a_list_is_narrowed(alice: Dx, options: list[str], titles: list[str]) -> None:
    alice("object", "add", "Groceries", BOOKS)
    if "--search" in options:
        (hit,) = alice.json("object", "list", "Groceries", *options)
        assert (hit["data"]["title"], hit["snippet"]) == ("Red", "[Red]")
        assert "[Red]" in alice("object", "list", "Groceries", *options)
        return
    found = alice.json("object", "list", "Groceries", *options)
    assert [one["data"]["title"] for one in found] == titles
    if "--limit" not in options:
        assert alice.json("object", "list", "Groceries", *options, "--count") == {"count": len(titles)}


def test_a_list_can_be_csv_a_number_or_a_plan(alice: Dx) -> None:
    alice("object", "add", "Groceries", BOOKS)
    head, *lines = alice("object", "list", "Groceries", "--where", "year < 2000", "--csv").splitlines()
    assert sorted(head.split(",")) == ["id", "lent", "tags", "title", "year"]
    assert [line.count("rare") for line in lines] == [1, 1]
    assert alice("object", "list", "Groceries", "--count") == "3\n"
    plan = alice.json("object", "list", "Groceries", "--explain")
    assert set(plan) == {"index", "rows", "steps"}
    assert "none: all are looked at" in alice("object", "list", "Groceries", "--explain")


@pytest.mark.parametrize(
    "options",
    [
        ["--count", "--csv"],
        ["--count", "--explain"],
        ["--csv", "--json"],
        ["--count", "--limit", "1"],
        ["--where", "year => 1"],
        ["--order-by", "year desc"],
        ["--search", "***"],
    ],
)
def test_what_cannot_be_listed_is_refused_with_the_reason(alice: Dx, options: list[str]) -> None:
    alice("object", "list", "Groceries", *options, code=1)
    assert options[0] in alice.said or "no word" in alice.said


def test_what_a_space_keeps_for_itself_is_listed_on_request_only(alice: Dx) -> None:
    alice("object", "add", "Groceries", "{}")
    assert [one["data"] for one in alice.json("object", "list", "Groceries")] == [{}]
    assert [one["data"] for one in alice.json("object", "list", "Groceries", "--all")] == [{"name": "Groceries"}, {}]
    assert alice.json("space", "info", "Groceries")["objects"] == 1


def test_changes_are_shown_undone_and_done_again(alice: Dx) -> None:
    (milk,) = alice.json("object", "add", "Groceries", '{"title": "Milk"}')
    alice("object", "update", "Groceries", milk["id"], '{"title": "Oat milk"}')
    newest, oldest = alice.json("object", "history", "Groceries", milk["id"])
    assert (newest["who"], newest["what"]) == ("here", "title: 'Milk' → 'Oat milk'")
    assert newest["differences"] == [{"path": ["title"], "kind": "changed", "before": "Milk", "after": "Oat milk"}]
    assert oldest["what"] == "title: + 'Milk'"
    assert "Oat milk" in alice("object", "history", "Groceries", milk["id"], "--limit", "1")
    assert alice("object", "undo", "Groceries") == "Done.\n"
    assert alice.json("object", "get", "Groceries", milk["id"]) == milk
    assert alice.json("object", "redo", "Groceries", milk["id"]) == {"redo": True}
    assert alice.json("object", "get", "Groceries", milk["id"])["data"] == {"title": "Oat milk"}
    assert "nothing to redo" in alice("object", "redo", "Groceries")
    alice("object", "remove", "Groceries", milk["id"])
    assert [one["id"] for one in alice.json("object", "list", "Groceries", "--deleted")] == [milk["id"]]
    assert alice.json("object", "history", "Groceries", milk["id"])
    alice("object", "undo", "Groceries", milk["id"])
    assert alice.json("object", "list", "Groceries", "--deleted") == []


@pytest.mark.parametrize("value", ["{", "nonsense", "3", '["a"]', "[" * 100_000, '{"a": NaN}', '"text"', ""])
def test_what_is_no_object_is_refused_and_nothing_is_added(alice: Dx, value: str) -> None:
    before = alice.json("object", "list", "Groceries")
    assert alice.json("object", "add", "Groceries", f"{value}", code=1)["error"]["code"] == "usage.value"
    assert alice.json("object", "list", "Groceries") == before


def test_one_wrong_object_of_many_adds_none(alice: Dx) -> None:
    before = alice.json("object", "list", "Groceries")
    alice("object", "add", "Groceries", '[{"title": "Milk"}, {"id": "taken"}]', code=1)
    assert alice.json("object", "list", "Groceries") == before


def test_an_unknown_id_removes_nothing_else(alice: Dx) -> None:
    (milk,) = alice.json("object", "add", "Groceries", '{"title": "Milk"}')
    refused = alice.json("object", "remove", "Groceries", milk["id"], "0000", code=1)
    assert refused["error"]["code"] == "usage.object-not-found"
    assert alice.json("object", "get", "Groceries", milk["id"]) == milk


def test_escape_sequences_in_objects_do_not_reach_the_terminal(alice: Dx) -> None:
    alice("object", "add", "Groceries", json.dumps({"title": "\x1b[2J\x9b2J"}))
    printed = alice("object", "list", "Groceries") + alice("space", "info", "Groceries")
    assert "\x1b" not in printed
    assert "\x9b" not in printed


@pytest.mark.parametrize("code", ["", "!!", "abc", "https://example.org/?x=1"])
def test_what_is_no_invitation_is_refused_before_anything_is_asked(alice: Dx, code: str) -> None:
    assert alice.json("space", "join", code, code=1)["error"]["code"] == "invitation.code"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["space", "joinn"], "dx space --help"),
        (["space", "join"], "dx space join --help"),
        (["--profile", "bob", "space", "join"], "dx space join --help"),
        (["nonsense"], "dx --help"),
        (["space", "share", "X", "--lifetime", "soon"], "dx space share --help"),
        (["signal", "serve", "--port", "70000"], "dx signal serve --help"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2_and_points_to_the_help(dx: Dx, arguments: list[str], words: str) -> None:
    assert dx(*arguments, code=2) == ""
    assert words in dx.said
    assert dx.json(*arguments, code=2)["error"]["code"] == "usage.arguments"


@pytest.mark.parametrize(
    ("options", "environ"),
    [
        (["--profile", "../x"], {}),
        ([], {"DX_PROFILE": "a/b"}),
        (["--signal", "http://x"], {}),
        ([], {"DX_SIGNAL": "nonsense"}),
        ([], {"DX_CONFIG": "/nowhere.toml"}),
    ],
)
def test_a_wrong_setting_names_itself(
    options: list[str], environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    surroundings = Surroundings(environ=environ, services=FakeServices())
    assert main(["space", "list", "--json", *options], surroundings) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage.config"


def test_options_may_come_before_or_after_the_command(alice: Dx) -> None:
    assert json.loads(alice("--json", "space", "list")) == alice.json("space", "list")


def test_every_command_has_help(dx: Dx) -> None:
    commands = ["signal serve", *(f"identity {one}" for one in ("create", "show", "update"))]
    commands += [f"space {one}" for one in ("create", "list", "info", "members", "share", "join", "watch")]
    commands += [f"object {one}" for one in ("add", "list", "get", "update", "remove")]
    commands += ["version"]
    for command in commands:
        printed = dx(*command.split(), "--help")
        for option in ("--json", "--profile", "--signal", "--debug"):
            assert option in printed


def test_the_version_is_printed_like_everything_else(dx: Dx) -> None:
    assert dx("version").strip() == __version__
    assert dx.json("version") == {"version": __version__}


def test_a_lifetime_that_the_host_would_refuse_is_a_wrong_command_line(alice: Dx) -> None:
    for seconds in ("0", "2592001"):
        alice("space", "share", "Groceries", "--lifetime", seconds, code=2)
        assert "--lifetime" in alice.said


def test_a_bug_is_told_as_one(alice: Dx, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object) -> Callable[[], None]:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("dxos.cli.listing.ready_space", broken)
    assert alice.json("object", "list", "Groceries", code=1)["error"]["code"] == "internal"
    assert "Traceback" not in alice.said


def test_an_epoch_frees_what_was_deleted_and_the_statistics_say_so(alice: Dx) -> None:
    (milk,) = alice.json("object", "add", "Groceries", '{"title": "Milk"}')
    alice("object", "remove", "Groceries", milk["id"])
    before = alice.json("space", "stats", "Groceries")
    assert (before["epoch"], before["deleted_documents"], before["reclaimed_documents"]) == (0, 1, 0)
    after = alice.json("space", "epoch", "Groceries")
    assert (after["epoch"], after["deleted_documents"], after["reclaimed_documents"]) == (1, 0, 1)
    assert alice.json("space", "compact", "Groceries") == after
    assert "Deleted, freed by an epoch" in alice("space", "stats", "Groceries")
