"""Damage of every kind is found, named, and made anew from what is whole or set aside."""

import logging
import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dxos.echo.mutation import Put, SetDeleted
from dxos.halo.roles import SpaceRole
from dxos.spaces.doctor import Outcome, Report, examine_folder
from dxos.store.database import PAGE_BYTES
from dxos.store.profile import DATABASE_NAME, KEYRING_NAME
from dxos.testing.peers import simulated_hosts, until

pytestmark = pytest.mark.anyio


async def make_profile(folder: Path) -> Path:
    """Alice's profile: a space with four objects, one of them deleted, and Bob as a guest."""
    async with simulated_hosts("alice", "bob", folder=folder) as (alice, bob):
        space = await alice.create_space(name="Groceries")
        items = [alice.add(space, title=title, tags=["a"]) for title in ("Milk", "Rice", "Tea", "Salt")]
        alice.edit(space, items[0], Put(("count",), 3))
        alice.edit(space, items[3], SetDeleted(True))
        alice.edit(space, items[2], Put(("with",), {"/": f"dxn:echo:@:{items[0]}"}))
        fields = alice.peer.profile.objects.fields
        fields.make(("title",), by_type=False, declared=True)
        joined = await bob.join(alice, space)
        await until(lambda: bob.data(joined, items[2]) is not None)
        while alice.peer.profile.objects.words.catch_up():
            pass
        await alice.stop()
        await bob.stop()
    return folder / "alice"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profile, made once."""
    import anyio

    return anyio.run(make_profile, tmp_path_factory.mktemp("made"), backend="trio")


@pytest.fixture
def profile(made: Path, tmp_path: Path) -> Path:
    """A copy of the profile, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "p"))


def damage(profile: Path, *statements: str) -> None:
    """Change the database behind everybody's back."""
    with closing(sqlite3.connect(profile / DATABASE_NAME)) as database:
        database.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            assert database.execute(statement).rowcount, statement
        database.commit()


def contents(profile: Path) -> list[tuple[object, ...]]:
    """All rows, as they are."""
    with closing(sqlite3.connect(profile / DATABASE_NAME)) as database:
        return database.execute(
            "SELECT id, document, kind, deleted, source, target, check_sum, meta, data FROM objects ORDER BY id"
        ).fetchall()


def codes(report: Report) -> list[str]:
    return [one.code for one in report.findings]


async def test_a_whole_profile_has_no_findings(profile: Path) -> None:
    report = await examine_folder(profile)
    assert report.findings == ()
    assert (report.spaces_count, report.documents_count, report.objects_count) == (1, 5, 5)
    assert report.feeds_count >= 2
    assert report.keys_count >= 4
    assert (await examine_folder(profile, repair=True)).findings == ()


ROWS: dict[str, tuple[str, str]] = {
    "a flipped bit": ("row.damaged", "UPDATE objects SET data = replace(data, 'Milk', 'Mild')"),
    "no text": ("row.damaged", "UPDATE objects SET data = CAST(x'ff' AS TEXT) WHERE data LIKE '%Milk%'"),
    "no JSON": ("row.damaged", "UPDATE objects SET meta = '{' WHERE data LIKE '%Milk%'"),
    "another kind": ("row.differs", "UPDATE objects SET kind = 'relation' WHERE data LIKE '%Milk%'"),
    "undeleted": ("row.differs", "UPDATE objects SET deleted = 0 WHERE data LIKE '%Salt%'"),
    "a source": ("row.differs", "UPDATE objects SET source = 'dxn:echo:@:x' WHERE data LIKE '%Tea%'"),
    "no row": ("row.missing", "DELETE FROM objects WHERE data LIKE '%Rice%'"),
    "another document": (
        "row.differs",
        "UPDATE objects SET document = (SELECT document FROM objects WHERE data LIKE '%Rice%')"
        " WHERE data LIKE '%Milk%'",
    ),
    "no document": ("row.stray", "UPDATE objects SET document = 1000 WHERE data LIKE '%Milk%'"),
    "another space": ("row.stray", "UPDATE objects SET space = 1000 WHERE data LIKE '%Milk%'"),
    "another id": ("row.missing", "UPDATE objects SET id = '01JTEXTEXTEXTEXTEXTEXTEXTE' WHERE data LIKE '%Milk%'"),
    "an id that is no text": ("row.unreadable", "UPDATE objects SET id = CAST(x'ff' AS TEXT) WHERE data LIKE '%Tea%'"),
    "stray chunks": ("chunk.stray", "INSERT INTO chunks (position, bytes) VALUES (1 << 40, x'00')"),
    "heads": ("document.record", "UPDATE documents SET heads = zeroblob(32)"),
    "torn heads": ("document.record", "UPDATE documents SET heads = x'00' WHERE number = 2"),
    "sizes": ("document.record", "UPDATE documents SET chunk_bytes = chunk_bytes + 1, chunks = 9"),
    "set aside for nothing": ("document.quarantined", "UPDATE documents SET quarantine = 'x' WHERE number = 2"),
    "the tree of a feed": ("feed.tree", "UPDATE nodes SET hash = zeroblob(32)"),
    "a missing node of a feed": ("feed.tree", "DELETE FROM nodes"),
    "references": ("references.differ", "UPDATE object_references SET target = 'x'"),
    "no references": ("references.differ", "DELETE FROM object_references"),
    "words": ("words.differ", "UPDATE object_words_content SET c0 = 'x'"),
    "words of what is not there": ("words.differ", "INSERT INTO object_words (rowid, words) VALUES (99, 'x')"),
    "words left out": ("words.differ", "DELETE FROM object_words WHERE rowid = 2"),
    "an index that is not there": ("index.differs", "DROP INDEX field_1"),
    "an index that nobody noted": ("index.differs", "DELETE FROM field_indexes"),
    "a signature of an own feed": ("feed.signature", "UPDATE signatures SET bytes = zeroblob(64)"),
}


