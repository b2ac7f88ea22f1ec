import os
from pathlib import Path

import pytest

from dxos.errors import ClosedError, CorruptionError, ProfileLockedError, StorageAccessError
from dxos.store.profile import RESETTING_NAME, Profile, reset_profile

root_only = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="changes a file's owner")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "alice"


def test_a_profile_keeps_what_was_put(path: Path) -> None:
    with Profile.open(path) as profile:
        profile.metadata.put_identity(b"alice")
        key = profile.keyring.create()
        profile.sync()
        assert repr(profile) == "<Profile alice open>"
    assert repr(profile) == "<Profile alice closed>"
    with Profile.open(str(path)) as profile:
        assert profile.metadata.identity() == b"alice"
        assert profile.keyring.has(key)


def test_only_the_owner_may_enter_even_a_folder_that_was_open(path: Path) -> None:
    path.mkdir(parents=True)
    path.chmod(0o755)
    with Profile.open(path):
        assert path.stat().st_mode & 0o777 == 0o700
        files = [one for one in path.iterdir() if one.is_file()]
        assert {one.stat().st_mode & 0o777 for one in files} == {0o600}


def test_a_second_opening_names_the_holder_and_succeeds_after_closing(path: Path) -> None:
    with Profile.open(path), pytest.raises(ProfileLockedError, match=str(os.getpid())) as caught:
        Profile.open(path)
    assert caught.value.detail == {"pid": os.getpid()}
    Profile.open(path).close()


def test_a_linked_folder_is_refused(path: Path) -> None:
    (path.parent / "real").mkdir(parents=True)
    path.symlink_to(path.parent / "real")
    with pytest.raises(StorageAccessError, match="link"):
        Profile.open(path)


def test_a_file_in_the_folders_place_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("x")
    with pytest.raises(StorageAccessError, match="no folder"):
        Profile.open(path)
    with pytest.raises(StorageAccessError, match="no folder"):
        Profile.open(path / "deeper")


@root_only
def test_another_users_folder_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    os.chown(path, 12345, -1)
    with pytest.raises(StorageAccessError, match="another user"):
        Profile.open(path)


def test_keys_without_a_database_are_reported_and_not_hidden_by_a_new_one(path: Path) -> None:
    with Profile.open(path) as profile:
        profile.keyring.create()
    os.truncate(path / "profile.sqlite", 0)
    with pytest.raises(CorruptionError, match="no database"):
        Profile.open(path)
    reset_profile(path)
    Profile.open(path).close()


def test_a_reset_deletes_data_and_keys_and_leaves_strangers_files(path: Path) -> None:
    profile = Profile.open(path)
    profile.metadata.put_identity(b"alice")
    profile.keyring.create()
    (path / "notes.txt").write_text("mine")
    profile.reset()
    assert sorted(one.name for one in path.iterdir()) == ["keyring", "lock", "notes.txt"]
    with pytest.raises(ClosedError):
        profile.reset()
    with Profile.open(path) as profile:
        assert profile.metadata.identity() is None
        assert profile.keyring.keys() == []


def test_a_reset_cut_short_is_finished_by_the_next_opening(path: Path) -> None:
    with Profile.open(path) as profile:
        profile.metadata.put_identity(b"alice")
        profile.keyring.create()
    (path / RESETTING_NAME).touch()
    with Profile.open(path) as profile:
        assert profile.metadata.identity() is None
        assert profile.keyring.keys() == []


def test_a_held_profile_is_not_reset_from_outside(path: Path) -> None:
    with Profile.open(path) as profile:
        profile.metadata.put_identity(b"alice")
        with pytest.raises(ProfileLockedError):
            reset_profile(path)
        assert profile.metadata.identity() == b"alice"


def test_a_profile_in_memory_forgets(path: Path) -> None:
    with Profile.open(None) as profile:
        key = profile.keyring.create()
        profile.metadata.put_identity(b"alice")
        profile.sync()
        assert profile.keyring.has(key)
        profile.reset()
    with Profile.open(None) as profile:
        assert profile.metadata.identity() is None
