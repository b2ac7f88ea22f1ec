import contextlib
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dxos.errors import (
    ClosedError,
    CorruptionError,
    FencedError,
    ProfileVersionError,
    StorageAccessError,
    StorageFullError,
)
from dxos.limits import BACKUPS_MAX, WAL_CHECKPOINT_BYTES
from dxos.store.database import Database
from dxos.store.schema import MIGRATIONS

FIRST = (("CREATE TABLE things (name TEXT)",),)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "d.sqlite", migrations=FIRST)


def names(database: Database) -> list[str]:
    return [row[0] for row in database.rows("SELECT name FROM things ORDER BY rowid")]


def put(database: Database, name: str) -> None:
    database.run("INSERT INTO things VALUES (?)", (name,))


def test_what_was_committed_is_there_after_reopening(database: Database, tmp_path: Path) -> None:
    with database.transaction():
        put(database, "milk")
    database.close()
    assert names(Database(tmp_path / "d.sqlite", migrations=FIRST)) == ["milk"]


def test_an_error_undoes_the_whole_transaction(database: Database) -> None:
    def write() -> None:
        with database.transaction():
            put(database, "milk")
            with database.transaction():
                put(database, "bread")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write()
    assert names(database) == []
    assert not database.in_transaction


def test_an_error_swallowed_between_two_blocks_undoes_the_outer_one_too(database: Database) -> None:
    def write_half() -> None:
        with database.transaction():
            put(database, "half")
            raise ValueError("stop")

    def write() -> None:
        with database.transaction():
            put(database, "milk")
            with contextlib.suppress(ValueError):
                write_half()

    with pytest.raises(ValueError, match="stop"):
        write()
    assert names(database) == []


def test_nested_blocks_commit_once_with_the_outermost(database: Database, tmp_path: Path) -> None:
    other = Database(tmp_path / "d.sqlite", migrations=FIRST)
    with database.transaction():
        with database.transaction():
            put(database, "milk")
        assert names(other) == []
    assert names(other) == ["milk"]


def test_the_file_and_the_log_are_readable_by_their_owner_only(database: Database, tmp_path: Path) -> None:
    put(database, "milk")
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"d.sqlite": 0o600, "d.sqlite-wal": 0o600, "d.sqlite-shm": 0o600}


