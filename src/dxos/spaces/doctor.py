"""Checks a profile that nobody uses: whether file, keys, feeds, documents, rows and indexes agree; mends what it can.

What follows from something else is made anew from it: indexes from tables, rows from documents, a feed's tree from its
blocks. What follows from nothing here is set aside for a peer's copy to take its place: documents, and blocks of other
people's feeds. What nobody else has can only come from a backup: keys, and the identity's own feed.

Order matters: a table that SQLite cannot read is salvaged before its rows are looked at, feeds tell which document is a
space's root, and documents tell what the rows should be.
"""

import json
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Final, final

import anyio.lowlevel
from msgspec import Struct, field

from dxos.echo import layout
from dxos.echo.document import Document
from dxos.echo.rows import ObjectRow
from dxos.errors import CorruptionError, DecodeError, DxosError, InvalidKeyError, KeyMissingError, StorageError
from dxos.feed import merkle
from dxos.feed.audit import FeedAudit, audit
from dxos.keys import PublicKey
from dxos.keys.ids import space_id
from dxos.limits import DOCTOR_FINDINGS_MAX
from dxos.spaces.pipeline import ControlPipeline
from dxos.store.audit import Audit, DocumentEntry
from dxos.store.backup import sealed_writer
from dxos.store.conditions import canonical_json
from dxos.store.feeds import FeedStorage
from dxos.store.metadata import SpaceRecord
from dxos.store.objects import ObjectRecord
from dxos.store.profile import Profile, check_salvageable, salvage_profile

_IDENTITY_KEYS: Final = ("device", "control_feed")  # Without these nothing can be signed.
_CHALLENGE: Final = b"dxos doctor 1: is this key whole?"
_BACKUP: Final = "restore the profile from a backup"
_ANEW: Final = "is made anew from its document"


class Outcome(Enum):
    """What is, or can be, done about a finding."""

    REPAIRABLE = "repairable"  # `repair` would mend it, and nothing is lost.
    REPAIRED = "repaired"
    SET_ASIDE = "set-aside"  # Kept out of the way until a peer's copy takes its place.
    LOST = "lost"  # Nothing here can make it whole again.


@final
class Finding(Struct, frozen=True):
    """One thing that is not as it should be."""

    code: str  # Stable, such as "row.differs".
    message: str  # A sentence for people.
    outcome: Outcome
    detail: dict[str, str | int] = field(default_factory=dict)  # The ids of what it is about.


@final
class Report(Struct, frozen=True):
    """What a check found."""

    findings: tuple[Finding, ...]  # At most DOCTOR_FINDINGS_MAX.
    findings_count: int
    unresolved_count: int  # Findings that are not REPAIRED.
    spaces_count: int  # What was looked at.
    documents_count: int
    objects_count: int
    feeds_count: int
    keys_count: int


@final
class Progress(Struct, frozen=True):
    """How far a check is."""

    stage: str  # "file", "records", "keys", "feeds", "documents", "indexes".
    done: int
    total: int | None  # None where it is not known.


async def examine_folder(
    path: Path,
    *,
    repair: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    backup_passphrase: str | None = None,
) -> Report:
    """Check a profile, also one that no longer opens.

    Args:
        path: Its folder.
        repair: Whether to mend what can be mended. A file with unreadable pages is kept as `profile.sqlite.damaged`.
        progress: Is told from time to time.
        backup_passphrase: Seals the backup that is made if the profile must be migrated first; None: it is not sealed.

    Raises:
        ProfileLockedError: A process uses it.
        StorageError: The folder cannot be read or, to repair, be written.

    Cancelling:
        What was repaired stays so; every single repair is whole.
    """
    notes, write_sealed = _Notes(repair), sealed_writer(path, backup_passphrase)
    try:
        profile = Profile.open(path, write_sealed=write_sealed)
    except CorruptionError as error:
        reason = str(error.detail.get("reason", error)).rstrip(".")
        if not _salvage(path, notes, f"the database file does not open ({reason})"):
            return notes.report()
        profile = Profile.open(path, write_sealed=write_sealed)
    try:
        progress(Progress("file", 0, None))
        damage = _check_file(profile, notes)
        if damage is not None:
            profile.close()
            if not _salvage(path, notes, f"a part of the database file cannot be read ({damage})"):
                return notes.report()  # To read on would tell of each row what is true of the page.
            profile = Profile.open(path, write_sealed=write_sealed)
            _check_file(profile, notes)
        return await _examine(profile, notes, progress)
    finally:
        profile.close()


