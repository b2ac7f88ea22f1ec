"""The command `dx`: its groups of commands, and what a wrong command line answers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import typer

from dxos.cli import agent, backup, doctor, identity, signal, space, status, transfer
from dxos.cli import object as objects
from dxos.cli.command import command, take_common
from dxos.cli.output import Output, line
from dxos.cli.session import Session, Surroundings
from dxos.version import __version__

WRONG_ARGUMENTS: Final = 2

app: Final = typer.Typer(
    name="dx",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(take_common)
app.add_typer(signal.app, name="signal")
app.add_typer(identity.app, name="identity")
transfer.register(space.app)
app.add_typer(space.app, name="space")
app.add_typer(objects.app, name="object")
app.add_typer(agent.app, name="agent")
status.register(app)
doctor.register(app)
backup.register(app)


@command(app, "version")
async def show_version(session: Session) -> None:
    """Print the version of this package."""
    session.output.result({"version": __version__}, line(lambda it: it["version"]))


def main(arguments: Sequence[str] | None = None, surroundings: Surroundings | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows `dx`; None: the process's.
        surroundings: What the command takes from outside its arguments.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given, prog_name="dx", standalone_mode=False, obj=surroundings)
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:
        # Typer brings the library that parses arguments along, under a name that differs between versions.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
        if message:
            Output(json="--json" in given).error("usage.arguments", f"{message} Try: dx {_command(given)}--help")
        return WRONG_ARGUMENTS
    return code if isinstance(code, int) else 0


def _command(given: Sequence[str]) -> str:
    """The group and the command that were asked for, as far as there are such."""
    groups = {one.name: one.typer_instance for one in app.registered_groups}
    for index, word in enumerate(given):
        group = groups.get(word)
        if group is not None:
            names = {one.name for one in group.registered_commands}
            return " ".join([word, *(one for one in given[index + 1 : index + 2] if one in names), ""])
    return ""
