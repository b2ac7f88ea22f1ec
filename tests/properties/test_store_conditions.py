"""What a condition finds in SQL is what its meaning in Python finds, for any data, names and values."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dxos.echo import query
from dxos.echo.rows import ObjectRow
from dxos.store.conditions import And, Condition, Equals, IdIn, Not, Or, TypeIs
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
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(texts, inner, max_size=2)),
    max_leaves=6,
)
data = st.dictionaries(texts, values, max_size=3)
types = st.sampled_from([None, "dxn:type:a:1", "dxn:type:a:2", "dxn:type:b:1"])
paths = st.lists(st.one_of(texts, st.integers(-1, 2)), min_size=1, max_size=3).map(tuple)


def filters(known: list[dict[str, Any]]) -> st.SearchStrategy[query.Filter]:
    pairs = [(path, value) for one in known for path, value in walk(one)] or [(("a",), None)]
    leaves = st.one_of(
        st.sampled_from(pairs).map(lambda pair: query.Equals(*pair)),
        st.builds(query.Equals, st.sampled_from(pairs).map(lambda pair: pair[0]), scalars),
        st.builds(query.Equals, paths, scalars),
        st.builds(query.HasType, st.sampled_from([None, "dxn:type:a:1", "dxn:type:a", "dxn:type"])),
        st.builds(query.HasId, st.lists(st.sampled_from("012x"), max_size=2).map(tuple)),
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


def walk(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    here = [(path, value)] if path and "-0.0" not in repr(value) else []
    return here + [found for step, one in inner for found in walk(one, (*path, step))]


def translated(filter: query.Filter) -> Condition:
    match filter:
        case query.Everything():
            return And(())
        case query.HasType(type_):
            return TypeIs(type_)
        case query.HasId(object_ids):
            return IdIn(object_ids)
        case query.Equals(path, value):
            return Equals(path, value)
        case query.And(filters):
            return And(tuple(map(translated, filters)))
        case query.Or(filters):
            return Or(tuple(map(translated, filters)))
        case query.Not(inner):
            return Not(translated(inner))


database = Database(None)
DocumentStore(database).append("doc", "space", [b"x"], [])
store = ObjectStore(database)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_sql_and_python_agree(draws: st.DataObject) -> None:
    known = draws.draw(st.lists(data, min_size=1, max_size=3))
    rows = [ObjectRow(str(i), type=draws.draw(types), data=one) for i, one in enumerate(known)]
    wanted = draws.draw(filters(known))
    database.run("DELETE FROM objects")
    store.put(
        "space",
        [ObjectRecord(row.object_id, "doc", "object", row.type, False, None, None, {}, row.data) for row in rows],
    )
    expected = [row.object_id for row in rows if query.matches(wanted, row)]
    condition = translated(wanted)
    found = store.select("space", condition)
    assert [one.object_id for one in found] == expected
    assert store.count("space", Not(condition)) == len(rows) - len(expected)
    assert [one.data for one in store.select("space")] == [row.data for row in rows]
