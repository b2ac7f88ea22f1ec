"""Storms: clients of one profile edit while all that may befall processes, their disk and their files befalls them.

`DXOS_STORMS=200 pytest tests/process/test_storms.py` goes further than every run; the seed is the name of the test.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from storm_edits import Story, by_writer, tokens_of
from worker_people import People, Person, people, until

from dxos import Client
from dxos.spaces.doctor import examine_folder
from dxos.worker.lockfile import is_locked, read_leader

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them"),
]
STORMS = int(os.environ.get("DXOS_STORMS", "2"))
STORM_S = float(os.environ.get("DXOS_STORM_S", "3"))
CLIENTS_MIN, CLIENTS_MAX = 3, 10


@pytest.mark.parametrize("seed", range(STORMS))
def test_after_a_storm_all_that_was_acknowledged_is_there_once(tmp_path: Path, seed: int) -> None:
    journals = tmp_path / "journals"
    journals.mkdir()
    with small_disk(tmp_path / "disk") as disk:
        profile = tmp_path / "disk" / "p"
        with people(profile, "storm_peer.py") as them:
            storm = Storm(seed, them, journals, disk)
            storm.run()
            storm.calm()
            storm.agree()
            storm.end()
        told = {one.name: one.read_text().splitlines() for one in journals.iterdir()}
        anyio.run(check, profile, seed, told, backend="asyncio")


def test_on_a_full_disk_the_next_one_leads_and_reading_goes_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        if disk is None:
            pytest.skip("cannot mount a file system here")
        with people(disk / "p") as them:
            alice, bob = them.first(), them.another()
            bob.ask("add", start=0)
            fill(disk / "filler")
            alice.signal(signal.SIGKILL)
            bob.ask("wait_role", leads=True)
            assert bob.ask("asked") == [0]
            (disk / "filler").unlink()
            bob.ask("add", start=1)
            assert them.another().ask("asked") == bob.ask("numbers", count=2) == [0, 1]


class Storm:
    """One storm, from a seed."""

    def __init__(self, seed: int, them: People, journals: Path, disk: Path | None) -> None:
        self.seed, self.them, self._journals, self._disk = seed, them, journals, disk
        self._chance = random.Random(seed)
        self._count = 0
        self._began = time.monotonic()
        self._was_full = self._is_removed = False
        self.clients: list[Person] = []  # That live and are not closing.
        self._closing: list[Person] = []
        self._waking: list[tuple[float, Callable[[], None]]] = []  # What ends, and when.
        self._stopped: set[int] = set()
        first = them.start().ready()
        first.ask("create")
        first.ask("found")
        self.start(first)
        for _ in range(self._chance.randint(CLIENTS_MIN, 5) - 1):
            self.start()

    def say(self, what: str) -> None:
        """For whoever reads of a storm that failed."""
        print(f"{time.monotonic() - self._began:7.3f} {what}")

    def start(self, person: Person | None = None) -> None:
        """One more client, who edits as soon as it can."""
        self._count += 1
        person = person or self.them.start(self._chance.choice(("asyncio", "asyncio", "trio")))
        self.say(f"start c{self._count} as {person.pid}")
        name = f"c{self._count}"
        person.tell("edit", seed=self.seed, name=name, journal=str(self._journals / name))
        self.clients.append(person)

    # --- The weather ---

    def run(self) -> None:
        """Have things happen."""
        time.sleep(0.5)
        end = time.monotonic() + STORM_S
        events = [
            (3, self._kill_leader),
            (3, self._kill_worker),
            (2, self._kill_both),
            (1, self._kill_zygote),
            (1, self._kill_follower),
            (2, self._freeze_leader),
            (2, self._freeze_worker),
            (1, self._freeze_follower),
            (1, self._freeze_zygote),
            (3, self.start),
            (2, self._close),
            (1, self._fill),
            (1, self._remove_socket),
            (1, self._remove_folder),
        ]
        weights, does = [one[0] for one in events], [one[1] for one in events]
        while time.monotonic() < end:
            (event,) = self._chance.choices(does, weights)
            event()
            while len(self.clients) < CLIENTS_MIN:
                self.start()
            time.sleep(self._chance.choice((0.0, 0.05, 0.2, 0.5)))
            self._wake(time.monotonic())

    def _wake(self, now: float) -> None:
        for one in [one for one in self._waking if one[0] <= now]:
            self._waking.remove(one)
            one[1]()

    def _leader(self) -> Person | None:
        pid = read_leader(self.them.host).get("pid")
        return next((one for one in self.clients if one.pid == pid), None)

    def _follower(self) -> Person | None:
        leader = self._leader()
        return self._chance.choice([one for one in self.clients if one is not leader])

    def _kill(self, person: Person | None) -> None:
        if person is not None and len(self.clients) > 1:
            self.say(f"kill {person.pid}")
            self.clients.remove(person)
            person.signal(signal.SIGKILL)

    def _kill_leader(self) -> None:
        self._kill(self._leader())

    def _kill_follower(self) -> None:
        self._kill(self._follower())

    def _kill_both(self) -> None:
        self._kill_worker()
        self._kill_leader()

    def _kill_worker(self) -> None:
        self._signal("worker", signal.SIGKILL)

    def _kill_zygote(self) -> None:
        self._signal("zygote", signal.SIGKILL)

    def _signal(self, kind: str, number: signal.Signals) -> None:
        pid = self._find(kind)
        if pid:
            self.say(f"{number.name} {kind} {pid}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _find(self, kind: str) -> int:
        return next((pid for pid, found in self.them.processes().items() if found == kind), 0)

    def _freeze(self, pid: int) -> None:
        if pid and not self._is_removed:
            seconds = self._chance.choice((0.1, 0.5, 1.0, 3.5))
            self.say(f"freeze {pid} for {seconds} s")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

            def thaw() -> None:
                self.say(f"thaw {pid}")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

            self._waking.append((time.monotonic() + seconds, thaw))

    def _freeze_leader(self) -> None:
        leader = self._leader()
        self._freeze(leader.pid if leader is not None else 0)

    def _freeze_follower(self) -> None:
        follower = self._follower()
        self._freeze(follower.pid if follower is not None else 0)

    def _freeze_worker(self) -> None:
        self._freeze(self._find("worker"))

    def _freeze_zygote(self) -> None:
        self._freeze(self._find("zygote"))

    def _close(self) -> None:
        if len(self.clients) > 1:
            person = self._chance.choice(self.clients)
            self.say(f"close {person.pid}")
            self.clients.remove(person)
            person.leave()
            self._closing.append(person)

    def _fill(self) -> None:
        if self._disk is None:
            return
        self.say("the disk fills")
        filler = self._disk / "filler"
        fill(filler)
        self._was_full = True

        def free() -> None:
            self.say("there is room")
            filler.unlink(missing_ok=True)

        self._waking.append((time.monotonic() + self._chance.choice((0.1, 0.4, 1.0)), free))

    def _remove_socket(self) -> None:
        self.say("the socket is removed")
        (self.them.host / "coordinator.sock").unlink(missing_ok=True)

    def _remove_folder(self) -> None:
        if self._waking:
            return  # A worker that is frozen then has the storage, and nothing proves any more that it is a worker.
        self._is_removed = True
        self.say("the folder of sockets and locks is removed")
        shutil.rmtree(self.them.host, ignore_errors=True)

    # --- Afterwards ---

    def calm(self) -> None:
        """Let everything go on; every client is served, and comes to rest with nothing wrong."""
        self._wake(float("inf"))
        for one in list(self.clients):
            try:
                self._await_edit(one)
            except AssertionError as error:
                self._check_no_room(error)
                self.clients.remove(one)
        while len(self.clients) < CLIENTS_MIN:  # Perhaps all had come when there was no room.
            self.start()
            self._await_edit(self.clients[-1])
        self.say("calm")
        for one in self.clients:
            one.tell("rest")
        assert [one.answer() for one in self.clients] == [[]] * len(self.clients)
        self.say("all rest")

    def _await_edit(self, one: Person) -> None:
        """Wait until it is open and has begun to edit."""
        if one.opened_s == 0.0:
            one.ready()
        one.answer()

    def _check_no_room(self, error: AssertionError) -> None:
        """Only who opens while the disk is full ends with an error, which says so."""
        if not self._was_full or "StorageFullError" not in str(error):
            raise error

    def agree(self) -> None:
        """All clients find the same and were shown the same."""

        def found() -> set[str]:
            return {digest for one in self.clients for digest in one.ask("digests")}

        until(lambda: len(found()) == 1, 15)
        self.say("all agree")

    def end(self) -> None:
        """All close in any order, and leave nothing."""
        self._chance.shuffle(self.clients)
        for one in self.clients:
            one.leave()
        for one in (*self.clients, *self._closing):
            try:
                said = one.stop()
            except AssertionError as error:
                self._check_no_room(error)
                continue
            assert "Traceback" not in said, said
            assert "ResourceWarning" not in said, said
        self.say("all are closed")
        assert "worker" not in self.them.processes().values(), "the last one waits until the storage is let go of"
        assert [one for one in self.them.host.glob("leader.*") if is_locked(one)] == []


async def check(profile: Path, seed: int, journals: dict[str, list[str]]) -> None:
    """The profile, opened alone, has every acknowledged group once, no refused one, and nothing torn."""
    assert (await examine_folder(profile)).findings == ()
    settings = {"runtime": {"client": {"storage": {"persistent": True, "dataRoot": str(profile)}, "services": "local"}}}
    async with Client(settings) as client:
        space = await client.spaces.get()[0].wait_until_ready(20)
        found = [one.to_dict() for one in await space.db.query().run()]
    (board,) = [one for one in found if one.get("kind") == "board"]
    owned = [one for one in found if one.get("kind") == "own"]
    own = {one["owner"]: one for one in owned}
    assert len(own) == len(owned)
    log, text = by_writer(board["log"]), by_writer(tokens_of(board["text"]))
    made = by_writer(one["token"] for one in found if one.get("kind") == "made")
    total = 0
    for name, journal in journals.items():
        lines = [line.split() for line in journal]
        ended = {int(number): what for what, number in lines if what != "i"}
        story, theirs = Story(seed, name), own.get(name, {"text": "", "last": 0})
        for number in sorted({int(number) for _, number in lines}):
            # Only the last one may be without an answer; then it is there, or it is not.
            if ended.get(number, "a" if theirs["last"] == number else "r") == "a":
                story.tell(story.group(number))
        total += sum(what == "a" for what in ended.values())
        assert theirs["last"] == story.last, name
        assert theirs["text"] == story.text, name
        assert board["counts"].get(name, 0) == story.count, name
        assert log.get(name, []) == by_writer(story.log).get(name, []), name
        assert text.get(name, []) == by_writer(story.written).get(name, []), name
        assert sorted(made.get(name, [])) == by_writer(story.created).get(name, []), name
        for one in (log, text, made):
            one.pop(name, None)
    assert log == text == made == {}
    assert total > 2 * STORM_S, "the storm hardly let anybody work"


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"x" * 4_096):
            pass


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[Path | None]:
    """A small file system in memory, or None where none can be mounted: then no disk fills."""
    path.mkdir()
    is_mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=32m", "none", path], check=False, capture_output=True
        ).returncode
    )
    try:
        yield path if is_mounted else None
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", path], check=True)
