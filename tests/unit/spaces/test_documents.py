"""Documents and rows: edits, transactions that fail, damage on disk, and claims of two documents to one object."""

import random as randomness
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dxos.echo import layout
from dxos.echo.document import ROOT, Document
from dxos.echo.edit import apply as edit_document
from dxos.echo.layout import ObjectStructure
from dxos.echo.mutation import Mutation, Put, SetDeleted
from dxos.echo.query import Equals, HasType, Query
from dxos.echo.rows import ObjectRow
from dxos.errors import (
    CorruptionError,
    InvalidValueError,
    LimitError,
    ObjectNotFoundError,
    ProtocolError,
    SpaceNotFoundError,
    StorageFullError,
)
from dxos.keys import PublicKey
from dxos.keys.ids import make_object_id, space_id
from dxos.spaces.documents import Documents, ObjectEdit, StoredObject
from dxos.store.profile import Profile
from dxos.testing.peers import seeded_random

KEY, OTHER_KEY = PublicKey(b"\4" + b"k" * 64), PublicKey(b"\4" + b"o" * 64)
SPACE, OTHER = space_id(KEY), space_id(OTHER_KEY)


def object_id(number: int) -> str:
    return make_object_id(1_760_000_000_000 + number, bytes(10))


MILK, BREAD, NAME = object_id(1), object_id(2), object_id(3)


@pytest.fixture
def profile() -> Iterator[Profile]:
    with Profile.open(None) as profile:
        yield profile


@pytest.fixture
def documents(profile: Profile) -> Documents:
    return open_documents(profile)


def open_documents(profile: Profile) -> Documents:
    made = Documents(profile, random=seeded_random(1))
    made.open_space(KEY)
    made.create_root(SPACE, ObjectStructure({"name": "Groceries"}, layout.PROPERTIES_TYPE), NAME)
    return made


def create(number_or_id: str, **data: object) -> ObjectEdit:
    return ObjectEdit(number_or_id, create=ObjectRow(number_or_id, data=data))


def change(object_id: str, *mutations: Mutation) -> ObjectEdit:
    return ObjectEdit(object_id, mutations=mutations)


def data(documents: Documents, object_id: str) -> object:
    found = documents.get(SPACE, [object_id])
    return found[0].row.data if found else None


def document_of(profile: Profile, object_id: str) -> str:
    record = profile.objects.get(SPACE, object_id)
    assert record is not None
    return record.document_id


def make(object_id: str, key: PublicKey = KEY, **content: object) -> Document:
    return layout.make_object_document(key, object_id, ObjectStructure(dict(content)))


# --- Editing ----------------------------------------------------------------


def test_created_objects_are_linked_by_the_root_each_in_a_document_of_its_own(
    documents: Documents, profile: Profile
) -> None:
    documents.update(SPACE, [create(MILK, title="Milk"), create(BREAD, title="Bread")])
    root = next(one for one in documents.documents(SPACE) if layout.links(documents.load(one)))
    assert layout.links(documents.load(root)) == {
        MILK: document_of(profile, MILK),
        BREAD: document_of(profile, BREAD),
    }
    assert len(documents.documents(SPACE)) == 3


def test_an_object_may_be_created_and_changed_in_one_turn(documents: Documents) -> None:
    documents.update(SPACE, [create(MILK, title="Milk"), change(MILK, Put(("done",), True))])
    assert data(documents, MILK) == {"title": "Milk", "done": True}


def test_one_bad_edit_undoes_its_whole_turn(documents: Documents) -> None:
    documents.update(SPACE, [create(MILK, title="Milk")])
    heard: list[tuple[StoredObject, ...]] = []
    documents.subscribe(SPACE, heard.append)
    before = documents.documents(SPACE)
    for bad, error in (
        (change(BREAD, Put(("a",), 1)), ObjectNotFoundError),
        (create(MILK), InvalidValueError),
        (create("no id"), InvalidValueError),
    ):
        with pytest.raises(error):
            documents.update(SPACE, [change(MILK, Put(("title",), "Oat")), create(object_id(9)), bad])
    assert documents.documents(SPACE) == before
    assert data(documents, MILK) == {"title": "Milk"}
    assert heard == []
    documents.update(SPACE, [change(MILK, Put(("done",), True))])
    assert data(documents, MILK) == {"title": "Milk", "done": True}


