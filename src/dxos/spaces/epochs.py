"""The epochs of one space: beginning one, following the last, and giving up what no epoch needs any more.

A new epoch has a new root, without the history of the one before and without links to deleted objects. Peers go over to
it when they read its credential. Whatever reaches an earlier root later, from a peer that was away or by JavaScript,
is taken over into the present one by every peer that may write (`dxos.echo.epoch`).

Invariants
1. The two roots before the present one stay: from them peers that were away learn what the present one includes.
2. A document is given up only if all its objects were deleted before the new root left them out.
3. A document that was given up comes back if a peer has changes of it that were unknown here; it stays deleted.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, final

from dxos.echo import edit, epoch
from dxos.echo.document import Document
from dxos.echo.mutation import SetDeleted
from dxos.errors import DxosError, StorageError
from dxos.keys import PublicKey
from dxos.spaces.documents import Documents
from dxos.store.documents import DocumentStore

_log = logging.getLogger(__name__)
_ROOTS_KEPT: Final = 3  # Two epochs begun at once have the same root before them.
_ROOTS_MIN: Final = 2  # With one root there is nothing to follow.


@final
@dataclass(frozen=True, slots=True)
class SpaceSizes:
    """What the documents of one space take, and what of it could be given up."""

    documents_count: int
    snapshot_bytes: int
    chunk_bytes: int  # Of changes since the snapshots, or of documents that have none.
    chunks_count: int
    deleted_count: int  # Documents whose objects are all deleted: a new epoch gives them up.
    deleted_bytes: int
    reclaimed_count: int  # Documents given up so far.
    reclaimed_bytes: int  # What they took.


@final
class Epochs:
    """The epochs of one open space.

    Args:
        space: Its id.
        key: Its key.
        documents: Where the roots are.
        store: The same, as bytes.
    """

    def __init__(self, space: str, key: PublicKey, documents: Documents, store: DocumentStore) -> None:
        self._space, self._key = space, key
        self._documents, self._store = documents, store
        self._roots: tuple[str, ...] = ()
        self._due: set[str] = set()  # Earlier roots in which there may be something new.

    @property
    def is_due(self) -> bool:
        """Whether something may have to be taken over."""
        return bool(self._due)

    def begin(self, root_id: str) -> str:
        """Make the root of a new epoch; its document id.

        Raises:
            InvalidValueError: The present root holds what cannot be written anew.
            CorruptionError: The present root is damaged.
        """
        deleted = {one for objects in self._store.deleted(self._space).values() for one in objects}
        root = self._documents.load(root_id)
        return self._documents.add_document(self._space, epoch.next_root(self._key, root, root_id, leave_out=deleted))

    def note_roots(self, roots: Sequence[str]) -> None:
        """Say which documents were roots, oldest first; the last is the present one."""
        if tuple(roots) != self._roots:
            self._roots = tuple(roots)
            self._due.update(self._roots[:-1])

    def note_changed(self, document_ids: Sequence[str]) -> None:
        """Say that documents have changed."""
        self._due.update(one for one in document_ids if one in self._roots[:-1])

    def follow(self, *, may_write: bool) -> None:
        """Take over what is new in earlier roots, delete what the present one left out, and give up what it can."""
        if len(self._roots) < _ROOTS_MIN or self._documents.entry(self._roots[-1]) is None:
            return
        due, self._due = self._due, set()
        for earlier_id in [one for one in self._roots[:-1] if one in due]:
            if self._documents.entry(earlier_id) is None:
                continue
            try:
                earlier = self._documents.load(earlier_id)
                if may_write:
                    take_over = partial(
                        epoch.take_over,
                        earlier=earlier,
                        earlier_id=earlier_id,
                        is_gone=self._is_gone,
                        was_given_up=self._documents.reclaimed(earlier_id) is not None,
                    )
                    self._documents.change(self._space, self._roots[-1], take_over)
                self._leave_out(earlier, earlier_id, may_write=may_write)
            except DxosError as error:
                _log.warning("the earlier root %s of space %s is not followed: %s", earlier_id, self._space, error)
                if isinstance(error, StorageError):
                    self._due.add(earlier_id)  # Tried again when something else changes.
        if self._due:
            return
        superseded = self._roots[:-_ROOTS_KEPT]
        self._documents.reclaim([one for one in superseded if self._documents.entry(one) is not None])

    def _is_gone(self, object_id: str, document_id: str) -> bool:
        found = self._documents.get(self._space, [object_id])
        return found[0].row.deleted if found else self._documents.reclaimed(document_id) is not None

    def _leave_out(self, earlier: Document, earlier_id: str, *, may_write: bool) -> None:
        """Give up what the present root left out of an earlier one."""
        gone = epoch.left_out(self._documents.load(self._roots[-1]), earlier, earlier_id)
        deleted = self._store.deleted(self._space)
        for object_id, document_id in gone.items():
            if document_id in deleted or self._documents.entry(document_id) is None:
                continue
            if may_write:
                # It was deleted by others, and edited here meanwhile: its document is kept, with those edits.
                delete = partial(edit.apply, object_id=object_id, mutations=[SetDeleted(True)])
                self._documents.change(self._space, document_id, delete)
        self._documents.reclaim([one for one in dict.fromkeys(gone.values()) if one in deleted])

    def sizes(self) -> SpaceSizes:
        """What the documents of the space take."""
        sizes = self._store.sizes(self._space)
        deleted = [size for one in self._store.deleted(self._space) if (size := self._store.size(one)) is not None]
        return SpaceSizes(
            sizes.documents_count,
            sizes.snapshot_bytes,
            sizes.chunk_bytes,
            sizes.chunks_count,
            len(deleted),
            sum(size.snapshot_bytes + size.chunk_bytes for size in deleted),
            sizes.reclaimed_count,
            sizes.reclaimed_bytes,
        )

    def uncompacted(self) -> list[str]:
        """Documents that are more than one snapshot."""
        return self._store.uncompacted(self._space)

    def __repr__(self) -> str:
        return f"<Epochs {len(self._roots)} due={len(self._due)}>"
