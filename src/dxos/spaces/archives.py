"""A space as one file, in the archive of 0.8.3: written from the documents on disk, and read into a new space.

Importing makes copies: new document ids, the new space's key in each, and links that lead to the copies. So the space
that was exported and the one that was imported live side by side, in one profile too. Documents are copied in batches,
so that everything else has its turn; what an import that died has left is removed when the profile is opened.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Final, final

import anyio.lowlevel
from msgspec import Struct

from dxos.aio import Pace, give_way
from dxos.echo import layout, sync_message
from dxos.echo.archive import ArchiveMetadata, ArchiveWriter
from dxos.echo.document import Document, Heads
from dxos.echo.layout import PROPERTIES_TYPE, ObjectStructure
from dxos.echo.rows import ObjectRow
from dxos.errors import CorruptionError
from dxos.keys import PublicKey
from dxos.keys.ids import space_id
from dxos.limits import IMPORT_DOCUMENTS_BATCH
from dxos.spaces.links import valid_links
from dxos.store.documents import DocumentStore
from dxos.store.objects import ObjectRecord
from dxos.store.profile import Profile

Tell = Callable[[int, int], None]  # Documents done, and of how many.
_Copied = tuple[str, bytes, Heads, list[ObjectRow]]  # A document's new id, content and heads, and its objects.
_LINKS_AT_ONCE: Final = 256
_log = logging.getLogger(__name__)


@final
class ExportedSpace(Struct, frozen=True):
    """An archive, and what is not in it."""

    contents: bytes
    missing: int  # Documents that the space has and this device has not, or not undamaged.


async def export_space(documents: DocumentStore, metadata: ArchiveMetadata, space: str, tell: Tell) -> ExportedSpace:
    """Write a space's root and every document that it links to.

    Args:
        documents: Where they are.
        metadata: With the id of the root.
        space: The space's id.
        tell: Told how far it is.

    Raises:
        CorruptionError: The root is damaged.
        LimitError: The space is too large for an archive.
    """
    writer = ArchiveWriter()
    root = _load(documents, metadata.root_id, space)
    if root is None:
        raise CorruptionError("The space's root document is missing.", document_id=metadata.root_id)
    await give_way()  # Each of these steps takes a while if there are many objects.
    writer.add(metadata.root_id, root.save())
    await give_way()
    links = await valid_links(layout.link_urls(root))
    linked = sorted(set(links.values()) - {metadata.root_id})
    missing, pace = 0, Pace()
    for done, document_id in enumerate(linked, start=1):
        try:
            content = _content(documents, document_id, space)
        except CorruptionError as error:
            _log.warning("document %s is not in the archive: %s", document_id, error)
            content = None
        if content is None:
            missing += 1
        else:
            writer.add(document_id, content)
        tell(done, len(linked))
        if pace.is_due:
            await pace.rest()
    return ExportedSpace(writer.finish(metadata), missing)


def _stored(documents: DocumentStore, document_id: str, space: str) -> bytes | None:
    entry = documents.entry(document_id)
    return documents.load(document_id) if entry is not None and entry[0] == space else None


def _load(documents: DocumentStore, document_id: str, space: str) -> Document | None:
    content = _stored(documents, document_id, space)
    return None if content is None else Document.load(content)


def _content(documents: DocumentStore, document_id: str, space: str) -> bytes | None:
    """A document in one piece, as any reader takes it; as it is stored, where that is one already."""
    content = _stored(documents, document_id, space)
    if content is None or sync_message.is_one_sound_chunk(content):
        return content
    return Document.load(content).save()


@final
class ArchiveImport:
    """Copies the documents of one archive into a space that is about to be made.

    Args:
        profile: Where they are copied to.
        space_key: Of the new space.
        new_id: Makes document ids.
        new_object_id: Makes object ids.
    """

    def __init__(
        self, profile: Profile, space_key: PublicKey, *, new_id: Callable[[], str], new_object_id: Callable[[], str]
    ) -> None:
        self._profile, self._key, self._space = profile, space_key, space_id(space_key)
        self._new_id, self._new_object_id = new_id, new_object_id

    async def run(self, metadata: ArchiveMetadata, untrusted: Mapping[str, bytes], tell: Tell) -> str:
        """Copy the root and what it links to; the id of the new root.

        Raises:
            InvalidValueError: A document is of no space.
            PeerError: A document is damaged, or too large.
            StorageError: No room; see `undo`.
        """
        root = Document.load_untrusted(untrusted[metadata.root_id])
        await give_way()  # Each of these steps takes a while if there are many objects.
        urls = layout.link_urls(root)
        links = await valid_links(urls)
        wanted = sorted({one for one in links.values() if one in untrusted and one != metadata.root_id})
        owners: dict[str, set[str]] = {}  # Object ids by document: what each of them may say.
        for object_id, document_id in links.items():
            owners.setdefault(document_id, set()).add(object_id)
        ids, pace = {metadata.root_id: self._new_id()}, Pace()
        for document_id in wanted:
            ids[document_id] = self._new_id()
            if pace.is_due:
                await pace.rest()
        copied = {one: ids.get(links[one]) if one in links else None for one in urls}
        if lost := sum(one is None for one in copied.values()):
            _log.warning("%d objects are not in the archive, so their links were removed", lost)
        layout.replace_links(root, {})  # Is it a root at all?
        rest = iter(copied.items())
        while some := dict(itertools.islice(rest, _LINKS_AT_ONCE)):
            layout.replace_links(root, some)
            if pace.is_due:
                await pace.rest()
        self._finish_root(root)
        await give_way()
        content = root.save()
        await give_way()
        self._write([(ids[metadata.root_id], content, root.heads, layout.materialize(root))])
        await give_way()
        for start in range(0, len(wanted), IMPORT_DOCUMENTS_BATCH):
            batch = []
            for document_id in wanted[start : start + IMPORT_DOCUMENTS_BATCH]:
                document = Document.load_untrusted(untrusted[document_id])
                layout.adopt(document, self._key)
                rows = [one for one in layout.materialize(document) if one.object_id in owners[document_id]]
                batch.append((ids[document_id], document.save(), document.heads, rows))
                await anyio.lowlevel.checkpoint()
            self._write(batch)
            tell(start + len(batch), len(wanted))
        return ids[metadata.root_id]

    def undo(self) -> None:
        """Remove what was copied."""
        self._profile.documents.delete_all(self._space)

    def _finish_root(self, root: Document) -> None:
        layout.adopt(root, self._key)
        name = PROPERTIES_TYPE.rpartition(":")[0]
        if not any(row.type is not None and row.type.startswith(f"{name}:") for row in layout.materialize(root)):
            # Without it the space could never get a name.
            layout.add_inline_object(root, self._new_object_id(), ObjectStructure(type=PROPERTIES_TYPE))

    def _write(self, batch: list[_Copied]) -> None:
        stored = [(document_id, [content], heads) for document_id, content, heads, _ in batch]
        with self._profile.database.transaction():
            self._profile.documents.create(self._space, stored)
            self._profile.objects.put(self._space, _records(batch))


def remove_unfinished(profile: Profile) -> None:
    """Remove the documents of imports that were cut short by the end of their process."""
    for space in profile.metadata.unfinished_spaces():
        _log.warning("the import of space %s was cut short; it is undone", space)
        profile.documents.delete_all(space)


def _records(batch: list[_Copied]) -> Iterator[ObjectRecord]:
    for document_id, _, _, rows in batch:
        for row in rows:
            yield ObjectRecord(
                row.object_id, document_id, row.kind, row.type, row.deleted, row.source, row.target, row.meta, row.data
            )
