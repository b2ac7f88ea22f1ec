"""The past of the spaces of a profile: revisions, objects as they were, conflicts, undo and redo.

An undo is an edit like any other, made of the present state: what the undone change had made, and nobody has changed
since, becomes again what it was before. So it needs no agreement with peers and loses nothing of theirs.
"""

import logging
from collections.abc import Callable, Iterator, Sequence, Set
from typing import final

from msgspec.structs import replace

from dxos.aio import Pace
from dxos.echo import history, layout
from dxos.echo.difference import differences, merge_rows, to_mutations
from dxos.echo.document import Change, Document, Heads
from dxos.echo.history import DatedChange
from dxos.echo.query import Query, select
from dxos.echo.revision import Conflict, ConflictingValue, Revision
from dxos.echo.rows import ObjectRow
from dxos.errors import CorruptionError, DecodeError, ObjectNotFoundError
from dxos.limits import HISTORY_CHANGES_MAX, UNDO_DOCUMENTS_MAX, UPDATE_OBJECTS_MAX
from dxos.spaces.documents import Documents, ObjectEdit, Reversal, StoredObject
from dxos.store.moments import Moment, Standing

_log = logging.getLogger(__name__)


@final
class History:
    """The past of what `documents` holds now."""

    def __init__(self, documents: Documents) -> None:
        self._documents, self._moments = documents, documents.moments

    # --- Reading --------------------------------------------------------------------------------------------------

    async def revisions(self, space: str, object_id: str, limit: int) -> tuple[Revision, ...]:
        """The newest changes of an object, the last one first.

        Raises:
            ObjectNotFoundError: No such object.
            CorruptionError: Its document is damaged.
        """
        document_id = self._place(space, object_id)
        document = self._documents.load(document_id)
        noted = self._moments.of(document_id)
        dated = self._dated(document_id, document, object_id)
        pace, states = Pace(), _States(document, object_id)
        found: list[Revision] = []
        for one in reversed(dated[-HISTORY_CHANGES_MAX:]):
            if len(found) >= limit:
                break
            if pace.is_due:
                await pace.rest()
            changed = differences(states.before(one.change), states.after(one.change))
            if changed:
                moment = noted.get(history.change_key(one.change.hash))
                own = moment is not None and moment.standing is not Standing.FOREIGN
                found.append(Revision(one.change.hash, object_id, one.time_ms, own, one.change.actor, changed))
        return tuple(found)

    def object_at(self, space: str, object_id: str, moment: int | bytes) -> ObjectRow | None:
        """An object as it was at a moment, in milliseconds since 1970, or after one of its revisions.

        None if it did not exist then.

        Raises:
            ObjectNotFoundError: No such object, or no such revision of it.
            CorruptionError: Its document is damaged.
        """
        document_id = self._place(space, object_id)
        document = self._documents.load(document_id)
        if isinstance(moment, int):
            return self._past(document_id, document, object_id, moment)
        if not any(one.hash == moment for one in document.changes()):
            raise ObjectNotFoundError("The object has no such revision.", object_id=object_id)
        return layout.object_at(document, object_id, (moment,))

    async def space_at(self, space: str, moment_ms: int, query: Query) -> tuple[ObjectRow, ...]:
        """What a query would have found at a moment; damaged documents are left out."""
        changed = set(self._moments.changed_after(space, moment_ms))
        root_id = self._documents.root_id(space)
        pace = Pace()
        places = self._documents.places(space)
        rows: list[ObjectRow] = []
        for object_id, document_id in places.items():
            # Nobody notes the times of peers' changes in the root, which are links but for the name of the space.
            if document_id not in changed and document_id != root_id:
                continue
            if pace.is_due:
                await pace.rest()
            try:
                row = self._past(document_id, self._documents.load(document_id), object_id, moment_ms)
            except (CorruptionError, DecodeError) as error:
                _log.warning("object %s is missing in a past state: %s", object_id, error)
                continue
            if row is not None:
                rows.append(row)
        same = [
            object_id
            for object_id, document_id in places.items()
            if document_id not in changed and document_id != root_id and history.created_ms(object_id) <= moment_ms
        ]
        for start in range(0, len(same), UPDATE_OBJECTS_MAX):
            if pace.is_due:
                await pace.rest()
            rows += [one.row for one in self._documents.get(space, same[start : start + UPDATE_OBJECTS_MAX])]
        return tuple(select(query, rows))

    def conflicts(self, space: str, object_id: str) -> tuple[Conflict, ...]:
        """The properties of an object to which different values were given at once.

        Raises:
            ObjectNotFoundError: No such object.
            CorruptionError: Its document is damaged.
        """
        document_id = self._place(space, object_id)
        document = self._documents.load(document_id)
        found = history.conflicts(document, object_id)
        if not found:
            return ()
        noted = self._moments.of(document_id)
        times = {one.change.hash: one.time_ms for one in self._dated(document_id, document, object_id)}

        def own(change: bytes) -> bool:
            moment = noted.get(history.change_key(change))
            return moment is not None and moment.standing is not Standing.FOREIGN

        return tuple(
            Conflict(
                path,
                tuple(ConflictingValue(one.value, one.change, times[one.change], own(one.change)) for one in values),
            )
            for path, values in found.items()
        )

    def _place(self, space: str, object_id: str) -> str:
        found = self._documents.place(space, object_id)
        if found is None:
            raise ObjectNotFoundError("No such object.", object_id=object_id)
        return found

    def _dated(self, document_id: str, document: Document, object_id: str) -> list[DatedChange]:
        times = {change: one.time_ms for change, one in self._moments.of(document_id).items()}
        return history.dated_changes(
            document, times, created_ms=history.created_ms(object_id), now_ms=self._documents.now_ms()
        )

    def _past(self, document_id: str, document: Document, object_id: str, moment_ms: int) -> ObjectRow | None:
        heads = history.heads_at(self._dated(document_id, document, object_id), moment_ms)
        return layout.object_at(document, object_id, heads) if heads else None

    # --- Changing -------------------------------------------------------------------------------------------------

    def undo(self, space: str, object_id: str | None = None) -> Iterator[list[StoredObject]]:
        """Take back what this device changed last, in the space or in one object.

        A step that has changed UNDO_DOCUMENTS_MAX documents is undone at once, a longer one in pieces, each when the
        caller asks for it. What is left is undone by the next `undo`, also after a restart.

        Yields:
            The states of what a piece has touched; nothing if there is nothing to undo.

        Raises:
            ObjectNotFoundError: No such object.
            StorageError: Nothing more was written.
        """
        document_id = None if object_id is None else self._place(space, object_id)
        return self._reverse_step(space, document_id, self._moments.to_undo, Standing.UNDONE)

    def redo(self, space: str, object_id: str | None = None) -> Iterator[list[StoredObject]]:
        """Do again what was undone last, unless this device has made other changes since; as `undo`."""
        document_id = None if object_id is None else self._place(space, object_id)
        return self._reverse_step(space, document_id, self._moments.to_redo, Standing.DONE)

    def _reverse_step(
        self, space: str, document_id: str | None, find: Callable[[str, str | None], list[Moment]], standing: Standing
    ) -> Iterator[list[StoredObject]]:
        """Undo or redo the last step of which something can be."""
        step_ms = None
        while moments := find(space, document_id):
            if step_ms is not None and moments[0].time_ms != step_ms:
                return
            for piece in _pieces(moments):
                stored = self._reverse(space, document_id, piece, standing)
                if stored is not None:
                    step_ms = moments[0].time_ms
                    yield stored

    def _reverse(
        self, space: str, document_id: str | None, moments: Sequence[Moment], standing: Standing
    ) -> list[StoredObject] | None:
        """Undo or redo changes of one moment; None if there is nothing of them that could be."""
        by_document: dict[str, list[Moment]] = {}
        for moment in moments:
            by_document.setdefault(moment.document_id, []).append(moment)
        edits: list[ObjectEdit] = []
        reversible: list[Moment] = []
        for one, of_it in by_document.items():
            try:
                document = self._documents.load(one)
                found = _find(document, {moment.change for moment in of_it})
                edits += _reversing(document, [*found.values()], redo=standing is Standing.DONE)
            except (CorruptionError, DecodeError) as error:
                _log.warning("a change of document %s cannot be undone: %s", one, error)
                continue
            reversible += [moment for moment in of_it if moment.change in found]  # An epoch has dropped the others.
        lost = [one for one in moments if one not in reversible]
        self._moments.set_standing(lost, Standing.SPENT)
        if not reversible:
            return None
        stored = self._documents.update(space, edits, reversal=Reversal(tuple(reversible), standing, document_id))
        if stored:
            return stored
        # Others have changed all of it since: it stays as it is.
        touched = [
            row.object_id for one in reversible for row in layout.materialize(self._documents.load(one.document_id))
        ]
        return self._documents.get(space, touched)


