import time

import pytest
from echo_peers import SPACE_KEY, make_document_id, object_id

from dxos.echo.document import ROOT, Document, NodeKind
from dxos.echo.layout import (
    PROPERTIES_TYPE,
    ObjectStructure,
    add_inline_object,
    add_links,
    links,
    make_object_document,
    make_root,
    materialize,
    space_key_of,
)
from dxos.echo.rows import ObjectRow, reference
from dxos.errors import InvalidValueError

MILK = object_id(1)


def test_an_object_is_read_as_it_was_made() -> None:
    data = {"title": "Milk", "done": False, "shop": {"aisle": 3}, "parent": reference("dxn:echo:@:" + object_id(2))}
    structure = ObjectStructure(data, type="dxn:type:example.com/type/Task:0.1.0", keys=({"source": "s", "id": "1"},))
    document = make_object_document(SPACE_KEY, MILK, structure)
    assert materialize(document) == [
        ObjectRow(MILK, type=structure.type, meta={"keys": [{"source": "s", "id": "1"}]}, data=data)
    ]
    assert space_key_of(document) == SPACE_KEY


def test_a_relation_is_read_as_it_was_made() -> None:
    ends = ["dxn:echo:@:" + object_id(number) for number in (2, 3)]
    structure = ObjectStructure({}, "dxn:type:a.b/Knows:0.1.0", "relation", ends[0], ends[1])
    (row,) = materialize(make_object_document(SPACE_KEY, MILK, structure))
    assert (row.kind, row.source, row.target) == ("relation", *ends)


def test_properties_are_an_object_inside_the_root() -> None:
    root = Document.create()
    make_root(SPACE_KEY, root)
    add_inline_object(root, MILK, ObjectStructure({"name": "Groceries"}, PROPERTIES_TYPE))
    (row,) = materialize(root)
    assert (row.type, row.data) == (PROPERTIES_TYPE, {"name": "Groceries"})
    with pytest.raises(InvalidValueError):
        add_inline_object(root, MILK, ObjectStructure())


def test_links_are_read_as_they_were_added() -> None:
    root = Document.create()
    make_root(SPACE_KEY, root)
    wanted = {object_id(number): make_document_id(number) for number in range(5)}
    add_links(root, wanted)
    before = root.heads
    add_links(root, wanted)
    assert root.heads == before
    assert links(root) == wanted


@pytest.mark.parametrize("document_id", ["", "automerge:x", "3HrnN6hwYR3d", "11111111111111111111"])
def test_a_link_that_would_stop_a_javascript_peer_is_never_written(document_id: str) -> None:
    root = Document.create()
    make_root(SPACE_KEY, root)
    with pytest.raises(InvalidValueError):
        add_links(root, {MILK: document_id})
    assert links(root) == {}


def test_foreign_links_that_are_none_are_not_read() -> None:
    root = Document.create()
    with root.edit() as edit:
        good = {MILK: "automerge:" + make_document_id(1)}
        bad = {object_id(2): "automerge:x", object_id(3): 5, "x": "automerge:" + make_document_id(2), object_id(4): {}}
        edit.put(ROOT, "links", {**good, **bad})
    assert links(root) == {MILK: make_document_id(1)}


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"objects": 5},
        {"objects": []},
        {"objects": {"x": {}}},
        {"objects": {MILK: 5}},
        {"objects": "text", "links": "text", "access": "text"},
        {"access": {"spaceKey": "no hex"}},
        {"access": {"spaceKey": ["04"]}},
    ],
)
def test_a_document_of_another_shape_holds_no_objects(content: dict[str, object]) -> None:
    document = Document.create()
    with document.edit() as edit:
        for key, value in content.items():
            edit.put(ROOT, key, value)  # type: ignore[arg-type]
    assert materialize(document) == []
    assert links(document) == {}
    assert space_key_of(document) is None


def test_an_object_with_parts_of_the_wrong_type_is_shown_without_them() -> None:
    document = Document.create()
    with document.edit() as edit:
        broken = {"system": {"type": 5, "deleted": "yes", "kind": "else", "source": {"/": 1}}, "meta": 1, "data": []}
        edit.put(ROOT, "objects", {MILK: broken, object_id(2): {}})
    assert materialize(document) == [ObjectRow(MILK), ObjectRow(object_id(2))]


def test_values_nobody_can_store_are_refused_before_anything_is_made() -> None:
    with pytest.raises(InvalidValueError, match=r"shop\.open"):
        make_object_document(SPACE_KEY, MILK, ObjectStructure({"shop": {"open": {1, 2}}}))
    with pytest.raises(InvalidValueError):
        make_object_document(SPACE_KEY, "milk", ObjectStructure())


def test_a_very_long_text_is_a_scalar() -> None:
    document = make_object_document(SPACE_KEY, MILK, ObjectStructure({"big": "x" * 300_001, "small": "x" * 10}))
    with document.edit() as edit:
        node = ROOT
        for step in ("objects", MILK, "data"):
            kind, node = edit.node(node, step) or pytest.fail("no map")
            assert kind is NodeKind.MAP
        assert edit.node(node, "big") is None
        assert edit.node(node, "small") is not None
    assert materialize(document)[0].data["big"] == "x" * 300_001


def test_a_thousand_small_documents_are_read_quickly() -> None:
    made = [
        make_object_document(SPACE_KEY, object_id(n), ObjectStructure({"title": f"Milk {n}", "tags": ["a"]}))
        for n in range(1_000)
    ]
    began = time.perf_counter()
    rows = [row for document in made for row in materialize(document)]
    assert len(rows) == 1_000
    assert time.perf_counter() - began < 0.3
