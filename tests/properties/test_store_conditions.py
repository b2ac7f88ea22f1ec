"""What a condition finds in SQL is what its meaning in Python finds, for any data, names and values."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import convert, to_builtins

from dxos.echo import query
from dxos.echo.rows import ObjectRow
from dxos.spaces.queries import to_condition, to_order
from dxos.store.conditions import And, Condition, Equals, Not, Or
from dxos.store.database import Database
from dxos.store.documents import DocumentStore
from dxos.store.objects import ObjectRecord, ObjectStore

texts = st.one_of(
    st.sampled_from(["", "a", "b", "1", "true", "null", 'q"', "b\\", "a\0", "a\0b", "é", "$", "[0]", "a.b", "\n"]),
    st.text(max_size=3),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        [0, 1, -1, 0.0, -0.0, 1.0, 0.1, 2**53, 2**63, 2.0**63, 2**63 + 1, 1e300, 5e-324, 0.30000000000000004]
    ),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(texts, inner, max_size=2),
        st.sampled_from(["dxn:echo:@:A", "dxn:echo:@:B"]).map(lambda dxn: {"/": dxn}),
        st.just({"/": "dxn:echo:@:A", "x": 1}),
    ),
    max_leaves=6,
)
data = st.dictionaries(texts, values, max_size=3)
types = st.sampled_from([None, "dxn:type:a:1", "dxn:type:a:2", "dxn:type:b:1"])
paths = st.lists(st.one_of(texts, st.integers(-1, 2)), min_size=1, max_size=3).map(tuple)
searches = st.sampled_from(["a", "b*", "é", "É", "ab", '"a b"', "a b", "1", "ß", "ss*", "İ", "x™*", "null"])
DXNS = ("dxn:echo:@:A", "dxn:echo:@:B")
INDEXED: tuple[tuple[str | int, ...], ...] = (("a",), ("b",), ("a.b",), ("1",), ("a", 0), ("a", "b"), ("é",))


def filters(known: list[dict[str, Any]]) -> st.SearchStrategy[query.Filter]:
    pairs = [(path, value) for one in known for path, value in walk(one)] or [(("a",), None)]
    some = st.one_of(st.sampled_from(pairs).map(lambda pair: pair[0]), st.sampled_from(INDEXED), paths)
    leaves = st.one_of(
        st.sampled_from(pairs).map(lambda pair: query.Equals(*pair)),
        st.builds(query.Equals, st.sampled_from(pairs).map(lambda pair: pair[0]), scalars),
        st.builds(query.Equals, paths, scalars),
        st.builds(query.HasType, st.sampled_from([None, "dxn:type:a:1", "dxn:type:a", "dxn:type"])),
        st.builds(query.HasId, st.lists(st.sampled_from("012x"), max_size=2).map(tuple)),
        st.builds(query.Compare, some, st.sampled_from(["<", "<=", ">", ">="]), comparables(known)),
        st.builds(query.OneOf, some, st.lists(scalars, max_size=3).map(tuple)),
        st.builds(query.Contains, some, st.one_of(scalars, st.sampled_from(DXNS).map(lambda dxn: {"/": dxn}))),
        st.builds(query.Missing, some),
        st.builds(query.Matches, st.one_of(st.just(()), some), searches),
        st.builds(query.Refers, st.one_of(st.none(), some), st.lists(st.sampled_from(DXNS), max_size=2).map(tuple)),
        st.builds(query.HasSource, st.lists(st.sampled_from(DXNS), max_size=2).map(tuple)),
        st.builds(query.HasTarget, st.lists(st.sampled_from(DXNS), max_size=2).map(tuple)),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(query.Not, inner),
            st.builds(query.And, st.lists(inner, max_size=3).map(tuple)),
            st.builds(query.Or, st.lists(inner, max_size=3).map(tuple)),
        ),
        max_leaves=5,
    )


def comparables(known: list[dict[str, Any]]) -> st.SearchStrategy[int | float | str]:
    there = [value for one in known for _, value in walk(one) if type(value) in (int, float, str)]
    drawn = st.one_of(texts, st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False))
    return st.one_of(st.sampled_from(there), drawn) if there else drawn


def walk(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    here = [(path, value)] if path and "-0.0" not in repr(value) else []
    return here + [found for step, one in inner for found in walk(one, (*path, step))]


def translated(filter: query.Filter) -> Condition:
    match filter:
        # Lists and maps too, which the store can compare although clients do not ask for it.
        case query.Equals(path, value):
            return Equals(path, value)
        case query.And(filters):
            return And(tuple(map(translated, filters)))
        case query.Or(filters):
            return Or(tuple(map(translated, filters)))
        case query.Not(inner):
            return Not(translated(inner))
    return to_condition(query.Query(filter, deleted="include"))


def opened(*, indexed: bool) -> tuple[Database, ObjectStore]:
    database = Database(None)
    DocumentStore(database).append("doc", "space", [b"x"], [])
    store = ObjectStore(database)
    for path in INDEXED if indexed else ():
        store.fields.make(path, by_type=path == ("b",), declared=True)
    return database, store


plain, indexed = opened(indexed=False), opened(indexed=True)


def put(store: ObjectStore, rows: list[ObjectRow]) -> None:
    records = [
        ObjectRecord(row.object_id, "doc", "object", row.type, False, row.source, row.target, {}, row.data)
        for row in rows
    ]
    store.put("space", records)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_sql_and_python_agree(draws: st.DataObject) -> None:
    known = draws.draw(st.lists(data, min_size=1, max_size=3))
    links = st.sampled_from([None, *DXNS])
    rows = [
        ObjectRow(str(i), "object", draws.draw(types), False, draws.draw(links), draws.draw(links), {}, one)
        for i, one in enumerate(known)
    ]
    wanted = draws.draw(filters(known))
    expected = [row.object_id for row in rows if query.matches(wanted, row)]
    assert convert(to_builtins(wanted), query.Filter) == wanted
    condition = translated(wanted)
    for database, store in (plain, indexed):
        database.run("DELETE FROM objects")
        put(store, [ObjectRow(row.object_id, data={"a": 1}) for row in rows])
        put(store, rows)
        found = store.select("space", condition)
        assert [one.object_id for one in found] == expected
        assert store.count("space", Not(condition)) == len(rows) - len(expected)
        assert [one.data for one in store.select("space")] == [row.data for row in rows]


simple = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([0.5, "", "a", "b", [], {"x": 1}]))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from("ab"), simple), max_size=6),
    st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=2),
    st.sampled_from([None, 0, 2]),
    st.integers(0, 2),
)
def test_sql_and_python_agree_on_order(
    known: list[dict[str, Any]], orders: list[tuple[str, bool]], limit: int | None, offset: int
) -> None:
    rows = [ObjectRow(str(i), type="dxn:type:a:1", data=one) for i, one in enumerate(known)]
    wanted = query.Query(
        query.HasType("dxn:type:a:1"),
        order=tuple(query.Order((name,), descending) for name, descending in orders),
        limit=limit,
        offset=offset,
    )
    for database, store in (plain, indexed):
        database.run("DELETE FROM objects")
        put(store, rows)
        found = store.select(
            "space", to_condition(wanted), order=to_order(wanted), limit=wanted.limit, offset=wanted.offset
        )
        assert [one.object_id for one in found] == [row.object_id for row in query.select(wanted, rows)]