def test_a_full_disk_undoes_a_turn_and_the_next_one_works(
    documents: Documents, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents.update(SPACE, [create(MILK, title="Milk")])
    run = profile.database.run

    def full(statement: str, parameters: tuple[object, ...] = ()) -> int:
        if statement == "COMMIT":
            raise StorageFullError("the disk is full")
        return run(statement, parameters)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(type(profile.database), "run", lambda _, *arguments: full(*arguments))
        for edit in (change(MILK, Put(("title",), "Oat")), create(BREAD)):
            with pytest.raises(StorageFullError):
                documents.update(SPACE, [edit])
            assert data(documents, MILK) == {"title": "Milk"}
    documents.update(SPACE, [change(MILK, Put(("done",), True)), create(BREAD)])
    assert data(documents, MILK) == {"title": "Milk", "done": True}
    root = next(one for one in documents.documents(SPACE) if layout.links(documents.load(one)))
    assert set(layout.links(documents.load(root))) == {MILK, BREAD}


def test_an_update_that_is_sent_again_after_its_object_was_given_up_says_so(
    documents: Documents, profile: Profile
) -> None:
    documents.update(SPACE, [create(MILK, title="Milk")], receipt=("alice", 1))
    profile.objects.remove(SPACE, [MILK])
    with pytest.raises(ObjectNotFoundError, match="given up"):
        documents.update(SPACE, [create(MILK, title="Milk")], receipt=("alice", 1))


def test_deleted_objects_are_found_by_id_only(documents: Documents) -> None:
    documents.update(SPACE, [create(MILK, title="Milk")])
    documents.update(SPACE, [change(MILK, SetDeleted(True))])
    assert documents.get(SPACE, [MILK])[0].row.deleted
    assert documents.count(SPACE, Query()) == 1, "the space's name is left"
    assert documents.count(SPACE, Query(deleted="only")) == 1


def test_nothing_is_asked_of_a_space_that_is_not_open(documents: Documents) -> None:
    documents.close_space(SPACE)
    with pytest.raises(SpaceNotFoundError):
        documents.update(SPACE, [create(MILK)])
    with pytest.raises(SpaceNotFoundError):
        documents.received("x", SPACE, make(MILK), ())
    assert documents.entry("x") is None


def test_a_subscription_outlives_the_closing_of_its_space_and_ends_when_told(documents: Documents) -> None:
    heard: list[str] = []
    end = documents.subscribe(SPACE, lambda found: heard.extend(one.row.object_id for one in found))
    root_id = next(iter(documents.documents(SPACE)))
    documents.close_space(SPACE)
    documents.open_space(KEY)
    documents.set_root(SPACE, root_id)
    documents.update(SPACE, [create(MILK)])
    end()
    documents.update(SPACE, [create(BREAD)])
    assert heard == [MILK]


# --- From peers ----------------------------------------------------------------


def test_where_two_documents_claim_an_object_the_one_that_the_root_links_to_has_it(
    documents: Documents, profile: Profile
) -> None:
    documents.update(SPACE, [create(MILK, title="Milk")])
    ours = document_of(profile, MILK)
    documents.received(documents.new_id(), SPACE, make(MILK, title="Forged"), ())
    assert data(documents, MILK) == {"title": "Milk"}
    assert document_of(profile, MILK) == ours


def test_an_object_goes_over_to_the_linked_document_when_the_root_arrives_last(profile: Profile) -> None:
    documents = Documents(profile, random=seeded_random(1))
    documents.open_space(KEY)
    root = Document.create()
    layout.make_root(KEY, root)
    forged, linked, root_id = (documents.new_id() for _ in range(3))
    layout.add_links(root, {MILK: linked})
    documents.set_root(SPACE, root_id)
    documents.received(forged, SPACE, make(MILK, title="Forged"), ())
    documents.received(linked, SPACE, make(MILK, title="Milk"), ())
    heard: list[object] = []
    documents.subscribe(SPACE, lambda found: heard.extend(one.row.data for one in found))
    documents.received(root_id, SPACE, root, ())
    assert data(documents, MILK) == {"title": "Milk"}
    assert heard == [{"title": "Milk"}]


def test_an_object_goes_over_to_the_linked_document_when_the_epoch_is_known_last(profile: Profile) -> None:
    documents = Documents(profile, random=seeded_random(1))
    documents.open_space(KEY)
    root = Document.create()
    layout.make_root(KEY, root)
    forged, linked, root_id = (documents.new_id() for _ in range(3))
    layout.add_links(root, {MILK: linked})
    documents.received(root_id, SPACE, root, ())
    documents.received(forged, SPACE, make(MILK, title="Forged"), ())
    documents.received(linked, SPACE, make(MILK, title="Milk"), ())
    documents.set_root(SPACE, root_id)
    assert data(documents, MILK) == {"title": "Milk"}


def test_an_object_of_the_type_that_names_spaces_does_not_name_the_space(documents: Documents) -> None:
    first = make_object_id(1, bytes(10))  # Sorts before the real one.
    documents.update(SPACE, [ObjectEdit(first, create=ObjectRow(first, type=layout.PROPERTIES_TYPE))])
    assert documents.properties_id(SPACE) == NAME


def test_a_document_that_links_nothing_and_holds_nothing_is_kept_and_harms_nobody(documents: Documents) -> None:
    empty = Document.create()
    with empty.edit() as edit:
        edit.put(ROOT, "version", 1)
    name = documents.new_id()
    documents.received(name, SPACE, empty, ())
    assert name in documents.documents(SPACE)
    assert documents.count(SPACE, Query()) == 1


def test_a_known_document_cannot_arrive_as_new(documents: Documents, profile: Profile) -> None:
    documents.update(SPACE, [create(MILK)])
    with pytest.raises(ProtocolError):
        documents.received(document_of(profile, MILK), SPACE, make(MILK), ())


def test_the_same_object_id_in_two_spaces_is_two_objects(documents: Documents) -> None:
    documents.open_space(OTHER_KEY)
    documents.update(SPACE, [create(MILK, title="Milk")])
    documents.received(documents.new_id(), OTHER, make(MILK, OTHER_KEY, title="Theirs"), ())
    assert data(documents, MILK) == {"title": "Milk"}
    assert documents.get(OTHER, [MILK])[0].row.data == {"title": "Theirs"}


def test_no_document_grows_beyond_what_can_be_loaded_again(
    documents: Documents, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents.update(SPACE, [create(MILK, title="Milk")])
    monkeypatch.setattr("dxos.spaces.documents.DOCUMENT_BYTES_MAX", 4_000)
    noise = randomness.Random(1).randbytes(3_000).hex()
    for edit in (change(MILK, Put(("title",), noise)), create(BREAD, title=noise)):
        with pytest.raises(InvalidValueError):
            documents.update(SPACE, [edit])
    where = document_of(profile, MILK)
    theirs = documents.load(where).fork()
    before = theirs.heads
    edit_document(theirs, MILK, [Put(("title",), noise)])
    with pytest.raises(LimitError):
        documents.received(where, SPACE, theirs, before)
    assert data(documents, MILK) == {"title": "Milk"}
    assert documents.load(where).heads == before


def test_a_peer_cannot_fill_a_space_with_documents(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dxos.spaces.documents.DOCUMENTS_PER_SPACE_MAX", 4)
    for number in range(3):
        documents.received(documents.new_id(), SPACE, make(object_id(10 + number)), ())
    with pytest.raises(LimitError):
        documents.received(documents.new_id(), SPACE, make(object_id(20)), ())
    assert len(documents.documents(SPACE)) == 4


# --- Damage ----------------------------------------------------------------


def damage_row(profile: Profile, object_id: str, content: str = '{"title": "Mold"}') -> None:
    profile.database.run("UPDATE objects SET data = ? WHERE id = ?", (content, object_id))


def damage_document(profile: Profile, document_id: str) -> None:
    number = profile.database.rows("SELECT number FROM documents WHERE id = ?", (document_id,))[0][0]
    changed = profile.database.run(
        "UPDATE chunks SET bytes = zeroblob(length(bytes)) WHERE position >> 20 = ?", (number,)
    )
    assert changed > 0


@pytest.mark.parametrize("content", ['{"title": "Mold"}', '{"title": "Mil', "[]"])
@pytest.mark.parametrize("reading", ["get", "select", "filter", "count", "edit"])
def test_a_damaged_row_is_made_anew_from_its_document(profile: Profile, content: str, reading: str) -> None:
    documents = open_documents(profile)
    documents.update(SPACE, [create(MILK, title="Milk", n=1), create(BREAD, title="Bread", n=2)])
    damage_row(profile, MILK, content)
    damage_row(profile, BREAD, content)
    match reading:
        case "select":
            assert len(documents.select(SPACE, Query())) == 3
        case "filter":
            documents.select(SPACE, Query(filter=Equals(("n",), 1)))
        case "count":
            with suppress(CorruptionError):
                documents.count(SPACE, Query(filter=Equals(("n",), 1)))
        case "edit":
            documents.update(SPACE, [change(MILK, Put(("n",), 1))])
    assert data(documents, MILK) == {"title": "Milk", "n": 1}
    assert data(documents, BREAD) == {"title": "Bread", "n": 2}
    assert documents.quarantined(SPACE) == {}


def test_a_damaged_row_of_a_damaged_document_is_lost_alone(documents: Documents, profile: Profile) -> None:
    documents.update(SPACE, [create(MILK, title="Milk"), create(BREAD, title="Bread")])
    where = document_of(profile, MILK)
    damage_row(profile, MILK)
    damage_document(profile, where)
    documents.discard(where)
    assert [one.row.data for one in documents.select(SPACE, Query())] == [{"title": "Bread"}, {"name": "Groceries"}]
    assert set(documents.quarantined(SPACE)) == {where}


def test_a_damaged_document_is_still_read_from_its_rows_and_refuses_edits(
    documents: Documents, profile: Profile
) -> None:
    documents.update(SPACE, [create(MILK, title="Milk"), create(BREAD, title="Bread")])
    where = document_of(profile, MILK)
    damage_document(profile, where)
    documents.discard(where)
    with pytest.raises(CorruptionError):
        documents.update(SPACE, [change(MILK, Put(("title",), "Oat"))])
    assert data(documents, MILK) == {"title": "Milk"}
    documents.update(SPACE, [change(BREAD, Put(("title",), "Rye"))])
    assert data(documents, BREAD) == {"title": "Rye"}


def test_a_peers_copy_takes_the_place_of_a_damaged_document(documents: Documents, profile: Profile) -> None:
    documents.update(SPACE, [create(MILK, title="Milk")])
    where = document_of(profile, MILK)
    copy = documents.load(where).fork()
    damage_document(profile, where)
    documents.quarantine(where, "damaged")
    assert documents.entry(where) is None
    documents.received(where, SPACE, copy, ())
    assert documents.quarantined(SPACE) == {}
    documents.discard(where)
    assert documents.load(where).heads == copy.heads
    documents.update(SPACE, [change(MILK, Put(("done",), True))])
    assert data(documents, MILK) == {"title": "Milk", "done": True}


def test_a_damaged_root_does_not_have_other_documents_set_aside(documents: Documents, profile: Profile) -> None:
    documents.update(SPACE, [create(MILK, title="Milk")])
    root_id = documents._spaces[SPACE].root_id
    assert root_id is not None
    damage_document(profile, root_id)
    documents.close_space(SPACE)
    documents.open_space(KEY)
    documents.set_root(SPACE, root_id)
    documents.received(documents.new_id(), SPACE, make(MILK, title="Rival"), ())
    assert data(documents, MILK) == {"title": "Milk"}
    assert set(documents.quarantined(SPACE)) == {root_id}


def test_a_turn_that_meets_a_damaged_document_changes_nothing(documents: Documents, profile: Profile) -> None:
    documents.update(SPACE, [create(MILK, title="Milk"), create(BREAD, title="Bread")])
    where = document_of(profile, MILK)
    damage_document(profile, where)
    documents.discard(where)
    with pytest.raises(CorruptionError):
        documents.update(SPACE, [change(BREAD, Put(("title",), "Rye")), change(MILK, Put(("title",), "Oat"))])
    assert data(documents, BREAD) == {"title": "Bread"}


# --- Disk ----------------------------------------------------------------


def test_everything_is_read_again_after_reopening(tmp_path: Path) -> None:
    with Profile.open(tmp_path / "p") as profile:
        documents = open_documents(profile)
        for turn in range(40):
            documents.update(SPACE, [create(MILK) if turn == 0 else change(MILK, Put(("text",), "x" * 1000 * turn))])
        root_id = documents._spaces[SPACE].root_id
    assert root_id is not None
    with Profile.open(tmp_path / "p") as profile:
        documents = Documents(profile, random=seeded_random(2))
        documents.open_space(KEY)
        documents.set_root(SPACE, root_id)
        assert documents.has_root(SPACE)
        assert data(documents, MILK) == {"text": "x" * 39_000}
        (row,) = layout.materialize(documents.load(document_of(profile, MILK)))
        assert row.data == {"text": "x" * 39_000}
        assert documents.select(SPACE, Query(filter=HasType("dxn:type:dxos.org/type/Properties")))


def test_the_cache_is_bounded(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dxos.spaces.documents.DOCUMENTS_CACHED_MAX", 4)
    documents.update(SPACE, [create(object_id(10 + number), n=number) for number in range(20)])
    assert len(documents._cache) == 4
    documents.update(SPACE, [change(object_id(10), Put(("n",), 99))])
    assert data(documents, object_id(10)) == {"n": 99}


def test_rows_that_are_lost_are_noticed_and_others_are_not(documents: Documents, profile: Profile) -> None:
    documents.update(SPACE, [create(MILK, title="Milk"), create(BREAD, title="Bread")])
    assert not documents.rows_are_lost(SPACE)
    # Of two documents that claim one object, one has no row, and misses none.
    documents.received(documents.new_id(), SPACE, make(MILK, title="Another"), ())
    assert not documents.rows_are_lost(SPACE)
    profile.objects.remove(SPACE, [BREAD])
    assert documents.rows_are_lost(SPACE)


def test_a_space_without_documents_has_lost_no_rows(documents: Documents) -> None:
    documents.open_space(OTHER_KEY)
    assert not documents.rows_are_lost(OTHER)