@pytest.mark.parametrize("case", ROWS, ids=str)
async def test_what_follows_from_something_else_is_made_anew(profile: Path, case: str) -> None:
    good = contents(profile)
    code, statement = ROWS[case]
    damage(profile, statement)
    before = contents(profile) if "ff" not in statement else None
    found = await examine_folder(profile)
    assert code in codes(found)
    assert {one.outcome for one in found.findings} == {Outcome.REPAIRABLE}
    assert before is None or contents(profile) == before, "to look changes nothing"
    mended = await examine_folder(profile, repair=True)
    assert mended.unresolved_count == 0
    assert codes(mended).count(code) >= 1
    assert contents(profile) == good
    assert (await examine_folder(profile)).findings == ()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE chunks SET bytes = CAST(substr(bytes, 1, 20) || zeroblob(length(bytes) - 20) AS BLOB) WHERE {milk}",
        "DELETE FROM chunks WHERE {milk}",
        "DELETE FROM chunks WHERE {milk} AND position % 2 = 0",
    ],
    ids=["a damaged chunk", "no chunks", "one of two chunks"],
)
async def test_a_damaged_document_is_set_aside_with_its_row_readable(profile: Path, statement: str) -> None:
    good = contents(profile)
    milk = "position >> 20 = (SELECT document FROM objects WHERE data LIKE '%Milk%')"
    damage(profile, statement.format(milk=milk))
    (finding,) = (await examine_folder(profile)).findings
    assert (finding.code, finding.outcome) == ("document.damaged", Outcome.REPAIRABLE)
    (finding,) = (await examine_folder(profile, repair=True)).findings
    assert finding.outcome is Outcome.SET_ASIDE
    assert contents(profile) == good
    again = await examine_folder(profile)
    assert codes(again) == ["document.quarantined"]
    assert again.unresolved_count == 1


async def test_a_row_whose_document_is_damaged_too_is_lost_and_said_to_be(profile: Path) -> None:
    damage(
        profile,
        "UPDATE chunks SET bytes = x'00' WHERE position >> 20 = (SELECT document FROM objects WHERE data LIKE '%Tea%')",
        "UPDATE objects SET data = '{}' WHERE data LIKE '%Tea%'",
    )
    report = await examine_folder(profile, repair=True)
    assert sorted(codes(report)) == ["document.damaged", "object.lost"]


def page_of(profile: Path, name: str) -> int:
    """Where the first page of a table or index is in the file."""
    with closing(sqlite3.connect(profile / DATABASE_NAME)) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    return (int(page) - 1) * PAGE_BYTES


async def test_a_flipped_bit_in_an_index_is_found_and_the_index_rebuilt(profile: Path) -> None:
    content = bytearray((profile / DATABASE_NAME).read_bytes())
    content[page_of(profile, "sqlite_autoindex_documents_1") + PAGE_BYTES - 1] ^= 1
    (profile / DATABASE_NAME).write_bytes(content)
    assert codes(await examine_folder(profile)) == ["index.differs"]
    assert (await examine_folder(profile, repair=True)).unresolved_count == 0
    assert (await examine_folder(profile)).findings == ()


async def test_a_flipped_bit_in_a_row_that_is_indexed_is_mended(profile: Path) -> None:
    good = contents(profile)
    content = (profile / DATABASE_NAME).read_bytes()
    assert content.count(b'"title":"Milk"') == 1
    (profile / DATABASE_NAME).write_bytes(content.replace(b'"title":"Milk"', b'"title":"Milj"'))
    assert set(codes(await examine_folder(profile))) == {"index.differs", "row.damaged", "words.differ"}
    assert (await examine_folder(profile, repair=True)).unresolved_count == 0
    assert contents(profile) == good
    assert (await examine_folder(profile)).findings == ()


