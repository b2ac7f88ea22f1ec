"""What `dx status` makes of what was seen."""

from pathlib import Path

import pytest
from rich.console import Console

from dxos.cli.status import render, status_document
from dxos.worker.places import Places
from dxos.worker.status import AgentStatus, ClientStatus, LeaderStatus, ProfileStatus, Sharing, WorkerStatus

FOLDER = Path("profile")
PLACES = Places(FOLDER, FOLDER / "host", FOLDER / "host")
SERVED = ProfileStatus(
    Sharing.SERVED,
    PLACES,
    leader=LeaderStatus(10, 7, "0.1.0", 1_000.0, 2_000.0, 1),
    worker=WorkerStatus(20, "w", "0.1.0", 1_001.0),
    clients=(
        ClientStatus("client-a", 10, "notes.py", "0.1.0", 999.0),
        ClientStatus("client-b", 30, "dxos.worker", "0.1.0", 1_002.0),
    ),
    agent=AgentStatus(30, 1_002.0),
)


def shown(status: ProfileStatus) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render(status_document(FOLDER, status)))
    return capture.get()


def test_leader_worker_clients_and_agent_are_shown() -> None:
    text = shown(SERVED)
    assert "process 10, since" in text
    assert "leadership 7" in text
    assert "process 20, since" in text
    assert "notes.py" in text
    assert "dx agent" in text, "whatever its program is"
    assert [one.pid for one in SERVED.others] == [10]
    document = status_document(FOLDER, SERVED)
    assert document["lock"] == str(PLACES.host / "leader.7")
    assert document["leader"]["silent_since"] is None


@pytest.mark.parametrize("sharing", Sharing)
def test_every_state_is_a_sentence(sharing: Sharing) -> None:
    assert "." in shown(ProfileStatus(sharing, holder_pid=4)).splitlines()[1]


def test_a_silent_leader_is_shown_with_its_last_heartbeat() -> None:
    silent = ProfileStatus(Sharing.SILENT, PLACES, leader=SERVED.leader)
    assert status_document(FOLDER, silent)["leader"]["silent_since"] is not None
