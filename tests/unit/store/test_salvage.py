"""A damaged page costs the rows on it; everything before, after and between damaged pages is kept."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dxos.errors import CorruptionError
from dxos.store.database import PAGE_BYTES, Database
from dxos.store.documents import DocumentStore
from dxos.store.profile import DATABASE_NAME, Profile, salvage_profile

DOCUMENTS = 600


def content_of(number: int) -> bytes:
    return b"\x85" + bytes([number % 256]) * 500


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A profile whose tables have many pages."""
    with Profile.open(tmp_path / "p") as profile:
        heads = [bytes(32)]
        profile.documents.create(
            "space", [(f"document {number:04}", [content_of(number)], heads) for number in range(DOCUMENTS)]
        )
        profile.metadata.put_setting("name", b"value")
    return tmp_path / "p"


def leaves(path: Path, table: str) -> list[int]:
    """Where the leaf pages of a table are in the file, in order."""
    content = path.read_bytes()
    with closing(sqlite3.connect(path)) as database:
        (root,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()

    def below(page: int) -> list[int]:
        start = (page - 1) * PAGE_BYTES
        if content[start] == 13:
            return [start]
        count = int.from_bytes(content[start + 3 : start + 5], "big")
        cells = [
            start + int.from_bytes(content[start + 12 + 2 * one : start + 14 + 2 * one], "big") for one in range(count)
        ]
        children = [int.from_bytes(content[cell : cell + 4], "big") for cell in cells]
        last = int.from_bytes(content[start + 8 : start + 12], "big")
        return [leaf for child in [*children, last] for leaf in below(child)]

    return below(root)


def damage(path: Path, places: list[int]) -> None:
    content = bytearray(path.read_bytes())
    for place in places:
        content[place : place + 16] = b"\xff" * 16
    path.write_bytes(content)


def test_rows_around_and_between_damaged_pages_are_kept(folder: Path) -> None:
    path = folder / DATABASE_NAME
    pages = leaves(path, "chunks")
    assert len(pages) > 50
    lost = [0, 20, 21, 40, len(pages) - 1]
    damage(path, [pages[number] for number in lost])
    counts = salvage_profile(folder)
    rows_per_page = DOCUMENTS / len(pages)
    assert counts["documents"] == DOCUMENTS
    assert DOCUMENTS - counts["chunks"] <= (len(lost) + 1) * rows_per_page + 1
    with Profile.open(folder) as profile:
        profile.database.check()
        assert profile.metadata.setting("name") == b"value"
        whole = 0
        for document_id in profile.documents.ids("space"):
            try:
                content = profile.documents.load(document_id)
            except CorruptionError:
                continue
            whole += 1
            assert content == content_of(int(document_id[-4:]))
        assert whole == counts["chunks"]
    assert (folder / f"{DATABASE_NAME}.damaged").exists()
    assert not list(folder.glob("*.salvage*"))


def test_a_file_of_which_nothing_can_be_read_stays_as_it_is(folder: Path) -> None:
    path = folder / DATABASE_NAME
    path.write_bytes(b"\xff" * path.stat().st_size)
    before = path.read_bytes()
    with pytest.raises(CorruptionError):
        salvage_profile(folder)
    assert path.read_bytes() == before
    assert not list(folder.glob("*.salvage*"))


def test_a_whole_file_is_copied_as_it_is(tmp_path: Path) -> None:
    with Profile.open(tmp_path / "p") as profile:
        DocumentStore(profile.database).create("space", [("one", [b"\x85x"], [bytes(32)])])
    counts = salvage_profile(tmp_path / "p")
    database = Database(tmp_path / "p" / DATABASE_NAME)
    assert DocumentStore(database).load("one") == b"\x85x"
    assert counts["documents"] == counts["chunks"] == counts["spaces"] == 1
    database.close()
