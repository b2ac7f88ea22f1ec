"""`dx space export` and `dx space import`: spaces to files and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dxos.cli.command import command
from dxos.cli.output import line, plural
from dxos.cli.session import Session, ready_space, require_identity
from dxos.cli.typename import type_dxn
from dxos.errors import StorageAccessError, UsageError

if TYPE_CHECKING:
    from dxos.client.client import Client
    from dxos.client.space import Space
    from dxos.services.contract import Next, Progress

_VERSION: Final = "0.1.0"  # Of a type that was named without one.


class Format(StrEnum):
    """What a file holds."""

    ARCHIVE = "archive"
    JSON = "json"
    CSV = "csv"


_SUFFIXES: Final = {".tar": Format.ARCHIVE, ".json": Format.JSON, ".csv": Format.CSV}
_FormatOption = Annotated[
    Format | None, typer.Option("--format", help="Else by the file's name: .tar, .json or .csv.", case_sensitive=False)
]
_TypeOption = Annotated[
    str | None, typer.Option("--type", metavar="NAME[:VERSION]", help="CSV: of the objects; else those without a type.")
]


def register(app: typer.Typer) -> None:
    """Make them commands of `dx space`."""
    command(app, "export")(export)
    command(app, "import")(import_)


async def export(
    session: Session,
    space: Annotated[str, typer.Argument(metavar="SPACE", help="Id, key, beginning of either, or name.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Such as shop.tar, shop.json or shop.csv.")],
    format_: _FormatOption = None,
    type_: _TypeOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a space to a file: an archive with its history, JSON of its objects, or CSV of one type."""
    from dxos.store.files import write_private_file

    wanted = _format(file, format_, type_)
    if file.exists() and not force:
        raise StorageAccessError(f"The file {file.name} is there already; --force replaces it.")
    document: dict[str, Any] = {"file": str(file), "format": wanted.value}
    async with session.client() as client:
        found = await ready_space(client, space)
        with _telling(session, "Exporting", document) as tell:
            content = await _exported(client, found, wanted, type_, document, tell)
        write_private_file(file, content)
    session.output.result(document, line(_exported_line))
    if wanted is Format.CSV and type_ is None and not document["count"]:
        session.output.say("CSV has the objects of one type, here those without a type; name another: --type NAME")
    if document.get("missing"):
        session.output.say(f"{plural(document['missing'], 'document')} not on this device, or damaged: not in it.")


async def import_(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What was exported, here or by a JavaScript client.")],
    into: Annotated[
        str | None, typer.Option("--into", metavar="SPACE", help="JSON and CSV: add to this space, not to a new one.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Of the new space.")] = None,
    format_: _FormatOption = None,
    type_: _TypeOption = None,
) -> None:
    """Make a space of a file, or add the objects in it to one; they are durable when this ends."""
    from dxos.client.serializer import read_file

    wanted = _format(file, format_, type_)
    if into is not None and (wanted is Format.ARCHIVE or name is not None):
        raise UsageError("An archive becomes a space of its own; and a space that is there keeps its name.")
    document: dict[str, Any] = {"file": str(file), "format": wanted.value}
    content = await read_file(file)
    async with session.client() as client:
        require_identity(client)
        target = None if into is None else await ready_space(client, into)
        with _telling(session, "Importing", document) as tell:
            space = await _imported(
                client,
                content,
                wanted,
                target,
                name or file.stem,
                None if type_ is None else type_dxn(type_, version=_VERSION),
                tell,
            )
        if name is not None and space.name != name:
            space.properties["name"] = name
            await space.db.flush()
        session.output.result({**document, "space": space.id, "name": space.name}, line(_imported_line))


async def _exported(
    client: Client, space: Space, wanted: Format, type_: str | None, document: dict[str, Any], tell: Next[Progress]
) -> bytes:
    if wanted is Format.ARCHIVE:
        archive = await space.export_archive(progress=tell)
        document["missing"] = archive.missing
        return archive.contents
    serializer = client.create_serializer()
    if wanted is Format.JSON:
        return await serializer.serialize_space(space, progress=tell)
    return await serializer.serialize_table(space, None if type_ is None else type_dxn(type_), progress=tell)


async def _imported(
    client: Client,
    content: bytes,
    wanted: Format,
    target: Space | None,
    name: str,
    type_: str | None,
    tell: Next[Progress],
) -> Space:
    if wanted is Format.ARCHIVE:
        return await client.spaces.import_archive(content, progress=tell)
    serializer = client.create_serializer()
    if wanted is Format.JSON:
        return await serializer.deserialize_space(content, into=target, progress=tell)
    return await serializer.deserialize_table(content, type_, into=target, name=name, progress=tell)


def _format(file: Path, given: Format | None, type_: str | None) -> Format:
    found = given or _SUFFIXES.get(file.suffix.lower())
    if found is None:
        raise UsageError(f"What is in {file.name}? Give --format archive, json or csv.")
    if type_ is not None and found is not Format.CSV:
        raise UsageError("--type is for CSV only, where a file has objects of one type.")
    return found


@contextmanager
def _telling(session: Session, doing: str, document: dict[str, Any]) -> Iterator[Next[Progress]]:
    """Shows a person how far it is, and notes how much it was."""
    document["count"] = 0
    with session.output.progress() as say:

        def tell(progress: Progress) -> None:
            document["count"] = progress.total
            if session.output.is_terminal:
                say(f"{doing}: {progress.done} of {progress.total} …", progress.fraction)

        yield tell


def _what(document: dict[str, Any]) -> str:
    return plural(document["count"], "document" if document["format"] == Format.ARCHIVE.value else "object")


def _exported_line(document: dict[str, Any]) -> str:
    return f"Exported {_what(document)} to {document['file']}."


def _imported_line(document: dict[str, Any]) -> str:
    return f"Imported {_what(document)} into {document['name'] or 'a space'} ({document['space']})."
