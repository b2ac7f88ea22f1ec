"""`dx object list`: the objects of a space that a person asks for, as a table, JSON or CSV, or how many there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from msgspec.structs import asdict

from dxos.cli.command import command
from dxos.cli.conditions import parse_condition, parse_field
from dxos.cli.connection import SyncOption, sync
from dxos.cli.output import fields, line, rows
from dxos.cli.session import Session, ready_space
from dxos.cli.typename import TYPE_PREFIX, type_dxn
from dxos.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dxos.client.object import EchoObject
    from dxos.client.query import Query
    from dxos.client.space import Space

SpaceArgument = Annotated[str, typer.Argument(metavar="SPACE", help="Id, key, beginning of either, or name.")]
_EMPTY: Final = "No objects."
_LABELS: Final = {"id": "Id", "type": "Type", "snippet": "Found", "data": "Content"}
_PLAN_LABELS: Final = {"index": "Index", "rows": "Objects looked at", "steps": "Steps"}


def register(app: typer.Typer) -> None:
    """Make it a command of `dx object`."""
    command(app, "list")(list_objects)


async def list_objects(
    session: Session,
    space: SpaceArgument,
    type_: Annotated[
        str | None, typer.Option("--type", metavar="NAME[:VERSION]", help="Only objects of this type.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="CONDITION", help='Only these: "year >= 1990", "tags contains rare".'),
    ] = None,
    search: Annotated[
        str | None, typer.Option("--search", metavar="WORDS", help="Only those with all these words, the best first.")
    ] = None,
    order_by: Annotated[
        list[str] | None, typer.Option("--order-by", metavar="NAME", help="Else in order of creation.")
    ] = None,
    desc: Annotated[bool, typer.Option("--desc", help="The greatest first.")] = False,
    limit: Annotated[int | None, typer.Option(metavar="COUNT", min=0, help="At most so many.")] = None,
    offset: Annotated[int, typer.Option(metavar="COUNT", min=0, help="Without the first so many.")] = 0,
    deleted: Annotated[bool, typer.Option("--deleted", help="The removed objects instead.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Also those that hold the space's name and schemas.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Print only how many there are.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Print only how they are found.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, a column for each property.")] = False,
    sync_s: SyncOption = None,
) -> None:
    """List the objects of a space.

    A CONDITION compares a property: =, !=, <, <=, >, >=, in, not in, between … and …, contains, startswith, matches,
    is null, is not null, is missing, exists. A value is JSON or text; a.b goes inside. All conditions must hold.
    """
    if count + explain + csv > 1 or (csv and session.output.json):
        raise UsageError("One answer at a time: --count, --explain, --csv or --json with the objects.")
    if count and (limit is not None or offset):
        raise UsageError("--count counts all; it goes without --limit and --offset.")
    # What was typed is read before the profile is opened, so that a mistake is told at once.
    filters = [parse_condition(one) for one in where or ()]
    orders = [parse_field(one) for one in order_by or ()]
    async with session.client() as client:
        found = await ready_space(client, space)
        await sync(session, client, found, sync_s)
        query = (found.db.query() if all_ else content(found)).where(*filters).order_by(*orders, descending=desc)
        if type_ is not None:
            from dxos.echo.query import HasType

            query = query.where(HasType(type_dxn(type_)))
        if search is not None:
            query = query.search(search)
        if deleted:
            query = query.deleted("only")
        query = query.offset(offset) if limit is None else query.offset(offset).limit(limit)
        if count:
            session.output.result({"count": await query.count()}, line(lambda it: str(it["count"])))
        elif explain:
            session.output.result(asdict(await query.explain()), _render_plan)
        elif csv:
            session.output.text(_csv(await query.run()))
        elif search is not None and not orders:
            hits = await query.hits()
            documents = [{**document(hit.object), "score": hit.score, "snippet": hit.snippet} for hit in hits]
            session.output.result(documents, _table(typed=type_ is None, wide="snippet"))
        else:
            session.output.result(list(map(document, await query.run())), _table(typed=type_ is None, wide="data"))


def content(space: Space) -> Query[EchoObject]:
    """All objects of a space but those that it keeps for itself: its name, and the schemas of its types."""
    from dxos.echo.query import HasId, HasType, Not
    from dxos.echo.schema import SCHEMA_TYPE

    hidden = space.info.properties_id
    query = space.db.query(Not(HasType(SCHEMA_TYPE)))
    return query if hidden is None else query.where(Not(HasId((hidden,))))


def document(target: EchoObject) -> dict[str, Any]:
    """An object as commands print it."""
    return {"id": target.id, "type": target.type, "data": target.to_dict()}


def _table(*, typed: bool, wide: str) -> Callable[[Sequence[Mapping[str, Any]]], RenderableType]:
    """A table with the types where there are any, and with what was found instead of all content in a search."""

    def render(documents: Sequence[Mapping[str, Any]]) -> RenderableType:
        names = ["id", *(["type"] if typed and any(one["type"] for one in documents) else []), wide]
        shown = [{**one, "type": (one["type"] or "").removeprefix(TYPE_PREFIX)} for one in documents]
        return rows({name: _LABELS[name] for name in names}, empty=_EMPTY, wide=wide)(shown)

    return render


def _csv(objects: Sequence[EchoObject]) -> str:
    from dxos.client.table import write_table
    from dxos.echo.rows import ObjectRow

    return "".join(write_table(ObjectRow(one.id, data=one.to_dict()) for one in objects))


def _render_plan(document: Mapping[str, Any]) -> RenderableType:
    index = document["index"] or "none: all are looked at"
    return fields(_PLAN_LABELS)({**document, "index": index, "steps": "; ".join(document["steps"])})
