import json

import pytest

from dxos.errors import InvalidValueError
from dxos.store.conditions import And, Equals, Json, Not, Or, canonical_json, property_text, to_sql


def test_values_and_paths_travel_as_parameters_and_never_as_sql() -> None:
    sql, parameters = to_sql(Or((Equals(("a'); DROP",), "'; --"), Not(Equals(("b", 0), 1)))))
    assert sql == "(json_extract(objects.data, ?, ?) IN (?) OR NOT (json_extract(objects.data, ?, ?) IN (?, ?)))"
    path = '$."a\'); DROP"'
    assert parameters == [path, path, """["'; --","'; --"]""", '$."b"[0]', '$."b"[0]', "[1,1]", "[1.0,1.0]"]


def test_no_terms_are_true_for_and_but_false_for_or() -> None:
    assert to_sql(And(())) == ("1", [])
    assert to_sql(Or(())) == ("0", [])


def test_a_number_no_float_can_hold_has_one_spelling() -> None:
    assert to_sql(Equals(("a",), 2**53 + 1))[1][2:] == ["[9007199254740993,9007199254740993]"]
    assert len(to_sql(Equals(("a",), 10**400))[1]) == 3
    assert to_sql(Equals(("a",), float("nan")))[0].endswith("IN ()")


def test_the_function_in_python_follows_the_path_as_sqlite_does() -> None:
    data = json.dumps({"a": [{"": 1}], "m": {"z": 1, "y": 2}})

    def at(*path: Json) -> str:
        return property_text(data, json.dumps(path))

    assert at("a", 0, "") == "[1,1]"
    assert at("m") == '[{"y":2,"z":1},{"y":2,"z":1}]'
    assert at("a", -1) == at("a", 1) == at("a", "0") == at("m", 0) == at("x", "y") == "[null,null]"


def test_a_cycle_is_refused() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(InvalidValueError):
        canonical_json(cycle)