def spoil_schema(profile: Path, name: str, beginning: str, instead: str) -> None:
    """Change the file's own description of a table, index or trigger behind SQLite's back."""
    content = (profile / DATABASE_NAME).read_bytes()
    assert content.count(f"{beginning} {name}".encode()) == 1
    content = content.replace(f"{beginning} {name}".encode(), f"{instead} {name}".encode())
    (profile / DATABASE_NAME).write_bytes(content)


async def test_a_schema_that_does_not_parse_is_made_anew(profile: Path) -> None:
    good = contents(profile)
    spoil_schema(profile, "objects_by_type", "CREATE INDEX", "CREATE INDEZ")
    report = await examine_folder(profile)
    assert [(one.code, one.outcome) for one in report.findings] == [("file.damaged", Outcome.REPAIRABLE)]
    assert (await examine_folder(profile, repair=True)).unresolved_count == 0
    assert (await examine_folder(profile)).findings == ()
    assert contents(profile) == good


async def test_a_file_without_a_table_that_matters_is_lost_and_stays_as_it_is(profile: Path) -> None:
    spoil_schema(profile, "space_records", "CREATE TABLE", "CREATE TABLF")
    damaged = (profile / DATABASE_NAME).read_bytes()
    for repair in (False, True):
        report = await examine_folder(profile, repair=repair)
        assert [(one.code, one.outcome) for one in report.findings] == [("file.damaged", Outcome.LOST)]
        assert "space_records" in report.findings[0].message
        assert "restore the profile from a backup" in report.findings[0].message
    assert (profile / DATABASE_NAME).read_bytes() == damaged


@pytest.mark.parametrize("table", ["objects", "chunks", "nodes", "documents", "sqlite_autoindex_objects_1"])
async def test_a_page_that_cannot_be_read_costs_what_was_on_it_and_no_more(profile: Path, table: str) -> None:
    good = contents(profile)
    content = bytearray((profile / DATABASE_NAME).read_bytes())
    start = page_of(profile, table)
    content[start : start + 64] = b"\xff" * 64
    (profile / DATABASE_NAME).write_bytes(content)
    found = await examine_folder(profile)
    assert codes(found) == ["file.damaged"]
    mended = await examine_folder(profile, repair=True)
    assert mended.findings[0].code == "file.damaged"
    assert mended.findings[0].outcome is Outcome.REPAIRED
    assert (profile / "profile.sqlite.damaged").exists()
    if table not in ("chunks", "documents"):
        assert mended.unresolved_count == 0
        assert (await examine_folder(profile)).findings == ()
        assert [row[0] for row in contents(profile)] == [row[0] for row in good]
        assert [row[-1] for row in contents(profile)] == [row[-1] for row in good]


async def test_keys_that_are_missing_or_damaged_are_named(profile: Path) -> None:
    first, second, *_ = sorted((profile / KEYRING_NAME).iterdir())
    first.unlink()
    second.write_bytes(b"\x00" + second.read_bytes()[1:])
    report = await examine_folder(profile, repair=True)
    assert {"key.damaged"} <= set(codes(report)) <= {"key.missing", "key.damaged"}
    assert {one.outcome for one in report.findings} == {Outcome.LOST}


@pytest.mark.parametrize("table", ["settings", "space_records"])
async def test_a_damaged_record_is_named(profile: Path, table: str) -> None:
    damage(profile, f"UPDATE {table} SET check_sum = check_sum + 1")
    assert set(codes(await examine_folder(profile, repair=True))) == {"record.damaged"}


async def test_a_guest_whose_records_of_a_space_are_damaged_has_them_from_the_others_again(tmp_path: Path) -> None:
    async with simulated_hosts("alice", "bob", folder=tmp_path) as (alice, bob):
        space = await alice.create_space(name="Groceries")
        milk = alice.add(space, title="Milk")
        joined = await bob.join(alice, space)
        await until(lambda: bob.data(joined, milk) is not None)
        genesis = bytes(space.record.genesis_feed_key)
        await bob.stop()
        with closing(sqlite3.connect(bob_path := tmp_path / "bob" / DATABASE_NAME)) as database:
            ((number,),) = database.execute("SELECT number FROM feeds WHERE substr(key, -65) = ?", (genesis,))
            database.execute("UPDATE blocks SET bytes = zeroblob(9) WHERE position = ?", (number << 24 | 2,))
            database.commit()
        report = await examine_folder(bob_path.parent, repair=True)
        assert [(one.code, one.outcome) for one in report.findings] == [("feed.damaged", Outcome.SET_ASIDE)]
        await bob.start()
        await bob.space(space.id).wait_until_ready()
        await until(lambda: bob.space(space.id).is_member(bob.identity_key))
        alice.edit(space, milk, Put(("title",), "Oat"))
        await until(lambda: bob.data(space, milk) == {"title": "Oat"})
        await bob.stop()
        assert (await examine_folder(bob_path.parent)).findings == ()


