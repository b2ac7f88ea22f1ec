"""`dx doctor`: whether what a profile keeps agrees with itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from msgspec.structs import asdict

from dxos.cli.command import command
from dxos.cli.output import fields, plural, rows
from dxos.cli.session import Session
from dxos.errors import CorruptionError, StorageAccessError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dxos.spaces.doctor import Progress

_COLUMNS: Final = {"code": "Code", "outcome": "Outcome", "message": "Finding", "detail": "Where"}
_LABELS: Final = {
    "profile": "Profile",
    "spaces": "Spaces",
    "documents": "Documents",
    "objects": "Objects",
    "feeds": "Feeds",
    "keys": "Keys",
}


def register(app: typer.Typer) -> None:
    """Make it a command of `dx`."""
    command(app, "doctor")(doctor)


async def doctor(
    session: Session,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
) -> None:
    """Check that keys, feeds, documents, rows and indexes of this profile are whole and agree.

    No other process may use the profile meanwhile; its agent is ended. The exit code is 1 if something is not as it
    should be.
    """
    from dxos.spaces.doctor import Outcome, examine_folder

    config = session.config()
    root = config.data_root
    if root is None or not root.exists():
        raise StorageAccessError("There is no profile yet, so there is nothing to check: dx identity create")
    with session.output.progress() as say:

        def tell(progress: Progress) -> None:
            if session.output.is_terminal and not session.output.json:
                total = progress.total
                of = "" if total is None else f" {progress.done} of {total}"
                say(f"Checking {progress.stage}{of} …", progress.done / total if total else None)

        async with session.alone(root):
            report = await examine_folder(
                root, repair=repair, progress=tell, backup_passphrase=config.backup_passphrase
            )
    session.output.result(
        {
            "profile": str(root),
            "spaces": report.spaces_count,
            "documents": report.documents_count,
            "objects": report.objects_count,
            "feeds": report.feeds_count,
            "keys": report.keys_count,
            "findings_count": report.findings_count,
            "unresolved_count": report.unresolved_count,
            "findings": [asdict(one) | {"outcome": one.outcome.value} for one in report.findings],
        },
        _render,
    )
    if report.unresolved_count:
        repairable = any(one.outcome is Outcome.REPAIRABLE for one in report.findings)
        hint = "; mend what can be mended: dx doctor --repair" if repairable else ""
        raise CorruptionError(f"{plural(report.unresolved_count, 'problem')} left{hint}.")


def _render(document: dict[str, Any]) -> RenderableType:
    from rich.console import Group

    table = rows(_COLUMNS, empty="Nothing is wrong.", wide="message")
    return Group(fields(_LABELS)(document), table(document["findings"]))
