"""The archive of 0.8.3: what is written is read, by tar too, and what is no archive is refused."""

import contextlib
import io
import json
import tarfile
import uuid
from typing import Any

import pytest

from dxos.echo.archive import ArchiveMetadata, ArchiveWriter, looks_like_archive, read_archive
from dxos.errors import DecodeError, LimitError, PeerError
from dxos.keys.ids import document_id

ROOT, OTHER = (document_id(uuid.UUID(int=number, version=4).bytes) for number in (1, 2))
METADATA = ArchiveMetadata(ROOT, "BSPACE", 5, "did:halo:B")


def archive(documents: dict[str, bytes] | None = None) -> bytes:
    writer = ArchiveWriter()
    for name, content in ({ROOT: b"root", OTHER: b"x" * 1_000} if documents is None else documents).items():
        writer.add(name, content)
    return writer.finish(METADATA)


def tar_of(files: dict[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def with_metadata(document: Any) -> bytes:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return tar_of({f"documents/{ROOT}.bin": b"root", "metadata.json": content})


def test_what_is_written_is_read() -> None:
    metadata, documents = read_archive(archive())
    assert metadata == METADATA
    assert documents == {ROOT: b"root", OTHER: b"x" * 1_000}
    assert looks_like_archive(archive())
    assert not looks_like_archive(b"{}")


def test_it_has_the_files_and_the_metadata_of_the_original() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive())) as tar:
        assert tar.getnames() == [f"documents/{ROOT}.bin", f"documents/{OTHER}.bin", "metadata.json"]
        said = tar.extractfile("metadata.json")
        assert said is not None
        assert json.load(said) == {
            "version": 1,
            "createdAt": 5,
            "exportedBy": "did:halo:B",
            "originalSpaceId": "BSPACE",
            "echo": {"currentRootUrl": f"automerge:{ROOT}"},
        }


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_other_writers_add_is_passed_over(format: int) -> None:
    files = {f"documents/{ROOT}.bin": b"root", "notes/ä" * 20: b"more", "metadata.json": b""}
    files["metadata.json"] = json.dumps({"version": 1, "echo": {"currentRootUrl": f"automerge:{ROOT}"}}).encode()
    metadata, documents = read_archive(tar_of(files, format))
    assert metadata == ArchiveMetadata(ROOT)
    assert documents == {ROOT: b"root"}


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"not a tar",
        b"x" * 2_000,
        bytes(1_024),
        archive()[:1_500],
        archive({OTHER: b"x"}),
        tar_of({f"documents/{ROOT}.bin": b"root"}),
        tar_of({"documents/../../etc/passwd.bin": b"", "metadata.json": b"{}"}),
        with_metadata(b"{"),
        with_metadata(b"[" * 50_000),
        with_metadata({"version": 2, "echo": {"currentRootUrl": f"automerge:{ROOT}"}}),
        with_metadata({"version": 1}),
        with_metadata({"version": 1, "echo": {"currentRootUrl": ROOT}}),
        with_metadata([1]),
    ],
)
def test_what_is_no_archive_is_refused(bad: bytes) -> None:
    with pytest.raises(DecodeError):
        read_archive(bad)


def test_an_archive_cannot_be_larger_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = archive()
    monkeypatch.setattr("dxos.echo.archive.ARCHIVE_BYTES_MAX", 1_000)
    with pytest.raises(LimitError):
        read_archive(made)
    with pytest.raises(LimitError):
        ArchiveWriter().add(ROOT, bytes(1_001))


def test_no_damage_raises_anything_else() -> None:
    made = archive()
    for position in range(0, 1_024, 3):
        damaged = bytearray(made)
        damaged[position] ^= 0x55
        with contextlib.suppress(PeerError):
            read_archive(bytes(damaged))
