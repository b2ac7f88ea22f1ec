"""Indexes are made when a query needs them, and agree with the rows whatever happens to these."""

from pathlib import Path

import pytest

from dxos.errors import CorruptionError, InvalidValueError
from dxos.limits import QUERY_INDEXES_MAX, QUERY_SCAN_ROWS_MAX, QUERY_SCAN_ROWS_MIN, QUERY_SCANNED_ROWS_MAX
from dxos.store.conditions import And, Compare, Equals, Matches, Order, Refers, TypeIs
from dxos.store.database import Database
from dxos.store.documents import DocumentStore
from dxos.store.objects import ObjectRecord, ObjectStore
from dxos.store.schema import MIGRATIONS

SPACE = "space"


def record(number: int, **data: object) -> ObjectRecord:
    return ObjectRecord(f"{number:05}", "doc", "object", "dxn:type:a:1", False, None, None, {}, data)


def opened(path: Path | None = None) -> tuple[Database, ObjectStore]:
    database = Database(path)
    DocumentStore(database).append("doc", SPACE, [b"x"], [])
    return database, ObjectStore(database)


@pytest.mark.slow
def test_a_query_that_would_read_too_much_has_an_index_made() -> None:
    _, store = opened()
    store.put(SPACE, [record(n, n=n, title=f"Item {n}") for n in range(QUERY_SCAN_ROWS_MAX)])
    wanted = And((TypeIs("dxn:type:a"), Equals(("n",), 7)))
    store.select(SPACE, wanted)
    assert store.fields.all() == [], "so few are read as fast"
    store.put(SPACE, [record(QUERY_SCAN_ROWS_MAX, n=-1)])
    assert [one.data["n"] for one in store.select(SPACE, wanted)] == [7]
    plan = store.explain(SPACE, wanted)
    assert (plan.index, plan.rows) == ("type n", 1)
    between = And((Compare(("n",), ">=", 10), Compare(("n",), "<", 12)))
    assert [one.data["n"] for one in store.select(SPACE, between)] == [10, 11]
    assert (store.explain(SPACE, between).index, store.explain(SPACE, between).rows) == ("n", 2)
    order = [Order(("title",), descending=True)]
    assert store.select(SPACE, None, order=order, limit=1)[0].data["n"] == 999
    assert store.explain(SPACE, None, order=order, limit=1).index == "title"
    for number in range(QUERY_INDEXES_MAX + 2):
        store.select(SPACE, Equals((f"p{number}",), 1))
    assert len(store.fields.all()) == QUERY_INDEXES_MAX


