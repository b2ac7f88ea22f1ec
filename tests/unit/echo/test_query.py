import math

import pytest
from msgspec import ValidationError, convert, to_builtins

from dxos.echo.query import (
    And,
    Compare,
    Equals,
    Everything,
    Filter,
    HasId,
    HasType,
    Matches,
    Not,
    Or,
    Order,
    Query,
    matches,
    select,
)
from dxos.echo.rows import ObjectRow
from dxos.errors import InvalidValueError
from dxos.limits import VALUE_DEPTH_MAX

TASK = "dxn:type:example.com/type/Task"
ROWS = [
    ObjectRow("A", type=f"{TASK}:0.1.0", data={"title": "b", "n": 1, "done": True, "shop": {"aisle": 3}}),
    ObjectRow("B", type=f"{TASK}:0.2.0", data={"title": "a", "n": 2.0}),
    ObjectRow("C", data={"title": None, "tags": ["x", {"y": 1}]}),
    ObjectRow("D", deleted=True, data={"n": 1.0}),
]


@pytest.mark.parametrize(
    ("filter_", "found"),
    [
        (Everything(), "ABCD"),
        (HasType(TASK), "AB"),
        (HasType(f"{TASK}:0.1.0"), "A"),
        (HasType(None), "CD"),
        (HasId(("A", "C", "Z")), "AC"),
        (Equals(("n",), 1), "AD"),
        (Equals(("n",), 2), "B"),
        (Equals(("n",), True), ""),
        (Equals(("shop", "aisle"), 3), "A"),
        (Equals(("tags", 1, "y"), 1), "C"),
        (Equals(("tags",), ["x", {"y": 1}]), "C"),
        (Equals(("title",), None), "CD"),
        (And((HasType(TASK), Equals(("n",), 1))), "A"),
        (Or((HasId(("B",)), Equals(("n",), 1))), "ABD"),
        (Not(HasType(TASK)), "CD"),
        (And(()), "ABCD"),
        (Or(()), ""),
    ],
)
def test_a_filter_finds(filter_: Filter, found: str) -> None:
    assert "".join(row.object_id for row in ROWS if matches(filter_, row)) == found
    assert convert(to_builtins(Query(filter_)), Query) == Query(filter_)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(), "ABC"),
        (Query(deleted="include"), "ABCD"),
        (Query(deleted="only"), "D"),
        (Query(order=(Order(("title",)),)), "CBA"),
        (Query(order=(Order(("title",), descending=True),)), "ABC"),
        (Query(order=(Order(("n",)), Order(("title",)))), "CAB"),
        (Query(limit=1, offset=1), "B"),
        (Query(limit=0), ""),
        (Query(offset=9), ""),
    ],
)
def test_a_query_selects(query: Query, found: str) -> None:
    assert "".join(row.object_id for row in select(query, reversed(ROWS))) == found
    assert convert(to_builtins(query), Query) == query


@pytest.mark.parametrize(
    "changed",
    [{"filter": ["no"]}, {"filter": []}, {"limit": -1}, {"offset": -1}, {"deleted": "maybe"}, {"order": [[1, 2]]}],
)
def test_what_is_no_query_does_not_decode(changed: dict[str, object]) -> None:
    fields = dict(zip(Query.__struct_fields__, to_builtins(Query()), strict=True))
    with pytest.raises(ValidationError):
        convert(list({**fields, **changed}.values()), Query)


def test_a_filter_nested_too_deep_is_refused() -> None:
    deep: Filter = Everything()
    for _ in range(VALUE_DEPTH_MAX):
        deep = Not(And((deep, Everything())))
    with pytest.raises(InvalidValueError):
        Query(deep)


@pytest.mark.parametrize("filter_", [Compare(("n",), "<", math.nan), Not(Matches((), '"'))])
def test_what_cannot_be_searched_for_is_refused(filter_: Filter) -> None:
    with pytest.raises(InvalidValueError):
        Query(filter_)


def test_a_reference_is_no_text_that_a_search_finds() -> None:
    row = ObjectRow("A", data={"owner": {"/": "dxn:echo:@:milk"}, "note": "milk"})
    assert matches(Matches(("note",), "milk"), row)
    assert not matches(Matches(("owner",), "milk"), row)
    assert not matches(Matches(("owner", "/"), "milk"), row)
