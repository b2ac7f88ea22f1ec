import copy
import gc
import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxos.client.live import LiveList, LiveMap
from dxos.client.object import EchoObject
from dxos.client.state import core_of
from dxos.errors import InvalidValueError, UsageError

MILK: dict[str, Any] = {"title": "Milk", "done": False, "tags": ["dairy"], "shop": {"aisle": 3}}


def test_properties_are_attributes_and_items() -> None:
    milk = EchoObject(MILK)
    assert milk.title == milk["title"] == "Milk"
    milk.done = True
    milk["price"] = 1.5
    assert milk.to_dict() == {**MILK, "done": True, "price": 1.5}
    del milk.price
    assert "price" not in milk
    assert list(milk) == ["title", "done", "tags", "shop"]
    assert len(milk) == 4
    with pytest.raises(AttributeError):
        _ = milk.price
    with pytest.raises(KeyError):
        _ = milk["price"]
    with pytest.raises(AttributeError):
        del milk.price


def test_nested_maps_and_lists_are_live() -> None:
    milk = EchoObject(MILK)
    milk.shop.aisle = 4
    milk.shop["shelf"] = {"row": 1}
    milk.shop.shelf.row = 2
    milk.tags.append("white")
    milk.tags += ["cold"]
    milk.tags[0] = "DAIRY"
    assert milk.shop == {"aisle": 4, "shelf": {"row": 2}}
    assert milk.tags == ["DAIRY", "white", "cold"]
    assert "white" in milk.tags
    assert MILK["tags"] == ["dairy"], "what was given is not changed"


def test_a_value_is_copied_when_it_is_assigned() -> None:
    given_list = [1]
    one = EchoObject(a=given_list)
    given_list.append(2)
    one.b = one.a
    one.a.append(3)
    assert (one.a, one.b) == ([1, 3], [1])


def test_a_nested_map_stays_itself_when_its_neighbours_move() -> None:
    one = EchoObject(items=[{"n": 1}, {"n": 2}])
    second = one["items"][1]
    one["items"].insert(0, {"n": 0})
    second.n = 20
    assert one["items"] == [{"n": 0}, {"n": 1}, {"n": 20}]


def test_a_part_that_was_taken_out_can_be_read_and_not_changed() -> None:
    one = EchoObject(parts=[{"n": 1}])
    part = one.parts[0]
    assert one.parts.pop() == {"n": 1}
    assert part.n == 1
    with pytest.raises(UsageError):
        part.n = 2


@pytest.mark.parametrize(
    "value",
    [{1}, float("nan"), 2**53, b"x", object(), {"a": {1: 2}}, {"": 1}, "\ud800"],
    ids=["set", "nan", "long", "bytes", "object", "key", "empty key", "surrogate"],
)
def test_what_cannot_be_stored_raises_at_its_line_and_changes_nothing(value: Any) -> None:
    one = EchoObject(a=[1], m={})
    with pytest.raises(InvalidValueError):
        one.b = value
    with pytest.raises(InvalidValueError):
        one.a.append(value)
    with pytest.raises(InvalidValueError):
        one.a[0:1] = [2, value]
    with pytest.raises(InvalidValueError):
        one.m.x = value
    with pytest.raises(InvalidValueError):
        EchoObject(b=value)
    assert one.to_dict() == {"a": [1], "m": {}}


def test_a_cycle_is_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(InvalidValueError, match="deep"):
        EchoObject(a=cycle)


def test_names_that_are_taken_are_reached_as_items() -> None:
    one = EchoObject({"update": 1, "_x": 2})
    assert (one["update"], one["_x"]) == (1, 2)
    for name in ("update", "meta", "_private"):
        with pytest.raises(AttributeError):
            setattr(one, name, 1)
    with pytest.raises(InvalidValueError):
        EchoObject({"id": 1})
    with pytest.raises(InvalidValueError):
        one["id"] = 1
    one.shop = {"items": 1}
    with pytest.raises(AttributeError):
        one.shop.items = 2


def test_several_properties_are_set_at_once() -> None:
    one = EchoObject()
    one.update({"a": 1}, b=2)
    assert one.to_dict() == {"a": 1, "b": 2}


def test_a_text_is_spliced_at_its_place() -> None:
    one = EchoObject(title="Hello world", notes=[{"text": "abc"}])
    one.splice("title", 6, 5, "Bob")
    one.splice(("notes", 0, "text"), 1, 1)
    assert (one.title, one.notes[0].text) == ("Hello Bob", "ac")
    for index, count in ((-1, 0), (0, 100), (100, 0)):
        with pytest.raises(InvalidValueError):
            one.splice("title", index, count)
    with pytest.raises(InvalidValueError):
        one.splice("nothing", 0)


