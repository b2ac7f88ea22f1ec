"""Differences for people, and merging that takes back one change and keeps the others."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxos.echo.difference import differences, merge, to_mutations
from dxos.echo.mutation import Splice, apply_to_row
from dxos.echo.rows import ObjectRow, same_value
from dxos.keys.ids import make_object_id
from dxos.limits import DIFFERENCE_PAIRS_MAX

MILK = make_object_id(1, bytes(10))

scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(0, 1) | st.text("abc", max_size=6)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from("pqrs"), values, max_size=4)


def row(data: dict[str, Any], **rest: Any) -> ObjectRow:
    return ObjectRow(MILK, data=data, **rest)


def test_differences_are_readable() -> None:
    before = row({"title": "Milk", "shop": {"aisle": 3}, "tags": ["a", "b"], "old": 1}, meta={"keys": []})
    after = row({"title": "Oat milk", "shop": {"aisle": 4}, "tags": ["a", "c", "d"], "new": None}, deleted=True)
    assert list(map(str, differences(before, after))) == [
        "title: 'Milk' → 'Oat milk'",
        "shop.aisle: 3 → 4",
        "tags.1: - 'b'",
        "tags.1: + 'c'",
        "tags.2: + 'd'",
        "old: - 1",
        "new: + None",
        "@deleted: + True",
    ]
    assert list(map(str, differences(None, row({"title": "x" * 200})))) == [f"title: + '{'x' * 58}…"]


def test_values_of_different_types_differ() -> None:
    assert [str(one) for one in differences(row({"n": 1}), row({"n": True}))] == ["n: 1 → True"]


@settings(max_examples=150, deadline=None)
@given(objects, objects)
def test_mutations_make_one_state_of_the_other(present: dict[str, Any], target: dict[str, Any]) -> None:
    mutations = to_mutations(row(present), row(target, deleted=True))
    made = apply_to_row(row(present), mutations)
    assert same_value(made.data, target)
    assert made.deleted


@settings(max_examples=150, deadline=None)
@given(values, values)
def test_what_nobody_else_changed_is_taken_back_whole(base: Any, other: Any) -> None:
    assert same_value(merge(base, other, base), other)
    assert same_value(merge(base, base, other), other)


@settings(max_examples=150, deadline=None)
@given(objects, objects, objects)
def test_merging_never_fails_and_invents_no_names(base: Any, wanted: Any, present: Any) -> None:
    assert merge(base, wanted, present).keys() <= wanted.keys() | present.keys()


@pytest.mark.parametrize(
    ("base", "wanted", "present", "expected"),
    [
        ("Oat milk", "milk", "Oat milk, 2l", "milk, 2l"),
        ([1, 2, 3], [1, 3], [0, 1, 2, 3], [0, 1, 3]),
        ([1, 3], [1, 2, 3], [1, 3, 4], [1, 2, 3, 4]),
        ([{"a": 1, "b": 1}], [{"a": 0, "b": 1}], [{"a": 1, "b": 2}], [{"a": 0, "b": 2}]),
        ([{"a": 1}], [], [{"a": 2}], [{"a": 2}]),
        ([1, 2], [1, 5], [1], [1]),
        ({"a": {"b": 1}}, {}, {"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 2}}),
        (1, 0, "one", "one"),
    ],
)
def test_others_edits_stay(base: Any, wanted: Any, present: Any, expected: Any) -> None:
    assert merge(base, wanted, present) == expected


def test_texts_that_differ_too_much_to_compare_are_replaced_between_their_ends() -> None:
    size = int(DIFFERENCE_PAIRS_MAX**0.5) + 1
    before, after = row({"t": "[" + "a" * size + "]"}), row({"t": "[" + "b" * size + "]"})
    assert to_mutations(before, after) == (Splice(("t",), 1, size, "b" * size),)


def test_a_text_is_changed_in_small_pieces() -> None:
    mutations = to_mutations(row({"t": "one two three"}), row({"t": "1 two 3"}))
    assert all(isinstance(one, Splice) for one in mutations)
    assert len(mutations) > 1
