from pathlib import Path

import pytest

from dxos.errors import CorruptionError
from dxos.limits import INVITATION_ATTEMPTS_MAX
from dxos.store.database import Database
from dxos.store.invitations import InvitationRecord, InvitationStore

INVITATION = InvitationRecord("invitation", b"code 123456", 100.0, 3600.0, "CONNECTING")


@pytest.fixture
def store() -> InvitationStore:
    return InvitationStore(Database(None))


def test_an_invitation_comes_back_as_it_was_put(store: InvitationStore) -> None:
    store.put(INVITATION)
    assert store.get("invitation") == INVITATION
    assert store.ids() == ["invitation"]
    assert store.delete("invitation")
    assert not store.delete("invitation")
    assert store.get("invitation") is None


def test_putting_it_again_forgives_nothing(store: InvitationStore) -> None:
    store.put(INVITATION)
    assert store.count_failure("invitation") == 1
    assert store.claim("invitation")
    store.put(INVITATION)
    found = store.get("invitation")
    assert found is not None
    assert (found.attempts, found.claimed) == (1, True)
    assert store.count_failure("invitation") == 2


def test_an_unknown_invitation_has_no_attempts_left_and_cannot_be_claimed(store: InvitationStore) -> None:
    assert store.count_failure("unknown") >= INVITATION_ATTEMPTS_MAX
    assert not store.claim("unknown")


def test_one_process_in_two_claims_and_both_count_together(tmp_path: Path) -> None:
    one, other = (InvitationStore(Database(tmp_path / "d.sqlite")) for _ in range(2))
    one.put(INVITATION)
    assert [one.claim("invitation"), other.claim("invitation"), one.claim("invitation")] == [True, False, False]
    other.release("invitation")
    assert [other.claim("invitation"), one.claim("invitation")] == [True, False]
    assert [one.count_failure("invitation"), other.count_failure("invitation")] == [1, 2]


def test_a_count_inside_a_transaction_is_a_bug() -> None:
    database = Database(None)
    with database.transaction(), pytest.raises(AssertionError):
        InvitationStore(database).count_failure("invitation")


def test_a_damaged_invitation_is_corruption() -> None:
    database = Database(None)
    store = InvitationStore(database)
    store.put(INVITATION)
    database.run("UPDATE invitations SET bytes = ?", (b"code 123457",))
    assert store.ids() == ["invitation"]
    with pytest.raises(CorruptionError):
        store.get("invitation")


def test_the_code_is_not_in_the_repr() -> None:
    assert repr(INVITATION) == "<InvitationRecord invitati CONNECTING attempts=0>"
