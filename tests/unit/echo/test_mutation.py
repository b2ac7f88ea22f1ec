import datetime

import pytest
from msgspec import ValidationError, convert, to_builtins

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
    apply_to_row,
    check_value,
)
from dxos.echo.rows import ObjectRow
from dxos.errors import InvalidValueError

CYCLE: list[object] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        b"bytes",
        float("nan"),
        float("inf"),
        2**53,
        -(2**53),
        {5: 1},
        {"": 1},
        CYCLE,
        (1, 2),
        object(),
        "\ud800",
        {"\ud800": 1},
        datetime.datetime(2024, 1, 1),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_path(value: object) -> None:
    with pytest.raises(InvalidValueError, match=r"^shop\.0"):
        check_value({"shop": [value]})


def test_what_can_be_stored_is_not_refused() -> None:
    check_value({"a": [None, True, 1, -1.5, "ü🚀", 2**53 - 1, {"b": []}]})


@pytest.mark.parametrize(
    "mutation",
    [
        Put(("a", 0), {"x": [1]}),
        Delete(("a",)),
        Insert(("a",), 1, (1, "b")),
        Remove(("a",), 1, 2),
        Splice(("a",), 0, 1, "x"),
        SetDeleted(True),
        SetMeta("keys", []),
        ChangeType("dxn:type:example.com/type/Note:0.2.0", {"name": "x", "list": [1]}, ("title",)),
    ],
)
def test_a_mutation_travels(mutation: Put) -> None:
    assert convert(to_builtins(mutation), Mutation) == mutation


@pytest.mark.parametrize("untrusted", [None, [], ["put"], ["put", "a", 1], ["put", [1.5], 1], ["else", 1], {"put": 1}])
def test_what_is_no_mutation_does_not_decode(untrusted: object) -> None:
    with pytest.raises(ValidationError):
        convert(untrusted, Mutation)


def test_the_given_data_stays_as_it_was() -> None:
    data = {"tags": ["a"], "shop": {"aisle": 3}}
    changed = apply_to_data(data, [Insert(("tags",), 1, ("b",)), Delete(("shop", "aisle")), Put(("n",), 1)])
    assert data == {"tags": ["a"], "shop": {"aisle": 3}}
    assert changed == {"tags": ["a", "b"], "shop": {}, "n": 1}


@pytest.mark.parametrize(
    "mutation",
    [
        Put((), 1),
        Put(("t", 0), 1),
        Put(("l", "x"), 1),
        Put(("l", 1), 1),
        Delete(("l", 0)),
        Insert(("l",), 2, (1,)),
        Insert(("t",), 0, ("x",)),
        Remove(("l",), 0, 2),
        Remove(("l",), -1, 1),
        Splice(("t",), 0, 9, ""),
        Splice((), 0, 0, "x"),
        Put(("no", "where"), 1),
    ],
)
def test_a_mutation_that_does_not_fit_is_refused(mutation: Put) -> None:
    with pytest.raises(InvalidValueError):
        apply_to_data({"l": [1], "t": "text"}, [mutation])


def test_a_row_keeps_everything_but_what_was_changed() -> None:
    row = ObjectRow("X", type="dxn:type:a:1", data={"n": 1}, meta={"keys": []})
    changed = apply_to_row(row, [SetDeleted(True), SetMeta("x", 1), Put(("n",), 2)])
    assert changed == ObjectRow("X", type="dxn:type:a:1", deleted=True, data={"n": 2}, meta={"keys": [], "x": 1})
