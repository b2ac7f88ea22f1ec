"""The private folders in which processes meet."""

import errno
import os
import socket
import stat
import sys
import threading
from pathlib import Path

import pytest

from dxos.errors import StorageAccessError
from dxos.worker.places import check_peer, connect, listen, network_mount, open_places, remove_unheard

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sockets of POSIX")
MOUNTS = r"""22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /srv rw,relatime shared:1 - nfs4 server:/srv rw
31 22 0:41 / /mnt/with\040space rw - cifs //server/share rw
32 30 8:2 / /srv/local rw - ext4 /dev/sda2 rw
33 22 0:42 / /data rw - ext4 /dev/sda3 rw
34 22 0:43 / /data rw - fuse.sshfs server:/data rw
broken line
"""


def test_the_folder_is_private(tmp_path: Path) -> None:
    places = open_places(tmp_path / "profile")
    for folder in (places.profile, places.host, places.sockets):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert open_places(tmp_path / "profile") == places


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/root", None),
        ("/srv/bob", "nfs4"),
        ("/srv", "nfs4"),
        ("/srvs", None),
        ("/srv/local/profile", None),
        ("/mnt/with space/profile", "cifs"),
        ("/data/profile", "fuse.sshfs"),
    ],
)
def test_network_file_systems_are_recognised(path: str, kind: str | None) -> None:
    assert network_mount(MOUNTS, path) == kind


def test_a_path_too_long_for_a_socket_has_a_short_folder_that_all_processes_agree_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "r"
    runtime.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    profile = tmp_path / ("long" * 30) / "profile"
    places = open_places(profile)
    assert places.sockets != places.host
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert open_places(profile) == places
    with listen(places.coordinator), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(places.coordinator))
    places.tidy()
    assert places.sockets.exists(), "it is not empty"
    places.coordinator.unlink()
    places.tidy()
    assert not places.sockets.exists()
    assert open_places(profile) == places


def test_links_are_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "host").symlink_to(elsewhere)
    with pytest.raises(StorageAccessError, match="link"):
        open_places(tmp_path / "profile")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives a folder away")
def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "host").mkdir()
    os.chown(tmp_path / "profile" / "host", 12_345, 12_345)
    with pytest.raises(StorageAccessError, match="another user"):
        open_places(tmp_path / "profile")


def test_a_socket_is_private_and_takes_the_place_of_another(tmp_path: Path) -> None:
    places = open_places(tmp_path)
    with listen(places.coordinator) as first, listen(places.coordinator) as second:
        assert stat.S_IMODE(places.coordinator.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(places.coordinator))
            second.settimeout(1)
            connection, _ = second.accept()
            with connection:
                assert check_peer(connection) in (os.getpid(), 0)
        first.setblocking(False)
        with pytest.raises(BlockingIOError):
            first.accept()
    assert os.listdir(places.host) == ["coordinator.sock"]


def test_a_socket_is_removed_if_nobody_listens_there(tmp_path: Path) -> None:
    path = open_places(tmp_path).coordinator
    remove_unheard(path, wait_s=0.0)
    with listen(path):
        for wait_s in (0.0, 0.05):
            remove_unheard(path, wait_s=wait_s)
            assert path.exists(), "somebody does"
    remove_unheard(path, wait_s=0.0)
    assert not path.exists()


def test_a_socket_is_removed_if_whoever_listens_is_dying(tmp_path: Path) -> None:
    path = open_places(tmp_path).coordinator
    timer = threading.Timer(0.05, listen(path).close)
    timer.start()
    remove_unheard(path, wait_s=10.0)
    assert not path.exists()
    timer.join()


def test_a_process_with_too_many_files_open_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(family: int) -> socket.socket:
        raise OSError(errno.EMFILE, "x")

    monkeypatch.setattr(socket, "socket", fail)
    with pytest.raises(StorageAccessError, match="too many files"):
        connect(tmp_path / "coordinator.sock")


def test_sockets_of_those_who_were_killed_before_they_listened_are_removed(tmp_path: Path) -> None:
    places = open_places(tmp_path / "p")
    (places.sockets / "c.1.new").touch()
    with listen(places.coordinator):
        places.tidy()
        assert [one.name for one in places.sockets.iterdir()] == ["coordinator.sock"]
