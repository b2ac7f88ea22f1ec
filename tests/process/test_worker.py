"""Several processes on one profile: they start, crash, freeze and close in any order, and the others go on.

`DXOS_WORKER_STARTS=100 pytest tests/process/test_worker.py` starts two at the same instant more often,
and freezes more.
"""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from worker_people import people, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them"),
]
LONG = "DXOS_WORKER_STARTS" in os.environ
STARTS = int(os.environ.get("DXOS_WORKER_STARTS", "3"))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_second_process_sees_the_same_space_and_each_the_others_edits(tmp_path: Path, backend: str) -> None:
    with people(tmp_path / "p") as them:
        alice = them.first(backend)
        bob = them.another(backend)
        assert bob.ask("role")["worker_is_leader"] is False
        alice.ask("add", start=0)
        bob.ask("add", start=1)
        assert alice.ask("numbers", count=2) == bob.ask("numbers", count=2) == [0, 1]
        assert bob.stop() == ""
        assert alice.stop() == ""
        assert them.processes() == {}, "the last one waits until the storage is let go of"


def test_a_client_imports_neither_the_host_nor_the_crdt(tmp_path: Path) -> None:
    with people(tmp_path / "p") as them:
        alice = them.first()
        modules = set(alice.ask("modules"))
        packages = ("automerge", "sqlite3", "dxos.spaces", "dxos.mesh", "dxos.feed", "dxos.worker.process")
        assert [one for one in modules if one.startswith(packages)] == []
        assert {one for one in modules if one.startswith("dxos.store")} <= {"dxos.store", "dxos.store.files"}


@pytest.mark.parametrize("victim", ["leader", "worker", "zygote", "leader and worker", "all but one"])
def test_whoever_is_killed_the_others_go_on(tmp_path: Path, victim: str) -> None:
    with people(tmp_path / "p") as them:
        alice, bob = them.first(), them.another()
        worker, zygote = them.worker_pid(), them.zygote_pid()
        bob.ask("add", start=0)
        if victim in ("worker", "leader and worker", "all but one"):
            os.kill(worker, signal.SIGKILL)
        if victim in ("leader", "leader and worker", "all but one"):
            alice.signal(signal.SIGKILL)
        if victim in ("zygote", "all but one"):
            os.kill(zygote, signal.SIGKILL)
        begin = time.monotonic()
        bob.ask("add", start=1)
        took_s = time.monotonic() - begin
        assert bob.ask("asked") == bob.ask("numbers", count=2) == [0, 1]
        assert (them.worker_pid() == worker) == (victim in ("leader", "zygote")), "a worker that lives is kept"
        carol = them.another()
        assert carol.ask("asked") == [0, 1]
        assert took_s < 10, took_s
        if victim != "worker":
            until(lambda: len(them.processes()) == 2)  # Another zygote is ready before it is needed.
        os.kill(them.worker_pid(), signal.SIGKILL)
        carol.ask("add", start=2)
        assert bob.ask("numbers", count=3) == [0, 1, 2]


@pytest.mark.parametrize("victim", ["worker", "both", *(["leader"] if LONG else [])])
def test_whoever_is_frozen_is_replaced_and_follows_when_it_wakes(tmp_path: Path, victim: str) -> None:
    with people(tmp_path / "p") as them:
        alice, bob = them.first(), them.another()
        worker = them.worker_pid()
        if victim in ("worker", "both"):
            os.kill(worker, signal.SIGSTOP)
        if victim in ("leader", "both"):
            alice.signal(signal.SIGSTOP)
        if victim != "worker":
            assert bob.ask("wait_role", leads=True)["worker_leader_failures"] == 0
        bob.ask("add", start=0)
        assert (them.worker_pid() == worker) == (victim == "leader")
        alice.signal(signal.SIGCONT)
        alice.ask("wait_role", leads=victim == "worker")
        alice.ask("add", start=1)
        assert alice.ask("numbers", count=2) == bob.ask("numbers", count=2) == [0, 1]
        said = f"Process {alice.pid} leads this profile and is frozen; this one takes over.\n"
        assert bob.stop() == ("" if victim == "worker" else said)
        assert alice.stop() == ""


