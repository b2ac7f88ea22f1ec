"""`dx status`: which processes share a profile; looking starts none."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
import anyio.to_thread
import typer

from dxos.cli.command import command
from dxos.cli.output import fields, rows
from dxos.cli.session import Session
from dxos.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from dxos.worker.status import ProfileStatus

_LOOK_S: Final = 0.2
_LABELS: Final = {
    "profile": "Profile",
    "state": "State",
    "leader": "Leader",
    "worker": "Worker",
    "agent": "Agent",
    "version": "This version",
    "lock": "Lock",
    "socket": "Socket",
    "log": "Worker's log",
}
_COLUMNS: Final = {
    "pid": "Process",
    "program": "Program",
    "since": "Since",
    "version": "Version",
    "client_id": "Client",
}
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_SENTENCES: Final = {
    "closed": "No process has this profile open.",
    "local": "Process {holder} has this profile for itself.",
    "starting": "A leader is there; its worker is not ready yet.",
    "served": "Processes share this profile.",
    "silent": "The leader does not answer: it is frozen, or very busy. If it stays so, another process takes over.",
    "leaderless": "The leader is gone; the worker waits for the next one.",
}


def register(app: typer.Typer) -> None:
    """Make it a command of `dx`."""
    command(app, "status")(show_status)


async def show_status(
    session: Session,
    watch: Annotated[bool, typer.Option("--watch", help="Print it again whenever it changes, until Ctrl-C.")] = False,
) -> None:
    """Show which processes share this profile: leader, worker, clients, agent. It starts none."""
    from dxos.worker.status import read_status

    folder, shown = session.folder(), None
    while True:
        document = status_document(folder, await anyio.to_thread.run_sync(read_status, folder))
        if document != shown:
            session.output.result(document, render)
            shown = document
        if not watch:
            return
        await anyio.sleep(_LOOK_S)


def status_document(folder: Path, status: ProfileStatus) -> dict[str, Any]:
    """What was seen, as plain data; it does not change while nothing does."""
    leader, worker, agent, places = status.leader, status.worker, status.agent, status.places
    is_silent = status.sharing.value == "silent"
    return {
        "profile": str(folder),
        "state": status.sharing.value,
        "holder": status.holder_pid or None,
        "leader": leader
        and {
            "pid": leader.pid,
            "leadership_id": leader.leadership_id,
            "since": _when(leader.since_s),
            "version": leader.version,
            "silent_since": _when(leader.beat_s) if is_silent else None,
        },
        "worker": worker
        and {
            "pid": worker.pid,
            "id": worker.worker_id,
            "since": _when(worker.since_s),
            "version": worker.version,
        },
        "clients": [
            {
                "client_id": one.client_id,
                "pid": one.pid,
                "program": "dx agent" if agent is not None and one.pid == agent.pid else one.program,
                "since": _when(one.since_s),
                "version": one.version,
            }
            for one in status.clients
        ],
        "agent": agent and {"pid": agent.pid, "since": _when(agent.since_s)},
        "version": __version__,
        "lock": places and leader and str(places.host / f"leader.{leader.leadership_id}"),
        "socket": places and leader and str(places.coordinator),
        "log": places and worker and str(places.log),
    }


def render(document: dict[str, Any]) -> RenderableType:
    """How it looks to people."""
    from rich.console import Group
    from rich.text import Text

    leader, worker, agent = document["leader"], document["worker"], document["agent"]
    shown = document | {
        "state": _SENTENCES[document["state"]].format(holder=document["holder"]),
        "leader": leader and f"process {leader['pid']}, {for_how_long(leader)}, leadership {leader['leadership_id']}",
        "worker": worker and f"process {worker['pid']}, {for_how_long(worker)}",
        "agent": agent and f"process {agent['pid']}, {for_how_long(agent)}",
    }
    table = fields(_LABELS)(shown)
    if not document["clients"]:
        return table
    clients = [one | {"since": _clock(one["since"])} for one in document["clients"]]
    return Group(table, Text(), rows(_COLUMNS, empty="")(clients))


def for_how_long(one: dict[str, Any]) -> str:
    """Since when something is there, for people."""
    seconds = max(0.0, time.time() - datetime.fromisoformat(one["since"]).timestamp())
    size, unit = next((size, unit) for size, unit in _UNITS if seconds >= size or size == 1)
    return f"since {_clock(one['since'])} ({seconds // size:.0f} {unit})"


def _clock(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%H:%M:%S}"


def _when(seconds: float) -> str:
    """A moment as other programs read it: ISO 8601, in the time of this place."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")
