import random

import pytest
from echo_peers import SPACE_KEY, object_id

from dxos.echo import edit
from dxos.echo.document import ROOT, Document, NodeKind
from dxos.echo.layout import ObjectStructure, make_object_document, materialize
from dxos.echo.mutation import (
    ChangeType,
    Delete,
    Insert,
    Mutation,
    Put,
    Remove,
    SetDeleted,
    SetMeta,
    Splice,
    apply_to_data,
    joined,
)
from dxos.echo.rows import ObjectRow
from dxos.errors import InvalidValueError, ObjectNotFoundError

MILK = object_id(1)


def milk(**data: object) -> Document:
    return make_object_document(SPACE_KEY, MILK, ObjectStructure({"title": "Milk", "tags": ["a", "b"], **data}))


def row(document: Document) -> ObjectRow:
    return materialize(document)[0]


def test_mutations_are_one_change() -> None:
    document = milk()
    before = document.heads
    changed: list[Mutation] = [Put(("done",), True), Insert(("tags",), 1, ("x", "y")), Remove(("tags",), 0, 1)]
    assert edit.apply(document, MILK, changed)
    assert row(document).data == {"title": "Milk", "tags": ["x", "y", "b"], "done": True}
    assert len(document.changes_since(before)) == 1


def test_a_put_of_the_present_value_is_no_change() -> None:
    document = milk(n=1, shop={"aisle": [1, 2]})
    same: list[Mutation] = [Put(("title",), "Milk"), Put(("n",), 1), Put(("shop",), {"aisle": [1, 2]}), Delete(("no",))]
    assert not edit.apply(document, MILK, same)
    assert edit.apply(document, MILK, [Put(("n",), 1.0)])
    assert edit.apply(document, MILK, [Put(("n",), True)])


def test_a_text_put_over_a_text_keeps_what_both_share() -> None:
    document = milk(note="the quick fox")
    other = document.fork()
    edit.apply(document, MILK, [Put(("note",), "the quick brown fox")])
    edit.apply(other, MILK, [Put(("note",), "see the quick fox")])
    document.merge(other)
    assert row(document).data["note"] == "see the quick brown fox"


def test_list_positions_mean_what_the_client_saw() -> None:
    document = milk()
    seen = document.heads
    edit.apply(document, MILK, [Insert(("tags",), 0, ("new",))])
    edit.apply(document, MILK, [Remove(("tags",), 0, 1)], base_heads=seen)
    assert row(document).data["tags"] == ["new", "b"]


def test_a_mutation_that_does_not_fit_undoes_those_before_it() -> None:
    document = milk()
    before = document.heads
    for misfit in (Remove(("tags",), 1, 2), Put(("title", "x"), 1), Put(("tags", 5), 1), Splice(("tags",), 0, 0, "x")):
        with pytest.raises(InvalidValueError):
            edit.apply(document, MILK, [Put(("done",), True), misfit])
    assert document.heads == before


def test_an_object_is_deleted_and_brought_back() -> None:
    document = milk()
    edit.apply(document, MILK, [SetDeleted(True)])
    assert row(document).deleted
    assert not edit.apply(document, MILK, [SetDeleted(True)])
    edit.apply(document, MILK, [SetDeleted(False)])
    assert not row(document).deleted


def test_meta_is_set_beside_the_data() -> None:
    document = milk()
    edit.apply(document, MILK, [SetMeta("keys", [{"source": "github.com", "id": "5"}])])
    assert row(document).meta == {"keys": [{"source": "github.com", "id": "5"}]}


def test_an_unknown_object_is_not_found() -> None:
    with pytest.raises(ObjectNotFoundError):
        edit.apply(milk(), object_id(2), [SetDeleted(True)])


def test_a_very_long_text_can_be_edited() -> None:
    document = milk(big="x" * 300_001)
    edit.apply(document, MILK, [Splice(("big",), 0, 2, "yy")])
    assert row(document).data["big"] == "yy" + "x" * 299_999
    edit.apply(document, MILK, [Put(("title",), "z" * 300_001)])
    assert row(document).data["title"] == "z" * 300_001