def test_an_application_that_blocks_its_event_loop_goes_on_leading(tmp_path: Path) -> None:
    with people(tmp_path / "p") as them:
        alice, bob = them.first(), them.another()
        alice.tell("block", seconds=5)
        end = time.monotonic() + 4  # A heartbeat that stood still for 2.5 s would be that of a frozen process.
        number = 0
        while time.monotonic() < end:
            bob.ask("add", start=number)
            number += 1
            time.sleep(0.2)
        alice.answer()
        assert alice.ask("numbers", count=number) == list(range(number))
        assert bob.ask("role")["worker_is_leader"] is False


@pytest.mark.parametrize("order", ["leader first", "leader last", "at once"])
def test_they_close_in_any_order(tmp_path: Path, order: str) -> None:
    with people(tmp_path / "p") as them:
        alice, bob, carol = them.first(), them.another(), them.another()
        worker = them.worker_pid()
        if order == "at once":
            for one in (alice, bob, carol):
                one.tell("add", start=0)
            assert [one.stop() for one in (alice, bob, carol)] == ["", "", ""]
        else:
            them_all = [alice, bob, carol] if order == "leader first" else [carol, bob, alice]
            for number, one in enumerate(them_all):
                assert them.worker_pid() == worker
                one.ask("add", start=number)
                assert one.stop() == ""
        dave = them.another()
        assert dave.ask("asked") == ([0, 0, 0] if order == "at once" else [0, 1, 2])
        assert dave.stop() == ""
        assert them.processes() == {}


def test_a_process_that_ends_without_closing_leaves_nothing(tmp_path: Path) -> None:
    with people(tmp_path / "p") as them:
        them.first().signal(signal.SIGTERM)


def test_the_coordinators_socket_is_made_again(tmp_path: Path) -> None:
    with people(tmp_path / "p") as them:
        alice = them.first()
        (them.host / "coordinator.sock").unlink()
        bob = them.another()
        alice.ask("add", start=0)
        assert bob.ask("numbers", count=1) == [0]


def test_a_path_too_long_for_sockets_works(tmp_path: Path) -> None:
    profile = tmp_path / ("long" * 30) / "p"
    with people(profile) as them:
        alice, bob = them.first(), them.another()
        alice.ask("add", start=0)
        assert bob.ask("numbers", count=1) == [0]
        elsewhere = Path((them.host / "sockets").read_text())
        assert elsewhere.is_dir()
        assert alice.stop() == bob.stop() == ""
        until(lambda: not elsewhere.exists())


@pytest.mark.timeout(60 + 10 * STARTS)
def test_of_two_that_start_at_the_same_instant_one_leads_and_both_are_served(tmp_path: Path) -> None:
    profile = tmp_path / "p"
    with people(profile) as them:
        them.first().stop()
    for _ in range(STARTS):
        with people(profile) as them:
            two = [them.start(), them.start()]
            for one in two:
                one.ready().ask("follow")
            assert sorted(one.ask("role")["worker_is_leader"] for one in two) == [False, True]
            assert [one.stop() for one in two] == ["", ""]


def test_a_profile_that_is_reset_is_empty_for_everybody(tmp_path: Path) -> None:
    with people(tmp_path / "p") as them:
        alice, bob = them.first(), them.another()
        bob.ask("reset")
        bob.stop()
        alice.close()
        carol = them.start().ready()
        carol.ask("create")


def test_a_worker_that_is_asked_to_end_does_so_in_order(tmp_path: Path) -> None:
    with people(tmp_path / "p") as them:
        alice = them.first()
        worker = them.worker_pid()
        alice.ask("add", start=0)
        os.kill(worker, signal.SIGTERM)
        alice.ask("add", start=1)
        assert alice.ask("asked") == [0, 1]
        assert them.worker_pid() != worker
        assert "The system asked for it" in (them.host / "worker.log").read_text()