async def examine(
    profile: Profile, *, repair: bool = False, progress: Callable[[Progress], None] = lambda _: None
) -> Report:
    """Check a profile that is open and used by nobody else; see `examine_folder`."""
    notes = _Notes(repair)
    damage = _check_file(profile, notes)
    if damage is not None:
        notes.add("file.damaged", f"a part of the database file cannot be read ({damage})", Outcome.REPAIRABLE)
        return notes.report()
    return await _examine(profile, notes, progress)


async def _examine(profile: Profile, notes: "_Notes", progress: Callable[[Progress], None]) -> Report:
    examination = _Examination(profile, notes)
    for step in examination.steps():
        progress(step)
        await anyio.lowlevel.checkpoint()
    if notes.repair:
        await anyio.to_thread.run_sync(profile.sync)
    return notes.report()


def _salvage(path: Path, notes: "_Notes", damage: str) -> bool:
    """Repair a file that cannot be read, or say whether that could be done; whether it was."""
    try:
        if not notes.repair:
            check_salvageable(path)
            notes.add("file.damaged", damage, Outcome.REPAIRABLE)
            return False
        rows = salvage_profile(path)
    except CorruptionError as error:
        found = str(error).partition(";")[0]
        notes.add(
            "file.damaged",
            f"{damage}, nor repaired: {found[0].lower()}{found[1:].rstrip('.')}; {_BACKUP}",
            Outcome.LOST,
        )
        return False
    notes.add(
        "file.damaged",
        f"{damage}; what could be read is in a new file, the old one is kept beside it",
        Outcome.REPAIRED,
        documents=rows.get("documents", 0),
    )
    return True


def _check_file(profile: Profile, notes: "_Notes") -> str | None:
    """Compare the tables of the file with their indexes; what SQLite says of pages that it cannot read."""
    store = Audit(profile.database)
    indexes, rest = store.damage()
    if rest:
        return rest[0]
    for name in indexes:
        if notes.repair:
            try:
                store.rebuild_index(name)
            except CorruptionError:
                return f"the index {name}"
        notes.mended("index.differs", f"the index {name} does not agree with its table", index=name)
    return None


@final
class _Notes:
    """What was found so far."""

    def __init__(self, repair: bool) -> None:
        self.repair = repair
        self.counts = dict.fromkeys(("spaces", "documents", "objects", "feeds", "keys"), 0)
        self._findings: list[Finding] = []
        self._count = self._unresolved = 0

    def add(self, code: str, message: str, outcome: Outcome, **detail: str | int) -> None:
        self._count += 1
        self._unresolved += outcome is not Outcome.REPAIRED
        if len(self._findings) < DOCTOR_FINDINGS_MAX:
            sentence = f"{message[0].upper()}{message[1:]}."
            self._findings.append(Finding(code, sentence, outcome, detail))

    def mended(self, code: str, message: str, **detail: str | int) -> None:
        """Note what is repaired if anything is to be."""
        self.add(code, message, Outcome.REPAIRED if self.repair else Outcome.REPAIRABLE, **detail)

    def report(self) -> Report:
        counts = (self.counts[name] for name in ("spaces", "documents", "objects", "feeds", "keys"))
        return Report(tuple(self._findings), self._count, self._unresolved, *counts)


