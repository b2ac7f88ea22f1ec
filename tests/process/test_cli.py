"""`dx` as two people use it: real processes, a real signalling server, profiles on disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
WAIT_S = 30.0
ROOT = Path(__file__).parents[2]


class Running:
    """A command that goes on."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def document(self) -> Any:
        """The next JSON document it prints."""
        assert self._process.stdout is not None
        text = self._process.stdout.readline()
        assert text, f"it ended with {self._process.wait(WAIT_S)}: {self.rest()}"
        return json.loads(text)

    def document_where(self, **entries: Any) -> Any:
        """The next one with these entries."""
        while True:
            found = self.document()
            if all(found.get(name) == value for name, value in entries.items()):
                return found

    def interrupt(self) -> int:
        """Press Ctrl-C; the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(WAIT_S)

    def wait(self) -> int:
        """The exit code."""
        return self._process.wait(WAIT_S)

    def rest(self) -> str:
        """What it said, after its end."""
        assert self._process.stderr is not None
        return self._process.stderr.read()


class Terminal:
    """Where one person types; each has a profile."""

    def __init__(self, data: Path, profile: str, server: str = "ws://127.0.0.1:9/") -> None:
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DX_")},
            "DX_DATA": str(data),
            "DX_NO_AGENT": "1",
            "DX_PROFILE": profile,
            "DX_SIGNAL": server,
            "PYTHONPATH": str(ROOT / "src"),
        }

    def dx(self, *arguments: str, typed: str = "", code: int = 0) -> Any:
        """Run a command to its end; what it says goes to `said`."""
        done = subprocess.run(
            [sys.executable, "-m", "dxos.cli", *arguments, "--json"],
            input=typed,
            capture_output=True,
            text=True,
            env=self._environ,
            timeout=WAIT_S,
            check=False,
        )
        self.said = done.stderr
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[Running]:
        """Run a command that goes on; it is killed at the end if it has not ended."""
        with subprocess.Popen(
            [sys.executable, "-m", "dxos.cli", *arguments, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environ,
        ) as process:
            try:
                yield Running(process)
            finally:
                if process.poll() is None:
                    process.kill()

    def objects(self, space: str, *options: str) -> list[Any]:
        found: list[Any] = self.dx("object", "list", space, *options)
        return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with Terminal(tmp_path, "nobody").running("signal", "serve", "--port", "0", "--quiet") as running:
        yield running.document()["listening"]


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alice with a space of two objects, and Bob; each test gets a copy."""
    data = tmp_path_factory.mktemp("profiles")
    alice, bob = Terminal(data, "alice"), Terminal(data, "bob")
    alice.dx("identity", "create", "--name", "Alice")
    alice.dx("space", "create", "Groceries")
    alice.dx("object", "add", "Groceries", '[{"title": "Milk"}, {"title": "Rice"}]')
    bob.dx("identity", "create", "--name", "Bob")
    return data


@pytest.fixture
def alice(tmp_path: Path, profiles: Path, server: str) -> Terminal:
    shutil.copytree(profiles / "profile" / "alice", tmp_path / "profile" / "alice")
    return Terminal(tmp_path, "alice", server)


@pytest.fixture
def bob(tmp_path: Path, profiles: Path, server: str) -> Terminal:
    shutil.copytree(profiles / "profile" / "bob", tmp_path / "profile" / "bob")
    return Terminal(tmp_path, "bob", server)


def test_a_guest_joins_and_has_everything_when_join_ends(alice: Terminal, bob: Terminal) -> None:
    with alice.running("space", "share", "Groceries") as share:
        shown = share.document_where(event="invitation")
        joined = bob.dx("space", "join", shown["code"], "--auth-code", shown["auth_code"])
        assert share.document_where(event="admitted")["name"] == "Bob"
        assert share.wait() == 0
    assert (joined["name"], joined["role"], joined["members"], joined["objects"]) == ("Groceries", "EDITOR", 2, 2)
    assert bob.objects("Groceries") == alice.objects("Groceries")


def test_the_code_is_asked_for_and_a_wrong_one_costs_an_attempt(alice: Terminal, bob: Terminal) -> None:
    with alice.running("space", "share", "Groceries") as share:
        shown = share.document_where(event="invitation")
        wrong = "000000" if shown["auth_code"] != "000000" else "111111"
        bob.dx("space", "join", shown["code"], typed=f"{wrong}\n{shown['auth_code']}\n")
        assert "2 attempts left" in bob.said
        assert share.wait() == 0


