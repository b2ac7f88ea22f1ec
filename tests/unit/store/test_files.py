import errno
from pathlib import Path

import pytest

from dxos.errors import CorruptionError, StorageAccessError, StorageFullError
from dxos.store import files
from dxos.store.files import map_os_error, read_private_file, write_private_file


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (errno.ENOSPC, StorageFullError, "free some space"),
        (errno.EDQUOT, StorageFullError, "free some space"),
        (errno.EIO, StorageFullError, "check it"),
        (errno.EROFS, StorageAccessError, "read-only"),
        (errno.ENOTDIR, StorageAccessError, "no folder"),
        (errno.ELOOP, StorageAccessError, "link"),
        (errno.EMFILE, StorageAccessError, "too many files"),
        (errno.EACCES, StorageAccessError, "permissions"),
    ],
)
def test_each_error_of_the_system_says_what_to_do(number: int, kind: type[Exception], advice: str) -> None:
    error = map_os_error(OSError(number, "x"), "write")
    assert type(error) is kind
    assert advice in str(error)
    assert error.detail == {"reason": errno.errorcode[number]}


def test_a_failed_write_leaves_the_old_content_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_private_file(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "x")

    monkeypatch.setattr(files, "sync_file", fail)
    with pytest.raises(StorageFullError):
        write_private_file(path, b"new")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_reading_has_a_bound_and_follows_no_link(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    write_private_file(path, b"12345")
    link.symlink_to(path)
    assert read_private_file(path, bytes_max=5) == b"12345"
    assert read_private_file(tmp_path / "none", bytes_max=5) is None
    with pytest.raises(CorruptionError):
        read_private_file(path, bytes_max=4)
    with pytest.raises(StorageAccessError, match="link"):
        read_private_file(link, bytes_max=5)
