import subprocess
import sys

import pytest
from msgspec import ValidationError, convert, to_builtins

from dxos.echo.rows import ObjectRow, reference, reference_dxn, same_value, value_at


def test_a_row_travels() -> None:
    row = ObjectRow("A", "relation", "dxn:type:x:1", True, "dxn:a", "dxn:b", {"keys": []}, {"n": [1]})
    assert convert(to_builtins(row), ObjectRow) == row
    with pytest.raises(ValidationError):
        convert([*to_builtins(row)[:-1], []], ObjectRow)


def test_a_reference_is_a_map_of_one_key() -> None:
    assert reference_dxn(reference("dxn:x")) == "dxn:x"
    assert reference_dxn({"/": 1}) is reference_dxn({"/": "a", "b": 1}) is reference_dxn("dxn:x") is None


def test_values_of_different_types_are_not_the_same() -> None:
    assert same_value({"a": [1, None]}, {"a": [1, None]})
    assert not same_value(1, 1.0)
    assert not same_value([1], [True])


def test_a_path_leads_into_maps_and_lists() -> None:
    assert value_at({"a": [{"b": 5}]}, ("a", 0, "b")) == 5
    assert value_at({"a": [1]}, ("a", 1)) is value_at({"a": [1]}, ("a", "x")) is value_at(5, ("a",)) is None


def test_what_a_client_imports_loads_no_crdt() -> None:
    code = (
        "import sys, dxos.echo.rows, dxos.echo.mutation, dxos.echo.query\n"
        "print(sorted({'automerge', 'cbor2', 'sqlite3'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
