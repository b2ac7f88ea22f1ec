"""Which update each client made last in each space: so that one that is sent again, to another host, is done once."""

from typing import final

from dxos.store.database import Database


@final
class ReceiptStore:
    """One row for each client and space; what is written here belongs to the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last(self, client_id: str, space_id: str) -> int:
        """The sequence of the client's last update of a space; 0 if there was none."""
        found = self._database.row(
            "SELECT sequence FROM receipts WHERE client = ? AND space = ?", (client_id, space_id)
        )
        return 0 if found is None else int(found[0])

    def put(self, client_id: str, space_id: str, sequence: int, *, now_ms: int) -> None:
        """Note an update."""
        self._database.run(
            "INSERT INTO receipts VALUES (?, ?, ?, ?)"
            " ON CONFLICT (client, space) DO UPDATE SET sequence = excluded.sequence, time_ms = excluded.time_ms",
            (client_id, space_id, sequence, now_ms),
        )

    def forget(self, client_id: str) -> None:
        """The client makes no more updates."""
        self._database.run("DELETE FROM receipts WHERE client = ?", (client_id,))

    def forget_before(self, time_ms: int) -> None:
        """Forget clients that ended without a goodbye."""
        self._database.run("DELETE FROM receipts WHERE time_ms < ?", (time_ms,))
