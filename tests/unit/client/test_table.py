"""Objects as CSV: every value comes back, and tables of other programs mean what one expects."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxos.client.table import read_table, write_table
from dxos.echo.rows import ObjectRow, same_value
from dxos.errors import InvalidValueError
from dxos.keys.ids import is_object_id, make_object_id

ID = make_object_id(1, bytes(10))
TYPE = "dxn:type:example.org/type/Task:0.1.0"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", "1", "-1", "1e5", "true", "null", '"', "=1+1", "@x", "\tx", "[1]", "a\r\nb", "x,y", " x ", "007", "NaN"]
)
names = texts.filter(bool)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def read(text: str) -> list[dict[str, Any]]:
    return [row.data for row in read_table(text.encode(), None)]


@settings(max_examples=300)
@given(st.lists(st.dictionaries(names.filter(lambda name: name != "id"), values, max_size=4), max_size=4))
def test_every_value_comes_back(contents: list[dict[str, Any]]) -> None:
    rows = [ObjectRow(make_object_id(number, bytes(10)), type=TYPE, data=one) for number, one in enumerate(contents)]
    back = list(read_table("".join(write_table(rows)).encode(), TYPE))
    assert [one.object_id for one in back] == [one.object_id for one in rows]
    assert all(one.type == TYPE for one in back)
    assert all(same_value(one.data, other.data) for one, other in zip(back, rows, strict=True))


def test_no_text_of_a_peer_becomes_a_formula() -> None:
    for text in ("=HYPERLINK(1)", "+1", "-1+1", "@x", "\t=1", "\r=1"):
        table = "".join(write_table([ObjectRow(ID, data={"a": text, text: 1})]))
        head, line = table.split("\r\n")[:2]
        assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for cell in [*head.split(","), *line.split(",")])


def test_tables_of_other_programs_mean_what_one_expects() -> None:
    head = "\ufefftitle,count,price,done,zip,account,big\n"
    found = read(head + 'Milk,3,2.5,true,00123,12345678901234567890,1e999\n\n"a ""b""",,,,,,\n')
    assert found == [
        {
            "title": "Milk", "count": 3, "price": 2.5, "done": True, "zip": "00123",
            "account": "12345678901234567890", "big": "1e999",
        },
        {"title": 'a "b"'},
    ]  # fmt: skip


def test_lines_without_an_id_get_one() -> None:
    (row,) = read_table(b"title\nMilk\n", None)
    assert is_object_id(row.object_id)
    assert next(read_table(f"id,title\n{ID},Milk\n".encode(), None)).object_id == ID


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (b"", "columns"),
        (b"\xff\n", "UTF-8"),
        (b"a,a\n1,2\n", "same name"),
        (b"a,\n1,2\n", "same name"),
        (b"a\n1,2\n", "Line 2"),
        (b'a\n"1\n', "no CSV"),
        (b"id\nx\n", "no object id"),
        (f"id\n{ID}\n{ID}\n".encode(), "same id"),
        (b"a\n[" + b"[" * 100 + b"]" * 101 + b"\n", "Line 2"),
    ],
)
def test_what_is_no_table_is_refused(table: bytes, says: str) -> None:
    with pytest.raises(InvalidValueError, match=says):
        list(read_table(table, None))
