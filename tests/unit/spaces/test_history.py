"""The past of a space: revisions with their times, past states, conflicts, undo and redo beside others' changes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dxos.echo import layout
from dxos.echo.document import Document
from dxos.echo.edit import apply as edit_document
from dxos.echo.layout import ObjectStructure
from dxos.echo.mutation import ChangeType, Delete, Insert, Mutation, Put, Remove, SetDeleted, Splice
from dxos.echo.query import Equals, Query
from dxos.echo.rows import ObjectRow
from dxos.echo.schema import SCHEMA_TYPE
from dxos.errors import ObjectNotFoundError
from dxos.keys import PublicKey
from dxos.keys.ids import make_object_id, space_id
from dxos.limits import DOCUMENT_COMPACT_BYTES_MIN
from dxos.spaces.documents import Documents, ObjectEdit
from dxos.spaces.history import History
from dxos.store.profile import Profile
from dxos.testing.peers import seeded_random

pytestmark = pytest.mark.anyio

KEY = PublicKey(b"\4" + b"k" * 64)
SPACE = space_id(KEY)
START_MS = 1_760_000_000_000


def object_id(number: int) -> str:
    return make_object_id(START_MS + number, bytes(10))


NAME, MILK, BREAD = object_id(1), object_id(2), object_id(3)


class Alice:
    """A host with a clock that is set by hand."""

    def __init__(self, profile: Profile, seed: int = 1) -> None:
        self.now_ms = START_MS + 100
        self.profile = profile
        self.documents = Documents(profile, random=seeded_random(seed), now_ms=lambda: self.now_ms)
        self.documents.open_space(KEY)
        self.history = History(self.documents)
        self.root_id = ""

    def create(self, id_: str, **data: Any) -> None:
        self.documents.update(SPACE, [ObjectEdit(id_, ObjectRow(id_, data=data))])

    def edit(self, *mutations: Mutation, of: str = MILK) -> None:
        self.documents.update(SPACE, [ObjectEdit(of, mutations=mutations)])

    def put(self, name: str, value: Any, of: str = MILK) -> None:
        self.edit(Put((name,), value), of=of)

    def data(self, of: str = MILK) -> Any:
        return self.row(of).data

    def row(self, of: str = MILK) -> ObjectRow:
        return self.documents.get(SPACE, [of])[0].row

    def copy(self, of: str = MILK) -> Document:
        """What a peer has at this moment."""
        return Document.load(self.document(of).save())

    def document(self, of: str = MILK) -> Document:
        place = self.documents.place(SPACE, of)
        assert place is not None
        return self.documents.load(place)

    def receive(self, copy: Document, of: str = MILK) -> None:
        """Take over what a peer did to its copy."""
        place, document = self.documents.place(SPACE, of), self.document(of)
        assert place is not None
        before = document.heads
        document.merge(copy)
        self.documents.received(place, SPACE, document, before)

    def bob(self, *mutations: Mutation, of: str = MILK) -> None:
        """Have a peer edit what is here now."""
        copy = self.copy(of)
        edit_document(copy, of, mutations)
        self.receive(copy, of)

    def undo(self, of: str | None = None) -> bool:
        return any(list(self.history.undo(SPACE, of)))

    def redo(self, of: str | None = None) -> bool:
        return any(list(self.history.redo(SPACE, of)))

    async def told(self, of: str = MILK) -> list[tuple[int | None, bool, list[str]]]:
        found = await self.history.revisions(SPACE, of, 100)
        return [
            (None if one.time_ms is None else one.time_ms - START_MS, one.own, list(map(str, one.differences)))
            for one in found
        ]


@pytest.fixture
def profile() -> Iterator[Profile]:
    with Profile.open(None) as profile:
        yield profile


@pytest.fixture
def alice(profile: Profile) -> Alice:
    made = Alice(profile)
    made.root_id = made.documents.create_root(
        SPACE, ObjectStructure({"name": "Groceries"}, layout.PROPERTIES_TYPE), NAME
    )
    made.create(MILK, title="Milk", count=1)
    return made


# --- Revisions ------------------------------------------------------------------------------------------------------


async def test_a_history_tells_who_changed_what_and_when_the_newest_first(alice: Alice) -> None:
    alice.now_ms += 100
    alice.put("title", "Oat milk")
    alice.now_ms += 100
    alice.bob(Put(("count",), 2), Delete(("title",)))
    assert await alice.told() == [
        (300, False, ["count: 1 → 2", "title: - 'Oat milk'"]),
        (200, True, ["title: 'Milk' → 'Oat milk'"]),
        (100, True, ["count: + 1", "title: + 'Milk'"]),
    ]


async def test_a_history_is_as_long_as_was_asked_for(alice: Alice) -> None:
    for count in range(2, 10):
        alice.put("count", count)
    found = await alice.history.revisions(SPACE, MILK, 3)
    assert [str(one.differences[0]) for one in found] == ["count: 8 → 9", "count: 7 → 8", "count: 6 → 7"]


async def test_times_are_known_after_reopening(alice: Alice) -> None:
    alice.now_ms += 100
    alice.put("count", 2)
    before = await alice.told()
    again = Alice(alice.profile)
    again.documents.set_root(SPACE, alice.root_id)
    assert await again.told() == before
    assert again.undo(MILK)
    assert again.data() == {"title": "Milk", "count": 1}


async def test_links_in_the_root_are_no_revisions_of_the_properties(alice: Alice) -> None:
    alice.put("name", "Shopping", of=NAME)
    alice.create(BREAD, title="Bread")
    assert [one[2] for one in await alice.told(NAME)] == [
        ["name: 'Groceries' → 'Shopping'"],
        ["name: + 'Groceries'"],
    ]


async def test_times_outlive_compaction_for_the_newest_changes(alice: Alice) -> None:
    alice.now_ms += 1
    alice.put("note", "x" * DOCUMENT_COMPACT_BYTES_MIN)
    alice.now_ms += 99
    alice.put("count", 2)
    assert [one[0] for one in await alice.told()] == [200, 101, 100]
    assert alice.undo(MILK)
    assert alice.data()["count"] == 1


async def test_an_unknown_object_has_no_history(alice: Alice) -> None:
    with pytest.raises(ObjectNotFoundError):
        await alice.history.revisions(SPACE, BREAD, 1)
    with pytest.raises(ObjectNotFoundError):
        alice.history.object_at(SPACE, MILK, bytes(32))


# --- Past states ----------------------------------------------------------------------------------------------------


async def test_an_object_is_shown_as_it_was(alice: Alice) -> None:
    alice.now_ms += 100
    alice.put("count", 2)
    alice.now_ms += 100
    alice.edit(SetDeleted(True))

    def at(ms: int) -> ObjectRow | None:
        return alice.history.object_at(SPACE, MILK, START_MS + ms)

    assert at(99) is None
    for ms, count in ((100, 1), (199, 1), (200, 2), (299, 2)):
        row = at(ms)
        assert row is not None
        assert (row.data["count"], row.deleted) == (count, False)
    row = at(300)
    assert row is not None
    assert row.deleted
    first = (await alice.history.revisions(SPACE, MILK, 100))[-1]
    row = alice.history.object_at(SPACE, MILK, first.id)
    assert row is not None
    assert row.data == {"title": "Milk", "count": 1}


async def test_a_space_is_shown_as_it_was(alice: Alice) -> None:
    alice.create(BREAD, title="Bread", count=1)
    alice.now_ms += 100
    alice.put("count", 2)
    alice.put("name", "Shopping", of=NAME)
    alice.now_ms += 100
    alice.edit(SetDeleted(True), of=BREAD)
    alice.create(object_id(250), title="Eggs")

    async def titles(ms: int, query: Query = Query()) -> list[Any]:  # noqa: B008 - frozen.
        rows = await alice.history.space_at(SPACE, START_MS + ms, query)
        return [row.data.get("title") or row.data["name"] for row in rows]

    assert await titles(1) == ["Groceries"]
    assert await titles(100) == ["Groceries", "Milk"]
    assert await titles(150) == ["Groceries", "Milk", "Bread"]
    assert await titles(150, Query(filter=Equals(("count",), 1))) == ["Milk", "Bread"]
    assert await titles(200, Query(filter=Equals(("count",), 1))) == ["Bread"]
    assert await titles(299) == ["Shopping", "Milk", "Bread"]
    assert await titles(999) == ["Shopping", "Milk", "Eggs"]


async def test_a_peers_wrong_clock_does_not_move_a_change_before_what_it_depends_on(alice: Alice) -> None:
    alice.now_ms += 100
    alice.put("count", 2)
    alice.now_ms -= 90
    alice.bob(Put(("count",), 3))
    row = alice.history.object_at(SPACE, MILK, START_MS + 199)
    assert row is not None
    assert row.data["count"] == 1


# --- Conflicts ------------------------------------------------------------------------------------------------------


def test_values_written_at_once_are_in_conflict_until_somebody_decides(alice: Alice) -> None:
    copy = alice.copy()
    alice.put("count", 5)
    edit_document(copy, MILK, [Put(("count",), 7), Put(("shop",), "corner")])
    alice.receive(copy)
    (conflict,) = alice.history.conflicts(SPACE, MILK)
    assert conflict.path == ("count",)
    assert {(one.value, one.own) for one in conflict.values} == {(5, True), (7, False)}
    assert conflict.values[0].value == alice.data()["count"]
    alice.put("title", "Oat milk")  # Having seen both decides nothing yet.
    assert alice.history.conflicts(SPACE, MILK) == (conflict,)
    alice.put("count", 6)
    assert alice.history.conflicts(SPACE, MILK) == ()


def test_a_removed_property_and_a_value_written_at_once_are_no_conflict(alice: Alice) -> None:
    copy = alice.copy()
    alice.edit(Delete(("count",)))
    edit_document(copy, MILK, [Put(("count",), 7)])
    alice.receive(copy)
    assert alice.data()["count"] == 7
    assert alice.history.conflicts(SPACE, MILK) == ()


def test_conflicts_are_found_in_maps_inside_lists(alice: Alice) -> None:
    alice.put("parts", [{"n": 1}])
    copy = alice.copy()
    alice.edit(Put(("parts", 0, "n"), 2))
    edit_document(copy, MILK, [Put(("parts", 0, "n"), 3)])
    alice.receive(copy)
    assert [one.path for one in alice.history.conflicts(SPACE, MILK)] == [("parts", 0, "n")]


def test_edits_of_one_text_are_no_conflict(alice: Alice) -> None:
    copy = alice.copy()
    alice.edit(Splice(("title",), 0, 0, "Oat "))
    edit_document(copy, MILK, [Splice(("title",), 4, 0, "!")])
    alice.receive(copy)
    assert alice.data()["title"] == "Oat Milk!"
    assert alice.history.conflicts(SPACE, MILK) == ()


# --- Undo -----------------------------------------------------------------------------------------------------------


def test_changes_are_undone_and_redone_one_after_the_other(alice: Alice) -> None:
    alice.put("count", 2)
    alice.put("count", 3)
    seen = []
    for step in (alice.undo, alice.undo, alice.redo, alice.redo, alice.redo, alice.undo):
        seen.append((step(MILK), alice.data()["count"]))
    assert seen == [(True, 2), (True, 1), (True, 2), (True, 3), (False, 3), (True, 2)]


def test_a_new_change_ends_redoing(alice: Alice) -> None:
    alice.put("count", 2)
    alice.undo(MILK)
    alice.put("count", 9)
    assert not alice.redo(MILK)
    assert alice.undo(MILK)
    assert alice.data()["count"] == 1
    assert alice.redo(MILK)
    assert alice.data()["count"] == 9
    assert not alice.redo(MILK)


def test_undoing_the_making_of_an_object_removes_it(alice: Alice) -> None:
    assert alice.undo(MILK)
    assert alice.row().deleted
    assert not alice.undo(MILK)
    assert alice.redo(MILK)
    assert not alice.row().deleted


def test_undoing_a_removal_brings_the_object_back(alice: Alice) -> None:
    alice.edit(SetDeleted(True))
    assert alice.undo(MILK)
    assert not alice.row().deleted


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        (Put(("title",), "Oat milk"), Put(("count",), 2), {"title": "Milk", "count": 2}),
        (Put(("count",), 2), Put(("count",), 3), {"title": "Milk", "count": 3}),
        (Put(("shop",), "corner"), Put(("shop",), "market"), {"title": "Milk", "count": 1, "shop": "market"}),
        (Splice(("title",), 0, 0, "Oat "), Splice(("title",), 8, 0, ", 2l"), {"title": "Milk, 2l", "count": 1}),
        (Delete(("count",)), Put(("shop",), "corner"), {"title": "Milk", "shop": "corner", "count": 1}),
        (Put(("count",), 2), Delete(("count",)), {"title": "Milk"}),
    ],
)
def test_undo_keeps_what_others_have_done_since(
    alice: Alice, own: Mutation, others: Mutation, expected: dict[str, Any]
) -> None:
    alice.edit(own)
    alice.bob(others)
    assert alice.undo(MILK)
    assert alice.data() == expected


def test_undo_keeps_elements_that_others_have_put_beside_ones_own(alice: Alice) -> None:
    alice.put("tags", ["a", "b", "c"])
    alice.edit(Remove(("tags",), 1, 1), Insert(("tags",), 2, ("mine",)))
    alice.bob(Insert(("tags",), 0, ("first",)), Insert(("tags",), 4, ("last",)))
    assert alice.data()["tags"] == ["first", "a", "c", "mine", "last"]
    assert alice.undo(MILK)
    assert alice.data()["tags"] == ["first", "a", "b", "c", "last"]
    assert alice.redo(MILK)
    assert alice.data()["tags"] == ["first", "a", "c", "mine", "last"]


def test_undo_in_a_map_inside_a_list_keeps_others_keys(alice: Alice) -> None:
    alice.put("parts", [{"n": 1, "m": 1}])
    alice.edit(Put(("parts", 0, "n"), 2))
    alice.bob(Put(("parts", 0, "m"), 5))
    assert alice.undo(MILK)
    assert alice.data()["parts"] == [{"n": 1, "m": 5}]


def test_others_changes_are_not_undone(alice: Alice) -> None:
    alice.bob(Put(("count",), 2))
    assert alice.undo(MILK)
    assert (alice.data()["count"], alice.row().deleted) == (2, True)
    assert not alice.undo(MILK)


def test_the_changes_of_one_update_are_undone_together_in_a_space(alice: Alice) -> None:
    alice.create(BREAD, title="Bread", count=1)
    edits = [ObjectEdit(one, mutations=(Put(("count",), 5),)) for one in (MILK, BREAD)]
    alice.documents.update(SPACE, edits)
    heard: list[list[str]] = []
    alice.documents.subscribe(SPACE, lambda states: heard.append([one.row.object_id for one in states]))
    assert alice.undo()
    assert (alice.data()["count"], alice.data(BREAD)["count"]) == (1, 1)
    assert heard == [[MILK, BREAD]]
    assert alice.redo()
    assert (alice.data()["count"], alice.data(BREAD)["count"]) == (5, 5)
    assert alice.undo(BREAD)
    assert (alice.data()["count"], alice.data(BREAD)["count"]) == (5, 1)
    assert alice.undo()
    assert alice.data()["count"] == 1


def test_several_changes_of_one_object_in_one_update_are_undone_one_after_the_other(alice: Alice) -> None:
    alice.edit(Put(("tags",), ["a"]))
    before = alice.data()
    first, second = (
        (Put(("count",), 5), Insert(("tags",), 0, ("b",))),
        (Insert(("tags",), 0, ("c",)), Put(("count",), 6)),
    )
    alice.documents.update(SPACE, [ObjectEdit(MILK, mutations=one) for one in (first, second)])
    assert alice.data() == {**before, "tags": ["c", "b", "a"], "count": 6}
    assert alice.undo(MILK)
    assert alice.data() == before
    assert alice.redo(MILK)
    assert alice.data() == {**before, "tags": ["c", "b", "a"], "count": 6}


def test_a_change_of_type_is_not_undone(alice: Alice) -> None:
    alice.put("count", 2)
    alice.edit(ChangeType("dxn:type:example.com/type/Food:0.2.0", {"amount": 2}, ("count",)))
    assert alice.undo(MILK)
    assert alice.data() == {"title": "Milk", "amount": 2}
    assert alice.row().type == "dxn:type:example.com/type/Food:0.2.0"


def test_what_is_undone_goes_to_peers_as_any_change(alice: Alice) -> None:
    copy = alice.copy()
    alice.put("title", "Oat milk")
    alice.undo(MILK)
    copy.merge(alice.document())
    assert layout.materialize(copy)[0].data == alice.data()


@pytest.mark.parametrize("step", [Alice.undo, Alice.redo])
def test_there_is_nothing_to_undo_in_an_unknown_object(alice: Alice, step: Callable[[Alice, str], bool]) -> None:
    with pytest.raises(ObjectNotFoundError):
        step(alice, BREAD)


# --- Steps of several updates ---------------------------------------------------------------------------------------


def add_many(alice: Alice, count: int, *, piece: int = 2) -> list[str]:
    """Objects of one step, added in pieces, with an edit of something else in between."""
    ids = [object_id(10 + number) for number in range(count)]
    step = alice.documents.begin_step()
    for start in range(0, count, piece):
        edits = [ObjectEdit(one, ObjectRow(one, data={})) for one in ids[start : start + piece]]
        alice.documents.update(SPACE, edits, step=step)
        if not start:
            alice.put("count", 7)
    return ids


def present(alice: Alice, ids: list[str]) -> int:
    return sum(not one.row.deleted for one in alice.documents.get(SPACE, ids))


def test_what_took_several_updates_is_undone_as_one_when_its_turn_comes(alice: Alice) -> None:
    ids = add_many(alice, 5)
    assert alice.undo()
    assert (alice.data()["count"], present(alice, ids)) == (1, 5), "what was begun later is undone first"
    assert alice.undo()
    assert present(alice, ids) == 0
    assert alice.redo()
    assert (alice.data()["count"], present(alice, ids)) == (1, 5)
    assert alice.redo()
    assert not alice.redo()
    assert alice.data()["count"] == 7


def test_an_object_that_came_late_in_a_step_was_not_there_before(alice: Alice) -> None:
    step = alice.documents.begin_step()
    alice.now_ms += 5_000
    late = object_id(alice.now_ms - START_MS)
    alice.documents.update(SPACE, [ObjectEdit(late, ObjectRow(late, data={}))], step=step)
    assert alice.history.object_at(SPACE, late, alice.now_ms - 1) is None
    assert alice.history.object_at(SPACE, late, alice.now_ms) is not None


def test_another_host_goes_on_with_the_same_step(alice: Alice, profile: Profile) -> None:
    step = alice.documents.begin_step()
    ids = [object_id(10), object_id(11)]
    alice.documents.update(SPACE, [ObjectEdit(ids[0], ObjectRow(ids[0], data={}))], step=step)
    again = Alice(profile, seed=2)
    again.documents.set_root(SPACE, alice.root_id)
    again.documents.update(SPACE, [ObjectEdit(ids[1], ObjectRow(ids[1], data={}))], step=step)
    assert again.undo()
    assert present(again, ids) == 0


@pytest.mark.parametrize("step", [0, -1, START_MS + 1_000_000])
def test_a_step_that_cannot_have_been_begun_is_one_of_its_own(alice: Alice, step: int) -> None:
    alice.documents.update(SPACE, [ObjectEdit(BREAD, ObjectRow(BREAD, data={}))], step=step)
    alice.put("count", 2)
    assert alice.undo()
    assert (alice.data()["count"], alice.row(BREAD).deleted) == (1, False)
    assert alice.undo()
    assert alice.row(BREAD).deleted


def test_a_long_step_is_undone_in_pieces_and_what_is_left_of_it_by_the_next_undo(
    alice: Alice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dxos.spaces.history.UNDO_DOCUMENTS_MAX", 3)
    monkeypatch.setattr("dxos.spaces.history.UPDATE_OBJECTS_MAX", 2)
    monkeypatch.setattr("dxos.store.moments.MOMENTS_AT_ONCE_MAX", 5)
    alice.put("count", 2)
    ids = add_many(alice, 9)
    alice.undo()
    assert len(next(alice.history.undo(SPACE))) == 2
    assert present(alice, ids) == 7
    assert [len(one) for one in alice.history.undo(SPACE)] == [2, 2, 3]
    assert (alice.data()["count"], present(alice, ids)) == (2, 0)
    assert len(next(alice.history.redo(SPACE))) == 2
    assert alice.redo()
    assert (alice.data()["count"], present(alice, ids)) == (2, 9)


def test_the_schema_of_a_type_stays_when_its_first_object_is_undone(alice: Alice) -> None:
    rows = [ObjectRow(BREAD, data={}), ObjectRow(object_id(4), type=SCHEMA_TYPE, data={})]
    alice.documents.update(SPACE, [ObjectEdit(one.object_id, one) for one in rows])
    assert alice.undo()
    assert [one.row.deleted for one in alice.documents.get(SPACE, [BREAD, object_id(4)])] == [True, False]