def test_a_text_in_one_piece_is_stored_anew_when_it_is_edited() -> None:
    document = Document.create()
    with document.edit() as opened:
        data = opened.make(
            opened.make(opened.make(ROOT, "objects", NodeKind.MAP), MILK, NodeKind.MAP), "data", NodeKind.MAP
        )
        opened.put_fixed_text(data, "one", "in one piece")
        opened.put_fixed_text(data, "two", "in one piece")
    edit.apply(document, MILK, [Put(("one",), "in two pieces"), Splice(("two",), 3, 3, "a")])
    assert row(document).data == {"one": "in two pieces", "two": "in a piece"}


def note() -> Document:
    structure = ObjectStructure({"title": "note", "done": False, "text": "old"}, "dxn:type:example.com/type/Note:0.1.0")
    return make_object_document(SPACE_KEY, MILK, structure)


RENAMED = ChangeType("dxn:type:example.com/type/Note:0.2.0", {"name": "NOTE", "text": "new"}, ("title",))


def test_two_peers_that_change_a_type_at_once_make_one_change_and_later_edits_of_either_stay() -> None:
    alice = note()
    bob = alice.fork()
    edit.apply(alice, MILK, [RENAMED])
    edit.apply(alice, MILK, [Splice(("name",), 4, 0, "S")])
    edit.apply(bob, MILK, [RENAMED, Put(("done",), True)])
    alice.merge(bob)
    bob.merge(alice)
    assert row(alice) == row(bob)
    assert (row(alice).type, row(alice).data) == (RENAMED.type, {"name": "NOTES", "text": "new", "done": True})


def test_a_type_that_is_changed_in_two_states_at_once_is_spelled_once() -> None:
    alice = note()
    bob = alice.fork()
    edit.apply(bob, MILK, [Put(("done",), True)])
    edit.apply(alice, MILK, [RENAMED])
    edit.apply(bob, MILK, [RENAMED])
    alice.merge(bob)
    assert (row(alice).type, row(alice).data) == (RENAMED.type, {"name": "NOTE", "text": "new", "done": True})


def test_a_type_that_cannot_be_changed_leaves_the_document_alone() -> None:
    document = note()
    before = document.heads
    with pytest.raises(InvalidValueError):
        edit.apply(document, MILK, [RENAMED, Splice(("gone",), 0, 0, "x")])
    assert document.heads == before


def test_long_texts_that_are_remembered_are_what_the_document_holds() -> None:
    chance = random.Random(7)
    document = milk(text="word " * 400, other="WORD " * 400)
    for turn in range(30):
        length = len(row(document).data["text"])
        index = chance.randrange(length)
        edits: list[Mutation] = [Splice(("text",), index, chance.randrange(min(9, length - index)), "né😀"[: turn % 4])]
        if turn % 5 == 0:
            edits.append(Put(("other",), f"{turn} " * 800))
        if turn % 7 == 0:
            other = document.fork()
            edit.apply(other, MILK, [Splice(("text",), 3, 1, "elsewhere")])
            document.merge(other)
        if turn % 11 == 0:
            with pytest.raises(InvalidValueError):
                edit.apply(document, MILK, [*edits, Splice(("text",), 10**6, 1, "")])
        edit.apply(document, MILK, edits)
        assert row(document).data == row(Document.load(document.save())).data


def test_typing_is_one_edit_with_the_same_outcome() -> None:
    chance = random.Random(8)
    for _ in range(200):
        data = {"text": "some words", "other": "more words"}
        single: list[Mutation] = []
        together: list[Mutation] = []
        cursor = 4
        for _ in range(12):
            if chance.random() < 0.2:
                cursor = chance.randrange(5)
            go = chance.random() < 0.4 and cursor > 0
            at = cursor - 1 if go and chance.random() < 0.7 else cursor
            one = Splice(("text",), at, 1, "") if go else Splice(("text",), cursor, 0, chance.choice(["a", "bc"]))
            cursor = at + len(one.text)
            single.append(one)
            both = joined(together[-1], one) if together else None
            together[-1:] = [both] if both is not None else [*together[-1:], one]
        assert apply_to_data(data, single) == apply_to_data(data, together)
        assert len(together) < len(single)
