"""Several processes on one profile: they start, crash, freeze and close in any order, and the others go on.

`DXOS_WORKER_STARTS=100 pytest tests/process/test_worker.py` starts two at the same instant more often,
and freezes more.
"""

import contextlib
import logging
import os
import shutil
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from worker_people import people, until

from dxos import Client
from dxos.errors import (
    ClosedError,
    ConfigError,
    CorruptionError,
    ProfileLockedError,
    ProfileVersionError,
    StorageAccessError,
)
from dxos.store.profile import Profile
from dxos.worker.lockfile import alive_pid

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
        assert "worker" not in them.processes().values(), "the last one waits until the storage is let go of"


def test_a_client_imports_neither_the_host_nor_the_crdt(tmp_path: Path) -> None:
    with people(tmp_path / "p") as them:
        alice = them.first()
        modules = set(alice.ask("modules"))
        host = ("automerge", "sqlite3", "dxos.spaces", "dxos.mesh", "dxos.feed", "dxos.worker.process")
        packages = (*host, "cryptography", "pydantic", "websockets")
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
        assert "worker" not in them.processes().values()


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


def test_a_worker_that_is_made_too_late_does_not_hide_the_one_that_serves(tmp_path: Path) -> None:
    with people(tmp_path / "p") as them:
        alice, bob = them.first(), them.another()
        frozen = them.zygote_pid()
        os.kill(frozen, signal.SIGSTOP)
        os.kill(them.worker_pid(), signal.SIGKILL)
        bob.ask("add", start=0)
        worker, place = them.worker_pid(), (them.host / "worker.sock").stat().st_ino
        os.kill(frozen, signal.SIGCONT)  # It makes the worker that nobody waits for any more.
        until(lambda: frozen not in them.processes())
        assert (them.host / "worker.sock").stat().st_ino == place
        alice.signal(signal.SIGKILL)
        bob.ask("wait_role", leads=True)
        assert them.worker_pid() == worker


def test_a_folder_that_is_removed_while_processes_work_is_made_again(tmp_path: Path) -> None:
    with people(tmp_path / "p") as them:
        alice = them.first()
        os.kill(them.worker_pid(), signal.SIGKILL)  # The next one has another number, which grows on.
        alice.ask("add", start=0)
        bob = them.another()
        shutil.rmtree(them.host)
        alice.signal(signal.SIGKILL)
        bob.ask("add", start=1)
        bob.ask("wait_role", leads=True)
        assert them.another().ask("asked") == [0, 1]
        assert bob.ask("role")["leadership_id"] > 2


def test_a_profile_whose_folder_of_locks_was_lost_is_opened_again(tmp_path: Path) -> None:
    with people(tmp_path / "p") as them:
        for _ in range(3):
            (them.another() if them.host.exists() else them.first()).stop()
        shutil.rmtree(them.host)  # As after a backup was restored: the storage has seen higher leaderships.
        assert them.another().ask("asked") == []
        (leader,) = them.host.glob("leader.*")
        assert int(leader.suffix[1:]) > 3


@pytest.mark.anyio
async def test_errors_of_opening_are_those_of_the_host(tmp_path: Path) -> None:
    locked, newer, damaged, linked = (tmp_path / name for name in ("locked", "newer", "damaged", "linked"))
    with Profile.open(locked), pytest.raises(ProfileLockedError) as raised:
        await Client(shared(locked)).initialize()
    assert raised.value.detail["pid"] == os.getpid()
    Profile.open(newer).close()
    with contextlib.closing(sqlite3.connect(newer / "profile.sqlite")) as database:
        database.execute("PRAGMA user_version = 1000")
    with pytest.raises(ProfileVersionError):
        await Client(shared(newer)).initialize()
    damaged.mkdir()
    (damaged / "profile.sqlite").write_bytes(b"no database" * 1_000)
    with pytest.raises(CorruptionError):
        await Client(shared(damaged)).initialize()
    linked.symlink_to(damaged)
    with pytest.raises(StorageAccessError, match="link"):
        await Client(shared(linked)).initialize()


@pytest.mark.anyio
async def test_a_shared_profile_cannot_be_had_alone_and_says_who_has_it(tmp_path: Path) -> None:
    async with Client(shared(tmp_path)):
        with pytest.raises(ProfileLockedError, match='services="worker"') as raised:
            await Client(shared(tmp_path), services="local").initialize()
        (mark,) = (tmp_path / "host").glob("alive.*")
        assert raised.value.detail["pid"] == alive_pid(mark)
    async with Client(shared(tmp_path), services="local"):
        pass


@pytest.mark.anyio
async def test_the_child_of_a_fork_neither_uses_nor_closes_its_parents_client(tmp_path: Path) -> None:
    async with Client(shared(tmp_path)) as client:
        await client.halo.create_identity(display_name="Alice")
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                client.halo  # noqa: B018
            except ClosedError as error:
                os.write(writer, str(error).encode())
            finally:
                os._exit(0)
        os.close(writer)
        assert b"forked" in os.read(reader, 1_000)
        os.close(reader)
        os.waitpid(child, 0)  # noqa: ASYNC222 - It has ended, or is about to.
        assert (await client.create_space(name="Groceries")).name == "Groceries"


@pytest.mark.anyio
async def test_a_client_can_be_opened_again_and_two_of_one_process_share_too(tmp_path: Path) -> None:
    alice, bob = Client(shared(tmp_path)), Client(shared(tmp_path))
    for _ in range(2):
        async with alice, bob:
            if alice.halo.identity.get() is None:
                await alice.halo.create_identity(display_name="Alice")
            identity = await bob.halo.identity.wait_for(lambda one: one is not None, timeout_s=10)
            assert identity == alice.halo.identity.get()


@pytest.mark.anyio
async def test_whoever_comes_later_is_told_that_other_servers_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = shared(tmp_path), shared(tmp_path)
    first["runtime"]["services"] = {"signaling": [{"server": "ws://127.0.0.1:9/first"}]}
    second["runtime"]["services"] = {"signaling": [{"server": "ws://127.0.0.1:9/second"}]}
    async with Client(first), Client(second) as client:
        await client.mesh.network_status.wait_for(lambda one: one is not None and one.signaling != (), timeout_s=10)
    (warning,) = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert "which stay: ws://127.0.0.1:9/first, and not ws://127.0.0.1:9/second" in warning


@pytest.mark.anyio
async def test_settings_that_cannot_be_shared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="memory"):
        await Client(services="worker").initialize()
    with pytest.raises(ConfigError, match="elsewhere"):
        await Client(shared(tmp_path), services="elsewhere").initialize()  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="services"):
        Client({"runtime": {"client": {"services": "elsewhere"}}})


def shared(path: Path) -> dict[str, Any]:
    """Settings of a profile on disk, which is shared if nobody says otherwise."""
    return {"runtime": {"client": {"storage": {"persistent": True, "dataRoot": str(path)}}}}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