def test_three_wrong_codes_burn_the_invitation_on_both_sides(alice: Terminal, bob: Terminal) -> None:
    with alice.running("space", "share", "Groceries") as share:
        shown = share.document_where(event="invitation")
        wrong = "000000" if shown["auth_code"] != "000000" else "111111"
        refused = bob.dx("space", "join", shown["code"], typed=f"{wrong}\n" * 3, code=1)
        assert refused["error"]["code"] == "invitation.authentication"
        assert share.wait() == 1
    assert bob.dx("space", "list") == []


def test_changes_travel_while_a_profile_is_watched(alice: Terminal, bob: Terminal) -> None:
    with alice.running("space", "share", "Groceries") as share:
        shown = share.document_where(event="invitation")
        bob.dx("space", "join", shown["code"], "--auth-code", shown["auth_code"])
        assert share.wait() == 0
    with alice.running("space", "watch", "Groceries", "--all") as watch:
        present = [watch.document_where(event="present")["id"] for _ in range(2)]
        (tea,) = bob.dx("object", "add", "Groceries", '{"title": "Tea"}', "--sync", "20")
        assert watch.document_where(event="added")["id"] == tea["id"]
        bob.dx("object", "remove", "Groceries", present[1], "--sync", "20")
        assert watch.document_where(event="removed")["id"] == present[1]
        assert watch.interrupt() == 130
    assert alice.objects("Groceries") == bob.objects("Groceries")


def test_ctrl_c_cancels_the_invitation(alice: Terminal, bob: Terminal) -> None:
    with alice.running("space", "share", "Groceries", "--timeout", "2") as share:
        shown = share.document_where(event="invitation")
        assert share.interrupt() == 130
        assert "cancelled" in share.rest()
    with alice.running("space", "watch", "Groceries", "--all") as watch:
        watch.document()
        refused = bob.dx("space", "join", shown["code"], code=1)
    assert refused["error"]["code"].startswith("invitation.")


def test_two_terminals_share_a_profile(alice: Terminal) -> None:
    with alice.running("space", "watch", "Groceries", "--all") as watch:
        watch.document_where(event="present")
        (tea,) = alice.dx("object", "add", "Groceries", '{"title": "Tea"}')
        assert watch.document_where(event="added")["id"] == tea["id"]
        assert watch.interrupt() == 130
    assert len(alice.dx("space", "list")) == 1


def test_without_a_signalling_server_one_works_alone_and_is_told(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "hermit")
    terminal.dx("identity", "create")
    terminal.dx("space", "create", "Cave")
    terminal.dx("object", "add", "Cave", "{}", "--sync", "3.5")
    assert "No signalling server answers" in terminal.said


def test_a_port_in_use_is_said_in_a_sentence(tmp_path: Path, server: str) -> None:
    port = server.split(":")[2].split("/")[0]
    refused = Terminal(tmp_path, "nobody").dx("signal", "serve", "--port", port, code=1)
    assert refused["error"]["code"] == "link.transport"
    assert "--port" in refused["error"]["message"]


@pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGTERM])
def test_a_server_ends_in_order(tmp_path: Path, interruption: signal.Signals) -> None:
    with Terminal(tmp_path, "nobody").running("signal", "serve", "--port", "0") as running:
        running.document()
        running._process.send_signal(interruption)
        assert running.wait() == 130
        assert "Traceback" not in running.rest()


def test_the_help_does_not_pay_for_the_host() -> None:
    heavy = ["automerge", "sqlite3", "websockets", "dxos.spaces", "dxos.store.database", "dxos.mesh", "segno"]
    program = f"import sys; import dxos.cli.main; print([one for one in {heavy} if one in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=True,
        timeout=WAIT_S,
    )
    assert done.stdout.strip() == "[]"


def test_whoever_stops_reading_ends_the_command_quietly(alice: Terminal) -> None:
    with alice.running("object", "list", "Groceries") as listing:
        assert listing._process.stdout is not None
        listing._process.stdout.close()
        assert listing.wait() == 1
        assert listing.rest() == ""
