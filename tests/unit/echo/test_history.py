"""Times inside changes, past heads, and what was written at once, from documents alone."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxos.echo import history, layout
from dxos.echo.document import Document
from dxos.echo.edit import apply
from dxos.echo.history import change_key, chunk_key, chunk_time_ms, conflicts, dated_changes, heads_at
from dxos.echo.layout import ObjectStructure
from dxos.echo.mutation import Put
from dxos.errors import DecodeError
from dxos.keys import PublicKey
from dxos.keys.ids import make_object_id, object_time_ms
from dxos.limits import HISTORY_CHANGES_MAX

KEY = PublicKey(b"\4" + b"k" * 64)
MILK = make_object_id(1_000, bytes(10))
VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "echo_echo_documents.json"


def milk() -> Document:
    return layout.make_object_document(KEY, MILK, ObjectStructure({"title": "Milk", "count": 1}))


def javascript_document() -> Document:
    found = json.loads(VECTORS.read_text(encoding="utf-8"))
    saves = [one["save"] for one in found["i_echo_documents"].values()]
    return Document.load(bytes.fromhex(saves[0]))


def test_javascript_peers_write_the_time_into_their_changes_in_seconds() -> None:
    chunks = javascript_document().changes_since(())
    times = [chunk_time_ms(one) for one in chunks]
    assert times
    assert all(one is not None and one % 1_000 == 0 and 1_700_000_000_000 < one < 2_000_000_000_000 for one in times)


def test_changes_made_here_carry_no_time() -> None:
    (chunk,) = milk().changes_since(())
    assert chunk_time_ms(chunk) is None


def test_the_key_of_a_change_is_the_same_from_its_hash_and_from_its_chunk() -> None:
    for one in javascript_document().changes():
        assert change_key(one.hash) == chunk_key(one.raw_bytes)


@given(st.binary(max_size=80), st.booleans())
def test_bytes_that_are_no_change_are_refused(data: bytes, marked: bool) -> None:
    try:
        found = chunk_time_ms(b"\x85\x6f\x4a\x83\0\0\0\0\1" + data if marked else data)
    except DecodeError:
        return
    assert found is None or found > 0


def test_heads_at_a_moment_include_what_they_depend_on() -> None:
    document = milk()
    for count in range(2, 6):
        apply(document, MILK, [Put(("count",), count)])
    changes = document.changes()
    # The third was noted as earlier than what it depends on, the fourth not at all.
    times = {change_key(one.hash): at for one, at in zip(changes[1:], (2_000, 1_500, 0, 3_000), strict=True) if at}
    dated = dated_changes(document, times, created_ms=object_time_ms(MILK), now_ms=9_000)
    assert [one.effective_ms for one in dated] == [1_000, 2_000, 2_000, 2_000, 3_000]
    assert [one.time_ms for one in dated] == [1_000, 2_000, 1_500, None, 3_000]
    assert [heads_at(dated, at) for at in (999, 1_000, 2_500, 3_000)] == [
        (),
        (changes[0].hash,),
        (changes[3].hash,),
        (changes[4].hash,),
    ]


def test_the_time_that_a_change_tells_is_not_in_the_future() -> None:
    document = javascript_document()
    dated = dated_changes(document, {}, created_ms=5, now_ms=10)
    assert {one.effective_ms for one in dated if one.change.deps} == {10}


def test_an_object_is_read_before_and_after_each_change() -> None:
    document = milk()
    apply(document, MILK, [Put(("count",), 2)])
    first, second = document.changes()
    assert history.object_before(document, MILK, first) is None
    before, after = history.object_before(document, MILK, second), history.object_after(document, MILK, second)
    assert before is not None
    assert after is not None
    assert (before.data["count"], after.data["count"]) == (1, 2)


def concurrent(document: Document, *counts: int) -> None:
    copies = [document.fork() for _ in counts]
    for copy, count in zip(copies, counts, strict=True):
        apply(copy, MILK, [Put(("count",), count)])
    for copy in copies:
        document.merge(copy)


def test_every_peer_finds_the_same_conflict() -> None:
    document = milk()
    concurrent(document, 2, 3, 4)
    found = conflicts(document, MILK)
    assert found.keys() == {("count",)}
    assert {one.value for one in found[("count",)]} == {2, 3, 4}
    copy = Document.load(document.save())
    assert conflicts(copy, MILK) == found
    assert layout.materialize(copy)[0].data["count"] == found[("count",)][0].value


def test_a_value_written_again_by_somebody_who_saw_all_decides() -> None:
    document = milk()
    concurrent(document, 2, 3)
    apply(document, MILK, [Put(("count",), 9)])
    assert conflicts(document, MILK) == {}
    concurrent(document, 4, 5)
    assert {one.value for one in conflicts(document, MILK)[("count",)]} == {4, 5}


def test_a_chain_of_changes_has_no_conflict() -> None:
    document = milk()
    for count in range(5):
        apply(document, MILK, [Put(("count",), count)])
    assert conflicts(document, MILK) == {}
    assert all(later.deps == (earlier.hash,) for earlier, later in pairwise(document.changes()))


def test_old_changes_outside_the_bound_are_not_taken_for_writings(monkeypatch: pytest.MonkeyPatch) -> None:
    document = milk()
    concurrent(document, 2, 3)
    monkeypatch.setattr(history, "HISTORY_CHANGES_MAX", 2)
    assert {one.value for one in conflicts(document, MILK)[("count",)]} == {2, 3}
    apply(document, MILK, [Put(("title",), "Oat milk")])
    apply(document, MILK, [Put(("title",), "Soy milk")])
    assert conflicts(document, MILK) == {}
    assert HISTORY_CHANGES_MAX >= 100
