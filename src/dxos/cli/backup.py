"""`dx backup` and `dx restore`: a whole profile in one file that a passphrase seals."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TextIO

import typer

from dxos.cli.command import command
from dxos.cli.output import line
from dxos.cli.prompt import LineReader
from dxos.cli.session import Session, require_identity
from dxos.errors import InvalidValueError, StorageAccessError, UsageError

if TYPE_CHECKING:
    from dxos.services.contract import Next, Progress

_MEGABYTE: Final = 1_000_000
_PASSPHRASE_BYTES_MAX: Final = 4_096
_PassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="PATH", help="Its first line; else it is asked for, or read from stdin."),
]


def register(app: typer.Typer) -> None:
    """Make them commands of `dx`."""
    command(app, "backup")(back_up)
    command(app, "restore")(restore)


async def back_up(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An earlier backup there is replaced.")],
    passphrase_file: _PassphraseOption = None,
) -> None:
    """Write the whole profile, identity and keys included, to one file that a passphrase seals."""
    root = session.config().data_root
    if session.surroundings.services is None and (root is None or not root.exists()):
        raise StorageAccessError("There is no profile yet, so there is nothing to back up: dx identity create")
    passphrase = await _passphrase(session, passphrase_file, twice=True)
    async with session.client() as client:
        require_identity(client)
        with _telling(session, "Writing") as tell:
            size = await client.back_up(file.absolute(), passphrase, progress=tell)
    session.output.result({"file": str(file), "bytes": size}, line(_written))
    session.output.say("Keep the passphrase: without it nobody can restore this, you neither.")


async def restore(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What dx backup wrote.")],
    passphrase_file: _PassphraseOption = None,
) -> None:
    """Make the profile from a backup; there must be none of that name yet.

    The restored profile is the same device: never use the one that was backed up again.
    """
    from dxos.client.client import Client

    if not file.is_file():
        raise InvalidValueError(f"There is no file {file.name}.")
    client = Client(session.config(), services=session.surroundings.services)
    passphrase = await _passphrase(session, passphrase_file, twice=False)
    async with session.alone(session.folder()):
        with _telling(session, "Restoring") as tell:
            await client.restore(file.absolute(), passphrase, progress=tell)
    async with session.client() as client:
        identity = require_identity(client)
        document = {
            "profile": str(client.config.data_root),
            "name": identity.profile.display_name,
            "did": identity.did,
            "spaces": len(client.spaces),
        }
    session.output.result(document, line(lambda it: f"Restored {it['name'] or it['did']} to {it['profile']}."))
    session.output.say("Do not use the profile that was backed up again: this one is the device now.")


def _written(document: dict[str, Any]) -> str:
    return f"Wrote {document['file']}, {document['bytes'] / _MEGABYTE:.1f} MB."


@contextlib.contextmanager
def _telling(session: Session, doing: str) -> Iterator[Next[Progress]]:
    with session.output.progress() as say:

        def tell(progress: Progress) -> None:
            if session.output.is_terminal:
                say(f"{doing} …", progress.fraction)

        yield tell


async def _passphrase(session: Session, file: Path | None, *, twice: bool) -> str:
    """The passphrase from a file, from whoever sits at the terminal, or from standard input."""
    if file is not None:
        try:
            with file.open("rb") as opened:
                text = opened.read(_PASSPHRASE_BYTES_MAX).decode()
        except (OSError, UnicodeDecodeError):
            raise InvalidValueError(f"No passphrase can be read from {file.name}.") from None
        return text.splitlines()[0] if text else ""
    stdin = session.surroundings.stdin or sys.stdin
    reader, asks = LineReader(stdin), stdin.isatty()
    if not asks:
        return await reader.read() or ""
    with _hidden(stdin):
        first = await _ask(session, reader, "Passphrase: ")
        if twice and await _ask(session, reader, "Once more: ") != first:
            raise UsageError("The two passphrases differ.")
    return first


async def _ask(session: Session, reader: LineReader, question: str) -> str:
    session.output.prompt(question)
    typed = await reader.read()
    session.output.draw("")
    return typed or ""


@contextlib.contextmanager
def _hidden(terminal: TextIO) -> Iterator[None]:
    """Within, what is typed is not shown."""
    if sys.platform == "win32":
        yield
        return
    import termios

    number = terminal.fileno()
    before = termios.tcgetattr(number)
    silent = list(before)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(number, termios.TCSAFLUSH, silent)
    try:
        yield
    finally:
        termios.tcsetattr(number, termios.TCSAFLUSH, before)
