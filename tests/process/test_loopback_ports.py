"""Sessions over the loopback address, as where no descriptor can be handed over: everything else is the same."""

import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest
from worker_people import SOURCE, people, until

from dxos.limits import LOOPBACK_TOKEN_BYTES, LOOPBACK_TRIES_MAX

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them"),
]
LISTENS, CONNECTED = "0A", "01"


# What Python runs first, in every process: a system that hands over no descriptor.
POOR = """
import socket
del socket.SCM_RIGHTS
socket.__all__.remove("SCM_RIGHTS")
def refuse(*_):
    raise OSError("no descriptors are handed over here")
socket.socket.recvmsg = refuse
"""


@pytest.fixture
def poor(tmp_path: Path) -> Path:
    """This package, on such a system."""
    source = tmp_path / "poor"
    source.mkdir()
    (source / "sitecustomize.py").write_text(POOR)
    (source / "dxos").symlink_to(SOURCE / "dxos")
    return source


def ports(pid: int, state: str) -> list[int]:
    """The ports of the loopback address that a process has in that state."""
    own = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(entry)
        if target.startswith("socket:"):
            own.add(target[len("socket:[") : -1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    found = [row[1].partition(":") for row in rows if row[3] == state and row[9] in own]
    assert all(address == "0100007F" for address, _, _ in found), "other addresses than 127.0.0.1"
    return [int(port, 16) for _, _, port in found]


def test_processes_share_a_profile_over_the_loopback_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DX_PORTS", "loopback")
    with people(tmp_path / "p") as them:
        alice, bob = them.first(), them.another("trio")
        (port,) = ports(them.worker_pid(), LISTENS)
        assert ports(them.worker_pid(), CONNECTED) == [port, port], "a session each"
        alice.ask("add", start=0)
        bob.ask("add", start=1)
        assert alice.ask("numbers", count=2) == bob.ask("numbers", count=2) == [0, 1]

        strangers = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(5)]
        for one in strangers:
            one.sendall(bytes(LOOPBACK_TOKEN_BYTES) * LOOPBACK_TRIES_MAX)
        assert [one.recv(1) for one in strangers] == [b""] * 5, "each is shown the door"
        for one in strangers:
            one.close()

        os.kill(them.worker_pid(), signal.SIGKILL)
        bob.ask("add", start=2)
        alice.ask("add", start=3)
        assert alice.ask("numbers", count=4) == bob.ask("numbers", count=4) == [0, 1, 2, 3]
        alice.signal(signal.SIGKILL)
        bob.ask("wait_role", leads=True)
        bob.ask("add", start=4)
        until(lambda: len(ports(them.worker_pid(), CONNECTED)) == 1)
        assert bob.stop() == ""
        assert not re.search(r"[0-9a-f]{64}", (them.host / "worker.log").read_text()), "no token in the log"


def test_a_system_that_hands_over_no_descriptor_has_all_that_others_have(tmp_path: Path, poor: Path) -> None:
    with people(tmp_path / "p") as them:
        alice = them.start(source=poor).ready()
        alice.ask("create")
        alice.ask("follow")
        assert ports(them.worker_pid(), LISTENS), "which has to be nothing's choice"
        bob = them.start("trio", source=poor).ready()
        bob.ask("follow")
        alice.ask("add", start=0)
        os.kill(them.worker_pid(), signal.SIGKILL)
        bob.ask("add", start=1)
        alice.signal(signal.SIGKILL)
        bob.ask("wait_role", leads=True)
        os.kill(them.worker_pid(), signal.SIGKILL)
        bob.ask("add", start=2)
        assert bob.ask("numbers", count=3) == [0, 1, 2]
        assert bob.stop() == ""
