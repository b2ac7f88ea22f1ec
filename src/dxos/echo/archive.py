"""The space archive of 0.8.3: a space's documents in one tar file, which either implementation writes and reads.

    documents/<document id>.bin   one Automerge document each, the root among them
    metadata.json                 {version: 1, createdAt, exportedBy?, originalSpaceId, echo: {currentRootUrl}}

The tar is read here and not by a library: only plain files are wanted, and what is read comes from elsewhere.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, Final, final

from msgspec import Struct

from dxos.echo.layout import DOCUMENT_URL_PREFIX, is_document_id
from dxos.errors import DecodeError, LimitError
from dxos.limits import ARCHIVE_BYTES_MAX, ARCHIVE_METADATA_BYTES_MAX, DOCUMENTS_PER_SPACE_MAX

VERSION: Final = 1
_METADATA: Final = "metadata.json"
_FOLDER: Final = "documents/"
_SUFFIX: Final = ".bin"
_BLOCK: Final = 512
_FILE_TYPES: Final = (b"0", b"\0")
_DATA_TYPES: Final = (*_FILE_TYPES, b"x", b"g", b"L", b"K")  # Whose headers are followed by content.
_NAME, _SIZE, _TYPE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(156, 157), slice(148, 156)
_NAME_PREFIX, _MAGIC = slice(345, 500), slice(257, 262)


@final
class ArchiveMetadata(Struct, frozen=True):
    """What an archive says of itself."""

    root_id: str  # The document id of the space's root.
    original_space_id: str | None = None
    created_ms: int | None = None  # Milliseconds since 1970.
    exported_by: str | None = None  # The DID of an identity.


@final
class ArchiveWriter:
    """Makes one archive; documents are added one by one, so that nothing need hold all of them twice."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        # The plainest form, which every reader of tar files knows.
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, document_id: str, content: bytes) -> None:
        """Add a document.

        Raises:
            LimitError: The archive would become too large.
        """
        if self._buffer.tell() + len(content) > ARCHIVE_BYTES_MAX:
            raise LimitError("The space is too large for an archive.", bytes_max=ARCHIVE_BYTES_MAX)
        self._put(f"{_FOLDER}{document_id}{_SUFFIX}", content)

    def finish(self, metadata: ArchiveMetadata) -> bytes:
        """The archive; nothing can be added after this."""
        said = {
            "version": VERSION,
            "createdAt": metadata.created_ms,
            "exportedBy": metadata.exported_by,
            "originalSpaceId": metadata.original_space_id,
        }
        document: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
        document["echo"] = {"currentRootUrl": DOCUMENT_URL_PREFIX + metadata.root_id}
        self._put(_METADATA, json.dumps(document).encode())
        self._tar.close()
        return self._buffer.getvalue()

    def _put(self, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))


def read_archive(untrusted: bytes) -> tuple[ArchiveMetadata, dict[str, bytes]]:
    """What an archive says of itself, and its documents by id; the documents are not parsed.

    Raises:
        DecodeError: It is no such archive, or a newer one.
        LimitError: It is larger than the limits allow.
    """
    if len(untrusted) > ARCHIVE_BYTES_MAX:
        raise LimitError("An archive is too large.", bytes_max=ARCHIVE_BYTES_MAX)
    documents: dict[str, bytes] = {}
    metadata: ArchiveMetadata | None = None
    for name, content in _files(untrusted):
        if name == _METADATA:
            metadata = _read_metadata(content)
        elif name.startswith(_FOLDER):
            document_id = name.removeprefix(_FOLDER).removesuffix(_SUFFIX)
            if not is_document_id(document_id) or document_id in documents:
                raise DecodeError(f"An archive with a document of the id {document_id!r:.60}")
            documents[document_id] = bytes(content)
            if len(documents) > DOCUMENTS_PER_SPACE_MAX:
                raise LimitError("An archive has too many documents.", count_max=DOCUMENTS_PER_SPACE_MAX)
    if metadata is None:
        raise DecodeError("No space archive: it has no metadata.json.")
    if metadata.root_id not in documents:
        raise DecodeError("An archive without the space's root document.")
    return metadata, documents


def looks_like_archive(untrusted: bytes) -> bool:
    """Whether bytes begin as a tar file does."""
    return len(untrusted) >= _BLOCK and untrusted[_MAGIC] == b"ustar"


def _read_metadata(untrusted: memoryview) -> ArchiveMetadata:
    if len(untrusted) > ARCHIVE_METADATA_BYTES_MAX:
        raise LimitError("An archive's metadata is too large.", bytes_max=ARCHIVE_METADATA_BYTES_MAX)
    try:
        document = json.loads(bytes(untrusted))
    except (ValueError, RecursionError):
        raise DecodeError("An archive's metadata is no JSON.") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise DecodeError("An archive of a version that is not known here.")
    match document.get("echo"):
        case {"currentRootUrl": str(url)} if url.startswith(DOCUMENT_URL_PREFIX):
            root_id = url.removeprefix(DOCUMENT_URL_PREFIX)
        case _:
            raise DecodeError("An archive that does not name the space's root document.")
    return ArchiveMetadata(
        root_id,
        _optional(document, "originalSpaceId", str),
        _optional(document, "createdAt", int),
        _optional(document, "exportedBy", str),
    )


def _optional(document: Mapping[str, Any], name: str, type_: type[Any]) -> Any:
    value = document.get(name)
    return value if type(value) is type_ else None


def _files(untrusted: bytes) -> Iterator[tuple[str, memoryview]]:
    """The plain files of a tar; other entries, such as folders and the notes of newer writers, are left out."""
    view, at = memoryview(untrusted), 0
    while at + _BLOCK <= len(untrusted):
        header = untrusted[at : at + _BLOCK]
        if not any(header):
            return
        if _number(header[_CHECKSUM]) != sum(header) - sum(header[_CHECKSUM]) + len(header[_CHECKSUM]) * 0x20:
            raise DecodeError("No tar file, or a damaged one.")
        at += _BLOCK
        size = _number(header[_SIZE]) if header[_TYPE] in _DATA_TYPES else 0
        if at + size > len(untrusted):
            raise DecodeError("A tar file that ends too early.")
        if header[_TYPE] in _FILE_TYPES:
            yield _name(header), view[at : at + size]
        at += -(-size // _BLOCK) * _BLOCK
    raise DecodeError("A tar file that ends too early.")


def _name(header: bytes) -> str:
    name = _text(header[_NAME])
    prefix = _text(header[_NAME_PREFIX]) if header[_MAGIC] == b"ustar" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def _number(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not all(0x30 <= one <= 0x37 for one in digits):
        raise DecodeError("A tar file with a number that cannot be read.")
    return int(digits or b"0", 8)
