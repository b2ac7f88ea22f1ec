"""Processes that are stopped at the worst moment: they hold nobody up, depose nobody, and find their place again."""

import signal
import sys
import time
from pathlib import Path

import pytest
from worker_people import people, until

from dxos.limits import LEADER_STALE_S
from dxos.worker.lockfile import read_leader

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them"),
]
CROWD = 5


def test_a_leader_that_is_frozen_while_its_worker_opens_leaves_no_second_worker(tmp_path: Path) -> None:
    profile = tmp_path / "p"
    with people(profile) as them:
        them.first().stop()
        before = read_leader(them.host)["id"]
        alice = them.start()
        until(lambda: (leader := read_leader(them.host)).get("pid") == alice.pid and leader["id"] != before)
        alice.signal(signal.SIGSTOP)
        bob = them.another()
        bob.ask("wait_role", leads=True)
        worker = them.worker_pid()
        alice.signal(signal.SIGCONT)
        alice.ready().ask("follow")
        alice.ask("wait_role", leads=False)
        alice.ask("add", start=0)
        assert bob.ask("numbers", count=1) == [0]
        until(lambda: [pid for pid, kind in them.processes().items() if kind == "worker"] == [worker])


def test_what_a_frozen_leader_was_doing_is_done_once_and_nobody_waits_long_for_it(tmp_path: Path) -> None:
    with people(tmp_path / "p") as them:
        alice, bob = them.first(), them.another()
        alice.tell("add", start=0, count=300)
        alice.signal(signal.SIGSTOP)
        begin = time.monotonic()
        bob.ask("add", start=1_000)
        worked_s = time.monotonic() - begin
        bob.ask("wait_role", leads=True)
        led_s = time.monotonic() - begin
        alice.signal(signal.SIGCONT)
        assert alice.answer() == 300
        alice.ask("wait_role", leads=False)
        assert alice.ask("asked") == bob.ask("asked") == [*range(300), 1_000]
        assert worked_s < 5, "the worker serves on while nobody leads"
        assert led_s < 10, "5 s, on a machine that is not busy"


def test_a_follower_that_was_stopped_for_long_deposes_nobody(tmp_path: Path) -> None:
    with people(tmp_path / "p") as them:
        alice, bob = them.first(), them.another()
        led = read_leader(them.host)
        bob.signal(signal.SIGSTOP)
        time.sleep(LEADER_STALE_S)
        bob.signal(signal.SIGCONT)
        bob.ask("add", start=0)
        assert alice.ask("numbers", count=1) == [0]
        assert read_leader(them.host) == led
        assert bob.stop() == "", "and says nothing"


def test_of_many_that_wait_while_the_worker_opens_none_fails(tmp_path: Path) -> None:
    with people(tmp_path / "p") as them:
        them.first().stop()
        crowd = [them.start() for _ in range(CROWD)]
        for number, one in enumerate(crowd):
            one.ready().ask("follow")
            one.ask("add", start=number)
        assert [one.ask("numbers", count=CROWD) for one in crowd] == [list(range(CROWD))] * CROWD
        assert sum(one.ask("role")["worker_is_leader"] for one in crowd) == 1
        assert [one.ask("role")["worker_leader_failures"] for one in crowd] == [0] * CROWD
        for one in crowd:
            one.leave()
        assert [one.stop() for one in crowd] == [""] * CROWD