def _pieces(moments: Sequence[Moment]) -> Iterator[Sequence[Moment]]:
    """The changes of one step as they are undone at once: those of one document together."""
    by_document: dict[str, list[Moment]] = {}
    for moment in moments:
        by_document.setdefault(moment.document_id, []).append(moment)
    groups = list(by_document.values())
    size = len(groups) if len(groups) <= UNDO_DOCUMENTS_MAX else UPDATE_OBJECTS_MAX
    for start in range(0, len(groups), size):
        yield [moment for group in groups[start : start + size] for moment in group]


def _find(document: Document, keys: Set[int]) -> dict[int, Change]:
    """The changes with these keys that the document has, the earlier first."""
    found = ((history.change_key(one.hash), one) for one in document.changes())
    return {key: one for key, one in found if key in keys}


def _reversing(document: Document, changes: Sequence[Change], *, redo: bool) -> Iterator[ObjectEdit]:
    """The edits that undo, or redo, changes that were made at one moment; each counts on those made after it."""
    for present in layout.materialize(document):
        wanted = present
        for change in changes if redo else reversed(changes):
            before = history.object_before(document, present.object_id, change)
            after = history.object_after(document, present.object_id, change)
            if after is None:
                continue
            if before is None:
                # It made the object, which stays in the document, and is as good as gone when it is marked as deleted.
                before = replace(after, deleted=True)
            if before.type != after.type:
                continue  # A migration: it is for all peers, and nobody's to undo.
            wanted = merge_rows(before, after, wanted) if redo else merge_rows(after, before, wanted)
        mutations = to_mutations(present, wanted)
        if mutations:
            yield ObjectEdit(present.object_id, mutations=mutations)


@final
class _States:
    """An object as it was around each of several changes; each state is read once."""

    def __init__(self, document: Document, object_id: str) -> None:
        self._document, self._object_id = document, object_id
        self._read: dict[Heads, ObjectRow | None] = {(): None}

    def before(self, change: Change) -> ObjectRow | None:
        """As the author of the change saw it."""
        return self._at(tuple(sorted(change.deps)))

    def after(self, change: Change) -> ObjectRow | None:
        """As the author of the change left it."""
        return self._at((change.hash,))

    def _at(self, heads: Heads) -> ObjectRow | None:
        if heads not in self._read:
            self._read[heads] = layout.object_at(self._document, self._object_id, heads)
        return self._read[heads]
