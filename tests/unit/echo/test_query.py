import pytest

from dxos.echo.query import And, Equals, Everything, Filter, HasId, HasType, Not, Or, Order, Query, matches, select
from dxos.echo.rows import ObjectRow
from dxos.errors import DecodeError

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
    assert Query.from_wire(Query(filter_).to_wire()) == Query(filter_)


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
    assert Query.from_wire(query.to_wire()) == query


@pytest.mark.parametrize(
    "changed",
    [{"filter": ["no"]}, {"filter": []}, {"limit": -1}, {"offset": -1}, {"deleted": "maybe"}, {"order": [[1, 2]]}],
)
def test_what_is_no_query_does_not_decode(changed: dict[str, object]) -> None:
    with pytest.raises(DecodeError):
        Query.from_wire({**Query().to_wire(), **changed})


def test_a_filter_nested_too_deep_does_not_decode() -> None:
    wire: list[object] = ["everything"]
    for _ in range(10_000):
        wire = ["not", wire]
    with pytest.raises(DecodeError):
        Query.from_wire({**Query().to_wire(), "filter": wire})
