"""`dx object`: what a space holds."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from msgspec.structs import asdict

from dxos.cli import listing
from dxos.cli.command import command
from dxos.cli.connection import SyncOption, sync
from dxos.cli.listing import SpaceArgument, content, document
from dxos.cli.output import line, plural, pretty, rows
from dxos.cli.resolve import find_id
from dxos.cli.session import Session, ready_space
from dxos.errors import InvalidValueError

if TYPE_CHECKING:
    from dxos.client.object import EchoObject
    from dxos.client.space import Space
    from dxos.echo.revision import Revision
    from dxos.services.contract import Progress

app: Final = typer.Typer(help="What a space holds.", no_args_is_help=True)
listing.register(app)
STDIN: Final = "-"
_AUTHOR_CHARS: Final = 8
_HISTORY_LABELS: Final = {"time": "Time", "who": "Who", "what": "What changed"}

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of an object, or its beginning.")]
OptionalIdArgument = Annotated[str | None, typer.Argument(metavar="[ID]", help="Only what was changed in this object.")]
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
    documents = [{"id": "", "type": one.type, "data": one.to_dict()} for one in objects]
    async with session.client() as client:
        found = await ready_space(client, space)
        with session.output.progress() as say:

            def tell(progress: Progress) -> None:
                if session.output.is_terminal:
                    say(f"Adding: {progress.done} of {progress.total} …", progress.fraction)

            ids = await found.db.add_all(objects, progress=tell)
        await found.db.flush()
        added = [{**one, "id": object_id} for object_id, one in zip(ids, documents, strict=True)]
        session.output.result(added, line(lambda them: "\n".join(one["id"] for one in them)))
        await sync(session, client, found, sync_s)


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


@command(app, "history")
async def history(
    session: Session,
    space: SpaceArgument,
    object_id: IdArgument,
    limit: Annotated[int, typer.Option(metavar="COUNT", min=1, help="At most so many changes.")] = 20,
) -> None:
    """Show the changes of an object, the last one first, also of a removed one."""
    async with session.client() as client:
        found = await ready_space(client, space)
        target = await _find(found, object_id, deleted=True)
        revisions = await target.history(limit=limit)
        session.output.result(list(map(_revision, revisions)), rows(_HISTORY_LABELS, empty="No changes.", wide="what"))


@command(app, "undo")
async def undo(session: Session, space: SpaceArgument, object_id: OptionalIdArgument = None) -> None:
    """Take back what this device changed last in a space, or in one object; what others changed stays."""
    await _reverse(session, space, object_id, "undo")


@command(app, "redo")
async def redo(session: Session, space: SpaceArgument, object_id: OptionalIdArgument = None) -> None:
    """Do again what was undone last."""
    await _reverse(session, space, object_id, "redo")


async def _reverse(session: Session, space: str, object_id: str | None, name: Literal["undo", "redo"]) -> None:
    async with session.client() as client:
        found = await ready_space(client, space)
        target = None if object_id is None else await _find(found, object_id, deleted=True)
        done = await (found.db.undo(target) if name == "undo" else found.db.redo(target))
        await found.db.flush()
        said = "Done." if done else f"There is nothing to {name}."
        session.output.result({name: done}, line(lambda _: said))


def _revision(one: Revision) -> dict[str, Any]:
    return {
        "id": one.id.hex(),
        "time": None if one.time is None else one.time.isoformat(timespec="seconds"),
        "who": "here" if one.own else one.author.hex()[:_AUTHOR_CHARS],
        "what": "; ".join(map(str, one.differences)),
        "differences": [asdict(each) | {"path": list(each.path)} for each in one.differences],
    }


async def _find(space: Space, wanted: str, *, deleted: bool = False) -> EchoObject:
    """The object that an id or its beginning names; those that the space keeps for itself by their whole ids only."""
    from dxos.echo.query import HasId

    query = space.db.query().deleted("include" if deleted else "exclude")
    exact = await query.where(HasId((wanted.strip().upper(),))).first()
    if exact is not None:
        return exact
    objects = {one.id: one for one in await content(space).deleted("include" if deleted else "exclude").run()}
    return objects[find_id(list(objects), wanted)]


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