@final
class _Examination:
    """One check of one profile whose file can be read."""

    def __init__(self, profile: Profile, notes: _Notes) -> None:
        self._profile, self._notes = profile, notes
        self._store = Audit(profile.database)
        self._own_feeds: dict[PublicKey, str] = {}  # Those written here: what each is to a person.
        self._identity_feeds: set[PublicKey] = set()
        self._records: dict[str, SpaceRecord] = {}

    def steps(self) -> Iterator[Progress]:
        """Do it, piece by piece."""
        yield from self._check_records()
        yield from self._check_keys()
        yield from self._check_feeds()
        yield from self._check_documents()
        yield Progress("indexes", 0, None)
        self._check_indexes()

    # --- Records and keys ---------------------------------------------------------------------------------------------

    def _check_records(self) -> Iterator[Progress]:
        yield Progress("records", 0, None)
        for table, name in self._store.damaged_records():
            if table == "invitations":
                if self._notes.repair:
                    self._store.drop_invitation(name)
                self._notes.mended("invitation.damaged", "an invitation is damaged and is cancelled", invitation=name)
            else:
                what = f"the record {name!r}" if table == "settings" else "the record of a space"
                self._notes.add("record.damaged", f"{what} is damaged; {_BACKUP}", Outcome.LOST, record=name)
        for space in self._profile.metadata.space_ids():
            self._notes.counts["spaces"] += 1
            try:
                record = self._profile.metadata.space(space)
            except CorruptionError:
                continue  # Found above.
            if record is None:
                continue  # An index leads nowhere: found with the file.
            self._records[space] = record
            self._own_feeds |= {record.control_feed_key: "a feed of a space", record.data_feed_key: "a feed of a space"}

    def _check_keys(self) -> Iterator[Progress]:
        keyring = self._profile.keyring
        wanted = dict(self._own_feeds)
        wanted |= {key: f"the identity's {name}" for name, key in self._identity_keys().items()}
        for key in wanted:
            if not keyring.has(key):
                self._notes.add(
                    "key.missing", f"the private key of {wanted[key]} is missing; {_BACKUP}", Outcome.LOST, key=key.hex
                )
        present = keyring.keys()
        for done, key in enumerate(present):
            yield Progress("keys", done, len(present))
            self._notes.counts["keys"] += 1
            try:
                keyring.sign(key, _CHALLENGE)
            except (CorruptionError, KeyMissingError):
                what = wanted.get(key, "something that is not used")
                self._notes.add(
                    "key.damaged", f"the private key of {what} is damaged; {_BACKUP}", Outcome.LOST, key=key.hex
                )

    def _identity_keys(self) -> dict[str, PublicKey]:
        try:
            record = self._profile.metadata.identity()
            keys = {} if record is None else json.loads(record)
            found = {name: PublicKey.from_hex(keys[name]) for name in keys}
        except CorruptionError:
            return {}  # Found with the records.
        except (ValueError, TypeError, AttributeError, InvalidKeyError):
            self._notes.add("record.damaged", f"the record of the identity is damaged; {_BACKUP}", Outcome.LOST)
            return {}
        self._identity_feeds = {found[name] for name in ("control_feed", "data_feed") if name in found}
        return {name: found[name] for name in _IDENTITY_KEYS if name in found}

    # --- Feeds --------------------------------------------------------------------------------------------------------

    def _check_feeds(self) -> Iterator[Progress]:
        feeds = self._store.feeds()
        for done, (space_key, key, storage) in enumerate(feeds):
            yield Progress("feeds", done, len(feeds))
            self._notes.counts["feeds"] += 1
            found = audit(key, storage)
            if not found.is_whole:
                self._note_feed(space_key, key, storage, found)

    def _note_feed(self, space_key: PublicKey | None, key: PublicKey, storage: FeedStorage, found: FeedAudit) -> None:
        detail: dict[str, str | int] = {"feed": key.hex}
        if space_key is not None:
            detail["space_id"] = space_id(space_key)
        contiguous, length = storage.lengths()
        is_whole_on_its_own = not found.blocks and contiguous == length
        if is_whole_on_its_own and not found.signatures:
            if self._notes.repair:
                self._store.put_nodes(space_key, key, found.nodes)
            self._notes.mended("feed.tree", "the hashes of a feed are damaged and follow from its blocks", **detail)
        elif is_whole_on_its_own and self._may_sign(key):
            if self._notes.repair:
                self._store.put_nodes(space_key, key, found.nodes)
                for one in found.signatures:
                    self._sign_again(space_key, key, storage, one)
            self._notes.mended("feed.signature", "a signature of a feed of this device is damaged", **detail)
        elif is_whole_on_its_own and found.proven == length:
            if self._notes.repair:
                self._store.put_nodes(space_key, key, found.nodes)
                self._store.drop_signatures(space_key, key, found.signatures)
            self._notes.mended(
                "feed.signature", "a signature is damaged that a later one of its feed stands for", **detail
            )
        elif key in self._identity_feeds:
            self._notes.add("feed.damaged", f"the identity's own feed is damaged; {_BACKUP}", Outcome.LOST, **detail)
        else:
            if self._notes.repair:
                self._store.cut_feed(space_key, key, found.proven)
                # No proof needs one below that which proves what stays, and peers refuse one that fits nothing.
                self._store.drop_signatures(space_key, key, [one for one in found.signatures if one < found.proven])
                self._store.put_nodes(space_key, key, audit(key, storage).nodes)
            self._notes.add(
                "feed.damaged",
                f"records of a space are damaged from number {found.proven} on; members who have them give them again",
                Outcome.SET_ASIDE if self._notes.repair else Outcome.REPAIRABLE,
                **detail,
                proven=found.proven,
            )

    def _may_sign(self, key: PublicKey) -> bool:
        return (key in self._own_feeds or key in self._identity_feeds) and self._profile.keyring.has(key)

    def _sign_again(self, space_key: PublicKey | None, key: PublicKey, storage: FeedStorage, length: int) -> None:
        roots = []
        for index in merkle.roots(length):
            node = storage.node(index)
            assert node is not None, "the tree has been mended"
            roots.append(merkle.Node(index, *node))
        signature = self._profile.keyring.sign(key, merkle.signable(roots, length))
        self._store.put_signature(space_key, key, length, signature)

    # --- Documents and rows -------------------------------------------------------------------------------------------

    def _check_documents(self) -> Iterator[Progress]:
        self._tidy("chunk.stray", "chunks that belong to no document", self._store.stray_chunks)
        self._tidy("row.stray", "rows of documents that are not there", self._store.stray_rows)
        for space in self._store.space_ids():
            yield from _SpaceExamination(self._profile, self._notes, space, self._root_of(space)).steps()

    def _tidy(self, code: str, what: str, count: Callable[[], int]) -> None:
        found = count()
        if found:
            if self._notes.repair:
                (self._store.drop_stray_chunks if code == "chunk.stray" else self._store.drop_stray_rows)()
            self._notes.mended(code, f"there are {what}: {found}", count=found)

    def _check_indexes(self) -> None:
        """What is kept beside the rows to find them by; after the rows are as they should be."""
        if not self._store.has_field_indexes():
            if self._notes.repair:
                self._store.drop_field_indexes()
                self._profile.objects.fields.rebuild()
            self._notes.mended("index.differs", "there are other indexes on properties than are noted")
        wrong = self._store.wrong_references()
        if wrong:
            if self._notes.repair:
                self._store.rebuild_references()
            self._notes.mended("references.differ", f"what objects refer to is noted wrongly: {wrong}", count=wrong)
        if not self._store.has_words():
            if self._notes.repair:
                self._profile.objects.words.rebuild()
            self._notes.mended("words.differ", "the index for searching text does not agree with the objects")

    def _root_of(self, space: str) -> str | None:
        """The root document that the space's feeds name; None if they are damaged or not here."""
        record = self._records.get(space)
        if record is None:
            return None
        try:
            pipeline = ControlPipeline(
                record.space_key,
                record.genesis_feed_key,
                open_storage=self._profile.feeds.open_in,
                signer=self._profile.keyring,
            )
            pipeline.advance()
        except DxosError:
            return None  # What is wrong with its feeds was found above.
        epoch = pipeline.state.current_epoch
        url = "" if epoch is None else epoch.automerge_root or ""
        return url.removeprefix(layout.DOCUMENT_URL_PREFIX) or None


