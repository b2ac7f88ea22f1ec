import json
from pathlib import Path
from typing import Any

import pytest

from dxos.echo.schema import SCHEMA_TYPE, StoredSchema, TypeName, reference_schema
from dxos.errors import InvalidKeyError

VECTORS = Path(__file__).parents[2] / "vectors" / "echo_echo_documents.json"


def javascript_schema() -> tuple[str, dict[str, Any]]:
    """The stored schema that 0.8.3 has written."""
    documents = json.loads(VECTORS.read_text(encoding="utf-8"))["i_echo_documents"].values()
    for one in documents:
        for object_id, found in one["json"]["objects"].items():
            if found["system"].get("type") == {"/": SCHEMA_TYPE}:
                return object_id, found["data"]
    raise AssertionError("no schema among the vectors")


def test_a_schema_is_stored_as_javascript_stores_it() -> None:
    object_id, data = javascript_schema()
    ours = StoredSchema(
        TypeName("example.com/type/Task", "0.1.0"),
        {"title": {"type": "string"}, "done": {"type": "boolean"}, "parent": reference_schema(None)},
        ["title"],
    )
    assert ours.to_data(object_id) == data
    assert StoredSchema.from_data(data) == ours


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"typename": "example.com/type/Task", "version": "0.1.0"},
        {"typename": 1, "version": "0.1.0", "jsonSchema": {}},
        {"typename": "Task", "version": "0.1.0", "jsonSchema": {}},
        {"typename": "example.com/type/Task", "version": "0.1.0", "jsonSchema": []},
    ],
    ids=str,
)
def test_what_keeps_no_schema_is_none(data: dict[str, Any]) -> None:
    assert StoredSchema.from_data(data) is None


def test_what_a_peer_stored_beside_a_schema_does_no_harm() -> None:
    odd: dict[str, Any] = {
        "properties": {"id": 1, "b": {}, "a": {}},
        "propertyOrder": [1, "a", ["x"]],
        "required": [[], "a", "c"],
    }
    odd |= {"entityKind": 3, "relationSource": "x", "description": 1}
    found = StoredSchema.from_data({"typename": "example.com/type/Task", "version": "0.1.0", "jsonSchema": odd})
    assert found is not None
    assert (list(found.properties), found.required, found.kind, found.source) == (["a", "b"], ["a"], "object", None)
    assert found.description is None
    empty = StoredSchema.from_data(
        {"typename": "example.com/type/Task", "version": "0.1.0", "jsonSchema": {"required": 1}}
    )
    assert empty is not None
    assert empty.required == ()


def test_names_of_types_are_those_that_javascript_accepts() -> None:
    assert TypeName("example.com/type/Task", "0.1.0").dxn == "dxn:type:example.com/type/Task:0.1.0"
    for typename, version in (("Task", "0.1.0"), ("example.com/type/Task", "0.1"), ("example.com/type/Task", "a.b.c")):
        with pytest.raises(InvalidKeyError):
            TypeName(typename, version)