def test_a_newer_version_is_refused_with_both_numbers(database: Database, tmp_path: Path) -> None:
    database.run("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(ProfileVersionError) as caught:
        Database(tmp_path / "d.sqlite", migrations=FIRST)
    assert caught.value.detail == {"profile_version": 7, "own_version": 1}


def test_migrations_run_in_order_each_after_a_backup_and_the_last_backups_stay(
    database: Database, tmp_path: Path
) -> None:
    put(database, "milk")
    database.close()
    steps = [(f"ALTER TABLE things ADD COLUMN c{i} TEXT",) for i in range(BACKUPS_MAX + 1)]
    database = Database(tmp_path / "d.sqlite", migrations=[*FIRST, *steps])
    assert names(database) == ["milk"]
    backups = database.backups()
    assert [path.name for path in backups] == [f"d.sqlite.v{i:04}.backup" for i in range(2, BACKUPS_MAX + 2)]
    assert {path.stat().st_mode & 0o777 for path in backups} == {0o600}
    old = Database(backups[0], migrations=[*FIRST, *steps[:1]])
    assert names(old) == ["milk"]


def test_a_migration_that_fails_leaves_the_old_version(database: Database, tmp_path: Path) -> None:
    put(database, "milk")
    database.close()
    bad = ("CREATE TABLE more (name TEXT)", "INSERT INTO more VALUES (1, 2)")
    with pytest.raises(AssertionError):
        Database(tmp_path / "d.sqlite", migrations=[*FIRST, bad])
    database = Database(tmp_path / "d.sqlite", migrations=FIRST)
    assert names(database) == ["milk"]
    assert database.rows("SELECT name FROM sqlite_master WHERE name = 'more'") == []


@pytest.mark.parametrize("content", [b"SQLite format 3\0 but not quite", b"\0" * 8192, os.urandom(8192)])
def test_a_file_that_is_no_database_is_corrupt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.sqlite").write_bytes(content)
    with pytest.raises(CorruptionError):
        Database(tmp_path / "d.sqlite")
    assert (tmp_path / "d.sqlite").read_bytes() == content


def test_another_programs_database_is_refused_and_untouched(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "d.sqlite") as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = (tmp_path / "d.sqlite").read_bytes()
    with pytest.raises(CorruptionError, match="another program"):
        Database(tmp_path / "d.sqlite")
    assert (tmp_path / "d.sqlite").read_bytes() == before


def filled(path: Path) -> None:
    database = Database(path, migrations=FIRST)
    database.run_many("INSERT INTO things VALUES (?)", [("x" * 500,) for _ in range(200)])
    database.close()


def test_a_truncated_file_is_corrupt(tmp_path: Path) -> None:
    filled(tmp_path / "d.sqlite")
    os.truncate(tmp_path / "d.sqlite", 3 * 4096)
    with pytest.raises(CorruptionError):
        names(Database(tmp_path / "d.sqlite", migrations=FIRST))


def test_flipped_bits_in_the_pages_structure_are_found_by_the_check(tmp_path: Path) -> None:
    path = tmp_path / "d.sqlite"
    filled(path)
    content = bytearray(path.read_bytes())
    for page in range(2, 6):
        content[page * 4096 : page * 4096 + 16] = bytes(byte ^ 0x55 for byte in content[page * 4096 : page * 4096 + 16])
    path.write_bytes(content)
    with pytest.raises(CorruptionError):
        Database(path, migrations=FIRST).check()


def test_after_an_unclean_end_the_file_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "d.sqlite"
    filled(path)
    database = Database(path, migrations=FIRST)
    put(database, "late")
    (tmp_path / "copy.sqlite-wal").write_bytes((tmp_path / "d.sqlite-wal").read_bytes())
    content = bytearray(path.read_bytes())
    content[3 * 4096 : 3 * 4096 + 16] = b"\x55" * 16
    (tmp_path / "copy.sqlite").write_bytes(content)
    with pytest.raises(CorruptionError):
        Database(tmp_path / "copy.sqlite", migrations=FIRST)


def test_a_full_disk_refuses_the_batch_and_reads_go_on(database: Database) -> None:
    put(database, "milk")
    pages = database.rows("PRAGMA page_count")[0][0]
    database.rows(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StorageFullError):
        database.run_many("INSERT INTO things VALUES (?)", [("x" * 4000,) for _ in range(100)])
    assert names(database) == ["milk"]
    database.rows(f"PRAGMA max_page_count = {pages + 1000}")
    put(database, "bread")
    assert names(database) == ["milk", "bread"]


def test_a_missing_folder_is_an_access_error(tmp_path: Path) -> None:
    with pytest.raises(StorageAccessError):
        Database(tmp_path / "nowhere" / "d.sqlite")


def test_a_link_in_the_files_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.sqlite").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageAccessError, match="link"):
        Database(tmp_path / "d.sqlite")
    assert not (tmp_path / "elsewhere").exists()


def test_a_closed_database_says_so_and_closes_twice(database: Database) -> None:
    database.close()
    database.close()
    with pytest.raises(ClosedError):
        database.rows("SELECT 1")
    assert repr(database) == "<Database d.sqlite closed>"


def test_syncing_keeps_the_log_short(database: Database, tmp_path: Path) -> None:
    for _ in range(3):
        for _ in range(WAL_CHECKPOINT_BYTES // 100_000 + 1):
            put(database, "x" * 100_000)
        database.sync_wal()
    assert database.wal_bytes <= 2 * WAL_CHECKPOINT_BYTES


def test_what_is_in_the_log_is_durable_also_where_there_is_no_room_to_copy_it(database: Database) -> None:
    resource = pytest.importorskip("resource", reason="needs a limit of the size of files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for _ in range(WAL_CHECKPOINT_BYTES // 100_000 + 1):
        put(database, "x" * 100_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        database.sync_wal()
        with pytest.raises(StorageFullError):
            database.checkpoint()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert database.checkpoint()


def test_syncing_reaches_the_very_file_that_holds_the_commits_and_a_new_ones_name(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    directories: list[Path] = []
    monkeypatch.setattr("dxos.store.database.sync_file", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    monkeypatch.setattr("dxos.store.database.sync_directory", directories.append)
    put(database, "milk")
    database.sync_wal()
    database.sync_wal()
    assert synced == [(tmp_path / "d.sqlite-wal").stat().st_ino] * 2
    assert directories == [tmp_path]


def test_a_worker_thread_syncs_while_the_loops_thread_commits(database: Database) -> None:
    def sync() -> None:
        for _ in range(20):
            database.sync_wal()
            database.checkpoint()

    count = 0
    with ThreadPoolExecutor(1) as threads:
        syncing = threads.submit(sync)
        while not syncing.done() or count < 100:
            put(database, f"{count} " + "x" * 1000)
            count += 1
        syncing.result()
    assert len(names(database)) == count
    assert database.checkpoint()


def test_a_failed_sync_is_final(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    put(database, "milk")
    database.sync_wal()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("dxos.store.database.sync_file", fail)
        with pytest.raises(StorageFullError):
            database.sync_wal()
    with pytest.raises(StorageFullError, match="earlier"):
        database.sync_wal()


def test_a_memory_database_syncs_and_checkpoints_without_a_file() -> None:
    database = Database(None)
    database.sync_wal()
    assert database.checkpoint()
    assert database.wal_bytes == 0
    assert repr(database) == "<Database memory open>"


def test_a_new_file_has_the_newest_version(tmp_path: Path) -> None:
    database = Database(tmp_path / "d.sqlite")
    assert database.rows("PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert database.backups() == []


# --- Leadership -------------------------------------------------------------------------------------------------------


@pytest.fixture
def replaced(tmp_path: Path) -> Database:
    """A database whose holder woke up after another one had taken the profile over."""
    older, newer = Database(tmp_path / "d.sqlite"), Database(tmp_path / "d.sqlite")
    older.lead(3)
    older.run("INSERT INTO spaces (id) VALUES ('name')")
    newer.lead(4)
    newer.close()
    return older


@pytest.mark.parametrize(
    "write",
    [
        lambda one: one.run("DELETE FROM spaces"),
        lambda one: one.insert("INSERT INTO spaces (id) VALUES ('other')"),
        lambda one: one.run_many("INSERT INTO spaces (id) VALUES (?)", [("other",)]),
        lambda one: one.shrink(1),
        lambda one: one.lead(3),
    ],
)
def test_who_was_replaced_changes_nothing_also_outside_of_transactions(
    replaced: Database, write: Callable[[Database], object]
) -> None:
    with pytest.raises(FencedError):
        write(replaced)
    assert replaced.rows("SELECT id FROM spaces") == [("name",)]
    replaced.lead(5)
    write(replaced)


def test_a_replacement_waits_for_a_transaction_that_is_under_way(tmp_path: Path) -> None:
    older, newer = Database(tmp_path / "d.sqlite"), Database(tmp_path / "d.sqlite")
    older.lead(3)
    with ThreadPoolExecutor(1) as threads:
        with older.transaction():
            older.run("INSERT INTO spaces (id) VALUES ('name')")
            leading = threads.submit(newer.lead, 4)
            with pytest.raises(TimeoutError):
                leading.result(0.05)
        leading.result(5)
    assert newer.rows("SELECT id FROM spaces") == [("name",)], "what was acknowledged is there"
    with pytest.raises(FencedError):
        older.run("DELETE FROM spaces")


def test_a_leadership_that_could_not_be_noted_is_noted_with_the_next_change(tmp_path: Path) -> None:
    database = Database(tmp_path / "d.sqlite")
    database.lead(3)
    with database.transaction():
        database.lead(4)
    database.run("INSERT INTO spaces (id) VALUES ('name')")
    assert database.rows("SELECT id FROM leadership") == [(4,)]


def test_a_leadership_that_another_host_had_is_refused_also_when_the_number_is_the_same(tmp_path: Path) -> None:
    first = Database(tmp_path / "d.sqlite")
    first.lead(2)
    first.close()
    second = Database(tmp_path / "d.sqlite")
    with pytest.raises(FencedError):
        second.lead(2)
    second.lead(3)
    second.close()
