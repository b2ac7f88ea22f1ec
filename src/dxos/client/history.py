"""The past as an application sees it: a space as it was, and its objects, which can be read and not changed."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, final

from dxos.client.state import core_of
from dxos.echo.difference import Difference, differences
from dxos.echo.query import Query as PlainQuery
from dxos.echo.revision import Revision
from dxos.echo.rows import ObjectRow
from dxos.errors import ObjectNotFoundError, UsageError
from dxos.services.contract import HistoryService

if TYPE_CHECKING:
    from dxos.client.object import EchoObject
    from dxos.client.query import Query
    from dxos.echo.query import Filter

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_SHOWN_CHARS: Final = 60


@final
class PastObject(Mapping[str, Any]):
    """An object as it was: a mapping of its properties, which are attributes too, as far as they are no methods.

    What is read is a copy, as plain data; references are `{"/": DXN}`.
    """

    __slots__ = ("_row",)

    _row: ObjectRow

    def __init__(self, row: ObjectRow) -> None:
        object.__setattr__(self, "_row", row)

    @property
    def id(self) -> str:
        """The object's id."""
        return self._row.object_id

    @property
    def type(self) -> str | None:
        """`dxn:type:<name>:<version>`, as it was then; None for an object without schema."""
        return self._row.type

    @property
    def deleted(self) -> bool:
        """Whether the object was removed then."""
        return self._row.deleted

    @property
    def meta(self) -> dict[str, Any]:
        """A copy of the meta data."""
        return copy.deepcopy(self._row.meta)

    def to_dict(self) -> dict[str, Any]:
        """A copy of the properties; `obj.update(past.to_dict())` brings them back."""
        return copy.deepcopy(self._row.data)

    def diff(self, later: PastObject | EchoObject) -> tuple[Difference, ...]:
        """What differs in a later state of the object; `str` of each is for people.

        Raises:
            UsageError: A state of another object.
        """
        row = later._row if isinstance(later, PastObject) else core_of(later).row()
        if row.object_id != self.id:
            raise UsageError("Two objects are not two states of one.")
        return differences(self._row, row)

    def __getitem__(self, name: str) -> Any:
        return copy.deepcopy(self._row.data[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._row.data)

    def __len__(self) -> int:
        return len(self._row.data)

    def __bool__(self) -> bool:
        return True  # Also without properties: it was there.

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"object {self.id} had no property {name!r}") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("The past cannot be changed; change the object itself.")

    def __repr__(self) -> str:
        mark = " deleted" if self.deleted else ""
        return f"<PastObject {self.id}{mark} {self._row.data!r:.{_SHOWN_CHARS}}>"


@final
class PastSpace:
    """A space as it was at a moment; made by `space.at`, and nothing is asked before `get` or `query`.

    Times of changes are what this device knows: see `Revision.time`. A change whose time nobody knows counts as made
    with the last one before it whose time is known, or with the object.
    """

    def __init__(
        self,
        space_id: str,
        moment: datetime | Revision,
        service: HistoryService,
        plain_query: Callable[..., Query[Any]],
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        time = moment.time if isinstance(moment, Revision) else moment
        if time is None:
            raise UsageError("Nobody knows when this change was made.")
        self._space_id, self._service, self._plain_query, self._settle = space_id, service, plain_query, settle
        self._moment = time
        self._revision = moment if isinstance(moment, Revision) else None
        self._moment_ms = (time.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)

    @property
    def moment(self) -> datetime:
        """When."""
        return self._moment

    async def get(self, target: str | EchoObject) -> PastObject:
        """An object as it was, also a removed one; that of a revision exactly as the revision left it.

        Raises:
            ObjectNotFoundError: There was no such object.
        """
        await self._settle()
        object_id = target if isinstance(target, str) else target.id
        exact = self._revision is not None and self._revision.object_id == object_id
        moment = self._revision.id if self._revision is not None and exact else self._moment_ms
        row = await self._service.object_at(self._space_id, object_id, moment)
        if row is None:
            raise ObjectNotFoundError(f"There was no object {object_id:.80} then.")
        return PastObject(row)

    async def query(self, wanted: Query[Any] | Any = None, /, *filters: Filter, **equalities: Any) -> list[PastObject]:
        """What a query would have found, without the removed; asked as `space.db.query`, or with what that returns.

        Looks at every object of the space, and reads the documents of those that have changed since.
        """
        await self._settle()
        query = (
            wanted.where(*filters, **equalities)
            if hasattr(wanted, "plain")
            else self._plain_query(wanted, *filters, **equalities)
        )
        plain: PlainQuery = query.plain
        return [PastObject(row) for row in await self._service.space_at(self._space_id, self._moment_ms, plain)]

    def __repr__(self) -> str:
        return f"<PastSpace {self._space_id[:8]} {self._moment:%Y-%m-%d %H:%M:%S}>"