def test_an_object_that_is_assigned_becomes_a_reference() -> None:
    bob = EchoObject(name="Bob")
    task = EchoObject(title="Shop", assignee=bob)
    assert task.to_dict()["assignee"] == {"/": f"dxn:echo:@:{bob.id}"}
    assert task.assignee is bob
    task.helpers = [bob]
    assert task.helpers[0] is bob


def test_an_unused_object_goes_at_once() -> None:
    one = EchoObject(a=[1])
    assert one.a[0] == 1
    gone = weakref.ref(one)
    gc.disable()
    try:
        del one
        assert gone() is None
    finally:
        gc.enable()


def test_a_copy_is_another_object() -> None:
    one = EchoObject(a=[1])
    other = copy.copy(one)
    other.a.append(2)
    assert (one.a, other.a) == ([1], [1, 2])
    assert one.id != other.id


def test_ids_sort_by_creation() -> None:
    ids = [EchoObject().id for _ in range(1000)]
    assert ids == sorted(set(ids))


def test_the_repr_is_one_short_line() -> None:
    assert len(repr(EchoObject(text="x" * 1000))) < 140


def test_json_form_is_the_originals() -> None:
    one = EchoObject({"a": 1}, type="dxn:type:example.com/type/Task:0.1.0")
    assert one.to_json() == {"@id": one.id, "@type": {"/": "dxn:type:example.com/type/Task:0.1.0"}, "a": 1}


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=6,
)
indexes = st.integers(-4, 4)
slices = st.builds(slice, st.none() | indexes, st.none() | indexes, st.sampled_from([None, 1, 2, -1]))
edits = st.one_of(
    st.tuples(st.just("append"), values),
    st.tuples(st.just("insert"), indexes, values),
    st.tuples(st.just("pop"), indexes),
    st.tuples(st.just("extend"), st.lists(values, max_size=3)),
    st.tuples(st.just("__setitem__"), indexes, values),
    st.tuples(st.just("__delitem__"), indexes),
    st.tuples(st.just("__delitem__"), slices),
    st.tuples(st.just("__setitem__"), slices, st.lists(values, max_size=3)),
    st.tuples(st.just("remove"), values),
    st.tuples(st.just("reverse")),
    st.tuples(st.just("clear")),
    st.tuples(st.just("__getitem__"), slices),
    st.tuples(st.just("__iadd__"), st.lists(values, max_size=2)),
)
map_edits = st.one_of(
    st.tuples(st.just("__setitem__"), st.sampled_from("xyz"), values),
    st.tuples(st.just("__delitem__"), st.sampled_from("xyz")),
    st.tuples(st.just("pop"), st.sampled_from("xyz")),
    st.tuples(st.just("update"), st.dictionaries(st.sampled_from("xyz"), values, max_size=2)),
    st.tuples(st.just("setdefault"), st.sampled_from("xyz"), values),
    st.tuples(st.just("clear")),
)


def outcome(target: Any, edit: tuple[Any, ...]) -> Any:
    name, *arguments = copy.deepcopy(edit)
    try:
        result = getattr(target, name)(*arguments)
    except (IndexError, KeyError, ValueError) as error:
        return type(error)
    return "itself" if result is target else result


def nested(plain: Any, live: Any) -> list[tuple[Any, Any]]:
    """Every list and map inside, plain and live side by side."""
    found = [(plain, live)]
    for key in range(len(plain)) if isinstance(plain, list) else plain:
        if isinstance(plain[key], list | dict):
            found += nested(plain[key], live[key])
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(values, max_size=4), st.lists(st.tuples(st.integers(0, 20), edits, map_edits), max_size=8))
def test_edits_do_what_they_do_to_plain_lists_and_maps(
    start: list[Any], steps: list[tuple[int, tuple[Any, ...], tuple[Any, ...]]]
) -> None:
    plain = copy.deepcopy(start)
    one = EchoObject(all=start)
    for where, list_edit, map_edit in steps:
        places = nested(plain, one.all)
        inner, live = places[where % len(places)]
        assert isinstance(live, LiveList if isinstance(inner, list) else LiveMap)
        edit = list_edit if isinstance(inner, list) else map_edit
        expected = outcome(inner, edit)
        assert outcome(live, edit) == expected
        assert one.to_dict() == {"all": plain}
    assert not core_of(one).unsent


def test_a_part_is_the_same_one_while_somebody_holds_it_and_forgotten_afterwards() -> None:
    cart = EchoObject({"items": [{"count": number} for number in range(1_000)]})
    first = cart["items"][0]
    assert [one.count for one in cart["items"]] == list(range(1_000))
    assert cart["items"][0] is first
    assert len(core_of(cart).held_nodes()) <= 3, "the root, the list and its first element"
    assert len(core_of(cart)._nodes or ()) < 100
    held = list(cart["items"])
    assert all(one is cart["items"][index] for index, one in enumerate(held))
