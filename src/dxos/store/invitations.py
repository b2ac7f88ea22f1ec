"""Open invitations on disk: they outlive the process, and so do their wrong guesses and their one use.

What an attacker would profit from forgetting, the count of failures and the claim, is durable before the call that
changes it returns, and no other call ever sets it back.
"""

# ruff: noqa: S608 - the statements are put together from constants of this module; values are parameters.

from typing import final

from msgspec import Struct

from dxos.limits import INVITATION_ATTEMPTS_MAX
from dxos.store.checksum import check_sum, checked
from dxos.store.database import Database, Row

_COLUMNS = "id, bytes, created_s, lifetime_s, state, attempts, claimed, check_sum"


class InvitationRecord(Struct, frozen=True):
    """One persisted invitation."""

    invitation_id: str
    record: bytes  # The invitation as protobuf; opaque here, and it holds a secret.
    created_s: float  # Unix time.
    lifetime_s: float  # Seconds after `created_s`.
    state: str  # The host's word.
    attempts: int = 0  # Failures counted so far; ignored by `put`.
    claimed: bool = False  # Whether its single use is taken; ignored by `put`.

    def __repr__(self) -> str:
        # The record holds the authentication code.
        return f"<InvitationRecord {self.invitation_id[:8]} {self.state} attempts={self.attempts}>"


@final
class InvitationStore:
    """The invitations of one profile."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"<InvitationStore in {self._database!r}>"

    def put(self, invitation: InvitationRecord) -> None:
        """Write an invitation; of one that exists neither the failures nor the claim change."""
        self._database.run(
            "INSERT INTO invitations (id, created_s, lifetime_s, attempts, claimed, state, check_sum, bytes)"
            " VALUES (?, ?, ?, 0, 0, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET created_s = excluded.created_s, lifetime_s = excluded.lifetime_s,"
            " state = excluded.state, check_sum = excluded.check_sum, bytes = excluded.bytes",
            (
                invitation.invitation_id,
                invitation.created_s,
                invitation.lifetime_s,
                invitation.state,
                check_sum(invitation.record),
                invitation.record,
            ),
        )

    def get(self, invitation_id: str) -> InvitationRecord | None:
        """One invitation.

        Raises:
            CorruptionError: It is not what was written.
        """
        found = self._database.row(f"SELECT {_COLUMNS} FROM invitations WHERE id = ?", (invitation_id,))
        return None if found is None else _invitation(found)

    def ids(self) -> list[str]:
        """All invitations, damaged ones too, oldest first."""
        return [row[0] for row in self._database.rows("SELECT id FROM invitations ORDER BY created_s, id")]

    def delete(self, invitation_id: str) -> bool:
        """Forget an invitation; False if it was unknown."""
        return self._database.run("DELETE FROM invitations WHERE id = ?", (invitation_id,)) > 0

    def sync(self) -> None:
        """Return when everything put before is durable.  Blocks for the disk."""
        self._database.sync_wal()

    def count_failure(self, invitation_id: str) -> int:
        """Count one more failure, durably; how many there are now, in all processes and ever.

        Never inside a transaction, whose end would decide whether it was counted.  Of an unknown invitation all
        attempts are used up: it was deleted, and must not be guessed on.  Blocks for the disk.
        """
        counted = self._change(
            "UPDATE invitations SET attempts = attempts + 1 WHERE id = ? RETURNING attempts", invitation_id
        )
        return INVITATION_ATTEMPTS_MAX if counted is None else int(counted[0])

    def claim(self, invitation_id: str) -> bool:
        """Take the single use, durably; True for exactly one caller, whatever the number of processes."""
        return (
            self._change("UPDATE invitations SET claimed = 1 WHERE id = ? AND claimed = 0 RETURNING 1", invitation_id)
            is not None
        )

    def release(self, invitation_id: str) -> None:
        """Give the single use back, durably: the guest that claimed it was not admitted after all."""
        self._change("UPDATE invitations SET claimed = 0 WHERE id = ? RETURNING 1", invitation_id)

    def _change(self, statement: str, invitation_id: str) -> Row | None:
        database = self._database
        assert not database.in_transaction, "a count that may be rolled back is none"
        with database.transaction():
            found = database.row(statement, (invitation_id,))
        database.sync_wal()
        return found


def _invitation(row: Row) -> InvitationRecord:
    invitation_id, content, created_s, lifetime_s, state, attempts, claimed, expected = row
    record = checked(content, expected, what="an invitation")
    return InvitationRecord(invitation_id, record, created_s, lifetime_s, state, attempts, bool(claimed))