@pytest.mark.parametrize(("rows", "index"), [(QUERY_SCAN_ROWS_MIN + 1, "n"), (QUERY_SCAN_ROWS_MIN, None)])
def test_queries_that_read_too_much_together_have_an_index_made(rows: int, index: str | None) -> None:
    _, store = opened()
    store.put(SPACE, [record(n, n=n) for n in range(rows)])
    for number in range(QUERY_SCANNED_ROWS_MAX // rows):
        assert len(store.select(SPACE, Equals(("n",), number))) == (number < rows)
    assert store.fields.all() == [], "an index would not have paid yet"
    store.select(SPACE, Equals(("n",), 7))
    assert store.explain(SPACE, Equals(("n",), 7)).index == index


def test_a_plan_counts_the_rows_up_to_the_limit() -> None:
    _, store = opened()
    store.put(SPACE, [record(n, n=n, even=n % 2 == 0) for n in range(10)])
    store.fields.make(("n",), by_type=False, declared=True)
    even, order = Equals(("even",), True), [Order(("n",), descending=True)]
    assert store.explain(SPACE, even).rows == 10
    assert store.explain(SPACE, even, limit=3).rows == 5, "0, 2 and 4, and what is between"
    assert store.explain(SPACE, even, limit=2, offset=1).rows == 5
    assert store.explain(SPACE, even, limit=0).rows == 0
    assert store.explain(SPACE, even, limit=99).rows == 10
    assert store.explain(SPACE, even, limit=1, order=order).rows == 2, "9 and 8, in the order of the index"
    assert store.explain(SPACE, even, limit=1, order=[Order(("even",))]).rows == 10, "all are sorted first"
    store.fields.make(("even",), by_type=False, declared=True)
    by_even = [Order(("even",), descending=True)]
    assert store.explain(SPACE, None, limit=1, order=by_even).rows == 5, "the even ones are sorted by their ids"
    assert store.explain(SPACE, Compare(("n",), ">=", 6), limit=2, order=order).rows == 2


def test_a_declared_index_stays_over_restarts(tmp_path: Path) -> None:
    database, store = opened(tmp_path / "db")
    store.fields.make(("a'b",), by_type=False, declared=True)
    store.fields.make(("a'b",), by_type=False, declared=True)
    with pytest.raises(InvalidValueError):
        store.fields.make((), by_type=False, declared=True)
    with pytest.raises(InvalidValueError):
        store.fields.make(('quo"te',), by_type=False, declared=True)
    database.close()
    again = ObjectStore(Database(tmp_path / "db"))
    assert [(one.path, one.declared) for one in again.fields.all()] == [(("a'b",), True)]
    again.put(SPACE, [record(1, **{"a'b": 1})])
    assert len(again.select(SPACE, Equals(("a'b",), 1))) == 1
    assert again.explain(SPACE, Equals(("a'b",), 1)).index == "a'b"


def test_words_follow_changes_and_removal() -> None:
    _, store = opened()
    store.put(SPACE, [record(1, title="Oat milk"), record(2, title="Milk milk"), record(3, title="Bread")])
    assert [one.object_id[-1] for one, _ in store.search(SPACE, "milk")] == ["2", "1"]
    store.put(SPACE, [record(1, title="Tea"), record(3, title="Milk")])
    store.remove(SPACE, ["00002"])
    assert [one.object_id[-1] for one, _ in store.search(SPACE, "mil*")] == ["3"]
    store.words.rebuild()
    assert store.count(SPACE, Matches(("title",), "tea")) == 1
    assert store.search(SPACE, "elsewhere") == []
    assert store.search("other space", "milk") == []


def test_references_follow_changes_and_removal() -> None:
    database, store = opened()
    to_a = {"/": "dxn:echo:@:A"}
    wanted = Refers(None, ("dxn:echo:@:A",))
    store.put(SPACE, [record(1, one=to_a, many=[to_a, to_a]), record(2, x=1)])
    assert [one.object_id[-1] for one in store.select(SPACE, wanted)] == ["1"]
    store.put(SPACE, [record(1, x=1), record(2, deep={"list": [to_a]})])
    assert [one.object_id[-1] for one in store.select(SPACE, wanted)] == ["2"]
    store.remove(SPACE, ["00002"])
    assert store.select(SPACE, wanted) == []
    assert database.rows("SELECT * FROM object_references") == []


def test_references_of_a_profile_from_before_are_known(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", migrations=MIGRATIONS[:1])
    insert = (
        "INSERT INTO objects (space, id, document, kind, deleted, version, check_sum, meta, data)"
        " VALUES (1, ?, 1, 'object', 0, 1, 0, '{}', ?)"
    )
    database.run(insert, ("00001", '{"one":[{"/":"dxn:echo:@:A"}]}'))
    database.run(insert, ("00002", '{"one":{"/":"damaged'))
    database.close()
    migrated = Database(tmp_path / "db")
    assert migrated.rows("SELECT object, target FROM object_references") == [(1, "dxn:echo:@:A")]


def test_a_damaged_row_can_be_replaced_although_it_is_indexed() -> None:
    database, store = opened()
    store.fields.make(("n",), by_type=False, declared=True)
    store.put(SPACE, [record(1, n=1), record(2, n=2)])
    # As a flipped bit does it: behind the back of the index.
    database.run("DROP INDEX field_1")
    database.run("UPDATE objects SET data = '{\"n\":1' WHERE id = '00001'")
    with pytest.raises(CorruptionError):
        store.get(SPACE, "00001")
    store.fields.rebuild()
    store.remove(SPACE, ["00001"])
    store.put(SPACE, [record(1, n=1)])
    assert [one.object_id[-1] for one in store.select(SPACE, Equals(("n",), 1))] == ["1"]
