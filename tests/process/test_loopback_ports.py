"""Sessions over the loopback address, as where no descriptor can be handed over: everything else is the same."""

import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest
from worker_people import people, until

from dxos.limits import LOOPBACK_TOKEN_BYTES, LOOPBACK_TRIES_MAX

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them"),
]
LISTENS, CONNECTED = "0A", "01"


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
