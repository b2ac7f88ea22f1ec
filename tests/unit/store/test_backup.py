"""A profile in one sealed file: it comes back whole, or not at all."""

import json
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dxos.errors import (
    CorruptionError,
    DxosError,
    InvalidValueError,
    PassphraseError,
    ProfileLockedError,
    ProfileVersionError,
    StorageAccessError,
    UsageError,
)
from dxos.keys import PublicKey
from dxos.limits import BACKUP_FRAME_BYTES
from dxos.store import backup
from dxos.store.database import Database
from dxos.store.profile import DATABASE_NAME, Profile
from dxos.store.schema import MIGRATIONS

COST = 4  # Guessing is cheap in tests.
SECRET = "pässwort"
Progress = list[tuple[int, int]]


def quiet(done: int, total: int) -> None:
    """Nobody wants to know."""


def write(profile: Path, target: Path, tell: Callable[[int, int], None] = quiet) -> int:
    return backup.write_backup(profile, target, SECRET, tell, now_ms=5, cost_log2=COST)


def restore(source: Path, profile: Path, passphrase: str = SECRET) -> None:
    backup.restore_backup(source, profile, passphrase, quiet)


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.fixture
def keys(tmp_path: Path) -> list[PublicKey]:
    """A profile in the folder `old`, larger than a few frames."""
    with Profile.open(tmp_path / "old") as profile:
        profile.metadata.put_setting("large", bytes(range(256)) * 1_024)
        return sorted(profile.keyring.create() for _ in range(3))


def test_a_profile_comes_back_whole(tmp_path: Path, keys: list[PublicKey]) -> None:
    seen: Progress = []
    size = write(tmp_path / "old", tmp_path / "file", lambda done, total: seen.append((done, total)))
    assert (tmp_path / "file").stat().st_size == size
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
    restore(tmp_path / "file", tmp_path / "new")
    with Profile.open(tmp_path / "new") as profile:
        assert profile.metadata.setting("large") == bytes(range(256)) * 1_024
        assert profile.keyring.keys() == keys
    left = {path.name for path in (tmp_path / "old").iterdir()}
    assert not [name for name in left if name.endswith((".copy", ".draft"))]


def test_it_can_be_written_while_the_profile_is_used(tmp_path: Path, keys: list[PublicKey]) -> None:
    with Profile.open(tmp_path / "old") as profile:
        thread = threading.Thread(target=write, args=(tmp_path / "old", tmp_path / "file"))
        thread.start()
        for number in range(50):
            profile.metadata.put_setting(f"n{number}", b"x")
        thread.join()
        profile.metadata.put_setting("late", b"x")
    restore(tmp_path / "file", tmp_path / "new")
    with Profile.open(tmp_path / "new") as profile:
        present = [profile.metadata.setting(f"n{number}") is not None for number in range(50)]
        assert present == sorted(present, reverse=True), "it is of one moment"
        assert profile.metadata.setting("late") is None
        profile.database.check()


