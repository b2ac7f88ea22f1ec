"""What the host must know before it opens anything: who it is, which spaces it has, how far each feed was processed."""

# ruff: noqa: S608 - the statements are put together from constants of this module; values are parameters.

from collections.abc import Mapping
from typing import Final, final

from msgspec import Struct

from dxos.keys import PublicKey
from dxos.store.checksum import check_sum, checked
from dxos.store.database import Database, Row
from dxos.store.numbering import space_number

IDENTITY: Final = "identity"

_SPACE_COLUMNS: Final = (
    "spaces.id, key, genesis_feed_key, control_feed_key, data_feed_key, state, space_records.bytes, check_sum"
)
_SPACE_TABLES: Final = "space_records JOIN spaces ON spaces.number = space_records.space"


class SpaceRecord(Struct, frozen=True):
    """One space of this profile."""

    space_id: str  # 33 characters.
    space_key: PublicKey
    genesis_feed_key: PublicKey
    control_feed_key: PublicKey  # Ours.
    data_feed_key: PublicKey  # Ours.
    state: str  # The host's word; searchable.
    record: bytes = b""  # Whatever else the host keeps, such as its admission credential; opaque here.


@final
class MetadataStore:
    """The settings and spaces of one profile."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"<MetadataStore in {self._database!r}>"

    # --- Settings --------------------------------------------------------------------------------------------------

    def setting(self, name: str) -> bytes | None:
        """The bytes put under a name, or None.

        Raises:
            CorruptionError: They are not what was written.
        """
        found = self._database.row("SELECT bytes, check_sum FROM settings WHERE name = ?", (name,))
        return None if found is None else checked(found[0], found[1], what=f"the record {name!r}")

    def put_setting(self, name: str, content: bytes) -> None:
        """Keep bytes under a name, in place of what was there."""
        self._database.run(
            "INSERT OR REPLACE INTO settings (name, check_sum, bytes) VALUES (?, ?, ?)",
            (name, check_sum(content), content),
        )

    def delete_setting(self, name: str) -> bool:
        """Forget a name; False if it was unknown."""
        return self._database.run("DELETE FROM settings WHERE name = ?", (name,)) > 0

    def identity(self) -> bytes | None:
        """The record of this device's identity; None before one was created."""
        return self.setting(IDENTITY)

    def put_identity(self, record: bytes) -> None:
        """Keep the record of this device's identity."""
        self.put_setting(IDENTITY, record)

    # --- Spaces ----------------------------------------------------------------------------------------------------

    def put_space(self, space: SpaceRecord) -> None:
        """Write the record of a space, new or changed; its key never changes."""
        database = self._database
        with database.transaction():
            database.run(
                "INSERT INTO space_records"
                " (space, key, genesis_feed_key, control_feed_key, data_feed_key, state, check_sum, bytes)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (space) DO UPDATE SET genesis_feed_key = excluded.genesis_feed_key,"
                " control_feed_key = excluded.control_feed_key, data_feed_key = excluded.data_feed_key,"
                " state = excluded.state, check_sum = excluded.check_sum, bytes = excluded.bytes",
                (
                    space_number(database, space.space_id),
                    bytes(space.space_key),
                    bytes(space.genesis_feed_key),
                    bytes(space.control_feed_key),
                    bytes(space.data_feed_key),
                    space.state,
                    check_sum(space.record),
                    space.record,
                ),
            )

    def space(self, space_id: str) -> SpaceRecord | None:
        """The record of one space.

        Raises:
            CorruptionError: It is not what was written.
        """
        found = self._database.row(f"SELECT {_SPACE_COLUMNS} FROM {_SPACE_TABLES} WHERE spaces.id = ?", (space_id,))
        return None if found is None else _space(found)

    def spaces(self) -> list[SpaceRecord]:
        """The records of all spaces, oldest first.

        Raises:
            CorruptionError: One of them is not what was written; `space_ids` and `space` tell which.
        """
        rows = self._database.rows(f"SELECT {_SPACE_COLUMNS} FROM {_SPACE_TABLES} ORDER BY space_records.space")
        return [_space(row) for row in rows]

    def space_ids(self) -> list[str]:
        """The ids of all spaces that have a record, oldest first; reads none of them."""
        rows = self._database.rows(f"SELECT spaces.id FROM {_SPACE_TABLES} ORDER BY space_records.space")
        return [row[0] for row in rows]

    def unfinished_spaces(self) -> list[str]:
        """The ids of spaces that have documents and no record: an import of them was cut short."""
        rows = self._database.rows(
            "SELECT id FROM spaces WHERE number NOT IN (SELECT space FROM space_records)"
            " AND EXISTS (SELECT 1 FROM documents WHERE documents.space = spaces.number)"
        )
        return [row[0] for row in rows]

    def delete_space(self, space_id: str) -> bool:
        """Forget the record and the timeframe of a space, not its documents; False if it was unknown."""
        return (
            self._database.run(
                "DELETE FROM space_records WHERE space = (SELECT number FROM spaces WHERE id = ?)", (space_id,)
            )
            > 0
        )

    # --- Timeframes ------------------------------------------------------------------------------------------------

    def timeframe(self, space_id: str) -> dict[PublicKey, int]:
        """For each feed of the space the index of its last processed block."""
        rows = self._database.rows(
            "SELECT feed_key, sequence FROM timeframes WHERE space = (SELECT number FROM spaces WHERE id = ?)",
            (space_id,),
        )
        return {PublicKey(key): sequence for key, sequence in rows}

    def put_timeframe(self, space_id: str, frames: Mapping[PublicKey, int]) -> None:
        """Note the last processed block of the feeds named, others staying; the space has a record."""
        database = self._database
        with database.transaction():
            space = space_number(database, space_id)
            database.run_many(
                "INSERT OR REPLACE INTO timeframes (space, feed_key, sequence) VALUES (?, ?, ?)",
                [(space, bytes(key), sequence) for key, sequence in frames.items()],
            )


def _space(row: Row) -> SpaceRecord:
    space_id, key, genesis, control, data, state, content, expected = row
    record = checked(content, expected, what="the record of a space")
    return SpaceRecord(space_id, PublicKey(key), PublicKey(genesis), PublicKey(control), PublicKey(data), state, record)
