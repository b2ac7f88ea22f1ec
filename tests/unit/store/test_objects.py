import pytest
from msgspec.structs import replace

from dxos.errors import CorruptionError, InvalidValueError
from dxos.store.conditions import And, Deleted, Equals, IdIn, Not, Or, Order, TypeIs
from dxos.store.database import Database
from dxos.store.documents import DocumentStore
from dxos.store.objects import JsonObject, ObjectRecord, ObjectStore

TASK = "dxn:type:example.com/type/Task:0.1.0"


@pytest.fixture
def database() -> Database:
    database = Database(None)
    DocumentStore(database).append("doc", "space", [b"x"], [])
    return database


@pytest.fixture
def store(database: Database) -> ObjectStore:
    return ObjectStore(database)


def record(object_id: str, data: JsonObject, *, type: str | None = TASK, deleted: bool = False) -> ObjectRecord:
    return ObjectRecord(object_id, "doc", "object", type, deleted, None, None, {"keys": []}, data)


def ids(records: list[ObjectRecord]) -> str:
    return "".join(one.object_id for one in records)


def test_a_record_comes_back_as_it_was_put(store: ObjectStore) -> None:
    relation = ObjectRecord("r", "doc", "relation", None, True, "dxn:a", "dxn:b", {"keys": [1]}, {"x": {"/": "dxn:c"}})
    assert store.put("space", [relation]) == 1
    assert store.get("space", "r") == replace(relation, version=1)
    assert store.get("space", "x") is None
    assert store.get("elsewhere", "r") is None


def test_the_version_counts_changes_and_not_puts(store: ObjectStore) -> None:
    assert store.put("space", [record("a", {"n": 1}), record("b", {})]) == 2
    assert store.put("space", [record("a", {"n": 1}), record("b", {"n": 2})]) == 1
    found = store.select("space")
    assert [one.version for one in found] == [1, 2]


def test_conditions_combine(store: ObjectStore) -> None:
    store.put(
        "space",
        [
            record("a", {"done": True, "n": 1, "shop": {"aisle": 3}, "tags": ["dairy"]}),
            record("b", {"done": False, "n": True}, type=None),
            record("c", {"done": None, "n": 1.0}, deleted=True),
        ],
    )

    def find(*terms: Equals | TypeIs | IdIn | Deleted | Not | Or) -> str:
        return ids(store.select("space", And(terms)))

    assert find() == "abc"
    assert find(Equals(("done",), True)) == "a"
    assert find(Equals(("done",), None)) == "c"
    assert find(Equals(("missing",), None)) == "abc"
    assert find(Equals(("n",), 1)) == "ac"
    assert find(Equals(("n",), True)) == "b"
    assert find(Equals(("shop", "aisle"), 3.0)) == "a"
    assert find(Equals(("tags", 0), "dairy")) == "a"
    assert find(Equals(("tags",), ["dairy"])) == "a"
    assert find(TypeIs(TASK)) == "ac"
    assert find(TypeIs("dxn:type:example.com/type/Task")) == "ac"
    assert find(TypeIs("dxn:type:example.com/type")) == ""
    assert find(TypeIs(None)) == "b"
    assert find(Not(TypeIs(TASK))) == "b"
    assert find(IdIn(("a", "c", "x"))) == "ac"
    assert find(IdIn(())) == ""
    assert find(Deleted("exclude")) == "ab"
    assert find(Deleted("only")) == "c"
    assert find(Deleted("include"), Or(())) == ""
    assert store.count("space", Not(Equals(("done",), True))) == 2
    assert store.count("unknown") == 0


def test_order_limit_and_offset(store: ObjectStore) -> None:
    store.put("space", [record(key, {"v": value}) for key, value in zip("abcde", ["x", 2, None, 1, [0]], strict=True)])
    assert ids(store.select("space", order=[Order(("v",))])) == "cdbae"
    assert ids(store.select("space", order=[Order(("v",), descending=True)])) == "eabdc"
    assert ids(store.select("space", order=[Order(("v",))], limit=2, offset=1)) == "db"
    assert ids(store.select("space", offset=3)) == "de"


@pytest.mark.parametrize("name", ['q"', "b\\", "", "a.b", "[0]", "$", "é", "line\n", "'", "a\0b"])
def test_any_name_of_a_property_can_be_asked_for_and_sorted_by(store: ObjectStore, name: str) -> None:
    store.put("space", [record("a", {name: {name: 2}}), record("b", {name: {name: 1}})])
    assert ids(store.select("space", Equals((name, name), 1))) == "b"
    assert ids(store.select("space", order=[Order((name, name))])) == "ba"


def test_what_json_cannot_hold_is_refused_and_nothing_written(store: ObjectStore) -> None:
    for value in (float("nan"), float("inf"), "\ud800", {1, 2}):
        with pytest.raises(InvalidValueError):
            store.put("space", [record("a", {}), record("b", {"v": value})])
    assert store.select("space") == []


def test_a_query_has_bounds(store: ObjectStore) -> None:
    deep: Not | Deleted = Deleted("include")
    for _ in range(100):
        deep = Not(deep)
    for condition in (deep, And((Deleted("include"),) * 600), Equals(("a",) * 100, 1), Equals(("\ud800",), 1)):
        with pytest.raises(InvalidValueError):
            store.select("space", condition)
    assert store.select("space", And((Deleted("include"),) * 400)) == []
    assert store.select("space", Equals((2**32,), 1)) == []


def test_a_damaged_row_is_corruption_and_not_a_wrong_answer(store: ObjectStore, database: Database) -> None:
    store.put("space", [record("a", {"v": 1})])
    database.run("UPDATE objects SET data = '{' || data")
    for query in (None, Equals(("v",), 1), Equals(("",), 1)):
        with pytest.raises(CorruptionError):
            store.select("space", query)


@pytest.mark.parametrize("damaged", ['{"v":1},{"v":2}', "", "1],[1", '{"v":3}'])
def test_a_damaged_row_among_others_is_named(store: ObjectStore, database: Database, damaged: str) -> None:
    store.put("space", [record(name, {"v": 1}) for name in "abc"])
    database.run("UPDATE objects SET data = ? WHERE id = 'b'", (damaged,))
    with pytest.raises(CorruptionError) as caught:
        store.select("space")
    assert caught.value.detail["object_id"] == "b"


def test_one_flipped_bit_in_a_row_is_found_and_putting_it_anew_repairs_it(
    store: ObjectStore, database: Database
) -> None:
    store.put("space", [record("a", {"title": "milk"})])
    database.run("UPDATE objects SET data = replace(data, 'milk', 'mild')")
    with pytest.raises(CorruptionError) as caught:
        store.get("space", "a")
    assert caught.value.detail == {"object_id": "a", "document_id": "doc"}
    store.put("space", [record("a", {"title": "milk"})])
    database.run("UPDATE objects SET check_sum = check_sum + 1")
    store.put("space", [record("a", {"title": "milk"})])
    assert store.select("space", Equals(("title",), "milk"))[0].data == {"title": "milk"}


def test_removed_rows_are_gone(store: ObjectStore) -> None:
    store.put("space", [record("a", {}), record("b", {})])
    assert store.remove("space", ["a", "x"]) == 1
    assert ids(store.select("space")) == "b"


def test_the_documents_of_objects_are_found_without_reading_the_objects(store: ObjectStore) -> None:
    store.put("space", [record("a", {"n": 1}), record("b", {"n": 2})])
    assert store.places("space", ["a", "b", "x"]) == {"a": "doc", "b": "doc"}
    assert store.places("elsewhere", ["a"]) == {}
    assert store.places("space", []) == {}
