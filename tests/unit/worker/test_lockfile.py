"""The leader lock: one at a time, ids that only grow, frozen leaders that are passed over."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from dxos.errors import StorageAccessError
from dxos.worker.lockfile import AliveMark, LeaderLock, alive_pid, is_locked, kill_alive, read_leader, sweep

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")


def lock(folder: Path) -> LeaderLock:
    return LeaderLock(folder, "1.0")


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_the_first_leads_with_one_and_the_second_waits(tmp_path: Path) -> None:
    alice, bob = lock(tmp_path), lock(tmp_path)
    assert alice.newest() is None
    assert alice.try_lock() == 1
    assert bob.try_lock() is None
    assert (alice.held, bob.held) == (1, 0)
    said = read_leader(tmp_path)
    assert (said["id"], said["pid"], said["version"], said["held"]) == (1, os.getpid(), "1.0", True)


def test_each_leadership_has_an_id_that_nobody_had(tmp_path: Path) -> None:
    for expected in range(1, 6):
        one = lock(tmp_path)
        assert one.try_lock() == expected
        one.release()
    assert files(tmp_path) == ["leader.5"]
    assert read_leader(tmp_path)["held"] is False


def test_a_file_that_nobody_has_led_with_is_led_with(tmp_path: Path) -> None:
    (tmp_path / "leader.9").touch(0o600)
    assert lock(tmp_path).try_lock() == 9


def test_a_heartbeat_moves_the_time_that_others_see(tmp_path: Path) -> None:
    alice, bob = lock(tmp_path), lock(tmp_path)
    alice.try_lock()
    os.utime(tmp_path / "leader.1", (1, 1))
    before = bob.newest()
    assert alice.beat()
    after = bob.newest()
    assert before is not None
    assert after is not None
    assert before.id == after.id
    assert before.beat_ns != after.beat_ns


def test_whoever_keeps_the_lock_but_does_not_beat_is_passed_over_and_learns_it(tmp_path: Path) -> None:
    alice, bob, carol = lock(tmp_path), lock(tmp_path), lock(tmp_path)
    alice.try_lock()
    assert bob.steal(1) == 2
    assert carol.steal(1) is None, "somebody else was quicker"
    assert not alice.beat()
    assert bob.beat()
    alice.release()
    assert alice.try_lock() is None
    assert files(tmp_path) == ["leader.2"]


def test_a_leader_sees_without_a_descriptor_that_there_is_a_newer_one(tmp_path: Path) -> None:
    alice, bob = lock(tmp_path), lock(tmp_path)
    assert alice.try_lock() == 1
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for made in (False, True):
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            assert alice.is_superseded() is made
            assert alice.beat() is not made
            with pytest.raises(StorageAccessError, match="too many files"):
                alice.newest()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert bob.held or bob.steal(1) == 2
    assert bob.renew(7) == 8
    assert alice.is_superseded(), "the one in between is gone"


def test_a_leader_whose_file_was_removed_leads_no_longer(tmp_path: Path) -> None:
    alice = lock(tmp_path)
    alice.try_lock()
    (tmp_path / "leader.1").unlink()
    assert not alice.beat()


def test_other_files_and_names_do_not_disturb(tmp_path: Path) -> None:
    for name in ("leader.x", "leader.01", "leader.", "leader.2.bak", "leader.9999999999999999999"):
        (tmp_path / name).touch()
    assert lock(tmp_path).try_lock() == 1


def test_a_link_in_the_place_of_the_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "leader.1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageAccessError, match="link"):
        lock(tmp_path).try_lock()
    assert not (tmp_path / "elsewhere").exists()


def test_of_many_processes_at_once_each_id_has_one_leader(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from dxos.worker.lockfile import LeaderLock\n"
        "led = 0\n"
        "while led < 15:\n"
        "    one = LeaderLock(Path(sys.argv[1]), '')\n"
        "    if number := one.try_lock(): print(number); led += 1\n"
        "    one.release()"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    ids = [int(line) for one in running for line in one.communicate()[0].split()]
    assert all(one.returncode == 0 for one in running)
    assert len(ids) == len(set(ids)), "two led with one id"
    assert len(ids) == 45
    assert len(files(tmp_path)) == 1


def test_a_mark_is_held_until_its_last_share_is_closed(tmp_path: Path) -> None:
    mark = AliveMark(tmp_path / "alive.a")
    assert alive_pid(mark.path) == 0, "it has not said yet"
    mark.write(4_321)
    share = os.dup(mark.descriptor)
    mark.close()
    assert (is_locked(mark.path), alive_pid(mark.path)) == (True, 4_321)
    sweep(tmp_path)
    os.close(share)
    assert (is_locked(mark.path), alive_pid(mark.path)) == (False, 0)
    sweep(tmp_path)
    assert files(tmp_path) == []


def test_only_the_process_that_holds_its_mark_is_killed(tmp_path: Path) -> None:
    mark = AliveMark(tmp_path / "alive.a")
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[mark.descriptor]
    ) as child:
        mark.write(child.pid)
        mark.close()
        assert kill_alive(mark.path, 9)
        assert child.wait() == -9
    assert not kill_alive(mark.path, 9)
    (tmp_path / "alive.b").write_text(str(os.getpid()))
    assert not kill_alive(tmp_path / "alive.b", 9), "nobody holds it, and the pid is somebody else's"
    assert not kill_alive(tmp_path / "alive.c", 9)


def test_a_leader_leads_on_with_a_higher_id(tmp_path: Path) -> None:
    alice, bob = lock(tmp_path), lock(tmp_path)
    alice.try_lock()
    assert alice.renew(57) == 58
    assert alice.beat()
    assert bob.try_lock() is None
    assert bob.steal(58) == 59
    assert alice.renew(70) is None, "it was replaced meanwhile"
    assert files(tmp_path) == ["leader.59"]
