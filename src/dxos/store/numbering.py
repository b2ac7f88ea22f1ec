"""Ids that repeat in many rows, written once and then named by a small number."""

from dxos.store.database import Database


def space_number(database: Database, space_id: str) -> int:
    """The number of a space, given out if it is new; inside the caller's transaction."""
    found = database.row("SELECT number FROM spaces WHERE id = ?", (space_id,))
    return int(found[0]) if found else database.insert("INSERT INTO spaces (id) VALUES (?)", (space_id,))
