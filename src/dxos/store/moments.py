"""When changes were made, and which are one's own and can be undone: what a profile knows beside the documents.

    own change ──▶ DONE ──undo──▶ UNDONE ──redo──▶ DONE
                                     └── another undo of an older kind ──▶ SPENT, as is every undo and redo itself

All own changes of one step, which is one update, or all those that one call of an application was cut into, have the
same moment, which no other step has: so a moment names them.
"""

# ruff: noqa: S608 - the statements are put together from constants of this module; values are parameters.

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Final, final

from msgspec import Struct

from dxos.limits import MOMENTS_AT_ONCE_MAX, MOMENTS_PER_DOCUMENT_MAX
from dxos.store.database import Database, Parameter

_IN_SPACE: Final = (
    "FROM change_moments JOIN documents ON documents.number = change_moments.document"
    " WHERE documents.space = (SELECT number FROM spaces WHERE id = ?)"
)


class Standing(IntEnum):
    """Whose a change is, and what became of it."""

    FOREIGN = 0
    DONE = 1
    UNDONE = 2
    SPENT = 3  # An own one, to be undone by nobody.


class Moment(Struct, frozen=True):
    """What is known of one change."""

    document_id: str
    change: int  # The first four bytes of its hash.
    time_ms: int  # Since 1970.
    standing: Standing


@final
class MomentStore:
    """The moments of all spaces of one profile."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"<MomentStore in {self._database!r}>"

    def put(self, moments: Iterable[Moment]) -> None:
        """Note changes of documents that are stored already."""
        self._database.run_many(
            "INSERT OR REPLACE INTO change_moments (document, change, time_ms, standing)"
            " VALUES ((SELECT number FROM documents WHERE id = ?), ?, ?, ?)",
            ((one.document_id, one.change, one.time_ms, one.standing) for one in moments),
        )

    def last_ms(self) -> int:
        """The latest moment of all; 0 if there is none."""
        found = self._database.row("SELECT max(time_ms) FROM change_moments")
        return 0 if found is None or found[0] is None else int(found[0])

    def of(self, document_id: str) -> dict[int, Moment]:
        """What is known of the changes of one document."""
        rows = self._database.rows(
            "SELECT change, time_ms, standing FROM change_moments"
            " WHERE document = (SELECT number FROM documents WHERE id = ?)",
            (document_id,),
        )
        return {change: Moment(document_id, change, time_ms, Standing(standing)) for change, time_ms, standing in rows}

    def changed_after(self, space_id: str, time_ms: int) -> list[str]:
        """The documents of a space with changes that are known to be later."""
        rows = self._database.rows(
            f"SELECT DISTINCT documents.id {_IN_SPACE} AND change_moments.time_ms > ?",
            (space_id, time_ms),
        )
        return [row[0] for row in rows]

    def to_undo(self, space_id: str, document_id: str | None = None) -> list[Moment]:
        """The own changes of the last step, in the space or in one of its documents; none left: [].

        Of at most MOMENTS_AT_ONCE_MAX changes, and more when these have another standing.
        """
        return self._at(space_id, document_id, self._edge(space_id, document_id, Standing.DONE), Standing.DONE)

    def to_redo(self, space_id: str, document_id: str | None = None) -> list[Moment]:
        """The own changes that were undone last, unless others were made since; as many as `to_undo` gives."""
        done = self._edge(space_id, document_id, Standing.DONE) or 0
        undone = self._edge(space_id, document_id, Standing.UNDONE, not_before=done)
        return self._at(space_id, document_id, undone, Standing.UNDONE)

    def _edge(
        self, space_id: str, document_id: str | None, standing: Standing, *, not_before: int | None = None
    ) -> int | None:
        statement, parameters = self._scope(space_id, document_id)
        parameters.append(standing)
        order = "DESC"
        if not_before is not None:
            statement += " AND change_moments.time_ms >= ?"  # Of one step some changes may have been undone.
            parameters.insert(-1, not_before)
            order = "ASC"
        found = self._database.row(
            f"SELECT change_moments.time_ms {statement} AND change_moments.standing = ?"
            f" ORDER BY change_moments.time_ms {order} LIMIT 1",
            parameters,
        )
        return None if found is None else int(found[0])

    def _at(self, space_id: str, document_id: str | None, time_ms: int | None, standing: Standing) -> list[Moment]:
        if time_ms is None:
            return []
        statement, parameters = self._scope(space_id, document_id)
        rows = self._database.rows(
            f"SELECT documents.id, change_moments.change {statement}"
            " AND change_moments.time_ms = ? AND change_moments.standing = ?"
            " ORDER BY change_moments.document LIMIT ?",
            [*parameters, time_ms, standing, MOMENTS_AT_ONCE_MAX],
        )
        if len(rows) == MOMENTS_AT_ONCE_MAX and rows[0][0] != rows[-1][0]:
            cut = rows[-1][0]  # The changes of one document stay together.
            rows = [row for row in rows if row[0] != cut]
        return [Moment(document, change, time_ms, standing) for document, change in rows]

    def _scope(self, space_id: str, document_id: str | None) -> tuple[str, list[Parameter]]:
        if document_id is None:
            return _IN_SPACE, [space_id]
        return f"{_IN_SPACE} AND documents.id = ?", [space_id, document_id]

    def set_standing(self, moments: Sequence[Moment], standing: Standing) -> None:
        """Say what became of changes."""
        self.put(Moment(one.document_id, one.change, one.time_ms, standing) for one in moments)

    def spend_undone(self, space_id: str, document_id: str | None, before_ms: int) -> None:
        """Let nobody redo what was undone and is older: something was done since."""
        statement, parameters = self._scope(space_id, document_id)
        self._database.run(
            "UPDATE change_moments SET standing = ? WHERE standing = ? AND time_ms < ? AND document IN"
            f" (SELECT documents.number {statement} AND change_moments.standing = ?)",
            [Standing.SPENT, Standing.UNDONE, before_ms, *parameters, Standing.UNDONE],
        )

    def thin(self, document_id: str) -> None:
        """Keep the moments of the newest MOMENTS_PER_DOCUMENT_MAX changes of a document."""
        self._database.run(
            "DELETE FROM change_moments WHERE document = (SELECT number FROM documents WHERE id = ?)"
            " AND time_ms < (SELECT time_ms FROM change_moments"
            "  WHERE document = (SELECT number FROM documents WHERE id = ?)"
            f"  ORDER BY time_ms DESC LIMIT 1 OFFSET {MOMENTS_PER_DOCUMENT_MAX - 1})",
            (document_id, document_id),
        )