async def test_a_signature_that_a_later_one_stands_for_is_dropped_and_the_feed_goes_on_being_shared(
    tmp_path: Path,
) -> None:
    async with simulated_hosts("alice", "bob", "carol", folder=tmp_path) as (alice, bob, carol):
        space = await alice.create_space(name="Groceries")
        await bob.join(alice, space, role=SpaceRole.ADMIN)
        genesis = bytes(space.record.genesis_feed_key)
        await bob.stop()
        with closing(sqlite3.connect(tmp_path / "bob" / DATABASE_NAME)) as database:
            ((number,),) = database.execute("SELECT number FROM feeds WHERE substr(key, -65) = ?", (genesis,))
            database.execute("INSERT OR REPLACE INTO signatures VALUES (?, zeroblob(64))", (number << 24 | 1,))
            database.commit()
        report = await examine_folder(tmp_path / "bob", repair=True)
        assert [(one.code, one.outcome) for one in report.findings] == [("feed.signature", Outcome.REPAIRED)]
        assert (await examine_folder(tmp_path / "bob")).findings == ()
        await bob.start()
        again = bob.space(space.id)
        await again.wait_until_ready()
        milk = bob.add(again, title="Milk")
        await until(lambda: alice.data(space, milk) is not None)
        await alice.stop()
        shared = await carol.join(bob, again)
        await until(lambda: carol.data(shared, milk) is not None)


async def test_what_is_cut_off_a_damaged_feed_leaves_no_signature_that_fits_nothing(profile: Path) -> None:
    damage(
        profile,
        "UPDATE blocks SET bytes = zeroblob(9) WHERE position = (2 << 24) + 4",
        "UPDATE signatures SET bytes = zeroblob(64) WHERE position = (2 << 24) + 1",
    )
    (finding,) = (await examine_folder(profile, repair=True)).findings
    assert (finding.code, finding.outcome, finding.detail["proven"]) == ("feed.damaged", Outcome.SET_ASIDE, 4)
    assert (await examine_folder(profile)).findings == ()


async def test_a_space_whose_epoch_changed_has_no_findings(tmp_path: Path) -> None:
    async with simulated_hosts("alice", "bob", folder=tmp_path) as (alice, bob):
        space = await alice.create_space(name="Groceries")
        items = [alice.add(space, title=title) for title in ("Milk", "Rice", "Tea")]
        joined = await bob.join(alice, space)
        await until(lambda: bob.data(joined, items[2]) is not None)
        alice.edit(space, items[0], SetDeleted(True))
        await space.create_epoch()
        late = bob.add(joined, title="Salt")
        await until(lambda: alice.data(space, late) is not None and joined.root_id == space.root_id)
        for host in (alice, bob):
            await host.stop()
            assert (await examine_folder(tmp_path / host.name)).findings == ()


FLIPS = int(os.environ.get("DXOS_FLIPS", "25"))


@pytest.mark.slow
@pytest.mark.timeout(60 + 2 * FLIPS)
@pytest.mark.parametrize("seed", range(FLIPS))
async def test_whatever_bits_flip_a_repair_leaves_only_what_it_names(
    profile: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    good = {row[0]: row[2:] for row in contents(profile)}
    chance = random.Random(seed)
    content = bytearray((profile / DATABASE_NAME).read_bytes())
    for _ in range(chance.choice([1, 1, 8, 64])):
        content[chance.randrange(100, len(content))] ^= 1 << chance.randrange(8)
    (profile / DATABASE_NAME).write_bytes(content)
    promised = {one.outcome for one in (await examine_folder(profile)).findings}
    first = await examine_folder(profile, repair=True)
    if promised == {Outcome.REPAIRABLE}:
        assert first.findings[0].outcome is not Outcome.LOST
    again = await examine_folder(profile)
    left = {(one.code.replace("quarantined", "damaged"), str(one.detail)) for one in again.findings}
    named = {(one.code.replace("quarantined", "damaged"), str(one.detail)) for one in first.findings}
    assert left <= named
    assert {one.outcome for one in again.findings} <= {Outcome.SET_ASIDE, Outcome.LOST}
    if not first.unresolved_count:
        found = {row[0]: row[2:] for row in contents(profile)}
        lost = set(good) - set(found)
        assert {key: row for key, row in good.items() if key not in lost} == found
        assert not lost or first.findings[0].code == "file.damaged"
