"""The epochs of one space: beginning one, following the last, and giving up what no epoch needs any more.

A new epoch has a new root, without the history of the one before and without links to deleted objects. Peers go over to
it when they read its credential. Whatever reaches an earlier root later, from a peer that was away or by JavaScript,
is taken over into the present one by every peer that may write (`dxos.echo.epoch`).

Invariants
1. The two roots before the present one stay: from them peers that were away learn what the present one includes.
2. A document is given up only if all its objects were deleted before the new root left them out.
3. A document that was given up comes back if a peer has changes of it that were unknown here; it stays deleted.
"""

import itertools
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, final

import anyio
from msgspec import Struct

from dxos.aio import Pace, give_way
from dxos.echo import edit, epoch, layout
from dxos.echo.document import Document
from dxos.echo.mutation import SetDeleted
from dxos.errors import DxosError, StorageError
from dxos.keys import PublicKey
from dxos.spaces.documents import Documents
from dxos.spaces.links import valid_links
from dxos.store.documents import DocumentStore

_log = logging.getLogger(__name__)
_ROOTS_KEPT: Final = 3  # Two epochs begun at once have the same root before them.
_ROOTS_MIN: Final = 2  # With one root there is nothing to follow.
_RECLAIMED_AT_ONCE: Final = 250


@final
class SpaceSizes(Struct, frozen=True):
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
class NewRoot(Struct, frozen=True):
    """The root of an epoch that is about to begin."""

    document_id: str
    document: Document
    left_out: dict[str, str]  # Links to objects that were deleted when it was made.


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
        self._turn = anyio.Lock()

    @property
    def is_due(self) -> bool:
        """Whether something may have to be taken over."""
        return bool(self._due)

    async def begin(self, root_id: str) -> NewRoot:
        """Make the root of a new epoch, which is not kept yet; everything else has its turns meanwhile.

        What the present root gets from now on is taken over when the new one is followed.

        Raises:
            InvalidValueError: The present root holds what cannot be written anew.
            CorruptionError: The present root is damaged.
        """
        deleted = self._deleted()
        await give_way()  # Each of these steps takes a while if there are many objects.
        self._documents.load(root_id)
        await give_way()
        content = epoch.read_root(self._documents.load(root_id), root_id)
        await give_way()
        links = await valid_links(content.link_urls)
        left_out = {one: links.pop(one) for one in deleted & links.keys()}
        await give_way()
        made = epoch.next_root(self._key, content, links)
        await give_way()
        return NewRoot(self._documents.new_id(), made, left_out)

    def keep(self, made: NewRoot) -> None:
        """Keep a new root, inside the transaction that begins its epoch."""
        restored = made.left_out.keys() - self._deleted() if made.left_out else set()
        if restored:  # While it was made.
            layout.add_links(made.document, {one: made.left_out[one] for one in restored})
        self._documents.add_document(self._space, made.document_id, made.document)

    def _deleted(self) -> set[str]:
        return {one for objects in self._store.deleted(self._space).values() for one in objects}

    def note_roots(self, roots: Sequence[str]) -> None:
        """Say which documents were roots, oldest first; the last is the present one."""
        if tuple(roots) != self._roots:
            self._roots = tuple(roots)
            self._due.update(self._roots[:-1])

    def note_changed(self, document_ids: Sequence[str]) -> None:
        """Say that documents have changed."""
        self._due.update(one for one in document_ids if one in self._roots[:-1])

    async def follow(self, *, may_write: bool) -> bool:
        """Take over what is new in earlier roots, delete what the present one left out, and give up what it can.

        Returns:
            Whether there was something to follow, and all of it was followed.
        """
        async with self._turn:
            roots = self._roots
            self._due.intersection_update(roots[:-1])
            if not self._due or len(roots) < _ROOTS_MIN or self._documents.entry(roots[-1]) is None:
                return False
            for earlier_id in [one for one in roots[:-1] if one in self._due]:
                self._due.discard(earlier_id)
                try:
                    if self._documents.entry(earlier_id) is not None:
                        await self._follow_one(earlier_id, roots[-1], may_write=may_write)
                except DxosError as error:
                    _log.warning("the earlier root %s of space %s is not followed: %s", earlier_id, self._space, error)
                    if isinstance(error, StorageError):
                        self._due.add(earlier_id)  # Tried again when something else changes.
                        return False
                except BaseException:
                    self._due.add(earlier_id)
                    raise
            if not self._due and roots == self._roots:
                superseded = roots[:-_ROOTS_KEPT]
                self._documents.reclaim([one for one in superseded if self._documents.entry(one) is not None])
            return True

    async def _follow_one(self, earlier_id: str, root_id: str, *, may_write: bool) -> None:
        # To load a large root takes a turn of its own each.
        for one in (earlier_id, root_id):
            if not self._documents.is_loaded(one):
                self._documents.load(one)
                await give_way()
        if may_write:
            take_over = partial(
                epoch.take_over,
                earlier=self._documents.load(earlier_id),
                earlier_id=earlier_id,
                is_gone=self._is_gone,
                was_given_up=self._documents.reclaimed(earlier_id) is not None,
            )
            self._documents.change(self._space, root_id, take_over)
            await give_way()
        gone = epoch.left_out(self._documents.load(root_id), self._documents.load(earlier_id), earlier_id)
        if gone:
            await give_way()
            await self._leave_out(gone, may_write=may_write)

    def _is_gone(self, object_id: str, document_id: str) -> bool:
        found = self._documents.get(self._space, [object_id])
        return found[0].row.deleted if found else self._documents.reclaimed(document_id) is not None

    async def _leave_out(self, gone: Mapping[str, str], *, may_write: bool) -> None:
        """Give up what the present root left out of an earlier one: document ids by object id."""
        here, pace = dict[str, str](), Pace()
        for object_id, document_id in gone.items():
            if self._documents.entry(document_id) is not None:
                here[object_id] = document_id
            if pace.is_due:
                await pace.rest()
        rest = iter(here.items())
        while some := dict(itertools.islice(rest, _RECLAIMED_AT_ONCE)):
            deleted = self._store.deleted(self._space)  # Each time, since one may have been restored meanwhile.
            for object_id, document_id in some.items():
                if document_id not in deleted and may_write and self._documents.entry(document_id) is not None:
                    # It was deleted by others, and edited here meanwhile: its document is kept, with those edits.
                    delete = partial(edit.apply, object_id=object_id, mutations=[SetDeleted(True)])
                    self._documents.change(self._space, document_id, delete)
            self._documents.reclaim([one for one in dict.fromkeys(some.values()) if one in deleted])
            await give_way()

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