def test_nothing_in_the_file_can_be_read_without_the_passphrase(tmp_path: Path, keys: list[PublicKey]) -> None:
    write(tmp_path / "old", tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    for secret in (b"SQLite format", b"keyring", keys[0].hex.encode(), bytes(keys[0]), SECRET.encode()):
        assert secret not in content
    write(tmp_path / "old", tmp_path / "again")
    assert (tmp_path / "again").read_bytes()[40:] != content[40:]


def test_another_passphrase_is_told_from_damage(tmp_path: Path, keys: list[PublicKey]) -> None:
    write(tmp_path / "old", tmp_path / "file")
    with pytest.raises(PassphraseError):
        restore(tmp_path / "file", tmp_path / "new", "passwort")
    assert not (tmp_path / "new").exists()
    restore(tmp_path / "file", tmp_path / "new", "pa\u0308sswort")  # The same, as another keyboard sends it.


def test_whatever_is_changed_or_cut_off_it_is_refused_and_nothing_stays(tmp_path: Path, keys: list[PublicKey]) -> None:
    write(tmp_path / "old", tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    frame, header = BACKUP_FRAME_BYTES + 16, backup._HEADER.size + backup._CHECKSUM_BYTES
    frames = [content[at : at + frame] for at in range(header, len(content), frame)]
    changed = [flipped(content, at) for at in (9, 20, 50, 62, header, len(content) - 1)]
    cut = [content[:at] for at in (header - 1, header, header + frame, header + 2 * frame, len(content) - 1)]
    moved = [
        [frames[1], frames[0], *frames[2:]],
        [frames[0], *frames[2:]],
        [*frames, frames[-1]],
        [frames[-1]],
    ]
    for damaged in [*changed, *cut, *(content[:header] + b"".join(one) for one in moved), content + b"x"]:
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(CorruptionError):
            restore(tmp_path / "damaged", tmp_path / "new")
        assert [path.name for path in (tmp_path / "new").rglob("*") if path.is_file()] in ([], ["lock"])
    restore(tmp_path / "file", tmp_path / "new")


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(InvalidValueError):
        restore(tmp_path / "file", tmp_path / "new")
    with pytest.raises(StorageAccessError):
        restore(tmp_path / "missing", tmp_path / "new")


def test_a_profile_is_never_restored_over_another(tmp_path: Path, keys: list[PublicKey]) -> None:
    write(tmp_path / "old", tmp_path / "file")
    with pytest.raises(UsageError):
        restore(tmp_path / "file", tmp_path / "old")
    with Profile.open(tmp_path / "old") as profile:
        assert profile.keyring.keys() == keys
    with Profile.open(tmp_path / "new"), pytest.raises(ProfileLockedError):
        restore(tmp_path / "file", tmp_path / "new")


def test_a_backup_replaces_a_backup_and_nothing_else(tmp_path: Path, keys: list[PublicKey]) -> None:
    write(tmp_path / "old", tmp_path / "file")
    write(tmp_path / "old", tmp_path / "file")
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(StorageAccessError):
        write(tmp_path / "old", tmp_path / "letter")
    assert (tmp_path / "letter").read_text() == "dear"
    with pytest.raises(InvalidValueError):
        backup.write_backup(tmp_path / "old", tmp_path / "other", "", quiet, now_ms=5, cost_log2=COST)
    assert not (tmp_path / "other").exists()


def test_a_restore_that_died_leaves_a_profile_that_opens_empty(tmp_path: Path, keys: list[PublicKey]) -> None:
    write(tmp_path / "old", tmp_path / "file")

    class Died(BaseException):
        pass

    def die(done: int, total: int) -> None:
        raise Died

    with pytest.raises(Died):
        backup.restore_backup(tmp_path / "file", tmp_path / "new", SECRET, die)
    # As after a kill: the mark and parts of the files are there.
    (tmp_path / "new" / "resetting").touch()
    (tmp_path / "new" / DATABASE_NAME).write_bytes(b"half")
    restore(tmp_path / "file", tmp_path / "new")
    with Profile.open(tmp_path / "new") as profile:
        assert profile.keyring.keys() == keys


@pytest.mark.parametrize(
    ("manifest", "error"),
    [
        ({"version": 1, "schema": 999, "files": []}, ProfileVersionError),
        ({"version": 2}, ProfileVersionError),
        ({"version": 1, "schema": 1, "files": []}, CorruptionError),
        ({"version": 1, "schema": 1, "files": [[DATABASE_NAME, 0], ["../escaped", 0]]}, CorruptionError),
        ({"version": 1, "schema": 1, "files": [[DATABASE_NAME, 0], ["keyring/../../escaped", 0]]}, CorruptionError),
        ({"version": 1, "schema": 1, "files": [[DATABASE_NAME, -1]]}, CorruptionError),
        ({"version": 1, "schema": 1, "files": [[DATABASE_NAME, 0], [DATABASE_NAME, 0]]}, CorruptionError),
        ([], CorruptionError),
    ],
)
def test_what_somebody_with_the_passphrase_made_up_is_refused(
    tmp_path: Path, manifest: object, error: type[DxosError]
) -> None:
    header, seal = backup._new_seal(backup._secret(SECRET), COST)
    with (tmp_path / "file").open("wb") as out:
        out.write(header)
        sealer = backup._Sealer(out, seal)
        content = json.dumps(manifest).encode()
        sealer.write(struct.pack(">I", len(content)) + content)
        sealer.finish()
    with pytest.raises(error):
        restore(tmp_path / "file", tmp_path / "new")
    assert not (tmp_path / "escaped").exists()


@pytest.mark.slow
def test_a_profile_is_backed_up_sealed_before_it_is_migrated(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir(mode=0o700)
    database = Database(folder / "profile.sqlite", migrations=MIGRATIONS[:1])
    database.run("INSERT INTO types (name) VALUES ('dxn:type:example.com/type/Task:0.1.0')")
    database.close()
    write_sealed = backup.sealed_writer(folder, SECRET)
    with Profile.open(folder, write_sealed=write_sealed) as profile:
        (kept,) = profile.database.backups()
    assert kept.name == "profile.sqlite.v0001.sealed"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert backup.is_backup(kept)
    assert b"example.com" not in kept.read_bytes()
    assert SECRET not in repr(write_sealed)
    restore(kept, tmp_path / "new")
    with Profile.open(tmp_path / "new") as restored:
        assert restored.database.rows("SELECT name FROM types") == [("dxn:type:example.com/type/Task:0.1.0",)]
        assert [one.suffix for one in restored.database.backups()] == [".backup"]  # Migrated without a passphrase.


@pytest.mark.slow
def test_a_profile_whose_backup_cannot_be_sealed_is_not_migrated(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir(mode=0o700)
    Database(folder / "profile.sqlite", migrations=MIGRATIONS[:1]).close()
    (folder / "profile.sqlite.v0001.sealed").write_text("somebody else's")
    with pytest.raises(StorageAccessError):
        Profile.open(folder, write_sealed=backup.sealed_writer(folder, SECRET))
    database = Database(folder / "profile.sqlite", migrations=MIGRATIONS[:1])
    assert database.rows("PRAGMA user_version") == [(1,)]
    database.close()