@final
class _SpaceExamination:
    """The documents of one space, and the rows that should be made of them."""

    def __init__(self, profile: Profile, notes: _Notes, space: str, root_id: str | None) -> None:
        self._profile, self._notes, self._space, self._root_id = profile, notes, space, root_id
        self._store = Audit(profile.database)
        self._links: dict[str, str] = {}
        self._places: dict[str, str] = {}  # By object: the document that the row names.
        self._claimed: set[str] = set()  # Objects whose row's document has them.
        self._rivals: dict[str, list[str]] = {}  # By object: other documents that have it too.
        self._quarantined: set[str] = set()
        self._is_rebuilding = False

    def steps(self) -> Iterator[Progress]:
        """Do it, document by document."""
        documents, objects = self._profile.documents, self._profile.objects
        total = len(documents.ids(self._space))
        try:
            self._places = objects.all_places(self._space)
        except StorageError:
            # Ids that are no text any more: no row can be told from another.
            self._notes.mended("row.unreadable", "the rows of a space cannot be read", space_id=self._space)
            if not self._notes.repair:
                return
            self._store.drop_rows(self._space)
            self._is_rebuilding = True
        self._links = self._read_links()
        for done, entry in enumerate(self._store.documents(self._space)):
            yield Progress("documents", done, total)
            self._notes.counts["documents"] += 1
            document = self._check_document(entry)
            if document is None:
                self._quarantined.add(entry.document_id)
                continue
            for row in layout.materialize(document):
                self._claim(entry.document_id, row)
        for object_id, rivals in self._rivals.items():
            self._settle(object_id, rivals)
        for object_id, document_id in self._places.items():
            if object_id not in self._claimed:
                self._check_left_over(object_id, document_id)
        self._notes.counts["objects"] += len(self._places)

    def _read_links(self) -> dict[str, str]:
        """What the root links to."""
        if self._root_id is None:
            return {}
        try:
            content = self._profile.documents.load(self._root_id)
            return {} if content is None else layout.links(Document.load(content))
        except (CorruptionError, DecodeError):
            return {}

    # --- Documents ----------------------------------------------------------------------------------------------------

    def _check_document(self, entry: DocumentEntry) -> Document | None:
        """The document, or None if it cannot be used."""
        try:
            if entry.content is None:
                raise CorruptionError("It cannot be read.")
            document = Document.load(entry.content)
            if not entry.is_complete and document.heads != entry.heads:
                raise CorruptionError("A part of it is missing.")
            layout.materialize(document)  # Panics are found here.
            key = layout.space_key_of(document)
            if key is None or space_id(key) != self._space:
                raise CorruptionError("It belongs to another space.")
            heads = document.heads
        except (CorruptionError, DecodeError) as error:
            self._set_aside(entry, str(error))
            return None
        detail: dict[str, str | int] = {"document_id": entry.document_id, "space_id": self._space}
        if entry.heads != heads or not entry.is_complete:
            if self._notes.repair:
                self._profile.documents.replace_with_snapshot(entry.document_id, document.save(), heads)
            self._notes.mended("document.record", "what is noted of a document does not agree with it", **detail)
        if entry.quarantine is not None:
            if self._notes.repair:
                self._store.lift_quarantine(entry.document_id)
            self._notes.mended("document.quarantined", "a document was set aside and is whole", **detail)
        return document

    def _set_aside(self, entry: DocumentEntry, reason: str) -> None:
        if self._notes.repair and entry.quarantine is None:
            self._profile.documents.quarantine(entry.document_id, reason)
        why = (entry.quarantine or reason).rstrip(".")
        self._notes.add(
            "document.quarantined" if entry.quarantine is not None else "document.damaged",
            f"a document is damaged ({why}); a peer's copy takes its place when there is one",
            Outcome.SET_ASIDE if self._notes.repair or entry.quarantine is not None else Outcome.REPAIRABLE,
            document_id=entry.document_id,
            space_id=self._space,
        )

    # --- Rows ---------------------------------------------------------------------------------------------------------

    def _claim(self, document_id: str, row: ObjectRow) -> None:
        """A document has an object."""
        if self._places.setdefault(row.object_id, document_id) == document_id:
            self._claimed.add(row.object_id)
            self._check_row(document_id, row)
        else:
            self._rivals.setdefault(row.object_id, []).append(document_id)

    def _settle(self, object_id: str, rivals: list[str]) -> None:
        """Of several documents the root has the object, or the one that the root links to, or who had it first."""
        place = self._places[object_id]
        claims = [place, *rivals] if object_id in self._claimed or place in self._quarantined else rivals
        wanted = (self._root_id, self._links.get(object_id), *claims)
        owner = next(one for one in wanted if one in claims)
        assert owner is not None
        self._claimed.add(object_id)
        if owner != place:
            content = self._profile.documents.load(owner)
            assert content is not None, "it was read a moment ago"
            for row in layout.materialize(Document.load(content)):
                if row.object_id == object_id:
                    self._check_row(owner, row)

    def _check_row(self, document_id: str, row: ObjectRow) -> None:
        """Compare a row with what its document says."""
        wanted = ObjectRecord(
            row.object_id, document_id, row.kind, row.type, row.deleted, row.source, row.target, row.meta, row.data
        )
        code = ""
        try:
            found = self._profile.objects.get(self._space, row.object_id)
        except CorruptionError:
            code, message = "row.damaged", f"the row of an object is damaged and {_ANEW}"
        else:
            if found is None:
                code, message = "row.missing", f"an object has no row and {_ANEW}"
            elif not _same(found, wanted):
                code, message = "row.differs", f"the row of an object differs from its document and {_ANEW}"
        if code:
            if self._notes.repair:
                with self._profile.database.transaction():
                    self._profile.objects.remove(self._space, [row.object_id])
                    self._profile.objects.put(self._space, [wanted])
            self._notes.mended(code, message, object_id=row.object_id, document_id=document_id, space_id=self._space)

    def _check_left_over(self, object_id: str, document_id: str) -> None:
        """A row for which no document that can be read stands."""
        detail: dict[str, str | int] = {
            "object_id": object_id,
            "document_id": document_id,
            "space_id": self._space,
        }
        if document_id not in self._quarantined:
            if self._notes.repair:
                self._profile.objects.remove(self._space, [object_id])
            self._notes.mended("row.stray", "there is a row of an object that no document has", **detail)
            return
        try:
            self._profile.objects.get(self._space, object_id)  # It is all that is left, and stays readable.
        except CorruptionError:
            self._notes.add("object.lost", "the row of an object and its document are damaged", Outcome.LOST, **detail)


def _same(found: ObjectRecord, wanted: ObjectRecord) -> bool:
    """Whether two records say the same of an object; the keys of maps have no order."""
    return _comparable(found) == _comparable(wanted)


def _comparable(one: ObjectRecord) -> tuple[object, ...]:
    meta, data = (canonical_json(value, sort_keys=True) for value in (one.meta, one.data))
    return one.document_id, one.kind, one.type, one.deleted, one.source, one.target, meta, data
