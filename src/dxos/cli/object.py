"""`dx object`: what a space holds."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dxos.cli.command import command
from dxos.cli.connection import SyncOption, sync
from dxos.cli.output import line, plural, pretty, rows
from dxos.cli.resolve import find_id
from dxos.cli.session import Session, ready_space
from dxos.errors import InvalidValueError, UsageError

if TYPE_CHECKING:
    from dxos.client.object import EchoObject
    from dxos.client.space import Space
    from dxos.echo.query import Equals

app: Final = typer.Typer(help="What a space holds.", no_args_is_help=True)
STDIN: Final = "-"

SpaceArgument = Annotated[str, typer.Argument(metavar="SPACE", help="Id, key, beginning of either, or name.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of an object, or its beginning.")]
JsonArgument = Annotated[str, typer.Argument(metavar="JSON", help='A JSON object; "-" reads it from stdin.')]


@command(app, "add")
async def add(
    session: Session,
    space: SpaceArgument,
    value: Annotated[str, typer.Argument(metavar="JSON", help='An object, or a list of them; "-" reads stdin.')],
    sync_s: SyncOption = None,
) -> None:
    """Add objects to a space; they are durable when this ends."""
    given = _parse(session, value)
    # All are made before the first is added, so that a mistake in one adds none.
    objects = [_new_object(one) for one in (given if isinstance(given, list) else [given])]
    async with session.client() as client:
        found = await ready_space(client, space)
        added = [found.db.add(one) for one in objects]
        await found.db.flush()
        session.output.result(list(map(document, added)), line(lambda them: "\n".join(one["id"] for one in them)))
        await sync(session, client, found, sync_s)


@command(app, "list")
async def list_objects(
    session: Session,
    space: SpaceArgument,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="NAME=VALUE", help="Only these; value as JSON or text; a.b goes inside."),
    ] = None,
    order_by: Annotated[
        str | None, typer.Option("--order-by", metavar="NAME", help="Else in order of creation.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="At most so many.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also the object that holds the space's own name.")] = False,
    sync_s: SyncOption = None,
) -> None:
    """List the objects of a space."""
    from dxos.echo.query import And

    wanted = And(tuple(map(_equality, where or ())))
    async with session.client() as client:
        found = await ready_space(client, space)
        await sync(session, client, found, sync_s)
        query = found.db.query(wanted)
        if order_by is not None:
            query = query.order_by(order_by)
        hidden = None if all_ else found.info.properties_id
        documents = [document(one) for one in await query.run() if one.id != hidden][:limit]
        labels = {"id": "Id", "type": "Type", "data": "Content"}
        if not any(one["type"] for one in documents):
            del labels["type"]
        session.output.result(documents, rows(labels, empty="No objects.", wide="data"))


@command(app, "get")
async def get(session: Session, space: SpaceArgument, object_id: IdArgument) -> None:
    """Show one object."""
    async with session.client() as client:
        found = await ready_space(client, space)
        session.output.result(document(await _find(found, object_id)), pretty)


@command(app, "update")
async def update(
    session: Session,
    space: SpaceArgument,
    object_id: IdArgument,
    value: JsonArgument = "{}",
    unset: Annotated[list[str] | None, typer.Option("--unset", metavar="NAME", help="Remove this property.")] = None,
    sync_s: SyncOption = None,
) -> None:
    """Set the properties that are named in JSON; the others stay."""
    given = _new_object(_parse(session, value)).to_dict()
    async with session.client() as client:
        found = await ready_space(client, space)
        target = await _find(found, object_id)
        target.update(given)
        for name in unset or ():
            if name in target:
                del target[name]
        await found.db.flush()
        session.output.result(document(target), pretty)
        await sync(session, client, found, sync_s)


@command(app, "remove")
async def remove(
    session: Session,
    space: SpaceArgument,
    object_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of objects, or their beginnings.")],
    sync_s: SyncOption = None,
) -> None:
    """Remove objects from a space."""
    async with session.client() as client:
        found = await ready_space(client, space)
        # All are found before the first is removed, so that a mistake in one removes none.
        targets = [await _find(found, one) for one in object_ids]
        for target in targets:
            found.db.remove(target)
        await found.db.flush()
        removed = {"removed": [one.id for one in targets]}
        session.output.result(removed, line(lambda it: f"Removed {plural(len(it['removed']), 'object')}."))
        await sync(session, client, found, sync_s)


def document(target: EchoObject) -> dict[str, Any]:
    """An object as commands print it."""
    return {"id": target.id, "type": target.type, "data": target.to_dict()}


async def _find(space: Space, wanted: str) -> EchoObject:
    """The object that an id or its beginning names; the one that holds the space's name by its whole id only."""
    objects = {one.id: one for one in await space.db.query().run()}
    hidden = space.info.properties_id
    return objects[find_id([one for one in objects if one != hidden or one == wanted], wanted)]


def _parse(session: Session, text: str) -> Any:
    """Read JSON from an argument or stdin; NaN and Infinity are none."""
    if text == STDIN:
        text = (session.surroundings.stdin or sys.stdin).read()
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise InvalidValueError(f'That is not JSON: {error}. Quote it for the shell: \'{{"title": "Milk"}}\'') from None
    except RecursionError:
        raise InvalidValueError("That JSON is nested too deep.") from None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _new_object(value: Any) -> EchoObject:
    """An object with these properties, checked."""
    from dxos.client.object import EchoObject

    if not isinstance(value, dict):
        raise InvalidValueError(f'An object is a JSON object such as {{"title": "Milk"}}, not {json.dumps(value):.60}.')
    return EchoObject(value)


def _equality(text: str) -> Equals:
    from dxos.echo.query import Equals

    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"--where takes NAME=VALUE, not {text!r:.60}.")
    path = tuple(name.split("."))
    try:
        return Equals(path, json.loads(value, parse_constant=_refuse))
    except ValueError:
        return Equals(path, value)
