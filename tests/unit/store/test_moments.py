"""Moments: kept beside documents, found by space and by document, thinned and forgotten with them."""

from collections.abc import Iterator

import pytest

from dxos.limits import MOMENTS_PER_DOCUMENT_MAX
from dxos.store.documents import DocumentStore
from dxos.store.moments import Moment, MomentStore, Standing
from dxos.store.profile import Profile

HEAD = bytes(32)


@pytest.fixture
def profile() -> Iterator[Profile]:
    with Profile.open(None) as profile:
        documents = DocumentStore(profile.database)
        documents.create("space", [("milk", [b"m"], [HEAD]), ("bread", [b"b"], [HEAD])])
        documents.create("other", [("far", [b"f"], [HEAD])])
        yield profile


@pytest.fixture
def moments(profile: Profile) -> MomentStore:
    return MomentStore(profile.database)


def own(document: str, change: int, time_ms: int, standing: Standing = Standing.DONE) -> Moment:
    return Moment(document, change, time_ms, standing)


def test_moments_are_read_as_they_were_noted(moments: MomentStore) -> None:
    assert moments.last_ms() == 0
    noted = [own("milk", 2**32 - 1, 10), own("milk", 7, 11, Standing.FOREIGN)]
    moments.put([*noted, own("bread", 7, 12)])
    assert moments.of("milk") == {one.change: one for one in noted}
    assert moments.of("unknown") == {}
    assert moments.last_ms() == 12


def test_documents_that_changed_after_a_moment_are_those_of_the_space(moments: MomentStore) -> None:
    moments.put([own("milk", 1, 10), own("milk", 2, 20), own("bread", 1, 10), own("far", 1, 20)])
    assert moments.changed_after("space", 10) == ["milk"]
    assert sorted(moments.changed_after("space", 9)) == ["bread", "milk"]
    assert moments.changed_after("unknown", 0) == []


def test_what_was_done_last_at_once_is_undone_first(moments: MomentStore) -> None:
    moments.put([own("milk", 1, 10), own("milk", 2, 20), own("bread", 1, 20), own("far", 1, 30)])
    moments.put([own("milk", 3, 40, Standing.FOREIGN), own("milk", 4, 50, Standing.SPENT)])
    last = moments.to_undo("space")
    assert {(one.document_id, one.change) for one in last} == {("milk", 2), ("bread", 1)}
    assert moments.to_undo("space", "milk") == [own("milk", 2, 20)]
    moments.set_standing(last, Standing.UNDONE)
    assert moments.to_undo("space") == [own("milk", 1, 10)]
    assert moments.to_undo("space", "bread") == []
    assert {one.document_id for one in moments.to_redo("space")} == {"milk", "bread"}
    moments.put([own("bread", 9, 60)])
    assert moments.to_redo("space") == []
    assert moments.to_redo("space", "milk") == [own("milk", 2, 20, Standing.UNDONE)]


def test_a_long_step_comes_in_pieces_and_a_document_in_one(
    moments: MomentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dxos.store.moments.MOMENTS_AT_ONCE_MAX", 3)
    moments.put([own("milk", 1, 10), own("milk", 2, 10), own("bread", 1, 10), own("bread", 2, 10)])
    first = moments.to_undo("space")
    assert first == [own("milk", 1, 10), own("milk", 2, 10)]
    moments.set_standing(first, Standing.UNDONE)
    assert moments.to_undo("space") == [own("bread", 1, 10), own("bread", 2, 10)]
    redone = [own("milk", 1, 10, Standing.UNDONE), own("milk", 2, 10, Standing.UNDONE)]
    assert moments.to_redo("space") == redone, "a step of which only a part was undone"


def test_what_was_undone_before_another_undo_is_not_redone(moments: MomentStore) -> None:
    moments.put([own("milk", 1, 10, Standing.UNDONE), own("bread", 1, 11, Standing.UNDONE)])
    moments.spend_undone("space", "milk", 20)
    assert moments.of("milk")[1].standing is Standing.SPENT
    assert moments.of("bread")[1].standing is Standing.UNDONE
    moments.spend_undone("space", None, 11)
    assert moments.of("bread")[1].standing is Standing.UNDONE
    moments.spend_undone("space", None, 12)
    assert moments.of("bread")[1].standing is Standing.SPENT


def test_the_newest_are_kept_when_there_are_many(moments: MomentStore) -> None:
    moments.put(own("milk", number, number) for number in range(MOMENTS_PER_DOCUMENT_MAX + 10))
    moments.put([own("bread", 1, 1)])
    moments.thin("milk")
    assert min(moments.of("milk")) == 10
    assert len(moments.of("milk")) == MOMENTS_PER_DOCUMENT_MAX
    moments.thin("bread")
    assert len(moments.of("bread")) == 1


def test_moments_go_with_their_document(profile: Profile, moments: MomentStore) -> None:
    moments.put([own("milk", 1, 1)])
    assert DocumentStore(profile.database).delete("milk")
    assert profile.database.rows("SELECT * FROM change_moments") == []
