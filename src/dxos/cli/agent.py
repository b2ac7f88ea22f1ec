"""`dx agent`: the process that keeps a profile open, and online, between commands."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
import anyio.to_thread
import typer

from dxos.cli.command import command
from dxos.cli.output import fields, line
from dxos.cli.session import Session, worker_settings
from dxos.cli.status import for_how_long, status_document
from dxos.errors import InvalidValueError, StorageAccessError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dxos.client.config import Config
    from dxos.worker.status import ProfileStatus

app: Final = typer.Typer(help="The process that keeps this profile open between commands.", no_args_is_help=True)
IdleOption = Annotated[
    str | None,
    typer.Option(
        "--idle",
        metavar="DURATION",
        help='How long it stays unused, such as "90s" or "10m"; else DX_AGENT_IDLE, else 5m.',
    ),
]
_LABELS: Final = {"running": "Running", "pid": "Process", "leads": "Leads", "others": "Other clients"}
_FOLLOW_S: Final = 0.2
_LOG_BYTES_MAX: Final = 1024 * 1024


@command(app, "start")
async def start(session: Session, idle: IdleOption = None) -> None:
    """Start the agent, if there is none, and wait until it takes part.

    It stays when the terminal closes, and ends by itself when nobody has used the profile for a while.
    """
    from dxos.client.client import Client
    from dxos.worker.agent import find_agent, spawn_agent, wait_agent

    config, folder = _config(session, idle), session.folder()
    _check_platform()
    if not find_agent(folder):
        # Opened here too, so that what keeps the profile from being opened is said, and not only logged.
        async with Client(config, services="worker"):
            process = spawn_agent(folder, worker_settings(config), idle_s=config.agent_idle_s)
            await anyio.to_thread.run_sync(process.wait)
            await wait_agent(folder)
    session.output.result(
        _document(folder, await wait_agent(folder)), line(lambda it: f"The agent is process {it['pid']}.")
    )


@command(app, "run")
async def run(session: Session, idle: IdleOption = None) -> None:
    """Be the agent, in this terminal or for a service manager, until Ctrl-C, SIGTERM, or nobody uses the profile."""
    _check_platform()
    from dxos.worker.agent_process import run_agent

    config, folder = _config(session, idle), session.folder()
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("dxos").setLevel(logging.INFO)
    await run_agent(
        folder,
        worker_settings(config),
        idle_s=config.agent_idle_s,
        started=lambda: session.output.result(
            {"pid": os.getpid()}, line(lambda it: f"The agent is process {it['pid']}.")
        ),
    )


@command(app, "stop")
async def stop(session: Session) -> None:
    """End the agent, and wait until it has let go of the profile; other processes go on."""
    from dxos.worker.agent import stop_agent

    agent = await stop_agent(session.folder())
    session.output.result(
        {"stopped": None if agent is None else agent.pid},
        line(
            lambda it: (
                "There was no agent." if it["stopped"] is None else f"The agent, process {it['stopped']}, has ended."
            )
        ),
    )


@command(app, "status")
async def status(session: Session) -> None:
    """Show whether there is an agent, and who else uses the profile."""
    from dxos.worker.status import read_status

    folder = session.folder()
    session.output.result(_document(folder, await anyio.to_thread.run_sync(read_status, folder)), _render)


@command(app, "logs")
async def logs(
    session: Session,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Print what comes, until Ctrl-C.")] = False,
    worker: Annotated[bool, typer.Option("--worker", help="Those of the worker, which has the storage.")] = False,
    lines: Annotated[int, typer.Option("--lines", min=0, help="How many of the last lines.")] = 100,
) -> None:
    """Print what the agent has logged; it is in the profile, and only you can read it."""
    from dxos.worker.places import find_places

    places = find_places(session.folder())
    path = None if places is None else places.log if worker else places.agent_log
    if path is None or not (path.exists() or follow):
        raise StorageAccessError("There is no log yet.")
    position = _print(session, path, max(0, _size(path) - _LOG_BYTES_MAX), lines)
    while follow:
        await anyio.sleep(_FOLLOW_S)
        # A log that was full begins anew.
        position = _print(session, path, position if position <= _size(path) else 0, None)


def _render(document: dict[str, Any]) -> RenderableType:
    pid = document["pid"]
    return fields(_LABELS)(document | {"pid": pid and f"{pid}, {for_how_long(document)}"})


def _print(session: Session, path: Path, position: int, lines: int | None) -> int:
    """Print whole lines from there on, or the last of them; where the next ones begin."""
    try:
        with path.open("rb") as file:
            file.seek(position)
            content = file.read()
    except FileNotFoundError:
        return 0
    end = content.rfind(b"\n") + 1
    for one in deque(content[:end].splitlines(), lines):
        session.output.result({"line": one.decode(errors="replace")}, line(lambda it: it["line"]))
    return position + end


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _config(session: Session, idle: str | None) -> Config:
    from dxos.client.config import Config
    from dxos.errors import ConfigError

    config = session.config()
    if idle is None:
        return config
    try:
        return Config({"runtime": {"client": {"agentIdle": idle}}}, config.values)
    except ConfigError:
        raise InvalidValueError(
            f'A duration is a number and a unit, such as "90s", "10m" or "2h", not {idle!r:.40}.'
        ) from None


def _check_platform() -> None:
    if sys.platform == "win32":
        raise UsageError("Processes cannot share a profile on Windows yet, so there is no agent.")


def _document(folder: Path, status: ProfileStatus) -> dict[str, Any]:
    agent = status.agent
    found = status_document(folder, status)
    return {
        "running": agent is not None,
        "pid": agent and agent.pid,
        "since": agent and found["agent"]["since"],
        "leads": agent and status.leader is not None and status.leader.pid == agent.pid,
        "others": len(status.others),
    }
